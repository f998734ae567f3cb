//! Signing in and out, and the set-up of a new server.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Credential;
use bailiwick_auth::access::verb::RevokeDevice;
use bailiwick_types::UserName;
use http::HeaderMap;
use http::header::SET_COOKIE;
use serde::Deserialize;

use super::frame::{ASSETS, Notice, Said, again, cookie, go, local, notice_of, page};
use super::oidc;
use crate::app::App;
use crate::auth::setup::{is_here, make_first_admin};
use crate::caller::{Caller, Visitor};
use crate::error::Failure;
use crate::input::{Params, Unread};
use crate::route::routes;
use crate::sign_in::{NotSignedIn, Shown, device_name, own_name, sign_in};

routes! {
    GET "/login" form, Public, [], Nothing, "The login page";
    POST "/login" submit, Public, [], Form, "Sign in (username, password, totpCode)";
    POST "/logout" logout, Known, [RevokeDevice], Form, "Sign out";
    GET "/setup" setup_form, Public, [], Nothing, "The set-up of a server without an admin";
    POST "/setup" setup, Public, [], Form, "Make the first admin (username, password, code)";
}

#[derive(Template)]
#[template(path = "login.html")]
struct Page<'a> {
    server: &'a str,
    assets: &'static str,
    notice: Option<Notice>,
    next: &'a str,
    username: &'a str,
    ask_code: bool,
    new: bool,
    providers: Vec<oidc::Button>,
}

#[derive(Deserialize)]
struct Next {
    next: Option<String>,
}

async fn form(
    State(app): State<App>,
    Params(said): Params<Said>,
    Params(Next { next }): Params<Next>,
) -> Result<Response, Failure> {
    // Not led there: the people of other accounts sign in here, whether or not the first one has an admin.
    let new = app.store().first_admin_missing().await?;
    let next = next.as_deref().and_then(local).unwrap_or("/");
    let server = &app.settings().server_name;
    let (notice, providers) = (said.notice(), oidc::buttons(&app, next));
    page(&Page { server, assets: &ASSETS, notice, next, username: "", ask_code: false, new, providers })
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
    #[serde(default, rename = "totpCode")]
    totp_code: Option<String>,
    #[serde(default)]
    next: Option<String>,
}

async fn submit(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    let login: Login = body.form().await?;
    let next = login.next.as_deref().and_then(local).unwrap_or("/");
    let shown = Shown {
        name: login.username.trim(),
        account: None,
        password: &login.password,
        code: login.totp_code.as_deref(),
        device: device_name(&headers),
        client: visitor.address,
    };
    match sign_in(&app, shown, visitor.request).await {
        Ok(made) => {
            let mut response = go(next);
            response.headers_mut().insert(SET_COOKIE, cookie(&app, Some(&made.token))?);
            Ok(response)
        }
        Err(failure) => {
            let asked = matches!(failure, Failure::SignIn(NotSignedIn::CodeWanted(..)));
            let ask_code = asked || matches!(failure, Failure::SignIn(NotSignedIn::Code(_)));
            let (notice, failure) = notice_of(failure)?;
            let server = &app.settings().server_name;
            let notice = if asked {
                Notice::Done("Your password is right. Type it once more, with the code of your app.")
            } else {
                notice
            };
            let page = page(&Page {
                server,
                assets: &ASSETS,
                notice: Some(notice),
                next,
                username: &login.username,
                ask_code,
                new: false,
                providers: oidc::buttons(&app, next),
            })?;
            Ok(again(page, failure))
        }
    }
}

async fn logout(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<RevokeDevice>(scope.user_named(own_name(&caller.principal)?))?;
    if let Credential::Device(device) = caller.principal.credential().clone() {
        app.store().device_revoke(permit, device).await?;
    }
    let mut response = go("/login?ok=signed_out");
    response.headers_mut().insert(SET_COOKIE, cookie(&app, None)?);
    Ok(response)
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetUpPage<'a> {
    server: &'a str,
    assets: &'static str,
    notice: Option<Notice>,
    code_required: bool,
    code: &'a str,
    username: &'a str,
}

#[derive(Deserialize)]
struct Code {
    code: Option<String>,
}

async fn setup_form(
    State(app): State<App>,
    visitor: Visitor,
    Params(Code { code }): Params<Code>,
) -> Result<Response, Failure> {
    if !app.store().first_admin_missing().await? {
        return Ok(go("/login"));
    }
    let (server, code) = (&app.settings().server_name, code.as_deref().unwrap_or(""));
    let code_required = !is_here(&app, &visitor) && code.is_empty();
    page(&SetUpPage { server, assets: &ASSETS, notice: None, code_required, code, username: "" })
}

#[derive(Deserialize)]
struct SetUp {
    username: String,
    password: String,
    #[serde(default)]
    code: Option<String>,
}

async fn setup(State(app): State<App>, visitor: Visitor, body: Unread) -> Result<Response, Failure> {
    let fields: SetUp = body.form().await?;
    let code = fields.code.as_deref().map(str::trim);
    let made = match fields.username.trim().parse::<UserName>() {
        Ok(name) => make_first_admin(&app, &visitor, &name, &fields.password, code).await,
        Err(error) => Err(error.into()),
    };
    let Err(failure) = made else { return Ok(go("/login?ok=set_up")) };
    let code_required =
        matches!(failure, Failure::SetUpCode) || (!is_here(&app, &visitor) && code.is_none_or(str::is_empty));
    let (notice, failure) = notice_of(failure)?;
    let (server, code) = (&app.settings().server_name, code.unwrap_or(""));
    let username = &fields.username;
    let page = page(&SetUpPage { server, assets: &ASSETS, notice: Some(notice), code_required, code, username })?;
    Ok(again(page, failure))
}
