//! Known answers first, then every size, then every single bit.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::tree::tests::{LEAVES, ROOTS};
use crate::tree::{Frontier, Tile, leaf_hash};

/// A log that keeps what the store keeps: leaf hashes, and the tile roots that `Frontier` told of.
#[derive(Default)]
struct Kept {
    levels: Vec<Vec<Hash>>,
    roots: Vec<Hash>,
    read: usize,
    most: usize,
}

impl Nodes for Kept {
    type Error = Infallible;

    fn hashes(&mut self, level: u8, from: u64, count: usize) -> Result<Vec<Hash>, Infallible> {
        self.read += count;
        self.most = self.most.max(count);
        let from = usize::try_from(from).unwrap();
        let row = self.levels.get(usize::from(level)).map_or(&[][..], |row| row.get(from..).unwrap_or_default());
        Ok(row.iter().take(count).copied().collect())
    }
}

impl Kept {
    fn new<const HEIGHT: u32>(leaves: impl Iterator<Item = Hash>) -> Self {
        let mut tree = Frontier::new();
        let mut kept = Self { levels: vec![Vec::new()], roots: vec![tree.root()], ..Self::default() };
        for leaf in leaves {
            kept.levels[0].push(leaf);
            for Tile { level, index, root } in tree.append_tiled::<HEIGHT>(leaf) {
                let level = usize::from(level);
                if kept.levels.len() == level {
                    kept.levels.push(Vec::new());
                }
                assert_eq!(u64::try_from(kept.levels[level].len()).unwrap(), index, "each tile root once, in order");
                kept.levels[level].push(root);
            }
            kept.roots.push(tree.root());
        }
        kept
    }

    fn root(&self, size: u64) -> Hash {
        self.roots[usize::try_from(size).unwrap()]
    }

    fn leaf(&self, index: u64) -> Hash {
        self.levels[0][usize::try_from(index).unwrap()]
    }
}

fn numbered(n: u64) -> impl Iterator<Item = Hash> {
    (0..n).map(|n| leaf_hash(&n.to_be_bytes()))
}

/// RFC 6962, section 2.1, word for word: slow, and made without tiles.
fn tree_hash(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Frontier::new().root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
            node_hash(&tree_hash(left), &tree_hash(right))
        }
    }
}

