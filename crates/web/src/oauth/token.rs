//! Tokens for a code or for a refresh token, and their end (RFC 6749, RFC 7009).
//!
//! Whoever asks is nobody yet: the code or the token that they show says whose application it is, and its
//! user's rights of now say whether it gets another. A client is told in one and the same words that what it
//! shows was never there, is too old, or is another client's.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::access::verb::UseApplication;
use bailiwick_auth::key::{Kind, PresentedKey};
use bailiwick_auth::{Permit, Principal};
use bailiwick_store::StoreError;
use bailiwick_store::application::{Exchanged, NewTokens, Proof, Shown, Why};
use bailiwick_types::{ApplicationId, KeyScope, RequestId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::PRAGMA;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::client::client;
use super::{OAuthError, after, issuer, resource, scopes, scopes_text};
use crate::app::App;
use crate::caller::Visitor;
use crate::error::Failure;
use crate::input::Unread;
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    POST "/oauth/token" token, Public, [], Form, "Tokens for a code or a refresh token (RFC 6749)";
    POST "/oauth/revoke" revoke, Public, [], Form, "End an application by one of its tokens (RFC 7009)";
}

const NO_GRANT: OAuthError =
    OAuthError::new("invalid_grant", "this code or token was used, is too old, or was not given to this client");

#[derive(Deserialize)]
struct Asking {
    #[serde(default)]
    grant_type: String,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    client_secret: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "secret")]
    code: Option<Zeroizing<String>>,
    #[serde(default)]
    redirect_uri: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    code_verifier: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "secret")]
    refresh_token: Option<Zeroizing<String>>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    resource: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Zeroizing::new))
}

async fn token(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    let issuer = issuer(&app)?;
    let mut asking: Asking = body.form().await?;
    let client = client(&app, &headers, asking.client_id.as_deref(), asking.client_secret.take()).await?;
    let part = match asking.resource.as_deref() {
        None => None,
        Some(address) => {
            let foreign = OAuthError::new("invalid_target", "resource: not this server, or not what was asked for");
            Some(resource(&issuer, address).ok_or(foreign)?)
        }
    };
    let (kind, shown) = match asking.grant_type.as_str() {
        "authorization_code" => (Kind::Code, asking.code.take()),
        "refresh_token" => (Kind::Refresh, asking.refresh_token.take()),
        "" => return Err(OAuthError::new("invalid_request", "grant_type: is missing").into()),
        _ => {
            let told = "grant_type: authorization_code or refresh_token";
            return Err(OAuthError::new("unsupported_grant_type", told).into());
        }
    };
    let missing = OAuthError::new("invalid_request", "code or refresh_token: is missing");
    let shown = PresentedKey::new(&shown.ok_or(missing)?);
    // Read before anything is spent: what is malformed uses no code up.
    let proof = if kind == Kind::Code { Some(proof(&mut asking)?) } else { None };
    let narrower = match asking.scope.as_deref().filter(|_| kind == Kind::Refresh) {
        None => None,
        Some(text) => Some(scopes(text).ok_or(OAuthError::new("invalid_scope", "scope: read, write"))?),
    };
    let (principal, id) =
        holder(&app, &visitor, &shown, &[kind]).await?.map(|(who, _, id)| (who, id)).ok_or(NO_GRANT)?;
    let permit = permit(&principal, visitor.request)?;
    let (tokens, access, refresh) = new_tokens(&app, &id)?;
    let shown = Shown { id, hash: app.walk().ring().hash_of(&shown), client, resource: part };
    let exchanged = match proof {
        Some(proof) => app.store().application_redeem(permit, shown, proof, tokens).await,
        None => app.store().application_renew(permit, shown, narrower, tokens).await,
    };
    let scopes = given(exchanged)?;
    let answer = json!({
        "access_token": *access,
        "token_type": "Bearer",
        "expires_in": app.settings().oauth.access.as_secs(),
        "refresh_token": *refresh,
        "scope": scopes_text(&scopes),
    });
    Ok(([(PRAGMA, "no-cache")], Json(answer)).into_response())
}

