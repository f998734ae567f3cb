//! Changing one's own password, with the present one. Every other login ends with it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_auth::access::verb::SetPassword;
use bailiwick_auth::password::Password;
use bailiwick_auth::{Credential, Permit};
use bailiwick_store::device::Which;
use http::StatusCode;
use serde::Deserialize;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Unread;
use crate::route::routes;
use crate::sign_in::{NotSignedIn, own_name};

routes! {
    POST "/api/auth/password" change, Known, [SetPassword], Json, "Change one's own password (currentPassword, newPassword); other logins end";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Change {
    current_password: String,
    new_password: String,
}

async fn change(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let user = own_name(&caller.principal)?;
    let permit = scope.authorize::<SetPassword>(scope.user_named(user.clone()))?;
    let change: Change = body.json().await?;
    change_password(&app, &caller, permit, &change.current_password, &change.new_password).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Changes a password, against the present one.
pub(crate) async fn change_password(
    app: &App,
    caller: &Caller,
    permit: Permit<SetPassword>,
    current: &str,
    new: &str,
) -> Result<(), Failure> {
    let new = Password::new(new);
    new.fit(permit.resource().name().as_str(), app.sign_ins().passwords().algorithm())?;
    let fitted = app.sign_ins().confirm(app.store(), &caller.principal, Password::new(current)).await?;
    let stored = app.sign_ins().passwords().hash(new).await.map_err(|_| NotSignedIn::Busy)?;
    let kept = match caller.principal.credential() {
        Credential::Device(id) => Which::AllBut(id.clone()),
        _ => Which::All,
    };
    Ok(app.store().password_set(permit, (fitted, stored), kept).await?)
}
