//! The record: what an event is, how it is hashed, and how the whole is checked.
//!
//! Events of one account form one append-only sequence, and an RFC 6962 Merkle tree over them. This
//! crate does no I/O: it turns an event into bytes and bytes into hashes, so that any other program
//! can do the same and come to the same root.

pub mod checkpoint;
pub mod event;
pub mod export;
pub mod proof;
pub mod tree;
pub mod verify;

pub use event::{Actor, Draft, Event, Phase, Verdict};
pub use tree::{Frontier, Hash, Tile};
pub use verify::{Head, Problem, RETIRE, Verifier};

/// The canonical bytes of a JSON value (RFC 8785).
///
/// # Errors
/// If the value holds a number that RFC 8785 cannot write.
pub fn canonical(value: &serde_json::Value) -> Result<Vec<u8>, serde_json::Error> {
    serde_json_canonicalizer::to_vec(value)
}
