//! Limits: too long, too deep, too slow. Whoever meets one is told; nobody else notices.

use std::time::{Duration, Instant};

use bailiwick_auth::authn::Step;
use bailiwick_web::{Settings, Times};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ROOT, Server, code, reason, settings, taken};

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_60_mib_is_answered_413_while_others_are_served() {
    let server = Server::start().await;
    let people = server.people().await;
    let big = vec![b'x'; 60 * MIB];
    for chunked in [false, true] {
        let request =
            server.request("POST", "/api/v1/spaces", &people.alice).header("content-type", "application/json");
        let request = if chunked {
            let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
                big.chunks(MIB).map(|piece| Ok(piece.to_vec())).collect();
            request.body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)))
        } else {
            request.body(big.clone())
        };
        let sending = tokio::spawn(async move { taken(request.send().await.unwrap()).await });
        let mut slowest = Duration::ZERO;
        while !sending.is_finished() {
            let begun = Instant::now();
            assert_eq!(server.get("/health", "").await.status(), 200);
            slowest = slowest.max(begun.elapsed());
        }
        let (status, body) = sending.await.unwrap();
        assert_eq!((status.as_u16(), reason(&body)), (413, "too_large"), "chunked: {chunked}");
        // The bound is for a machine that does nothing else; tests share theirs.
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    }
    // Without a credential it is refused as such, and the client can read it.
    let unknown = server.request("POST", "/api/v1/spaces", "").body(big).send().await.unwrap();
    assert_eq!(unknown.status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_bounded_and_a_broken_one_leaves_no_file() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.carol, "files").await;
    let path = |name: &str| format!("/api/v1/spaces/{space}/files/content?path={name}");
    // Larger than an ordinary body may be.
    let whole = vec![b'y'; 20 * MIB];
    let put = server.request("PUT", &path("whole"), &people.carol).body(whole).send().await.unwrap();
    assert_eq!(put.status(), 200);
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 1000000\r\n\r\nonly this",
        path("broken"),
        people.carol
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let begun = |event: &Value| event["detail"]["path"] == "broken" && event["result"] == "BEGUN";
    server.event("/api/v1/audit?action=space.write", &people.carol, begun).await;
    drop(socket);
    let failed = |event: &Value| event["detail"]["path"] == "broken" && event["result"] == "FAIL";
    server.event("/api/v1/audit?action=space.write", &people.carol, failed).await;
    let listed = server.done("GET", &format!("/api/v1/spaces/{space}/files"), &people.carol, Value::Null).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let declared = server
        .request("PUT", &path("huge"), &people.carol)
        .body(reqwest::Body::wrap_stream(futures::stream::iter(
            (0..101).map(|_| Ok::<_, std::io::Error>(vec![b'z'; MIB])),
        )))
        .send()
        .await
        .unwrap();
    assert_eq!(declared.status(), 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_two_readers_could_read_differently_are_refused() {
    let server = Server::start().await;
    let people = server.people().await;
    let post = async |body: Vec<u8>, kind: &str| {
        let request = server.request("POST", "/api/v1/spaces", &people.alice).header("content-type", kind).body(body);
        taken(request.send().await.unwrap()).await
    };
    let json = "application/json";
    let deep = format!("{{\"name\":\"x\",\"description\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    for (body, expected) in [
        (b"{".to_vec(), "not valid JSON"),
        (b"{\"name\":\"a\",\"name\":\"b\"}".to_vec(), "twice"),
        (b"{\"name\":\"\xff\"}".to_vec(), "UTF-8"),
        (deep.into_bytes(), "nested deeper"),
        (b"[]".to_vec(), "expected a JSON object"),
        (b"{\"name\":\"a\",\"extra\":1}".to_vec(), "unknown field"),
        (b"{\"name\":5}".to_vec(), "invalid type"),
        (Vec::new(), "missing field"),
    ] {
        let (status, answer) = post(body, json).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(expected), "{answer}");
    }
    assert_eq!(post(b"{\"name\":\"a\"}".to_vec(), "text/plain").await.0, 415);
    assert_eq!(post(b"{\"name\":\"a\"}".to_vec(), "application/json; charset=utf-8").await.0, 200);
    let (_, spaces) = taken(server.get("/api/v1/spaces", &people.alice).await).await;
    assert_eq!(spaces["result"].as_array().unwrap().iter().filter(|space| space["owner"] == "alice").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_targets_and_heads_are_refused() {
    let server = Server::start().await;
    let target = format!("/health?x={}", "a".repeat(4096));
    assert_eq!(server.get(&target, "").await.status(), 414);
    let fits = format!("/health?x={}", "a".repeat(4000));
    assert_eq!(server.get(&fits, "").await.status(), 200);
    let head = server.request("GET", "/health", "").header("x-filler", "a".repeat(40 * 1024));
    assert_eq!(head.send().await.unwrap().status(), 431);
    let head = server.request("GET", "/health", "").header("x-filler", "a".repeat(20 * 1024));
    assert_eq!(head.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_cut_off_and_others_are_not() {
    let quick = Times { head: Duration::from_millis(300), body_pause: Duration::from_millis(300), ..Times::default() };
    let server = Server::with(vec![Step::ApiKey], Settings { times: quick, ..settings() }).await;
    let people = server.people().await;
    let mut heads = TcpStream::connect(server.address).await.unwrap();
    heads.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), heads.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "a head that does not end");
    let mut bodies = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/v1/spaces HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 100\r\n\r\n{{\"na",
        people.alice
    );
    bodies.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0u8; 64];
    let got = tokio::time::timeout(Duration::from_secs(10), bodies.read(&mut answer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer[..got]).starts_with("HTTP/1.1 408"), "a body that does not come");
    assert_eq!(server.get("/health", "").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_ends_its_streams_and_then_itself() {
    let server = Server::start().await;
    let people = server.people().await;
    let session = server.done("POST", "/eve/v1/session", &people.alice, json!({})).await;
    let path = format!("/eve/v1/session/{}/stream?streamControlVersion=1", session["sessionId"].as_str().unwrap());
    let stream = server.get(&path, &people.alice).await;
    let plain = server.get("/api/v1/audit/stream", &people.alice).await;
    server.stop.cancel();
    let text = stream.text().await.unwrap();
    assert!(text.ends_with("{\"$eve\":\"stream.lease-ended\",\"version\":1}\n"), "{text}");
    plain.text().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), server.serving).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_cannot_hold_all_streams() {
    let server = Server::start().await;
    let people = server.people().await;
    let path = "/api/v1/audit/stream";
    let mut open = Vec::new();
    for _ in 0..64 {
        let stream = server.get(path, &people.carol).await;
        assert_eq!(stream.status(), 200);
        open.push(stream);
    }
    let more = server.get(path, &people.carol).await;
    assert_eq!(more.status(), 429);
    assert!(more.headers().contains_key("retry-after"));
    assert_eq!(server.get(path, &people.alice).await.status(), 200, "somebody else does not notice");
    assert_eq!(server.get("/api/v1/spaces", &people.carol).await.status(), 200);
    drop(open);
    let again = async {
        while server.get(path, &people.carol).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("places are given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_users_slow_uploads_hold_up_nobody_else() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.carol, "files").await;
    let path = |name: &str| format!("/api/v1/spaces/{space}/files/content?path={name}");
    let mut slow = Vec::new();
    for n in 0..8 {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let (path, name) = (path(&format!("slow{n}")), format!("slow{n}"));
        let head =
            format!("PUT {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 1000\r\n\r\nx", people.carol);
        socket.write_all(head.as_bytes()).await.unwrap();
        let begun = |event: &Value| event["detail"]["path"] == name.as_str() && event["result"] == "BEGUN";
        server.event("/api/v1/audit?action=space.write&limit=1000", &people.carol, begun).await;
        slow.push(socket);
    }
    let put = |key: &str| server.request("PUT", &path("more"), key).body("x");
    let (status, body) = taken(put(&people.carol).send().await.unwrap()).await;
    assert_eq!((status.as_u16(), reason(&body)), (429, "too_many_uploads"));
    // Others, and other work of the same user, go on.
    let theirs = server.space(&people.bob, "files").await;
    let path = format!("/api/v1/spaces/{theirs}/files/content?path=a");
    assert_eq!(server.request("PUT", &path, &people.bob).body("x").send().await.unwrap().status(), 200);
    server.done("GET", &format!("/api/v1/spaces/{space}/files"), &people.carol, Value::Null).await;
    // A place is free again when its upload is over.
    drop(slow.pop());
    let begun = Instant::now();
    while put(&people.carol).send().await.unwrap().status() != 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the place stays taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_very_many_values_is_refused_and_no_answer_may_be_kept() {
    let server = Server::start().await;
    let people = server.people().await;
    let many = |n: usize| format!("{{\"name\":[0{}]}}", ",0".repeat(n));
    for (values, said) in [(1_000, "string"), (1_000_000, "more than 200000 values")] {
        let request =
            server.request("POST", "/api/v1/spaces", &people.alice).header("content-type", "application/json");
        let response = request.body(many(values)).send().await.unwrap();
        assert_eq!(
            (response.status(), response.headers()["cache-control"].as_bytes()),
            (400.try_into().unwrap(), &b"no-store"[..])
        );
        let text = response.text().await.unwrap();
        assert!(text.contains(said), "{text}");
    }
    // The operator, who is nobody's user, is told the same.
    let request = server.request("POST", "/api/v1/admin/accounts", ROOT).header("content-type", "application/json");
    assert_eq!(request.body(many(200_000)).send().await.unwrap().status(), 400);
    let listed = server.get("/api/v1/spaces", &people.alice).await;
    assert_eq!((listed.status().as_u16(), listed.headers()["cache-control"].as_bytes()), (200, &b"no-store"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn which_host_is_meant_must_be_said_once() {
    let server = Server::start().await;
    let people = server.people().await;
    let ask = async |path: &str, version: &str, hosts: &str| {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let head =
            format!("GET {path} HTTP/{version}\r\n{hosts}x-api-key: {}\r\nconnection: close\r\n\r\n", people.alice);
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    // RFC 9112, section 3.2: none, two (alike or not), and what is no host.
    for path in ["/api/v1/spaces", "/eve/v1/info", "/health", "/nothing"] {
        for hosts in
            ["", "host: a\r\nhost: a\r\n", "host: a\r\nhost: b\r\n", "host: a b\r\n", "host: u@a\r\n", "host: a/b\r\n"]
        {
            let answer = ask(path, "1.1", hosts).await;
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("header host: "),
                "{path} {hosts:?}: {answer}"
            );
        }
    }
    // Positive control: with one, however it is written; and from a time that knew none.
    for hosts in ["host: a\r\n", "host: a:1\r\n", "host: [::1]:1\r\n", "host:\r\n"] {
        let answer = ask("/api/v1/spaces", "1.1", hosts).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{hosts:?}: {answer}");
    }
    assert!(ask("/api/v1/spaces", "1.0", "").await.starts_with("HTTP/1.0 200 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_who_asks_too_often_is_told_when_to_come_again_and_nobody_else_notices() {
    use std::num::NonZeroU32;
    let rates = bailiwick_web::Rates { principal: NonZeroU32::new(20), address: None };
    let server = Server::with(vec![Step::ApiKey], Settings { rates, ..settings() }).await;
    let people = server.people().await;
    // A user who has two keys is one user.
    let path = "/api/v1/admin/accounts/acme/users/carol/keys";
    let second = server.done("POST", path, &people.alice, json!({ "name": "second" })).await;
    let second = second["key"].as_str().unwrap().to_owned();
    let mut told = Vec::new();
    for n in 0..60 {
        let response = server.get("/api/v1/spaces", if n % 2 == 0 { &people.carol } else { &second }).await;
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let (status, body) = taken(response).await;
        if status == 429 {
            assert_eq!((code(&body), reason(&body)), ("RESOURCE_EXHAUSTED", "rate_limited"));
            assert_eq!(retry.as_deref(), Some("1"));
        }
        told.push(status.as_u16());
    }
    let passed = told.iter().filter(|status| **status == 200).count();
    assert!((20..60).contains(&passed), "{passed}: {told:?}");
    assert_eq!(server.get("/api/v1/spaces", &people.alice).await.status(), 200, "a colleague");
    assert_eq!(server.get("/api/v1/spaces", &people.bob).await.status(), 200, "a stranger");
    let limits = server.done("GET", "/api/v1/limits", &people.bob, Value::Null).await;
    assert_eq!(limits["requests_per_second_per_principal"], 20);

    let rates = bailiwick_web::Rates { principal: None, address: NonZeroU32::new(20) };
    let proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = Server::with(vec![Step::ApiKey], Settings { rates, trusted_proxies: proxies, ..settings() }).await;
    let from = async |address: &str, key: &str| {
        let request = server.request("GET", "/health", key).header("x-forwarded-for", address.to_owned());
        request.send().await.unwrap().status().as_u16()
    };
    let mut told = Vec::new();
    for n in 0..60 {
        // A flood of wrong keys is a flood, too.
        told.push(from("203.0.113.5", if n % 2 == 0 { "" } else { "wrong" }).await);
    }
    assert!(told.contains(&429) && told.contains(&200) && told.contains(&401), "{told:?}");
    assert_eq!(from("203.0.113.6", "").await, 200, "another address");
}
