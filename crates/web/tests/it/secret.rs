//! Secrets over HTTP: for whose use they are granted, what a new value says of itself, and the keys under which they
//! lie.

use serde_json::{Value, json};

use crate::support::{ROOT, Server, code, form, reason, taken};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn z04_a_grant_is_for_one_use_and_keys_are_shown_by_their_ids_alone() {
    let server = Server::start().await;
    let people = server.people().await;
    let (alice, bob) = (people.alice.as_str(), people.bob.as_str());
    let value = |text: &str| json!({ "value": text });

    // One that has to be there, and is not; then it is.
    let mut rotated = value("a-value-of-some-length");
    rotated["expect"] = json!("existing");
    let (status, _) = server.refused("PUT", "/api/v1/secrets/token", alice, rotated.clone()).await;
    assert_eq!(status, 404);
    let set = server.done("PUT", "/api/v1/secrets/token", alice, value("a-value-of-some-length")).await;
    assert_eq!((&set["version"], &set["fits_in"]), (&json!(1), &json!("any_header")));
    let set = server.done("PUT", "/api/v1/secrets/token", alice, rotated).await;
    assert_eq!(set["version"], 2);
    let set = server.done("PUT", "/api/v1/secrets/pem", alice, value("first line\nsecond line")).await;
    assert_eq!(set["fits_in"], "basic_alone");

    // For sandboxes, for calls of models, for both; each is given and taken alone.
    let grant = "/api/v1/secrets/token/grants/default/api.example";
    let grants = async |key: &str| -> Vec<String> {
        let listed = server.done("GET", "/api/v1/secrets", key, Value::Null).await;
        let rows = listed.as_array().unwrap().iter().flat_map(|row| row["grants"].as_array().unwrap().clone());
        rows.map(|grant| grant["used_by"].as_str().unwrap().to_owned()).collect()
    };
    server.done("PUT", &format!("{grant}?used_by=model"), alice, Value::Null).await;
    assert_eq!(grants(alice).await, ["model"]);
    server.done("PUT", grant, alice, Value::Null).await;
    assert_eq!(grants(alice).await, ["model", "sandbox"]);
    server.done("DELETE", &format!("{grant}?used_by=model"), alice, Value::Null).await;
    assert_eq!(grants(alice).await, ["sandbox"]);
    let (status, _) = server.refused("PUT", &format!("{grant}?used_by=anybody"), alice, Value::Null).await;
    assert_eq!(status, 400);
    assert_eq!(grants(bob).await, Vec::<String>::new());
    // The page says the same, and can do the same.
    let fields = form(&json!({ "agent": "default", "hosts": "api.example", "used_by": "model" }));
    let page = server.request("POST", "/secrets/token/grant", alice);
    let sent = page.header("content-type", "application/x-www-form-urlencoded").body(fields).send().await.unwrap();
    assert_eq!(sent.status(), 303);
    assert_eq!(grants(alice).await, ["model", "sandbox"]);
    let shown = server.get("/secrets", alice).await.text().await.unwrap();
    assert!(shown.contains("<td data-is=\"used by\">model</td>"), "{shown}");
    // An account's own policy can speak of the use.
    let text = "@id(\"no-models\") forbid (principal, action == Action::\"secret.release\", resource) when { \
                resource.used_by == \"model\" };";
    server.done("PUT", "/api/v1/policies", alice, json!({ "text": text })).await;

    // The host's key: the operator sees its id and figures, and nobody else anything.
    server.done("PUT", "/api/v1/secrets/token", bob, value("a-value-of-some-length")).await;
    let status = server.done("GET", "/api/v1/admin/vault", ROOT, Value::Null).await;
    let keys = status["keys"].as_array().unwrap();
    assert_eq!((keys.len(), &keys[0]["state"], &keys[0]["accounts"]), (1, &json!("present"), &json!(2)), "{status}");
    let done = server.done("POST", "/api/v1/admin/vault/rewrap", ROOT, Value::Null).await;
    assert_eq!((&done["rewrapped"], &done["already"], &done["failed"]), (&json!(0), &json!(2), &json!(0)));
    for (method, path) in [("GET", "/api/v1/admin/vault"), ("POST", "/api/v1/admin/vault/rewrap")] {
        let (status, body) = taken(server.send(method, path, alice, Value::Null).await).await;
        assert_eq!((status.as_u16(), reason(&body)), (403, "operator_only"));
    }

    // An account's data key: by its admin and the operator, and not by others.
    let own = "/api/v1/admin/accounts/acme/data-key";
    assert_eq!(server.done("POST", own, alice, Value::Null).await["secrets"], 2);
    assert_eq!(server.done("POST", own, ROOT, Value::Null).await["secrets"], 2);
    let (status, body) = taken(server.send("POST", own, &people.carol, Value::Null).await).await;
    assert_eq!((status.as_u16(), reason(&body)), (403, "admin_only"));
    assert_eq!(server.send("POST", own, bob, Value::Null).await.status(), 404);
    // Sealed under it, a value is set again as before.
    assert_eq!(server.done("PUT", "/api/v1/secrets/token", alice, value("another-value-of-it")).await["version"], 3);
    server.done("POST", "/api/v1/admin/accounts", ROOT, json!({ "account_id": "empty", "admin_user_id": "eve" })).await;
    let (status, body) =
        taken(server.send("POST", "/api/v1/admin/accounts/empty/data-key", ROOT, Value::Null).await).await;
    assert_eq!((status.as_u16(), reason(&body)), (409, "no_data_key"), "{} {body}", code(&body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g04_a_refresh_grant_goes_in_and_is_shown_by_nothing_and_grants_say_for_how_long() {
    let server = Server::start().await;
    let people = server.people().await;
    let (alice, bob) = (people.alice.as_str(), people.bob.as_str());
    let grant = json!({ "token_url": "https://sso.example/token", "client_id": "the-client",
        "client_secret": "client-secret-0123", "refresh_token": "refresh-token-0123" });
    let path = "/api/v1/secrets/mail";
    let set = server.done("PUT", path, alice, json!({ "oauth": grant, "note": "mail" })).await;
    assert_eq!((&set["kind"], &set["version"], &set["fits_in"]), (&json!("oauth"), &json!(1), &json!("any_header")));
    let listed = server.done("GET", "/api/v1/secrets", alice, Value::Null).await;
    assert_eq!((&listed[0]["kind"], &listed[0]["set_again"]), (&json!("oauth"), &Value::Null));
    let shown = server.get("/secrets", alice).await.text().await.unwrap();
    assert!(shown.contains("OAuth grant"), "{shown}");
    assert!(!format!("{listed}{shown}").contains("0123"), "{listed}");
    assert_eq!(server.done("GET", "/api/v1/secrets", bob, Value::Null).await, json!([]));
    let mut plain = grant.clone();
    plain["token_url"] = json!("http://sso.example/token");
    let mut odd = grant.clone();
    odd["access_token"] = json!("x");
    for wrong in [
        json!({}),
        json!({ "value": "a-value-of-some-length", "oauth": grant }),
        json!({ "oauth": "refresh-token-0123" }),
        json!({ "oauth": plain }),
        json!({ "oauth": odd }),
    ] {
        let (status, body) = server.refused("PUT", path, alice, wrong).await;
        assert_eq!(status, 400);
        assert!(!body.to_string().contains("0123"), "{body}");
    }
    // By the page as well: the same, or a value in its place.
    let fields = form(&json!({ "name": "mail", "kind": "oauth", "value": grant.to_string() }));
    let page = server.request("POST", "/secrets", alice);
    let sent = page.header("content-type", "application/x-www-form-urlencoded").body(fields).send().await.unwrap();
    assert_eq!(sent.status(), 303);
    server.done("PUT", path, alice, json!({ "value": "a-value-of-some-length" })).await;
    let listed = server.done("GET", "/api/v1/secrets", alice, Value::Null).await;
    assert_eq!((&listed[0]["kind"], &listed[0]["version"]), (&json!("value"), &json!(3)));

    let to = "/api/v1/secrets/mail/grants/default/api.example";
    let lease = async || {
        let listed = server.done("GET", "/api/v1/secrets", alice, Value::Null).await;
        listed[0]["grants"][0]["lease"].as_str().unwrap().to_owned()
    };
    server.done("PUT", to, alice, Value::Null).await;
    assert_eq!(lease().await, "minute");
    assert_eq!(server.done("PUT", &format!("{to}?lease=call"), alice, Value::Null).await["lease"], "call");
    assert_eq!(lease().await, "call");
    let fields = form(&json!({ "agent": "default", "hosts": "api.example", "lease": "approved_call" }));
    let page = server.request("POST", "/secrets/mail/grant", alice);
    let sent = page.header("content-type", "application/x-www-form-urlencoded").body(fields).send().await.unwrap();
    assert_eq!(sent.status(), 303);
    assert_eq!(lease().await, "approved_call");
    assert!(server.get("/secrets", alice).await.text().await.unwrap().contains(">an approved call</td>"));
    for wrong in ["lease=forever", "lease=call&used_by=model"] {
        let (status, _) = server.refused("PUT", &format!("{to}?{wrong}"), alice, Value::Null).await;
        assert_eq!(status, 400, "{wrong}");
    }
}
