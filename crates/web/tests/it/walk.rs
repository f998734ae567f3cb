//! Every route that the server has, walked: by callers who may less than all, by those of another
//! tenant, and for the line that each act leaves on record.
//!
//! The rows below are the table of routes once more, with what the walks need to know of each. A route
//! without a row fails the walk, so nobody can add one that is not walked.

mod foreign;
mod record;
mod rights;

use std::collections::BTreeMap;

use bailiwick_web::route::{Access, Route, Shape, programs, table};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{Server, consent, form, taken};

/// A route, and on which of the things in `docs/permissions.txt` it asks for each of its verbs.
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) on: &'static [&'static str],
}

const fn row(method: &'static str, path: &'static str, on: &'static [&'static str]) -> Row {
    Row { method, path, on }
}

const ACCOUNT: &[&str] = &["account"];
const HOST: &[&str] = &["host"];
const OTHER: &[&str] = &["another user"];
const ONESELF: &[&str] = &["oneself"];
const AGENT: &[&str] = &["agent"];
const SPACE: &[&str] = &["own space"];
const SESSION: &[&str] = &["my, own space"];
const JOB: &[&str] = &["my, own space"];
const SANDBOX: &[&str] = &["my, own space"];
const APPROVAL: &[&str] = &["requested by me"];
/// Nothing is asked of the policy.
const NONE: &[&str] = &[];

