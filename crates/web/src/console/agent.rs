//! The account's agents.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::ListAgents;
use bailiwick_types::egress::{Egress, EgressWord};

use super::frame::{Frame, Notice, Said, moment, page};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Params;
use crate::route::routes;

routes! {
    GET "/agents" list, Known, [ListAgents], Nothing, "The account's agents";
}

struct Row {
    id: String,
    title: String,
    description: String,
    model: String,
    tools: String,
    asks: String,
    sandbox: String,
    reaches: String,
    version: u64,
    changed: String,
}

#[derive(Template)]
#[template(path = "agents.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
}

/// The most destinations that are named; the rest is counted.
const MOST_NAMED: usize = 12;

fn reaches(egress: &Egress) -> String {
    match egress {
        Egress::Word(EgressWord::DenyAll) => "nothing".to_owned(),
        Egress::Word(EgressWord::AllowAll) => "every public address that the server lets through".to_owned(),
        Egress::List(list) => {
            let mut named: Vec<String> = list.allow.keys().take(MOST_NAMED).map(ToString::to_string).collect();
            if list.allow.len() > MOST_NAMED {
                named.push(format!("{} more", list.allow.len() - MOST_NAMED));
            }
            named.join(", ")
        }
    }
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let rows = app.store().agent_list(scope.authorize::<ListAgents>(scope.account())?).await?;
    let words =
        |names: &[bailiwick_types::ToolName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rows = rows.into_iter().map(|row| {
        let definition = row.definition;
        let sandbox = serde_json::to_value(definition.sandbox).unwrap_or_default();
        let part = |name: &str| sandbox[name].as_str().unwrap_or("").to_owned();
        let reaches = reaches(&definition.egress);
        Row {
            reaches,
            id: row.name.to_string(),
            title: if definition.name.is_empty() { row.name.to_string() } else { definition.name },
            description: definition.description,
            model: definition.model.to_string(),
            tools: words(&definition.tools),
            asks: words(&definition.require_approval),
            sandbox: format!("mode {}, one for each {}, workspace {}", part("mode"), part("scope"), part("workspace")),
            version: row.version,
            changed: moment(row.updated_at),
        }
    });
    let rows = rows.collect();
    page(&Page { frame: Frame::of(&app, &caller, "/agents").await?, notice: said.notice(), rows })
}
