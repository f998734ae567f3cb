//! Errors of the authorization server in the words that RFC 6749, 7009, 7591 and 8707 fix.

use http::StatusCode;
use serde_json::{Value, json};

use crate::error::Failure;

/// A request that a client made wrongly, or that it may not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub(crate) struct OAuthError {
    /// The protocol's word.
    pub(crate) code: &'static str,
    /// For whoever writes the client.
    pub(crate) description: &'static str,
}

impl OAuthError {
    pub(crate) const fn new(code: &'static str, description: &'static str) -> Self {
        Self { code, description }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "temporarily_unavailable" => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// The body of an answer (RFC 6749, section 5.2).
pub(crate) fn body(failure: &Failure, status: StatusCode, message: &str) -> Value {
    let code = match (failure, status) {
        (Failure::OAuth(error), _) => error.code,
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => "temporarily_unavailable",
        (_, status) if status.is_server_error() => "server_error",
        _ => "invalid_request",
    };
    // The protocol allows no other characters there.
    let plain = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '\'' };
    json!({ "error": code, "error_description": message.chars().map(plain).collect::<String>() })
}
