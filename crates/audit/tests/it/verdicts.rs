//! Each way to spoil a log, with the word that both verifiers must find for it.

use std::process::Command;

use bailiwick_audit::checkpoint::{Signer, VerifierKey};
use bailiwick_audit::event::LogId;
use bailiwick_audit::export::{SignedBy, verify_export};
use bailiwick_audit::proof::{Nodes, check_inclusion, inclusion};
use bailiwick_audit::{Frontier, Hash, Head, Verdict};
use bailiwick_types::Timestamp;
use serde_json::json;

use crate::fixture::{Log, WHOLE, event, joined, lines, replaced, run, signer, stranger, verdict};

fn key() -> VerifierKey {
    signer().verifier_key()
}

fn word(export: &[u8]) -> String {
    verdict(export, Some(&key()), &[]).0
}

#[test]
fn e07_a_whole_log_is_whole_with_the_public_key_alone() {
    let log = Log::new();
    let export = log.export(&signer(), 0);
    let (word, report) = verdict(&export, Some(&key()), &[]);
    assert_eq!(word, WHOLE);
    assert!(report.starts_with("whole: 12 events of bailiwick.example/acc_01JGFJJZ00ABCDEFGHJKMNPQRS\nroot: "));
    assert!(report.contains(&format!("\nsignature: {}\n", key())));
    assert!(report.contains("\nsigned at: 1767225700000000 microseconds since 1970\n"));

    // The key in the file proves nothing by itself, and the report says so.
    let (word, report) = verdict(&export, None, &[]);
    assert_eq!(word, WHOLE);
    assert!(report.contains("\nsignature: unverified key\n"));
    assert_eq!(verify_export(export.as_slice(), None, &[]).unwrap().signature, SignedBy::UnverifiedKey);

    assert_eq!(super::verdicts::word(&Log::of(Vec::new()).export(&signer(), 0)), WHOLE);
}

#[test]
fn e07_a_changed_event_is_found() {
    let log = Log::new();
    let export = log.export(&signer(), 0);
    assert_eq!(word(&replaced(&export, "\"resource\":\"space:7\"", "\"resource\":\"space:8\"")), "changed");
    assert_eq!(word(&replaced(&export, "{\"n\":8}", "{\"n\":9}")), "changed");
    assert_eq!(word(&replaced(&export, "0.1", "0.2")), "changed");

    // Changed together with its leaf hash: the root tells.
    let mut forged = log.clone();
    forged.rows[7].0.draft.verdict = Verdict::Denied;
    forged.rehash();
    let mut both = lines(&export);
    both[8] = lines(&forged.export(&signer(), 0))[8].clone();
    assert_eq!(word(&joined(&both)), "root");

    // An event of another log.
    let mut foreign = log.clone();
    foreign.id = LogId::host();
    foreign.rehash();
    both[8] = lines(&foreign.export(&signer(), 0))[8].clone();
    assert_eq!(word(&joined(&both)), "changed");
}

#[test]
fn e07_dropped_doubled_swapped_and_cut_events_are_found() {
    let export = Log::new().export(&signer(), 0);
    let whole = lines(&export);
    assert_eq!(word(&joined(&whole)), WHOLE);

    let mut dropped = whole.clone();
    dropped.remove(6);
    assert_eq!(word(&joined(&dropped)), "gap");
    let mut doubled = whole.clone();
    doubled.insert(6, whole[6].clone());
    assert_eq!(word(&joined(&doubled)), "gap");
    let mut swapped = whole.clone();
    swapped.swap(3, 6);
    assert_eq!(word(&joined(&swapped)), "gap");

    // The tail cut off, at a line's end and in the middle of one.
    assert_eq!(word(&joined(&whole[..9])), "cut");
    assert_eq!(word(&export[..export.len() - 1]), "cut");
    assert_eq!(word(&export[..export.len() / 2]), "cut");
    assert_eq!(word(b""), "cut");
    // Cut, and given a new footer.
    let mut shorter = whole.clone();
    shorter.remove(12);
    assert_eq!(word(&joined(&shorter)), "form");
    shorter[12] = b"{\"end\":true,\"events\":11}".to_vec();
    assert_eq!(word(&joined(&shorter)), "length");
    // Something behind the footer, and a second log.
    assert_eq!(word(&[export.clone(), b"\n".to_vec()].concat()), "form");
    assert_eq!(word(&[export.clone(), export.clone()].concat()), "form");
}

