//! What is tried again, what is not, and when.

use std::time::{Duration, Instant};

use bailiwick_model::{Fault, ModelError, Policy, Retry, TimeoutPhase, Timeouts};
use bailiwick_testkit::fake_model::{FakeAnthropic, FakeOpenAi, Reply};
use futures::StreamExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{KEY, TestKey, ask, at_once, call, call_with, provider, quick};

async fn start() -> (FakeAnthropic, bailiwick_model::Provider) {
    let fake = FakeAnthropic::start().await;
    let provider = provider("anthropic", &fake.base_url(), json!({}));
    (fake, provider)
}

#[tokio::test]
async fn passing_failures_are_tried_three_times_in_all() {
    let (fake, provider) = start().await;
    for status in [408, 409, 429, 500, 502, 503, 529] {
        let before = fake.requests().len();
        fake.push(Reply::error(status, "some_error", "later"));
        fake.push(Reply::error(status, "some_error", "later"));
        fake.push(Reply::text("at last"));
        assert_eq!(call(&provider, &ask("hi")).await.text(), "at last", "{status}");
        assert_eq!(fake.requests().len() - before, 3);
    }
    fake.always(Reply::error(529, "overloaded_error", "Overloaded"));
    let before = fake.requests().len();
    let got = call(&provider, &ask("hi")).await;
    assert_eq!(got.error(), &ModelError::Overloaded { retry_after: None });
    assert_eq!(got.error().fault(), Fault::Provider);
    assert_eq!(fake.requests().len() - before, 3);
}

#[tokio::test]
async fn refusals_are_not_tried_again_and_say_whose_fault_they_are() {
    let (fake, provider) = start().await;
    for (status, fault) in [(400, Fault::Caller), (401, Fault::Operator), (404, Fault::Operator), (413, Fault::Caller)]
    {
        let before = fake.requests().len();
        fake.push(Reply::error(status, "some_error", "no such luck"));
        let got = call(&provider, &ask("hi")).await;
        assert_eq!(got.error().fault(), fault, "{status}");
        assert_eq!(got.error().provider_text().unwrap().as_str(), "no such luck");
        assert!(!got.error().to_string().contains("no such luck"));
        assert_eq!(fake.requests().len() - before, 1);
    }
    let openai = FakeOpenAi::start().await;
    let chat = crate::support::provider("openai", &openai.base_url(), json!({}));
    openai.push(Reply::error(429, "insufficient_quota", "pay first"));
    assert!(matches!(call(&chat, &ask("hi")).await.error(), ModelError::Rejected { status: 429, .. }));
    assert_eq!(openai.requests().len(), 1);
}

