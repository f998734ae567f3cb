//! Exported logs: a file is whole only if it is, to the byte, what was written.
//!
//! An input is a list of edits of a good file (three bytes each: where, which, what), or, if it begins
//! with `{`, a file of its own.

#![no_main]

use std::sync::LazyLock;

use bailiwick_audit::checkpoint::Signer;
use bailiwick_audit::event::LogId;
use bailiwick_audit::export::{event_line, footer_line, header_line, retired_line, verify_export};
use bailiwick_audit::{Actor, Draft, Event, Frontier, Hash, Head, Phase, RETIRE, Verdict};
use bailiwick_types::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new("bailiwick.example", &[7; 32]).expect("a signer"));
/// A whole file, and one whose first events are retired.
static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [file(0), file(3)]);

fn file(retired: u64) -> Vec<u8> {
    let log = LogId::account("acc_01JGFJJZ00ABCDEFGHJKMNPQRS".parse().expect("an id"));
    let details = [
        json!({}),
        json!({"n": 0.1, "\u{20ac}": [null, true]}),
        json!({"a": {"b": "\u{0}\n\"\\"}}),
        json!({"below": 3}),
    ];
    let events: Vec<(Event, Hash)> = (0u64..6)
        .map(|seq| {
            let place = usize::try_from(seq).expect("a small number");
            let Some(Value::Object(detail)) = details.get(place % details.len()).cloned() else { unreachable!() };
            let draft = Draft {
                actor: if seq == 3 { Actor::Operator } else { Actor::User("alice".parse().expect("a name")) },
                credential: "key:abcdefghijkmnpqr".into(),
                address: "192.0.2.7".into(),
                request: None,
                action: if seq == 3 { RETIRE.into() } else { "space.create".into() },
                resource: format!("space:{seq}"),
                space: None,
                agent: seq.is_multiple_of(2).then(|| "helper".parse().expect("a name")),
                phase: Phase::Act,
                verdict: Verdict::Ok,
                intent: (seq == 5).then_some(4),
                detail,
            };
            let event = Event { seq, at: Timestamp::from_micros(1_767_225_600_000_000 + seq.cast_signed()), draft };
            let hash = event.leaf_hash(&log).expect("a hash");
            (event, hash)
        })
        .collect();
    let mut tree = Frontier::new();
    events.iter().for_each(|(_, hash)| drop(tree.append(*hash)));
    let head = Head { size: tree.size(), root: tree.root() };
    let note = SIGNER.checkpoint(&log, &head, Timestamp::from_micros(1_767_225_700_000_000));
    let mut out = Vec::new();
    header_line(&mut out, &log, &SIGNER.verifier_key(), &note, retired).expect("a header");
    for (event, hash) in &events {
        if event.seq < retired {
            retired_line(&mut out, event.seq, hash).expect("a line");
        } else {
            event_line(&mut out, event, hash).expect("a line");
        }
    }
    footer_line(&mut out, 6).expect("a footer");
    out
}

fuzz_target!(|data: &[u8]| {
    let key = SIGNER.verifier_key();
    if data.first() == Some(&b'{') {
        let known = verify_export(data, Some(&key), &[]);
        assert!(known.is_err() || FILES.iter().any(|file| file == data), "somebody else's file passes as ours");
        if let Ok(report) = verify_export(data, None, &[]) {
            // One byte after the end, or one line less, and it is not whole any more.
            assert!(verify_export(&[data, b"\n"].concat()[..], None, &[]).is_err(), "{report}");
            assert!(verify_export(&data[..data.len() - 1], None, &[]).is_err(), "{report}");
        }
        return;
    }
    let Some((&which, edits)) = data.split_first() else { return };
    let original = &FILES[usize::from(which & 1)];
    let mut file = original.clone();
    for edit in edits.chunks_exact(4).take(8) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % (file.len() + 1);
        match edit[2] % 5 {
            0 if at < file.len() => file[at] = edit[3],
            1 => file.insert(at, edit[3]),
            2 if at < file.len() => drop(file.remove(at)),
            3 => file.truncate(at),
            // A line twice, or moved.
            _ => {
                let mut lines: Vec<Vec<u8>> = file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                if lines.is_empty() {
                    return;
                }
                let line = lines[at % lines.len()].clone();
                let place = usize::from(edit[3]) % (lines.len() + 1);
                lines.insert(place, line);
                file = lines.concat();
            }
        }
    }
    let verdict = verify_export(file.as_slice(), Some(&key), &[]);
    match (file == *original, verdict) {
        (true, verdict) => assert!(verdict.is_ok(), "the file as written is not whole: {verdict:?}"),
        (false, Err(problem)) => assert!(!problem.code().is_empty() && !problem.to_string().is_empty()),
        (false, Ok(report)) => panic!("a changed file passes as whole: {report}"),
    }
});
