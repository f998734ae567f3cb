//! Agents at work: durable sessions, the loop of model and tools, and agents as files.
//!
//! A session is driven by at most one driver at a time, only while there is something to do; what is
//! between two events is in the store, never only in memory. The loop calls models through crate
//! `model` and acts through the tool manager, each time with the rights that the turn's caller has now.

pub mod definition;
mod driver;
mod event;
mod jobs;
pub mod message;
mod models;
mod notifications;
mod runtime;
mod schema;

pub use jobs::Wanted;
pub use models::{Models, OwnKey};
pub use notifications::{Notifier, NotifierParts};
pub use runtime::{Control, ControlAnswer, Incoming, IncomingPart, Resolution, Runtime, RuntimeError, RuntimeLimits};
