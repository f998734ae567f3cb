//! What an account may use. Everybody in it may know; the operator alone sets it.

use std::num::NonZeroU32;

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{ReadAccount, ReadAccountLimits, SetAccountLimits};
use bailiwick_store::quota::AccountLimits;
use bailiwick_types::limits::{BODY_BYTES, MESSAGE_BYTES, PAGE_ROWS, UPLOAD_BYTES};
use bailiwick_types::{QuotaOverrides, Quotas};
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Segments, Unread};
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/limits" mine, Known, [ReadAccount], Nothing, "What holds for the caller: the account's budgets and quotas, rates, and the lengths of bodies";
    GET "/api/v1/admin/accounts/{account}/limits" show, Known, [ReadAccountLimits], Nothing, "What an account may use: what is set, the defaults, and what comes of both";
    PUT "/api/v1/admin/accounts/{account}/limits" set, Known, [SetAccountLimits], Json, "Set what an account may use: 0 is no limit, and what is left out is the default";
}

/// Every limit is a number, 0 for none; of what is set, null where it is the default.
#[derive(Serialize)]
struct Shown {
    limits: Quotas,
    set: QuotaOverrides,
    defaults: Quotas,
}

impl From<AccountLimits> for Shown {
    fn from(limits: AccountLimits) -> Self {
        Self { limits: limits.in_force, set: limits.set, defaults: limits.defaults }
    }
}

async fn mine(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAccount>(scope.account())?;
    let rates = app.settings().rates;
    Ok(reply::done(json!({
        "account": app.store().quotas(&permit).await?,
        // 0: none.
        "requests_per_second_per_principal": rates.principal.map_or(0, NonZeroU32::get),
        "requests_per_second_per_address": rates.address.map_or(0, NonZeroU32::get),
        "body_bytes": BODY_BYTES, "message_bytes": MESSAGE_BYTES, "upload_bytes": UPLOAD_BYTES, "page_rows": PAGE_ROWS,
    })))
}

async fn show(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &name).await?;
    let permit = scope.authorize::<ReadAccountLimits>(scope.account())?;
    Ok(reply::done(Shown::from(app.store().limits_read(permit).await?)))
}

async fn set(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &name).await?;
    let permit = scope.authorize::<SetAccountLimits>(scope.account())?;
    let new: QuotaOverrides = body.json().await?;
    if let Some(resource) = new.too_large() {
        let most = QuotaOverrides::LARGEST;
        return Err(Failure::Parameters(format!("body.{}: at most {most}; use 0 for no limit", resource.as_str())));
    }
    Ok(reply::done(Shown::from(app.store().limits_set(permit, new).await?)))
}
