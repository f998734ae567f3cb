//! The way out of a sandbox: what may leave, to where, and with which credential.
//!
//! `decide` says what a policy means for a connection and for a request; it does no I/O and holds no secret.

pub mod decide;
mod path;

pub use decide::{Depth, Passage, Policy, Refused, Request};
