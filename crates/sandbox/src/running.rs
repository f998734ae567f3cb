//! A running sandbox, and commands in it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::{CallTool, StartJob};
use bailiwick_auth::access::{During, Session};
use bailiwick_shell::Shell;
use bailiwick_types::limits::KILL_GRACE;
use bailiwick_types::{AgentName, SandboxId, SessionId, SpaceId, Timestamp, UserName};
use tokio_util::sync::CancellationToken;

use crate::demand::{Backend, Finished, NoRoom, Ran, RanStatus, Run, Share, Stream};
use crate::error::SandboxError;
use crate::gate::{Caller, WayOut};
use crate::host;
use crate::linux::{CommandLine, Exec, ExitStatus, Jail};
use crate::output::{Collector, OutputLimits};
use crate::receipt::Receipt;

/// A running sandbox.
pub struct Running {
    id: SandboxId,
    began: Timestamp,
    walls: Walls,
    use_: Mutex<Use>,
    /// Ends the commands in it, also those that no first process holds.
    ended: CancellationToken,
}

/// What it was used for.
struct Use {
    last: Instant,
    /// Who entered it last.
    session: Session,
    commands: u64,
    busy: u32,
    receipt: Option<Receipt>,
}

/// What is known of a running sandbox. Never what it says or holds.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its id, for as long as it runs.
    pub id: SandboxId,
    /// Whose files are inside.
    pub space: SpaceId,
    /// Its kind of walls.
    pub backend: Backend,
    /// Who shares it.
    pub share: Share,
    /// Whether there is a way out.
    pub goes_out: bool,
    /// Whose agent entered it last.
    pub agent: AgentName,
    /// On whose behalf.
    pub user: UserName,
    /// In which session, or job of the same number.
    pub session: SessionId,
    /// Since when it runs.
    pub began: Timestamp,
    /// For how long nothing has begun or ended in it.
    pub unused: Duration,
    /// Commands that have begun.
    pub commands: u64,
    /// Commands that run.
    pub busy: u32,
    /// What the kernel said around the last command.
    pub receipt: Option<Receipt>,
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
    pub(crate) fn new(walls: Walls, session: Session) -> Self {
        let use_ = Use { last: Instant::now(), session, commands: 0, busy: 0, receipt: None };
        Self {
            id: SandboxId::new(),
            began: Timestamp::now(),
            walls,
            use_: Mutex::new(use_),
            ended: CancellationToken::new(),
        }
    }

    pub(crate) fn id(&self) -> SandboxId {
        self.id
    }

    /// The session that entered it last.
    pub(crate) fn session(&self) -> Session {
        self.held().session.clone()
    }

    /// What is known of it, with what its key says.
    pub(crate) fn seen(&self, space: SpaceId, backend: Backend, share: Share) -> Seen {
        let held = self.held();
        Seen {
            id: self.id,
            space,
            backend,
            share,
            goes_out: matches!(&self.walls, Walls::Jail { way: Some(_), .. }),
            agent: held.session.agent().clone(),
            user: held.session.initiator().clone(),
            session: held.session.id(),
            began: self.began,
            unused: held.last.elapsed(),
            commands: held.commands,
            busy: held.busy,
            receipt: held.receipt.clone(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Use> {
        self.use_.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who is in it: what goes out from now on goes out on this caller's behalf.
    pub(crate) fn entered_by(&self, caller: impl FnOnce() -> Caller) {
        let caller = caller();
        {
            let mut held = self.held();
            held.last = Instant::now();
            held.session.clone_from(&caller.session);
        }
        if let Walls::Jail { way: Some(way), .. } = &self.walls {
            way.enter(caller);
        }
    }

    /// Ends whatever is in it, also a command that somebody waits for.
    pub(crate) fn kill(&self) {
        self.ended.cancel();
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

    pub(crate) fn unused_for(&self) -> Duration {
        self.held().last.elapsed()
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.ended.is_cancelled()
            && match &self.walls {
                Walls::Jail { jail, way } => jail.is_alive() && way.as_ref().is_none_or(WayOut::is_there),
                Walls::Virtual(_) | Walls::Host { .. } => true,
            }
    }

    /// Runs a command for a recorded tool call, and waits until nothing of it is left.
    ///
    /// # Errors
    /// If it could not be run; how it ended is no error.
    pub async fn run(&self, act: &Recorded<CallTool>, mut run: Run) -> Result<Ran, SandboxError> {
        let _call = self.way().map(|way| way.begin(act.resource().session().id(), act.during()));
        let _command = Command::begin(self);
        let stop = run.cancel.child_token();
        run.cancel = stop.clone();
        let work = async {
            match &self.walls {
                Walls::Virtual(shell) => run_virtual(shell, run).await,
                Walls::Jail { jail, way } => run_jail(jail, way.as_ref(), run).await,
                Walls::Host { folder, user } => host::run(folder, *user, run).await.map_err(SandboxError::Host),
            }
        };
        let ran = self.until_ended(stop, work).await?;
        self.held().receipt = Some(ran.receipt.clone());
        Ok(ran)
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
        mut run: Run,
        take: &(dyn Fn(Stream, &[u8]) + Sync),
    ) -> Result<Finished, SandboxError> {
        let _call = self.way().map(|way| way.begin(act.resource().session().id(), During::Call));
        let _command = Command::begin(self);
        let stop = run.cancel.child_token();
        run.cancel = stop.clone();
        let work = async {
            match &self.walls {
                Walls::Virtual(shell) => stream_virtual(shell, run, take).await,
                Walls::Jail { jail, way } => stream_jail(jail, way.as_ref(), run, take).await,
                Walls::Host { .. } => Err(SandboxError::HostRefused),
            }
        };
        let finished = self.until_ended(stop, work).await?;
        self.held().receipt = Some(finished.receipt.clone());
        Ok(finished)
    }

    /// Waits for a command, and stops it when the sandbox is ended.
    async fn until_ended<T>(&self, stop: CancellationToken, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => done,
            () = self.ended.cancelled() => {
                stop.cancel();
                work.await
            }
        }
    }
}

/// A command in a sandbox, counted while it runs.
struct Command<'a>(&'a Running);

impl<'a> Command<'a> {
    fn begin(running: &'a Running) -> Self {
        let mut held = running.held();
        held.last = Instant::now();
        held.commands += 1;
        held.busy += 1;
        drop(held);
        Self(running)
    }
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        let mut held = self.0.held();
        held.last = Instant::now();
        held.busy = held.busy.saturating_sub(1);
    }
}

async fn stream_jail(
    jail: &Jail,
    way: Option<&WayOut>,
    run: Run,
    take: &(dyn Fn(Stream, &[u8]) + Sync),
) -> Result<Finished, SandboxError> {
    let no_room = run.no_room.clone();
    let exec = Exec { timeout: run.timeout, grace: KILL_GRACE, no_room: run.no_room, ..Exec::shell(run.script) };
    let (stdout, stderr) = (|bytes: &[u8]| take(Stream::Stdout, bytes), |bytes: &[u8]| take(Stream::Stderr, bytes));
    let done = jail.exec_into(&exec, run.cancel, stdout, stderr).await.map_err(SandboxError::Exec)?;
    if let Some(way) = way {
        for refused in way.refused().await {
            take(Stream::Stderr, format!("[network] {refused}\n").as_bytes());
        }
    }
    Ok(Finished { status: of_linux(done.status, &no_room), wall: done.wall, receipt: Receipt::Linux(done.receipt) })
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
    let done = exec_virtual(shell, &run, &mut hand_on).await?;
    for warning in &done.warnings {
        take(Stream::Stderr, format!("warning: {warning}\n").as_bytes());
    }
    let status = of_virtual(done.status, &done.warnings, &run.no_room);
    Ok(Finished { status, wall: began.elapsed(), receipt: Receipt::Virtual(done.confinement) })
}

/// Runs a script, which a missing room stops as its caller would: there is nothing in a virtual shell that could write
/// on after that.
async fn exec_virtual(
    shell: &Shell,
    run: &Run,
    take: &mut (dyn FnMut(bailiwick_shell::Stream, &[u8]) + Send),
) -> Result<bailiwick_shell::Output, SandboxError> {
    let stop = run.cancel.child_token();
    let command = shell.exec(&run.script, run.timeout, take, stop.clone());
    tokio::pin!(command);
    let ran = tokio::select! {
        ran = &mut command => ran,
        () = run.no_room.said() => {
            stop.cancel();
            command.await
        }
    };
    ran.map_err(SandboxError::Shell)
}

fn of_linux(status: ExitStatus, no_room: &NoRoom) -> RanStatus {
    match status {
        ExitStatus::Exited(code) => RanStatus::Exited(code),
        ExitStatus::Signaled(signal) => RanStatus::Signaled(signal),
        ExitStatus::TimedOut => RanStatus::TimedOut,
        ExitStatus::Canceled => RanStatus::Canceled,
        ExitStatus::OutOfMemory => RanStatus::OutOfMemory,
        ExitStatus::StorageFull => no_room.status(),
    }
}

fn of_virtual(status: bailiwick_shell::Status, warnings: &[String], no_room: &NoRoom) -> RanStatus {
    match status {
        bailiwick_shell::Status::Canceled if no_room.why().is_some() => no_room.status(),
        // Cut short, yet 0: whoever reads 0 would take the rest for granted.
        bailiwick_shell::Status::Exited(0) if !warnings.is_empty() => RanStatus::LimitReached(warnings.join("; ")),
        bailiwick_shell::Status::Exited(code) => RanStatus::Exited(code),
        bailiwick_shell::Status::TimedOut => RanStatus::TimedOut,
        bailiwick_shell::Status::Canceled => RanStatus::Canceled,
        bailiwick_shell::Status::LimitReached(limit) => RanStatus::LimitReached(limit),
    }
}

async fn run_jail(jail: &Jail, way: Option<&WayOut>, run: Run) -> Result<Ran, SandboxError> {
    let no_room = run.no_room.clone();
    let command = CommandLine::Shell(run.script);
    let exec = Exec { command, timeout: run.timeout, no_room: run.no_room, ..Exec::shell("") };
    let done = jail.exec(exec, run.cancel).await.map_err(SandboxError::Exec)?;
    let mut stderr = done.stderr;
    if let Some(way) = way {
        for refused in way.refused().await {
            stderr.text.push_str("[network] ");
            stderr.text.push_str(&refused);
            stderr.text.push('\n');
        }
    }
    let status = of_linux(done.status, &no_room);
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
    let done = exec_virtual(shell, &run, &mut take).await?;
    for warning in &done.warnings {
        stderr.write(format!("warning: {warning}\n").as_bytes());
    }
    let status = of_virtual(done.status, &done.warnings, &run.no_room);
    Ok(Ran {
        status,
        stdout: stdout.finish(),
        stderr: stderr.finish(),
        wall: began.elapsed(),
        receipt: Receipt::Virtual(done.confinement),
    })
}
