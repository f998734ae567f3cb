//! Jobs: commands that run beside the requests, in a space and as an agent. What one says is read as lines of JSON
//! with numbers, from any of them on, so that a reader who was cut off goes on where it was.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_agent::Wanted;
use bailiwick_auth::access::Job;
use bailiwick_auth::access::verb::{CreateJob, ListJobs, ReadJob};
use bailiwick_auth::{Permit, Scope};
use bailiwick_store::job::{Ending, JobKind, JobRow, JobState};
use bailiwick_types::limits::JOB_COMMAND_BYTES;
use bailiwick_types::{AgentName, JobId, SpaceId, Timestamp, UserName};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::space;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread, page_rows};
use crate::meters::{Scarce, Slot};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/spaces/{space}/jobs" list, Known, [ListJobs], Nothing, "The jobs of a space that the caller may read, newest first (limit)";
    POST "/api/v1/spaces/{space}/jobs" create, Known, [CreateJob], Json, "Run a command in the background (agent, command, kind, timeout_seconds)";
    GET "/api/v1/spaces/{space}/jobs/{job}" show, Known, [ReadJob], Nothing, "Where a job stands";
    DELETE "/api/v1/spaces/{space}/jobs/{job}" cancel, Known, [CancelJob], Nothing, "Cancel a job; one that has ended stays as it ended";
    GET "/api/v1/spaces/{space}/jobs/{job}/log" log, Known, [ReadJob], Nothing, "What a job said, as lines of JSON; the last one is its end (after, follow)";
}

