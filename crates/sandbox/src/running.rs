//! A running sandbox, and commands in it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_auth::Recorded;
use bailiwick_auth::access::During;
use bailiwick_auth::access::verb::{CallTool, StartJob};
use bailiwick_shell::Shell;
use bailiwick_types::limits::KILL_GRACE;

use crate::demand::{Finished, Ran, RanStatus, Run, Stream};
use crate::error::SandboxError;
use crate::gate::{Caller, WayOut};
use crate::host;
use crate::linux::{CommandLine, Exec, ExitStatus, Jail};
use crate::output::{Collector, OutputLimits};
use crate::receipt::Receipt;

/// A running sandbox.
pub struct Running {
    walls: Walls,
    used: Mutex<Instant>,
}

pub(crate) enum Walls {
    Virtual(Shell),
    /// A jail or a container: the first process and what is asked of it are the same.
    Jail {
        jail: Jail,
        way: Option<WayOut>,
    },
    Host {
        folder: PathBuf,
        user: u32,
    },
}

impl Running {
    pub(crate) fn new(walls: Walls) -> Self {
        Self { walls, used: Mutex::new(Instant::now()) }
    }

    /// Notes who is in it: what goes out from now on goes out on this caller's behalf.
    pub(crate) fn entered_by(&self, caller: impl FnOnce() -> Caller) {
        if let Walls::Jail { way: Some(way), .. } = &self.walls {
            way.enter(caller());
        }
        self.touch();
    }

    /// Ends whatever is in it, also a command that somebody waits for.
    pub(crate) fn kill(&self) {
        if let Walls::Jail { jail, .. } = &self.walls {
            jail.kill();
        }
    }

