//! What the engine is asked to make. Plain data from a demand; every wall that an engine can put up is asked for
//! here, and whether it did is read from the kernel afterwards.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::client::{Kind, OWNER};
use super::room::Room;
use super::{RuntimeChoice, Shared};
use crate::linux::bwrap::shm_bytes;
use crate::linux::rlimits::{Ceiling, Limited};
use crate::linux::rootfs::{EMPTIED, MASKED};
use crate::linux::{Enforcement, JailSpec, Limits, StartError, WorkspaceAccess, cgroup};

/// What Docker covers by itself, and would not any more once it is told what to cover.
const MASKED_BY_DOCKER: [&str; 5] =
    ["/sys/firmware", "/sys/dev/block", "/sys/devices/virtual/powercap", "/proc/timer_stats", "/proc/asound"];

pub(super) fn recipe(
    shared: &Shared,
    spec: &JailSpec,
    room: &Room,
    ceilings: &[Ceiling],
) -> Result<ContainerCreateBody, StartError> {
    let kind = shared.client.kind();
    let mut binds = Vec::new();
    for (host, inside) in shared.loader.files.iter().chain(&room.files) {
        binds.push(bind(kind, host, inside, WorkspaceAccess::ReadOnly)?);
    }
    binds.push(bind(kind, &spec.workspace, "/workspace", spec.access)?);
    let mut tmpfs = HashMap::from([
        ("/run".to_owned(), memory(kind, "ro", "noexec,size=64k,mode=755")),
        ("/var/tmp".to_owned(), memory(kind, "ro", "noexec,size=4k,mode=755")),
        // Instead of the kernel's: names of devices can be read from that one, whatever Landlock says of its files.
        ("/sys".to_owned(), memory(kind, "ro", "noexec,size=64k,mode=755")),
        ("/sys/fs/cgroup".to_owned(), memory(kind, "ro", "noexec,size=4k,mode=755")),
    ]);
    match &spec.shared_tmp {
        Some(shared_tmp) => binds.push(bind(kind, shared_tmp, "/tmp", WorkspaceAccess::ReadWrite)?),
        None => {
            let options = format!("exec,size={},mode=1777", spec.limits.tmp_bytes);
            tmpfs.insert("/tmp".to_owned(), memory(kind, "rw", &options));
        }
    }
    let (masked, security) = covers(kind, &shared.profile);
    let promises = &shared.promises;
    let counted = |by: Enforcement, limit: u64| {
        let counted = matches!(by, Enforcement::CgroupV1 | Enforcement::CgroupV2);
        counted.then(|| i64::try_from(limit).unwrap_or(i64::MAX))
    };
    let memory_bytes = counted(promises.memory, spec.limits.memory_bytes);
    let host = HostConfig {
        // What is killed, or dies with its server, goes without being asked.
        auto_remove: Some(true),
        init: Some(false),
        binds: Some(binds),
        tmpfs: Some(tmpfs),
        readonly_rootfs: Some(true),
        shm_size: i64::try_from(shm_bytes(&spec.limits)).ok(),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        cap_drop: Some(vec!["ALL".to_owned()]),
        privileged: Some(false),
        security_opt: Some(security),
        masked_paths: masked,
        memory: memory_bytes,
        // No swap on top.
        memory_swap: memory_bytes,
        pids_limit: counted(promises.pids, u64::from(spec.limits.pids)),
        nano_cpus: counted(promises.cpu, processors(&spec.limits).saturating_mul(1_000_000)),
        ulimits: Some(ulimits(ceilings)),
        oom_score_adj: Some(1000),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        runtime: match &shared.runtime {
            RuntimeChoice::Named(name) => Some(name.clone()),
            RuntimeChoice::Engines => None,
        },
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(shared.image.clone()),
        user: Some(format!("{}:{}", spec.user.uid, spec.user.gid)),
        hostname: Some("sandbox".to_owned()),
        working_dir: Some("/".to_owned()),
        entrypoint: Some(shared.loader.command.clone()),
        cmd: Some(Vec::new()),
        tty: Some(false),
        open_stdin: Some(false),
        network_disabled: Some(true),
        stop_timeout: Some(0),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        labels: Some(HashMap::from([(OWNER.to_owned(), shared.owner.clone())])),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

/// Thousandths of a core. Docker refuses more than the host has.
fn processors(limits: &Limits) -> u64 {
    let host = std::thread::available_parallelism().map_or(1, |count| u64::try_from(count.get()).unwrap_or(1));
    cgroup::cpu_millis(limits).min(host * 1000)
}

/// A folder or file of the host's, inside.
fn bind(kind: Kind, host: &Path, inside: &str, access: WorkspaceAccess) -> Result<String, StartError> {
    // A colon would end the path there, and the rest would be another one.
    let text = host.to_str().filter(|text| !text.contains(':'));
    let text = text.ok_or_else(|| StartError::Folder(host.to_owned(), std::io::ErrorKind::InvalidInput.into()))?;
    let access = match access {
        WorkspaceAccess::ReadOnly => "ro",
        WorkspaceAccess::ReadWrite => "rw",
    };
    // Docker takes no such options for these; the rule of no new privileges holds for both.
    let more = match kind {
        Kind::Podman => ",nosuid,nodev",
        Kind::Docker => "",
    };
    Ok(format!("{text}:{inside}:{access},rprivate{more}"))
}

fn memory(kind: Kind, access: &str, options: &str) -> String {
    // Podman would copy what the image has there.
    let more = match kind {
        Kind::Podman => ",notmpcopyup",
        Kind::Docker => "",
    };
    format!("{access},nosuid,nodev,{options}{more}")
}

/// The covered files of `/proc`, in the engine's way to say it, and the engine's options.
fn covers(kind: Kind, profile: &str) -> (Option<Vec<String>>, Vec<String>) {
    let proc = MASKED.iter().chain(&EMPTIED).map(|name| format!("/proc/{name}"));
    let mut security = vec!["no-new-privileges".to_owned(), format!("seccomp={profile}")];
    match kind {
        Kind::Podman => {
            security.push(format!("mask={}", proc.collect::<Vec<_>>().join(":")));
            (None, security)
        }
        Kind::Docker => (Some(proc.chain(MASKED_BY_DOCKER.map(str::to_owned)).collect()), security),
    }
}

/// The ceilings that engines would otherwise raise; the first process lowers the rest itself.
fn ulimits(ceilings: &[Ceiling]) -> Vec<ResourcesUlimits> {
    let names = [(Limited::OpenFiles, "nofile"), (Limited::Processes, "nproc"), (Limited::CoreSize, "core")];
    let found = names.into_iter().filter_map(|(resource, name)| {
        let ceiling = ceilings.iter().find(|ceiling| ceiling.resource == resource)?;
        let value = i64::try_from(ceiling.value).ok();
        Some(ResourcesUlimits { name: Some(name.to_owned()), soft: value, hard: value })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_engine_is_asked_in_its_own_words() {
        let (ro, rw) = (WorkspaceAccess::ReadOnly, WorkspaceAccess::ReadWrite);
        let place = Path::new("/srv/x");
        assert_eq!(bind(Kind::Docker, place, "/workspace", rw).unwrap(), "/srv/x:/workspace:rw,rprivate");
        assert_eq!(bind(Kind::Podman, place, "/etc/x", ro).unwrap(), "/srv/x:/etc/x:ro,rprivate,nosuid,nodev");
        assert_eq!(memory(Kind::Docker, "ro", "size=4k"), "ro,nosuid,nodev,size=4k");
        let (masked, security) = covers(Kind::Docker, "{}");
        assert_eq!(security, ["no-new-privileges", "seccomp={}"]);
        let masked = masked.unwrap();
        assert!(["/proc/kcore", "/proc/keys", "/sys/firmware"].iter().all(|path| masked.iter().any(|one| one == path)));
        let (masked, security) = covers(Kind::Podman, "/a/profile");
        assert!(masked.is_none() && security.iter().any(|one| one.starts_with("mask=/proc/")), "{security:?}");
    }

    #[test]
    fn b04_a_path_cannot_say_where_it_goes_inside() {
        let refused = bind(Kind::Podman, Path::new("/srv/x:/etc:rw"), "/workspace", WorkspaceAccess::ReadOnly);
        assert!(matches!(refused, Err(StartError::Folder(..))));
    }

    #[test]
    fn b05_no_more_processors_than_the_host_has_are_asked_for() {
        let many = Limits { cpu_millis: u32::MAX, ..Limits::default() };
        let few = Limits { cpu_millis: 500, ..Limits::default() };
        assert!(processors(&many) < u64::from(u32::MAX) && processors(&many) >= 1000);
        assert_eq!(processors(&few), 500);
    }
}
