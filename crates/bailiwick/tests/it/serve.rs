//! A server as a process: it says when it listens, stops when told to, and forgets nothing when killed.

use serde_json::Value;

use crate::support::{Home, ROOT_KEY, eventually, files_below};

const SCRIPT: &str = "turns:\n\
    \x20 - when: { user: write }\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: write_file, input: { path: out.txt, content: done } }]\n\
    \x20     - text: \"Written.\"\n\
    \x20 - default: true\n\
    \x20   repeat: last\n\
    \x20   steps: [{ text: \"I heard: {{user}}\" }]\n";

const CAREFUL: &str = "---\ntools: [write_file]\nrequire_approval: [write_file]\n---\nWrite.\n";

#[test]
fn it_says_where_it_listens_and_ends_when_told_to() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    assert!(server.address.ip().is_loopback());
    let rows = server.client(&home, ROOT_KEY, &["account", "list", "--json"]).json();
    assert_eq!(rows[0]["account_id"], "default");
    // A second server on the same data is refused, in words.
    home.run(&["serve", "-c", "bailiwick.toml"]).failed(1, &["another server is using this data directory"]);
    assert_eq!(server.end("-TERM"), Some(0));
    drop(home.start(&["serve", "-c", "bailiwick.toml"]));
}

#[test]
fn dev_mode_needs_no_key_and_shows_how_to_go_on() {
    let home = Home::new();
    let server = home.start(&["up", "--data", "data", "--listen", "127.0.0.1:0"]);
    let said = server.said.join("\n");
    assert!(said.contains("dev mode") && said.contains("bailiwick chat"), "{said}");
    let answer = server.talk(&home, "", &["chat"], "hello there\n");
    assert!(answer.good().contains("You said: hello there"));
}

#[test]
fn t08_a_waiting_approval_survives_kill_9_and_runs_once() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    home.write("careful/AGENT.md", CAREFUL, 0o644);
    server.client(&home, &alice, &["agent", "put", "careful/AGENT.md"]).good();
    let space = server.client(&home, &alice, &["space", "create", "work", "--json"]).json();
    let space = space["id"].as_str().unwrap().to_owned();
    // The input ends while the approval is open: the session waits on.
    let asked = server.talk(&home, &alice, &["chat", "--agent", "careful", "--space", &space], "write it\n");
    asked.failed(1, &["Approve Write out.txt?", "waits for an answer"]);
    let pending = server.client(&home, &alice, &["approval", "list", "--json"]).json();
    let id = pending[0]["id"].as_str().unwrap().to_owned();
    let session = pending[0]["session_id"].as_str().unwrap().to_owned();
    server.end("-KILL");

    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    let files = |server: &crate::support::Running| -> Value {
        server.client(&home, &alice, &["space", "files", &space, "--json"]).json()
    };
    assert_eq!(files(&server).as_array().map(Vec::len), Some(0), "nothing ran yet");
    server.client(&home, &alice, &["approval", "approve", &id]).good();
    server.client(&home, &alice, &["approval", "approve", &id]).failed(1, &["decided before"]);
    eventually("the file is written", || (files(&server).as_array()?.len() == 1).then_some(()));
    assert_eq!(server.client(&home, &alice, &["space", "get", &space, "out.txt"]).good(), "done");
    let events = eventually("the turn ends", || {
        let said = server.client(&home, &alice, &["session", "events", &session, "--json"]).good();
        said.contains("session.waiting").then_some(said)
    });
    assert_eq!(events.matches("\"action.result\"").count(), 1, "{events}");
    server.client(&home, &alice, &["audit", "verify"]).good();
}

#[test]
fn e08_no_key_is_on_disk_in_the_clear() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    let space = server.client(&home, &alice, &["--json", "space", "create", "work"]).json();
    let note = home.write("note.txt", "hedgehog-12", 0o644);
    let put = ["space", "put", space["id"].as_str().unwrap(), note.to_str().unwrap(), "note.txt"];
    server.client(&home, &alice, &put).good();
    assert_eq!(server.end("-TERM"), Some(0));
    let secret = alice.rsplit('_').next().unwrap().as_bytes();
    let holds = |needle: &[u8]| {
        files_below(&home.path("data")).into_iter().find(|path| {
            std::fs::read(path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
        })
    };
    // The positive control: what is meant to be stored is found in the same way.
    assert!(holds(b"hedgehog-12").is_some());
    assert_eq!(holds(secret), None);
    assert_eq!(holds(ROOT_KEY.as_bytes()), None);
}

#[test]
fn it_starts_quickly_and_stays_small() {
    let home = Home::new();
    home.serve(SCRIPT).end("-TERM");
    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    // Unoptimised and beside other tests; the goal for a release is 150 ms and 40 MiB.
    assert!(server.took.as_millis() < 3_000, "{:?}", server.took);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kib < 150 * 1024, "{kib} KiB");
}
