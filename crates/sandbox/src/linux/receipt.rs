//! What the kernel says about a running jail.
//!
//! Read from outside, from the host's `/proc` and control groups, so the jail
//! cannot write it. What only the first process can see (Landlock, its own
//! descriptors and environment) it reads itself and tells before it runs
//! anything of a tenant. A receipt that differs from what was declared is an
//! error: it must never be returned as if the jail were whole.

use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::cgroup::GroupState;
use super::compared::{Compared, compared, not_compared};
use super::mountinfo::{self, MountState};
use super::omit::Omitted;
use super::processes::{NAMESPACES, USER_NAMESPACE};
use super::rlimits::{Ceiling, proc_label};
use super::spec::{JailName, LauncherKind, WorkspaceAccess};

/// A jail's state as the kernel shows it, and as it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Who built the jail.
    pub launcher: LauncherKind,
    /// The first process's number on the host.
    pub process: i32,
    /// The user on the host: real, effective, saved and file system id.
    pub user: u32,
    /// The group on the host.
    pub group: u32,
    /// All capability sets together.
    pub capabilities: u64,
    /// Whether new privileges are ruled out.
    pub no_new_privileges: u32,
    /// The kernel's mode of system call filters: 2 is a filter.
    pub filter_mode: u32,
    /// System call filters in force.
    pub filters: u32,
    /// Landlock's version, if the first process found its fence shut; else 0.
    pub landlock: i32,
    /// Namespaces that are not the server's, by kind.
    pub namespaces: Vec<Namespace>,
    /// Devices of the network namespace; `lo` alone means no network but what leads to the gate.
    pub network_devices: Vec<String>,
    /// Whether its network namespace leads to the gate, or nowhere.
    pub way_out: WayOut,
    /// Places that can be written.
    pub writable: Vec<String>,
    /// Limits of control groups, by controller.
    pub groups: Vec<(&'static str, u64)>,
    /// Resource limits, by the kernel's names.
    pub limits: Vec<(String, u64)>,
    /// The image's identity, of a container.
    pub image: Option<String>,
}

/// Where a jail's network namespace leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// Nowhere.
    Nothing,
    /// To the gate: its sockets are in this namespace, as the kernel says of each of them.
    Gate,
}

/// One namespace of a jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The kernel's name for the kind.
    pub kind: String,
    /// The kernel's identity of the namespace.
    pub identity: String,
    /// Who read it.
    pub source: Source,
}

/// Who read a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The server, from the host's `/proc`.
    Host,
    /// The jail's first process, before it ran anything; an unprivileged
    /// server may not read it itself.
    FirstProcess,
}

/// A thing that was declared, and that the kernel shows otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The user or the group.
    User,
    /// Supplementary groups.
    SupplementaryGroups,
    /// Capabilities.
    Capabilities,
    /// No new privileges.
    NoNewPrivileges,
    /// The system call filters.
    Filters,
    /// Landlock.
    Landlock,
    /// The namespace of this kind.
    Namespace(&'static str),
    /// The devices of the network namespace.
    NetworkDevices,
    /// The sockets that lead to the gate.
    WayOut,
    /// The mounts.
    Mounts,
    /// The control groups or their limits.
    ControlGroups,
    /// The resource limits.
    ResourceLimits,
    /// The first process's environment.
    Environment,
    /// The first process's descriptors.
    Descriptors,
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::SupplementaryGroups => "supplementary groups",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::Filters => "system call filters",
            Self::Landlock => "Landlock",
            Self::Namespace(kind) => return write!(f, "{kind} namespace"),
            Self::NetworkDevices => "network devices",
            Self::WayOut => "way out",
            Self::Mounts => "mounts",
            Self::ControlGroups => "control groups",
            Self::ResourceLimits => "resource limits",
            Self::Environment => "environment",
            Self::Descriptors => "descriptors",
        })
    }
}

