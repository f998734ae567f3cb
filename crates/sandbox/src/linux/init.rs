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
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions};

use super::omit::{LEFT_IN, Wall};
use super::raw::{self, Forked};
use super::receipt::Told;
use super::role::{self, Errors, Event};
use super::supervisor::{self, Command};
use super::wire::{
    self, ExecRequest, FromJail, InitSetup, Program, Received, StopForce, ToInit, WireError, WireStatus,
};
use super::{confine, processes, rlimits, syscalls};

/// Rounds of killing orphans one by one before the whole jail is emptied.
const SWEEPS: usize = 50;

const SIGNALS: [i32; 3] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGUSR1];

/// Plays the first process's role until the server closes the socket.
pub(crate) fn run() -> ! {
    raw::exit_now(i32::from(serve().is_err()))
}

struct Init<'a> {
    control: BorrowedFd<'a>,
    environment: Vec<CString>,
    /// Supervisor's process id to command number.
    supervisors: HashMap<Pid, u64>,
}

fn serve() -> Result<(), WireError> {
    let control = role::prepare(c"init", Errors::Dropped, &SIGNALS).map_err(WireError::Socket)?;
    let first: Received<ToInit> = role::configuration(&control)?;
    let ToInit::Configure(setup) = first.message else {
        return Err(WireError::Malformed);
    };
    // Anywhere but in a jail this role would confine a bystander.
    if !rustix::process::getpid().is_init() && !setup.omitted.has(Wall::Processes) {
        return Err(WireError::Malformed);
    }
    let mut told = look();
    if let Err((step, errno)) = confine_self(&setup, &first.bytes) {
        let message = FromJail::SetupFailed { step: step.to_owned(), errno };
        return wire::send(control.as_fd(), &message, &[], &[]);
    }
    told.fence.1 = try_fence();
    let left_in = setup.omitted.has(Wall::Environment).then(|| LEFT_IN.to_owned());
    let environment = setup.environment.iter().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok());
    let environment = environment.chain(left_in).collect();
    wire::send(control.as_fd(), &FromJail::Ready { told }, &[], &[])?;
    let mut init = Init { control: control.as_fd(), environment, supervisors: HashMap::new() };
    role::attend(&control, |event| match event {
        Event::Children => init.children_ended(),
        Event::Message(received) if received.short => Err(WireError::Malformed),
        Event::Message(received) => init.handle(received),
    })
}

/// What the server may not be able to see: this process before its confinement.
fn look() -> Told {
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let of = descriptors.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
    Told {
        namespaces: processes::own_namespaces(),
        environment: std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect(),
        // One is the listing's own.
        descriptors: of.filter(|of| !(of.starts_with("/proc/") && of.ends_with("/fd"))).collect(),
        fence: (try_fence(), 0),
    }
}

/// Opens the file that Landlock alone closes; the kernel's answer, 0 for yes.
fn try_fence() -> i32 {
    fs::File::open(confine::FENCE).map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0)
}

fn confine_self(setup: &InitSetup, filters: &[u8]) -> Result<(), (&'static str, i32)> {
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let omitted = &setup.omitted;
    if !omitted.has(Wall::Descriptors) {
        raw::close_from_on_exec(3).map_err(|_| ("close all descriptors", errno()))?;
    }
    if !omitted.has(Wall::NoNewPrivileges) {
        rustix::thread::set_no_new_privs(true).map_err(|error| ("forbid new privileges", error.raw_os_error()))?;
    }
    if !omitted.has(Wall::ResourceLimits) {
        rlimits::lower(&setup.rlimits).map_err(|error| ("lower the resource limits", error.raw_os_error()))?;
    }
    let filters = syscalls::decode(filters).map_err(|_| ("read the filters", libc::EINVAL))?;
    if !omitted.has(Wall::Landlock) {
        confine::restrict(setup.landlock_abi, setup.access, setup.programs)
            .map_err(|_| ("take the Landlock rules", errno()))?;
    }
    if !omitted.has(Wall::Filters) {
        syscalls::install(&filters).map_err(|_| ("take the system call filters", errno()))?;
    }
    Ok(())
}

impl Init<'_> {
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
        wire::send(self.control, message, &[], &[])
    }

    /// Forks the command's supervisor.
    fn exec(&mut self, request: &ExecRequest, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<(), i32> {
        let arguments = arguments(request.program, bytes).ok_or(libc::EINVAL)?;
        let directory = CString::new(request.directory.as_str()).map_err(|_| libc::EINVAL)?;
        let [output, errors] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| libc::EBADF)?;
        match raw::fork().map_err(|error| error.raw_os_error().unwrap_or(0))? {
            Forked::Child => supervisor::run(Command {
                control: self.control,
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
