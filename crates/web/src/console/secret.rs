//! Secrets: what they are called, who may use them and for which hosts. A value goes in and is never shown.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{DeleteSecret, GrantSecret, ListAgents, ListSecrets, SetSecret};
use bailiwick_store::secret::{Change, Expect, SecretRow};
use bailiwick_types::{AgentName, LeaseTerm, SecretKind, SecretName, UsedBy};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::frame::{Frame, Notice, Said, again, go, moment, notice_of, page};
use crate::api::secret::{Given, grant, sealing};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread};
use crate::route::routes;

routes! {
    GET "/secrets" list, Known, [ListSecrets], Nothing, "The account's secrets";
    POST "/secrets" set, Known, [SetSecret], Form, "Give a secret a value, or an OAuth client's refresh grant (name, kind, value, note)";
    POST "/secrets/{secret}/grant" give, Known, [GrantSecret], Form, "Let an agent use it for a host (agent, hosts, used_by, lease)";
    POST "/secrets/{secret}/revoke" take, Known, [GrantSecret], Form, "Take a grant back (agent, hosts, used_by)";
    POST "/secrets/{secret}/delete" delete, Known, [DeleteSecret], Form, "Delete a secret";
}

struct Row {
    name: SecretName,
    kind: SecretKind,
    set_again: Option<String>,
    note: String,
    version: u64,
    updated: String,
    released: String,
    grants: Vec<(AgentName, String, UsedBy, &'static str)>,
}

impl From<SecretRow> for Row {
    fn from(row: SecretRow) -> Self {
        let grants = row.grants.into_iter();
        let grants = grants.map(|grant| (grant.agent, grant.hosts.to_string(), grant.used_by, words(grant.lease)));
        Self {
            name: row.name,
            kind: row.kind,
            set_again: row.set_again,
            note: row.note,
            version: row.version,
            updated: moment(row.updated_at),
            released: row.released_at.map_or_else(|| "never".to_owned(), moment),
            grants: grants.collect(),
        }
    }
}

/// For how long it is released at a time, in words.
fn words(lease: LeaseTerm) -> &'static str {
    match lease {
        LeaseTerm::Minute => "a minute",
        LeaseTerm::Call => "the call",
        LeaseTerm::ApprovedCall => "an approved call",
    }
}

#[derive(Template)]
#[template(path = "secrets.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
    agents: Vec<AgentName>,
}

async fn shown(app: &App, caller: &Caller, notice: Option<Notice>) -> Result<Response, Failure> {
    let (scope, store) = (caller.scope()?, app.store());
    let permit = scope.authorize::<ListSecrets>(scope.account())?;
    let rows = store.secret_list(permit).await?.into_iter().map(Row::from).collect();
    let agents = store.agent_list(scope.authorize::<ListAgents>(scope.account())?).await?;
    let agents = agents.into_iter().map(|row| row.name).collect();
    page(&Page { frame: Frame::of(app, caller, "/secrets").await?, notice, rows, agents })
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    shown(&app, &caller, said.notice()).await
}

/// What came of a form: the page of it, with the reason where the sender can mend it.
async fn done(app: &App, caller: &Caller, word: &str, did: Result<(), Failure>) -> Result<Response, Failure> {
    match did {
        Ok(()) => Ok(go(&format!("/secrets?ok={word}"))),
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(shown(app, caller, Some(notice)).await?, failure))
        }
    }
}

#[derive(Deserialize)]
struct Value {
    name: String,
    #[serde(default)]
    kind: SecretKind,
    value: Zeroizing<String>,
    #[serde(default)]
    note: String,
}

async fn set(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<SetSecret>(scope.account())?;
    let Value { name, kind, value, note } = body.form().await?;
    // Forms send line ends in two letters (HTML, "constructing the entry list").
    let value = Zeroizing::new(value.replace("\r\n", "\n"));
    let note = Some(note.trim().to_owned()).filter(|note| !note.is_empty());
    let did = async {
        let name: SecretName = name.trim().parse()?;
        let given = Given::read(kind, value, note.as_deref()).map_err(Failure::Parameters)?;
        let sealing = sealing(&app, &permit, name.clone(), given).await?;
        app.store().secret_set(permit, name, kind, note, Expect::Either, sealing).await?;
        Ok(())
    };
    let did = did.await;
    done(&app, &caller, "secret_set", did).await
}

#[derive(Deserialize)]
struct Wanted {
    agent: String,
    hosts: String,
    #[serde(default)]
    used_by: UsedBy,
    #[serde(default)]
    lease: LeaseTerm,
}

async fn give(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    change(&app, &caller, &name, body, Change::Give).await
}

async fn take(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    change(&app, &caller, &name, body, Change::Take).await
}

async fn change(app: &App, caller: &Caller, name: &str, body: Unread, change: Change) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<GrantSecret>(scope.account())?;
    let Wanted { agent, hosts, used_by, lease } = body.form().await?;
    let did = async {
        let name: SecretName = name.parse().map_err(|_| Failure::not_found("secret", name))?;
        let grant = grant(agent.trim(), used_by, hosts.trim(), lease).map_err(Failure::Parameters)?;
        app.store().secret_grant(permit, name, grant, change).await?;
        Ok(())
    };
    let did = did.await;
    let word = if change == Change::Give { "secret_granted" } else { "secret_taken" };
    done(app, caller, word, did).await
}

async fn delete(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<DeleteSecret>(scope.account())?;
    let name: SecretName = name.parse().map_err(|_| Failure::not_found("secret", &name))?;
    app.store().secret_delete(permit, name).await?;
    Ok(go("/secrets?ok=removed"))
}
