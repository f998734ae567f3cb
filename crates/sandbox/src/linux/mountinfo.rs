//! A jail's mounts as the kernel lists them, and what must be true of them.

use super::spec::{LauncherKind, WorkspaceAccess};

/// One mount, by its place inside the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountState {
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
            let mut fields = line.split(' ').skip(4);
            let place = fields.next()?.to_owned();
            let options = fields.next()?.split(',').map(str::to_owned).collect();
            Some(MountState { place, options })
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
