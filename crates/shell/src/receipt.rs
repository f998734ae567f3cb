//! What the kernel says about a worker before it may run its command.
//!
//! The server reads it from `/proc`, where the worker cannot write. Landlock,
//! the environment and the open descriptors cannot be seen from there: the
//! worker tells of them, and it has interpreted nothing by then. A worker that differs from what was declared
//! is killed; its receipt must never be returned.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::confine;
use crate::omit::Omitted;
use crate::spec::ShellLimits;

/// A worker's state as the kernel shows it, and as it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The user: real, effective, saved and file system id.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// Permitted and effective capabilities together.
    pub capabilities: u64,
    /// Whether new privileges are ruled out.
    pub no_new_privileges: u32,
    /// The kernel's mode of system call filters: 2 is a filter.
    pub filter_mode: u32,
    /// System call filters in force.
    pub filters: u32,
    /// Whether Landlock is in force.
    pub landlock: Landlock,
    /// Resource limits, by the kernel's names.
    pub limits: Vec<(&'static str, u64)>,
}

/// Whether a worker's files are fenced by Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Landlock {
    /// In force, as an attempt has shown.
    Enforced,
    /// This kernel has none; the system call list stands alone.
    Absent,
}

/// What stands between a command and the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confinement {
    /// A worker with this receipt.
    Checked(Receipt),
    /// The call ended before a worker had shown what it is; no command ran.
    NotBegun,
    /// Nothing: it ran on a thread of the server.
    Thread,
}

/// A thing that was declared, and that the kernel shows otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// User, group or supplementary groups.
    User,
    /// Capabilities of an unprivileged user.
    Capabilities,
    /// No new privileges.
    NoNewPrivileges,
    /// The system call filters.
    Filters,
    /// Landlock.
    Landlock,
    /// The resource limits.
    ResourceLimits,
    /// The environment.
    Environment,
    /// The open descriptors.
    Descriptors,
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::Filters => "system call filters",
            Self::Landlock => "Landlock",
            Self::ResourceLimits => "resource limits",
            Self::Environment => "environment",
            Self::Descriptors => "descriptors",
        })
    }
}

/// What a worker says of itself when it is confined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) landlock: Landlock,
    /// Opening the host's root folder: the errors before and after, 0 for none.
    pub(crate) fence: (i32, i32),
    /// How many variables its environment has.
    pub(crate) variables: usize,
    /// How many descriptors it has open.
    pub(crate) descriptors: usize,
}

/// What a worker was declared to be.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// User and group, if they are not the server's.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) limits: ShellLimits,
    pub(crate) timeout: Duration,
    pub(crate) omitted: Omitted,
}

/// What the kernel shows, as it shows it.
#[derive(Debug, Clone)]
struct Observed {
    status: String,
    limits: String,
}

/// The descriptors of a worker: its folders and its socket.
const DESCRIPTORS: usize = 3;
/// Both filters of a worker.
const FILTERS: u32 = 2;

/// Reads and checks a worker's state; all that differs if it is another one.
pub(crate) fn read(process: u32, told: &Told, declared: &Declared) -> std::io::Result<Result<Receipt, Vec<Fact>>> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
    let (receipt, differs) = judge(&Observed { status: file("status")?, limits: file("limits")? }, told, declared);
    Ok(if differs.is_empty() || declared.omitted.tolerated() { Ok(receipt) } else { Err(differs) })
}

/// The receipt, and all that differs from what was declared.
fn judge(seen: &Observed, told: &Told, declared: &Declared) -> (Receipt, Vec<Fact>) {
    let mut differs = Vec::new();
    let mut must = |fact: Fact, holds: bool| {
        if !holds && !differs.contains(&fact) {
            differs.push(fact);
        }
    };
    let number = |name| field(&seen.status, name).and_then(|text| text.parse::<u32>().ok());
    let set = |name| field(&seen.status, name).and_then(|text| u64::from_str_radix(text, 16).ok());
    let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let (user, group) = (one_id(&seen.status, "Uid:"), one_id(&seen.status, "Gid:"));
    let expected = declared.user.unwrap_or(own);
    must(Fact::User, (user, group) == (Some(expected.0), Some(expected.1)));
    let groupless = field(&seen.status, "Groups:").is_some_and(str::is_empty);
    must(Fact::User, declared.user.is_none() || own.0 != 0 || groupless);
    let capabilities = [set("CapPrm:"), set("CapEff:")];
    must(Fact::Capabilities, expected.0 == 0 || capabilities == [Some(0); 2]);
    let no_new_privileges = number("NoNewPrivs:");
    must(Fact::NoNewPrivileges, no_new_privileges == Some(1));
    let (mode, filters) = (number("Seccomp:"), number("Seccomp_filters:"));
    must(Fact::Filters, mode == Some(2) && filters.is_some_and(|filters| filters >= FILTERS));
    must(Fact::Landlock, told.landlock == Landlock::Absent || told.fence == (0, confine::FENCED));
    must(Fact::Environment, told.variables == 0);
    must(Fact::Descriptors, told.descriptors == DESCRIPTORS);
    let limits = confine::ceilings(&declared.limits, declared.timeout);
    let limits = limits.map(|(_, label, ceiling)| Some((label, limit(&seen.limits, label, ceiling)?)));
    must(Fact::ResourceLimits, limits.iter().all(Option::is_some));
    let receipt = Receipt {
        user: user.unwrap_or(u32::MAX),
        group: group.unwrap_or(u32::MAX),
        capabilities: capabilities.into_iter().flatten().fold(0, |all, set| all | set),
        no_new_privileges: no_new_privileges.unwrap_or(0),
        filter_mode: mode.unwrap_or(0),
        filters: filters.unwrap_or(0),
        landlock: told.landlock,
        limits: limits.into_iter().flatten().collect(),
    };
    (receipt, differs)
}

