//! The first page: what waits, what there is, what was begun last.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ListAgents, ListDevices, ListKeys, ListSessions, ListSpaces, ListUsers, ReadUser};

use super::frame::{Frame, Notice, Said, moment, page};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Params;
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/" show, Known, [ListSpaces], Nothing, "The dashboard";
}

/// Sessions that are shown.
const LATEST: usize = 10;

#[derive(Template)]
#[template(path = "dashboard.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    spaces: usize,
    agents: usize,
    devices: usize,
    keys: usize,
    users: Option<usize>,
    has_factor: bool,
    sessions: Vec<(String, String, &'static str, String)>,
}

async fn show(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    let (scope, store) = (caller.scope()?, app.store());
    let spaces = store.space_list(scope.authorize::<ListSpaces>(scope.account())?).await?.len();
    let me = || own_name(&caller.principal).map(|name| scope.user_named(name));
    let agents = store.agent_list(scope.authorize::<ListAgents>(scope.account())?).await?.len();
    let sessions = store.session_list(scope.authorize::<ListSessions>(scope.account())?, LATEST).await?;
    let sessions = sessions
        .into_iter()
        .map(|row| (row.id.to_string(), row.agent.to_string(), row.state.as_str(), moment(row.created_at)));
    let factors = store.factors_read(scope.authorize::<ReadUser>(me()?)?).await?;
    let users = match scope.may::<ListUsers>(&scope.account()) {
        true => Some(store.user_list(scope.authorize::<ListUsers>(scope.account())?).await?.len()),
        false => None,
    };
    page(&Page {
        frame: Frame::of(&app, &caller, "/").await?,
        notice: said.notice(),
        spaces,
        agents,
        devices: store.device_list(scope.authorize::<ListDevices>(me()?)?).await?.len(),
        keys: store.key_list(scope.authorize::<ListKeys>(me()?)?).await?.len(),
        users,
        has_factor: factors.totp || factors.passkeys > 0,
        sessions: sessions.collect(),
    })
}
