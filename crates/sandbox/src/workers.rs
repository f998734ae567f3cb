//! Worker processes of the virtual shell: forked, not started anew.
//!
//! A small process of one thread, the server's own file under another `argv[0]`, holds the interpreter
//! ready. It gets a worker's descriptors, forks, and says so; it never reads a command or a file, and its
//! environment is empty. Starting the whole program for each command took three times as long.
//!
//! What that costs in separation: workers of one such process have the same layout in memory, so whoever
//! learns it from one knows it in the others. It cannot be guessed by trying: a worker that crashes takes
//! its layout along, for the next one comes from a new process. What a worker may do is not bounded by its
//! layout but by the kernel, as the receipt of every command shows.

pub(crate) mod forker;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailiwick_shell::{WorkerEnd, WorkerParts, WorkerProcess, WorkerSource};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::linux::wire::{self, Received, WireError};
use crate::linux::{HelperPath, launcher};

/// The `argv[0]` of the process that forks workers.
pub(crate) const FORKER_ROLE: &str = "bailiwick-workers";

/// Longest message in bytes.
const MESSAGE_BYTES: usize = 4096;
/// How long a worker may take to be made.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the server asks.
#[derive(Debug, Serialize, Deserialize)]
enum ToForker {
    /// Make a worker. Descriptors: socket, `/tmp`, workspace if any.
    Make {
        number: u64,
        /// User and group, if they are not the server's.
        user: Option<(u32, u32)>,
        /// Closes what is not the worker's; false in a test alone.
        close: bool,
    },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
enum FromForker {
    /// The worker is there. Descriptor: the process.
    Made { number: u64, process: u32 },
    /// There is none, and why.
    Failed { number: u64, errno: i32 },
    /// The worker is gone.
    Ended { number: u64, signal: Option<i32> },
}

/// Where workers come from. The forking process is started when the first one is needed, and again if it
/// is gone.
pub struct Workers {
    helper: HelperPath,
    left_in: Option<(&'static str, &'static str)>,
    forkers: tokio::sync::Mutex<Forkers>,
}

/// The process that forks, and those before it whose workers are still at work.
#[derive(Default)]
struct Forkers {
    newest: Option<Forker>,
    retired: Vec<Forker>,
}

/// A forking process; it ends when this is dropped.
struct Forker {
    shared: Arc<Shared>,
    listener: AbortHandle,
}

/// What those who ask share with the task that listens.
struct Shared {
    socket: AsyncFd<OwnedFd>,
    process: tokio::process::Child,
    next: AtomicU64,
    /// No more workers come from it: it is gone, does not answer, or one of its workers crashed.
    spent: AtomicBool,
    asked: Mutex<HashMap<u64, Asked>>,
}

/// A worker that was asked for.
struct Asked {
    made: Option<oneshot::Sender<io::Result<(u32, OwnedFd)>>>,
    ended: oneshot::Sender<WorkerEnd>,
}

impl Workers {
    /// No process is started yet.
    #[must_use]
    pub fn new(helper: HelperPath) -> Self {
        Self { helper, left_in: None, forkers: tokio::sync::Mutex::default() }
    }

    /// With a variable in the environment of all workers, for tests. Release builds do not have this.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn leaving_in(self, name: &'static str, value: &'static str) -> Self {
        Self { left_in: Some((name, value)), ..self }
    }

    /// The process that forks, if there is one, for tests. Release builds do not have this.
    #[cfg(debug_assertions)]
    pub async fn process(&self) -> Option<u32> {
        let held = self.forkers.lock().await;
        held.newest.as_ref().filter(|forker| forker.is_good()).and_then(|forker| forker.shared.process.id())
    }

    async fn forker(&self) -> io::Result<Arc<Shared>> {
        let mut held = self.forkers.lock().await;
        held.retired.retain(Forker::is_needed);
        if let Some(forker) = held.newest.as_ref().filter(|forker| forker.is_good()) {
            return Ok(Arc::clone(&forker.shared));
        }
        let forker = Forker::start(&self.helper, self.left_in)?;
        let shared = Arc::clone(&forker.shared);
        if let Some(old) = held.newest.replace(forker) {
            held.retired.push(old);
        }
        Ok(shared)
    }
}

impl WorkerSource for Workers {
    fn make(&self, parts: WorkerParts) -> Pin<Box<dyn Future<Output = io::Result<WorkerProcess>> + Send + '_>> {
        Box::pin(async move { self.forker().await?.make(parts).await })
    }
}

