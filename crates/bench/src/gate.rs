//! The gate: bytes and requests through it, against the same TLS without it; and a sandbox that has a way out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_egress::{Door, Gate, Limits, Listeners, Names, Opening, OwnAddresses, Placeholders, Settings};
use bailiwick_sandbox::linux::{CgroupUse, HelperPath, Launcher, Network};
use bailiwick_testkit::far_side::FarSide;
use bailiwick_types::Egress;
use bailiwick_types::host::HostName;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Options;
use crate::report::{Report, Target, median};
use crate::sandbox::{BWRAP, Place, timed, truth};

/// One download.
const BYTES: usize = 256 << 20;
const DOWNLOADS: usize = 5;
const REQUESTS: usize = 3000;
const SANDBOXES: usize = 60;

/// How a client comes to the far side.
enum Way {
    Direct,
    /// Through a door, which lasts as long, by a client that believes its authority.
    Through(SocketAddr, Arc<ClientConfig>, #[expect(dead_code, reason = "held")] Door),
}

struct World {
    far: FarSide,
    gate: Gate,
    tls: Arc<ClientConfig>,
}

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let world = World::new().await;
    let inside = json!([{ "match": { "method": ["GET"] } }]);
    let ways = [Way::Direct, world.door(json!([])).await, world.door(inside).await];
    // One after the other in each round, so that whatever else the machine does is shared.
    let (mut speeds, mut pauses) = ([0.0_f64; 3], [f64::MAX; 3]);
    for _ in 0..DOWNLOADS {
        for (at, way) in ways.iter().enumerate() {
            speeds[at] = speeds[at].max(world.download(way).await);
            pauses[at] = pauses[at].min(world.requests(way).await.as_secs_f64() * 1e3);
        }
    }
    let [direct, tunnel, inside] = speeds;
    let mib = |speed: f64| format!("{:.0} MiB/s", speed / f64::from(1 << 20));
    for (what, speed, least) in [("by a tunnel", tunnel, 0.85), ("looked into", inside, 0.6)] {
        let what = format!("download of 256 MiB over TLS, {what}, best of {DOWNLOADS}");
        report.add(what, mib(speed), format!("direct {}", mib(direct)), speed / direct, Target::AtLeast(least));
    }
    let [direct, tunnel, inside] = pauses;
    for (what, pause) in [("by a tunnel", tunnel), ("looked into", inside)] {
        let what = format!("what a request more on a connection costs, {what}, p50, over direct");
        report.add(what, format!("{:.3} ms", pause - direct), "1 ms", pause - direct, Target::AtMost(1.0));
    }
    sandboxes(options, &world, report).await;
}

