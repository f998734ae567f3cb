//! Every changing route leaves its line on record: what is done here, what is refused with `rights`,
//! what is hidden in words that only an admin reads.

use std::collections::BTreeMap;

use bailiwick_web::route::Route;
use serde_json::{Value, json};

use super::{World, ask, changes, rows};
use crate::authenticator::Authenticator;
use crate::support::{Login, ROOT, Server, consent, taken, totp_code};

/// What the log must hold about one request.
pub(super) struct Line {
    pub(super) what: String,
    pub(super) request: String,
    pub(super) actor: String,
    /// Any of these; any at all if there is none.
    pub(super) actions: Vec<&'static str>,
    pub(super) result: &'static str,
    pub(super) code: Option<String>,
    pub(super) untold: bool,
    pub(super) status: u16,
}

/// Whether the request itself is on record, beside what came of it. A machine asks for the numbers again
/// and again, so that of those a refusal alone is.
fn is_requested(line: &Line) -> bool {
    !line.what.ends_with("GET /metrics")
}

/// The whole of a log, by request.
async fn log(server: &Server, path: &str, key: &str) -> BTreeMap<String, Vec<Value>> {
    let (mut by_request, mut after): (BTreeMap<String, Vec<Value>>, _) = (BTreeMap::new(), String::new());
    loop {
        let page = server.get(&format!("{path}?limit=1000{after}"), key).await;
        let (_, page) = taken(page).await;
        let events = page["result"].as_array().unwrap();
        for event in events {
            let request = event["request"].as_str().unwrap_or("").to_owned();
            by_request.entry(request).or_default().push(event.clone());
        }
        // Newest first without `after`, so the first page says nothing about the next.
        let first = after.is_empty();
        if !first && page["has_more"] != true {
            return by_request;
        }
        if first {
            by_request.clear();
            after = "&after=0".to_owned();
        } else {
            after = format!("&after={}", events.last().unwrap()["seq"]);
        }
    }
}