impl Forker {
    fn start(helper: &HelperPath, left_in: Option<(&str, &str)>) -> io::Result<Self> {
        let (socket, process) = launcher::spawn(helper, FORKER_ROLE, left_in)?;
        let shared = Arc::new(Shared {
            socket,
            process,
            next: AtomicU64::new(1),
            spent: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        let listener = tokio::spawn(listen(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, listener })
    }

    fn is_good(&self) -> bool {
        !self.shared.spent.load(Ordering::SeqCst)
    }

    /// Whether it has workers, or somebody is about to ask it for one. Such an asker holds what is shared
    /// beside us and the listener, and got it under the lock under which this is asked.
    fn is_needed(&self) -> bool {
        Arc::strong_count(&self.shared) > 2 || !self.shared.asked().is_empty()
    }
}

impl Drop for Forker {
    /// The socket closes, and the process and its workers end.
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Shared {
    async fn make(&self, parts: WorkerParts) -> io::Result<WorkerProcess> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        let close = !parts.leave_open;
        #[cfg(not(debug_assertions))]
        let close = true;
        let user = parts.user.map(|owner| (owner.uid, owner.gid));
        let descriptors: Vec<_> =
            [&parts.socket, &parts.tmp].into_iter().chain(&parts.workspace).map(AsFd::as_fd).collect();
        let (made, making) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        self.asked().insert(number, Asked { made: Some(made), ended: end });
        let mut unsent = Unsent { shared: self, number: Some(number) };
        let make = async {
            self.send(&ToForker::Make { number, user, close }, &descriptors).await?;
            unsent.number = None;
            making.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
        };
        let Ok(made) = tokio::time::timeout(PATIENCE, make).await else {
            // It lives and does not answer: the next command has another.
            self.spent.store(true, Ordering::SeqCst);
            if let Some(id) = self.process.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
            return Err(io::ErrorKind::TimedOut.into());
        };
        let (id, handle) = made?;
        Ok(WorkerProcess { id, handle, ended })
    }

    async fn send(&self, message: &ToForker, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut guard = self.socket.writable().await?;
            match wire::send(self.socket.as_fd(), message, &[], descriptors) {
                Ok(()) => return Ok(()),
                Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
                Err(WireError::Socket(errno)) => return Err(errno.into()),
                Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, received: Received<FromForker>) {
        match received.message {
            FromForker::Made { number, process } => {
                let made = self.asked().get_mut(&number).and_then(|asked| asked.made.take());
                let Some(handle) = received.fds.into_iter().next() else {
                    // We had no room for its handle. It ends by itself, as nobody will speak to it.
                    if let Some(made) = made {
                        let _ = made.send(Err(io::Error::from_raw_os_error(libc::EMFILE)));
                    }
                    return;
                };
                // Whoever asked may have gone away; then nobody else would end it.
                let unwanted = match made {
                    Some(made) => made.send(Ok((process, handle))).err(),
                    None => Some(Ok((process, handle))),
                };
                if let Some(Ok((_, handle))) = unwanted {
                    let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
                }
            }
            FromForker::Failed { number, errno } => {
                if let Some(made) = self.asked().remove(&number).and_then(|asked| asked.made) {
                    let _ = made.send(Err(io::Error::from_raw_os_error(errno)));
                }
            }
            FromForker::Ended { number, signal } => {
                // We end them by this one alone.
                if signal.is_some_and(|signal| signal != libc::SIGKILL) {
                    self.spent.store(true, Ordering::SeqCst);
                }
                if let Some(asked) = self.asked().remove(&number) {
                    let _ = asked.ended.send(signal.map_or(WorkerEnd::Exited, |_| WorkerEnd::Killed));
                }
            }
        }
    }
}

/// Takes an entry back whose request never left, whatever became of the one who asked.
struct Unsent<'a> {
    shared: &'a Shared,
    number: Option<u64>,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.asked().remove(&number);
        }
    }
}

/// Hands on what the forking process says, until it is gone or says something that this protocol does not
/// have. Its workers go with it.
async fn listen(shared: Arc<Shared>) {
    let mut buffer = vec![0; MESSAGE_BYTES];
    while let Ok(received) = receive(&shared.socket, &mut buffer).await {
        shared.hear(received);
    }
    tracing::warn!("a process that makes workers of the virtual shell is gone; the next command starts one anew");
    shared.spent.store(true, Ordering::SeqCst);
    shared.asked().clear();
}

async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Result<Received<FromForker>, WireError> {
    loop {
        let mut guard = socket.readable().await.map_err(|_| WireError::Closed)?;
        match wire::receive_short(socket.get_ref(), buffer) {
            Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
            other => return other,
        }
    }
}
