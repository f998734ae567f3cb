//! The Responses API.

use bailiwick_model::{Finish, ModelError, Provider, ToolChoice, ToolInput, Usage};
use bailiwick_testkit::fake_model::{FakeOpenAi, FakeUsage, Reply};
use serde_json::{Value, json};

use crate::support::{KEY, ask, call, calls, continued, provider, said, stored, tool};

async fn start(extra: Value) -> (FakeOpenAi, Provider) {
    let fake = FakeOpenAi::start().await;
    fake.require_key(KEY);
    let mut config = json!({ "api": "responses" });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let provider = provider("openai", &fake.base_url(), config);
    (fake, provider)
}

#[tokio::test]
async fn a_text_streams_and_nothing_is_stored() {
    let (fake, provider) = start(json!({})).await;
    fake.push(Reply::text("Hallo 🌍, wie geht es?").usage(FakeUsage {
        input: 7,
        output: 9,
        cache_read: 64,
        cache_write: 0,
    }));
    let mut request = ask("hello");
    request.instructions = "Be kind.".into();
    let got = call(&provider, &request).await;
    assert_eq!(got.text(), "Hallo 🌍, wie geht es?");
    assert!(got.events.len() > 2);
    assert_eq!(got.done().message.parts, vec![said("Hallo 🌍, wie geht es?")]);
    let ours = Usage { input_tokens: 71, output_tokens: 9, cache_read_tokens: 64, cache_write_tokens: 0 };
    assert_eq!((got.done().usage, got.done().finish), (ours, Finish::Stop));
    let sent = &fake.requests()[0];
    assert_eq!(sent.path, "/v1/responses");
    assert_eq!(sent.body["store"], false);
    assert_eq!(sent.body["instructions"], "Be kind.");
    assert_eq!(sent.body["include"], json!(["reasoning.encrypted_content"]));
}

#[tokio::test]
async fn reasoning_goes_back_exactly_as_it_came() {
    let (fake, provider) = start(json!({ "effort": "medium" })).await;
    fake.push(
        Reply::answer()
            .and_thinking("two files")
            .and_text("Reading.")
            .and_tool("read_file", json!({ "path": "a" }))
            .and_tool("read_file", json!({ "path": "b" })),
    );
    let mut request = ask("go");
    request.tools = vec![tool("read_file")];
    let first = call(&provider, &request).await;
    assert_eq!(first.reasoning(), "two files");
    assert_eq!(first.done().finish, Finish::ToolCalls);
    let answer = stored(&first.done().message);
    let asked = calls(&answer);
    assert_eq!(asked[1].input, ToolInput::Json(json!({ "path": "b" })));
    assert_eq!(first.tool_input(&asked[1].id), r#"{"path":"b"}"#);
    assert_eq!(fake.last_body()["reasoning"], json!({ "effort": "medium", "summary": "auto" }));
    assert_eq!(fake.last_body()["tools"][0]["strict"], false);

    // The fake finds the reasoning item only by its encrypted content.
    fake.push(Reply::text("done"));
    call(&provider, &continued(&request, &answer, "ok")).await.done();
    let sent = fake.last_body();
    assert_eq!(sent["input"][1], answer.raw.as_ref().unwrap().blocks[0]);
    assert_eq!(sent["input"][5]["type"], "function_call_output");

    let mut changed = answer.clone();
    changed.raw.as_mut().unwrap().blocks[0]["encrypted_content"] = json!("forged");
    let refused = call(&provider, &continued(&request, &changed, "ok")).await;
    assert!(matches!(refused.error(), ModelError::Rejected { status: 400, .. }), "{refused:?}");
}

#[tokio::test]
async fn reasoning_that_cannot_come_back_is_left_out() {
    let (fake, provider) = start(json!({ "encrypted_reasoning": "omit" })).await;
    fake.push(Reply::answer().and_thinking("hm").and_tool("bash", json!({})));
    let mut request = ask("go");
    request.tools = vec![tool("bash")];
    let answer = call(&provider, &request).await.done().message.clone();
    assert!(fake.last_body().get("include").is_none());
    fake.push(Reply::text("done"));
    call(&provider, &continued(&request, &answer, "ok")).await.done();
    let sent = fake.last_body();
    assert_eq!(sent["input"][1]["type"], "function_call");
    assert!(sent["input"][1].get("id").is_none());
}

#[tokio::test]
async fn odd_calls_are_kept_and_do_not_break_the_session() {
    let (fake, provider) = start(json!({})).await;
    fake.push(Reply::answer().and_odd_tool("c1", "a.b", "{\"path\":").and_odd_tool("c2", "bash", ""));
    let mut request = ask("go");
    request.tools = vec![tool("bash")];
    let mut answer = stored(&call(&provider, &request).await.done().message);
    assert_eq!(calls(&answer)[0].input, ToolInput::Text("{\"path\":".into()));
    fake.always(Reply::text("sorry"));
    call(&provider, &continued(&request, &answer, "bad")).await.done();
    answer.raw = None;
    call(&provider, &continued(&request, &answer, "bad")).await.done();
    let arguments = fake.last_body()["input"][1]["arguments"].as_str().unwrap().to_owned();
    assert_eq!(arguments, r#"{"unparsable_input":"{\"path\":"}"#);
}

#[tokio::test]
async fn the_ways_to_end_are_told_apart() {
    let (fake, provider) = start(json!({})).await;
    for (reason, finish) in
        [("max_output_tokens", Finish::Length), ("content_filter", Finish::ContentFilter), ("other", Finish::Other)]
    {
        fake.push(Reply::text("x").finish(reason));
        assert_eq!(call(&provider, &ask("hi")).await.done().finish, finish, "{reason}");
    }
    fake.push(Reply::answer().and_refusal("No."));
    let refused = call(&provider, &ask("hi")).await;
    assert_eq!((refused.text().as_str(), refused.done().finish), ("No.", Finish::ContentFilter));
    fake.push(Reply::text("a longer text here").error_after(4, "server_error", "boom"));
    assert_eq!(call(&provider, &ask("hi")).await.error(), &ModelError::Unavailable { status: 500 });
    fake.push(Reply::text("a longer text here").error_after(4, "insufficient_quota", "pay"));
    assert!(matches!(call(&provider, &ask("hi")).await.error(), ModelError::Rejected { status: 429, .. }));
    let plain = "data: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"}\n\n";
    fake.push(Reply::text("a longer text").insert_after(4, plain));
    assert_eq!(call(&provider, &ask("hi")).await.error(), &ModelError::RateLimited { retry_after: None });
}

#[tokio::test]
async fn schema_and_choice_have_their_flat_forms() {
    let (fake, provider) = start(json!({})).await;
    fake.always(Reply::text("{}"));
    let mut request = ask("hi");
    request.max_output_tokens = 5;
    request.output_schema = Some(json!({ "type": "object" }));
    request.tools = vec![tool("a")];
    request.tool_choice = ToolChoice::Named("a".into());
    call(&provider, &request).await.done();
    let sent = fake.last_body();
    assert_eq!(sent["max_output_tokens"], 16);
    assert_eq!(sent["tool_choice"], json!({ "type": "function", "name": "a" }));
    let format = json!({ "type": "json_schema", "name": "answer", "schema": { "type": "object" }, "strict": false });
    assert_eq!(sent["text"]["format"], format);
}
