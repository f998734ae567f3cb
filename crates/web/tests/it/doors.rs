//! Every door, walked by the table of routes: without a credential, with a wrong one, with one of
//! another account, and with one that may only read.

use bailiwick_auth::authn::Step;
use bailiwick_web::route::{Access, Route, Shape, pages, table};
use bailiwick_web::{AuthMode, Settings};
use serde_json::{Value, json};

use crate::support::{ROOT, Server, code, page_reason, reason, settings, taken};
use crate::walk::ask;

/// The route's path with ids that could be.
fn filled(route: &Route, space: &str) -> String {
    let path = route
        .path
        .replace("{account}", "acme")
        .replace("{user}", "carol")
        .replace("{key}", "aaaaaaaaaaaaaaaa")
        .replace("{mine}", "aaaaaaaaaaaaaaaa")
        .replace("{device}", "aaaaaaaaaaaaaaaa")
        .replace("{passkey}", "aaaaaaaaaaaaaaaa")
        .replace("{login}", "aaaaaaaaaaaaaaaa")
        .replace("{application}", "aaaaaaaaaaaaaaaa")
        .replace("{client}", "aaaaaaaaaaaaaaaa")
        .replace("{agent}", "default")
        .replace("{secret}", "token")
        .replace("{notification}", "target")
        .replace("{hosts}", "api.example")
        .replace("{space}", space)
        .replace("{session}", "ses_01ARZ3NDEKTSV4RRFFQ69G5FAV")
        .replace("{job}", "job_01ARZ3NDEKTSV4RRFFQ69G5FAV")
        .replace("{sandbox}", "sbx_01ARZ3NDEKTSV4RRFFQ69G5FAV")
        .replace("{approval}", "apr_01ARZ3NDEKTSV4RRFFQ69G5FAV")
        .replace("{call}", "call_x")
        .replace("{child}", "ses_x");
    assert!(!path.contains('{'), "{path}");
    if route.body == Shape::File { format!("{path}?path=x.txt") } else { path }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a01_every_route_but_the_public_ones_answers_401_without_and_with_a_wrong_credential() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.alice, "s").await;
    let open: Vec<&str> = table().filter(|r| r.access == Access::Public).map(|r| r.path).collect();
    let signing_in = [
        "/api/auth/login",
        "/api/auth/passkeys/login",
        "/api/auth/passkeys/login/finish",
        "/api/auth/providers",
        "/api/auth/setup/status",
        "/api/auth/setup",
    ];
    let well = ["/ready", "/eve/v1/health"];
    let visited = ["/login", "/login", "/login/passkey", "/setup", "/setup"];
    let by_provider = [
        "/login/oidc/{provider}",
        "/login/oidc/{provider}/callback",
        "/login/oidc/{provider}/code",
        "/login/oidc/{provider}/code",
    ];
    let about = ["/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource"];
    let programs = ["/oauth/register", "/oauth/token", "/oauth/revoke"];
    let assets = ["/assets/style.css", "/assets/script.js"];
    let all = [&well[..], &signing_in, &about, &programs, &visited, &by_provider, &assets].concat();
    assert_eq!(open, all, "this list may only shrink");
    // What their first frame must be, `socket.rs` asks of these.
    let sockets: Vec<&str> = table().filter(|r| r.access == Access::Socket).map(|r| r.path).collect();
    assert_eq!(sockets, ["/api/v1/ws"]);
    for route in table().filter(|route| route.access == Access::Known) {
        let path = filled(route, &space);
        for key in ["", "wrong", "bwk_aaaaaaaaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let response = server.send(route.method, &path, key, json!({})).await;
            let name = format!("{} {}", route.method, route.path);
            if is_page(route) {
                // A person is led to where they can sign in, and from a form not back to it.
                assert_eq!(response.status(), 303, "{name}");
                let to = response.headers()["location"].to_str().unwrap();
                assert!(to == "/login" || route.method == "GET" && to.starts_with("/login?next=%2F"), "{name}: {to}");
                assert_eq!(response.headers()["cache-control"], "no-store");
                continue;
            }
            assert_eq!(response.status(), 401, "{name}");
            let challenge = if key.is_empty() { "Bearer" } else { "Bearer error=\"invalid_token\"" };
            assert_eq!(response.headers()["www-authenticate"], challenge, "{name}");
            assert_eq!(response.headers()["cache-control"], "no-store");
            let (_, body) = taken(response).await;
            if path.starts_with("/eve/") {
                assert_eq!(
                    (body["ok"].as_bool(), body["code"].as_str()),
                    (Some(false), Some("unauthorized")),
                    "{name}"
                );
                assert_eq!(body["error"], "Authorization is required for this route.");
            } else if path.starts_with("/api/auth/") {
                assert_eq!(body["code"], "unauthorized", "{name}");
            } else {
                assert_eq!(code(&body), "UNAUTHENTICATED", "{name}");
                let text = if key.is_empty() { "Missing API Key when resolving identity." } else { "Invalid API key" };
                assert_eq!(body["error"]["message"], text);
            }
        }
    }
}

