//! Where one is signed in.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Credential;
use bailiwick_auth::access::verb::{ListDevices, RevokeDevice};
use bailiwick_types::DeviceId;

use super::frame::{Frame, Notice, Said, go, moment, page};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments};
use crate::route::routes;
use crate::sign_in::own_name;

routes! {
    GET "/devices" list, Known, [ListDevices], Nothing, "One's logins";
    POST "/devices/{device}/end" end, Known, [RevokeDevice], Form, "End a login";
}

struct Row {
    id: DeviceId,
    name: String,
    by: String,
    address: String,
    since: String,
    seen: String,
    current: bool,
}

#[derive(Template)]
#[template(path = "devices.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    rows: Vec<Row>,
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ListDevices>(scope.user_named(own_name(&caller.principal)?))?;
    let rows = app.store().device_list(permit).await?.into_iter().map(|row| Row {
        current: matches!(caller.principal.credential(), Credential::Device(id) if *id == row.id),
        id: row.id,
        name: row.name,
        by: row.factor,
        address: row.address,
        since: moment(row.created_at),
        seen: moment(row.last_seen_at),
    });
    let rows = rows.collect();
    page(&Page { frame: Frame::of(&app, &caller, "/devices").await?, notice: said.notice(), rows })
}

async fn end(State(app): State<App>, caller: Caller, Segments(device): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<RevokeDevice>(scope.user_named(own_name(&caller.principal)?))?;
    let id: DeviceId = device.parse().map_err(|_| Failure::not_found("device", &device))?;
    app.store().device_revoke(permit, id).await?;
    Ok(go("/devices?ok=ended"))
}
