//! A connection of a sandbox, from its first byte to what becomes of it.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_types::host::HostName;
use http::uri::Scheme;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::decide::Depth;
use crate::gate::{Held, Scene};
use crate::hello::{self, Begins, Begun};
use crate::journal::{Kind, Line};
use crate::names::{self, Target};
use crate::refused::Refused;
use crate::request::{self, Place, refusal};
use crate::tunnel;
use crate::upstream::Flow;

/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(30);
/// How long the sandbox's side of a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes.
const LARGEST_HEAD: usize = 64 * 1024;

/// A program that knows of the proxy (RFC 9110, section 9.3.6; RFC 9112, section 3.2.2).
pub(crate) async fn explicit<S>(scene: Arc<Scene>, stream: S, held: Arc<Held>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (scene, held) = (Arc::clone(&scene), Arc::clone(&held));
        async move { Ok::<_, Infallible>(asked::<S>(scene, request, held).await) }
    });
    let serving = http1().serve_connection(TokioIo::new(stream), service).with_upgrades();
    // What goes wrong here is between the sandbox and its own socket.
    let _ = serving.await;
}

fn http1() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(LARGEST_HEAD).half_close(true);
    builder
}

async fn asked<S>(scene: Arc<Scene>, mut request: Request<Incoming>, held: Arc<Held>) -> Response<Flow>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !scene.meter.admits_one() {
        scene.journal.write(Line::new(Kind::Connection, "", 0).refused(Refused::Limit)).await;
        return refusal(Refused::Limit);
    }
    if request.method() != Method::CONNECT {
        let named = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let plain = request.uri().scheme() == Some(&Scheme::HTTP);
        let place = match named.filter(|_| plain).ok_or(Refused::Request).and_then(|text| request::split(&text, 80)) {
            Ok((target, port)) => Place { scene, target, port, scheme: Scheme::HTTP, held },
            Err(why) => {
                scene.journal.write(Line::new(Kind::Request, "", 0).refused(why)).await;
                return refusal(why);
            }
        };
        return request::pass(&place, request).await;
    }
    let named = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let (target, port) = match request::split(&named, 0) {
        Ok(to) => to,
        Err(why) => {
            let shown: String = named.chars().take(253).collect();
            scene.journal.write(Line::new(Kind::Connection, shown, 0).refused(why)).await;
            return refusal(why);
        }
    };
    let way = match Way::find(&scene, &target, port).await {
        Ok(way) => way,
        Err(why) => {
            scene.journal.write(Line::new(Kind::Connection, &target, port).refused(why)).await;
            return refusal(why);
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let own = Arc::clone(&scene);
    scene.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        // The socket itself, if it is there, rather than three layers around it.
        match upgraded.downcast::<TokioIo<S>>() {
            Ok(parts) => {
                led(own, Begun::new(parts.read_buf, parts.io.into_inner()), target, port, way, held).await;
            }
            Err(upgraded) => led(own, TokioIo::new(upgraded), target, port, way, held).await,
        }
    });
    Response::new(Flow::default())
}

/// A program that does not know of the proxy: the address it connected to says which name it means.
pub(crate) async fn transparent(scene: Arc<Scene>, stream: TcpStream, to: IpAddr, port: u16, held: Arc<Held>) {
    let target = scene.stand().meant(to);
    match Way::find(&scene, &target, port).await {
        Ok(way) => led(scene, stream, target, port, way, held).await,
        Err(why) => {
            scene.journal.write(Line::new(Kind::Connection, &target, port).refused(why)).await;
            if port == 80 {
                explain(stream, why).await;
            }
        }
    }
}

/// Answers the next request with the reason why there is nothing for it.
async fn explain(stream: TcpStream, why: Refused) {
    let service = service_fn(move |_: Request<Incoming>| async move { Ok::<_, Infallible>(refusal(why)) });
    let _ = http1().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}

/// What a connection to a host and port becomes.
enum Way {
    /// Bytes are copied, of TLS that names this host alone.
    Tls(Vec<IpAddr>),
    /// Bytes are copied; if they are TLS, it names this host.
    Raw(Vec<IpAddr>),
    /// Requests are read.
    Requests,
}

impl Way {
    async fn find(scene: &Scene, target: &Target, port: u16) -> Result<Self, Refused> {
        if !scene.meter.admits_one() {
            return Err(Refused::Limit);
        }
        let depth = match target {
            Target::Name(name) => scene.policy.host(name, port)?.depth(),
            Target::Address(_) => Depth::Tunnel,
        };
        if depth == Depth::Requests {
            return Ok(Self::Requests);
        }
        let addresses = scene.names.judged(&scene.policy, target).await?;
        Ok(match (port, target) {
            (80, _) => Self::Requests,
            (443, Target::Name(_)) => Self::Tls(addresses),
            _ => Self::Raw(addresses),
        })
    }
}

async fn led<S>(scene: Arc<Scene>, stream: S, target: Target, port: u16, way: Way, held: Arc<Held>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let line = Line::new(Kind::Connection, &target, port);
    let went = match way {
        Way::Requests => return requests(scene, stream, target, port, held).await,
        Way::Tls(addresses) => tls(&scene, stream, &target, port, &addresses, line.clone()).await,
        Way::Raw(addresses) => raw(&scene, stream, &target, port, &addresses, line.clone()).await,
    };
    if let Err(why) = went {
        scene.journal.write(line.refused(why)).await;
    }
}

