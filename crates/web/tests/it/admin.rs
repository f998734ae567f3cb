//! Accounts, users and keys, as OpenViking's clients ask for them.

use serde_json::{Value, json};

use crate::support::{ROOT, Server, code, reason, taken, without_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v10_seed_003_curl_commands_work_as_printed() {
    let server = Server::start().await;
    // `curl -X POST … -H "Content-Type: application/json" -H "X-API-Key: …" -d '…'`, byte for byte.
    let post = async |path: &str, key: &str, body: &'static str| {
        let request = server.request("POST", path, key).header("content-type", "application/json").body(body);
        taken(request.send().await.unwrap()).await
    };
    let (status, made) = post(
        "/api/v1/admin/accounts",
        "your-secret-root-key",
        "{\n    \"account_id\": \"acme\",\n    \"admin_user_id\": \"alice\"\n  }",
    )
    .await;
    assert_eq!((status.as_u16(), made["status"].as_str()), (200, Some("ok")));
    assert_eq!(made["result"]["account_id"], "acme");
    let alice = made["result"]["user_key"].as_str().unwrap().to_owned();
    for (key, user) in [(alice.as_str(), "bob"), (ROOT, "carol")] {
        let path = "/api/v1/admin/accounts/acme/users";
        let body = json!({ "user_id": user, "role": "user" });
        let made = server.done("POST", path, key, body).await;
        assert_eq!((made["account_id"].as_str(), made["user_id"].as_str()), (Some("acme"), Some(user)));
        assert!(made["user_key"].as_str().unwrap().starts_with("bwk_"));
    }
    let (status, again) = post("/api/v1/admin/accounts", ROOT, r#"{"account_id":"acme","admin_user_id":"x"}"#).await;
    assert_eq!((status.as_u16(), code(&again)), (409, "ALREADY_EXISTS"));
    assert_eq!(again["error"]["message"], "Account already exists: acme");
    assert_eq!(again["error"]["details"]["type"], "account");
    let (status, bad) = post("/api/v1/admin/accounts", ROOT, r#"{"account_id":"_x","admin_user_id":"x"}"#).await;
    assert_eq!((status.as_u16(), code(&bad)), (400, "INVALID_ARGUMENT"));
    assert!(bad["error"]["message"].as_str().unwrap().contains("cannot start with underscore"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_the_operators_and_foreign_ones_are_not_there() {
    let server = Server::start().await;
    let people = server.people().await;
    let all = server.done("GET", "/api/v1/admin/accounts?name=acm", ROOT, Value::Null).await;
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!((all[0]["account_id"].as_str(), all[0]["user_count"].as_u64()), (Some("acme"), Some(3)));
    let page = server.get("/api/v1/admin/accounts?limit=2&page=1", ROOT).await;
    let (_, page) = taken(page).await;
    assert_eq!((page["result"].as_array().unwrap().len(), page["has_more"].as_bool()), (2, Some(true)));

    let (status, body) = server.refused("GET", "/api/v1/admin/accounts", &people.alice, Value::Null).await;
    assert_eq!((status, code(&body), reason(&body)), (403, "PERMISSION_DENIED", "operator_only"));
    assert_eq!(body["error"]["message"], "Requires role: root");
    let body = json!({ "account_id": "evil", "admin_user_id": "x" });
    assert_eq!(server.refused("POST", "/api/v1/admin/accounts", &people.alice, body).await.0, 403);

    // Another account and none at all: the same words, but for the name that the caller gave.
    let foreign = server.refused("GET", "/api/v1/admin/accounts/globex", &people.alice, Value::Null).await;
    let absent = server.refused("GET", "/api/v1/admin/accounts/nobody", &people.alice, Value::Null).await;
    assert_eq!((foreign.0, absent.0), (404, 404));
    assert_eq!(without_id(foreign.1).replace("globex", "nobody"), without_id(absent.1));
    let own = server.done("GET", "/api/v1/admin/accounts/acme", &people.vera, Value::Null).await;
    assert_eq!(own["user_count"], 3);

    let gone = server.request("DELETE", "/api/v1/admin/accounts/globex", ROOT).send().await.unwrap();
    assert_eq!(gone.status(), 202);
    assert_eq!(server.get("/api/v1/spaces", &people.bob).await.status(), 401, "its keys died");
    assert_eq!(server.get("/api/v1/spaces", &people.alice).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_roles_and_last_admins() {
    let server = Server::start().await;
    let people = server.people().await;
    let users = "/api/v1/admin/accounts/acme/users";
    let listed = server.done("GET", users, &people.alice, Value::Null).await;
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|u| u["user_id"].as_str().unwrap()).collect();
    assert_eq!(names, ["alice", "carol", "vera"]);
    assert!(!listed.to_string().contains("bwk_"), "no listing returns a key");

    let (status, body) = server.refused("POST", users, &people.carol, json!({ "user_id": "x" })).await;
    assert_eq!((status, reason(&body)), (403, "admin_only"), "r03");
    let (status, body) = server.refused("POST", users, &people.vera, json!({ "user_id": "x" })).await;
    assert_eq!((status, reason(&body)), (403, "viewer_readonly"), "r02");
    let (status, body) = server.refused("PUT", &format!("{users}/alice/role"), ROOT, json!({ "role": "user" })).await;
    assert_eq!((status, reason(&body)), (409, "last_admin"), "r04");
    let (status, body) = server.refused("DELETE", &format!("{users}/alice"), &people.alice, Value::Null).await;
    assert_eq!((status, reason(&body)), (409, "self_deletion"));
    assert_eq!(server.refused("PUT", &format!("{users}/carol/role"), ROOT, json!({ "role": "root" })).await.0, 400);

    // r05: a role change holds at the next request of a key that was there before.
    assert_eq!(server.get(users, &people.carol).await.status(), 403);
    server.done("PUT", &format!("{users}/carol/role"), &people.alice, json!({ "role": "admin" })).await;
    assert_eq!(server.get(users, &people.carol).await.status(), 200);
    let gone = server.request("DELETE", &format!("{users}/carol"), &people.alice).send().await.unwrap();
    assert_eq!(gone.status(), 202);
    assert_eq!(server.get(users, &people.carol).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i15_keys_are_several_bounded_shown_once_and_mortal() {
    let server = Server::start().await;
    let people = server.people().await;
    let keys = "/api/v1/admin/accounts/acme/users/carol/keys";
    let reading = server.done("POST", keys, &people.carol, json!({ "name": "reader", "scopes": ["read"] })).await;
    let key = reading["key"].as_str().unwrap();
    assert_eq!(server.get("/api/v1/spaces", key).await.status(), 200);
    let (status, body) = server.refused("POST", "/api/v1/spaces", key, json!({ "name": "x" })).await;
    assert_eq!((status, reason(&body)), (403, "key_scope"));

    let listed = server.done("GET", keys, &people.carol, Value::Null).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(key));
    assert_eq!(server.get(keys, &people.vera).await.status(), 403, "keys of others");
    let nobodys = keys.replace("carol", "nobody");
    assert_eq!(server.get(&nobodys, &people.alice).await.status(), 404, "nobody has no keys, not an empty list");
    assert_eq!(server.get(&nobodys, &people.vera).await.status(), 403, "and a viewer is not told who there is");
    let (status, _) = server.refused("POST", keys, &people.carol, json!({ "name": "x", "extra": 1 })).await;
    assert_eq!(status, 400);
    let past = json!({ "name": "x", "expires_at": "2020-01-01T00:00:00Z" });
    assert_eq!(server.refused("POST", keys, &people.carol, past).await.0, 400);
    let seeded = server
        .refused("POST", "/api/v1/admin/accounts/acme/users/carol/key", &people.carol, json!({ "seed": "s" }))
        .await;
    assert_eq!((seeded.0, reason(&seeded.1)), (400, "seed_not_supported"));

    let id = reading["id"].as_str().unwrap();
    server.done("DELETE", &format!("{keys}/{id}"), &people.carol, Value::Null).await;
    assert_eq!(server.get("/api/v1/spaces", key).await.status(), 401);
    let fresh = server.done("POST", "/api/v1/admin/accounts/acme/users/carol/key", &people.carol, json!({})).await;
    assert_eq!(server.get("/api/v1/spaces", &people.carol).await.status(), 401, "the old one died");
    assert_eq!(server.get("/api/v1/spaces", fresh["user_key"].as_str().unwrap()).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_and_policies_are_set_by_admins_and_checked() {
    let server = Server::start().await;
    let people = server.people().await;
    let mut agent = server.done("GET", "/api/v1/agents/default", &people.vera, Value::Null).await;
    assert_eq!((agent["id"].as_str(), agent["version"].as_u64()), (Some("default"), Some(1)));
    agent["instructions"] = json!("Be brief.");
    let put = server.done("PUT", "/api/v1/agents/default", &people.alice, agent.clone()).await;
    assert_eq!(put["version"], 2, "what was read can be changed and sent");
    assert_eq!(server.refused("PUT", "/api/v1/agents/default", &people.carol, agent.clone()).await.0, 403);
    for bad in [
        json!({ "require_aproval": [] }),
        json!({ "tools": ["nothing"] }),
        json!({ "require_approval": ["write_file"] }),
        json!({ "model": "unknown" }),
        json!([]),
    ] {
        assert_eq!(server.refused("PUT", "/api/v1/agents/x", &people.alice, bad.clone()).await.0, 400, "{bad}");
    }
    assert_eq!(server.get("/api/v1/agents/default", &people.bob).await.status(), 200, "its own default");
    server.done("DELETE", "/api/v1/agents/careful", &people.alice, Value::Null).await;
    assert_eq!(server.get("/api/v1/agents/careful", &people.alice).await.status(), 404);
    assert_eq!(server.get("/api/v1/agents/careful", &people.bob).await.status(), 200);

    let policy = "@id(\"no-spaces\") forbid (principal, action == Action::\"space.create\", resource);";
    server.done("PUT", "/api/v1/policies", &people.alice, json!({ "text": policy })).await;
    let (status, body) = server.refused("POST", "/api/v1/spaces", &people.alice, json!({ "name": "x" })).await;
    assert_eq!((status, reason(&body)), (403, "account_policy"));
    server.space(&people.bob, "another account's").await;
    let permit = json!({ "text": "permit (principal, action, resource);" });
    assert_eq!(server.refused("PUT", "/api/v1/policies", &people.alice, permit).await.0, 400);
    let plain = server.request("PUT", "/api/v1/policies", &people.alice).header("content-type", "text/plain").body("");
    assert_eq!(plain.send().await.unwrap().status(), 200);
    server.space(&people.alice, "again").await;
}
