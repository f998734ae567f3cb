//! The way out of a sandbox: what may leave, to where, and with which credential.
//!
//! `decide` says what a policy means for a connection and for a request; it does no I/O and holds no secret.
//! `gate` keeps to it, between the sockets of a sandbox and the world. Whoever is asked for a secret decides
//! whether there is one; the gate asks again when a minute has passed.

mod authority;
mod connection;
pub mod decide;
mod dns;
mod echo;
pub mod fetch;
mod gate;
mod hello;
mod journal;
mod lease;
mod meter;
mod names;
mod outgoing;
mod own;
mod path;
mod placeholder;
mod query;
mod refused;
mod request;
mod shares;
mod sigv4;
mod tunnel;
mod upstream;

pub use authority::AuthorityError;
pub use decide::{Depth, Others, Passage, Policy, Request};
pub use gate::{Door, Gate, GateError, Listeners, Opening, RESOLVER_THREADS, Settings, Trust};
pub use journal::{Entry, Kind, Line};
pub use lease::{Ask, Lease};
pub use meter::Limits;
pub use names::Names;
pub use own::OwnAddresses;
pub use placeholder::{NoChance, Placeholders};
pub use refused::Refused;
