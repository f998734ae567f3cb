//! A log, its export, and the two verifiers.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bailiwick_audit::checkpoint::{SignedNote, Signer, VerifierKey};
use bailiwick_audit::event::LogId;
use bailiwick_audit::export::{event_line, footer_line, header_line, retired_line, verify_export};
use bailiwick_audit::{Actor, Draft, Event, Frontier, Hash, Head, Phase, RETIRE, Verdict};
use bailiwick_types::{RequestId, SpaceId, Timestamp};
use serde_json::{Map, Value, json};

pub(crate) const WHOLE: &str = "whole";

pub(crate) fn signer() -> Signer {
    Signer::new("bailiwick.example", &[7; 32]).unwrap()
}

/// Another key of the same name.
pub(crate) fn stranger() -> Signer {
    Signer::new("bailiwick.example", &[8; 32]).unwrap()
}

#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) id: LogId,
    pub(crate) rows: Vec<(Event, Hash)>,
}

pub(crate) fn event(seq: u64, detail: Value) -> Event {
    let Value::Object(detail) = detail else { panic!("a detail is an object") };
    Event {
        seq,
        at: Timestamp::from_micros(1_767_225_600_000_000 + i64::try_from(seq).unwrap()),
        draft: Draft {
            actor: Actor::User("alice".parse().unwrap()),
            credential: "key:abcdefghijkmnpqr".into(),
            address: "192.0.2.7".into(),
            request: seq.is_multiple_of(2).then(RequestId::new),
            action: "space.create".into(),
            resource: format!("space:{seq}"),
            space: seq.is_multiple_of(3).then(SpaceId::new),
            agent: seq.is_multiple_of(5).then(|| "helper".parse().unwrap()),
            phase: Phase::Act,
            verdict: Verdict::Ok,
            intent: (seq % 4 == 3).then(|| seq - 1),
            detail,
        },
    }
}

impl Log {
    /// Twelve events. The tenth retires what is below 4.
    pub(crate) fn new() -> Self {
        let details = [
            json!({}),
            json!({"n": 1, "fraction": 0.1, "small": 1e-7, "large": 1.5e300, "whole": 1e21, "minus": -0.0}),
            json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7}),
            json!({"controls": "\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}\"\\/", "text": "ein Wörtchen \u{2014} 日本"}),
            json!({"nested": {"b": [1, "two", null, true, {"z": 1, "a": []}], "a": {}}}),
            json!({"big": 9_007_199_254_740_991_u64, "negative": -12}),
        ];
        let mut rows: Vec<Event> = (0..12u64)
            .map(|seq| event(seq, details.get(usize::try_from(seq).unwrap()).cloned().unwrap_or(json!({"n": seq}))))
            .collect();
        rows[9].draft.action = RETIRE.into();
        rows[9].draft.actor = Actor::Operator;
        rows[9].draft.detail = Map::from_iter([("below".to_owned(), json!(4))]);
        Self::of(rows)
    }

    pub(crate) fn of(events: Vec<Event>) -> Self {
        let id = LogId::account("acc_01JGFJJZ00ABCDEFGHJKMNPQRS".parse().unwrap());
        let mut log = Self { rows: events.into_iter().map(|event| (event, [0; 32])).collect(), id };
        log.rehash();
        log
    }

    /// Gives every event the hash of its fields, as somebody would who rewrites a log.
    pub(crate) fn rehash(&mut self) {
        for (event, hash) in &mut self.rows {
            *hash = event.leaf_hash(&self.id).unwrap();
        }
    }

    pub(crate) fn head(&self) -> Head {
        let mut tree = Frontier::new();
        for (_, hash) in &self.rows {
            tree.append(*hash);
        }
        Head { size: tree.size(), root: tree.root() }
    }

    pub(crate) fn signed(&self, signer: &Signer) -> SignedNote {
        signer.checkpoint(&self.id, &self.head(), Timestamp::from_micros(1_767_225_700_000_000))
    }

    /// The export, with the first `retired` events retired.
    pub(crate) fn export(&self, signer: &Signer, retired: u64) -> Vec<u8> {
        let mut out = Vec::new();
        header_line(&mut out, &self.id, &signer.verifier_key(), &self.signed(signer), retired).unwrap();
        for (event, hash) in &self.rows {
            if event.seq < retired {
                retired_line(&mut out, event.seq, hash).unwrap();
            } else {
                event_line(&mut out, event, hash).unwrap();
            }
        }
        footer_line(&mut out, u64::try_from(self.rows.len()).unwrap()).unwrap();
        out
    }
}

/// The lines of an export without their ends.
pub(crate) fn lines(export: &[u8]) -> Vec<Vec<u8>> {
    export.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

pub(crate) fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect()
}

/// Replaces the only place of a text.
pub(crate) fn replaced(export: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(export).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to).into_bytes()
}

/// The verdict of both verifiers: `whole` or the problem's word. Of a whole log the reports must be the
/// same to the letter.
pub(crate) fn verdict(export: &[u8], key: Option<&VerifierKey>, older: &[&SignedNote]) -> (String, String) {
    let opened: Vec<_> = older
        .iter()
        .map(|note| match key {
            Some(key) => note.open(key).unwrap(),
            None => note.read_unverified().unwrap(),
        })
        .collect();
    let ours = match verify_export(export, key, &opened) {
        Ok(report) => (WHOLE.to_owned(), report.to_string()),
        Err(problem) => (problem.code().to_owned(), problem.to_string()),
    };
    let theirs = python(export, key, older);
    assert_eq!(ours.0, theirs.0, "ours: {}\ntheirs: {}", ours.1, theirs.1);
    if ours.0 == WHOLE {
        assert_eq!(ours.1, theirs.1);
    }
    ours
}

fn python(export: &[u8], key: Option<&VerifierKey>, older: &[&SignedNote]) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/verify/verify_log.py");
    let mut command = Command::new("python3");
    command.arg("-I").arg(script).arg("-");
    if let Some(key) = key {
        command.arg("--key").arg(key.to_string());
    }
    for (n, note) in older.iter().enumerate() {
        let path = dir.path().join(n.to_string());
        std::fs::write(&path, note.to_string()).unwrap();
        command.arg("--older").arg(path);
    }
    let (code, out) = run(command, export);
    match (code, out.strip_prefix("problem: ").and_then(|rest| rest.split_once('\n'))) {
        (0, None) => (WHOLE.to_owned(), out),
        (1, Some((word, text))) => (word.to_owned(), text.to_owned()),
        _ => panic!("the verifier ended with {code} and said: {out}"),
    }
}

/// Runs a Python program on some input.
pub(crate) fn run(mut command: Command, input: &[u8]) -> (i32, String) {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect(
        "python3 could not be started: install Python 3.9 or newer (package python3); the independent verifier needs it",
    );
    let mut stdin = child.stdin.take().unwrap();
    // A verifier that has found its problem reads no further.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    (code, String::from_utf8(output.stdout).unwrap() + &told)
}
