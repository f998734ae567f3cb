//! Ten thousand requests that are nearly right, and a host that notes what of them it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailiwick_egress::Limits;
use bailiwick_testkit::far_side::{Certified, certified};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::told::{Told, first, lies_under};
use crate::world::{Sandbox, TOKEN, World};

const PLAIN: usize = 8_000;
const INSIDE_TLS: usize = 2_000;
/// At once.
const WORKERS: usize = 8;

/// What there is to mutate; `HOST` is who was asked for.
const SEEDS: [&str; 12] = [
    "GET /v1/a HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "GET /v1/a?q=1 HTTP/1.1\r\nHost: HOST\r\nAuthorization: mine\r\nX-A: b\r\nConnection: close\r\n\r\n",
    "POST /v1/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello",
    "POST /v1/a HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET /open/x HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "GET /closed HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "GET /v1/../closed HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "GET /v1/%2e%2e/closed HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "DELETE /v1/a HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "GET /v1/a HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "POST /v1/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /closed HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "GET /v1/a HTTP/1.1\r\nHost: HOST\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
];

/// What is put somewhere.
const PIECES: [&str; 28] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    "/",
    "\\",
    "..",
    "%2e%2e",
    "%2f",
    "%5c",
    "%00",
    ";",
    "?",
    "#",
    "@",
    "HTTP/1.1",
    "\r\n\r\n",
    "\r\nContent-Length: 3",
    "\r\nContent-Length: +5",
    "\r\nTransfer-Encoding: chunked",
    "\r\nTransfer-Encoding: xchunked",
    "\r\nHost: other.test",
    "\r\n folded",
    "\r\n\r\nGET /closed HTTP/1.1\r\nHost: HOST\r\n\r\n",
    "http://other.test",
];

/// SplitMix64 (Steele, Lea and Flood, 2014): the same requests in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % count as u64).unwrap()
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn request(&mut self, host: &str) -> Vec<u8> {
        let mut request = self.of(&SEEDS).as_bytes().to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(request.len().max(1));
            match self.below(6) {
                0 => drop(request.splice(at..at, self.of(&PIECES).bytes())),
                1 if !request.is_empty() => request[at] ^= 1 << self.below(8),
                2 => drop(request.drain(at..(at + 1 + self.below(8)).min(request.len()))),
                3 => {
                    let mut lines: Vec<&[u8]> = request.split(|byte| *byte == b'\n').collect();
                    let (from, to) = (self.below(lines.len()), self.below(lines.len()));
                    lines.insert(to, lines[from]);
                    request = lines.join(&b'\n');
                }
                4 => {
                    let other = self.of(&SEEDS).as_bytes();
                    request.truncate(at);
                    request.extend(&other[self.below(other.len())..]);
                }
                _ => request.extend(self.of(&SEEDS).bytes()),
            }
        }
        let text: Vec<u8> = String::from_utf8_lossy(&request).replace("HOST", host).into_bytes();
        // What is no text stays as it is.
        if std::str::from_utf8(&request).is_ok() { text } else { request }
    }
}

/// What a host was told, and what it could not read.
type Heard = Arc<Mutex<Vec<Result<Told, String>>>>;

async fn listen(mut stream: impl AsyncRead + AsyncWrite + Unpin, heard: Heard) {
    let mut bytes = Vec::new();
    loop {
        match first(&bytes) {
            Ok(None) => {}
            Ok(Some((told, length))) => {
                bytes.drain(..length);
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Auth: {:?}\r\n\r\nseen", told.authorization);
                heard.lock().unwrap().push(Ok(told));
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Err(why) => return heard.lock().unwrap().push(Err(why)),
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// A host that notes what it is told; its port.
async fn host(tls: Option<TlsAcceptor>) -> (u16, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Heard::default();
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, heard) = (tls.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                match tls {
                    None => listen(stream, heard).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        listen(stream, heard).await;
                    }
                }
            });
        }
    });
    (port, heard)
}

/// Says something, and reads what comes. A gate that says nothing for so long says nothing more.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.write_all(request).await;
    let _ = stream.flush().await;
    let _ = stream.shutdown().await;
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an end").ok();
    answer
}

