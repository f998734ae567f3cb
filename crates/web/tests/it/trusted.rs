//! Behind a gateway that has authenticated the users (`auth.mode = "trusted"`).

use bailiwick_auth::authn::{RootKeyUse, Step};
use bailiwick_web::Settings;
use serde_json::{Value, json};

use crate::support::{ROOT, Server, Terms, reason, settings, taken};

async fn behind(proxy: &str) -> Server {
    let settings = Settings { trusted_proxies: vec![proxy.parse().unwrap()], ..settings() };
    Server::on(vec![Step::ApiKey], settings, Terms { root_use: RootKeyUse::Gateway, ..Terms::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i16_a_gateway_names_users_who_are_no_more_than_themselves() {
    let server = behind("127.0.0.1").await;
    let people = server.people().await;
    let space = server.space(&people.carol, "carols").await;
    let theirs = server.space(&people.bob, "theirs").await;
    let ask = async |path: &str, account: &str, user: &str| {
        let request = server.request("GET", path, ROOT);
        let request = request.header("x-openviking-account", account).header("x-openviking-user", user);
        let (status, body) = taken(request.send().await.unwrap()).await;
        (status.as_u16(), body)
    };
    let (status, me) = ask("/api/auth/me", "acme", "carol").await;
    assert_eq!((status, &me["username"], &me["role"]), (200, &json!("carol"), &json!("user")));
    assert_eq!(ask(&format!("/api/v1/spaces/{space}"), "acme", "carol").await.0, 200);
    assert_eq!(ask(&format!("/api/v1/spaces/{theirs}"), "acme", "carol").await.0, 404);
    assert_eq!(ask(&format!("/api/v1/spaces/{space}"), "globex", "bob").await.0, 404);
    // Not the operator, and not an admin.
    let (status, body) = ask("/api/v1/admin/accounts/acme/users", "acme", "carol").await;
    assert_eq!((status, reason(&body)), (403, "admin_only"));
    let (status, body) = ask("/api/v1/admin/accounts", "acme", "alice").await;
    assert_eq!((status, reason(&body)), (403, "operator_only"));
    // Header and path say two accounts: told, and not answered as one of them.
    let (status, body) = ask("/api/v1/admin/accounts/globex/users", "acme", "alice").await;
    assert_eq!((status, reason(&body)), (400, "account_conflict"));
    assert_eq!(ask("/api/v1/admin/accounts/acme/users", "acme", "alice").await.0, 200, "the control");
    assert_eq!(ask("/api/v1/spaces", "acme", "nobody").await.0, 400);
    // A gateway sends its word along whoever made the page that asks, so the browser's word is asked, too.
    let make = |site: &str| {
        let request = server.request("POST", "/api/v1/spaces", ROOT).header("sec-fetch-site", site.to_owned());
        let request = request.header("x-openviking-account", "acme").header("x-openviking-user", "carol");
        request.json(&json!({ "name": "x" }))
    };
    let (status, body) = taken(make("cross-site").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), reason(&body)), (403, "cross_site"));
    assert_eq!(make("same-origin").send().await.unwrap().status(), 200);
    // On record it is the user, by the gateway's key.
    let line = server
        .event("/api/v1/audit", &people.carol, |event| event["credential"].as_str().unwrap().starts_with("root-key:"));
    assert_eq!(line.await["actor"], "user:carol");
    // Without headers the key is the operator's still, and a user's own key needs no gateway.
    assert_eq!(server.get("/api/v1/admin/accounts", ROOT).await.status(), 200);
    let spoofed = server.request("GET", "/api/auth/me", &people.carol);
    let spoofed = spoofed.header("x-openviking-account", "acme").header("x-openviking-user", "alice");
    assert_eq!(taken(spoofed.send().await.unwrap()).await.1["username"], "carol");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i16_from_elsewhere_than_the_gateway_its_key_opens_nothing() {
    let server = behind("192.0.2.7").await;
    for headers in [None, Some(("default", "default"))] {
        let mut request = server.request("GET", "/api/v1/admin/accounts", ROOT).header("x-forwarded-for", "192.0.2.7");
        if let Some((account, user)) = headers {
            request = request.header("x-openviking-account", account).header("x-openviking-user", user);
        }
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    let (_, health) = taken(server.get("/health", "").await).await;
    assert_eq!(health["status"], "ok", "the server is there");
    assert!(health.get("user_id").is_none_or(Value::is_null));
}
