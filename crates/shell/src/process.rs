//! A command in a worker process, seen from the server.
//!
//! A worker gets no environment and three descriptors: the workspace as 0,
//! the socket to us as 1, `/tmp` as 2. Must never wait for a worker without
//! holding the means to kill it.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bailiwick_files::{Owner, Workspace};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::ending::Ending;
use crate::error::ShellError;
use crate::exec::{Chunk, Ended, QUEUED_CHUNKS, Running};
use crate::interpreter::Task;
use crate::omit::Wall;
use crate::output::Stream;
use crate::pool::Place;
use crate::receipt::{self, Declared, Receipt};
use crate::wire::{self, Request, Terms};

/// Whoever makes processes for workers. A worker is a process with one thread
/// in which [`crate::worker_main`] runs, with the three descriptors of
/// [`WorkerParts`] and no other, and as the user that is named there.
pub trait WorkerSource: Send + Sync {
    /// Makes a worker.
    fn make(&self, parts: WorkerParts) -> Pin<Box<dyn Future<Output = io::Result<WorkerProcess>> + Send + '_>>;
}

/// What a worker is made with.
#[derive(Debug)]
pub struct WorkerParts {
    /// Becomes descriptor 1.
    pub socket: OwnedFd,
    /// Becomes descriptor 2.
    pub tmp: OwnedFd,
    /// Becomes descriptor 0; without one that is the null device.
    pub workspace: Option<OwnedFd>,
    /// Whom the worker runs as; without one, as the server.
    pub user: Option<Owner>,
    /// Leaves a descriptor of its maker's open, for a test.
    #[cfg(debug_assertions)]
    pub leave_open: bool,
}

/// A worker that was made. Dropping it kills it.
#[derive(Debug)]
pub struct WorkerProcess {
    /// Its number. Once it has ended somebody else may have it: what is read by it holds only if `handle`
    /// says afterwards that it had not.
    pub id: u32,
    /// The process itself, whatever has its number.
    pub handle: OwnedFd,
    /// How it ended; closed without a word if its maker ended first, and then
    /// it has ended too.
    pub ended: oneshot::Receiver<WorkerEnd>,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// By itself, or with its maker.
    Exited,
    /// By a signal, ours or its own doing.
    Killed,
}

impl WorkerProcess {
    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Kills it, and waits until nothing of it is left.
    async fn end(&mut self) -> WorkerEnd {
        self.kill();
        let how = (&mut self.ended).await;
        // Told or not: a maker that is gone tells nothing, and its worker may still be at work.
        while !self.has_ended() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // That the maker is gone was not the command's doing.
        how.unwrap_or(WorkerEnd::Exited)
    }

