//! What a caller says about a jail, and what a backend says it enforces.
//!
//! These types carry no decision: who may have which jail is settled before
//! one of them is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::receipt::{Receipt, WayOut};
use crate::demand::NoRoom;
use crate::output::{Captured, OutputLimits};
use bailiwick_egress::Trust;

/// An opaque name of a jail: it becomes a cgroup's folder name, and the host's
/// process list shows it, so it must not name a tenant or a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JailName(String);

/// A name that is not 1 to 64 characters of `a-z`, `0-9`, `_` and `-`.
#[derive(Debug, thiserror::Error)]
#[error("a jail's name has 1 to 64 characters of a-z, 0-9, _ and -")]
pub struct InvalidJailName;

impl JailName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidJailName`] for anything but 1 to 64 characters of `a-z`,
    /// `0-9`, `_` and `-`.
    pub fn parse(text: &str) -> Result<Self, InvalidJailName> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(InvalidJailName);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JailName {
    type Error = InvalidJailName;

    fn try_from(text: String) -> Result<Self, InvalidJailName> {
        Self::parse(&text)
    }
}

impl From<JailName> for String {
    fn from(name: JailName) -> Self {
        name.0
    }
}

/// What a jail may do with the folder at `/workspace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkspaceAccess {
    /// Read and execute; every write is `EROFS`.
    ReadOnly,
    /// Read, execute and write.
    ReadWrite,
}

/// The user that a jail's processes are on the host.
///
/// It should be a user of a pool that owns no file of the server. Two jails of
/// different tenants never have the same one. A jail that writes a workspace
/// needs a user that may write there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JailUser {
    /// User id, at least [`JailUser::LOWEST`].
    pub uid: u32,
    /// Group id, at least [`JailUser::LOWEST`].
    pub gid: u32,
}

impl JailUser {
    /// The lowest id that a jail may have. System users and people are below.
    pub const LOWEST: u32 = 60_001;
}

/// The ceilings of one jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all processes and memory file systems together, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads, the jail's own included.
    pub pids: u32,
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u32,
    /// Open files per process.
    pub open_files: u64,
    /// Size of one file, in bytes.
    pub file_bytes: u64,
    /// Size of the private `/tmp`, in bytes.
    pub tmp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            pids: 256,
            cpu_millis: 1000,
            open_files: 1024,
            file_bytes: 1 << 30,
            tmp_bytes: 256 << 20,
        }
    }
}

/// Whose programs are in a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Programs {
    /// The host's, in the folders that we bound.
    Hosts,
    /// An image's, wherever they are in it.
    Images,
}

/// A jail to start.
#[derive(Debug, Clone)]
pub struct JailSpec {
    /// The jail's name.
    pub name: JailName,
    /// The folder that becomes `/workspace`: absolute, without symbolic links.
    /// For "no workspace" give an empty private folder.
    pub workspace: PathBuf,
    /// What may be done with the workspace.
    pub access: WorkspaceAccess,
    /// A folder that becomes `/tmp` and may be shared with other jails; without
    /// one the jail has an own `/tmp` that ends with it.
    pub shared_tmp: Option<PathBuf>,
    /// The user on the host. A launcher without root cannot change users and
    /// says so in its promises.
    pub user: JailUser,
    /// What its programs may reach.
    pub network: Network,
    /// The ceilings.
    pub limits: Limits,
}

/// What a jail's programs may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing but themselves.
    #[default]
    Nothing,
    /// The gate, whose sockets [`super::Jail::listening`] then has; and what they have to believe in for that.
    Gate(Option<Trust>),
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A script for the jail's shell: bash if there is one, else sh.
    Shell(String),
    /// A program and its arguments, without a shell.
    Arguments(Vec<String>),
}

/// One command for a running jail.
#[derive(Debug, Clone)]
pub struct Exec {
    /// What to run.
    pub command: CommandLine,
    /// The working directory inside the jail, absolute.
    pub directory: String,
    /// Wall time until the command and all its processes are stopped.
    pub timeout: Duration,
    /// Time between `SIGTERM` and `SIGKILL`.
    pub grace: Duration,
    /// How much output is kept.
    pub output: OutputLimits,
    /// Kills it when there is no room left for what it writes.
    pub no_room: NoRoom,
}

impl Exec {
    /// A shell script in `/workspace` with five minutes, five seconds of grace
    /// and the usual output limits.
    #[must_use]
    pub fn shell(script: impl Into<String>) -> Self {
        Self {
            command: CommandLine::Shell(script.into()),
            directory: "/workspace".to_owned(),
            timeout: Duration::from_secs(5 * 60),
            grace: Duration::from_secs(5),
            output: OutputLimits::default(),
            no_room: NoRoom::default(),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which neither we nor the memory limit sent.
    Signaled(i32),
    /// By us, because its time was over.
    TimedOut,
    /// By us, because the caller canceled it.
    Canceled,
    /// By the kernel, because the jail's memory was used up.
    OutOfMemory,
    /// By us, because there is no room left for what it writes.
    StorageFull,
}

/// A command that ran. None of its processes is left.
#[derive(Debug)]
pub struct Execution {
    /// How it ended.
    pub status: ExitStatus,
    /// The end of its standard output.
    pub stdout: Captured,
    /// The end of its standard error.
    pub stderr: Captured,
    /// Wall time from the request to the last process's end.
    pub wall: Duration,
    /// What the kernel said about the jail while the command could run.
    pub receipt: Arc<Receipt>,
}

/// What enforces a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// A cgroup v2 controller, over the whole jail.
    CgroupV2,
    /// A cgroup v1 controller, over the whole jail.
    CgroupV1,
    /// A resource limit per user, over the whole jail.
    RlimitPerUser,
    /// A resource limit of each single process: weaker, many processes
    /// together may use a multiple.
    RlimitPerProcess,
    /// The size of a memory file system.
    Mount,
    /// Nothing on this host.
    Nothing,
}

/// Which launcher builds the jails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LauncherKind {
    /// Our own, as root: no user namespace is involved.
    Native,
    /// Bubblewrap, as the server's unprivileged user.
    Bubblewrap,
    /// A container engine, from an image of the operator's.
    Engine,
}

/// Whether a jail's processes are another user than the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserSeparation {
    /// Yes: the user of [`JailSpec::user`].
    OwnUser,
    /// No: the server's user in a user namespace. Namespaces and Landlock
    /// separate, file ownership does not.
    ServersUser,
}

/// What a launcher enforces on this host, found out and tried at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promises {
    /// Which launcher.
    pub launcher: LauncherKind,
    /// [`Limits::memory_bytes`].
    pub memory: Enforcement,
    /// [`Limits::pids`].
    pub pids: Enforcement,
    /// [`Limits::cpu_millis`].
    pub cpu: Enforcement,
    /// [`Limits::open_files`].
    pub open_files: Enforcement,
    /// [`Limits::file_bytes`].
    pub file_bytes: Enforcement,
    /// [`Limits::tmp_bytes`] of a private `/tmp`.
    pub tmp_bytes: Enforcement,
    /// Landlock's version; 6 and later also scope signals and abstract sockets.
    pub landlock_abi: i32,
    /// Whether a jail can be given a way out.
    pub way_out: WayOut,
    /// Whether jails are another user.
    pub users: UserSeparation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jail_name_cannot_leave_its_folder() {
        assert!(JailName::parse("jail-01_x").is_ok());
        for bad in ["", ".", "..", "a/b", "A", "a b", "a\0", &"x".repeat(65)] {
            assert!(JailName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
