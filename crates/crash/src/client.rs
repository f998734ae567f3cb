//! The harness's own HTTP client. It believes an answer only if it came whole.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// An answer that came whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub bytes: Vec<u8>,
}

/// What a request carries.
#[derive(Default)]
pub struct Sent<'a> {
    /// The key.
    pub key: &'a str,
    /// Headers besides.
    pub headers: &'a [(&'a str, &'a str)],
    /// A body of JSON.
    pub json: Option<Value>,
    /// A body of bytes.
    pub bytes: Option<Vec<u8>>,
}

impl Answer {
    /// Whether it acknowledges.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// The result in the envelope.
    pub fn result(&self) -> Value {
        self.json().get("result").cloned().unwrap_or(Value::Null)
    }

    /// Status and body, for people.
    pub fn shown(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.bytes).chars().take(400).collect::<String>())
    }
}

/// Too much of one user's is under way.
const TOO_MANY: u16 = 429;
/// How often one asks again, and how long one waits in between.
const PATIENCE: usize = 100;
const WAIT: Duration = Duration::from_millis(50);

impl Client {
    /// For the server at this address.
    ///
    /// # Errors
    /// If there can be no client at all.
    pub fn new(base: &str) -> Result<Self, String> {
        // The second time it is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build();
        Ok(Self { http: http.map_err(|error| format!("no client: {error}"))?, base: base.to_owned() })
    }

    /// Sends, and waits for the whole answer. One who has too much under way waits and asks again, as a
    /// client should: nothing was done then.
    ///
    /// # Errors
    /// If no whole answer came: then nobody knows what was done.
    pub async fn send(&self, method: &str, path: &str, sent: Sent<'_>) -> Result<Answer, String> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
        for _ in 0..PATIENCE {
            let answer = self.send_once(method.clone(), path, &sent).await?;
            if answer.status != TOO_MANY {
                return Ok(answer);
            }
            tokio::time::sleep(WAIT).await;
        }
        self.send_once(method, path, &sent).await
    }

    async fn send_once(&self, method: Method, path: &str, sent: &Sent<'_>) -> Result<Answer, String> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if !sent.key.is_empty() {
            request = request.header("x-api-key", sent.key);
        }
        for (name, value) in sent.headers {
            request = request.header(*name, *value);
        }
        if let Some(json) = &sent.json {
            request = request.header("content-type", "application/json").body(json.to_string());
        } else if let Some(bytes) = &sent.bytes {
            request = request.header("content-type", "application/octet-stream").body(bytes.clone());
        }
        let response = request.send().await.map_err(|error| format!("{path}: {error:?}"))?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|error| format!("{path}: {error}"))?.to_vec();
        Ok(Answer { status, bytes })
    }

    /// Reads.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub async fn get(&self, path: &str, key: &str) -> Result<Answer, String> {
        self.send("GET", path, Sent { key, ..Sent::default() }).await
    }

    /// Sends JSON, and expects to be answered well.
    ///
    /// # Errors
    /// If it was not.
    pub async fn done(&self, method: &str, path: &str, key: &str, json: Option<Value>) -> Result<Value, String> {
        let answer = self.send(method, path, Sent { key, json, ..Sent::default() }).await?;
        if answer.is_good() { Ok(answer.result()) } else { Err(format!("{method} {path}: {}", answer.shown())) }
    }
}
