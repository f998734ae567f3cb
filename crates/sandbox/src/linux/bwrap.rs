//! Builds a jail without root, by bubblewrap.
//!
//! Three rules, each from a hole that was measured: never as user 0, because
//! its user namespace would leave the payload the host's user 0; with an empty
//! environment and the options on a descriptor, because `/proc/1` shows both;
//! and with our own first process (`--as-pid-1`), because bubblewrap's has no
//! filter and the payload's user, so its memory is a way out.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::FdFlags;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use super::INIT_ROLE;
use super::native::{SetupError, attempt};
use super::omit::Wall;
use super::rootfs::{MASKED, etc_files, etc_from_host, own_certificates};
use super::spec::{Limits, WorkspaceAccess};
use super::wire::{Network, StartRequest, TmpSource};
use super::{listeners, raw};

/// The user inside, which maps to the launcher's user outside.
pub(crate) const INSIDE_ID: u32 = 1000;

/// Where our executable is inside. Landlock gives the payload no right to it.
const INIT_FOLDER: &str = "/run/bailiwick";

/// Becomes bubblewrap.
pub(crate) fn become_bubblewrap(
    program: &str,
    init: &str,
    request: &StartRequest,
    control: &OwnedFd,
) -> Result<Infallible, SetupError> {
    if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        return Err(SetupError { step: "run bubblewrap without root", errno: libc::EPERM });
    }
    attempt("die with the launcher", rustix::process::set_parent_process_death_signal(Some(Signal::KILL)))?;
    attempt("pass the control socket", rustix::stdio::dup2_stdin(control))?;
    attempt("close all descriptors", raw::close_from_on_exec(3))?;
    let mut kept = Vec::new();
    let mut options = Vec::new();
    let made = etc_files(INSIDE_ID, INSIDE_ID).into_iter().chain(own_certificates(&request.network));
    for (name, text) in made {
        let file = memory_file(&text)?;
        options.extend(["--ro-bind-data".to_owned(), file.as_raw_fd().to_string()]);
        options.push(format!("/etc/{name}"));
        kept.push(file);
    }
    let fence = memory_file(b"")?;
    options.extend(["--ro-bind-data".to_owned(), fence.as_raw_fd().to_string(), super::confine::FENCE.to_owned()]);
    kept.push(fence);
    options.extend(arguments(init, request, &|path| path.exists()));
    let mut bytes = Vec::new();
    for option in &options {
        bytes.extend_from_slice(option.as_bytes());
        bytes.push(0);
    }
    let list = memory_file(&bytes)?;
    let words = [
        "bwrap".to_owned(),
        "--args".to_owned(),
        list.as_raw_fd().to_string(),
        "--".to_owned(),
        format!("{INIT_FOLDER}/{INIT_ROLE}"),
    ];
    let words: Vec<CString> = words.into_iter().filter_map(|word| CString::new(word).ok()).collect();
    let program = attempt("name bubblewrap", CString::new(program))?;
    let error = raw::exec(&program, &words, &[]);
    drop(kept);
    attempt("start bubblewrap", Err(error))
}

/// Makes a network namespace that leads to the gate. It belongs to a user namespace in which this user has all
/// rights over it, and nothing that is started keeps them: this user is not 0 in there either.
pub(crate) fn lead_to_gate(control: &OwnedFd) -> Result<(), SetupError> {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let outer = listeners::Outer::of_this_thread()?;
    attempt("make the namespaces", raw::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET))?;
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{user} {user} 1")),
        ("/proc/self/gid_map", format!("{group} {group} 1")),
    ] {
        attempt("keep the user", std::fs::write(file, text))?;
    }
    attempt("bring up the loopback device", raw::loopback_up())?;
    listeners::open(control.as_fd(), &outer)
}

/// The options; the host's files are asked for by `exists`.
fn arguments(init: &str, request: &StartRequest, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    let inside = INSIDE_ID.to_string();
    for (wall, words) in [
        (Wall::Ipc, &["--unshare-ipc"][..]),
        (Wall::HostName, &["--unshare-uts", "--hostname", "sandbox"]),
        (Wall::ControlGroupView, &["--unshare-cgroup"]),
        (Wall::Network, &["--unshare-net"]),
    ] {
        // A jail with a way out has its network namespace already.
        let there = wall == Wall::Network && request.network != Network::Nothing;
        if !request.omitted.has(wall) && !there {
            add(words);
        }
    }
    add(&["--unshare-user", "--unshare-pid", "--disable-userns", "--die-with-parent"]);
    add(&["--new-session", "--as-pid-1", "--clearenv", "--cap-drop", "ALL"]);
    add(&["--uid", &inside, "--gid", &inside]);
    if request.omitted.has(Wall::Environment) {
        add(&["--setenv", "BAILIWICK_LEFT_IN", "1"]);
    }
    add(&["--ro-bind", "/usr", "/usr"]);
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let host = format!("/{name}");
        match std::fs::read_link(&host) {
            Ok(target) => add(&["--symlink", &target.to_string_lossy(), &host]),
            Err(_) if exists(Path::new(&host)) => add(&["--ro-bind", &host, &host]),
            Err(_) => {}
        }
    }
    for name in etc_from_host(&request.network) {
        let host = format!("/etc/{name}");
        add(&["--ro-bind-try", &host, &host]);
    }
    add(&["--proc", "/proc"]);
    for name in MASKED {
        let file = format!("/proc/{name}");
        if exists(Path::new(&file)) {
            add(&["--ro-bind", "/dev/null", &file]);
        }
    }
    add(&["--dev", "/dev"]);
    sized(&mut all, "/dev/shm", shm_bytes(&request.limits));
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["--remount-ro", "/dev"]);
    let bind = match request.access {
        WorkspaceAccess::ReadOnly => "--ro-bind",
        WorkspaceAccess::ReadWrite => "--bind",
    };
    add(&[bind, &request.workspace_path, "/workspace"]);
    match request.tmp {
        TmpSource::Shared => add(&["--bind", &request.tmp_path, "/tmp"]),
        TmpSource::Private => sized(&mut all, "/tmp", request.limits.tmp_bytes),
    }
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["--dir", "/var", "--symlink", "/tmp", "/var/tmp"]);
    add(&["--ro-bind", init, &format!("{INIT_FOLDER}/{INIT_ROLE}")]);
    add(&["--remount-ro", "/", "--chdir", "/"]);
    all
}

fn sized(all: &mut Vec<String>, place: &str, bytes: u64) {
    all.extend(["--perms", "1777", "--size"].map(str::to_owned));
    all.extend([bytes.to_string(), "--tmpfs".to_owned(), place.to_owned()]);
}

/// The size of `/dev/shm`.
pub(crate) fn shm_bytes(limits: &Limits) -> u64 {
    (limits.memory_bytes / 2).clamp(64 << 10, 64 << 20)
}

/// A file without a name that the next program inherits.
fn memory_file(bytes: &[u8]) -> Result<OwnedFd, SetupError> {
    let step = "write the options";
    let fd = attempt(step, rustix::fs::memfd_create("options", MemfdFlags::CLOEXEC))?;
    let mut file = std::fs::File::from(fd);
    attempt(step, file.write_all(bytes))?;
    let fd = OwnedFd::from(file);
    attempt(step, rustix::fs::seek(&fd, SeekFrom::Start(0)))?;
    attempt(step, rustix::io::fcntl_setfd(&fd, FdFlags::empty()))?;
    Ok(fd)
}
