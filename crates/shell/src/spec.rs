//! What a shell may use. Plain data; nothing here runs.

use bailiwick_files::Workspace;
use serde::{Deserialize, Serialize};

use crate::pool::ShellPool;
use crate::tmp::SharedTmp;

/// Everything a [`crate::Shell`] is made of.
#[derive(Debug, Clone)]
pub struct ShellSpec {
    /// What stands at `/workspace`.
    pub workspace: Mount,
    /// What stands at `/tmp`. Shells made with clones of one handle share it.
    pub tmp: SharedTmp,
    /// Where commands run.
    pub pool: ShellPool,
    /// Bounds of each call.
    pub limits: ShellLimits,
}

/// What stands at `/workspace`.
#[derive(Debug, Clone)]
pub enum Mount {
    /// An empty directory in memory that is gone after each call: the agent's
    /// workspace mode is `none`.
    Absent,
    /// The files of a space, as far as its own access allows.
    Files(Workspace),
}

/// Bounds of one call. Reaching one never looks like success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellLimits {
    /// Bytes of the command text.
    pub script_bytes: usize,
    /// Commands that are started.
    pub commands: usize,
    /// Iterations of one loop.
    pub loop_iterations: usize,
    /// Iterations of all loops together.
    pub total_loop_iterations: usize,
    /// Jobs at the same time, in the background or as stages of a pipeline.
    pub jobs: usize,
    /// Bytes kept of standard output, and as many of standard error.
    pub output_bytes: usize,
    /// Bytes that variables and intermediate results may hold. The
    /// interpreter's own structures come on top.
    pub memory_bytes: usize,
    /// Bytes that all commands together may read as input.
    pub input_bytes: u64,
    /// Bytes of the largest file that is read or written.
    pub file_bytes: u64,
    /// Bytes that one call may write to the workspace; each change counts for
    /// at least one block.
    pub written_bytes: u64,
    /// Entries of the largest directory that is listed.
    pub directory_entries: usize,
}

impl Default for ShellLimits {
    fn default() -> Self {
        Self {
            script_bytes: 1024 * 1024,
            commands: 50_000,
            loop_iterations: 50_000,
            total_loop_iterations: 500_000,
            jobs: 32,
            output_bytes: 1024 * 1024,
            memory_bytes: 32 * 1024 * 1024,
            input_bytes: 256 * 1024 * 1024,
            file_bytes: 16 * 1024 * 1024,
            written_bytes: 256 * 1024 * 1024,
            directory_entries: 20_000,
        }
    }
}
