//! Building an interpreter for one call and running it on this thread.
//!
//! This is the only module that configures the interpreter. Must never hand
//! it anything of the host: no environment, no network, no file system but
//! [`WorkspaceFs`] and memory.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bailiwick_files::{WalkLimits, Workspace};
use bailiwick_types::path::{SANDBOX_ROOT, WorkspacePath};
use bashkit::{Bash, Error, ExecutionLimits, FsLimits, InMemoryFs, MemoryLimits, MountableFs, SessionLimits};

use crate::devices::{Device, Filling};
use crate::ending::Ending;
use crate::gate::{Gate, Notices};
use crate::omit::Omitted;
use crate::output::Stream;
use crate::spec::ShellLimits;
use crate::workspace_fs::WorkspaceFs;

/// Everything one call is made of.
pub(crate) struct Task {
    pub(crate) command: String,
    pub(crate) timeout: Duration,
    pub(crate) limits: ShellLimits,
    /// `None` is the workspace mode `none`.
    pub(crate) workspace: Option<Workspace>,
    pub(crate) tmp: Workspace,
    pub(crate) tmp_bytes: u64,
    pub(crate) notices: Arc<Notices>,
    pub(crate) omitted: Omitted,
}

/// Stack of every thread that runs parts of a command. The interpreter
/// recurses on it; untouched stack costs address space only.
pub(crate) const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Names one pattern may match.
const PATTERN_MATCHES: u64 = 200_000;
/// Fields of one unquoted expansion and entries of all arrays. The interpreter
/// drops what is beyond without a word, so they are high enough for
/// `memory_bytes` to be reached first.
const FIELDS: usize = 2_000_000;

/// Built-in commands that are left out. `rg` cuts its output without a word;
/// the editors and pagers wait for a terminal that is not there.
const LEFT_OUT: &[&str] = &["rg", "vi", "vim", "nano", "less", "more"];

impl Task {
    /// Runs the command to its end. `started` gets the switch that stops it,
    /// and says whether to go on; `deliver` takes output as it comes.
    pub(crate) fn run<F, D>(self, started: impl FnOnce(Arc<AtomicBool>) -> bool, deliver: F) -> Option<Ending>
    where
        F: Fn(Stream, Vec<u8>) -> D + Send + Sync,
        D: Future<Output = bool> + Send,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(2)
            .thread_stack_size(STACK_BYTES)
            .thread_name("virtual-shell-parser")
            .build()
            .ok()?;
        let deliver = &deliver;
        let sink = |stream| {
            move |bytes| async move { if deliver(stream, bytes).await { Ok(()) } else { Err(Error::Cancelled) } }
        };
        let result = runtime.block_on(async {
            let mut bash = self.build()?;
            if !started(bash.cancellation_token()) {
                return Err(Error::Cancelled);
            }
            let (stdout, stderr) = (sink(Stream::Stdout), sink(Stream::Stderr));
            bash.execute(&self.command).stdout_fn(stdout).stderr_fn(stderr).await
        });
        runtime.shutdown_background();
        Some(Ending::of(result, &self.command, self.notices.take()))
    }

    /// A fresh interpreter: nothing but files outlives a call.
    fn build(&self) -> Result<Bash, Error> {
        Ok(build(self.files()?, &self.limits, self.timeout))
    }

    fn files(&self) -> Result<MountableFs, Error> {
        // The interpreter takes these for the limits of all directories, and
        // cuts patterns at the number of files without a word. A directory
        // with more than `directory_entries` is an error before that.
        let root = InMemoryFs::with_limits(
            FsLimits::new()
                .max_total_bytes(self.limits.memory_bytes as u64)
                .max_file_size(self.limits.file_bytes)
                .max_file_count(PATTERN_MATCHES)
                .max_dir_count(10_000),
        );
        root.add_dir(SANDBOX_ROOT, 0o755);
        root.add_file("/dev/zero", b"", 0o666);
        let files = MountableFs::new(Arc::new(root));
        if let Some(workspace) = &self.workspace {
            let gate = Gate::new(Arc::clone(&self.notices), SANDBOX_ROOT, self.limits.written_bytes);
            files.mount(SANDBOX_ROOT, Arc::new(WorkspaceFs::new(workspace.clone(), gate, self.limits)))?;
        }
        let gate = Gate::new(Arc::clone(&self.notices), "/tmp", self.tmp_room());
        files.mount("/tmp", Arc::new(WorkspaceFs::new(self.tmp.clone(), gate, self.limits)))?;
        for (path, filling) in
            [("/dev/zero", Filling::Zeros), ("/dev/random", Filling::Noise), ("/dev/urandom", Filling::Noise)]
        {
            files.mount(path, Arc::new(Device { path, filling, notices: Arc::clone(&self.notices) }))?;
        }
        Ok(files)
    }

    /// What is left of `/tmp`. If it cannot be counted, nothing is.
    fn tmp_room(&self) -> u64 {
        match self.tmp.usage(&WorkspacePath::root(), WalkLimits::default()) {
            Ok(usage) if !usage.truncated => self.tmp_bytes.saturating_sub(usage.bytes),
            _ => 0,
        }
    }
}

fn build(files: MountableFs, limits: &ShellLimits, timeout: Duration) -> Bash {
    Bash::builder()
        .fs(Arc::new(files))
        .limits(execution_limits(limits, timeout))
        .session_limits(SessionLimits::unlimited())
        .memory_limits(memory_limits(limits))
        .builtin_filter(|name| !LEFT_OUT.contains(&name))
        .username("agent")
        .hostname("sandbox")
        .cwd(Path::new(SANDBOX_ROOT))
        .env("HOME", SANDBOX_ROOT)
        .env("PATH", "/usr/bin:/bin")
        .env("PWD", SANDBOX_ROOT)
        .env("USER", "agent")
        .env("AI_AGENT", "bailiwick")
        .build()
}

/// Builds an interpreter and drops it: what is made at its first use is then there for all that are forked
/// from this process. Starts no thread.
pub(crate) fn warm() {
    let files = MountableFs::new(Arc::new(InMemoryFs::with_limits(FsLimits::new())));
    drop(build(files, &ShellLimits::default(), Duration::from_secs(1)));
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
        .max_word_split_fields(FIELDS)
        .max_word_split_bytes(limits.memory_bytes)
        .max_file_descriptors(256)
        .max_history_entries(0)
        .max_history_bytes(0)
}

fn memory_limits(limits: &ShellLimits) -> MemoryLimits {
    let defaults = MemoryLimits::default();
    let variables = limits.memory_bytes / 4;
    let functions = defaults.max_function_body_bytes.min(variables);
    MemoryLimits::new().max_total_variable_bytes(variables).max_function_body_bytes(functions).max_array_entries(FIELDS)
}
