//! Sandboxes: where the commands of agents run.
//!
//! This crate alone starts processes for tenants, and it alone contains
//! `unsafe`. It must never start a weaker sandbox than the one that was asked
//! for: what cannot be enforced is an error before the command runs.

pub mod attack;
pub mod container;
mod demand;
mod error;
pub mod gate;
pub mod helper;
pub mod host;
pub mod linux;
pub mod output;
mod receipt;
mod running;
pub mod sandboxes;
mod workers;

pub use bailiwick_egress::fetch;
pub use demand::{Backend, CpuDemand, Demand, Finished, HostUse, Inside, NoRoom, Ran, RanStatus, Run, Share, Stream};
pub use error::SandboxError;
pub use receipt::Receipt;
pub use running::{Running, Seen};
pub use sandboxes::{Sandboxes, Settings};
pub use workers::Workers;
