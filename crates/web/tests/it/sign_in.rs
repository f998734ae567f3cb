//! People sign in with passwords: what they get, what guessing gets, and how it ends.

use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_auth::lockout::{Keep, LockoutSettings, Rule};
use bailiwick_web::Settings;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{PASSWORD, People, ROOT, Server, Terms, code, reason, settings, taken, totp_code};

const STEPS: [Step; 2] = [Step::ApiKey, Step::Session];

/// A server whose acme has alice and carol with passwords, and globex bob and dave.
async fn with_passwords(settings: Settings, terms: Terms) -> (Server, People) {
    let server = Server::on(STEPS.to_vec(), settings, terms).await;
    let people = server.people().await;
    for (account, user) in
        [("acme", "alice"), ("acme", "carol"), ("acme", "vera"), ("globex", "bob"), ("globex", "dave")]
    {
        server.password(account, user).await;
    }
    (server, people)
}

fn attempt(server: &Server, name: &str, password: &str) -> RequestBuilder {
    server.request("POST", "/api/auth/login", "").json(&json!({ "username": name, "password": password }))
}

/// Tries, and says status and code.
async fn tried(request: RequestBuilder) -> (u16, String, Option<u64>) {
    let response = request.send().await.unwrap();
    let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let (status, body) = taken(response).await;
    let told = if status.is_success() { "ok" } else { body["code"].as_str().unwrap() };
    (status.as_u16(), told.to_owned(), retry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i01_a_login_gives_a_token_that_works_as_bearer_and_as_cookie() {
    let (server, people) = with_passwords(settings(), Terms::default()).await;
    let body = json!({ "username": "alice@acme", "password": PASSWORD, "deviceName": "phone" });
    let (status, made) = taken(server.send("POST", "/api/auth/login", "", body).await).await;
    assert_eq!(status, 200, "{made}");
    let fields: Vec<&str> = made.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["token", "deviceId", "serverName", "username"]);
    assert_eq!((&made["serverName"], &made["username"]), (&json!("bailiwick"), &json!("alice")));
    let token = made["token"].as_str().unwrap();
    let as_bearer = server.request("GET", "/api/auth/me", "").bearer_auth(token);
    let as_cookie = server.request("GET", "/api/auth/me", "").header("cookie", format!("vibe_session={token}"));
    for request in [as_bearer, as_cookie] {
        let (status, me) = taken(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{me}");
        assert_eq!((&me["username"], &me["account"], &me["role"]), (&json!("alice"), &json!("acme"), &json!("admin")));
        assert_eq!(me["deviceId"], made["deviceId"]);
    }
    // Never in a URL.
    for query in ["token", "key", "vibe_session", "access_token"] {
        assert_eq!(server.get(&format!("/api/auth/me?{query}={token}"), "").await.status(), 401);
    }
    // It is alice's, and sees nothing of globex.
    let spaces = server.done("GET", "/api/v1/spaces", token, Value::Null).await;
    let owners = |owner: &str| spaces.as_array().unwrap().iter().filter(|space| space["owner"] == owner).count();
    assert_eq!((owners("alice"), owners("bob")), (1, 0), "{spaces}");
    let theirs = server.space(&people.bob, "theirs").await;
    assert_eq!(server.get(&format!("/api/v1/spaces/{theirs}"), token).await.status(), 404);
    // The list has it by its name, and the record by its id.
    let devices = server.done("GET", "/api/v1/devices", token, Value::Null).await;
    assert_eq!(devices.as_array().unwrap().len(), 1);
    assert_eq!((&devices[0]["name"], &devices[0]["current"]), (&json!("phone"), &json!(true)));
    assert_eq!((&devices[0]["address"], &devices[0]["signed_in_by"]), (&json!("127.0.0.1"), &json!("password")));
    let line = server.event("/api/v1/audit", token, |event| event["action"] == "auth.login").await;
    assert_eq!((&line["result"], &line["user"]), (&json!("OK"), &json!("alice")), "{line}");
    assert_eq!(line["detail"]["device"], made["deviceId"]);
    assert!(!line.to_string().contains(token) && !line.to_string().contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i01_logging_out_and_revoking_end_a_login_at_once() {
    let (server, people) = with_passwords(settings(), Terms::default()).await;
    let (one, two) = (server.login_again("acme", "alice").await, server.login_again("acme", "alice").await);
    let out = server.request("POST", "/api/auth/logout", &one.token).send().await.unwrap();
    assert_eq!(out.status(), 204);
    assert_eq!(server.get("/api/auth/me", &one.token).await.status(), 401);
    assert_eq!(server.get("/api/auth/me", &two.token).await.status(), 200);
    // Nobody ends the logins of others: not a colleague, not a stranger; an admin does.
    let carols = server.login_again("acme", "carol").await;
    for (path, key, status) in [
        (format!("/api/v1/devices/{}", two.device), &people.carol, 404),
        (format!("/api/v1/devices/{}", two.device), &people.bob, 404),
        (format!("/api/v1/admin/accounts/acme/users/alice/devices/{}", two.device), &people.carol, 403),
        (format!("/api/v1/admin/accounts/acme/users/alice/devices/{}", two.device), &people.bob, 404),
        (format!("/api/v1/admin/accounts/acme/users/carol/devices/{}", two.device), &people.alice, 404),
        (format!("/api/v1/admin/accounts/acme/users/carol/devices/{}", carols.device), &people.alice, 200),
    ] {
        assert_eq!(server.request("DELETE", &path, key).send().await.unwrap().status(), status, "{path}");
    }
    assert_eq!(server.get("/api/auth/me", &two.token).await.status(), 200);
    assert_eq!(server.get("/api/auth/me", &carols.token).await.status(), 401);
    // A key is no login.
    let (status, body) = server.refused("POST", "/api/auth/logout", &people.alice, Value::Null).await;
    assert_eq!((status, &body["code"]), (400, &json!("not_a_login")));
    // With the user go their logins; a namesake inherits none.
    let carols = server.login_again("acme", "carol").await;
    server.done("DELETE", "/api/v1/admin/accounts/acme/users/carol", &people.alice, Value::Null).await;
    server.user("acme", "carol", "user", &people.alice).await;
    assert_eq!(server.get("/api/auth/me", &carols.token).await.status(), 401);
    assert_eq!(tried(attempt(&server, "carol@acme", PASSWORD)).await.0, 401, "nor their password");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i02_whoever_is_not_there_is_answered_like_whoever_is() {
    let (server, _) = with_passwords(settings(), Terms::default()).await;
    server.done("POST", "/api/v1/admin/accounts/acme/users", ROOT, json!({ "user_id": "keyed" })).await;
    let mut answers = Vec::new();
    for (name, password) in [
        ("alice@acme", "wrong password"),
        ("nobody@acme", "wrong password"),
        ("alice@nowhere", PASSWORD),
        ("alice", PASSWORD),
        ("keyed@acme", PASSWORD),
        ("not a name!", PASSWORD),
        ("", ""),
        ("alice@acme", ""),
        ("alice@globex", PASSWORD),
    ] {
        let (status, mut body) = taken(attempt(&server, name, password).send().await.unwrap()).await;
        body.as_object_mut().unwrap().remove("requestId");
        answers.push((name, status, body.to_string()));
    }
    for (name, status, body) in &answers {
        assert_eq!((*status, body), (StatusCode::UNAUTHORIZED, &answers[0].2), "{name}");
    }
    assert!(answers[0].2.contains("invalid_credentials"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i03_ten_failures_lock_a_user_wherever_from_and_a_success_before_that_resets() {
    let proxies = Settings { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..settings() };
    let account = Rule { lock: Duration::from_secs(3), ..LockoutSettings::default().account };
    for keep in [Keep::Memory, Keep::Database] {
        let lockout = LockoutSettings { account, keep, ..LockoutSettings::default() };
        let (server, people) = with_passwords(proxies.clone(), Terms { lockout, ..Terms::default() }).await;
        let from = |name: &str, password: &str, address: usize| {
            attempt(&server, name, password).header("x-forwarded-for", format!("198.51.100.{address}"))
        };
        // Nine, a success, and nine more: the success made the count begin anew.
        for round in 0..2 {
            for n in 0..9 {
                let told = tried(from("alice@acme", "wrong password", n)).await;
                assert_eq!((told.0, told.1.as_str()), (401, "invalid_credentials"), "{keep:?} {round} {n}");
            }
            assert_eq!(tried(from("alice@acme", PASSWORD, 77)).await.0, 200, "{keep:?} {round}");
        }
        for n in 0..10 {
            assert_eq!(tried(from("alice@acme", "wrong password", n)).await.0, 401, "{keep:?} {n}");
        }
        // Locked, also for the right password and from elsewhere; others are not.
        let begun = std::time::Instant::now();
        let (status, told, retry) = tried(from("alice@acme", PASSWORD, 99)).await;
        assert_eq!((status, told.as_str()), (429, "locked"), "{keep:?}");
        assert!(retry.is_some_and(|seconds| (1..=3).contains(&seconds)), "{retry:?}");
        assert_eq!(tried(from("carol@acme", PASSWORD, 99)).await.0, 200);
        assert_eq!(tried(from("bob@globex", PASSWORD, 99)).await.0, 200);
        // It is no door to the account: her keys and logins still work.
        assert_eq!(server.get("/api/auth/me", &people.alice).await.status(), 200);
        tokio::time::sleep_until(tokio::time::Instant::from_std(begun + Duration::from_millis(3_200))).await;
        // After the end the count starts anew, so that one more failure does not lock.
        assert_eq!(tried(from("alice@acme", "wrong password", 3)).await.0, 401, "{keep:?}");
        assert_eq!(tried(from("alice@acme", PASSWORD, 3)).await.0, 200, "{keep:?}");
        let locked = |event: &Value| event["detail"]["code"] == "locked";
        let line = server.event("/api/v1/admin/audit", ROOT, locked).await;
        assert_eq!((&line["action"], &line["result"]), (&json!("auth.login"), &json!("DENIED")), "{line}");
        // An admin lets somebody in again at once.
        for n in 0..10 {
            tried(from("carol@acme", "wrong password", n + 20)).await;
        }
        assert_eq!(tried(from("carol@acme", PASSWORD, 98)).await.1, "locked");
        server.done("DELETE", "/api/v1/admin/accounts/acme/users/carol/lock", &people.alice, Value::Null).await;
        assert_eq!(tried(from("carol@acme", PASSWORD, 98)).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i03_guesses_beside_each_other_do_not_outrun_the_count() {
    let (server, _) = with_passwords(settings(), Terms::default()).await;
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let guess = attempt(&server, "alice@acme", "wrong password");
        guesses.spawn(async move { tried(guess).await.1 });
    }
    let told = guesses.join_all().await;
    let judged = told.iter().filter(|told| *told == "invalid_credentials").count();
    assert!((1..=10).contains(&judged), "{told:?}");
    // Few of one user wait before the threads at once, so that others come to their turn.
    assert!(told.iter().any(|told| told == "busy"), "{told:?}");
    let mut judged = judged;
    while judged < 10 {
        assert_eq!(tried(attempt(&server, "alice@acme", "wrong password")).await.1, "invalid_credentials");
        judged += 1;
    }
    assert_eq!(tried(attempt(&server, "alice@acme", PASSWORD)).await.1, "locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i04_thirty_failures_block_an_address_and_no_other() {
    let proxied = Settings { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..settings() };
    let (server, people) = with_passwords(proxied, Terms::default()).await;
    let from = |name: &str, password: &str, address: &str| {
        attempt(&server, name, password).header("x-forwarded-for", address.to_owned())
    };
    // Over several users, so that none of them is locked; a right one in between does not clear the address.
    for n in 0..30 {
        let name = ["alice@acme", "carol@acme", "bob@globex", "nobody@nowhere"][n % 4];
        if n == 15 {
            assert_eq!(tried(from("dave@globex", PASSWORD, "203.0.113.5")).await.0, 200);
        }
        assert_eq!(tried(from(name, "wrong password", "203.0.113.5")).await.1, "invalid_credentials", "{n}");
    }
    let (status, told, retry) = tried(from("dave@globex", PASSWORD, "203.0.113.5")).await;
    assert_eq!((status, told.as_str()), (429, "ip_locked"));
    assert!(retry.is_some_and(|seconds| seconds > 23 * 3600 && seconds <= 24 * 3600), "{retry:?}");
    // Another address behind the same proxy is not concerned, and who is signed in neither.
    assert_eq!(tried(from("dave@globex", PASSWORD, "203.0.113.6")).await.0, 200);
    let signed_in = server.request("GET", "/api/auth/me", &people.dave).header("x-forwarded-for", "203.0.113.5");
    assert_eq!(signed_in.send().await.unwrap().status(), 200);
    // What a client puts before the proxy's word changes nothing.
    assert_eq!(tried(from("dave@globex", PASSWORD, "192.0.2.1, 203.0.113.5")).await.1, "ip_locked");
    // Without trust in the proxy the socket's address counts, whatever the header says.
    let (server, _) = with_passwords(settings(), Terms::default()).await;
    for n in 0..30 {
        let name = format!("nobody{n}@acme");
        let guess = attempt(&server, &name, "wrong").header("x-forwarded-for", format!("203.0.113.{n}"));
        assert_eq!(tried(guess).await.1, "invalid_credentials");
    }
    let guess = attempt(&server, "alice@acme", PASSWORD).header("x-forwarded-for", "203.0.113.200");
    assert_eq!(tried(guess).await.1, "ip_locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i07_a_login_that_lies_unused_is_gone_and_on_record() {
    let terms = || Terms { idle: Some(Duration::from_millis(1_500)), ..Terms::default() };
    let (server, people) = with_passwords(settings(), terms()).await;
    let login = server.login_again("acme", "alice").await;
    // Who is there stays, for longer than the limit in all.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(server.get("/api/auth/me", &login.token).await.status(), 200);
    }
    tokio::time::sleep(Duration::from_millis(1_800)).await;
    // Only who holds the token ends it: a wrong one with the same id does not.
    let (head, _) = login.token.rsplit_once('_').unwrap();
    let forged = format!("{head}_{}", "A".repeat(43));
    assert_eq!(server.get("/api/auth/me", &forged).await.status(), 401);
    let listed = |server: &Server| server.request("GET", "/api/v1/devices", &people.alice);
    let (_, before) = taken(listed(&server).send().await.unwrap()).await;
    assert_eq!(before["result"].as_array().unwrap().len(), 1);
    let response = server.get("/api/v1/spaces", &login.token).await;
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key("www-authenticate"));
    assert_eq!(response.text().await.unwrap(), "", "without a body");
    let (_, after) = taken(listed(&server).send().await.unwrap()).await;
    assert_eq!(after["result"], json!([]));
    let (status, body) = taken(server.get("/api/v1/spaces", &login.token).await).await;
    assert_eq!((status.as_u16(), code(&body)), (401, "UNAUTHENTICATED"), "afterwards it is a token like any wrong one");
    let line = server.event("/api/v1/audit", &people.alice, |event| event["action"] == "auth.session.timeout").await;
    assert_eq!((&line["user"], &line["detail"]["device"]), (&json!("alice"), &json!(login.device)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i01_a_new_password_ends_the_other_logins_and_the_old_one_is_asked_for() {
    let (server, people) = with_passwords(settings(), Terms::default()).await;
    let (one, two) = (server.login_again("acme", "carol").await, server.login_again("acme", "carol").await);
    let change = |token: &str, current: &str, new: &str| {
        let body = json!({ "currentPassword": current, "newPassword": new });
        server.request("POST", "/api/auth/password", token).json(&body)
    };
    for (current, new, status, told) in [
        ("wrong password", "battery staple", 401, "invalid_credentials"),
        (PASSWORD, "short", 400, "weak_password"),
        (PASSWORD, "carol", 400, "weak_password"),
    ] {
        let answer = tried(change(&one.token, current, new)).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, told));
    }
    assert_eq!(change(&one.token, PASSWORD, "battery staple").send().await.unwrap().status(), 204);
    assert_eq!(server.get("/api/auth/me", &one.token).await.status(), 200, "this one stays");
    assert_eq!(server.get("/api/auth/me", &two.token).await.status(), 401);
    assert_eq!(tried(attempt(&server, "carol@acme", PASSWORD)).await.0, 401);
    assert_eq!(tried(attempt(&server, "carol@acme", "battery staple")).await.0, 200);
    // Guessing the present one from a stolen login is guessing, too.
    for _ in 0..10 {
        tried(change(&one.token, "wrong password", "battery staple 2")).await;
    }
    assert_eq!(tried(change(&one.token, "battery staple", "battery staple 2")).await.1, "locked");
    // An admin gives a new one; nobody gives one to themselves without the old, and a narrow key to nobody.
    let path = |user: &str| format!("/api/v1/admin/accounts/acme/users/{user}/password");
    let new = json!({ "password": "something new" });
    assert_eq!(server.send("PUT", &path("carol"), &people.alice, new.clone()).await.status(), 200);
    assert_eq!(server.get("/api/auth/me", &one.token).await.status(), 401, "all of them end");
    let (status, body) = server.refused("PUT", &path("alice"), &people.alice, new.clone()).await;
    assert_eq!((status, reason(&body)), (403, "forbidden"));
    let (status, body) = server.refused("PUT", &path("alice"), &people.carol, new.clone()).await;
    assert_eq!((status, reason(&body)), (403, "admin_only"));
    let (status, _) = server.refused("PUT", &path("carol"), &people.bob, new).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r05_what_a_role_is_counts_at_the_next_request_of_a_login() {
    let (server, people) = with_passwords(settings(), Terms::default()).await;
    let login = server.login_again("acme", "carol").await;
    let make = || server.send("POST", "/api/v1/spaces", &login.token, json!({ "name": "x" }));
    assert_eq!(make().await.status(), 200);
    let role = "/api/v1/admin/accounts/acme/users/carol/role";
    server.done("PUT", role, &people.alice, json!({ "role": "viewer" })).await;
    let (status, body) = taken(make().await).await;
    assert_eq!((status.as_u16(), reason(&body)), (403, "viewer_readonly"));
    // What concerns their own sign-in a viewer may change (r06).
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "battery staple" });
    assert_eq!(server.send("POST", "/api/auth/password", &login.token, change).await.status(), 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i08_the_set_up_is_open_until_there_is_an_admin_and_asks_strangers_for_its_code() {
    let coded = Settings { setup_code: Some("abcd-efgh-ijkm".to_owned()), ..settings() };
    let server = Server::with(STEPS.to_vec(), coded).await;
    let status = async || server.done("GET", "/api/auth/setup/status", "", Value::Null).await;
    assert_eq!(status().await, json!({ "needed": true, "codeRequired": false }));
    let set_up = |body: Value| server.request("POST", "/api/auth/setup", "").json(&body);
    let wanted = json!({ "username": "ann", "password": "correct horse" });
    // From elsewhere, through a proxy, or by a page of somebody else: not without the code.
    let elsewhere = set_up(wanted.clone()).header("x-forwarded-for", "203.0.113.5");
    let (answered, body) = taken(elsewhere.send().await.unwrap()).await;
    assert_eq!((answered.as_u16(), &body["code"]), (403, &json!("setup_code")));
    let rebound = set_up(wanted.clone()).header("host", "evil.example");
    assert_eq!(tried(rebound).await.1, "setup_code");
    let page = set_up(wanted.clone()).header("origin", "http://evil.example");
    assert_eq!(tried(page).await.1, "cross_site");
    let mut coded = wanted.clone();
    coded["code"] = json!("abcd-efgh-ijkn");
    assert_eq!(tried(set_up(coded).header("host", "bailiwick.example")).await.1, "setup_code");
    assert_eq!(tried(set_up(json!({ "username": "ann", "password": "short" }))).await.1, "weak_password");
    // While there is another account, the machine's other users are to become nobody here.
    let tenant = json!({ "account_id": "acme", "admin_user_id": "alice" });
    server.done("POST", "/api/v1/admin/accounts", ROOT, tenant).await;
    assert_eq!(status().await, json!({ "needed": false, "codeRequired": false }));
    assert_eq!(tried(set_up(wanted.clone())).await.1, "set_up_already");
    server.done("DELETE", "/api/v1/admin/accounts/acme", ROOT, Value::Null).await;
    assert_eq!(status().await, json!({ "needed": true, "codeRequired": false }));
    // Two at once: one of them is the first.
    let both = tokio::join!(
        set_up(wanted.clone()).send(),
        set_up(json!({ "username": "eve", "password": "correct horse" })).send()
    );
    let mut answers = [both.0.unwrap().status().as_u16(), both.1.unwrap().status().as_u16()];
    answers.sort_unstable();
    assert!(matches!(answers, [201, 400 | 409]), "{answers:?}");
    assert_eq!(status().await, json!({ "needed": false, "codeRequired": false }));
    let (answered, told, _) = tried(set_up(json!({ "username": "mallory", "password": "correct horse" }))).await;
    assert_eq!((answered, told.as_str()), (400, "set_up_already"));
    let admin = ["ann", "eve"];
    let mut roles = Vec::new();
    for name in admin {
        let (status, made) = taken(attempt(&server, name, "correct horse").send().await.unwrap()).await;
        if status == 200 {
            let me = server.done("GET", "/api/auth/me", made["token"].as_str().unwrap(), Value::Null).await;
            roles.push((me["account"].clone(), me["role"].clone()));
        }
    }
    assert_eq!(roles, [(json!("default"), json!("admin"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i08_from_another_machine_the_code_opens_the_set_up() {
    let coded = Settings { setup_code: Some("abcd-efgh-ijkm".to_owned()), ..settings() };
    let server = Server::with(STEPS.to_vec(), coded).await;
    let body = json!({ "username": "ann", "password": "correct horse", "code": "abcd-efgh-ijkm" });
    let set_up = server.request("POST", "/api/auth/setup", "").json(&body).header("host", "bailiwick.example");
    assert_eq!(set_up.send().await.unwrap().status(), 201);
    // Behind a proxy everybody comes from this host, whatever the proxy leaves out.
    for behind in [
        Settings { public_url: Some("https://bailiwick.example".to_owned()), ..settings() },
        Settings { trusted_proxies: vec!["127.0.0.2".parse().unwrap()], ..settings() },
    ] {
        let server = Server::with(STEPS.to_vec(), behind).await;
        let body = json!({ "username": "ann", "password": "correct horse" });
        assert_eq!(tried(server.request("POST", "/api/auth/setup", "").json(&body)).await.1, "setup_code");
        let line = server.event("/api/v1/admin/audit", ROOT, |event| event["action"] == "setup.refused").await;
        assert_eq!(line["result"], "DENIED");
    }
    // Where nobody can sign in, nobody is set up.
    let server = Server::with(vec![Step::ApiKey], settings()).await;
    let body = json!({ "username": "ann", "password": "correct horse" });
    assert_eq!(tried(server.request("POST", "/api/auth/setup", "").json(&body)).await.1, "logins_off");
    // An account whose first admin has a key alone is set up, too.
    let server = Server::start().await;
    server.user("default", "ann", "admin", ROOT).await;
    assert_eq!(server.done("GET", "/api/auth/setup/status", "", Value::Null).await["needed"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i09_a_cookie_changes_nothing_without_the_pages_own_token() {
    let (server, _) = with_passwords(settings(), Terms::default()).await;
    let login = server.login_again("acme", "alice").await;
    let with_cookie = |method: &str, path: &str| {
        server.request(method, path, "").header("cookie", format!("vibe_session={}", login.token))
    };
    assert_eq!(with_cookie("GET", "/api/v1/spaces").send().await.unwrap().status(), 200, "control: reading goes");
    let make = || with_cookie("POST", "/api/v1/spaces").json(&json!({ "name": "x" }));
    let foreign = server.login_again("acme", "carol").await;
    for (request, told) in [
        (make(), "csrf"),
        (make().header("x-csrf-token", ""), "csrf"),
        (make().header("x-csrf-token", "A".repeat(43)), "csrf"),
        (make().header("x-csrf-token", &foreign.token), "csrf"),
        (make().header("origin", "http://evil.example"), "cross_site"),
        (make().header("sec-fetch-site", "cross-site"), "cross_site"),
        (with_cookie("DELETE", &format!("/api/v1/devices/{}", login.device)), "csrf"),
        (with_cookie("POST", "/eve/v1/session").json(&json!({ "message": "hi" })), "csrf"),
    ] {
        let (status, body) = taken(request.send().await.unwrap()).await;
        let code = body["code"].as_str().unwrap_or(reason(&body));
        assert_eq!((status.as_u16(), code), (403, told), "{body}");
    }
    let line = server.event("/api/v1/audit", &login.token, |event| event["action"] == "csrf.refused").await;
    assert_eq!((&line["result"], &line["user"]), (&json!("DENIED"), &json!("alice")), "{line}");
    // A header that no page of others can set is no cookie: exempt.
    let bearer = server.request("POST", "/api/v1/spaces", "").bearer_auth(&login.token).json(&json!({ "name": "x" }));
    assert_eq!(bearer.send().await.unwrap().status(), 200);
}

/// Sets an authenticator app up for somebody who is signed in; gives its secret, the recovery codes, and the code that confirmed it.
async fn with_app(server: &Server, token: &str) -> (String, Vec<String>, String) {
    let begun = server.done("POST", "/api/auth/2fa/totp", token, json!({ "password": PASSWORD })).await;
    let secret = begun["secret"].as_str().unwrap().to_owned();
    assert!(begun["url"].as_str().unwrap().contains(&format!("secret={secret}")));
    assert!(begun["qr"].as_str().unwrap().starts_with("<svg"));
    let used = totp_code(&secret, 0);
    let made = server.done("POST", "/api/auth/2fa/totp/confirm", token, json!({ "code": used })).await;
    let codes = made["recoveryCodes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned());
    (secret, codes.collect(), used)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_an_app_is_asked_for_and_each_code_is_good_once() {
    let (server, people) = with_passwords(settings(), Terms::default()).await;
    let login = server.login_again("acme", "carol").await;
    // Begun and not confirmed it is asked for by nobody; a wrong first code confirms nothing.
    let begun = server.done("POST", "/api/auth/2fa/totp", &login.token, json!({ "password": PASSWORD })).await;
    assert_eq!(tried(attempt(&server, "carol@acme", PASSWORD)).await.0, 200);
    let wrong = server.send("POST", "/api/auth/2fa/totp/confirm", &login.token, json!({ "code": "000000" })).await;
    assert_eq!(wrong.status(), 400);
    assert_eq!(
        server.send("POST", "/api/auth/2fa/totp", &login.token, json!({ "password": "wrong" })).await.status(),
        401
    );
    drop(begun);
    let (secret, codes, used) = with_app(&server, &login.token).await;
    assert_eq!(codes.len(), 10);
    let state = server.done("GET", "/api/auth/2fa", &login.token, Value::Null).await;
    assert_eq!(state, json!({ "totp": true, "recoveryCodes": 10, "passkeys": 0 }));
    // The secret is in no answer, log or file any more.
    let log = server.done("GET", "/api/v1/audit?limit=1000", &people.alice, Value::Null).await.to_string();
    assert!(!log.contains(&secret) && !log.contains(&codes[0]));
    let with_code = |code: &str| {
        let body = json!({ "username": "carol@acme", "password": PASSWORD, "totpCode": code });
        server.request("POST", "/api/auth/login", "").json(&body)
    };
    assert_eq!(tried(attempt(&server, "carol@acme", PASSWORD)).await, (401, "totp_required".to_owned(), None));
    assert_eq!(tried(attempt(&server, "carol@acme", "wrong")).await.1, "invalid_credentials", "the password first");
    // The code that confirmed the app is used up; the next step's is accepted a little early, once.
    assert_eq!(tried(with_code(&used)).await.1, "invalid_totp");
    let next = totp_code(&secret, 1);
    let (one, two) = tokio::join!(tried(with_code(&next)), tried(with_code(&next)));
    let mut told = [one.1, two.1];
    told.sort();
    assert_eq!(told, ["invalid_totp", "ok"], "two at once with one code");
    assert_eq!(tried(with_code(&next)).await.1, "invalid_totp");
    for wrong in [totp_code(&secret, 5), totp_code(&secret, -5), "12345".to_owned(), "abcdef".to_owned()] {
        assert_eq!(tried(with_code(&wrong)).await.1, "invalid_totp", "{wrong}");
    }
    // Asking for the code is a step on record, and a wrong one a failure.
    let asked = |event: &Value| event["action"] == "auth.second_factor.asked";
    let line = server.event("/api/v1/audit", &people.alice, asked).await;
    assert_eq!((&line["result"], &line["resource"]), (&json!("OK"), &json!("user:carol")), "{line}");
    let wrong = |event: &Value| event["detail"]["code"] == "invalid_totp";
    assert_eq!(server.event("/api/v1/audit", &people.alice, wrong).await["result"], "DENIED");
    // Another user of the same account has another secret, and is not asked.
    assert_eq!(tried(attempt(&server, "alice@acme", PASSWORD)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_wrong_codes_count_and_being_asked_does_not() {
    let (server, _) = with_passwords(settings(), Terms::default()).await;
    let login = server.login_again("acme", "carol").await;
    with_app(&server, &login.token).await;
    for _ in 0..15 {
        assert_eq!(tried(attempt(&server, "carol@acme", PASSWORD)).await.1, "totp_required");
    }
    let body = json!({ "username": "carol@acme", "password": PASSWORD, "totpCode": "000000" });
    for n in 0..10 {
        let told = tried(server.request("POST", "/api/auth/login", "").json(&body)).await.1;
        assert_eq!(told, "invalid_totp", "{n}");
    }
    assert_eq!(tried(attempt(&server, "carol@acme", PASSWORD)).await.1, "locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_r06_recovery_codes_open_once_each_and_an_admin_helps_on_record() {
    let (server, people) = with_passwords(settings(), Terms::default()).await;
    let login = server.login_again("acme", "vera").await;
    // A viewer, too (r06).
    let (secret, codes, _) = with_app(&server, &login.token).await;
    let with_code = |name: &str, code: &str| {
        let body = json!({ "username": name, "password": PASSWORD, "totpCode": code });
        server.request("POST", "/api/auth/login", "").json(&body)
    };
    assert_eq!(tried(with_code("vera@acme", &codes[0])).await.1, "ok");
    assert_eq!(tried(with_code("vera@acme", &codes[0])).await.1, "invalid_totp", "once");
    assert_eq!(tried(with_code("vera@acme", &format!(" {} ", codes[1].to_uppercase()))).await.1, "ok");
    assert_eq!(tried(with_code("vera@acme", "aaaa-bbbb-cccc")).await.1, "invalid_totp");
    let state = server.done("GET", "/api/auth/2fa", &login.token, Value::Null).await;
    assert_eq!(state["recoveryCodes"], 8);
    // They are vera's: bob of globex, with an app of his own, cannot use one.
    let bobs = server.login_again("globex", "bob").await;
    with_app(&server, &bobs.token).await;
    assert_eq!(tried(with_code("bob@globex", &codes[2])).await.1, "invalid_totp");
    // New ones make the old ones void.
    let both = json!({ "password": PASSWORD, "code": codes[2] });
    let renewed = server.done("POST", "/api/auth/2fa/recovery-codes", &login.token, both).await;
    assert_eq!(tried(with_code("vera@acme", &codes[3])).await.1, "invalid_totp");
    let fresh = renewed["recoveryCodes"][0].as_str().unwrap();
    // Taking the app away asks for the password and a code.
    for (password, code, status) in
        [("wrong", fresh, 401), (PASSWORD, "000000", 401), (PASSWORD, "aaaa-bbbb-cccc", 409)]
    {
        let body = json!({ "password": password, "code": code });
        assert_eq!(
            server.send("POST", "/api/auth/2fa/totp/remove", &login.token, body).await.status(),
            status,
            "{code}"
        );
    }
    assert_eq!(tried(attempt(&server, "vera@acme", PASSWORD)).await.1, "totp_required", "it is still there");
    let body = json!({ "password": PASSWORD, "code": fresh });
    assert_eq!(server.send("POST", "/api/auth/2fa/totp/remove", &login.token, body).await.status(), 204);
    assert_eq!(tried(attempt(&server, "vera@acme", PASSWORD)).await.1, "ok");
    // Who lost both asks an admin; that is on record, and ends the logins. Nobody helps themselves so.
    with_app(&server, &login.token).await;
    let path = |user: &str| format!("/api/v1/admin/accounts/acme/users/{user}/2fa");
    for (key, user, status) in [(&people.carol, "vera", 403), (&people.bob, "vera", 404), (&people.alice, "alice", 403)]
    {
        assert_eq!(server.request("DELETE", &path(user), key).send().await.unwrap().status(), status);
    }
    server.done("DELETE", &path("vera"), &people.alice, Value::Null).await;
    assert_eq!(server.get("/api/auth/me", &login.token).await.status(), 401);
    assert_eq!(tried(attempt(&server, "vera@acme", PASSWORD)).await.1, "ok");
    let line = server.event("/api/v1/audit", &people.alice, |event| event["action"] == "auth.2fa.reset").await;
    assert_eq!((&line["user"], &line["resource"]), (&json!("alice"), &json!("user:vera")), "{line}");
    assert!(!secret.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_name_and_a_password_with_each_request_are_their_user_while_nothing_changes() {
    let steps = vec![Step::ApiKey, Step::Basic];
    let server = Server::on(steps, settings(), Terms::default()).await;
    let people = server.people().await;
    for (account, user) in [("acme", "alice"), ("acme", "carol"), ("globex", "bob")] {
        server.password(account, user).await;
    }
    let ask = async |name: &str, password: &str| {
        let request = server.request("GET", "/eve/v1/info", "").basic_auth(name, Some(password));
        let response = request.send().await.unwrap();
        let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), challenge.unwrap_or_default())
    };
    let union = "Bearer, Basic realm=\"eve\", charset=\"UTF-8\"";
    for _ in 0..3 {
        assert_eq!(ask("carol@acme", PASSWORD).await.0, 200);
        assert_eq!(ask("bob@globex", PASSWORD).await.0, 200);
    }
    assert_eq!(ask("carol@acme", "wrong").await, (401, union.to_owned()));
    assert_eq!(ask("nobody@acme", PASSWORD).await, (401, union.to_owned()));
    let none = server.get("/eve/v1/info", "").await;
    assert_eq!((none.status().as_u16(), none.headers()["www-authenticate"].to_str().unwrap()), (401, union));
    let wrong = server.get("/eve/v1/info", "wrong").await;
    assert_eq!(wrong.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
    for garbage in ["Basic", "Basic !!!!", "Basic YWxpY2U=", "Basic OnB3"] {
        let request = server.request("GET", "/eve/v1/info", "").header("authorization", garbage);
        assert_eq!(request.send().await.unwrap().status(), 401, "{garbage}");
    }
    // A password that is remembered is not remembered beyond what it was checked against.
    let path = "/api/v1/admin/accounts/acme/users/carol/password";
    server.done("PUT", path, &people.alice, json!({ "password": "something new" })).await;
    assert_eq!(ask("carol@acme", PASSWORD).await.0, 401);
    assert_eq!(ask("carol@acme", "something new").await.0, 200);
    server.done("DELETE", "/api/v1/admin/accounts/acme/users/carol", &people.alice, Value::Null).await;
    assert_eq!(ask("carol@acme", "something new").await.0, 401);
    // Guessing is counted here, too.
    for _ in 0..10 {
        ask("bob@globex", "wrong").await;
    }
    assert_eq!(ask("bob@globex", "another guess").await.0, 429);
    let by_password = |event: &Value| event["credential"].as_str().unwrap().starts_with("basic:");
    assert_eq!(server.event("/api/v1/audit", &people.bob, by_password).await["user"], "bob");
    let failed = |event: &Value| event["detail"]["code"] == "invalid_credentials";
    assert_eq!(server.event("/api/v1/audit", &people.bob, failed).await["resource"], "user:bob");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_who_has_a_second_factor_is_not_let_in_by_the_first_alone() {
    let steps = vec![Step::ApiKey, Step::Session, Step::Basic];
    let server = Server::on(steps, settings(), Terms::default()).await;
    server.people().await;
    let login = server.login("acme", "alice").await;
    let ask = async || {
        let request = server.request("GET", "/api/auth/me", "").basic_auth("alice@acme", Some(PASSWORD));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask().await, 200);
    with_app(&server, &login.token).await;
    assert_eq!(ask().await, 401, "though the password is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i01_no_login_outlives_the_change_of_the_password_that_it_was_made_with() {
    let lenient = Rule { failures: 10_000, ..LockoutSettings::default().account };
    let lockout = LockoutSettings { account: lenient, address: lenient, keep: Keep::Memory };
    let (server, people) = with_passwords(settings(), Terms { lockout, ..Terms::default() }).await;
    let path = "/api/v1/admin/accounts/acme/users/carol/password";
    let mut outlived = 0;
    for round in 0..10 {
        server.password("acme", "carol").await;
        // Logins and the change of the password at once, in any order.
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let attempt = attempt(&server, "carol@acme", PASSWORD);
            attempts.spawn(async move { taken(attempt.send().await.unwrap()).await });
        }
        server.done("PUT", path, &people.alice, json!({ "password": format!("another one {round}") })).await;
        for (status, made) in attempts.join_all().await {
            if status == 200 && server.get("/api/auth/me", made["token"].as_str().unwrap()).await.status() == 200 {
                outlived += 1;
            }
        }
    }
    assert_eq!(outlived, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i03_a_remembered_password_is_no_way_round_the_lockout() {
    let proxies = Settings { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..settings() };
    let server = Server::on(vec![Step::ApiKey, Step::Basic], proxies, Terms::default()).await;
    server.people().await;
    server.password("acme", "carol").await;
    let from = async |address: &str, password: &str| {
        let request = server.request("GET", "/api/auth/me", "").basic_auth("carol@acme", Some(password));
        request.header("x-forwarded-for", address.to_owned()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(from("198.51.100.1", PASSWORD).await, 200, "her program, which is remembered");
    for n in 0..10 {
        assert_eq!(from("203.0.113.5", &format!("guess {n}")).await, 401);
    }
    assert_eq!(from("203.0.113.5", PASSWORD).await, 429, "the right guess looks like any other");
    assert_eq!(from("198.51.100.1", PASSWORD).await, 200, "and her program goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i02_the_count_of_failures_tells_nobody_which_accounts_there_are() {
    let (server, _) = with_passwords(settings(), Terms::default()).await;
    let mut told = Vec::new();
    for account in ["acme", "nowhere"] {
        for _ in 0..10 {
            let body = json!({ "username": "x", "account": account, "password": "wrong password" });
            tried(server.request("POST", "/api/auth/login", "").json(&body)).await;
        }
        told.push(tried(attempt(&server, &format!("x@{account}"), "wrong password")).await.1);
    }
    assert_eq!(told, ["locked", "locked"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_the_password_alone_makes_no_room_for_guesses_at_codes() {
    let (server, _) = with_passwords(settings(), Terms::default()).await;
    let login = server.login_again("acme", "carol").await;
    // Guesses at the first code of an app that was begun are counted, too.
    server.done("POST", "/api/auth/2fa/totp", &login.token, json!({ "password": PASSWORD })).await;
    let guess = |path: &str, body: Value| server.request("POST", path, &login.token).json(&body);
    assert_eq!(tried(guess("/api/auth/2fa/totp/confirm", json!({ "code": "000000" }))).await.1, "invalid_totp");
    with_app(&server, &login.token).await;
    let both = json!({ "password": PASSWORD, "code": "000000" });
    let mut told = Vec::new();
    for _ in 0..12 {
        told.push(tried(guess("/api/auth/2fa/totp/remove", both.clone())).await.1);
        // Between the guesses, the password alone.
        told.push(tried(guess("/api/auth/2fa/totp", json!({ "password": PASSWORD }))).await.1);
    }
    assert_eq!(told.last().unwrap(), "locked", "{told:?}");
    // Who has no app is not locked for asking to remove it.
    let veras = server.login_again("acme", "vera").await;
    for _ in 0..12 {
        let told = tried(server.request("POST", "/api/auth/2fa/totp/remove", &veras.token).json(&both)).await;
        assert_eq!(told.1, "totp_not_set_up");
    }
}
