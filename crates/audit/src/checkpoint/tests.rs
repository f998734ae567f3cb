//! The vectors of the format's reference implementation (Go, `golang.org/x/mod/sumdb/note`), then every
//! way to spoil a note.

use proptest::prelude::*;

use super::*;

const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
/// The published test key, as the reference writes it: algorithm byte and seed.
const PETERS_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETERS_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\
    \n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn peter() -> Signer {
    let seed: [u8; 32] = BASE64.decode(PETERS_SEED).unwrap()[1..].try_into().unwrap();
    Signer::new("PeterNeumann", &seed).unwrap()
}

fn signer() -> Signer {
    Signer::new("bailiwick.example", &[7; 32]).unwrap()
}

fn head() -> Head {
    Head { size: 12, root: [9; 32] }
}

fn note() -> String {
    signer().checkpoint(&LogId::host(), &head(), Timestamp::from_micros(1_767_225_600_000_001)).to_string()
}

fn open(note: &str) -> Result<Checkpoint, NoteError> {
    note.parse::<SignedNote>()?.open(&signer().verifier_key())
}

#[test]
fn e07_keys_and_notes_are_those_of_the_reference() {
    let key: VerifierKey = PETER.parse().unwrap();
    assert_eq!(key.to_string(), PETER);
    assert_eq!(peter().verifier_key(), key);

    let note: SignedNote = PETERS_NOTE.parse().unwrap();
    assert_eq!(note.check(&key), Ok(()));
    assert_eq!(note.to_string(), PETERS_NOTE);
    // Ed25519 signs one text in one way, so ours is the same to the byte.
    assert_eq!(peter().sign(note.text.clone()), note);
    // It is signed, and yet no checkpoint.
    assert_eq!(note.open(&key), Err(NoteError::Checkpoint("its size is not a decimal number below 2^64")));
}

#[test]
fn a_key_in_pieces_or_with_a_changed_letter_is_refused() {
    for from in 0..PETER.len() {
        for to in from..=PETER.len() {
            let piece = &PETER[from..to];
            assert_eq!(piece.parse::<VerifierKey>().is_ok(), piece == PETER, "{piece}");
        }
    }
    for at in 0..PETER.len() {
        let mut bytes = PETER.as_bytes().to_vec();
        bytes[at] += 1;
        assert!(String::from_utf8(bytes).unwrap().parse::<VerifierKey>().is_err(), "byte {at}");
    }
    // With ids that fit: a key of the wrong length, and another algorithm (both of the reference).
    let long = "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==";
    assert_eq!(long.parse::<VerifierKey>(), Err(KeyError::Form));
    let other = "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert_eq!(other.parse::<VerifierKey>(), Err(KeyError::Algorithm));
    // The neutral element: everybody can sign for it.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let weak = VerifierKey::of("x".to_owned(), VerifyingKey::from_bytes(&neutral).unwrap()).to_string();
    assert_eq!(weak.parse::<VerifierKey>(), Err(KeyError::Weak));
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb", &"x".repeat(256)] {
        assert!(matches!(Signer::new(name, &[0; 32]), Err(KeyError::Name)), "{name:?}");
    }
}

#[test]
fn e07_a_checkpoint_says_what_was_signed() {
    let note = note();
    assert!(note.starts_with("bailiwick.example/host\n12\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\ntime 1767225600000001\n\n\u{2014} bailiwick.example "));
    let checkpoint = open(&note).unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.size, checkpoint.root), ("bailiwick.example/host", 12, [9; 32]));
    assert_eq!(checkpoint.time().unwrap().as_micros(), 1_767_225_600_000_001);
    assert_eq!(note.parse::<SignedNote>().unwrap().to_string(), note);
}

#[test]
fn e07_no_byte_of_a_checkpoint_can_be_changed() {
    let note = note();
    assert!(open(&note).is_ok());
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut bytes = note.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(open(&changed).is_err(), "bit {bit} of byte {at}: {changed}");
        }
    }
    for cut in 0..note.len() {
        assert!(note.is_char_boundary(cut).then(|| open(&note[..cut])).is_none_or(|opened| opened.is_err()));
    }
}

