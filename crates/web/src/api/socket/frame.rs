//! The frames of `/api/v1/ws`, in both directions: one JSON object each, in text.

use bailiwick_types::RequestId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::approval::Word;
use crate::api::audit::Wanted;
use crate::error::Failure;
use crate::json;

/// Longest name of a subscription or a command, characters.
const LONGEST_ID: usize = 64;

/// The first frame of whoever did not say in the handshake who they are.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Hello {
    /// A key or token; with the root key, the tenant that is meant.
    Auth { token: Option<String>, account: Option<String>, user: Option<String> },
}

/// What a client asks for. `id` is the client's own name for it, and comes back in the answers.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum Asked {
    /// A sign of life for programs that cannot send one below.
    Ping {},
    /// The events of a session from a place on, or the log's.
    Subscribe { id: String, session: Option<String>, start_index: Option<i64>, audit: Option<Wanted> },
    /// No more of that.
    Unsubscribe { id: String },
    /// A message or answers, as eve's clients send them.
    Send { id: String, session: String, body: Value },
    /// End the session's present turn.
    Cancel { id: String, session: String },
    /// Decide an approval.
    Decide { id: String, approval: String, decision: Word, reason: Option<String> },
}

impl Asked {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Ping {} => "",
            Self::Subscribe { id, .. }
            | Self::Unsubscribe { id }
            | Self::Send { id, .. }
            | Self::Cancel { id, .. }
            | Self::Decide { id, .. } => id,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Ping {} => "ping",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Send { .. } => "send",
            Self::Cancel { .. } => "cancel",
            Self::Decide { .. } => "decide",
        }
    }
}

/// Reads a frame.
pub(super) fn read(bytes: &[u8]) -> Result<Asked, Failure> {
    let asked: Asked =
        serde_json::from_value(json::parse(bytes)?).map_err(|error| Failure::Parameters(format!("frame: {error}")))?;
    if asked.id().chars().count() > LONGEST_ID {
        return Err(Failure::Parameters(format!("frame.id: at most {LONGEST_ID} characters")));
    }
    Ok(asked)
}

/// A failure as a frame.
pub(super) fn failed(id: Option<&str>, failure: &Failure, request: RequestId) -> String {
    failure.log(request);
    json!({ "type": "error", "id": id, "code": failure.word(), "message": failure.message(), "requestId": request })
        .to_string()
}

/// Why a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// The far end is gone, or takes nothing.
    Left,
    /// The server stops.
    Stopping,
    /// No first frame in time.
    Silent,
    /// The first frame is none that says who sends it.
    NoHello,
    /// Whoever it is, is not let in, or not any more.
    Unknown,
    /// The login lay unused.
    TimedOut,
    /// What came is no frame, or too long.
    Unreadable,
    /// It goes on asking though it is told to wait.
    TooFast,
}

impl Close {
    /// The code (RFC 6455, section 7.4; ours begin at 4400, after HTTP's) and a stable word.
    pub(super) const fn told(self) -> (u16, &'static str) {
        match self {
            Self::Left => (1000, "left"),
            Self::Stopping => (1001, "stopping"),
            Self::Silent => (4408, "auth_timeout"),
            Self::NoHello => (4400, "auth_expected"),
            Self::Unknown => (4401, "unauthorized"),
            Self::TimedOut => (4401, "session_timeout"),
            Self::Unreadable => (1008, "unreadable"),
            Self::TooFast => (1008, "rate_limited"),
        }
    }
}