#[tokio::test]
async fn the_pause_that_the_provider_asks_for_is_kept_up_to_a_bound() {
    let (fake, provider) = start().await;
    fake.push(Reply::error(429, "rate_limit_error", "slow").header("retry-after-ms", "300"));
    fake.push(Reply::text("ok"));
    let begun = Instant::now();
    call(&provider, &ask("hi")).await.done();
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    let before = fake.requests().len();
    fake.push(Reply::error(429, "rate_limit_error", "slow").header("retry-after", "3600"));
    let got = call(&provider, &ask("hi")).await;
    assert_eq!(got.error(), &ModelError::RateLimited { retry_after: Some(Duration::from_secs(3_600)) });
    assert_eq!(fake.requests().len() - before, 1);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_tried_again() {
    let (fake, provider) = start().await;
    fake.push(Reply::text("a text of some length").cut_after(5));
    let cut = call(&provider, &ask("hi")).await;
    assert_eq!(cut.error(), &ModelError::Interrupted);
    assert!(!cut.text().is_empty() && "a text of some length".starts_with(&cut.text()), "{cut:?}");
    assert_eq!(fake.requests().len(), 1);

    fake.push(Reply::text("a text of some length").error_after(5, "overloaded_error", "Overloaded"));
    let got = call(&provider, &ask("hi")).await;
    assert_eq!(got.error(), &ModelError::Overloaded { retry_after: None });
    assert_eq!(fake.requests().len(), 2);

    // The positive control: the same failures before the first piece are tried again.
    fake.push(Reply::text("x").cut_after(1));
    fake.push(Reply::text("x").error_after(1, "overloaded_error", "Overloaded"));
    fake.push(Reply::text("whole"));
    assert_eq!(call(&provider, &ask("hi")).await.text(), "whole");
    assert_eq!(fake.requests().len(), 5);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_unreachable() {
    let (fake, _) = start().await;
    let address = fake.base_url();
    let here = provider("anthropic", &address, json!({}));
    fake.push(Reply::text("here"));
    assert_eq!(call(&here, &ask("hi")).await.text(), "here");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = provider("anthropic", &format!("http://{free}"), json!({}));
    assert_eq!(call(&nowhere, &ask("hi")).await.error(), &ModelError::Unreachable);
    // TLS is begun, and fails closed, where nobody speaks it.
    let tls = provider("anthropic", &address.replace("http:", "https:"), json!({}));
    assert_eq!(call(&tls, &ask("hi")).await.error(), &ModelError::Unreachable);
}

#[tokio::test]
async fn one_connection_serves_one_call_after_another() {
    let (fake, provider) = start().await;
    let openai = FakeOpenAi::start().await;
    let chat = crate::support::provider("openai", &openai.base_url(), json!({}));
    for _ in 0..3 {
        fake.push(Reply::text("whole"));
        assert_eq!(call(&provider, &ask("hi")).await.text(), "whole");
        openai.push(Reply::text("whole"));
        assert_eq!(call(&chat, &ask("hi")).await.text(), "whole");
    }
    for requests in [fake.requests(), openai.requests()] {
        assert!(requests.iter().all(|request| request.peer == requests[0].peer), "{requests:?}");
    }
}

#[tokio::test]
async fn g08_each_timeout_of_a_model_has_its_name() {
    let (fake, provider) = start().await;
    let short = Duration::from_millis(150);
    let long = Duration::from_secs(30);
    let with = |first_byte, idle, total| Policy { timeouts: Timeouts { first_byte, idle, total }, ..quick() };
    let phase = |got: crate::support::Got| match got.error() {
        ModelError::TimedOut { phase } => *phase,
        other => panic!("{other:?}"),
    };
    fake.push(Reply::hang());
    let first = provider.clone().with_policy(with(short, long, long));
    assert_eq!(phase(call(&first, &ask("hi")).await), TimeoutPhase::FirstByte);
    fake.push(Reply::text("a longer text").stall_after(4));
    let idle = provider.clone().with_policy(with(long, short, long));
    assert_eq!(phase(call(&idle, &ask("hi")).await), TimeoutPhase::Idle);
    fake.push(Reply::text(&"slow ".repeat(200)).delay(Duration::from_millis(100)));
    let total = provider.clone().with_policy(with(long, long, Duration::from_secs(2)));
    let got = call(&total, &ask("hi")).await;
    assert!(!got.text().is_empty());
    assert_eq!(phase(got), TimeoutPhase::Total);
    // All three connections were closed, and slow alone is no error: this answer takes longer
    // than the idle time, but no piece of it does.
    at_once(fake.until_abandoned(3)).await;
    let second = Duration::from_secs(1);
    let idle = provider.clone().with_policy(with(long, second, long));
    fake.push(Reply::text("slow but steady").delay(Duration::from_millis(150)));
    let begun = Instant::now();
    assert_eq!(call(&idle, &ask("hi")).await.text(), "slow but steady");
    assert!(begun.elapsed() > second);
}

#[tokio::test]
async fn the_total_time_also_ends_a_pause() {
    let (fake, provider) = start().await;
    fake.always(Reply::error(503, "overloaded_error", "later").header("retry-after", "20"));
    let total = Duration::from_millis(100);
    let provider = provider.with_policy(Policy {
        timeouts: Timeouts { total, ..Timeouts::default() },
        retry: Retry { max_wait: Duration::from_secs(60), ..Retry::default() },
        ..Policy::default()
    });
    let got = call(&provider, &ask("hi")).await;
    assert_eq!(got.error(), &ModelError::TimedOut { phase: TimeoutPhase::Total });
}

#[tokio::test]
async fn canceling_closes_the_connection_at_once() {
    let (fake, provider) = start().await;
    // While the answer comes.
    fake.push(Reply::text("a longer text that stops in between").stall_after(6));
    let cancel = CancellationToken::new();
    let mut stream = provider.stream(&ask("hi"), Some(&TestKey(KEY)), cancel.clone());
    assert!(stream.next().await.unwrap().is_ok());
    cancel.cancel();
    let end = loop {
        match at_once(stream.next()).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end, ModelError::Canceled);
    assert!(stream.next().await.is_none());
    at_once(fake.until_abandoned(1)).await;

    // Before it has begun.
    fake.push(Reply::hang());
    let cancel = CancellationToken::new();
    let waiting = tokio::spawn({
        let (provider, cancel) = (provider.clone(), cancel.clone());
        async move { call_with(&provider, &ask("hi"), cancel).await }
    });
    fake.until_requests(2).await;
    assert_eq!(fake.abandoned(), 1);
    cancel.cancel();
    assert_eq!(at_once(waiting).await.unwrap().error(), &ModelError::Canceled);
    at_once(fake.until_abandoned(2)).await;

    // Before anything is sent, and by dropping the stream.
    let got = call_with(&provider, &ask("hi"), cancel).await;
    assert_eq!(got.error(), &ModelError::Canceled);
    assert_eq!(fake.requests().len(), 2);
    fake.push(Reply::text("a longer text that stops in between").stall_after(6));
    let mut stream = provider.stream(&ask("hi"), Some(&TestKey(KEY)), CancellationToken::new());
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    at_once(fake.until_abandoned(3)).await;

    // The positive control: a call that is not canceled leaves nothing behind.
    fake.push(Reply::text("whole"));
    assert_eq!(call(&provider, &ask("hi")).await.text(), "whole");
    assert_eq!(fake.abandoned(), 3);
}
