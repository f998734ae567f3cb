//! The authorization server as a client meets it, and as a hostile one does.

use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_web::{OAuth, Registration, Settings};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::console::{Browser, place, server_with};
use crate::support::{
    Application, CALLBACK, PASSWORD, ROOT, Server, Terms, VERIFIER, answered, consent, form, page_reason, redeeming,
    renewing, settings, taken,
};

/// A client that registered itself.
async fn registered(server: &Server, uris: &[&str]) -> String {
    let metadata = json!({ "client_name": "Probe", "redirect_uris": uris, "token_endpoint_auth_method": "none" });
    let (status, made) = taken(server.send("POST", "/oauth/register", "", metadata).await).await;
    assert_eq!(status, 201, "{made}");
    assert!(made.get("client_secret").is_none(), "{made}");
    made["client_id"].as_str().unwrap().to_owned()
}

pub fn authorize(fields: &Value) -> String {
    format!("/oauth/authorize?{}", form(fields))
}

pub fn with(mut fields: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    fields
}

/// Lets the client in on its page. Gives the code.
pub async fn allow(browser: &mut Browser<'_>, asked: &Value, chosen: Value) -> String {
    let csrf = browser.token(&authorize(asked)).await;
    let sent = with(with(asked.clone(), json!({ "_csrf": csrf, "decision": "allow" })), chosen);
    let response = browser.post("/oauth/authorize", sent).await;
    assert_eq!(response.status(), 303);
    assert!(place(&response).starts_with(asked["redirect_uri"].as_str().unwrap()), "{}", place(&response));
    answered(&response)["code"].clone()
}

pub async fn status(server: &Server, path: &str, token: &str) -> u16 {
    let request = server.client.get(server.url(path)).header("authorization", format!("Bearer {token}"));
    request.send().await.unwrap().status().as_u16()
}

