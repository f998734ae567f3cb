//! The log as it grows: server-sent events whose id is the event's number, so that a reader who comes
//! again misses nothing. A reader whose key was revoked is cut off at the next look, not at the end.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_audit::Event;
use bailiwick_store::log::{EventFilter, Order};
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::audit::{self, Wanted};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Params;
use crate::meters::{Scarce, Slot};
use crate::route::routes;

routes! {
    GET "/api/v1/audit/stream" follow, Known, [ReadAccountAudit, ReadAudit], Nothing, "Events as they come, as server-sent events (filters as /audit; after, or Last-Event-ID)";
}

/// Events in one read.
const PAGE: usize = 256;
/// A log that grows without a pause is read this often, not more.
const PAUSE: Duration = Duration::from_millis(50);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The log from one place on, page by page, for as long as its reader may.
pub(crate) struct LogPages {
    app: App,
    caller: Caller,
    filter: EventFilter,
    grown: watch::Receiver<u64>,
}

impl LogPages {
    /// From where `wanted` says, or from now on.
    pub(crate) async fn open(app: &App, caller: &Caller, wanted: &Wanted) -> Result<Self, Failure> {
        let scope = caller.scope()?;
        let (filter, _) = wanted.filter()?;
        // Watched from before the first read, so that nothing falls between the two.
        let grown = app.store().event_watch(scope.tenant())?;
        let from_seq = match wanted.after {
            Some(_) => filter.from_seq,
            None => app.store().event_next(scope.tenant()).await?,
        };
        let filter = EventFilter { from_seq, limit: PAGE, order: Order::Oldest, ..filter };
        // The right is asked for now, so that a refusal is a reply and not a stream that ends.
        audit::read(app, &scope, EventFilter { limit: 0, ..filter.clone() }).await?;
        Ok(Self { app: app.clone(), caller: caller.clone(), filter, grown })
    }

    /// What has come, at most a page. `None` if it may not be read any more.
    pub(crate) async fn read(&mut self) -> Option<Vec<Event>> {
        self.grown.mark_unchanged();
        // Asked before every page: a reader whose key was revoked gets not one line more.
        self.caller = self.caller.again(&self.app).await?;
        let scope = self.caller.scope().ok()?;
        // Asked before the read: what is written in between is read again, never left out.
        let end = self.app.store().event_next(scope.tenant()).await.ok()?;
        let events = audit::read(&self.app, &scope, self.filter.clone()).await.ok()?;
        let last = events.last().map(|event| event.seq + 1);
        self.filter.from_seq = match last {
            Some(last) if events.len() == PAGE => last,
            Some(last) => last.max(end),
            None => self.filter.from_seq.max(end),
        };
        Some(events)
    }

    /// Waits for the log to grow. `None` when it is closed.
    pub(crate) async fn grown(&mut self) -> Option<()> {
        self.grown.changed().await.ok()?;
        tokio::time::sleep(PAUSE).await;
        Some(())
    }
}

struct Following {
    app: App,
    pages: LogPages,
    ready: VecDeque<Bytes>,
    look: Instant,
    _open: Option<Slot>,
}

async fn follow(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Params(mut wanted): Params<Wanted>,
) -> Result<Response, Failure> {
    if let Some(id) = headers.get(LAST_EVENT_ID) {
        let id = id.to_str().ok().and_then(|id| id.parse().ok());
        wanted.after =
            Some(id.ok_or_else(|| Failure::Parameters("header last-event-id: expected a number".to_owned()))?);
    }
    let pages = LogPages::open(&app, &caller, &wanted).await?;
    let open = Slot::take(Scarce::Streams, &app, &caller)?;
    let following = Following {
        look: Instant::now() + app.settings().times.heartbeat,
        ready: VecDeque::from([Bytes::from_static(b": here\n\n")]),
        _open: open,
        app,
        pages,
    };
    let body = Body::from_stream(stream::unfold(following, |mut following| async move {
        let piece = following.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), following))
    }));
    let mut response = body.into_response();
    let fixed = response.headers_mut();
    fixed.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    fixed.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    fixed.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Following {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if Instant::now() >= self.look {
                self.look = Instant::now() + self.app.settings().times.heartbeat;
                self.ready.push_back(Bytes::from_static(b": still here\n\n"));
            }
            let events = self.pages.read().await?;
            for event in &events {
                let text = format!("id: {}\nevent: audit\ndata: {}\n\n", event.seq, audit::shown(event));
                self.ready.push_back(Bytes::from(text));
            }
            if events.is_empty() {
                self.wait().await?;
            }
        }
    }

    /// Waits for the log to grow, or for the time to look after the reader. `None` at the server's end.
    async fn wait(&mut self) -> Option<()> {
        tokio::select! {
            () = self.app.closing().cancelled() => None,
            () = tokio::time::sleep_until(self.look) => Some(()),
            grown = self.pages.grown() => grown,
        }
    }
}
