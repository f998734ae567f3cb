//! The process that forks workers: it holds the interpreter ready and waits.
//!
//! It has one thread, an empty environment and one socket. It gets descriptors and passes them on; it never
//! reads from them. When the socket closes, the server is gone, and every worker goes with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid, WaitOptions};

use super::{FromForker, ToForker};
use crate::linux::raw::{self, Forked};
use crate::linux::role::{self, Errors, Event};
use crate::linux::wire::{self, Received, WireError};

/// Plays the role until the server closes the socket.
pub(crate) fn run() -> ! {
    raw::exit_now(i32::from(serve().is_err()))
}

struct Forker<'a> {
    socket: &'a OwnedFd,
    /// Workers by their process.
    workers: HashMap<Pid, u64>,
}

fn serve() -> Result<(), WireError> {
    let socket = role::prepare(c"bw-workers", Errors::Dropped, &[libc::SIGCHLD]).map_err(WireError::Socket)?;
    // A signal from the server's terminal must not end commands before the server has stopped them.
    let _ = rustix::process::setsid();
    bailiwick_shell::warm();
    // A fork copies one thread; what another held would be held for ever.
    let threads = std::fs::read_dir("/proc/self/task").map_err(|_| WireError::Closed)?.count();
    if threads != 1 {
        return Err(WireError::Closed);
    }
    let mut forker = Forker { socket: &socket, workers: HashMap::new() };
    let ended = role::attend(&socket, |event| match event {
        Event::Children => forker.reap(),
        Event::Message(received) => forker.make(received),
    });
    for worker in forker.workers.keys() {
        let _ = rustix::process::kill_process(*worker, Signal::KILL);
    }
    ended
}

impl Forker<'_> {
    fn make(&mut self, received: Received<ToForker>) -> Result<(), WireError> {
        let ToForker::Make { number, user, close } = received.message;
        if received.short {
            return self.failed(number, libc::ENFILE);
        }
        match raw::fork() {
            Ok(Forked::Child) => {
                let Err(_) = become_worker(received.fds, user, close);
                raw::exit_now(1)
            }
            Ok(Forked::Parent(process)) => self.made(number, process),
            Err(error) => self.failed(number, error.raw_os_error().unwrap_or(0)),
        }
    }

    fn made(&mut self, number: u64, process: Pid) -> Result<(), WireError> {
        // Nobody else takes its number before it is reaped, and we reap no sooner than after this.
        match rustix::process::pidfd_open(process, PidfdFlags::empty()) {
            Ok(handle) => {
                let id = process.as_raw_nonzero().get().unsigned_abs();
                let made = FromForker::Made { number, process: id };
                match wire::send(self.socket.as_fd(), &made, &[], &[handle.as_fd()]) {
                    Ok(()) => {
                        self.workers.insert(process, number);
                        Ok(())
                    }
                    // The kernel has no room for one descriptor more: this worker's loss, and no other's.
                    Err(WireError::Socket(errno)) => {
                        let _ = rustix::process::kill_process(process, Signal::KILL);
                        self.failed(number, errno.raw_os_error())
                    }
                    Err(error) => Err(error),
                }
            }
            Err(errno) => {
                let _ = rustix::process::kill_process(process, Signal::KILL);
                self.failed(number, errno.raw_os_error())
            }
        }
    }

    fn failed(&self, number: u64, errno: i32) -> Result<(), WireError> {
        wire::send(self.socket.as_fd(), &FromForker::Failed { number, errno }, &[], &[])
    }

    fn reap(&mut self) -> Result<(), WireError> {
        while let Ok(Some((process, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(number) = self.workers.remove(&process) else { continue };
            let signal = status.terminating_signal();
            wire::send(self.socket.as_fd(), &FromForker::Ended { number, signal }, &[], &[])?;
        }
        Ok(())
    }
}

/// In the child: nothing but the worker's own descriptors, and the worker's user.
fn become_worker(descriptors: Vec<OwnedFd>, user: Option<(u32, u32)>, close: bool) -> Result<Infallible, Errno> {
    // Dropped nowhere: below, their numbers are closed without them.
    let descriptors = std::mem::ManuallyDrop::new(descriptors);
    let [socket, tmp, workspace @ ..] = &**descriptors else { return Err(Errno::BADF) };
    rustix::stdio::dup2_stdout(socket)?;
    rustix::stdio::dup2_stderr(tmp)?;
    match workspace.first() {
        Some(workspace) => rustix::stdio::dup2_stdin(workspace)?,
        None => {
            let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::stdio::dup2_stdin(&null)?;
        }
    }
    if close {
        // The socket to the server among them, by which a worker could speak for all.
        raw::close_from(3).map_err(errno)?;
    }
    raw::default_signals();
    raw::block_only(&[]).map_err(errno)?;
    let _ = rustix::thread::set_name(c"bw-worker");
    // Its own group, so that no signal to one worker's group reaches another.
    let _ = rustix::process::setpgid(None, None);
    if let Some((user, group)) = user {
        // Of this thread, and there is no other.
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        match rustix::thread::set_thread_groups(&[]) {
            // Where nobody may change them and there are none; the receipt looks.
            Err(Errno::PERM) if rustix::process::getgroups()?.is_empty() => {}
            set => set?,
        }
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
    }
    let code = bailiwick_shell::worker_main();
    raw::exit_now(i32::from(code != ExitCode::SUCCESS))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}
