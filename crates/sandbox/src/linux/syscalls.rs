//! The system calls that a jail may make.
//!
//! Three filters, all taken by the first process before it runs anything:
//! 1. an allow-list; what it does not name, new system calls included, does
//!    not exist (`ENOSYS`, so that libc falls back, `clone3` among them);
//! 2. a deny-list with arguments, which answers `EPERM` so that a refusal is a
//!    refusal and can be told from an old kernel;
//! 3. on x86-64, death for the x32 call numbers.
//!
//! A foreign architecture is death in each of them. Nothing here may depend on
//! what a caller asks for: every jail has the same filters.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// The filters could not be made or taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// This processor has no list here.
    #[error("there is no system call list for this processor architecture")]
    Architecture,
    /// The compiler refused the rules.
    #[error("the system call rules do not compile")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel refused the filter.
    #[error("the kernel refused the system call filter")]
    Install(#[from] seccompiler::Error),
    /// The bytes are not filters.
    #[error("the system call filters are damaged")]
    Damaged,
}

/// A system call by the kernel's name and number.
pub(super) type Call = (&'static str, i64);

/// Calls with their names.
macro_rules! calls {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name)),*] };
}

/// Compiles the filters, in the order in which they are taken.
pub(crate) fn compile() -> Result<Vec<BpfProgram>, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| FilterError::Architecture)?;
    let allowed: BTreeMap<i64, Vec<SeccompRule>> =
        COMMON.iter().chain(NATIVE).map(|(_, number)| (*number, Vec::new())).collect();
    let enosys = SeccompAction::Errno(errno(libc::ENOSYS));
    let allow_list = SeccompFilter::new(allowed, enosys, SeccompAction::Allow, arch)?;
    let eperm = SeccompAction::Errno(errno(libc::EPERM));
    let deny_list = SeccompFilter::new(denied()?, SeccompAction::Allow, eperm, arch)?;
    let mut programs = vec![allow_list.try_into()?, deny_list.try_into()?];
    if cfg!(target_arch = "x86_64") {
        programs.push(no_x32());
    }
    Ok(programs)
}

/// Takes the filters for this process and all that it starts.
pub(crate) fn install(programs: &[BpfProgram]) -> Result<(), FilterError> {
    if programs.is_empty() {
        return Err(FilterError::Damaged);
    }
    for program in programs {
        seccompiler::apply_filter(program)?;
    }
    Ok(())
}

/// The filters as bytes: per filter the number of instructions, then each.
pub(crate) fn encode(programs: &[BpfProgram]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for program in programs {
        let count = u32::try_from(program.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        for instruction in program {
            bytes.extend_from_slice(&instruction.code.to_le_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_le_bytes());
        }
    }
    bytes
}

/// The inverse of `encode`.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<BpfProgram>, FilterError> {
    let mut programs = Vec::new();
    while !bytes.is_empty() {
        let (count, rest) = bytes.split_first_chunk::<4>().ok_or(FilterError::Damaged)?;
        bytes = rest;
        let mut program = BpfProgram::new();
        for _ in 0..u32::from_le_bytes(*count) {
            let (one, rest) = bytes.split_first_chunk::<8>().ok_or(FilterError::Damaged)?;
            bytes = rest;
            let [c0, c1, jt, jf, k0, k1, k2, k3] = *one;
            program.push(sock_filter {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes([k0, k1, k2, k3]),
            });
        }
        programs.push(program);
    }
    Ok(programs)
}

fn errno(code: i32) -> u32 {
    code.unsigned_abs()
}

/// The calls, or arguments of calls, that are refused.
fn denied() -> Result<BTreeMap<i64, Vec<SeccompRule>>, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().chain(NATIVE_FORBIDDEN).map(|(_, number)| (*number, Vec::new())).collect();

    let clone = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        Ok(SeccompRule::new(vec![wide(0, SeccompCmpOp::MaskedEq(flag), flag)?])?)
    });
    rules.insert(libc::SYS_clone, clone.collect::<Result<_, FilterError>>()?);

    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![narrow(0, SeccompCmpOp::Ne, libc::AF_UNIX)?])?]);

    let ioctl = TERMINAL_TRICKS.iter().map(|request| {
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request)?;
        Ok(SeccompRule::new(vec![condition])?)
    });
    rules.insert(libc::SYS_ioctl, ioctl.collect::<Result<_, FilterError>>()?);

    // Asking for the personality is allowed, and setting the usual one.
    rules.insert(
        libc::SYS_personality,
        vec![SeccompRule::new(vec![narrow(0, SeccompCmpOp::Ne, 0)?, narrow(0, SeccompCmpOp::Ne, -1)?])?],
    );
    // Limits of other processes, the first process among them.
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![narrow(0, SeccompCmpOp::Ne, 0)?])?]);
    rules.insert(libc::SYS_mknodat, devices(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, devices(1)?);
    Ok(rules)
}

