//! Chat Completions.

use bailiwick_model::{Blob, Finish, Message, ModelError, Outcome, ToolChoice, ToolInput, Usage, UserPart};
use bailiwick_testkit::fake_model::{FakeOpenAi, FakeUsage, Reply};
use serde_json::{Value, json};

use crate::support::{KEY, ask, call, calls, continued, provider, said, stored, tool};

async fn start() -> (FakeOpenAi, bailiwick_model::Provider) {
    let fake = FakeOpenAi::start().await;
    fake.require_key(KEY);
    let provider = provider("openai", &format!("{}/v1/", fake.base_url()), json!({}));
    (fake, provider)
}

/// A stream of these chunks, as a server that takes the format lightly sends them.
fn chunks(chunks: &[Value]) -> Reply {
    let body: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    Reply::raw(200, "text/event-stream", body)
}

fn delta(delta: Value) -> Value {
    json!({ "choices": [{ "index": 0, "delta": delta }] })
}

fn stop(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}

#[tokio::test]
async fn a_text_streams_and_its_numbers_are_ours() {
    let (fake, provider) = start().await;
    fake.push(Reply::text("Hallo, größte Welt").usage(FakeUsage {
        input: 7,
        output: 9,
        cache_read: 64,
        cache_write: 0,
    }));
    let mut request = ask("hello");
    request.instructions = "Be kind.".into();
    let got = call(&provider, &request).await;
    assert_eq!(got.text(), "Hallo, größte Welt");
    assert_eq!(got.done().message.parts, vec![said("Hallo, größte Welt")]);
    let ours = Usage { input_tokens: 71, output_tokens: 9, cache_read_tokens: 64, cache_write_tokens: 0 };
    assert_eq!(got.done().usage, ours);
    assert_eq!(got.done().request_id.as_deref(), Some("req_fake_1"));
    let sent = fake.last_body();
    assert_eq!(sent["messages"][0], json!({ "role": "system", "content": "Be kind." }));
    assert_eq!(sent["messages"][1], json!({ "role": "user", "content": "hello" }));
    assert_eq!(sent["stream_options"], json!({ "include_usage": true }));
}

