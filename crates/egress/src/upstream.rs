//! Connections to the far side, for requests.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::decide::Policy;
use crate::meter::BodyError;
use crate::names::{self, Resolver, Target};
use crate::refused::Refused;

/// How long the far side's TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection waits for its next request.
const IDLE: Duration = Duration::from_secs(30);
/// Most connections to one host that wait.
const MOST_IDLE: usize = 16;

/// A body on its way out or back.
pub(crate) type Flow = BoxBody<Bytes, BodyError>;

/// Which address a connection went to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WentTo(pub(crate) IpAddr);

/// Which kinds of HTTP a request can go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/2 where the far side does, else HTTP/1.1.
    Any,
    /// HTTP/1.1, which alone can become another protocol.
    Http1,
}

/// Most that one stream, and one connection, of HTTP/2 may have on its way to a sandbox that does not read, bytes.
const WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// One sandbox's connections. No other sandbox's request ever goes by one of them.
pub(crate) struct Upstream {
    any: Line,
    http1: Line,
}

struct Line {
    client: Client<Connector, Flow>,
    connector: Connector,
}

/// A connection that was made before the request that needs it. Dropping it closes the connection, unless a request
/// has taken it.
pub(crate) struct Reached {
    to: Uri,
    number: u64,
    spare: Arc<Spare>,
}

impl Drop for Reached {
    fn drop(&mut self) {
        self.spare.take(&self.to, |number| number == self.number);
    }
}

/// Connections that wait for their first request.
#[derive(Default)]
struct Spare {
    all: Mutex<HashMap<Uri, Vec<(u64, Wire)>>>,
    next: AtomicU64,
}

impl Spare {
    fn put(self: &Arc<Self>, to: Uri, wire: Wire) -> Reached {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(to.clone()).or_default().push((number, wire));
        Reached { to, number, spare: Arc::clone(self) }
    }

    fn take(&self, to: &Uri, which: impl Fn(u64) -> bool) -> Option<Wire> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.get_mut(to)?;
        let found = waiting.iter().position(|(number, _)| which(*number)).map(|place| waiting.swap_remove(place).1);
        if waiting.is_empty() {
            all.remove(to);
        }
        found
    }
}

impl Upstream {
    pub(crate) fn new(policy: Arc<Policy>, names: Arc<Resolver>, tls: &ClientConfig) -> Self {
        let line = |alpn: &[&[u8]]| {
            let mut tls = tls.clone();
            // Own tickets: a session that is resumed would tell the far side whose neighbour this is.
            tls.resumption = rustls::client::Resumption::in_memory_sessions(64);
            tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            let (policy, names) = (Arc::clone(&policy), Arc::clone(&names));
            let connector = Connector { policy, names, tls: Arc::new(tls), spare: Arc::default() };
            let client = Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MOST_IDLE)
                .http2_initial_stream_window_size(WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .build(connector.clone());
            Line { client, connector }
        };
        Self { any: line(&[b"h2", b"http/1.1"]), http1: line(&[b"http/1.1"]) }
    }

    fn line(&self, speaks: Speaks) -> &Line {
        match speaks {
            Speaks::Any => &self.any,
            Speaks::Http1 => &self.http1,
        }
    }

    /// Connects to a place, TLS and all, and keeps the connection for the next request there.
    pub(crate) async fn reach(&self, speaks: Speaks, to: &Uri) -> Result<Reached, Refused> {
        let connector = self.line(speaks).connector.clone();
        let spare = Arc::clone(&connector.spare);
        let (to, wire) = (place(to)?, connector.connected(to.clone()).await?);
        Ok(spare.put(to, wire))
    }

    /// Sends a request to the place that its URI names.
    pub(crate) async fn send(&self, speaks: Speaks, request: Request<Flow>) -> Result<Response<Incoming>, Refused> {
        self.line(speaks).client.request(request).await.map_err(|error| why(&error))
    }
}

/// What stopped a request.
fn why(error: &(dyn std::error::Error + 'static)) -> Refused {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return *refused;
        }
        cause = error.source();
    }
    Refused::Broken
}

/// Connects to the address that a name leads to at this moment and that the policy lets through.
#[derive(Clone)]
struct Connector {
    policy: Arc<Policy>,
    names: Arc<Resolver>,
    tls: Arc<ClientConfig>,
    spare: Arc<Spare>,
}

/// A request's scheme and authority, which is all that its connection depends on.
fn place(of: &Uri) -> Result<Uri, Refused> {
    let mut parts = of.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|_| Refused::Request)
}

impl Connector {
    async fn connect(self, to: Uri) -> Result<TokioIo<Wire>, Refused> {
        let spare = self.spare.take(&place(&to)?, |_| true);
        match spare {
            Some(wire) => Ok(TokioIo::new(wire)),
            None => self.connected(to).await.map(TokioIo::new),
        }
    }

    async fn connected(self, to: Uri) -> Result<Wire, Refused> {
        let target = Target::parse(to.host().unwrap_or_default())?;
        let secure = to.scheme() == Some(&http::uri::Scheme::HTTPS);
        let port = to.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let addresses = self.names.judged(&self.policy, &target).await?;
        let (stream, address) = names::connect(&addresses, port).await?;
        if !secure {
            return Ok(Wire { stream: Box::new(stream), address, version: Version::Http1 });
        }
        let name = match &target {
            Target::Name(name) => ServerName::try_from(name.as_str().to_owned()).map_err(|_| Refused::Name)?,
            Target::Address(address) => ServerName::IpAddress((*address).into()),
        };
        let handshake = TlsConnector::from(self.tls).connect(name, stream);
        let stream = tokio::time::timeout(HANDSHAKE, handshake).await;
        let stream = stream.map_err(|_| Refused::UpstreamTls)?.map_err(|_| Refused::UpstreamTls)?;
        let version = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Version::Http2 } else { Version::Http1 };
        Ok(Wire { stream: Box::new(stream), address, version })
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// A connection to the far side.
struct Wire {
    stream: Box<dyn Stream>,
    address: IpAddr,
    version: Version,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(WentTo(self.address));
        if self.version == Version::Http2 { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
