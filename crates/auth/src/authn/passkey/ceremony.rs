//! Ceremonies between their two halves: how many of whom are kept, for how long, and each for one use.
//!
//! Whoever begins many pushes out their own alone: one person has one of a kind, and one network so many.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_types::{Incarnation, UserName};
use lru::LruCache;

/// Kept in all.
const MOST: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Kept of one network. Many people may come through one address.
const MOST_OF_NETWORK: usize = 256;

/// Who began.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A user who adds a passkey.
    Registering(Incarnation, UserName),
    /// A user whose password was right.
    SigningIn(Incarnation, UserName),
    /// Anybody, from there.
    Network(String),
}

impl Owner {
    fn most(&self) -> usize {
        match self {
            Self::Registering(..) | Self::SigningIn(..) => 1,
            Self::Network(_) => MOST_OF_NETWORK,
        }
    }
}

struct Entry<W> {
    until: Instant,
    owner: Owner,
    waiting: W,
}

/// What is kept, the oldest first: nothing is looked at without being taken.
struct Kept<W> {
    entries: LruCache<String, Entry<W>>,
    /// The names of each owner's, the oldest first.
    of: HashMap<Owner, VecDeque<String>>,
}

pub(super) struct Ceremonies<W> {
    kept: Mutex<Kept<W>>,
    waits: Duration,
}

impl<W> Kept<W> {
    fn remove(&mut self, name: &str) -> Option<Entry<W>> {
        let entry = self.entries.pop(name)?;
        if let Some(names) = self.of.get_mut(&entry.owner) {
            names.retain(|one| one != name);
            if names.is_empty() {
                self.of.remove(&entry.owner);
            }
        }
        Some(entry)
    }

    fn oldest(&self) -> Option<(String, Instant)> {
        self.entries.peek_lru().map(|(name, entry)| (name.clone(), entry.until))
    }
}

impl<W> Ceremonies<W> {
    pub(super) fn new(waits: Duration) -> Self {
        let kept = Kept { entries: LruCache::unbounded(), of: HashMap::new() };
        Self { kept: Mutex::new(kept), waits }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<W>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, name: String, owner: Owner, waiting: W) {
        let now = Instant::now();
        let mut kept = self.lock();
        while let Some((oldest, until)) = kept.oldest()
            && (until <= now || kept.entries.len() >= MOST.get())
        {
            kept.remove(&oldest);
        }
        while let Some(names) = kept.of.get(&owner)
            && names.len() >= owner.most()
            && let Some(oldest) = names.front().cloned()
        {
            kept.remove(&oldest);
        }
        kept.of.entry(owner.clone()).or_default().push_back(name.clone());
        kept.entries.push(name, Entry { until: now + self.waits, owner, waiting });
    }

    /// A ceremony is good once.
    pub(super) fn take(&self, name: &str) -> Option<(Owner, W)> {
        let Entry { until, owner, waiting } = self.lock().remove(name)?;
        (Instant::now() < until).then_some((owner, waiting))
    }

    pub(super) fn forget(&self, owner: &Owner) {
        let mut kept = self.lock();
        for name in kept.of.remove(owner).into_iter().flatten() {
            kept.entries.pop(&name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn network(n: usize) -> Owner {
        Owner::Network(format!("203.0.113.{n}"))
    }

    #[test]
    fn i06_whoever_begins_many_pushes_out_their_own_alone() {
        let ceremonies = Ceremonies::new(Duration::from_secs(60));
        let (tenant, ann) = (Incarnation::new(), "ann".parse::<UserName>().unwrap());
        ceremonies.keep("mine".to_owned(), network(1), 1);
        ceremonies.keep("first".to_owned(), Owner::SigningIn(tenant, ann.clone()), 2);
        ceremonies.keep("adds".to_owned(), Owner::Registering(tenant, ann.clone()), 3);
        for n in 0..MOST_OF_NETWORK + 10 {
            ceremonies.keep(format!("flood {n}"), network(2), n);
        }
        assert!(ceremonies.take("flood 9").is_none());
        assert_eq!(ceremonies.take("flood 10").unwrap().1, 10);
        assert!(ceremonies.take("flood 10").is_none(), "once");
        ceremonies.keep("second".to_owned(), Owner::SigningIn(tenant, ann.clone()), 4);
        assert!(ceremonies.take("first").is_none(), "one of a kind for one person");
        assert_eq!(ceremonies.take("second").unwrap(), (Owner::SigningIn(tenant, ann.clone()), 4));
        ceremonies.forget(&Owner::Registering(tenant, ann));
        assert!(ceremonies.take("adds").is_none());
        assert_eq!(ceremonies.take("mine").unwrap().1, 1);
        let kept = ceremonies.lock();
        assert_eq!((kept.of.len(), kept.of[&network(2)].len()), (1, MOST_OF_NETWORK - 1));
    }

    #[test]
    fn i06_what_has_waited_too_long_is_gone_and_not_kept() {
        let ceremonies = Ceremonies::new(Duration::ZERO);
        ceremonies.keep("one".to_owned(), network(1), 1);
        assert!(ceremonies.take("one").is_none());
        for n in 0..10 {
            ceremonies.keep(format!("{n}"), network(n), n);
        }
        let kept = ceremonies.lock();
        assert_eq!((kept.entries.len(), kept.of.len()), (1, 1));
    }
}
