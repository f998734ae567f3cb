//! Room on the disk while commands run: who writes more than they may is ended, and nobody else is.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Done, Home, ROOT_KEY, Running};

/// What is said is run as a command, but for one word.
const SCRIPT: &str = "turns:\n  - when: { user: write_it }\n    repeat: last\n    steps:\n      \
    - tools: [{ name: write_file, input: { path: notes.txt, content: \"a line of text\" } }]\n      \
    - text: \"{{last_tool_result}}\"\n  - default: true\n    repeat: last\n    steps:\n      \
    - tools: [{ name: bash, input: { command: \"{{user}}\" } }]\n      - text: \"{{last_tool_result}}\"\n";

/// Writes a file of 703 KiB twenty times a second at most, and ends by itself after so many. It would not
/// listen to a request to stop.
fn writes(files: u32) -> String {
    format!(
        "trap '' TERM; n=0; while [ $n -lt {files} ]; do n=$((n+1)); seq 1000001 1090000 > big.$n; sleep 0.05; done; echo done"
    )
}

const WITHOUT_END: u32 = 2_000;
/// Far longer than it may take until somebody looks, and far shorter than the commands would go on.
const SOON: Duration = Duration::from_secs(25);

struct Account {
    key: String,
    space: String,
}

fn account(server: &Running, home: &Home, name: &str, front: &str) -> Account {
    let key = server.account(home, name, &format!("{name}-admin"));
    home.write("worker/AGENT.md", &format!("---\n{front}\n---\nWork.\n"), 0o644);
    server.client(home, &key, &["agent", "put", "worker/AGENT.md"]).good();
    let space = server.client(home, &key, &["space", "create", "files", "--json"]).json();
    Account { key, space: space["id"].as_str().unwrap().to_owned() }
}

fn quota(server: &Running, home: &Home, name: &str, mib: u64) {
    server.client(home, ROOT_KEY, &["account", "limits", name, "--set", &format!("storage_mib={mib}")]).good();
}

fn job(server: &Running, home: &Home, of: &Account, arguments: &[&str]) -> Done {
    server.client(home, &of.key, &[&["job", arguments[0], "--space", &of.space][..], &arguments[1..]].concat())
}

fn start(server: &Running, home: &Home, of: &Account, command: &str) -> String {
    job(server, home, of, &["start", "--agent", "worker", command]).good().trim().to_owned()
}

/// The last event of a job, once it is there.
fn ended(server: &Running, home: &Home, of: &Account, id: &str) -> Value {
    let said = job(server, home, of, &["log", id, "--follow", "--json"]);
    serde_json::from_str(said.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn b05_i17_a_job_that_fills_its_account_is_killed_and_the_neighbours_goes_on() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    for (name, backend) in [("acme", "linux"), ("initech", "virtual")] {
        let greedy = account(&server, &home, name, &format!("tools: [bash]\nsandbox: {{ backend: {backend} }}"));
        let other = account(&server, &home, &format!("beside-{name}"), "tools: [bash]\nsandbox: { backend: linux }");
        quota(&server, &home, name, 8);
        // The control: below the quota the same command comes to its end.
        let modest = start(&server, &home, &greedy, &format!("{}; rm big.*", writes(3)));
        assert_eq!(ended(&server, &home, &greedy, &modest)["state"], "ok", "{backend}");
        let neighbour = start(&server, &home, &other, &writes(40));
        let begun = Instant::now();
        let id = start(&server, &home, &greedy, &writes(WITHOUT_END));
        let end = ended(&server, &home, &greedy, &id);
        assert_eq!((&end["state"], &end["reason"]), (&"failed".into(), &"storage_full".into()), "{backend}: {end}");
        assert!(end["message"].as_str().unwrap().contains("take up its 8 MiB"), "{end}");
        assert!(begun.elapsed() < SOON, "{backend}: {:?}", begun.elapsed());
        assert_eq!(ended(&server, &home, &other, &neighbour)["state"], "ok", "the neighbour has nothing to do with it");
        // Nothing of it is left that would write on, and no other command begins.
        let next = start(&server, &home, &greedy, "echo ran");
        assert_eq!(ended(&server, &home, &greedy, &next)["reason"], "storage_full", "{backend}");
        let done = server.client(&home, &greedy.key, &["audit", "list", "--action", "job.done", "--json"]).json();
        assert!(done.to_string().contains("storage_full"), "on record: {done}");
    }
}

#[test]
fn b05_room_that_is_set_aside_in_one_step_counts_as_well() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let acme = account(&server, &home, "acme", "tools: [bash]\nsandbox: { backend: linux }");
    quota(&server, &home, "acme", 8);
    let fits = start(&server, &home, &acme, "truncate -s 4M large; sleep 4; rm large");
    assert_eq!(ended(&server, &home, &acme, &fits)["state"], "ok");
    let id = start(&server, &home, &acme, "truncate -s 64M large; (setsid sleep 300 &); sleep 300");
    assert_eq!(ended(&server, &home, &acme, &id)["reason"], "storage_full");
}

