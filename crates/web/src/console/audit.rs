//! The audit log: filters, pages, and a live tail.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_audit::{Event, Verdict};
use bailiwick_auth::access::verb::ReadAccountAudit;
use bailiwick_store::log::{EventFilter, Order};
use bailiwick_types::UserName;
use serde::Deserialize;

use super::frame::{Frame, Notice, moment, page, query};
use crate::api::audit::read;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Params;
use crate::route::routes;

routes! {
    GET "/audit" show, Known, [ReadAccountAudit, ReadAudit], Nothing, "The audit log (action, result, user, before)";
}

/// Events on a page.
const ROWS: usize = 100;
/// What is often looked for.
const ACTIONS: [&str; 12] = [
    "auth.login",
    "auth.password.set",
    "auth.2fa.set",
    "auth.session.timeout",
    "device.revoke",
    "key.create",
    "key.revoke",
    "user.create",
    "user.role.set",
    "space.grant",
    "tool.call",
    "approval.decide",
];

struct Row {
    seq: u64,
    at: String,
    actor: String,
    action: String,
    resource: String,
    result: &'static str,
    class: &'static str,
    address: String,
}

impl From<Event> for Row {
    fn from(event: Event) -> Self {
        let draft = event.draft;
        Self {
            seq: event.seq,
            at: moment(event.at),
            actor: draft.actor.to_text(),
            action: draft.action,
            resource: draft.resource,
            result: draft.verdict.as_str(),
            class: match draft.verdict {
                Verdict::Ok => "tag good",
                Verdict::Denied => "tag bad",
                Verdict::Fail => "tag warn",
                Verdict::Begun => "tag",
            },
            address: draft.address,
        }
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Page<'a> {
    frame: Frame,
    notice: Option<Notice>,
    whole: bool,
    action: &'a str,
    result: &'a str,
    user: &'a str,
    actions: [&'static str; 12],
    rows: Vec<Row>,
    /// Where new events come from; nothing on a page of the past.
    tail: String,
    older: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wanted {
    action: String,
    result: String,
    user: String,
    before: Option<u64>,
}

async fn show(State(app): State<App>, caller: Caller, Params(wanted): Params<Wanted>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    // What nobody can be called nobody did.
    let user = filled(&wanted.user).map(|user| user.parse::<UserName>()).transpose()?;
    let filter = EventFilter {
        action: filled(&wanted.action),
        verdict: filled(&wanted.result).and_then(|word| Verdict::parse(&word)),
        user,
        before_seq: wanted.before,
        limit: ROWS + 1,
        order: Order::Newest,
        ..EventFilter::default()
    };
    let mut events = read(&app, &scope, filter).await?;
    let more = events.len() > ROWS;
    events.truncate(ROWS);
    let query = query(&[("action", &wanted.action), ("result", &wanted.result), ("user", &wanted.user)]);
    let older = events.last().filter(|_| more).map(|last| format!("/audit?{query}&before={}", last.seq));
    let tail = if wanted.before.is_none() { format!("/api/v1/audit/stream?{query}") } else { String::new() };
    page(&Page {
        frame: Frame::of(&app, &caller, "/audit").await?,
        notice: None,
        whole: scope.may::<ReadAccountAudit>(&scope.account()),
        action: &wanted.action,
        result: &wanted.result,
        user: &wanted.user,
        actions: ACTIONS,
        rows: events.into_iter().map(Row::from).collect(),
        tail,
        older,
    })
}
