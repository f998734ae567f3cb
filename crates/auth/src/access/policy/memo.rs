//! Answers that are remembered.
//!
//! An answer is remembered by the whole question, policies and facts, and not by a name for it. So there is
//! nothing to forget when a grant, a role, a key or a policy changes: it is another question then.

use std::hash::RandomState;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use super::Decision;
use super::facts::Question;

/// Answers that are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(8_192).unwrap();
/// Longest question whose answer is kept, bytes: a space that is shared with a thousand is asked anew.
const LONGEST: usize = 4_096;

/// The answers that were given last. All accounts share it, and so can push out each other's; what is not
/// in it is worked out.
pub(super) struct Memo(Mutex<LruCache<Question, Decision, RandomState>>);

impl Memo {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::with_hasher(KEPT, RandomState::new())))
    }

    pub(super) fn get(&self, question: &Question) -> Option<Decision> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(question).copied()
    }

    pub(super) fn keep(&self, question: Question, decision: Decision) {
        if question.length() <= LONGEST {
            let pushed_out = self.0.lock().unwrap_or_else(PoisonError::into_inner).push(question, decision);
            // Freed outside of the lock.
            drop(pushed_out);
        }
    }
}
