//! The first process of a jail: it confines itself, then runs commands.
//!
//! It holds the control socket and waits for requests. Each command gets a
//! supervisor, which collects the command's processes. A process that has
//! neither a living supervisor nor this process's knowledge is an orphan of a
//! supervisor that its own command killed, and dies. Nothing of a tenant runs
//! in here or before the confinement is complete. When the socket closes, this
//! process ends and the kernel kills the rest of the jail.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

use super::raw::{self, Forked};
use super::supervisor::{self, Command};
use super::wire::{
    self, ExecRequest, FromJail, InitSetup, PACKET_BYTES, Program, Received, StopForce, ToInit, WireError, WireStatus,
};
use super::{confine, processes, rlimits, signals, syscalls};

/// Rounds of killing orphans one by one before the whole jail is emptied.
const SWEEPS: usize = 50;

/// Plays the first process's role until the server closes the socket.
pub(crate) fn run() -> ! {
    // Anywhere but in a jail this role would confine a bystander.
    let code = if rustix::process::getpid().is_init() { i32::from(serve().is_err()) } else { 1 };
    raw::exit_now(code)
}

struct Init {
    control: OwnedFd,
    environment: Vec<CString>,
    /// Supervisor's process id to command number.
    supervisors: HashMap<Pid, u64>,
}

fn serve() -> Result<(), WireError> {
    let control = prepare().map_err(WireError::Socket)?;
    let mut buffer = vec![0; PACKET_BYTES];
    let first: Received<ToInit> = wire::receive(&control, &mut buffer)?;
    let ToInit::Configure(setup) = first.message else {
        return Err(WireError::Malformed);
    };
    let namespaces = processes::own_namespaces();
    if let Err((step, errno)) = confine_self(&setup, &first.bytes) {
        let message = FromJail::SetupFailed { step: step.to_owned(), errno };
        return wire::send(control.as_fd(), &message, &[], &[]);
    }
    let environment =
        setup.environment.iter().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect();
    let children = raw::signal_descriptor(&[libc::SIGCHLD]).map_err(|_| WireError::Closed)?;
    wire::send(control.as_fd(), &FromJail::Ready { namespaces }, &[], &[])?;
    let mut init = Init { control, environment, supervisors: HashMap::new() };
    loop {
        let mut waiting = [PollFd::new(&init.control, PollFlags::IN), PollFd::new(&children, PollFlags::IN)];
        match poll(&mut waiting, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(WireError::Socket(errno)),
        }
        let [requests, ended] = waiting.map(|one| !one.revents().is_empty());
        if ended {
            signals::drain(&children);
            init.children_ended()?;
        }
        if requests {
            let received = wire::receive(&init.control, &mut buffer)?;
            init.handle(received)?;
        }
    }
}

/// Takes the control socket and closes everything else.
fn prepare() -> Result<OwnedFd, Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    raw::close_from_on_exec(3).map_err(|_| Errno::NOSYS)?;
    let _ = rustix::thread::set_name(c"init");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    raw::block_only(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGUSR1]).map_err(|_| Errno::INVAL)?;
    Ok(control)
}

fn confine_self(setup: &InitSetup, filters: &[u8]) -> Result<(), (&'static str, i32)> {
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    rustix::thread::set_no_new_privs(true).map_err(|error| ("forbid new privileges", error.raw_os_error()))?;
    rlimits::lower(&setup.rlimits).map_err(|error| ("lower the resource limits", error.raw_os_error()))?;
    let filters = syscalls::decode(filters).map_err(|_| ("read the filters", libc::EINVAL))?;
    confine::restrict(setup.landlock_abi, setup.access).map_err(|_| ("take the Landlock rules", errno()))?;
    syscalls::install(&filters).map_err(|_| ("take the system call filters", errno()))
}

impl Init {
    fn handle(&mut self, received: Received<ToInit>) -> Result<(), WireError> {
        match received.message {
            ToInit::Configure(_) => Err(WireError::Malformed),
            ToInit::Exec(request) => {
                let exec = request.exec;
                match self.exec(&request, &received.bytes, received.fds) {
                    Ok(()) => Ok(()),
                    Err(errno) => self.say(&FromJail::ExecFailed { exec, errno }),
                }
            }
            ToInit::Stop { exec, force } => {
                let signal = match force {
                    StopForce::Terminate => Signal::TERM,
                    StopForce::Kill => Signal::USR1,
                };
                for (supervisor, number) in &self.supervisors {
                    if *number == exec {
                        let _ = rustix::process::kill_process(*supervisor, signal);
                    }
                }
                Ok(())
            }
        }
    }

    fn say(&self, message: &FromJail) -> Result<(), WireError> {
        wire::send(self.control.as_fd(), message, &[], &[])
    }

    /// Forks the command's supervisor.
    fn exec(&mut self, request: &ExecRequest, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<(), i32> {
        let arguments = arguments(request.program, bytes).ok_or(libc::EINVAL)?;
        let directory = CString::new(request.directory.as_str()).map_err(|_| libc::EINVAL)?;
        let [output, errors] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| libc::EBADF)?;
        match raw::fork().map_err(|error| error.raw_os_error().unwrap_or(0))? {
            Forked::Child => supervisor::run(Command {
                control: self.control.as_fd(),
                exec: request.exec,
                arguments,
                directory,
                environment: &self.environment,
                output,
                errors,
            }),
            Forked::Parent(supervisor) => {
                self.supervisors.insert(supervisor, request.exec);
                Ok(())
            }
        }
    }

    fn children_ended(&mut self) -> Result<(), WireError> {
        let mut clean = true;
        while let Ok(Some((process, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(exec) = self.supervisors.remove(&process) else {
                continue;
            };
            if status.exit_status() == Some(0) {
                // It has said everything itself.
                continue;
            }
            clean = false;
            self.sweep();
            let status = WireStatus::Signaled(libc::SIGKILL);
            self.say(&FromJail::Ended { exec, status })?;
        }
        if !clean {
            self.sweep();
        }
        Ok(())
    }

    /// Kills every child that is no supervisor, until there is none.
    fn sweep(&mut self) {
        for _ in 0..SWEEPS {
            let orphans: Vec<Pid> = processes::children_of(rustix::process::getpid())
                .into_iter()
                .filter(|child| !self.supervisors.contains_key(child))
                .collect();
            if orphans.is_empty() {
                return;
            }
            for orphan in orphans {
                let _ = rustix::process::kill_process(orphan, Signal::KILL);
                let _ = rustix::process::waitpid(Some(orphan), WaitOptions::empty());
            }
        }
        // Someone forks faster than we look. This kills all at once; the other
        // commands of the jail pay for it and are reported as killed.
        processes::kill_everyone_else();
    }
}

fn arguments(program: Program, bytes: &[u8]) -> Option<Vec<CString>> {
    let mut arguments = match program {
        Program::Shell => vec![supervisor::shell().to_owned(), c"-c".to_owned()],
        Program::Arguments => Vec::new(),
    };
    let body = bytes.strip_suffix(&[0])?;
    for argument in body.split(|byte| *byte == 0) {
        arguments.push(CString::new(argument).ok()?);
    }
    Some(arguments)
}