/// The kernel shows something else than what was declared.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The jail's state cannot be read.
    #[error("the jail's state cannot be read: {0}")]
    Unreadable(&'static str),
    /// The jail is weaker, or another one, than declared.
    #[error("the jail differs from what was declared: {}", named(.0))]
    Differs(Vec<Fact>),
    /// The jail is within what was declared, but not what it was.
    #[error("the jail changed since it started")]
    Changed,
}

fn named(facts: &[Fact]) -> String {
    facts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What the jail was declared to be.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) launcher: LauncherKind,
    pub(crate) name: JailName,
    /// `None`: the server's own user, unprivileged.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) filters: u32,
    pub(crate) landlock: i32,
    pub(crate) access: WorkspaceAccess,
    /// The network namespace of the sockets that lead to the gate, where there are to be some.
    pub(crate) gate: Option<String>,
    pub(crate) ceilings: Vec<Ceiling>,
    /// Limits of control groups, by controller.
    pub(crate) groups: Vec<(&'static str, u64)>,
    /// As the first process told.
    pub(crate) told: Told,
    /// Names that whoever built it set in the first process's environment.
    pub(crate) environment: Vec<String>,
    /// The image's identity, of a container.
    pub(crate) image: Option<String>,
    pub(crate) omitted: Omitted,
}

/// What the first process saw of itself before it ran anything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Links of its namespaces.
    pub(crate) namespaces: Vec<(String, String)>,
    /// Names of its environment.
    pub(crate) environment: Vec<String>,
    /// What its descriptors are of.
    pub(crate) descriptors: Vec<String>,
    /// Opening what Landlock alone closes: the errors before and after, 0 for none.
    pub(crate) fence: (i32, i32),
}

/// What the kernel shows, as it shows it.
#[derive(Debug, Clone)]
struct Observed {
    status: String,
    limits: String,
    devices: String,
    mounts: Vec<MountState>,
    /// Kind, the server's own, the jail's if it may be read.
    namespaces: Vec<(&'static str, String, Option<String>)>,
    groups: Vec<GroupState>,
}

/// Reads and checks a jail's state. `groups`: its control groups, given what it is a member of.
pub(crate) fn read(process: i32, groups: &Groups<'_>, declared: &Declared) -> Result<Receipt, ReceiptError> {
    let observed = observe(process, groups, declared)?;
    let (receipt, differs) = judge(process, &observed, declared)?;
    if differs.is_empty() || declared.omitted.tolerated() { Ok(receipt) } else { Err(ReceiptError::Differs(differs)) }
}

/// Reads control groups by a `/proc/<pid>/cgroup`.
pub(crate) type Groups<'a> = dyn Fn(&str) -> Vec<GroupState> + 'a;

fn observe(process: i32, groups: &Groups<'_>, declared: &Declared) -> Result<Observed, ReceiptError> {
    let file = |name: &'static str| {
        fs::read_to_string(format!("/proc/{process}/{name}")).map_err(|_| ReceiptError::Unreadable(name))
    };
    // Without root there is a user namespace, else none.
    let user = declared.user.is_none().then_some(USER_NAMESPACE);
    let namespaces = NAMESPACES.into_iter().chain(user).map(|kind| {
        let link = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/{kind}"));
        let ours = link("self").map_err(|_| ReceiptError::Unreadable("own namespaces"))?;
        let theirs = link(&process.to_string()).ok().map(|link| link.to_string_lossy().into_owned());
        Ok((kind, ours.to_string_lossy().into_owned(), theirs))
    });
    Ok(Observed {
        status: file("status")?,
        limits: file("limits")?,
        devices: file("net/dev")?,
        mounts: mountinfo::parse(&file("mountinfo")?),
        groups: groups(&file("cgroup")?),
        namespaces: namespaces.collect::<Result<_, ReceiptError>>()?,
    })
}

