//! What the gate gives up before it listens: its user, its rights, every file but those that a resolver reads, and
//! every system call that a proxy has no use for.

use std::collections::BTreeMap;
use std::path::Path;

use crate::linux::raw;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// The gate's user on a host where the server is root. It owns no file, and no jail has it.
const GATE_USER: u32 = 65_532;
/// Sockets on both sides of every connection, of all sandboxes.
const OPEN_FILES: u64 = 65_536;
/// Memory that it may write, bytes: half of the machine's, within these. What all sandboxes together can make it hold
/// is bounded before that (places for connections and requests); this is for what nobody has thought of, so that it
/// ends the gate and not its host.
const MEMORY: (u64, u64) = (1 << 30, 8 << 30);
/// What a resolver reads: its settings, its modules, its daemon's socket.
const READ: [&str; 8] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/dev/urandom",
];

/// Confines this process, which has one thread. The error says what it could not do.
pub(super) fn confine() -> Result<(), &'static str> {
    warm_up();
    let files = rustix::process::getrlimit(Resource::Nofile).maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    let machine = rustix::system::sysinfo();
    let memory = machine.totalram as u64 * u64::from(machine.mem_unit) / 2;
    let memory = memory.clamp(MEMORY.0, MEMORY.1);
    let had = rustix::process::getrlimit(Resource::Data).maximum;
    let memory = had.map_or(memory, |most| most.min(memory));
    for (resource, limit) in [(Resource::Nofile, files), (Resource::Data, memory), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        rustix::process::setrlimit(resource, limit).map_err(|_| "lower its limits")?;
    }
    if rustix::process::geteuid().is_root() {
        let (user, group) = (Uid::from_raw(GATE_USER), Gid::from_raw(GATE_USER));
        rustix::thread::set_thread_groups(&[]).map_err(|_| "leave its groups")?;
        rustix::thread::set_thread_res_gid(group, group, group).map_err(|_| "change its group")?;
        rustix::thread::set_thread_res_uid(user, user, user).map_err(|_| "change its user")?;
    }
    let empty = CapabilitySet::empty();
    let none = CapabilitySets { effective: empty, permitted: empty, inheritable: empty };
    rustix::thread::set_capabilities(None, none).map_err(|_| "give up its capabilities")?;
    rustix::thread::set_no_new_privs(true).map_err(|_| "rule out new privileges")?;
    // The change of user made it readable again.
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(hidden).map_err(|_| "hide its memory")?;
    restrict_files().ok_or("take the Landlock rules")?;
    restrict_calls().ok_or("take the system call filter")
}

/// Has the C library load what it resolves names with.
fn warm_up() {
    let _ = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 0));
}

fn restrict_files() -> Option<()> {
    // As much of it as this kernel has; the launcher has looked that it has any.
    let abi = ABI::from(raw::landlock_abi()?.min(3));
    let read = AccessFs::from_read(abi) & !AccessFs::Execute;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))
        .ok()?
        .create()
        .ok()?;
    for place in READ {
        let Ok(folder) = PathFd::new(place) else { continue };
        let rights = if Path::new(place).is_dir() { read } else { AccessFs::ReadFile.into() };
        // Modules of the resolver are mapped to be executed; that takes reading alone.
        ruleset = ruleset.add_rule(PathBeneath::new(folder, rights)).ok()?;
    }
    let status = ruleset.restrict_self().ok()?;
    (status.ruleset == RulesetStatus::FullyEnforced).then_some(())
}

/// What a resolver, a runtime and a proxy call.
const ALLOWED: &[i64] = &[
    // Sockets.
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_splice,
    libc::SYS_pipe2,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    // Threads of its own; `clone3` is told not to be there, so that the flags of `clone` can be looked at.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_prctl,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_membarrier,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    // Reading what Landlock leaves.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_uname,
];

#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_stat];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

fn restrict_calls() -> Option<()> {
    seccompiler::apply_filter(&filter()?).ok()
}

fn filter() -> Option<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    let narrow = |index, operator, value: i32| {
        let value = u64::try_from(value).ok()?;
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).ok()
    };
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let socket: Option<Vec<SeccompRule>> =
        families.into_iter().map(|family| SeccompRule::new(vec![narrow(0, SeccompCmpOp::Eq, family)?]).ok()).collect();
    rules.insert(libc::SYS_socket, socket?);
    // A signal to itself, never to the server, whose user this may be.
    let own = narrow(0, SeccompCmpOp::Eq, rustix::process::getpid().as_raw_nonzero().get())?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own]).ok()?]);
    // The runtime wakes itself by one.
    let own = SeccompRule::new(vec![narrow(0, SeccompCmpOp::Eq, libc::AF_UNIX)?]).ok()?;
    rules.insert(libc::SYS_socketpair, vec![own]);
    // A thread, never a process.
    let thread = u64::try_from(libc::CLONE_THREAD).ok()?;
    let clone = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread).ok()?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![clone]).ok()?]);
    let enosys = SeccompAction::Errno(u32::try_from(libc::ENOSYS).ok()?);
    SeccompFilter::new(rules, enosys, SeccompAction::Allow, arch).ok()?.try_into().ok()
}
