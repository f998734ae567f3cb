//! Tokens of an identity provider, at the doors.

use bailiwick_auth::authn::Step;
use bailiwick_auth::authn::jwt::{AccountSource, Issuer, IssuerSettings, KeyMaterial};
use bailiwick_auth::authn::oidc::SecondFactor;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{Server, Terms, reason, settings, taken};

const SECRET: &[u8] = b"a secret that is long enough for it";

fn issuer() -> Issuer {
    let settings = IssuerSettings {
        name: "sso".to_owned(),
        algorithm: Some("HS256".to_owned()),
        issuer: "https://sso.example".to_owned(),
        audiences: vec!["bailiwick".to_owned()],
        subjects: Vec::new(),
        account: AccountSource::Claim("org".to_owned()),
        user_claim: "sub".to_owned(),
        role_claim: Some("role".to_owned()),
        clock_skew_seconds: 0,
        second_factor: SecondFactor::Provider,
    };
    Issuer::new(settings, &KeyMaterial::Secret(SECRET)).unwrap()
}

fn token(org: &str, user: &str, role: &str, seconds: i64, secret: &[u8]) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": "https://sso.example", "aud": "bailiwick", "sub": user, "org": org, "role": role,
        "exp": now.checked_add_signed(seconds).unwrap() });
    let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", text(&json!({ "alg": "HS256" })), text(&claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_i12_a_token_is_its_user_until_its_end_and_a_wrong_one_is_nobody() {
    let steps = vec![Step::ApiKey, Step::Session, Step::Jwt("sso".to_owned()), Step::Anonymous];
    let server = Server::on(steps, settings(), Terms { issuers: vec![issuer()], ..Terms::default() }).await;
    let people = server.people().await;
    server.user("default", "anonymous", "viewer", crate::support::ROOT).await;
    let ask = async |path: &str, token: &str| {
        let (status, body) = taken(server.request("GET", path, "").bearer_auth(token).send().await.unwrap()).await;
        (status.as_u16(), body)
    };
    let alice = token("acme", "alice", "admin", 60, SECRET);
    let (status, me) = ask("/api/auth/me", &alice).await;
    assert_eq!(
        (status, &me["username"], &me["account"], &me["role"]),
        (200, &json!("alice"), &json!("acme"), &json!("admin"))
    );
    assert_eq!(ask("/api/v1/admin/accounts/acme/users", &alice).await.0, 200);
    assert_eq!(ask("/api/v1/admin/accounts/globex/users", &alice).await.0, 404);
    // A claim narrows what the user is, and never widens it.
    let narrowed = ask("/api/v1/admin/accounts/acme/users", &token("acme", "alice", "viewer", 60, SECRET)).await;
    assert_eq!((narrowed.0, reason(&narrowed.1)), (403, "admin_only"));
    let widened = ask("/api/v1/admin/accounts/acme/users", &token("acme", "carol", "admin", 60, SECRET)).await;
    assert_eq!((widened.0, reason(&widened.1)), (403, "admin_only"));
    // What has an end makes nothing that outlasts it.
    let made = server.request("POST", "/api/v1/admin/accounts/acme/users/alice/keys", "").bearer_auth(&alice);
    let (status, body) = taken(made.json(&json!({ "name": "k" })).send().await.unwrap()).await;
    assert_eq!((status.as_u16(), reason(&body)), (403, "key_scope"));
    for (method, path, body) in [
        ("POST", "/api/v1/admin/accounts/acme/users", json!({ "user_id": "mallory", "role": "admin" })),
        ("PUT", "/api/v1/admin/accounts/acme/users/carol/role", json!({ "role": "admin" })),
        ("PUT", "/api/v1/admin/accounts/acme/users/carol/password", json!({ "password": "something new" })),
        ("DELETE", "/api/v1/admin/accounts/acme/users/carol/2fa", json!({})),
    ] {
        let asked = server.request(method, path, "").bearer_auth(&alice).json(&body).send().await.unwrap();
        let (status, body) = taken(asked).await;
        assert_eq!((status.as_u16(), reason(&body)), (403, "key_scope"), "{method} {path}");
    }
    // Who is nobody, whose token is over, who forged it: refused, and not taken for the anonymous.
    for (what, wrong) in [
        ("nobody", token("acme", "nobody", "admin", 60, SECRET)),
        ("no account", token("nowhere", "alice", "admin", 60, SECRET)),
        ("over", token("acme", "alice", "admin", -5, SECRET)),
        ("forged", token("acme", "alice", "admin", 60, b"some other secret of the same length")),
        ("junk", "a.b.c".to_owned()),
    ] {
        assert_eq!(ask("/api/auth/me", &wrong).await.0, 401, "{what}");
    }
    assert_eq!(server.get("/api/auth/me", "").await.status(), 200, "without anything one is anonymous here");
    assert_eq!(server.get("/api/auth/me", &people.carol).await.status(), 200, "keys go on");
    let by_token = |event: &Value| event["credential"].as_str().unwrap().starts_with("jwt:sso:");
    assert_eq!(server.event("/api/v1/audit", &people.alice, by_token).await["user"], "alice");
    // A turn goes on with the token's rights, while it holds.
    let begun = server.request("POST", "/eve/v1/session", "").bearer_auth(&alice).json(&json!({ "message": "hello" }));
    let (status, begun) = taken(begun.send().await.unwrap()).await;
    assert_eq!(status, 202, "{begun}");
    let stream = format!("/eve/v1/session/{}/stream?follow=false", begun["sessionId"].as_str().unwrap());
    for n in 0.. {
        let text = server.request("GET", &stream, "").bearer_auth(&alice).send().await.unwrap().text().await.unwrap();
        if text.contains("plain answer") && text.contains("session.waiting") {
            break;
        }
        assert!(n < 200, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
