//! Second factors: an authenticator app with its QR code, and recovery codes. Each change asks for the
//! password; what is taken away asks for a code as well.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::access::verb::{ReadUser, SetFactors};
use bailiwick_auth::authn::sign_in::{Claim, Factor, Identified};
use bailiwick_auth::password::Password;
use bailiwick_auth::{Permit, totp};
use bailiwick_types::UserName;
use bailiwick_vault::Purpose;
use http::StatusCode;
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Unread;
use crate::route::routes;
use crate::sign_in::{NotSignedIn, complete, own_name, unix_seconds};

routes! {
    GET "/api/auth/2fa" show, Known, [ReadUser], Nothing, "Which second factors the caller has";
    POST "/api/auth/2fa/totp" begin, Known, [SetFactors], Json, "Begin with an authenticator app (password); answers its secret, which is shown once";
    POST "/api/auth/2fa/totp/confirm" confirm, Known, [SetFactors], Json, "Confirm it by a first code (code); answers recovery codes, which are shown once";
    POST "/api/auth/2fa/totp/remove" remove, Known, [SetFactors], Json, "Remove the app and the recovery codes (password, code)";
    POST "/api/auth/2fa/recovery-codes" renew, Known, [SetFactors], Json, "New recovery codes (password, code); the old ones are void";
}

