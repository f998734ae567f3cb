//! A command on a thread of the server.
//!
//! Must never let a command that was given up reach files again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};

use crate::error::ShellError;
use crate::exec::{Chunk, Ended, QUEUED_CHUNKS, Running};
use crate::gate::Notices;
use crate::interpreter::{STACK_BYTES, Task};
use crate::pool::{Place, ShellPool};

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const ABANDONED: u8 = 2;

/// What the caller and the thread of one call share.
pub(crate) struct Call {
    pool: ShellPool,
    notices: Arc<Notices>,
    canceled: AtomicBool,
    /// The interpreter's own switch, once there is an interpreter.
    switch: OnceLock<Arc<AtomicBool>>,
    state: AtomicU8,
}

impl Call {
    /// Tells the interpreter to stop. Either we see its switch here, or it
    /// sees `canceled` after it set the switch.
    pub(crate) fn stop(&self) {
        self.canceled.store(true, Ordering::SeqCst);
        if let Some(switch) = self.switch.get() {
            switch.store(true, Ordering::SeqCst);
        }
    }

    /// Ends the caller's interest: the command is told to stop, can no longer
    /// reach files, and counts as stuck for as long as it still runs.
    pub(crate) fn abandon(&self) {
        self.notices.shut();
        self.stop();
        if self.state.compare_exchange(RUNNING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.pool.count_stuck();
        }
    }

    fn start(&self, switch: Arc<AtomicBool>) -> bool {
        let _ = self.switch.set(switch);
        !self.canceled.load(Ordering::SeqCst)
    }

    fn end(&self) {
        if self.state.swap(ENDED, Ordering::SeqCst) == ABANDONED {
            self.pool.discount_stuck();
        }
    }
}

/// Starts `task` on a thread that keeps `place` to its end.
pub(crate) fn start(task: Task, place: Place, pool: &ShellPool) -> Result<(Running, Arc<Call>), ShellError> {
    let call = Arc::new(Call {
        pool: pool.clone(),
        notices: Arc::clone(&task.notices),
        canceled: AtomicBool::new(false),
        switch: OnceLock::new(),
        state: AtomicU8::new(RUNNING),
    });
    let (chunks, received) = mpsc::channel::<Chunk>(QUEUED_CHUNKS);
    let (ended, ending) = oneshot::channel();
    let shared = Arc::clone(&call);
    let work = move || {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            task.run(
                |switch| shared.start(switch),
                |stream, bytes| {
                    let chunks = chunks.clone();
                    async move { chunks.send((stream, bytes)).await.is_ok() }
                },
            )
        }));
        shared.end();
        // The caller may be gone; then nobody needs the ending.
        let _ = ended.send(ran.ok().flatten().map_or(Ended::Silent, Ended::Told));
        drop(place);
    };
    std::thread::Builder::new()
        .name("virtual-shell".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(|source| ShellError::Start { source })?;
    Ok((Running { received, ending, receipt: Arc::default() }, call))
}
