//! Users of an account, for the operator and the account's admins; in OpenViking's shapes. Keys are
//! shown once, when they are made; no listing returns one.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{
    CreateUser, DeleteUser, ListUsers, ReadUser, ResetFactors, ResetPassword, SetRole, UnlockUser,
};
use bailiwick_auth::password::{Password, StoredPassword};
use bailiwick_store::user::UserRow;
use bailiwick_types::{Role, Timestamp, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::key::refuse_seed;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread, page_rows};
use crate::reply;
use crate::route::routes;
use crate::sign_in::NotSignedIn;

routes! {
    POST "/api/v1/admin/accounts/{account}/users" create, Known, [CreateUser], Json, "Create a user with a first key, which is shown once";
    GET "/api/v1/admin/accounts/{account}/users" list, Known, [ListUsers], Nothing, "The account's users (name, role, limit, page)";
    GET "/api/v1/admin/accounts/{account}/users/{user}" show, Known, [ReadUser], Nothing, "One user";
    DELETE "/api/v1/admin/accounts/{account}/users/{user}" delete, Known, [DeleteUser], Nothing, "Delete a user with all that is theirs";
    PUT "/api/v1/admin/accounts/{account}/users/{user}/password" reset_password, Known, [ResetPassword], Json, "Give another user a password (password); their logins end";
    DELETE "/api/v1/admin/accounts/{account}/users/{user}/2fa" reset_factors, Known, [ResetFactors], Nothing, "Take away a user's second factors, who has lost them; their logins end";
    DELETE "/api/v1/admin/accounts/{account}/users/{user}/lock" unlock, Known, [UnlockUser], Nothing, "Let a user sign in again who failed too often";
    PUT "/api/v1/admin/accounts/{account}/users/{user}/role" set_role, Known, [SetRole], Json, "Change a user's role";
}

/// A role in OpenViking's words.
pub(crate) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Member => "user",
        Role::Viewer => "viewer",
    }
}

#[derive(Deserialize)]
struct New {
    user_id: UserName,
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    seed: Option<Value>,
}

#[derive(Deserialize)]
struct NewRole {
    role: Role,
}

#[derive(Serialize)]
struct Shown {
    user_id: UserName,
    role: &'static str,
    created_at: Timestamp,
    api_key_available: bool,
}

impl From<UserRow> for Shown {
    fn from(row: UserRow) -> Self {
        Self {
            user_id: row.name,
            role: role_word(row.role),
            created_at: row.created_at,
            api_key_available: row.keys > 0,
        }
    }
}

#[derive(Deserialize)]
struct Filter {
    name: Option<String>,
    query: Option<String>,
    role: Option<Role>,
    limit: Option<usize>,
    page: Option<usize>,
    #[serde(default)]
    include_summary: bool,
}

async fn create(
    State(app): State<App>,
    caller: Caller,
    Segments(account): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let (account, scope) = caller.account(&app, &account).await?;
    let permit = scope.authorize::<CreateUser>(scope.account())?;
    let new: New = body.json().await?;
    refuse_seed(new.seed.as_ref())?;
    let key = app.walk().ring().make()?;
    let wanted = new.role.unwrap_or(Role::Member);
    let password = first_password(&app, &new.user_id, new.password.as_deref()).await?;
    let role = app.store().user_create(permit, new.user_id.clone(), wanted, &key, password).await?;
    let text = key.into_text();
    Ok(reply::done(json!({
        "account_id": account, "user_id": new.user_id, "role": role_word(role), "user_key": *text,
    })))
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    Segments(account): Segments<String>,
    Params(filter): Params<Filter>,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    let permit = scope.authorize::<ListUsers>(scope.account())?;
    let limit = page_rows(filter.limit, 100)?;
    let wanted = filter.name.or(filter.query).unwrap_or_default();
    let users: Vec<Shown> = app
        .store()
        .user_list(permit)
        .await?
        .into_iter()
        .filter(|row| row.name.as_str().contains(&wanted) && filter.role.is_none_or(|role| role == row.role))
        .map(Shown::from)
        .collect();
    if filter.include_summary {
        let total = users.len();
        return Ok(reply::done(json!({ "users": users, "total": total })));
    }
    Ok(reply::paged(users, limit, filter.page))
}

