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
use super::passkey::Ceremony;
use crate::app::App;
use crate::auth::passkey::credential_of;
use crate::auth::setup::{is_here, make_first_admin};
use crate::caller::{Caller, Visitor};
use crate::error::Failure;
use crate::input::{Params, Unread};
use crate::route::routes;
use crate::sign_in::{NotSignedIn, Shown, SignedIn, device_name, own_name, sign_in, sign_in_by_passkey};

routes! {
    GET "/login" form, Public, [], Nothing, "The login page";
    POST "/login" submit, Public, [], Form, "Sign in (username, password, totpCode)";
    POST "/login/passkey" by_passkey, Public, [], Form, "Sign in by a passkey (ceremony, credential)";
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
    asked: Asked,
    /// Whether this server's address is one for which browsers make passkeys.
    passkeys: bool,
    new: bool,
    providers: Vec<oidc::Button>,
}

/// What is asked for beside the password.
#[derive(Default)]
pub(super) struct Asked {
    /// The app's code, or a recovery code.
    pub(super) code: bool,
    /// Whether there is an app: without, only a recovery code stands in for the passkey.
    pub(super) app: bool,
    /// A ceremony and its options.
    pub(super) passkey: Option<Ceremony>,
}

impl Asked {
    pub(super) fn by(failure: &Failure) -> Self {
        match failure {
            Failure::SignIn(NotSignedIn::CodeWanted(_, begun)) => {
                Self { code: true, app: true, passkey: begun.as_deref().map(Ceremony::of) }
            }
            Failure::SignIn(NotSignedIn::PasskeyWanted(_, begun)) => {
                Self { code: true, app: false, passkey: begun.as_deref().map(Ceremony::of) }
            }
            Failure::SignIn(NotSignedIn::Code(_)) => Self { code: true, app: true, passkey: None },
            _ => Self::default(),
        }
    }

    fn notice(&self) -> Option<Notice> {
        match self {
            Self { app: true, passkey: None, .. } => {
                Some(Notice::Done("Your password is right. Type it once more, with the code of your app."))
            }
            Self { passkey: Some(_), .. } => Some(Notice::Done("Your password is right. One more thing:")),
            Self { code: true, .. } => Some(Notice::Done(
                "Your password is right. Passkeys cannot be used at this address: type it once more, with a recovery code.",
            )),
            Self { .. } => None,
        }
    }
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
    let new = app.store().set_up_open().await?;
    let next = next.as_deref().and_then(local).unwrap_or("/");
    let server = &app.settings().server_name;
    let (asked, passkeys, notice) = (Asked::default(), app.passkeys().is_ok(), said.notice());
    let providers = oidc::buttons(&app, next);
    page(&Page { server, assets: &ASSETS, notice, next, username: "", asked, passkeys, new, providers })
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
        Ok(made) => enter(&app, next, &made),
        Err(failure) => refused(&app, next, &login.username, failure),
    }
}

/// Signed in, and on to the page that was asked for.
pub(super) fn enter(app: &App, next: &str, made: &SignedIn) -> Result<Response, Failure> {
    let mut response = go(next);
    response.headers_mut().insert(SET_COOKIE, cookie(app, Some(&made.token))?);
    Ok(response)
}

/// The page again, with what is asked for, or what was wrong.
fn refused(app: &App, next: &str, username: &str, failure: Failure) -> Result<Response, Failure> {
    let wrong = matches!(failure, Failure::SignIn(NotSignedIn::Code(_)));
    let asked = Asked::by(&failure);
    let (notice, failure) = notice_of(failure)?;
    let notice = if wrong { notice } else { asked.notice().unwrap_or(notice) };
    let server = &app.settings().server_name;
    let (notice, passkeys, providers) = (Some(notice), app.passkeys().is_ok(), oidc::buttons(app, next));
    let page = page(&Page { server, assets: &ASSETS, notice, next, username, asked, passkeys, new: false, providers })?;
    Ok(again(page, failure))
}

#[derive(Deserialize)]
struct ShownPasskey {
    ceremony: String,
    credential: String,
    #[serde(default)]
    next: Option<String>,
}

async fn by_passkey(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    let shown: ShownPasskey = body.form().await?;
    let next = shown.next.as_deref().and_then(local).unwrap_or("/");
    let credential = credential_of(&shown.credential)?;
    match sign_in_by_passkey(&app, (&shown.ceremony, credential), device_name(&headers), &visitor).await {
        Ok(made) => enter(&app, next, &made),
        Err(failure) => refused(&app, next, "", failure),
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
    if !app.store().set_up_open().await? {
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
