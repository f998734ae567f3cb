//! How a program becomes a client by itself (RFC 7591). What it says of itself is believed by nobody: the page
//! of consent says so.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_store::StoreError;
use bailiwick_store::client::{NewClient, Registrar};
use bailiwick_types::Timestamp;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::redirect::RedirectUri;
use super::{OAuthError, Registration, client, issuer};
use crate::app::App;
use crate::caller::Visitor;
use crate::error::Failure;
use crate::input::{Unread, line};
use crate::rate::counted;
use crate::route::routes;

routes! {
    POST "/oauth/register" register, Public, [], Json, "Register a client (RFC 7591)";
}

/// Addresses of one client.
const MOST_URIS: usize = 10;
/// Longest name, characters.
pub(crate) const LONGEST_NAME: usize = 100;

/// What a program says of itself. The rest of what it may say is of no use here.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    client_name: Option<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    grant_types: Option<Vec<String>>,
    #[serde(default)]
    response_types: Option<Vec<String>>,
}

/// A client that is made, and the one answer that has its secret.
pub(crate) struct Made {
    pub(crate) new: NewClient,
    answer: Value,
}

impl Wanted {
    /// Makes a client of it.
    pub(crate) fn make(self, app: &App) -> Result<Made, Failure> {
        let wrong = |description| OAuthError::new("invalid_client_metadata", description);
        let unfit = OAuthError::new(
            "invalid_redirect_uri",
            "redirect_uris: one to ten; https, http to 127.0.0.1, [::1] or localhost, or a scheme of one's own with a dot",
        );
        if self.redirect_uris.is_empty() || self.redirect_uris.len() > MOST_URIS {
            return Err(unfit.into());
        }
        if self.redirect_uris.iter().any(|uri| RedirectUri::parse(uri).is_none()) {
            return Err(unfit.into());
        }
        let name = self.client_name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "unnamed program".to_owned());
        line("client_name", &name, LONGEST_NAME)
            .map_err(|_| wrong("client_name: one line of at most 100 characters"))?;
        let asks = |asked: &Option<Vec<String>>, word: &str| {
            asked.as_ref().is_none_or(|asked| asked.iter().any(|one| one == word))
        };
        if !asks(&self.grant_types, "authorization_code") || !asks(&self.response_types, "code") {
            return Err(wrong("grant_types and response_types: authorization_code and code are what there is").into());
        }
        // Who says nothing is taken for what the standard says, and has a secret then.
        let method = self.token_endpoint_auth_method.as_deref().unwrap_or("client_secret_basic");
        let Some(method) = client::METHODS.into_iter().find(|known| *known == method) else {
            return Err(wrong("token_endpoint_auth_method: none, client_secret_basic or client_secret_post").into());
        };
        let secret = app.walk().ring().make_secret()?;
        let (id, hash, keeps) = (secret.id.clone(), secret.hash.clone(), method != "none");
        let mut answer = json!({
            "client_id": id,
            "client_name": name,
            "redirect_uris": self.redirect_uris,
            "token_endpoint_auth_method": method,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": "read write",
        });
        if keeps {
            answer["client_secret"] = json!(*secret.into_text());
            answer["client_secret_expires_at"] = json!(0);
        }
        let new = NewClient { id, secret: keeps.then_some(hash), name, redirect_uris: self.redirect_uris };
        Ok(Made { new, answer })
    }
}

/// The answer, which alone has the secret.
pub(crate) fn answered(mut answer: Value, at: Timestamp) -> Value {
    answer["client_id_issued_at"] = json!(at.as_micros() / 1_000_000);
    answer
}

impl Made {
    /// What is stored, and what is answered.
    pub(crate) fn parts(self) -> (NewClient, Value) {
        (self.new, self.answer)
    }
}

async fn register(State(app): State<App>, visitor: Visitor, body: Unread) -> Result<Response, Failure> {
    issuer(&app)?;
    if app.settings().oauth.registration != Registration::Open {
        return Err(OAuthError::new("access_denied", "clients are registered by the operator of this server").into());
    }
    let wanted: Wanted = body.json().await.map_err(|failure| match failure {
        Failure::Parameters(_) => {
            OAuthError::new("invalid_client_metadata", "the body is no client's metadata (RFC 7591)").into()
        }
        other => other,
    })?;
    let (new, answer) = wanted.make(&app)?.parts();
    let by = Registrar {
        address: visitor.address.to_string(),
        counted: format!("{:016x}", counted(visitor.address)),
        request: visitor.request,
    };
    let at = app.store().client_register(new, by).await.map_err(|error| match error {
        StoreError::Conflict { message, .. } => OAuthError::new("temporarily_unavailable", message).into(),
        other => Failure::from(other),
    })?;
    Ok((StatusCode::CREATED, Json(answered(answer, at))).into_response())
}
