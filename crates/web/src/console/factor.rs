//! One's second factors.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::ReadUser;
use bailiwick_store::passkey::PasskeyRow;
use bailiwick_types::PasskeyId;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::frame::{Frame, Notice, Said, again, go, moment, notice_of, page};
use super::passkey::Ceremony;
use crate::app::App;
use crate::auth::factor::{begin_totp, confirm_totp, own, remove_totp, renew_codes};
use crate::auth::passkey::rows;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Unread};
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/2fa" show, Known, [ReadUser], Nothing, "One's second factors";
    POST "/2fa/begin" begin, Known, [SetFactors], Form, "Begin with an authenticator app (password)";
    POST "/2fa/confirm" confirm, Known, [SetFactors], Form, "Confirm it by a first code (code)";
    POST "/2fa/remove" remove, Known, [SetFactors], Form, "Remove the app (password, code)";
    POST "/2fa/codes" renew, Known, [SetFactors], Form, "New recovery codes (password, code)";
}

#[derive(Template)]
#[template(path = "factors.html")]
pub(super) struct Page {
    frame: Frame,
    notice: Option<Notice>,
    totp: bool,
    left: u64,
    /// The picture, which is ours and no text of anybody's, and the secret.
    begun: Option<(String, String)>,
    /// A passkey that is being made.
    ceremony: Option<Ceremony>,
    passkeys: Vec<PasskeyLine>,
    /// Whether this server's address is one for which browsers make passkeys.
    offered: bool,
    codes: Vec<String>,
}

impl Page {
    /// The page on which the browser makes a passkey.
    pub(super) fn with(self, ceremony: Ceremony) -> Self {
        Self { ceremony: Some(ceremony), ..self }
    }
}

struct PasskeyLine {
    id: PasskeyId,
    name: String,
    made: String,
    used: Option<String>,
}

pub(super) async fn shown(app: &App, caller: &Caller, notice: Option<Notice>) -> Result<Page, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadUser>(scope.user_named(own_name(&caller.principal)?))?;
    let factors = app.store().factors_read(permit).await?;
    let line = |row: PasskeyRow| PasskeyLine {
        id: row.id,
        name: row.name,
        made: moment(row.created_at),
        used: row.last_used_at.map(moment),
    };
    Ok(Page {
        frame: Frame::of(app, caller, "/2fa").await?,
        notice,
        totp: factors.totp,
        left: factors.recovery_codes,
        begun: None,
        ceremony: None,
        passkeys: rows(app, caller).await?.into_iter().map(line).collect(),
        offered: app.passkeys().is_ok(),
        codes: Vec::new(),
    })
}

pub(super) async fn failed(app: &App, caller: &Caller, failure: Failure) -> Result<Response, Failure> {
    let (notice, failure) = notice_of(failure)?;
    Ok(again(page(&shown(app, caller, Some(notice)).await?)?, failure))
}

pub(super) async fn with_codes(
    app: &App,
    caller: &Caller,
    made: Result<Vec<Zeroizing<String>>, Failure>,
) -> Result<Response, Failure> {
    match made {
        Ok(codes) => {
            let codes = codes.iter().map(|code| code.to_string()).collect();
            page(&Page { codes, ..shown(app, caller, None).await? })
        }
        Err(failure) => failed(app, caller, failure).await,
    }
}

async fn show(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    page(&shown(&app, &caller, said.notice()).await?)
}

#[derive(Deserialize)]
struct Password {
    password: String,
}

async fn begin(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Password { password }: Password = body.form().await?;
    match begin_totp(&app, &caller, permit, &password).await {
        Ok(begun) => {
            let begun = Some((begun.qr.to_string(), begun.secret.to_string()));
            page(&Page { begun, ..shown(&app, &caller, None).await? })
        }
        Err(failure) => failed(&app, &caller, failure).await,
    }
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

async fn confirm(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Code { code }: Code = body.form().await?;
    let made = confirm_totp(&app, &caller, permit, &code).await;
    with_codes(&app, &caller, made).await
}

#[derive(Deserialize)]
struct Both {
    password: String,
    code: String,
}

async fn remove(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let both: Both = body.form().await?;
    match remove_totp(&app, &caller, permit, &both.password, &both.code).await {
        Ok(()) => Ok(go("/2fa?ok=totp_removed")),
        Err(failure) => failed(&app, &caller, failure).await,
    }
}

async fn renew(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let both: Both = body.form().await?;
    let made = renew_codes(&app, &caller, permit, &both.password, &both.code).await;
    with_codes(&app, &caller, made).await
}
