//! The server's side of a running jail: commands in, output and status out.
//!
//! A command is over when its last process is, whoever ended it. A jail that
//! does not obey, or whose receipt differs, is killed as a whole; it must never
//! be used again after that.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::launcher::{self, pipe_pair};
use super::listeners::Listening;
use super::receipt::{Declared, Receipt, ReceiptError};
use super::spec::{CommandLine, Exec, Execution, ExitStatus, JailName};
use super::wire::{
    self, ExecRequest, FromJail, PACKET_BYTES, Program, Received, StopForce, ToInit, WireError, WireStatus,
};
use crate::container::Container;
use crate::output::Collector;

/// The kernel's largest argument, in bytes with its end.
const ARGUMENT_BYTES: usize = 128 * 1024;
/// How long a killed command may take to be gone before its jail is killed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long output is awaited after the last process's end. More than an
/// instant only if someone outside the command holds the pipe.
const DRAIN: Duration = Duration::from_millis(200);

/// Why a command did not run to a status.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The caller's command is more than the kernel or a message takes.
    #[error("the command is longer than {} bytes", ARGUMENT_BYTES - 1)]
    TooLong,
    /// The caller's command has a zero byte or is empty.
    #[error("the command is empty or has a zero byte")]
    Unreadable,
    /// The jail has no room for another process, most likely.
    #[error("the jail could not start the command")]
    NotStarted(#[source] std::io::Error),
    /// The jail ended before or while the command ran.
    #[error("the jail ended")]
    JailEnded,
    /// The kernel shows another jail than the one declared; it was killed.
    #[error("the jail is not what was declared")]
    Receipt(#[from] ReceiptError),
    /// The server lacks descriptors.
    #[error("the server could not prepare the command")]
    Local(#[source] std::io::Error),
}

/// How a command ended whose output went elsewhere.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// How long it took.
    pub wall: Duration,
    /// What it ran in.
    pub receipt: Arc<Receipt>,
}

/// A running jail. Dropping it kills everything inside.
pub struct Jail {
    listening: Mutex<Option<Listening>>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

/// What a jail is made of before it is known to be whole.
pub(crate) struct Parts {
    pub(crate) socket: AsyncFd<OwnedFd>,
    pub(crate) built: Built,
    pub(crate) declared: Declared,
}

/// Who built a jail, which is also who ends it and knows its control groups.
pub(crate) enum Built {
    /// The launcher, under this number.
    ByLauncher { launcher: Arc<launcher::Shared>, number: u64 },
    /// A container engine.
    ByEngine(Box<Container>),
}

impl Built {
    /// Ends everything inside.
    pub(crate) fn kill(&self) {
        match self {
            Self::ByLauncher { launcher, number } => launcher.kill(*number),
            Self::ByEngine(container) => container.kill(),
        }
    }

    fn receipt(&self, process: i32, declared: &Declared) -> Result<Receipt, ReceiptError> {
        match self {
            Self::ByLauncher { launcher, .. } => launcher.receipt(process, declared),
            Self::ByEngine(container) => container.receipt(process, declared),
        }
    }

    fn memory_kills(&self, name: &JailName) -> Option<u64> {
        match self {
            Self::ByLauncher { launcher, .. } => launcher.memory_kills(name),
            Self::ByEngine(container) => container.memory_kills(),
        }
    }
}

struct Shared {
    parts: Parts,
    receipt: Arc<Receipt>,
    next_exec: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: bool,
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
}

enum Outcome {
    Ended(WireStatus),
    NotStarted(i32),
}

/// Checks a jail that says it is ready and begins to listen to it.
pub(crate) fn adopt(parts: Parts, process: i32, listening: Option<Listening>) -> Result<Jail, ReceiptError> {
    let receipt = Arc::new(parts.built.receipt(process, &parts.declared)?);
    let shared = Arc::new(Shared { parts, receipt, next_exec: AtomicU64::new(1), state: Mutex::default() });
    let reader = tokio::spawn(listen(Arc::clone(&shared)));
    Ok(Jail { listening: Mutex::new(listening), shared, reader })
}

/// Receives the next message.
pub(crate) async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Result<Received<FromJail>, WireError> {
    loop {
        let mut guard = socket.readable().await.map_err(|_| WireError::Closed)?;
        match wire::receive(socket.get_ref(), buffer) {
            Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
            other => return other,
        }
    }
}

/// Hands reports to the commands that wait for them, until the jail ends or
/// says something that this protocol does not have.
async fn listen(shared: Arc<Shared>) {
    let mut buffer = vec![0; PACKET_BYTES];
    while let Ok(received) = receive(&shared.parts.socket, &mut buffer).await {
        let (exec, outcome) = match received.message {
            FromJail::Ended { exec, status } => (exec, Outcome::Ended(status)),
            FromJail::ExecFailed { exec, errno } => (exec, Outcome::NotStarted(errno)),
            FromJail::Listening | FromJail::Ready { .. } | FromJail::SetupFailed { .. } => break,
        };
        let waiting = shared.state().waiting.remove(&exec);
        if let Some(waiting) = waiting {
            let _ = waiting.send(outcome);
        }
    }
    shared.parts.built.kill();
    let mut state = shared.state();
    state.ended = true;
    state.waiting.clear();
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, exec: u64, force: StopForce) {
        // A jail that takes no more messages is killed by its caller's clock.
        let message = ToInit::Stop { exec, force };
        let _ = wire::send(self.parts.socket.as_fd(), &message, &[], &[]);
    }

    async fn ask(&self, message: &ToInit, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ExecError> {
        loop {
            let ready = self.parts.socket.writable().await;
            let mut guard = ready.map_err(ExecError::Local)?;
            match wire::send(self.parts.socket.as_fd(), message, bytes, fds) {
                Ok(()) => return Ok(()),
                Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
                Err(WireError::TooLarge(_)) => return Err(ExecError::TooLong),
                Err(_) => return Err(ExecError::JailEnded),
            }
        }
    }

    /// Two pipes whose writing ends belong to the jail's user, so that its
    /// programs can open `/dev/stdout` by name.
    fn pipe(&self) -> std::io::Result<(pipe::Receiver, OwnedFd)> {
        let (read, write) = pipe_pair()?;
        if let Some((uid, gid)) = self.parts.declared.user {
            rustix::fs::fchown(&write, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok((read, write))
    }
}

/// Kills a command whose caller no longer waits.
struct Waiting<'a> {
    shared: &'a Shared,
    exec: u64,
    report: oneshot::Receiver<Outcome>,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.shared.state().waiting.remove(&self.exec);
            self.shared.stop(self.exec, StopForce::Kill);
        }
    }
}

impl Jail {
    /// What the kernel said about the jail when it started.
    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.shared.receipt
    }

    /// The sockets that lead to the gate, once.
    pub fn listening(&self) -> Option<Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the jail's first process still answers for it.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.shared.state().ended
    }

    /// Runs a command and waits until none of its processes is left.
    ///
    /// A canceled command, and one that is out of time, first gets `SIGTERM`
    /// and after [`Exec::grace`] `SIGKILL`, each to all of its processes; its
    /// output until then is returned. One that has no room left
    /// ([`Exec::no_room`]) gets `SIGKILL` alone. Dropping the future kills at once.
    ///
    /// # Errors
    /// [`ExecError`]; after all but [`ExecError::TooLong`],
    /// [`ExecError::Unreadable`], [`ExecError::NotStarted`] and
    /// [`ExecError::Local`] the jail is gone.
    pub async fn exec(&self, request: Exec, cancel: CancellationToken) -> Result<Execution, ExecError> {
        let mut stdout = Collector::new(request.output);
        let mut stderr = Collector::new(request.output);
        let ended = self.exec_into(&request, cancel, |bytes| stdout.write(bytes), |bytes| stderr.write(bytes)).await?;
        let Ended { status, wall, receipt } = ended;
        Ok(Execution { status, stdout: stdout.finish(), stderr: stderr.finish(), wall, receipt })
    }

    /// As [`Self::exec`], but hands the output on while the command runs; [`Exec::output`] bounds nothing here. Who
    /// takes it must not wait: as long as they do, the command does.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub async fn exec_into(
        &self,
        request: &Exec,
        cancel: CancellationToken,
        mut stdout: impl FnMut(&[u8]),
        mut stderr: impl FnMut(&[u8]),
    ) -> Result<Ended, ExecError> {
        let started = Instant::now();
        let (program, bytes) = encode(&request.command)?;
        if !self.is_alive() {
            return Err(ExecError::JailEnded);
        }
        let receipt = self.check()?;
        let shared = &*self.shared;
        let memory_kills = shared.parts.built.memory_kills(&shared.parts.declared.name);
        let (mut output, output_end) = shared.pipe().map_err(ExecError::Local)?;
        let (mut errors, errors_end) = shared.pipe().map_err(ExecError::Local)?;
        let mut waiting = self.wait_for_next()?;
        let message = ToInit::Exec(ExecRequest { exec: waiting.exec, program, directory: request.directory.clone() });
        shared.ask(&message, &bytes, &[output_end.as_fd(), errors_end.as_fd()]).await?;
        drop((output_end, errors_end));

        let (status, stopped) = {
            let reading = async {
                tokio::join!(collect(&mut output, &mut stdout), collect(&mut errors, &mut stderr));
            };
            tokio::pin!(reading);
            let ending = waiting.end(request, &cancel);
            tokio::pin!(ending);
            let mut read_all = false;
            let ended = loop {
                tokio::select! {
                    ended = &mut ending => break ended?,
                    () = &mut reading, if !read_all => read_all = true,
                }
            };
            if !read_all {
                let _ = tokio::time::timeout(DRAIN, reading).await;
            }
            ended
        };
        let killed_before = memory_kills.unwrap_or(0);
        let killed_now = shared.parts.built.memory_kills(&shared.parts.declared.name).unwrap_or(0);
        let status = stopped.unwrap_or(match status {
            WireStatus::Signaled(libc::SIGKILL) | WireStatus::Exited(137) if killed_now > killed_before => {
                ExitStatus::OutOfMemory
            }
            WireStatus::Exited(code) => ExitStatus::Exited(code),
            WireStatus::Signaled(signal) => ExitStatus::Signaled(signal),
        });
        Ok(Ended { status, wall: started.elapsed(), receipt })
    }

    /// Kills everything inside.
    pub(crate) fn kill(&self) {
        self.shared.parts.built.kill();
    }

    /// Kills everything inside and waits until it is gone.
    pub async fn stop(mut self) {
        self.shared.parts.built.kill();
        // The kernel closes the socket when the first process is gone.
        let _ = tokio::time::timeout(KILL_PATIENCE, &mut self.reader).await;
    }

    /// Reads the jail's state again; a jail that changed is killed.
    fn check(&self) -> Result<Arc<Receipt>, ExecError> {
        let parts = &self.shared.parts;
        let now = parts.built.receipt(self.shared.receipt.process, &parts.declared);
        match now {
            Ok(now) if now == *self.shared.receipt => Ok(Arc::clone(&self.shared.receipt)),
            other => {
                // Asked before the kill, which ends it as well.
                let alive = self.is_alive();
                parts.built.kill();
                match other {
                    _ if !alive => Err(ExecError::JailEnded),
                    Ok(_) => Err(ReceiptError::Changed.into()),
                    Err(error @ ReceiptError::Differs(_)) => Err(error.into()),
                    // A jail that ended in this moment can be read no more, and is no forgery.
                    Err(_) if !self.is_alive() => Err(ExecError::JailEnded),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    fn wait_for_next(&self) -> Result<Waiting<'_>, ExecError> {
        let exec = self.shared.next_exec.fetch_add(1, Ordering::Relaxed);
        let (sender, report) = oneshot::channel();
        let mut state = self.shared.state();
        if state.ended {
            return Err(ExecError::JailEnded);
        }
        state.waiting.insert(exec, sender);
        drop(state);
        Ok(Waiting { shared: &self.shared, exec, report, over: false })
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        self.shared.parts.built.kill();
        self.reader.abort();
    }
}

impl Waiting<'_> {
    /// Waits for the end, and brings it about when it is due.
    async fn end(
        &mut self,
        request: &Exec,
        cancel: &CancellationToken,
    ) -> Result<(WireStatus, Option<ExitStatus>), ExecError> {
        let reason = tokio::select! {
            biased;
            report = &mut self.report => return self.report(report).map(|status| (status, None)),
            () = request.no_room.said() => ExitStatus::StorageFull,
            () = cancel.cancelled() => ExitStatus::Canceled,
            () = tokio::time::sleep(request.timeout) => ExitStatus::TimedOut,
        };
        let politely = (reason != ExitStatus::StorageFull).then_some((StopForce::Terminate, request.grace));
        for (force, patience) in politely.into_iter().chain([(StopForce::Kill, KILL_PATIENCE)]) {
            self.shared.stop(self.exec, force);
            // Who is told to go, and writes on until the disk is full, goes at once.
            let waited = tokio::select! {
                waited = tokio::time::timeout(patience, &mut self.report) => waited.ok(),
                () = request.no_room.said(), if force == StopForce::Terminate => None,
            };
            if let Some(report) = waited {
                let status = self.report(report)?;
                return Ok((status, Some(reason)));
            }
        }
        // It would not go, so its jail goes; its socket closes with it.
        self.shared.parts.built.kill();
        let _ = tokio::time::timeout(KILL_PATIENCE, &mut self.report).await;
        self.over = true;
        Ok((WireStatus::Signaled(libc::SIGKILL), Some(reason)))
    }

    fn report(&mut self, report: Result<Outcome, oneshot::error::RecvError>) -> Result<WireStatus, ExecError> {
        self.over = true;
        match report {
            Ok(Outcome::Ended(status)) => Ok(status),
            Ok(Outcome::NotStarted(errno)) => Err(ExecError::NotStarted(std::io::Error::from_raw_os_error(errno))),
            Err(_) => Err(ExecError::JailEnded),
        }
    }
}

/// Reads a pipe to its end.
async fn collect(from: &mut pipe::Receiver, into: &mut impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        into(bytes);
        // A command that prints without end must not keep this thread from the server's other work.
        tokio::task::yield_now().await;
    }
}

fn encode(command: &CommandLine) -> Result<(Program, Vec<u8>), ExecError> {
    let (program, arguments) = match command {
        CommandLine::Shell(script) => (Program::Shell, std::slice::from_ref(script)),
        CommandLine::Arguments(arguments) => (Program::Arguments, arguments.as_slice()),
    };
    if arguments.first().is_none_or(String::is_empty) {
        return Err(ExecError::Unreadable);
    }
    let mut bytes = Vec::new();
    for argument in arguments {
        if argument.contains('\0') {
            return Err(ExecError::Unreadable);
        }
        if argument.len() >= ARGUMENT_BYTES || bytes.len() + argument.len() >= ARGUMENT_BYTES {
            return Err(ExecError::TooLong);
        }
        bytes.extend_from_slice(argument.as_bytes());
        bytes.push(0);
    }
    Ok((program, bytes))
}
