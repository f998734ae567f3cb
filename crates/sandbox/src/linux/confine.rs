//! Landlock: the second fence around a jail's files, after the mounts.
//!
//! It is taken after the mounts are made, because a confined process may not
//! mount, and at the exact version that the launcher promised: less is an
//! error, never a weaker jail.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::spec::WorkspaceAccess;

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
    /// The kernel enforces only a part.
    #[error("Landlock enforces only a part of the rules")]
    Partly,
}

/// Confines this process and all that it starts.
pub(crate) fn restrict(abi: i32, access: WorkspaceAccess) -> Result<(), ConfineError> {
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
    let places: [(&str, BitFlags<AccessFs>); 14] = [
        ("/", look),
        ("/usr", read),
        ("/bin", read),
        ("/sbin", read),
        ("/lib", read),
        ("/lib32", read),
        ("/lib64", read),
        ("/libx32", read),
        ("/etc", read),
        ("/proc", AccessFs::ReadFile | AccessFs::ReadDir),
        ("/dev", use_device),
        ("/dev/shm", write),
        ("/tmp", write),
        ("/workspace", workspace),
    ];
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(all)?;
    if scoped {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    let mut ruleset = ruleset.create()?;
    for (place, rights) in places {
        // Not every host has every library folder; what is absent needs no
        // rule, and a missing rule only forbids.
        if !Path::new(place).is_dir() {
            continue;
        }
        let Ok(folder) = PathFd::new(place) else {
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