/// A greeting has to name the host that was asked for.
fn names(begins: &Begins, target: &Target) -> Result<(), Refused> {
    let Begins::Tls(named) = begins else { return Err(Refused::NotTls) };
    let named = named.as_deref().and_then(|name| HostName::parse(name).ok());
    match target {
        Target::Name(host) if named.as_ref() == Some(host) => Ok(()),
        // An address was asked for and judged; a name on top of it would be for somebody behind it.
        Target::Address(_) if named.is_none() => Ok(()),
        _ => Err(Refused::Sni),
    }
}

async fn tls<S>(
    scene: &Scene,
    stream: S,
    target: &Target,
    port: u16,
    addresses: &[IpAddr],
    mut line: Line,
) -> Result<(), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (begins, stream) = hello::begin(stream).await?;
    names(&begins, target)?;
    let (far, address) = names::connect(addresses, port).await?;
    line.address = Some(address);
    scene.journal.begin(line).allowed().await;
    let (near, activity) = tunnel::metered(scene, stream);
    tunnel::copy(&activity, near, far).await;
    Ok(())
}

/// Like [`tls`], but the far side may speak first, and what is spoken may be another protocol.
async fn raw<S>(
    scene: &Scene,
    stream: S,
    target: &Target,
    port: u16,
    addresses: &[IpAddr],
    mut line: Line,
) -> Result<(), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut far, address) = names::connect(addresses, port).await?;
    line.address = Some(address);
    let telling = scene.journal.begin(line);
    let (near, activity) = tunnel::metered(scene, stream);
    let began = tokio::select! {
        began = first(near, &mut far, target) => began,
        () = tunnel::idle(&activity) => Err(Refused::BrokenOff),
    };
    match began {
        Ok(near) => {
            telling.allowed().await;
            tunnel::copy(&activity, near, far).await;
        }
        Err(why) => telling.refused(why).await,
    }
    Ok(())
}

/// Waits for what the sandbox says first, and passes on what the far side says before that.
async fn first<N, F>(mut near: N, far: &mut F, target: &Target) -> Result<Begun<Begun<N>>, Refused>
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + Unpin,
{
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut first = [0; 1];
    let mut from_far = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = near.read(&mut first) => {
                if !matches!(read, Ok(1)) {
                    return Err(Refused::BrokenOff);
                }
                let (begins, near) = hello::begin(Begun::new(bytes::Bytes::copy_from_slice(&first), near)).await?;
                if matches!(begins, Begins::Tls(_)) {
                    names(&begins, target)?;
                }
                return Ok(near);
            }
            read = far.read(&mut from_far) => {
                let said = read.ok().and_then(|length| from_far.get(..length)).filter(|said| !said.is_empty());
                let said = said.ok_or(Refused::Broken)?;
                near.write_all(said).await.map_err(|error| match error.kind() {
                    ErrorKind::QuotaExceeded => Refused::Limit,
                    _ => Refused::BrokenOff,
                })?;
            }
        }
    }
}

/// Reads the requests of a connection, from within its TLS if it has one.
async fn requests<S>(scene: Arc<Scene>, stream: S, target: Target, port: u16, held: Arc<Held>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let line = Line::new(Kind::Connection, &target, port);
    let begun = hello::begin(stream).await;
    let refused = match begun {
        Err(Refused::Broken) => return,
        Err(why) => why,
        Ok((begins @ Begins::Tls(_), stream)) => match (names(&begins, &target), &target, &scene.authority) {
            (Ok(()), Target::Name(host), Some(_)) if port != 80 => {
                let host = host.clone();
                match inside(scene.clone(), stream, host, port, held).await {
                    Ok(()) => return,
                    Err(why) => why,
                }
            }
            (Err(why), ..) => why,
            _ => Refused::NotTls,
        },
        Ok((Begins::Otherwise, stream)) if port == 443 => {
            drop(stream);
            Refused::NotTls
        }
        Ok((Begins::Otherwise, stream)) => {
            let place = Place { scene, target, port, scheme: Scheme::HTTP, held };
            let service = service_fn(move |request: Request<Incoming>| {
                let place = place.clone();
                async move { Ok::<_, Infallible>(request::pass(&place, request).await) }
            });
            let _ = http1().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            return;
        }
    };
    scene.journal.write(line.refused(refused)).await;
}

/// Ends the sandbox's TLS here, with a certificate of its own authority, and reads what is inside.
async fn inside<S>(scene: Arc<Scene>, stream: S, host: HostName, port: u16, held: Arc<Held>) -> Result<(), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = scene.authority.as_ref().and_then(|authority| authority.for_host(&host).ok());
    let config = config.ok_or(Refused::UpstreamTls)?;
    let accepted = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await;
    // Most often a client that does not believe our certificate; it says so itself.
    let Ok(Ok(stream)) = accepted else { return Err(Refused::NotTls) };
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let place = Place { scene, target: Target::Name(host), port, scheme: Scheme::HTTPS, held };
    let service = service_fn(move |request: Request<Incoming>| {
        let place = place.clone();
        async move { Ok::<_, Infallible>(request::pass(&place, request).await) }
    });
    if h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(64)
            .max_send_buf_size(64 * 1024)
            .initial_stream_window_size(128 * 1024)
            .initial_connection_window_size(256 * 1024)
            .max_header_list_size(u32::try_from(LARGEST_HEAD).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(32);
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    } else {
        let _ = http1().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }
    Ok(())
}
