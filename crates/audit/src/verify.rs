//! Reads a log from its first event to its last and says whether it is whole.
//!
//! What this finds: a changed field, a missing, added or swapped event, a row from another log, and a
//! head that does not fit. What it cannot find alone: a log whose tail *and* head were both rewritten
//! by someone who holds the database. Signed heads kept elsewhere are for that.

use crate::event::{Event, LogId, hex};
use crate::tree::{Frontier, Hash};

/// What the store says the tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of events.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

/// What is wrong with a log, at the first place where it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A number is missing or comes twice.
    #[error("event {expected} is missing: found {found} in its place")]
    Gap {
        /// The number that should stand there.
        expected: u64,
        /// The number that stands there.
        found: u64,
    },
    /// The fields do not give the hash that was written with them.
    #[error("event {0} was changed: its fields do not give its leaf hash")]
    Changed(u64),
    /// The event cannot be put into canonical form at all.
    #[error("event {0} cannot be read")]
    Unreadable(u64),
    /// Fewer or more events than the head says.
    #[error("the head says {head} events, the log holds {found}: the tail was cut or added to")]
    Length {
        /// What the head says.
        head: u64,
        /// What is there.
        found: u64,
    },
    /// All events fit their hashes, but together do not give the head's root.
    #[error("the events do not give the head's root {0}")]
    Root(String),
}

/// Takes events in order, then compares with the head.
#[derive(Debug)]
pub struct Verifier {
    log: LogId,
    tree: Frontier,
}

impl Verifier {
    /// Begins with an empty tree.
    pub fn new(log: LogId) -> Self {
        Self { log, tree: Frontier::new() }
    }

    /// Takes the next event and the leaf hash that is stored beside it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn next(&mut self, event: &Event, stored: &Hash) -> Result<(), Problem> {
        if event.seq != self.tree.size() {
            return Err(Problem::Gap { expected: self.tree.size(), found: event.seq });
        }
        let hash = event.leaf_hash(&self.log).map_err(|_| Problem::Unreadable(event.seq))?;
        if hash != *stored {
            return Err(Problem::Changed(event.seq));
        }
        self.tree.append(hash);
        Ok(())
    }

    /// Compares what was read with the head.
    ///
    /// # Errors
    /// If the number of events or the root differ.
    pub fn finish(self, head: &Head) -> Result<Head, Problem> {
        if self.tree.size() != head.size {
            return Err(Problem::Length { head: head.size, found: self.tree.size() });
        }
        if self.tree.root() != head.root {
            return Err(Problem::Root(hex(&head.root)));
        }
        Ok(head.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use bailiwick_types::Timestamp;
    use serde_json::{Map, json};

    use super::*;
    use crate::event::{Actor, Draft, Phase, Verdict};

    fn log(n: u64) -> (Vec<(Event, Hash)>, Head) {
        let mut tree = Frontier::new();
        let rows = (0..n)
            .map(|seq| {
                let event = event(seq);
                let hash = event.leaf_hash(&LogId::host()).unwrap();
                tree.append(hash);
                (event, hash)
            })
            .collect();
        (rows, Head { size: tree.size(), root: tree.root() })
    }

    fn event(seq: u64) -> Event {
        Event {
            seq,
            at: Timestamp::from_micros(1_000 + i64::try_from(seq).unwrap()),
            draft: Draft {
                actor: Actor::User("alice".parse().unwrap()),
                credential: "key:abc".into(),
                address: "127.0.0.1".into(),
                request: None,
                action: "space.create".into(),
                resource: format!("space:{seq}"),
                space: None,
                agent: None,
                phase: Phase::Act,
                verdict: Verdict::Ok,
                intent: None,
                detail: Map::from_iter([("n".to_owned(), json!(seq))]),
            },
        }
    }

    fn check(rows: &[(Event, Hash)], head: &Head) -> Result<(), Problem> {
        let mut verifier = Verifier::new(LogId::host());
        for (event, hash) in rows {
            verifier.next(event, hash)?;
        }
        verifier.finish(head).map(drop)
    }

    #[test]
    fn e07_a_whole_log_verifies_and_every_tampering_is_found() {
        let (rows, head) = log(9);
        assert_eq!(check(&rows, &head), Ok(()));

        let mut changed = rows.clone();
        changed[4].0.draft.detail.insert("n".into(), json!(99));
        assert_eq!(check(&changed, &head), Err(Problem::Changed(4)));

        // Changed together with its stored hash: the root tells.
        changed[4].1 = changed[4].0.leaf_hash(&LogId::host()).unwrap();
        assert!(matches!(check(&changed, &head), Err(Problem::Root(_))));

        let mut dropped = rows.clone();
        dropped.remove(3);
        assert_eq!(check(&dropped, &head), Err(Problem::Gap { expected: 3, found: 4 }));

        let mut swapped = rows.clone();
        swapped.swap(2, 5);
        assert_eq!(check(&swapped, &head), Err(Problem::Gap { expected: 2, found: 5 }));

        assert_eq!(check(&rows[..8], &head), Err(Problem::Length { head: 9, found: 8 }));
    }

    #[test]
    fn a_row_of_another_log_is_found() {
        let (mut rows, head) = log(2);
        let other = LogId::account(bailiwick_types::Incarnation::new());
        rows[1].1 = rows[1].0.leaf_hash(&other).unwrap();
        assert_eq!(check(&rows, &head), Err(Problem::Changed(1)));
    }
}
