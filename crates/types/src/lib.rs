//! The words of the house: ids, names, paths, roles, limits and agent definitions.
//!
//! Parsed once, here, and private inside, so that the rest of the code never handles a raw string
//! where it means an id. This crate does no I/O and must never learn to; what development builds alone have
//! for the crash harness (fail-points, a clock that jumps) is not in a release.

pub mod address;
pub mod agent;
pub mod client;
pub mod egress;
pub mod failpoint;
pub mod host;
pub mod id;
pub mod limits;
pub mod name;
pub mod notification;
pub mod path;
pub mod quota;
pub mod role;
pub mod secret;
pub mod time;

pub use agent::AgentDefinition;
pub use client::{ClientIdentifier, DocumentUrl};
pub use egress::Egress;
pub use host::{Destination, HostName};
pub use id::{
    ApplicationId, ApprovalId, CallId, ClientId, DeviceId, EventId, Incarnation, JobId, KeyId, PasskeyId, RequestId,
    SandboxId, ServerId, SessionId, SpaceId,
};
pub use name::{AccountName, AgentName, ModelName, NameError, SecretName, TargetName, ToolName, UserName};
pub use path::{PathError, WorkspacePath};
pub use quota::{Day, Exhausted, Quota, QuotaOverrides, Quotas};
pub use role::{GrantLevel, KeyScope, Role};
pub use secret::{LeaseTerm, SealedOf, SecretKind, UsedBy};
pub use time::Timestamp;