/// The receipt, and all that differs from what was declared.
fn judge(process: i32, seen: &Observed, declared: &Declared) -> Result<(Receipt, Vec<Fact>), ReceiptError> {
    let mut differs = Vec::new();
    let mut must = |fact: Fact, holds: bool| {
        let judged = !matches!(compared(declared.launcher, fact), Compared::Not(_));
        if judged && !holds && !differs.contains(&fact) {
            differs.push(fact);
        }
    };
    let status = seen.status.as_str();
    let number = |name| field(status, name).and_then(|text| text.parse::<u32>().ok());

    let (user, group) = (one_id(status, "Uid:"), one_id(status, "Gid:"));
    let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let expected = declared.user.unwrap_or(own);
    must(Fact::User, (user, group) == (Some(expected.0), Some(expected.1)) && user != Some(0) && group != Some(0));
    let own = |id: &str| declared.launcher == LauncherKind::Engine && id.parse() == Ok(expected.1);
    let groupless = field(status, "Groups:").is_some_and(|groups| groups.split_whitespace().all(own));
    must(Fact::SupplementaryGroups, groupless);

    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"]
        .map(|set| field(status, set).and_then(|text| u64::from_str_radix(text, 16).ok()));
    must(Fact::Capabilities, sets == [Some(0); 5]);
    let no_new_privileges = number("NoNewPrivs:");
    must(Fact::NoNewPrivileges, no_new_privileges == Some(1));
    // A server that runs under a filter itself hands that one down too.
    let (mode, filters) = (number("Seccomp:"), number("Seccomp_filters:"));
    must(Fact::Filters, mode == Some(2) && filters.is_some_and(|filters| filters >= declared.filters));
    let fenced = declared.told.fence == (0, libc::EACCES);
    must(Fact::Landlock, fenced && declared.landlock > 0);

    let mut namespaces = Vec::new();
    for (kind, ours, theirs) in &seen.namespaces {
        let told = declared.told.namespaces.iter().find(|(name, _)| name == kind).map(|(_, link)| link);
        let (identity, source) = match theirs {
            Some(link) => (link, Source::Host),
            None => (told.ok_or(ReceiptError::Unreadable("namespaces"))?, Source::FirstProcess),
        };
        must(Fact::Namespace(kind), ours != identity && told == Some(identity));
        namespaces.push(Namespace { kind: (*kind).to_owned(), identity: identity.clone(), source });
    }
    let network_devices = device_names(&seen.devices);
    // The kernel makes fallback tunnels in new namespaces if such modules are
    // loaded; they are down, and nobody inside may bring them up. A real
    // device cannot appear without someone moving it in.
    let known = |name: &String| name == "lo" || FALLBACK_DEVICES.contains(&name.as_str());
    let alone = declared.launcher != LauncherKind::Engine || network_devices.iter().all(known);
    must(Fact::NetworkDevices, alone && network_devices.iter().any(|name| name == "lo"));

    let network = namespaces.iter().find(|one: &&Namespace| one.kind == "net").map(|one| one.identity.as_str());
    must(Fact::WayOut, declared.gate.as_deref().is_none_or(|gate| network == Some(gate)));

    must(Fact::Mounts, mountinfo::hold(&seen.mounts, declared.access, declared.launcher));
    for (controller, limit) in &declared.groups {
        let state = seen.groups.iter().find(|state| state.controller == *controller);
        let held = state.is_some_and(|state| state.member && state.limit.is_some_and(|now| now <= *limit));
        must(Fact::ControlGroups, held);
    }
    must(Fact::ControlGroups, seen.groups.iter().all(|state| state.member));
    let limits: Vec<(String, Option<u64>)> = declared
        .ceilings
        .iter()
        .map(|ceiling| (proc_label(ceiling.resource).to_owned(), limit(&seen.limits, ceiling)))
        .collect();
    must(Fact::ResourceLimits, limits.iter().all(|(_, value)| value.is_some()));

    // Bubblewrap sets the working directory's variable by itself.
    let named = |name: &String| {
        (declared.launcher == LauncherKind::Bubblewrap && name == "PWD") || declared.environment.contains(name)
    };
    must(Fact::Environment, declared.told.environment.iter().all(named));
    must(Fact::Descriptors, declared.told.descriptors.iter().all(|of| of == "/dev/null" || of.starts_with("socket:[")));

    let receipt = Receipt {
        launcher: declared.launcher,
        process,
        user: user.unwrap_or(u32::MAX),
        group: group.unwrap_or(u32::MAX),
        capabilities: sets.iter().flatten().fold(0, |all, set| all | set),
        no_new_privileges: no_new_privileges.unwrap_or(0),
        filter_mode: mode.unwrap_or(0),
        filters: filters.unwrap_or(0),
        landlock: if fenced { declared.landlock } else { 0 },
        namespaces,
        network_devices,
        way_out: if declared.gate.is_some() { WayOut::Gate } else { WayOut::Nothing },
        writable: mountinfo::writable(&seen.mounts),
        groups: seen.groups.iter().filter_map(|state| Some((state.controller, state.limit?))).collect(),
        limits: limits.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        image: declared.image.clone(),
    };
    Ok((receipt, differs))
}