#[test]
fn e07_other_signatures_are_passed_over_and_one_by_the_key_is_demanded() {
    let note: SignedNote = note().parse().unwrap();
    let stranger = Signer::new("witness.example", &[8; 32]).unwrap().sign(note.text.clone());
    // The same name, another key.
    let namesake = Signer::new("bailiwick.example", &[8; 32]).unwrap().sign(note.text.clone());
    let unknown = NoteSignature { name: "bailiwick.example".into(), id: [0xff, 0, 0, 1], bytes: vec![1; 5_000] };
    let mut many = note.clone();
    many.signatures.splice(0..0, [stranger.signatures[0].clone(), namesake.signatures[0].clone(), unknown]);
    assert!(open(&many.to_string()).is_ok());

    assert_eq!(open(&stranger.to_string()), Err(NoteError::Unsigned("bailiwick.example".into())));
    assert_eq!(open(&namesake.to_string()), Err(NoteError::Unsigned("bailiwick.example".into())));
    // A right one does not make up for a false one.
    let mut bad = note.clone();
    bad.signatures.push(NoteSignature { bytes: vec![3; 64], ..note.signatures[0].clone() });
    assert_eq!(open(&bad.to_string()), Err(NoteError::Signature("bailiwick.example".into())));
    // A signature of another length is a false one, too.
    bad.signatures[1].bytes = note.signatures[0].bytes[..63].to_vec();
    assert_eq!(open(&bad.to_string()), Err(NoteError::Signature("bailiwick.example".into())));
    // The key of one server does not speak for another.
    let foreign = signer().sign(note.text.replace("bailiwick.example", "bailiwick.example2"));
    assert!(matches!(open(&foreign.to_string()), Err(NoteError::Origin { .. })));
    let bare = signer().sign(note.text.replace("bailiwick.example/host", "bailiwick.example/"));
    assert!(matches!(open(&bare.to_string()), Err(NoteError::Origin { .. })));
}

#[test]
fn a_checkpoint_has_one_spelling() {
    let root = BASE64.encode([9; 32]);
    let signed = |text: String| open(&signer().sign(text).to_string());
    assert!(signed(format!("bailiwick.example/host\n12\n{root}\n")).is_ok());
    assert!(signed(format!("bailiwick.example/host\n0\n{root}\nunknown line\ntime 0\n")).is_ok());
    for text in [
        format!("bailiwick.example/host\n012\n{root}\n"),
        format!("bailiwick.example/host\n+12\n{root}\n"),
        format!("bailiwick.example/host\n-1\n{root}\n"),
        format!("bailiwick.example/host\n18446744073709551616\n{root}\n"),
        format!("bailiwick.example/host\n12\n{}\n", BASE64.encode([9; 31])),
        format!("bailiwick.example/host\n12\n{}\n", root.trim_end_matches('=')),
        format!("bailiwick.example/host\n12\n{root}\ntime 01\n"),
        format!("bailiwick.example/host\n12\n{root}\ntime -1\n"),
        format!("bailiwick.example/host\n12\n{root}\ntime 9223372036854775808\n"),
        format!("bailiwick.example/host\n12\n{root}\ntime 1\ntime 1\n"),
        format!("bailiwick.example/host\n12\n{root}\n{}", "line\n".repeat(17)),
        format!("bailiwick.example/host\n\n12\n{root}\n"),
        format!("\n12\n{root}\n"),
        "bailiwick.example/host\n12\n".to_owned(),
        "bailiwick.example/host\n".to_owned(),
    ] {
        assert!(matches!(signed(text.clone()), Err(NoteError::Checkpoint(_))), "{text}");
    }
    assert!(matches!(open(&format!("{}{}", "x".repeat(NOTE_BYTES), note())), Err(NoteError::Form(_))));
    let line = "\u{2014} a AAAAAAA=\n";
    assert_eq!(format!("a\n\n{}", line.repeat(100)).parse::<SignedNote>().unwrap().signatures.len(), 100);
    assert!(format!("a\n\n{}", line.repeat(101)).parse::<SignedNote>().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(open(&text).is_err());
        let _ = text.parse::<VerifierKey>();
        // Near the form, too.
        let mut near = note();
        let mut at = at.index(near.len());
        while !near.is_char_boundary(at) {
            at -= 1;
        }
        near.insert_str(at, &text);
        prop_assert_eq!(open(&near).is_ok(), text.is_empty());
        let mut near = PETER.to_owned();
        near.insert_str(at % near.len(), &text);
        prop_assert_eq!(near.parse::<VerifierKey>().is_ok(), text.is_empty());
    }

    #[test]
    fn every_head_reads_back(size in any::<u64>(), root in any::<Hash>(), at in 0..=i64::MAX) {
        let head = Head { size, root };
        let note = signer().checkpoint(&LogId::host(), &head, Timestamp::from_micros(at)).to_string();
        let read = open(&note).unwrap();
        prop_assert_eq!((read.size, read.root, read.time().map(Timestamp::as_micros)), (size, root, Some(at)));
    }
}
