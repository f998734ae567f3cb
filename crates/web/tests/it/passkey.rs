//! Passkeys: made and shown by an authenticator in software, truly and not.

use bailiwick_auth::authn::Step;
use bailiwick_types::PasskeyId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::authenticator::Authenticator;
use crate::support::{PASSWORD, People, Server, Terms, settings, taken};

/// What an answer or a page says of a ceremony that was begun.
pub(super) fn begun(answer: &Value) -> Value {
    let Some(page) = answer.as_str() else { return answer.clone() };
    let after = |mark: &str| page.split_once(mark).unwrap().1.split('"').next().unwrap().to_owned();
    let options = after("data-options=\"").replace("&#34;", "\"").replace("&#39;", "'").replace("&#38;", "&");
    let ceremony = after("name=\"ceremony\" value=\"");
    json!({ "ceremony": ceremony, "options": serde_json::from_str::<Value>(&options).unwrap() })
}

/// What the server calls a passkey.
pub(super) fn id_of(credential: &Value) -> String {
    let id = URL_SAFE_NO_PAD.decode(credential["rawId"].as_str().unwrap()).unwrap();
    let hash = Sha256::digest(id);
    PasskeyId::from_bytes(std::array::from_fn(|n| hash[n])).to_string()
}

async fn start() -> (Server, People) {
    let server = Server::on(vec![Step::ApiKey, Step::Session], settings(), Terms::default()).await;
    let people = server.people().await;
    for (account, user) in [("acme", "carol"), ("acme", "vera"), ("globex", "bob"), ("globex", "dave")] {
        server.password(account, user).await;
    }
    (server, people)
}

/// Adds a passkey for whoever is signed in by that token; gives the whole answer.
async fn add(server: &Server, token: &str, authenticator: &mut Authenticator) -> (u16, Value) {
    add_with(server, token, authenticator, json!({ "password": PASSWORD })).await
}

async fn add_with(server: &Server, token: &str, authenticator: &mut Authenticator, shown: Value) -> (u16, Value) {
    let begun = server.done("POST", "/api/auth/passkeys", token, shown).await;
    let credential = authenticator.create(&begun["options"]);
    let body = json!({ "ceremony": begun["ceremony"], "credential": credential, "name": "phone" });
    let (status, answer) = taken(server.send("POST", "/api/auth/passkeys/finish", token, body).await).await;
    (status.as_u16(), answer)
}

/// The ceremony that follows a right password.
async fn asked(server: &Server, name: &str) -> Value {
    let body = json!({ "username": name, "password": PASSWORD });
    let (status, answer) = taken(server.send("POST", "/api/auth/login", "", body).await).await;
    assert_eq!((status.as_u16(), &answer["code"]), (401, &json!("passkey_required")), "{answer}");
    answer["passkey"].clone()
}

async fn alone(server: &Server) -> Value {
    server.done("POST", "/api/auth/passkeys/login", "", Value::Null).await
}

