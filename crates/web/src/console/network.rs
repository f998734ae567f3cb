//! What sandboxes reached, and what they were refused.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_audit::{Event, Verdict};
use bailiwick_auth::access::verb::ReadAccountAudit;
use bailiwick_store::log::{EventFilter, Order};
use bailiwick_types::host::HostName;
use serde::Deserialize;

use super::frame::{Frame, Notice, moment, page, query};
use crate::api::audit::read;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Params;
use crate::route::routes;

routes! {
    GET "/network" show, Known, [ReadAccountAudit, ReadAudit], Nothing, "What sandboxes reached and what they were refused (agent, result, before)";
}

/// Lines on a page.
const ROWS: usize = 100;
/// The action of a connection.
const CONNECT: &str = "sandbox.connect";

struct Row {
    at: String,
    agent: String,
    host: String,
    code: String,
    class: &'static str,
    request: String,
    answer: String,
    times: u64,
    /// What an admin would write to let it through; nothing where that is no matter of a rule.
    rule: Option<String>,
}

impl From<Event> for Row {
    fn from(event: Event) -> Self {
        let draft = event.draft;
        let text = |name: &str| draft.detail.get(name).and_then(|value| value.as_str()).unwrap_or("").to_owned();
        let number = |name: &str| draft.detail.get(name).and_then(serde_json::Value::as_u64);
        let (name, code, port) = (text("host"), text("code"), number("port"));
        let unusual = port.filter(|port| !matches!(port, 80 | 443));
        let host = unusual.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
        // A name alone: nobody is led to allow an address, or more than was asked for.
        let named = code == "host_not_allowed" && HostName::parse(&name).is_ok();
        let secrets = draft.detail.get("secrets").and_then(|names| names.as_array()).map_or(0, Vec::len);
        let status = number("status").map(|status| status.to_string());
        let with = (secrets > 0).then(|| format!("with {secrets} secret{}", if secrets == 1 { "" } else { "s" }));
        Self {
            at: moment(event.at),
            agent: draft.agent.map(|name| name.to_string()).unwrap_or_default(),
            rule: named.then(|| format!("\"{host}\": []")),
            host,
            code,
            class: match draft.verdict {
                Verdict::Ok => "tag good",
                Verdict::Denied => "tag bad",
                Verdict::Fail | Verdict::Begun => "tag warn",
            },
            request: format!("{} {}", text("method"), text("path")).trim().to_owned(),
            answer: [status, with].into_iter().flatten().collect::<Vec<_>>().join(", "),
            times: number("times").unwrap_or(1),
        }
    }
}

#[derive(Template)]
#[template(path = "network.html")]
struct Page<'a> {
    frame: Frame,
    notice: Option<Notice>,
    whole: bool,
    agent: &'a str,
    result: &'a str,
    rows: Vec<Row>,
    older: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wanted {
    agent: String,
    result: String,
    before: Option<u64>,
}

async fn show(State(app): State<App>, caller: Caller, Params(wanted): Params<Wanted>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let filled = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let filter = EventFilter {
        action: Some(CONNECT.to_owned()),
        verdict: filled(&wanted.result).and_then(|word| Verdict::parse(&word)),
        agent: filled(&wanted.agent),
        before_seq: wanted.before,
        limit: ROWS + 1,
        order: Order::Newest,
        ..EventFilter::default()
    };
    let mut events = read(&app, &scope, filter).await?;
    let more = events.len() > ROWS;
    events.truncate(ROWS);
    let query = query(&[("agent", &wanted.agent), ("result", &wanted.result)]);
    let older = events.last().filter(|_| more).map(|last| format!("/network?{query}&before={}", last.seq));
    page(&Page {
        frame: Frame::of(&app, &caller, "/network").await?,
        notice: None,
        whole: scope.may::<ReadAccountAudit>(&scope.account()),
        agent: &wanted.agent,
        result: &wanted.result,
        rows: events.into_iter().map(Row::from).collect(),
        older,
    })
}
