//! The people of a run: two accounts, each with an admin and two members, their agents and a shared space.

use serde_json::{Value, json};

use crate::client::Client;
use crate::process::ROOT_KEY;

/// Who works.
#[derive(Debug, Clone)]
pub struct Person {
    /// The account.
    pub account: String,
    /// The name.
    pub name: String,
    /// The key.
    pub key: String,
    /// The space in which they work: the account's shared one.
    pub space: String,
    /// Whether they administer the account.
    pub admin: bool,
}

/// Everybody.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The people, the two admins first.
    pub people: Vec<Person>,
}

/// Tools without questions.
pub const FREE: &str = "free";
/// Every tool waits for a person.
pub const CAREFUL: &str = "careful";
/// Every tool waits for a person who does not come.
pub const HASTY: &str = "hasty";

fn agent(backend: &str, approvals: bool, seconds: Option<u64>) -> Value {
    let mut definition = json!({
        "tools": ["bash", "write_file", "read_file"],
        "sandbox": { "backend": backend },
        "instructions": "Do as you are told.",
    });
    if approvals {
        definition["require_approval"] = json!(["bash", "write_file"]);
    }
    if let Some(seconds) = seconds {
        definition["limits"] = json!({ "approval_timeout_seconds": seconds });
    }
    definition
}

impl World {
    /// Makes everybody. `suffix` tells these accounts from those of an earlier epoch, where all epochs share
    /// one database.
    ///
    /// # Errors
    /// If the server refuses or fails.
    pub async fn make(client: &Client, suffix: &str) -> Result<Self, String> {
        let mut admins = Vec::new();
        let mut members = Vec::new();
        for (account, admin, others) in [("acme", "alice", ["carol", "dan"]), ("globex", "bob", ["erin", "fred"])] {
            let first = account == "acme";
            let account = format!("{account}{suffix}");
            let body = json!({ "account_id": account, "admin_user_id": admin });
            let made = client.done("POST", "/api/v1/admin/accounts", ROOT_KEY, Some(body)).await?;
            let key = text(&made, "user_key")?;
            // One account without processes, one with the strongest walls that the host has.
            let backend = if first { "virtual" } else { "auto" };
            for (name, definition) in [
                (FREE, agent(backend, false, None)),
                (CAREFUL, agent("virtual", true, None)),
                (HASTY, agent("virtual", true, Some(1))),
            ] {
                client.done("PUT", &format!("/api/v1/agents/{name}"), &key, Some(definition)).await?;
            }
            let made = client.done("POST", "/api/v1/spaces", &key, Some(json!({ "name": "work" }))).await?;
            let space = text(&made, "id")?;
            for name in others {
                let path = format!("/api/v1/admin/accounts/{account}/users");
                let body = json!({ "user_id": name, "role": "user" });
                let made = client.done("POST", &path, &key, Some(body)).await?;
                let grant = json!({ "user": name, "level": "write" });
                client.done("PUT", &format!("/api/v1/spaces/{space}/grants"), &key, Some(grant)).await?;
                let (name, key, space) = (name.to_owned(), text(&made, "user_key")?, space.clone());
                members.push(Person { account: account.clone(), name, key, space, admin: false });
            }
            admins.push(Person { account, name: admin.to_owned(), key, space, admin: true });
        }
        admins.append(&mut members);
        Ok(Self { people: admins })
    }
}

/// A text field of an answer.
pub(crate) fn text(value: &Value, field: &str) -> Result<String, String> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| format!("no {field} in {value}"))
}
