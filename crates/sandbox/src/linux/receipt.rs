//! What the kernel says about a running jail.
//!
//! Read from outside, from the host's `/proc`, so the jail cannot write it.
//! A receipt that differs from what was declared is an error: it must never be
//! returned as if the jail were whole.

use std::fs;

use super::processes::NAMESPACES;
use super::rlimits::{Ceiling, proc_label};

/// A jail's state as the kernel shows it, and as it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The first process's number on the host.
    pub process: i32,
    /// The user on the host: real, effective, saved and file system id.
    pub user: u32,
    /// The group on the host.
    pub group: u32,
    /// Namespaces that are not the server's, by kind.
    pub namespaces: Vec<Namespace>,
    /// Devices of the network namespace; `lo` alone means no network.
    pub network_devices: Vec<String>,
    /// System call filters in force.
    pub filters: u32,
    /// Resource limits, by the kernel's names.
    pub limits: Vec<(String, u64)>,
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

/// The kernel shows something else than what was declared.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The jail's state cannot be read.
    #[error("the jail's state cannot be read: {0}")]
    Unreadable(&'static str),
    /// The jail is weaker, or another one, than declared.
    #[error("the jail differs from what was declared: {0}")]
    Differs(&'static str),
}

/// What the jail was declared to be.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// `None`: the server's own user, unprivileged.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) filters: u32,
    pub(crate) ceilings: Vec<Ceiling>,
    /// As the first process reported them.
    pub(crate) namespaces: Vec<(String, String)>,
}

/// Reads and checks a jail's state.
pub(crate) fn read(process: i32, declared: &Declared) -> Result<Receipt, ReceiptError> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
    let status = file("status").map_err(|_| ReceiptError::Unreadable("status"))?;
    let user = one_id(&status, "Uid:").ok_or(ReceiptError::Differs("user"))?;
    let group = one_id(&status, "Gid:").ok_or(ReceiptError::Differs("group"))?;
    let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if (user, group) != declared.user.unwrap_or(own) || user == 0 || group == 0 {
        return Err(ReceiptError::Differs("user"));
    }
    if declared.user.is_some() && field(&status, "Groups:").is_none_or(|groups| !groups.is_empty()) {
        return Err(ReceiptError::Differs("supplementary groups"));
    }
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        let bits = field(&status, set).and_then(|text| u64::from_str_radix(text, 16).ok());
        if bits != Some(0) {
            return Err(ReceiptError::Differs("capabilities"));
        }
    }
    if field(&status, "NoNewPrivs:") != Some("1") {
        return Err(ReceiptError::Differs("no new privileges"));
    }
    if field(&status, "Seccomp:") != Some("2") {
        return Err(ReceiptError::Differs("system call filter"));
    }
    let filters: u32 = field(&status, "Seccomp_filters:")
        .and_then(|text| text.parse().ok())
        .ok_or(ReceiptError::Unreadable("system call filters"))?;
    // A server that runs under a filter itself hands that one down too.
    if filters < declared.filters {
        return Err(ReceiptError::Differs("system call filters"));
    }
    let limits = file("limits").map_err(|_| ReceiptError::Unreadable("limits"))?;
    let limits = check_limits(&limits, &declared.ceilings)?;
    let devices = file("net/dev").map_err(|_| ReceiptError::Unreadable("network devices"))?;
    let network_devices = device_names(&devices);
    // The kernel makes fallback tunnels in new namespaces if such modules are
    // loaded; they are down, and nobody inside may bring them up. A real
    // device cannot appear without someone moving it in.
    if !network_devices.iter().any(|name| name == "lo") {
        return Err(ReceiptError::Differs("network devices"));
    }
    let namespaces = namespaces(process, &declared.namespaces)?;
    Ok(Receipt { process, user, group, namespaces, network_devices, filters, limits })
}

fn namespaces(process: i32, told: &[(String, String)]) -> Result<Vec<Namespace>, ReceiptError> {
    let mut found = Vec::new();
    for kind in NAMESPACES {
        let ours =
            fs::read_link(format!("/proc/self/ns/{kind}")).map_err(|_| ReceiptError::Unreadable("own namespaces"))?;
        let theirs = told.iter().find(|(name, _)| name == kind).map(|(_, link)| link);
        let (identity, source) = match fs::read_link(format!("/proc/{process}/ns/{kind}")) {
            Ok(link) => (link.to_string_lossy().into_owned(), Source::Host),
            Err(_) => (theirs.ok_or(ReceiptError::Unreadable("namespaces"))?.clone(), Source::FirstProcess),
        };
        if ours.to_string_lossy() == identity || theirs.is_some_and(|theirs| *theirs != identity) {
            return Err(ReceiptError::Differs("namespaces"));
        }
        found.push(Namespace { kind: kind.to_owned(), identity, source });
    }
    Ok(found)
}

fn check_limits(text: &str, ceilings: &[Ceiling]) -> Result<Vec<(String, u64)>, ReceiptError> {
    ceilings
        .iter()
        .map(|ceiling| {
            let label = proc_label(ceiling.resource);
            let line = text.lines().find_map(|line| line.strip_prefix(label));
            let mut values = line.unwrap_or("").split_whitespace();
            let soft: u64 =
                values.next().and_then(|value| value.parse().ok()).ok_or(ReceiptError::Differs("resource limits"))?;
            let hard = values.next().and_then(|value| value.parse().ok());
            if hard.is_none_or(|hard: u64| hard > ceiling.value) || soft > ceiling.value {
                return Err(ReceiptError::Differs("resource limits"));
            }
            Ok((label.to_owned(), soft))
        })
        .collect()
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
mod tests {
    use super::super::rlimits::Limited;
    use super::*;

    #[test]
    fn b09_a_process_that_is_in_no_jail_has_no_receipt() {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let ids = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for user in [None, Some(ids), Some((ids.0 + 1, ids.1))] {
            let declared = Declared { user, filters: 0, ceilings: Vec::new(), namespaces: Vec::new() };
            assert!(matches!(read(own, &declared), Err(ReceiptError::Differs(_))), "{user:?}");
        }
        let declared = Declared { user: None, filters: 0, ceilings: Vec::new(), namespaces: Vec::new() };
        assert!(matches!(read(-1, &declared), Err(ReceiptError::Unreadable("status"))));
    }

    #[test]
    fn mixed_ids_are_no_id() {
        assert_eq!(one_id("Uid:\t7\t7\t7\t7\n", "Uid:"), Some(7));
        assert_eq!(one_id("Uid:\t7\t0\t7\t7\n", "Uid:"), None);
    }

    #[test]
    fn a_higher_or_missing_limit_differs() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            64                   64                   files\n";
        let ceiling = |value| [Ceiling { resource: Limited::OpenFiles, value }];
        assert!(check_limits(text, &ceiling(64)).is_ok());
        assert!(check_limits(text, &ceiling(63)).is_err());
        assert!(check_limits("", &ceiling(64)).is_err());
        let unlimited = text.replace("64", "unlimited");
        assert!(check_limits(&unlimited, &ceiling(64)).is_err());
    }
}
