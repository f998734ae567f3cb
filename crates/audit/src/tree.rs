//! The Merkle tree of RFC 6962, section 2.1: `SHA-256(0x00 ‖ leaf)`, `SHA-256(0x01 ‖ left ‖ right)`.

use sha2::{Digest, Sha256};

/// A node's hash.
pub type Hash = [u8; 32];

/// Levels of the tree in one tile: a tile root stands for 2^8 hashes of the level below.
pub const TILE_HEIGHT: u32 = 8;

/// The root of a complete subtree of 256^level leaves, which an added leaf completed. Whoever keeps it can
/// make proofs without reading the leaves below it; it never changes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// 1 for 256 leaves, 2 for 65,536, and so on.
    pub level: u8,
    /// Its number among those of its level, from 0.
    pub index: u64,
    /// The subtree's root.
    pub root: Hash,
}

/// The hash of a leaf's bytes.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// The hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The right edge of a tree: the roots of its perfect subtrees, largest first. Enough to append and
/// to know the root; its size is the number of one-bits in the tree's size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a stored frontier: `32 × popcount(size)` bytes.
    pub fn from_parts(size: u64, bytes: &[u8]) -> Option<Self> {
        let (nodes, rest) = bytes.as_chunks::<32>();
        (rest.is_empty() && nodes.len() == size.count_ones() as usize).then(|| Self { size, nodes: nodes.to_vec() })
    }

    /// The stored form of the nodes.
    pub fn node_bytes(&self) -> Vec<u8> {
        self.nodes.concat()
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf's hash at the right, and says which tile roots it completes: none for 255 leaves of 256.
    pub fn append(&mut self, leaf: Hash) -> Vec<Tile> {
        self.append_tiled::<TILE_HEIGHT>(leaf)
    }

    pub(crate) fn append_tiled<const HEIGHT: u32>(&mut self, leaf: Hash) -> Vec<Tile> {
        let mut node = leaf;
        let mut tiles = Vec::new();
        // Each trailing one-bit of the old size is a perfect subtree that the new leaf completes.
        for bits in 1..=self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
            if bits % HEIGHT == 0 {
                // At most 64 / HEIGHT, so it always fits.
                let level = u8::try_from(bits / HEIGHT).unwrap_or(u8::MAX);
                tiles.push(Tile { level, index: self.size >> bits, root: node });
            }
        }
        self.nodes.push(node);
        self.size += 1;
        tiles
    }

    /// The root. Of the empty tree: `SHA-256()`.
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        match nodes.next() {
            None => Sha256::digest([]).into(),
            Some(last) => nodes.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(crate) mod tests {
    use super::*;
    use crate::event::hex;

    /// The tree heads that the Certificate Transparency reference implementation tests against.
    pub(crate) const LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    pub(crate) const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut tree = Frontier::new();
        assert_eq!(hex(&tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, root) in LEAVES.iter().zip(ROOTS) {
            tree.append(leaf_hash(leaf));
            assert_eq!(hex(&tree.root()), root, "size {}", tree.size());
        }
    }

    #[test]
    fn a_frontier_reads_back() {
        let mut tree = Frontier::new();
        for n in 0..100u64 {
            tree.append(leaf_hash(&n.to_be_bytes()));
            let again = Frontier::from_parts(tree.size(), &tree.node_bytes()).unwrap();
            assert_eq!(again, tree);
        }
        assert!(Frontier::from_parts(3, &[0; 32]).is_none());
        assert!(Frontier::from_parts(1, &[0; 33]).is_none());
    }

    #[test]
    fn the_leaf_that_completes_a_tile_says_so() {
        let mut tree = Frontier::new();
        let mut told = Vec::new();
        for n in 0..65_536u64 {
            let tiles = tree.append(leaf_hash(&n.to_be_bytes()));
            assert_eq!(tiles.len(), usize::from(n % 256 == 255) + usize::from(n == 65_535), "leaf {n}");
            if n == 255 {
                // The first tile root is the root of the tree, which is just that subtree.
                assert_eq!(tiles, [Tile { level: 1, index: 0, root: tree.root() }]);
            }
            told.extend(tiles.iter().map(|tile| (tile.level, tile.index)));
        }
        let mut expected: Vec<(u8, u64)> = (0..256).map(|index| (1, index)).collect();
        expected.push((2, 0));
        assert_eq!(told, expected);
    }
}
