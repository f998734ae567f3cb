//! Sandboxes: where the commands of agents run.
//!
//! This crate alone starts processes for tenants, and it alone contains
//! `unsafe`. It must never start a weaker sandbox than the one that was asked
//! for: what cannot be enforced is an error before the command runs.

pub mod helper;
pub mod host;
pub mod linux;
pub mod output;
pub mod sandboxes;

pub use sandboxes::{
    Backend, CpuDemand, Demand, HostUse, Inside, Ran, RanStatus, Run, Running, SandboxError, Sandboxes, Settings,
    Share, play_role,
};
