//! The `linux` backend. As root the native launcher is tested directly and the
//! whole suite runs a second time as an unprivileged user, by bubblewrap; see
//! `unprivileged`.

mod attacks;
mod basics;
mod ends;
mod files;
mod findings;
mod gate;
mod harness;
mod limits;
mod probe;
mod timing;
mod unprivileged;
#[cfg(debug_assertions)]
mod walls;
