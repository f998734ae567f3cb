//! Why a command could not be run to an outcome. What the command itself did
//! wrong is never an error here but part of its [`crate::Output`].

/// Failure of the backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// No thread became free in time, or too many are stuck.
    #[error("the virtual shell is overloaded: {running} commands are running, {stuck} of them do not stop")]
    Overloaded {
        /// Commands that hold a thread.
        running: usize,
        /// Those past their deadline that did not stop when told.
        stuck: usize,
    },
    /// The interpreter failed in a way that no command may cause. Files that
    /// were written before stay written.
    #[error("the virtual shell stopped with an internal fault")]
    Crashed,
    /// The host gave us no thread or no timer.
    #[error("could not start a thread for the virtual shell")]
    Start {
        /// The cause.
        source: std::io::Error,
    },
}

impl ShellError {
    /// The stable code for replies and audit rows.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::Crashed => "shell_crashed",
            Self::Start { .. } => "shell_unavailable",
        }
    }
}
