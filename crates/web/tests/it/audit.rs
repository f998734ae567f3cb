//! The log over HTTP: what stands in it, who reads what, and how it is followed.

use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_web::{Settings, Times};
use serde_json::{Value, json};

use crate::support::{ROOT, Server, reason, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e01_requests_refusals_and_rejections_are_on_record_without_what_they_held() {
    let server = Server::start().await;
    let people = server.people().await;
    server.get("/api/v1/spaces?secret=in-the-query", &people.carol).await;
    let seen = |event: &Value| event["action"] == "http.request" && event["actor"] == "user:carol";
    let event = server.event("/api/v1/audit", &people.alice, seen).await;
    assert_eq!(event["resource"], "route:/api/v1/spaces");
    assert_eq!((event["detail"]["method"].as_str(), event["detail"]["status"].as_u64()), (Some("GET"), Some(200)));
    assert!(event["credential"].as_str().unwrap().starts_with("key:"));
    assert!(event["request"].as_str().unwrap().starts_with("req_"));

    let head = server.request("HEAD", "/api/v1/sessions", &people.carol).send().await.unwrap();
    assert_eq!(head.status(), 200);
    let seen = |event: &Value| event["resource"] == "route:/api/v1/sessions" && event["detail"]["method"] == "HEAD";
    server.event("/api/v1/audit", &people.alice, seen).await;

    server.send("POST", "/api/v1/spaces", &people.vera, json!({ "name": "e08-body" })).await;
    let refused = |event: &Value| event["action"] == "space.create" && event["result"] == "DENIED";
    let event = server.event("/api/v1/audit", &people.alice, refused).await;
    assert_eq!(
        (event["actor"].as_str(), event["detail"]["code"].as_str()),
        (Some("user:vera"), Some("viewer_readonly"))
    );

    server.get("/api/v1/spaces", "bwk_wrong").await;
    let rejected = |event: &Value| event["action"] == "auth.reject" && event["detail"]["code"] == "invalid";
    server.event("/api/v1/admin/audit", ROOT, rejected).await;

    for path in ["/api/v1/audit?limit=1000", "/api/v1/spaces"] {
        let text = server.done("GET", path, &people.alice, Value::Null).await.to_string();
        assert!(!text.contains("in-the-query") && !text.contains("e08-body") && !text.contains("bwk_"));
    }
    let own = server.done("GET", "/api/v1/audit?user=alice", &people.carol, Value::Null).await;
    assert!(own.as_array().unwrap().iter().all(|event| event["user"] == "carol"), "others' events are not carol's");
    let (status, body) = server.refused("GET", "/api/v1/admin/audit", &people.alice, Value::Null).await;
    assert_eq!((status, reason(&body)), (403, "operator_only"));
    let foreign = server.done("GET", "/api/v1/audit?limit=1000", &people.bob, Value::Null).await.to_string();
    assert!(!foreign.contains("carol") && !foreign.contains("vera"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e05_filters_pages_and_verification() {
    let server = Server::start().await;
    let people = server.people().await;
    for n in 0..5 {
        server.space(&people.carol, &format!("s{n}")).await;
    }
    let all = server.done("GET", "/api/v1/audit?action=space&result=ok&user=carol", &people.alice, Value::Null).await;
    assert_eq!(all.as_array().unwrap().len(), 5);
    assert!(all[0]["seq"].as_u64() > all[4]["seq"].as_u64(), "newest first");
    let after = all[2]["seq"].as_u64().unwrap();
    let page = server.get(&format!("/api/v1/audit?action=space&after={after}&limit=1"), &people.alice).await;
    let page: Value = page.json().await.unwrap();
    assert_eq!((page["result"][0]["seq"].clone(), page["has_more"].clone()), (all[1]["seq"].clone(), json!(true)));
    assert_eq!(server.refused("GET", "/api/v1/audit?result=perhaps", &people.alice, Value::Null).await.0, 400);
    assert_eq!(server.refused("GET", "/api/v1/audit?limit=0", &people.alice, Value::Null).await.0, 400);
    for method in ["GET", "POST"] {
        let verified = server.done(method, "/api/v1/audit/verify", &people.alice, Value::Null).await;
        assert_eq!(verified["ok"], true);
        assert!(verified["size"].as_u64().unwrap() > 5);
    }
    assert_eq!(server.get("/api/v1/audit/verify", &people.carol).await.status(), 403);
    assert_eq!(server.done("POST", "/api/v1/admin/audit/verify", ROOT, Value::Null).await["ok"], true);
}

/// Reads events until `count` of an action have come.
async fn events(stream: &mut reqwest::Response, action: &str, count: usize) -> Vec<Value> {
    let mut text = String::new();
    let reading = async {
        loop {
            let found: Vec<Value> = text
                .split("\n\n")
                .filter_map(|block| {
                    serde_json::from_str(block.lines().find_map(|line| line.strip_prefix("data: "))?).ok()
                })
                .filter(|event: &Value| event["action"] == action)
                .collect();
            if found.len() >= count {
                return found;
            }
            let piece = stream.chunk().await.unwrap().expect("the stream ended");
            text.push_str(&String::from_utf8_lossy(&piece));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("events in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e02_the_log_is_followed_and_taken_up_again() {
    let server = Server::start().await;
    let people = server.people().await;
    server.space(&people.alice, "before").await;
    let mut stream = server.get("/api/v1/audit/stream?action=space.create", &people.alice).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut own = server.get("/api/v1/audit/stream?action=space.create", &people.carol).await;
    server.space(&people.alice, "one").await;
    let first = events(&mut stream, "space.create", 1).await;
    assert_eq!(first[0]["detail"]["name"], "one", "what was before is not repeated");
    drop(stream);
    server.space(&people.alice, "two").await;
    server.space(&people.carol, "three").await;
    let request = server
        .request("GET", "/api/v1/audit/stream?action=space.create", &people.alice)
        .header("last-event-id", first[0]["seq"].to_string());
    let names: Vec<Value> = events(&mut request.send().await.unwrap(), "space.create", 2)
        .await
        .iter()
        .map(|event| event["detail"]["name"].clone())
        .collect();
    assert_eq!(names, [json!("two"), json!("three")]);
    let mine = events(&mut own, "space.create", 1).await;
    assert_eq!(mine[0]["detail"]["name"], "three", "carol sees her own alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_its_streams() {
    let times = Times { heartbeat: Duration::from_millis(100), ..Times::default() };
    let server = Server::with(vec![Step::ApiKey], Settings { times, ..settings() }).await;
    let people = server.people().await;
    let session = server.done("POST", "/eve/v1/session", &people.carol, json!({})).await;
    let path = format!("/eve/v1/session/{}/stream", session["sessionId"].as_str().unwrap());
    let mut streams = Vec::new();
    for path in [path.as_str(), "/api/v1/audit/stream"] {
        let mut stream = server.get(path, &people.carol).await;
        assert_eq!(stream.status(), 200);
        // Control: it lives on through several looks at the right.
        for _ in 0..3 {
            assert!(stream.chunk().await.unwrap().is_some());
        }
        streams.push(stream);
    }
    server.request("DELETE", "/api/v1/admin/accounts/acme/users/carol", &people.alice).send().await.unwrap();
    for stream in streams {
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.bytes()).await;
        assert!(ended.is_ok_and(|rest| rest.is_ok()), "the stream goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i15_a_reader_whose_key_was_revoked_gets_not_one_line_more() {
    // The next look at the reader is an hour away.
    let times = Times { heartbeat: Duration::from_secs(3600), ..Times::default() };
    let server = Server::with(vec![Step::ApiKey], Settings { times, ..settings() }).await;
    let people = server.people().await;
    let mut stream = server.get("/api/v1/audit/stream?action=space", &people.alice).await;
    let mut witness = server.get("/api/v1/audit/stream?action=space", &people.alice).await;
    for stream in [&mut stream, &mut witness] {
        assert!(stream.chunk().await.unwrap().is_some());
    }
    server.space(&people.carol, "before").await;
    let seen = stream.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&seen).contains("space.create"), "the control");
    server.done("POST", "/api/v1/admin/accounts/acme/users/alice/key", &people.alice, Value::Null).await;
    server.space(&people.carol, "after").await;
    let rest = tokio::time::timeout(Duration::from_secs(10), stream.bytes()).await.expect("it ends").unwrap();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a03_ones_own_log_does_not_tell_what_the_answer_did_not() {
    let server = Server::start().await;
    let people = server.people().await;
    let hidden = server.space(&people.alice, "hidden").await;
    let all = "/api/v1/audit?limit=1000";
    for name in [hidden.as_str(), "spc_01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        let answer = server.get(&format!("/api/v1/spaces/{name}"), &people.carol).await;
        assert_eq!(answer.status(), 404);
        let request = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let answered = |event: &Value| event["request"] == request && event["action"] == "http.request";
        server.event(all, &people.carol, answered).await;
        let lines = async |key: &str| {
            let log = server.done("GET", all, key, Value::Null).await;
            let of_it = log.as_array().unwrap().iter().filter(|event| event["request"] == request);
            of_it.map(|event| event["resource"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        // The same for both, to the number of lines: a gap in the numbers would tell as much as a line.
        assert_eq!(lines(&people.carol).await, ["route:/api/v1/spaces/{space}"]);
        // Control: who runs the account sees what was tried.
        assert_eq!(lines(&people.alice).await, ["route:/api/v1/spaces/{space}", &format!("space:{name}")]);
    }
}
