//! Calls: the one place of the server that opens sockets to the world for itself.
//!
//! rustls on ring with the system's certificates, HTTP/1.1, no redirects, no proxies taken from the environment,
//! no cookies, no decompression, no second try.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::Instant;
use url::Url;

use crate::address::Place;
use crate::names::{Judging, Names, NoFitting};
use crate::reach::{Reach, Refusal};

/// How long one call may take, and how much may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Until the first piece of the answer's body, connection and all.
    pub first_byte: Duration,
    /// Between two pieces of it.
    pub between: Duration,
    /// All of it.
    pub whole: Duration,
    /// Longest body, bytes.
    pub body: usize,
}

/// What was waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Name, connection and TLS.
    Connect,
    /// The beginning of the answer.
    FirstByte,
    /// Its next piece.
    Between,
    /// All of it.
    Whole,
}

/// Why there is no answer, or no more of it. The text never repeats the address, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The address is none that this call may have: another scheme, another origin than the operator named, a user
    /// in it.
    #[error("its address is none that may be called here")]
    Address,
    /// The host is, or its name leads, where this call may not go.
    #[error("its host is in a network that may not be called here")]
    Network,
    /// No connection: name, address, TLS or refusal.
    #[error("it cannot be reached")]
    Unreachable,
    /// It took too long.
    #[error("it does not answer in time")]
    TimedOut(Waited),
    /// The connection ended before the answer did, or what came is no HTTP.
    #[error("the connection broke off")]
    Broken,
    /// There is more of the answer than anybody needs.
    #[error("its answer is too long")]
    TooLong,
}

impl From<Refusal> for SendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Address => Self::Address,
            Refusal::Network => Self::Network,
        }
    }
}

/// Why nobody can be called.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The TLS settings contradict each other; a defect of this build.
    #[error("the TLS client cannot be set up")]
    Tls(#[source] rustls::Error),
    /// What the operator says is an authority is none.
    #[error("the authorities that are to be believed are no certificates in PEM")]
    Authorities,
    /// The client cannot be built.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// What is sent. Not `Debug`: address and body may hold secrets.
pub struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Request {
    /// A `GET`.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None }
    }

    /// A `POST` of this body.
    pub fn post(url: Url, body: Bytes) -> Self {
        Self { method: Method::POST, url, headers: HeaderMap::new(), body: Some(body) }
    }

    /// The same with these fields.
    #[must_use]
    pub fn with(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }
}

/// Makes calls. Clones share their connections. Each place has connections of its own, so that none which was
/// made for the operator's word is used for anybody else's.
#[derive(Debug, Clone)]
pub struct Transport {
    public: reqwest::Client,
    machine: reqwest::Client,
    loopback: reqwest::Client,
}

impl Transport {
    /// A transport with a time for name, connection and TLS together. It reads the system's certificates, which
    /// takes a while.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(connect: Duration) -> Result<Self, TransportError> {
        Self::by(connect, &Names::System, &tls()?)
    }

    /// The same, where some names lead where the operator says, and authorities are believed besides the system's.
    ///
    /// # Errors
    /// If TLS cannot be set up, or an authority is none.
    pub(crate) fn led(
        connect: Duration,
        hosts: BTreeMap<String, SocketAddr>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TransportError> {
        let names = if hosts.is_empty() { Names::System } else { Names::Led(Arc::new(hosts)) };
        let tls = if authorities.is_empty() { tls()? } else { believing(authorities)? };
        Self::by(connect, &names, &tls)
    }

    pub(crate) fn by(connect: Duration, names: &Names, tls: &rustls::ClientConfig) -> Result<Self, TransportError> {
        let client = |place| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .retry(reqwest::retry::never())
                .dns_resolver(Arc::new(Judging::new(names.clone(), place)))
                .connect_timeout(connect)
                .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(TransportError::Client)
        };
        Ok(Self {
            public: client(Place::Public)?,
            machine: client(Place::Machine)?,
            loopback: client(Place::Loopback)?,
        })
    }

    /// Makes a call, and comes back with the head of its answer, whatever its status: a redirect is an answer, and
    /// nobody follows it. To drop the answer closes the connection, unless it was read to its end.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, request: Request, reach: &Reach, bounds: Bounds) -> Result<Answer, SendError> {
        let client = match reach.judge(&request.url)? {
            Place::Public => &self.public,
            Place::Machine => &self.machine,
            Place::Loopback => &self.loopback,
        };
        let now = Instant::now();
        let clock = Clock { first_byte_by: now + bounds.first_byte, whole_by: now + bounds.whole };
        let mut sending = client.request(request.method, request.url).headers(request.headers);
        if let Some(body) = request.body {
            sending = sending.body(body);
        }
        let sent = clock.by(clock.first_byte_by, Waited::FirstByte, sending.send()).await?;
        Ok(Answer { response: sent.map_err(|error| failed(&error))?, bounds, clock, read: 0 })
    }
}

