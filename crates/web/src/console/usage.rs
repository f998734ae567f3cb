//! What the account used today against what it may, and who used it.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_types::Quota;
use bailiwick_types::quota::Resource;

use super::frame::{Frame, moment, page};
use crate::api::usage::{OfDay, Shown, read};
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::route::routes;

routes! {
    GET "/usage" show, Known, [ReadUsage], Nothing, "What the account used, and what it may";
}

/// Rows by user that the page shows; the route has more.
const USERS_SHOWN: usize = 200;
/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// One limit, and how far it is used up.
struct Meter {
    name: &'static str,
    used: String,
    most: Option<String>,
    /// In hundredths, for the bar; at least nothing and at most all.
    share: u64,
}

/// A row of a table: the day, whose it is, and four figures.
struct Line {
    day: String,
    user: String,
    figures: [String; 4],
}

#[derive(Template)]
#[template(path = "usage.html")]
struct Page {
    frame: Frame,
    meters: Vec<Meter>,
    resets_at: String,
    own: Vec<Line>,
    days: Vec<Line>,
    users: Vec<Line>,
    is_admin: bool,
}

async fn show(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let shown = read(&app, &caller.scope()?).await?;
    let frame = Frame::of(&app, &caller, "/usage").await?;
    let (meters, resets_at) = (meters(&shown), moment(shown.resets_at));
    let (is_admin, own) = (shown.days.is_some(), shown.own.iter().map(|day| line(day, "")).collect());
    let days = shown.days.iter().flatten().map(|day| line(day, "")).collect();
    let of_user = |row: &crate::api::usage::OfUser| {
        line(&row.of, row.user.as_ref().map_or("users who are gone", bailiwick_types::UserName::as_str))
    };
    let users = shown.users.iter().flatten().take(USERS_SHOWN).map(of_user).collect();
    page(&Page { frame, meters, resets_at, own, days, users, is_admin })
}

fn meters(shown: &Shown) -> Vec<Meter> {
    let today = &shown.today.figures;
    let storage = shown.storage_bytes.div_ceil(MIB);
    let used = |resource| match resource {
        Resource::TokensPerDay => ("Tokens today", today.tokens_in.saturating_add(today.tokens_out)),
        Resource::ModelCallsPerDay => ("Model calls today", today.model_calls),
        Resource::ToolCallsPerDay => ("Tool calls today", today.tool_calls),
        Resource::StorageMib => ("Files, MiB", storage),
        Resource::ConcurrentSessions => ("Sessions at work", shown.sessions_under_way),
    };
    let meter = |resource| {
        let (name, used) = used(resource);
        let most = Quota::most(shown.limits.of(resource));
        let share = most.map_or(0, |most| used.saturating_mul(100).div_euclid(most.max(1)).min(100));
        Meter { name, used: grouped(used), most: most.map(grouped), share }
    };
    Resource::ALL.map(meter).into()
}

fn line(of: &OfDay, user: &str) -> Line {
    let figures = &of.figures;
    let figures = [figures.tokens_in, figures.tokens_out, figures.model_calls, figures.tool_calls].map(grouped);
    Line { day: of.day.to_string(), user: user.to_owned(), figures }
}

/// A number as people read one: 1 234 567, with narrow spaces that do not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn long_numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1\u{202f}000");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
