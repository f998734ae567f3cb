//! What handlers take: parts of the path, parameters, and bodies.
//!
//! A body is read only when its handler asks for it, which is after the caller's right was asked for:
//! whoever may not do a thing learns nothing about how to ask for it, and costs no memory.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bailiwick_types::limits::{BODY_BYTES, PAGE_ROWS};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::{App, Times};
use crate::caller::Caller;
use crate::error::Failure;
use crate::json;
use crate::meters::{Scarce, Slot};

/// The variable parts of a path.
pub(crate) struct Segments<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Segments<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        // What cannot be decoded names nothing.
        let Path(segments) = Path::from_request_parts(parts, app).await.map_err(|_| Failure::NoRoute)?;
        Ok(Self(segments))
    }
}

/// The parameters of a query. Unknown ones are ignored: they can never widen what is asked.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Query(params) = Query::from_request_parts(parts, app)
            .await
            .map_err(|error| Failure::Parameters(format!("query: {}", error.body_text())))?;
        Ok(Self(params))
    }
}

/// Bodies up to this length, bytes, are read without ado.
const SHORT_BODY: usize = 256 * 1024;

/// Most of a body that is read of a caller who is not known, bytes.
const STRANGERS_BODY: usize = 16 * 1024;

/// A body that was not read yet.
pub(crate) struct Unread {
    headers: HeaderMap,
    body: Body,
    times: Times,
    app: App,
    caller: Option<Caller>,
}

impl FromRequest<App> for Unread {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, app: &App) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get::<Caller>().cloned();
        Ok(Self { headers: parts.headers, body, times: app.settings().times, app: app.clone(), caller })
    }
}

impl Unread {
    /// The body as the next piece of it, `None` at its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let next = tokio::time::timeout(self.times.body_pause, self.body.frame());
            match next.await {
                Err(_) | Ok(Some(Err(_))) => return Err(Failure::BodyLate),
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, within the limits of an ordinary request.
    pub(crate) async fn bytes(mut self) -> Result<Bytes, Failure> {
        let limit = tokio::time::Instant::now() + self.times.body;
        // Of long ones, one user may only have a few under way, so that memory is bounded.
        let mut slot = None;
        let mut whole = BytesMut::new();
        loop {
            let piece = tokio::time::timeout_at(limit, self.piece()).await.map_err(|_| Failure::BodyLate)??;
            let Some(piece) = piece else { return Ok(whole.freeze()) };
            // Of somebody who is not known, no more is read than a form is long.
            let longest = if self.caller.is_some() { BODY_BYTES } else { STRANGERS_BODY };
            if whole.len() + piece.len() > longest {
                return Err(Failure::TooLong(longest as u64));
            }
            if let (None, Some(caller)) = (&slot, &self.caller)
                && whole.len() + piece.len() > SHORT_BODY
            {
                slot = Slot::take(Scarce::LongBodies, &self.app, caller)?;
            }
            whole.extend_from_slice(&piece);
        }
    }

    /// How long it will be, if that was said.
    pub(crate) fn length(&self) -> Option<u64> {
        self.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Whether the body's declared type, if any, is among these.
    pub(crate) fn is_of(&self, types: &[&str]) -> bool {
        let mut values = self.headers.get_all(CONTENT_TYPE).iter();
        let Some(first) = values.next() else { return true };
        let essence = first.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        values.next().is_none() && types.contains(&essence.as_str())
    }

    /// The body as JSON; `None` if it is empty.
    pub(crate) async fn json_or_nothing(self) -> Result<Option<Value>, Failure> {
        let typed = self.is_of(&["application/json"]);
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if !typed {
            return Err(Failure::MediaType("application/json"));
        }
        if bytes.len() <= SHORT_BODY {
            return Ok(Some(json::parse(&bytes)?));
        }
        // Long work would hold up everybody whose requests share this thread.
        let parsed = tokio::task::spawn_blocking(move || json::parse(&bytes)).await;
        Ok(Some(parsed.map_err(|_| Failure::Defect("the reading of a body panicked"))??))
    }

    /// The body as the fields of a form.
    pub(crate) async fn form<T: DeserializeOwned>(self) -> Result<T, Failure> {
        if !self.is_of(&["application/x-www-form-urlencoded"]) {
            return Err(Failure::MediaType("application/x-www-form-urlencoded"));
        }
        let bytes = self.bytes().await?;
        serde_urlencoded::from_bytes(&bytes).map_err(|error| Failure::Parameters(format!("form: {error}")))
    }

    /// The body as one of our types. An empty body is an object without fields.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let value = self.json_or_nothing().await?.unwrap_or_else(|| Value::Object(Map::new()));
        typed(value)
    }
}

/// A value as one of our types.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    if !value.is_object() {
        return Err(Failure::Parameters("body: expected a JSON object".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| Failure::Parameters(format!("body: {error}")))
}

/// How many rows a listing gives.
pub(crate) fn page_rows(wanted: Option<usize>, usual: usize) -> Result<usize, Failure> {
    match wanted {
        None => Ok(usual),
        Some(0) => Err(Failure::Parameters("limit: must be at least 1".to_owned())),
        Some(limit) => Ok(limit.min(PAGE_ROWS)),
    }
}

/// A text for people, from a body: bounded, and on one line.
pub(crate) fn line(field: &'static str, text: &str, longest: usize) -> Result<(), Failure> {
    if text.chars().count() > longest {
        return Err(Failure::Parameters(format!("body.{field}: at most {longest} characters")));
    }
    if text.chars().any(|c| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    }) {
        return Err(Failure::Parameters(format!("body.{field}: must be one line without control characters")));
    }
    Ok(())
}
