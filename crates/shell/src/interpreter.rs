//! The thread's side of a call: building an interpreter and running it.
//!
//! This is the only module that configures the interpreter. Must never hand
//! it anything of the host: no environment, no network, no file system but
//! [`WorkspaceFs`] and memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bailiwick_types::path::SANDBOX_ROOT;
use bashkit::{
    Bash, Error, ExecResult, ExecutionLimits, FileSystem, FsLimits, InMemoryFs, MemoryLimits, MountableFs,
    SessionLimits,
};
use tokio::sync::{mpsc, oneshot};

use crate::gate::Gate;
use crate::output::Stream;
use crate::pool::{STACK_BYTES, ShellPool};
use crate::spec::{Mount, ShellLimits, ShellSpec};
use crate::tmp::TmpFs;
use crate::workspace_fs::WorkspaceFs;

/// What the thread sends while it runs.
pub(crate) type Chunk = (Stream, Vec<u8>);
/// How the interpreter ended; `None` if it crashed.
pub(crate) type Ending = Option<(Result<ExecResult, Error>, Vec<String>)>;

/// Built-in commands that are left out. `rg` cuts its output without a word;
/// the editors and pagers wait for a terminal that is not there.
const LEFT_OUT: &[&str] = &["rg", "vi", "vim", "nano", "less", "more"];

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const ABANDONED: u8 = 2;

/// What the caller and the thread of one call share.
#[derive(Clone)]
pub(crate) struct Call {
    shared: Arc<Shared>,
}

struct Shared {
    pool: ShellPool,
    gate: Arc<Gate>,
    canceled: AtomicBool,
    /// The interpreter's own switch, once there is an interpreter.
    switch: OnceLock<Arc<AtomicBool>>,
    state: AtomicU8,
}

impl Call {
    pub(crate) fn new(pool: &ShellPool, max_written: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool: pool.clone(),
                gate: Arc::new(Gate::new(max_written)),
                canceled: AtomicBool::new(false),
                switch: OnceLock::new(),
                state: AtomicU8::new(RUNNING),
            }),
        }
    }

    /// Tells the interpreter to stop. Either we see its switch here, or it
    /// sees `canceled` after it set the switch.
    pub(crate) fn stop(&self) {
        self.shared.canceled.store(true, Ordering::SeqCst);
        if let Some(switch) = self.shared.switch.get() {
            switch.store(true, Ordering::SeqCst);
        }
    }

    /// Ends the caller's interest: the command is told to stop, can no longer
    /// reach files, and counts as stuck for as long as it still runs.
    pub(crate) fn abandon(&self) {
        self.shared.gate.shut();
        self.stop();
        if self.shared.state.compare_exchange(RUNNING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.shared.pool.count_stuck();
        }
    }

    fn end(&self) {
        if self.shared.state.swap(ENDED, Ordering::SeqCst) == ABANDONED {
            self.shared.pool.discount_stuck();
        }
    }
}

/// The thread's side of a call.
pub(crate) struct Job {
    pub(crate) spec: ShellSpec,
    pub(crate) command: String,
    pub(crate) timeout: Duration,
    pub(crate) call: Call,
    pub(crate) chunks: mpsc::Sender<Chunk>,
    pub(crate) ended: oneshot::Sender<Ending>,
}

impl Job {
    pub(crate) fn run(self) {
        let Self { spec, command, timeout, call, chunks, ended } = self;
        let ran = catch_unwind(AssertUnwindSafe(|| interpret(&spec, &command, timeout, &call, chunks)));
        let ending = ran.ok().flatten().map(|result| (result, call.shared.gate.take_notices()));
        call.end();
        // The caller may be gone; then nobody needs the ending.
        let _ = ended.send(ending);
    }
}

