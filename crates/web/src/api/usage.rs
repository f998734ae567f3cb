//! What an account uses. Everybody sees how far today's budgets are used up, because whoever meets one is told
//! so, and their own share by day; who else spent how much is for admins.

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::{ReadAccount, ReadAccountUsage, ReadUsage};
use bailiwick_files::Seen;
use bailiwick_store::usage::{Spent, SpentRow};
use bailiwick_types::{Day, Quotas, Timestamp, UserName};
use serde::Serialize;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/usage" show, Known, [ReadUsage], Nothing, "What the account used today, and what the caller used of it by day; for an admin, what everybody did";
}

/// What was spent.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    pub(crate) model_calls: u64,
    pub(crate) tool_calls: u64,
}

/// What was spent in a day, by one user or by all.
#[derive(Serialize)]
pub(crate) struct OfDay {
    pub(crate) day: Day,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// What one user spent in a day.
#[derive(Serialize)]
pub(crate) struct OfUser {
    /// Null stands for users who are gone.
    pub(crate) user: Option<UserName>,
    #[serde(flatten)]
    pub(crate) of: OfDay,
}

/// What an account uses, as far as the caller may know.
#[derive(Serialize)]
pub(crate) struct Shown {
    /// The whole account, today: what its budgets are held against.
    pub(crate) today: OfDay,
    /// When the budgets open again.
    pub(crate) resets_at: Timestamp,
    pub(crate) limits: Quotas,
    pub(crate) storage_bytes: u64,
    /// Whether there is more than could be measured.
    pub(crate) storage_is_more: bool,
    pub(crate) sessions_under_way: u64,
    /// The caller's own share, newest first.
    pub(crate) own: Vec<OfDay>,
    /// The whole account by day, for an admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) days: Option<Vec<OfDay>>,
    /// By user and day, for an admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) users: Option<Vec<OfUser>>,
}

impl From<Spent> for Figures {
    fn from(spent: Spent) -> Self {
        let Spent { tokens_in, tokens_out, model_calls, tool_calls } = spent;
        Self { tokens_in, tokens_out, model_calls, tool_calls }
    }
}

impl From<SpentRow> for OfDay {
    fn from(row: SpentRow) -> Self {
        Self { day: row.day, figures: row.spent.into() }
    }
}

impl From<SpentRow> for OfUser {
    fn from(row: SpentRow) -> Self {
        Self { user: row.user.clone(), of: row.into() }
    }
}

/// What the page shows, too.
pub(crate) async fn read(app: &App, scope: &Scope) -> Result<Shown, Failure> {
    let permit = scope.authorize::<ReadUsage>(scope.account())?;
    let limits = app.store().quotas(&scope.authorize::<ReadAccount>(scope.account())?).await?;
    let usage = app.store().usage_read(&permit).await?;
    let storage = app.store().usage_storage(&permit).await?;
    // Asked without a refusal on record: who may not see more asked for nothing wrong.
    let all = match scope.may::<ReadAccountUsage>(&scope.account()) {
        true => {
            let permit = scope.authorize::<ReadAccountUsage>(scope.account())?;
            Some(app.store().usage_read_account(&permit).await?)
        }
        false => None,
    };
    let (days, users) = all.map(|all| (all.days, all.users)).unzip();
    Ok(Shown {
        today: OfDay { day: usage.day, figures: usage.today.into() },
        resets_at: usage.day.end(),
        limits,
        storage_bytes: storage.bytes,
        storage_is_more: storage.seen == Seen::Part,
        sessions_under_way: usage.sessions,
        own: usage.own.into_iter().map(OfDay::from).collect(),
        days: days.map(|days| days.into_iter().map(OfDay::from).collect()),
        users: users.map(|users| users.into_iter().map(OfUser::from).collect()),
    })
}

async fn show(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    Ok(reply::done(read(&app, &caller.scope()?).await?))
}