async fn sandboxes(options: &Options, world: &World, report: &mut Report) {
    let place = Place::new(&options.server);
    let launcher = Launcher::detect(HelperPath::At(options.server.clone()), CgroupUse::WherePossible).await.unwrap();
    launcher.keep_ready(2);
    let (mut ours, mut bwrap) = (Vec::new(), Vec::new());
    for round in 0..SANDBOXES {
        bwrap.push(timed(Command::new("bwrap").args(BWRAP)));
        let begun = Instant::now();
        let door = world.open(json!([{ "match": { "method": ["GET"] } }]));
        let network = Network::Gate(door.trust().cloned());
        let jail =
            launcher.start(bailiwick_sandbox::linux::JailSpec { network, ..place.jail(round + 1000) }).await.unwrap();
        door.attach(jail.listening().unwrap().into_listeners().unwrap());
        truth(&jail).await;
        ours.push(begun.elapsed());
        jail.stop().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ms = |times: &mut Vec<Duration>| median(times).as_secs_f64() * 1e3;
    let (ours, bwrap) = (ms(&mut ours), ms(&mut bwrap));
    report.add(
        "a new linux sandbox with a way out, its own authority, and `true` in it, p50",
        format!("{ours:.2} ms"),
        format!("bwrap … true {bwrap:.2} ms"),
        ours / bwrap,
        Target::AtMost(1.5),
    );
}

impl World {
    async fn new() -> Self {
        let far = FarSide::start(&["far.test"]).await;
        let (asks, _) = mpsc::channel(1);
        let (journal, mut lines) = mpsc::channel(1024);
        tokio::spawn(async move { while lines.recv().await.is_some() {} });
        let here = (HostName::parse("far.test").unwrap(), vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let names = Names::new(BTreeMap::from([here]), OwnAddresses::of_host().unwrap());
        let gate = Gate::new(Settings { names, roots: vec![far.root.clone()], asks, journal }).unwrap();
        let tls = config([far.root.clone()]);
        Self { far, gate, tls }
    }

    fn open(&self, rules: serde_json::Value) -> Door {
        let here = json!({ "allow": ["127.0.0.1/32"] });
        let egress = |rules| -> Egress {
            let to = format!("far.test:{}", self.far.tls);
            serde_json::from_value(json!({ "allow": { to: rules }, "subnets": here })).unwrap()
        };
        let limits = Limits { requests_per_minute: u32::MAX, bytes: u64::MAX, ..Limits::default() };
        let (egress, ceiling) = (egress(rules), egress(json!([])));
        let placeholders = Placeholders::default();
        self.gate.open(Opening { sandbox: 1, tenant: 1, egress, ceiling, limits, placeholders }).unwrap()
    }

    async fn door(&self, rules: serde_json::Value) -> Way {
        let door = self.open(rules);
        let socket = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = Listeners {
            explicit: socket().await.unwrap(),
            https: socket().await.unwrap(),
            http: socket().await.unwrap(),
            names: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            names_stream: socket().await.unwrap(),
        };
        let at = listeners.explicit.local_addr().unwrap();
        door.attach(listeners);
        let own = door.trust().map(|trust| CertificateDer::from_pem_slice(trust.certificate.as_bytes()).unwrap());
        let tls = config([self.far.root.clone()].into_iter().chain(own));
        Way::Through(at, tls, door)
    }

    async fn connect(&self, way: &Way) -> TlsStream<TcpStream> {
        let (stream, tls) = match way {
            Way::Direct => {
                (TcpStream::connect((Ipv4Addr::LOCALHOST, self.far.tls)).await.unwrap(), Arc::clone(&self.tls))
            }
            Way::Through(at, tls, _) => {
                let mut stream = TcpStream::connect(at).await.unwrap();
                let to = format!("far.test:{}", self.far.tls);
                stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
                (stream, Arc::clone(tls))
            }
        };
        stream.set_nodelay(true).unwrap();
        TlsConnector::from(tls).connect(ServerName::try_from("far.test").unwrap(), stream).await.unwrap()
    }

    /// Bytes in a second.
    async fn download(&self, way: &Way) -> f64 {
        let mut stream = self.connect(way).await;
        let begun = Instant::now();
        let got = self.get(&mut stream, &format!("/bytes/{BYTES}"), &mut vec![0; 256 << 10]).await;
        assert_eq!(got, BYTES);
        got as f64 / begun.elapsed().as_secs_f64()
    }

    /// A small request's time on a connection that is there, the median.
    async fn requests(&self, way: &Way) -> Duration {
        let mut stream = self.connect(way).await;
        let mut buffer = vec![0; 16 << 10];
        let mut times = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let begun = Instant::now();
            assert_eq!(self.get(&mut stream, "/bytes/100", &mut buffer).await, 100);
            times.push(begun.elapsed());
        }
        median(&mut times)
    }

    /// The bytes of an answer's body.
    async fn get(&self, stream: &mut TlsStream<TcpStream>, path: &str, buffer: &mut [u8]) -> usize {
        let ask = format!("GET {path} HTTP/1.1\r\nHost: far.test:{}\r\n\r\n", self.far.tls);
        stream.write_all(ask.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut head = Vec::new();
        let (length, mut got) = loop {
            let read = stream.read(buffer).await.unwrap();
            assert_ne!(read, 0);
            head.extend_from_slice(&buffer[..read]);
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                break (length.expect("a length"), head.len() - end - 4);
            }
        };
        while got < length {
            let read = stream.read(buffer).await.unwrap();
            assert_ne!(read, 0);
            got += read;
        }
        got
    }
}

fn config(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(store).with_no_client_auth())
}