#[test]
fn e07_a_log_that_was_rewritten_and_signed_anew_is_found_by_an_older_checkpoint() {
    let log = Log::new();
    let mut young = log.clone();
    young.rows.truncate(8);
    let older = young.signed(&signer());
    let empty = Log::of(Vec::new()).signed(&signer());
    let now = log.signed(&signer());

    let mut fork = log.clone();
    fork.rows[5].0.draft.resource = "space:other".into();
    fork.rehash();
    let export = fork.export(&signer(), 0);
    // Alone it is whole: whoever has the host's key can write any log.
    assert_eq!(word(&export), WHOLE);
    assert_eq!(verdict(&export, Some(&key()), &[&older]).0, "fork");
    assert_eq!(verdict(&export, Some(&key()), &[&empty, &now, &older]).0, "fork");
    assert_eq!(verdict(&export, None, &[&now]).0, "fork");
    // The true log continues all of them.
    let (word, report) = verdict(&log.export(&signer(), 0), Some(&key()), &[&now, &empty, &older]);
    assert_eq!(word, WHOLE);
    assert!(report.ends_with("older checkpoints: 3\n"));
    // A change behind the older checkpoint is none of its business.
    let mut later = log.clone();
    later.rows[10].0.draft.resource = "space:other".into();
    later.rehash();
    assert_eq!(verdict(&later.export(&signer(), 0), Some(&key()), &[&older]).0, WHOLE);

    // A shorter log, signed anew.
    assert_eq!(verdict(&young.export(&signer(), 0), Some(&key()), &[&now]).0, "shrunk");
    let mut other = log.clone();
    other.id = LogId::host();
    other.rehash();
    assert_eq!(verdict(&log.export(&signer(), 0), Some(&key()), &[&other.signed(&signer())]).0, "other-log");
}

#[test]
fn e07_only_the_right_key_signs() {
    let log = Log::new();
    // Rewritten by somebody without the host's key: agrees with itself, and with no key that is known.
    let mut forged = log.clone();
    forged.rows[2].0.draft.resource = "space:other".into();
    forged.rehash();
    let export = forged.export(&stranger(), 0);
    assert_eq!(verdict(&export, Some(&key()), &[]).0, "unsigned");
    assert_eq!(verdict(&export, None, &[]).0, WHOLE);
    assert_eq!(verdict(&log.export(&signer(), 0), Some(&stranger().verifier_key()), &[]).0, "unsigned");

    // The true checkpoint above a forged log, and the forged root under the true signature.
    let mut mixed = lines(&forged.export(&signer(), 0));
    mixed[0] = lines(&log.export(&signer(), 0))[0].clone();
    assert_eq!(word(&joined(&mixed)), "root");
    let text = |note: String| note.split("\n\n").next().unwrap().replace('\n', "\\n");
    let (good, bad) = (text(log.signed(&signer()).to_string()), text(forged.signed(&signer()).to_string()));
    assert_eq!(word(&replaced(&joined(&mixed), &good, &bad)), "signature");

    // A key of the file that did not sign, though the caller's did.
    let other = stranger().verifier_key().to_string();
    let misled = replaced(&log.export(&signer(), 0), &key().to_string(), &other);
    assert_eq!(word(&misled), "unsigned");
    // The checkpoint of another log of the same host.
    let mut host = log.clone();
    host.id = LogId::host();
    host.rehash();
    let mut mixed = lines(&log.export(&signer(), 0));
    mixed[0] = replaced(
        &lines(&host.export(&signer(), 0))[0],
        "\"log\":\"host\"",
        &format!("\"log\":\"{}\"", log.id.as_str()),
    );
    assert_eq!(word(&joined(&mixed)), "form");
    // Of another host, whose name begins alike.
    let neighbour = Signer::new("bailiwick", &[7; 32]).unwrap();
    assert_eq!(verdict(&log.export(&neighbour, 0), Some(&key()), &[]).0, "unsigned");
    assert_eq!(verdict(&log.export(&neighbour, 0), Some(&neighbour.verifier_key()), &[]).0, WHOLE);
}

