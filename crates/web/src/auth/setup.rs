//! The first boot: the first admin of the first account, while there is none.
//!
//! Whoever gets there first owns the server. So from elsewhere than this host itself a code is asked for,
//! which only the server's own log and terminal show.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::authn::Browser;
use bailiwick_auth::password::Password;
use bailiwick_store::password::FirstBoot;
use bailiwick_types::UserName;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::caller::Visitor;
use crate::error::Failure;
use crate::input::Unread;
use crate::route::routes;
use crate::sign_in::{LOGINS_OFF, NotSignedIn};

routes! {
    GET "/api/auth/setup/status" status, Public, [], Nothing, "Whether the server waits for its first admin";
    POST "/api/auth/setup" set_up, Public, [], Json, "Make the first admin (username, password, code), while there is none";
}

async fn status(State(app): State<App>, visitor: Visitor) -> Result<Response, Failure> {
    let needed = app.walk().admits_logins() && app.store().set_up_open().await?;
    let answer = json!({ "needed": needed, "codeRequired": needed && !is_here(&app, &visitor) });
    Ok(Json(answer).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetUp {
    username: UserName,
    password: String,
    #[serde(default)]
    code: Option<String>,
}

async fn set_up(State(app): State<App>, visitor: Visitor, body: Unread) -> Result<Response, Failure> {
    let SetUp { username, password, code } = body.json().await?;
    make_first_admin(&app, &visitor, &username, &password, code.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(json!({ "username": username }))).into_response())
}

/// Makes the first admin, if whoever asks may.
pub(crate) async fn make_first_admin(
    app: &App,
    visitor: &Visitor,
    name: &UserName,
    password: &str,
    code: Option<&str>,
) -> Result<(), Failure> {
    if !app.walk().admits_logins() {
        return Err(LOGINS_OFF);
    }
    // Asked first, so that nobody tries codes on a server that is set up, or hashes for nothing.
    if !app.store().set_up_open().await? {
        return Err(Failure::NotAccepted {
            reason: "set_up_already",
            message: "this server has an admin already: sign in, or ask them for an account",
        });
    }
    let known = app.settings().setup_code.as_deref();
    let shown = known.zip(code).is_some_and(|(known, shown)| known.as_bytes().ct_eq(shown.as_bytes()).into());
    if !is_here(app, visitor) && !shown {
        return Err(Failure::SetUpCode);
    }
    let password = Password::new(password);
    password.fit(name.as_str(), app.sign_ins().passwords().algorithm())?;
    let stored = app.sign_ins().passwords().hash(password).await.map_err(|_| NotSignedIn::Busy)?;
    let address = visitor.address.to_string();
    Ok(app.store().first_admin_create(name.clone(), stored, FirstBoot::Page, address).await?)
}

/// Whether a program or a page on this very host asks, as far as that can be told.
pub(crate) fn is_here(app: &App, visitor: &Visitor) -> bool {
    // Where a proxy stands before the server, everybody comes from this host, and not every proxy says so.
    let settings = app.settings();
    let direct = settings.public_url.is_none() && settings.trusted_proxies.is_empty();
    direct && visitor.peer.to_canonical().is_loopback() && visitor.browser == Browser::Own
}
