//! The record as its owner checks it: exported over HTTP, verified by our own program without a server and by
//! another that shares no code with it.

use std::path::Path;
use std::process::Command;

use bailiwick_types::Timestamp;

use crate::support::{Home, ROOT_KEY, Running, eventually};

const SCRIPT: &str = "turns:\n  - default: true\n    repeat: last\n    steps: [{ text: ok }]\n";
const SOON: &str = "[audit]\ncheckpoint_seconds = 1\nleast_age_hours = 0\n";

/// Both verifiers, which must agree: what is found, or nothing if the log is whole.
fn verdict(home: &Home, file: &str, key: &str, older: &[&str]) -> Option<String> {
    let mut ours = vec!["audit", "verify", "--offline", file, "--key", key];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/verify/verify_log.py");
    let mut theirs = Command::new("python3");
    theirs.arg("-I").arg(script).args([file, "--key", key]).current_dir(home.path("."));
    for note in older {
        ours.extend(["--older", note]);
        theirs.args(["--older", note]);
    }
    // Without a server's address, and none runs at the usual one for this home.
    let ours = home.run(&ours);
    let theirs = theirs.output().expect("python3 is needed: the independent verifier is written in it");
    let found = |said: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix("problem: "));
        line.map(str::to_owned)
    };
    let their = found(&String::from_utf8_lossy(&theirs.stdout));
    assert_eq!(found(&ours.stdout), their, "they do not agree: {} {}", ours.stdout, ours.stderr);
    let code = i32::from(their.is_some());
    assert_eq!((ours.code, theirs.status.code()), (code, Some(code)), "{}", ours.stderr);
    their
}

fn text(server: &Running, home: &Home, key: &str, arguments: &[&str]) -> String {
    server.client(home, key, arguments).good().to_owned()
}

