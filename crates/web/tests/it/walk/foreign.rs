//! Another tenant's things, asked for by every route: the answer is, byte for byte, the one about
//! things that never were, and it comes no sooner and no later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bailiwick_web::route::Route;
use serde_json::{Value, json};

use super::{World, ask, parts, rows};
use crate::support::{ROOT, Server};

/// Routes about a name that lives in the asker's own account. This list may only shrink.
const OWN_NAMES: &[(&str, &str, &str)] = &[
    ("PUT", "/api/v1/agents/{agent}", "makes an agent of that name in the asker's own account"),
    ("PUT", "/api/v1/secrets/{secret}", "makes a secret of that name in the asker's own account"),
];

/// A reply with everything of it, but for the request's number and the time of day.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Reply {
    /// Reads it; what the caller named stands in it as `ID`.
    async fn read(response: reqwest::Response, named: &[&str]) -> Self {
        let status = response.status().as_u16();
        let request = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let headers = response
            .headers()
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let body = response.text().await.unwrap();
        assert!(status < 400 || body.contains(&request), "{body}");
        let body = named.iter().fold(body.replace(&request, "REQUEST"), |body, name| body.replace(name, "ID"));
        Self { status, headers, body }
    }
}

/// Names and ids as long as those of `world`, of nothing that ever was.
fn never(world: &World) -> World {
    let turned = |name: &str, text: &str| -> String {
        let keep = match name {
            "account" | "user" => 0,
            _ => text.len().saturating_sub(8),
        };
        let turn = |c: char| match c {
            '0'..='8' => char::from(c as u8 + 1),
            '9' => '0',
            'A' => 'B',
            'A'..='Z' => 'A',
            'a' => 'b',
            'a'..='z' => 'a',
            other => other,
        };
        text.chars().enumerate().map(|(n, c)| if n < keep { c } else { turn(c) }).collect()
    };
    World(world.0.iter().map(|(name, text)| (*name, turned(name, text))).collect())
}

/// The asker's own things, with `there` in the places that `chosen` has a bit for.
fn mixed(own: &World, there: &World, names: &[&str], chosen: usize) -> World {
    let mut world = own.clone();
    for (_, name) in names.iter().enumerate().filter(|(n, _)| chosen >> n & 1 == 1) {
        world.0.get_mut(*name).unwrap().clone_from(&there.0[*name]);
    }
    world
}

