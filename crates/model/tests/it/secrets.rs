//! The key goes into one header and nowhere else.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bailiwick_model::{Fault, ModelError};
use bailiwick_testkit::fake_model::{FakeAnthropic, FakeOpenAi, Reply};
use futures::StreamExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{KEY, TestKey, ask, call, provider};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn assert_clean(words: &str) {
    for length in [KEY.len(), 12, 8] {
        for piece in KEY.as_bytes().windows(length) {
            let piece = std::str::from_utf8(piece).unwrap();
            assert!(!words.contains(piece), "{piece} in {words}");
        }
    }
}

#[tokio::test]
async fn errors_debug_texts_and_traces_never_show_the_key() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(captured.clone())
        .finish();
    // Global: a subscriber of one thread misses events whose call site another test reached
    // first. So this looks at the traces of every test that runs beside it.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let fake = FakeAnthropic::start().await;
    let openai = FakeOpenAi::start().await;
    let messages = provider("anthropic", &fake.base_url(), json!({}));
    let chat = provider("openai", &openai.base_url(), json!({}));
    let echo = format!("you sent {KEY}, or {}", &KEY[..15]);
    let mut all = format!("{messages:?} {chat:?}");

    // Wrong keys are echoed by both fakes, as real servers do.
    fake.require_key("another");
    openai.require_key("another");
    for provider in [&messages, &chat] {
        let got = call(provider, &ask("hi")).await;
        assert_eq!(got.error().fault(), Fault::Operator);
        let words = got.error().provider_text().unwrap().as_str();
        assert!(words.contains("[redacted]"), "{words}");
        all += &format!("{got:?} {}", got.error());
    }
    fake.require_key(KEY);
    fake.push(Reply::error(400, &echo, &echo).header("request-id", KEY));
    fake.push(Reply::text("some longer text").error_after(4, "invalid_request_error", &echo));
    fake.push(Reply::raw(400, "text/html", echo.clone()));
    fake.push(Reply::raw(307, "text/html", "").header("location", &format!("http://127.0.0.1:1/{KEY}")));
    for _ in 0..4 {
        let got = call(&messages, &ask("hi")).await;
        all += &format!("{got:?} {}", got.error());
    }
    fake.push(Reply::text("fine").header("request-id", KEY));
    let got = call(&messages, &ask("hi")).await;
    assert_eq!(got.done().request_id, None);
    all += &format!("{got:?}");
    let nowhere = provider("anthropic", "http://127.0.0.1:1", json!({}));
    let got = call(&nowhere, &ask("hi")).await;
    all += &format!("{got:?} {}", got.error());
    assert_clean(&all);

    let traces = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(traces.contains("model call failed"), "nothing was traced: {traces}");
    assert_clean(&traces);
    // The positive control: the key did go out, in its header.
    let sent = fake.requests();
    assert!(sent.iter().all(|request| request.headers["x-api-key"] == KEY));
    assert!(sent.iter().all(|request| !request.body.to_string().contains(KEY)));
}

#[tokio::test]
async fn a_key_that_cannot_be_a_header_is_refused_before_anything_is_sent() {
    let fake = FakeAnthropic::start().await;
    let provider = provider("anthropic", &fake.base_url(), json!({}));
    let key = TestKey("sk-secret-part\r\nx-evil: 1");
    let got = provider.stream(&ask("hi"), Some(&key), CancellationToken::new()).next().await.unwrap();
    let error = got.unwrap_err();
    assert_eq!(error, ModelError::KeyMalformed);
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn without_a_key_no_header_is_sent() {
    let fake = FakeOpenAi::start().await;
    let provider = provider("openai", &fake.base_url(), json!({}));
    let got = provider.stream(&ask("hi"), None, CancellationToken::new()).next().await.unwrap();
    assert!(matches!(got, Err(ModelError::Rejected { status: 401, .. })), "{got:?}");
    assert!(!fake.requests()[0].headers.contains_key("authorization"));
}
