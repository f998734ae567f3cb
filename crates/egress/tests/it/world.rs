//! Two sandboxes with different policies, and a host with many names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailiwick_egress::{
    Ask, Door, Entry, Gate, Lease, Limits, Line, Listeners, Names, Opening, OwnAddresses, Placeholders, Settings,
};
use bailiwick_testkit::far_side::FarSide;
use bailiwick_types::Egress;
use bailiwick_types::host::HostName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

pub(crate) const TOKEN: &str = "tok-4f9a/7be2+c1d0";

/// The names under which the host can be reached.
const HOSTS: [&str; 4] = ["api.test", "plain.test", "other.test", "elsewhere.test"];

pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) tls: u16,
    pub(crate) http: u16,
    /// Other ports that the operator lets through.
    pub(crate) ports: Vec<u16>,
    root: CertificateDer<'static>,
    lines: Arc<Mutex<Vec<(u64, Line)>>>,
    /// How often a secret was asked for.
    pub(crate) asked: Arc<AtomicUsize>,
    /// The number of the call for which a secret is given; 0: it is for a minute.
    pub(crate) call: Arc<AtomicU64>,
}

pub(crate) struct Sandbox {
    pub(crate) door: Door,
    pub(crate) explicit: SocketAddr,
    pub(crate) names: SocketAddr,
    trusts: RootCertStore,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::believing(Vec::new()).await
    }

    /// One whose gate also believes these authorities.
    pub(crate) async fn believing(mut roots: Vec<CertificateDer<'static>>) -> Self {
        let far = FarSide::start(&HOSTS).await;
        let (tls, http) = (far.tls, far.http);
        let fixed: BTreeMap<HostName, Vec<IpAddr>> = HOSTS
            .into_iter()
            .map(|name| (HostName::parse(name).unwrap(), vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]))
            .chain([
                (HostName::parse("inside.test").unwrap(), vec!["10.9.8.7".parse().unwrap()]),
                (HostName::parse("metadata.test").unwrap(), vec!["169.254.169.254".parse().unwrap()]),
                (HostName::parse("mapped.test").unwrap(), vec!["::ffff:169.254.169.254".parse().unwrap()]),
            ])
            .collect();
        let (asks, asked) = mpsc::channel(16);
        let (journal, lines) = mpsc::channel(16);
        let root = far.root;
        let names = Names::new(fixed, OwnAddresses::of_host().unwrap());
        roots.push(root.clone());
        let gate = Gate::new(Settings { names, roots, asks, journal }).unwrap();
        let counted = Arc::new(AtomicUsize::new(0));
        let call = Arc::new(AtomicU64::new(0));
        tokio::spawn(answer(asked, Arc::clone(&counted), Arc::clone(&call)));
        let written = Arc::<Mutex<Vec<(u64, Line)>>>::default();
        tokio::spawn(keep(lines, Arc::clone(&written)));
        Self { gate, tls, http, ports: Vec::new(), root, lines: written, asked: counted, call }
    }

    fn with_ports(&self, text: &str) -> String {
        text.replace("TLS", &self.tls.to_string()).replace("HTTP", &self.http.to_string())
    }

    /// A sandbox with a policy; `TLS` and `HTTP` in it stand for the host's ports.
    pub(crate) async fn sandbox(&self, number: u64, policy: Value, limits: Limits) -> Sandbox {
        let ports = self.ports.iter().map(|port| format!("*:{port}"));
        let allow: Vec<String> = ["*", "*:TLS", "*:HTTP"].map(str::to_owned).into_iter().chain(ports).collect();
        let operators = json!({ "allow": allow, "subnets": { "allow": ["127.0.0.0/8"] } });
        let read = |text: &str| serde_json::from_str(&self.with_ports(text)).unwrap();
        let ceiling = read(&operators.to_string());
        let egress: Egress = read(&policy.to_string());
        let placeholders = Placeholders::random(&egress).unwrap();
        let opening = Opening { sandbox: number, tenant: number, egress, ceiling, limits, placeholders };
        let door = self.gate.open(opening).unwrap();
        let socket = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = Listeners {
            explicit: socket().await.unwrap(),
            https: socket().await.unwrap(),
            http: socket().await.unwrap(),
            names: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            names_stream: socket().await.unwrap(),
        };
        let (explicit, names) = (listeners.explicit.local_addr().unwrap(), listeners.names.local_addr().unwrap());
        door.attach(listeners);
        let mut trusts = RootCertStore::empty();
        trusts.add(self.root.clone()).unwrap();
        if let Some(trust) = door.trust() {
            trusts.add(CertificateDer::from_pem_slice(trust.certificate.as_bytes()).unwrap()).unwrap();
        }
        Sandbox { door, explicit, names, trusts }
    }

    /// What is on record of a sandbox: host, outcome, status and secrets, in order. Waits until there are `count`.
    pub(crate) async fn lines(&self, number: u64, count: usize) -> Vec<Line> {
        for _ in 0..200 {
            let lines: Vec<Line> = {
                let all = self.lines.lock().unwrap();
                all.iter().filter(|(of, _)| *of == number).map(|(_, line)| line.clone()).collect()
            };
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("fewer than {count} lines");
    }

    pub(crate) async fn outcomes(&self, number: u64, count: usize) -> Vec<String> {
        self.lines(number, count).await.into_iter().map(|line| line.outcome).collect()
    }
}

