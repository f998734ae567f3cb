//! The bounded number of commands that run at once, and where they run.
//!
//! In either mode each command has a thread of its own, in a worker process or
//! in the server. A thread cannot be killed: one that ignores its deadline
//! keeps its place and is counted, and when all places are lost that way the
//! pool says so soon instead of queueing. A process can be killed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::ShellError;
use crate::process::WorkerSource;

/// How many commands may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Commands at once; more wait.
    pub threads: usize,
    /// How long a command waits for its turn.
    pub queue: Duration,
}

/// What stands between the interpreter and the server.
#[derive(Clone)]
pub enum Isolation {
    /// A worker process per command, which is killed at the deadline and may
    /// crash without harm. The one to use.
    Process(Arc<dyn WorkerSource>),
    /// A thread of the server. A command can end the server by overflowing the
    /// interpreter's stack: for tests and single-user setups only.
    Thread,
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process(_) => "Process",
            Self::Thread => "Thread",
        })
    }
}

/// Clones are the same pool.
#[derive(Debug, Clone)]
pub struct ShellPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: PoolLimits,
    isolation: Isolation,
    places: Arc<Semaphore>,
    stuck: AtomicUsize,
}

/// One command's place, given back when its thread or process ends.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// How long a call waits when every place is held by a stuck command.
const STUCK_QUEUE: Duration = Duration::from_secs(1);

impl Default for PoolLimits {
    fn default() -> Self {
        Self { threads: 64, queue: Duration::from_secs(30) }
    }
}

impl ShellPool {
    /// A pool in which nothing runs yet.
    #[must_use]
    pub fn new(limits: PoolLimits, isolation: Isolation) -> Self {
        let threads = limits.threads.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            inner: Arc::new(Inner {
                limits: PoolLimits { threads, ..limits },
                isolation,
                places: Arc::new(Semaphore::new(threads)),
                stuck: AtomicUsize::new(0),
            }),
        }
    }

    /// Commands that hold a thread now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.limits.threads - self.inner.places.available_permits()
    }

    /// Those among them that are past their deadline and do not stop.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.inner.stuck.load(Ordering::SeqCst)
    }

    /// Waits for a place, but not long when only stuck commands hold them.
    pub(crate) async fn place(&self) -> Result<Place, ShellError> {
        let PoolLimits { threads, queue } = self.inner.limits;
        // Calls that were just given up count as stuck for a moment.
        let patience = if self.stuck() >= threads { queue.min(STUCK_QUEUE) } else { queue };
        let deadline = Instant::now() + patience;
        let places = Arc::clone(&self.inner.places);
        match tokio::time::timeout_at(deadline, places.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            _ => Err(self.overloaded()),
        }
    }

    pub(crate) fn isolation(&self) -> &Isolation {
        &self.inner.isolation
    }

    pub(crate) fn count_stuck(&self) {
        self.inner.stuck.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn discount_stuck(&self) {
        self.inner.stuck.fetch_sub(1, Ordering::SeqCst);
    }

    fn overloaded(&self) -> ShellError {
        ShellError::Overloaded { running: self.running(), stuck: self.stuck() }
    }
}
