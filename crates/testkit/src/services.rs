//! Slack, Discord and Telegram, as far as they take messages: each answers as it documents, and says what it was sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::far_side::{Certified, certified};

const NAMES: [&str; 4] = ["hooks.slack.com", "discord.com", "discordapp.com", "api.telegram.org"];

/// The services, which run until the runtime ends.
#[derive(Clone)]
pub struct Services {
    /// Where all of them are.
    pub at: SocketAddr,
    /// Who signed their certificate, as PEM.
    pub root_pem: String,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    heard: Mutex<Vec<Heard>>,
    next: Mutex<VecDeque<Say>>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The service by the request's own word.
    pub host: String,
    /// The path, with the query.
    pub path: String,
    /// What came.
    pub body: Value,
    /// What the service would not take about it.
    pub wrong: Option<&'static str>,
    /// When.
    pub at: Instant,
}

impl Heard {
    /// The text of the message.
    pub fn text(&self) -> &str {
        self.body["text"].as_str().or(self.body["content"].as_str()).unwrap_or_default()
    }
}

/// What a service says to the next request instead of taking it.
#[derive(Debug, Clone)]
pub enum Say {
    /// This status.
    Status(u16),
    /// Too many: so many seconds, in the header.
    TooMany(u64),
    /// Too many, as Telegram says it.
    TooManyInBody(u64),
    /// Somewhere else.
    Redirect(String),
    /// A success that does not end in time.
    Slow(Duration),
    /// A success with so many bytes.
    Huge(usize),
}

impl Services {
    /// Starts them.
    pub async fn start() -> Self {
        let Certified { mut config, root_pem, .. } = certified(&NAMES);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let told = Arc::<Told>::default();
        let telling = Arc::clone(&told);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&telling));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(move |request| answered(request, Arc::clone(&told)));
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { at, root_pem, told }
    }

    /// What was heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.told.heard.lock().unwrap().clone()
    }

    /// What was heard by whoever has this in their path.
    pub fn heard_at(&self, path: &str) -> Vec<Heard> {
        self.heard().into_iter().filter(|heard| heard.path.contains(path)).collect()
    }

    /// What the next requests are told, one after the other.
    pub fn say(&self, next: impl IntoIterator<Item = Say>) {
        self.told.next.lock().unwrap().extend(next);
    }

    /// The server's configuration by which it comes here. `ca` is the file with the authority.
    pub fn configuration(&self, ca: &str) -> String {
        let hosts: Vec<String> = NAMES.iter().map(|name| format!("\"{name}\" = \"{}\"", self.at)).collect();
        format!("[notifications]\nca_file = \"{ca}\"\nhosts = {{ {} }}\n", hosts.join(", "))
    }
}

async fn answered(request: Request<Incoming>, told: Arc<Told>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let json = parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let wrong = match (parts.method.as_str(), json) {
        ("POST", true) => wrong(&host, parts.uri.path(), &body),
        ("POST", false) => Some("another content type"),
        _ => Some("another method"),
    };
    let heard = Heard { host: host.clone(), path, body, wrong, at: Instant::now() };
    told.heard.lock().unwrap().push(heard);
    let next = told.next.lock().unwrap().pop_front();
    let builder = Response::builder();
    let answer = match next {
        _ if wrong.is_some() => builder.status(400).body(Full::from("invalid_payload")),
        Some(Say::Status(status)) => builder.status(status).body(Full::from("no")),
        Some(Say::TooMany(seconds)) => builder.status(429).header("retry-after", seconds).body(Full::default()),
        Some(Say::TooManyInBody(seconds)) => {
            let body = json!({ "ok": false, "error_code": 429, "parameters": { "retry_after": seconds } });
            builder.status(429).body(Full::from(body.to_string()))
        }
        Some(Say::Redirect(to)) => builder.status(302).header("location", to).body(Full::default()),
        Some(Say::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            builder.body(Full::from("ok"))
        }
        Some(Say::Huge(bytes)) => builder.body(Full::from(vec![b'x'; bytes])),
        None => match host.as_str() {
            "api.telegram.org" => builder.body(Full::from(json!({ "ok": true, "result": {} }).to_string())),
            "discord.com" | "discordapp.com" => builder.status(204).body(Full::default()),
            _ => builder.body(Full::from("ok")),
        },
    };
    Ok(answer.unwrap())
}

/// What a service would not take.
fn wrong(host: &str, path: &str, body: &Value) -> Option<&'static str> {
    let text = |field: &str, most: usize| {
        body[field].as_str().is_some_and(|text| (1..=most).contains(&text.encode_utf16().count()))
    };
    let (place, fits) = match host {
        "hooks.slack.com" => (path.starts_with("/services/T"), text("text", 3000)),
        "discord.com" | "discordapp.com" => {
            let quiet = body["allowed_mentions"] == json!({ "parse": [] });
            (path.starts_with("/api/webhooks/"), text("content", 2000) && quiet)
        }
        "api.telegram.org" => {
            let chat = text("chat_id", 64) && body.get("parse_mode").is_none();
            (path.starts_with("/bot") && path.ends_with("/sendMessage"), text("text", 4096) && chat)
        }
        _ => return Some("another host"),
    };
    match (place, fits) {
        (false, _) => Some("another path"),
        (_, false) => Some("another body"),
        _ => None,
    }
}
