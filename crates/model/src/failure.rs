//! What a provider's refusal means: which error it is and whether another try has a chance.
//! One table for all providers, for refusals by status and for those reported in the stream.

use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use crate::ModelError;
use crate::json;
use crate::scrub::Scrub;

/// An error and what may be done about it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) error: ModelError,
    pub(crate) again: Again,
}

/// Whether another try has a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The answer would be the same.
    Never,
    /// After a pause, no shorter than the provider asked for.
    After(Option<Duration>),
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self { error, again: Again::Never }
    }
}

impl Failure {
    pub(crate) fn again(error: ModelError) -> Self {
        Self { error, again: Again::After(None) }
    }

    /// A refusal by HTTP status.
    pub(crate) fn of_status(status: u16, headers: &HeaderMap, body: &str, scrub: &Scrub) -> Self {
        let reported = Reported::read(body);
        let asked = retry_after(headers);
        if reported.is_spent_quota() {
            return Self::rejected(status, &reported.message, scrub);
        }
        match status {
            429 => Self { error: ModelError::RateLimited { retry_after: asked }, again: Again::After(asked) },
            503 | 529 => Self { error: ModelError::Overloaded { retry_after: asked }, again: Again::After(asked) },
            500..=599 => Self { error: ModelError::Unavailable { status }, again: Again::After(asked) },
            408 | 409 => Self { again: Again::After(asked), ..Self::rejected(status, &reported.message, scrub) },
            400..=499 => Self::rejected(status, &reported.message, scrub),
            300..=399 => ModelError::Protocol { what: "a redirect, which is never followed" }.into(),
            _ => ModelError::Protocol { what: "a status that no model API has" }.into(),
        }
    }

    /// An error that was reported inside a stream whose status was 200.
    pub(crate) fn of_report(kind: &str, message: &str, scrub: &Scrub) -> Self {
        if let Ok(status @ 400..=599) = kind.parse::<u16>() {
            return Self::of_status(status, &HeaderMap::new(), message, scrub);
        }
        let status = match kind {
            "overloaded_error" | "server_overloaded" | "slow_down" => {
                return Self::again(ModelError::Overloaded { retry_after: None });
            }
            "rate_limit_error" | "rate_limit_exceeded" | "tokens" | "requests" => {
                return Self::again(ModelError::RateLimited { retry_after: None });
            }
            "insufficient_quota" => 429,
            "authentication_error" | "invalid_api_key" => 401,
            "billing_error" => 402,
            "permission_error" => 403,
            "not_found_error" | "model_not_found" => 404,
            "request_too_large" => 413,
            "invalid_request_error" | "invalid_prompt" | "context_length_exceeded" | "invalid_image" => 400,
            // Also `api_error`, `server_error` and `timeout_error`. An unknown kind is taken for
            // the provider's failure: a retry is bounded and harmless.
            _ => return Self::again(ModelError::Unavailable { status: 500 }),
        };
        Self::rejected(status, message, scrub)
    }

    fn rejected(status: u16, message: &str, scrub: &Scrub) -> Self {
        ModelError::Rejected { status, message: scrub.clean(message) }.into()
    }
}

/// The error object that all of the APIs have, as far as they agree.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reported {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) code: Option<serde_json::Value>,
    #[serde(deserialize_with = "text_or_nothing")]
    pub(crate) message: String,
}

impl Reported {
    /// Reads `{"error": …}`; of anything else, the whole is the message.
    fn read(body: &str) -> Self {
        let error = json::parse::<serde_json::Value>(body, MAX_ERROR_VALUES).ok();
        match error.as_ref().and_then(|body| body.get("error")) {
            Some(error) => Self::of(error.clone()),
            None => Self { message: body.to_owned(), ..Self::default() },
        }
    }

    /// An error that is an object, as in the APIs, or a text, as from some servers.
    pub(crate) fn of(error: serde_json::Value) -> Self {
        match error {
            serde_json::Value::String(message) => Self { message, ..Self::default() },
            other => serde_json::from_value(other).unwrap_or_default(),
        }
    }

    /// The most telling of the names that the provider gave to the error: its code, a number
    /// from some servers, or else its type.
    pub(crate) fn name(&self) -> String {
        match &self.code {
            Some(serde_json::Value::String(code)) if !code.is_empty() => code.clone(),
            Some(serde_json::Value::Number(code)) => code.to_string(),
            _ => self.kind.clone().unwrap_or_default(),
        }
    }

    /// OpenAI answers 429 for an empty account too; no pause mends that.
    fn is_spent_quota(&self) -> bool {
        self.name() == "insufficient_quota" || self.kind.as_deref() == Some("insufficient_quota")
    }
}

fn text_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// How long the provider asks to wait: OpenAI's milliseconds, or RFC 9110's seconds or date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let millis = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()).map(|ms| ms / 1_000.0);
    let seconds = || text(RETRY_AFTER.as_str()).and_then(seconds_of);
    Duration::try_from_secs_f64(millis.or_else(seconds)?.max(0.0)).ok()
}

fn seconds_of(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(date.duration_since(jiff::Timestamp::now()).as_secs_f64())
}

const MAX_ERROR_VALUES: usize = 10_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(name, value.parse().unwrap());
        map
    }

    #[test]
    fn a_pause_is_read_in_all_its_forms() {
        assert_eq!(retry_after(&headers("retry-after", "7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("retry-after-ms", "250")), Some(Duration::from_millis(250)));
        assert_eq!(retry_after(&headers("retry-after", "soon")), None);
        for nonsense in ["NaN", "inf", "1e300"] {
            assert!(retry_after(&headers("retry-after", nonsense)).is_none_or(|d| d.is_zero()), "{nonsense}");
        }
        assert_eq!(retry_after(&headers("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")), Some(Duration::ZERO));
        let ahead = jiff::Timestamp::now() + Duration::from_secs(100);
        let date = ahead.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let asked = retry_after(&headers("retry-after", &date)).unwrap().as_secs();
        assert!((97..=100).contains(&asked), "{asked}");
    }

    #[test]
    fn statuses_mean_what_the_apis_say() {
        let of = |status, body: &str| Failure::of_status(status, &HeaderMap::new(), body, &Scrub::new(None));
        let refused = of(400, r#"{"error":{"type":"invalid_request_error","message":"no"}}"#);
        assert_eq!(refused.again, Again::Never);
        assert_eq!(refused.error.provider_text().unwrap().as_str(), "no");
        assert_eq!(of(429, "{}").again, Again::After(None));
        assert_eq!(of(429, r#"{"error":{"code":"insufficient_quota"}}"#).again, Again::Never);
        assert_eq!(of(529, "").error, ModelError::Overloaded { retry_after: None });
        assert_eq!(of(500, "<html>").error, ModelError::Unavailable { status: 500 });
        assert_eq!(of(307, "").again, Again::Never);
    }
}
