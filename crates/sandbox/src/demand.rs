//! What a session's tools ask of a sandbox, and what comes of a command. Plain data.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bailiwick_files::Workspace;
use bailiwick_types::agent::BackendChoice;
use bailiwick_types::{AgentName, Egress, Incarnation, SessionId, SpaceId};
use tokio_util::sync::CancellationToken;

use crate::linux::Limits;
use crate::output::Captured;
use crate::receipt::Receipt;

/// A kind of walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// The in-process shell.
    Virtual,
    /// Namespaces, Landlock, seccomp.
    Linux,
    /// A container engine, with the same first process.
    Container,
    /// None: the host itself, as an unprivileged user where the server is root.
    Host,
}

impl Backend {
    /// The word for people and the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Linux => "linux",
            Self::Container => "container",
            Self::Host => "host",
        }
    }
}

/// Whether tools may run on the host, without walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostUse {
    /// Never. The default.
    #[default]
    Refused,
    /// Where an agent's definition says so; the operator has set it explicitly.
    Allowed,
}

/// Who shares `/tmp` and the running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Share {
    /// One session alone.
    Session(SessionId),
    /// All sessions of one agent.
    Agent(AgentName),
    /// All sandboxed sessions of the account.
    Account,
}

/// Whether a command belongs inside walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// In a sandbox of this kind.
    Sandbox(BackendChoice),
    /// On the host.
    Host,
}

/// Whether a limit on processor time must be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuDemand {
    /// The agent asks for it: a sandbox that cannot is none.
    Enforced,
    /// The operator's ceiling alone, which a host without control groups does not have.
    WherePossible,
}

/// What a session's tools need.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The tenant.
    pub tenant: Incarnation,
    /// Who shares the sandbox.
    pub share: Share,
    /// The space whose files are inside; part of the sandbox's name, so that sharing a sandbox never
    /// shares a space.
    pub space: SpaceId,
    /// The folder that becomes `/workspace`.
    pub folder: PathBuf,
    /// The same folder, opened.
    pub files: Workspace,
    /// The folder that becomes `/tmp` where it is shared.
    pub shared_tmp: Option<PathBuf>,
    /// The tenant's unprivileged user.
    pub user: u32,
    /// Inside walls, or not.
    pub inside: Inside,
    /// What may leave.
    pub egress: Egress,
    /// Whether the ceiling of processor time must hold.
    pub cpu: CpuDemand,
    /// Ceilings.
    pub limits: Limits,
}

/// One command.
pub struct Run {
    /// A script for the shell.
    pub script: String,
    /// Wall time until everything that it began is stopped.
    pub timeout: Duration,
    /// Stops it.
    pub cancel: CancellationToken,
    /// Kills it when there is no room left for what it writes.
    pub no_room: NoRoom,
}

/// How a command is told that there is no room left for what it writes. It is killed at once and without a warning:
/// whoever gets one could go on writing until the time for it is over.
#[derive(Debug, Clone, Default)]
pub struct NoRoom {
    why: Arc<OnceLock<String>>,
    said: CancellationToken,
}

impl NoRoom {
    /// There is none, for this reason. The first one counts.
    pub fn say(&self, why: String) {
        let _ = self.why.set(why);
        self.said.cancel();
    }

    /// Waits until it is said.
    pub(crate) async fn said(&self) {
        self.said.cancelled().await;
    }

    /// Why there is none, once it was said.
    pub(crate) fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// How a command ended that was killed for it.
    pub(crate) fn status(&self) -> RanStatus {
        RanStatus::StorageFull(self.why().unwrap_or_default().to_owned())
    }
}

/// One of the two streams of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended whose output was handed on while it ran.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: RanStatus,
    /// How long it took.
    pub wall: Duration,
    /// What it ran in.
    pub receipt: Receipt,
}

/// How a command ended, on any backend.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: RanStatus,
    /// The end of its standard output.
    pub stdout: Captured,
    /// The end of its standard error.
    pub stderr: Captured,
    /// How long it took.
    pub wall: Duration,
    /// What it ran in.
    pub receipt: Receipt,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RanStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
    /// Its time was over.
    TimedOut,
    /// The caller canceled it.
    Canceled,
    /// The sandbox's memory was used up.
    OutOfMemory,
    /// There was no room left for what it wrote; why.
    StorageFull(String),
    /// Another limit was reached; which.
    LimitReached(String),
}
