//! What a worker gives up before it looks at its command.
//!
//! The interpreter needs few system calls and two directories. Should a fault
//! in it give a command the run of the process, the kernel still refuses what
//! a command has no use for: programs, sockets, other processes, and every
//! file that is not beneath the two directories. Must run before the process
//! has a second thread, since threads are confined one by one.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::LazyLock;
use std::time::Duration;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::omit::{Omitted, Wall};
use crate::receipt::Landlock;
use crate::spec::ShellLimits;

/// Address space on top of what the command may hold: the program itself,
/// stacks, and the allocator's reserve.
const BASE_ADDRESS_SPACE: u64 = 1024 * 1024 * 1024;
const OPEN_FILES: u64 = 64;
/// Processor time beyond the wall time, for the parser's threads.
const EXTRA_PROCESSOR_SECONDS: u64 = 5;

/// Bounds what the process may use. Limits are only ever lowered, so this
/// works for any user. `None` if the kernel refused.
pub(crate) fn limit_process(limits: &ShellLimits, timeout: Duration) -> Option<()> {
    for (resource, _, limit) in ceilings(limits, timeout) {
        let inherited = rustix::process::getrlimit(resource);
        let limit = inherited.maximum.map_or(limit, |maximum| maximum.min(limit));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).ok()?;
    }
    Some(())
}

/// What the process may use, with the kernel's names for it.
pub(crate) fn ceilings(limits: &ShellLimits, timeout: Duration) -> [(Resource, &'static str, u64); 5] {
    let memory = BASE_ADDRESS_SPACE.saturating_add(limits.memory_bytes as u64 * 4);
    let seconds = timeout.saturating_add(Duration::from_secs(EXTRA_PROCESSOR_SECONDS)).as_secs();
    [
        (Resource::Core, "Max core file size", 0),
        (Resource::As, "Max address space", memory),
        (Resource::Nofile, "Max open files", OPEN_FILES),
        (Resource::Cpu, "Max cpu time", seconds),
        (Resource::Fsize, "Max file size", limits.file_bytes),
    ]
}

/// Makes the process hard to look into, and its life no longer than the server's. Rights that an
/// unprivileged server was given on its way are no worker's.
pub(crate) fn withdraw() -> Option<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).ok()?;
    if !rustix::process::geteuid().is_root() {
        let empty = CapabilitySet::empty();
        let none = CapabilitySets { effective: empty, permitted: empty, inheritable: empty };
        rustix::thread::set_capabilities(None, none).ok()?;
    }
    // The server may die without a word; then nobody waits for us.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok()
}

/// Confines this thread, and those it will start, to `directories` and to the
/// system calls of [`ALLOWED`]. `None` if the kernel refused. A kernel without
/// Landlock leaves the system calls as the only bound.
pub(crate) fn restrict_thread(directories: &[BorrowedFd<'_>], omitted: &Omitted) -> Option<Landlock> {
    if !omitted.has(Wall::NoNewPrivileges) {
        rustix::thread::set_no_new_privs(true).ok()?;
    }
    let landlock = if omitted.has(Wall::Landlock) { Landlock::Enforced } else { restrict_files(directories)? };
    if !omitted.has(Wall::Calls) {
        restrict_calls()?;
    }
    Some(landlock)
}

/// Opens the host's root folder, which Landlock alone refuses; the kernel's answer, 0 for yes.
pub(crate) fn try_fence() -> i32 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::empty()) {
        Ok(_) => 0,
        Err(errno) => errno.raw_os_error(),
    }
}

/// What [`try_fence`] answers once Landlock is in force.
pub(crate) const FENCED: i32 = libc::EACCES;

fn restrict_files(directories: &[BorrowedFd<'_>]) -> Option<Landlock> {
    let abi = ABI::V6;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .ok()?;
    for directory in directories {
        let rule = PathBeneath::new(directory, AccessFs::from_all(abi));
        ruleset = ruleset.add_rule(rule).ok()?;
    }
    match ruleset.restrict_self().ok()?.landlock {
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => Some(Landlock::Absent),
        LandlockStatus::Available { .. } => Some(Landlock::Enforced),
    }
}

fn restrict_calls() -> Option<()> {
    filters()?.iter().try_for_each(|filter| seccompiler::apply_filter(filter).ok())
}

/// The system call filters, in the order in which they are taken.
pub(crate) fn filters() -> Option<&'static [BpfProgram; 2]> {
    static COMPILED: LazyLock<Option<[BpfProgram; 2]>> = LazyLock::new(compile);
    COMPILED.as_ref()
}

fn compile() -> Option<[BpfProgram; 2]> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().ok()?;
    // The arguments of `clone3` lie in memory, where a filter cannot look;
    // told that there is none, libc uses `clone`. This filter comes first
    // because the other one allows no more filters.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let first = SeccompFilter::new(clone3, SeccompAction::Allow, absent, arch).ok()?;

    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Threads, but no processes.
    let thread = libc::CLONE_THREAD as u64;
    let thread = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), thread).ok()?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![thread]).ok()?]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let second = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).ok()?;
    Some([first.try_into().ok()?, second.try_into().ok()?])
}

