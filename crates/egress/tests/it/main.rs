//! A gate with real sockets on both sides: a sandbox's, and a host that answers what it got.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod attack;
mod brokering;
mod mutated;
mod requests;
mod told;
mod tunnels;
mod world;
