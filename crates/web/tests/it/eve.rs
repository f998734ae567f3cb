//! Sessions over eve's protocol, with a scripted model.

use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_web::{Settings, Times};
use serde_json::{Value, json};

use crate::support::{ROOT, Server, settings, taken};

/// Reads a stream until an event of a kind has come.
async fn until(server: &Server, session: &str, key: &str, from: usize, kinds: &[&str]) -> Vec<Value> {
    let path = format!("/eve/v1/session/{session}/stream?streamControlVersion=1&startIndex={from}");
    let mut stream = server.get(&path, key).await;
    assert_eq!(stream.status(), 200);
    let mut text = String::new();
    let reading = async {
        loop {
            let piece = stream.chunk().await.unwrap().expect("the stream ended");
            text.push_str(&String::from_utf8_lossy(&piece));
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let events: Vec<Value> =
                whole.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
            if events.iter().any(|event| kinds.contains(&event["type"].as_str().unwrap_or(""))) {
                return events;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("events in time")
}

async fn begin(server: &Server, key: &str, agent: &str, message: &str) -> String {
    let request = server
        .request("POST", "/eve/v1/session", key)
        .header("x-bailiwick-agent", agent)
        .json(&json!({ "message": message }));
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let head = response.headers()["x-eve-session-id"].to_str().unwrap().to_owned();
    let (status, body) = taken(response).await;
    assert_eq!((status.as_u16(), body["ok"].as_bool(), body["status"].as_str()), (202, Some(true), Some("accepted")));
    assert_eq!(body["sessionId"], head);
    head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_inspection_have_the_exact_shape() {
    let server = Server::start().await;
    let people = server.people().await;
    let (_, health) = taken(server.get("/eve/v1/health", "").await).await;
    assert_eq!(health.as_object().unwrap().keys().collect::<Vec<_>>(), ["ok", "status", "workflowId"]);
    let info = server.request("GET", "/eve/v1/info", &people.carol).header("x-openviking-agent", "careful");
    let (_, info) = taken(info.send().await.unwrap()).await;
    assert_eq!(
        (info["kind"].as_str(), info["version"].as_u64(), info["agent"]["name"].as_str()),
        (Some("eve-agent-info"), Some(5), Some("careful"))
    );
    let tool = info["tools"]["static"].as_array().unwrap().iter().find(|tool| tool["name"] == "write_file").unwrap();
    assert_eq!(tool["requiresApproval"], true);
    assert_eq!(tool["binding"]["owner"].to_string(), tool["owner"].to_string());
    let unknown = server.request("GET", "/eve/v1/info", &people.carol).header("x-bailiwick-agent", "nobody");
    let (status, body) = taken(unknown.send().await.unwrap()).await;
    assert_eq!((status.as_u16(), body["error"].as_str()), (404, Some("Agent not found.")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_streamed_and_read_again_byte_for_byte() {
    let server = Server::start().await;
    let people = server.people().await;
    let session = begin(&server, &people.carol, "default", "hello").await;
    let events = until(&server, &session, &people.carol, 0, &["session.waiting"]).await;
    assert_eq!(events[0]["type"], "session.started");
    let read = async |query: &str| {
        let response = server.get(&format!("/eve/v1/session/{session}/stream?{query}"), &people.carol).await;
        for (name, value) in [
            ("content-type", "application/x-ndjson; charset=utf-8"),
            ("x-eve-stream-version", "26"),
            ("x-eve-stream-format", "ndjson"),
            ("x-accel-buffering", "no"),
            ("cache-control", "no-store, no-transform"),
            ("x-eve-session-id", session.as_str()),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        let tail: i64 = response.headers()["x-eve-stream-tail-index"].to_str().unwrap().parse().unwrap();
        (tail, response.text().await.unwrap())
    };
    let (tail, whole) = read("follow=false").await;
    assert_eq!(tail, events.len() as i64 - 1);
    assert!(whole.starts_with('\n'));
    let lines: Vec<&str> = whole.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), events.len());
    for (query, from) in [
        ("startIndex=5&follow=0", 5),
        ("startIndex=-2&follow=false&includeTailIndex=1", lines.len() - 2),
        ("startIndex=-999&follow=false", 0),
        ("startIndex=999&follow=false", lines.len()),
    ] {
        let (again, part) = read(query).await;
        assert_eq!(again, tail, "{query}");
        assert_eq!(part.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(), lines[from..], "{query}");
    }
    let (status, body) =
        taken(server.get(&format!("/eve/v1/session/{session}/stream?startIndex=x"), &people.carol).await).await;
    assert_eq!((status.as_u16(), body["error"].as_str()), (400, Some("Expected startIndex to be an integer.")));

    let path = format!("/eve/v1/session/{session}");
    let sent = server.done("POST", &path, &people.carol, json!({ "message": "again" })).await;
    let delivery = sent["deliveryId"].as_str().unwrap();
    let more = until(&server, &session, &people.carol, events.len(), &["session.waiting"]).await;
    assert!(more.iter().all(|event| event["meta"]["deliveryIds"].to_string().contains(delivery)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prewarmed_session_is_empty_and_the_words_are_the_protocols() {
    let server = Server::start().await;
    let people = server.people().await;
    let empty = server.request("POST", "/eve/v1/session", &people.carol).send().await.unwrap();
    let (status, body) = taken(empty).await;
    assert_eq!(status, 202);
    let session = body["sessionId"].as_str().unwrap().to_owned();
    let stream = server.get(&format!("/eve/v1/session/{session}/stream?follow=false"), &people.carol).await;
    assert_eq!(stream.headers()["x-eve-stream-tail-index"], "-1");
    assert_eq!(stream.text().await.unwrap(), "\n");
    let follow_up = format!("/eve/v1/session/{session}");
    for (path, body, expected) in [
        ("/eve/v1/session", json!({ "message": "" }), "Expected 'message' to be non-empty when provided."),
        ("/eve/v1/session", json!([]), "Expected a JSON object."),
        (follow_up.as_str(), json!({}), "Expected a non-empty 'message' or a non-empty 'inputResponses' array."),
    ] {
        let (status, answer) = server.refused("POST", path, &people.carol, body).await;
        assert_eq!((status, answer["error"].as_str(), answer["ok"].as_bool()), (400, Some(expected), Some(false)));
        assert!(answer.get("code").is_none());
    }
    let broken =
        server.request("POST", "/eve/v1/session", &people.carol).header("content-type", "application/json").body("{");
    let (status, answer) = taken(broken.send().await.unwrap()).await;
    assert_eq!((status.as_u16(), answer["error"].as_str()), (400, Some("Invalid JSON body.")));
    for refused in [
        json!({ "message": "x", "callback": { "url": "http://127.0.0.1:9/" } }),
        json!({ "message": "x", "forwardedPrincipal": {} }),
    ] {
        assert_eq!(server.refused("POST", "/eve/v1/session", &people.carol, refused).await.0, 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_is_one_session_also_at_once_and_for_each_caller() {
    let server = Server::start().await;
    let people = server.people().await;
    let body = json!({ "message": "hello", "operationId": "op-1" });
    let asked = (0..8).map(|_| server.done("POST", "/eve/v1/session", &people.carol, body.clone()));
    let made = futures::future::join_all(asked).await;
    assert!(made.iter().all(|answer| answer["sessionId"] == made[0]["sessionId"]));
    let other = server.done("POST", "/eve/v1/session", &people.alice, body.clone()).await;
    assert_ne!(other["sessionId"], made[0]["sessionId"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t03_t04_t07_an_approval_waits_for_the_right_person_and_counts_once() {
    let server = Server::start().await;
    let people = server.people().await;
    let session = begin(&server, &people.carol, "careful", "write-file please").await;
    let events = until(&server, &session, &people.carol, 0, &["turn.waiting"]).await;
    let pending = server.done("GET", "/api/v1/approvals", &people.carol, Value::Null).await;
    assert_eq!((pending.as_array().unwrap().len(), pending[0]["tool"].as_str()), (1, Some("write_file")));
    assert_eq!(pending[0]["session_id"], session);
    let path = format!("/api/v1/approvals/{}", pending[0]["id"].as_str().unwrap());
    let state = server.done("GET", &format!("/api/v1/sessions/{session}"), &people.carol, Value::Null).await;
    assert_eq!(state["state"], "awaiting-approval");
    for stranger in [&people.alice, &people.bob, &people.dave] {
        assert_eq!(server.done("GET", "/api/v1/approvals", stranger, Value::Null).await, json!([]));
        assert_eq!(server.refused("POST", &path, stranger, json!({ "decision": "approve" })).await.0, 404);
        assert_eq!(server.refused("GET", &path, stranger, Value::Null).await.0, 404);
    }
    assert_eq!(server.refused("POST", &path, &people.carol, json!({ "decision": "maybe" })).await.0, 400);
    let decided = server.done("POST", &path, &people.carol, json!({ "decision": "approve" })).await;
    assert_eq!(decided["state"], "approved");
    let (status, body) = server.refused("POST", &path, &people.carol, json!({ "decision": "deny" })).await;
    assert_eq!((status, crate::support::reason(&body)), (409, "already_decided"));
    until(&server, &session, &people.carol, events.len(), &["session.waiting"]).await;
    let spaces = server.done("GET", "/api/v1/spaces", &people.carol, Value::Null).await;
    let file = format!("/api/v1/spaces/{}/files/content?path=note.txt", spaces[0]["id"].as_str().unwrap());
    assert_eq!(server.get(&file, &people.carol).await.text().await.unwrap(), "approved content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_answer_as_the_client_demands() {
    let server = Server::start().await;
    let people = server.people().await;
    let session = begin(&server, &people.carol, "default", "hello").await;
    until(&server, &session, &people.carol, 0, &["session.waiting"]).await;
    let command = async |name: &str, body: Value| {
        taken(server.send("POST", &format!("/eve/v1/session/{session}/{name}"), &people.carol, body).await).await
    };
    for name in ["cancel", "clear", "compact"] {
        let (status, body) = command(name, json!({})).await;
        assert_eq!(
            (status.as_u16(), body),
            (202, json!({ "ok": true, "sessionId": session, "status": "accepted" })),
            "{name}"
        );
    }
    let (status, body) = command("cancel", json!({ "turnId": 5 })).await;
    assert_eq!((status.as_u16(), body["error"].as_str()), (400, Some("Expected 'turnId' to be a non-empty string.")));
    let (status, body) = command("reset", json!({ "reason": "done" })).await;
    assert_eq!((status.as_u16(), body), (200, json!({ "ok": true, "previousSessionId": session, "status": "reset" })));
    let ended = async {
        loop {
            let row = server.done("GET", &format!("/api/v1/sessions/{session}"), &people.carol, Value::Null).await;
            if row["state"] == "done" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the reset in time");
    assert_eq!(command("cancel", json!({})).await.1, json!({ "ok": true, "status": "no_active_turn" }));
    assert_eq!(command("clear", json!({})).await.1, json!({ "ok": true, "status": "no_active_session" }));
    assert_eq!(command("reset", json!({})).await.1, json!({ "ok": true, "status": "no_active_session" }));
    let sent =
        server.send("POST", &format!("/eve/v1/session/{session}"), &people.carol, json!({ "message": "x" })).await;
    let (status, body) = taken(sent).await;
    assert_eq!((status.as_u16(), body["code"].as_str()), (409, Some("session_not_active")));
    // The stream of an ended session ends by itself.
    let whole = server.get(&format!("/eve/v1/session/{session}/stream"), &people.carol).await.text();
    tokio::time::timeout(Duration::from_secs(5), whole).await.expect("an end").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_show_signs_of_life_and_end_with_their_lease() {
    let times = Times { heartbeat: Duration::from_millis(100), lease: Duration::from_millis(1500), ..Times::default() };
    let server = Server::with(vec![Step::ApiKey], Settings { times, ..settings() }).await;
    let people = server.people().await;
    let session = server.done("POST", "/eve/v1/session", &people.carol, json!({})).await;
    let path = format!("/eve/v1/session/{}/stream", session["sessionId"].as_str().unwrap());
    let text = server.get(&format!("{path}?streamControlVersion=1"), &people.carol).await.text().await.unwrap();
    assert!(text.starts_with("\n\n\n"), "{text:?}");
    assert!(text.ends_with("\n{\"$eve\":\"stream.lease-ended\",\"version\":1}\n"), "{text:?}");
    // A reader who did not ask for control records gets none, and stays.
    let mut plain = server.get(&path, &people.carol).await;
    for _ in 0..8 {
        assert_eq!(plain.chunk().await.unwrap().unwrap().iter().filter(|byte| **byte != b'\n').count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i14_a_turn_is_its_callers_and_the_session_stays_whose_it_is() {
    let server = Server::start().await;
    let people = server.people().await;
    let narrow = json!({ "name": "reads", "scopes": ["read"] });
    let reads = server.done("POST", "/api/v1/admin/accounts/acme/users/carol/keys", &people.alice, narrow).await;
    let body = json!({ "message": "hello" });
    let (status, begun) = taken(server.send("POST", "/eve/v1/session", &people.carol, body.clone()).await).await;
    assert_eq!(status, 202, "{begun}");
    let session = begun["sessionId"].as_str().unwrap().to_owned();
    let turns = async |actor: &str| {
        let of = |event: &Value| {
            event["actor"] == actor
                && event["action"] == "model.call"
                && event["resource"].to_string().contains(&session)
        };
        server.event("/api/v1/audit?limit=500", &people.alice, of).await
    };
    let first = turns("user:carol").await;
    // The same user by another credential: what that one may not, the turn may not, whoever began.
    let path = format!("/eve/v1/session/{session}");
    let refused = server.send("POST", &path, reads["key"].as_str().unwrap(), body.clone()).await;
    assert_eq!(refused.status(), 403);
    // The operator in carol's name: the turn is the operator's, and the session stays hers.
    for _ in 0..200 {
        let operator = server.request("POST", &path, ROOT).header("x-openviking-account", "acme");
        let sent = operator.header("x-openviking-user", "carol").json(&body).send().await.unwrap();
        if sent.status() == 202 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let second = turns("operator-for:carol").await;
    assert_ne!(first["credential"], second["credential"], "{first} {second}");
    let row = server.done("GET", &format!("/api/v1/sessions/{session}"), &people.carol, Value::Null).await;
    assert_eq!(row["initiator"], "carol");
    // Nobody else is a caller of it: not the admin of the account, and not of another.
    for (key, status) in [(&people.alice, 404), (&people.bob, 404)] {
        assert_eq!(server.send("POST", &path, key, body.clone()).await.status(), status);
    }
}
