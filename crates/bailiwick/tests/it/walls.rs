//! Where an agent's commands run, seen from outside, through the whole server.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Home, Running};

/// Says where it runs: inside, the host is called `sandbox`, on every backend.
const SCRIPT: &str = "turns:\n\
    \x20 - when: { user: where }\n\
    \x20   repeat: last\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: bash, input: { command: \"echo I am on $(hostname).\" } }]\n\
    \x20     - text: \"{{last_tool_result}}\"\n\
    \x20 - when: { user: leave }\n\
    \x20   repeat: last\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: bash, input: { command: \"echo left > /tmp/left; echo left > left\" } }]\n\
    \x20     - text: \"{{last_tool_result}}\"\n\
    \x20 - when: { user: look }\n\
    \x20   repeat: last\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: bash, input: { command: \"cat /tmp/left; echo; ls\" } }]\n\
    \x20     - text: \"{{last_tool_result}}\"\n\
    \x20 - when: { user: print }\n\
    \x20   repeat: last\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: bash, input: { command: \"yes | head -c 10G\", timeout_seconds: 4 } }]\n\
    \x20     - text: \"{{last_tool_result}}\"\n\
    \x20 - default: true\n\
    \x20   repeat: last\n\
    \x20   steps: [{ text: \"I heard: {{user}}\" }]\n";

pub(crate) const INSIDE: &str = "I am on sandbox.";

pub(crate) fn agent(server: &Running, home: &Home, key: &str, name: &str, frontmatter: &str) {
    let text = format!("---\ntools: [bash]\n{frontmatter}---\nDo.\n");
    home.write(&format!("{name}/AGENT.md"), &text, 0o644);
    server.client(home, key, &["agent", "put", &format!("{name}/AGENT.md")]).good();
}

pub(crate) fn server(home: &Home, more: &str) -> (Running, String) {
    // Tools on the host run as the account's user, who must be able to come to the workspace.
    std::fs::set_permissions(home.path("."), std::fs::Permissions::from_mode(0o711)).unwrap();
    let server = home.serve_with(SCRIPT, more);
    let alice = server.account(home, "acme", "alice");
    (server, alice)
}

#[test]
fn b01_the_main_session_is_on_the_host_in_off_and_non_main_and_only_with_the_operators_consent() {
    let home = Home::new();
    let (server, alice) = server(&home, "[sandbox]\nallow_host = true\n");
    for (mode, inside) in [("off", false), ("non-main", false), ("all", true)] {
        agent(&server, &home, &alice, mode, &format!("sandbox: {{ mode: {mode} }}\n"));
        let said = server.talk(&home, &alice, &["chat", "--agent", mode], "where\n").good();
        assert!(said.contains("I am on "), "{mode}: {said}");
        assert_eq!(said.contains(INSIDE), inside, "{mode}: {said}");
    }
    drop(server);

    let home = Home::new();
    let (server, alice) = self::server(&home, "");
    agent(&server, &home, &alice, "off", "sandbox: { mode: off }\n");
    let said = server.talk(&home, &alice, &["chat", "--agent", "off"], "where\n").good();
    assert!(said.contains("sandbox.allow_host") && !said.contains("I am on "), "{said}");
}

#[test]
fn t09_an_elevated_tool_always_asks_and_then_runs_on_the_host() {
    let home = Home::new();
    let (server, alice) = server(&home, "[sandbox]\nallow_host = true\n");
    agent(&server, &home, &alice, "elevated", "elevated: [bash]\n");
    agent(&server, &home, &alice, "elevated-off", "elevated: [bash]\nsandbox: { mode: off }\n");
    agent(&server, &home, &alice, "plain", "");
    for name in ["elevated", "elevated-off"] {
        let refused = server.talk(&home, &alice, &["chat", "--agent", name], "where\nno\n");
        assert!(refused.stderr.contains("Approve Run"), "{name} did not ask: {}", refused.stderr);
        assert!(!refused.good().contains("I am on "));
        let approved = server.talk(&home, &alice, &["chat", "--agent", name], "where\ny\n").good();
        assert!(approved.contains("I am on ") && !approved.contains(INSIDE), "{name}: {approved}");
    }
    // The positive control: the same command of an agent without elevation is inside, unasked.
    let plain = server.talk(&home, &alice, &["chat", "--agent", "plain"], "where\n").good();
    assert!(plain.contains(INSIDE), "{plain}");
}

