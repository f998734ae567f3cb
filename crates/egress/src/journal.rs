//! What the gate tells of each connection.

use std::net::IpAddr;

use bailiwick_types::SecretName;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::refused::Refused;
use crate::shares::{Share, Taken};

/// Longest name that a line keeps, letters.
const LONGEST_HOST: usize = 255;
/// Longest path that a line keeps, bytes.
const LONGEST_PATH: usize = 256;

/// The outcome of what came about.
const ALLOWED: &str = "allowed";

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
            outcome: ALLOWED.to_owned(),
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
    /// Its place in the queue, which its tenant has again when it was read.
    room: Taken,
}

impl Entry {
    /// Takes the line out of the queue.
    pub fn taken(self) -> (u64, Line) {
        drop(self.room);
        (self.sandbox, self.line)
    }
}

/// Where lines go. Whoever writes waits until there is room: nothing is lost, and who floods it is slowed down.
#[derive(Clone)]
pub(crate) struct Journal {
    sandbox: u64,
    to: mpsc::Sender<Entry>,
    /// The tenant's part of the queue.
    room: Share,
    /// Lines that are begun, and not told.
    begun: TaskTracker,
}

impl Journal {
    pub(crate) fn new(sandbox: u64, to: mpsc::Sender<Entry>, room: Share) -> Self {
        Self { sandbox, to, room, begun: TaskTracker::new() }
    }

    pub(crate) async fn write(&self, line: Line) {
        self.begin(line.clone()).tells(line).await;
    }

    /// Begins a line. However it ends, it is written: whoever drops it has it written as it stands, `broken_off`.
    pub(crate) fn begin(&self, line: Line) -> Telling {
        let line = line.refused(Refused::BrokenOff);
        Telling { line, told: false, _begun: self.begun.token(), journal: self.clone() }
    }

    /// Comes back once all that was begun is told. Nothing new may be begun by then.
    pub(crate) async fn ended(&self) {
        self.begun.close();
        self.begun.wait().await;
    }

    async fn send(&self, told: impl FnOnce() -> Line) {
        // Nobody reads any more when the gate ends; then nothing goes out either.
        let Some(room) = self.room.take().await else { return };
        let Ok(place) = self.to.reserve().await else { return };
        place.send(Entry { sandbox: self.sandbox, line: told(), room });
    }
}

/// A line whose end is not known yet.
pub(crate) struct Telling {
    pub(crate) line: Line,
    told: bool,
    journal: Journal,
    _begun: TaskTrackerToken,
}

impl Telling {
    /// What was begun came about.
    pub(crate) async fn allowed(self) {
        let line = Line { outcome: ALLOWED.to_owned(), ..self.line.clone() };
        self.tells(line).await;
    }

    pub(crate) async fn refused(self, why: Refused) {
        let line = self.line.clone().refused(why);
        self.tells(line).await;
    }

    /// Writes this line. Where somebody stops waiting for that, it is written all the same.
    pub(crate) async fn tells(mut self, line: Line) {
        self.line = line;
        let journal = self.journal.clone();
        journal
            .send(|| {
                self.told = true;
                self.line.clone()
            })
            .await;
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.told {
            let (journal, line) = (self.journal.clone(), self.line.clone());
            self.journal.begun.spawn_on(async move { journal.send(|| line).await }, &runtime);
        }
    }
}