/// What a code is bound to. The verifier is of 43 to 128 signs (RFC 7636, section 4.1).
fn proof(asking: &mut Asking) -> Result<Proof, OAuthError> {
    let missing = OAuthError::new("invalid_request", "redirect_uri: is missing");
    let redirect_uri = asking.redirect_uri.take().ok_or(missing)?;
    let verifier = asking.code_verifier.take().unwrap_or_default();
    let sign = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(sign) {
        return Err(OAuthError::new("invalid_request", "code_verifier: 43 to 128 letters, digits, - . _ ~"));
    }
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    Ok(Proof { redirect_uri, challenge })
}

/// Whose application shows this, if it is one of these kinds.
async fn holder(
    app: &App,
    visitor: &Visitor,
    shown: &PresentedKey,
    kinds: &[Kind],
) -> Result<Option<(Principal, Kind, ApplicationId)>, Failure> {
    let found = app.walk().holder(app.store(), shown, visitor.address).await?;
    Ok(found.filter(|(_, kind, _)| kinds.contains(kind)))
}

fn permit(principal: &Principal, request: RequestId) -> Result<Permit<UseApplication>, Failure> {
    let scope = principal.scope(request)?;
    Ok(scope.authorize::<UseApplication>(scope.user_named(own_name(principal)?))?)
}

/// Two new tokens: what is stored of them, and their texts.
fn new_tokens(app: &App, id: &ApplicationId) -> Result<(NewTokens, Zeroizing<String>, Zeroizing<String>), Failure> {
    let (ring, times) = (app.walk().ring(), app.settings().oauth);
    let access = ring.make_credential(Kind::Access, id.clone())?;
    let refresh = ring.make_credential(Kind::Refresh, id.clone())?;
    let tokens = NewTokens {
        access: access.hash.clone(),
        access_ends: after(times.access),
        refresh: refresh.hash.clone(),
        refresh_ends: after(times.refresh),
    };
    Ok((tokens, access.into_text(), refresh.into_text()))
}

fn given(exchanged: Result<Exchanged, StoreError>) -> Result<Vec<KeyScope>, Failure> {
    match exchanged {
        Ok(Exchanged::Given(scopes)) => Ok(scopes),
        Ok(Exchanged::Refused(Why::Scope)) => {
            Err(OAuthError::new("invalid_scope", "scope: more than was allowed").into())
        }
        Ok(Exchanged::Refused(Why::OtherResource)) => {
            Err(OAuthError::new("invalid_target", "resource: not this server, or not what was asked for").into())
        }
        Ok(Exchanged::Refused(_)) | Err(StoreError::NotFound { .. }) => Err(NO_GRANT.into()),
        Err(error) => Err(error.into()),
    }
}

#[derive(Deserialize)]
struct Ending {
    #[serde(default, deserialize_with = "secret")]
    token: Option<Zeroizing<String>>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    client_secret: Option<Zeroizing<String>>,
}

async fn revoke(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Failure> {
    issuer(&app)?;
    let Ending { token, client_id, client_secret } = body.form().await?;
    let client = client(&app, &headers, client_id.as_deref(), client_secret).await?;
    let missing = OAuthError::new("invalid_request", "token: is missing");
    let shown = PresentedKey::new(&token.ok_or(missing)?);
    let kinds = [Kind::Access, Kind::Refresh];
    // What is no token has ended already (RFC 7009, section 2.2).
    let Some((principal, kind, id)) = holder(&app, &visitor, &shown, &kinds).await? else {
        return Ok(Json(json!({})).into_response());
    };
    let permit = permit(&principal, visitor.request)?;
    let shown = Shown { id, hash: app.walk().ring().hash_of(&shown), client, resource: None };
    match app.store().application_give_back(permit, kind, shown).await {
        Ok(Exchanged::Refused(_)) => Err(NO_GRANT.into()),
        Ok(Exchanged::Given(_)) | Err(StoreError::NotFound { .. }) => Ok(Json(json!({})).into_response()),
        Err(error) => Err(error.into()),
    }
}
