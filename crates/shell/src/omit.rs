//! Walls of a worker that a test leaves out, to show that the receipt misses
//! them. Only builds with debug assertions have the list; elsewhere every
//! question is answered with no.

use serde::{Deserialize, Serialize};

/// One wall of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wall {
    /// The workspace owner's user, where the server may change it.
    User,
    /// The resource limits.
    Limits,
    /// Landlock.
    Landlock,
    /// The system call list.
    Calls,
    /// No new privileges. Landlock and the list need it: leave out all three.
    NoNewPrivileges,
    /// The closed descriptors of whoever made the worker.
    Descriptors,
}

/// The walls that a worker lacks: none, unless a test says so.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Omitted {
    #[cfg(debug_assertions)]
    pub(crate) walls: Vec<Wall>,
    #[cfg(debug_assertions)]
    pub(crate) difference: OnDifference,
}

/// What happens when the receipt of a worker without some wall differs.
#[cfg(debug_assertions)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDifference {
    /// As always: the call fails.
    #[default]
    Fail,
    /// The worker is used nevertheless, so that attacks can be tried in it.
    Tolerate,
}

impl Omitted {
    /// Whether this wall is left out.
    #[cfg(debug_assertions)]
    pub(crate) fn has(&self, wall: Wall) -> bool {
        self.walls.contains(&wall)
    }

    /// Whether a receipt that differs is let pass.
    #[cfg(debug_assertions)]
    pub(crate) fn tolerated(&self) -> bool {
        self.difference == OnDifference::Tolerate
    }

    /// Whether a receipt that differs is let pass.
    #[cfg(not(debug_assertions))]
    pub(crate) const fn tolerated(&self) -> bool {
        false
    }

    /// Whether this wall is left out.
    #[cfg(not(debug_assertions))]
    pub(crate) const fn has(&self, _wall: Wall) -> bool {
        false
    }
}
