//! The bounded set of threads that commands run on.
//!
//! One thread per running command, so that a command that never yields holds
//! nobody else up. A thread cannot be killed: one that ignores its deadline
//! keeps its place and is counted, and when all places are lost that way the
//! pool says so at once instead of queueing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::ShellError;

/// How many commands may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Commands at once; more wait.
    pub threads: usize,
    /// How long a command waits for a thread.
    pub queue: Duration,
}

/// Clones are the same pool.
#[derive(Debug, Clone)]
pub struct ShellPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: PoolLimits,
    places: Arc<Semaphore>,
    stuck: AtomicUsize,
}

/// One thread's place, given back when the thread ends.
#[derive(Debug)]
pub(crate) struct Place {
    pool: ShellPool,
    _permit: OwnedSemaphorePermit,
}

/// Stack of every thread that runs parts of a command. The interpreter recurses on the host's stack
/// within its own limits; an overflow would end the server, and untouched
/// stack costs address space only.
pub(crate) const STACK_BYTES: usize = 64 * 1024 * 1024;

impl Default for PoolLimits {
    fn default() -> Self {
        Self { threads: 64, queue: Duration::from_secs(30) }
    }
}

impl ShellPool {
    /// A pool without threads yet; they start as commands come.
    #[must_use]
    pub fn new(limits: PoolLimits) -> Self {
        let threads = limits.threads.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            inner: Arc::new(Inner {
                limits: PoolLimits { threads, ..limits },
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

    /// Waits for a place, but not when only stuck commands hold them.
    pub(crate) async fn place(&self) -> Result<Place, ShellError> {
        let deadline = Instant::now() + self.inner.limits.queue;
        let places = Arc::clone(&self.inner.places);
        if self.stuck() >= self.inner.limits.threads {
            return Err(self.overloaded());
        }
        match tokio::time::timeout_at(deadline, places.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { pool: self.clone(), _permit: permit }),
            _ => Err(self.overloaded()),
        }
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

impl Default for ShellPool {
    fn default() -> Self {
        Self::new(PoolLimits::default())
    }
}

impl Place {
    pub(crate) fn pool(&self) -> &ShellPool {
        &self.pool
    }

    /// Runs `work` on a thread of its own, which keeps the place to its end.
    pub(crate) fn run(self, work: impl FnOnce() + Send + 'static) -> Result<(), ShellError> {
        std::thread::Builder::new()
            .name("virtual-shell".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                work();
                drop(self);
            })
            .map(drop)
            .map_err(|source| ShellError::Start { source })
    }
}
