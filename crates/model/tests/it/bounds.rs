//! A far side that sends too much, or the wrong thing.

use bailiwick_model::{Limit, Limits, ModelError, Policy, Provider};
use bailiwick_testkit::fake_model::{FakeAnthropic, FakeOpenAi, Reply};
use serde_json::json;

use crate::support::{ask, call, provider, quick};

async fn anthropic() -> (FakeAnthropic, Provider) {
    let fake = FakeAnthropic::start().await;
    let provider = provider("anthropic", &fake.base_url(), json!({}));
    (fake, provider)
}

fn limited(provider: Provider, event_bytes: usize, response_bytes: usize) -> Provider {
    provider.with_policy(Policy { limits: Limits { event_bytes, response_bytes }, ..quick() })
}

fn too_large(got: &crate::support::Got) -> Limit {
    match got.error() {
        ModelError::TooLarge { limit } => *limit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_endless_line_is_cut_off() {
    let (fake, provider) = anthropic().await;
    let provider = limited(provider, 10_000, 10_000_000);
    let line = "x".repeat(5_000_000);
    fake.push(Reply::raw(200, "text/event-stream", format!("data: {line}")));
    assert_eq!(too_large(&call(&provider, &ask("hi")).await), Limit::EventBytes);
    let lines = "data: xxxxxxxxxxxxxxxx\n".repeat(100_000);
    fake.push(Reply::raw(200, "text/event-stream", lines));
    assert_eq!(too_large(&call(&provider, &ask("hi")).await), Limit::EventBytes);
    fake.push(Reply::text(&"long ".repeat(1_000)));
    assert_eq!(call(&provider, &ask("hi")).await.text().len(), 5_000);
}

#[tokio::test]
async fn g08_an_endless_answer_of_a_model_is_cut_off() {
    let (fake, provider) = anthropic().await;
    let provider = limited(provider, 10_000, 100_000);
    fake.push(Reply::text(&"long ".repeat(5_000)));
    assert_eq!(too_large(&call(&provider, &ask("hi")).await), Limit::ResponseBytes);
    fake.push(Reply::raw(200, "text/event-stream", ": ping\n\n".repeat(50_000)));
    assert_eq!(too_large(&call(&provider, &ask("hi")).await), Limit::ResponseBytes);
    fake.push(Reply::text("short"));
    assert_eq!(call(&provider, &ask("hi")).await.text(), "short");
}

#[tokio::test]
async fn values_that_would_fill_memory_are_refused() {
    let (fake, provider) = anthropic().await;
    let many = "0,".repeat(150_000);
    let block = |index: usize, list: &str| {
        let block = format!("{{\"type\":\"thing\",\"list\":[{list}0]}}");
        format!("data: {{\"type\":\"content_block_start\",\"index\":{index},\"content_block\":{block}}}\n\n")
    };
    fake.push(Reply::text("x").insert_after(1, &block(50, &many)));
    assert_eq!(too_large(&call(&provider, &ask("hi")).await), Limit::EventValues);
    let some = "0,".repeat(60_000);
    let blocks: String = (50..60).map(|index| block(index, &some)).collect();
    fake.push(Reply::text("x").insert_after(1, &blocks));
    assert_eq!(too_large(&call(&provider, &ask("hi")).await), Limit::KeptValues);
    fake.push(Reply::text("x").insert_after(1, &block(50, "1,")));
    assert_eq!(call(&provider, &ask("hi")).await.text(), "x");

    // Unknown fields of small chunks add up, too.
    let openai = FakeOpenAi::start().await;
    let chat = crate::support::provider("openai", &openai.base_url(), json!({}));
    let chunk = format!("data: {{\"choices\":[{{\"delta\":{{\"x\":[{}0]}}}}]}}\n\n", "0,".repeat(10));
    openai.push(Reply::text("x").insert_after(1, &chunk.repeat(30_000)));
    assert_eq!(too_large(&call(&chat, &ask("hi")).await), Limit::KeptValues);
    openai.push(Reply::text("x").insert_after(1, &chunk.repeat(30)));
    assert_eq!(call(&chat, &ask("hi")).await.text(), "x");
}

#[tokio::test]
async fn characters_that_are_cut_in_two_arrive_whole() {
    let (fake, provider) = anthropic().await;
    let text = "ß→🦀é".repeat(5);
    for size in [1, 2, 3, 7] {
        fake.push(Reply::text(&text).bytes_per_chunk(size));
        assert_eq!(call(&provider, &ask("hi")).await.text(), text, "{size}");
    }
    let openai = FakeOpenAi::start().await;
    for api in ["chat", "responses"] {
        let provider = crate::support::provider("openai", &openai.base_url(), json!({ "api": api }));
        openai.push(Reply::text(&text).bytes_per_chunk(3));
        assert_eq!(call(&provider, &ask("hi")).await.text(), text, "{api}");
    }
}

#[tokio::test]
async fn answers_that_are_no_event_stream_are_named_as_such() {
    let (fake, provider) = anthropic().await;
    for reply in [
        Reply::raw(200, "text/html", "<html>login</html>"),
        Reply::raw(200, "application/json", "{}"),
        Reply::raw(200, "text/event-stream", &b"data: \xff\xfe\n\n"[..]),
        Reply::raw(200, "text/event-stream", "data: [\"not\", \"ours\"]\n\n"),
        Reply::raw(204, "text/event-stream", ""),
    ] {
        fake.push(reply);
        let got = call(&provider, &ask("hi")).await;
        assert!(matches!(got.error(), ModelError::Protocol { .. }), "{got:?}");
    }
    // Bytes that are no events at all are an answer without an end.
    fake.always(Reply::raw(200, "text/event-stream", "\u{0}\u{1}garbage\n\n"));
    assert_eq!(call(&provider, &ask("hi")).await.error(), &ModelError::Interrupted);
}

#[tokio::test]
async fn g08_a_models_redirect_is_not_followed() {
    let (fake, provider) = anthropic().await;
    let (other, _) = anthropic().await;
    other.always(Reply::text("you should not be here"));
    let target = format!("{}/v1/messages", other.base_url());
    for status in [301, 302, 307, 308] {
        fake.push(Reply::raw(status, "text/plain", "").header("location", &target));
        let got = call(&provider, &ask("hi")).await;
        assert!(matches!(got.error(), ModelError::Protocol { what } if what.contains("redirect")), "{got:?}");
    }
    assert!(other.requests().is_empty());
    // The positive control: the target answers when it is asked.
    let direct = crate::support::provider("anthropic", &other.base_url(), json!({}));
    assert_eq!(call(&direct, &ask("hi")).await.text(), "you should not be here");
}

#[tokio::test]
async fn a_huge_refusal_is_read_in_part() {
    let (fake, provider) = anthropic().await;
    fake.push(Reply::raw(400, "text/plain", "y".repeat(3_000_000)));
    let got = call(&provider, &ask("hi")).await;
    assert!(got.error().provider_text().unwrap().as_str().chars().count() <= 1_001);
}