impl Receipt {
    /// The receipt for the record: plain facts, no path of the host, nobody's name.
    #[must_use]
    pub fn record(&self) -> Value {
        let limits: Map<String, Value> =
            self.limits.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "backend": "virtual",
            "uid": self.user,
            "gid": self.group,
            "capabilities": self.capabilities,
            "no_new_privs": self.no_new_privileges,
            "seccomp": { "mode": self.filter_mode, "filters": self.filters },
            "landlock": match self.landlock {
                Landlock::Enforced => "enforced",
                Landlock::Absent => "absent",
            },
            "rlimits": limits,
        })
    }
}

/// A soft limit, if it and the hard one are at most the ceiling.
fn limit(text: &str, label: &str, ceiling: u64) -> Option<u64> {
    let mut values = text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace();
    let soft: u64 = values.next()?.parse().ok()?;
    let hard: u64 = values.next()?.parse().ok()?;
    (soft <= ceiling && hard <= ceiling).then_some(soft)
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const USER: (u32, u32) = (200_001, 200_002);

    fn whole() -> (Observed, Told, Declared) {
        let declared = Declared {
            user: Some(USER),
            limits: ShellLimits::default(),
            timeout: Duration::from_secs(7),
            omitted: Omitted::default(),
        };
        let (u, g) = USER;
        let status = format!(
            "Uid:\t{u}\t{u}\t{u}\t{u}\nGid:\t{g}\t{g}\t{g}\t{g}\nGroups:\t \nCapPrm:\t0000\nCapEff:\t0000\n\
             NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n"
        );
        let lines = confine::ceilings(&declared.limits, declared.timeout)
            .map(|(_, label, ceiling)| format!("{label}   {ceiling}   {ceiling}   units\n"));
        let told = Told { landlock: Landlock::Enforced, fence: (0, confine::FENCED), variables: 0, descriptors: 3 };
        (Observed { status, limits: lines.concat() }, told, declared)
    }

    fn differs(change: impl FnOnce(&mut Observed, &mut Told)) -> Vec<Fact> {
        let (mut seen, mut told, declared) = whole();
        change(&mut seen, &mut told);
        judge(&seen, &told, &declared).1
    }

    fn in_status(from: &str, to: &str) -> Vec<Fact> {
        differs(|seen, _| {
            assert!(seen.status.contains(from), "{from}");
            seen.status = seen.status.replacen(from, to, 1);
        })
    }

    #[test]
    fn b09_a_whole_worker_has_a_receipt() {
        let (seen, told, declared) = whole();
        let record = judge(&seen, &told, &declared).0.record();
        assert_eq!(record["seccomp"], json!({ "mode": 2, "filters": 2 }));
        assert_eq!((&record["uid"], &record["landlock"]), (&json!(USER.0), &json!("enforced")));
        assert_eq!(record["rlimits"]["Max cpu time"], json!(12));
        let absent = differs(|_, told| (told.landlock, told.fence) = (Landlock::Absent, (0, 0)));
        assert_eq!(absent, [], "a kernel without Landlock says so, and the record too");
    }

    #[test]
    fn b09_each_fact_of_a_worker_that_differs_is_found() {
        assert_eq!(in_status("Uid:\t200001", "Uid:\t0"), [Fact::User]);
        assert_eq!(in_status("Gid:\t200002", "Gid:\t0"), [Fact::User]);
        assert_eq!(in_status("CapEff:\t0000", "CapEff:\t0001"), [Fact::Capabilities]);
        assert_eq!(in_status("CapPrm:\t0000", "CapPrm:\t0001"), [Fact::Capabilities]);
        assert_eq!(in_status("NoNewPrivs:\t1", "NoNewPrivs:\t0"), [Fact::NoNewPrivileges]);
        assert_eq!(in_status("Seccomp:\t2", "Seccomp:\t0"), [Fact::Filters]);
        assert_eq!(in_status("Seccomp_filters:\t2", "Seccomp_filters:\t1"), [Fact::Filters]);
        assert_eq!(differs(|_, told| told.fence.1 = 0), [Fact::Landlock]);
        assert_eq!(differs(|_, told| told.fence.0 = confine::FENCED), [Fact::Landlock], "no control");
        assert_eq!(differs(|_, told| told.variables = 1), [Fact::Environment]);
        assert_eq!(differs(|_, told| told.descriptors = 4), [Fact::Descriptors]);
        let (_, _, declared) = whole();
        for (_, label, ceiling) in confine::ceilings(&declared.limits, declared.timeout) {
            let raised = |value: &str| {
                let (line, higher) =
                    (format!("{label}   {ceiling}   {ceiling}"), format!("{label}   {value}   {value}"));
                differs(|seen, _| seen.limits = seen.limits.replace(&line, &higher))
            };
            assert_eq!(raised(&(ceiling + 1).to_string()), [Fact::ResourceLimits], "{label}");
            assert_eq!(raised("unlimited"), [Fact::ResourceLimits], "{label}");
        }
    }
}
