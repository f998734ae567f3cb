//! Passkeys: made, listed and removed by whom they are for, and shown to sign in.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{ReadUser, SetFactors};
use bailiwick_auth::authn::passkey::{Begun, PasskeyError};
use bailiwick_auth::authn::sign_in::{First, Identified};
use bailiwick_store::passkey::{NewCodes, PasskeyRow};
use bailiwick_types::PasskeyId;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::app::App;
use crate::auth::factor::{all_asked, both, new_codes, own};
use crate::auth::login::{device_said, signed_in};
use crate::caller::{Caller, Visitor};
use crate::error::Failure;
use crate::input::{Segments, Unread, line};
use crate::route::routes;
use crate::sign_in::{LONGEST_DEVICE, device_name, own_name, sign_in_by_passkey};

routes! {
    GET "/api/auth/passkeys" list, Known, [ReadUser], Nothing, "The caller's passkeys";
    POST "/api/auth/passkeys" begin, Known, [SetFactors], Json, "Begin to add a passkey (password, code where there is a second factor); answers the options for navigator.credentials.create";
    POST "/api/auth/passkeys/finish" finish, Known, [SetFactors], Json, "Keep it (ceremony, credential, name); answers recovery codes, if there were none";
    POST "/api/auth/passkeys/{passkey}/remove" remove, Known, [SetFactors], Json, "Remove one (password, code)";
    POST "/api/auth/passkeys/login" begin_login, Public, [], Nothing, "Begin to sign in with a passkey; answers the options for navigator.credentials.get";
    POST "/api/auth/passkeys/login/finish" login, Public, [], Json, "Sign in with it (ceremony, credential, deviceName); answers a token, which is shown once";
}

/// Longest credential that a browser sends, as its JSON's text, bytes.
const LONGEST: usize = 12 * 1024;

