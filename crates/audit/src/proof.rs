//! Proofs for single events and between two sizes of a log (RFC 6962, sections 2.1.1 and 2.1.2; the
//! checks are those of RFC 9162, sections 2.1.3.2 and 2.1.4.2).
//!
//! Making a proof reads tiles: at level 0 the leaf hashes, at level k the roots of the complete subtrees
//! of 256^k leaves. So it reads a few hundred hashes a level and never the whole log. Checking one reads
//! nothing at all, and accepts nothing that is too long, too short or out of range.

use crate::tree::{Hash, TILE_HEIGHT, node_hash};

/// Where the hashes of a log are kept.
pub trait Nodes {
    /// Why they cannot be read.
    type Error;

    /// `count` hashes of `level`, from number `from` on: leaf hashes at level 0, at level k the roots of
    /// the complete subtrees of 256^k leaves. `count` is at most 255.
    ///
    /// # Errors
    /// If they cannot be read.
    fn hashes(&mut self, level: u8, from: u64, count: usize) -> Result<Vec<Hash>, Self::Error>;
}

/// A proof cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError<E> {
    /// There is no such event among the first `size`.
    #[error("event {index} is not among the first {size}")]
    Index {
        /// The event asked for.
        index: u64,
        /// Of how many.
        size: u64,
    },
    /// The sizes are not in order, or the older one is 0: everything extends the empty log.
    #[error("there is no proof from size {from} to size {to}: the first must be at least 1 and at most the second")]
    Sizes {
        /// The older size.
        from: u64,
        /// The newer size.
        to: u64,
    },
    /// The log's stored hashes are fewer than its size says.
    #[error("the log's hashes at level {level} from {from} are incomplete")]
    Incomplete {
        /// The level of tiles.
        level: u8,
        /// The first hash wanted.
        from: u64,
    },
    /// They cannot be read.
    #[error("the log's hashes cannot be read")]
    Read(#[source] E),
}

/// A proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index or the sizes cannot be proven at all.
    #[error("there can be no such proof: the index or a size is out of range")]
    Range,
    /// It has too few or too many hashes.
    #[error("the proof has the wrong number of hashes")]
    Length,
    /// It does not lead to the root.
    #[error("the proof does not lead to the root")]
    Root,
}

/// The proof that event `index` is in the log of `size` events: sibling hashes, from the leaf upward.
///
/// # Errors
/// If there is no such event, or the hashes cannot be read.
pub fn inclusion<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Result<Vec<Hash>, MakeError<N::Error>> {
    Tiles::<N, TILE_HEIGHT>(nodes).inclusion(index, size)
}

/// The proof that the log of `to` events begins with the log of `from` events.
///
/// # Errors
/// If `from` is 0 or more than `to`, or the hashes cannot be read.
pub fn consistency<N: Nodes>(nodes: &mut N, from: u64, to: u64) -> Result<Vec<Hash>, MakeError<N::Error>> {
    Tiles::<N, TILE_HEIGHT>(nodes).consistency(from, to)
}

/// The root over the first `size` events, of a log that may have grown since.
///
/// # Errors
/// If `size` is 0, or the hashes cannot be read.
pub fn root_at<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash, MakeError<N::Error>> {
    if size == 0 {
        return Err(MakeError::Sizes { from: 0, to: 0 });
    }
    Tiles::<N, TILE_HEIGHT>(nodes).range(0, size)
}

/// Tiles of `2^HEIGHT` hashes; the tests use small ones, to have many levels with few leaves.
struct Tiles<'a, N, const HEIGHT: u32>(&'a mut N);

