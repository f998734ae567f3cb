//! What the launcher and a jail's first process have in common: how they make
//! themselves small, and how they wait.
//!
//! Both have one socket, one thread and children. What a signal means is
//! decided from the kernel's state, never from the signal's own data, which a
//! process of the same user could have sent.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use serde::de::DeserializeOwned;

use super::raw;
use super::wire::{self, PACKET_BYTES, Received, WireError};

/// Where a role's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errors {
    /// To whom it went before.
    Kept,
    /// Nowhere.
    Dropped,
}

/// What a role waits for.
pub(crate) enum Event<M> {
    /// Some children ended, or one says that it did.
    Children,
    /// A message came.
    Message(Received<M>),
}

/// Takes the socket from standard input, and makes this process small and hard
/// to look into.
pub(crate) fn prepare(name: &CStr, errors: Errors, signals: &[i32]) -> Result<OwnedFd, Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    if errors == Errors::Dropped {
        rustix::stdio::dup2_stderr(&null)?;
    }
    drop(null);
    let _ = rustix::thread::set_name(name);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    raw::block_only(signals).map_err(|_| Errno::INVAL)?;
    Ok(socket)
}

/// Receives the first message, which configures a role.
pub(crate) fn configuration<M: DeserializeOwned>(socket: &OwnedFd) -> Result<Received<M>, WireError> {
    wire::receive(socket, &mut vec![0; PACKET_BYTES])
}

/// Reacts to events until the socket closes or a reaction fails. A message may have lost descriptors; who
/// reacts says what that means.
pub(crate) fn attend<M: DeserializeOwned>(
    socket: &OwnedFd,
    mut react: impl FnMut(Event<M>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let children = raw::signal_descriptor(&[libc::SIGCHLD]).map_err(|_| WireError::Closed)?;
    let mut buffer = vec![0; PACKET_BYTES];
    loop {
        let mut waiting = [PollFd::new(socket, PollFlags::IN), PollFd::new(&children, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(WireError::Socket(errno)),
        }
        let [requests, ended] = waiting.map(|one| !one.revents().is_empty());
        if ended {
            let mut drained = [0_u8; 1024];
            while matches!(rustix::io::read(&children, &mut drained), Ok(bytes) if bytes > 0) {}
            react(Event::Children)?;
        }
        if requests {
            react(Event::Message(wire::receive_short(socket, &mut buffer)?))?;
        }
    }
}
