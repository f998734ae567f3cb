//! How the interpreter ended, in words that can cross a process boundary.

use bashkit::{Error, ExecResult, LimitExceeded};
use serde::{Deserialize, Serialize};

use crate::output::{Status, Stream};

/// The end of a call as the interpreter's side sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    verdict: Verdict,
    /// A last line for standard error.
    pub(crate) last_words: Option<String>,
    /// Streams of which more came than may be kept.
    pub(crate) stdout_cut: bool,
    pub(crate) stderr_cut: bool,
    /// What the file systems had to say.
    pub(crate) notices: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Verdict {
    Exited(i32),
    TimedOut,
    Canceled,
    LimitReached(String),
}

impl Ending {
    pub(crate) fn of(result: Result<ExecResult, Error>, command: &str, notices: Vec<String>) -> Self {
        let (stdout_cut, stderr_cut) =
            result.as_ref().map_or((false, false), |result| (result.stdout_truncated, result.stderr_truncated));
        let (verdict, last_words) = match result {
            Ok(result) => (Verdict::Exited(result.exit_code), None),
            Err(Error::Cancelled) => (Verdict::Canceled, None),
            Err(Error::ResourceLimit(LimitExceeded::Timeout(_))) => (Verdict::TimedOut, None),
            Err(Error::ResourceLimit(limit)) => {
                (Verdict::LimitReached(limit.to_string()), Some(format!("bash: {limit}")))
            }
            Err(error @ Error::Parse { .. }) => (Verdict::Exited(2), error.syntax_report("bash: -c", command)),
            Err(error) => (Verdict::Exited(1), Some(format!("bash: {error}"))),
        };
        Self { verdict, last_words, stdout_cut, stderr_cut, notices }
    }

    /// The end of a worker that died instead of telling.
    pub(crate) fn limit(text: &str) -> Self {
        Self {
            verdict: Verdict::LimitReached(text.to_owned()),
            last_words: Some(format!("bash: {text}")),
            stdout_cut: false,
            stderr_cut: false,
            notices: Vec::new(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        match &self.verdict {
            Verdict::Exited(code) => Status::Exited(*code),
            Verdict::TimedOut => Status::TimedOut,
            Verdict::Canceled => Status::Canceled,
            Verdict::LimitReached(text) => Status::LimitReached(text.clone()),
        }
    }

    pub(crate) fn cut_streams(&self) -> impl Iterator<Item = Stream> {
        let stdout = self.stdout_cut.then_some(Stream::Stdout);
        stdout.into_iter().chain(self.stderr_cut.then_some(Stream::Stderr))
    }
}
