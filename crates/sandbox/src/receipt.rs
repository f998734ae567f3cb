//! What a command ran in, on any backend, for the record.

use std::sync::Arc;

use bailiwick_shell::Confinement;
use serde_json::{Value, json};

use crate::linux;

/// What the kernel said about the walls around a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// A jail's or a container's, read while the command could run.
    Linux(Arc<linux::Receipt>),
    /// A virtual shell's worker's, read before the command could run.
    Virtual(Confinement),
    /// There are no walls.
    Host,
}

impl Receipt {
    /// Plain facts for the record: no path of the host, nobody's name.
    #[must_use]
    pub fn record(&self) -> Value {
        match self {
            Self::Linux(receipt) => receipt.record(),
            Self::Virtual(Confinement::Checked(receipt)) => receipt.record(),
            Self::Virtual(Confinement::NotBegun) => json!({ "backend": "virtual", "walls": "not begun" }),
            Self::Virtual(Confinement::Thread) => json!({ "backend": "virtual", "walls": "none" }),
            Self::Host => json!({ "backend": "host", "walls": "none" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b09_what_has_no_walls_says_so() {
        assert_eq!(Receipt::Host.record(), json!({ "backend": "host", "walls": "none" }));
        assert_eq!(Receipt::Virtual(Confinement::Thread).record()["walls"], "none");
        assert_eq!(Receipt::Virtual(Confinement::NotBegun).record()["walls"], "not begun");
    }
}
