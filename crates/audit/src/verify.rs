//! Reads a log from its first event to its last and says whether it is whole.
//!
//! What this finds: a changed field, a missing, added or swapped event, a row from another log, and a
//! head that does not fit. What it cannot find alone: a log whose tail *and* head were both rewritten
//! by someone who holds the database. Signed heads kept elsewhere are for that.
//!
//! The oldest events may be retired: of each, its number and leaf hash are left, so that every proof still
//! holds, and a later event in the same log says up to where that was done.

use serde_json::{Map, Value};

use crate::event::{Event, LogId, Phase, Verdict, hex};
use crate::tree::{Frontier, Hash};

/// The action that retires events. Its detail holds `below`: all events with smaller numbers lose
/// everything but number and leaf hash.
pub const RETIRE: &str = "audit.retire";

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
    /// An event was erased, and no later event says so.
    #[error("event {0} was erased without a record: no later `{RETIRE}` event covers it")]
    Retired(u64),
    /// An event was erased behind one that was kept: only the oldest are ever retired.
    #[error("event {0} was erased, but an older one was kept: only the oldest events can be retired")]
    RetiredLate(u64),
    /// The log does not continue what the server itself signed before.
    #[error(
        "the log is not the one that was signed before: its first {size} events do not give the root {root} of a \
         checkpoint that was kept"
    )]
    Fork {
        /// Size of the kept checkpoint.
        size: u64,
        /// Its root.
        root: String,
    },
    /// The log is shorter than the server itself signed before.
    #[error("the log has {size} events, but a checkpoint that was kept has {older}: its tail was cut")]
    Shrunk {
        /// Events now.
        size: u64,
        /// Events then.
        older: u64,
    },
    /// A stored root of a subtree, of which proofs are made, is not that of its events.
    #[error("the stored root {index} of level {level} is not that of its events: proofs would not hold")]
    Tile {
        /// 1 for 256 events, 2 for 65,536, and so on.
        level: u8,
        /// Its number among those of its level.
        index: u64,
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
    /// How many of the first events were erased.
    retired: u64,
    /// The highest boundary that an intact event states.
    stated: u64,
}

impl Verifier {
    /// Begins with an empty tree.
    pub fn new(log: LogId) -> Self {
        Self { log, tree: Frontier::new(), retired: 0, stated: 0 }
    }

    /// Takes the next event and the leaf hash that is stored beside it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn next(&mut self, event: &Event, stored: &Hash) -> Result<(), Problem> {
        self.in_order(event.seq)?;
        let hash = event.leaf_hash(&self.log).map_err(|_| Problem::Unreadable(event.seq))?;
        let d = &event.draft;
        self.next_hashed(
            event.seq,
            hash,
            stored,
            retires_below(&d.action, d.phase.as_str(), d.verdict.as_str(), &d.detail),
        )
    }

    /// Takes an event whose hash was computed from its fields, and the boundary that it states.
    pub(crate) fn next_hashed(
        &mut self,
        seq: u64,
        hash: Hash,
        stored: &Hash,
        below: Option<u64>,
    ) -> Result<(), Problem> {
        self.in_order(seq)?;
        if hash != *stored {
            return Err(Problem::Changed(seq));
        }
        self.tree.append(hash);
        self.stated = self.stated.max(below.unwrap_or(0));
        Ok(())
    }

    /// Takes the next event, of which only number and leaf hash are left.
    ///
    /// # Errors
    /// If the number is not the next one, or an event before it was kept.
    pub fn next_retired(&mut self, seq: u64, leaf_hash: &Hash) -> Result<(), Problem> {
        self.in_order(seq)?;
        if self.retired != seq {
            return Err(Problem::RetiredLate(seq));
        }
        self.tree.append(*leaf_hash);
        self.retired += 1;
        Ok(())
    }

    /// How many events were taken.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// How many of them were retired.
    pub fn retired(&self) -> u64 {
        self.retired
    }

    /// The root over the events that were taken.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    pub(crate) fn in_order(&self, seq: u64) -> Result<(), Problem> {
        if seq == self.tree.size() { Ok(()) } else { Err(Problem::Gap { expected: self.tree.size(), found: seq }) }
    }

    /// Compares what was read with the head.
    ///
    /// # Errors
    /// If the number of events or the root differ, or an event was erased without a record.
    pub fn finish(self, head: &Head) -> Result<Head, Problem> {
        if self.tree.size() != head.size {
            return Err(Problem::Length { head: head.size, found: self.tree.size() });
        }
        if self.tree.root() != head.root {
            return Err(Problem::Root(hex(&head.root)));
        }
        // Retired events are the first ones, so every event that was read whole comes after them.
        if self.retired > self.stated {
            return Err(Problem::Retired(self.stated));
        }
        Ok(head.clone())
    }
}

