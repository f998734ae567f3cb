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

use serde_json::{Map, Value};

pub use event::{Actor, Draft, Event, Phase, Verdict};
pub use tree::{Frontier, Hash, Tile};
pub use verify::{Head, Problem, RETIRE, Verifier};

/// The canonical bytes of a JSON value (RFC 8785).
///
/// # Errors
/// If the value holds a number that RFC 8785 cannot write.
pub fn canonical(value: &Value) -> Result<Vec<u8>, serde_json::Error> {
    if is_canonical(value) { serde_json::to_vec(value) } else { serde_json_canonicalizer::to_vec(value) }
}

pub(crate) fn canonical_object(object: &Map<String, Value>) -> Result<Vec<u8>, serde_json::Error> {
    if is_canonical_object(object) { serde_json::to_vec(object) } else { serde_json_canonicalizer::to_vec(object) }
}

/// Whether the ordinary writer writes it as RFC 8785 demands: names in order, and no number but whole ones
/// that every reader of JSON reads alike. Nearly all that is recorded is so, and need not be sorted.
fn is_canonical(value: &Value) -> bool {
    /// Whole numbers up to here are the same to a reader that knows floating point alone.
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => {
            let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            whole.is_some_and(|whole| whole <= EXACT)
        }
        Value::Array(values) => values.iter().all(is_canonical),
        Value::Object(object) => is_canonical_object(object),
    }
}

fn is_canonical_object(object: &Map<String, Value>) -> bool {
    // In ASCII the order of bytes is the order of UTF-16 units, by which RFC 8785 sorts.
    object.iter().all(|(name, value)| name.is_ascii() && is_canonical(value))
        && object.keys().is_sorted_by(|one, next| one < next)
}