fn is_page(route: &Route) -> bool {
    pages().any(|page| std::ptr::eq(page, route))
}

/// What a viewer may change: how they themselves sign in (r06). This list may only shrink.
const OWN_SIGN_IN: [&str; 23] = [
    "/logout",
    "/2fa/begin",
    "/2fa/confirm",
    "/2fa/remove",
    "/2fa/codes",
    "/2fa/passkeys/begin",
    "/2fa/passkeys/finish",
    "/2fa/passkeys/{passkey}/remove",
    "/settings/password",
    "/devices/{device}/end",
    "/applications/{application}/end",
    "/api/v1/applications/{application}",
    "/oauth/authorize",
    "/api/auth/logout",
    "/api/auth/password",
    "/api/auth/2fa/totp",
    "/api/auth/2fa/totp/confirm",
    "/api/auth/2fa/totp/remove",
    "/api/auth/2fa/recovery-codes",
    "/api/auth/passkeys",
    "/api/auth/passkeys/finish",
    "/api/auth/passkeys/{passkey}/remove",
    "/api/v1/devices/{device}",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_a_viewer_and_a_stranger_change_nothing_by_any_route() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.alice, "s").await;
    let grant = json!({ "user": "vera", "level": "manage" });
    server.done("PUT", &format!("/api/v1/spaces/{space}/grants"), &people.alice, grant).await;
    let mut walked = 0;
    for route in table().filter(|route| route.access == Access::Known && route.method != "GET") {
        let path = filled(route, &space);
        if path.contains("/audit/verify") {
            continue; // reads, whatever its method
        }
        if OWN_SIGN_IN.contains(&route.path) {
            let (status, _) = taken(ask(&server, route, &path, &people.vera, json!({})).send().await.unwrap()).await;
            assert!(status != 403 && status != 401, "{path}: {status}");
            continue;
        }
        walked += 1;
        let name = format!("{} {}", route.method, route.path);
        let response = ask(&server, route, &path, &people.vera, json!({})).send().await.unwrap();
        let page = page_reason(&response);
        let viewer = taken(response).await;
        let own = ["ses_", "apr_", "job_", "sbx_"].iter().any(|prefix| path.contains(prefix));
        let told = if path.starts_with("/eve/") { viewer.1["code"].as_str().unwrap_or("") } else { reason(&viewer.1) };
        let told = if page.is_empty() { told } else { page.as_str() };
        let fits = match told {
            "admin_only" | "operator_only" if is_page(route) => viewer.0 == 303,
            "viewer_readonly" | "operator_only" | "admin_only" => viewer.0 == 403,
            _ => own && viewer.0 == 404,
        };
        assert!(fits, "{name}: {viewer:?}");
        // Somebody of another account: what has an account or an id in its path is not there.
        let stranger = taken(ask(&server, route, &path, &people.bob, json!({})).send().await.unwrap()).await;
        // A name of a user, an agent or a secret is one of the asker's own account.
        if path != route.path
            && !path.contains("/agents/")
            && !path.contains("/secrets/")
            && !path.starts_with("/users/")
        {
            let fits = stranger.0 == 404 || reason(&stranger.1) == "operator_only";
            assert!(fits, "{name}: {stranger:?}");
        }
    }
    assert!(walked > 20, "{walked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_come_from_two_headers_and_never_from_the_url() {
    let server = Server::start().await;
    let people = server.people().await;
    let path = server.url("/api/v1/spaces");
    let bearer = server.client.get(&path).header("authorization", format!("bearer {}", people.alice));
    assert_eq!(bearer.send().await.unwrap().status(), 200);
    for query in ["api_key", "token", "key", "access_token"] {
        let asked = server.get(&format!("/api/v1/spaces?{query}={}", people.alice), "").await;
        assert_eq!(asked.status(), 401, "{query}");
    }
    let twice = server.client.get(&path).header("x-api-key", &people.alice).header("x-api-key", &people.alice);
    assert_eq!(twice.send().await.unwrap().status(), 400);
    // A user's key with the headers of another tenant: they are not honoured.
    let posing = server
        .request("GET", "/api/v1/system/status", &people.alice)
        .header("x-openviking-account", "globex")
        .header("x-openviking-user", "bob");
    let (_, body) = taken(posing.send().await.unwrap()).await;
    assert_eq!((body["result"]["account"].as_str(), body["result"]["user"].as_str()), (Some("acme"), Some("alice")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v09_r08_the_operator_must_say_whose_data() {
    let server = Server::start().await;
    let people = server.people().await;
    let (status, body) = server.refused("GET", "/api/v1/spaces", ROOT, Value::Null).await;
    assert_eq!((status, reason(&body)), (403, "tenant_required"));
    assert!(body["error"]["message"].as_str().unwrap().contains("X-OpenViking-Account"));
    let half = server.request("GET", "/api/v1/spaces", ROOT).header("x-openviking-account", "acme");
    assert_eq!(half.send().await.unwrap().status(), 400);
    let whole = server
        .request("GET", "/api/v1/spaces", ROOT)
        .header("x-openviking-account", "acme")
        .header("x-openviking-user", "alice");
    assert_eq!(whole.send().await.unwrap().status(), 200);
    let marked = |event: &Value| event["actor"] == "operator-for:alice" && event["action"] == "http.request";
    server.event("/api/v1/audit", &people.alice, marked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_dev_mode_lets_in_the_loopback_but_no_page_of_another() {
    let settings = Settings { auth_mode: AuthMode::Dev, ..settings() };
    let server = Server::with(vec![Step::ApiKey, Step::LocalDev], settings).await;
    let (status, body) = taken(server.get("/api/v1/system/status", "").await).await;
    assert_eq!((status.as_u16(), body["result"]["user"].as_str()), (200, Some("default")));
    let spaces = server.url("/api/v1/spaces");
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("host", "rebound.evil.example"),
        ("x-forwarded-for", "203.0.113.7"),
    ] {
        let asked = server.client.post(&spaces).header(name, value).json(&json!({ "name": "x" }));
        assert_eq!(asked.send().await.unwrap().status(), 401, "{name}: {value}");
    }
    assert_eq!(server.get("/api/v1/spaces", "wrong").await.status(), 401, "a wrong key is not overlooked");
    let own = server
        .client
        .post(&spaces)
        .header("origin", format!("http://{}", server.address))
        .json(&json!({ "name": "x" }));
    assert_eq!(own.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_an_empty_walk_and_a_placeholder_let_nobody_in() {
    for steps in [vec![], vec![Step::Placeholder]] {
        let server = Server::with(steps.clone(), settings()).await;
        for key in ["", ROOT] {
            assert_eq!(server.get("/api/v1/spaces", key).await.status(), 401, "{steps:?}");
        }
        assert_eq!(server.get("/health", "").await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i13_the_address_list_comes_before_everything() {
    let refusing = Settings { ip_allow: vec!["10.0.0.0/8".parse().unwrap()], ..settings() };
    let server = Server::with(vec![Step::ApiKey], refusing.clone()).await;
    let (status, body) = taken(server.get("/health", "").await).await;
    assert_eq!((status.as_u16(), reason(&body)), (403, "address_not_allowed"));
    let forged = server.request("GET", "/health", "").header("x-forwarded-for", "10.1.2.3");
    assert_eq!(forged.send().await.unwrap().status(), 403);
    // Control: the same header from a proxy that is trusted.
    let trusting = Settings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..refusing };
    let server = Server::with(vec![Step::ApiKey], trusting).await;
    let through = server.request("GET", "/health", "").header("x-forwarded-for", "10.1.2.3");
    assert_eq!(through.send().await.unwrap().status(), 200);
}
