//! Programs that are known by a document, and those that lie in it. The documents are on the loopback, behind
//! a client that reaches them under names; everything else of the call is the real client's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use bailiwick_auth::authn::outbound::{Call, Calling, LedBy, Outbound};
use bailiwick_web::Documents;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::console::{Browser, server_with};
use crate::oauth::{SPACES, allow, authorize, status, with};
use crate::oidc::outbound;
use crate::support::{CALLBACK, Server, Terms, answered, consent, page_reason, redeeming, renewing, settings, taken};

const HOST: &str = "https://app.example";

/// What is at a path.
#[derive(Clone)]
enum Page {
    Json(Value),
    /// Of that type, with that text.
    Text(&'static str, String),
    Redirect,
    Broken,
    Endless,
    Silence,
}

#[derive(Default)]
struct Inner {
    pages: Mutex<HashMap<String, Page>>,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    doors: Option<Semaphore>,
}

/// Somebody's web server, which is `app.example` to the client in front of it.
#[derive(Clone)]
struct Site {
    inner: Arc<Inner>,
    url: String,
    client: Arc<dyn Outbound>,
}

impl Site {
    async fn start(doors: Option<Semaphore>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner { doors, ..Inner::default() });
        let router = Router::new().fallback(page).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, url, client: outbound() }
    }

    fn has(&self, path: &str, page: Page) {
        self.inner.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    fn asked(&self) -> usize {
        self.inner.asked.load(Ordering::SeqCst)
    }

    async fn server(&self) -> Server {
        let documents = Documents::fetched_by(Arc::new(self.clone()));
        server_with(settings(), Terms { documents, ..Terms::default() }).await
    }
}

impl Outbound for Site {
    fn call<'a>(&'a self, call: Call<'a>) -> Calling<'a> {
        assert_eq!((call.led_by, call.form.is_none()), (LedBy::Stranger, true), "{}", call.url);
        // Any other name is resolved and judged as it is.
        let Some(path) = call.url.strip_prefix(HOST) else { return self.client.call(call) };
        let url = format!("{}{path}", self.url);
        Box::pin(async move {
            let led_by = LedBy::Configuration(&self.url);
            self.client.call(Call { url: &url, led_by, form: None }).await
        })
    }
}

async fn page(State(site): State<Arc<Inner>>, uri: Uri) -> Response {
    site.asked.fetch_add(1, Ordering::SeqCst);
    let now = site.at_once.fetch_add(1, Ordering::SeqCst) + 1;
    site.most_at_once.fetch_max(now, Ordering::SeqCst);
    if let Some(doors) = &site.doors {
        doors.acquire().await.unwrap().forget();
    }
    site.at_once.fetch_sub(1, Ordering::SeqCst);
    let page = site.pages.lock().unwrap().get(uri.path()).cloned();
    match page {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Page::Json(value)) => text("application/json", value.to_string()),
        Some(Page::Text(kind, body)) => text(kind, body),
        Some(Page::Redirect) => Redirect::temporary("/good").into_response(),
        Some(Page::Broken) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Page::Endless) => {
            let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096]));
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(endless)).into_response()
        }
        Some(Page::Silence) => std::future::pending().await,
    }
}

fn text(kind: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=600")], body).into_response()
}

fn document(path: &str) -> Value {
    json!({
        "client_id": format!("{HOST}{path}"), "client_name": "Probe & Sons", "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "none", "logo_uri": format!("{HOST}/logo.png"),
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
    })
}