/// The plain proxy's form of a request: the host stands in its first line.
fn absolute(request: Vec<u8>, host: &str) -> Vec<u8> {
    let Some(at) = request.windows(2).position(|two| two == b" /") else { return request };
    let mut absolute = request;
    absolute.splice(at + 1..at + 1, format!("http://{host}").into_bytes());
    absolute
}

async fn send_all(sandbox: Arc<Sandbox>, host: String, count: usize, tls: bool) {
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (sandbox, host) = (Arc::clone(&sandbox), host.clone());
        workers.spawn(async move {
            let mut dice = Dice(worker as u64 + u64::from(tls) * 1000);
            for _ in 0..count / WORKERS {
                let request = dice.request(&host);
                let shown = String::from_utf8_lossy(&request).into_owned();
                let answer = if tls {
                    say(sandbox.tls(&host, "api.test", &[]).await.unwrap(), &request).await
                } else {
                    let (ours, theirs) = tokio::io::duplex(1 << 16);
                    sandbox.door.admit(theirs);
                    say(ours, &absolute(request, &host)).await
                };
                let answer = String::from_utf8_lossy(&answer);
                assert!(!answer.contains(TOKEN), "{shown:?} has {answer}");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
}

fn judge(heard: &Heard, host: &str, prefixes: &[&str], count: usize) -> Vec<Told> {
    let heard = heard.lock().unwrap();
    let told: Vec<Told> = heard.iter().map(|told| told.clone().unwrap()).collect();
    for told in &told {
        assert!(lies_under(&told.target, prefixes) && told.host == host, "{told:?}");
    }
    // The controls: enough comes through to see something, and enough does not.
    let share = told.len() as f64 / count as f64;
    assert!((0.1..0.9).contains(&share), "{} of {count} came through", told.len());
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g05_of_ten_thousand_mutated_requests_the_host_is_told_what_the_rules_allow() {
    let Certified { config, root, .. } = certified(&["api.test"]);
    let mut world = World::believing(vec![root]).await;
    let (plain_port, plain) = host(None).await;
    let (tls_port, tls) = host(Some(TlsAcceptor::from(Arc::new(config)))).await;
    world.ports.extend([plain_port, tls_port]);
    let allowed = json!({ "path": { "startsWith": "/v1/" }, "method": ["GET", "POST"] });
    let policy = json!({
        "allow": {
            format!("api.test:{tls_port}"): [
                { "match": allowed, "transform": [{ "headers": { "authorization": "Bearer secret:token" } }] },
                { "match": { "path": { "startsWith": "/open/" } } },
            ],
            format!("plain.test:{plain_port}"): [{ "match": allowed }],
        },
        "subnets": { "allow": ["127.0.0.1/32"] },
    });
    let limits = Limits { requests_per_minute: u32::MAX, ..Limits::default() };
    let sandbox = Arc::new(world.sandbox(1, policy, limits).await);

    let (plainly, inside) = (format!("plain.test:{plain_port}"), format!("api.test:{tls_port}"));
    send_all(Arc::clone(&sandbox), plainly.clone(), PLAIN, false).await;
    let told = judge(&plain, &plainly, &["/v1/"], PLAIN);
    let methods: HashMap<&str, usize> = told.iter().fold(HashMap::new(), |mut all, told| {
        *all.entry(told.method.as_str()).or_default() += 1;
        all
    });
    assert!(methods.len() == 2 && methods["GET"] > 0 && methods["POST"] > 0, "{methods:?}");
    assert!(told.iter().flat_map(|told| &told.authorization).all(|own| !own.contains(TOKEN)));

    send_all(Arc::clone(&sandbox), inside.clone(), INSIDE_TLS, true).await;
    let bearer = format!("Bearer {TOKEN}");
    let told = judge(&tls, &inside, &["/v1/", "/open/"], INSIDE_TLS);
    for told in &told {
        if told.target.starts_with("/v1/") {
            assert!(told.authorization == [&*bearer] && ["GET", "POST"].contains(&told.method.as_str()), "{told:?}");
        } else {
            assert!(told.authorization.iter().all(|own| !own.contains(TOKEN)), "{told:?}");
        }
    }
    assert!(told.iter().any(|told| told.target.starts_with("/open/")));
    // It works as before.
    assert_eq!(sandbox.get(&inside, "/v1/a").await.status, 200);
    assert_eq!(sandbox.get(&inside, "/closed").await.code(), Some("no_rule"));
}
