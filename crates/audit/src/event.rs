//! One line of the activity timeline.
//!
//! An event never holds a secret, a token, a key's secret half, or the body of a message: those who
//! may read the log are not those who may read the conversations.

use bailiwick_types::{AgentName, Incarnation, RequestId, SpaceId, Timestamp, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::tree::{self, Hash};

/// Marks, in an event's detail, that its caller was told that there is no such thing. Such a line is not
/// for the caller: it would say that there is.
pub const UNTOLD: &str = "untold";

/// How an act ended, or that it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The intent row of an effect outside the database: the outcome row follows. If none does, the
    /// server died in between, and the effect may or may not have happened.
    #[serde(rename = "BEGUN")]
    Begun,
    /// It was done.
    #[serde(rename = "OK")]
    Ok,
    /// It was tried and went wrong.
    #[serde(rename = "FAIL")]
    Fail,
    /// It was refused.
    #[serde(rename = "DENIED")]
    Denied,
}

impl Verdict {
    /// As stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "BEGUN",
            Self::Ok => "OK",
            Self::Fail => "FAIL",
            Self::Denied => "DENIED",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Begun, Self::Ok, Self::Fail, Self::Denied].into_iter().find(|v| v.as_str() == text)
    }
}

/// Which row of an act this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Act and record are one transaction.
    Act,
    /// Written before an effect outside the database.
    Intent,
    /// Written after it; names the intent.
    Outcome,
    /// Something seen, for which nobody waited.
    Observation,
}

impl Phase {
    /// As stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Observation => "observation",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Act, Self::Intent, Self::Outcome, Self::Observation].into_iter().find(|p| p.as_str() == text)
    }
}

/// Who did it, as the record shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "name")]
pub enum Actor {
    /// The holder of the root key.
    Operator,
    /// The operator, acting as a user by explicit headers.
    OperatorFor(UserName),
    /// A user of the account.
    User(UserName),
    /// A part of the server with a name and few rights, such as the approval clock.
    Service(String),
    /// Nobody that we know.
    Unknown,
}

impl Actor {
    /// As stored: `operator`, `operator-for:alice`, `user:alice`, `service:clock`, `unknown`.
    pub fn to_text(&self) -> String {
        match self {
            Self::Operator => "operator".to_owned(),
            Self::OperatorFor(user) => format!("operator-for:{user}"),
            Self::User(user) => format!("user:{user}"),
            Self::Service(name) => format!("service:{name}"),
            Self::Unknown => "unknown".to_owned(),
        }
    }

    /// Reads what [`Self::to_text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "operator" => Some(Self::Operator),
            None if text == "unknown" => Some(Self::Unknown),
            Some(("operator-for", user)) => user.parse().ok().map(Self::OperatorFor),
            Some(("user", user)) => user.parse().ok().map(Self::User),
            Some(("service", name)) => Some(Self::Service(name.to_owned())),
            _ => None,
        }
    }

    /// The user whose rights were used, if any.
    pub fn user(&self) -> Option<&UserName> {
        match self {
            Self::User(user) | Self::OperatorFor(user) => Some(user),
            _ => None,
        }
    }
}

/// An event before it has its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Who.
    pub actor: Actor,
    /// By which credential: `key:<id>`, `root-key:<mark>`, `local-dev`, `none`.
    pub credential: String,
    /// From which address, as the server saw it.
    pub address: String,
    /// In which request.
    pub request: Option<RequestId>,
    /// Which act, from the verb list or the vocabulary of observations.
    pub action: String,
    /// On what, as `kind:id`.
    pub resource: String,
    /// In which space, if in one.
    pub space: Option<SpaceId>,
    /// By which agent, if by one.
    pub agent: Option<AgentName>,
    /// Which row of the act.
    pub phase: Phase,
    /// How it ended.
    pub verdict: Verdict,
    /// The intent's number, on an outcome.
    pub intent: Option<u64>,
    /// What else is worth knowing; never a secret.
    pub detail: Map<String, Value>,
}

/// An event with its place in the account's sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Place in the sequence, from 0, without gaps.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    pub draft: Draft,
}

/// The leaf's form. Field names are short words in one alphabetical object; `detail` enters by its
/// hash, so that a body can be erased without breaking the tree.
#[derive(Serialize)]
pub(crate) struct Leaf<'a> {
    pub(crate) v: u8,
    pub(crate) log: &'a str,
    pub(crate) seq: u64,
    pub(crate) at: i64,
    pub(crate) actor: &'a str,
    pub(crate) credential: &'a str,
    pub(crate) address: &'a str,
    pub(crate) request: Option<&'a str>,
    pub(crate) action: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) space: Option<&'a str>,
    pub(crate) agent: Option<&'a str>,
    pub(crate) phase: &'a str,
    pub(crate) verdict: &'a str,
    pub(crate) intent: Option<u64>,
    pub(crate) detail_sha256: String,
}

impl Leaf<'_> {
    pub(crate) fn hash(&self) -> Result<Hash, serde_json::Error> {
        Ok(tree::leaf_hash(&serde_json_canonicalizer::to_vec(self)?))
    }
}

/// What stands for an event's detail in its leaf.
pub(crate) fn detail_hash(detail: &Map<String, Value>) -> Result<String, serde_json::Error> {
    Ok(hex(&Sha256::digest(serde_json_canonicalizer::to_vec(detail)?)))
}

impl Event {
    /// The canonical bytes of this event in `log` (RFC 8785 JSON), which the leaf hash covers.
    ///
    /// # Errors
    /// If `detail` holds a number that RFC 8785 cannot write.
    pub fn leaf(&self, log: &LogId) -> Result<Vec<u8>, serde_json::Error> {
        let d = &self.draft;
        serde_json_canonicalizer::to_vec(&Leaf {
            v: 1,
            log: &log.0,
            seq: self.seq,
            at: self.at.as_micros(),
            actor: &d.actor.to_text(),
            credential: &d.credential,
            address: &d.address,
            request: d.request.map(|id| id.to_string()).as_deref(),
            action: &d.action,
            resource: &d.resource,
            space: d.space.map(|id| id.to_string()).as_deref(),
            agent: d.agent.as_ref().map(AgentName::as_str),
            phase: d.phase.as_str(),
            verdict: d.verdict.as_str(),
            intent: d.intent,
            detail_sha256: detail_hash(&d.detail)?,
        })
    }

    /// The leaf hash of this event in `log`.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub fn leaf_hash(&self, log: &LogId) -> Result<Hash, serde_json::Error> {
        Ok(tree::leaf_hash(&self.leaf(log)?))
    }
}

/// Which log: one for each life of an account, and one for the host. It is in every leaf, so that a
/// row moved from one log to another is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogId(String);

impl LogId {
    /// The log of an account.
    pub fn account(incarnation: Incarnation) -> Self {
        Self(incarnation.to_string())
    }

    /// The host's log: what the operator does, and what no account can be charged with.
    pub fn host() -> Self {
        Self("host".to_owned())
    }

    /// The log that a file says it holds.
    pub(crate) fn named(name: String) -> Self {
        Self(name)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
