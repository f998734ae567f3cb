//! Walls of a worker that a test leaves out, to show that the receipt misses
//! them. Only builds with debug assertions have the list; elsewhere every
//! question is answered with no.

use serde::{Deserialize, Serialize};

/// One wall of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(debug_assertions), expect(dead_code, reason = "named where it is asked for, never made"))]
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
    /// The empty environment.
    Environment,
}

/// The walls that a worker lacks: none, unless a test says so.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Omitted {
    #[cfg(debug_assertions)]
    pub(crate) walls: Vec<Wall>,
}

impl Omitted {
    /// Whether this wall is left out.
    #[cfg(debug_assertions)]
    pub(crate) fn has(&self, wall: Wall) -> bool {
        self.walls.contains(&wall)
    }

    /// Whether this wall is left out.
    #[cfg(not(debug_assertions))]
    #[expect(clippy::unused_self, reason = "the same call as in a build with debug assertions")]
    pub(crate) const fn has(&self, _wall: Wall) -> bool {
        false
    }
}
