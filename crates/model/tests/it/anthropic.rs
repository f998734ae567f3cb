//! The Messages API.

use bailiwick_model::{
    AssistantMessage, AssistantPart, Blob, Finish, Message, ModelError, Outcome, RequestProblem, ToolCall, ToolChoice,
    ToolInput, ToolResult, Usage, UserPart, WireFormat,
};
use bailiwick_testkit::fake_model::{FakeAnthropic, FakeUsage, Reply};
use serde_json::{Value, json};

use crate::support::{Got, KEY, ask, call, calls, continued, provider, said, stored, tool};

async fn start() -> (FakeAnthropic, bailiwick_model::Provider) {
    let fake = FakeAnthropic::start().await;
    fake.require_key(KEY);
    let provider = provider("anthropic", &fake.base_url(), json!({}));
    (fake, provider)
}

#[tokio::test]
async fn a_text_streams_and_its_numbers_are_ours() {
    let (fake, provider) = start().await;
    let usage = FakeUsage { input: 7, output: 21, cache_read: 100, cache_write: 30 };
    fake.push(Reply::text("Grüße aus dem Modell 🦀.").usage(usage));
    let mut request = ask("hello");
    request.instructions = "Be kind.".into();
    let got = call(&provider, &request).await;
    assert_eq!(got.text(), "Grüße aus dem Modell 🦀.");
    assert!(got.events.len() > 2, "it did not stream: {:?}", got.events);
    let done = got.done();
    assert_eq!(done.message.parts, vec![said("Grüße aus dem Modell 🦀.")]);
    assert_eq!(done.finish, Finish::Stop);
    let ours = Usage { input_tokens: 137, output_tokens: 21, cache_read_tokens: 100, cache_write_tokens: 30 };
    assert_eq!(done.usage, ours);
    assert_eq!(done.request_id.as_deref(), Some("req_fake_1"));
    let sent = &fake.requests()[0];
    assert_eq!(sent.headers["anthropic-version"], "2023-06-01");
    assert!(sent.headers["user-agent"].to_str().unwrap().starts_with("bailiwick/"));
    assert_eq!(sent.body["system"][0]["text"], "Be kind.");
    assert_eq!(sent.body["max_tokens"], 8_192);
}

#[tokio::test]
async fn parallel_tools_and_thinking_go_back_exactly_as_they_came() {
    let (fake, provider) = start().await;
    fake.push(
        Reply::answer()
            .and_thinking("two files are needed")
            .and_redacted_thinking("opaque==")
            .and_text("Reading both.")
            .and_tool("read_file", json!({ "path": "a.txt" }))
            .and_tool("read_file", json!({ "path": "ü/b.txt", "limit": 3 })),
    );
    let mut request = ask("compare");
    request.tools = vec![tool("read_file"), tool("bash")];
    let first = call(&provider, &request).await;
    assert_eq!(first.reasoning(), "two files are needed");
    let answer = stored(&first.done().message);
    assert_eq!(first.done().finish, Finish::ToolCalls);
    let asked = calls(&answer);
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].id, asked[1].id);
    assert_eq!(asked[1].input, ToolInput::Json(json!({ "path": "ü/b.txt", "limit": 3 })));
    assert_eq!(first.tool_input(&asked[0].id), r#"{"path":"a.txt"}"#);

    // The fake checks each signature, each pairing and the order.
    fake.push(Reply::text("They are the same."));
    let second = call(&provider, &continued(&request, &answer, "content")).await;
    assert_eq!(second.done().finish, Finish::Stop, "{second:?}");
    let sent = fake.last_body();
    let blocks = sent["messages"][1]["content"].as_array().unwrap();
    assert_eq!(blocks[0]["thinking"], "two files are needed");
    assert_eq!(blocks[1], json!({ "type": "redacted_thinking", "data": "opaque==" }));
    assert_eq!(sent["messages"][2]["content"][1]["tool_use_id"], asked[1].id.as_str());
}

