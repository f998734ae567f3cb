//! One call as its caller sees it: start it, pass output on, watch the clock.
//!
//! Must never run interpreter code on the caller's thread, and must never
//! trust the interpreter to end in time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ending::Ending;
use crate::error::ShellError;
use crate::gate::Notices;
use crate::interpreter::Task;
use crate::omit::Omitted;
use crate::output::{Output, Status, Stream};
use crate::pool::{Isolation, Place};
use crate::process::{self, Worker};
use crate::receipt::{Confinement, Fact, Receipt};
use crate::spec::{Mount, ShellSpec};
use crate::thread::{self, Call};

/// A virtual shell. Calls share `/workspace` and `/tmp` and nothing else: each
/// starts in `/workspace` with a fresh environment.
#[derive(Debug, Clone)]
pub struct Shell {
    spec: ShellSpec,
    omitted: Omitted,
}

/// Output on its way to the caller.
pub(crate) type Chunk = (Stream, Vec<u8>);

/// What a started call is heard through.
pub(crate) struct Running {
    pub(crate) received: mpsc::Receiver<Chunk>,
    pub(crate) ending: oneshot::Receiver<Ended>,
    /// Set before the command runs, if it runs in a worker.
    pub(crate) receipt: Arc<OnceLock<Receipt>>,
}

/// How a started call came to its end.
pub(crate) enum Ended {
    /// As the interpreter told.
    Told(Ending),
    /// The worker was not what was declared, and ran nothing.
    Differs(Vec<Fact>),
    /// The interpreter failed without the command's doing.
    Silent,
}

/// The means to stop a started call. Dropping it, as a caller that goes away
/// does, gives the call up.
enum Control {
    Thread(Arc<Call>),
    Process(Worker),
}

/// Chunks on their way to the caller; a full queue makes the command wait.
pub(crate) const QUEUED_CHUNKS: usize = 32;
/// How long a command may go on after its deadline before it is abandoned.
const GRACE: Duration = Duration::from_millis(500);
/// Longest wall time of a call; longer ones are cut to it.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl Shell {
    /// A shell over the given parts. Cheap; nothing runs yet.
    #[must_use]
    pub fn new(spec: ShellSpec) -> Self {
        Self { spec, omitted: Omitted::default() }
    }

    /// The same shell with workers that lack some walls, for tests. Release builds do not have this.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn without(mut self, walls: &[crate::omit::Wall], difference: crate::omit::OnDifference) -> Self {
        self.omitted = Omitted { walls: walls.to_vec(), difference };
        self
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
        let mut collector = Collector {
            limit: self.spec.limits.output_bytes,
            on_output,
            output: Output {
                status: Status::Canceled,
                stdout: Vec::new(),
                stderr: Vec::new(),
                warnings: Vec::new(),
                confinement: Confinement::NotBegun,
            },
        };
        let place = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(collector.output),
            place = self.spec.pool.place() => place?,
        };
        let timeout = timeout.min(MAX_TIMEOUT);
        let (running, control) = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(collector.output),
            started = self.start(command, timeout, place) => started?,
        };
        let Running { mut received, ending, receipt } = running;
        let deadline = tokio::time::sleep_until(Instant::now() + timeout + GRACE);
        tokio::pin!(deadline, ending);
        let mut canceled = false;
        let ended = loop {
            tokio::select! {
                biased;
                // The clock comes first: a flood of output must not hide it.
                () = &mut deadline => break None,
                () = cancel.cancelled(), if !canceled => {
                    canceled = true;
                    control.stop();
                    deadline.as_mut().reset(Instant::now() + GRACE);
                }
                Some((stream, bytes)) = received.recv() => collector.take(stream, &bytes),
                ended = &mut ending => break Some(ended),
            }
        };
        while let Ok((stream, bytes)) = received.try_recv() {
            collector.take(stream, &bytes);
        }
        match ended {
            Some(Ok(Ended::Told(ending))) => collector.conclude(ending),
            Some(Ok(Ended::Differs(differs))) => return Err(ShellError::Receipt { differs }),
            // A killed worker has no ending to tell.
            Some(_) if canceled => {}
            Some(_) => return Err(ShellError::Crashed),
            None => {
                drop(control);
                let stuck = self.spec.pool.stuck();
                tracing::warn!(stuck, "a virtual shell command ignored its deadline");
                collector.output.status = Status::TimedOut;
            }
        }
        let mut output = collector.output;
        output.confinement = match self.spec.pool.isolation() {
            Isolation::Thread => Confinement::Thread,
            Isolation::Process(_) => receipt.get().cloned().map_or(Confinement::NotBegun, Confinement::Checked),
        };
        if canceled {
            output.status = Status::Canceled;
        }
        output.warn_of_caps();
        Ok(output)
    }

    async fn start(&self, command: &str, timeout: Duration, place: Place) -> Result<(Running, Control), ShellError> {
        let ShellSpec { workspace, tmp, pool, limits } = &self.spec;
        let task = Task {
            command: command.to_owned(),
            timeout,
            limits: *limits,
            workspace: match workspace {
                Mount::Absent => None,
                Mount::Files(files) => Some(files.clone()),
            },
            tmp: tmp.files().clone(),
            tmp_bytes: tmp.max_bytes(),
            notices: Arc::new(Notices::default()),
            omitted: self.omitted.clone(),
        };
        match pool.isolation() {
            Isolation::Thread => {
                thread::start(task, place, pool).map(|(running, call)| (running, Control::Thread(call)))
            }
            Isolation::Process(source) => {
                let (running, worker) = process::start(task, place, &**source).await?;
                Ok((running, Control::Process(worker)))
            }
        }
    }
}

impl Control {
    fn stop(&self) {
        match self {
            Self::Thread(call) => call.stop(),
            Self::Process(worker) => worker.kill(),
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        match self {
            Self::Thread(call) => call.abandon(),
            Self::Process(worker) => worker.kill(),
        }
    }
}

/// Gathers output within its bounds.
struct Collector<'o> {
    limit: usize,
    on_output: &'o mut (dyn FnMut(Stream, &[u8]) + Send),
    output: Output,
}

impl Collector<'_> {
    /// Keeps and hands on what still fits.
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = match stream {
            Stream::Stdout => &mut self.output.stdout,
            Stream::Stderr => &mut self.output.stderr,
        };
        let fits = &bytes[..bytes.len().min(self.limit.saturating_sub(kept.len()))];
        if !fits.is_empty() {
            kept.extend_from_slice(fits);
            (self.on_output)(stream, fits);
        }
        if fits.len() < bytes.len() {
            self.warn_cut(stream);
        }
    }

    fn conclude(&mut self, ending: Ending) {
        self.output.status = ending.status();
        for stream in ending.cut_streams() {
            self.warn_cut(stream);
        }
        if let Some(words) = &ending.last_words {
            self.take(Stream::Stderr, format!("{}\n", words.trim_end()).as_bytes());
        }
        ending.notices.into_iter().for_each(|notice| self.output.warn(notice));
    }

    fn warn_cut(&mut self, stream: Stream) {
        let (name, limit) = match stream {
            Stream::Stdout => ("standard output", self.limit),
            Stream::Stderr => ("standard error", self.limit),
        };
        self.output.warn(format!("{name} was cut at {limit} bytes"));
    }
}
