//! Running one command: a fresh interpreter on its own thread, watched from
//! the caller's side.
//!
//! Must never run interpreter code on the caller's thread, and must never
//! trust the interpreter to end in time.

use std::time::Duration;

use bashkit::{Error, ExecResult, LimitExceeded};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::ShellError;
use crate::interpreter::{Call, Chunk, Job};
use crate::output::{Output, Status, Stream};
use crate::spec::ShellSpec;

/// A virtual shell. Calls share `/workspace` and `/tmp` and nothing else: each
/// starts in `/workspace` with a fresh environment.
#[derive(Debug, Clone)]
pub struct Shell {
    spec: ShellSpec,
}

/// How long a command may go on after its deadline before it is abandoned.
const GRACE: Duration = Duration::from_millis(500);
/// Chunks on their way to the caller; a full queue makes the command wait.
const QUEUED_CHUNKS: usize = 32;
/// Longest wall time of a call; longer ones are cut to it.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl Shell {
    /// A shell over the given parts. Cheap; nothing runs yet.
    #[must_use]
    pub fn new(spec: ShellSpec) -> Self {
        Self { spec }
    }

    /// Runs `command` for at most `timeout` and hands output on as it comes.
    ///
    /// Dropping the future stops the command as `cancel` does. The time in
    /// the pool's queue does not count.
    ///
    /// # Errors
    /// [`ShellError`] if the backend failed; what the command did is in the
    /// [`Output`].
    pub async fn exec(
        &self,
        command: &str,
        timeout: Duration,
        on_output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancel: CancellationToken,
    ) -> Result<Output, ShellError> {
        let mut output =
            Output { status: Status::Canceled, stdout: Vec::new(), stderr: Vec::new(), warnings: Vec::new() };
        let place = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(output),
            place = self.spec.pool.place() => place?,
        };
        let timeout = timeout.min(MAX_TIMEOUT);
        let call = Call::new(place.pool(), self.spec.limits.written_bytes);
        let (chunks, mut received) = mpsc::channel(QUEUED_CHUNKS);
        let (ended, ending) = oneshot::channel();
        let job = Job {
            spec: self.spec.clone(),
            command: command.to_owned(),
            timeout,
            call: call.clone(),
            chunks,
            ended,
        };
        place.run(move || job.run())?;

        // From here on every way out, a dropped future included, stops the
        // command and shuts its files.
        let _stop = StopOnDrop(&call);
        let mut collect = |(stream, bytes): Chunk| self.collect(&mut output, on_output, stream, &bytes);
        let deadline = tokio::time::sleep_until(Instant::now() + timeout + GRACE);
        tokio::pin!(deadline, ending);
        let mut canceled = false;
        let ended = loop {
            tokio::select! {
                biased;
                Some(chunk) = received.recv() => collect(chunk),
                ended = &mut ending => break Some(ended),
                () = &mut deadline => break None,
                () = cancel.cancelled(), if !canceled => {
                    canceled = true;
                    call.stop();
                    deadline.as_mut().reset(Instant::now() + GRACE);
                }
            }
        };
        while let Ok(chunk) = received.try_recv() {
            collect(chunk);
        }
        match ended {
            Some(Ok(Some((result, notices)))) => {
                self.conclude(&mut output, command, result, on_output);
                notices.into_iter().for_each(|notice| output.warn(notice));
            }
            Some(_) => return Err(ShellError::Crashed),
            None => {
                tracing::warn!(stuck = self.spec.pool.stuck(), "a virtual shell command ignores its deadline");
                output.status = Status::TimedOut;
            }
        }
        if canceled {
            output.status = Status::Canceled;
        }
        output.warn_of_caps();
        Ok(output)
    }

    /// Keeps and hands on what still fits.
    fn collect(
        &self,
        output: &mut Output,
        on_output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        stream: Stream,
        bytes: &[u8],
    ) {
        let limit = self.spec.limits.output_bytes;
        let kept = match stream {
            Stream::Stdout => &mut output.stdout,
            Stream::Stderr => &mut output.stderr,
        };
        let fits = &bytes[..bytes.len().min(limit.saturating_sub(kept.len()))];
        if !fits.is_empty() {
            kept.extend_from_slice(fits);
            on_output(stream, fits);
        }
        if fits.len() < bytes.len() {
            output.warn(cut(stream, limit));
        }
    }

    /// Turns the interpreter's answer into ours.
    fn conclude(
        &self,
        output: &mut Output,
        command: &str,
        result: Result<ExecResult, Error>,
        on_output: &mut (dyn FnMut(Stream, &[u8]) + Send),
    ) {
        let limit = self.spec.limits.output_bytes;
        let error = match result {
            Ok(result) => {
                output.status = Status::Exited(result.exit_code);
                for (stream, truncated) in
                    [(Stream::Stdout, result.stdout_truncated), (Stream::Stderr, result.stderr_truncated)]
                {
                    if truncated {
                        output.warn(cut(stream, limit));
                    }
                }
                return;
            }
            Err(error) => error,
        };
        let (status, text) = match error {
            Error::Cancelled => (Status::Canceled, None),
            Error::ResourceLimit(LimitExceeded::Timeout(_)) => (Status::TimedOut, None),
            Error::ResourceLimit(limit) => (Status::LimitReached(limit.to_string()), Some(limit.to_string())),
            Error::Parse { .. } => (Status::Exited(2), error.syntax_report("bash: -c", command)),
            other => (Status::Exited(1), Some(other.to_string())),
        };
        output.status = status;
        if let Some(text) = text {
            let line = format!("{}{}\n", if text.starts_with("bash") { "" } else { "bash: " }, text.trim_end());
            self.collect(output, on_output, Stream::Stderr, line.as_bytes());
        }
    }
}

struct StopOnDrop<'c>(&'c Call);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn cut(stream: Stream, limit: usize) -> String {
    let name = match stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    };
    format!("{name} was cut at {limit} bytes")
}
