//! A command in a worker process, seen from the server.
//!
//! The worker gets no environment and three descriptors: the workspace as 0,
//! the socket to us as 1, `/tmp` as 2. Must never wait for a worker without
//! holding the means to kill it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use bailiwick_files::Workspace;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::ending::Ending;
use crate::error::ShellError;
use crate::exec::{Chunk, Ended, QUEUED_CHUNKS, Running};
use crate::interpreter::Task;
use crate::omit::Wall;
use crate::output::Stream;
use crate::pool::{Place, WorkerProgram};
use crate::receipt::{self, Declared, Receipt};
use crate::wire::{self, Request, Terms};

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

/// What a call that killed its worker is told.
const DIED: &str = "the command needed more memory or stack than the interpreter has";

/// Starts a worker for `task`, which keeps `place` until it was reaped.
pub(crate) fn start(task: Task, place: Place, program: &WorkerProgram) -> Result<(Running, Worker), ShellError> {
    let (ours, theirs) = StdStream::pair().map_err(|source| ShellError::Start { source })?;
    let stream = ours
        .set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(ours))
        .map_err(|source| ShellError::Start { source })?;
    let workspace = match &task.workspace {
        Some(workspace) => Stdio::from(root_of(workspace)?),
        None => Stdio::null(),
    };
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(task.omitted.has(Wall::Environment).then_some(("BAILIWICK_LEFT_IN", "1")))
        .current_dir("/")
        .stdin(workspace)
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::from(root_of(&task.tmp)?))
        .process_group(0)
        .kill_on_drop(true);
    // A privileged server gives the worker the rights of the workspace's owner and no more.
    let owner = task.workspace.as_ref().and_then(Workspace::owner);
    if let Some(owner) = owner.filter(|_| !task.omitted.has(Wall::User)) {
        command.uid(owner.uid).gid(owner.gid);
    }
    let declared = Declared {
        user: owner.map(|owner| (owner.uid, owner.gid)),
        limits: task.limits,
        timeout: task.timeout,
        omitted: task.omitted.clone(),
    };
    let child = command.spawn().map_err(|source| ShellError::Start { source })?;

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
        let told = converse(stream, child, request, chunks, &declared, &checked).await;
        drop(place);
        let _ = ended.send(told.unwrap_or(Ended::Silent));
    });
    Ok((Running { received, ending, receipt }, Worker { listener }))
}

/// Compares what the kernel shows of a worker with what was declared.
fn check(child: &Child, told: &[u8], declared: &Declared) -> Result<Receipt, Ended> {
    let process = child.id().ok_or(Ended::Silent)?;
    let told = serde_json::from_slice(told).map_err(|_| Ended::Silent)?;
    receipt::read(process, &told, declared).map_err(|_| Ended::Silent)?.map_err(|differs| {
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
    mut child: Child,
    request: Request,
    chunks: mpsc::Sender<Chunk>,
    declared: &Declared,
    checked: &OnceLock<Receipt>,
) -> Option<Ended> {
    let request = serde_json::to_vec(&request).ok()?;
    // A worker that died before it listened is found out below.
    let _ = stream.write_all(&wire::frame(wire::REQUEST, &request).ok()?).await;
    let ending = loop {
        match wire::receive_frame(&mut stream, wire::MAX_FRAME).await {
            Ok((wire::CONFINED, told)) if checked.get().is_none() => {
                match check(&child, &told, declared) {
                    Ok(receipt) => {
                        let _ = checked.set(receipt);
                    }
                    Err(differs) => {
                        let _ = child.start_kill();
                        let _ = child.wait().await;
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
        let _ = child.start_kill();
        let _ = child.wait().await;
        return ending.map(Ended::Told);
    }
    // It said nothing sensible: either it is dead, or it shall be.
    let _ = child.start_kill();
    let status = child.wait().await.ok()?;
    tracing::info!(%status, "a virtual shell worker died");
    // A worker that could not even start ends with a code; what a command
    // does to it ends it with a signal.
    match status.code() {
        Some(_) => None,
        None => Some(Ended::Told(Ending::limit(DIED))),
    }
}
