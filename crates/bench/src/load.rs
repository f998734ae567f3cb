//! Requests over kept connections, as many at once as there are connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

/// One kept connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    pub(crate) address: SocketAddr,
}

/// What to send.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>, key: &str) -> Self {
        Self { method: "GET", path: path.into(), key: key.to_owned(), headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn post(path: impl Into<String>, key: &str, body: impl Into<String>) -> Self {
        Self { method: "POST", body: body.into(), ..Self::get(path, key) }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// From one of this host's own addresses: to the server, another client.
    pub(crate) async fn open_from(own: IpAddr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(own, 0)).unwrap();
        Self::over(socket.connect(address).await.unwrap()).await
    }

    async fn over(stream: TcpStream) -> Self {
        let address = stream.peer_addr().unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, address }
    }

    /// Reads an answer that does not end by itself until these bytes are in it.
    pub(crate) async fn read_until(mut self, ask: &Ask, needle: &[u8]) {
        self.sender.ready().await.unwrap();
        let answer = self.sender.send_request(self.request(ask)).await.unwrap();
        assert!(answer.status().is_success());
        let (mut body, mut seen) = (answer.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.unwrap().data_ref() {
                let from = seen.len().saturating_sub(needle.len());
                seen.extend_from_slice(data);
                if seen[from..].windows(needle.len()).any(|part| part == needle) {
                    return;
                }
            }
        }
        panic!("{}: ended too early", ask.path);
    }

    /// The answer's status and body.
    pub(crate) async fn send(&mut self, ask: &Ask) -> (StatusCode, Bytes) {
        // The connection may still be putting the last answer away.
        self.sender.ready().await.unwrap();
        let answer = self.sender.send_request(self.request(ask)).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
    }

    fn request(&self, ask: &Ask) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(ask.method).uri(&ask.path).header("host", self.address.to_string());
        if !ask.key.is_empty() {
            request = request.header("x-api-key", &ask.key);
        }
        if !ask.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        request.body(Full::new(Bytes::from(ask.body.clone()))).unwrap()
    }

    /// The result of an answer that must be a good one.
    pub(crate) async fn good(&mut self, ask: &Ask) -> serde_json::Value {
        let (status, body) = self.send(ask).await;
        assert!(status.is_success(), "{} {}: {status} {}", ask.method, ask.path, String::from_utf8_lossy(&body));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        value.get("result").cloned().unwrap_or(value)
    }
}

/// What a load gave.
pub(crate) struct Ran {
    pub(crate) count: usize,
    pub(crate) took: Duration,
    pub(crate) times: Vec<Duration>,
}

impl Ran {
    pub(crate) fn rate(&self) -> f64 {
        crate::report::rate(self.count, self.took)
    }
}

/// Sends for so long over so many connections; `ask` makes the nth request.
pub(crate) async fn during(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Ran {
    let (ask, next) = (Arc::new(ask), Arc::new(AtomicUsize::new(0)));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address).await);
    }
    let begun = Instant::now();
    let tasks: Vec<_> = open
        .into_iter()
        .map(|mut connection| {
            let (ask, next) = (Arc::clone(&ask), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < time {
                    let ask = ask(next.fetch_add(1, Ordering::Relaxed));
                    let sent = Instant::now();
                    let (status, body) = connection.send(&ask).await;
                    assert!(status.is_success(), "{}: {status} {}", ask.path, String::from_utf8_lossy(&body));
                    times.push(sent.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    Ran { count: times.len(), took: begun.elapsed(), times }
}
