//! A jail's mounts as the kernel lists them, and what must be true of them.

use super::spec::{LauncherKind, WorkspaceAccess};

/// One mount, by its place inside the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountState {
    /// What of the mounted file system is here.
    root: String,
    place: String,
    options: Vec<String>,
}

impl MountState {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }
}

/// Where a jail may write. Device nodes in `/dev` come on top.
const WRITABLE: [&str; 5] = ["/dev/pts", "/dev/shm", "/proc", "/tmp", "/workspace"];

/// Parses a `/proc/<pid>/mountinfo`.
pub(crate) fn parse(text: &str) -> Vec<MountState> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(3);
            let root = fields.next()?.to_owned();
            let place = fields.next()?.to_owned();
            let options = fields.next()?.split(',').map(str::to_owned).collect();
            Some(MountState { root, place, options })
        })
        .collect()
}

/// The places that can be written, device nodes aside.
pub(crate) fn writable(mounts: &[MountState]) -> Vec<String> {
    let open = mounts.iter().filter(|mount| !mount.has("ro")).map(|mount| mount.place.as_str());
    open.filter(|place| WRITABLE.contains(place)).map(str::to_owned).collect()
}

/// Whether these are the mounts that were declared: no setuid anywhere, a root
/// that cannot be written, no place to write but the known ones, and the
/// kernel's settings shut where we mount `/proc` ourselves.
pub(crate) fn hold(mounts: &[MountState], access: WorkspaceAccess, launcher: LauncherKind) -> bool {
    if launcher == LauncherKind::Engine {
        return hold_in_container(mounts, access);
    }
    let at = |place: &str| mounts.iter().rfind(|mount| mount.place == place);
    let shut = |place: &str| at(place).is_some_and(|mount| mount.has("ro"));
    let allowed =
        |place: &str| WRITABLE.contains(&place) || place.strip_prefix("/dev/").is_some_and(|node| !node.contains('/'));
    mounts.iter().all(|mount| mount.has("nosuid") && (mount.has("ro") || allowed(&mount.place)))
        && shut("/")
        && ["/workspace", "/tmp", "/proc", "/dev"].into_iter().all(|place| at(place).is_some())
        && ["/workspace", "/tmp"].into_iter().all(|place| at(place).is_some_and(|mount| mount.has("nodev")))
        && (access == WorkspaceAccess::ReadWrite || shut("/workspace"))
        && (launcher == LauncherKind::Bubblewrap || shut("/proc/sys"))
}

/// What an engine leaves writable by its own users alone, beside `/dev` and what is in it.
const ENGINES: [&str; 3] = ["/dev", "/dev/mqueue", "/sys/fs/cgroup"];

/// The same for a container (`compared` says where it differs): what covers a file of `/proc` is `/dev/null`, and
/// may be written.
fn hold_in_container(mounts: &[MountState], access: WorkspaceAccess) -> bool {
    let at = |place: &str| mounts.iter().rfind(|mount| mount.place == place);
    let shut = |place: &str| at(place).is_some_and(|mount| mount.has("ro"));
    let node = |mount: &MountState| mount.place.strip_prefix("/dev/").is_some_and(|node| !node.contains('/'));
    let cover = |mount: &MountState| mount.place.starts_with("/proc/") && mount.root == "/null";
    let allowed = |mount: &MountState| {
        let place = mount.place.as_str();
        WRITABLE.contains(&place) || ENGINES.contains(&place) || node(mount) || cover(mount)
    };
    mounts.iter().all(|mount| mount.has("ro") || allowed(mount))
        && ["/", "/proc/sys", super::confine::FENCE].into_iter().all(shut)
        && ["/workspace", "/tmp", "/proc", "/dev"].into_iter().all(|place| at(place).is_some())
        && (access == WorkspaceAccess::ReadWrite || shut("/workspace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "\
73 48 0:40 / / ro,relatime - overlay overlay rw
74 73 0:43 / /proc rw,nosuid,nodev,noexec - proc proc rw
75 73 254:0 /srv/ws /workspace ro,nosuid,nodev - ext4 /dev/vda rw
76 73 0:44 / /sys ro,nosuid,nodev,noexec - sysfs sysfs ro
78 73 0:46 / /dev rw,nosuid,noexec - tmpfs tmpfs rw
79 73 0:47 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw
82 78 0:42 / /dev/mqueue rw,nosuid - mqueue mqueue rw
88 77 254:0 /srv/closed /run/bailiwick/closed ro,relatime - ext4 /dev/vda rw
89 76 0:50 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw
52 74 0:43 /sys /proc/sys ro,nosuid - proc proc rw
54 74 0:46 /null /proc/keys rw,nosuid,noexec - tmpfs tmpfs rw
";

    fn holds(from: &str, to: &str) -> bool {
        assert!(CONTAINER.contains(from), "{from}");
        hold(&parse(&CONTAINER.replacen(from, to, 1)), WorkspaceAccess::ReadOnly, LauncherKind::Engine)
    }

    #[test]
    fn b09_a_containers_mounts_are_compared() {
        assert!(holds("", ""));
        assert!(!holds("/ / ro", "/ / rw"), "a root that can be written");
        assert!(!holds("/workspace ro", "/workspace rw"), "a workspace that can be written");
        assert!(!holds("/proc/sys ro", "/proc/sys rw"), "the kernel's settings");
        assert!(!holds("/null /proc/keys", "/keys /proc/keys"), "a file of the kernel");
        assert!(!holds("/sys ro", "/sys rw"));
        assert!(!holds("/dev/mqueue", "/data"), "a volume of the image");
        assert!(!holds("/tmp rw", "/tmpfs ro"), "no /tmp");
    }
}