impl<N: Nodes, const HEIGHT: u32> Tiles<'_, N, HEIGHT> {
    /// RFC 6962, section 2.1.1: `PATH(m, D[n])`, from the root down, then turned round.
    fn inclusion(&mut self, index: u64, size: u64) -> Result<Vec<Hash>, MakeError<N::Error>> {
        if index >= size {
            return Err(MakeError::Index { index, size });
        }
        let (mut low, mut high) = (0, size);
        let mut proof = Vec::new();
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                proof.push(self.range(middle, high)?);
                high = middle;
            } else {
                proof.push(self.range(low, middle)?);
                low = middle;
            }
        }
        proof.reverse();
        Ok(proof)
    }

    /// RFC 6962, section 2.1.2: `SUBPROOF(m, D[n], b)`.
    fn consistency(&mut self, from: u64, to: u64) -> Result<Vec<Hash>, MakeError<N::Error>> {
        if from == 0 || from > to {
            return Err(MakeError::Sizes { from, to });
        }
        let (mut low, mut high) = (0, to);
        let mut proof = Vec::new();
        // Whoever checks the proof knows the older root. It is a node of the newer tree only on the left
        // edge; from the first step to the right on, the last node must be sent.
        while high != from {
            let middle = low + split(high - low);
            if from <= middle {
                proof.push(self.range(middle, high)?);
                high = middle;
            } else {
                proof.push(self.range(low, middle)?);
                low = middle;
            }
        }
        if low > 0 {
            proof.push(self.range(low, high)?);
        }
        proof.reverse();
        Ok(proof)
    }

    /// The root over the leaves `[low, high)`, a node of some tree: its perfect subtrees, folded.
    fn range(&mut self, low: u64, high: u64) -> Result<Hash, MakeError<N::Error>> {
        let mut perfect = Vec::new();
        let mut at = low;
        while at < high {
            let bits = (high - at).ilog2();
            perfect.push(self.perfect(at, bits)?);
            at += 1 << bits;
        }
        let mut perfect = perfect.into_iter().rev();
        let last = perfect.next().ok_or(MakeError::Sizes { from: low, to: high })?;
        Ok(perfect.fold(last, |right, left| node_hash(&left, &right)))
    }

    /// The root of the perfect subtree of `2^bits` leaves that begins at leaf `at`.
    fn perfect(&mut self, at: u64, bits: u32) -> Result<Hash, MakeError<N::Error>> {
        let below = bits / HEIGHT;
        let count = 1usize << (bits % HEIGHT);
        let from = at >> (below * HEIGHT);
        // Never more than 63: a size has 64 bits.
        let level = u8::try_from(below).unwrap_or(u8::MAX);
        let mut row = self.0.hashes(level, from, count).map_err(MakeError::Read)?;
        if row.len() != count {
            return Err(MakeError::Incomplete { level, from });
        }
        while row.len() > 1 {
            row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
        }
        row.pop().ok_or(MakeError::Incomplete { level, from })
    }
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Checks that the leaf with this hash is event `index` of the log with this size and root.
///
/// # Errors
/// If it is not, or the proof has not exactly the length it must have.
pub fn check_inclusion(index: u64, size: u64, leaf: &Hash, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Range);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // A node at the right edge has no sibling on some levels: it goes up as it is.
            if node & 1 == 0 {
                let skipped = node.trailing_zeros().min(63);
                (node, last) = (node >> skipped, last >> skipped);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that the log of `to` events with root `new` begins with the log of `from` events with root `old`.
///
/// # Errors
/// If it does not, or the proof has not exactly the length it must have.
pub fn check_consistency(from: u64, to: u64, old: &Hash, new: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if from == 0 || from > to {
        return Err(ProofError::Range);
    }
    if from == to {
        return match proof {
            [] if old == new => Ok(()),
            [] => Err(ProofError::Root),
            _ => Err(ProofError::Length),
        };
    }
    // If the older log is one perfect tree, its root is the first node, and is not sent.
    let (first, rest) = match proof {
        _ if from.is_power_of_two() => (old, proof),
        [first, rest @ ..] => (first, rest),
        [] => return Err(ProofError::Length),
    };
    let skipped = (from - 1).trailing_ones();
    let (mut node, mut last) = ((from - 1) >> skipped, (to - 1) >> skipped);
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            if node & 1 == 0 {
                let skipped = node.trailing_zeros().min(63);
                (node, last) = (node >> skipped, last >> skipped);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if old_hash == *old && new_hash == *new { Ok(()) } else { Err(ProofError::Root) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
