//! What the gate tells of each connection.

use std::net::IpAddr;

use bailiwick_types::SecretName;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::refused::Refused;

/// Longest name that a line keeps, letters.
const LONGEST_HOST: usize = 255;
/// Longest path that a line keeps, bytes.
const LONGEST_PATH: usize = 256;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The address of a name.
    Name,
    /// A connection, into which nobody looked.
    Connection,
    /// A request.
    Request,
}

/// One decision, and what came of it. Never a secret, a query or a header's text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line {
    /// What was asked for.
    pub kind: Kind,
    /// The host, or the address in its place.
    pub host: String,
    /// The port; 0 for a name.
    pub port: u16,
    /// Where the name led.
    pub address: Option<IpAddr>,
    /// Of a request.
    pub method: Option<String>,
    /// Of a request, without the query, at most 256 bytes.
    pub path: Option<String>,
    /// `allowed`, or why not: [`Refused::code`].
    pub outcome: String,
    /// What the far side answered.
    pub status: Option<u16>,
    /// The secrets that went into the request.
    pub secrets: Vec<SecretName>,
}

impl Line {
    pub(crate) fn new(kind: Kind, host: impl ToString, port: u16) -> Self {
        // What was asked for in the place of a name may be anything.
        let plain = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
        Self {
            kind,
            host: host.to_string().chars().take(LONGEST_HOST).map(plain).collect(),
            port,
            address: None,
            method: None,
            path: None,
            outcome: "allowed".to_owned(),
            status: None,
            secrets: Vec::new(),
        }
    }

    pub(crate) fn refused(mut self, why: Refused) -> Self {
        why.code().clone_into(&mut self.outcome);
        self
    }

    pub(crate) fn of_request(mut self, method: &str, path: &str) -> Self {
        let cut =
            |text: &str, longest| text.char_indices().take_while(|(at, _)| *at < longest).map(|(_, c)| c).collect();
        self.method = Some(cut(method, 20));
        self.path = Some(cut(path, LONGEST_PATH));
        self
    }
}

/// A line of one sandbox.
#[derive(Debug)]
pub struct Entry {
    /// The number under which the sandbox was opened.
    pub sandbox: u64,
    /// The line.
    pub line: Line,
}

/// Where lines go. Whoever writes waits until there is room: nothing is lost, and who floods it is slowed down.
#[derive(Clone)]
pub(crate) struct Journal {
    pub(crate) sandbox: u64,
    pub(crate) to: mpsc::Sender<Entry>,
}

impl Journal {
    pub(crate) async fn write(&self, line: Line) {
        // Nobody reads any more when the gate ends; then nothing goes out either.
        let _ = self.to.send(Entry { sandbox: self.sandbox, line }).await;
    }
}
