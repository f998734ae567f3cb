//! The wire formats of model APIs, and the calls to them.
//!
//! This is the only crate that calls a model, and the only one that knows what a provider's
//! JSON looks like. Everything else speaks [`Request`], [`Message`] and [`Event`]. It opens no
//! socket: a call goes by the server's one client, to the origin that the operator named.
//!
//! What it must never do:
//! - decide anything. Which tools exist, who approves, what is redacted and how much may be
//!   spent is settled by the caller; a tool call that comes back is a request, not a permission;
//! - let a credential out. A key reaches one header, marked sensitive, and no error, log line,
//!   `Debug` text or event; words of the far side are scrubbed of it before they are kept;
//! - trust the far side. Its answer is hostile input: sizes, depth and time are bounded, and
//!   fields that are not known are ignored or carried along, never acted on;
//! - repeat a call after a part of its answer was handed out.

mod anthropic;
mod blob;
mod call;
mod config;
mod credential;
mod endpoint;
mod error;
mod event;
mod failure;
#[cfg(test)]
mod hostile;
mod json;
mod message;
mod openai;
mod policy;
mod provider;
mod request;
mod scripted;
mod scrub;
mod sse;
mod veil;

pub use blob::Blob;
pub use config::{
    Api, Config, ConfigProblem, Effort, EncryptedReasoning, KeySource, Kind, PlainHttp, PromptCache, RetryConfig,
    TimeoutConfig,
};
pub use credential::Credential;
pub use error::{Fault, Limit, ModelError, ProviderText, TimeoutPhase};
pub use event::{Completion, Event, Finish, Usage};
pub use message::{
    AssistantMessage, AssistantPart, Message, Outcome, Raw, ToolCall, ToolInput, ToolResult, UserPart, WireFormat,
};
pub use policy::{Limits, Policy, Retry, Timeouts};
pub use provider::{BuildError, Provider};
pub use request::{Request, RequestProblem, Tool, ToolChoice};
pub use scripted::{Script, ScriptError, ScriptFailure};
