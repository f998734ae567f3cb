//! The client commands against a real server, with two tenants.

use std::process::Stdio;

use crate::support::{Done, Home, ROOT_KEY};

const SCRIPT: &str = "turns: [{ default: true, repeat: last, steps: [{ text: \"I heard: {{user}}\" }] }]\n";

#[test]
fn a03_two_tenants_do_not_see_each_other() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let (alice, gina) = (server.account(&home, "acme", "alice"), server.account(&home, "globex", "gina"));
    let space = server.client(&home, &alice, &["space", "create", "secret-plans", "--json"]).json();
    let id = space["id"].as_str().unwrap();
    assert_eq!(space["owner"], "alice");
    server.client(&home, &alice, &["space", "show", id]).good();
    for command in [
        &["space", "show", id][..],
        &["space", "files", id],
        &["space", "plan", id],
        &["space", "grants", id],
        &["space", "rename", id, "mine"],
        &["space", "delete", id, "--yes"],
    ] {
        let foreign = server.client(&home, &gina, command).failed(1, &["not found"]);
        let absent: Vec<&str> =
            command.iter().map(|word| if *word == id { "spc_01ARZ3NDEKTSV4RRFFQ69G5FAV" } else { word }).collect();
        let absent = server.client(&home, &gina, &absent).failed(1, &["not found"]);
        assert_eq!(foreign.replace(id, "ID"), absent.replace("spc_01ARZ3NDEKTSV4RRFFQ69G5FAV", "ID"));
    }
    let listed = server.client(&home, &gina, &["space", "list", "--json"]).good();
    assert!(!listed.contains("secret-plans"), "{listed}");
    server.client(&home, &gina, &["user", "list", "--account", "acme"]).failed(1, &[]);
    server.client(&home, &gina, &["account", "list"]).failed(1, &[]);
}

#[test]
fn i15_a_key_is_shown_once_and_dies_when_revoked() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    let made = server.client(&home, &alice, &["key", "create", "ci", "--scope", "read"]);
    assert!(made.stderr.contains("shown this once"), "{}", made.stderr);
    let key = made.good().trim().to_owned();
    assert!(key.starts_with("bwk_"), "{key}");
    let listed = server.client(&home, &alice, &["key", "list", "--json"]).good();
    assert!(listed.contains("\"ci\"") && !listed.contains(&key), "{listed}");
    server.client(&home, &key, &["space", "list"]).good();
    server.client(&home, &key, &["space", "create", "x"]).failed(1, &[]);
    let id = key.split('_').nth(1).unwrap();
    server.client(&home, &alice, &["key", "revoke", id]).good();
    server.client(&home, &key, &["space", "list"]).failed(1, &["Invalid API key", "hint:"]);
}

#[test]
fn users_roles_and_grants_from_the_command_line() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    let bob = server.client(&home, &alice, &["user", "create", "bob"]).good().trim().to_owned();
    let listed = server.client(&home, &alice, &["user", "list"]).good();
    assert!(listed.contains("USER ID") && listed.contains("bob"), "{listed}");
    server.client(&home, &bob, &["user", "create", "eve"]).failed(1, &[]);
    let space = server.client(&home, &alice, &["space", "create", "shared", "--json"]).json();
    let id = space["id"].as_str().unwrap().to_owned();
    server.client(&home, &bob, &["space", "show", &id]).failed(1, &["not found"]);
    server.client(&home, &alice, &["space", "grant", &id, "bob", "write"]).good();
    server.client(&home, &bob, &["space", "show", &id]).good();
    let put = server.talk(&home, &bob, &["space", "put", &id, "-", "notes/a.txt"], "from bob\n");
    put.good();
    assert_eq!(server.client(&home, &alice, &["space", "get", &id, "notes/a.txt"]).good(), "from bob\n");
    let a05 = server.client(&home, &bob, &["space", "get", &id, "../../../etc/passwd"]);
    a05.failed(1, &["path"]);
    server.client(&home, &alice, &["user", "role", "bob", "viewer"]).good();
    server.client(&home, &bob, &["space", "create", "x"]).failed(1, &[]);
    server.client(&home, &alice, &["space", "revoke", &id, "bob"]).good();
    server.client(&home, &bob, &["space", "show", &id]).failed(1, &["not found"]);
    server.client(&home, &alice, &["user", "delete", "bob", "--yes"]).good();
    server.client(&home, &bob, &["space", "list"]).failed(1, &["Invalid API key"]);
    // The operator sees accounts, and acts in one only by name.
    server.client(&home, ROOT_KEY, &["space", "list"]).failed(1, &["X-OpenViking-Account"]);
    server.client(&home, ROOT_KEY, &["space", "list", "--account", "acme", "--user", "alice"]).good();
    let audit = server.client(&home, &alice, &["audit", "list", "--limit", "500"]).good();
    assert!(audit.contains("operator-for:alice"), "{audit}");
}