    /// Whether the process, and not one that has its number now, has ended.
    fn has_ended(&self) -> bool {
        let mut handle = [PollFd::new(&self.handle, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // It becomes readable then. What cannot be asked is taken for ended, and never for alive.
        retry_on_intr(|| poll(&mut handle, Some(&now))).map_or(true, |ready| ready > 0)
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The task that listens to a worker. Dropping it kills the worker.
pub(crate) struct Worker {
    listener: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn kill(&self) {
        self.listener.abort();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How soon one looks again whether a worker is gone whose maker cannot tell.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// What a call that killed its worker is told.
const DIED: &str = "the command needed more memory or stack than the interpreter has";

/// Starts a worker for `task`, which keeps `place` until it was reaped.
pub(crate) async fn start(
    task: Task,
    place: Place,
    source: &dyn WorkerSource,
) -> Result<(Running, Worker), ShellError> {
    let failed = |source| ShellError::Start { source };
    let (ours, theirs) = StdStream::pair().map_err(failed)?;
    let stream = ours.set_nonblocking(true).and_then(|()| UnixStream::from_std(ours)).map_err(failed)?;
    // A privileged server gives the worker the rights of the workspace's owner and no more.
    let owner = task.workspace.as_ref().and_then(Workspace::owner);
    let parts = WorkerParts {
        socket: OwnedFd::from(theirs),
        tmp: root_of(&task.tmp)?,
        workspace: task.workspace.as_ref().map(root_of).transpose()?,
        user: owner.filter(|_| !task.omitted.has(Wall::User)),
        #[cfg(debug_assertions)]
        leave_open: task.omitted.has(Wall::Descriptors),
    };
    let declared = Declared {
        user: owner.map(|owner| (owner.uid, owner.gid)),
        limits: task.limits,
        timeout: task.timeout,
        omitted: task.omitted.clone(),
    };
    let process = source.make(parts).await.map_err(failed)?;

    let terms = task.workspace.as_ref().map(|files| Terms::new(files.access(), files.owner()));
    let request = Request {
        command: task.command,
        timeout: task.timeout,
        limits: task.limits,
        tmp_bytes: task.tmp_bytes,
        workspace: terms,
        omitted: task.omitted,
    };
    let receipt = Arc::new(OnceLock::new());
    let checked = Arc::clone(&receipt);
    let (chunks, received) = mpsc::channel::<Chunk>(QUEUED_CHUNKS);
    let (ended, ending) = oneshot::channel();
    let listener = tokio::spawn(async move {
        let told = converse(stream, process, request, chunks, &declared, &checked).await;
        drop(place);
        let _ = ended.send(told.unwrap_or(Ended::Silent));
    });
    Ok((Running { received, ending, receipt }, Worker { listener }))
}

/// Compares what the kernel shows of a worker with what was declared.
fn check(process: &WorkerProcess, told: &[u8], declared: &Declared) -> Result<Receipt, Ended> {
    let told = serde_json::from_slice(told).map_err(|_| Ended::Silent)?;
    let read = receipt::read(process.id, &told, declared).map_err(|_| Ended::Silent)?;
    if process.has_ended() {
        // Then it may have been read of whoever has its number now.
        return Err(Ended::Silent);
    }
    read.map_err(|differs| {
        tracing::error!(?differs, "a virtual shell worker is not what was declared");
        Ended::Differs(differs)
    })
}

fn root_of(files: &Workspace) -> Result<OwnedFd, ShellError> {
    files.root_fd().map_err(|source| ShellError::Tmp { source })
}

/// Sends the request and takes what comes back, to the end of the worker.
async fn converse(
    mut stream: UnixStream,
    mut process: WorkerProcess,
    request: Request,
    chunks: mpsc::Sender<Chunk>,
    declared: &Declared,
    checked: &OnceLock<Receipt>,
) -> Option<Ended> {
    let request = serde_json::to_vec(&request).ok()?;
    // A worker that died before it listened is found out below.
    let _ = stream.write_all(&wire::frame(wire::REQUEST, &request).ok()?).await;
    let ending: Option<Ending> = loop {
        match wire::receive_frame(&mut stream, wire::MAX_FRAME).await {
            Ok((wire::CONFINED, told)) if checked.get().is_none() => {
                match check(&process, &told, declared) {
                    Ok(receipt) => {
                        let _ = checked.set(receipt);
                    }
                    Err(differs) => {
                        process.end().await;
                        return Some(differs);
                    }
                }
                let _ = stream.write_all(&wire::frame(wire::GO, &[]).ok()?).await;
            }
            // Whoever speaks before it was looked at is not ours.
            Ok(_) if checked.get().is_none() => break None,
            Ok((wire::STDOUT, bytes)) => chunks.send((Stream::Stdout, bytes)).await.ok()?,
            Ok((wire::STDERR, bytes)) => chunks.send((Stream::Stderr, bytes)).await.ok()?,
            Ok((wire::ENDING, bytes)) => break serde_json::from_slice(&bytes).ok(),
            // Silence, nonsense, or too long a frame.
            Ok(_) | Err(_) => break None,
        }
    };
    if ending.is_some() {
        process.end().await;
        return ending.map(Ended::Told);
    }
    // It said nothing sensible: either it is dead, or it shall be.
    let how = process.end().await;
    tracing::info!(?how, "a virtual shell worker died");
    // A worker that could not even start ends by itself; what a command does to it ends it with a signal.
    match how {
        WorkerEnd::Exited => None,
        WorkerEnd::Killed => Some(Ended::Told(Ending::limit(DIED))),
    }
}