/// When a call has to be where.
#[derive(Debug, Clone, Copy)]
struct Clock {
    first_byte_by: Instant,
    whole_by: Instant,
}

impl Clock {
    async fn by<T>(self, until: Instant, waited: Waited, work: impl Future<Output = T>) -> Result<T, SendError> {
        let (until, waited) = if self.whole_by <= until { (self.whole_by, Waited::Whole) } else { (until, waited) };
        tokio::time::timeout_at(until, work).await.map_err(|_| SendError::TimedOut(waited))
    }
}

/// An answer that is coming in. Not `Debug`: it shows the address.
pub struct Answer {
    response: reqwest::Response,
    bounds: Bounds,
    clock: Clock,
    read: usize,
}

impl Answer {
    /// The status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The fields.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next piece of the body, as it comes; `None` at its end.
    ///
    /// # Errors
    /// [`SendError::TimedOut`], [`SendError::TooLong`], [`SendError::Broken`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SendError> {
        let (until, waited) = match self.read {
            0 => (self.clock.first_byte_by, Waited::FirstByte),
            _ => (Instant::now() + self.bounds.between, Waited::Between),
        };
        let piece = self.clock.by(until, waited, self.response.chunk()).await?.map_err(|_| SendError::Broken)?;
        self.read += piece.as_ref().map_or(0, Bytes::len);
        if self.read > self.bounds.body { Err(SendError::TooLong) } else { Ok(piece) }
    }

    /// The body.
    ///
    /// # Errors
    /// As [`Answer::chunk`]. Of an answer that says it is too long nothing is read.
    pub async fn whole(mut self) -> Result<Vec<u8>, SendError> {
        if self.response.content_length().is_some_and(|length| length > self.bounds.body as u64) {
            return Err(SendError::TooLong);
        }
        let mut body = Vec::new();
        while let Some(piece) = self.chunk().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The beginning of the body, which has the time until the first byte for all of it: as much of a refusal as is
    /// worth reading.
    ///
    /// # Errors
    /// [`SendError::TimedOut`]. A body that breaks off is as long as it got.
    pub async fn beginning(mut self, most: usize) -> Result<Vec<u8>, SendError> {
        let clock = self.clock;
        let reading = async {
            let mut body = Vec::new();
            while let Ok(Some(piece)) = self.response.chunk().await {
                let room = most.saturating_sub(body.len());
                body.extend_from_slice(piece.get(..room).unwrap_or(&piece));
                if body.len() >= most {
                    break;
                }
            }
            body
        };
        clock.by(clock.first_byte_by, Waited::FirstByte, reading).await
    }
}

/// Errors of the client name addresses and system causes; only their kind is kept.
fn failed(error: &reqwest::Error) -> SendError {
    if refused_by_us(error) {
        SendError::Network
    } else if error.is_connect() && error.is_timeout() {
        SendError::TimedOut(Waited::Connect)
    } else if error.is_connect() {
        SendError::Unreachable
    } else {
        SendError::Broken
    }
}

fn refused_by_us(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NoFitting>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// As [`tls`], with authorities besides the system's.
fn believing(authorities: Vec<CertificateDer<'static>>) -> Result<rustls::ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(authorities, Arc::clone(&provider));
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TransportError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(TransportError::Tls)?))
        .with_no_client_auth())
}

fn tls() -> Result<rustls::ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TransportError::Tls)
    };
    match builder()?.with_platform_verifier() {
        Ok(config) => Ok(config.with_no_client_auth()),
        // A machine without certificates can still call itself. To others it fails closed: with no roots, no
        // certificate is ever valid.
        Err(error) => {
            tracing::warn!(%error, "no system certificates: every HTTPS call of the server will fail");
            Ok(builder()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        }
    }
}

#[cfg(test)]
mod tests;
