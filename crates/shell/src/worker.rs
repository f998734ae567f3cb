//! The worker process: one request, one command, one ending.
//!
//! Must be entered before the process has other threads, and must never use
//! anything it was not handed: no environment, no path of the host but its own
//! list of descriptors, before it is confined.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_files::{Access, Workspace};

use crate::confine;
use crate::gate::Notices;
use crate::interpreter::{STACK_BYTES, Task};
use crate::omit::Wall;
use crate::output::Stream;
use crate::receipt::Told;
use crate::wire::{self, Request};

/// Does once what every worker would do anew, in the process that they are
/// forked from. Starts no thread.
pub fn warm() {
    crate::interpreter::warm();
    let _ = confine::filters();
}

/// The worker's `main`. Returns when the command has ended.
#[must_use]
pub fn worker_main() -> ExitCode {
    match work() {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn work() -> Option<()> {
    let descriptors = count_descriptors()?;
    let socket = UnixStream::from(inherited(std::io::stdout())?);
    let (kind, request) = wire::read_frame(&mut &socket, wire::MAX_REQUEST).ok()?;
    if kind != wire::REQUEST {
        return None;
    }
    let request: Request = serde_json::from_slice(&request).ok()?;
    let root = match &request.workspace {
        Some(_) => Some(inherited(std::io::stdin())?),
        None => None,
    };
    let tmp = inherited(std::io::stderr())?;
    let directories: Vec<_> = root.iter().chain([&tmp]).map(AsFd::as_fd).collect();
    let (before, variables) = (confine::try_fence(), std::env::vars_os().count());
    confine::withdraw()?;
    if !request.omitted.has(Wall::Limits) {
        confine::limit_process(&request.limits, request.timeout)?;
    }
    let landlock = confine::restrict_thread(&directories, &request.omitted)?;
    let told = Told { landlock, fence: (before, confine::try_fence()), variables, descriptors };
    let told = wire::frame(wire::CONFINED, &serde_json::to_vec(&told).ok()?).ok()?;
    (&socket).write_all(&told).ok()?;
    // The server reads what we are from the kernel; it goes on only with what it declared.
    if !matches!(wire::read_frame(&mut &socket, 0), Ok((wire::GO, _))) {
        return None;
    }
    let workspace = match (root, &request.workspace) {
        (Some(root), Some(terms)) => Some(Workspace::from_root_fd(root, terms.access(), terms.owner()).ok()?),
        _ => None,
    };
    let tmp = Workspace::from_root_fd(tmp, Access::ReadWrite, None).ok()?;
    let task = Task {
        command: request.command,
        timeout: request.timeout,
        limits: request.limits,
        workspace,
        tmp,
        tmp_bytes: request.tmp_bytes,
        notices: Arc::new(Notices::default()),
        omitted: request.omitted,
    };
    let runner = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run(task, socket)).ok()?;
    runner.join().ok()?
}

fn run(task: Task, socket: UnixStream) -> Option<()> {
    let socket = Mutex::new(socket);
    let ending = task.run(
        |_| true,
        |stream, bytes| {
            let kind = match stream {
                Stream::Stdout => wire::STDOUT,
                Stream::Stderr => wire::STDERR,
            };
            // Blocking is right: a server that does not read makes us wait,
            // and one that is gone ends us.
            let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = wire::write_output(&mut *socket, kind, &bytes).is_ok();
            async move { sent }
        },
    )?;
    let ending = serde_json::to_vec(&ending).ok()?;
    let mut socket = socket.into_inner().unwrap_or_else(PoisonError::into_inner);
    socket.write_all(&wire::frame(wire::ENDING, &ending).ok()?).ok()
}

/// Descriptors that are open, the listing's own excepted.
fn count_descriptors() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)
}

fn inherited(descriptor: impl AsFd) -> Option<OwnedFd> {
    descriptor.as_fd().try_clone_to_owned().ok()
}
