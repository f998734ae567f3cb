//! The page on which a user lets a program act for them, or does not.
//!
//! It says who asks, and that nobody has looked at it where nobody has; where the browser goes next; as whom
//! the program would act, and how far. Nothing is remembered: each request is decided by a person, on this
//! page, with its token. No other site can show it in a frame.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb::{AllowApplication, ListAgents, ListSpaces};
use bailiwick_store::application::{NewApplication, Terms};
use bailiwick_types::{AgentName, KeyScope, SpaceId};
use serde::Deserialize;
use serde_json::json;

use super::frame::{ASSETS, Frame, again, go, leads_to, page};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Unread};
use crate::oauth::asked::{Asked, Asking, KnownBy, client_of};
use crate::oauth::redirect::RedirectUri;
use crate::oauth::{OAuthError, after, issuer};
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/oauth/authorize" ask, Known, [AllowApplication], Nothing, "The page of consent for a program";
    POST "/oauth/authorize" decide, Known, [AllowApplication], Form, "Let a program act for oneself, or not (decision, may, agent, space)";
}

#[derive(Template)]
#[template(path = "consent.html")]
struct Page<'a> {
    server: &'a str,
    assets: &'static str,
    frame: Frame,
    client: &'a str,
    client_id: String,
    known: KnownBy,
    /// Whether somebody of this house has looked at it.
    trusted: bool,
    local: bool,
    to: String,
    part: &'a str,
    writes: bool,
    agents: Vec<AgentName>,
    spaces: Vec<(SpaceId, String)>,
    days: u64,
    asking: &'a Asking,
}

#[derive(Template)]
#[template(path = "consent_failed.html")]
struct Unfit<'a> {
    server: &'a str,
    assets: &'static str,
    client: &'a str,
    why: &'a OAuthError,
    to: String,
    back: String,
}

async fn ask(State(app): State<App>, caller: Caller, Params(asking): Params<Asking>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<AllowApplication>(scope.user_named(own_name(&caller.principal)?))?;
    let issuer = issuer(&app)?;
    let (client, redirect) = client_of(&app, &permit, &asking).await?;
    let Asked { scopes, resource, .. } = match asking.check(&issuer) {
        Ok(asked) => asked,
        Err(why) => return unfit(&app, &client.name, &redirect, &asking, why),
    };
    let store = app.store();
    let agents = store.agent_list(scope.authorize::<ListAgents>(scope.account())?).await?;
    let spaces = store.space_list(scope.authorize::<ListSpaces>(scope.account())?).await?;
    let shown = page(&Page {
        server: &app.settings().server_name,
        assets: &ASSETS,
        frame: Frame::of(&app, &caller, "/oauth/authorize").await?,
        client: &client.name,
        client_id: client.id.to_string(),
        trusted: matches!(client.known, KnownBy::Operator),
        known: client.known,
        local: redirect.is_local(),
        to: redirect.shown(),
        part: &resource,
        writes: scopes.contains(&KeyScope::Write),
        agents: agents.into_iter().map(|row| row.name).collect(),
        spaces: spaces.into_iter().map(|row| (row.id, row.name)).collect(),
        days: app.settings().oauth.refresh.as_secs() / 86_400,
        asking: &asking,
    })?;
    leads_to(shown, &redirect.source())
}

/// A page that says what is wrong, with the way back to the program: a link, that a person follows or not.
fn unfit(
    app: &App,
    client: &str,
    redirect: &RedirectUri,
    asking: &Asking,
    why: OAuthError,
) -> Result<Response, Failure> {
    let back = back(app, redirect, asking, &[("error", why.code), ("error_description", why.description)])?;
    let (server, to) = (&app.settings().server_name, redirect.shown());
    let shown = page(&Unfit { server, assets: &ASSETS, client, why: &why, to, back })?;
    Ok(again(shown, why.into()))
}

/// The program's address with an answer, with what it said to know it by, and with who answers (RFC 9207).
fn back(app: &App, redirect: &RedirectUri, asking: &Asking, fields: &[(&str, &str)]) -> Result<String, Failure> {
    let issuer = issuer(app)?;
    let state = asking.state.as_deref().map(|state| ("state", state));
    let fields: Vec<(&str, &str)> = fields.iter().copied().chain(state).chain([("iss", issuer.as_str())]).collect();
    Ok(redirect.with(&fields))
}

/// What the form adds to the request.
#[derive(Deserialize)]
struct Decided {
    #[serde(default)]
    decision: String,
    #[serde(default)]
    may: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    space: String,
    #[serde(flatten)]
    asking: Asking,
}

async fn decide(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<AllowApplication>(scope.user_named(own_name(&caller.principal)?))?;
    let issuer = issuer(&app)?;
    let Decided { decision, may, agent, space, asking } = body.form().await?;
    // Looked at again: what the form says is what is done, and nothing that an earlier page has judged.
    let (client, redirect) = client_of(&app, &permit, &asking).await?;
    let asked = match asking.check(&issuer) {
        Ok(asked) => asked,
        Err(why) => return unfit(&app, &client.name, &redirect, &asking, why),
    };
    if decision != "allow" {
        let mut draft = permit.draft(Phase::Observation, Verdict::Denied, serde_json::Map::new());
        draft.detail.insert("client".to_owned(), json!(client.id));
        draft.detail.insert("code".to_owned(), json!("denied_by_user"));
        app.store().observe(Some(permit.tenant()), draft);
        return Ok(go(&back(&app, &redirect, &asking, &[("error", "access_denied")])?));
    }
    let chosen = |field: &'static str| Failure::Parameters(format!("{field}: choose one of the list"));
    let agent = Some(agent).filter(|agent| !agent.is_empty()).map(|agent| agent.parse().map_err(|_| chosen("agent")));
    let space = Some(space).filter(|space| !space.is_empty()).map(|space| space.parse().map_err(|_| chosen("space")));
    let scopes = if may == "read" { vec![KeyScope::Read] } else { asked.scopes };
    let terms = Terms {
        client: client.id,
        name: client.name,
        scopes,
        agent: agent.transpose()?,
        space: space.transpose()?,
        resource: asked.resource,
    };
    let code = app.walk().ring().make_code()?;
    let (id, hash) = (code.id.clone(), code.hash.clone());
    let text = code.into_text();
    let new = NewApplication {
        terms,
        code: (id, hash),
        code_ends: after(app.settings().oauth.code),
        redirect_uri: redirect.as_str().to_owned(),
        challenge: asked.challenge,
    };
    app.store().application_allow(permit, new).await?;
    Ok(go(&back(&app, &redirect, &asking, &[("code", text.as_str())])?))
}