/// The boundary that an event states, if it retires others. A refused or failed attempt retires nothing.
pub(crate) fn retires_below(action: &str, phase: &str, verdict: &str, detail: &Map<String, Value>) -> Option<u64> {
    let done = action == RETIRE && phase == Phase::Act.as_str() && verdict == Verdict::Ok.as_str();
    done.then(|| detail.get("below")?.as_u64()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use bailiwick_types::Timestamp;
    use serde_json::json;

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

    fn retire(rows: &mut [(Event, Hash)], at: usize, below: serde_json::Value) -> Head {
        rows[at].0.draft.action = RETIRE.into();
        rows[at].0.draft.detail = Map::from_iter([("below".to_owned(), below)]);
        rehash(rows)
    }

    fn rehash(rows: &mut [(Event, Hash)]) -> Head {
        let mut tree = Frontier::new();
        for (event, hash) in rows {
            *hash = event.leaf_hash(&LogId::host()).unwrap();
            tree.append(*hash);
        }
        Head { size: tree.size(), root: tree.root() }
    }

    /// The first `retired` events by their hashes alone.
    fn check_retired(rows: &[(Event, Hash)], head: &Head, retired: usize) -> Result<(), Problem> {
        let mut verifier = Verifier::new(LogId::host());
        for (n, (event, hash)) in rows.iter().enumerate() {
            if n < retired { verifier.next_retired(event.seq, hash)? } else { verifier.next(event, hash)? }
        }
        verifier.finish(head).map(drop)
    }

    #[test]
    fn e05_retired_events_verify_below_the_stated_boundary_alone() {
        let (mut rows, _) = log(9);
        let head = retire(&mut rows, 6, json!(4));
        for retired in 0..=4 {
            assert_eq!(check_retired(&rows, &head, retired), Ok(()), "{retired}");
        }
        assert_eq!(check_retired(&rows, &head, 5), Err(Problem::Retired(4)));
        // The statement itself erased: nothing is stated any more.
        assert_eq!(check_retired(&rows, &head, 7), Err(Problem::Retired(0)));
        // A later statement covers an earlier one.
        let head = retire(&mut rows, 8, json!(7));
        assert_eq!(check_retired(&rows, &head, 7), Ok(()));

        // What is left of a retired event still counts.
        rows[2].1[0] ^= 1;
        assert!(matches!(check_retired(&rows, &head, 7), Err(Problem::Root(_))));
        rows[2].1[0] ^= 1;
        rows.remove(2);
        assert_eq!(check_retired(&rows, &head, 6), Err(Problem::Gap { expected: 2, found: 3 }));
    }

    #[test]
    fn e05_only_an_act_that_was_done_retires() {
        let (mut rows, _) = log(9);
        for below in [json!("4"), json!(-4), json!(4.5), json!(null), json!([4])] {
            let head = retire(&mut rows, 6, below);
            assert_eq!(check_retired(&rows, &head, 1), Err(Problem::Retired(0)));
        }
        let good = retire(&mut rows, 6, json!(4));
        assert_eq!(check_retired(&rows, &good, 4), Ok(()));
        rows[6].0.draft.verdict = Verdict::Denied;
        let head = rehash(&mut rows);
        assert_eq!(check_retired(&rows, &head, 4), Err(Problem::Retired(0)));
        rows[6].0.draft.verdict = Verdict::Ok;
        rows[6].0.draft.phase = Phase::Observation;
        let head = rehash(&mut rows);
        assert_eq!(check_retired(&rows, &head, 4), Err(Problem::Retired(0)));
    }

    #[test]
    fn e05_an_event_erased_behind_a_kept_one_is_found() {
        let (mut rows, _) = log(9);
        let head = retire(&mut rows, 6, json!(4));
        assert_eq!(check_retired(&rows, &head, 4), Ok(()));
        let mut verifier = Verifier::new(LogId::host());
        verifier.next_retired(0, &rows[0].1).unwrap();
        verifier.next(&rows[1].0, &rows[1].1).unwrap();
        assert_eq!(verifier.next_retired(2, &rows[2].1), Err(Problem::RetiredLate(2)));
    }
}
