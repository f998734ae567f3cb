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
use super::native::{self, Apart, Materials, SetupError, attempt};
use super::omit::{Omitted, Wall};
use super::raw::{self, Forked};
use super::role::{self, Errors, Event};
use super::spec::JailName;
use super::wire::{
    self, FromJail, LauncherSetup, Method, Network, PACKET_BYTES, Received, StartRequest, ToLauncher, WireError,
};

/// A process that waits to become a jail: it has groups without limits, namespaces, all rights, and nothing of anybody.
struct Ready {
    process: Pid,
    /// Its request goes in here.
    socket: OwnedFd,
    group: Group,
}

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
    ready: BTreeMap<JailName, Ready>,
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
    let mut zygote = Zygote { setup, program, jails: BTreeMap::new(), ready: BTreeMap::new() };
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
            // One that cannot be made ready is built when it is asked for, which says why it cannot.
            ToLauncher::Prepare(name) => drop(self.prepare(name)),
            ToLauncher::Start(request) => match self.take_ready(&request) {
                Some(ready) => self.hand_over(ready, request, received.fds),
                None => self.start(&request, received.fds),
            },
            ToLauncher::Kill { jail } => {
                if let Some(running) = self.jails.get(&jail) {
                    let _ = rustix::process::kill_process(running.process, Signal::KILL);
                }
            }
        }
    }

    fn prepare(&mut self, name: JailName) -> Result<(), SetupError> {
        if !matches!(self.setup.method, Method::Native) || self.ready.contains_key(&name) {
            return Ok(());
        }
        let group = attempt("make the control groups", self.setup.cgroups.create(&name))?;
        let (socket, theirs) = attempt("make a socket", wire::socket_pair())?;
        match attempt("fork the jail", raw::fork_into_pid_namespace())? {
            Forked::Child => {
                drop(socket);
                self.wait_to_be(&theirs, &group);
                raw::exit_now(1)
            }
            Forked::Parent(process) => {
                self.ready.insert(name, Ready { process, socket, group });
                Ok(())
            }
        }
    }

    /// Waits for a request and becomes its jail. Without one this process ends with the launcher.
    fn wait_to_be(&self, socket: &OwnedFd, group: &Group) {
        let none = Omitted::default();
        let apart = attempt("reset the signals", raw::block_only(&[]))
            .and_then(|()| {
                let mortal = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                attempt("die with the launcher", mortal)
            })
            .and_then(|()| native::set_apart(group, &none));
        let Ok(received) = wire::receive::<ToLauncher>(socket, &mut vec![0; PACKET_BYTES]) else { return };
        let (ToLauncher::Start(request), mut fds) = (received.message, received.fds.into_iter()) else { return };
        let (Some(control), Some(errors)) = (fds.next(), fds.next()) else { return };
        let folders: Vec<OwnedFd> = fds.collect();
        let Err(error) = apart.and_then(|apart| self.build(&apart, &request, (&control, &errors), &folders));
        report(control.as_fd(), &error);
    }

    /// The process that was made ready for a request, if it may be used: what lacks a wall is never made ready.
    fn take_ready(&mut self, request: &StartRequest) -> Option<Ready> {
        if !request.omitted.is_nothing() {
            return None;
        }
        self.ready.remove(&request.name)
    }

    fn hand_over(&mut self, ready: Ready, request: StartRequest, fds: Vec<OwnedFd>) {
        let Ready { process, socket, group } = ready;
        let limited = attempt("limit the control groups", self.setup.cgroups.limit(&request.name, &request.limits));
        if let Err(error) = limited {
            let _ = rustix::process::kill_process(process, Signal::KILL);
            self.jails.insert(request.jail, Running { process, _group: group });
            if let Some(control) = fds.first() {
                report(control.as_fd(), &error);
            }
            return;
        }
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let message = ToLauncher::Start(request);
        let sent = wire::send(socket.as_fd(), &message, &[], &borrowed);
        let ToLauncher::Start(request) = message else { return };
        if sent.is_ok() {
            self.jails.insert(request.jail, Running { process, _group: group });
            return;
        }
        // It ended before it was asked for. Its groups go with it, and another one has its place.
        let _ = rustix::process::kill_process(process, Signal::KILL);
        let _ = rustix::process::waitpid(Some(process), WaitOptions::empty());
        drop(group);
        self.start(&request, fds);
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
        let group = attempt("make the control groups", self.setup.cgroups.create(&request.name))?;
        attempt("limit the control groups", self.setup.cgroups.limit(&request.name, &request.limits))?;
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
                let apart = native::set_apart(group, &request.omitted)?;
                self.build(&apart, request, (control, errors), folders)
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

    fn build(
        &self,
        apart: &Apart,
        request: &StartRequest,
        (control, errors): (&OwnedFd, &OwnedFd),
        folders: &[OwnedFd],
    ) -> Result<Infallible, SetupError> {
        attempt("keep errors for the server", rustix::stdio::dup2_stderr(errors))?;
        let workspace = folders.first().ok_or(SetupError { step: "find the workspace", errno: 0 })?;
        let shared_tmp = folders.get(1);
        native::become_init(apart, &Materials { request, control, workspace, shared_tmp, program: &self.program })
    }

    /// Collects ended jails; their groups go with them.
    fn reap(&mut self, options: WaitOptions) {
        while let Ok(Some((process, _))) = rustix::process::wait(options) {
            self.jails.retain(|_, running| running.process != process);
            self.ready.retain(|_, ready| ready.process != process);
        }
    }

    /// The server is gone: kill everything and wait, so that the groups can go.
    fn end(&mut self) {
        let ready = self.ready.values().map(|ready| ready.process);
        for process in self.jails.values().map(|running| running.process).chain(ready) {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        self.reap(WaitOptions::empty());
    }
}

fn report(control: BorrowedFd<'_>, error: &SetupError) {
    let message = FromJail::SetupFailed { step: error.step.to_owned(), errno: error.errno };
    let _ = wire::send(control, &message, &[], &[]);
}