/// Events in one read; fewer where they are long.
const PAGE: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    command: String,
    #[serde(default)]
    agent: Option<AgentName>,
    #[serde(default)]
    kind: Option<JobKind>,
    #[serde(default)]
    timeout_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Shown {
    id: JobId,
    space_id: SpaceId,
    agent: AgentName,
    initiator: UserName,
    kind: JobKind,
    command: String,
    timeout_seconds: u64,
    state: JobState,
    ending: Option<Ending>,
    events: u64,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl From<JobRow> for Shown {
    fn from(row: JobRow) -> Self {
        Self {
            id: row.id,
            space_id: row.space,
            agent: row.agent,
            initiator: row.initiator,
            kind: row.kind,
            command: row.command,
            timeout_seconds: row.timeout_seconds,
            state: row.state,
            ending: row.ending,
            events: row.events,
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
        }
    }
}

/// The job that a path names, in the space that it names.
async fn find(app: &App, scope: &Scope, (space, job): (&str, &str)) -> Result<Job, Failure> {
    let missing = || Failure::not_found("job", job);
    let space = space::find(app, scope, space).await.map_err(|failure| match failure {
        Failure::NotFound { .. } => missing(),
        other => other,
    })?;
    let id: JobId = job.parse().map_err(|_| missing())?;
    app.store().job_find(scope, &space, id).await?.ok_or_else(missing)
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    Params(Limit { limit }): Params<Limit>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListJobs>(space::find(&app, &scope, &space).await?)?;
    let rows = app.store().job_list(permit, page_rows(limit, 100)?).await?;
    Ok(reply::done(rows.into_iter().map(Shown::from).collect::<Vec<_>>()))
}

/// The runtime asks for the right again when it puts the job into the queue; here it is asked before the body is
/// read.
async fn create(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let space = space::find(&app, &scope, &space).await?;
    let _permit = scope.authorize::<CreateJob>(space.clone())?;
    let New { command, agent, kind, timeout_seconds } = body.json().await?;
    if command.trim().is_empty() || command.contains('\0') {
        return Err(Failure::Parameters("body.command: is empty, or holds the character U+0000".to_owned()));
    }
    if command.len() > JOB_COMMAND_BYTES {
        return Err(Failure::Parameters(format!("body.command: at most {JOB_COMMAND_BYTES} bytes")));
    }
    let agent = agent.or_else(|| scope.bounds().agent).unwrap_or_else(AgentName::first);
    let wanted = Wanted { agent, command, kind: kind.unwrap_or_default(), timeout_seconds };
    Ok(reply::accepted(Shown::from(app.runtime().job_create(&scope, space, wanted).await?)))
}

async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments((space, job)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let permit = right(&app, &caller, (&space, &job)).await?;
    Ok(reply::done(Shown::from(app.store().job_read(&permit).await?)))
}

async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Segments((space, job)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let job = find(&app, &scope, (&space, &job)).await?;
    Ok(reply::accepted(Shown::from(app.runtime().job_cancel(&scope, job).await?)))
}

#[derive(Deserialize)]
struct Place {
    after: Option<u64>,
    #[serde(default)]
    follow: bool,
}

/// A job's events from one place on, for as long as their reader may.
struct Reading {
    app: App,
    caller: Caller,
    space: String,
    job: String,
    permit: Permit<ReadJob>,
    grown: watch::Receiver<u64>,
    after: u64,
    /// The number of the event after which it ends by itself, if it does not wait for more.
    until: Option<u64>,
    look: Instant,
    _open: Option<Slot>,
}

async fn right(app: &App, caller: &Caller, named: (&str, &str)) -> Result<Permit<ReadJob>, Failure> {
    let scope = caller.scope()?;
    let job = find(app, &scope, named).await?;
    Ok(scope.authorize::<ReadJob>(job)?)
}

async fn log(
    State(app): State<App>,
    caller: Caller,
    Segments((space, job)): Segments<(String, String)>,
    Params(Place { after, follow }): Params<Place>,
) -> Result<Response, Failure> {
    let permit = right(&app, &caller, (&space, &job)).await?;
    // Watched from before the first read, so that nothing falls between the two.
    let grown = app.store().job_watch(&permit)?;
    let events = app.store().job_read(&permit).await?.events;
    let open = Slot::take(Scarce::Streams, &app, &caller)?;
    let reading = Reading {
        look: Instant::now() + app.settings().times.heartbeat,
        after: after.unwrap_or(0),
        until: (!follow).then_some(events),
        _open: open,
        app,
        caller,
        space,
        job,
        permit,
        grown,
    };
    let body = Body::from_stream(stream::unfold(reading, |mut reading| async move {
        let piece = reading.next().await?;
        Some((Ok::<_, Infallible>(piece), reading))
    }));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Reading {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.until.is_some_and(|until| self.after >= until) {
                return None;
            }
            if Instant::now() >= self.look {
                self.look = Instant::now() + self.app.settings().times.heartbeat;
                self.still_may().await?;
                return Some(Bytes::from_static(b"\n"));
            }
            let lines = self.read().await?;
            if !lines.is_empty() {
                self.still_may().await?;
                return Some(lines);
            }
            let row = self.app.store().job_read(&self.permit).await.ok()?;
            // What was there when the stream was opened may have been dropped since, to make room.
            if self.until.is_some() || row.state.is_ended() && self.after >= row.events {
                return None;
            }
            tokio::select! {
                () = self.app.closing().cancelled() => return None,
                () = tokio::time::sleep_until(self.look) => {}
                grown = self.grown.changed() => grown.ok()?,
            }
        }
    }

    /// Looks again whether the caller may read; before every page, so that a revoked key gets no more.
    async fn still_may(&mut self) -> Option<()> {
        self.caller = self.caller.again(&self.app).await?;
        self.permit = right(&self.app, &self.caller, (&self.space, &self.job)).await.ok()?;
        Some(())
    }

    /// The lines that are there, up to a page. Where numbers are missing, a line says how many.
    async fn read(&mut self) -> Option<Bytes> {
        self.grown.mark_unchanged();
        let events = self.app.store().job_events(&self.permit, self.after, PAGE).await.ok()?;
        let mut lines = BytesMut::with_capacity(events.iter().map(|(_, line)| line.len() + 64).sum());
        for (n, line) in events {
            let missing = n.saturating_sub(self.after.saturating_add(1));
            if missing > 0 {
                let text = format!("{{\"n\":{},\"type\":\"dropped\",\"events\":{missing}}}\n", n - 1);
                lines.extend_from_slice(text.as_bytes());
            }
            lines.extend_from_slice(line.as_bytes());
            lines.extend_from_slice(b"\n");
            self.after = n;
        }
        Some(lines.freeze())
    }
}
