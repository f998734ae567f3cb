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

/// The leaf's form. Field names are short words; `detail` enters by its hash, so that a body can be erased
/// without breaking the tree.
///
/// The fields stand in RFC 8785's order and are texts and whole numbers below 2^53, which the ordinary
/// writer of JSON writes as RFC 8785 demands. A test holds it against a writer that sorts.
#[derive(Serialize)]
pub(crate) struct Leaf<'a> {
    pub(crate) action: &'a str,
    pub(crate) actor: &'a str,
    pub(crate) address: &'a str,
    pub(crate) agent: Option<&'a str>,
    pub(crate) at: i64,
    pub(crate) credential: &'a str,
    pub(crate) detail_sha256: String,
    pub(crate) intent: Option<u64>,
    pub(crate) log: &'a str,
    pub(crate) phase: &'a str,
    pub(crate) request: Option<&'a str>,
    pub(crate) resource: &'a str,
    pub(crate) seq: u64,
    pub(crate) space: Option<&'a str>,
    pub(crate) v: u8,
    pub(crate) verdict: &'a str,
}

impl Leaf<'_> {
    fn bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(crate) fn hash(&self) -> Result<Hash, serde_json::Error> {
        Ok(tree::leaf_hash(&self.bytes()?))
    }
}

/// What stands for an event's detail in its leaf.
pub(crate) fn detail_hash(detail: &Map<String, Value>) -> Result<String, serde_json::Error> {
    Ok(hex(&Sha256::digest(crate::canonical_object(detail)?)))
}

impl Event {
    /// The canonical bytes of this event in `log` (RFC 8785 JSON), which the leaf hash covers.
    ///
    /// # Errors
    /// If `detail` holds a number that RFC 8785 cannot write.
    pub fn leaf(&self, log: &LogId) -> Result<Vec<u8>, serde_json::Error> {
        self.leaf_over(log, detail_hash(&self.draft.detail)?)
    }

    fn leaf_over(&self, log: &LogId, detail_sha256: String) -> Result<Vec<u8>, serde_json::Error> {
        let d = &self.draft;
        Leaf {
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
            detail_sha256,
        }
        .bytes()
    }

    /// The leaf hash of this event in `log`, and the canonical text of its detail, as both are kept.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub fn seal(&self, log: &LogId) -> Result<(Hash, String), serde_json::Error> {
        let detail = crate::canonical_object(&self.draft.detail)?;
        let leaf = self.leaf_over(log, hex(&Sha256::digest(&detail)))?;
        // JSON is UTF-8.
        Ok((tree::leaf_hash(&leaf), String::from_utf8_lossy(&detail).into_owned()))
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
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\\u{0}-\\u{20}\"\\\\/\u{7f}\u{e000}\u{1f600}éz]{0,12}"]
    }

    fn value() -> impl Strategy<Value = Value> {
        let whole = prop_oneof![any::<i32>().prop_map(|n| json!(n)), (-(1i64 << 53)..=1 << 53).prop_map(|n| json!(n))];
        let broken = prop_oneof![any::<f32>().prop_map(|n| json!(n)), any::<f64>().prop_map(|n| json!(n))];
        let one = prop_oneof![text().prop_map(Value::from), any::<bool>().prop_map(Value::from), whole, broken];
        one.prop_recursive(3, 24, 6, |inner| {
            let pairs = proptest::collection::vec((text(), inner.clone()), 0..6);
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(Value::from),
                pairs.prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn e05_values_are_written_as_a_writer_that_sorts_writes_them(value in value()) {
            let ours = crate::canonical(&value).ok();
            prop_assert_eq!(ours, serde_json_canonicalizer::to_vec(&value).ok());
        }

        #[test]
        fn e05_leaves_are_written_as_a_writer_that_sorts_writes_them(
            texts in proptest::collection::vec(text(), 8),
            seq in 0u64..1 << 53,
            at in -(1i64 << 53)..1 << 53,
            intent in proptest::option::of(0u64..1 << 53),
            some in any::<bool>(),
        ) {
            let leaf = Leaf {
                action: &texts[0],
                actor: &texts[1],
                address: &texts[2],
                agent: some.then_some(&texts[3]),
                at,
                credential: &texts[4],
                detail_sha256: texts[5].clone(),
                intent,
                log: &texts[6],
                phase: &texts[7],
                request: some.then_some(&texts[0]),
                resource: &texts[1],
                seq,
                space: some.then_some(&texts[2]),
                v: 1,
                verdict: &texts[3],
            };
            prop_assert_eq!(leaf.bytes().unwrap(), serde_json_canonicalizer::to_vec(&leaf).unwrap());
        }
    }

    #[test]
    fn hexadecimal_is_what_it_is_elsewhere() {
        let all: Vec<u8> = (0..=255).collect();
        let expected: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex(&all), expected);
    }
}
