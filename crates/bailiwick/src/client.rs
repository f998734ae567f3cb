//! A client of the server's HTTP API, as any other: it has no way in that others do not have.
//!
//! The key is sent to the configured server and nowhere else: redirects are not followed, and names in
//! a path are encoded, so that no argument can turn one request into another.

mod lines;
mod session;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;

pub(crate) use lines::{LineError, Lines, Sse};
pub(crate) use session::{Event, SessionStream};
pub(crate) use settings::{Given, Settings, SettingsError};

/// A server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
    #[error("no server answers at {url}")]
    Unreachable {
        url: String,
        #[source]
        error: reqwest::Error,
    },
    #[error("the connection to the server broke")]
    Broken(#[source] reqwest::Error),
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("{message}")]
    Refused { status: StatusCode, code: String, message: String, request: Option<String> },
    #[error("{url} answers, but not as a Bailiwick server does ({status})")]
    Foreign { url: String, status: StatusCode },
    #[error("the server's answer cannot be read: {0} is missing")]
    Incomplete(&'static str),
}

impl ClientError {
    /// The status that the server answered with.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } | Self::Foreign { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => {
                "start one with `bailiwick up`, or name another with --url or BAILIWICK_URL".to_owned()
            }
            Self::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED => {
                "give a key with BAILIWICK_API_KEY, --api-key-file, or in ~/.config/bailiwick/cli.toml".to_owned()
            }
            Self::Refused { status, request: Some(id), .. } if status.is_server_error() => {
                format!("the server's log says more about request {id}")
            }
            Self::Foreign { .. } => "check --url or BAILIWICK_URL".to_owned(),
            _ => return None,
        })
    }
}

/// A server, and who we are to it.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    headers: HeaderMap,
}

/// How long an answer that is no stream may take.
const PATIENCE: Duration = Duration::from_secs(120);