fn hash(hex: &str) -> Hash {
    let bytes: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn hashes(list: &[&str]) -> Vec<Hash> {
    list.iter().map(|hex| hash(hex)).collect()
}

const A: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const B: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const C: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const D: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const E: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const F: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";

/// The paths that the Certificate Transparency reference implementation tests against.
#[test]
fn e07_inclusion_proofs_are_those_of_certificate_transparency() {
    let known: [(u64, u64, Vec<Hash>); 5] = [
        (0, 1, vec![]),
        (0, 8, hashes(&[A, B, C])),
        (5, 8, hashes(&[D, E, ROOTS[3]])),
        (2, 3, hashes(&[ROOTS[1]])),
        (1, 5, hashes(&[ROOTS[0], B, D])),
    ];
    let mut log = Kept::new::<8>(LEAVES.iter().map(|leaf| leaf_hash(leaf)));
    for (index, size, proof) in known {
        assert_eq!(inclusion(&mut log, index, size).unwrap(), proof, "{index} of {size}");
        let leaf = leaf_hash(LEAVES[usize::try_from(index).unwrap()]);
        let root = hash(ROOTS[usize::try_from(size).unwrap() - 1]);
        assert_eq!(check_inclusion(index, size, &leaf, &proof, &root), Ok(()));
        // The same path proves nothing else.
        assert!(check_inclusion(index + 1, size, &leaf, &proof, &root).is_err());
        assert!(check_inclusion(index, size, &hash(C), &proof, &root).is_err());
    }
}

#[test]
fn e07_consistency_proofs_are_those_of_certificate_transparency() {
    let known: [(u64, u64, Vec<Hash>); 4] =
        [(1, 1, vec![]), (1, 8, hashes(&[A, B, C])), (6, 8, hashes(&[F, E, ROOTS[3]])), (2, 5, hashes(&[B, D]))];
    let mut log = Kept::new::<8>(LEAVES.iter().map(|leaf| leaf_hash(leaf)));
    for (from, to, proof) in known {
        assert_eq!(consistency(&mut log, from, to).unwrap(), proof, "{from} to {to}");
        let root = |size: u64| hash(ROOTS[usize::try_from(size).unwrap() - 1]);
        assert_eq!(check_consistency(from, to, &root(from), &root(to), &proof), Ok(()));
        assert!(check_consistency(from, to, &root(7), &root(to), &proof).is_err());
        assert!(check_consistency(from, to, &root(from), &root(7), &proof).is_err());
    }
}

/// RFC 6962, section 2.1.3: the tree of seven leaves, with the nodes it names.
#[test]
fn e07_the_example_of_the_rfc() {
    let leaves: Vec<Hash> = numbered(7).collect();
    let mut log = Kept::new::<2>(leaves.iter().copied());
    let [a, b, c, d, e, f, j]: [Hash; 7] = leaves.try_into().unwrap();
    let (g, h, i) = (node_hash(&a, &b), node_hash(&c, &d), node_hash(&e, &f));
    let (k, l) = (node_hash(&g, &h), node_hash(&i, &j));
    let mut tiles = Tiles::<_, 2>(&mut log);
    assert_eq!(tiles.inclusion(0, 7).unwrap(), [b, h, l]);
    assert_eq!(tiles.inclusion(3, 7).unwrap(), [c, g, l]);
    assert_eq!(tiles.inclusion(4, 7).unwrap(), [f, j, k]);
    assert_eq!(tiles.inclusion(6, 7).unwrap(), [i, k]);
    assert_eq!(tiles.consistency(3, 7).unwrap(), [c, d, g, l]);
    assert_eq!(tiles.consistency(4, 7).unwrap(), [l]);
    assert_eq!(tiles.consistency(6, 7).unwrap(), [i, j, k]);
}

/// All pairs up to a size with several levels of small tiles.
#[test]
fn e07_every_proof_of_every_small_log_holds() {
    let mut log = Kept::new::<2>(numbered(130));
    for size in 1..=130u64 {
        let root = log.root(size);
        assert_eq!(root, tree_hash(&log.levels[0][..usize::try_from(size).unwrap()]));
        for at in 0..size {
            let leaf = log.leaf(at);
            let proof = Tiles::<_, 2>(&mut log).inclusion(at, size).unwrap();
            assert_eq!(check_inclusion(at, size, &leaf, &proof, &root), Ok(()), "{at} of {size}");
            let old = log.root(at + 1);
            let proof = Tiles::<_, 2>(&mut log).consistency(at + 1, size).unwrap();
            assert_eq!(check_consistency(at + 1, size, &old, &root, &proof), Ok(()), "{} to {size}", at + 1);
        }
    }
}

/// Every size up to 600 with tiles as they are, at the places where something changes.
#[test]
fn e07_proofs_hold_around_the_edges_of_tiles() {
    let mut log = Kept::new::<TILE_HEIGHT>(numbered(600));
    assert_eq!(log.levels.iter().map(Vec::len).collect::<Vec<_>>(), [600, 2]);
    for size in 1..=600u64 {
        let root = log.root(size);
        assert_eq!(root_at(&mut log, size).unwrap(), root);
        for at in [0, size / 3, 255, 256, 511, size - 1].into_iter().filter(|at| *at < size) {
            let leaf = log.leaf(at);
            let proof = inclusion(&mut log, at, size).unwrap();
            assert_eq!(check_inclusion(at, size, &leaf, &proof, &root), Ok(()), "{at} of {size}");
            let old = log.root(at + 1);
            let proof = consistency(&mut log, at + 1, size).unwrap();
            assert_eq!(check_consistency(at + 1, size, &old, &root, &proof), Ok(()), "{} to {size}", at + 1);
        }
    }
}

#[test]
fn a_proof_reads_a_few_hashes_a_level() {
    let size = 65_536 + 300;
    let mut log = Kept::new::<TILE_HEIGHT>(numbered(size));
    assert_eq!(log.levels.iter().map(Vec::len).collect::<Vec<_>>(), [65_836, 257, 1]);
    let root = log.root(size);
    for at in [0, 40_000, 65_535, size - 1] {
        (log.read, log.most) = (0, 0);
        let leaf = log.leaf(at);
        let proof = inclusion(&mut log, at, size).unwrap();
        assert_eq!(check_inclusion(at, size, &leaf, &proof, &root), Ok(()));
        assert!(log.read <= 2 * 2 * 255 && log.most <= 255, "{} hashes, {} at once", log.read, log.most);
    }
}

#[test]
fn e07_what_cannot_be_proven_is_refused() {
    let mut log = Kept::new::<TILE_HEIGHT>(numbered(9));
    let root = log.root(9);
    let leaf = log.leaf(8);
    let good = inclusion(&mut log, 8, 9).unwrap();
    assert_eq!(check_inclusion(8, 9, &leaf, &good, &root), Ok(()));

    assert_eq!(inclusion(&mut log, 9, 9), Err(MakeError::Index { index: 9, size: 9 }));
    assert_eq!(inclusion(&mut log, 0, 0), Err(MakeError::Index { index: 0, size: 0 }));
    assert_eq!(consistency(&mut log, 0, 9), Err(MakeError::Sizes { from: 0, to: 9 }));
    assert_eq!(consistency(&mut log, 5, 4), Err(MakeError::Sizes { from: 5, to: 4 }));
    assert!(matches!(inclusion(&mut log, 3, 10), Err(MakeError::Incomplete { level: 0, .. })));
    assert!(root_at(&mut log, 0).is_err());

    assert_eq!(check_inclusion(9, 9, &leaf, &good, &root), Err(ProofError::Range));
    assert_eq!(check_inclusion(0, 0, &leaf, &[], &root), Err(ProofError::Range));
    assert_eq!(check_inclusion(8, 9, &leaf, &[], &root), Err(ProofError::Length));
    let longer = [good.clone(), vec![root]].concat();
    assert_eq!(check_inclusion(8, 9, &leaf, &longer, &root), Err(ProofError::Length));
    assert_eq!(check_inclusion(u64::MAX - 1, u64::MAX, &leaf, &good, &root), Err(ProofError::Length));
    assert_eq!(check_inclusion(0, u64::MAX, &leaf, &[root; 64], &root), Err(ProofError::Root));

    let old = log.root(6);
    let good = consistency(&mut log, 6, 9).unwrap();
    assert_eq!(check_consistency(6, 9, &old, &root, &good), Ok(()));
    assert_eq!(check_consistency(0, 9, &old, &root, &good), Err(ProofError::Range));
    assert_eq!(check_consistency(10, 9, &old, &root, &good), Err(ProofError::Range));
    assert_eq!(check_consistency(6, 9, &old, &root, &[]), Err(ProofError::Length));
    assert_eq!(check_consistency(6, 9, &old, &root, &good[..good.len() - 1]), Err(ProofError::Length));
    assert_eq!(check_consistency(6, 9, &old, &root, &[good, vec![root]].concat()), Err(ProofError::Length));
    assert_eq!(check_consistency(9, 9, &root, &root, &[]), Ok(()));
    assert_eq!(check_consistency(9, 9, &root, &root, &[root]), Err(ProofError::Length));
    assert_eq!(check_consistency(9, 9, &old, &root, &[]), Err(ProofError::Root));
}

/// Every proof of one bit's difference.
fn one_bit_off(proof: &[Hash]) -> impl Iterator<Item = Vec<Hash>> {
    (0..proof.len() * 256).map(|bit| {
        let mut changed = proof.to_vec();
        changed[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
        changed
    })
}

#[test]
fn e07_every_single_bit_of_a_proof_counts() {
    let mut log = Kept::new::<2>(numbered(45));
    for size in [2, 7, 16, 45] {
        let root = log.root(size);
        for at in [0, size / 2, size - 1] {
            let leaf = log.leaf(at);
            let proof = Tiles::<_, 2>(&mut log).inclusion(at, size).unwrap();
            for changed in one_bit_off(&proof) {
                assert_eq!(check_inclusion(at, size, &leaf, &changed, &root), Err(ProofError::Root));
            }
            let old = log.root(at + 1);
            let proof = Tiles::<_, 2>(&mut log).consistency(at + 1, size).unwrap();
            for changed in one_bit_off(&proof) {
                assert!(check_consistency(at + 1, size, &old, &root, &changed).is_err());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e07_proofs_hold_over_many_levels(size in 1..5_000u64, at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let mut log = Kept::new::<3>(numbered(size));
        let at = at.index(usize::try_from(size).unwrap()) as u64;
        let (root, old, leaf) = (log.root(size), log.root(at + 1), log.leaf(at));
        let mut tiles = Tiles::<_, 3>(&mut log);
        let inclusion = tiles.inclusion(at, size).unwrap();
        let consistency = tiles.consistency(at + 1, size).unwrap();
        prop_assert_eq!(check_inclusion(at, size, &leaf, &inclusion, &root), Ok(()));
        prop_assert_eq!(check_consistency(at + 1, size, &old, &root, &consistency), Ok(()));
        let one = |proof: &[Hash]| {
            let mut changed = proof.to_vec();
            let bit = bit.index(proof.len() * 256);
            changed[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
            changed
        };
        if !inclusion.is_empty() {
            prop_assert!(check_inclusion(at, size, &leaf, &one(&inclusion), &root).is_err());
        }
        if !consistency.is_empty() {
            prop_assert!(check_consistency(at + 1, size, &old, &root, &one(&consistency)).is_err());
        }
    }

    #[test]
    fn any_numbers_and_hashes_are_checked_without_panic(
        a in any::<u64>(), b in any::<u64>(), proof in prop::collection::vec(any::<Hash>(), 0..70),
    ) {
        let zero = [0; 32];
        prop_assert!(check_inclusion(a, b, &zero, &proof, &zero).is_err());
        let _ = check_consistency(a, b, &zero, &zero, &proof);
    }
}
