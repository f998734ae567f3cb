//! A token endpoint on loopback that knows one grant of OAuth (RFC 6749, section 6) and is strict about it: what a
//! request may not have is refused, a refresh token is good for one time, and one that comes again ends the grant
//! with all its tokens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The client's id.
pub const CLIENT: &str = "the-client";
/// Its secret, with letters that a form spells in another way.
pub const SECRET: &str = "client&secret:0123456789";
/// `CLIENT:SECRET`, each encoded as in a form, in base64 (section 2.3.1).
const BASIC: &str = "Basic dGhlLWNsaWVudDpjbGllbnQlMjZzZWNyZXQlM0EwMTIzNDU2Nzg5";

/// What it does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Nothing: it does what it should.
    Well,
    /// It answers with this status and a text that nobody should pass on.
    Status(u16),
    /// It answers 200 with what is no token.
    Nonsense,
}

struct Grant {
    /// The refresh token that is good now.
    current: String,
    used: BTreeSet<String>,
    revoked: bool,
    issued: u64,
}

struct Inner {
    grant: Grant,
    mood: Mood,
    expires_in: u64,
    takes: Duration,
    asked: u64,
    /// What was wrong with requests.
    faults: Vec<String>,
}

/// The endpoint. Ends with the value.
pub struct TokenEndpoint {
    origin: String,
    name: &'static str,
    inner: Arc<Mutex<Inner>>,
    task: tokio::task::JoinHandle<()>,
}

impl TokenEndpoint {
    /// One whose tokens have this name in them and are good for so many seconds.
    pub async fn start(name: &'static str, expires_in: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let grant = Grant { current: format!("refresh-{name}-0"), used: BTreeSet::new(), revoked: false, issued: 0 };
        let takes = Duration::from_millis(100);
        let inner = Inner { grant, mood: Mood::Well, expires_in, takes, asked: 0, faults: Vec::new() };
        let inner = Arc::new(Mutex::new(inner));
        let app = Router::new().route("/token", post(token)).with_state((name, Arc::clone(&inner)));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { origin, name, inner, task }
    }

    /// Its origin.
    pub fn origin(&self) -> String {
        self.origin.clone()
    }

    /// The grant as an admin sets it now.
    pub fn grant(&self) -> String {
        let current = self.inner.lock().unwrap().grant.current.clone();
        json!({ "token_url": format!("{}/token", self.origin), "client_id": CLIENT, "client_secret": SECRET,
            "refresh_token": current, "scope": "read" })
        .to_string()
    }

    /// What it does from now on.
    pub fn be(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    /// Ends the grant.
    pub fn revoke(&self) {
        self.inner.lock().unwrap().grant.revoked = true;
    }

    /// Another grant in the place of the one that was.
    pub fn renew(&self) {
        let mut inner = self.inner.lock().unwrap();
        let issued = inner.grant.issued + 1;
        let current = format!("refresh-{}-again-{issued}", self.name);
        inner.grant = Grant { current, used: BTreeSet::new(), revoked: false, issued };
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.inner.lock().unwrap().asked
    }

    /// Whether the grant is good.
    pub fn is_good(&self) -> bool {
        !self.inner.lock().unwrap().grant.revoked
    }

    /// What was wrong with requests.
    pub fn faults(&self) -> Vec<String> {
        self.inner.lock().unwrap().faults.clone()
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refusal(status: u16, error: &str, description: &str) -> Response {
    let body = json!({ "error": error, "error_description": description });
    answer(status, &body)
}

fn answer(status: u16, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::from_u16(status).unwrap(), headers, body.to_string()).into_response()
}

async fn token(
    State((name, shared)): State<(&'static str, Arc<Mutex<Inner>>)>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let takes = {
        let mut inner = shared.lock().unwrap();
        inner.asked += 1;
        inner.takes
    };
    // Long enough that whoever asks twice at a time is caught at it.
    tokio::time::sleep(takes).await;
    let mut inner = shared.lock().unwrap();
    let fields: Vec<(&str, &str)> = body.split('&').filter_map(|field| field.split_once('=')).collect();
    let one = |wanted: &str| {
        let mut found = fields.iter().filter(|(name, _)| *name == wanted);
        found.next().filter(|_| found.next().is_none()).map(|(_, value)| *value)
    };
    let known = ["grant_type", "refresh_token", "scope"];
    let strange = fields.iter().find(|(name, _)| !known.contains(name));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let fault = if kind != Some("application/x-www-form-urlencoded") {
        Some("not a form".to_owned())
    } else if let Some((name, _)) = strange {
        Some(format!("the field {name}"))
    } else if one("scope") != Some("read") {
        Some("another scope".to_owned())
    } else {
        None
    };
    if let Some(fault) = fault {
        inner.faults.push(fault.clone());
        return refusal(400, "invalid_request", &fault);
    }
    match inner.mood {
        Mood::Well => {}
        Mood::Status(status) => return refusal(status, "server_error", &format!("{body} is what you sent")),
        Mood::Nonsense => return answer(200, &json!({ "access_token": 7, "why": body })),
    }
    if headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) != Some(BASIC) {
        inner.faults.push("another client".to_owned());
        return refusal(401, "invalid_client", "who are you");
    }
    if one("grant_type") != Some("refresh_token") {
        return refusal(400, "unsupported_grant_type", "there is one");
    }
    let Some(shown) = one("refresh_token").map(str::to_owned) else {
        return refusal(400, "invalid_request", "no refresh token");
    };
    if inner.grant.used.contains(&shown) {
        inner.faults.push("a refresh token came again".to_owned());
        inner.grant.revoked = true;
    }
    if inner.grant.revoked || shown != inner.grant.current {
        return refusal(400, "invalid_grant", &format!("{shown} is good no more"));
    }
    inner.grant.issued += 1;
    let issued = inner.grant.issued;
    inner.grant.used.insert(shown);
    inner.grant.current = format!("refresh-{name}-{issued}");
    let body = json!({ "access_token": format!("access-{name}-{issued}"), "token_type": "Bearer",
        "expires_in": inner.expires_in, "refresh_token": inner.grant.current, "scope": "read" });
    answer(200, &body)
}
