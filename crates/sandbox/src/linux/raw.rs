//! The system calls that rustix has no safe form for.
//!
//! All of this crate's `unsafe` is here, in small functions that are safe to
//! call under the conditions that their comments state. Nothing here decides
//! anything.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use tokio::io::unix::AsyncFd;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(Pid),
}

/// Forks. The caller is a role of `helper`, which is single-threaded, so the
/// child may use anything that the parent may.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: `fork` takes no pointers. The process has one thread, so no lock
    // is held by a thread that the child lacks.
    after_fork(i64::from(unsafe { libc::fork() }))
}

/// Forks into a new process namespace, where the child is process 1.
pub(crate) fn fork_into_pid_namespace() -> io::Result<Forked> {
    let flags = libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: a null stack makes the kernel copy this one, as `fork` does; the
    // other pointers are unused without their flags. One thread, as above.
    after_fork(unsafe { libc::syscall(libc::SYS_clone, i64::from(flags), 0, 0, 0, 0) })
}

fn after_fork(result: i64) -> io::Result<Forked> {
    check(result)?;
    // A process id fits; zero is the child.
    let id = i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok(Pid::from_raw(id).map_or(Forked::Child, Forked::Parent))
}

/// Ends this process without running anything registered by the parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Replaces this process; returns only on failure.
pub(crate) fn exec(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    // SAFETY: the strings outlive the call and both arrays end with null.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces this process by an open file; returns only on failure.
pub(crate) fn exec_file(file: impl AsFd, arguments: &[CString], environment: &[CString]) -> io::Error {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    let fd = i64::from(file.as_fd().as_raw_fd());
    // SAFETY: the empty path is a constant, the strings outlive the call and
    // both arrays end with null.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            i64::from(libc::AT_EMPTY_PATH),
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// A set of signals.
fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that the pointer names;
    // `sigaddset` then changes it in place.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Blocks exactly these signals.
pub(crate) fn block_only(signals: &[i32]) -> io::Result<()> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised and the old one is not asked for.
    check(i64::from(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) }))
}

/// Gives every signal its default action, as a new program expects.
pub(crate) fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is no function of ours; numbers that cannot be
        // changed answer with an error that does not matter.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A descriptor that becomes readable with one of these blocked signals.
pub(crate) fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(i64::from(fd))?;
    // SAFETY: the descriptor is new and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for one of these blocked signals.
pub(crate) fn wait_signal(signals: &[i32], longest: Option<Duration>) -> Option<i32> {
    let set = signal_set(signals);
    let time = longest.map(|longest| libc::timespec {
        tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(longest.subsec_nanos()),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the set is initialised, the information is not asked for, and
    // the time is null or lives until the call returns.
    let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), time) };
    (signal > 0).then_some(signal)
}

/// Kills every process that this one may kill, itself excepted; in a jail's
/// first process that is the whole jail.
pub(crate) fn kill_all() {
    if rustix::process::getpid().is_init() {
        // SAFETY: takes no pointers. Outside a process namespace of our own it
        // would reach the host, hence the condition.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// The kernel's Landlock version; `None` without Landlock.
pub(crate) fn landlock_abi() -> Option<i32> {
    const VERSION: i64 = 1; // LANDLOCK_CREATE_RULESET_VERSION
    // SAFETY: with this flag the kernel reads no attribute.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    i32::try_from(answer).ok().filter(|abi| *abi > 0)
}

/// Leaves the caller's session keyring for a new, empty one.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: i64 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    match check(answer) {
        // A kernel without keyrings has nothing to isolate.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other,
    }
}

/// Gives a socket to the runtime's poller.
pub(crate) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and the same until it is dropped, and the
    // returned value owns it and lends it out only by shared reference.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

/// Leaves namespaces of this process.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags ask for namespaces only, never for an own descriptor
    // table, which would invalidate descriptors that other values hold.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Brings up the loopback device of this network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all bytes zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *slot = c_char::from_ne_bytes([*byte]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or_default();
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which lives until the call returns.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(i64::from(answer))
}

/// Makes every IPv4 address one of this network namespace's own: a route of kind `local` for all of them by the
/// loopback device, as rtnetlink(7) wants it.
pub(crate) fn every_address_local() -> io::Result<()> {
    const ROUTE_MESSAGE: usize = 12;
    const ATTRIBUTE: usize = 8;
    // The only device of a new namespace is the loopback, and it is the first.
    const LOOPBACK_INDEX: u32 = 1;
    let length = size_of::<libc::nlmsghdr>() + ROUTE_MESSAGE + ATTRIBUTE;
    let mut message = Vec::with_capacity(length);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    message.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&[0; 8]); // sequence, port
    let family = u8::try_from(libc::AF_INET).unwrap_or_default();
    // Family, both prefix lengths, service, table, protocol, scope, kind, flags.
    message.extend_from_slice(&[family, 0, 0, 0, libc::RT_TABLE_LOCAL, libc::RTPROT_STATIC]);
    message.extend_from_slice(&[libc::RT_SCOPE_HOST, libc::RTN_LOCAL, 0, 0, 0, 0]);
    message.extend_from_slice(&u16::try_from(ATTRIBUTE).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&libc::RTA_OIF.to_ne_bytes());
    message.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        rustix::net::SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is number 0.
        None,
    )?;
    rustix::net::send(&socket, &message, rustix::net::SendFlags::empty())?;
    let mut answer = [0; 256];
    let (length, _) = rustix::net::recv(&socket, &mut answer, rustix::net::RecvFlags::empty())?;
    // A header of 16 bytes, then the error: 0, or its negative number.
    let code = answer.get(..length).and_then(|answer| answer.get(16..20)).and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::from_raw_os_error(libc::EPROTO)),
    }
}

/// The network namespace of a socket, in the kernel's spelling (`net:[…]`).
pub(crate) fn socket_namespace(socket: impl AsFd) -> io::Result<String> {
    const SIOCGSKNS: libc::Ioctl = 0x894C;
    // SAFETY: the request takes no argument and answers with a new descriptor.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    check(i64::from(fd))?;
    // SAFETY: the descriptor is new and nobody else has it.
    let namespace = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(format!("net:[{}]", rustix::fs::fstat(&namespace)?.st_ino))
}

/// Marks every descriptor from `first` on to be closed by the next exec.
pub(crate) fn close_from_on_exec(first: u32) -> io::Result<()> {
    // SAFETY: takes no pointers; with the flag it closes nothing now.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            i64::from(first),
            i64::from(u32::MAX),
            i64::from(libc::CLOSE_RANGE_CLOEXEC),
        )
    })
}

/// Closes every descriptor from `first` on, whatever value of ours still names it. For a child that goes on
/// with the standard ones alone and never returns.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: takes no pointers. The caller uses and drops no value that owns one of them any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, i64::from(first), i64::from(u32::MAX), 0_i64) })
}

fn check(answer: i64) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
