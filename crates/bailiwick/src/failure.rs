//! How a command ends when it does not end well: one text, one hint, one exit code.

use crate::client::ClientError;
use crate::config::Problems;

/// Exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// It was done.
    Done = 0,
    /// It went wrong.
    Failed = 1,
    /// It was asked for in a way that makes no sense. Clap uses the same for what it finds itself.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 64,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Configuration(#[from] Problems),
    #[error(transparent)]
    Settings(#[from] crate::client::SettingsError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
    #[error(transparent)]
    Database(#[from] crate::command::database::DatabaseError),
    #[error(transparent)]
    Init(#[from] crate::init::InitError),
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
    #[error(transparent)]
    Demo(#[from] crate::demo::DemoError),
    #[error(transparent)]
    Prove(#[from] crate::prove::ProveError),
    #[error(transparent)]
    NotRunning(#[from] crate::command::sandbox::NotRunning),
    #[error(transparent)]
    Attack(#[from] crate::attack::AttackError),
    #[error("{path}: {error}")]
    File {
        /// As the caller named it.
        path: String,
        #[source]
        error: std::io::Error,
    },
    #[error("{path} is not an agent's definition: {problem}")]
    Definition { path: String, problem: String },
    #[error("{text}")]
    Usage { text: String, hint: &'static str },
    /// What had to be said was said already, line by line.
    #[error("not everything is in order")]
    Reported,
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Configuration(_) | Self::Settings(_) => Code::Configuration,
            Self::Usage { .. } => Code::Usage,
            _ => Code::Failed,
        }
    }

    /// What to do about it, if there is something.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Configuration(_) => {
                Some("`bailiwick config print` shows what is in force, and from where".to_owned())
            }
            Self::Client(error) => error.hint(),
            Self::Serve(error) => error.hint(),
            Self::Usage { hint, .. } if !hint.is_empty() => Some((*hint).to_owned()),
            Self::Definition { .. } => Some("docs/agents.md shows one".to_owned()),
            _ => None,
        }
    }

    /// The text with its causes, in one line.
    pub(crate) fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }
}

/// Names the file in an error about it.
pub(crate) fn in_file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Failure + use<'_> {
    move |error| Failure::File { path: path.display().to_string(), error }
}
