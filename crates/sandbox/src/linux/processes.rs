//! Who is whose child inside a jail.
//!
//! `/proc` is read here by processes of the jail itself, so it shows the jail's
//! own process numbers. A process may lie about its name, which is why the
//! parent is looked for after the last parenthesis.

use std::fs;

use rustix::process::{Pid, Signal};

/// The kinds of namespaces that a jail has of its own.
pub(crate) const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
/// The kind that a jail has besides if its launcher is not root.
pub(crate) const USER_NAMESPACE: &str = "user";

/// The links of this process's namespaces.
pub(crate) fn own_namespaces() -> Vec<(String, String)> {
    NAMESPACES
        .iter()
        .chain(&[USER_NAMESPACE])
        .filter_map(|kind| {
            let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
            Some(((*kind).to_owned(), link.to_string_lossy().into_owned()))
        })
        .collect()
}

/// All children of a process, zombies included.
pub(crate) fn children_of(parent: Pid) -> Vec<Pid> {
    all().into_iter().filter(|(_, its)| *its == Some(parent)).map(|(child, _)| child).collect()
}

/// All processes that descend from one, nearest first.
pub(crate) fn descendants_of(ancestor: Pid) -> Vec<Pid> {
    let all = all();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        for (child, its) in &all {
            if *its == Some(parent) && !found.contains(child) {
                found.push(*child);
            }
        }
    }
    found.remove(0);
    found
}

/// Kills every process of this process namespace but the first, at one point in
/// time: a fork cannot slip through.
pub(crate) fn kill_everyone_else() {
    super::raw::kill_all();
}

/// Sends a signal to some processes; those that are gone do not matter.
pub(crate) fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        let _ = rustix::process::kill_process(*process, signal);
    }
}

fn all() -> Vec<(Pid, Option<Pid>)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let number: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
            Some((Pid::from_raw(number)?, parent_in(&text)))
        })
        .collect()
}

/// The parent's number in a `/proc/<pid>/stat`.
fn parent_in(stat: &str) -> Option<Pid> {
    let (_, rest) = stat.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pose_as_a_parent() {
        let parent = |stat| parent_in(stat).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(parent("7 (bash) S 3 7 7 0"), Some(3));
        assert_eq!(parent("7 (x) S 1 (y) S 3 7 7 0"), Some(3));
        assert_eq!(parent("7 (a b) c) R 12 7"), Some(12));
        assert_eq!(parent("1 (init) S 0 1"), None);
        assert_eq!(parent("garbage"), None);
    }
}