/// What the interpreter, its runtime and the file access need. Everything else
/// fails with `EPERM`.
const ALLOWED: &[i64] = &[
    // Descriptors and content.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_dup,
    // Files beneath the two directories.
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_utimensat,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads, waiting and time. The first filter answers `clone3`.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_prctl,
    libc::SYS_getpid,
    libc::SYS_geteuid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    // Ending.
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::process::Command;

    use bailiwick_files::{Access, Workspace};
    use bailiwick_types::path::WorkspacePath;

    use crate::omit::Omitted;

    /// Tries one thing on a thread of its own, free and confined.
    fn both<T: Send>(attempt: impl Fn() -> std::io::Result<T> + Sync) -> (bool, Option<ErrorKind>) {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let free = scope.spawn(|| attempt().is_ok()).join().unwrap();
            let confined = scope.spawn(|| {
                let allowed = std::fs::File::open(dir.path()).unwrap();
                super::restrict_thread(&[allowed.as_fd()], &Omitted::default()).unwrap();
                attempt().err().map(|error| error.kind())
            });
            (free, confined.join().unwrap())
        })
    }

    #[test]
    fn b10_a_worker_may_not_do_what_a_command_has_no_use_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let refused = (true, Some(ErrorKind::PermissionDenied));
        assert_eq!(both(|| std::fs::read("/etc/passwd")), refused);
        assert_eq!(both(|| TcpStream::connect(address)), refused);
        assert_eq!(both(|| TcpListener::bind("127.0.0.1:0")), refused);
        assert_eq!(both(|| Command::new("/bin/true").spawn()?.wait()), refused);
        assert_eq!(both(std::os::unix::net::UnixDatagram::unbound), refused);
        let parent = rustix::process::getppid().unwrap();
        assert_eq!(both(|| Ok(rustix::process::test_kill_process(parent)?)), refused);
        // What it does need still works.
        assert_eq!(both(|| std::thread::Builder::new().spawn(|| ())), (true, None));
    }

    #[test]
    fn b10_a_worker_reaches_its_directory_and_no_other_even_with_a_descriptor() {
        let top = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = top.path().join(name);
            std::fs::create_dir(&path).unwrap();
            Workspace::open(&path, Access::ReadWrite, None).unwrap()
        };
        let (own, foreign) = (open("own"), open("foreign"));
        let file = WorkspacePath::parse("d/f").unwrap();
        foreign.write(&file, b"secret").unwrap();
        let confined = std::thread::spawn(move || {
            let root = own.root_fd().unwrap();
            super::restrict_thread(&[root.as_fd()], &Omitted::default()).unwrap();
            own.write(&file, b"kept").unwrap();
            own.append(&file, b"!").unwrap();
            own.rename(&file, &WorkspacePath::parse("g").unwrap()).unwrap();
            (own.read(&WorkspacePath::parse("g").unwrap(), 10).unwrap(), foreign.read(&file, 10))
        });
        let (kept, foreign) = confined.join().unwrap();
        assert_eq!(kept, b"kept!");
        assert_eq!(foreign.unwrap_err().code(), "io");
    }

    /// Tries one thing on a thread that lacks some walls.
    #[cfg(debug_assertions)]
    fn without<T: Send>(walls: &[crate::omit::Wall], attempt: impl Fn() -> std::io::Result<T> + Sync) -> Option<T> {
        let omitted = Omitted { walls: walls.to_vec(), ..Omitted::default() };
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let allowed = std::fs::File::open(dir.path()).unwrap();
                super::restrict_thread(&[allowed.as_fd()], &omitted).unwrap();
                attempt().ok()
            });
            confined.join().unwrap()
        })
    }

    #[cfg(debug_assertions)]
    #[test]
    fn b09_b04_a_worker_without_a_wall_lets_more_through() {
        use crate::omit::Wall;
        let socket = || std::os::unix::net::UnixDatagram::unbound().map(drop);
        assert_eq!((without(&[], socket), without(&[Wall::Calls], socket)), (None, Some(())));
        // Landlock forbids a program as well, so both go.
        let program = || Command::new("/bin/true").status().map(|status| status.success());
        assert_eq!(without(&[Wall::Calls], program), None);
        assert_eq!(without(&[Wall::Calls, Wall::Landlock], program), Some(true));
        let fence = || Ok(super::try_fence());
        assert_eq!((without(&[], fence), without(&[Wall::Landlock], fence)), (Some(super::FENCED), Some(0)));
    }

    #[cfg(debug_assertions)]
    #[test]
    fn b09_b04_a_worker_that_may_gain_privileges_does_by_a_setuid_program() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;

        use crate::omit::Wall;
        if !rustix::process::geteuid().is_root() {
            // Only root makes a program that is setuid to another user.
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = folder.path().join("id");
        std::fs::copy("/usr/bin/id", &program).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
        let gain = || {
            let ran = Command::new(&program).arg("-u").uid(65_533).gid(65_533).output()?;
            Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
        };
        // The list knows no exec and Landlock no program, so all three go.
        let cover = [Wall::Calls, Wall::Landlock];
        assert_eq!(without(&cover, gain).as_deref(), Some("65533\n"), "no new privileges holds alone");
        let all = [Wall::Calls, Wall::Landlock, Wall::NoNewPrivileges];
        assert_eq!(without(&all, gain).as_deref(), Some("0\n"));
    }
}