#[test]
fn the_log_is_listed_followed_and_verified() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    server.client(&home, &alice, &["space", "create", "one"]).good();
    let verified = server.client(&home, &alice, &["audit", "verify"]).good();
    assert!(verified.contains("whole:"), "{verified}");
    let mut tail = server.client_command(&home, &alice, &["audit", "tail", "--after", "0"]);
    let mut tail = tail.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(tail.stdout.take().unwrap()));
    let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("space.create")));
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(found.is_some());
    server.client(&home, ROOT_KEY, &["audit", "verify", "--host"]).good();
    server.client(&home, &alice, &["audit", "verify", "--host"]).failed(1, &[]);
}

#[test]
fn an_account_may_set_its_own_rules() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    home.write("rules.cedar", "forbid (principal, action == Action::\"space.create\", resource);", 0o644);
    server.client(&home, &alice, &["space", "create", "before"]).good();
    server.client(&home, &alice, &["policy", "set", "rules.cedar"]).good();
    server.client(&home, &alice, &["space", "create", "after"]).failed(1, &[]);
    assert!(server.client(&home, &alice, &["policy", "show"]).good().contains("space.create"));
    home.write("wide.cedar", "permit (principal, action, resource);", 0o644);
    server.client(&home, &alice, &["policy", "set", "wide.cedar"]).failed(1, &[]);
}

#[test]
fn i17_the_operator_sets_limits_and_everybody_sees_what_is_used() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let (alice, gina) = (server.account(&home, "acme", "alice"), server.account(&home, "globex", "gina"));
    let limits =
        |key: &str, words: &[&str]| server.client(&home, key, &[&["account", "limits", "acme"], words].concat());
    let at_most = |key: &str| server.client(&home, key, &["usage", "--json"]).json()["limits"].clone();
    let before = at_most(&gina);
    assert_eq!(at_most(&alice), before, "the server's defaults");
    let set = limits(ROOT_KEY, &["--set", "model_calls_per_day=7", "--set", "tool_calls_per_day=0"]).good();
    assert!(set.contains("model_calls_per_day") && set.contains("none"), "{set}");
    // What is not named stays, and what is given back is the default again.
    limits(ROOT_KEY, &["--set", "storage_mib=9"]).good();
    limits(ROOT_KEY, &["--set", "tool_calls_per_day=default"]).good();
    let now = at_most(&alice);
    assert_eq!((&now["model_calls_per_day"], &now["storage_mib"]), (&7.into(), &9.into()), "{now}");
    assert_eq!((&now["tool_calls_per_day"], at_most(&gina)), (&before["tool_calls_per_day"], before.clone()));
    for wrong in ["model_calls_per_day", "model_calls_per_day=many", "model_calls_per_day=-1"] {
        limits(ROOT_KEY, &["--set", wrong]).failed(2, &["LIMIT=NUMBER"]);
    }
    limits(ROOT_KEY, &["--set", "tokens=5"]).failed(1, &["tokens"]);
    for (key, why) in [(&alice, "Requires role: root"), (&gina, "not found")] {
        limits(key, &[]).failed(1, &[why]);
        limits(key, &["--set", "model_calls_per_day=0"]).failed(1, &[why]);
    }
    assert_eq!(at_most(&alice), now, "nobody else changed anything");
    let used = server.client(&home, &alice, &["usage"]).good();
    assert!(used.contains("model calls today") && used.contains("open again at"), "{used}");
}

#[test]
fn u06_the_clients_own_file_must_be_private() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    let text = format!("url = \"{}\"\napi_key = \"{alice}\"\n", server.url());
    home.write(".config/bailiwick/cli.toml", &text, 0o644);
    home.run(&["space", "list"]).failed(64, &["can be read by others"]);
    home.write(".config/bailiwick/cli.toml", &text, 0o600);
    home.run(&["space", "list"]).good();
    home.write(".config/bailiwick/cli.toml", &format!("{text}api_kee = \"x\"\n"), 0o600);
    let said = home.run(&["space", "list"]).failed(64, &["cli.toml", "unknown field"]);
    assert!(!said.contains(&alice), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_a_hint() {
    let home = Home::new();
    let done: Done = home.command(&["space", "list", "--url", "http://127.0.0.1:9"]).output().unwrap().into();
    done.failed(1, &["no server answers at http://127.0.0.1:9", "hint: start one with `bailiwick up`"]);
}

#[test]
fn i15_the_key_of_one_server_is_sent_to_no_other() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let alice = server.account(&home, "acme", "alice");
    let list = |url: &str| {
        home.write(".config/bailiwick/cli.toml", &format!("url = \"{url}\"\napi_key = \"{alice}\"\n"), 0o600);
        let done: Done = home.command(&["--url", &server.url(), "space", "list"]).output().unwrap().into();
        done
    };
    list(&server.url()).good();
    list("https://bailiwick.example.com").failed(1, &["Missing API Key"]);
}
