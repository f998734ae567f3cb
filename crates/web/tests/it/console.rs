//! The console as a browser without a script uses it: cookies, forms, and where one is led.

use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_web::Settings;
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{PASSWORD, ROOT, Server, Terms, form, page_reason, settings};

/// A browser: it keeps the one cookie, and sends forms as its page's own.
pub struct Browser<'s> {
    pub server: &'s Server,
    pub cookie: String,
}

impl<'s> Browser<'s> {
    pub fn new(server: &'s Server) -> Self {
        Self { server, cookie: String::new() }
    }

    pub async fn send(&mut self, method: &str, path: &str, fields: Option<Value>) -> Response {
        let mut request = self.server.request(method, path, "");
        if !self.cookie.is_empty() {
            request = request.header("cookie", format!("other=1; vibe_session={}", self.cookie));
        }
        if let Some(fields) = fields {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form(&fields));
        }
        let response = request.send().await.unwrap();
        if let Some(set) = response.headers().get("set-cookie") {
            let set = set.to_str().unwrap();
            let (_, rest) = set.split_once("vibe_session=").unwrap();
            self.cookie = rest.split(';').next().unwrap().to_owned();
        }
        response
    }

    pub async fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, None).await
    }

    pub async fn post(&mut self, path: &str, fields: Value) -> Response {
        self.send("POST", path, Some(fields)).await
    }

    pub async fn sign_in(&mut self, name: &str) {
        let response = self.post("/login", json!({ "username": name, "password": PASSWORD })).await;
        assert_eq!((response.status().as_u16(), place(&response)), (303, "/"), "{name}");
    }

    /// The form token of a page.
    pub async fn token(&mut self, path: &str) -> String {
        let page = self.get(path).await.text().await.unwrap();
        let (_, rest) = page.split_once("name=\"_csrf\" value=\"").unwrap_or_else(|| panic!("{path}: {page}"));
        rest.split('"').next().unwrap().to_owned()
    }
}

pub fn place(response: &Response) -> &str {
    response.headers().get("location").map_or("", |to| to.to_str().unwrap())
}