/// Sockets that are neither local nor plain TCP or UDP.
fn sockets() -> Result<Vec<SeccompRule>, FilterError> {
    let mut rules = vec![SeccompRule::new(vec![
        narrow(0, SeccompCmpOp::Ne, libc::AF_UNIX)?,
        narrow(0, SeccompCmpOp::Ne, libc::AF_INET)?,
        narrow(0, SeccompCmpOp::Ne, libc::AF_INET6)?,
    ])?];
    const OBSOLETE_PACKET: i32 = 10; // SOCK_PACKET
    for kind in [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_DCCP, OBSOLETE_PACKET] {
        rules.push(SeccompRule::new(vec![narrow(1, SeccompCmpOp::MaskedEq(0xf), kind)?])?);
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        rules.push(SeccompRule::new(vec![
            narrow(0, SeccompCmpOp::Eq, family)?,
            narrow(2, SeccompCmpOp::Ne, 0)?,
            narrow(2, SeccompCmpOp::Ne, libc::IPPROTO_TCP)?,
            narrow(2, SeccompCmpOp::Ne, libc::IPPROTO_UDP)?,
        ])?);
    }
    Ok(rules)
}

/// Device nodes; pipes and sockets may be made.
fn devices(mode_argument: u8) -> Result<Vec<SeccompRule>, FilterError> {
    [libc::S_IFCHR, libc::S_IFBLK]
        .into_iter()
        .map(|kind| {
            let op = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
            let condition = SeccompCondition::new(mode_argument, SeccompCmpArgLen::Dword, op, u64::from(kind))?;
            Ok(SeccompRule::new(vec![condition])?)
        })
        .collect()
}

/// The kernel reads these arguments as 32 bits, so the filter does too.
fn narrow(argument: u8, op: SeccompCmpOp, value: i32) -> Result<SeccompCondition, FilterError> {
    let value = u64::from(u32::from_ne_bytes(value.to_ne_bytes()));
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?)
}

fn wide(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, FilterError> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Qword, op, value)?)
}

/// Kills at a call number with the x32 bit; -1 is left to the allow-list.
fn no_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, offset 0
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        instruction(LOAD_NUMBER, 0, 0, 0),
        instruction(JUMP_EQUAL, 2, 0, u32::MAX),
        instruction(JUMP_BITS, 0, 1, 0x4000_0000),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

pub(super) const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// TIOCSTI and TIOCLINUX type into a terminal, TIOCCONS takes the console,
/// TIOCSETD loads line disciplines.
const TERMINAL_TRICKS: &[u64] = &[0x5412, 0x541C, 0x541D, 0x5423];

