//! Around every request, known route or not: its id, the limits that hold everywhere, and the words of
//! failures. Nothing is decided here about who may do what.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bailiwick_types::RequestId;
use bailiwick_types::limits::{HEADER_BYTES, URI_BYTES};
use http::header::{CACHE_CONTROL, HOST, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderValue, Method, Version};
use tracing::Instrument;

use crate::app::App;
use crate::error::{self, Failed, Failure, Voice};
use crate::{network, rate};

/// The socket's address at the far end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Numbers the request. The id is ours: one that a client sent could be another request's.
pub(crate) async fn number(mut request: Request, next: Next) -> Response {
    let id = RequestId::new();
    request.extensions_mut().insert(id);
    let span = tracing::info_span!("request", %id, method = %request.method());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    // Whose the answer is, its URL does not say: no cache may keep it for somebody else.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response.headers_mut().entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    response
}

/// Holds the limits, and puts a failure into the words of its protocol.
pub(crate) async fn hold(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().copied().unwrap_or_else(RequestId::new);
    let voice = Voice::of(request.uri().path());
    let target = request.uri().path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default();
    // Where to go on after signing in; what a form sends is not sent again.
    let target = if request.method() == Method::GET { target } else { String::new() };
    let response = match within_limits(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    match response.extensions().get::<Failed>() {
        Some(Failed(failure)) => error::reply(&app, failure, (voice, &target), id),
        None => response,
    }
}

/// Which host is meant must be said once, and be a host (RFC 9112, section 3.2): of two, a proxy before
/// us may have judged the other one. HTTP/1.0 knew no such field.
fn one_host(request: &Request) -> Result<(), Failure> {
    let mut values = request.headers().get_all(HOST).iter();
    match (values.next(), values.next()) {
        (None, _) if request.version() < Version::HTTP_11 => Ok(()),
        (None, _) => Err(Failure::Host("header host: is missing")),
        (_, Some(_)) => Err(Failure::Host("header host: sent more than once")),
        (Some(value), None) => {
            let host = value.to_str().ok().filter(|host| !host.contains('@'));
            let fits = host.is_some_and(|host| host.is_empty() || host.parse::<Authority>().is_ok());
            if fits { Ok(()) } else { Err(Failure::Host("header host: is not a host, with or without a port")) }
        }
    }
}

fn within_limits(app: &App, request: &Request) -> Result<(), Failure> {
    let settings = app.settings();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let client = peer.and_then(|peer| network::client(peer, request.headers(), &settings.trusted_proxies));
    let allowed = |client| settings.ip_allow.iter().any(|range| range.contains(client));
    if !settings.ip_allow.is_empty() && !client.is_some_and(allowed) {
        return Err(Failure::Address);
    }
    if let Err(too_fast) = app.addresses().check(client.or(peer).map(rate::counted)) {
        app.meters().too_fast();
        return Err(too_fast.into());
    }
    one_host(request)?;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > URI_BYTES {
        return Err(Failure::TargetTooLong(URI_BYTES));
    }
    // The connection bounds its buffer, but not to the byte.
    let head: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head > HEADER_BYTES { Err(Failure::HeadTooLong(HEADER_BYTES)) } else { Ok(()) }
}