pub async fn server_with(settings: Settings, terms: Terms) -> Server {
    let server = Server::on(vec![Step::ApiKey, Step::Session], settings, terms).await;
    let _ = server.people().await;
    server.user("default", "ann", "admin", ROOT).await;
    for (account, user) in [("acme", "alice"), ("acme", "carol"), ("acme", "vera"), ("globex", "bob")] {
        server.password(account, user).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i01_the_login_page_sets_a_cookie_that_no_script_reads_and_signing_out_ends_it() {
    for (url, secure) in [(None, false), (Some("https://bailiwick.example"), true)] {
        let public = Settings { public_url: url.map(str::to_owned), ..settings() };
        let server = server_with(public, Terms::default()).await;
        let mut browser = Browser::new(&server);
        let page = browser.get("/spaces?x=1").await;
        assert_eq!((page.status().as_u16(), place(&page)), (303, "/login?next=%2Fspaces%3Fx%3D1"));
        let sent = json!({ "username": "alice@acme", "password": PASSWORD, "next": "/spaces?x=1" });
        let response = browser.post("/login", sent).await;
        assert_eq!((response.status().as_u16(), place(&response)), (303, "/spaces?x=1"));
        let set = response.headers()["set-cookie"].to_str().unwrap();
        assert!(set.contains("; Path=/; HttpOnly; SameSite=Lax") && set.contains("; Secure") == secure, "{set}");
        let page = browser.get("/spaces").await;
        assert_eq!(page.status(), 200);
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = page.text().await.unwrap();
        assert!(text.contains("alice@acme") && !text.contains("<style") && !text.contains(" style="));
        assert!(!text.contains("<script>") && !text.contains(" onclick"));
        let kept = browser.cookie.clone();
        let token = browser.token("/spaces").await;
        let out = browser.post("/logout", json!({ "_csrf": token })).await;
        assert_eq!((out.status().as_u16(), place(&out)), (303, "/login?ok=signed_out"));
        assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
        browser.cookie = kept;
        assert_eq!(browser.get("/spaces").await.status(), 303, "the token is dead, not only forgotten");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i01_a_login_leads_only_to_this_server_and_begins_a_new_session() {
    let server = server_with(settings(), Terms::default()).await;
    for evil in ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\tb", ""] {
        let mut browser = Browser::new(&server);
        let sent = json!({ "username": "alice@acme", "password": PASSWORD, "next": evil });
        assert_eq!(place(&browser.post("/login", sent).await), "/", "{evil:?}");
    }
    // A cookie that somebody else put there becomes nobody's login (session fixation).
    let thief = server.login_again("acme", "carol").await;
    let mut browser = Browser { server: &server, cookie: thief.token.clone() };
    browser.sign_in("alice@acme").await;
    assert_ne!(browser.cookie, thief.token);
    let me = |token: &str| {
        let token = token.to_owned();
        async { server.done("GET", "/api/auth/me", &{ token }, Value::Null).await["username"].clone() }
    };
    assert_eq!((me(&browser.cookie).await, me(&thief.token).await), (json!("alice"), json!("carol")));
    // What was typed comes back as text.
    let mut browser = Browser::new(&server);
    let sent = json!({ "username": "\"><script>alert(1)</script>", "password": "x" });
    let page = browser.post("/login", sent).await;
    assert_eq!(page.status(), 401);
    let text = page.text().await.unwrap();
    assert!(!text.contains("<script>alert") && text.contains("Invalid username or password."), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i09_a_form_is_believed_with_its_pages_token_alone() {
    let server = server_with(settings(), Terms::default()).await;
    let (mut alice, mut bob) = (Browser::new(&server), Browser::new(&server));
    alice.sign_in("alice@acme").await;
    bob.sign_in("bob@globex").await;
    let (own, bobs) = (alice.token("/spaces").await, bob.token("/spaces").await);
    for (fields, told) in [
        (json!({ "name": "x" }), "csrf"),
        (json!({ "name": "x", "_csrf": "" }), "csrf"),
        (json!({ "name": "x", "_csrf": bobs }), "csrf"),
        (json!({ "name": "x", "_csrf": format!("{own}x") }), "csrf"),
    ] {
        let response = alice.post("/spaces", fields).await;
        assert_eq!((response.status().as_u16(), page_reason(&response).as_str()), (403, told));
    }
    let twice = server
        .request("POST", "/spaces", "")
        .header("cookie", format!("vibe_session={}", alice.cookie))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("name=x&_csrf={own}&_csrf={own}"));
    assert_eq!(page_reason(&twice.send().await.unwrap()), "csrf");
    // With the token, from a page of somebody else: also not.
    let cross = server
        .request("POST", "/spaces", "")
        .header("cookie", format!("vibe_session={}", alice.cookie))
        .header("origin", "http://evil.example")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("name=x&_csrf={own}"));
    assert_eq!(page_reason(&cross.send().await.unwrap()), "cross_site");
    let login = server.request("POST", "/login", "").header("sec-fetch-site", "cross-site");
    let login = login.header("content-type", "application/x-www-form-urlencoded").body("username=a&password=b");
    assert_eq!(page_reason(&login.send().await.unwrap()), "cross_site", "nobody is signed in by a page of others");
    let made = alice.post("/spaces", json!({ "name": "x", "_csrf": own })).await;
    assert!(made.status() == 303 && place(&made).starts_with("/spaces/spc_"), "the control");
    // An upload is believed by the token in its address.
    let space = place(&made).split(['/', '?']).nth(2).unwrap().to_owned();
    let upload = |query: &str| {
        let path = format!("/api/v1/spaces/{space}/files/content?path=a.txt{query}");
        server.request("PUT", &path, "").header("cookie", format!("vibe_session={}", alice.cookie)).body("text")
    };
    assert_eq!(upload("").send().await.unwrap().status(), 403);
    assert_eq!(upload("&_csrf=wrong").send().await.unwrap().status(), 403);
    assert_eq!(upload(&format!("&_csrf={own}")).send().await.unwrap().status(), 200);
    let key = server.login_again("acme", "alice").await.token;
    let line = server.event("/api/v1/audit", &key, |event| event["action"] == "csrf.refused").await;
    assert_eq!((&line["result"], &line["user"]), (&json!("DENIED"), &json!("alice")), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i07_r03_a_browser_is_led_to_the_login_when_it_timed_out_and_to_the_dashboard_from_what_is_for_admins() {
    let terms = Terms { idle: Some(Duration::from_millis(900)), ..Terms::default() };
    let server = server_with(settings(), terms).await;
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    let page = browser.get("/users").await;
    assert_eq!((page.status().as_u16(), place(&page)), (303, "/?err=admin_only"));
    let dashboard = browser.get("/?err=admin_only").await.text().await.unwrap();
    assert!(dashboard.contains("for admins of this account") && !dashboard.contains("href=\"/users\""));
    // What stands in an address is a word of ours or nothing.
    let odd = browser.get("/?err=%3Cscript%3E&ok=You+won").await.text().await.unwrap();
    assert!(!odd.contains("You won") && !odd.contains("class=\"notice good"), "{odd}");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let page = browser.get("/spaces").await;
    assert_eq!((page.status().as_u16(), place(&page)), (303, "/login?err=session_timeout"));
    assert_eq!(browser.cookie, "", "the browser is told to forget it");
    let login = browser.get("/login?err=session_timeout").await.text().await.unwrap();
    assert!(login.contains("nothing happened for a while"), "{login}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i08_a_new_server_leads_to_its_set_up_once() {
    let server = Server::start().await;
    let mut browser = Browser::new(&server);
    assert_eq!(place(&browser.get("/").await), "/login");
    assert!(browser.get("/login").await.text().await.unwrap().contains("<a href=\"/setup\">"));
    let short = browser.post("/setup", json!({ "username": "ann", "password": "short" })).await;
    assert_eq!(short.status(), 400);
    assert!(short.text().await.unwrap().contains("too short"));
    let made = browser.post("/setup", json!({ "username": "ann", "password": PASSWORD })).await;
    assert_eq!(place(&made), "/login?ok=set_up");
    browser.sign_in("ann").await;
    assert!(browser.get("/").await.text().await.unwrap().contains("ann@default"));
    assert_eq!(place(&Browser::new(&server).get("/setup").await), "/login");
    let again = browser.post("/setup", json!({ "username": "eve", "password": PASSWORD })).await;
    assert_eq!(again.status(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_walk_that_ends_in_placeholder_leads_a_browser_to_the_login_and_a_program_nowhere() {
    let steps = vec![Step::ApiKey, Step::Session, Step::Placeholder];
    let server = Server::on(steps, settings(), Terms::default()).await;
    server.people().await;
    server.password("acme", "alice").await;
    let mut browser = Browser::new(&server);
    assert_eq!(place(&browser.get("/spaces").await), "/login?next=%2Fspaces");
    browser.sign_in("alice@acme").await;
    assert_eq!(browser.get("/spaces").await.status(), 200);
    let told = server.get("/api/v1/spaces", "").await;
    assert_eq!(told.status(), 401);
    assert!(told.text().await.unwrap().contains("authentication_not_set_up"));
}
