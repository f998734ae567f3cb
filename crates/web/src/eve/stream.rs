//! A session's stream as lines of JSON, from any place on, for as long as it is read.
//!
//! What is sent is what the store holds, byte for byte, so that reading again gives the same lines. The
//! reader draws; nothing is held for a slow one. Its right to read is looked at again and again, and
//! when it is gone the stream ends.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::ReadSession;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::session::find;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::eve::session::SESSION_ID;
use crate::input::{Params, Segments};
use crate::meters::{Scarce, Slot};
use crate::route::routes;

routes! {
    GET "/eve/v1/session/{session}/stream" open, Known, [ReadSession], Nothing, "The session's events as lines of JSON (startIndex, follow, includeTailIndex, streamControlVersion)";
}

/// Events in one read; fewer where they are long.
const PAGE: usize = 256;
const LEASE_ENDED: &[u8] = b"{\"$eve\":\"stream.lease-ended\",\"version\":1}\n";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    start_index: Option<String>,
    follow: Option<String>,
    include_tail_index: Option<String>,
    stream_control_version: Option<String>,
}

/// When the stream ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// With the session, or when the reader leaves.
    Left,
    /// After this many events.
    Tail(u64),
}

/// Whether the reader knows control records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controls {
    /// It asked for them.
    Known,
    /// It would take one for an event.
    Unknown,
}

/// A session's events from one place on, page by page, for as long as their reader may.
pub(crate) struct SessionPages {
    app: App,
    caller: Caller,
    name: String,
    permit: Permit<ReadSession>,
    grown: watch::Receiver<u64>,
    /// The number of the next event.
    next: u64,
    /// How many there were at first.
    found: u64,
}

impl SessionPages {
    /// From the event of that number on; a negative one counts from the end.
    pub(crate) async fn open(app: &App, caller: &Caller, name: &str, start: i64) -> Result<Self, Failure> {
        let permit = right(app, caller, name).await?;
        // Watched from before the first read, so that nothing falls between the two.
        let grown = app.store().session_watch(&permit)?;
        let found = app.store().session_read(&permit).await?.events;
        let next = match u64::try_from(start) {
            Ok(start) => start,
            Err(_) => found.saturating_sub(start.unsigned_abs()),
        };
        let name = permit.resource().id().to_string();
        Ok(Self { app: app.clone(), caller: caller.clone(), name, permit, grown, next, found })
    }

    /// The number of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Looks again whether the caller may read; before every page, so that a revoked key gets no more.
    pub(crate) async fn still_may(&mut self) -> Option<()> {
        self.caller = self.caller.again(&self.app).await?;
        self.permit = right(&self.app, &self.caller, &self.name).await.ok()?;
        Some(())
    }

    /// The events that are there, up to so many, and up to a page's bytes.
    pub(crate) async fn read(&mut self, limit: usize) -> Option<Vec<String>> {
        self.grown.mark_unchanged();
        let events = self.app.store().session_events(&self.permit, self.next, limit).await.ok()?;
        self.next += events.len() as u64;
        Some(events)
    }

    /// Whether the session has ended and everything was read.
    pub(crate) async fn over(&self) -> Option<bool> {
        let row = self.app.store().session_read(&self.permit).await.ok()?;
        Some(row.state.is_ended() && self.next >= row.events)
    }

    /// Waits for more. `None` when there will be none.
    pub(crate) async fn grown(&mut self) -> Option<()> {
        self.grown.changed().await.ok()
    }
}

struct Reading {
    app: App,
    pages: SessionPages,
    until: Until,
    controls: Controls,
    look: Instant,
    lease: Instant,
    begun: bool,
    ended: bool,
    _open: Option<Slot>,
}

async fn open(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Failure> {
    let start = match wanted.start_index.as_deref() {
        None | Some("") => 0,
        Some(text) => text.parse::<i64>().map_err(|_| Failure::Words("Expected startIndex to be an integer."))?,
    };
    let pages = SessionPages::open(&app, &caller, &name, start).await?;
    let events = pages.found;
    let ends = matches!(wanted.follow.as_deref(), Some("false" | "0"));
    let tail = ends || matches!(wanted.include_tail_index.as_deref(), Some("1" | "true"));
    let known = wanted.stream_control_version.as_deref() == Some("1");
    let times = app.settings().times;
    let open = Slot::take(Scarce::Streams, &app, &caller)?;
    let reading = Reading {
        pages,
        until: if ends { Until::Tail(events) } else { Until::Left },
        controls: if known { Controls::Known } else { Controls::Unknown },
        look: Instant::now() + times.heartbeat,
        lease: Instant::now() + times.lease,
        begun: false,
        ended: false,
        _open: open,
        app,
    };
    let session = HeaderValue::from_str(&reading.pages.name);
    let body = Body::from_stream(stream::unfold(reading, |mut reading| async move {
        let piece = reading.next().await?;
        Some((Ok::<_, Infallible>(piece), reading))
    }));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert("x-eve-stream-version", HeaderValue::from_static("26"));
    headers.insert("x-eve-stream-format", HeaderValue::from_static("ndjson"));
    if let Ok(session) = session {
        headers.insert(SESSION_ID, session);
    }
    if tail {
        let index = i64::try_from(events).unwrap_or(i64::MAX) - 1;
        headers.insert(HeaderName::from_static("x-eve-stream-tail-index"), HeaderValue::from(index));
    }
    Ok(response)
}

async fn right(app: &App, caller: &Caller, name: &str) -> Result<Permit<ReadSession>, Failure> {
    let scope = caller.scope()?;
    let session = find(app, &scope, name).await?;
    Ok(scope.authorize::<ReadSession>(session)?)
}

impl Reading {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.begun {
            self.begun = true;
            return Some(Bytes::from_static(b"\n"));
        }
        loop {
            if let Until::Tail(tail) = self.until
                && self.pages.next >= tail
            {
                return None;
            }
            if Instant::now() >= self.look {
                self.look = Instant::now() + self.app.settings().times.heartbeat;
                self.pages.still_may().await?;
                return Some(Bytes::from_static(b"\n"));
            }
            if self.controls == Controls::Known && Instant::now() >= self.lease {
                return self.lease_ended();
            }
            let lines = self.read().await?;
            if !lines.is_empty() {
                self.pages.still_may().await?;
                return Some(lines);
            }
            if self.pages.over().await? {
                return None;
            }
            tokio::select! {
                () = self.app.closing().cancelled() => return self.lease_ended(),
                () = tokio::time::sleep_until(self.look.min(self.lease)), if self.controls == Controls::Known => {}
                () = tokio::time::sleep_until(self.look), if self.controls == Controls::Unknown => {}
                grown = self.pages.grown() => grown?,
            }
        }
    }

    /// The lines that are there, up to a page. Empty if there are none.
    async fn read(&mut self) -> Option<Bytes> {
        let limit = match self.until {
            Until::Left => PAGE,
            Until::Tail(tail) => PAGE.min(usize::try_from(tail - self.pages.next).unwrap_or(PAGE)),
        };
        let events = self.pages.read(limit).await?;
        let mut lines = BytesMut::with_capacity(events.iter().map(|event| event.len() + 1).sum());
        for event in events {
            lines.extend_from_slice(event.as_bytes());
            lines.extend_from_slice(b"\n");
        }
        Some(lines.freeze())
    }

    /// The last piece for a reader who knows how to come again.
    fn lease_ended(&mut self) -> Option<Bytes> {
        self.ended = true;
        (self.controls == Controls::Known).then(|| Bytes::from_static(LEASE_ENDED))
    }
}