    fn way(&self) -> Option<&WayOut> {
        match &self.walls {
            Walls::Jail { way, .. } => way.as_ref(),
            Walls::Virtual(_) | Walls::Host { .. } => None,
        }
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(crate) fn unused_for(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    pub(crate) fn is_alive(&self) -> bool {
        match &self.walls {
            Walls::Jail { jail, way } => jail.is_alive() && way.as_ref().is_none_or(WayOut::is_there),
            Walls::Virtual(_) | Walls::Host { .. } => true,
        }
    }

    /// Runs a command for a recorded tool call, and waits until nothing of it is left.
    ///
    /// # Errors
    /// If it could not be run; how it ended is no error.
    pub async fn run(&self, act: &Recorded<CallTool>, run: Run) -> Result<Ran, SandboxError> {
        let _call = self.way().map(|way| way.begin(act.resource().session().id(), act.during()));
        let ran = match &self.walls {
            Walls::Virtual(shell) => run_virtual(shell, run).await,
            Walls::Jail { jail, way } => run_jail(jail, way.as_ref(), run).await,
            Walls::Host { folder, user } => host::run(folder, *user, run).await.map_err(SandboxError::Host),
        };
        self.touch();
        ran
    }

    /// Runs the command of a recorded job, hands its output on while it runs, and waits until nothing of it is left.
    /// Who takes the output must not wait: as long as they do, the command does.
    ///
    /// # Errors
    /// If it could not be run, and [`SandboxError::HostRefused`] on the host, which no job is for; how it ended is
    /// no error.
    pub async fn stream(
        &self,
        act: &Recorded<StartJob>,
        run: Run,
        take: &(dyn Fn(Stream, &[u8]) + Sync),
    ) -> Result<Finished, SandboxError> {
        let _call = self.way().map(|way| way.begin(act.resource().session().id(), During::Call));
        let finished = match &self.walls {
            Walls::Virtual(shell) => stream_virtual(shell, run, take).await,
            Walls::Jail { jail, way } => stream_jail(jail, way.as_ref(), run, take).await,
            Walls::Host { .. } => Err(SandboxError::HostRefused),
        };
        self.touch();
        finished
    }
}

async fn stream_jail(
    jail: &Jail,
    way: Option<&WayOut>,
    run: Run,
    take: &(dyn Fn(Stream, &[u8]) + Sync),
) -> Result<Finished, SandboxError> {
    let exec = Exec { timeout: run.timeout, grace: KILL_GRACE, ..Exec::shell(run.script) };
    let (stdout, stderr) = (|bytes: &[u8]| take(Stream::Stdout, bytes), |bytes: &[u8]| take(Stream::Stderr, bytes));
    let done = jail.exec_into(&exec, run.cancel, stdout, stderr).await.map_err(SandboxError::Exec)?;
    if let Some(way) = way {
        for refused in way.refused().await {
            take(Stream::Stderr, format!("[network] {refused}\n").as_bytes());
        }
    }
    Ok(Finished { status: of_linux(done.status), wall: done.wall, receipt: Receipt::Linux(done.receipt) })
}

async fn stream_virtual(
    shell: &Shell,
    run: Run,
    take: &(dyn Fn(Stream, &[u8]) + Sync),
) -> Result<Finished, SandboxError> {
    let began = Instant::now();
    let mut hand_on = |stream, bytes: &[u8]| match stream {
        bailiwick_shell::Stream::Stdout => take(Stream::Stdout, bytes),
        bailiwick_shell::Stream::Stderr => take(Stream::Stderr, bytes),
    };
    let done = shell.exec(&run.script, run.timeout, &mut hand_on, run.cancel).await.map_err(SandboxError::Shell)?;
    for warning in &done.warnings {
        take(Stream::Stderr, format!("warning: {warning}\n").as_bytes());
    }
    let status = of_virtual(done.status, &done.warnings);
    Ok(Finished { status, wall: began.elapsed(), receipt: Receipt::Virtual(done.confinement) })
}

fn of_linux(status: ExitStatus) -> RanStatus {
    match status {
        ExitStatus::Exited(code) => RanStatus::Exited(code),
        ExitStatus::Signaled(signal) => RanStatus::Signaled(signal),
        ExitStatus::TimedOut => RanStatus::TimedOut,
        ExitStatus::Canceled => RanStatus::Canceled,
        ExitStatus::OutOfMemory => RanStatus::OutOfMemory,
    }
}

fn of_virtual(status: bailiwick_shell::Status, warnings: &[String]) -> RanStatus {
    match status {
        // Cut short, yet 0: whoever reads 0 would take the rest for granted.
        bailiwick_shell::Status::Exited(0) if !warnings.is_empty() => RanStatus::LimitReached(warnings.join("; ")),
        bailiwick_shell::Status::Exited(code) => RanStatus::Exited(code),
        bailiwick_shell::Status::TimedOut => RanStatus::TimedOut,
        bailiwick_shell::Status::Canceled => RanStatus::Canceled,
        bailiwick_shell::Status::LimitReached(limit) => RanStatus::LimitReached(limit),
    }
}

async fn run_jail(jail: &Jail, way: Option<&WayOut>, run: Run) -> Result<Ran, SandboxError> {
    let exec = Exec { command: CommandLine::Shell(run.script), timeout: run.timeout, ..Exec::shell("") };
    let done = jail.exec(exec, run.cancel).await.map_err(SandboxError::Exec)?;
    let mut stderr = done.stderr;
    if let Some(way) = way {
        for refused in way.refused().await {
            stderr.text.push_str("[network] ");
            stderr.text.push_str(&refused);
            stderr.text.push('\n');
        }
    }
    let status = of_linux(done.status);
    Ok(Ran { status, stdout: done.stdout, stderr, wall: done.wall, receipt: Receipt::Linux(done.receipt) })
}

async fn run_virtual(shell: &Shell, run: Run) -> Result<Ran, SandboxError> {
    let began = Instant::now();
    let limits = OutputLimits::default();
    let (mut stdout, mut stderr) = (Collector::new(limits), Collector::new(limits));
    let mut take = |stream, bytes: &[u8]| match stream {
        bailiwick_shell::Stream::Stdout => stdout.write(bytes),
        bailiwick_shell::Stream::Stderr => stderr.write(bytes),
    };
    let done = shell.exec(&run.script, run.timeout, &mut take, run.cancel).await.map_err(SandboxError::Shell)?;
    for warning in &done.warnings {
        stderr.write(format!("warning: {warning}\n").as_bytes());
    }
    let status = of_virtual(done.status, &done.warnings);
    Ok(Ran {
        status,
        stdout: stdout.finish(),
        stderr: stderr.finish(),
        wall: began.elapsed(),
        receipt: Receipt::Virtual(done.confinement),
    })
}