impl Receipt {
    /// The receipt for the record: plain facts, no path of the host, nobody's name.
    #[must_use]
    pub fn record(&self) -> Value {
        let number =
            |link: &str| link.rsplit_once('[').and_then(|(_, rest)| rest.trim_end_matches(']').parse::<u64>().ok());
        let namespaces: Map<String, Value> =
            self.namespaces.iter().map(|one| (one.kind.clone(), json!(number(&one.identity)))).collect();
        let groups: Map<String, Value> =
            self.groups.iter().map(|(controller, limit)| ((*controller).to_owned(), json!(limit))).collect();
        let limits: Map<String, Value> = self.limits.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let (backend, launcher) = match self.launcher {
            LauncherKind::Native => ("linux", "native"),
            LauncherKind::Bubblewrap => ("linux", "bubblewrap"),
            LauncherKind::Engine => ("container", "engine"),
        };
        let mut record = json!({
            "backend": backend,
            "launcher": launcher,
            "uid": self.user,
            "gid": self.group,
            "capabilities": self.capabilities,
            "no_new_privs": self.no_new_privileges,
            "seccomp": { "mode": self.filter_mode, "filters": self.filters },
            "landlock": self.landlock,
            "namespaces": namespaces,
            "network": self.network_devices,
            "way_out": match self.way_out {
                WayOut::Nothing => "none",
                WayOut::Gate => "gate",
            },
            "writable": self.writable,
            "cgroups": groups,
            "rlimits": limits,
        });
        if let (Value::Object(record), Some(image)) = (&mut record, &self.image) {
            let not_compared: Vec<String> = not_compared(self.launcher).map(|(fact, _)| fact.to_string()).collect();
            record.insert("image".to_owned(), json!(image));
            record.insert("not_compared".to_owned(), json!(not_compared));
        }
        record
    }
}

/// What the kernel makes by itself in a new network namespace where such modules are loaded.
const FALLBACK_DEVICES: [&str; 9] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0", "sit0"];

/// A soft limit, if it and the hard one are at most the ceiling.
fn limit(text: &str, ceiling: &Ceiling) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(proc_label(ceiling.resource)))?;
    let mut values = line.split_whitespace();
    let soft: u64 = values.next()?.parse().ok()?;
    let hard: u64 = values.next()?.parse().ok()?;
    (soft <= ceiling.value && hard <= ceiling.value).then_some(soft)
}

fn device_names(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The id, if real, effective, saved and file system id are the same.
fn one_id(status: &str, name: &str) -> Option<u32> {
    let mut ids = field(status, name)?.split_whitespace().map(str::parse::<u32>);
    let first = ids.next()?.ok()?;
    ids.all(|id| id == Ok(first)).then_some(first)
}

#[cfg(test)]
mod tests;
