//! Control groups: one per jail, with the limits that this host can enforce.
//!
//! The layout is found once by reading; version 2 controllers are taken where
//! they exist, else version 1, else none, and the caller hears which. Nothing
//! here ever moves or changes a group that we did not make, with one exception:
//! a delegated version 2 group must not hold processes itself, so the server
//! moves into a leaf of its own group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::{Enforcement, JailName, Limits};

/// The folder below our own group that holds the jails' groups.
const PARENT: &str = "bailiwick-jails";
/// The leaf into which the server moves itself in a delegated group.
const LEAF: &str = "bailiwick-server";

/// The kernel takes no quota under one millisecond in our hundred.
const LEAST_CPU_MILLIS: u64 = 10;

/// One controller's group of a jail, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupState {
    pub(crate) controller: &'static str,
    /// Whether the jail's first process is in it.
    pub(crate) member: bool,
    /// Bytes, processes, or thousandths of a core.
    pub(crate) limit: Option<u64>,
}

/// Where each limit is set on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) memory: Option<Place>,
    pub(crate) pids: Option<Place>,
    pub(crate) cpu: Option<Place>,
    /// A version 2 hierarchy, for `cgroup.kill`, even without controllers.
    pub(crate) unified: Option<Place>,
}

/// A folder under which jails' groups are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    version: Version,
    parent: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    One,
    Two,
}

impl Place {
    pub(crate) fn enforcement(&self) -> Enforcement {
        match self.version {
            Version::One => Enforcement::CgroupV1,
            Version::Two => Enforcement::CgroupV2,
        }
    }
}

impl Version {
    /// Reads a limit back; `None` if there is none.
    fn limit(self, controller: &str, folder: &Path) -> Option<u64> {
        let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        match (controller, self) {
            ("memory", Version::One) => number("memory.limit_in_bytes"),
            ("memory", Version::Two) => number("memory.max"),
            ("pids", _) => number("pids.max"),
            ("cpu", Version::One) => share(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?),
            ("cpu", Version::Two) => {
                let text = read("cpu.max")?;
                let (quota, period) = text.trim().split_once(' ')?;
                share(quota.parse().ok()?, period.parse().ok()?)
            }
            _ => None,
        }
    }