impl Client {
    /// A client with these settings. Nothing is sent yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&settings.url)?)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("bailiwick-cli/", env!("CARGO_PKG_VERSION")));
        // A proxy of the environment is for other machines.
        let http = if is_loopback(&settings.url) { http.no_proxy() } else { http };
        let http = http.build().map_err(|error| ClientError::Setup(error.to_string()))?;
        let mut headers = HeaderMap::new();
        if let Some(key) = &settings.key {
            let value = HeaderValue::from_str(&format!("Bearer {}", key.as_str()));
            let mut value =
                value.map_err(|_| ClientError::Setup("the key holds characters that no key has".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // Half a tenant is refused by the server; an account alone names the target of admin commands.
        if let (Some(account), Some(user)) = (&settings.account, &settings.user) {
            for (name, value) in [("x-bailiwick-account", account), ("x-bailiwick-user", user)] {
                let value = HeaderValue::from_str(value)
                    .map_err(|_| ClientError::Setup("the account or user is not a name".to_owned()))?;
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        Ok(Self { http, base: settings.url.clone(), headers })
    }

    /// The server's host, without brackets, and port.
    pub(crate) fn host(&self) -> (&str, u16) {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        (host, self.base.port_or_known_default().unwrap_or_default())
    }

    /// The server's address, for people.
    pub(crate) fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The same client with one more header.
    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Result<Self, ClientError> {
        let value = HeaderValue::from_str(value).map_err(|_| ClientError::Setup(format!("not a name: {value}")))?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// A request to `/api/v1/<path>`; the result inside its envelope.
    pub(crate) async fn api(&self, method: Method, path: &[&str], ask: Ask<'_>) -> Result<Value, ClientError> {
        let whole = [&["api", "v1"], path].concat();
        let mut answer = self.json(method, &whole, ask).await?;
        Ok(answer["result"].take())
    }

    /// A request to `/eve/v1/<path>`; the whole answer.
    pub(crate) async fn eve(&self, method: Method, path: &[&str], ask: Ask<'_>) -> Result<Value, ClientError> {
        let whole = [&["eve", "v1"], path].concat();
        self.json(method, &whole, ask).await
    }

    /// A request; the JSON of its answer.
    pub(crate) async fn json(&self, method: Method, path: &[&str], ask: Ask<'_>) -> Result<Value, ClientError> {
        let response = self.send(method, path, ask, Some(PATIENCE)).await?;
        let status = response.status();
        let body = response.bytes().await.map_err(ClientError::Broken)?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| ClientError::Foreign { url: self.url().to_owned(), status })
    }

    /// A request whose answer is read as it comes.
    pub(crate) async fn open(&self, path: &[&str], query: &[(&str, String)]) -> Result<Response, ClientError> {
        self.send(Method::GET, path, Ask { query, ..Ask::default() }, None).await
    }

    /// Sends a body of bytes.
    pub(crate) async fn upload(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        bytes: Vec<u8>,
    ) -> Result<Value, ClientError> {
        let request = self.request(Method::PUT, path, query)?.header("content-type", "application/octet-stream");
        let response = self.judged(request.body(bytes)).await?;
        let body = response.bytes().await.map_err(ClientError::Broken)?;
        let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(answer["result"].take())
    }

    /// A request to a path and query that are sent as they are written, and the answer as it comes,
    /// whatever it says. An answer without an end is cut: a stream after its first piece.
    pub(crate) async fn raw(
        &self,
        method: &Method,
        target: &str,
        content: Option<(&'static str, Vec<u8>)>,
    ) -> Result<Raw, ClientError> {
        let url = Url::parse(&format!("{}{target}", self.url()));
        let url = url.map_err(|_| ClientError::Setup(format!("not a path: {target}")))?;
        let mut request = self.http.request(method.clone(), url).headers(self.headers.clone()).timeout(PATIENCE);
        if let Some((kind, bytes)) = content {
            request = request.header("content-type", kind).body(bytes);
        }
        let mut response = self.sent(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let endless = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| ClientError::Broken(error.without_url()))? {
            body.extend_from_slice(&piece);
            if endless || body.len() > RAW_BYTES {
                break;
            }
        }
        Ok(Raw { status, headers, body })
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        ask: Ask<'_>,
        patience: Option<Duration>,
    ) -> Result<Response, ClientError> {
        let mut request = self.request(method, path, ask.query)?;
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        self.judged(request).await
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<reqwest::RequestBuilder, ClientError> {
        // The URL library leaves such segments out, and the request would be about the folder above.
        if path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            return Err(ClientError::Setup(format!("not a name: {}", path.join("/"))));
        }
        let mut url = self.base.clone();
        {
            let segments = url.path_segments_mut();
            let mut segments = segments.map_err(|()| ClientError::Setup("the URL is no base".to_owned()))?;
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.http.request(method, url).headers(self.headers.clone()))
    }

    async fn sent(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|error| {
            if error.is_connect() {
                ClientError::Unreachable { url: self.url().to_owned(), error: error.without_url() }
            } else {
                ClientError::Broken(error.without_url())
            }
        })
    }

    async fn judged(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = self.sent(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let header = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let body: Value = match response.bytes().await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        Err(refusal(self.url(), status, &body, header))
    }
}

/// An answer as it came.
pub(crate) struct Raw {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What is kept of an answer as it came, bytes.
const RAW_BYTES: usize = 8 * 1024 * 1024;

/// What goes with a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) query: &'a [(&'a str, String)],
    pub(crate) body: Option<&'a Value>,
}

impl<'a> Ask<'a> {
    /// Nothing.
    pub(crate) const NOTHING: Ask<'static> = Ask { query: &[], body: None };

    /// A JSON body.
    pub(crate) fn body(body: &'a Value) -> Self {
        Self { query: &[], body: Some(body) }
    }

    /// A query.
    pub(crate) fn query(query: &'a [(&'a str, String)]) -> Self {
        Self { query, body: None }
    }
}

/// Reads a refusal in either of the server's two voices.
fn refusal(url: &str, status: StatusCode, body: &Value, request: Option<String>) -> ClientError {
    let (code, message) = match &body["error"] {
        Value::Object(error) => (error.get("code"), error.get("message")),
        message @ Value::String(_) => (body.get("code"), Some(message)),
        _ => (None, None),
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    match text(message) {
        Some(message) => {
            let detail = body["error"]["details"]["request_id"].as_str().map(str::to_owned);
            ClientError::Refused { status, code: text(code).unwrap_or_default(), message, request: request.or(detail) }
        }
        None => ClientError::Foreign { url: url.to_owned(), status },
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(host) => {
            let text = host.to_string();
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            text == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        }
        None => false,
    }
}

fn tls(url: &Url) -> Result<rustls::ClientConfig, ClientError> {
    let failed = |error: rustls::Error| ClientError::Setup(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
    // Reading the system's certificates takes longer than a whole request over plain HTTP.
    if url.scheme() == "http" {
        return Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
    }
    Ok(builder.with_platform_verifier().map_err(failed)?.with_no_client_auth())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    fn client() -> Client {
        let settings =
            Settings { url: "http://127.0.0.1:1/base/".parse().unwrap(), key: None, account: None, user: None };
        Client::new(&settings).unwrap()
    }

    #[test]
    fn an_argument_cannot_leave_its_place_in_the_path() {
        let request = client().request(Method::GET, &["api", "v1", "spaces", "../../x?y#z/.."], &[]).unwrap();
        let url = request.build().unwrap().url().to_string();
        assert_eq!(url, "http://127.0.0.1:1/base/api/v1/spaces/..%2F..%2Fx%3Fy%23z%2F..");
        for bad in ["", ".", ".."] {
            assert!(client().request(Method::DELETE, &["api", "v1", "spaces", bad], &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn both_voices_are_understood() {
        let status = StatusCode::NOT_FOUND;
        let envelope = json!({ "status": "error", "error": { "code": "NOT_FOUND", "message": "gone" } });
        let eve = json!({ "ok": false, "error": "Session not found." });
        for (body, said) in [(envelope, "gone"), (eve, "Session not found.")] {
            assert_eq!(refusal("u", status, &body, None).to_string(), said);
        }
        assert!(matches!(refusal("u", status, &json!("<html>"), None), ClientError::Foreign { .. }));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, loopback) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost:1", true),
            ("http://[::1]:1", true),
            ("http://192.168.0.2", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), loopback, "{url}");
        }
    }
}
