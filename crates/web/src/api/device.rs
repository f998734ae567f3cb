//! Logins: one's own, and for the operator and the account's admins those of others. No listing returns a
//! token.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ListDevices, RevokeDevice};
use bailiwick_auth::{Credential, Scope};
use bailiwick_store::device::DeviceRow;
use bailiwick_types::{DeviceId, Timestamp, UserName};
use serde::Serialize;
use serde_json::json;

use crate::api::user::named;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Segments;
use crate::reply;
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/api/v1/devices" list_own, Known, [ListDevices], Nothing, "One's logins: name, address, when made and last seen";
    DELETE "/api/v1/devices/{device}" revoke_own, Known, [RevokeDevice], Nothing, "End a login; its token dies at once";
    GET "/api/v1/admin/accounts/{account}/users/{user}/devices" list, Known, [ListDevices], Nothing, "A user's logins";
    DELETE "/api/v1/admin/accounts/{account}/users/{user}/devices/{login}" revoke, Known, [RevokeDevice], Nothing, "End a user's login; its token dies at once";
}

#[derive(Serialize)]
struct Shown {
    id: DeviceId,
    name: String,
    address: String,
    signed_in_by: String,
    created_at: Timestamp,
    last_seen_at: Timestamp,
    current: bool,
}

impl Shown {
    fn of(row: DeviceRow, credential: &Credential) -> Self {
        Self {
            current: matches!(credential, Credential::Device(id) if *id == row.id),
            id: row.id,
            name: row.name,
            address: row.address,
            signed_in_by: row.factor,
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
        }
    }
}

async fn listed(app: &App, caller: &Caller, scope: &Scope, user: UserName) -> Result<Response, Failure> {
    let permit = scope.authorize::<ListDevices>(scope.user_named(user))?;
    let rows = app.store().device_list(permit).await?;
    let credential = caller.principal.credential();
    Ok(reply::done(rows.into_iter().map(|row| Shown::of(row, credential)).collect::<Vec<_>>()))
}

async fn revoked(app: &App, scope: &Scope, user: UserName, device: &str) -> Result<Response, Failure> {
    let permit = scope.authorize::<RevokeDevice>(scope.user_named(user))?;
    let id: DeviceId = device.parse().map_err(|_| Failure::not_found("device", device))?;
    app.store().device_revoke(permit, id).await?;
    Ok(reply::done(json!({ "id": device, "deleted": true })))
}

async fn list_own(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let (scope, user) = (caller.scope()?, own_name(&caller.principal)?);
    listed(&app, &caller, &scope, user).await
}

async fn revoke_own(
    State(app): State<App>,
    caller: Caller,
    Segments(device): Segments<String>,
) -> Result<Response, Failure> {
    let (scope, user) = (caller.scope()?, own_name(&caller.principal)?);
    revoked(&app, &scope, user, &device).await
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    listed(&app, &caller, &scope, named(&user)?).await
}

async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user, device)): Segments<(String, String, String)>,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    revoked(&app, &scope, named(&user)?, &device).await
}
