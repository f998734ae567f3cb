//! Passkeys on the page of second factors. The browser asks the authenticator by the one script; what it
//! answers comes as a field of a form.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::authn::passkey::Begun;
use http::HeaderMap;
use serde::Deserialize;

use super::factor::{failed, shown, with_codes};
use super::frame::{go, page};
use crate::app::App;
use crate::auth::factor::own;
use crate::auth::passkey::{begin_passkey, credential_of, finish_passkey, named, own_passkey, remove_passkey};
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread};
use crate::route::routes;

routes! {
    POST "/2fa/passkeys/begin" begin, Known, [SetFactors], Form, "Begin to add a passkey (password, code)";
    POST "/2fa/passkeys/finish" finish, Known, [SetFactors], Form, "Keep it (ceremony, credential, name)";
    POST "/2fa/passkeys/{passkey}/remove" remove, Known, [SetFactors], Form, "Remove one (password, code)";
}

/// A ceremony that was begun, for a form's attributes.
pub(super) struct Ceremony {
    pub(super) id: String,
    /// Of `navigator.credentials`, as JSON.
    pub(super) options: String,
}

impl Ceremony {
    pub(super) fn of(begun: &Begun) -> Self {
        Self { id: begun.ceremony.clone(), options: begun.options.to_string() }
    }
}

#[derive(Deserialize)]
struct Begin {
    password: String,
    #[serde(default)]
    code: Option<String>,
}

async fn begin(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Begin { password, code }: Begin = body.form().await?;
    match begin_passkey(&app, &caller, &permit, (&password, code.as_deref())).await {
        Ok(begun) => {
            let ceremony = Ceremony::of(&begun);
            page(&shown(&app, &caller, None).await?.with(ceremony))
        }
        Err(failure) => failed(&app, &caller, failure).await,
    }
}

#[derive(Deserialize)]
struct Finish {
    ceremony: String,
    credential: String,
    #[serde(default)]
    name: Option<String>,
}

async fn finish(State(app): State<App>, caller: Caller, headers: HeaderMap, body: Unread) -> Result<Response, Failure> {
    let permit = own(&caller)?;
    let Finish { ceremony, credential, name }: Finish = body.form().await?;
    let kept = async {
        let name = named("name", name, &headers)?;
        finish_passkey(&app, permit, (&ceremony, credential_of(&credential)?), name).await
    };
    match kept.await {
        Ok((_, Some(codes))) => with_codes(&app, &caller, Ok(codes)).await,
        Ok((_, None)) => Ok(go("/2fa?ok=passkey_made")),
        Err(failure) => failed(&app, &caller, failure).await,
    }
}

#[derive(Deserialize)]
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
    let Both { password, code }: Both = body.form().await?;
    match remove_passkey(&app, &caller, permit, id, (&password, &code)).await {
        Ok(()) => Ok(go("/2fa?ok=passkey_removed")),
        Err(failure) => failed(&app, &caller, failure).await,
    }
}
