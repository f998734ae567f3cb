//! Signed notes and verifier keys: each has one spelling, and what a key opens is what it signed.

#![no_main]

use std::sync::LazyLock;

use bailiwick_audit::Head;
use bailiwick_audit::checkpoint::{SignedNote, Signer, VerifierKey};
use bailiwick_audit::event::LogId;
use bailiwick_types::Timestamp;
use libfuzzer_sys::fuzz_target;

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new("bailiwick.example", &[7; 32]).expect("a signer"));
static NOTE: LazyLock<(VerifierKey, SignedNote)> = LazyLock::new(|| {
    let log = LogId::account("acc_01JGFJJZ00ABCDEFGHJKMNPQRS".parse().expect("an id"));
    let head = Head { size: 12, root: [3; 32] };
    (SIGNER.verifier_key(), SIGNER.checkpoint(&log, &head, Timestamp::from_micros(1_767_225_700_000_000)))
});

fuzz_target!(|data: &[u8]| {
    let (key, signed) = &*NOTE;
    if let Ok(text) = std::str::from_utf8(data) {
        note(text, key, signed);
        if let Ok(read) = text.parse::<VerifierKey>() {
            assert_eq!(read.to_string(), text, "a key has one spelling");
        }
    }
    // The same bytes as edits of the good note: where, and what stands there then.
    let mut bytes = signed.to_string().into_bytes();
    for edit in data.chunks_exact(2).take(4) {
        let at = usize::from(edit[0]) % bytes.len();
        bytes[at] = edit[1];
    }
    if let Ok(text) = std::str::from_utf8(&bytes) {
        note(text, key, signed);
    }
});

fn note(text: &str, key: &VerifierKey, signed: &SignedNote) {
    let Ok(read) = text.parse::<SignedNote>() else { return };
    assert_eq!(read.to_string(), text, "a note has one spelling");
    let unverified = read.read_unverified();
    if let Ok(checkpoint) = read.open(key) {
        assert_eq!(unverified.as_ref(), Ok(&checkpoint));
        assert_eq!(signed.open(key).as_ref(), Ok(&checkpoint), "the key opens what it never signed");
    }
}
