//! One command: its processes are collected, counted out and ended together.
//!
//! The supervisor is the parent of the command's main process and adopts its
//! orphans, so every process of the command descends from it, whatever session
//! or group it chose. It says that the command ended only when none is left.
//! It must never run the command's own code.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::processes;
use super::raw::{self, Forked};
use super::wire::{self, FromJail, WireStatus};

/// How long killing may take before the first process must help.
const PATIENCE: Duration = Duration::from_secs(2);
/// The supervisor's exit code for "someone of mine is left".
const LEFTOVERS: i32 = 3;
/// The shell's code for a program that cannot be started.
const NOT_STARTED: i32 = 127;

const SIGNALS: [i32; 3] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGUSR1];

/// A command to supervise.
pub(crate) struct Command<'a> {
    pub(crate) control: BorrowedFd<'a>,
    pub(crate) exec: u64,
    pub(crate) arguments: Vec<CString>,
    pub(crate) directory: CString,
    pub(crate) environment: &'a [CString],
    pub(crate) output: OwnedFd,
    pub(crate) errors: OwnedFd,
}

/// The jail's shell.
pub(crate) fn shell() -> &'static CStr {
    if std::path::Path::new("/bin/bash").exists() { c"/bin/bash" } else { c"/bin/sh" }
}

/// Runs the command and ends this process.
pub(crate) fn run(command: Command<'_>) -> ! {
    let Command { control, exec, .. } = command;
    // Adopt orphans before there can be any.
    if let Err(errno) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        fail(control, exec, errno.raw_os_error());
    }
    let _ = rustix::thread::set_name(c"exec");
    let main = match raw::fork() {
        Ok(Forked::Child) => become_command(&command),
        Ok(Forked::Parent(main)) => main,
        Err(error) => fail(control, exec, error.raw_os_error().unwrap_or(0)),
    };
    // Only the command may hold its output open.
    drop(command);
    let status = watch(main);
    if !end_all() {
        raw::exit_now(LEFTOVERS);
    }
    // `None` means that we killed it ourselves.
    let status = status.unwrap_or(WireStatus::Signaled(libc::SIGKILL));
    let said = wire::send(control, &FromJail::Ended { exec, status }, &[], &[]);
    raw::exit_now(i32::from(said.is_err()))
}

fn fail(control: BorrowedFd<'_>, exec: u64, errno: i32) -> ! {
    let said = wire::send(control, &FromJail::ExecFailed { exec, errno }, &[], &[]);
    raw::exit_now(i32::from(said.is_err()))
}

/// Waits until the main process ends, or until someone asks to kill.
fn watch(main: Pid) -> Option<WireStatus> {
    loop {
        if let Some(status) = reap(main) {
            return Some(status);
        }
        match raw::wait_signal(&SIGNALS, None) {
            Some(libc::SIGTERM) => {
                let _ = rustix::process::kill_process_group(main, Signal::TERM);
                let own = rustix::process::getpid();
                let rest: Vec<Pid> = processes::descendants_of(own)
                    .into_iter()
                    // The main process has it by its group.
                    .filter(|process| *process != main)
                    .filter(|process| rustix::process::getpgid(Some(*process)) != Ok(main))
                    .collect();
                processes::signal_all(&rest, Signal::TERM);
            }
            Some(libc::SIGUSR1) => return reap(main),
            _ => {}
        }
    }
}

/// Collects what has ended; the main process's status if it is among them.
fn reap(main: Pid) -> Option<WireStatus> {
    let mut found = None;
    while let Ok(Some((process, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if process == main {
            found = Some(wire_status(status));
        }
    }
    found
}

fn wire_status(status: WaitStatus) -> WireStatus {
    match status.exit_status() {
        Some(code) => WireStatus::Exited(code),
        None => WireStatus::Signaled(status.terminating_signal().unwrap_or(libc::SIGKILL)),
    }
}

/// Kills every process of the command; false if someone will not go.
fn end_all() -> bool {
    let own = rustix::process::getpid();
    let started = Instant::now();
    loop {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                // Without children there are no descendants: orphans are ours.
                Err(Errno::CHILD) => return true,
                _ => break,
            }
        }
        if started.elapsed() > PATIENCE {
            return false;
        }
        // Not by group: the main process is collected, so its number may
        // already be someone else's.
        processes::signal_all(&processes::descendants_of(own), Signal::KILL);
        raw::wait_signal(&[libc::SIGCHLD], Some(Duration::from_millis(5)));
    }
}

/// Becomes the command's main process, in a session of its own.
fn become_command(command: &Command<'_>) -> ! {
    let _ = rustix::process::setsid();
    let outcome = rustix::stdio::dup2_stdout(&command.output)
        .and_then(|()| rustix::stdio::dup2_stderr(&command.errors))
        .and_then(|()| rustix::process::chdir(command.directory.as_c_str()));
    raw::default_signals();
    let error = match (outcome, raw::block_only(&[])) {
        (Err(errno), _) => std::io::Error::from(errno),
        (_, Err(error)) => error,
        // Every other descriptor closes on exec.
        _ => start(command),
    };
    let text = format!("the command was not started: {error}\n");
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    raw::exit_now(NOT_STARTED)
}

fn start(command: &Command<'_>) -> std::io::Error {
    let Some(program) = command.arguments.first() else {
        return std::io::Error::from_raw_os_error(libc::EINVAL);
    };
    if program.as_bytes().contains(&b'/') {
        return raw::exec(program, &command.arguments, command.environment);
    }
    let mut last = std::io::Error::from_raw_os_error(libc::ENOENT);
    for folder in super::PATH.split(':') {
        let mut path = format!("{folder}/").into_bytes();
        path.extend_from_slice(program.as_bytes());
        if let Ok(path) = CString::new(path) {
            let error = raw::exec(&path, &command.arguments, command.environment);
            if error.raw_os_error() != Some(libc::ENOENT) {
                last = error;
            }
        }
    }
    last
}
