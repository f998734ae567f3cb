//! Fetching a document by way of a gate, as a program that knows of the proxy does.
//!
//! The server's own tool for documents goes out as a sandbox does: by the gate, under the agent's rules, with its
//! secrets and on its record. This side decides nothing; each hop of a redirect is asked for at the gate again.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use url::Url;

/// Most hops of a redirect (curl's and browsers' limits are higher; a document needs few).
const MOST_HOPS: usize = 5;

/// What to fetch, and how much of it.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Where it is: `http` or `https`.
    pub url: Url,
    /// The media types that are wanted, for the field `Accept` (RFC 9110, section 12.5.1).
    pub accept: HeaderValue,
    /// Who asks, for the field `User-Agent`.
    pub agent: HeaderValue,
    /// Most bytes of the body that are read.
    pub most: usize,
    /// How long all of it may take.
    pub patience: Duration,
}

/// What came.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Where it was found in the end.
    pub url: Url,
    /// The answer's status.
    pub status: StatusCode,
    /// Its media type, as the far side says.
    pub content_type: Option<String>,
    /// Its body, as far as it was read.
    pub body: Bytes,
    /// Whether there was more of it.
    pub cut: bool,
}

/// It was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The gate let it not through, in the gate's words.
    #[error("{0}")]
    Refused(String),
    /// Neither `http` nor `https`, or no host, or a user in it.
    #[error("{0}: write an address with http or https, a host and no user")]
    Address(String),
    /// One redirect after the other.
    #[error("more than {MOST_HOPS} redirects")]
    Redirects,
    /// It took too long.
    #[error("no answer in {} seconds", .0.as_secs())]
    Slow(Duration),
    /// The far side, or the gate, broke off.
    #[error("the connection broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The far side's TLS.
    #[error("the host has no certificate that is believed")]
    Tls(#[source] io::Error),
}

/// Whom a fetch believes: the system's authorities, the operator's, and the gate's own where it looks inside.
#[derive(Clone)]
pub struct Believed(Arc<ClientConfig>);

impl Believed {
    /// From certificates besides the system's.
    ///
    /// # Errors
    /// If one of them is none.
    pub fn new(others: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(others, Arc::clone(&provider))?;
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(tls)))
    }
}

/// Fetches, by connections to a gate that `dial` makes. Nothing is sent anywhere else.
///
/// # Errors
/// [`FetchError`]; an answer with a status that is no success is none.
pub async fn fetch<D, F, S>(dial: D, believed: &Believed, fetch: &Fetch) -> Result<Fetched, FetchError>
where
    D: Fn() -> F,
    F: Future<Output = io::Result<S>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let following = async {
        let mut url = fetch.url.clone();
        for _ in 0..=MOST_HOPS {
            let stream = dial().await.map_err(broken)?;
            let response = asked(stream, believed, fetch, &url).await?;
            match onwards(&url, &response) {
                Some(next) => url = next,
                None => return answered(url, response, fetch.most).await,
            }
        }
        Err(FetchError::Redirects)
    };
    tokio::time::timeout(fetch.patience, following).await.unwrap_or(Err(FetchError::Slow(fetch.patience)))
}

/// Where a redirect leads (RFC 9110, section 15.4).
fn onwards(at: &Url, response: &http::Response<Incoming>) -> Option<Url> {
    let redirects = [301, 302, 303, 307, 308].contains(&response.status().as_u16());
    let location = response.headers().get(header::LOCATION).filter(|_| redirects)?;
    let mut next = at.join(location.to_str().ok()?).ok()?;
    next.set_fragment(None);
    Some(next)
}

async fn asked<S>(
    stream: S,
    believed: &Believed,
    fetch: &Fetch,
    url: &Url,
) -> Result<http::Response<Incoming>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wrong = || FetchError::Address(url.to_string());
    let host = url.host_str().filter(|_| url.username().is_empty() && url.password().is_none()).ok_or_else(wrong)?;
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(&authority).map_err(|_| wrong())?);
    headers.insert(header::ACCEPT, fetch.accept.clone());
    headers.insert(header::USER_AGENT, fetch.agent.clone());
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let get = |target: &str| {
        let mut request =
            Request::builder().method(Method::GET).uri(target).body(Empty::<Bytes>::new()).map_err(broken)?;
        *request.headers_mut() = headers.clone();
        Ok::<_, FetchError>(request)
    };
    match url.scheme() {
        "http" => {
            let response = sent(stream, get(&format!("http://{authority}{path}"))?).await?;
            refused(response).await
        }
        "https" => {
            let port = url.port().unwrap_or(443);
            let target = format!("{host}:{port}");
            let mut connect =
                Request::builder().method(Method::CONNECT).uri(&target).body(Empty::<Bytes>::new()).map_err(broken)?;
            let named = HeaderValue::from_str(&target).map_err(|_| wrong())?;
            connect.headers_mut().insert(header::HOST, named);
            let opened = refused(sent(stream, connect).await?).await?;
            let tunnel = hyper::upgrade::on(opened).await.map_err(broken)?;
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| wrong())?;
            let tls = TlsConnector::from(Arc::clone(&believed.0)).connect(name, TokioIo::new(tunnel)).await;
            refused(sent(tls.map_err(tls_failed)?, get(path)?).await?).await
        }
        _ => Err(wrong()),
    }
}

/// A certificate that is not believed, and a gate that hung up, are different things to whoever reads.
fn tls_failed(error: io::Error) -> FetchError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if inner.is_some() { FetchError::Tls(error) } else { broken(error) }
}

async fn sent<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<http::Response<Incoming>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the answer's body, or with the tunnel.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(broken)
}

/// The gate's own answers, and those of the far side to CONNECT that is none, are refusals.
async fn refused(response: http::Response<Incoming>) -> Result<http::Response<Incoming>, FetchError> {
    if !response.headers().contains_key(crate::request::REFUSED) {
        return Ok(response);
    }
    let body = http_body_util::Limited::new(response.into_body(), 4096).collect().await;
    let text = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    Err(FetchError::Refused(text.trim().trim_start_matches("Bailiwick: ").to_owned()))
}

async fn answered(url: Url, response: http::Response<Incoming>, most: usize) -> Result<Fetched, FetchError> {
    let (parts, mut body) = response.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (mut read, mut cut) = (BytesMut::new(), false);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let room = most.saturating_sub(read.len());
        read.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            cut = true;
            break;
        }
    }
    Ok(Fetched { url, status: parts.status, content_type, body: read.freeze(), cut })
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> FetchError {
    FetchError::Broken(error.into())
}
