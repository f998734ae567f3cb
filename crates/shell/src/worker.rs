//! The worker process: one request, one command, one ending.
//!
//! Must be entered before the process has other threads, and must never use
//! anything it was not handed: no environment, no path of the host.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailiwick_files::{Access, Workspace};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::gate::Notices;
use crate::interpreter::{STACK_BYTES, Task};
use crate::output::Stream;
use crate::wire::{self, Request};

/// The worker's `main`. Returns when the command has ended.
#[must_use]
pub fn worker_main() -> ExitCode {
    match work() {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// Address space on top of what the command may hold: the program itself,
/// stacks, and the allocator's reserve.
const BASE_ADDRESS_SPACE: u64 = 1024 * 1024 * 1024;
const OPEN_FILES: u64 = 64;
/// Processor time beyond the wall time, for the parser's threads.
const EXTRA_PROCESSOR_SECONDS: u64 = 5;

fn work() -> Option<()> {
    let socket = UnixStream::from(inherited(std::io::stdout())?);
    let (kind, request) = wire::read_frame(&mut &socket, wire::MAX_REQUEST).ok()?;
    if kind != wire::REQUEST {
        return None;
    }
    let request: Request = serde_json::from_slice(&request).ok()?;
    confine(&request)?;
    let workspace = match &request.workspace {
        Some(terms) => {
            let root = inherited(std::io::stdin())?;
            Some(Workspace::from_root_fd(root, terms.access(), terms.owner()).ok()?)
        }
        None => None,
    };
    let tmp = Workspace::from_root_fd(inherited(std::io::stderr())?, Access::ReadWrite, None).ok()?;
    let task = Task {
        command: request.command,
        timeout: request.timeout,
        limits: request.limits,
        workspace,
        tmp,
        tmp_bytes: request.tmp_bytes,
        notices: Arc::new(Notices::default()),
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

fn inherited(descriptor: impl AsFd) -> Option<OwnedFd> {
    descriptor.as_fd().try_clone_to_owned().ok()
}

/// Gives up what the command has no use for. Limits are only ever lowered, so
/// this works for any user.
fn confine(request: &Request) -> Option<()> {
    let memory = BASE_ADDRESS_SPACE.saturating_add(request.limits.memory_bytes as u64 * 4);
    let seconds = request.timeout.saturating_add(Duration::from_secs(EXTRA_PROCESSOR_SECONDS)).as_secs();
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::As, memory),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Cpu, seconds),
        (Resource::Fsize, request.limits.file_bytes),
    ] {
        let inherited = rustix::process::getrlimit(resource);
        let limit = inherited.maximum.map_or(limit, |maximum| maximum.min(limit));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).ok()?;
    }
    rustix::thread::set_no_new_privs(true).ok()?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok()?;
    // The server may die without a word; then nobody waits for us.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok()
}
