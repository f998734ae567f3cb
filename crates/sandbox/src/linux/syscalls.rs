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

/// Compiles the filters, in the order in which they are taken.
pub(crate) fn compile() -> Result<Vec<BpfProgram>, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| FilterError::Architecture)?;
    let allowed: BTreeMap<i64, Vec<SeccompRule>> =
        COMMON.iter().chain(NATIVE).map(|number| (*number, Vec::new())).collect();
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
        FORBIDDEN.iter().chain(NATIVE_FORBIDDEN).map(|number| (*number, Vec::new())).collect();

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

const NAMESPACES: &[i32] = &[
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
const FORBIDDEN: &[i64] = &[
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root,
    libc::SYS_chroot, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_mount_setattr,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd, libc::SYS_kcmp, libc::SYS_process_madvise,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    libc::SYS_kexec_load, libc::SYS_kexec_file_load,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_quotactl, libc::SYS_quotactl_fd, libc::SYS_fanotify_init, libc::SYS_fanotify_mark,
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at,
    libc::SYS_acct, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_reboot, libc::SYS_syslog,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup,
    libc::SYS_migrate_pages, libc::SYS_move_pages,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const NATIVE_FORBIDDEN: &[i64] = &[
    libc::SYS_modify_ldt, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS_ustat,
    libc::SYS_sysfs, libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const NATIVE_FORBIDDEN: &[i64] = &[];

// Calls that the deny-list refuses under some arguments are named here too.
#[rustfmt::skip]
const COMMON: &[i64] = &[
    // Files.
    libc::SYS_read, libc::SYS_write, libc::SYS_close, libc::SYS_close_range, libc::SYS_fstat,
    libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_lseek, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_readv, libc::SYS_writev, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2,
    libc::SYS_pwritev2, libc::SYS_ioctl, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl,
    libc::SYS_flock, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs,
    libc::SYS_sync_file_range, libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate,
    libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir,
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchmodat2, libc::SYS_fchown,
    libc::SYS_fchownat, libc::SYS_umask, libc::SYS_openat, libc::SYS_openat2, libc::SYS_mkdirat,
    libc::SYS_mknodat, libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_renameat2,
    libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_readlinkat, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_utimensat, libc::SYS_getdents64, libc::SYS_statfs,
    libc::SYS_fstatfs, libc::SYS_sendfile, libc::SYS_copy_file_range, libc::SYS_splice,
    libc::SYS_tee, libc::SYS_vmsplice, libc::SYS_pipe2, libc::SYS_memfd_create,
    libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_getxattr,
    libc::SYS_lgetxattr, libc::SYS_fgetxattr, libc::SYS_listxattr, libc::SYS_llistxattr,
    libc::SYS_flistxattr, libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr,
    libc::SYS_inotify_init1, libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
    // Waiting.
    libc::SYS_pselect6, libc::SYS_ppoll, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_signalfd4,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_futex, libc::SYS_futex_waitv,
    // Memory.
    libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_msync,
    libc::SYS_mincore, libc::SYS_madvise, libc::SYS_brk, libc::SYS_mlock, libc::SYS_mlock2,
    libc::SYS_munlock, libc::SYS_mlockall, libc::SYS_munlockall, libc::SYS_pkey_mprotect,
    libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_membarrier, libc::SYS_get_mempolicy,
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_shmdt,
    libc::SYS_semget, libc::SYS_semop, libc::SYS_semctl, libc::SYS_semtimedop,
    libc::SYS_msgget, libc::SYS_msgsnd, libc::SYS_msgrcv, libc::SYS_msgctl,
    // Processes, threads and signals.
    libc::SYS_clone, libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group,
    libc::SYS_wait4, libc::SYS_waitid, libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill,
    libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_restart_syscall,
    libc::SYS_set_tid_address, libc::SYS_set_robust_list, libc::SYS_get_robust_list,
    libc::SYS_rseq, libc::SYS_gettid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getpgid,
    libc::SYS_setpgid, libc::SYS_getsid, libc::SYS_setsid, libc::SYS_prctl,
    libc::SYS_prlimit64, libc::SYS_getrlimit, libc::SYS_setrlimit, libc::SYS_getrusage,
    libc::SYS_getpriority, libc::SYS_setpriority, libc::SYS_ioprio_get, libc::SYS_ioprio_set,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam, libc::SYS_sched_setparam, libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler, libc::SYS_sched_getattr, libc::SYS_sched_setattr,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval, libc::SYS_getcpu, libc::SYS_personality,
    // More confinement is always allowed.
    libc::SYS_seccomp, libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    // Identity: there is nothing to gain without capabilities.
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid,
    libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_setuid,
    libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_setfsuid, libc::SYS_setfsgid,
    libc::SYS_capget, libc::SYS_capset,
    // Time and the machine.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday, libc::SYS_times,
    libc::SYS_getitimer, libc::SYS_setitimer, libc::SYS_timer_create, libc::SYS_timer_settime,
    libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_getrandom,
    // Sockets.
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_bind, libc::SYS_connect, libc::SYS_listen,
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_getsockname, libc::SYS_getpeername,
    libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_shutdown, libc::SYS_sendto,
    libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const NATIVE: &[i64] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access,
    libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_create, libc::SYS_epoll_wait,
    libc::SYS_pipe, libc::SYS_dup2, libc::SYS_eventfd, libc::SYS_signalfd,
    libc::SYS_inotify_init, libc::SYS_getdents, libc::SYS_rename, libc::SYS_mkdir,
    libc::SYS_rmdir, libc::SYS_link, libc::SYS_unlink, libc::SYS_symlink, libc::SYS_readlink,
    libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_mknod, libc::SYS_utime,
    libc::SYS_utimes, libc::SYS_futimesat, libc::SYS_time, libc::SYS_alarm, libc::SYS_pause,
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_getpgrp, libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const NATIVE: &[i64] = &[];

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
        for number in FORBIDDEN.iter().chain(NATIVE_FORBIDDEN) {
            assert!(!COMMON.contains(number) && !NATIVE.contains(number), "{number}");
        }
        assert!(!COMMON.contains(&libc::SYS_clone3));
    }
}
