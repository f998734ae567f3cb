//! Checks an exported log, line by line, in little memory. Nothing in the file is believed: every hash is
//! computed anew, and the key that decides comes from the caller.

use std::fmt;
use std::io::{self, BufRead, Read};

use bailiwick_types::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Footer, Header, LINE_BYTES, Line, RetiredLine, VERSION};
use crate::checkpoint::{Checkpoint, NoteError, SignedNote, VerifierKey};
use crate::event::{LogId, hex};
use crate::tree::Hash;
use crate::verify::{Head, Problem, Verifier};

/// What is wrong with an exported log, at the first place where it is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ExportProblem {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
    /// It ends before its last line.
    #[error("the file was cut: it ends at line {0}, before its footer")]
    Cut(u64),
    /// A line is not what must stand there, in the one spelling it can have.
    #[error("line {line}: {what}")]
    Form {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The checkpoint is not signed as it should be.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
    /// The events are not those that were signed.
    #[error(transparent)]
    Log(#[from] Problem),
    /// The log does not continue an older checkpoint of the same log.
    #[error("the log is not the one that was signed before: its first {size} events do not give the older root {root}")]
    Fork {
        /// Size of the older checkpoint.
        size: u64,
        /// Its root.
        root: String,
    },
    /// The log is shorter than it once was.
    #[error("the log has {size} events, but an older checkpoint has {older}: its tail was cut")]
    Shrunk {
        /// Events now.
        size: u64,
        /// Events then.
        older: u64,
    },
    /// The older checkpoint speaks of another log.
    #[error("the older checkpoint is of the log {older}, this is {origin}")]
    OtherLog {
        /// Of the file.
        origin: String,
        /// Of the older checkpoint.
        older: String,
    },
}

impl ExportProblem {
    /// One word for programs. The independent verifier says the same words.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "read",
            Self::Cut(_) => "cut",
            Self::Form { .. } => "form",
            Self::Checkpoint(NoteError::Form(_) | NoteError::Checkpoint(_)) => "checkpoint",
            Self::Checkpoint(NoteError::Unsigned(_)) => "unsigned",
            Self::Checkpoint(NoteError::Signature(_)) => "signature",
            Self::Checkpoint(NoteError::Origin { .. }) => "origin",
            Self::Log(Problem::Gap { .. }) => "gap",
            Self::Log(Problem::Changed(_)) => "changed",
            Self::Log(Problem::Unreadable(_)) => "unreadable",
            Self::Log(Problem::Length { .. }) => "length",
            Self::Log(Problem::Root(_)) => "root",
            Self::Log(Problem::Retired(_)) => "retired",
            Self::Log(Problem::RetiredLate(_)) => "retired-late",
            Self::Log(Problem::Tile { .. }) => "tile",
            Self::Fork { .. } | Self::Log(Problem::Fork { .. }) => "fork",
            Self::Shrunk { .. } | Self::Log(Problem::Shrunk { .. }) => "shrunk",
            Self::OtherLog { .. } => "other-log",
        }
    }
}

/// Whose signature it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// The key that the caller gave, in its text form.
    Key(String),
    /// The key in the file, and nobody vouches for it: whoever wrote the file could have made it.
    UnverifiedKey,
}

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which log.
    pub log: String,
    /// The server's name, a slash, the log.
    pub origin: String,
    /// Number of events and root.
    pub head: Head,
    /// How many of the first events are retired.
    pub retired: u64,
    /// When the checkpoint was signed, by the signer's clock.
    pub signed: Option<Timestamp>,
    /// By whom.
    pub signature: SignedBy,
    /// How many older checkpoints the log continues.
    pub older: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "whole: {} events of {}", self.head.size, self.origin)?;
        writeln!(f, "root: {}", hex(&self.head.root))?;
        writeln!(f, "retired: {}", self.retired)?;
        match self.signed {
            Some(at) => writeln!(f, "signed at: {} microseconds since 1970", at.as_micros())?,
            None => writeln!(f, "signed at: not stated")?,
        }
        match &self.signature {
            SignedBy::Key(key) => writeln!(f, "signature: {key}")?,
            SignedBy::UnverifiedKey => writeln!(f, "signature: unverified key")?,
        }
        writeln!(f, "older checkpoints: {}", self.older)
    }
}