fn example(route: &Route) -> Value {
    match route.path {
        "/api/v1/approvals/{approval}" => json!({ "decision": "approve" }),
        path if path.ends_with("/role") => json!({ "role": "viewer" }),
        path if path.ends_with("/keys") => json!({ "name": "k" }),
        "/secrets/{secret}/grant" | "/secrets/{secret}/revoke" => json!({ "agent": "default", "hosts": "a.example" }),
        path if path.ends_with("/users") => json!({ "user_id": "new" }),
        path if path.ends_with("/grants") => json!({ "user": "dave", "level": "manage" }),
        path if path.ends_with("/plan") => json!({ "items": [] }),
        path if path.starts_with("/eve/v1/session/{session}") && parts(path).len() == 1 => json!({ "message": "x" }),
        path if path.ends_with("/jobs") => json!({ "command": "true" }),
        _ => json!({ "name": "x" }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a03_a04_no_route_tells_a_foreign_thing_from_one_that_never_was() {
    assert!(OWN_NAMES.len() <= 2 && OWN_NAMES.iter().all(|(.., why)| !why.is_empty()), "this list may only shrink");
    let server = Server::start().await;
    let people = server.people().await;
    server.done("PUT", "/api/v1/agents/acmes", &people.alice, json!({})).await;
    let acmes = World::of(&server, "acme", &people.alice, &people.alice, "zoe-walked").await.with("agent", "acmes");
    let nobodys = never(&acmes);
    let bobs = World::of(&server, "globex", &people.bob, &people.bob, "zack-walked").await;
    let daves = World::of(&server, "globex", &people.dave, &people.bob, "zack-walked").await;
    // A colleague without a grant has a space, sessions and approvals of others before them, no accounts.
    let carols = World::of(&server, "acme", &people.carol, &people.alice, "zoe-walked").await.with("agent", "acmes");
    let mut walked = 0;
    for (caller, key, own) in
        [("admin", &people.bob, &bobs), ("member", &people.dave, &daves), ("colleague", &people.carol, &carols)]
    {
        for (route, _) in rows() {
            let names: Vec<&str> = parts(route.path)
                .into_iter()
                .filter(|name| *name != "hosts") // Of the world outside, and nobody's here.
                .filter(|name| {
                    caller != "colleague" || matches!(*name, "space" | "session" | "approval" | "job" | "sandbox")
                })
                .collect();
            if OWN_NAMES.iter().any(|(method, path, _)| (*method, *path) == (route.method, route.path)) {
                continue;
            }
            for chosen in 1..1usize << names.len() {
                let (there, absent) = (mixed(own, &acmes, &names, chosen), mixed(own, &nobodys, &names, chosen));
                let picked = || names.iter().enumerate().filter(|(n, _)| chosen >> n & 1 == 1).map(|(_, name)| *name);
                let read = async |world: &World, from: &World| {
                    let asked = ask(&server, route, &world.path(route), key, example(route)).send().await.unwrap();
                    let named: Vec<&str> = picked().map(|name| from.0[name].as_str()).collect();
                    Reply::read(asked, &named).await
                };
                let (there, absent) = (read(&there, &acmes).await, read(&absent, &nobodys).await);
                let picked: Vec<&str> = picked().collect();
                let what = format!("{caller}: {} {} with acme's {picked:?}", route.method, route.path);
                assert_eq!(there, absent, "{what}");
                // What a name names in a space of one's own is nobody else's.
                let operators = matches!(route.verbs, ["account.delete" | "host.client.delete"]);
                let hidden = there.status == 404 || there.status == 403 && operators;
                // A page sends whoever is no admin to the dashboard, with that word.
                let sent_off = there.headers.get("x-bailiwick-reason").is_some_and(|word| word == "admin_only");
                let own_names = caller == "member" && (there.status == 403 || there.status == 303 && sent_off);
                assert!(hidden || own_names || picked == ["user"], "{what}: {there:?}");
                walked += 1;
            }
        }
    }
    assert!(walked > 120, "{walked}");
    // The positive control: to their owner all of it is there, as it was.
    for (route, _) in rows().into_iter().filter(|(route, _)| route.method == "GET") {
        let names = parts(route.path);
        if names.is_empty() || names.contains(&"call") || route.path.ends_with("/stubs") {
            continue;
        }
        // What the operator alone may do, the operator is shown.
        let key = if route.verbs == ["account.limits.read"] { ROOT } else { people.alice.as_str() };
        let answer = ask(&server, route, &acmes.path(route), key, json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", route.path);
    }
    let file = format!("/api/v1/spaces/{}/files/content?path=a.txt", acmes.0["space"]);
    assert_eq!(server.get(&file, &people.alice).await.text().await.unwrap(), "canary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a04_foreign_ids_in_headers_queries_and_bodies_are_those_of_nothing() {
    let server = Server::start().await;
    let people = server.people().await;
    server.done("PUT", "/api/v1/agents/acmes", &people.alice, json!({})).await;
    let acmes = World::of(&server, "acme", &people.alice, &people.alice, "zoe-walked").await.with("agent", "acmes");
    let nobodys = never(&acmes);
    let bobs = World::of(&server, "globex", &people.bob, &people.bob, "zack-walked").await;
    let (keys, own) = ("/api/v1/admin/accounts/globex/users/bob/keys", bobs.0["session"].as_str());
    let grants = format!("/api/v1/spaces/{}/grants", bobs.0["space"]);
    let session = format!("/eve/v1/session/{own}");
    let places: [(&str, &str, &str, Option<&str>, Value); 10] = [
        ("POST", "/eve/v1/session", "space", Some("x-bailiwick-space"), json!({})),
        ("POST", "/eve/v1/session", "agent", Some("x-bailiwick-agent"), json!({})),
        ("GET", "/eve/v1/info", "agent", Some("x-openviking-agent"), Value::Null),
        ("POST", keys, "space", None, json!({ "name": "k", "space_id": "HERE" })),
        ("POST", keys, "agent", None, json!({ "name": "k", "agent_id": "HERE" })),
        ("PUT", &grants, "user", None, json!({ "user": "HERE", "level": "read" })),
        (
            "POST",
            &session,
            "approval",
            None,
            json!({ "inputResponses": [{ "requestId": "HERE", "optionId": "approve" }] }),
        ),
        ("GET", "/api/v1/audit?space=HERE", "space", None, Value::Null),
        ("GET", "/api/v1/audit?user=HERE", "user", None, Value::Null),
        ("GET", "/api/v1/audit?agent=HERE", "agent", None, Value::Null),
    ];
    for (method, path, name, header, body) in places {
        let send = async |world: &World| {
            let id = world.0[name].as_str();
            let body: Value = serde_json::from_str(&body.to_string().replace("HERE", id)).unwrap();
            let mut request = server.request(method, &path.replace("HERE", id), &people.bob);
            if let Some(header) = header {
                request = request.header(header, id);
            }
            let request = if body.is_null() { request } else { request.json(&body) };
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response)
        };
        let ((there, a), (absent, b)) = (send(&acmes).await, send(&nobodys).await);
        assert_eq!(there, absent, "{method} {path} {name}");
        if there == 200 {
            // A search finds nothing, and a name that is none here gives nothing.
            let (a, b) = (a.text().await.unwrap(), b.text().await.unwrap());
            assert_eq!(a, b, "{method} {path} {name}");
            assert!(a.contains("\"result\":[]"), "{method} {path} {name}: {a}");
        } else {
            assert_eq!(there, 404, "{method} {path} {name}");
            let a = Reply::read(a, &[acmes.0[name].as_str()]).await;
            assert_eq!(a, Reply::read(b, &[nobodys.0[name].as_str()]).await, "{method} {path} {name}");
        }
    }
}

/// Requests of each kind in one measurement.
const ROUNDS: usize = 200;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a03_a_foreign_thing_takes_no_other_time_than_one_that_never_was() {
    let server = Server::start().await;
    let people = server.people().await;
    let acmes = World::of(&server, "acme", &people.alice, &people.alice, "zoe-walked").await;
    let nobodys = never(&acmes);
    for wanted in [
        "/api/v1/spaces/{space}",
        "/api/v1/sessions/{session}",
        "/api/v1/approvals/{approval}",
        "/api/v1/admin/accounts/{account}",
        "/api/v1/admin/accounts/{account}/users/{user}",
        "/api/v1/spaces/{space}/files/content",
    ] {
        let (route, _) = rows().into_iter().find(|(route, _)| (route.method, route.path) == ("GET", wanted)).unwrap();
        let (there, absent) = (acmes.path(route), nobodys.path(route));
        let timed = async |path: &str| {
            let begun = Instant::now();
            let response = server.get(path, &people.bob).await;
            let took = begun.elapsed();
            assert_eq!(response.status(), 404);
            response.bytes().await.unwrap();
            took
        };
        let mut told = Vec::new();
        let mut alike = false;
        for _ in 0..3 {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                // In turns, and each first as often: whatever else the machine does falls on both.
                if round % 2 == 0 {
                    a.push(timed(&there).await);
                    b.push(timed(&absent).await);
                } else {
                    b.push(timed(&absent).await);
                    a.push(timed(&there).await);
                }
            }
            let (a, b) = (median(a), median(b));
            told.push((a, b));
            let apart = a.abs_diff(b);
            if apart < Duration::from_micros(100) || apart * 4 < a.min(b) {
                alike = true;
                break;
            }
        }
        assert!(alike, "{wanted}: foreign and absent take {told:?}");
    }
}
