//! The sandboxes that run: whose, since when, and what the kernel says holds them.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::ListSandboxes;
use bailiwick_sandbox::{Seen, Share};
use bailiwick_types::{SandboxId, SpaceId};
use serde_json::Value;

use super::frame::{Frame, Notice, Said, go, moment, page};
use crate::api::sandbox::{end_one, network_word, visible};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments};
use crate::route::routes;

routes! {
    GET "/sandboxes" list, Known, [ListSandboxes], Nothing, "The running sandboxes that one may see";
    POST "/sandboxes/{sandbox}/end" end, Known, [EndSandbox], Form, "End a running sandbox";
}

struct Row {
    id: SandboxId,
    space: SpaceId,
    agent: String,
    user: String,
    backend: &'static str,
    scope: &'static str,
    network: &'static str,
    since: String,
    commands: u64,
    running: u32,
    unused: String,
    /// What the kernel said around the last command, by name.
    receipt: Vec<(String, String)>,
}

impl From<Seen> for Row {
    fn from(seen: Seen) -> Self {
        let mut receipt = Vec::new();
        if let Some(said) = &seen.receipt {
            flatten("", &said.record(), &mut receipt);
        }
        Self {
            id: seen.id,
            space: seen.space,
            scope: match seen.share {
                Share::Session(_) => "one session",
                Share::Agent(_) => "all sessions of the agent",
                Share::Account => "all sessions of the account",
            },
            network: match network_word(&seen) {
                "gate" => "by the gate",
                word => word,
            },
            agent: seen.agent.to_string(),
            user: seen.user.to_string(),
            backend: seen.backend.as_str(),
            since: moment(seen.began),
            commands: seen.commands,
            running: seen.busy,
            unused: spoken(seen.unused.as_secs()),
            receipt,
        }
    }
}

/// For how long, as people say it.
fn spoken(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// The plain facts of a receipt, each with its name.
fn flatten(name: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name} {field}") };
                flatten(&name.replace('_', " "), value, into);
            }
        }
        Value::Array(values) => {
            let words = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            into.push((name.to_owned(), words.collect::<Vec<_>>().join(", ")));
        }
        Value::String(text) => into.push((name.to_owned(), text.clone())),
        Value::Null => {}
        other => into.push((name.to_owned(), other.to_string())),
    }
}

#[derive(Template)]
#[template(path = "sandboxes.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let seen = visible(&app, scope.authorize::<ListSandboxes>(scope.account())?).await?;
    let rows = seen.into_iter().map(Row::from).collect();
    page(&Page { frame: Frame::of(&app, &caller, "/sandboxes").await?, notice: said.notice(), rows })
}

async fn end(State(app): State<App>, caller: Caller, Segments(sandbox): Segments<String>) -> Result<Response, Failure> {
    end_one(&app, &caller.scope()?, &sandbox).await?;
    Ok(go("/sandboxes?ok=sandbox_ended"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_receipt_is_read_by_its_names() {
        let mut facts = Vec::new();
        flatten(
            "",
            &json!({ "backend": "linux", "limits": { "memory_bytes": 3, "of": null }, "fds": [0, "x"] }),
            &mut facts,
        );
        let facts: Vec<String> = facts.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(facts, ["backend=linux", "limits memory bytes=3", "fds=0, x"]);
    }
}
