//! The `linux` backend. As root the native launcher is tested directly and the
//! whole suite runs a second time as an unprivileged user, by bubblewrap; see
//! `unprivileged`.

mod attacks;
mod basics;
mod ends;
mod files;
mod findings;
pub(crate) mod gate;
pub(crate) mod harness;
mod limits;
pub(crate) mod probe;
mod ready;
mod timing;
mod unprivileged;
#[cfg(debug_assertions)]
mod walls;