/// Runs the interpreter to its end on this thread. `None` if the thread could
/// not get a runtime.
fn interpret(
    spec: &ShellSpec,
    command: &str,
    timeout: Duration,
    call: &Call,
    chunks: mpsc::Sender<Chunk>,
) -> Option<Result<ExecResult, Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(2)
        .thread_stack_size(STACK_BYTES)
        .thread_name("virtual-shell-parser")
        .build()
        .inspect_err(|error| tracing::error!(%error, "no runtime for the virtual shell"))
        .ok()?;
    let result = runtime.block_on(async {
        let mut bash = build(spec, timeout, call)?;
        let switch = bash.cancellation_token();
        let _ = call.shared.switch.set(Arc::clone(&switch));
        if call.shared.canceled.load(Ordering::SeqCst) {
            return Err(Error::Cancelled);
        }
        let send = |stream| {
            let chunks = chunks.clone();
            move |bytes: Vec<u8>| {
                let chunks = chunks.clone();
                async move { chunks.send((stream, bytes)).await.map_err(|_| Error::Cancelled) }
            }
        };
        bash.execute(command).stdout_fn(send(Stream::Stdout)).stderr_fn(send(Stream::Stderr)).await
    });
    runtime.shutdown_background();
    Some(result)
}

/// A fresh interpreter for one call.
fn build(spec: &ShellSpec, timeout: Duration, call: &Call) -> Result<Bash, Error> {
    let limits = spec.limits;
    let root = InMemoryFs::with_limits(
        FsLimits::new()
            .max_total_bytes(limits.memory_bytes as u64 / 4)
            .max_file_size(limits.memory_bytes as u64 / 4)
            .max_file_count(1024)
            .max_dir_count(1024),
    );
    root.add_dir(SANDBOX_ROOT, 0o755);
    let files = MountableFs::new(Arc::new(root));
    let gate = Arc::clone(&call.shared.gate);
    if let Mount::Files(workspace) = &spec.workspace {
        let workspace: Arc<dyn FileSystem> =
            Arc::new(WorkspaceFs::new(workspace.clone(), Arc::clone(&gate), limits));
        files.mount(SANDBOX_ROOT, workspace)?;
    }
    files.mount("/tmp", Arc::new(TmpFs::new(&spec.tmp, gate)))?;

    let bash = Bash::builder()
        .fs(Arc::new(files))
        .limits(execution_limits(&limits, timeout))
        .session_limits(SessionLimits::unlimited())
        .memory_limits(memory_limits(&limits))
        .builtin_filter(|name| !LEFT_OUT.contains(&name))
        .username("agent")
        .hostname("sandbox")
        .cwd(Path::new(SANDBOX_ROOT))
        .env("HOME", SANDBOX_ROOT)
        .env("PATH", "/usr/bin:/bin")
        .env("PWD", SANDBOX_ROOT)
        .env("USER", "agent")
        .env("AI_AGENT", "bailiwick")
        .build();
    Ok(bash)
}

fn execution_limits(limits: &ShellLimits, timeout: Duration) -> ExecutionLimits {
    ExecutionLimits::new()
        .timeout(timeout)
        .parser_timeout(timeout.min(Duration::from_secs(5)))
        .max_input_bytes(limits.script_bytes)
        .max_commands(limits.commands)
        .max_loop_iterations(limits.loop_iterations)
        .max_total_loop_iterations(limits.total_loop_iterations)
        .max_background_jobs(limits.jobs)
        .max_stdout_bytes(limits.output_bytes)
        .max_stderr_bytes(limits.output_bytes)
        .max_aggregate_input_bytes(limits.input_bytes)
        .max_live_intermediate_bytes(limits.memory_bytes as u64)
        .max_file_descriptors(256)
        .max_history_entries(0)
        .max_history_bytes(0)
}

fn memory_limits(limits: &ShellLimits) -> MemoryLimits {
    let defaults = MemoryLimits::default();
    let variables = limits.memory_bytes / 4;
    let functions = defaults.max_function_body_bytes.min(variables);
    MemoryLimits::new().max_total_variable_bytes(variables).max_function_body_bytes(functions)
}
