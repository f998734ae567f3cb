//! Secrets in queries and bodies, placeholders, and signatures.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bailiwick_egress::Limits;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Answer, NO_CALL, Sandbox, TOKEN, World};

/// `/` and `+` of the token have escapes of three letters.
const ESCAPED: usize = TOKEN.len() + 4;

fn policy() -> Value {
    let word = |more: Value| {
        let mut all = json!({ "env": "API_TOKEN", "value": "secret:token" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([{ "placeholder": all }])
    };
    json!({
        "allow": {
            "api.test:TLS": [
                { "match": { "path": { "startsWith": "/query" } },
                  "transform": [{ "queryString": { "key": "secret:token", "v": "2" } }] },
                { "match": { "path": { "startsWith": "/swap" } },
                  "transform": word(json!({ "headers": ["authorization", "x-key"], "queryString": ["key"] })) },
                { "match": { "path": { "startsWith": "/whole" } }, "transform": word(json!({ "body": true })) },
                { "match": { "path": { "startsWith": "/aws" } },
                  "transform": [{ "sigv4": { "accessKey": "AKIDEXAMPLE", "secretKey": "secret:token",
                      "region": "eu-west-1", "service": "sts" } }] },
                { "match": { "path": { "startsWith": "/plain" } } },
            ],
            "api.test:HTTP": [{ "transform": [{ "queryString": { "key": "secret:token" } }] }],
            // Of another host, to which nothing was granted.
            "other.test:TLS": [{ "match": { "path": { "startsWith": "/swap" } },
                                 "transform": word(json!({ "headers": ["x-key"] })) },
                               { "match": { "path": { "startsWith": "/plain" } } }],
            "plain.test:TLS": [],
        },
        "subnets": { "allow": ["127.0.0.1/32"] },
    })
}

/// The word that stands for the secret in this sandbox.
fn word(one: &Sandbox) -> String {
    let trust = one.door.trust().unwrap();
    trust.placeholders.iter().find(|(name, _)| *name == "API_TOKEN").unwrap().1.to_owned()
}

async fn post(one: &Sandbox, to: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    one.inside(to, &text).await
}

async fn with(one: &Sandbox, to: &str, path: &str, headers: &str) -> Answer {
    one.inside(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{headers}\r\n")).await
}

#[tokio::test]
async fn g04_a_secret_in_the_query_replaces_what_the_sandbox_wrote() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let answer = one.get(&api, "/query/a?q=1&key=mine&k%65y=mine&v=1").await;
    let stars = "*".repeat(ESCAPED);
    assert!(answer.text.contains(&format!("GET /query/a?q=1&key={stars}&v=2 HTTP")), "{}", answer.text);
    assert!(!answer.text.contains("mine") && !answer.text.contains("tok-4f9a"));
    let lines = world.lines(1, 1).await;
    assert_eq!((lines[0].path.as_deref(), lines[0].secrets.len()), (Some("/query/a"), 1));
    let get =
        format!("GET http://api.test:{0}/ HTTP/1.1\r\nHost: api.test:{0}\r\nConnection: close\r\n\r\n", world.http);
    let plain = one.raw(&get).await;
    assert_eq!((plain.status, plain.code()), (403, Some("plain_http")));
}

#[tokio::test]
async fn g04_a_placeholder_becomes_the_secret_at_its_host_and_nowhere_else() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let neighbour = world.sandbox(2, policy(), Limits::default()).await;
    let (api, other) = (format!("api.test:{}", world.tls), format!("other.test:{}", world.tls));
    let own = word(&one);
    assert!(own.len() == 44 && own.starts_with("bwp_") && own != word(&neighbour));
    let asked = || world.asked.load(Ordering::SeqCst);

    // Nobody asks for a secret that no request wants.
    let answer = with(&one, &api, "/swap?key=1", "X-Key: none\r\n").await;
    assert!(answer.status == 200 && answer.text.contains(r#""x-key": "none""#) && asked() == 0, "{}", answer.text);
    // Where no rule looks for it, and at other hosts, a word is a word.
    let answer = with(&one, &api, &format!("/swap/{own}?other={own}"), &format!("X-Other: {own}\r\n")).await;
    assert!(answer.text.matches(&own).count() == 3 && asked() == 0, "{}", answer.text);
    for to in [&other, &format!("plain.test:{}", world.tls)] {
        let answer = with(&one, to, "/plain", &format!("X-Key: {own}\r\n")).await;
        assert!(answer.text.contains(&own) && asked() == 0, "{}", answer.text);
    }
    let answer = with(&one, &other, "/swap", &format!("X-Key: {own}\r\n")).await;
    assert_eq!(answer.code(), Some("no_secret"), "granted for another host");

    let headers = format!("Authorization: Bearer {own}\r\nX-Key: a-{own}-b\r\nX-Key: {own}\r\n");
    let answer = with(&one, &api, &format!("/swap?q=1&key={own}"), &headers).await;
    let (stars, longer) = ("*".repeat(TOKEN.len()), "*".repeat(ESCAPED));
    for text in [
        format!("/swap?q=1&key={longer} HTTP"),
        format!(r#""authorization": "Bearer {stars}""#),
        format!(r#""x-key": "a-{stars}-b""#),
        format!(r#""x-key": "{stars}""#),
    ] {
        assert!(answer.text.contains(&text), "{text}\n{}", answer.text);
    }
    assert!(!answer.text.contains("tok-4f9a") && !answer.text.contains(&own));
    // Another sandbox's word is nothing here.
    let answer = with(&one, &api, "/swap", &format!("X-Key: {}\r\n", word(&neighbour))).await;
    assert!(answer.status == 200 && answer.text.contains(&word(&neighbour)), "{}", answer.text);
    let answer = with(&neighbour, &api, "/swap", &format!("X-Key: {}\r\n", word(&neighbour))).await;
    assert_eq!(answer.code(), Some("no_secret"));
    let lines = world.lines(1, 7).await;
    let secrets: Vec<usize> = lines.iter().map(|line| line.secrets.len()).collect();
    assert_eq!(secrets.iter().sum::<usize>(), 1, "{lines:?}");
}

#[tokio::test]
async fn g04_a_placeholder_in_a_body_is_found_however_it_is_cut() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let own = word(&one);
    let stars = |length| "*".repeat(length);
    let body = format!(r#"{{"token":"{own}","again":"{own}"}}"#);
    let answer = post(&one, &api, "/whole/body", "Content-Type: application/json\r\n", &body).await;
    let becomes = body.replace(&own, &stars(TOKEN.len()));
    assert!(answer.text.ends_with(&becomes), "{}", answer.text);
    assert!(answer.text.contains(&format!(r#""content-length": "{}""#, becomes.len())), "{}", answer.text);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = post(&one, &api, "/whole/body", form, &format!("a=1&token={own}")).await;
    assert!(answer.text.ends_with(&format!("a=1&token={}", stars(ESCAPED))), "{}", answer.text);

    // In chunks, and slowly.
    let mut stream = one.tls(&api, "api.test", &[]).await.unwrap();
    let head =
        format!("POST /whole/body HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in own.as_bytes().chunks(9) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        stream.write_all(piece).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut text = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await;
    let text = String::from_utf8_lossy(&text);
    assert!(text.ends_with(&stars(TOKEN.len())) && !text.contains("transfer-encoding"), "{text}");

    // Over HTTP/2, where a length that was announced has to be true.
    let stream = one.tls(&api, "api.test", &[b"h2"]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://{api}/whole/body");
    let request = http::Request::post(uri).body(Full::<bytes::Bytes>::from(own.clone())).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("HTTP/2.0") && text.ends_with(&stars(TOKEN.len())), "{text}");
}

#[tokio::test]
async fn g04_a_body_that_cannot_be_searched_does_not_go_out() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let own = word(&one);
    let answer = post(&one, &api, "/whole", "Content-Encoding: gzip\r\n", "packed").await;
    assert_eq!((answer.status, answer.code()), (415, Some("body_encoded")));
    let large = "x".repeat(1024 * 1024 + 1);
    let answer = post(&one, &api, "/whole", "", &large).await;
    assert_eq!((answer.status, answer.code()), (413, Some("body_too_large")));
    // The control: without the one byte, and where no rule has to read it.
    assert_eq!(post(&one, &api, "/whole", "", &large[1..]).await.status, 200);
    assert_eq!(post(&one, &api, "/plain", "", &large).await.status, 200);
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
    // Trailers would have no place any more.
    let text = format!(
        "POST /whole/body HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: \
         x-key\r\n\r\n5\r\nhello\r\n0\r\nx-key: {own}\r\n\r\n"
    );
    let answer = one.inside(&api, &text).await;
    assert_eq!(answer.code(), Some("request_invalid"), "{}", answer.text);
}

#[tokio::test]
async fn g04_a_request_is_signed_by_the_gate_and_not_by_the_sandbox() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let own = "Authorization: AWS4-HMAC-SHA256 Credential=ME\r\nX-Amz-Date: 19700101T000000Z\r\nX-Amz-Target: T\r\n";
    let answer = post(&one, &api, "/aws/body?b=2&a=1&X-Amz-Signature=00", own, "Action=GetCallerIdentity").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for text in [
        "POST /aws/body?a=1&b=2 HTTP/1.1",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/",
        "/eu-west-1/sts/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, Signature=",
        "\nAction=GetCallerIdentity",
    ] {
        assert!(answer.text.contains(text), "{text}\n{}", answer.text);
    }
    assert!(!answer.text.contains("Credential=ME") && !answer.text.contains("1970"), "{}", answer.text);
    assert!(!answer.text.contains("tok-4f9a"));
    let neighbour = world.sandbox(2, policy(), Limits::default()).await;
    assert_eq!(post(&neighbour, &api, "/aws", own, "").await.code(), Some("no_secret"));
}

#[tokio::test]
async fn g04_what_is_said_in_a_websocket_stays_as_it_is() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let own = word(&one);
    let mut stream = one.tls(&api, "api.test", &[]).await.unwrap();
    let upgrade = format!(
        "GET /swap HTTP/1.1\r\nHost: {api}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Key: {own}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut said = String::new();
    let mut piece = vec![0; 16 * 1024];
    while !said.contains("x-key") {
        let length = stream.read(&mut piece).await.unwrap();
        assert_ne!(length, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    assert!(said.starts_with("HTTP/1.1 101") && said.contains(&"*".repeat(TOKEN.len())), "{said}");
    stream.write_all(own.as_bytes()).await.unwrap();
    while !said.ends_with(&own[..5]) {
        let length = stream.read(&mut piece).await.unwrap();
        assert_ne!(length, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    assert!(!said.contains("tok-4"), "{said}");
}

#[tokio::test]
async fn g04_a_lease_for_a_call_is_over_with_it_and_what_comes_back_later_is_blanked_all_the_same() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let api = format!("api.test:{}", world.tls);
    let during = |number: u64| world.call.store(number, Ordering::SeqCst);
    let asked = || world.asked.load(Ordering::SeqCst);
    // In a call: asked for once, used as often as it likes.
    during(1);
    one.door.calls(1);
    for _ in 0..2 {
        assert_eq!(one.get(&api, "/query/a").await.status, 200);
    }
    assert_eq!(asked(), 1);
    // It ended: what is still there asks anew and gets nothing.
    during(NO_CALL);
    one.door.calls(2);
    assert_eq!(one.get(&api, "/query/a").await.code(), Some("no_secret"));
    assert_eq!(asked(), 2);
    // What the host kept of it is searched for in answers without any secret, too.
    let late = with(&one, &api, "/plain", &format!("x-said: {TOKEN}\r\n")).await;
    assert!(
        late.status == 200 && late.text.contains("\"x-said\": \"***") && !late.text.contains("tok-4f9a"),
        "{late:?}"
    );
    // The next call has its own.
    during(3);
    one.door.calls(3);
    assert_eq!(one.get(&api, "/query/a").await.status, 200);
    assert_eq!(asked(), 3);
    // An answer that was given for a call that is over is none, and numbers do not go back.
    one.door.calls(4);
    one.door.calls(3);
    assert_eq!(one.get(&api, "/query/a").await.code(), Some("no_secret"));
    // The control: a lease for a minute does not care.
    during(0);
    assert_eq!(one.get(&api, "/query/a").await.status, 200);
    one.door.calls(5);
    assert_eq!(one.get(&api, "/query/a").await.status, 200);
}
