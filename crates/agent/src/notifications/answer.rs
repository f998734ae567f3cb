//! What an answer means. Each service says that it took a message by a success; Telegram says so in the body, too.

use std::time::Duration;

use bailiwick_outbound::{Answered, SendError};
use bailiwick_store::notification::Outcome;
use bailiwick_types::notification::TargetKind;
use serde_json::Value;

/// How an attempt ended.
pub(super) fn judge(kind: TargetKind, answered: Result<Answered, SendError>) -> Outcome {
    let later = |state: &str| Outcome::Later { state: state.to_owned(), after: None };
    let Answered { status, retry_after, body } = match answered {
        Ok(answered) => answered,
        Err(SendError::Address) => return Outcome::Refused { state: "address".to_owned() },
        Err(SendError::Network) => return later("address_not_public"),
        Err(SendError::Unreachable) => return later("unreachable"),
        Err(SendError::TimedOut(_)) => return later("timed_out"),
        Err(SendError::Broken | SendError::TooLong) => return later("broken_off"),
    };
    let state = format!("http_{status}");
    match status {
        200..=299 if kind != TargetKind::Telegram || taken(&body) => Outcome::Delivered,
        200..=299 => later("not_understood"),
        429 => Outcome::Later { state, after: retry_after.max(asked(&body)) },
        408 | 425 | 500..=599 => Outcome::Later { state, after: retry_after },
        // Nobody is led anywhere: these services do not redirect.
        300..=499 => Outcome::Refused { state },
        _ => Outcome::Later { state, after: None },
    }
}

fn taken(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["ok"] == true)
}

/// How long to wait by the body: Telegram's `parameters.retry_after`, Discord's `retry_after`, in seconds.
fn asked(body: &[u8]) -> Option<Duration> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let seconds = body["parameters"]["retry_after"].as_f64().or(body["retry_after"].as_f64())?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use bailiwick_outbound::Waited;
    use serde_json::json;

    use super::*;

    fn said(kind: TargetKind, status: u16, retry_after: Option<u64>, body: &Value) -> Outcome {
        let retry_after = retry_after.map(Duration::from_secs);
        judge(kind, Ok(Answered { status, retry_after, body: body.to_string().into_bytes() }))
    }

    #[test]
    fn g09_an_answer_is_taken_refused_or_to_be_tried_again() {
        use TargetKind::{Discord, Slack, Telegram};
        let none = json!("ok");
        for (kind, status) in [(Slack, 200), (Discord, 204), (Discord, 200)] {
            assert_eq!(said(kind, status, None, &none), Outcome::Delivered);
        }
        assert_eq!(said(Telegram, 200, None, &json!({ "ok": true })), Outcome::Delivered);
        for body in [json!({ "ok": false }), json!("ok"), json!({})] {
            assert!(matches!(said(Telegram, 200, None, &body), Outcome::Later { .. }));
        }
        for status in [301, 302, 307, 308, 400, 401, 403, 404, 410] {
            let refused = Outcome::Refused { state: format!("http_{status}") };
            assert_eq!(said(Slack, status, None, &none), refused);
        }
        for status in [408, 429, 500, 502, 503, 504, 100, 600] {
            assert!(matches!(said(Slack, status, None, &none), Outcome::Later { after: None, .. }), "{status}");
        }
        let error = |error| judge(Slack, Err(error));
        for later in
            [SendError::Network, SendError::Unreachable, SendError::TimedOut(Waited::Connect), SendError::Broken]
        {
            assert!(matches!(error(later), Outcome::Later { .. }));
        }
        assert!(matches!(error(SendError::Address), Outcome::Refused { .. }));
    }

    #[test]
    fn g09_whoever_says_how_long_is_left_alone_so_long() {
        let wait = |kind, header, body: &Value| match said(kind, 429, header, body) {
            Outcome::Later { after, .. } => after.map(|after| after.as_millis()),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(TargetKind::Slack, Some(30), &json!("slow")), Some(30_000));
        let telegram = json!({ "ok": false, "error_code": 429, "parameters": { "retry_after": 7 } });
        assert_eq!(wait(TargetKind::Telegram, None, &telegram), Some(7_000));
        let discord = json!({ "message": "…", "retry_after": 1.5, "global": false });
        assert_eq!(wait(TargetKind::Discord, Some(1), &discord), Some(1_500), "the longer of the two");
        for odd in
            [json!({ "retry_after": -1 }), json!({ "retry_after": "x" }), json!([]), json!({ "retry_after": 1e300 })]
        {
            assert_eq!(wait(TargetKind::Discord, None, &odd), None);
        }
    }
}
