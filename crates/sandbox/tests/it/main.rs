//! Integration tests of the sandbox backends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[cfg(target_os = "linux")]
mod container;
#[cfg(target_os = "linux")]
mod linux;
mod shell;
