//! Why a command could not be run to an outcome. What the command itself did
//! wrong is never an error here but part of its [`crate::Output`].

use bailiwick_files::FileError;

use crate::receipt::Fact;

/// Failure of the backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// No place became free in time, or too many threads are stuck.
    #[error("the virtual shell is overloaded: {running} commands are running, {stuck} of them do not stop")]
    Overloaded {
        /// Commands that hold a place.
        running: usize,
        /// Those past their deadline that did not stop when told.
        stuck: usize,
    },
    /// The interpreter failed in a way that no command may cause. Files that
    /// were written before stay written.
    #[error("the virtual shell stopped with an internal fault")]
    Crashed,
    /// The host gave us no process, thread or directory.
    #[error("could not start the virtual shell")]
    Start {
        /// The cause.
        source: std::io::Error,
    },
    /// The kernel shows another worker than the one declared; it was killed before it ran the command.
    #[error("the virtual shell's worker differs from what was declared: {}", .differs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Receipt {
        /// All that differs.
        differs: Vec<Fact>,
    },
    /// The temporary directory or the workspace could not be opened.
    #[error("could not open the virtual shell's directories")]
    Tmp {
        /// The cause.
        source: FileError,
    },
}

impl ShellError {
    /// The stable code for replies and audit rows.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::Crashed => "shell_crashed",
            Self::Receipt { .. } => "receipt_differs",
            Self::Start { .. } | Self::Tmp { .. } => "shell_unavailable",
        }
    }
}
