//! The HTTP edge: OpenViking's control plane under `/api/v1`, eve's sessions under `/eve/v1`, and the
//! few public pages beside them.
//!
//! A request passes the frame (request id, limits, panics, the words of errors), then the gate of its
//! route (credential, record), then a handler, which parses, calls one act and renders. Every route
//! stands in one table, [`route::table`], which registers it, describes it and says whose right it
//! needs; there is no other way to serve one. This crate must never read the database but through a
//! permit or a scope, take a tenant from a path, a header or a body, or show a cause to a caller.

mod api;
mod app;
mod auth;
mod body;
mod caller;
mod console;
mod error;
mod eve;
mod frame;
mod gate;
mod input;
mod json;
mod meters;
mod network;
mod oauth;
mod openapi;
mod presented;
mod public;
mod rate;
mod reply;
pub mod route;
mod serve;
mod sign_in;

pub use app::{App, AuthMode, Parts, Settings, Times};
pub use network::{Network, NetworkError};
pub use oauth::{Documents, OAuth, Registration};
pub use rate::Rates;
pub use route::router;
pub use serve::serve;
