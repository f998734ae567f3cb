//! What it costs to know who is calling and what they may do: keys, the policy's decisions, and passwords.

mod existence;
mod flood;
mod key;
mod login;
mod policy;

use serde_json::json;

use crate::Options;
use crate::load::Ask;
use crate::report::Report;
use crate::server::{ROOT, Running, Site};

/// The account of all who sign in here.
const ACCOUNT: &str = "measured";
const PASSWORD: &str = "correct horse battery staple";

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    policy::measure(report).await;
    let site = Site::new(&options.server, "sqlite:");
    let server = site.start();
    let key = server.account(&mut server.connect().await, ACCOUNT).await;
    key::measure(&server, &key, report).await;
    login::measure(&server, report).await;
    flood::measure(&server, &key, report).await;
    existence::measure(&server, report).await;
}

/// A user with a password.
async fn user(server: &Running, name: &str) {
    let body = json!({ "user_id": name, "password": PASSWORD }).to_string();
    // A connection that nobody uses for as long as a part takes would be closed.
    server.connect().await.good(&Ask::post(format!("/api/v1/admin/accounts/{ACCOUNT}/users"), ROOT, body)).await;
}

/// An attempt to sign in.
fn attempt(name: &str, password: &str) -> Ask {
    Ask::post("/api/auth/login", "", json!({ "username": name, "password": password }).to_string())
}
