//! The crash harness: it runs a real server under load, ends it with `kill -9` at any moment and at named
//! fail-points, starts it again on the same data, and compares what is there with what was acknowledged.
//!
//! A tool of development, not a part of the product. `cargo xtask crash` builds and runs it; tests of
//! crate `bailiwick` use it as a library. It must never touch a server that it has not started.

pub mod check;
pub mod client;
pub mod hardship;
pub mod history;
pub mod process;
pub mod random;
pub mod rounds;
pub mod settle;
pub mod tamper;
pub mod work;
pub mod world;