/// The passkeys of a user, for a list.
pub(crate) async fn rows(app: &App, caller: &Caller) -> Result<Vec<PasskeyRow>, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadUser>(scope.user_named(own_name(&caller.principal)?))?;
    Ok(app.store().passkey_list(permit).await?)
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let shown = |row: PasskeyRow| json!({ "id": row.id, "name": row.name, "createdAt": row.created_at, "lastUsedAt": row.last_used_at });
    let rows: Vec<Value> = rows(&app, &caller).await?.into_iter().map(shown).collect();
    Ok(Json(json!({ "passkeys": rows })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    password: String,
    #[serde(default)]
    code: Option<String>,
}

fn shown(begun: &Begun) -> Value {
    json!({ "ceremony": begun.ceremony, "options": begun.options })
}

async fn begin(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Begin { password, code } = body.json().await?;
    let begun = begin_passkey(&app, &caller, &permit, (&password, code.as_deref())).await?;
    Ok(Json(shown(&begun)).into_response())
}

/// Begins to add a passkey. Where there is a second factor already the password is not enough: whoever stole
/// it would make themselves one of their own.
pub(crate) async fn begin_passkey(
    app: &App,
    caller: &Caller,
    permit: &Permit<SetFactors>,
    (password, code): (&str, Option<&str>),
) -> Result<Begun, Failure> {
    let passkeys = app.passkeys()?;
    let Identified { first, factor, attempt, .. } = all_asked(app, caller, password, code).await?;
    let First::Password { fitted, .. } = &first else { return Err(Failure::Defect("a password that was none")) };
    let fitted = fitted.clone();
    let others = app.store().passkey_begin(permit, first, factor).await?;
    app.sign_ins().succeeded(app.store(), attempt).await?;
    let user = permit.resource().name();
    Ok(passkeys.begin_registration(app.walk().ring(), permit.tenant(), user, &others, fitted)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finish {
    ceremony: String,
    credential: Value,
    #[serde(default)]
    name: Option<String>,
}

async fn finish(State(app): State<App>, caller: Caller, headers: HeaderMap, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Finish { ceremony, credential, name } = body.json().await?;
    let name = named("name", name, &headers)?;
    let (id, codes) = finish_passkey(&app, permit, (&ceremony, credential), name).await?;
    let codes = codes.map(|codes| codes.iter().map(|code| code.to_string()).collect::<Vec<_>>());
    Ok(Json(json!({ "id": id, "recoveryCodes": codes })).into_response())
}

/// What a passkey is called: as its user says, else after the browser that made it.
pub(crate) fn named(field: &'static str, name: Option<String>, headers: &HeaderMap) -> Result<String, Failure> {
    match name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()) {
        Some(name) => line(field, &name, LONGEST_DEVICE).map(|()| name),
        None => Ok(device_name(headers)),
    }
}

/// A new passkey's name, and the recovery codes that are to be shown once.
pub(crate) type Made = (PasskeyId, Option<Vec<Zeroizing<String>>>);

/// Keeps a passkey that was begun.
pub(crate) async fn finish_passkey(
    app: &App,
    permit: Permit<SetFactors>,
    (ceremony, credential): (&str, Value),
    name: String,
) -> Result<Made, Failure> {
    let (tenant, user) = (permit.tenant().clone(), permit.resource().name().clone());
    let made = app.passkeys()?.finish_registration(&tenant, &user, ceremony, credential)?;
    let (codes, hashes) = new_codes(app, &tenant, &user)?;
    let id = made.passkey.id.clone();
    let kept = app.store().passkey_create(permit, made, name, hashes).await?;
    Ok((id, (kept == NewCodes::Kept).then_some(codes)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    password: String,
    code: String,
}

async fn remove(
    State(app): State<App>,
    caller: Caller,
    Segments(id): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let id = own_passkey(&app, &caller, &id).await?;
    let Both { password, code } = body.json().await?;
    remove_passkey(&app, &caller, permit, id, (&password, &code)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// One of the caller's own.
pub(crate) async fn own_passkey(app: &App, caller: &Caller, id: &str) -> Result<PasskeyId, Failure> {
    let mut rows = rows(app, caller).await?.into_iter();
    rows.find(|row| row.id.as_str() == id).map(|row| row.id).ok_or_else(|| Failure::not_found("passkey", id))
}

/// Takes a passkey away.
pub(crate) async fn remove_passkey(
    app: &App,
    caller: &Caller,
    permit: Permit<SetFactors>,
    id: PasskeyId,
    (password, code): (&str, &str),
) -> Result<(), Failure> {
    let Identified { factor, attempt, .. } = both(app, caller, password, code).await?;
    app.store().passkey_remove(permit, id, factor).await?;
    Ok(app.sign_ins().succeeded(app.store(), attempt).await?)
}

async fn begin_login(State(app): State<App>, visitor: Visitor) -> Result<Response, Failure> {
    Ok(Json(shown(&app.passkeys()?.begin_alone(visitor.address)?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Login {
    ceremony: String,
    credential: Value,
    #[serde(default)]
    device_name: Option<String>,
}

async fn login(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    let Login { ceremony, credential, device_name } = body.json().await?;
    let device = device_said(device_name, &headers)?;
    let made = sign_in_by_passkey(&app, (&ceremony, credential), device, &visitor).await?;
    Ok(signed_in(&app, &made))
}

/// A credential as a page's form carries it.
pub(crate) fn credential_of(text: &str) -> Result<Value, Failure> {
    if text.len() > LONGEST {
        return Err(Failure::TooLong(LONGEST as u64));
    }
    Ok(crate::json::parse(text.as_bytes())?)
}

impl From<PasskeyError> for Failure {
    fn from(error: PasskeyError) -> Self {
        match error {
            PasskeyError::Gone => {
                Self::NotAccepted { reason: "ceremony_gone", message: "this took too long: begin again" }
            }
            PasskeyError::Refused => Self::NotAccepted {
                reason: "invalid_passkey",
                message: "this passkey was not accepted: it must be made on this server's own page, and ask for a finger or a code",
            },
            PasskeyError::None => Self::NotAccepted { reason: "no_passkey", message: "no passkey is set up" },
            PasskeyError::Broken => Self::Defect("a stored passkey cannot be read"),
            PasskeyError::Entropy(error) => Self::Entropy(error),
            PasskeyError::Directory(error) => error.into(),
            PasskeyError::SignIn(error) => Self::SignIn(crate::sign_in::by_passkey_failed(error)),
        }
    }
}