/// Checks an exported log against its checkpoint, the checkpoint against the key, and the events against
/// older checkpoints of the same log, which finds a log that was rewritten and signed anew.
///
/// Without a key the report says so: then the file is only shown to agree with itself. What stands in
/// `older` is believed; take it from [`SignedNote::open`].
///
/// # Errors
/// The first thing that is wrong.
pub fn verify_export(
    file: impl BufRead,
    key: Option<&VerifierKey>,
    older: &[Checkpoint],
) -> Result<Report, ExportProblem> {
    let mut lines = Lines { file, number: 0 };
    let (first, text) = lines.value()?;
    let header: Header = lines.typed(first, &text)?;
    if header.bailiwick_log != VERSION {
        return Err(lines.form("a form of another version: use a newer verifier"));
    }
    if header.first != 0 {
        return Err(lines.form("the file does not begin at event 0"));
    }
    let own: VerifierKey = header.key.parse().map_err(|_| lines.form("its key is no verifier key"))?;
    let note: SignedNote = header.checkpoint.parse()?;
    // The file's own key must fit as well, or whoever looks there next is misled.
    let checkpoint = note.open(key.unwrap_or(&own))?;
    if key.is_some_and(|key| *key != own) {
        note.open(&own)?;
    }
    if header.origin != checkpoint.origin || header.origin != format!("{}/{}", own.name(), header.log) {
        return Err(lines.form("log, origin, key and checkpoint do not name the same log"));
    }
    let mut older = Older::new(older, &checkpoint)?;
    let mut verifier = Verifier::new(LogId::named(header.log.clone()));
    older.compare(&verifier)?;
    let events = loop {
        let (value, text) = lines.value()?;
        if value.get("end").is_some() {
            let footer: Footer = lines.typed(value, &text)?;
            if !footer.end {
                return Err(lines.form("a footer that is none"));
            }
            break footer.events;
        }
        if value.get("retired").is_some() {
            let line: RetiredLine = lines.typed(value, &text)?;
            if !line.retired {
                return Err(lines.form("an event that is neither retired nor whole"));
            }
            verifier.next_retired(line.seq, &lines.hash(&line.leaf_hash)?)?;
        } else {
            let line: Line = lines.typed(value, &text)?;
            let stored = lines.hash(&line.leaf_hash)?;
            verifier.in_order(line.seq)?;
            verifier.next_hashed(line.seq, line.hash(&header.log)?, &stored, line.retires_below())?;
        }
        older.compare(&verifier)?;
    };
    if events != verifier.size() {
        return Err(lines.form("the footer counts other events than the file has"));
    }
    lines.end()?;
    let retired = verifier.retired();
    let head = verifier.finish(&Head { size: checkpoint.size, root: checkpoint.root })?;
    if retired != header.retired {
        return Err(ExportProblem::Form { line: 1, what: "the header counts other retired events than the file has" });
    }
    Ok(Report {
        log: header.log,
        origin: header.origin,
        head,
        retired,
        signed: checkpoint.time(),
        signature: key.map_or(SignedBy::UnverifiedKey, |key| SignedBy::Key(key.to_string())),
        older: older.count,
    })
}

/// The older checkpoints, the next one last.
struct Older<'a> {
    waiting: Vec<&'a Checkpoint>,
    count: usize,
}

impl<'a> Older<'a> {
    fn new(older: &'a [Checkpoint], now: &Checkpoint) -> Result<Self, ExportProblem> {
        for then in older {
            if then.origin != now.origin {
                let (origin, older) = (now.origin.clone(), then.origin.clone());
                return Err(ExportProblem::OtherLog { origin, older });
            }
            if then.size > now.size {
                return Err(ExportProblem::Shrunk { size: now.size, older: then.size });
            }
        }
        let mut waiting: Vec<_> = older.iter().collect();
        waiting.sort_by_key(|then| std::cmp::Reverse(then.size));
        Ok(Self { waiting, count: older.len() })
    }

    fn compare(&mut self, verifier: &Verifier) -> Result<(), ExportProblem> {
        while let Some(then) = self.waiting.pop_if(|then| then.size == verifier.size()) {
            if then.root != verifier.root() {
                return Err(ExportProblem::Fork { size: then.size, root: hex(&then.root) });
            }
        }
        Ok(())
    }
}

struct Lines<R> {
    file: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end, as JSON and as it stands.
    fn value(&mut self) -> Result<(Value, Vec<u8>), ExportProblem> {
        let mut text = Vec::new();
        let limit = u64::try_from(LINE_BYTES).unwrap_or(u64::MAX);
        let read = self.file.by_ref().take(limit).read_until(b'\n', &mut text);
        if read.map_err(ExportProblem::Io)? == 0 {
            return Err(ExportProblem::Cut(self.number));
        }
        self.number += 1;
        if text.pop_if(|byte| *byte == b'\n').is_none() {
            let longer = text.len() == LINE_BYTES;
            return Err(if longer { self.form("longer than 1 MiB") } else { ExportProblem::Cut(self.number) });
        }
        let value: Value = serde_json::from_slice(&text).map_err(|_| self.form("not JSON"))?;
        Ok((value, text))
    }

    /// The line as what it must be, with all its fields, no others, and no other spelling.
    fn typed<T: DeserializeOwned + Serialize>(&self, value: Value, text: &[u8]) -> Result<T, ExportProblem> {
        let typed: T = serde_json::from_value(value).map_err(|_| self.form("not the fields that it must have"))?;
        match serde_json_canonicalizer::to_vec(&typed) {
            Ok(canonical) if canonical == text => Ok(typed),
            _ => Err(self.form("not in the canonical form of RFC 8785, or without all its fields")),
        }
    }

    fn hash(&self, text: &str) -> Result<Hash, ExportProblem> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        let bytes = bytes.filter(|_| rest.is_empty()).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| self.form("its leaf hash is not 64 lower-case hexadecimal digits"))
    }

    fn end(&mut self) -> Result<(), ExportProblem> {
        let rest = self.file.fill_buf().map_err(ExportProblem::Io)?;
        if rest.is_empty() { Ok(()) } else { Err(self.form("something stands after the footer")) }
    }

    fn form(&self, what: &'static str) -> ExportProblem {
        ExportProblem::Form { line: self.number, what }
    }
}
