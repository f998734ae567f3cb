//! Signing in and out, and who one is. The token is in the one reply that made it, and nowhere else.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::Credential;
use bailiwick_auth::access::verb::{ReadUser, RevokeDevice};
use bailiwick_types::AccountName;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::api::user::role_word;
use crate::app::App;
use crate::caller::{Caller, Visitor};
use crate::error::Failure;
use crate::input::{Unread, line};
use crate::route::routes;
use crate::sign_in::{LONGEST_DEVICE, Shown, SignedIn, device_name, own_name, sign_in};

routes! {
    POST "/api/auth/login" login, Public, [], Json, "Sign in (username, password, deviceName, totpCode); answers a token, which is shown once";
    POST "/api/auth/logout" logout, Known, [RevokeDevice], Nothing, "Sign out: end the login whose token was sent";
    GET "/api/auth/me" me, Known, [ReadUser], Nothing, "Who the caller is";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Login {
    username: String,
    password: String,
    #[serde(default)]
    account: Option<AccountName>,
    #[serde(default)]
    device_name: Option<String>,
    #[serde(default)]
    totp_code: Option<String>,
}

async fn login(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    let login: Login = body.json().await?;
    let device = device_said(login.device_name, &headers)?;
    let shown = Shown {
        name: &login.username,
        account: login.account,
        password: &login.password,
        code: login.totp_code.as_deref(),
        device,
        client: visitor.address,
    };
    let made = sign_in(&app, shown, visitor.request).await?;
    Ok(signed_in(&app, &made))
}

/// What the list of logins is to call a new one.
pub(crate) fn device_said(name: Option<String>, headers: &HeaderMap) -> Result<String, Failure> {
    match name.filter(|name| !name.trim().is_empty()) {
        Some(name) => line("deviceName", &name, LONGEST_DEVICE).map(|()| name),
        None => Ok(device_name(headers)),
    }
}

/// The one reply that holds the token.
pub(crate) fn signed_in(app: &App, made: &SignedIn) -> Response {
    let answer = json!({
        "token": *made.token, "deviceId": made.device,
        "serverName": app.settings().server_name, "username": made.user,
    });
    Json(answer).into_response()
}

async fn logout(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<RevokeDevice>(scope.user_named(own_name(&caller.principal)?))?;
    let Credential::Device(device) = caller.principal.credential().clone() else {
        return Err(Failure::NotAccepted {
            reason: "not_a_login",
            message: "this is no login but a key: revoke it where keys are listed",
        });
    };
    app.store().device_revoke(permit, device).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn me(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let user = own_name(&caller.principal)?;
    let permit = scope.authorize::<ReadUser>(scope.user_named(user.clone()))?;
    let row = app.store().user_read(permit).await?;
    let device = match caller.principal.credential() {
        Credential::Device(id) => Some(id.clone()),
        _ => None,
    };
    let answer = json!({
        "username": user, "account": scope.tenant().account(), "role": role_word(row.role),
        "deviceId": device, "serverName": app.settings().server_name,
    });
    Ok(Json(answer).into_response())
}
