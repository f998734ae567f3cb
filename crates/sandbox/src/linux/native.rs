//! Builds a jail as root: namespaces, file system, then no rights at all.
//!
//! Runs in a process that the launcher has just forked into a new process
//! namespace, and ends by becoming the jail's first process. It must never run
//! anything of a tenant, and it must never return: a half-built jail ends.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Signal, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, UnshareFlags};

use super::cgroup::Group;
use super::listeners::{self, Outer};
use super::omit::{LEFT_IN, Omitted, Wall};
use super::rootfs::{self, Folders};
use super::spec::JailUser;
use super::wire::{Network, StartRequest};
use super::{INIT_ROLE, raw};

/// A step of the build that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("could not {step}")]
pub(crate) struct SetupError {
    pub(crate) step: &'static str,
    pub(crate) errno: i32,
}

/// Names a step for its error.
pub(crate) fn attempt<T, E: Into<std::io::Error>>(step: &'static str, result: Result<T, E>) -> Result<T, SetupError> {
    result.map_err(|error| SetupError { step, errno: error.into().raw_os_error().unwrap_or(0) })
}

/// What the launcher gives to the build.
pub(crate) struct Materials<'a> {
    pub(crate) request: &'a StartRequest,
    pub(crate) control: &'a OwnedFd,
    pub(crate) workspace: &'a OwnedFd,
    pub(crate) shared_tmp: Option<&'a OwnedFd>,
    /// Our own executable.
    pub(crate) program: &'a OwnedFd,
}

/// A process that is in groups and namespaces of its own, and in nobody's yet.
pub(crate) struct Apart {
    outer: Outer,
}

/// Takes this process out of the host's network, names and groups. What takes long of a build is here, so that it can
/// be done before anybody asks.
pub(crate) fn set_apart(group: &Group, omitted: &Omitted) -> Result<Apart, SetupError> {
    join_group(group, omitted)?;
    let outer = Outer::of_this_thread()?;
    unshare(omitted)?;
    if !omitted.has(Wall::HostName) {
        attempt("name the host", rustix::system::sethostname(b"sandbox"))?;
    }
    if !omitted.has(Wall::Network) {
        attempt("bring up the loopback device", raw::loopback_up())?;
    }
    Ok(Apart { outer })
}

/// Builds the jail and becomes its first process.
pub(crate) fn become_init(apart: &Apart, materials: &Materials<'_>) -> Result<Infallible, SetupError> {
    let request = materials.request;
    if request.uid < JailUser::LOWEST || request.gid < JailUser::LOWEST {
        return Err(SetupError { step: "accept the jail's user", errno: libc::EPERM });
    }
    let omitted = &request.omitted;
    let left_open = omitted.has(Wall::Descriptors).then(|| rustix::fs::open("/", OFlags::RDONLY, Mode::empty()));
    // While this process still sees the host's mounts.
    let folders = Folders::detach(materials.workspace, materials.shared_tmp)?;
    if !omitted.has(Wall::Mounts) {
        attempt("make the mounts", raw::unshare(UnshareFlags::NEWNS))?;
    }
    if request.network != Network::Nothing {
        listeners::open(materials.control.as_fd(), &apart.outer)?;
    }
    if !omitted.has(Wall::Mounts) {
        rootfs::build(&folders, request)?;
    }
    drop(folders);
    attempt("leave the session keyring", raw::new_session_keyring())?;
    drop_rights(request.uid, request.gid, omitted)?;
    // After the change of user, which clears it.
    attempt("die with the launcher", rustix::process::set_parent_process_death_signal(Some(Signal::KILL)))?;
    attempt("pass the control socket", rustix::stdio::dup2_stdin(materials.control))?;
    let error = start(materials.program, omitted);
    drop(left_open);
    error
}

/// Joins the jail's groups and makes the kernel prefer it when memory is short.
/// Both need the host's file systems, so they come first.
pub(crate) fn join_group(group: &Group, omitted: &Omitted) -> Result<(), SetupError> {
    if !omitted.has(Wall::ControlGroups) {
        attempt("join the control groups", group.join())?;
    }
    attempt("be killed first", std::fs::write("/proc/self/oom_score_adj", "1000"))
}

fn unshare(omitted: &Omitted) -> Result<(), SetupError> {
    let flags = [
        (Wall::Network, UnshareFlags::NEWNET),
        (Wall::Ipc, UnshareFlags::NEWIPC),
        (Wall::HostName, UnshareFlags::NEWUTS),
        (Wall::ControlGroupView, UnshareFlags::NEWCGROUP),
    ];
    let flags = flags.into_iter().filter(|(wall, _)| !omitted.has(*wall)).map(|(_, flag)| flag).collect();
    attempt("make the namespaces", raw::unshare(flags))
}

/// Changes the user and gives up every capability, for good.
fn drop_rights(uid: u32, gid: u32, omitted: &Omitted) -> Result<(), SetupError> {
    let step = "give up all rights";
    if !omitted.has(Wall::Capabilities) {
        rule_out_capabilities(step)?;
    }
    if !omitted.has(Wall::User) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        attempt(step, rustix::thread::set_thread_groups(&[]))?;
        attempt(step, rustix::thread::set_thread_res_gid(gid, gid, gid))?;
        attempt(step, rustix::thread::set_thread_res_uid(uid, uid, uid))?;
    }
    if !omitted.has(Wall::Capabilities) {
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        attempt(step, rustix::thread::set_capabilities(None, none))?;
    }
    if !omitted.has(Wall::NoNewPrivileges) {
        attempt(step, rustix::thread::set_no_new_privs(true))?;
    }
    attempt(step, rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

/// Takes away what an exec, also one of user 0, could get back.
fn rule_out_capabilities(step: &'static str) -> Result<(), SetupError> {
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel knows no more capabilities than these.
            Err(Errno::INVAL) => break,
            other => attempt(step, other)?,
        }
    }
    attempt(step, rustix::thread::clear_ambient_capability_set())?;
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED;
    attempt(step, rustix::thread::set_capabilities_secure_bits(bits))
}

/// Standard output and error go nowhere; every other descriptor closes.
fn start(program: &OwnedFd, omitted: &Omitted) -> Result<Infallible, SetupError> {
    let null = attempt("open /dev/null", std::fs::OpenOptions::new().read(true).write(true).open("/dev/null"))?;
    attempt("close standard output", rustix::stdio::dup2_stdout(&null))?;
    attempt("close standard error", rustix::stdio::dup2_stderr(&null))?;
    if !omitted.has(Wall::Descriptors) {
        attempt("close all descriptors", raw::close_from_on_exec(3))?;
    }
    let name = CString::new(INIT_ROLE).unwrap_or_default();
    let environment: Vec<CString> = omitted.has(Wall::Environment).then(|| LEFT_IN.to_owned()).into_iter().collect();
    let error = raw::exec_file(program.as_fd(), &[name], &environment);
    attempt("start the first process", Err(error))
}
