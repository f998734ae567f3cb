//! OpenViking's envelope around what went well.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

#[derive(Serialize)]
struct Envelope<T> {
    status: &'static str,
    result: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_more: Option<bool>,
}

/// A result in its envelope.
pub(crate) fn done(result: impl Serialize) -> Response {
    Json(Envelope { status: "ok", result, has_more: None }).into_response()
}

/// A result whose work goes on after the reply (202).
pub(crate) fn accepted(result: impl Serialize) -> Response {
    (StatusCode::ACCEPTED, done(result)).into_response()
}

/// Whether there is more than a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// There is.
    Yes,
    /// There is not.
    No,
}

/// A page of a listing.
pub(crate) fn page(rows: Vec<impl Serialize>, more: More) -> Response {
    Json(Envelope { status: "ok", result: rows, has_more: Some(more == More::Yes) }).into_response()
}

/// One page of rows that are all there already. Pages count from 1.
pub(crate) fn paged<T: Serialize>(mut rows: Vec<T>, limit: usize, number: Option<usize>) -> Response {
    let skip = number.unwrap_or(1).saturating_sub(1).saturating_mul(limit).min(rows.len());
    let mut rest = rows.split_off(skip);
    let more = if rest.len() > limit { More::Yes } else { More::No };
    rest.truncate(limit);
    page(rest, more)
}
