//! By which identity providers people can sign in, for whoever draws a login page.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::route::routes;

routes! {
    GET "/api/auth/providers" list, Public, [], Nothing, "The identity providers by which people sign in, with the page that leads to each";
}

async fn list(State(app): State<App>) -> Response {
    let shown = |provider: &bailiwick_auth::authn::oidc::Provider| {
        let (name, title) = (provider.name(), provider.title());
        json!({ "name": name, "title": title, "path": format!("/login/oidc/{name}") })
    };
    let admitted = app.providers().iter().filter(|_| app.walk().admits_logins());
    let providers: Vec<Value> = admitted.map(shown).collect();
    Json(json!({ "providers": providers })).into_response()
}
