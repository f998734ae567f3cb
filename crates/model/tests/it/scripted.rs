//! The scripted model.

use std::time::{Duration, Instant};

use bailiwick_model::{
    Config, Finish, Message, ModelError, Provider, Request, Script, ScriptFailure, ToolInput, Usage,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{ask, at_once, call, call_with, calls, continued, stored, transport};

const DEMO: &str = r#"
turns:
  - when: { tool_result: "denied" }
    steps: [{ text: "Then I will not." }]
  - when: { user: "deploy" }
    steps:
      - reasoning: "A file first."
        text: "I will write the file."
        tools:
          - { name: write_file, input: { path: notes.txt, content: "for {{user}}", mode: 420, tags: ["{{turn}}"] } }
          - { name: bash }
      - text: "Done: {{last_tool_result}} / {{tool_result:write_file}} / {{tool_result:none}}"
  - when: { user_regex: "^[0-9]+$", turn: 2 }
    repeat: last
    steps: [{ text: "a number", usage: { input_tokens: 9, output_tokens: 1 }, finish: length }]
  - when: { user: "fail" }
    steps: [{ text: "half", fail: { status: 429, message: "slow", retry_after_seconds: 7 } }]
  - when: { user: "loop" }
    repeat: all
    steps: [{ tools: [{ name: bash }] }, { text: "two" }]
  - default: true
    steps: [{ text: "I heard: {{user}}" }]
"#;

fn scripted(text: &str) -> Provider {
    Provider::scripted(Script::parse("demo.yaml", text).unwrap())
}

fn problem(text: &str) -> String {
    Script::parse("demo.yaml", text).unwrap_err().to_string()
}

#[tokio::test]
async fn steps_follow_from_the_conversation_alone() {
    let request = ask("please deploy");
    // A new provider for each step, as after a restart.
    let first = call(&scripted(DEMO), &request).await;
    assert_eq!((first.reasoning().as_str(), first.text().as_str()), ("A file first.", "I will write the file."));
    assert_eq!(first.done().finish, Finish::ToolCalls);
    let answer = stored(&first.done().message);
    let asked = calls(&answer);
    assert_eq!((asked[0].id.as_str(), asked[1].id.as_str()), ("call_t1_s1_1", "call_t1_s1_2"));
    let input = json!({ "path": "notes.txt", "content": "for please deploy", "mode": 420, "tags": ["1"] });
    assert_eq!(asked[0].input, ToolInput::Json(input.clone()));
    assert_eq!(first.tool_input("call_t1_s1_1"), input.to_string());
    assert_eq!(asked[1].input, ToolInput::Json(json!({})));

    let next = continued(&request, &answer, "wrote {{turn}}");
    let second = call(&scripted(DEMO), &next).await;
    assert_eq!(second.text(), "Done: wrote {{turn}} / wrote {{turn}} / ");
    assert_eq!(second.done().finish, Finish::Stop);

    let mut later = continued(&next, &second.done().message, "");
    later.messages.push(Message::user("deploy again"));
    assert_eq!(calls(&call(&scripted(DEMO), &later).await.done().message)[0].id, "call_t2_s1_1");
    // The same conversation has the same answer.
    assert_eq!(call(&scripted(DEMO), &later).await.end, call(&scripted(DEMO), &later).await.end);
}

#[tokio::test]
async fn the_first_entry_that_fits_answers() {
    let provider = scripted(DEMO);
    assert_eq!(call(&provider, &ask("hello")).await.text(), "I heard: hello");
    assert_eq!(call(&provider, &ask("42")).await.text(), "I heard: 42");
    let first = call(&provider, &ask("hello")).await.done().message.clone();
    let mut second = continued(&ask("hello"), &first, "");
    second.messages.push(Message::user("42"));
    let got = call(&provider, &second).await;
    assert_eq!((got.text().as_str(), got.done().finish), ("a number", Finish::Length));
    assert_eq!(got.done().usage, Usage { input_tokens: 9, output_tokens: 1, ..Usage::default() });

    let asked = call(&provider, &ask("deploy")).await.done().message.clone();
    let denied = continued(&ask("deploy"), &asked, "denied by a person");
    assert_eq!(call(&provider, &denied).await.text(), "Then I will not.");
}

#[tokio::test]
async fn steps_that_are_used_up_repeat_or_fail() {
    let provider = scripted(DEMO);
    let mut request = ask("loop");
    for _ in 0..2 {
        let answer = call(&provider, &request).await.done().message.clone();
        assert_eq!(answer.tool_calls().count(), 1);
        request = continued(&request, &answer, "ok");
        assert_eq!(call(&provider, &request).await.text(), "two");
        let again = "turns: [{ default: true, steps: [{ tools: [{ name: bash }] }] }]";
        let asked = call(&scripted(again), &ask("x")).await.done().message.clone();
        request = continued(&request, &asked, "ok");
    }
    let deploy = call(&provider, &ask("deploy")).await.done().message.clone();
    let twice = continued(&continued(&ask("deploy"), &deploy, "ok"), &deploy, "ok");
    let got = call(&provider, &twice).await;
    assert_eq!(got.error(), &ModelError::Script(ScriptFailure::NoStep { entry: 2, steps: 2, step: 3 }));
    let none = scripted("turns: [{ when: { user: xyz }, steps: [{ text: a }] }]");
    let got = call(&none, &ask("hello")).await;
    assert_eq!(got.error(), &ModelError::Script(ScriptFailure::NoEntry { turn: 1, step: 1 }));
}

#[tokio::test]
async fn failures_pieces_and_pauses_are_played() {
    let got = call(&scripted(DEMO), &ask("fail")).await;
    assert_eq!(got.text(), "half");
    assert_eq!(got.error(), &ModelError::RateLimited { retry_after: Some(Duration::from_secs(7)) });
    let slow = scripted("{ delay_ms: 20, chunk_chars: 2, turns: [{ default: true, steps: [{ text: \"größe\" }] }] }");
    let begun = Instant::now();
    let got = call(&slow, &ask("x")).await;
    assert_eq!((got.events.len(), got.text().as_str()), (3, "größe"));
    assert!(begun.elapsed() >= Duration::from_millis(80), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn canceling_ends_a_pause() {
    let slow = scripted("turns: [{ default: true, steps: [{ text: hi, delay_ms: 600000 }] }]");
    let cancel = CancellationToken::new();
    let waiting = tokio::spawn({
        let cancel = cancel.clone();
        async move { call_with(&slow, &ask("x"), cancel).await }
    });
    tokio::task::yield_now().await;
    cancel.cancel();
    assert_eq!(at_once(waiting).await.unwrap().error(), &ModelError::Canceled);
}

#[tokio::test]
async fn a_conversation_that_a_real_api_refuses_is_refused_here_too() {
    let provider = scripted(DEMO);
    let answer = call(&provider, &ask("deploy")).await.done().message.clone();
    let broken = Request::new("m", vec![Message::user("deploy"), Message::Assistant(answer), Message::user("now")]);
    assert!(matches!(call(&provider, &broken).await.error(), ModelError::Invalid(_)));
}

#[tokio::test]
async fn a_script_is_loaded_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.yaml");
    std::fs::write(&path, DEMO).unwrap();
    let build = |path: &std::path::Path| {
        let config: Config = serde_json::from_value(json!({ "provider": "scripted", "script": path })).unwrap();
        Provider::new(&config, transport())
    };
    assert_eq!(call(&build(&path).unwrap(), &ask("hi")).await.text(), "I heard: hi");
    let missing = build(&folder.path().join("none.yaml")).unwrap_err().to_string();
    assert!(missing.contains("none.yaml"), "{missing}");
    std::fs::write(&path, "#".repeat(1_100_000)).unwrap();
    assert!(build(&path).unwrap_err().to_string().contains("1 MiB"));
}

#[test]
fn mistakes_name_the_file_the_line_and_the_cure() {
    let cases = [
        ("turns:\n  - default: true\n    stepz: []\n", "demo.yaml:3:", "stepz"),
        ("turns:\n  - default: true\n    steps:\n      - text: \"{{usr}}\"\n", "demo.yaml:4:", "last_tool_result"),
        ("turns:\n  - when: { user_regex: \"(\" }\n    steps: [{ text: a }]\n", "demo.yaml:2:", "regular expression"),
        ("turns: [{ default: true, steps: [{ tools: [{ name: a, input: [1] }] }] }]", "demo.yaml:1:", "mapping"),
        ("turns: [", "demo.yaml:", ""),
        ("turns: []", "entry 1", "at least one entry"),
        ("turns: [{ steps: [{ text: a }] }]", "entry 1", "either `when` or `default: true`"),
        ("turns: [{ when: {}, steps: [{ text: a }] }]", "entry 1", "at least one condition"),
        ("turns: [{ default: false, steps: [{ text: a }] }]", "entry 1", "either `when` or"),
        ("turns: [{ default: true, steps: [] }]", "entry 1", "at least one step"),
        ("turns: [{ default: true, steps: [{ reasoning: a }] }]", "entry 1", "`text`, `tools` or `fail`"),
        ("turns: [{ default: true, steps: [{ fail: { status: 200 } }] }]", "entry 1", "between 400 and 599"),
        ("turns: [{ when: { step: 1 }, steps: [{ text: a }, { text: b }] }]", "entry 1", "exactly one step"),
        ("turns: [{ when: { turn: 0 }, steps: [{ text: a }] }]", "entry 1", "from 1"),
        ("{ chunk_chars: 0, turns: [{ default: true, steps: [{ text: a }] }] }", "entry 1", "chunk_chars"),
        (
            "turns: [{ default: true, steps: [{ text: a }] }, { when: { user: b }, steps: [{ text: c }] }]",
            "entry 1",
            "move it to the end",
        ),
    ];
    for (text, place, cure) in cases {
        let problem = problem(text);
        assert!(
            problem.contains("demo.yaml") && problem.contains(place) && problem.contains(cure),
            "{text}\n{problem}"
        );
    }
}
