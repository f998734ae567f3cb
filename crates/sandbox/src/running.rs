//! A running sandbox, and commands in it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallTool;
use bailiwick_shell::Shell;

use crate::demand::{Ran, RanStatus, Run};
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
    pub async fn run(&self, _act: &Recorded<CallTool>, run: Run) -> Result<Ran, SandboxError> {
        let ran = match &self.walls {
            Walls::Virtual(shell) => run_virtual(shell, run).await,
            Walls::Jail { jail, way } => run_jail(jail, way.as_ref(), run).await,
            Walls::Host { folder, user } => host::run(folder, *user, run).await.map_err(SandboxError::Host),
        };
        self.touch();
        ran
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
    let status = match done.status {
        ExitStatus::Exited(code) => RanStatus::Exited(code),
        ExitStatus::Signaled(signal) => RanStatus::Signaled(signal),
        ExitStatus::TimedOut => RanStatus::TimedOut,
        ExitStatus::Canceled => RanStatus::Canceled,
        ExitStatus::OutOfMemory => RanStatus::OutOfMemory,
    };
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
    let status = match done.status {
        // Cut short, yet 0: a model that reads 0 would take the rest for granted.
        bailiwick_shell::Status::Exited(0) if !done.warnings.is_empty() => {
            RanStatus::LimitReached(done.warnings.join("; "))
        }
        bailiwick_shell::Status::Exited(code) => RanStatus::Exited(code),
        bailiwick_shell::Status::TimedOut => RanStatus::TimedOut,
        bailiwick_shell::Status::Canceled => RanStatus::Canceled,
        bailiwick_shell::Status::LimitReached(limit) => RanStatus::LimitReached(limit),
    };
    Ok(Ran {
        status,
        stdout: stdout.finish(),
        stderr: stderr.finish(),
        wall: began.elapsed(),
        receipt: Receipt::Virtual(done.confinement),
    })
}
