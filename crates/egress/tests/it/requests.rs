//! Requests that rules look into.

use bailiwick_egress::Limits;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{TOKEN, World};

fn policy() -> Value {
    json!({
        "allow": {
            "api.test:TLS": [
                { "match": { "path": { "startsWith": "/v1/" }, "method": ["GET", "POST"] },
                  "transform": [{ "headers": { "authorization": "Bearer secret:token", "x-app": "bailiwick" } }] },
                { "match": { "path": { "exact": "/moved" } }, "forwardURL": "https://elsewhere.test:TLS/base" },
                { "match": { "path": { "startsWith": "/open/" } } },
            ],
            "plain.test:TLS": [],
            "other.test:TLS": [{ "transform": [{ "headers": { "authorization": "Basic me:secret:token" } }] }],
        },
        "subnets": { "allow": ["127.0.0.1/32"] },
    })
}

#[tokio::test]
async fn g04_a_secret_goes_to_its_host_and_path_and_to_nobody_else() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let other = world.sandbox(2, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);

    let with = "GET /v1/a?q=1 HTTP/1.1\r\nHost: API\r\nAuthorization: mine\r\nX-App: x\r\nConnection: close\r\n\r\n";
    let answer = one.inside(&api, &with.replace("API", &api)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    // It went out, and what the sandbox wrote did not; on its way back it is blanked.
    let blank = "*".repeat(TOKEN.len());
    assert!(answer.text.contains(&format!("\"authorization\": \"Bearer {blank}\"")), "{}", answer.text);
    assert!(answer.text.contains(r#""x-app": "bailiwick""#) && !answer.text.contains("mine"), "{}", answer.text);
    assert!(!answer.text.contains("tok-4f9a"));

    let open = one.get(&api, "/open/x").await;
    assert!(open.status == 200 && !open.text.contains("authorization\": \"Bearer"), "{}", open.text);
    let elsewhere = one.get(&format!("other.test:{}", world.tls), "/v1/a").await;
    assert_eq!((elsewhere.status, elsewhere.code()), (403, Some("no_secret")));
    let neighbour = other.get(&api, "/v1/a").await;
    assert_eq!((neighbour.status, neighbour.code()), (403, Some("no_secret")));
    for (path, code) in [("/v2/a", "no_rule"), ("/v1/../v2", "path_ambiguous"), ("/v1/%2e%2e/x", "path_ambiguous")] {
        let answer = one.get(&api, path).await;
        assert_eq!(answer.code(), Some(code), "{path}");
    }
    let lines = world.lines(1, 6).await;
    assert_eq!(lines[0].secrets.len(), 1);
    assert_eq!((lines[0].path.as_deref(), lines[0].status), (Some("/v1/a"), Some(200)));
    assert!(!format!("{lines:?}").contains("tok-4f9a"));
    assert_eq!(world.outcomes(2, 1).await, ["no_secret"]);
}

#[tokio::test]
async fn g06_what_a_host_says_back_is_searched_for_what_it_got() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let answer = one.get(&api, "/v1/a").await;
    let header = answer.text.lines().find(|line| line.starts_with("x-seen")).unwrap();
    assert!(header.contains("Bearer ****") && !header.contains("tok-4f9a"), "{header}");
    // An answer that cannot be searched is none; and nobody gets the text in slices.
    let packed = one.get(&api, "/v1/../packed").await;
    assert_eq!(packed.code(), Some("path_ambiguous"));
    let sliced = format!(
        "GET /v1/a HTTP/1.1\r\nHost: {api}\r\nRange: bytes=0-3\r\nAccept-Encoding: br\r\nConnection: close\r\n\r\n"
    );
    let answer = one.inside(&api, &sliced).await;
    assert!(answer.text.contains(r#""accept-encoding": "identity""#), "{}", answer.text);
    assert!(!answer.text.contains("bytes=0-3"));
}

#[tokio::test]
async fn g04_a_request_moves_where_its_rule_sends_it() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let answer = one.get(&format!("api.test:{}", world.tls), "/moved?x=1").await;
    assert!(answer.status == 200 && answer.text.contains("GET /base/moved?x=1"), "{}", answer.text);
    assert!(!answer.text.contains("Bearer"), "{}", answer.text);
}

#[tokio::test]
async fn g05_a_request_that_names_another_host_than_its_connection_goes_nowhere() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    for (head, code) in [
        ("Host: other.test", "host_mismatch"),
        ("Host: api.test", "host_mismatch"),
        ("Host: API\r\nHost: API", "host_mismatch"),
        ("Host: API\r\nHost: other.test", "host_mismatch"),
        ("Host: me@API", "host_mismatch"),
        ("X-No: host", "host_mismatch"),
    ] {
        let text = format!("GET /v1/a HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n", head.replace("API", &api));
        let answer = one.inside(&api, &text).await;
        assert_eq!((answer.status, answer.code()), (421, Some(code)), "{head}");
    }
    let absolute = |host: &str| format!("GET https://{host}/v1/a HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n");
    assert_eq!(one.inside(&api, &absolute("other.test")).await.code(), Some("host_mismatch"));
    assert_eq!(one.inside(&api, &absolute(&api)).await.status, 200);
    // The control: another spelling of the same host.
    let upper = api.replace("api.test", "API.test.");
    let text = format!("GET /v1/a HTTP/1.1\r\nHost: {upper}\r\nConnection: close\r\n\r\n");
    assert_eq!(one.inside(&api, &text).await.status, 200);
}

#[tokio::test]
async fn g04_http2_and_websockets_go_through() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let stream = one.tls(&api, "api.test", &[b"h2"]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let ask = |uri: String| http::Request::post(uri).body(Full::<bytes::Bytes>::from(vec![7; 300_000])).unwrap();
    let answer = sender.send_request(ask(format!("https://{api}/v1/a"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(text.contains("POST /v1/a HTTP/2.0") && text.contains("body 300000"), "{text}");
    let answer = sender.send_request(ask("https://other.test/v1/a".to_owned())).await.unwrap();
    assert_eq!(answer.status(), 421);

    let mut stream = one.tls(&api, "api.test", &[]).await.unwrap();
    let upgrade = format!("GET /v1/a HTTP/1.1\r\nHost: {api}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut got = vec![0; 64 * 1024];
    let mut length = 0;
    while !String::from_utf8_lossy(&got[..length]).contains("Bearer ****") {
        length += stream.read(&mut got[length..]).await.unwrap();
    }
    let text = String::from_utf8_lossy(&got[..length]).into_owned();
    assert!(text.starts_with("HTTP/1.1 101") && !text.contains("tok-4f9a"), "{text}");
    stream.write_all(b"hello").await.unwrap();
    let mut back = String::from_utf8_lossy(&got[..length]).into_owned();
    while !back.ends_with("hello") {
        let length = stream.read(&mut got).await.unwrap();
        assert_ne!(length, 0);
        back.push_str(&String::from_utf8_lossy(&got[..length]));
    }
}

#[tokio::test]
async fn g04_plain_http_never_gets_a_secret() {
    let world = World::new().await;
    let policy = json!({
        "allow": { "api.test:HTTP": [{ "transform": [{ "headers": { "x-key": "secret:token" } }] }], "plain.test:HTTP": [] },
        "subnets": { "allow": ["127.0.0.1/32"] },
    });
    let one = world.sandbox(1, policy, Limits::default()).await;
    let get = |host: &str| {
        format!("GET http://{host}:{0}/ HTTP/1.1\r\nHost: {host}:{0}\r\nConnection: close\r\n\r\n", world.http)
    };
    let refused = one.raw(&get("api.test")).await;
    assert_eq!((refused.status, refused.code()), (403, Some("plain_http")));
    assert_eq!(world.asked.load(std::sync::atomic::Ordering::SeqCst), 0);
    let plain = one.raw(&get("plain.test")).await;
    assert!(plain.status == 200 && plain.text.contains("GET / HTTP/1.1"), "{}", plain.text);
    let mismatch = get("plain.test").replace("Host: plain", "Host: api");
    assert_eq!(one.raw(&mismatch).await.code(), Some("host_mismatch"));
}

#[tokio::test]
async fn g10_a_request_that_is_broken_off_is_on_record_all_the_same() {
    let mut world = World::new().await;
    // Takes connections and says nothing, not even in TLS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    world.ports.push(port);
    let policy = json!({
        "allow": { format!("api.test:{port}"): [{ "transform": [{ "headers": { "x-app": "1" } }] }] },
        "subnets": { "allow": ["127.0.0.1/32"] },
    });
    let one = world.sandbox(1, policy, Limits::default()).await;
    let api = format!("api.test:{port}");
    for (path, count) in [("/reset", 1), ("/closed", 2)] {
        let stream = one.tls(&api, "api.test", &[b"h2"]).await.unwrap();
        // Of its own, so that its connection can end without a word.
        let client = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let request = http::Request::get(format!("https://{api}{path}")).body(Full::<bytes::Bytes>::default()).unwrap();
        let asking = client.spawn(async move {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(300), sender.send_request(request)).await;
            std::future::pending::<()>().await;
        });
        // It has begun: somebody connects for it.
        let far = silent.accept().await.unwrap();
        if path == "/reset" {
            world.lines(1, count).await;
        }
        asking.abort();
        client.shutdown_background();
        let lines = world.lines(1, count).await;
        let line = lines.last().unwrap();
        assert_eq!((line.outcome.as_str(), line.path.as_deref(), line.status), ("broken_off", Some(path), None));
        drop(far);
    }
    // A sandbox that ends takes its requests with it, and what was begun is told before it is over.
    let mut stream = one.tls(&api, "api.test", &[]).await.unwrap();
    stream.write_all(format!("GET /ended HTTP/1.1\r\nHost: {api}\r\n\r\n").as_bytes()).await.unwrap();
    let _far = silent.accept().await.unwrap();
    one.door.closed().await;
    let lines = world.lines(1, 3).await;
    assert_eq!((lines[2].outcome.as_str(), lines[2].path.as_deref()), ("broken_off", Some("/ended")));
}

#[tokio::test]
async fn g06_a_secret_is_asked_for_once_the_host_is_there() {
    let mut world = World::new().await;
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    world.ports.push(nobody);
    let rule = json!([{ "transform": [{ "headers": { "authorization": "Bearer secret:token" } }] }]);
    let policy = json!({
        "allow": { format!("api.test:{nobody}"): rule, "api.test:HTTP": rule, "api.test:TLS": rule },
        "subnets": { "allow": ["127.0.0.1/32"] },
    });
    let one = world.sandbox(1, policy, Limits::default()).await;
    let asked = || world.asked.load(std::sync::atomic::Ordering::SeqCst);
    let refused = one.get(&format!("api.test:{nobody}"), "/v1").await;
    assert_eq!(refused.code(), Some("upstream_unreachable"), "{}", refused.text);
    // Somebody listens there who has no certificate for the name.
    let refused = one.get(&format!("api.test:{}", world.http), "/v1").await;
    assert_eq!(refused.code(), Some("upstream_tls"), "{}", refused.text);
    assert_eq!(asked(), 0);
    let answer = one.get(&format!("api.test:{}", world.tls), "/v1").await;
    assert!(answer.status == 200 && asked() == 1, "{}", answer.text);
}