async fn show(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadUser>(scope.user_named(own_name(&caller.principal)?))?;
    let factors = app.store().factors_read(permit).await?;
    let answer = json!({
        "totp": factors.totp, "recoveryCodes": factors.recovery_codes, "passkeys": factors.passkeys,
    });
    Ok(Json(answer).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    password: String,
}

/// An app's secret, in every form in which an app takes it.
pub(crate) struct Begun {
    pub(crate) secret: Zeroizing<String>,
    pub(crate) url: Zeroizing<String>,
    pub(crate) qr: Zeroizing<String>,
}

async fn begin(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Begin { password } = body.json().await?;
    let begun = begin_totp(&app, &caller, permit, &password).await?;
    Ok(Json(json!({ "secret": *begun.secret, "url": *begun.url, "qr": *begun.qr })).into_response())
}

/// The right to change one's own factors.
pub(crate) fn own(caller: &Caller) -> Result<Permit<SetFactors>, Failure> {
    let scope = caller.scope()?;
    let user = own_name(&caller.principal)?;
    Ok(scope.authorize::<SetFactors>(scope.user_named(user))?)
}

/// Begins with an app.
pub(crate) async fn begin_totp(
    app: &App,
    caller: &Caller,
    permit: Permit<SetFactors>,
    password: &str,
) -> Result<Begun, Failure> {
    app.sign_ins().confirm(app.store(), &caller.principal, Password::new(password)).await?;
    let user = permit.resource().name();
    let made = totp::make(&app.settings().server_name, &format!("{user}@{}", permit.tenant().account()))?;
    let sealed = app.seal().seal(&Purpose::totp(permit.tenant(), user), &made.secret)?;
    let qr = QrCode::with_error_correction_level(made.url.as_bytes(), EcLevel::M)
        .map_err(|_| Failure::Defect("a secret does not fit into a QR code"))?
        .render::<svg::Color<'_>>()
        .min_dimensions(240, 240)
        .build();
    // It is shown inside a page: without the declaration of a document of its own.
    let qr = qr.split_once("?>").map_or(qr.as_str(), |(_, svg)| svg).to_owned();
    app.store().totp_begin(permit, sealed).await?;
    Ok(Begun { secret: made.text, url: made.url, qr: Zeroizing::new(qr) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    code: String,
}

async fn confirm(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Confirm { code } = body.json().await?;
    let codes = confirm_totp(&app, &caller, permit, &code).await?;
    Ok(codes_shown(&codes))
}

/// Confirms an app by its first code, and makes recovery codes.
pub(crate) async fn confirm_totp(
    app: &App,
    caller: &Caller,
    permit: Permit<SetFactors>,
    code: &str,
) -> Result<Vec<Zeroizing<String>>, Failure> {
    let (tenant, user) = (permit.tenant().clone(), permit.resource().name().clone());
    let sealed = app.store().totp_waiting(&permit).await?;
    let secret = app.seal().open(&Purpose::totp(&tenant, &user), &sealed)?;
    // Whoever holds the login may not be who was shown the secret: a wrong code is a guess.
    let attempt = app.sign_ins().guess(app.store(), &caller.principal).await?;
    let step = totp::check(&secret, code.trim(), unix_seconds(), 0).ok_or(Failure::NotAccepted {
        reason: "invalid_totp",
        message: "this is not the app's present code: check that its clock and this server's are right",
    })?;
    app.sign_ins().no_failure(app.store(), attempt).await?;
    let (codes, hashes) = new_codes(app, &tenant, &user)?;
    app.store().totp_confirm(permit, sealed, step, hashes).await?;
    Ok(codes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    password: String,
    code: String,
}

/// The password and all that is asked for beside it once more, of somebody who is known. The attempt is to be
/// ended when what they were asked for is done: until then a code is a guess.
pub(crate) async fn all_asked(
    app: &App,
    caller: &Caller,
    password: &str,
    code: Option<&str>,
) -> Result<Identified, Failure> {
    let scope = caller.scope()?;
    let user = own_name(&caller.principal)?;
    let claim = Claim {
        name: user.as_str(),
        account: Some(scope.tenant().account().clone()),
        password: Password::new(password),
        client: caller.principal.address(),
    };
    let proven = app.sign_ins().by_password(app.store(), claim).await?;
    match complete(app, proven, code).await {
        Err(Failure::SignIn(NotSignedIn::CodeWanted(..) | NotSignedIn::PasskeyWanted(..))) => {
            Err(Failure::NotAccepted {
                reason: "code_required",
                message: "there is a second factor: a code of the app, or a recovery code, is needed as well",
            })
        }
        asked => asked,
    }
}

/// The password and a code once more: somebody without a second factor has none to show.
pub(crate) async fn both(app: &App, caller: &Caller, password: &str, code: &str) -> Result<Identified, Failure> {
    let identified = all_asked(app, caller, password, Some(code)).await?;
    if matches!(identified.factor, Factor::Alone) {
        app.sign_ins().no_failure(app.store(), identified.attempt).await?;
        return Err(Failure::NotAccepted { reason: "totp_not_set_up", message: "no authenticator app is set up" });
    }
    Ok(identified)
}

async fn remove(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Both { password, code } = body.json().await?;
    remove_totp(&app, &caller, permit, &password, &code).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes the app and the recovery codes away.
pub(crate) async fn remove_totp(
    app: &App,
    caller: &Caller,
    permit: Permit<SetFactors>,
    password: &str,
    code: &str,
) -> Result<(), Failure> {
    let Identified { factor, attempt, .. } = both(app, caller, password, code).await?;
    app.store().totp_remove(permit, factor).await?;
    Ok(app.sign_ins().succeeded(app.store(), attempt).await?)
}

async fn renew(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Both { password, code } = body.json().await?;
    let codes = renew_codes(&app, &caller, permit, &password, &code).await?;
    Ok(codes_shown(&codes))
}

/// Makes new recovery codes in place of the old ones.
pub(crate) async fn renew_codes(
    app: &App,
    caller: &Caller,
    permit: Permit<SetFactors>,
    password: &str,
    code: &str,
) -> Result<Vec<Zeroizing<String>>, Failure> {
    let Identified { factor, attempt, .. } = both(app, caller, password, code).await?;
    let (codes, hashes) = new_codes(app, permit.tenant(), permit.resource().name())?;
    app.store().recovery_codes_replace(permit, factor, hashes).await?;
    app.sign_ins().succeeded(app.store(), attempt).await?;
    Ok(codes)
}

pub(crate) type NewCodes = (Vec<Zeroizing<String>>, Vec<bailiwick_auth::key::KeyHash>);

pub(crate) fn new_codes(app: &App, tenant: &bailiwick_auth::Tenant, user: &UserName) -> Result<NewCodes, Failure> {
    let codes = totp::recovery_codes()?;
    let hash = |code: &Zeroizing<String>| app.walk().ring().code_hash(tenant.incarnation(), user.as_str(), code);
    let hashes = codes.iter().map(hash).collect();
    Ok((codes, hashes))
}

fn codes_shown(codes: &[Zeroizing<String>]) -> Response {
    let codes: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    Json(json!({ "recoveryCodes": codes })).into_response()
}