#[test]
fn e05_retired_events_leave_a_log_whole_as_far_as_it_says_so() {
    let log = Log::new();
    for retired in [1, 4] {
        let (word, report) = verdict(&log.export(&signer(), retired), Some(&key()), &[]);
        assert_eq!(word, WHOLE);
        assert!(report.contains(&format!("\nretired: {retired}\n")));
    }
    // Older checkpoints hold, also those of the time before.
    let mut young = log.clone();
    young.rows.truncate(2);
    let older = young.signed(&signer());
    assert_eq!(verdict(&log.export(&signer(), 4), Some(&key()), &[&older]).0, WHOLE);

    assert_eq!(word(&log.export(&signer(), 5)), "retired");
    // The record of it erased as well.
    assert_eq!(word(&log.export(&signer(), 10)), "retired");
    // One in the middle.
    let mut whole = lines(&log.export(&signer(), 0));
    whole[3] = lines(&log.export(&signer(), 4))[3].clone();
    assert_eq!(word(&joined(&whole)), "retired-late");
    // A leaf hash of a retired event, and the header's number.
    let retired = log.export(&signer(), 4);
    let mut wrong = lines(&retired);
    wrong[2] = lines(&replaced(&[wrong[2].clone(), b"\n".to_vec()].concat(), "\"seq\":1", "\"seq\":2"))[0].clone();
    assert_eq!(word(&joined(&wrong)), "gap");
    let mut wrong = log.clone();
    wrong.rows[1].1[0] ^= 1;
    let mut swapped = lines(&retired);
    swapped[2] = lines(&wrong.export(&signer(), 4))[2].clone();
    assert_eq!(word(&joined(&swapped)), "root");
    assert_eq!(word(&replaced(&retired, "\"retired\":4", "\"retired\":3")), "form");

    // An attempt that was refused retires nothing; nor does a number that is none.
    let mut refused = log.clone();
    refused.rows[9].0.draft.verdict = Verdict::Denied;
    refused.rehash();
    assert_eq!(word(&refused.export(&signer(), 4)), "retired");
    for below in [json!("4"), json!(4.5), json!(-4), json!(true), json!(null)] {
        let mut unclear = log.clone();
        unclear.rows[9].0.draft.detail.insert("below".into(), below);
        unclear.rehash();
        assert_eq!(word(&unclear.export(&signer(), 4)), "retired");
    }
}

#[test]
fn e07_a_line_has_one_spelling() {
    let export = Log::new().export(&signer(), 1);
    for (from, to) in [
        ("{\"bailiwick_log\":1,", "{ \"bailiwick_log\":1,"),
        ("\"bailiwick_log\":1,", "\"bailiwick_log\":2,"),
        ("\"first\":0", "\"first\":1"),
        ("\"first\":0,", ""),
        ("\"first\":0", "\"first\":0,\"first\":0"),
        ("{\"n\":8}", "{\"n\":8.0}"),
        ("{\"n\":8}", "{\"n\":7,\"n\":8}"),
        ("{\"n\":8}", "{\"n\":NaN}"),
        ("{\"n\":8}", "[8]"),
        ("\"resource\":\"space:7\"", "\"resource\":\"space:\\u0037\""),
        ("\"resource\":\"space:7\"", "\"resource\":\"\\ud800\""),
        ("\"resource\":\"space:7\"", "\"resource\":7"),
        (",\"seq\":7,\"space\":null", ",\"seq\":7"),
        (",\"seq\":7,\"space\":null", ",\"seq\":7,\"space\":null,\"spice\":null"),
        (",\"retired\":true,\"seq\":0", ",\"retired\":false,\"seq\":0"),
        ("{\"end\":true,\"events\":12}", "{\"end\":false,\"events\":12}"),
        ("{\"end\":true,\"events\":12}", "[]"),
        ("{\"end\":true,\"events\":12}", ""),
    ] {
        assert_eq!(word(&replaced(&export, from, to)), "form", "{to}");
    }
    let long = "x".repeat(1024 * 1024);
    assert_eq!(word(&replaced(&export, "\"resource\":\"space:7\"", &format!("\"resource\":\"{long}\""))), "form");
}

