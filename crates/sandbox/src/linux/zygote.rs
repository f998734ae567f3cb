//! The launcher: a small single-threaded process that forks the jails.
//!
//! It reads requests of a fixed form from one socket and holds no secret: its
//! environment is empty and the server's descriptors are closed. It must never
//! take a path from a tenant; the native build takes descriptors only. When
//! the socket closes, the server is gone, and every jail goes with it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

use super::bwrap;
use super::cgroup::Group;
use super::native::{self, Materials, SetupError, attempt};
use super::omit::Wall;
use super::raw::{self, Forked};
use super::role::{self, Errors, Event};
use super::wire::{self, FromJail, LauncherSetup, Method, Network, Received, StartRequest, ToLauncher, WireError};

/// A jail that this process started.
struct Running {
    process: Pid,
    /// Removed when the jail's first process has been reaped.
    _group: Group,
}

struct Zygote {
    setup: LauncherSetup,
    program: OwnedFd,
    jails: BTreeMap<u64, Running>,
}

/// Plays the launcher's role until the server closes the socket.
pub(crate) fn run() -> ! {
    let code = match serve() {
        Ok(()) => 0,
        Err(_) => 1,
    };
    raw::exit_now(code)
}

fn serve() -> Result<(), WireError> {
    let socket = role::prepare(c"bw-launcher", Errors::Kept, &[libc::SIGCHLD]).map_err(WireError::Socket)?;
    raw::close_from_on_exec(3).map_err(|_| WireError::Closed)?;
    // An own session: a signal from the server's terminal must not end jails
    // before the server has stopped them.
    let _ = rustix::process::setsid();
    let first: Received<ToLauncher> = role::configuration(&socket)?;
    let ToLauncher::Configure(setup) = first.message else {
        return Err(WireError::Malformed);
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let program = rustix::fs::openat(CWD, "/proc/self/exe", flags, Mode::empty()).map_err(WireError::Socket)?;
    let mut zygote = Zygote { setup, program, jails: BTreeMap::new() };
    let ended = role::attend(&socket, |event| {
        match event {
            Event::Children => zygote.reap(WaitOptions::NOHANG),
            Event::Message(received) if received.short => return Err(WireError::Malformed),
            Event::Message(received) => zygote.handle(received),
        }
        Ok(())
    });
    zygote.end();
    ended
}

impl Zygote {
    fn handle(&mut self, received: Received<ToLauncher>) {
        match received.message {
            ToLauncher::Configure(_) => {}
            ToLauncher::Start(request) => self.start(&request, received.fds),
            ToLauncher::Kill { jail } => {
                if let Some(running) = self.jails.get(&jail) {
                    let _ = rustix::process::kill_process(running.process, Signal::KILL);
                }
            }
        }
    }

    fn start(&mut self, request: &StartRequest, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let (Some(control), Some(errors)) = (fds.next(), fds.next()) else {
            return;
        };
        let folders: Vec<OwnedFd> = fds.collect();
        if let Err(error) = self.fork_jail(request, &control, &errors, &folders) {
            report(control.as_fd(), &error);
        }
    }

    fn fork_jail(
        &mut self,
        request: &StartRequest,
        control: &OwnedFd,
        errors: &OwnedFd,
        folders: &[OwnedFd],
    ) -> Result<(), SetupError> {
        let group = attempt("make the control groups", self.setup.cgroups.create(&request.name, &request.limits))?;
        let forked = match self.setup.method {
            Method::Native if !request.omitted.has(Wall::Processes) => raw::fork_into_pid_namespace(),
            Method::Native | Method::Bubblewrap { .. } => raw::fork(),
        };
        match attempt("fork the jail", forked)? {
            Forked::Child => {
                let Err(error) = self.become_jail(request, control, errors, folders, &group);
                report(control.as_fd(), &error);
                raw::exit_now(1)
            }
            Forked::Parent(process) => {
                self.jails.insert(request.jail, Running { process, _group: group });
                Ok(())
            }
        }
    }

    fn become_jail(
        &self,
        request: &StartRequest,
        control: &OwnedFd,
        errors: &OwnedFd,
        folders: &[OwnedFd],
        group: &Group,
    ) -> Result<Infallible, SetupError> {
        attempt("reset the signals", raw::block_only(&[]))?;
        attempt("keep errors for the server", rustix::stdio::dup2_stderr(errors))?;
        match &self.setup.method {
            Method::Native => {
                let workspace = folders.first().ok_or(SetupError { step: "find the workspace", errno: 0 })?;
                native::become_init(&Materials {
                    request,
                    control,
                    workspace,
                    shared_tmp: folders.get(1),
                    group,
                    program: &self.program,
                })
            }
            Method::Bubblewrap { program, init } => {
                // Without root a process that cannot be looked into may not
                // write its own settings either.
                attempt("become ordinary again", rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable))?;
                native::join_group(group, &request.omitted)?;
                if request.network != Network::Nothing {
                    bwrap::lead_to_gate(control)?;
                }
                bwrap::become_bubblewrap(program, init, request, control)
            }
        }
    }

    /// Collects ended jails; their groups go with them.
    fn reap(&mut self, options: WaitOptions) {
        while let Ok(Some((process, _))) = rustix::process::wait(options) {
            self.jails.retain(|_, running| running.process != process);
        }
    }

    /// The server is gone: kill everything and wait, so that the groups can go.
    fn end(&mut self) {
        for running in self.jails.values() {
            let _ = rustix::process::kill_process(running.process, Signal::KILL);
        }
        self.reap(WaitOptions::empty());
    }
}

fn report(control: BorrowedFd<'_>, error: &SetupError) {
    let message = FromJail::SetupFailed { step: error.step.to_owned(), errno: error.errno };
    let _ = wire::send(control, &message, &[], &[]);
}