#[tokio::test]
async fn thinking_that_was_changed_is_refused_by_the_far_side() {
    // The positive control of the test above: the fake does look at signatures.
    let (fake, provider) = start().await;
    fake.push(Reply::answer().and_thinking("plan").and_tool("bash", json!({})));
    let mut request = ask("go");
    request.tools = vec![tool("bash")];
    let mut answer = call(&provider, &request).await.done().message.clone();
    answer.raw.as_mut().unwrap().blocks[0]["thinking"] = json!("another plan");
    let refused = call(&provider, &continued(&request, &answer, "x")).await;
    let ModelError::Rejected { status: 400, message } = refused.error() else { panic!("{refused:?}") };
    assert!(message.as_str().contains("signature"), "{message:?}");
}

#[tokio::test]
async fn another_models_blocks_are_rebuilt_from_their_parts_without_the_thinking() {
    let (fake, provider) = start().await;
    fake.push(Reply::answer().and_thinking("hm").and_text("I look.").and_tool("bash", json!({ "path": "x" })));
    let mut request = ask("go");
    request.tools = vec![tool("bash")];
    let mut answer = call(&provider, &request).await.done().message.clone();
    answer.raw.as_mut().unwrap().format = WireFormat::OpenaiResponses;
    fake.push(Reply::text("done"));
    call(&provider, &continued(&request, &answer, "ok")).await.done();
    let kinds = |body: &Value| -> Vec<String> {
        let blocks = body["messages"][1]["content"].as_array().unwrap();
        blocks.iter().map(|block| block["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&fake.last_body()), ["text", "tool_use"]);
    // Another model of the same provider, too.
    answer.raw.as_mut().unwrap().format = WireFormat::AnthropicMessages;
    let mut other = continued(&request, &answer, "ok");
    other.model = "m2".into();
    fake.push(Reply::text("done"));
    call(&provider, &other).await.done();
    assert_eq!(kinds(&fake.last_body()), ["text", "tool_use"]);
}

#[tokio::test]
async fn odd_calls_are_kept_and_do_not_break_the_session() {
    let (fake, provider) = start().await;
    fake.push(
        Reply::answer()
            .and_odd_tool("toolu_1", "functions.bash:0", r#"{"path": "#)
            .and_odd_tool("toolu_2", "bash", "")
            .and_odd_tool("toolu_3", "bash", "[1]"),
    );
    let mut request = ask("go");
    request.tools = vec![tool("bash")];
    let answer = stored(&call(&provider, &request).await.done().message);
    let asked = calls(&answer);
    assert_eq!(asked[0].name, "functions.bash:0");
    assert_eq!(asked[0].input, ToolInput::Text(r#"{"path": "#.into()));
    assert_eq!(asked[1].input, ToolInput::Json(json!({})));
    assert_eq!(asked[2].input, ToolInput::Json(json!([1])));
    fake.push(Reply::text("sorry"));
    call(&provider, &continued(&request, &answer, "not valid")).await.done();
    let sent = fake.last_body();
    assert_eq!(sent["messages"][1]["content"][0]["name"], "functions_bash_0");
    assert_eq!(sent["messages"][1]["content"][0]["input"], json!({ "unparsable_input": "{\"path\": " }));
}

#[tokio::test]
async fn ids_of_other_providers_get_a_shape_that_is_taken() {
    let (fake, provider) = start().await;
    let odd = ToolCall { id: "functions.bash:0".into(), name: "bash".into(), input: ToolInput::Json(json!({})) };
    let answer = AssistantMessage { parts: vec![AssistantPart::ToolCall(odd)], raw: None };
    fake.push(Reply::text("fine"));
    call(&provider, &continued(&ask("go"), &answer, "ok")).await.done();
}

#[tokio::test]
async fn pictures_documents_and_failed_results_have_their_forms() {
    let (fake, provider) = start().await;
    fake.push(Reply::tool("bash", json!({})));
    let part = |media: &str, bytes: &'static [u8]| UserPart::Document {
        media_type: media.into(),
        name: "doc".into(),
        bytes: Blob::from(bytes),
    };
    let mut request = ask("look");
    request.tools = vec![tool("bash")];
    request.messages = vec![Message::User(vec![
        UserPart::Text(String::new()),
        UserPart::Image { media_type: "image/png".into(), bytes: Blob::from(&b"\x89PNG"[..]) },
        part("application/pdf", b"%PDF"),
        part("text/markdown", b"# hi"),
    ])];
    let answer = call(&provider, &request).await.done().message.clone();
    let mut next = continued(&request, &answer, "no such command");
    if let Some(Message::ToolResults(results)) = next.messages.last_mut() {
        results[0].outcome = Outcome::Failed;
    }
    next.messages.push(Message::user("and now?"));
    fake.push(Reply::text("ok"));
    call(&provider, &next).await.done();
    let sent = fake.last_body();
    let first = &sent["messages"][0]["content"];
    assert_eq!(first.as_array().unwrap().len(), 3);
    assert_eq!(first[0]["source"]["data"], "iVBORw==");
    assert_eq!(first[2]["source"], json!({ "type": "text", "media_type": "text/plain", "data": "# hi" }));
    // Results and the user's next words are one message of the API.
    assert_eq!(sent["messages"][2]["content"][0]["is_error"], true);
    assert_eq!(sent["messages"][2]["content"][1]["text"], "and now?");

    request.messages = vec![Message::User(vec![part("application/zip", b"PK")])];
    let before = fake.requests().len();
    let refused = call(&provider, &request).await;
    assert_eq!(refused.error(), &ModelError::Invalid(RequestProblem::MediaType { index: 0 }));
    assert_eq!(fake.requests().len(), before);
}

#[tokio::test]
async fn the_ends_of_what_stays_the_same_are_marked_for_the_cache() {
    let (fake, cached) = start().await;
    let plain = provider("anthropic", &fake.base_url(), json!({ "prompt_cache": "off" }));
    let mut request = ask("hi");
    request.instructions = "Be brief.".into();
    request.tools = vec![tool("a"), tool("b")];
    fake.always(Reply::text("hi"));
    call(&cached, &request).await.done();
    let sent = fake.last_body();
    let mark = json!({ "type": "ephemeral" });
    assert_eq!(sent["tools"][1]["cache_control"], mark);
    assert!(sent["tools"][0].get("cache_control").is_none());
    assert_eq!(sent["system"][0]["cache_control"], mark);
    assert_eq!(sent["messages"][0]["content"][0]["cache_control"], mark);
    call(&plain, &request).await.done();
    assert!(!fake.last_body().to_string().contains("cache_control"));
}

#[tokio::test]
async fn thinking_schema_and_tool_choice_are_asked_for_in_the_apis_words() {
    let (fake, plain) = start().await;
    let budget = provider("anthropic", &fake.base_url(), json!({ "thinking_budget_tokens": 4_000 }));
    let effort = provider("anthropic", &fake.base_url(), json!({ "effort": "high" }));
    fake.always(Reply::text("{}"));
    let mut request = ask("hi");
    request.max_output_tokens = 1_000;
    request.output_schema = Some(json!({ "type": "object" }));
    call(&budget, &request).await.done();
    assert_eq!(fake.last_body()["thinking"], json!({ "type": "enabled", "budget_tokens": 4_000 }));
    assert_eq!(fake.last_body()["max_tokens"], 5_000);
    call(&effort, &request).await.done();
    let config = &fake.last_body()["output_config"];
    assert_eq!(config["effort"], "high");
    assert_eq!(config["format"], json!({ "type": "json_schema", "schema": { "type": "object" } }));
    request.tools = vec![tool("a")];
    request.tool_choice = ToolChoice::Required;
    call(&effort, &request).await.done();
    assert!(fake.last_body().get("thinking").is_none());
    let choices = [
        (ToolChoice::Auto, Value::Null),
        (ToolChoice::Required, json!({ "type": "any" })),
        (ToolChoice::Never, json!({ "type": "none" })),
        (ToolChoice::Named("a".into()), json!({ "type": "tool", "name": "a" })),
    ];
    for (choice, wire) in choices {
        request.tool_choice = choice;
        call(&plain, &request).await.done();
        assert_eq!(fake.last_body()["tool_choice"], wire);
    }
}

#[tokio::test]
async fn reasons_to_stop_are_translated() {
    let (fake, provider) = start().await;
    for (reason, finish) in [
        ("end_turn", Finish::Stop),
        ("stop_sequence", Finish::Stop),
        ("max_tokens", Finish::Length),
        ("model_context_window_exceeded", Finish::Length),
        ("refusal", Finish::ContentFilter),
        ("pause_turn", Finish::Other),
        ("something_new", Finish::Other),
    ] {
        fake.push(Reply::text("x").finish(reason));
        assert_eq!(call(&provider, &ask("hi")).await.done().finish, finish, "{reason}");
    }
}

#[tokio::test]
async fn unknown_events_and_fields_are_passed_over_and_unknown_blocks_are_kept() {
    let (fake, provider) = start().await;
    let block = json!({ "type": "server_thing", "id": "srv_1", "input": {}, "nested": { "x": [1] } });
    let start = json!({ "type": "content_block_start", "index": 7, "content_block": block, "new_field": true });
    let input = json!({ "type": "content_block_delta", "index": 7, "delta": { "type": "input_json_delta", "partial_json": "{\"q\":1}" } });
    let strange = json!({ "type": "content_block_delta", "index": 7, "delta": { "type": "strange_delta", "z": 1 } });
    fake.push(Reply::text("hi").insert_after(
        2,
        &format!(
            ": comment\n\nevent: brand_new\ndata: {{\"type\":\"brand_new\",\"a\":1}}\n\n\
             data: {start}\n\ndata: {input}\n\ndata: {strange}\n\n"
        ),
    ));
    let got = call(&provider, &ask("hi")).await;
    assert_eq!(got.text(), "hi");
    let raw = got.done().message.raw.clone().unwrap();
    let kept = json!({ "type": "server_thing", "id": "srv_1", "input": { "q": 1 }, "nested": { "x": [1] } });
    assert_eq!(raw.blocks[1], kept);
    assert_eq!(got.done().message.parts, vec![said("hi")]);
}

#[tokio::test]
async fn an_answer_that_breaks_the_api_is_an_error_and_not_a_guess() {
    let (fake, provider) = start().await;
    let what = |got: Got| match got.error() {
        ModelError::Protocol { what } => *what,
        other => panic!("{other:?}"),
    };
    let delta = r#"data: {"type":"content_block_delta","index":9,"delta":{"type":"text_delta","text":"x"}}"#;
    for (inserted, part_of_reason) in [
        ("data: {not json\n\n".to_owned(), "JSON"),
        (format!("{delta}\n\n"), "has not started"),
        ("data: {\"type\":\"message_stop\"}\n\n".to_owned(), "reason to stop"),
    ] {
        fake.push(Reply::text("hi").insert_after(2, &inserted));
        let what = what(call(&provider, &ask("hi")).await);
        assert!(what.contains(part_of_reason), "{what}");
    }
    fake.push(Reply::answer().and_odd_tool("t", "a", "{}").and_odd_tool("t", "b", "{}"));
    assert!(what(call(&provider, &ask("hi")).await).contains("id of its own"));
}

#[tokio::test]
async fn the_request_is_checked_before_anything_is_sent() {
    let (fake, provider) = start().await;
    let mut request = ask("go");
    request.messages.push(Message::ToolResults(vec![ToolResult {
        call_id: "x".into(),
        name: "t".into(),
        content: String::new(),
        outcome: Outcome::Succeeded,
    }]));
    let got = call(&provider, &request).await;
    assert_eq!(got.error(), &ModelError::Invalid(RequestProblem::ResultsWithoutCalls { index: 1 }));
    assert!(fake.requests().is_empty());
    fake.push(Reply::text("hi"));
    call(&provider, &ask("go")).await.done();
}