    /// How often the kernel killed in a group for want of memory.
    fn memory_kills(self, folder: &Path) -> Option<u64> {
        let file = match self {
            Self::Two => "memory.events",
            Self::One => "memory.oom_control",
        };
        let text = fs::read_to_string(folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

/// Thousandths of a core.
fn share(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

impl Layout {
    /// Finds where this process may make groups, and makes the parent folders.
    pub(crate) fn detect() -> Self {
        let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
            return Self::default();
        };
        let Ok(own) = fs::read_to_string("/proc/self/cgroup") else {
            return Self::default();
        };
        let candidates = candidates(&mounts, &own);
        let mut layout = Self::default();
        if let Some(group) = &candidates.unified {
            let enabled = enable_v2(group);
            let place = || Place { version: Version::Two, parent: group.join(PARENT) };
            if let Ok(enabled) = enabled {
                layout.unified = Some(place());
                layout.memory = enabled.memory.then(place);
                layout.pids = enabled.pids.then(place);
                layout.cpu = enabled.cpu.then(place);
            }
        }
        let v1 = |group: &Option<PathBuf>| {
            let parent = group.as_ref()?.join(PARENT);
            make_folder(&parent).ok()?;
            Some(Place { version: Version::One, parent })
        };
        layout.memory = layout.memory.or_else(|| v1(&candidates.memory));
        layout.pids = layout.pids.or_else(|| v1(&candidates.pids));
        layout.cpu = layout.cpu.or_else(|| v1(&candidates.cpu));
        layout
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        let mut seen: Vec<&Place> = Vec::new();
        for place in [&self.unified, &self.memory, &self.pids, &self.cpu].into_iter().flatten() {
            if !seen.contains(&place) {
                seen.push(place);
            }
        }
        seen.into_iter()
    }

    /// Makes a jail's groups. They have no limits yet.
    pub(crate) fn create(&self, name: &JailName) -> io::Result<Group> {
        // Only what this call made may be removed: a second jail of the same
        // name is an error and must not touch the first.
        let mut group = Group { folders: Vec::new() };
        for place in self.places() {
            let folder = place.parent.join(name.as_str());
            fs::create_dir(&folder)?;
            group.folders.push(folder);
        }
        Ok(group)
    }

    /// Sets the limits of a jail's groups.
    pub(crate) fn limit(&self, name: &JailName, limits: &Limits) -> io::Result<()> {
        if let Some(place) = &self.memory {
            let folder = place.parent.join(name.as_str());
            let bytes = limits.memory_bytes.to_string();
            match place.version {
                Version::Two => {
                    fs::write(folder.join("memory.max"), &bytes)?;
                    write_if_present(&folder.join("memory.swap.max"), "0")?;
                }
                Version::One => {
                    fs::write(folder.join("memory.limit_in_bytes"), &bytes)?;
                    write_if_present(&folder.join("memory.memsw.limit_in_bytes"), &bytes)?;
                }
            }
        }
        if let Some(place) = &self.pids {
            fs::write(place.parent.join(name.as_str()).join("pids.max"), limits.pids.to_string())?;
        }
        if let Some(place) = &self.cpu {
            let folder = place.parent.join(name.as_str());
            let period = 100_000_u64;
            let quota = cpu_millis(limits) * period / 1000;
            match place.version {
                Version::Two => fs::write(folder.join("cpu.max"), format!("{quota} {period}"))?,
                Version::One => {
                    fs::write(folder.join("cpu.cfs_period_us"), period.to_string())?;
                    fs::write(folder.join("cpu.cfs_quota_us"), quota.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// What the groups of a jail are, and whether a process with this
    /// `/proc/<pid>/cgroup` is in them.
    pub(crate) fn observe(&self, name: &JailName, membership: &str) -> Vec<GroupState> {
        let ending = format!("/{PARENT}/{}", name.as_str());
        let member = |place: &Place, controller: &str| {
            membership.lines().any(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let named = match place.version {
                    Version::One => names.split(',').any(|one| one == controller),
                    Version::Two => names.is_empty(),
                };
                named && path.ends_with(&ending)
            })
        };
        let controllers = [("memory", &self.memory), ("pids", &self.pids), ("cpu", &self.cpu)];
        controllers
            .into_iter()
            .filter_map(|(controller, place)| {
                let place = place.as_ref()?;
                let folder = place.parent.join(name.as_str());
                let limit = place.version.limit(controller, &folder);
                Some(GroupState { controller, member: member(place, controller), limit })
            })
            .collect()
    }

    /// What [`Self::limit`] sets, as [`Self::observe`] shows it.
    pub(crate) fn declare(&self, limits: &Limits) -> Vec<(&'static str, u64)> {
        let all = [
            ("memory", &self.memory, limits.memory_bytes),
            ("pids", &self.pids, u64::from(limits.pids)),
            ("cpu", &self.cpu, cpu_millis(limits)),
        ];
        all.into_iter().filter(|(_, place, _)| place.is_some()).map(|(name, _, limit)| (name, limit)).collect()
    }

    /// How often the kernel killed in a jail for want of memory.
    pub(crate) fn memory_kills(&self, name: &JailName) -> Option<u64> {
        let place = self.memory.as_ref()?;
        place.version.memory_kills(&place.parent.join(name.as_str()))
    }
}

/// The limit on processor time that is set for one that is asked for.
pub(crate) fn cpu_millis(limits: &Limits) -> u64 {
    u64::from(limits.cpu_millis).max(LEAST_CPU_MILLIS)
}

/// The groups that an engine made for a container. They are the engine's: here they are only read.
#[derive(Debug)]
pub(crate) struct EngineGroups {
    /// What their names have in them.
    mark: String,
    places: Vec<(&'static str, Version, PathBuf)>,
}

impl EngineGroups {
    /// Finds them by the membership of the container's first process, which must be in groups that have `mark` in
    /// their names.
    ///
    /// # Errors
    /// If the host's mounts cannot be read.
    pub(crate) fn find(mark: &str, membership: &str) -> io::Result<Self> {
        let found = candidates(&fs::read_to_string("/proc/self/mountinfo")?, membership);
        let controllers = [("memory", found.memory), ("pids", found.pids), ("cpu", found.cpu)];
        let places = controllers.into_iter().filter_map(|(controller, one)| {
            let (version, folder) = match (one, &found.unified) {
                (Some(folder), _) => (Version::One, folder),
                (None, Some(folder)) => (Version::Two, folder.clone()),
                (None, None) => return None,
            };
            // Some engines put the processes into a group within the one that has the limits.
            let named = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(mark));
            let folder = folder.ancestors().find(|path| named(path))?.to_owned();
            Some((controller, version, folder))
        });
        Ok(Self { mark: mark.to_owned(), places: places.collect() })
    }

    /// As [`Layout::observe`].
    pub(crate) fn observe(&self, membership: &str) -> Vec<GroupState> {
        let member = |controller: &str, version: Version| {
            membership.lines().any(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let named = match version {
                    Version::One => names.split(',').any(|one| one == controller),
                    Version::Two => names.is_empty(),
                };
                named && path.contains(&self.mark)
            })
        };
        let state = |(controller, version, folder): &(&'static str, Version, PathBuf)| GroupState {
            controller,
            member: member(controller, *version),
            limit: version.limit(controller, folder),
        };
        self.places.iter().map(state).collect()
    }

    /// As [`Layout::memory_kills`].
    pub(crate) fn memory_kills(&self) -> Option<u64> {
        let (_, version, folder) = self.places.iter().find(|(controller, ..)| *controller == "memory")?;
        version.memory_kills(folder)
    }
}

/// The groups of one jail, removed when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    /// Moves the calling process in.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| fs::write(folder.join("cgroup.procs"), "0"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // Where the kernel can, kill what is left; a group with processes
            // cannot be removed.
            let _ = write_if_present(&folder.join("cgroup.kill"), "1");
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Our own groups, as paths in this mount namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Candidates {
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
    unified: Option<PathBuf>,
}

/// Combines the mounts with our own membership.
fn candidates(mounts: &str, own: &str) -> Candidates {
    let mut found = Candidates::default();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (left.next(), left.next()) else {
            continue;
        };
        let group = |membership: &str| {
            // A container may see only a part of the hierarchy.
            let below = Path::new(membership).strip_prefix(root).ok()?;
            Some(Path::new(point).join(below))
        };
        if kind == "cgroup2" {
            found.unified = found.unified.or_else(|| group(own.lines().find_map(|line| line.strip_prefix("0::"))?));
        }
        if kind == "cgroup" {
            for (name, slot) in [("memory", &mut found.memory), ("pids", &mut found.pids), ("cpu", &mut found.cpu)] {
                let mounted = options.split(',').any(|option| option == name);
                if mounted && slot.is_none() {
                    *slot = own.lines().find_map(|line| {
                        let mut parts = line.splitn(3, ':').skip(1);
                        let (names, path) = (parts.next()?, parts.next()?);
                        names.split(',').any(|one| one == name).then(|| group(path))?
                    });
                }
            }
        }
    }
    found
}

/// The controllers that a version 2 group gives to its children.
#[derive(Debug, Default)]
struct Enabled {
    memory: bool,
    pids: bool,
    cpu: bool,
}

fn enable_v2(group: &Path) -> io::Result<Enabled> {
    let offered = fs::read_to_string(group.join("cgroup.controllers"))?;
    let wanted: Vec<&str> =
        offered.split_whitespace().filter(|name| ["memory", "pids", "cpu"].contains(name)).collect();
    if !wanted.is_empty() {
        let line = wanted.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        let control = group.join("cgroup.subtree_control");
        if fs::write(&control, &line).is_err() {
            // "No internal processes": leave the group that we want to divide.
            let leaf = group.join(LEAF);
            make_folder(&leaf)?;
            fs::write(leaf.join("cgroup.procs"), "0")?;
            fs::write(&control, &line)?;
        }
    }
    let parent = group.join(PARENT);
    make_folder(&parent)?;
    if !wanted.is_empty() {
        let line = wanted.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        fs::write(parent.join("cgroup.subtree_control"), line)?;
    }
    Ok(Enabled { memory: wanted.contains(&"memory"), pids: wanted.contains(&"pids"), cpu: wanted.contains(&"cpu") })
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Someone else's folder is of no use to us.
            rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(io::Error::from)
        }
        other => other,
    }
}

fn write_if_present(path: &Path, text: &str) -> io::Result<()> {
    match fs::write(path, text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // On a group file system a missing file cannot be created either.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !path.exists() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_gives_v1_controllers_and_the_unified_tree() {
        let mounts = "\
34 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:7 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let own = "8:pids:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n";
        let found = candidates(mounts, own);
        assert_eq!(found.memory.as_deref(), Some(Path::new("/sys/fs/cgroup/memory/a/b")));
        assert_eq!(found.cpu.as_deref(), Some(Path::new("/sys/fs/cgroup/cpu/")));
        assert_eq!(found.pids.as_deref(), Some(Path::new("/sys/fs/cgroup/pids/")));
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified/")));
    }

    #[test]
    fn a_v2_host_gives_our_own_group() {
        let mounts = "26 24 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "0::/system.slice/bailiwick.service\n";
        let found = candidates(mounts, own);
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/system.slice/bailiwick.service")));
        assert_eq!(found.memory, None);
    }

    #[test]
    fn a_group_outside_the_mounted_part_is_not_ours() {
        let mounts = "26 24 0:23 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(candidates(mounts, "0::/docker/y\n").unified, None);
        assert_eq!(candidates(mounts, "0::/docker/x/z\n").unified.as_deref(), Some(Path::new("/sys/fs/cgroup/z")));
    }
}
