//! The account's people, for its admins.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::access::verb::{
    CreateUser, DeleteUser, ListUsers, ResetFactors, ResetPassword, SetRole, UnlockUser,
};
use bailiwick_types::Role;
use serde::Deserialize;

use super::frame::{Frame, Notice, Said, again, go, moment, notice_of, page};
use crate::api::user::{first_password, given_password, named, taken_factors};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread};
use crate::route::routes;

routes! {
    GET "/users" list, Known, [ListUsers], Nothing, "The account's users";
    POST "/users" create, Known, [CreateUser], Form, "Add a user (name, role, password)";
    POST "/users/{user}/role" set_role, Known, [SetRole], Form, "Change a user's role";
    POST "/users/{user}/password" give_password, Known, [ResetPassword], Form, "Give a user a password";
    POST "/users/{user}/unlock" unlock, Known, [UnlockUser], Form, "Let a user sign in again";
    POST "/users/{user}/2fa" reset_factors, Known, [ResetFactors], Form, "Take a user's second factors away";
    POST "/users/{user}/delete" delete, Known, [DeleteUser], Form, "Delete a user";
}

struct Row {
    name: String,
    role: &'static str,
    made: String,
    keys: u64,
    me: bool,
}

#[derive(Template)]
#[template(path = "users.html")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    made: Option<(String, String)>,
    rows: Vec<Row>,
}

async fn shown(
    app: &App,
    caller: &Caller,
    notice: Option<Notice>,
    made: Option<(String, String)>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let rows = app.store().user_list(scope.authorize::<ListUsers>(scope.account())?).await?;
    let rows = rows.into_iter().map(|row| Row {
        me: scope.user() == Some(&row.name),
        name: row.name.to_string(),
        role: row.role.as_str(),
        made: moment(row.created_at),
        keys: row.keys,
    });
    let rows = rows.collect();
    page(&Page { frame: Frame::of(app, caller, "/users").await?, notice, made, rows })
}

/// To the list after what was done, or the list with what went wrong.
async fn done(app: &App, caller: &Caller, result: Result<(), Failure>, word: &str) -> Result<Response, Failure> {
    let Err(failure) = result else { return Ok(go(&format!("/users?ok={word}"))) };
    let (notice, failure) = notice_of(failure)?;
    Ok(again(shown(app, caller, Some(notice), None).await?, failure))
}

async fn list(State(app): State<App>, caller: Caller, Params(said): Params<Said>) -> Result<Response, Failure> {
    shown(&app, &caller, said.notice(), None).await
}

#[derive(Deserialize)]
struct New {
    name: String,
    role: Role,
    #[serde(default)]
    password: String,
}

async fn create(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<CreateUser>(scope.account())?;
    let new: New = body.form().await?;
    let made = async {
        let name: bailiwick_types::UserName = new.name.trim().parse()?;
        let password = first_password(&app, &name, Some(&new.password)).await?;
        let key = app.walk().ring().make()?;
        app.store().user_create(permit, name.clone(), new.role, &key, password).await?;
        Ok((name.to_string(), key.into_text().to_string()))
    };
    match made.await {
        Ok(made) => shown(&app, &caller, None, Some(made)).await,
        Err(failure) => {
            let (notice, failure) = notice_of(failure)?;
            Ok(again(shown(&app, &caller, Some(notice), None).await?, failure))
        }
    }
}

#[derive(Deserialize)]
struct NewRole {
    role: Role,
}

async fn set_role(
    State(app): State<App>,
    caller: Caller,
    Segments(user): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<SetRole>(scope.user_named(named(&user)?))?;
    let NewRole { role }: NewRole = body.form().await?;
    let set = app.store().user_role_set(permit, role).await.map_err(Failure::from);
    done(&app, &caller, set, "changed").await
}

#[derive(Deserialize)]
struct NewPassword {
    password: String,
}

async fn give_password(
    State(app): State<App>,
    caller: Caller,
    Segments(user): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ResetPassword>(scope.user_named(named(&user)?))?;
    let NewPassword { password }: NewPassword = body.form().await?;
    let given = given_password(&app, permit, &password).await;
    done(&app, &caller, given, "given").await
}

async fn unlock(State(app): State<App>, caller: Caller, Segments(user): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let user = named(&user)?;
    let permit = scope.authorize::<UnlockUser>(scope.user_named(user.clone()))?;
    app.store().user_unlock(permit).await?;
    app.sign_ins().lockout().release(app.store(), scope.tenant().account(), &user).await?;
    Ok(go("/users?ok=unlocked"))
}

async fn reset_factors(
    State(app): State<App>,
    caller: Caller,
    Segments(user): Segments<String>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ResetFactors>(scope.user_named(named(&user)?))?;
    taken_factors(&app, permit).await?;
    Ok(go("/users?ok=reset"))
}

async fn delete(State(app): State<App>, caller: Caller, Segments(user): Segments<String>) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<DeleteUser>(scope.user_named(named(&user)?))?;
    let deleted = app.runtime().user_delete(permit).await.map_err(Failure::from);
    done(&app, &caller, deleted.map(drop), "deleted").await
}