/// Every route behind a credential.
pub(super) const ROWS: &[Row] = &[
    row("GET", "/metrics", HOST),
    row("GET", "/", ACCOUNT),
    row("POST", "/logout", ONESELF),
    row("GET", "/spaces", ACCOUNT),
    row("POST", "/spaces", ACCOUNT),
    row("GET", "/spaces/{space}", SPACE),
    row("POST", "/spaces/{space}/grant", SPACE),
    row("POST", "/spaces/{space}/revoke", SPACE),
    row("GET", "/agents", ACCOUNT),
    row("GET", "/secrets", ACCOUNT),
    row("POST", "/secrets", ACCOUNT),
    row("POST", "/secrets/{secret}/grant", ACCOUNT),
    row("POST", "/secrets/{secret}/revoke", ACCOUNT),
    row("POST", "/secrets/{secret}/delete", ACCOUNT),
    row("GET", "/network", &["account", "account"]),
    row("GET", "/approvals", ACCOUNT),
    row("POST", "/approvals/{approval}", APPROVAL),
    row("GET", "/users", ACCOUNT),
    row("POST", "/users", ACCOUNT),
    row("POST", "/users/{user}/role", OTHER),
    row("POST", "/users/{user}/password", OTHER),
    row("POST", "/users/{user}/unlock", OTHER),
    row("POST", "/users/{user}/2fa", OTHER),
    row("POST", "/users/{user}/delete", OTHER),
    row("GET", "/devices", ONESELF),
    row("POST", "/devices/{device}/end", ONESELF),
    row("GET", "/applications", ONESELF),
    row("POST", "/applications/{application}/end", ONESELF),
    row("GET", "/oauth/authorize", ONESELF),
    row("POST", "/oauth/authorize", ONESELF),
    row("GET", "/keys", ONESELF),
    row("POST", "/keys", ONESELF),
    row("POST", "/keys/{mine}/revoke", ONESELF),
    row("GET", "/2fa", ONESELF),
    row("POST", "/2fa/begin", ONESELF),
    row("POST", "/2fa/confirm", ONESELF),
    row("POST", "/2fa/remove", ONESELF),
    row("POST", "/2fa/codes", ONESELF),
    row("POST", "/2fa/passkeys/begin", ONESELF),
    row("POST", "/2fa/passkeys/finish", ONESELF),
    row("POST", "/2fa/passkeys/{passkey}/remove", ONESELF),
    row("GET", "/audit", &["account", "account"]),
    row("GET", "/usage", ACCOUNT),
    row("GET", "/settings", ONESELF),
    row("POST", "/settings/password", ONESELF),
    row("POST", "/api/auth/logout", ONESELF),
    row("GET", "/api/auth/me", ONESELF),
    row("POST", "/api/auth/password", ONESELF),
    row("GET", "/api/auth/2fa", ONESELF),
    row("POST", "/api/auth/2fa/totp", ONESELF),
    row("POST", "/api/auth/2fa/totp/confirm", ONESELF),
    row("POST", "/api/auth/2fa/totp/remove", ONESELF),
    row("POST", "/api/auth/2fa/recovery-codes", ONESELF),
    row("GET", "/api/auth/passkeys", ONESELF),
    row("POST", "/api/auth/passkeys", ONESELF),
    row("POST", "/api/auth/passkeys/finish", ONESELF),
    row("POST", "/api/auth/passkeys/{passkey}/remove", ONESELF),
    row("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/2fa", OTHER),
    row("GET", "/api/v1/applications", ONESELF),
    row("DELETE", "/api/v1/applications/{application}", ONESELF),
    row("GET", "/api/v1/admin/clients", HOST),
    row("POST", "/api/v1/admin/clients", HOST),
    row("DELETE", "/api/v1/admin/clients/{client}", HOST),
    row("GET", "/api/v1/admin/vault", HOST),
    row("POST", "/api/v1/admin/vault/rewrap", HOST),
    row("POST", "/api/v1/admin/accounts/{account}/data-key", ACCOUNT),
    row("GET", "/api/v1/devices", ONESELF),
    row("DELETE", "/api/v1/devices/{device}", ONESELF),
    row("GET", "/api/v1/admin/accounts/{account}/users/{user}/devices", OTHER),
    row("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/devices/{login}", OTHER),
    row("PUT", "/api/v1/admin/accounts/{account}/users/{user}/password", OTHER),
    row("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/lock", OTHER),
    row("GET", "/api/v1/system/status", ACCOUNT),
    row("GET", "/api/v1/limits", ACCOUNT),
    row("GET", "/api/v1/usage", ACCOUNT),
    row("GET", "/api/v1/admin/accounts/{account}/limits", ACCOUNT),
    row("PUT", "/api/v1/admin/accounts/{account}/limits", ACCOUNT),
    row("POST", "/api/v1/admin/accounts", HOST),
    row("GET", "/api/v1/admin/accounts", HOST),
    row("GET", "/api/v1/admin/accounts/{account}", ACCOUNT),
    row("DELETE", "/api/v1/admin/accounts/{account}", HOST),
    row("POST", "/api/v1/admin/accounts/{account}/users", ACCOUNT),
    row("GET", "/api/v1/admin/accounts/{account}/users", ACCOUNT),
    row("GET", "/api/v1/admin/accounts/{account}/users/{user}", OTHER),
    row("DELETE", "/api/v1/admin/accounts/{account}/users/{user}", OTHER),
    row("PUT", "/api/v1/admin/accounts/{account}/users/{user}/role", OTHER),
    row("POST", "/api/v1/admin/accounts/{account}/users/{user}/key", OTHER),
    row("POST", "/api/v1/admin/accounts/{account}/users/{user}/keys", OTHER),
    row("GET", "/api/v1/admin/accounts/{account}/users/{user}/keys", &["another user", "another user"]),
    row("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/keys/{key}", OTHER),
    row("GET", "/api/v1/policies", ACCOUNT),
    row("PUT", "/api/v1/policies", ACCOUNT),
    row("GET", "/api/v1/agents", ACCOUNT),
    row("GET", "/api/v1/agents/{agent}", AGENT),
    row("PUT", "/api/v1/agents/{agent}", ACCOUNT),
    row("DELETE", "/api/v1/agents/{agent}", AGENT),
    row("GET", "/notifications", ACCOUNT),
    row("POST", "/notifications", ACCOUNT),
    row("POST", "/notifications/{notification}/pause", ACCOUNT),
    row("POST", "/notifications/{notification}/resume", ACCOUNT),
    row("POST", "/notifications/{notification}/test", ACCOUNT),
    row("POST", "/notifications/{notification}/delete", ACCOUNT),
    row("GET", "/api/v1/notifications", ACCOUNT),
    row("POST", "/api/v1/notifications", ACCOUNT),
    row("PATCH", "/api/v1/notifications/{notification}", ACCOUNT),
    row("DELETE", "/api/v1/notifications/{notification}", ACCOUNT),
    row("POST", "/api/v1/notifications/{notification}/test", ACCOUNT),
    row("GET", "/api/v1/secrets", ACCOUNT),
    row("PUT", "/api/v1/secrets/{secret}", ACCOUNT),
    row("DELETE", "/api/v1/secrets/{secret}", ACCOUNT),
    row("PUT", "/api/v1/secrets/{secret}/grants/{agent}/{hosts}", ACCOUNT),
    row("DELETE", "/api/v1/secrets/{secret}/grants/{agent}/{hosts}", ACCOUNT),
    row("GET", "/api/v1/spaces", ACCOUNT),
    row("POST", "/api/v1/spaces", ACCOUNT),
    row("GET", "/api/v1/spaces/{space}", SPACE),
    row("PATCH", "/api/v1/spaces/{space}", SPACE),
    row("DELETE", "/api/v1/spaces/{space}", SPACE),
    row("GET", "/api/v1/spaces/{space}/sessions", SPACE),
    row("GET", "/api/v1/spaces/{space}/jobs", SPACE),
    row("POST", "/api/v1/spaces/{space}/jobs", SPACE),
    row("GET", "/api/v1/spaces/{space}/jobs/{job}", JOB),
    row("DELETE", "/api/v1/spaces/{space}/jobs/{job}", JOB),
    row("GET", "/api/v1/spaces/{space}/jobs/{job}/log", JOB),
    row("GET", "/api/v1/sandboxes", ACCOUNT),
    row("DELETE", "/api/v1/sandboxes/{sandbox}", SANDBOX),
    row("GET", "/sandboxes", ACCOUNT),
    row("POST", "/sandboxes/{sandbox}/end", SANDBOX),
    row("GET", "/api/v1/spaces/{space}/grants", SPACE),
    row("PUT", "/api/v1/spaces/{space}/grants", SPACE),
    row("DELETE", "/api/v1/spaces/{space}/grants/{user}", SPACE),
    row("GET", "/api/v1/spaces/{space}/plan", SPACE),
    row("PUT", "/api/v1/spaces/{space}/plan", SPACE),
    row("GET", "/api/v1/spaces/{space}/files", SPACE),
    row("GET", "/api/v1/spaces/{space}/files/content", SPACE),
    row("PUT", "/api/v1/spaces/{space}/files/content", SPACE),
    row("DELETE", "/api/v1/spaces/{space}/files/content", SPACE),
    row("GET", "/api/v1/spaces/{space}/events", SPACE),
    row("GET", "/api/v1/sessions", ACCOUNT),
    row("GET", "/api/v1/sessions/{session}", SESSION),
    row("GET", "/api/v1/approvals", ACCOUNT),
    row("GET", "/api/v1/approvals/{approval}", APPROVAL),
    row("POST", "/api/v1/approvals/{approval}", APPROVAL),
    row("GET", "/api/v1/audit", &["account", "account"]),
    row("GET", "/api/v1/audit/verify", ACCOUNT),
    row("POST", "/api/v1/audit/verify", ACCOUNT),
    row("GET", "/api/v1/admin/audit", HOST),
    row("GET", "/api/v1/admin/audit/verify", HOST),
    row("POST", "/api/v1/admin/audit/verify", HOST),
    row("GET", "/api/v1/audit/stream", &["account", "account"]),
    row("GET", "/api/v1/audit/checkpoint", ACCOUNT),
    row("GET", "/api/v1/audit/proof/inclusion", ACCOUNT),
    row("GET", "/api/v1/audit/proof/consistency", ACCOUNT),
    row("GET", "/api/v1/audit/export", ACCOUNT),
    row("POST", "/api/v1/audit/retire", ACCOUNT),
    row("GET", "/api/v1/admin/audit/checkpoint", HOST),
    row("GET", "/api/v1/admin/audit/proof/inclusion", HOST),
    row("GET", "/api/v1/admin/audit/proof/consistency", HOST),
    row("GET", "/api/v1/admin/audit/export", HOST),
    row("POST", "/api/v1/admin/audit/retire", HOST),
    row("GET", "/eve/v1/info", AGENT),
    row("POST", "/eve/v1/session", &["own space", "agent"]),
    row("POST", "/eve/v1/session/{session}", SESSION),
    row("POST", "/eve/v1/session/{session}/cancel", SESSION),
    row("POST", "/eve/v1/session/{session}/clear", SESSION),
    row("POST", "/eve/v1/session/{session}/compact", SESSION),
    row("POST", "/eve/v1/session/{session}/reset", SESSION),
    row("GET", "/eve/v1/session/{session}/stubs", NONE),
    row("GET", "/eve/v1/session/{session}/subagents/{call}/{child}/stream", NONE),
    row("GET", "/eve/v1/session/{session}/stream", SESSION),
];

