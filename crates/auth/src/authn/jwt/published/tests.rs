//! When keys are fetched, and what is in force meanwhile. The clock is the runtime's, and stands still.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::advance;

use super::*;
use crate::authn::outbound::{Calling, Reply};

/// Status, `Cache-Control` and body; or nothing.
type Answer = Result<(u16, Option<&'static str>, String), CallError>;

/// What is answered next; the last one again and again.
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    calls: AtomicUsize,
    /// An answer is given for each of these.
    doors: Semaphore,
}

fn reply(status: u16, cache_control: Option<&str>, body: String) -> Reply {
    let cache_control = cache_control.map(str::to_owned);
    Reply { status, cache_control, content_type: None, body: body.into_bytes().into() }
}

const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn set(kids: &[&str]) -> String {
    let key = |kid: &&str| json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "kid": kid, "use": "sig" });
    json!({ "keys": kids.iter().map(key).collect::<Vec<_>>() }).to_string()
}

impl Outbound for Scripted {
    fn call<'a>(&'a self, _: Call<'a>) -> Calling<'a> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            self.doors.acquire().await.unwrap().forget();
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
            let (status, cache_control, body) = answer?;
            Ok(reply(status, cache_control, body))
        })
    }
}

fn kept(answers: Vec<Answer>) -> (Arc<Published>, Arc<Scripted>) {
    let scripted = Arc::new(Scripted {
        answers: Mutex::new(answers.into()),
        calls: AtomicUsize::new(0),
        doors: Semaphore::new(1000),
    });
    let outbound = Arc::clone(&scripted);
    let source = Source::Keys("https://sso.example/keys".to_owned());
    (Published::new("jwt:sso".to_owned(), source, None, outbound), scripted)
}

fn good(kids: &[&str]) -> Answer {
    Ok((200, Some("public, max-age=600"), set(kids)))
}

async fn kids(published: &Arc<Published>, kid: &str) -> Result<usize, Unavailable> {
    let kept = published.kept(Need::Key(Some(kid))).await?;
    Ok(candidates(&kept.keys, Some(kid)).count())
}

/// Lets what goes on beside the requests come to its end.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn i12_keys_are_fetched_once_and_again_before_they_expire() {
    let (published, asked) = kept(vec![good(&["a"]), good(&["b"])]);
    let calls = || asked.calls.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(kids(&published, "a").await, Ok(1));
    }
    assert_eq!(calls(), 1);
    advance(Duration::from_secs(449)).await;
    assert_eq!((kids(&published, "a").await, calls()), (Ok(1), 1));
    // Three quarters of it: whoever asks gets the old ones, and the new ones are fetched meanwhile.
    advance(Duration::from_secs(1)).await;
    assert_eq!(kids(&published, "a").await, Ok(1));
    settle().await;
    assert_eq!((kids(&published, "b").await, kids(&published, "a").await, calls()), (Ok(1), Ok(0), 2));
}

#[tokio::test(start_paused = true)]
async fn i12_unknown_keys_are_asked_for_once_a_minute_whoever_sends_how_many() {
    let (published, asked) = kept(vec![good(&["a"]), good(&["a"]), good(&["a", "b"])]);
    let calls = || asked.calls.load(Ordering::SeqCst);
    for n in 0..100 {
        assert_eq!(kids(&published, &format!("unknown-{n}")).await, Ok(0));
    }
    assert_eq!(calls(), 1, "the first fetch is of just now");
    advance(Duration::from_secs(60)).await;
    for n in 0..100 {
        assert_eq!(kids(&published, &format!("unknown-{n}")).await, Ok(0));
    }
    assert_eq!(calls(), 2);
    advance(Duration::from_secs(60)).await;
    // The control: a key that is new there is found.
    assert_eq!((kids(&published, "b").await, calls()), (Ok(1), 3));
}

#[tokio::test(start_paused = true)]
async fn i12_old_keys_stay_in_force_until_they_expire_and_no_longer() {
    let (published, asked) = kept(vec![good(&["a"]), Err(CallError::Silent)]);
    assert_eq!(kids(&published, "a").await, Ok(1));
    for _ in 0..9 {
        advance(Duration::from_secs(66)).await;
        assert_eq!(kids(&published, "a").await, Ok(1));
        settle().await;
    }
    assert_eq!(asked.calls.load(Ordering::SeqCst), 4, "three times in vain");
    advance(Duration::from_secs(66)).await;
    assert_eq!(kids(&published, "a").await, Err(Unavailable));
}

#[tokio::test(start_paused = true)]
async fn i12_a_provider_that_fails_is_left_alone_for_a_while_and_nobody_waits() {
    for failure in [
        Err(CallError::Silent),
        Err(CallError::TooLong),
        Err(CallError::Network),
        Ok((302, None, set(&["a"]))),
        Ok((500, None, set(&["a"]))),
        Ok((200, None, "{}".to_owned())),
        Ok((200, None, json!({ "keys": [] }).to_string())),
        Ok((200, None, json!({ "keys": vec![json!({}); 65] }).to_string())),
        Ok((200, None, json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": X, "use": "enc" }] }).to_string())),
    ] {
        let (published, asked) = kept(vec![failure.clone(), good(&["a"])]);
        let calls = || asked.calls.load(Ordering::SeqCst);
        for _ in 0..10 {
            assert_eq!(kids(&published, "a").await, Err(Unavailable), "{failure:?}");
        }
        assert_eq!(calls(), 1, "{failure:?}");
        advance(Duration::from_secs(5)).await;
        assert_eq!((kids(&published, "a").await, calls()), (Ok(1), 2), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn i12_one_fetch_at_a_time_and_who_hangs_up_ends_none() {
    let (published, asked) = kept(vec![good(&["a"])]);
    asked.doors.forget_permits(1000);
    let waits = |published: &Arc<Published>| {
        let published = Arc::clone(published);
        tokio::spawn(async move { kids(&published, "a").await })
    };
    let first = waits(&published);
    settle().await;
    first.abort();
    let others: Vec<_> = (0..50).map(|_| waits(&published)).collect();
    settle().await;
    asked.doors.add_permits(1);
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(1));
    }
    assert_eq!(asked.calls.load(Ordering::SeqCst), 1);
    // One that never answers: who waits does so for seconds, and the fetch is still the one.
    let (published, asked) = kept(vec![good(&["a"])]);
    asked.doors.forget_permits(1000);
    let begun = Instant::now();
    assert_eq!(kids(&published, "a").await, Err(Unavailable));
    assert_eq!(begun.elapsed(), WAIT);
    assert_eq!(kids(&published, "a").await, Err(Unavailable));
    assert_eq!(asked.calls.load(Ordering::SeqCst), 1);
}

#[test]
fn i12_an_issuers_word_on_how_long_is_followed_within_bounds() {
    for (said, seconds) in [
        (None, 3600),
        (Some("max-age=600"), 600),
        (Some("public, Max-Age=\"7200\", must-revalidate"), 7200),
        (Some("max-age=1"), 300),
        (Some("max-age=99999999"), 24 * 3600),
        (Some("no-store"), 300),
        (Some("no-cache, max-age=7200"), 300),
        (Some("max-age=never"), 3600),
        (Some("max-age=-1"), 3600),
    ] {
        assert_eq!(reply(200, said, String::new()).lifetime(), Duration::from_secs(seconds), "{said:?}");
    }
}
