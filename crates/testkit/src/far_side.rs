//! A host out in the world, with many names, that says what it was asked: TLS with HTTP/2 and HTTP/1.1, plain
//! HTTP, and WebSockets that repeat.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A folder of files that a host shows.
pub struct Files {
    /// The folder.
    pub folder: PathBuf,
    /// What opens `private/` in it.
    pub authorization: String,
}

/// The host, which runs until the runtime ends.
pub struct FarSide {
    /// The port of TLS.
    pub tls: u16,
    /// The port of plain HTTP.
    pub http: u16,
    /// Who signed its certificate.
    pub root: CertificateDer<'static>,
    /// The same as PEM.
    pub root_pem: String,
}

impl FarSide {
    /// A host with these names.
    pub async fn start(names: &[&str]) -> Self {
        Self::start_with(names, None).await
    }

    /// The same, which also has files: those of a folder under `/files/`. What is under `/files/private/` is for
    /// whoever shows this `Authorization`.
    pub async fn start_with(names: &[&str], files: Option<Files>) -> Self {
        let files = Arc::new(files);
        let Certified { mut config, root, root_pem } = certified(names);
        config.alpn_protocols = [b"h2".as_slice(), b"http/1.1"].map(<[u8]>::to_vec).to_vec();
        Self {
            tls: host(Some(Arc::new(config)), Arc::clone(&files)).await,
            http: host(None, files).await,
            root,
            root_pem,
        }
    }
}

/// What a host of TLS has, and who signed it.
pub struct Certified {
    /// Of a server that shows the certificate.
    pub config: ServerConfig,
    /// Who signed it.
    pub root: CertificateDer<'static>,
    /// The same as PEM.
    pub root_pem: String,
}

/// A certificate for these names, by an authority of its own.
pub fn certified(names: &[&str]) -> Certified {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    Certified { config, root: issuer.der().clone(), root_pem: issuer.pem() }
}

/// A host that says what it was asked.
async fn host(tls: Option<Arc<ServerConfig>>, files: Arc<Option<Files>>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, files) = (tls.clone(), Arc::clone(&files));
            tokio::spawn(async move {
                match tls {
                    None => talk(stream, Version::Http1, files).await,
                    Some(config) => {
                        let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
                        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        talk(stream, if h2 { Version::Http2 } else { Version::Http1 }, files).await;
                    }
                }
            });
        }
    });
    port
}

#[derive(Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    version: Version,
    files: Arc<Option<Files>>,
) {
    let io = TokioIo::new(stream);
    let said = service_fn(move |request| said(request, Arc::clone(&files)));
    match version {
        Version::Http1 => {
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, said);
            let _ = serving.with_upgrades().await;
        }
        Version::Http2 => {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(io, said).await;
        }
    }
}

async fn said(mut request: Request<Incoming>, files: Arc<Option<Files>>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let (Some(files), Some(path)) = (&*files, request.uri().path().strip_prefix("/files/")) {
        return Ok(shown(files, path, &request));
    }
    if request.uri().path() == "/onwards" {
        let to = request.uri().query().unwrap_or_default().to_owned();
        let answer = Response::builder().status(StatusCode::FOUND).header("location", to);
        return Ok(answer.body(Full::default()).unwrap());
    }
    if request.uri().path() == "/page" {
        let answer = Response::builder().header("content-type", "text/html; charset=utf-8");
        let page = "<title>T</title><h1>The far side</h1><p>Read <a href=\"/next\">on</a>.<script>no()</script>";
        return Ok(answer.body(Full::from(page)).unwrap());
    }
    if let Some(length) = request.uri().path().strip_prefix("/bytes/") {
        static MANY: [u8; 1 << 28] = [0; 1 << 28];
        let length = length.parse::<usize>().unwrap_or(0).min(MANY.len());
        return Ok(Response::new(Full::from(&MANY[..length])));
    }
    if request.headers().get("upgrade").is_some_and(|protocol| protocol == "websocket") {
        let shown = format!("{:?}", request.headers());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            stream.write_all(shown.as_bytes()).await.unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
        });
        let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let answer = answer.header("connection", "upgrade").header("upgrade", "websocket");
        return Ok(answer.body(Full::default()).unwrap());
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let length = body.len();
    let body = if parts.uri.path().ends_with("/body") { String::from_utf8_lossy(&body) } else { "".into() };
    let mut answer = Response::builder().header("x-seen", format!("{:?}", parts.headers.get("authorization")));
    if parts.uri.path() == "/packed" {
        answer = answer.header("content-encoding", "br");
    }
    if parts.uri.path() == "/away" {
        answer = answer.status(302).header("location", "https://inside.test/");
    }
    let text = format!(
        "{} {} {:?}\n{:?}\nbody {length}\n{body}",
        parts.method,
        parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or_default(),
        parts.version,
        parts.headers
    );
    Ok(answer.body(Full::from(text)).unwrap())
}

/// A file, or the `index` of a folder.
fn shown(files: &Files, path: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let shows = request.headers().get("authorization").is_some_and(|text| text == files.authorization.as_str());
    let refused = |status| Response::builder().status(status).body(Full::from("no\n")).unwrap();
    if path.starts_with("private/") && !shows {
        return refused(StatusCode::UNAUTHORIZED);
    }
    let place = files.folder.join(path);
    let place = if place.is_dir() { place.join("index") } else { place };
    match std::fs::read(&place) {
        Ok(bytes) if place.ends_with("index") => {
            Response::builder().header("content-type", "text/html").body(Full::from(bytes)).unwrap()
        }
        Ok(bytes) => Response::new(Full::from(bytes)),
        Err(_) => refused(StatusCode::NOT_FOUND),
    }
}
