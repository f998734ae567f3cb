//! What the receipt of each kind of jail promises: which facts are compared, which otherwise than in our own jails,
//! and which not, with the reason. A fact that no kind compares must not be here.

use super::receipt::Fact;
use super::spec::LauncherKind;

/// Whether a fact of a jail is compared with what was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Yes.
    Fully,
    /// Yes, by a rule of this kind's own.
    Otherwise(&'static str),
    /// No, and why.
    Not(&'static str),
}

/// Every fact.
pub(crate) const FACTS: [Fact; 20] = [
    Fact::User,
    Fact::SupplementaryGroups,
    Fact::Capabilities,
    Fact::NoNewPrivileges,
    Fact::Filters,
    Fact::Landlock,
    Fact::Namespace("cgroup"),
    Fact::Namespace("ipc"),
    Fact::Namespace("mnt"),
    Fact::Namespace("net"),
    Fact::Namespace("pid"),
    Fact::Namespace("uts"),
    Fact::Namespace("user"),
    Fact::NetworkDevices,
    Fact::WayOut,
    Fact::Mounts,
    Fact::ControlGroups,
    Fact::ResourceLimits,
    Fact::Environment,
    Fact::Descriptors,
];

/// What the receipt of a jail of this kind says about a fact.
#[must_use]
pub(crate) fn compared(launcher: LauncherKind, fact: Fact) -> Compared {
    use Compared::{Fully, Not, Otherwise};
    match (launcher, fact) {
        (LauncherKind::Native | LauncherKind::Engine, Fact::Namespace("user")) => {
            Not("there is none: the user is another one on the host itself")
        }
        (LauncherKind::Bubblewrap, Fact::SupplementaryGroups) => {
            Not("without root a process cannot leave the groups of the server")
        }
        (LauncherKind::Bubblewrap, Fact::Mounts) => Otherwise("the kernel's settings are shut by the change of user"),
        (LauncherKind::Bubblewrap, Fact::Environment) => Otherwise("bubblewrap sets PWD"),
        (LauncherKind::Engine, Fact::SupplementaryGroups) => Otherwise("the engine names the user's own group again"),
        (LauncherKind::Engine, Fact::Filters) => Otherwise("the engine's own filter comes on top of ours"),
        (LauncherKind::Engine, Fact::Namespace("cgroup")) => {
            Not("on hosts with control groups of version 1 Podman makes none; the container's own number shows")
        }
        (LauncherKind::Engine, Fact::NetworkDevices) => {
            Otherwise("the engine made the namespace: no device but the loopback and the kernel's own fallback tunnels")
        }
        (LauncherKind::Engine, Fact::Mounts) => Otherwise(
            "the image's root is not nosuid, which no new privileges makes up for; engines mount /dev and \
             /sys/fs/cgroup their own way, as root's; /workspace is the very folder that was asked for",
        ),
        (LauncherKind::Engine, Fact::ControlGroups) => {
            Otherwise("the groups are the engine's, named after the container")
        }
        (LauncherKind::Engine, Fact::Environment) => {
            Otherwise("the first process has what the image and the engine set, and hands none of it on")
        }
        _ => Fully,
    }
}

/// The facts that are not compared.
pub fn not_compared(launcher: LauncherKind) -> impl Iterator<Item = (Fact, &'static str)> {
    FACTS.into_iter().filter_map(move |fact| match compared(launcher, fact) {
        Compared::Not(why) => Some((fact, why)),
        Compared::Fully | Compared::Otherwise(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b09_each_fact_is_compared_in_some_kind_and_what_is_not_has_a_reason() {
        let kinds = [LauncherKind::Native, LauncherKind::Bubblewrap, LauncherKind::Engine];
        for fact in FACTS {
            assert!(kinds.iter().any(|kind| !matches!(compared(*kind, fact), Compared::Not(_))), "{fact}");
        }
        let missing = |kind| not_compared(kind).map(|(fact, _)| fact.to_string()).collect::<Vec<_>>();
        assert_eq!(missing(LauncherKind::Native), ["user namespace"]);
        assert_eq!(missing(LauncherKind::Bubblewrap), ["supplementary groups"]);
        assert_eq!(missing(LauncherKind::Engine), ["cgroup namespace", "user namespace"]);
    }
}
