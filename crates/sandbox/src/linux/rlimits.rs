//! Resource limits of a jail's processes.
//!
//! They are only ever lowered: raising needs a capability that a jail must not
//! have, and a host's stricter limit stays.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use super::spec::{Enforcement, Limits};

/// The resources that we limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Limited {
    OpenFiles,
    Processes,
    FileSize,
    CoreSize,
    LockedMemory,
    MessageQueues,
    PendingSignals,
    RealtimePriority,
    Data,
}

/// One resource and the most that a process may have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ceiling {
    pub(crate) resource: Limited,
    pub(crate) value: u64,
}

/// The ceilings for a jail, given what the cgroups already enforce.
pub(crate) fn ceilings(limits: &Limits, memory: Enforcement, pids: Enforcement) -> Vec<Ceiling> {
    let mut all = vec![
        (Limited::OpenFiles, limits.open_files),
        (Limited::FileSize, limits.file_bytes),
        (Limited::CoreSize, 0),
        (Limited::LockedMemory, 64 * 1024),
        (Limited::MessageQueues, 0),
        (Limited::PendingSignals, 1024),
        (Limited::RealtimePriority, 0),
    ];
    // The kernel counts this per user. Where a cgroup counts per jail it is
    // only a second fence, wide enough for some jails of one user.
    let processes = u64::from(limits.pids);
    all.push(match pids {
        Enforcement::RlimitPerUser => (Limited::Processes, processes),
        _ => (Limited::Processes, processes.saturating_mul(16)),
    });
    if memory == Enforcement::RlimitPerProcess {
        // Not the address space: language runtimes reserve terabytes of it.
        all.push((Limited::Data, limits.memory_bytes));
    }
    all.into_iter().map(|(resource, value)| Ceiling { resource, value }).collect()
}

/// Lowers this process's limits.
pub(crate) fn lower(ceilings: &[Ceiling]) -> Result<(), Errno> {
    for ceiling in ceilings {
        let resource = resource(ceiling.resource);
        let now = rustix::process::getrlimit(resource);
        let value = now.maximum.map_or(ceiling.value, |hard| hard.min(ceiling.value));
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
    }
    Ok(())
}

fn resource(limited: Limited) -> Resource {
    match limited {
        Limited::OpenFiles => Resource::Nofile,
        Limited::Processes => Resource::Nproc,
        Limited::FileSize => Resource::Fsize,
        Limited::CoreSize => Resource::Core,
        Limited::LockedMemory => Resource::Memlock,
        Limited::MessageQueues => Resource::Msgqueue,
        Limited::PendingSignals => Resource::Sigpending,
        Limited::RealtimePriority => Resource::Rtprio,
        Limited::Data => Resource::Data,
    }
}

/// The line of `/proc/<pid>/limits` that shows a resource.
pub(crate) fn proc_label(limited: Limited) -> &'static str {
    match limited {
        Limited::OpenFiles => "Max open files",
        Limited::Processes => "Max processes",
        Limited::FileSize => "Max file size",
        Limited::CoreSize => "Max core file size",
        Limited::LockedMemory => "Max locked memory",
        Limited::MessageQueues => "Max msgqueue size",
        Limited::PendingSignals => "Max pending signals",
        Limited::RealtimePriority => "Max realtime priority",
        Limited::Data => "Max data size",
    }
}