/// Routes whose method changes things elsewhere, and nothing here. This list may only shrink.
pub(super) const CHANGES_NOTHING: &[(&str, &str, &str)] = &[
    ("POST", "/api/v1/audit/verify", "reads the log; a POST because OpenViking's clients send one"),
    ("POST", "/api/v1/admin/audit/verify", "the same for the host's log"),
];

/// The routes with their rows.
pub(super) fn rows() -> Vec<(&'static Route, &'static Row)> {
    let of = |route: &'static Route| {
        let found = ROWS.iter().find(|row| (row.method, row.path) == (route.method, route.path));
        let row = found.unwrap_or_else(|| panic!("{} {} is not walked: give it a row", route.method, route.path));
        assert_eq!(row.on.len(), route.verbs.len(), "{} {}", route.method, route.path);
        (route, row)
    };
    table().filter(|route| route.access == Access::Known).map(of).collect()
}

pub(super) fn changes(route: &Route) -> bool {
    assert!(CHANGES_NOTHING.len() <= 2, "this list may only shrink");
    let exempt = CHANGES_NOTHING.iter().any(|(method, path, _)| (*method, *path) == (route.method, route.path));
    !matches!(route.method, "GET" | "HEAD") && !exempt
}

/// What stands in the variable parts of a path.
#[derive(Clone)]
pub(super) struct World(pub(super) BTreeMap<&'static str, String>);

impl World {
    /// Somebody's own things: a space with a file, and in it a session that waits for an approval.
    pub(super) async fn of(server: &Server, account: &str, owner: &str, admin: &str, other: &str) -> Self {
        let space = server.space(owner, "walked").await;
        let file = format!("/api/v1/spaces/{space}/files/content?path=a.txt");
        assert!(server.request("PUT", &file, owner).body("canary").send().await.unwrap().status().is_success());
        let begun = server
            .request("POST", "/eve/v1/session", owner)
            .header("x-bailiwick-space", &space)
            .header("x-bailiwick-agent", "careful")
            .json(&json!({ "message": "write-file" }));
        let (status, begun) = taken(begun.send().await.unwrap()).await;
        assert_eq!(status, 202, "{begun}");
        let session = begun["sessionId"].as_str().unwrap().to_owned();
        let fits = |row: &Value| row["session_id"] == session.as_str();
        let approval = server.event("/api/v1/approvals", owner, fits).await["id"].as_str().unwrap().to_owned();
        let job = json!({ "agent": "careful", "command": "echo walked" });
        let job = server.request("POST", &format!("/api/v1/spaces/{space}/jobs"), owner).json(&job);
        let (status, job) = taken(job.send().await.unwrap()).await;
        assert_eq!(status, 202, "{job}");
        // It stays there after the job, because all of the agent's share it.
        let fits = |row: &Value| row["space_id"] == space.as_str() && row["running"] == 0 && row["commands"] == 1;
        let sandbox = server.event("/api/v1/sandboxes", owner, fits).await["id"].as_str().unwrap().to_owned();
        let users = format!("/api/v1/admin/accounts/{account}/users");
        if server.get(&format!("{users}/{other}"), admin).await.status() == 404 {
            server.user(account, other, "user", admin).await;
        }
        let owner_name = server.done("GET", "/api/auth/me", owner, Value::Null).await["username"].clone();
        let own_login = server.login(account, owner_name.as_str().unwrap()).await;
        let login = server.login(account, other).await;
        let owner_name = owner_name.as_str().unwrap();
        let client = server.client().await;
        let application = server.application(&client, owner).await;
        let secret = format!("walked_{account}");
        let value = json!({ "value": "a-walked-value" });
        server.done("PUT", &format!("/api/v1/secrets/{secret}"), admin, value).await;
        let notification = format!("walked_{account}");
        let target = json!({
            "name": notification, "kind": "discord", "address": "https://discord.com/api/webhooks/1/walked-token",
            "events": ["done"],
        });
        let (status, target) = taken(server.send("POST", "/api/v1/notifications", admin, target).await).await;
        assert!(status == 200 || status == 409, "{target}");
        let own_keys = server.done("GET", &format!("{users}/{owner_name}/keys"), owner, Value::Null).await;
        let mine = own_keys[0]["id"].as_str().unwrap().to_owned();
        let keys = server.done("GET", &format!("{users}/{other}/keys"), admin, Value::Null).await;
        let key = keys[0]["id"].as_str().unwrap().to_owned();
        Self(BTreeMap::from([
            ("account", account.to_owned()),
            ("user", other.to_owned()),
            ("key", key),
            ("mine", mine),
            ("login", login.device),
            ("device", own_login.device),
            ("application", application.id),
            ("client", client),
            ("agent", "careful".to_owned()),
            ("space", space),
            ("session", session),
            ("job", job["result"]["id"].as_str().unwrap().to_owned()),
            ("sandbox", sandbox),
            ("approval", approval),
            ("secret", secret),
            ("notification", notification),
            ("hosts", "api.example".to_owned()),
            ("passkey", "aaaaaaaaaaaaaaaa".to_owned()),
            ("provider", "corp".to_owned()),
            ("call", "call_x".to_owned()),
            ("child", "ses_x".to_owned()),
        ]))
    }

    /// The same, with something else in one place.
    pub(super) fn with(&self, name: &'static str, value: &str) -> Self {
        let mut world = self.clone();
        world.0.insert(name, value.to_owned());
        world
    }

    /// The route's path about these things.
    pub(super) fn path(&self, route: &Route) -> String {
        let mut path = route.path.to_owned();
        for (name, value) in &self.0 {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "what is {path}?");
        match route.path {
            path_of if path_of.ends_with("/proof/inclusion") => format!("{path}?seq=0&size=1"),
            path_of if path_of.ends_with("/proof/consistency") => format!("{path}?from=1&to=2"),
            "/oauth/authorize" if route.method == "GET" => format!("{path}?{}", form(&consent(&self.0["client"]))),
            path_of if path_of.ends_with("/files/content") => format!("{path}?path=a.txt"),
            path_of if path_of.ends_with("/stream") && path_of.starts_with("/eve/") => format!("{path}?follow=false"),
            _ => path,
        }
    }
}

/// The variable parts of a path.
pub(super) fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

/// A request to a route with a body that it takes, whatever it says.
pub(super) fn ask(server: &Server, route: &Route, path: &str, key: &str, body: Value) -> RequestBuilder {
    let request = server.request(route.method, path, key);
    match route.body {
        Shape::Nothing => request,
        Shape::File => request.body("walked"),
        Shape::Json => request.json(&body),
        Shape::Form => request.header("content-type", "application/x-www-form-urlencoded").body(form(&body)),
    }
}

#[test]
fn every_route_is_walked_and_every_row_is_a_route() {
    let routes = rows();
    assert_eq!(routes.len(), ROWS.len(), "a row of a route that is no more");
    for (method, path, why) in CHANGES_NOTHING {
        assert!(routes.iter().any(|(route, _)| (route.method, route.path) == (*method, *path)), "{method} {path}");
        assert!(!why.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a01_the_document_lists_what_is_served_and_nothing_else_is() {
    let server = Server::start().await;
    let people = server.people().await;
    let (_, document) = taken(server.get("/openapi.json", &people.alice).await).await;
    let mut described = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let open = operation["security"].as_array().unwrap().iter().any(|way| way.as_object().unwrap().is_empty());
            let known = !open && !operation["security"].as_array().unwrap().is_empty();
            described.push((method.to_uppercase(), path.clone(), known));
        }
    }
    let mut served: Vec<(String, String, bool)> = programs()
        .map(|route| (route.method.to_owned(), route.path.to_owned(), route.access == Access::Known))
        .collect();
    described.sort();
    served.sort();
    assert_eq!(described, served);
    let served: Vec<(&str, &str)> = table().map(|route| (route.method, route.path)).collect();
    // Any other method on any of the paths finds no handler, with and without a credential.
    let world = World::of(&server, "acme", &people.alice, &people.alice, "zoe").await;
    let mut refused = 0;
    for route in table() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            if served.contains(&(method, route.path)) {
                continue;
            }
            for key in ["", people.alice.as_str()] {
                let answer = server.request(method, &world.path(route), key).send().await.unwrap();
                assert_eq!(answer.status(), 405, "{method} {}", route.path);
                refused += 1;
            }
        }
    }
    assert!(refused > 400, "{refused}");
}