async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let (_, scope) = caller.account(&app, &account).await?;
    let permit = scope.authorize::<ReadUser>(scope.user_named(named(&user)?))?;
    Ok(reply::done(Shown::from(app.store().user_read(permit).await?)))
}

async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let (account, scope) = caller.account(&app, &account).await?;
    let user = named(&user)?;
    let permit = scope.authorize::<DeleteUser>(scope.user_named(user.clone()))?;
    app.runtime().user_delete(permit).await?;
    Ok(reply::accepted(json!({
        "account_id": account, "user_id": user, "status": "deleting", "task_id": caller.request,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    password: String,
}

async fn reset_password(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
    body: Unread,
) -> Result<Response, Failure> {
    let (account, scope) = caller.account(&app, &account).await?;
    let user = named(&user)?;
    let permit = scope.authorize::<ResetPassword>(scope.user_named(user.clone()))?;
    let NewPassword { password } = body.json().await?;
    given_password(&app, permit, &password).await?;
    Ok(reply::done(json!({ "account_id": account, "user_id": user })))
}

/// Gives a user a password.
pub(crate) async fn given_password(app: &App, permit: Permit<ResetPassword>, text: &str) -> Result<(), Failure> {
    let stored = hashed(app, permit.resource().name(), text).await?;
    Ok(app.store().password_reset(permit, stored).await?)
}

/// A new user's password, if one was given.
pub(crate) async fn first_password(
    app: &App,
    user: &UserName,
    text: Option<&str>,
) -> Result<Option<StoredPassword>, Failure> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => hashed(app, user, text).await.map(Some),
        None => Ok(None),
    }
}

async fn hashed(app: &App, user: &UserName, text: &str) -> Result<StoredPassword, Failure> {
    let password = Password::new(text);
    password.fit(user.as_str(), app.sign_ins().passwords().algorithm())?;
    Ok(app.sign_ins().passwords().hash(password).await.map_err(|_| NotSignedIn::Busy)?)
}

async fn reset_factors(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let (account, scope) = caller.account(&app, &account).await?;
    let user = named(&user)?;
    let permit = scope.authorize::<ResetFactors>(scope.user_named(user.clone()))?;
    taken_factors(&app, permit).await?;
    Ok(reply::done(json!({ "account_id": account, "user_id": user })))
}

/// Takes a user's second factors away, and what was begun towards one.
pub(crate) async fn taken_factors(app: &App, permit: Permit<ResetFactors>) -> Result<(), Failure> {
    let (tenant, user) = (permit.tenant().incarnation(), permit.resource().name().clone());
    app.store().factors_reset(permit).await?;
    app.forget_ceremonies(tenant, &user);
    Ok(())
}

async fn unlock(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
) -> Result<Response, Failure> {
    let (account, scope) = caller.account(&app, &account).await?;
    let user = named(&user)?;
    let permit = scope.authorize::<UnlockUser>(scope.user_named(user.clone()))?;
    app.store().user_unlock(permit).await?;
    app.sign_ins().lockout().release(app.store(), &account, &user).await?;
    Ok(reply::done(json!({ "account_id": account, "user_id": user })))
}

async fn set_role(
    State(app): State<App>,
    caller: Caller,
    Segments((account, user)): Segments<(String, String)>,
    body: Unread,
) -> Result<Response, Failure> {
    let (account, scope) = caller.account(&app, &account).await?;
    let user = named(&user)?;
    let permit = scope.authorize::<SetRole>(scope.user_named(user.clone()))?;
    let NewRole { role } = body.json().await?;
    app.store().user_role_set(permit, role).await?;
    Ok(reply::done(json!({ "account_id": account, "user_id": user, "role": role_word(role) })))
}

/// A user's name from a path: what cannot be one is nobody's.
pub(crate) fn named(name: &str) -> Result<UserName, Failure> {
    name.parse().map_err(|_| Failure::not_found("user", name))
}