async fn page_of(browser: &mut Browser<'_>, client: &str) -> (u16, String, String) {
    let page = browser.get(&authorize(&consent(client))).await;
    assert!(page.headers().get("location").is_none(), "{client}");
    (page.status().as_u16(), page_reason(&page), page.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_known_by_its_document_and_its_consent_outlives_it() {
    let site = Site::start(None).await;
    site.has("/good", Page::Json(document("/good")));
    let server = site.server().await;
    let client = format!("{HOST}/good");
    let (_, about) = taken(server.get("/.well-known/oauth-authorization-server", "").await).await;
    assert_eq!(about["client_id_metadata_document_supported"], true);
    // Nobody who is not signed in has it fetched, and no program.
    let led = server.get(&authorize(&consent(&client)), "").await;
    assert_eq!(led.status(), 303);
    assert_eq!(server.tokens(&redeeming(&client, "bwc_aaaaaaaaaaaaaaaa_x")).await.0, 400);
    assert_eq!(site.asked(), 0);
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    let (status_of, _, shown) = page_of(&mut browser, &client).await;
    assert_eq!(status_of, 200, "{shown}");
    for told in ["Probe &#38; Sons", "A document at <strong>app.example</strong>", "another program there", &client] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    assert!(!shown.contains("logo") && !shown.contains("<img"), "{shown}");
    let code = allow(&mut browser, &consent(&client), json!({})).await;
    let (status_of, tokens) = server.tokens(&redeeming(&client, &code)).await;
    assert_eq!(status_of, 200, "{tokens}");
    let access = tokens["access_token"].as_str().unwrap();
    let me = server.done("GET", "/api/auth/me", access, Value::Null).await;
    assert_eq!((&me["username"], &me["account"]), (&json!("carol"), &json!("acme")));
    let rows = server.done("GET", "/api/v1/applications", access, Value::Null).await;
    assert_eq!((&rows[0]["client_id"], &rows[0]["name"]), (&json!(client), &json!("Probe & Sons")));
    // One fetch for all of that, and for the user of another account, who gets tokens of their own.
    let mut bob = Browser::new(&server);
    bob.sign_in("bob@globex").await;
    let bobs = allow(&mut bob, &consent(&client), json!({})).await;
    let (_, bobs) = server.tokens(&redeeming(&client, &bobs)).await;
    assert_eq!(site.asked(), 1);
    let space = server.space(bobs["access_token"].as_str().unwrap(), "bobs").await;
    assert_eq!(status(&server, &format!("{SPACES}/{space}"), access).await, 404);
    // Another document's client has no use for what this one was given, and a secret is nobody's.
    site.has("/other", Page::Json(document("/other")));
    let other = format!("{HOST}/other");
    let refresh = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(server.tokens(&renewing(&other, refresh)).await.0, 400);
    let (refused, told) = server.tokens(&with(renewing(&client, refresh), json!({ "client_secret": "x" }))).await;
    assert_eq!((refused.as_u16(), &told["error"]), (401, &json!("invalid_client")));
    // The document is gone; what its user allowed is not.
    site.has("/good", Page::Broken);
    let (status_of, next) = server.tokens(&renewing(&client, refresh)).await;
    assert_eq!(status_of, 200, "{next}");
    assert_eq!(site.asked(), 1, "who asks for tokens has nothing fetched");
    // On record in the account of whoever had it fetched, alone.
    let (alice, bob) = (server.login_again("acme", "alice").await.token, bobs["access_token"].as_str().unwrap());
    let fetched = |event: &Value| event["action"] == "client.fetch";
    let line = server.event("/api/v1/audit", &alice, fetched).await;
    assert_eq!((&line["user"], &line["detail"]["client"]), (&json!("carol"), &json!(client)), "{line}");
    let bobs_log = server.login_again("globex", "bob").await.token;
    server.event("/api/v1/audit", &bobs_log, |event| event["action"] == "application.allow").await;
    let events = server.done("GET", "/api/v1/audit", &bobs_log, Value::Null).await;
    assert!(!events.as_array().unwrap().iter().any(fetched), "{events}");
    // Its user ends it.
    let id = rows[0]["id"].as_str().unwrap();
    let csrf = browser.token("/applications").await;
    browser.post(&format!("/applications/{id}/end"), json!({ "_csrf": csrf })).await;
    assert_eq!(status(&server, SPACES, next["access_token"].as_str().unwrap()).await, 401);
    assert_eq!(status(&server, SPACES, bob).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_lies_lets_nobody_in_and_leads_nowhere() {
    let site = Site::start(None).await;
    let changed = |path: &str, change: Value| Page::Json(with(document(path), change));
    let lies = [
        ("/other", changed("/other", json!({ "client_id": format!("{HOST}/good") })), "its client_id is not"),
        ("/case", changed("/case", json!({ "client_id": format!("{HOST}/CASE") })), "its client_id is not"),
        ("/none", changed("/none", json!({ "client_id": null })), "lacks something"),
        ("/secret", changed("/secret", json!({ "client_secret": "x" })), "speaks of a secret"),
        ("/ends", changed("/ends", json!({ "client_secret_expires_at": 0 })), "speaks of a secret"),
        ("/basic", changed("/basic", json!({ "token_endpoint_auth_method": "client_secret_basic" })), "of a secret"),
        ("/jwt", changed("/jwt", json!({ "token_endpoint_auth_method": "private_key_jwt" })), "speaks of a secret"),
        ("/nowhere", changed("/nowhere", json!({ "redirect_uris": [] })), "no address to go back to"),
        ("/scheme", changed("/scheme", json!({ "redirect_uris": ["com.example.app:/cb"] })), "no address to go back"),
        ("/plain", changed("/plain", json!({ "redirect_uris": ["http://app.example/cb"] })), "no address to go back"),
        ("/grants", changed("/grants", json!({ "grant_types": ["client_credentials"] })), "lacks something"),
        ("/name", changed("/name", json!({ "client_name": "a\u{202e}b" })), "lacks something"),
        ("/long", changed("/long", json!({ "client_name": "a".repeat(101) })), "lacks something"),
        ("/huge", changed("/huge", json!({ "x": "a".repeat(8192) })), "at most 8 KiB"),
        ("/twice", Page::Text("application/json", "{\"client_id\":\"a\",\"client_id\":\"b\"}".to_owned()), "lacks"),
        ("/html", Page::Text("text/html", document("/html").to_string()), "JSON of at most"),
        ("/picture", Page::Text("image/png", document("/picture").to_string()), "JSON of at most"),
        ("/garbage", Page::Text("application/json", "<html>".to_owned()), "lacks something"),
        ("/away", Page::Redirect, "cannot be had"),
        ("/broken", Page::Broken, "cannot be had"),
        ("/endless", Page::Endless, "cannot be had"),
        ("/slow", Page::Silence, "cannot be had"),
    ];
    for (path, page, _) in &lies {
        site.has(path, page.clone());
    }
    site.has("/good", Page::Json(document("/good")));
    site.has("/suffix", Page::Text("application/x+json; charset=utf-8", document("/suffix").to_string()));
    // One user has no more than ten fetched within a minute.
    for some in lies.chunks(8) {
        let server = site.server().await;
        let mut browser = Browser::new(&server);
        browser.sign_in("carol@acme").await;
        let csrf = browser.token("/spaces").await;
        for (path, _, told) in some {
            let client = format!("{HOST}{path}");
            let (status, reason, text) = page_of(&mut browser, &client).await;
            assert_eq!((status, reason.as_str()), (400, "client_document"), "{path}: {text}");
            assert!(text.contains(told), "{path}: {text}");
            let asked = site.asked();
            let sent = with(consent(&client), json!({ "_csrf": csrf, "decision": "allow" }));
            let posted = browser.post("/oauth/authorize", sent).await;
            assert_eq!((posted.status().as_u16(), posted.headers().get("location")), (400, None), "{path}");
            assert_eq!(site.asked(), asked, "a failure is remembered");
        }
        for good in ["/good", "/suffix"] {
            let (status, _, text) = page_of(&mut browser, &format!("{HOST}{good}")).await;
            assert_eq!(status, 200, "the control: {text}");
        }
    }
    // An address that the document does not name, and one that is another's.
    let server = site.server().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    for elsewhere in ["https://evil.example/cb", "http://localhost:3000/callback", "http://127.0.0.1:3000/other"] {
        let asked = with(consent(&format!("{HOST}/good")), json!({ "redirect_uri": elsewhere }));
        let page = browser.get(&authorize(&asked)).await;
        assert_eq!((page.status().as_u16(), page_reason(&page).as_str()), (400, "redirect_uri"), "{elsewhere}");
        assert!(page.headers().get("location").is_none());
    }
    let alice = server.login_again("acme", "alice").await.token;
    server.event("/api/v1/audit", &alice, |event| event["action"] == "client.fetch").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_of_the_operators_network_is_called_for_a_stranger() {
    let site = Site::start(None).await;
    site.has("/good", Page::Json(document("/good")));
    let server = site.server().await;
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    let port = site.url.rsplit(':').next().unwrap();
    // No client's id at all.
    for id in [
        site.url.clone() + "/good",
        format!("https://127.0.0.1:{port}/good"),
        "https://10.0.0.7/client".to_owned(),
        "https://[::1]/client".to_owned(),
        "https://localhost/client".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        format!("{HOST}/good?x=1"),
        format!("{HOST}/good#x"),
        format!("{HOST}/a/../good"),
        format!("{HOST}:443/good"),
        "https://APP.example/good".to_owned(),
        "https://u@app.example/good".to_owned(),
        HOST.to_owned(),
    ] {
        let (status, reason, _) = page_of(&mut browser, &id).await;
        assert_eq!((status, reason.as_str()), (400, "unknown_client"), "{id}");
    }
    // A name that is resolved to the loopback: RFC 6761, section 6.3, or to nothing.
    let (status, reason, text) = page_of(&mut browser, &format!("https://app.localhost:{port}/good")).await;
    assert_eq!((status, reason.as_str()), (400, "client_document"), "{text}");
    assert_eq!(site.asked(), 0);
    let (status, ..) = page_of(&mut browser, &format!("{HOST}/good")).await;
    assert_eq!((status, site.asked()), (200, 1), "the control");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_a_document_is_fetched_once_for_all_who_ask_and_a_few_times_a_minute_for_one() {
    let site = Site::start(Some(Semaphore::new(0))).await;
    site.has("/good", Page::Json(document("/good")));
    let server = site.server().await;
    let mut carol = Browser::new(&server);
    let mut bob = Browser::new(&server);
    carol.sign_in("carol@acme").await;
    bob.sign_in("bob@globex").await;
    let good = format!("{HOST}/good");
    let mut second = Browser { server: &server, cookie: carol.cookie.clone() };
    let opens = async {
        while site.asked() == 0 {
            tokio::task::yield_now().await;
        }
        site.inner.doors.as_ref().unwrap().add_permits(1000);
    };
    let (one, two, three, ()) =
        tokio::join!(page_of(&mut carol, &good), page_of(&mut second, &good), page_of(&mut bob, &good), opens);
    assert_eq!((one.0, two.0, three.0, site.asked()), (200, 200, 200, 1));
    assert_eq!(site.inner.most_at_once.load(Ordering::SeqCst), 1);
    // One user has no more than a few fetched; another one does not notice.
    let mut told = Vec::new();
    for n in 0..20 {
        told.push(page_of(&mut carol, &format!("{HOST}/missing/{n}")).await.0);
    }
    let fetched = told.iter().filter(|status| **status == 400).count();
    assert!((7..=10).contains(&fetched) && told.contains(&429), "{told:?}");
    assert_eq!(page_of(&mut carol, &good).await.0, 200, "what is there needs no fetch");
    assert_eq!(page_of(&mut bob, &format!("{HOST}/missing/bob")).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_documents_are_off_nothing_is_fetched_and_no_address_is_a_client() {
    let server = server_with(settings(), Terms::default()).await;
    let (_, about) = taken(server.get("/.well-known/oauth-authorization-server", "").await).await;
    assert_eq!(about["client_id_metadata_document_supported"], false);
    let mut browser = Browser::new(&server);
    browser.sign_in("carol@acme").await;
    let client = format!("{HOST}/good");
    let (status, reason, _) = page_of(&mut browser, &client).await;
    assert_eq!((status, reason.as_str()), (400, "unknown_client"));
    let (status, told) = server.tokens(&renewing(&client, "bwr_aaaaaaaaaaaaaaaa_x")).await;
    assert_eq!((status.as_u16(), &told["error"]), (401, &json!("invalid_client")));
    // The control: a registered one is one.
    let client = server.client().await;
    let sent = browser.token(&authorize(&consent(&client))).await;
    let sent = with(consent(&client), json!({ "_csrf": sent, "decision": "deny" }));
    assert_eq!(answered(&browser.post("/oauth/authorize", sent).await)["error"], "access_denied");
}
