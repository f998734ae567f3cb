//! Every route, asked by everybody who may less than all. Who may what stands in `docs/permissions.txt`,
//! which the policy's own tests make; the answers over HTTP are held against it.

use std::collections::{BTreeMap, HashMap};

use bailiwick_web::route::Route;
use serde_json::{Value, json};

use super::record::{Line, on_record};
use super::{Row, World, ask, changes, parts, rows};
use crate::support::{Server, page_reason, reason, taken};

/// Answers of a caller that differ from the table for a reason. This list may only shrink.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("other-space-key", "/eve/v1/session", "the session begins in the space that the key is bound to"),
    ("other-agent-key", "/eve/v1/session", "the session begins with the agent that the key is bound to"),
    ("other-agent-key", "/eve/v1/info", "the agent that is shown is the one that the key is bound to"),
];

/// `docs/permissions.txt`: what each kind of caller is told, by verb and thing.
pub(super) fn permissions() -> HashMap<(String, String), BTreeMap<&'static str, String>> {
    const COLUMNS: [&str; 8] =
        ["operator", "admin", "member", "viewer", "read-key", "other-space-key", "other-agent-key", "foreign-admin"];
    let path = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let text = std::fs::read_to_string(path.join("../../docs/permissions.txt")).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let head = lines.next().unwrap();
    let at = COLUMNS.map(|name| head.find(&format!(" {name}")).unwrap() + 1);
    let read = |line: &str| {
        let (verb, thing) = line[..at[0]].trim().split_once(' ').unwrap();
        let cell = |n: usize| line[at[n]..].split_whitespace().next().unwrap().to_owned();
        let cells = COLUMNS.iter().enumerate().map(|(n, name)| (*name, cell(n))).collect();
        ((verb.to_owned(), thing.trim().to_owned()), cells)
    };
    lines.map(read).collect()
}

/// What this caller is to be told: `yes`, `404`, or the code of a 403.
fn expected<'p>(
    matrix: &'p HashMap<(String, String), BTreeMap<&'static str, String>>,
    route: &Route,
    row: &Row,
    column: &str,
) -> &'p str {
    let told: Vec<&str> = route
        .verbs
        .iter()
        .zip(row.on)
        .map(|(verb, on)| {
            let cells = matrix.get(&((*verb).to_owned(), (*on).to_owned()));
            cells.unwrap_or_else(|| panic!("docs/permissions.txt does not say: {verb} on {on}"))[column].as_str()
        })
        .collect();
    // Any of several verbs opens such a route, and the last one's refusal is told.
    told.iter().find(|told| **told == "yes").or(told.last()).copied().unwrap_or("404")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_r03_e01_every_route_answers_every_weak_caller_as_the_policy_says_and_on_record() {
    assert!(ELSEWHERE.len() <= 3 && ELSEWHERE.iter().all(|(.., why)| !why.is_empty()), "this list may only shrink");
    let (server, matrix) = (Server::start().await, permissions());
    let people = server.people().await;
    let users = "/api/v1/admin/accounts/acme/users";
    // A viewer owns nothing by their own doing: this one was a member before.
    let vicky = server.user("acme", "vicky", "user", &people.alice).await;
    let alices = World::of(&server, "acme", &people.alice, &people.alice, "zoe").await;
    let carols = World::of(&server, "acme", &people.carol, &people.alice, "zoe").await;
    let vickys = World::of(&server, "acme", &vicky, &people.alice, "zoe").await;
    server.done("PUT", &format!("{users}/vicky/role"), &people.alice, json!({ "role": "viewer" })).await;
    let other = server.space(&people.alice, "another").await;
    let bound = async |terms: Value| {
        let made = server.done("POST", &format!("{users}/alice/keys"), &people.alice, terms).await;
        made["key"].as_str().unwrap().to_owned()
    };
    let reading = bound(json!({ "name": "r", "scopes": ["read"] })).await;
    let spaced = bound(json!({ "name": "s", "space_id": other })).await;
    let agented = bound(json!({ "name": "a", "agent_id": "default" })).await;
    let callers = [
        ("admin", "alice", &people.alice, &alices),
        ("member", "carol", &people.carol, &carols),
        ("viewer", "vicky", &vicky, &vickys),
        ("read-key", "alice", &reading, &alices),
        ("other-space-key", "alice", &spaced, &alices),
        ("other-agent-key", "alice", &agented, &alices),
        ("foreign-admin", "bob", &people.bob, &alices),
    ];
    let (mut lines, mut foreign_lines, mut seen) = (Vec::new(), Vec::new(), BTreeMap::<String, usize>::new());
    for (column, name, key, world) in callers {
        for (route, row) in rows() {
            let what = format!("{column}: {} {}", route.method, route.path);
            if ELSEWHERE.iter().any(|(who, path, _)| (*who, *path) == (column, route.path)) {
                continue;
            }
            // Without an id in its path a route is about the caller's own account; so are names of agents, secrets, targets.
            let ids =
                parts(route.path).iter().any(|part| !matches!(*part, "agent" | "secret" | "notification" | "hosts"))
                    && !route.path.starts_with("/users/");
            if column == "foreign-admin" && !ids {
                continue;
            }
            let told = expected(&matrix, route, row, column);
            if told == "yes" && changes(route) {
                continue; // `record` walks what is done
            }
            *seen.entry(told.to_owned()).or_default() += 1;
            let mut request = ask(&server, route, &world.path(route), key, json!({}));
            if route.path.starts_with("/eve/v1/session") || route.path == "/eve/v1/info" {
                request = request.header("x-bailiwick-agent", "careful").header("x-bailiwick-space", &world.0["space"]);
            }
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            if told == "yes" {
                assert_eq!(status, 200, "{what}");
                continue; // a stream has no end to wait for
            }
            let page = page_reason(&response);
            let (_, body) = taken(response).await;
            if told == "404" {
                assert_eq!(status, 404, "{what}: {body}");
            } else if !page.is_empty() {
                // In a browser: to the dashboard from what is for others, else a page that says so.
                let redirect = matches!(told, "admin_only" | "operator_only");
                assert_eq!((status, page.as_str()), (if redirect { 303 } else { 403 }, told), "{what}");
            } else {
                let code = if route.path.starts_with("/eve/") { body["code"].as_str().unwrap() } else { reason(&body) };
                assert_eq!((status, code), (403, told), "{what}: {body}");
            }
            let log = if column == "foreign-admin" { &mut foreign_lines } else { &mut lines };
            log.push(Line {
                what,
                request: request_id,
                actor: format!("user:{name}"),
                actions: if told == "404" { Vec::new() } else { route.verbs.to_vec() },
                result: "DENIED",
                code: Some(if told == "404" { "not_found" } else { told }.to_owned()),
                untold: told == "404",
                // What a browser is led away from was refused all the same.
                status: if status == 303 { 403 } else { status },
            });
        }
    }
    for told in ["yes", "404", "admin_only", "viewer_readonly", "key_scope", "operator_only"] {
        assert!(seen.get(told).is_some_and(|count| *count > 5), "hardly anything was told {told}: {seen:?}");
    }
    on_record(&server, "/api/v1/audit", &people.alice, &lines).await;
    on_record(&server, "/api/v1/audit", &people.bob, &foreign_lines).await;
}