#[test]
fn e07_an_exported_log_is_checked_by_two_programs_and_every_tampering_is_found() {
    let home = Home::new();
    let server = home.serve_with(SCRIPT, SOON);
    let alice = server.account(&home, "acme", "alice");
    for n in 0..5 {
        text(&server, &home, &alice, &["space", "create", &format!("space-{n}")]);
    }
    let key = text(&server, &home, &alice, &["audit", "key"]).trim().to_owned();
    home.write("older.note", &text(&server, &home, &alice, &["audit", "checkpoint"]), 0o600);
    text(&server, &home, &alice, &["space", "create", "later"]);
    text(&server, &home, &alice, &["audit", "export", "--out", "log.jsonl"]);
    assert_eq!(verdict(&home, "log.jsonl", &key, &["older.note"]), None, "the control");
    let piped = text(&server, &home, &alice, &["audit", "export"]);
    home.write("piped.jsonl", &piped, 0o600);
    assert_eq!(verdict(&home, "piped.jsonl", &key, &[]), None);
    let table = text(&server, &home, &alice, &["audit", "export", "--format", "csv"]);
    assert!(table.starts_with("seq,at,") && table.contains("space-3"));

    let whole = std::fs::read_to_string(home.path("log.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let without = |at: usize| lines.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, line)| *line).collect();
    let joined = |lines: Vec<&str>| lines.join("\n") + "\n";
    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    let cases = [
        ("a changed byte", whole.replacen("space-3", "space-9", 1), "changed"),
        ("a dropped event", joined(without(4)), "gap"),
        ("two swapped", joined(swapped), "gap"),
        ("a tail cut off", joined(lines[..lines.len() - 3].to_vec()), "cut"),
        ("the last event gone", joined(without(lines.len() - 2)), "form"),
    ];
    for (what, text, code) in cases {
        home.write("bad.jsonl", &text, 0o600);
        assert_eq!(verdict(&home, "bad.jsonl", &key, &[]).as_deref(), Some(code), "{what}");
    }
    let other = "bailiwick.example+fd8e9cd2+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
    assert_eq!(verdict(&home, "log.jsonl", other, &[]).as_deref(), Some("unsigned"));
    home.run(&["audit", "verify", "--offline", "log.jsonl", "--key", "none"]).failed(2, &["--key"]);

    let said = text(&server, &home, &alice, &["audit", "verify"]);
    assert!(said.contains("whole:") && said.contains(&key), "{said}");
    assert!(text(&server, &home, &alice, &["audit", "proof", "--seq", "2"]).contains("proven: event 2"));
    let proof = text(&server, &home, &alice, &["audit", "proof", "--from", "3", "--to", "7"]);
    assert!(proof.contains("the log of 7 events begins with that of 3"), "{proof}");
    let host = text(&server, &home, ROOT_KEY, &["audit", "export", "--host"]);
    home.write("host.jsonl", &host, 0o600);
    assert_eq!(verdict(&home, "host.jsonl", &key, &[]), None);
}

#[test]
fn e05_what_is_retired_by_hand_is_gone_and_the_log_is_whole() {
    let home = Home::new();
    let server = home.serve_with(SCRIPT, SOON);
    let alice = server.account(&home, "acme", "alice");
    text(&server, &home, &alice, &["space", "create", "soon-forgotten"]);
    let key = text(&server, &home, &alice, &["audit", "key"]).trim().to_owned();
    home.write("older.note", &text(&server, &home, &alice, &["audit", "checkpoint"]), 0o600);
    server.client(&home, &alice, &["audit", "retire", "--before", "yesterday"]).failed(2, &["--before"]);
    let none = text(&server, &home, &alice, &["audit", "retire", "--before", "2020-01-01"]);
    assert!(none.starts_with("0 events"), "the control: {none}");
    let now = Timestamp::now().to_string();
    let done = text(&server, &home, &alice, &["audit", "retire", "--before", &now]);
    assert!(!done.starts_with("0 events"), "{done}");
    text(&server, &home, &alice, &["audit", "export", "--out", "log.jsonl"]);
    assert_eq!(verdict(&home, "log.jsonl", &key, &["older.note"]), None);
    let file = std::fs::read_to_string(home.path("log.jsonl")).unwrap();
    assert!(file.contains("\"retired\":true") && !file.contains("soon-forgotten"));
    // The record of it taken away as well.
    let silent: Vec<String> = file.lines().map(|line| line.replace("audit.retire", "audit.listen")).collect();
    home.write("bad.jsonl", &(silent.join("\n") + "\n"), 0o600);
    assert_eq!(verdict(&home, "bad.jsonl", &key, &[]).as_deref(), Some("changed"));
    assert!(text(&server, &home, &alice, &["audit", "verify"]).contains("are retired"));
}

/// Grows a log to at least so many events.
fn grow(server: &Running, home: &Home, key: &str, size: u64) {
    eventually("the log has grown", || {
        let now = server.client(home, key, &["audit", "checkpoint", "--json"]).json();
        (now["size"].as_u64()? >= size).then_some(())
    });
}

#[test]
fn e07_an_intruder_with_the_database_and_the_key_is_found_by_what_was_kept_elsewhere() {
    let home = Home::with_files();
    let server = home.serve_with(SCRIPT, SOON);
    let alice = server.account(&home, "acme", "alice");
    let key = text(&server, &home, &alice, &["audit", "key"]).trim().to_owned();
    assert_eq!(server.end("-TERM"), Some(0));
    // The database as it was before the deed, taken by somebody who can read all of the host.
    let copy = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&home.path("data"), &home.path("before"));
    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    text(&server, &home, &alice, &["space", "create", "the-deed"]);
    grow(&server, &home, &alice, 8);
    let note = server.client(&home, &alice, &["audit", "checkpoint", "--json"]).json();
    let size = note["size"].as_u64().unwrap();
    home.write("kept.note", note["note"].as_str().unwrap(), 0o600);
    assert_eq!(server.end("-TERM"), Some(0));

    // Put back. The key is the server's own, so what it signs now is signed as well as ever.
    copy(&home.path("data/checkpoints"), &home.path("elsewhere"));
    std::fs::remove_dir_all(home.path("data")).unwrap();
    copy(&home.path("before"), &home.path("data"));
    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    text(&server, &home, &alice, &["space", "create", "harmless"]);
    grow(&server, &home, &alice, size + 2);
    text(&server, &home, &alice, &["audit", "export", "--out", "log.jsonl"]);
    assert_eq!(verdict(&home, "log.jsonl", &key, &[]), None, "by itself it looks whole");
    assert_eq!(verdict(&home, "log.jsonl", &key, &["kept.note"]).as_deref(), Some("fork"));
    assert!(
        text(&server, &home, &alice, &["audit", "verify"]).contains("whole:"),
        "the checkpoints were put back, too"
    );
    assert_eq!(server.end("-TERM"), Some(0));

    // With a folder for checkpoints that the intruder did not reach, the server finds it by itself.
    std::fs::remove_dir_all(home.path("data")).unwrap();
    copy(&home.path("before"), &home.path("data"));
    let configured = std::fs::read_to_string(home.path("bailiwick.toml")).unwrap();
    home.write("bailiwick.toml", &format!("{configured}checkpoint_dir = \"elsewhere\"\n"), 0o600);
    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    grow(&server, &home, &alice, size + 2);
    eventually("the alarm is on the host's record", || {
        let told =
            server.client(&home, ROOT_KEY, &["audit", "list", "--host", "--action", "audit.fork", "--json"]).json();
        told.as_array()?
            .iter()
            .any(|event| event["resource"].as_str().is_some_and(|log| log.starts_with("log:acc_")))
            .then_some(())
    });
    server.client(&home, &alice, &["audit", "verify"]).failed(1, &["not whole:", "signed before"]);
}