#[rustfmt::skip]
pub(super) const FORBIDDEN: &[Call] = calls![
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root,
    SYS_chroot, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick,
    SYS_open_tree, SYS_move_mount, SYS_mount_setattr,
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev,
    SYS_pidfd_getfd, SYS_kcmp, SYS_process_madvise,
    SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd,
    SYS_keyctl, SYS_add_key, SYS_request_key,
    SYS_kexec_load, SYS_kexec_file_load,
    SYS_init_module, SYS_finit_module, SYS_delete_module,
    SYS_quotactl, SYS_quotactl_fd, SYS_fanotify_init, SYS_fanotify_mark,
    SYS_open_by_handle_at, SYS_name_to_handle_at,
    SYS_acct, SYS_swapon, SYS_swapoff, SYS_reboot, SYS_syslog,
    SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex,
    SYS_sethostname, SYS_setdomainname, SYS_vhangup,
    SYS_migrate_pages, SYS_move_pages,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(super) const NATIVE_FORBIDDEN: &[Call] = calls![
    SYS_modify_ldt, SYS_iopl, SYS_ioperm, SYS_uselib, SYS_ustat,
    SYS_sysfs, SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const NATIVE_FORBIDDEN: &[Call] = calls![];

// Calls that the deny-list refuses under some arguments are named here too.
#[rustfmt::skip]
pub(super) const COMMON: &[Call] = calls![
    // Files.
    SYS_read, SYS_write, SYS_close, SYS_close_range, SYS_fstat,
    SYS_newfstatat, SYS_statx, SYS_lseek, SYS_pread64, SYS_pwrite64,
    SYS_readv, SYS_writev, SYS_preadv, SYS_pwritev, SYS_preadv2,
    SYS_pwritev2, SYS_ioctl, SYS_dup, SYS_dup3, SYS_fcntl,
    SYS_flock, SYS_fsync, SYS_fdatasync, SYS_sync, SYS_syncfs,
    SYS_sync_file_range, SYS_truncate, SYS_ftruncate, SYS_fallocate,
    SYS_fadvise64, SYS_readahead, SYS_getcwd, SYS_chdir, SYS_fchdir,
    SYS_fchmod, SYS_fchmodat, SYS_fchmodat2, SYS_fchown,
    SYS_fchownat, SYS_umask, SYS_openat, SYS_openat2, SYS_mkdirat,
    SYS_mknodat, SYS_unlinkat, SYS_renameat, SYS_renameat2,
    SYS_linkat, SYS_symlinkat, SYS_readlinkat, SYS_faccessat,
    SYS_faccessat2, SYS_utimensat, SYS_getdents64, SYS_statfs,
    SYS_fstatfs, SYS_sendfile, SYS_copy_file_range, SYS_splice,
    SYS_tee, SYS_vmsplice, SYS_pipe2, SYS_memfd_create,
    SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_getxattr,
    SYS_lgetxattr, SYS_fgetxattr, SYS_listxattr, SYS_llistxattr,
    SYS_flistxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
    SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch,
    // Waiting.
    SYS_pselect6, SYS_ppoll, SYS_epoll_create1, SYS_epoll_ctl,
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_signalfd4,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime,
    SYS_nanosleep, SYS_clock_nanosleep, SYS_futex, SYS_futex_waitv,
    // Memory.
    SYS_mmap, SYS_mprotect, SYS_munmap, SYS_mremap, SYS_msync,
    SYS_mincore, SYS_madvise, SYS_brk, SYS_mlock, SYS_mlock2,
    SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_pkey_mprotect,
    SYS_pkey_alloc, SYS_pkey_free, SYS_membarrier, SYS_get_mempolicy,
    SYS_shmget, SYS_shmat, SYS_shmctl, SYS_shmdt,
    SYS_semget, SYS_semop, SYS_semctl, SYS_semtimedop,
    SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl,
    // Processes, threads and signals.
    SYS_clone, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group,
    SYS_wait4, SYS_waitid, SYS_kill, SYS_tkill, SYS_tgkill,
    SYS_pidfd_open, SYS_pidfd_send_signal, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending,
    SYS_rt_sigtimedwait, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
    SYS_rt_sigsuspend, SYS_sigaltstack, SYS_restart_syscall,
    SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list,
    SYS_rseq, SYS_gettid, SYS_getpid, SYS_getppid, SYS_getpgid,
    SYS_setpgid, SYS_getsid, SYS_setsid, SYS_prctl,
    SYS_prlimit64, SYS_getrlimit, SYS_setrlimit, SYS_getrusage,
    SYS_getpriority, SYS_setpriority, SYS_ioprio_get, SYS_ioprio_set,
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity,
    SYS_sched_getparam, SYS_sched_setparam, SYS_sched_getscheduler,
    SYS_sched_setscheduler, SYS_sched_getattr, SYS_sched_setattr,
    SYS_sched_get_priority_max, SYS_sched_get_priority_min,
    SYS_sched_rr_get_interval, SYS_getcpu, SYS_personality,
    // More confinement is always allowed.
    SYS_seccomp, SYS_landlock_create_ruleset, SYS_landlock_add_rule,
    SYS_landlock_restrict_self,
    // Identity: there is nothing to gain without capabilities.
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_setuid,
    SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid,
    SYS_setresgid, SYS_setgroups, SYS_setfsuid, SYS_setfsgid,
    SYS_capget, SYS_capset,
    // Time and the machine.
    SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_times,
    SYS_getitimer, SYS_setitimer, SYS_timer_create, SYS_timer_settime,
    SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete,
    SYS_uname, SYS_sysinfo, SYS_getrandom,
    // Sockets.
    SYS_socket, SYS_socketpair, SYS_bind, SYS_connect, SYS_listen,
    SYS_accept, SYS_accept4, SYS_getsockname, SYS_getpeername,
    SYS_getsockopt, SYS_setsockopt, SYS_shutdown, SYS_sendto,
    SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg,
    SYS_recvmmsg,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(super) const NATIVE: &[Call] = calls![
    SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access,
    SYS_poll, SYS_select, SYS_epoll_create, SYS_epoll_wait,
    SYS_pipe, SYS_dup2, SYS_eventfd, SYS_signalfd,
    SYS_inotify_init, SYS_getdents, SYS_rename, SYS_mkdir,
    SYS_rmdir, SYS_link, SYS_unlink, SYS_symlink, SYS_readlink,
    SYS_chmod, SYS_chown, SYS_lchown, SYS_mknod, SYS_utime,
    SYS_utimes, SYS_futimesat, SYS_time, SYS_alarm, SYS_pause,
    SYS_fork, SYS_vfork, SYS_getpgrp, SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const NATIVE: &[Call] = calls![];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn filters_survive_the_wire() {
        let programs = compile().unwrap();
        assert_eq!(decode(&encode(&programs)).unwrap(), programs);
    }

    #[test]
    fn damaged_filters_are_refused() {
        let bytes = encode(&compile().unwrap());
        assert!(matches!(decode(&bytes[..bytes.len() - 1]), Err(FilterError::Damaged)));
        assert!(matches!(install(&[]), Err(FilterError::Damaged)));
    }

    #[test]
    fn nothing_is_both_allowed_and_forbidden() {
        for call in FORBIDDEN.iter().chain(NATIVE_FORBIDDEN) {
            assert!(!COMMON.contains(call) && !NATIVE.contains(call), "{call:?}");
        }
        assert!(!COMMON.iter().any(|(_, number)| *number == libc::SYS_clone3));
    }
}
