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
use crate::linux::{Enforcement, JailSpec, StartError, WorkspaceAccess, cgroup};

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
        nano_cpus: counted(promises.cpu, cgroup::cpu_millis(&spec.limits).saturating_mul(1_000_000)),
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
