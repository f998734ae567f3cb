//! The `linux` backend: namespaces, an own user, Landlock, system call filters
//! and limits around real programs.
//!
//! Three processes share the work. The server (`launcher`, `jail`) asks; the
//! launcher (`zygote`, `native` or `bwrap`) builds; the jail's first process
//! (`init`, `supervisor`) confines itself and then runs commands. This backend
//! never falls back to a weaker jail: `Launcher::detect` builds one for trial
//! and says why it cannot, and `Promises` says what enforces each limit.
//!
//! What it does not defend: the kernel is shared, so a hole in the kernel is a
//! hole in every jail. Files in a workspace may be anything, links and special
//! files included, so host code must open them carefully.

pub(crate) mod bwrap;
pub(crate) mod cgroup;
mod compared;
pub(crate) mod confine;
pub(crate) mod environment;
pub(crate) mod init;
pub(crate) mod jail;
pub(crate) mod keystore;
pub(crate) mod launcher;
pub(crate) mod listeners;
mod mountinfo;
pub(crate) mod native;
pub(crate) mod omit;
mod processes;
pub(crate) mod profile;
pub(crate) mod raw;
pub(crate) mod receipt;
pub(crate) mod rlimits;
pub(crate) mod role;
pub(crate) mod rootfs;
pub(crate) mod spec;
mod supervisor;
pub(crate) mod syscalls;
pub(crate) mod wire;
mod zygote;

pub use compared::not_compared;
pub use jail::{Ended, ExecError, Jail};
pub use launcher::{CgroupUse, HelperPath, Launcher, StartError, Unavailable};
pub use listeners::Listening;
#[cfg(debug_assertions)]
pub use omit::OnDifference;
pub use omit::Wall;
pub use receipt::{Fact, Namespace, Receipt, ReceiptError, Source, WayOut};
pub use spec::{
    CommandLine, Enforcement, Exec, Execution, ExitStatus, InvalidJailName, JailName, JailSpec, JailUser, LauncherKind,
    Limits, Network, Promises, UserSeparation, WorkspaceAccess,
};

/// The `argv[0]` of the launcher.
pub(crate) const LAUNCHER_ROLE: &str = "bailiwick-launcher";
/// The `argv[0]` of a jail's first process.
pub(crate) const INIT_ROLE: &str = "bailiwick-init";

/// Where programs are looked for inside a jail.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Plays the launcher. Single-threaded processes only.
pub(crate) fn run_launcher() -> ! {
    zygote::run()
}

/// Plays a jail's first process. Single-threaded processes only.
pub(crate) fn run_init() -> ! {
    init::run()
}
