//! The tool manager: the only way from a model to an effect.
//!
//! A call is checked in one order: does the tool exist and is it granted, do the arguments fit its
//! schema, does the policy allow it, does a person have to say so. Only then is its intent put on
//! record, and only against that record does anything run. What comes back is cut, and cleared of
//! known secrets, before a model reads it.

mod builtin;
pub mod catalogue;
pub mod gate;
pub mod job;
pub mod keeper;
mod label;
mod room;
pub mod run;

pub use catalogue::{ToolDefinition, is_known};
pub use gate::{Judged, ToolRequest};
pub use keeper::{Keeper, TokenEndpoints, Withheld};
pub use run::{Outcome, ToolManager, Verdict};