pub const SPACES: &str = "/api/v1/spaces";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_registers_is_let_in_by_its_user_acts_for_them_and_is_ended() {
    let server = server_with(settings(), Terms::default()).await;
    let issuer = server.url("");
    let (_, about) = taken(server.get("/.well-known/oauth-authorization-server", "").await).await;
    assert_eq!(about["issuer"], issuer.as_str());
    assert_eq!(about["code_challenge_methods_supported"], json!(["S256"]));
    let (_, resource) = taken(server.get("/.well-known/oauth-protected-resource", "").await).await;
    assert_eq!(resource["authorization_servers"], json!([issuer]));
    // Whoever is not signed in signs in first, and comes back to the page.
    let client = registered(&server, &[CALLBACK]).await;
    let asked = with(consent(&client), json!({ "resource": issuer }));
    let mut browser = Browser::new(&server);
    let led = browser.get(&authorize(&asked)).await;
    let next = place(&led).to_owned();
    assert!(next.starts_with("/login?next=%2Foauth%2Fauthorize%3F"), "{next}");
    let next: String = form_urlencoded::parse(next.split_once('?').unwrap().1.as_bytes()).next().unwrap().1.into();
    let sent = json!({ "username": "carol@acme", "password": PASSWORD, "next": next });
    assert_eq!(place(&browser.post("/login", sent).await), next);
    let page = browser.get(&next).await;
    let headers = page.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self' http://127.0.0.1:*;"));
    assert_eq!(
        (&headers["x-frame-options"], &headers["cache-control"]),
        (&"DENY".parse().unwrap(), &"no-store".parse().unwrap())
    );
    let text = page.text().await.unwrap();
    for told in
        ["Probe", "carol@acme", "127.0.0.1 (a program on this computer)", "registered itself", "read and change"]
    {
        assert!(text.contains(told), "{told}: {text}");
    }
    let csrf = browser.token(&next).await;
    let sent = with(asked.clone(), json!({ "_csrf": csrf, "decision": "allow" }));
    let back = browser.post("/oauth/authorize", sent).await;
    let fields = answered(&back);
    assert_eq!((fields["state"].as_str(), fields["iss"].as_str()), ("st&te", issuer.as_str()));
    let response =
        server.posted("/oauth/token", &with(redeeming(&client, &fields["code"]), json!({ "resource": issuer }))).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["content-type"], "application/json");
    let (_, tokens) = taken(response).await;
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"], &tokens["scope"]),
        (&json!("Bearer"), &json!(3600), &json!("read write"))
    );
    let access = tokens["access_token"].as_str().unwrap();
    let made = server.client.post(server.url(SPACES)).header("authorization", format!("Bearer {access}"));
    let made = made.json(&json!({ "name": "by a program" })).send().await.unwrap();
    assert_eq!(made.status(), 200);
    let me = server.done("GET", "/api/auth/me", access, Value::Null).await;
    assert_eq!((&me["username"], &me["account"]), (&json!("carol"), &json!("acme")));
    // It is on the list, on record, and ended from there.
    let list = browser.get("/applications").await.text().await.unwrap();
    assert!(list.contains("Probe"), "{list}");
    let rows = server.done("GET", "/api/v1/applications", access, Value::Null).await;
    let id = rows[0]["id"].as_str().unwrap();
    assert!(!rows.to_string().contains("bwo_") && !rows.to_string().contains("bwr_"));
    let key = server.login_again("acme", "alice").await.token;
    for action in ["application.allow", "application.use"] {
        let line = server.event("/api/v1/audit", &key, |event| event["action"] == action).await;
        assert_eq!((&line["user"], &line["result"]), (&json!("carol"), &json!("OK")), "{line}");
        assert!(!line.to_string().contains(&fields["code"]), "{line}");
    }
    let line = server.event("/api/v1/audit", &key, |event| event["action"] == "space.create").await;
    assert!(line["credential"].as_str().unwrap().starts_with(&format!("application:{id}:")), "{line}");
    let csrf = browser.token("/applications").await;
    let ended = browser.post(&format!("/applications/{id}/end"), json!({ "_csrf": csrf })).await;
    assert_eq!(place(&ended), "/applications?ok=application_ended");
    assert_eq!(status(&server, SPACES, access).await, 401);
    let (again, told) = server.tokens(&renewing(&client, tokens["refresh_token"].as_str().unwrap())).await;
    assert_eq!((again, &told["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a03_a_token_of_one_tenant_opens_nothing_in_another_and_an_end_is_ones_own() {
    let server = Server::start().await;
    let people = server.people().await;
    let client = server.client().await;
    let (carols, bobs) =
        (server.application(&client, &people.carol).await, server.application(&client, &people.bob).await);
    let alices = server.application(&client, &people.alice).await;
    let space = server.space(&people.bob, "bobs").await;
    let path = format!("/api/v1/spaces/{space}");
    assert_eq!(status(&server, &path, &bobs.access).await, 200, "the control");
    assert_eq!(status(&server, &path, &carols.access).await, 404);
    assert_eq!(status(&server, &path, &alices.access).await, 404);
    let headers = server.request("GET", SPACES, &carols.access);
    let headers = headers.header("x-openviking-account", "globex").header("x-openviking-user", "bob");
    let (_, listed) = taken(headers.send().await.unwrap()).await;
    let owners: Vec<&Value> = listed["result"].as_array().unwrap().iter().map(|row| &row["owner"]).collect();
    assert_eq!(owners, ["carol"], "a token is of its own tenant, whatever the headers say");
    // Somebody else's application is not there for anybody, an admin of the same account among them.
    for key in [&people.alice, &people.bob, &people.vera] {
        let (code, _) =
            server.refused("DELETE", &format!("/api/v1/applications/{}", carols.id), key, Value::Null).await;
        assert_eq!(code, 404);
    }
    assert_eq!(status(&server, SPACES, &carols.access).await, 200);
    // No application ends another one of its user's, makes keys, or lets further ones in.
    let second = server.application(&client, &people.carol).await;
    let path = format!("/api/v1/applications/{}", second.id);
    assert_eq!(server.refused("DELETE", &path, &carols.access, Value::Null).await.0, 403);
    let keys = "/api/v1/admin/accounts/acme/users/carol/keys";
    assert_eq!(server.refused("POST", keys, &carols.access, json!({ "name": "k" })).await.0, 403);
    let asked = with(consent(&client), json!({ "decision": "allow" }));
    let sent = server.request("POST", "/oauth/authorize", &carols.access);
    let sent = sent.header("content-type", "application/x-www-form-urlencoded").body(form(&asked)).send().await;
    assert_eq!(sent.unwrap().status(), 403);
    let users = "/api/v1/admin/accounts/acme/users";
    assert_eq!(
        server.refused("POST", users, &alices.access, json!({ "user_id": "x" })).await.0,
        403,
        "not an admin's either"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_good_once_for_its_client_its_address_and_its_verifier() {
    let server = server_with(settings(), Terms::default()).await;
    let (client, other) = (server.client().await, server.client().await);
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    let code = allow(&mut browser, &consent(&client), json!({})).await;
    let good = redeeming(&client, &code);
    let wrong = [
        (json!({ "client_id": other }), "invalid_grant"),
        (json!({ "client_id": "aaaaaaaaaaaaaaaa" }), "invalid_client"),
        (json!({ "client_id": "" }), "invalid_client"),
        (json!({ "client_secret": "x" }), "invalid_client"),
        (json!({ "redirect_uri": "http://127.0.0.1:3000/callback/" }), "invalid_grant"),
        (json!({ "redirect_uri": "http://127.0.0.1:3001/callback" }), "invalid_grant"),
        (json!({ "redirect_uri": "" }), "invalid_grant"),
        (json!({ "code_verifier": "x".repeat(43) }), "invalid_grant"),
        (json!({ "code_verifier": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" }), "invalid_grant"),
        (json!({ "code_verifier": "" }), "invalid_request"),
        (json!({ "code_verifier": "short" }), "invalid_request"),
        (json!({ "code": format!("{code}x") }), "invalid_grant"),
        (json!({ "code": code.replacen("bwc_", "bwr_", 1) }), "invalid_grant"),
        (json!({ "grant_type": "password" }), "unsupported_grant_type"),
        (json!({ "grant_type": "" }), "invalid_request"),
        (json!({ "grant_type": "refresh_token", "refresh_token": code }), "invalid_grant"),
        (json!({ "resource": "https://elsewhere.example" }), "invalid_target"),
        (json!({ "resource": server.url("/mcp") }), "invalid_target"),
    ];
    for (change, told) in wrong {
        let (status, body) = server.tokens(&with(good.clone(), change.clone())).await;
        let fits = if told == "invalid_client" { 401 } else { 400 };
        assert_eq!((status.as_u16(), body["error"].as_str()), (fits, Some(told)), "{change}: {body}");
    }
    let twice = server.request("POST", "/oauth/token", "").header("content-type", "application/x-www-form-urlencoded");
    let twice = twice.body(format!("{}&code={code}", form(&good))).send().await.unwrap();
    assert_eq!(twice.status(), 400, "a field comes once");
    // None of that has used it up; and it opens no door by itself.
    assert_eq!(status(&server, SPACES, &code).await, 401);
    let (status_of, tokens) = server.tokens(&good).await;
    assert_eq!(status_of, 200, "{tokens}");
    let access = tokens["access_token"].as_str().unwrap().to_owned();
    let refresh = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(status(&server, SPACES, &access).await, 200);
    assert_eq!(status(&server, SPACES, refresh).await, 401, "a refresh token asks for nothing");
    // Another client that knows the code ends nothing with it.
    assert_eq!(server.tokens(&with(good.clone(), json!({ "client_id": other }))).await.0, 400);
    assert_eq!(status(&server, SPACES, &access).await, 200);
    // The same client a second time: it was stolen from one of the two.
    let (again, told) = server.tokens(&good).await;
    assert_eq!((again.as_u16(), &told["error"]), (400, &json!("invalid_grant")));
    assert_eq!(status(&server, SPACES, &access).await, 401);
    assert_eq!(server.tokens(&renewing(&client, refresh)).await.0, 400);
    let key = server.login_again("acme", "alice").await.token;
    let replayed = |event: &Value| event["detail"]["code"] == "replayed";
    let line = server.event("/api/v1/audit", &key, replayed).await;
    assert_eq!((&line["action"], &line["result"]), (&json!("application.use"), &json!("DENIED")));
    for why in ["other_client", "wrong_verifier", "other_redirect_uri", "other_resource"] {
        server.event("/api/v1/audit", &key, |event| event["detail"]["code"] == why).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_rotates_and_one_that_comes_twice_ends_the_application() {
    let server = Server::start().await;
    let people = server.people().await;
    let (client, other) = (server.client().await, server.client().await);
    let Application { access, refresh, .. } = server.application(&client, &people.carol).await;
    let bobs = server.application(&client, &people.bob).await;
    assert_eq!(server.tokens(&renewing(&other, &refresh)).await.0, 400, "another client");
    let (_, next) = server.tokens(&renewing(&client, &refresh)).await;
    let (second, third) = (next["refresh_token"].as_str().unwrap(), next["access_token"].as_str().unwrap());
    assert!(second != refresh && third != access);
    assert_eq!((status(&server, SPACES, &access).await, status(&server, SPACES, third).await), (200, 200));
    // Narrower is possible, wider is not, and the next one has all again.
    let (_, narrow) = server.tokens(&with(renewing(&client, second), json!({ "scope": "read" }))).await;
    assert_eq!(narrow["scope"], "read", "{narrow}");
    let reading = narrow["access_token"].as_str().unwrap();
    assert_eq!(status(&server, SPACES, reading).await, 200);
    let (refused, told) = server.refused("POST", SPACES, reading, json!({ "name": "x" })).await;
    assert_eq!((refused, crate::support::reason(&told)), (403, "key_scope"));
    let fourth = narrow["refresh_token"].as_str().unwrap();
    let (_, wide) = server.tokens(&renewing(&client, fourth)).await;
    assert_eq!(wide["scope"], "read write");
    // The very first one again.
    let (again, told) = server.tokens(&renewing(&client, &refresh)).await;
    assert_eq!((again.as_u16(), &told["error"]), (400, &json!("invalid_grant")));
    for dead in [&access, third, reading, wide["access_token"].as_str().unwrap()] {
        assert_eq!(status(&server, SPACES, dead).await, 401);
    }
    assert_eq!(server.tokens(&renewing(&client, wide["refresh_token"].as_str().unwrap())).await.0, 400);
    assert_eq!(status(&server, SPACES, &bobs.access).await, 200, "nobody else's");
    server.event("/api/v1/audit", &people.alice, |event| event["detail"]["code"] == "replayed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_asks_wrongly_leads_a_browser_nowhere() {
    let server = server_with(settings(), Terms::default()).await;
    let client = registered(&server, &["https://app.example/cb", "http://127.0.0.1/cb"]).await;
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    let good = with(consent(&client), json!({ "redirect_uri": "https://app.example/cb" }));
    assert_eq!(browser.get(&authorize(&good)).await.status(), 200, "the control");
    let csrf = browser.token(&authorize(&good)).await;
    for (change, told) in [
        (json!({ "client_id": "aaaaaaaaaaaaaaaa" }), "unknown_client"),
        (json!({ "client_id": "https://app.example/client.json" }), "unknown_client"),
        (json!({ "redirect_uri": "https://app.example/cb/" }), "redirect_uri"),
        (json!({ "redirect_uri": "https://app.example/cb?x=1" }), "redirect_uri"),
        (json!({ "redirect_uri": "https://evil.example/cb" }), "redirect_uri"),
        (json!({ "redirect_uri": "https://app.example@evil.example/cb" }), "redirect_uri"),
        (json!({ "redirect_uri": "http://localhost:1/cb" }), "redirect_uri"),
        (json!({ "redirect_uri": "" }), "redirect_uri"),
        (json!({ "redirect_uri": "javascript:alert(1)" }), "redirect_uri"),
        (json!({ "code_challenge": "" }), "invalid_request"),
        (json!({ "code_challenge_method": "plain", "code_challenge": VERIFIER }), "invalid_request"),
        (json!({ "code_challenge_method": "" }), "invalid_request"),
        (json!({ "response_type": "token" }), "unsupported_response_type"),
        (json!({ "scope": "openid" }), "invalid_scope"),
        (json!({ "resource": "https://elsewhere.example" }), "invalid_target"),
        (json!({ "request": "eyJ" }), "request_not_supported"),
        (json!({ "request_uri": "https://app.example/r" }), "request_not_supported"),
    ] {
        let asked = with(good.clone(), change.clone());
        let page = browser.get(&authorize(&asked)).await;
        assert_eq!(page.status(), 400, "{change}");
        assert!(page.headers().get("location").is_none(), "{change}");
        let text = page.text().await.unwrap();
        assert!(text.contains(told), "{change}: {text}");
        // Nor does a form that was changed on the way.
        let sent = with(asked, json!({ "_csrf": csrf, "decision": "allow" }));
        let posted = browser.post("/oauth/authorize", sent).await;
        assert_eq!((posted.status().as_u16(), posted.headers().get("location")), (400, None), "{change}");
    }
    // Another port of the user's own machine is the same program.
    let asked = with(good.clone(), json!({ "redirect_uri": "http://127.0.0.1:49152/cb" }));
    allow(&mut browser, &asked, json!({})).await;
    let twice = format!("{}&client_id={client}", authorize(&good));
    assert_eq!(browser.get(&twice).await.status(), 400);
    let html = with(good.clone(), json!({ "state": "\"><script>alert(1)</script>" }));
    assert!(!browser.get(&authorize(&html)).await.text().await.unwrap().contains("<script>alert"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i09_nobody_consents_but_on_the_page_itself() {
    let server = server_with(settings(), Terms::default()).await;
    let client = server.client().await;
    let (mut carol, mut bob) = (Browser::new(&server), Browser::new(&server));
    carol.sign_in("carol@acme").await;
    bob.sign_in("bob@globex").await;
    let asked = with(consent(&client), json!({ "decision": "allow" }));
    let (own, bobs) =
        (carol.token(&authorize(&consent(&client))).await, bob.token(&authorize(&consent(&client))).await);
    for csrf in [json!({}), json!({ "_csrf": "" }), json!({ "_csrf": bobs })] {
        let response = carol.post("/oauth/authorize", with(asked.clone(), csrf)).await;
        assert_eq!((response.status().as_u16(), page_reason(&response).as_str()), (403, "csrf"));
    }
    let cross = server.request("POST", "/oauth/authorize", "").header("sec-fetch-site", "cross-site");
    let cross = cross.header("cookie", format!("vibe_session={}", carol.cookie));
    let cross = cross.header("content-type", "application/x-www-form-urlencoded");
    let cross = cross.body(form(&with(asked.clone(), json!({ "_csrf": own })))).send().await.unwrap();
    assert_eq!(page_reason(&cross), "cross_site");
    // Whoever says no, or nothing, is sent back with that; whoever said yes before is asked again.
    for decision in ["deny", ""] {
        let sent = with(asked.clone(), json!({ "_csrf": own, "decision": decision }));
        let fields = answered(&carol.post("/oauth/authorize", sent).await);
        assert_eq!((fields["error"].as_str(), fields.get("code")), ("access_denied", None));
        assert_eq!(fields["iss"], server.url(""));
    }
    allow(&mut carol, &consent(&client), json!({})).await;
    let again = carol.get(&authorize(&consent(&client))).await;
    assert_eq!((again.status().as_u16(), again.headers().get("location")), (200, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_has_no_more_than_its_user_and_no_more_than_was_chosen() {
    let server = server_with(settings(), Terms::default()).await;
    let client = server.client().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    let get = async |code: &str| {
        let (status, tokens) = server.tokens(&redeeming(&client, code)).await;
        assert_eq!(status, 200, "{tokens}");
        tokens
    };
    let csrf = browser.token("/spaces").await;
    let mut spaces = Vec::new();
    for name in ["one", "two"] {
        let made = browser.post("/spaces", json!({ "name": name, "_csrf": csrf })).await;
        spaces.push(place(&made).split(['/', '?']).nth(2).unwrap().to_owned());
    }
    // Chosen narrower than asked for.
    let tokens = get(&allow(&mut browser, &consent(&client), json!({ "may": "read" })).await).await;
    assert_eq!(tokens["scope"], "read");
    let reading = tokens["access_token"].as_str().unwrap();
    assert_eq!(server.refused("POST", SPACES, reading, json!({ "name": "x" })).await.0, 403);
    // Asked narrower than could be chosen.
    let asked = with(consent(&client), json!({ "scope": "read" }));
    let tokens = get(&allow(&mut browser, &asked, json!({ "may": "write" })).await).await;
    assert_eq!(tokens["scope"], "read");
    // Bound to a space and to an agent.
    let chosen = json!({ "space": spaces[0], "agent": "careful" });
    let tokens = get(&allow(&mut browser, &consent(&client), chosen).await).await;
    let bound = tokens["access_token"].as_str().unwrap();
    assert_eq!(status(&server, &format!("{SPACES}/{}", spaces[0]), bound).await, 200);
    assert_eq!(status(&server, &format!("{SPACES}/{}", spaces[1]), bound).await, 404);
    assert_eq!(status(&server, "/api/v1/agents/default", bound).await, 404);
    // Somebody else's space cannot be named.
    let bob = server.login_again("globex", "bob").await.token;
    let foreign = server.space(&bob, "bobs").await;
    let csrf = browser.token(&authorize(&consent(&client))).await;
    let sent = with(consent(&client), json!({ "_csrf": csrf, "decision": "allow", "space": foreign }));
    assert_eq!(browser.post("/oauth/authorize", sent).await.status(), 404);
    // For one part of the server alone.
    let asked = with(consent(&client), json!({ "resource": server.url("/eve") }));
    let tokens = get(&allow(&mut browser, &asked, json!({})).await).await;
    let part = tokens["access_token"].as_str().unwrap();
    assert_eq!(status(&server, "/eve/v1/info", part).await, 200);
    for elsewhere in [SPACES, "/api/auth/me", "/eve/../api/v1/spaces", "/health"] {
        assert_eq!(status(&server, elsewhere, part).await, 401, "{elsewhere}");
    }
    // A viewer's program reads; and the role is that of each request (R05).
    let vera = server.login_again("acme", "vera").await.token;
    let viewers = server.application(&client, &vera).await;
    let (refused, told) = server.refused("POST", SPACES, &viewers.access, json!({ "name": "x" })).await;
    assert_eq!((refused, crate::support::reason(&told)), (403, "viewer_readonly"));
    let role = "/api/v1/admin/accounts/acme/users/vera/role";
    server.done("PUT", role, ROOT, json!({ "role": "user" })).await;
    server.done("POST", SPACES, &viewers.access, json!({ "name": "x" })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_die_with_their_user_their_password_their_client_and_their_time() {
    let server = server_with(settings(), Terms::default()).await;
    let client = server.client().await;
    let carol = server.login_again("acme", "carol").await.token;
    let vera = server.login_again("acme", "vera").await.token;
    let bob = server.login_again("globex", "bob").await.token;
    let (carols, veras, bobs) = (
        server.application(&client, &carol).await,
        server.application(&client, &vera).await,
        server.application(&client, &bob).await,
    );
    let users = "/api/v1/admin/accounts/acme/users";
    server.done("PUT", &format!("{users}/carol/password"), ROOT, json!({ "password": "another one" })).await;
    server.done("DELETE", &format!("{users}/vera"), ROOT, Value::Null).await;
    for gone in [&carols, &veras] {
        assert_eq!(status(&server, SPACES, &gone.access).await, 401);
        assert_eq!(server.tokens(&renewing(&client, &gone.refresh)).await.0, 400);
    }
    // A namesake is somebody else.
    server.user("acme", "vera", "user", ROOT).await;
    assert_eq!(status(&server, SPACES, &veras.access).await, 401);
    assert_eq!(status(&server, SPACES, &bobs.access).await, 200, "the control");
    server.done("DELETE", &format!("/api/v1/admin/clients/{client}"), ROOT, Value::Null).await;
    let (status_of, told) = server.tokens(&renewing(&client, &bobs.refresh)).await;
    assert_eq!((status_of.as_u16(), &told["error"]), (401, &json!("invalid_client")));
    server.done("DELETE", "/api/v1/admin/accounts/globex", ROOT, Value::Null).await;
    assert_eq!(status(&server, SPACES, &bobs.access).await, 401);

    // None of them is good for no time at all.
    for (code, access, refresh) in [(0, 3600, 3600), (60, 0, 3600), (60, 3600, 0)] {
        let times = OAuth {
            code: Duration::from_secs(code),
            access: Duration::from_secs(access),
            refresh: Duration::from_secs(refresh),
            ..OAuth::default()
        };
        let server = Server::with(vec![Step::ApiKey, Step::Session], Settings { oauth: times, ..settings() }).await;
        let people = server.people().await;
        let client = server.client().await;
        if code == 0 {
            let asked = with(consent(&client), json!({ "decision": "allow" }));
            let sent = server.request("POST", "/oauth/authorize", &people.carol);
            let sent = sent.header("content-type", "application/x-www-form-urlencoded").body(form(&asked));
            let code = answered(&sent.send().await.unwrap())["code"].clone();
            assert_eq!(server.tokens(&redeeming(&client, &code)).await.1["error"], "invalid_grant");
            continue;
        }
        let made = server.application(&client, &people.carol).await;
        assert_eq!(status(&server, SPACES, &made.access).await, if access == 0 { 401 } else { 200 });
        let renewed = server.tokens(&renewing(&client, &made.refresh)).await.0;
        assert_eq!(renewed, if refresh == 0 { 400 } else { 200 });
        // A resumed thing ends with its token: an old one keeps no door open.
        let (old, bearer) = (access == 0, format!("Bearer {}", made.access));
        let stream = server.client.get(server.url("/api/v1/audit/stream")).header("authorization", bearer);
        assert_eq!(stream.send().await.unwrap().status() == 401, old);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gives_its_own_tokens_back_and_nobody_elses() {
    let server = Server::start().await;
    let people = server.people().await;
    let (client, other) = (server.client().await, server.client().await);
    for which in ["access", "refresh"] {
        let made = server.application(&client, &people.carol).await;
        let bobs = server.application(&client, &people.bob).await;
        let token = if which == "access" { &made.access } else { &made.refresh };
        let foreign = json!({ "token": token, "client_id": other });
        let (status_of, told) = taken(server.posted("/oauth/revoke", &foreign).await).await;
        assert_eq!((status_of.as_u16(), &told["error"]), (400, &json!("invalid_grant")));
        assert_eq!(status(&server, SPACES, &made.access).await, 200);
        let own = json!({ "token": token, "client_id": client, "token_type_hint": "whatever" });
        assert_eq!(server.posted("/oauth/revoke", &own).await.status(), 200);
        assert_eq!(status(&server, SPACES, &made.access).await, 401);
        assert_eq!(server.tokens(&renewing(&client, &made.refresh)).await.0, 400);
        assert_eq!(server.posted("/oauth/revoke", &own).await.status(), 200, "it has ended already");
        assert_eq!(status(&server, SPACES, &bobs.access).await, 200);
    }
    for nothing in [json!({ "token": "x", "client_id": client }), json!({ "token": people.carol, "client_id": client })]
    {
        assert_eq!(server.posted("/oauth/revoke", &nothing).await.status(), 200);
    }
    assert_eq!(server.get(SPACES, &people.carol).await.status(), 200, "a key is none of an application's tokens");
    assert_eq!(server.posted("/oauth/revoke", &json!({ "client_id": client })).await.status(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_secret_shows_it_in_one_of_two_ways() {
    let server = Server::start().await;
    let people = server.people().await;
    for method in [Some("client_secret_basic"), Some("client_secret_post"), None] {
        let metadata = json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method, "logo_uri": "x" });
        let (status_of, made) = taken(server.send("POST", "/oauth/register", "", metadata).await).await;
        assert_eq!(status_of, 201, "{made}");
        let (id, secret) = (made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
        let asked = with(consent(id), json!({ "decision": "allow" }));
        let sent = server.request("POST", "/oauth/authorize", &people.carol);
        let sent = sent.header("content-type", "application/x-www-form-urlencoded").body(form(&asked));
        let code = answered(&sent.send().await.unwrap())["code"].clone();
        let good = redeeming(id, &code);
        for bad in [json!({}), json!({ "client_secret": "" }), json!({ "client_secret": format!("{secret}x") })] {
            let (status_of, told) = server.tokens(&with(good.clone(), bad)).await;
            assert_eq!((status_of.as_u16(), &told["error"]), (401, &json!("invalid_client")), "{told}");
        }
        let by_header = |secret: &str, fields: &Value| {
            let request = server.client.post(server.url("/oauth/token")).basic_auth(id, Some(secret));
            request.header("content-type", "application/x-www-form-urlencoded").body(form(fields)).send()
        };
        let wrong = by_header("wrong", &good).await.unwrap();
        assert_eq!(wrong.headers()["www-authenticate"], "Basic realm=\"oauth\"");
        assert_eq!(wrong.status(), 401);
        let both = by_header(secret, &with(good.clone(), json!({ "client_secret": secret }))).await.unwrap();
        assert_eq!(both.status(), 400, "in one way, not in two");
        let response = match method {
            Some("client_secret_post") => {
                server.posted("/oauth/token", &with(good, json!({ "client_secret": secret }))).await
            }
            _ => by_header(secret, &good).await.unwrap(),
        };
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_registrations_are_bounded_looked_at_and_can_be_switched_off() {
    let server = Server::start().await;
    for (metadata, told) in [
        (json!({}), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["http://evil.example/cb"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["https://a.example/cb", "javascript:alert(1)"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": vec!["https://a.example/cb"; 11] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": "https://a.example/cb" }), "invalid_client_metadata"),
        (json!({ "redirect_uris": [CALLBACK], "client_name": "a\nb" }), "invalid_client_metadata"),
        (json!({ "redirect_uris": [CALLBACK], "client_name": "\u{202e}evil" }), "invalid_client_metadata"),
        (
            json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "private_key_jwt" }),
            "invalid_client_metadata",
        ),
        (json!({ "redirect_uris": [CALLBACK], "grant_types": ["client_credentials"] }), "invalid_client_metadata"),
        (json!({ "redirect_uris": [CALLBACK], "response_types": ["token"] }), "invalid_client_metadata"),
    ] {
        let (status, body) = taken(server.send("POST", "/oauth/register", "", metadata.clone()).await).await;
        assert_eq!((status.as_u16(), body["error"].as_str()), (400, Some(told)), "{metadata}: {body}");
    }
    for _ in 0..20 {
        registered(&server, &[CALLBACK]).await;
    }
    let over = server.send("POST", "/oauth/register", "", json!({ "redirect_uris": [CALLBACK] })).await;
    assert_eq!(over.status(), 429);
    assert!(over.headers().contains_key("retry-after"));
    assert_eq!(taken(over).await.1["error"], "temporarily_unavailable");
    // The operator still can, and reads on record who came.
    server.client().await;
    let listed = server.done("GET", "/api/v1/admin/clients", ROOT, Value::Null).await;
    assert_eq!(listed.as_array().unwrap().len(), 21);
    assert!(!listed.to_string().contains("bws_"));
    server.event("/api/v1/admin/audit", ROOT, |event| event["action"] == "client.register").await;
    let off = OAuth { registration: Registration::Operator, ..OAuth::default() };
    let server = Server::with(vec![Step::ApiKey, Step::Session], Settings { oauth: off, ..settings() }).await;
    let (status, body) =
        taken(server.send("POST", "/oauth/register", "", json!({ "redirect_uris": [CALLBACK] })).await).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("access_denied")));
    let (_, about) = taken(server.get("/.well-known/oauth-authorization-server", "").await).await;
    assert!(about.get("registration_endpoint").is_none(), "{about}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_authorization_server_without_logins_or_without_an_address_of_its_own() {
    let of = |url: &str| Settings { public_url: Some(url.to_owned()), ..settings() };
    let both = vec![Step::ApiKey, Step::Session];
    for (steps, settings, there) in [
        (both.clone(), of("https://bailiwick.example/"), Some("https://bailiwick.example")),
        (both.clone(), of("https://bailiwick.example/team"), Some("https://bailiwick.example/team")),
        (both.clone(), of("http://localhost:17880"), Some("http://localhost:17880")),
        (both.clone(), of("http://bailiwick.example"), None),
        (both.clone(), of("http://127.0.0.1.evil.example"), None),
        (vec![Step::ApiKey], settings(), None),
    ] {
        let server = Server::with(steps, settings).await;
        let (status, about) = taken(server.get("/.well-known/oauth-authorization-server", "").await).await;
        assert_eq!((status == 200, about["issuer"].as_str()), (there.is_some(), there), "{about}");
        let (status, _) = taken(server.get("/.well-known/oauth-protected-resource", "").await).await;
        assert_eq!(status == 200, there.is_some());
        let (status, told) = server.tokens(&json!({ "grant_type": "refresh_token" })).await;
        assert_eq!(status == 404, there.is_none(), "{told}");
    }
}
