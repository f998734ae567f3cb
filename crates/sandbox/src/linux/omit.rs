//! Walls that a test leaves out, to show that the receipt misses them and that
//! an attack then gets further.
//!
//! Only builds with debug assertions have the list; in a release build
//! `Omitted` has no room for a wall and every question is answered with no, so
//! neither a message nor a caller can ask for a jail that lacks one. A cargo
//! feature would not do: whoever builds the workspace's tests would switch it on
//! for the server as well.

use serde::{Deserialize, Serialize};

/// One wall of a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wall {
    /// The own user.
    User,
    /// No capabilities, now or by an exec.
    Capabilities,
    /// No new privileges. Landlock and the filters need it: leave out all three.
    NoNewPrivileges,
    /// The system call filters.
    Filters,
    /// Landlock.
    Landlock,
    /// The own process namespace.
    Processes,
    /// The own network namespace.
    Network,
    /// The own IPC namespace.
    Ipc,
    /// The own host name.
    HostName,
    /// The own view of control groups.
    ControlGroupView,
    /// The own mounts and root.
    Mounts,
    /// The limits of control groups.
    ControlGroups,
    /// The resource limits.
    ResourceLimits,
    /// The empty environment: a variable is left in it.
    Environment,
    /// The closed descriptors: one of the host's root is left open.
    Descriptors,
}

/// What happens when the receipt of a jail without some wall differs.
#[cfg(debug_assertions)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDifference {
    /// As always: the start or the command fails.
    #[default]
    Fail,
    /// The jail is used nevertheless, so that attacks can be tried in it.
    Tolerate,
}

/// The walls that a jail lacks: none, unless a test says so.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Omitted {
    #[cfg(debug_assertions)]
    walls: Vec<Wall>,
    #[cfg(debug_assertions)]
    difference: OnDifference,
}

/// What [`Wall::Environment`] leaves in.
pub(crate) const LEFT_IN: &std::ffi::CStr = c"BAILIWICK_LEFT_IN=1";

#[cfg(debug_assertions)]
impl Omitted {
    pub(crate) fn new(walls: &[Wall], difference: OnDifference) -> Self {
        Self { walls: walls.to_vec(), difference }
    }

    /// Whether no wall is.
    pub(crate) fn is_nothing(&self) -> bool {
        self.walls.is_empty()
    }

    /// Whether this wall is left out.
    pub(crate) fn has(&self, wall: Wall) -> bool {
        self.walls.contains(&wall)
    }

    /// Whether a receipt that differs is let pass.
    pub(crate) fn tolerated(&self) -> bool {
        self.difference == OnDifference::Tolerate
    }
}

#[cfg(not(debug_assertions))]
impl Omitted {
    pub(crate) const fn is_nothing(&self) -> bool {
        true
    }

    pub(crate) const fn has(&self, _wall: Wall) -> bool {
        false
    }

    pub(crate) const fn tolerated(&self) -> bool {
        false
    }
}
