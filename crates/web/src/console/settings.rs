//! One's password, and what the server is.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ReadUser, SetPassword};
use serde::Deserialize;

use super::frame::{Frame, Notice, Said, again, go, notice_of, page};
use crate::app::App;
use crate::auth::password::change_password;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Unread};
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/settings" show, Known, [ReadUser], Nothing, "One's password, and what the server is";
    POST "/settings/password" change, Known, [SetPassword], Form, "Change one's password (current, new)";
}

#[derive(Template)]
#[template(path = "settings.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    facts: Vec<(&'static str, String)>,
}

async fn shown(app: &App, caller: &Caller, notice: Option<Notice>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let _permit = scope.authorize::<ReadUser>(scope.user_named(own_name(&caller.principal)?))?;
    let idle = match app.walk().idle() {
        Some(idle) => format!("after {} minutes without use", idle.as_secs().div_ceil(60)),
        None => "never by themselves".to_owned(),
    };
    let facts = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("address", app.settings().public_url.clone().unwrap_or_else(|| "as in your browser".to_owned())),
        ("callers are known by", app.settings().auth_mode.as_str().to_owned()),
        ("logins end", idle),
        ("models", app.settings().models.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    ];
    page(&Page { frame: Frame::of(app, caller, "/settings").await?, notice, facts })
}

async fn show(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    shown(&app, &caller, said.notice()).await
}

#[derive(Deserialize)]
struct Change {
    current: String,
    new: String,
}

async fn change(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<SetPassword>(scope.user_named(own_name(&caller.principal)?))?;
    let wanted: Change = body.form().await?;
    match change_password(&app, &caller, permit, &wanted.current, &wanted.new).await {
        Ok(()) => Ok(go("/settings?ok=password")),
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(shown(&app, &caller, Some(notice)).await?, failure))
        }
    }
}