/// The second half; gives status, code or `ok`, and the answer.
async fn shown(server: &Server, ceremony: &Value, credential: Value) -> (u16, String, Value) {
    let body = json!({ "ceremony": ceremony["ceremony"], "credential": credential, "deviceName": "test" });
    let (status, answer) = taken(server.send("POST", "/api/auth/passkeys/login/finish", "", body).await).await;
    let told = if status.is_success() { "ok" } else { answer["code"].as_str().unwrap() };
    (status.as_u16(), told.to_owned(), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i06_a_passkey_opens_after_the_password_and_alone() {
    let (server, people) = start().await;
    let login = server.login_again("acme", "carol").await;
    let mut carols = Authenticator::new();
    let (status, made) = add(&server, &login.token, &mut carols).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["recoveryCodes"].as_array().unwrap().len(), 10);
    let listed = server.done("GET", "/api/auth/passkeys", &login.token, Value::Null).await;
    assert_eq!((&listed["passkeys"][0]["id"], &listed["passkeys"][0]["name"]), (&made["id"], &json!("phone")));
    assert_eq!(listed["passkeys"][0]["lastUsedAt"], Value::Null);
    let state = server.done("GET", "/api/auth/2fa", &login.token, Value::Null).await;
    assert_eq!(state, json!({ "totp": false, "recoveryCodes": 10, "passkeys": 1 }));
    // From now on the password is not enough; with the passkey it is.
    let ceremony = asked(&server, "carol@acme").await;
    assert_eq!(ceremony["options"]["userVerification"], "required");
    let speaks = carols.get(&ceremony["options"]);
    let (_, told, after) = shown(&server, &ceremony, speaks.clone()).await;
    assert_eq!(told, "ok", "{after}");
    let ceremony = alone(&server).await;
    assert_eq!(ceremony["options"]["allowCredentials"], json!([]), "whose it is, it says itself");
    let answer = carols.get(&ceremony["options"]);
    let (_, told, made_alone) = shown(&server, &ceremony, answer.clone()).await;
    assert_eq!((told.as_str(), &made_alone["username"]), ("ok", &json!("carol")));
    for (made, by) in [(&after, "password+passkey"), (&made_alone, "passkey")] {
        let token = made["token"].as_str().unwrap();
        let me = server.done("GET", "/api/auth/me", token, Value::Null).await;
        assert_eq!((&me["username"], &me["account"]), (&json!("carol"), &json!("acme")));
        let devices = server.done("GET", "/api/v1/devices", token, Value::Null).await;
        let this = devices.as_array().unwrap().iter().find(|device| device["current"] == true).unwrap();
        assert_eq!(this["signed_in_by"], by);
        let of = |event: &Value| event["action"] == "auth.login" && event["detail"]["device"] == made["deviceId"];
        let line = server.event("/api/v1/audit", &people.alice, of).await;
        assert_eq!((&line["user"], &line["result"]), (&json!("carol"), &json!("OK")), "{line}");
    }
    let listed = server.done("GET", "/api/auth/passkeys", &login.token, Value::Null).await;
    assert!(listed["passkeys"][0]["lastUsedAt"].is_string());
    // A ceremony is good once, and what was signed is good for its ceremony.
    assert_eq!(shown(&server, &ceremony, answer.clone()).await.1, "ceremony_gone");
    let another = alone(&server).await;
    assert_eq!(shown(&server, &another, answer).await.1, "invalid_passkey");
    let another = asked(&server, "carol@acme").await;
    assert_eq!(shown(&server, &another, speaks).await.1, "invalid_passkey");
    // A recovery code stands in for it, once.
    let code = made["recoveryCodes"][0].as_str().unwrap();
    for status in [200, 401] {
        let body = json!({ "username": "carol@acme", "password": PASSWORD, "totpCode": code });
        assert_eq!(server.send("POST", "/api/auth/login", "", body).await.status(), status);
    }
    // Nobody else is asked for one.
    let body = json!({ "username": "vera@acme", "password": PASSWORD });
    assert_eq!(server.send("POST", "/api/auth/login", "", body).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i06_no_ceremony_and_no_passkey_is_of_use_to_another_tenant() {
    let (server, people) = start().await;
    let (carol, bob) = (server.login_again("acme", "carol").await, server.login_again("globex", "bob").await);
    let (mut carols, mut bobs) = (Authenticator::new(), Authenticator::new());
    // What carol began, bob does not finish; nor vera, of carol's own account.
    let begun = server.done("POST", "/api/auth/passkeys", &carol.token, json!({ "password": PASSWORD })).await;
    let credential = bobs.create(&begun["options"]);
    let body = json!({ "ceremony": begun["ceremony"], "credential": credential });
    let vera = server.login_again("acme", "vera").await;
    for token in [&bob.token, &vera.token] {
        let begun = server.done("POST", "/api/auth/passkeys", &carol.token, json!({ "password": PASSWORD })).await;
        let body = json!({ "ceremony": begun["ceremony"], "credential": bobs.create(&begun["options"]) });
        let (status, told) = taken(server.send("POST", "/api/auth/passkeys/finish", token, body).await).await;
        assert_eq!((status.as_u16(), &told["code"]), (400, &json!("ceremony_gone")), "{told}");
    }
    drop(body);
    assert_eq!(add(&server, &carol.token, &mut carols).await.0, 200);
    let (status, bobs_made) = add(&server, &bob.token, &mut bobs).await;
    assert_eq!(status, 200, "{bobs_made}");
    // The same authenticator for a second user: known already, and nothing is said of whom.
    let (status, told) = add(&server, &vera.token, &mut bobs).await;
    assert_eq!((status, &told["code"]), (409, &json!("passkey_known")), "{told}");
    assert!(!told.to_string().contains("globex") && !told.to_string().contains("bob"), "{told}");
    // After carol's password bob's passkey is worth nothing. It stays worth something after bob's.
    let ceremony = asked(&server, "carol@acme").await;
    assert_eq!(shown(&server, &ceremony, bobs.get(&ceremony["options"])).await.1, "invalid_passkey");
    let ceremony = asked(&server, "bob@globex").await;
    let (_, told, made) = shown(&server, &ceremony, bobs.get(&ceremony["options"])).await;
    assert_eq!((told.as_str(), &made["username"]), ("ok", &json!("bob")));
    // Nobody lists or removes what is another's.
    let path = format!("/api/auth/passkeys/{}/remove", bobs_made["id"].as_str().unwrap());
    let codes = add_codes(&server, &vera.token).await;
    let body = json!({ "password": PASSWORD, "code": codes[0] });
    assert_eq!(server.send("POST", &path, &vera.token, body).await.status(), 404);
    let code = bobs_made["recoveryCodes"][0].as_str().unwrap();
    let body = json!({ "password": PASSWORD, "code": code });
    assert_eq!(server.send("POST", &path, &bob.token, body).await.status(), 204);
    let ceremony = alone(&server).await;
    assert_eq!(shown(&server, &ceremony, bobs.get(&ceremony["options"])).await.1, "invalid_passkey");
    // An admin helps who lost theirs; the passkey is free for another user then.
    let path = "/api/v1/admin/accounts/acme/users/carol/2fa";
    assert_eq!(server.request("DELETE", path, &people.bob).send().await.unwrap().status(), 404);
    server.done("DELETE", path, &people.alice, Value::Null).await;
    let ceremony = alone(&server).await;
    assert_eq!(shown(&server, &ceremony, carols.get(&ceremony["options"])).await.1, "invalid_passkey");
    let dave = server.login_again("globex", "dave").await;
    assert_eq!(add(&server, &dave.token, &mut carols).await.0, 200);
    let ceremony = alone(&server).await;
    assert_eq!(shown(&server, &ceremony, carols.get(&ceremony["options"])).await.2["username"], "dave");
    // With the user goes the passkey.
    server.done("DELETE", "/api/v1/admin/accounts/globex/users/dave", &people.bob, Value::Null).await;
    let ceremony = alone(&server).await;
    assert_eq!(shown(&server, &ceremony, carols.get(&ceremony["options"])).await.1, "invalid_passkey");
}

/// Recovery codes, with a passkey of one's own.
async fn add_codes(server: &Server, token: &str) -> Vec<String> {
    let (_, made) = add(server, token, &mut Authenticator::new()).await;
    made["recoveryCodes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i06_what_an_authenticator_says_untruly_opens_nothing() {
    let (server, people) = start().await;
    let login = server.login_again("acme", "carol").await;
    // Nothing false is kept: not without a finger, nor for another name or page.
    let lies: [fn(&mut Authenticator); 4] = [
        Authenticator::unverified,
        |it| it.origin = "http://localhost.example",
        |it| it.origin = "https://localhost",
        |it| it.name = "example.org",
    ];
    for (n, lie) in lies.iter().enumerate() {
        let mut one = Authenticator::new();
        lie(&mut one);
        let (status, told) = add(&server, &login.token, &mut one).await;
        assert_eq!((status, &told["code"]), (400, &json!("invalid_passkey")), "{n}: {told}");
    }
    // Nor with a wrong password, nor for what no authenticator sent.
    let wrong = server.send("POST", "/api/auth/passkeys", &login.token, json!({ "password": "wrong" })).await;
    assert_eq!(wrong.status(), 401);
    for credential in
        [json!({}), json!("x"), json!({ "id": "AA", "rawId": "AA", "type": "public-key", "response": {} })]
    {
        let begun = server.done("POST", "/api/auth/passkeys", &login.token, json!({ "password": PASSWORD })).await;
        let body = json!({ "ceremony": begun["ceremony"], "credential": credential });
        let answer = server.send("POST", "/api/auth/passkeys/finish", &login.token, body).await;
        assert_eq!(answer.status(), 400, "{credential}");
    }
    let listed = server.done("GET", "/api/auth/passkeys", &login.token, Value::Null).await;
    assert_eq!(listed, json!({ "passkeys": [] }));
    // Nor is anybody let in by it.
    let mut carols = Authenticator::new();
    assert_eq!(add(&server, &login.token, &mut carols).await.0, 200);
    for lie in lies {
        let (name, origin, flags) = (carols.name, carols.origin, carols.flags);
        lie(&mut carols);
        let ceremony = alone(&server).await;
        assert_eq!(shown(&server, &ceremony, carols.get(&ceremony["options"])).await.1, "invalid_passkey");
        (carols.name, carols.origin, carols.flags) = (name, origin, flags);
    }
    // A copy of it, whose counter is behind.
    carols.counter = 0;
    let ceremony = alone(&server).await;
    assert_eq!(shown(&server, &ceremony, carols.get(&ceremony["options"])).await.1, "invalid_passkey");
    carols.counter = 100;
    // Another key under its name.
    let mut forged = Authenticator::new();
    let ceremony = alone(&server).await;
    let mut speaks = forged.get(&ceremony["options"]);
    let truly = carols.get(&ceremony["options"]);
    (speaks["id"], speaks["rawId"]) = (truly["id"].clone(), truly["rawId"].clone());
    speaks["response"]["userHandle"] = truly["response"]["userHandle"].clone();
    assert_eq!(shown(&server, &ceremony, speaks).await.1, "invalid_passkey");
    // What it says in one breath is taken once, by whoever comes first.
    let (one, two) = (alone(&server).await, alone(&server).await);
    carols.counter = 200;
    let says_one = carols.get(&one["options"]);
    carols.counter = 200;
    let says_two = carols.get(&two["options"]);
    let both = tokio::join!(shown(&server, &one, says_one), shown(&server, &two, says_two));
    let mut told = [both.0.1, both.1.1];
    told.sort();
    assert_eq!(told, ["invalid_passkey", "ok"], "the positive control is the one of them");
    let refused = |event: &Value| event["action"] == "auth.login" && event["detail"]["code"] == "invalid_passkey";
    assert_eq!(server.event("/api/v1/admin/audit", crate::support::ROOT, refused).await["result"], "DENIED");
    drop(people);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i06_i03_i04_wrong_passkeys_count_and_being_asked_does_not() {
    let (server, _) = start().await;
    let login = server.login_again("acme", "carol").await;
    let mut carols = Authenticator::new();
    assert_eq!(add(&server, &login.token, &mut carols).await.0, 200);
    for _ in 0..15 {
        asked(&server, "carol@acme").await;
    }
    for n in 0..10 {
        let ceremony = asked(&server, "carol@acme").await;
        let wrong = Authenticator::new().get(&ceremony["options"]);
        assert_eq!(shown(&server, &ceremony, wrong).await.1, "invalid_passkey", "{n}");
    }
    // The user is locked, for the passkey alone as well.
    let held = alone(&server).await;
    let speaks = carols.get(&held["options"]);
    assert_eq!(shown(&server, &held, speaks).await.1, "locked");
    // bob, of another account, is not.
    let bob = server.login_again("globex", "bob").await;
    let mut bobs = Authenticator::new();
    assert_eq!(add(&server, &bob.token, &mut bobs).await.0, 200);
    let ceremony = alone(&server).await;
    assert_eq!(shown(&server, &ceremony, bobs.get(&ceremony["options"])).await.1, "ok");
    // Whoever guesses with passkeys of nobody locks their address.
    let mut last = String::new();
    for _ in 0..40 {
        let ceremony = alone(&server).await;
        last = shown(&server, &ceremony, Authenticator::new().get(&ceremony["options"])).await.1;
        if last == "ip_locked" {
            break;
        }
    }
    assert_eq!(last, "ip_locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i06_a_second_passkey_takes_more_than_the_password_and_an_old_beginning_is_void() {
    let (server, people) = start().await;
    let login = server.login_again("acme", "carol").await;
    let begin = async |shown: Value| taken(server.send("POST", "/api/auth/passkeys", &login.token, shown).await).await;
    let (_, made) = add(&server, &login.token, &mut Authenticator::new()).await;
    let code = |n: usize| made["recoveryCodes"][n].as_str().unwrap().to_owned();
    // Whoever stole the login and the password makes none of their own.
    let (status, told) = begin(json!({ "password": PASSWORD })).await;
    assert_eq!((status.as_u16(), &told["code"]), (400, &json!("code_required")), "{told}");
    assert_eq!(begin(json!({ "password": PASSWORD, "code": "aaaa-bbbb-cccc" })).await.0, 409);
    let mut second = Authenticator::new();
    let with_code = json!({ "password": PASSWORD, "code": code(0) });
    let (status, answer) = add_with(&server, &login.token, &mut second, with_code.clone()).await;
    assert_eq!((status, &answer["recoveryCodes"]), (200, &Value::Null), "{answer}");
    assert_eq!(begin(with_code).await.0, 409, "the code is used");
    let ceremony = alone(&server).await;
    assert_eq!(shown(&server, &ceremony, second.get(&ceremony["options"])).await.1, "ok");
    // Begun, and then the admin gives another password, or takes the second factors away.
    for (method, path, n) in [
        ("PUT", "/api/v1/admin/accounts/acme/users/vera/password", 1),
        ("DELETE", "/api/v1/admin/accounts/acme/users/vera/2fa", 2),
    ] {
        // A key outlives both.
        let begun = server.done("POST", "/api/auth/passkeys", &people.vera, json!({ "password": PASSWORD })).await;
        let body = json!({ "password": PASSWORD });
        server
            .done(method, path, &people.alice, if n == 1 { json!({ "password": "battery staple" }) } else { body })
            .await;
        let credential = Authenticator::new().create(&begun["options"]);
        let finish = json!({ "ceremony": begun["ceremony"], "credential": credential });
        let (status, told) = taken(server.send("POST", "/api/auth/passkeys/finish", &people.vera, finish).await).await;
        assert!(status.is_client_error(), "{path}: {told}");
        server.password("acme", "vera").await;
    }
    // The control: nothing is changed between the two halves.
    let begun = server.done("POST", "/api/auth/passkeys", &people.vera, json!({ "password": PASSWORD })).await;
    let credential = Authenticator::new().create(&begun["options"]);
    let finish = json!({ "ceremony": begun["ceremony"], "credential": credential });
    server.done("POST", "/api/auth/passkeys/finish", &people.vera, finish).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i06_nobody_has_the_server_keep_long_passkeys_or_many_ceremonies() {
    let (server, _) = start().await;
    let login = server.login_again("acme", "carol").await;
    let begun = server.done("POST", "/api/auth/passkeys", &login.token, json!({ "password": PASSWORD })).await;
    let mut long = Authenticator::new().create(&begun["options"]);
    long["response"]["transports"] = json!(vec!["x"; 20_000]);
    let body = json!({ "ceremony": begun["ceremony"], "credential": long });
    let (status, told) = taken(server.send("POST", "/api/auth/passkeys/finish", &login.token, body).await).await;
    assert_eq!((status.as_u16(), &told["code"]), (400, &json!("invalid_passkey")), "{told}");
    // Of one who begins twice the first beginning is gone; another's is not.
    let mut carols = Authenticator::new();
    assert_eq!(add(&server, &login.token, &mut carols).await.0, 200);
    let bob = server.login_again("globex", "bob").await;
    let mut bobs = Authenticator::new();
    assert_eq!(add(&server, &bob.token, &mut bobs).await.0, 200);
    let of_bob = asked(&server, "bob@globex").await;
    let first = asked(&server, "carol@acme").await;
    let second = asked(&server, "carol@acme").await;
    assert_eq!(shown(&server, &first, carols.get(&first["options"])).await.1, "ceremony_gone");
    assert_eq!(shown(&server, &second, carols.get(&second["options"])).await.1, "ok");
    assert_eq!(shown(&server, &of_bob, bobs.get(&of_bob["options"])).await.1, "ok");
}
