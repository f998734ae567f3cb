//! The decision: principal, verb, resource → permit or refusal.

pub(crate) mod policy;
mod record;
mod resource;
pub mod scope;
pub mod tool;
pub mod verb;

pub use policy::{AccountPolicies, Decision, PolicyError};
pub use record::{Journal, JournalError, Recorded, record};
pub use resource::{
    Account, Agent, Approval, Asks, During, Host, Job, Notification, Resource, Sandbox, SecretUse, Session, Space,
    ToolCall, User,
};
pub use scope::{HostPermit, Permit, Refusal, Scope};
pub use tool::{ToolVerdict, Unapproved};
pub use verb::Verb;