/// An auditor's way: one event out of a retired log, proven by its line, a proof, and the signed root.
#[test]
fn e07_one_event_is_proven_by_the_signed_root() {
    struct Leaves(Vec<Hash>);
    impl Nodes for Leaves {
        type Error = std::convert::Infallible;
        fn hashes(&mut self, _level: u8, from: u64, count: usize) -> Result<Vec<Hash>, Self::Error> {
            Ok(self.0.iter().skip(usize::try_from(from).unwrap()).take(count).copied().collect())
        }
    }
    let log = Log::new();
    let root = log.signed(&signer()).open(&key()).unwrap().root;
    let proof = inclusion(&mut Leaves(log.rows.iter().map(|row| row.1).collect()), 6, 12).unwrap();
    let mut event = log.rows[6].0.clone();
    let hash = |event: &bailiwick_audit::Event| event.leaf_hash(&log.id).unwrap();
    assert_eq!(check_inclusion(6, 12, &hash(&event), &proof, &root), Ok(()));
    event.draft.resource = "space:other".into();
    assert!(check_inclusion(6, 12, &hash(&event), &proof, &root).is_err());
}

/// Big enough for the tree to have some height, and for the Python verifier to show that it streams.
#[test]
fn e07_a_longer_log_is_whole_in_both() {
    let log = Log::of((0..1_000).map(|seq| event(seq, json!({"n": seq}))).collect());
    assert_eq!(word(&log.export(&signer(), 0)), WHOLE);
}

#[test]
fn the_python_verifier_tells_wrong_usage_from_a_problem() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/verify/verify_log.py");
    let ended = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.arg("-I").arg(&script).args(arguments);
        run(command, &Log::new().export(&signer(), 0)).0
    };
    assert_eq!(ended(&["-", "--key", &key().to_string()]), 0);
    assert_eq!(ended(&["-", "--key", &stranger().verifier_key().to_string()]), 1);
    assert_eq!(ended(&["-", "--key", "no key"]), 2);
    assert_eq!(ended(&[]), 2);
    assert_eq!(ended(&["/no/such/file"]), 2);
}

/// The size a checkpoint was signed at is the size that is demanded, also where it is 0.
#[test]
fn e07_an_empty_checkpoint_does_not_vouch_for_events() {
    let log = Log::new();
    let nothing = Head { size: 0, root: Frontier::new().root() };
    let note = signer().checkpoint(&log.id, &nothing, Timestamp::from_micros(0));
    let mut export = lines(&log.export(&signer(), 0));
    let mut header = Vec::new();
    bailiwick_audit::export::header_line(&mut header, &log.id, &key(), &note, 0).unwrap();
    export[0] = lines(&header)[0].clone();
    assert_eq!(word(&joined(&export)), "length");
    assert_eq!(word(&joined(&[export[0].clone(), b"{\"end\":true,\"events\":0}".to_vec()])), WHOLE);
}

/// Whoever writes a third verifier begins with the example in the documentation.
#[test]
fn e07_the_documented_checkpoint_verifies_with_the_documented_key() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let fences: Vec<&str> = docs.split("```").collect();
    let note = fences.iter().find(|text| text.contains("\n\u{2014} bailiwick.example ")).unwrap();
    let note: bailiwick_audit::checkpoint::SignedNote = note.trim_start().parse().unwrap();
    let key = docs.split('\'').find(|text| text.starts_with("bailiwick.example+")).unwrap();
    assert_eq!(key, self::key().to_string());
    let mut tree = Frontier::new();
    for n in 0..12 {
        tree.append(bailiwick_audit::tree::leaf_hash(&[n]));
    }
    let head = Head { size: tree.size(), root: tree.root() };
    let log = LogId::account("acc_01JGFJJZ00ABCDEFGHJKMNPQRS".parse().unwrap());
    assert_eq!(
        note.to_string(),
        signer().checkpoint(&log, &head, Timestamp::from_micros(1_767_225_700_000_000)).to_string()
    );
    assert_eq!(note.open(&key.parse().unwrap()).unwrap().size, 12);
}

/// Adding the group's order to the second half of a signature gives another one that a careless verifier takes.
#[test]
fn e07_a_signature_has_one_form() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    // 2^252 + 27742317777372353535851937790883648493, little-endian (RFC 8032, section 5.1).
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let log = Log::new();
    let export = log.export(&signer(), 0);
    let note = log.signed(&signer()).to_string();
    let signature = note.trim_end().rsplit(' ').next().unwrap();
    let mut bytes = STANDARD.decode(signature).unwrap();
    let mut carry = 0;
    for (byte, add) in bytes[36..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(word(&replaced(&export, signature, &STANDARD.encode(&bytes))), "signature");
    // All zeros: the point of small order that would fit a key of small order.
    bytes[4..].fill(0);
    assert_eq!(word(&replaced(&export, signature, &STANDARD.encode(&bytes))), "signature");
    assert_eq!(word(&export), WHOLE);
}
