//! What callers ask of the runtime, and what they are told.

use bailiwick_auth::Refusal;
use bailiwick_auth::access::JournalError;
use bailiwick_files::FileError;
use bailiwick_store::StoreError;
use serde_json::Value;

use crate::message::TurnPolicy;

/// Bounds of all sessions; an agent may ask for less.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeLimits {
    /// Model calls in one turn.
    pub steps: u32,
    /// Tokens of one session, in and out.
    pub session_tokens: u64,
    /// Tokens of the conversation beyond which it is summarised.
    pub compact_tokens: u64,
    /// Turns that run at once; more wait.
    pub turns: usize,
    /// Turns of one account that run at once; more wait.
    pub account_turns: usize,
    /// Largest file that comes with a message, bytes.
    pub attachment_bytes: u64,
}

impl Default for RuntimeLimits {
    fn default() -> Self {
        Self {
            steps: 50,
            session_tokens: 5_000_000,
            compact_tokens: 100_000,
            turns: 256,
            account_turns: 64,
            attachment_bytes: 25 * 1024 * 1024,
        }
    }
}

/// A message as it comes through a door.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its pieces.
    pub parts: Vec<IncomingPart>,
    /// Facts for this turn alone.
    pub client_context: Option<Value>,
    /// The schema that the answer must follow.
    pub output_schema: Option<Value>,
    /// What to do if a turn is under way.
    pub policy: TurnPolicy,
}

/// A piece of a message as it comes through a door.
#[derive(Debug, Clone)]
pub enum IncomingPart {
    /// Text.
    Text(String),
    /// A file.
    File {
        /// Its media type, as the caller said.
        media_type: String,
        /// Its name, as the caller said.
        filename: Option<String>,
        /// Its content.
        bytes: Vec<u8>,
    },
}

/// An answer to something that a turn waits for.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// Which request.
    pub request: String,
    /// The chosen option.
    pub option: Option<String>,
    /// An answer in words.
    pub text: Option<String>,
}

/// A command to a session.
#[derive(Debug, Clone)]
pub enum Control {
    /// End the present turn.
    Cancel {
        /// Only if it is this turn (`turn_3`).
        turn: Option<String>,
    },
    /// Forget the conversation.
    Clear,
    /// Summarise the conversation.
    Compact,
    /// End the session.
    Reset,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlAnswer {
    /// It will be done.
    Accepted,
    /// The session has ended.
    NoActive,
}

/// Why a call was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The policy said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such thing.
    #[error("not found")]
    NotFound,
    /// The caller sent something that makes no sense.
    #[error("{message}")]
    Invalid {
        /// A stable word.
        code: &'static str,
        /// What to do.
        message: String,
    },
    /// A file is too large.
    #[error("a file of {size} bytes is too large: at most {limit}")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
        /// Its name, as the caller said.
        filename: Option<String>,
        /// Its media type, as the caller said.
        media_type: String,
    },
    /// A file could not be put into the space.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The record could not be written, so nothing was done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store said no, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
