//! Accounts, for the operator; in OpenViking's shapes. Never what is in an account.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{CreateAccount, DeleteAccount, ListAccounts, ReadAccount};
use bailiwick_store::account::{AccountRow, NewAccount};
use bailiwick_types::{AccountName, Timestamp, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::key::refuse_seed;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread, page_rows};
use crate::reply;
use crate::route::routes;

routes! {
    POST "/api/v1/admin/accounts" create, Known, [CreateAccount], Json, "Create an account with its first admin, whose key is shown once";
    GET "/api/v1/admin/accounts" list, Known, [ListAccounts], Nothing, "All accounts (name, limit, page)";
    GET "/api/v1/admin/accounts/{account}" show, Known, [ReadAccount], Nothing, "One account";
    DELETE "/api/v1/admin/accounts/{account}" delete, Known, [DeleteAccount], Nothing, "Delete an account with all that it owns";
}

/// OpenViking's clients send more fields than we know; those are ignored.
#[derive(Deserialize)]
struct New {
    account_id: AccountName,
    admin_user_id: UserName,
    #[serde(default)]
    seed: Option<Value>,
}

#[derive(Serialize)]
struct Shown {
    account_id: AccountName,
    created_at: Timestamp,
    user_count: u64,
    status: &'static str,
}

impl From<AccountRow> for Shown {
    fn from(row: AccountRow) -> Self {
        Self { account_id: row.name, created_at: row.created_at, user_count: row.users, status: "active" }
    }
}

#[derive(Deserialize)]
struct Filter {
    name: Option<String>,
    query: Option<String>,
    limit: Option<usize>,
    page: Option<usize>,
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<CreateAccount>()?;
    let new: New = body.json().await?;
    refuse_seed(new.seed.as_ref())?;
    let key = app.walk().ring().make()?;
    let account = NewAccount {
        name: new.account_id.clone(),
        admin: Some((new.admin_user_id.clone(), &key)),
        agents: app.settings().first_agents.clone(),
    };
    app.store().account_create(permit, account).await?;
    let text = key.into_text();
    Ok(reply::done(json!({
        "account_id": new.account_id, "admin_user_id": new.admin_user_id, "user_key": *text,
    })))
}

async fn list(State(app): State<App>, caller: Caller, Params(filter): Params<Filter>) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ListAccounts>()?;
    let limit = page_rows(filter.limit, 100)?;
    let wanted = filter.name.or(filter.query).unwrap_or_default();
    let rows = app.store().account_list(permit).await?;
    let shown = rows.into_iter().filter(|row| row.name.as_str().contains(&wanted)).map(Shown::from).collect();
    Ok(reply::paged(shown, limit, filter.page))
}

async fn show(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &name).await?;
    let permit = scope.authorize::<ReadAccount>(scope.account())?;
    Ok(reply::done(Shown::from(app.store().account_read(permit).await?)))
}

async fn delete(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<DeleteAccount>()?;
    let account: AccountName = name.parse().map_err(|_| Failure::not_found("account", &name))?;
    app.runtime().account_delete(permit, account).await?;
    Ok(reply::accepted(json!({ "account_id": name, "status": "deleting", "task_id": caller.request })))
}