#[test]
fn b02_tmp_is_shared_as_the_agent_says_and_files_only_in_their_space() {
    let home = Home::new();
    let (server, alice) = server(&home, "");
    let bob = server.client(&home, &alice, &["user", "create", "bob"]).good().trim().to_owned();
    for (scope, backend) in
        [("session", "linux"), ("agent", "linux"), ("shared", "linux"), ("session", "virtual"), ("agent", "virtual")]
    {
        let name = format!("{scope}-{backend}");
        agent(&server, &home, &alice, &name, &format!("sandbox: {{ scope: {scope}, backend: {backend} }}\n"));
        let chat = ["chat", "--agent", &name];
        server.talk(&home, &alice, &chat, "leave\n").good();
        let said = server.talk(&home, &alice, &chat, "look\n").good();
        assert_eq!(said.contains(r#""stdout":"left\n"#), scope != "session", "{name}: {said}");
        // The file in the workspace is the space's, whatever is shared.
        assert!(said.contains("nleft"), "{name}: {said}");
        let other = server.talk(&home, &bob, &chat, "look\n").good();
        assert!(!other.contains("nleft"), "{name}: bob sees alice's space: {other}");
    }
}

#[test]
fn t11_ten_gibibytes_of_output_cost_the_server_a_few_mebibytes() {
    let home = Home::new();
    let (server, alice) = server(&home, "");
    agent(&server, &home, &alice, "printer", "");
    server.talk(&home, &alice, &["chat", "--agent", "printer"], "where\n").good();
    let before = peak(server.pid());
    let said = server.talk(&home, &alice, &["chat", "--agent", "printer"], "print\n").good();
    assert!(said.contains("output truncated"), "{said}");
    let grown = peak(server.pid()) - before;
    assert!(grown < 24 * 1024, "the server grew by {grown} KiB");
}

/// The outcome of the newest call of `bash`, from the record.
pub(crate) fn outcome(server: &Running, home: &Home, key: &str) -> serde_json::Value {
    let listed =
        server.client(home, key, &["--json", "audit", "list", "--action", "tool.call", "--limit", "50"]).good();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let events = listed.as_array().or_else(|| listed["result"].as_array()).or_else(|| listed["events"].as_array());
    let events = events.unwrap_or_else(|| panic!("{listed}"));
    events.iter().find(|event| event["phase"] == "outcome").unwrap_or_else(|| panic!("{listed}")).clone()
}

#[test]
fn b09_the_record_of_a_command_holds_the_receipt_of_its_walls() {
    let home = Home::new();
    let (server, alice) = server(&home, "[sandbox]\nallow_host = true\n");
    let folder = home.path(".").canonicalize().unwrap();
    for (name, frontmatter) in [
        ("linux", "sandbox: { backend: linux }\n"),
        ("virtual", "sandbox: { backend: virtual }\n"),
        ("host", "sandbox: { mode: off }\n"),
    ] {
        agent(&server, &home, &alice, name, frontmatter);
        server.talk(&home, &alice, &["chat", "--agent", name], "where\n").good();
        let event = outcome(&server, &home, &alice);
        let receipt = &event["detail"]["sandbox"];
        assert_eq!(receipt["backend"], name, "{event}");
        if name == "host" {
            assert_eq!(*receipt, serde_json::json!({ "backend": "host", "walls": "none" }));
            continue;
        }
        assert_eq!((&receipt["seccomp"]["mode"], &receipt["no_new_privs"]), (&2.into(), &1.into()), "{event}");
        assert_eq!(receipt["capabilities"], 0, "{event}");
        assert!(receipt["uid"].as_u64().unwrap() > 0, "{event}");
        assert!(receipt["rlimits"]["Max open files"].as_u64().unwrap() > 0, "{event}");
        // Facts alone: no path of the host, no account, no user.
        let text = receipt.to_string();
        for hidden in [folder.to_str().unwrap(), "acme", "alice", "/usr"] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
    }
    server.client(&home, &alice, &["audit", "verify"]).good();
}

/// The most memory that a process ever had, KiB.
fn peak(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
