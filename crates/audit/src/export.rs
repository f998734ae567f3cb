//! A log as a file that can be checked without the server: JSON Lines, each line the canonical form
//! (RFC 8785) of its object, so that a thing has one spelling and every changed byte shows.
//!
//! - first the header: which log, its signed checkpoint, and the key that signed it;
//! - then every event from 0 on, with all its fields by name and its leaf hash; of a retired one number
//!   and leaf hash alone;
//! - last the footer, so that a file that was cut is seen.
//!
//! The functions here append lines to a buffer; who sends them where is the caller's matter. The file holds
//! what the database holds, right or wrong: judging is [`verify_export`]'s part.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::checkpoint::{SignedNote, VerifierKey};
use crate::event::{Event, Leaf, LogId, detail_hash, hex};
use crate::tree::Hash;
use crate::verify::{self, Problem};

pub mod csv;
mod read;

pub use read::{ExportProblem, Report, SignedBy, verify_export};

/// The version of the form, in the header.
const VERSION: u8 = 1;
/// Bytes of a line with its end. Nothing longer is written, and nothing longer is read.
const LINE_BYTES: usize = 1024 * 1024;

/// A line cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It has no canonical form.
    #[error("an event has no canonical form")]
    Json(#[from] serde_json::Error),
    /// It would be longer than a reader takes.
    #[error("an event's line would be longer than 1 MiB")]
    TooLong,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    bailiwick_log: u8,
    log: String,
    origin: String,
    key: String,
    checkpoint: String,
    /// The number of the first event in the file: always 0, until logs are kept in several files.
    first: u64,
    retired: u64,
}

/// An event with its fields as text. Unlike [`Event`] it can hold words that this version does not know.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    at: i64,
    actor: String,
    credential: String,
    address: String,
    request: Option<String>,
    action: String,
    resource: String,
    space: Option<String>,
    agent: Option<String>,
    phase: String,
    verdict: String,
    intent: Option<u64>,
    detail: Map<String, Value>,
    leaf_hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetiredLine {
    seq: u64,
    leaf_hash: String,
    retired: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    end: bool,
    events: u64,
}

impl Line {
    fn of(event: &Event, leaf_hash: &Hash) -> Self {
        let d = &event.draft;
        Self {
            seq: event.seq,
            at: event.at.as_micros(),
            actor: d.actor.to_text(),
            credential: d.credential.clone(),
            address: d.address.clone(),
            request: d.request.map(|id| id.to_string()),
            action: d.action.clone(),
            resource: d.resource.clone(),
            space: d.space.map(|id| id.to_string()),
            agent: d.agent.as_ref().map(|name| name.as_str().to_owned()),
            phase: d.phase.as_str().to_owned(),
            verdict: d.verdict.as_str().to_owned(),
            intent: d.intent,
            detail: d.detail.clone(),
            leaf_hash: hex(leaf_hash),
        }
    }

    fn hash(&self, log: &str) -> Result<Hash, Problem> {
        let unreadable = |_| Problem::Unreadable(self.seq);
        let leaf = Leaf {
            v: 1,
            log,
            seq: self.seq,
            at: self.at,
            actor: &self.actor,
            credential: &self.credential,
            address: &self.address,
            request: self.request.as_deref(),
            action: &self.action,
            resource: &self.resource,
            space: self.space.as_deref(),
            agent: self.agent.as_deref(),
            phase: &self.phase,
            verdict: &self.verdict,
            intent: self.intent,
            detail_sha256: detail_hash(&self.detail).map_err(unreadable)?,
        };
        leaf.hash().map_err(unreadable)
    }

    fn retires_below(&self) -> Option<u64> {
        verify::retires_below(&self.action, &self.phase, &self.verdict, &self.detail)
    }
}

/// Appends the first line. `key` made the checkpoint; `retired` of the first events are retired.
///
/// # Errors
/// As all of these functions: if the line cannot be written. Then nothing is appended.
pub fn header_line(
    out: &mut Vec<u8>,
    log: &LogId,
    key: &VerifierKey,
    checkpoint: &SignedNote,
    retired: u64,
) -> Result<(), WriteError> {
    let log = log.as_str().to_owned();
    let origin = format!("{}/{log}", key.name());
    let (key, checkpoint) = (key.to_string(), checkpoint.to_string());
    line(out, &Header { bailiwick_log: VERSION, log, origin, key, checkpoint, first: 0, retired })
}

/// Appends an event.
///
/// # Errors
/// As [`header_line`].
pub fn event_line(out: &mut Vec<u8>, event: &Event, leaf_hash: &Hash) -> Result<(), WriteError> {
    line(out, &Line::of(event, leaf_hash))
}

/// Appends what is left of a retired event.
///
/// # Errors
/// As [`header_line`].
pub fn retired_line(out: &mut Vec<u8>, seq: u64, leaf_hash: &Hash) -> Result<(), WriteError> {
    line(out, &RetiredLine { seq, leaf_hash: hex(leaf_hash), retired: true })
}

/// Appends the last line, after `events` events.
///
/// # Errors
/// As [`header_line`].
pub fn footer_line(out: &mut Vec<u8>, events: u64) -> Result<(), WriteError> {
    line(out, &Footer { end: true, events })
}

fn line(out: &mut Vec<u8>, object: &impl Serialize) -> Result<(), WriteError> {
    let line = serde_json_canonicalizer::to_vec(object)?;
    if line.len() >= LINE_BYTES {
        return Err(WriteError::TooLong);
    }
    out.extend_from_slice(&line);
    out.push(b'\n');
    Ok(())
}