/// Holds the log against what must be in it. Observations are written a little later.
pub(super) async fn on_record(server: &Server, path: &str, key: &str, lines: &[Line]) {
    assert!(!lines.is_empty());
    let mut events = BTreeMap::new();
    for _ in 0..200 {
        events = log(server, path, key).await;
        let last = |line: &Line| {
            let found = events.get(&line.request);
            found.is_some_and(|found| !is_requested(line) || found.iter().any(|e| e["action"] == "http.request"))
        };
        if lines.iter().all(last) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for line in lines {
        let found = events.get(&line.request).unwrap_or_else(|| panic!("{}: nothing is on record", line.what));
        let fits = |event: &&Value| {
            let action = event["action"].as_str().unwrap();
            action != "http.request"
                && (line.actions.is_empty() || line.actions.contains(&action))
                && event["result"] == line.result
        };
        let event = found.iter().find(fits).unwrap_or_else(|| panic!("{}: {found:?}", line.what));
        let whole = |event: &Value| {
            assert_eq!(event["actor"], line.actor.as_str(), "{}: {event}", line.what);
            assert_eq!(event["address"], "127.0.0.1", "{}", line.what);
            let credential = event["credential"].as_str().unwrap();
            let kinds: &[&str] = if line.actor == "operator" { &["root-key:"] } else { &["key:", "device:"] };
            assert!(kinds.iter().any(|kind| credential.starts_with(kind)), "{}: {credential}", line.what);
            assert!(event["at"].is_string() && !event["resource"].as_str().unwrap().is_empty(), "{}", line.what);
        };
        whole(event);
        if let Some(code) = &line.code {
            assert_eq!(event["detail"]["code"], code.as_str(), "{}: {event}", line.what);
        }
        assert_eq!(event["detail"]["untold"] == true, line.untold, "{}: {event}", line.what);
        if !is_requested(line) {
            continue;
        }
        let request = found.iter().find(|event| event["action"] == "http.request").unwrap();
        whole(request);
        assert_eq!(request["detail"]["status"], line.status, "{}: {request}", line.what);
    }
}

/// One act: a route, about what, with which body, and which action the log names.
struct Act(&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

const WALTER: &[(&str, &str)] = &[("user", "walter")];
const WANDA: &[(&str, &str)] = &[("user", "wanda")];
const OWN: &[(&str, &str)] = &[];

/// An example of every changing route, in an order in which all can be done.
const ACTS: &[Act] = &[
    Act("POST", "/api/v1/admin/accounts", OWN, r#"{"account_id":"newco","admin_user_id":"nina"}"#, "account.create"),
    Act("DELETE", "/api/v1/admin/accounts/{account}", &[("account", "newco")], "", "account.delete"),
    Act(
        "PUT",
        "/api/v1/admin/accounts/{account}/limits",
        OWN,
        r#"{"tool_calls_per_day":100000}"#,
        "account.limits.set",
    ),
    Act("POST", "/api/v1/admin/accounts/{account}/users", OWN, r#"{"user_id":"walter"}"#, "user.create"),
    Act("PUT", "/api/v1/admin/accounts/{account}/users/{user}/role", WALTER, r#"{"role":"viewer"}"#, "user.role.set"),
    Act("POST", "/api/v1/admin/accounts/{account}/users/{user}/key", WALTER, "{}", "key.create"),
    Act("POST", "/api/v1/admin/accounts/{account}/users/{user}/keys", WALTER, r#"{"name":"k"}"#, "key.create"),
    Act("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/keys/{key}", WALTER, "", "key.revoke"),
    Act(
        "PUT",
        "/api/v1/admin/accounts/{account}/users/{user}/password",
        WALTER,
        r#"{"password":"long enough"}"#,
        "auth.password.reset",
    ),
    Act("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/lock", WALTER, "", "auth.unlock"),
    Act("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/devices/{login}", OWN, "", "device.revoke"),
    Act("POST", "/api/v1/admin/clients", OWN, r#"{"redirect_uris":["http://127.0.0.1/cb"]}"#, "host.client.create"),
    Act("POST", "/oauth/authorize", OWN, "CONSENT", "application.allow"),
    Act("POST", "/applications/{application}/end", OWN, "{}", "application.revoke"),
    Act("DELETE", "/api/v1/applications/{application}", OWN, "", "application.revoke"),
    Act("DELETE", "/api/v1/admin/clients/{client}", OWN, "", "host.client.delete"),
    Act("DELETE", "/api/v1/devices/{device}", OWN, "", "device.revoke"),
    Act("DELETE", "/api/v1/admin/accounts/{account}/users/{user}/2fa", WALTER, "", "auth.2fa.reset"),
    Act("POST", "/api/auth/2fa/totp", OWN, r#"{"password":"correct horse"}"#, "auth.2fa.set"),
    Act("POST", "/api/auth/2fa/totp/confirm", OWN, r#"{"code":"SHOWN"}"#, "auth.2fa.set"),
    Act("POST", "/api/auth/2fa/recovery-codes", OWN, r#"{"password":"correct horse","code":"SHOWN"}"#, "auth.2fa.set"),
    Act("POST", "/api/auth/2fa/totp/remove", OWN, r#"{"password":"correct horse","code":"SHOWN"}"#, "auth.2fa.set"),
    Act("POST", "/api/auth/passkeys", OWN, r#"{"password":"correct horse"}"#, "auth.2fa.set"),
    Act("POST", "/api/auth/passkeys/finish", OWN, r#"{"passkey":"MADE"}"#, "auth.2fa.set"),
    Act(
        "POST",
        "/api/auth/passkeys/{passkey}/remove",
        OWN,
        r#"{"password":"correct horse","code":"SHOWN"}"#,
        "auth.2fa.set",
    ),
    Act("POST", "/api/auth/logout", OWN, "", "device.revoke"),
    Act(
        "POST",
        "/api/auth/password",
        OWN,
        r#"{"currentPassword":"correct horse","newPassword":"battery staple"}"#,
        "auth.password.set",
    ),
    Act("POST", "/spaces", OWN, r#"{"name":"paged"}"#, "space.create"),
    Act("POST", "/spaces/{space}/grant", OWN, r#"{"user":"walter","level":"read"}"#, "space.grant"),
    Act("POST", "/spaces/{space}/revoke", OWN, r#"{"user":"walter"}"#, "space.grant"),
    Act("POST", "/users", OWN, r#"{"name":"wanda","role":"member"}"#, "user.create"),
    Act("POST", "/users/{user}/role", WANDA, r#"{"role":"viewer"}"#, "user.role.set"),
    Act("POST", "/users/{user}/password", WANDA, r#"{"password":"long enough"}"#, "auth.password.reset"),
    Act("POST", "/users/{user}/unlock", WANDA, "{}", "auth.unlock"),
    Act("POST", "/users/{user}/2fa", WANDA, "{}", "auth.2fa.reset"),
    Act("POST", "/users/{user}/delete", WANDA, "{}", "user.delete"),
    Act("POST", "/secrets", OWN, r#"{"name":"made","value":"a-value-of-some-length"}"#, "secret.set"),
    Act("POST", "/secrets/{secret}/grant", OWN, r#"{"agent":"careful","hosts":"*.example"}"#, "secret.grant"),
    Act("POST", "/secrets/{secret}/revoke", OWN, r#"{"agent":"careful","hosts":"*.example"}"#, "secret.grant"),
    Act("POST", "/secrets/{secret}/delete", &[("secret", "made")], "{}", "secret.delete"),
    Act("POST", "/keys", OWN, r#"{"name":"k2","scope":"read"}"#, "key.create"),
    Act("POST", "/keys/{mine}/revoke", OWN, "{}", "key.revoke"),
    Act("POST", "/approvals/{approval}", OWN, r#"{"decision":"deny"}"#, "approval.decide"),
    Act("POST", "/2fa/begin", OWN, r#"{"password":"battery staple"}"#, "auth.2fa.set"),
    Act("POST", "/2fa/confirm", OWN, r#"{"code":"SHOWN"}"#, "auth.2fa.set"),
    Act("POST", "/2fa/codes", OWN, r#"{"password":"battery staple","code":"SHOWN"}"#, "auth.2fa.set"),
    Act("POST", "/2fa/remove", OWN, r#"{"password":"battery staple","code":"SHOWN"}"#, "auth.2fa.set"),
    Act("POST", "/2fa/passkeys/begin", OWN, r#"{"password":"battery staple"}"#, "auth.2fa.set"),
    Act("POST", "/2fa/passkeys/finish", OWN, r#"{"passkey":"MADE"}"#, "auth.2fa.set"),
    Act(
        "POST",
        "/2fa/passkeys/{passkey}/remove",
        OWN,
        r#"{"password":"battery staple","code":"SHOWN"}"#,
        "auth.2fa.set",
    ),
    Act(
        "POST",
        "/settings/password",
        OWN,
        r#"{"current":"battery staple","new":"correct horse"}"#,
        "auth.password.set",
    ),
    Act("POST", "/devices/{device}/end", OWN, "{}", "device.revoke"),
    Act("POST", "/logout", OWN, "{}", "device.revoke"),
    Act("DELETE", "/api/v1/admin/accounts/{account}/users/{user}", WALTER, "", "user.delete"),
    Act("PUT", "/api/v1/policies", OWN, r#"{"text":""}"#, "policy.put"),
    Act("PUT", "/api/v1/agents/{agent}", &[("agent", "spare")], "{}", "agent.put"),
    Act("DELETE", "/api/v1/agents/{agent}", &[("agent", "spare")], "", "agent.delete"),
    Act(
        "POST",
        "/api/v1/notifications",
        OWN,
        r#"{"name":"made","kind":"telegram","address":"1:a-token","chat":"1","events":["failed"]}"#,
        "notification.create",
    ),
    Act(
        "POST",
        "/notifications",
        OWN,
        r#"{"name":"paged","kind":"telegram","address":"1:a-token","chat":"1","failed":"on"}"#,
        "notification.create",
    ),
    Act("POST", "/notifications/{notification}/pause", &[("notification", "paged")], "", "notification.update"),
    Act("POST", "/notifications/{notification}/resume", &[("notification", "paged")], "", "notification.update"),
    Act("POST", "/notifications/{notification}/test", &[("notification", "paged")], "", "notification.test"),
    Act("POST", "/notifications/{notification}/delete", &[("notification", "paged")], "", "notification.delete"),
    Act("PATCH", "/api/v1/notifications/{notification}", OWN, r#"{"paused":true}"#, "notification.update"),
    // Nobody answers at the address to which the tests' server is led.
    Act("POST", "/api/v1/notifications/{notification}/test", OWN, "", "notification.test"),
    Act("DELETE", "/api/v1/notifications/{notification}", OWN, "", "notification.delete"),
    Act("PUT", "/api/v1/secrets/{secret}", OWN, r#"{"value":"a-value-of-some-length"}"#, "secret.set"),
    Act("PUT", "/api/v1/secrets/{secret}/grants/{agent}/{hosts}", OWN, "", "secret.grant"),
    Act("DELETE", "/api/v1/secrets/{secret}/grants/{agent}/{hosts}", OWN, "", "secret.grant"),
    Act("POST", "/api/v1/admin/accounts/{account}/data-key", OWN, "", "secret.key.rotate"),
    Act("POST", "/api/v1/admin/vault/rewrap", OWN, "", "host.vault.rewrap"),
    Act("DELETE", "/api/v1/secrets/{secret}", OWN, "", "secret.delete"),
    Act("POST", "/api/v1/spaces", OWN, r#"{"name":"made"}"#, "space.create"),
    Act("PATCH", "/api/v1/spaces/{space}", OWN, r#"{"name":"renamed"}"#, "space.update"),
    Act("PUT", "/api/v1/spaces/{space}/grants", OWN, r#"{"user":"carol","level":"read"}"#, "space.grant"),
    Act("DELETE", "/api/v1/spaces/{space}/grants/{user}", &[("user", "carol")], "", "space.grant"),
    Act("PUT", "/api/v1/spaces/{space}/plan", OWN, r#"{"items":[{"text":"x","status":"done"}]}"#, "plan.write"),
    Act("PUT", "/api/v1/spaces/{space}/files/content", OWN, "", "space.write"),
    Act("DELETE", "/api/v1/spaces/{space}/files/content", OWN, "", "space.write"),
    Act("POST", "/api/v1/approvals/{approval}", OWN, r#"{"decision":"deny"}"#, "approval.decide"),
    Act("POST", "/eve/v1/session", OWN, "{}", "session.create"),
    Act("POST", "/eve/v1/session/{session}", OWN, r#"{"message":"slow please"}"#, "session.send"),
    Act("POST", "/eve/v1/session/{session}/cancel", OWN, "{}", "session.control"),
    Act("POST", "/eve/v1/session/{session}/clear", OWN, "{}", "session.control"),
    Act("POST", "/eve/v1/session/{session}/compact", OWN, "{}", "session.control"),
    Act("POST", "/eve/v1/session/{session}/reset", OWN, "{}", "session.control"),
    Act("POST", "/api/v1/spaces/{space}/jobs", OWN, r#"{"command":"true","agent":"careful"}"#, "job.create"),
    Act("DELETE", "/api/v1/spaces/{space}/jobs/{job}", OWN, "", "job.cancel"),
    Act("DELETE", "/api/v1/sandboxes/{sandbox}", OWN, "", "sandbox.end"),
    Act("POST", "/sandboxes/{sandbox}/end", OWN, "", "sandbox.end"),
    Act("DELETE", "/api/v1/spaces/{space}", OWN, "", "space.delete"),
    // Nothing is that old, and that it was asked for is on record all the same.
    Act("POST", "/api/v1/audit/retire", OWN, r#"{"before":"2000-01-01T00:00:00Z"}"#, "audit.retire"),
    Act("POST", "/api/v1/admin/audit/retire", OWN, r#"{"before":"2000-01-01T00:00:00Z"}"#, "audit.retire"),
];

fn changing() -> Vec<&'static Route> {
    rows().into_iter().map(|(route, _)| route).filter(|route| changes(route)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e01_e04_every_changing_route_that_is_done_leaves_its_event() {
    for route in changing() {
        let there = ACTS.iter().any(|act| (act.0, act.1) == (route.method, route.path));
        assert!(there, "{} {} has no example: give it an act", route.method, route.path);
    }
    assert_eq!(ACTS.len(), changing().len());
    let server = Server::start().await;
    let people = server.people().await;
    // Another one first: what it sets up ends logins that the walk needs.
    let another = World::of(&server, "acme", &people.alice, &people.alice, "zoe").await;
    let mut world = World::of(&server, "acme", &people.alice, &people.alice, "zoe").await;
    // One login to sign out of, another one to be ended from elsewhere.
    let second = server.login_again("acme", "alice").await;
    let mut third: Option<Login> = None;
    let keys = "/api/v1/admin/accounts/acme/users/alice/keys";
    let spare = server.done("POST", keys, &people.alice, json!({ "name": "spare" })).await;
    let spare = spare["id"].as_str().unwrap().to_owned();
    // The code that the next act has to show, and the passkey.
    let mut shown = String::new();
    let mut made = Value::Null;
    let (mut own, mut host) = (Vec::new(), Vec::new());
    for Act(method, path, about, body, action) in ACTS {
        let route = changing().into_iter().find(|route| (route.method, route.path) == (*method, *path)).unwrap();
        let operator = route.verbs.iter().any(|verb| verb.starts_with("account.") || verb.starts_with("host."));
        let key = if operator { ROOT } else { people.alice.as_str() };
        let target = about.iter().fold(world.clone(), |world, (name, value)| world.with(name, value));
        let body = &body.replace("SHOWN", &shown);
        let body = match body.as_str() {
            "" => Value::Null,
            "CONSENT" => {
                let mut asked = consent(&target.0["client"]);
                asked["decision"] = json!("allow");
                asked
            }
            body => serde_json::from_str(body).unwrap(),
        };
        let body = if body["passkey"] == "MADE" { made.clone() } else { body };
        if *path == "/devices/{device}/end" {
            third = Some(server.login_again("acme", "alice").await);
        }
        let late = third.as_ref().map_or("", |login| login.token.as_str());
        let key = match *path {
            "/api/auth/logout" => second.token.as_str(),
            "/logout" => late,
            _ => key,
        };
        let target = match *path {
            "/sandboxes/{sandbox}/end" => target.with("sandbox", &another.0["sandbox"]),
            "/approvals/{approval}" => target.with("approval", &another.0["approval"]),
            "/applications/{application}/end" => {
                let made = server.application(&another.0["client"], &people.alice).await;
                target.with("application", &made.id)
            }
            "/devices/{device}/end" => target.with("device", &server.login_again("acme", "alice").await.device),
            "/keys/{mine}/revoke" => target.with("mine", &spare),
            _ => target,
        };
        let response = ask(&server, route, &target.path(route), key, body).send().await.unwrap();
        let request = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let (status, answer) = taken(response).await;
        let what = format!("{method} {path}");
        assert!(status.is_success() || status == 303, "{what}: {status} {answer}");
        // What a page shows this once.
        if let Some((_, rest)) =
            answer.as_str().filter(|_| *path == "/2fa/begin").and_then(|page| page.split_once("<p class=\"once\">"))
        {
            shown = totp_code(rest.split('<').next().unwrap(), 0);
        }
        if let Some((_, rest)) = answer.as_str().and_then(|page| page.split_once("class=\"codes\"><li>")) {
            shown = rest.split('<').next().unwrap().to_owned();
        }
        if path.ends_with("/passkeys") || path.ends_with("/passkeys/begin") {
            let begun = crate::passkey::begun(&answer);
            let credential = Authenticator::new().create(&begun["options"]);
            world = world.with("passkey", &crate::passkey::id_of(&credential));
            let sent = if answer.is_string() { json!(credential.to_string()) } else { credential };
            made = json!({ "ceremony": begun["ceremony"], "credential": sent });
        }
        assert!(!answer.to_string().contains("no_active"), "{what} had nothing to do: {answer}");
        if let Some(secret) = answer["secret"].as_str() {
            shown = totp_code(secret, 0);
        }
        if let Some(code) = answer["recoveryCodes"][0].as_str() {
            shown = code.to_owned();
        }
        // What was made is what the next acts are about.
        if let Some(id) = answer["result"]["id"].as_str().filter(|_| path.ends_with("/keys")) {
            world = world.with("key", id);
        }
        if let Some(id) = answer["sessionId"].as_str().filter(|_| *path == "/eve/v1/session") {
            world = world.with("session", id);
        }
        let log = if operator { &mut host } else { &mut own };
        let actor = if operator { "operator" } else { "user:alice" }.to_owned();
        let (actions, result, status) = (vec![*action], "OK", status.as_u16());
        log.push(Line { what, request, actor, actions, result, code: None, untold: false, status });
    }
    on_record(&server, "/api/v1/audit", &people.alice, &own).await;
    on_record(&server, "/api/v1/admin/audit", ROOT, &host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e01_a03_what_is_hidden_from_its_asker_stands_in_the_admins_log_alone() {
    let server = Server::start().await;
    let people = server.people().await;
    let acmes = World::of(&server, "acme", &people.alice, &people.alice, "zoe").await;
    let mut lines = Vec::new();
    for route in changing() {
        let path = acmes.path(route);
        // A route without an id is about the asker's own; the name of an agent, a secret or a target is one of their account.
        if path == route.path
            || route.path.contains("{agent}")
            || route.path.contains("{secret}")
            || route.path.contains("{notification}")
            || route.path.starts_with("/users/")
        {
            continue;
        }
        let response = ask(&server, route, &path, &people.dave, json!({})).send().await.unwrap();
        let status = response.status().as_u16();
        let request = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let what = format!("{} {}", route.method, route.path);
        let host = matches!(route.verbs, ["account.delete" | "host.client.delete"]);
        assert_eq!(status, if host { 403 } else { 404 }, "{what}");
        lines.push(Line {
            what,
            request,
            actor: "user:dave".to_owned(),
            actions: Vec::new(),
            result: "DENIED",
            code: Some(if host { "operator_only" } else { "not_found" }.to_owned()),
            untold: !host,
            status,
        });
    }
    assert!(lines.len() > 15, "{}", lines.len());
    on_record(&server, "/api/v1/audit", &people.bob, &lines).await;
    // The asker's own log has the requests, and of what was hidden not a word.
    let dave = log(&server, "/api/v1/audit", &people.dave).await;
    for line in &lines {
        let own = &dave[&line.request];
        assert!(own.iter().any(|event| event["action"] == "http.request"), "{}", line.what);
        assert_eq!(own.len(), if line.untold { 1 } else { 2 }, "{}: {own:?}", line.what);
    }
    // And acme, whose things they are, is told nothing of who asked.
    assert!(!log(&server, "/api/v1/audit", &people.alice).await.values().flatten().any(|e| e["user"] == "dave"));
}
