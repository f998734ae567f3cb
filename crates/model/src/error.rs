//! What can go wrong with a call. `Display` is the public message: fixed words and a status
//! code, fit for any reader. What the provider wrote is kept apart in [`ProviderText`], because
//! it may name the operator's organisation; the caller decides who sees it.

use std::time::Duration;

use crate::{RequestProblem, ScriptFailure};

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The request breaks a rule of every model API. Nothing was sent.
    #[error("the request cannot be sent to a model: {0}")]
    Invalid(#[from] RequestProblem),
    /// The configured key cannot be a header's value. Nothing was sent.
    #[error("the configured key of the model provider has characters that no key can have")]
    KeyMalformed,
    /// The provider understood the request and refused it. Not worth a retry.
    #[error("the model provider refused the request (status {status})")]
    Rejected {
        /// The HTTP status, or the one that the reported error stands for.
        status: u16,
        /// The provider's words.
        message: ProviderText,
    },
    /// Too many requests, or too many tokens, in a short time.
    #[error("the model provider limits the rate of requests")]
    RateLimited {
        /// How long the provider asked to wait.
        retry_after: Option<Duration>,
    },
    /// The provider has no capacity at the moment.
    #[error("the model provider is overloaded")]
    Overloaded {
        /// How long the provider asked to wait.
        retry_after: Option<Duration>,
    },
    /// The provider failed.
    #[error("the model provider failed (status {status})")]
    Unavailable {
        /// The HTTP status, or 500 for a failure that was reported in the stream.
        status: u16,
    },
    /// No connection: name, address, TLS or refusal.
    #[error("the model provider cannot be reached")]
    Unreachable,
    /// The connection ended before the answer did.
    #[error("the connection to the model provider ended before the answer was complete")]
    Interrupted,
    /// It took too long.
    #[error("the model provider took too long: {phase}")]
    TimedOut {
        /// What was waited for.
        phase: TimeoutPhase,
    },
    /// The caller canceled.
    #[error("the call to the model was canceled")]
    Canceled,
    /// The answer is bigger than anything a model writes.
    #[error("the model provider sent more than is accepted: {limit}")]
    TooLarge {
        /// Which bound was passed.
        limit: Limit,
    },
    /// The answer does not follow the API.
    #[error("the model provider sent an answer that does not follow its API: {what}")]
    Protocol {
        /// What was wrong, in fixed words.
        what: &'static str,
    },
    /// The scripted model has no answer.
    #[error("the scripted model has no answer: {0}")]
    Script(#[from] ScriptFailure),
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutPhase {
    /// The connection.
    Connect,
    /// The beginning of the answer.
    FirstByte,
    /// The next piece of the answer.
    Idle,
    /// The whole answer, retries included.
    Total,
}

impl std::fmt::Display for TimeoutPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection in time",
            Self::FirstByte => "no beginning of an answer in time",
            Self::Idle => "the answer stopped coming",
            Self::Total => "no complete answer in time",
        })
    }
}

/// A bound on what is accepted from the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of one event.
    EventBytes,
    /// Bytes of the whole answer.
    ResponseBytes,
    /// JSON values in one event.
    EventValues,
    /// JSON values kept of one answer.
    KeptValues,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::EventBytes => "one event is too long",
            Self::ResponseBytes => "the answer is too long",
            Self::EventValues => "one event has too many parts",
            Self::KeptValues => "the answer has too many parts",
        })
    }
}

/// Who can do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever made the request: its size, its schema, its order, or that it was canceled.
    Caller,
    /// Whoever runs the server: key, address, model name, billing, script.
    Operator,
    /// The provider; later it may work.
    Provider,
}

impl ModelError {
    /// Who can do something about it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Invalid(_) | Self::Canceled => Fault::Caller,
            Self::Rejected { status: 401..=404 | 429, .. } | Self::KeyMalformed | Self::Script(_) => Fault::Operator,
            Self::Rejected { .. } => Fault::Caller,
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Unavailable { .. }
            | Self::Unreachable
            | Self::Interrupted
            | Self::TimedOut { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. } => Fault::Provider,
        }
    }

    /// A stable code for events and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "model_request_invalid",
            Self::KeyMalformed => "model_key_malformed",
            Self::Rejected { .. } => "model_rejected",
            Self::RateLimited { .. } => "model_rate_limited",
            Self::Overloaded { .. } => "model_overloaded",
            Self::Unavailable { .. } => "model_unavailable",
            Self::Unreachable => "model_unreachable",
            Self::Interrupted => "model_interrupted",
            Self::TimedOut { .. } => "model_timed_out",
            Self::Canceled => "model_canceled",
            Self::TooLarge { .. } => "model_answer_too_large",
            Self::Protocol { .. } => "model_protocol",
            Self::Script(_) => "model_script",
        }
    }

    /// What the provider wrote, if it wrote anything; for operators.
    pub fn provider_text(&self) -> Option<&ProviderText> {
        match self {
            Self::Rejected { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// A provider's own words: without the key, without control characters, at most 1,000 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderText(pub(crate) String);

impl ProviderText {
    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
