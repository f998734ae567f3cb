//! Sandboxes: where the commands of agents run.
//!
//! This crate alone starts processes for tenants, and it alone contains
//! `unsafe`. It must never start a weaker sandbox than the one that was asked
//! for: what cannot be enforced is an error before the command runs.

pub mod helper;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod output;
