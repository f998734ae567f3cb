//! Chat where the input is no terminal: one message a line, answers to approvals too.

use serde_json::Value;

use crate::support::{Home, Running};

const SCRIPT: &str = "turns:\n\
    \x20 - when: { user: write }\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: write_file, input: { path: out.txt, content: done } }]\n\
    \x20     - text: \"The tool said {{last_tool_result}}\"\n\
    \x20 - when: { user: colour }\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: ask_question, input: { question: \"Which?\", options: [{ label: Red }, { label: Blue }] } }]\n\
    \x20     - text: \"You chose {{last_tool_result}}\"\n\
    \x20 - when: { user: fail }\n\
    \x20   steps: [{ fail: { status: 400, message: \"broken on purpose\" } }]\n\
    \x20 - default: true\n\
    \x20   repeat: last\n\
    \x20   steps: [{ text: \"I heard: {{user}}\" }]\n";

fn with_careful_agent(home: &Home) -> (Running, String) {
    let server = home.serve(SCRIPT);
    let alice = server.account(home, "acme", "alice");
    let text = "---\ntools: [write_file, ask_question]\nrequire_approval: [write_file]\n---\nWrite.\n";
    home.write("careful/AGENT.md", text, 0o644);
    server.client(home, &alice, &["agent", "put", "careful/AGENT.md"]).good();
    (server, alice)
}

#[test]
fn one_message_a_line_and_the_answers_on_standard_output() {
    let home = Home::new();
    let (server, alice) = with_careful_agent(&home);
    let said = server.talk(&home, &alice, &["chat"], "first\n\n/session\nsecond\n").good();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "I heard: first");
    assert!(lines[1].starts_with("ses_"), "{said}");
    assert_eq!(lines[2], "I heard: second");
    let listed = server.client(&home, &alice, &["session", "list", "--json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "one session");
    let id = lines[1];
    let more = server.client(&home, &alice, &["session", "send", id, "third"]).good();
    assert_eq!(more.trim(), "I heard: third");
}

#[test]
fn t05_approvals_are_answered_by_the_next_line() {
    let home = Home::new();
    let (server, alice) = with_careful_agent(&home);
    let chat = ["chat", "--agent", "careful"];
    let refused = server.talk(&home, &alice, &chat, "write it\nno\n");
    assert!(refused.stderr.contains("rejected:"), "{}", refused.stderr);
    refused.good();
    let approved = server.talk(&home, &alice, &chat, "write it\ny\n");
    assert!(approved.stderr.contains("Approve Write out.txt?"), "{}", approved.stderr);
    assert!(approved.good().contains("The tool said"));
}

#[test]
fn questions_are_answered_by_number() {
    let home = Home::new();
    let (server, alice) = with_careful_agent(&home);
    let done = server.talk(&home, &alice, &["chat", "--agent", "careful"], "which colour\n2\n");
    assert!(done.stderr.contains("2  Blue"), "{}", done.stderr);
    let said = done.good();
    assert!(said.contains("You chose") && said.contains("Blue"), "{said}");
}

#[test]
fn a_failed_turn_is_exit_1_and_json_is_the_protocols_own() {
    let home = Home::new();
    let (server, alice) = with_careful_agent(&home);
    server.talk(&home, &alice, &["chat"], "fail\n").failed(1, &["failed:"]);
    let said = server.talk(&home, &alice, &["chat", "--json"], "hello\n").good();
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "session.started");
    assert_eq!(events.last().unwrap()["type"], "session.waiting");
}

#[test]
fn commands_clear_reset_and_show_the_plan() {
    let home = Home::new();
    let (server, alice) = with_careful_agent(&home);
    let input = "one\n/clear\n/compact\n/plan\n/reset\n/session\n/nonsense\n/help\n/quit\nnever said\n";
    let done = server.talk(&home, &alice, &["chat"], input);
    assert!(done.stderr.contains("the conversation is forgotten"), "{}", done.stderr);
    assert!(done.stderr.contains("/nonsense is no command"), "{}", done.stderr);
    let said = done.good();
    assert!(said.contains("No plan.") && said.contains("No session yet") && said.contains("/compact"), "{said}");
    assert!(!said.contains("never said"), "{said}");
}