#[tokio::test]
async fn parallel_tools_go_back_with_the_servers_own_fields() {
    let (fake, provider) = start().await;
    fake.push(
        Reply::answer()
            .and_thinking("both at once")
            .and_tool("read_file", json!({ "path": "a" }))
            .and_tool("bash", json!({ "path": "b" })),
    );
    let mut request = ask("go");
    request.tools = vec![tool("read_file"), tool("bash")];
    let first = call(&provider, &request).await;
    assert_eq!(first.reasoning(), "both at once");
    assert_eq!(first.done().finish, Finish::ToolCalls);
    let answer = stored(&first.done().message);
    let asked = calls(&answer);
    assert_eq!(asked[1].input, ToolInput::Json(json!({ "path": "b" })));
    assert_eq!(first.tool_input(&asked[1].id), r#"{"path":"b"}"#);

    fake.push(Reply::text("done"));
    let next = continued(&request, &answer, "ok");
    let second = call(&provider, &next).await;
    assert_eq!(second.done().finish, Finish::Stop);
    assert_eq!(fake.last_body()["messages"][1]["reasoning_content"], "both at once");
    assert_eq!(fake.last_body()["messages"][3]["tool_call_id"], asked[1].id.as_str());

    // In the next turn the server's own fields stay at home: some refuse them there.
    let mut later = continued(&next, &second.done().message, "");
    later.messages.push(Message::user("thanks"));
    fake.push(Reply::text("welcome"));
    call(&provider, &later).await.done();
    assert!(fake.last_body()["messages"][1].get("reasoning_content").is_none());
    assert_eq!(fake.last_body()["messages"][1]["tool_calls"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn odd_calls_are_kept_and_do_not_break_the_session() {
    let (fake, provider) = start().await;
    fake.push(Reply::answer().and_odd_tool("c1", "a b", "{\"path\":").and_odd_tool("c2", "bash", ""));
    let mut request = ask("go");
    request.tools = vec![tool("bash")];
    let answer = stored(&call(&provider, &request).await.done().message);
    let asked = calls(&answer);
    assert_eq!((asked[0].name.as_str(), &asked[0].input), ("a b", &ToolInput::Text("{\"path\":".into())));
    assert_eq!(asked[1].input, ToolInput::Json(json!({})));
    let mut next = continued(&request, &answer, "bad arguments");
    if let Some(Message::ToolResults(results)) = next.messages.last_mut() {
        results[0].outcome = Outcome::Failed;
    }
    fake.push(Reply::text("sorry"));
    call(&provider, &next).await.done();
    assert_eq!(fake.last_body()["messages"][2]["content"], "The tool call failed.\nbad arguments");
}

#[tokio::test]
async fn servers_that_take_the_format_lightly_are_understood() {
    let (fake, provider) = start().await;
    // No index, no id, arguments as an object, finish `stop`, no `[DONE]`, unknown fields.
    fake.push(chunks(&[
        delta(json!({ "role": "assistant", "reasoning": "hm", "x_list": [1] })),
        delta(json!({ "x_list": [2], "tool_calls": [{ "function": { "name": "a", "arguments": { "k": 1 } }, "extra_content": { "sig": "s" } }] })),
        delta(json!({ "tool_calls": [{ "id": "own", "function": { "name": "b", "arguments": "{\"k\"" } }] })),
        delta(json!({ "tool_calls": [{ "id": "own", "function": { "name": "b", "arguments": ":2}" } }] })),
        stop("stop"),
    ]));
    let got = call(&provider, &ask("go")).await;
    let done = got.done();
    assert_eq!(done.finish, Finish::ToolCalls);
    let asked = calls(&done.message);
    assert_eq!(asked[0].input, ToolInput::Json(json!({ "k": 1 })));
    assert_eq!((asked[1].id.as_str(), asked[1].name.as_str()), ("own", "b"));
    assert_eq!(asked[1].input, ToolInput::Json(json!({ "k": 2 })));
    let raw = &done.message.raw.as_ref().unwrap().blocks[0];
    assert_eq!(raw["x_list"], json!([1, 2]));
    assert_eq!(raw["reasoning"], "hm");
    assert_eq!(raw["tool_calls"][0]["extra_content"], json!({ "sig": "s" }));
}

#[tokio::test]
async fn reasons_to_stop_and_refusals_are_translated() {
    let (fake, provider) = start().await;
    for (reason, finish) in [
        ("stop", Finish::Stop),
        ("length", Finish::Length),
        ("content_filter", Finish::ContentFilter),
        ("function_call", Finish::ToolCalls),
        ("new_reason", Finish::Other),
    ] {
        fake.push(Reply::text("x").finish(reason));
        assert_eq!(call(&provider, &ask("hi")).await.done().finish, finish, "{reason}");
    }
    fake.push(Reply::answer().and_refusal("I will not."));
    let refused = call(&provider, &ask("hi")).await;
    assert_eq!(refused.done().finish, Finish::ContentFilter);
    assert_eq!(refused.text(), "I will not.");
}

#[tokio::test]
async fn an_error_in_the_stream_is_told_apart_from_a_cut() {
    let (fake, provider) = start().await;
    fake.push(Reply::text("some longer text").error_after(3, "server_error", "boom"));
    assert_eq!(call(&provider, &ask("hi")).await.error(), &ModelError::Unavailable { status: 500 });
    fake.push(Reply::text("some longer text").error_after(3, "context_length_exceeded", "too long"));
    let refused = call(&provider, &ask("hi")).await;
    assert!(matches!(refused.error(), ModelError::Rejected { status: 400, .. }), "{refused:?}");
    fake.push(chunks(&[delta(json!({ "content": "x" })), json!({ "error": "plain words" })]));
    assert_eq!(call(&provider, &ask("hi")).await.error(), &ModelError::Unavailable { status: 500 });
    fake.push(chunks(&[delta(json!({ "content": "x" })), json!({ "error": { "code": 403, "message": "no" } })]));
    assert!(matches!(call(&provider, &ask("hi")).await.error(), ModelError::Rejected { status: 403, .. }));
    fake.push(chunks(&[delta(json!({ "content": "half" }))]));
    let cut = call(&provider, &ask("hi")).await;
    assert_eq!((cut.text().as_str(), cut.error()), ("half", &ModelError::Interrupted));
}

#[tokio::test]
async fn schema_choice_effort_and_attachments_have_their_forms() {
    let (fake, _) = start().await;
    let provider = provider("openai", &fake.base_url(), json!({ "effort": "low" }));
    fake.always(Reply::text("{}"));
    let closed = json!({ "type": "object", "properties": {}, "additionalProperties": false, "required": [] });
    let mut request = ask("hi");
    request.output_schema = Some(closed.clone());
    call(&provider, &request).await.done();
    let sent = fake.last_body();
    assert_eq!(sent["reasoning_effort"], "low");
    let format = json!({ "name": "answer", "schema": closed, "strict": true });
    assert_eq!(sent["response_format"]["json_schema"], format);
    request.output_schema = Some(json!({ "type": "object" }));
    request.tools = vec![tool("a")];
    request.tool_choice = ToolChoice::Named("a".into());
    request.messages = vec![Message::User(vec![
        UserPart::Text("look".into()),
        UserPart::Image { media_type: "image/png".into(), bytes: Blob::from(&b"\x89PNG"[..]) },
        UserPart::Document { media_type: "text/plain".into(), name: "n.txt".into(), bytes: Blob::from(&b"hi"[..]) },
    ])];
    call(&provider, &request).await.done();
    let sent = fake.last_body();
    assert_eq!(sent["response_format"]["json_schema"]["strict"], false);
    assert_eq!(sent["tool_choice"], json!({ "type": "function", "function": { "name": "a" } }));
    let content = &sent["messages"][0]["content"];
    assert_eq!(content[1]["image_url"]["url"], "data:image/png;base64,iVBORw==");
    assert_eq!(content[2]["text"], "Document n.txt:\nhi");
}