/// In the place of a call's number: none runs.
pub(crate) const NO_CALL: u64 = u64::MAX;

/// Gives `token` to sandbox 1 for `api.test`, and nothing else to anybody.
async fn answer(mut asked: mpsc::Receiver<Ask>, counted: Arc<AtomicUsize>, call: Arc<AtomicU64>) {
    while let Some(ask) = asked.recv().await {
        counted.fetch_add(1, Ordering::SeqCst);
        let number = call.load(Ordering::SeqCst);
        let granted = ask.sandbox == 1 && ask.secret.as_str() == "token" && ask.host.as_str() == "api.test";
        let lease = || Lease {
            value: TOKEN.to_owned().into(),
            lasts: Duration::from_secs(60),
            call: (number > 0).then_some(number),
        };
        let lease = (granted && number != NO_CALL).then(lease);
        let _ = ask.answer.send(lease);
    }
}

async fn keep(mut lines: mpsc::Receiver<Entry>, into: Arc<Mutex<Vec<(u64, Line)>>>) {
    while let Some(entry) = lines.recv().await {
        into.lock().unwrap().push(entry.taken());
    }
}

/// What came back, as text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text).into_owned();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Self { status, text }
    }

    /// The code of a refusal.
    pub(crate) fn code(&self) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix("x-bailiwick-refused: "))
    }
}

/// How long one waits for the end of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

async fn all(mut stream: impl AsyncRead + Unpin, longest: Duration) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = tokio::time::timeout(longest, stream.read_to_end(&mut text)).await;
    text
}

impl Sandbox {
    /// Sends bytes to the proxy and reads what comes.
    pub(crate) async fn raw(&self, text: &str) -> Answer {
        let mut stream = TcpStream::connect(self.explicit).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        Answer::parse(&all(stream, PATIENCE).await)
    }

    /// Asks for a tunnel.
    pub(crate) async fn connect(&self, to: &str) -> Result<TcpStream, Answer> {
        let mut stream = TcpStream::connect(self.explicit).await.unwrap();
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        if head.starts_with(b"HTTP/1.1 200") {
            return Ok(stream);
        }
        stream.shutdown().await.unwrap();
        head.extend(all(stream, PATIENCE).await);
        Err(Answer::parse(&head))
    }

    /// Speaks TLS through a tunnel; also says who signed the far side's certificate.
    pub(crate) async fn tls(
        &self,
        to: &str,
        sni: &str,
        alpn: &[&[u8]],
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let stream = self.connect(to).await.map_err(|answer| answer.text)?;
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(self.trusts.clone()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())
    }

    /// Sends bytes within TLS to a host, and reads what comes.
    pub(crate) async fn inside(&self, to: &str, text: &str) -> Answer {
        self.inside_for(PATIENCE, to, text).await
    }

    /// The same, where the far side may leave the connection open.
    pub(crate) async fn inside_for(&self, longest: Duration, to: &str, text: &str) -> Answer {
        let host = to.split(':').next().unwrap();
        let mut stream = match self.tls(to, host, &[]).await {
            Ok(stream) => stream,
            Err(text) => return Answer::parse(text.as_bytes()),
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        Answer::parse(&all(stream, longest).await)
    }

    /// A plain request within TLS.
    pub(crate) async fn get(&self, to: &str, path: &str) -> Answer {
        self.inside(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")).await
    }
}
