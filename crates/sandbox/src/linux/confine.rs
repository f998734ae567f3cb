//! Landlock: the second fence around a jail's files, after the mounts.
//!
//! It is taken after the mounts are made, because a confined process may not
//! mount, and at the exact version that the launcher promised: less is an
//! error, never a weaker jail.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::spec::{Programs, WorkspaceAccess};

/// A file that everybody may read, were it not for Landlock. The first process
/// tries it before and after, so that the receipt can say that the fence holds.
pub(crate) const FENCE: &str = "/run/bailiwick/closed";

/// The lowest Landlock version with which a jail starts at all.
pub(crate) const LOWEST_ABI: i32 = 1;
/// The first version that scopes signals and abstract sockets.
const SCOPES_SINCE: i32 = 6;

/// The fence could not be put up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    /// The kernel refused a rule.
    #[error("Landlock refused the rules")]
    Rules(#[from] RulesetError),
    /// The image's folders cannot be listed.
    #[error("the image's folders cannot be listed")]
    Folders(#[from] std::io::Error),
    /// The kernel enforces only a part.
    #[error("Landlock enforces only a part of the rules")]
    Partly,
}

/// Confines this process and all that it starts.
pub(crate) fn restrict(abi: i32, access: WorkspaceAccess, programs: Programs) -> Result<(), ConfineError> {
    let scoped = abi >= SCOPES_SINCE;
    let abi = ABI::from(abi);
    let read = AccessFs::from_read(abi);
    // Device nodes are made by nobody, in no place.
    let devices: BitFlags<AccessFs> = AccessFs::MakeChar | AccessFs::MakeBlock;
    let all = AccessFs::from_all(abi);
    let write = all & !devices;
    let workspace = match access {
        WorkspaceAccess::ReadOnly => read,
        WorkspaceAccess::ReadWrite => write,
    };
    let look = BitFlags::from(AccessFs::ReadDir);
    let use_device = write & !BitFlags::from(AccessFs::Execute);
    let own: [(&str, BitFlags<AccessFs>); 6] = [
        ("/", look),
        ("/proc", AccessFs::ReadFile | AccessFs::ReadDir),
        ("/dev", use_device),
        ("/dev/shm", write),
        ("/tmp", write),
        ("/workspace", workspace),
    ];
    let mut places: Vec<(PathBuf, BitFlags<AccessFs>)> = own.map(|(place, rights)| (place.into(), rights)).into();
    places.extend(folders(programs)?.into_iter().map(|folder| (folder, read)));
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(all)?;
    if scoped {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    let mut ruleset = ruleset.create()?;
    for (place, rights) in places {
        // Not every host has every library folder; what is absent needs no
        // rule, and a missing rule only forbids.
        if !place.is_dir() {
            continue;
        }
        let Ok(folder) = PathFd::new(&place) else {
            continue;
        };
        ruleset = ruleset.add_rule(PathBeneath::new(folder, rights))?;
    }
    let status = ruleset.restrict_self()?;
    if status.ruleset != RulesetStatus::FullyEnforced || !status.no_new_privs {
        return Err(ConfineError::Partly);
    }
    Ok(())
}

/// Where programs and what they need are read.
fn folders(programs: Programs) -> std::io::Result<Vec<PathBuf>> {
    match programs {
        Programs::Hosts => Ok(HOSTS_FOLDERS.map(PathBuf::from).into()),
        // All that the image brings along, and nothing that the engine or we put over it.
        Programs::Images => {
            let all = std::fs::read_dir("/")?.collect::<Result<Vec<_>, _>>()?;
            // A link may lead to what is not the image's.
            let real = all.iter().filter_map(|entry| entry.path().canonicalize().ok());
            Ok(real.filter(|path| path != Path::new("/") && !is_put_over(path)).collect())
        }
    }
}

fn is_put_over(path: &Path) -> bool {
    NOT_THE_IMAGES.iter().any(|place| path.starts_with(place))
}

/// The folders of a jail that hold the host's programs.
const HOSTS_FOLDERS: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"];
/// The folders of a container that are not of its image; `own` above has the rights to some.
const NOT_THE_IMAGES: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/workspace"];