#[test]
fn b05_a_tool_call_is_killed_on_each_backend_and_the_model_is_told_why() {
    let home = Home::new();
    // On the host a command runs as the account's user, who must be able to come to the workspace.
    std::fs::set_permissions(home.path("."), std::fs::Permissions::from_mode(0o711)).unwrap();
    let server = home.serve_with(SCRIPT, "[sandbox]\nallow_host = true\n");
    for (name, sandbox) in [("acme", "backend: linux"), ("initech", "backend: virtual"), ("hooli", "mode: off")] {
        let of = account(&server, &home, name, &format!("tools: [bash]\nsandbox: {{ {sandbox} }}"));
        quota(&server, &home, name, 8);
        let say =
            |words: &str| server.talk(&home, &of.key, &["chat", "--agent", "worker"], &format!("{words}\n")).good();
        let said = say(&writes(3));
        assert!(said.contains(r#""status":"completed""#) && !said.contains("storage_full"), "{sandbox}: {said}");
        let begun = Instant::now();
        let said = say(&writes(WITHOUT_END));
        assert!(said.contains("storage_full") && said.contains("stopped, because the account"), "{sandbox}: {said}");
        assert!(begun.elapsed() < SOON, "{sandbox}: {:?}", begun.elapsed());
        let calls = server.client(&home, &of.key, &["audit", "list", "--action", "tool.call", "--json"]).json();
        assert!(calls.to_string().contains("storage_full"), "on record: {calls}");
    }
}

#[test]
fn b05_a_workspace_has_a_limit_of_its_own_the_lower_of_the_agents_and_the_operators() {
    let home = Home::new();
    let server = home.serve_with(SCRIPT, "[sandbox]\ndisk_mib = 8\n");
    let tools = "tools: [bash, write_file]\nsandbox: { backend: linux }";
    for (name, more, most) in [("acme", "\nlimits: { disk_mib: 4 }", 4), ("globex", "\nlimits: { disk_mib: 999 }", 8)] {
        let of = account(&server, &home, name, &format!("{tools}{more}"));
        let say =
            |words: &str| server.talk(&home, &of.key, &["chat", "--agent", "worker"], &format!("{words}\n")).good();
        assert!(say("write_it").contains("\"bytes\":14"), "the control: there is room");
        let said = say(&writes(2));
        assert!(said.contains(r#""status":"completed""#) && !said.contains("storage_full"), "{name}: {said}");
        let said = say(&writes(WITHOUT_END));
        assert!(said.contains("storage_full") && said.contains(&format!("take up its {most} MiB")), "{name}: {said}");
        // Nothing more is written, by a command or by another tool; another space of the account has its own.
        for words in ["echo ran", "write_it"] {
            let said = say(words);
            assert!(said.contains("the workspace's files take up"), "{name}: {words}: {said}");
        }
        let elsewhere = start(&server, &home, &of, "echo ran");
        assert_eq!(ended(&server, &home, &of, &elsewhere)["state"], "ok", "{name}");
    }
}
