//! What the authorization server is, and whose tokens this server takes (RFC 8414, RFC 9728).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_types::KeyScope;
use serde_json::json;

use super::{Registration, issuer};
use crate::app::App;
use crate::error::Failure;
use crate::route::routes;

routes! {
    GET "/.well-known/oauth-authorization-server" server, Public, [], Nothing, "The authorization server (RFC 8414)";
    GET "/.well-known/oauth-protected-resource" resource, Public, [], Nothing, "Which authorization server this server believes (RFC 9728)";
}

fn words() -> Vec<&'static str> {
    KeyScope::ALL.iter().map(|scope| scope.as_str()).collect()
}

async fn server(State(app): State<App>) -> Result<Response, Failure> {
    let issuer = issuer(&app)?;
    let mut answer = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        "token_endpoint": format!("{issuer}/oauth/token"),
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": super::client::METHODS,
        "revocation_endpoint_auth_methods_supported": super::client::METHODS,
        "scopes_supported": words(),
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": app.documents().are_taken(),
    });
    if app.settings().oauth.registration == Registration::Open {
        answer["registration_endpoint"] = json!(format!("{issuer}/oauth/register"));
    }
    Ok(Json(answer).into_response())
}

async fn resource(State(app): State<App>) -> Result<Response, Failure> {
    let issuer = issuer(&app)?;
    let answer = json!({
        "resource": issuer,
        "authorization_servers": [issuer],
        "scopes_supported": words(),
        "bearer_methods_supported": ["header"],
        "resource_name": app.settings().server_name,
    });
    Ok(Json(answer).into_response())
}
