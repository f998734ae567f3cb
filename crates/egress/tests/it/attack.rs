//! A sandbox that wants to confuse the gate.

use std::time::{Duration, Instant};

use bailiwick_egress::Limits;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::world::{TOKEN, World};

#[tokio::test]
async fn g05_requests_that_two_readers_read_differently_do_not_pass() {
    let world = World::new().await;
    let policy = json!({
        "allow": { "api.test:TLS": [{ "match": { "path": { "startsWith": "/v1/" } },
                   "transform": [{ "headers": { "authorization": "secret:token" } }] }] },
        "subnets": { "allow": ["127.0.0.1/32"] },
    });
    let one = world.sandbox(1, policy, Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let second = format!("GET /smuggled HTTP/1.1\r\nHost: {api}\r\n\r\n");
    for head in [
        "Content-Length: 4\r\nContent-Length: 40",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Content-Length: +4",
        "Content-Length : 4",
        " Obs-Fold: x",
        "X: a\r\n\tb",
        "Host:: x",
        "X\0: y",
    ] {
        let text = format!("POST /v1/a HTTP/1.1\r\nHost: {api}\r\n{head}\r\n\r\n0\r\n\r\n{second}");
        let answer = one.inside_for(Duration::from_millis(500), &api, &text).await;
        // Either refused, or read as one request whose leftovers are judged by themselves.
        assert!(!answer.text.contains("GET /smuggled HTTP"), "{head}: {}", answer.text);
        assert!(!answer.text.contains(TOKEN));
    }
    for line in
        ["GET /v1/a", "GET  /v1/a HTTP/1.1", "GET v1 HTTP/1.1", "GET * HTTP/1.1", "TRACE /v1/a HTTP/1.1", "\r\n\0"]
    {
        let answer = one.inside(&api, &format!("{line}\r\nHost: {api}\r\nConnection: close\r\n\r\n")).await;
        assert!(!answer.text.starts_with("HTTP/1.1 200"), "{line}: {}", answer.text);
    }
    assert_eq!(one.get(&api, "/v1/a").await.status, 200);
}

#[tokio::test]
async fn g10_a_client_that_dawdles_keeps_nobody_waiting() {
    let world = World::new().await;
    let policy = json!({ "allow": ["plain.test:TLS"], "subnets": { "allow": ["127.0.0.1/32"] } });
    let one = world.sandbox(1, policy.clone(), Limits { connections: 64, ..Limits::default() }).await;
    let other = world.sandbox(2, policy, Limits::default()).await;
    let mut slow = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(one.explicit).await.unwrap();
        stream.write_all(b"CONNECT pl").await.unwrap();
        slow.push(stream);
    }
    let plain = format!("plain.test:{}", world.tls);
    let started = Instant::now();
    for _ in 0..10 {
        assert_eq!(other.get(&plain, "/").await.status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    // The control: they do take all the places of their own sandbox.
    let waited = tokio::time::timeout(Duration::from_millis(500), one.connect(&plain)).await;
    assert!(waited.is_err());
    drop(slow);
    assert!(one.connect(&plain).await.is_ok());
}

#[tokio::test]
async fn g10_one_connection_of_http2_has_no_more_requests_under_way_than_its_sandbox_has_places() {
    let mut world = World::new().await;
    // Counts who comes, and says nothing to anybody.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    world.ports.push(port);
    let policy = json!({
        "allow": { format!("api.test:{port}"): [{ "match": { "method": ["GET"] } }] },
        "subnets": { "allow": ["127.0.0.1/32"] },
    });
    let api = format!("api.test:{port}");
    let (come, mut coming) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let _ = come.send(silent.accept().await.unwrap());
        }
    });
    let mut held = Vec::new();
    for (number, connections, most) in [(1, 3, 3), (2, 16, 12)] {
        let one = world.sandbox(number, policy.clone(), Limits { connections, ..Limits::default() }).await;
        let stream = one.tls(&api, "api.test", &[b"h2"]).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..12 {
            let request = http::Request::get(format!("https://{api}/")).body(Full::<bytes::Bytes>::default()).unwrap();
            let mut sender = sender.clone();
            tokio::spawn(async move { sender.send_request(request).await.map(drop) });
        }
        let mut came = 0;
        while let Ok(Some(far)) = tokio::time::timeout(Duration::from_millis(500), coming.recv()).await {
            held.push(far);
            came += 1;
        }
        assert_eq!(came, most, "of a sandbox with {connections} places");
        // It ends before the host lets go, or those that wait would come as well.
        one.door.closed().await;
        held.clear();
    }
}
