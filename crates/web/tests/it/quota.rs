//! Budgets and quotas over HTTP: one account meets its own, and the other does not notice.

use serde_json::{Value, json};

use crate::support::{ROOT, Server, code, reason, taken};

const LIMITS: &str = "/api/v1/admin/accounts/acme/limits";

async fn begin(server: &Server, key: &str, message: &str) -> (u16, Value) {
    let (status, body) = taken(server.send("POST", "/eve/v1/session", key, json!({ "message": message })).await).await;
    (status.as_u16(), body)
}

/// The events of a session, once those words are among them.
async fn story(server: &Server, key: &str, session: &Value, words: &str) -> String {
    let path = format!("/eve/v1/session/{}/stream?follow=false", session.as_str().unwrap());
    let mut told = String::new();
    for _ in 0..400 {
        told = server.get(&path, key).await.text().await.unwrap();
        if told.contains(words) {
            return told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{words} does not come: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_a_used_up_budget_ends_the_turn_and_not_the_session() {
    let server = Server::start().await;
    let people = server.people().await;
    server.done("PUT", LIMITS, ROOT, json!({ "model_calls_per_day": 1 })).await;
    let (status, first) = begin(&server, &people.carol, "hello").await;
    assert_eq!(status, 202, "{first}");
    story(&server, &people.carol, &first["sessionId"], "plain answer").await;
    // alice is of the same account; bob is not.
    let (status, second) = begin(&server, &people.alice, "hello").await;
    assert_eq!(status, 202, "{second}");
    let told = story(&server, &people.alice, &second["sessionId"], "budget_exceeded").await;
    assert!(told.contains("opens again at"), "{told}");
    assert!(!told.contains("plain answer"));
    let (_, bobs) = begin(&server, &people.bob, "hello").await;
    story(&server, &people.bob, &bobs["sessionId"], "plain answer").await;
    let refused = |event: &Value| event["result"] == "DENIED" && event["detail"]["code"] == "budget_exceeded";
    let line = server.event("/api/v1/audit", &people.alice, refused).await;
    assert_eq!((&line["user"], &line["detail"]["limit"]), (&json!("alice"), &json!("model_calls_per_day")), "{line}");
    // Raised by the operator, the same session goes on.
    server.done("PUT", LIMITS, ROOT, json!({ "model_calls_per_day": 0 })).await;
    let path = format!("/eve/v1/session/{}", second["sessionId"].as_str().unwrap());
    let sent = server.send("POST", &path, &people.alice, json!({ "message": "again" })).await;
    assert_eq!(sent.status(), 202);
    story(&server, &people.alice, &second["sessionId"], "plain answer").await;
    // What was used is seen: all of it by an admin, one's own and today's sums by a member.
    let usage = server.done("GET", "/api/v1/usage", &people.alice, Value::Null).await;
    assert_eq!(usage["today"]["model_calls"], 2, "{usage}");
    let users: Vec<&Value> = usage["users"].as_array().unwrap().iter().map(|row| &row["user"]).collect();
    assert_eq!(users, [&json!("alice"), &json!("carol")]);
    let carols = server.done("GET", "/api/v1/usage", &people.carol, Value::Null).await;
    assert_eq!((&carols["today"]["model_calls"], &carols["own"][0]["model_calls"]), (&json!(2), &json!(1)));
    assert!(carols.get("users").is_none() && carols.get("days").is_none(), "{carols}");
    let bobs = server.done("GET", "/api/v1/usage", &people.bob, Value::Null).await;
    assert_eq!((&bobs["today"]["model_calls"], bobs["users"].as_array().unwrap().len()), (&json!(1), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_the_operator_alone_says_what_an_account_may_use() {
    let server = Server::start().await;
    let people = server.people().await;
    for key in [&people.alice, &people.carol, &people.vera] {
        assert_eq!(server.send("PUT", LIMITS, key, json!({ "storage_mib": 0 })).await.status(), 403);
        assert_eq!(server.get(LIMITS, key).await.status(), 403);
    }
    assert_eq!(server.send("PUT", LIMITS, &people.bob, json!({ "storage_mib": 0 })).await.status(), 404);
    for wrong in [
        json!({ "tokens": 1 }),
        json!({ "storage_mib": -1 }),
        json!({ "storage_mib": 1.5 }),
        json!({ "storage_mib": "many" }),
        json!({ "storage_mib": u64::MAX }),
        json!([]),
    ] {
        let (status, told) = taken(server.send("PUT", LIMITS, ROOT, wrong.clone()).await).await;
        assert_eq!(status, 400, "{wrong}: {told}");
    }
    let set = server.done("PUT", LIMITS, ROOT, json!({ "storage_mib": 3, "tool_calls_per_day": 9 })).await;
    assert_eq!((&set["limits"]["storage_mib"], &set["set"]["tokens_per_day"]), (&json!(3), &Value::Null));
    let limits = async |key: &str| server.done("GET", "/api/v1/limits", key, Value::Null).await["account"].clone();
    assert_eq!(limits(&people.vera).await["tool_calls_per_day"], 9, "everybody in it may know");
    assert_eq!(limits(&people.bob).await["tool_calls_per_day"], 0);
    // Set whole: what is left out is the default again.
    server.done("PUT", LIMITS, ROOT, json!({ "storage_mib": 4 })).await;
    assert_eq!(limits(&people.vera).await["tool_calls_per_day"], 0);
    let line = server.event("/api/v1/audit", &people.alice, |event| event["action"] == "account.limits.set").await;
    assert_eq!(line["actor"], "operator", "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_one_turn_too_many_is_a_429_and_waits_for_another_to_end() {
    let server = Server::start().await;
    let people = server.people().await;
    server.done("PUT", LIMITS, ROOT, json!({ "concurrent_sessions": 1 })).await;
    let ask = |key: &str| {
        let request = server.request("POST", "/eve/v1/session", key).header("x-bailiwick-agent", "careful");
        request.json(&json!({ "message": "write-file" }))
    };
    let (status, waiting) = taken(ask(&people.carol).send().await.unwrap()).await;
    assert_eq!(status, 202, "{waiting}");
    let fits = |row: &Value| row["session_id"] == waiting["sessionId"];
    let approval = server.event("/api/v1/approvals", &people.carol, fits).await["id"].as_str().unwrap().to_owned();
    for key in [&people.carol, &people.alice] {
        let answer = ask(key).send().await.unwrap();
        assert!(answer.headers().contains_key("retry-after"));
        let (status, told) = taken(answer).await;
        assert_eq!((status.as_u16(), &told["code"]), (429, &json!("too_many_sessions")), "{told}");
        assert!(told.to_string().contains("limit: wait for one to end"), "{told}");
    }
    assert_eq!(taken(ask(&people.bob).send().await.unwrap()).await.0, 202, "the other account");
    let refused = |event: &Value| event["action"] == "quota.refused" && event["user"] == "alice";
    let line = server.event("/api/v1/audit", &people.alice, refused).await;
    assert_eq!((&line["result"], &line["detail"]["code"]), (&json!("DENIED"), &json!("too_many_sessions")), "{line}");
    let path = format!("/api/v1/approvals/{approval}");
    server.done("POST", &path, &people.carol, json!({ "decision": "deny" })).await;
    story(&server, &people.carol, &waiting["sessionId"], "the tool has answered").await;
    let state = format!("/api/v1/sessions/{}", waiting["sessionId"].as_str().unwrap());
    while server.done("GET", &state, &people.carol, Value::Null).await["state"] != "idle" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(taken(ask(&people.alice).send().await.unwrap()).await.0, 202, "one has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_what_does_not_fit_is_not_kept_and_deleting_makes_room() {
    let server = Server::start().await;
    let people = server.people().await;
    server.done("PUT", LIMITS, ROOT, json!({ "storage_mib": 2 })).await;
    let space = server.space(&people.carol, "full").await;
    let path = |name: &str| format!("/api/v1/spaces/{space}/files/content?path={name}");
    let put = async |name: &str, size: usize| {
        let request = server.request("PUT", &path(name), &people.carol).body(vec![b'x'; size]);
        taken(request.send().await.unwrap()).await
    };
    assert_eq!(put("one.bin", 1_500_000).await.0, 200);
    let (status, told) = put("two.bin", 1_500_000).await;
    assert_eq!(
        (status.as_u16(), code(&told), reason(&told)),
        (429, "RESOURCE_EXHAUSTED", "storage_exceeded"),
        "{told}"
    );
    assert_eq!(server.get(&path("two.bin"), &people.carol).await.status(), 404, "nothing of it is kept");
    // The same without saying how long it will be.
    let pieces = futures::stream::iter((0..150).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 10_000])));
    let request = server.request("PUT", &path("two.bin"), &people.carol).body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(taken(request.send().await.unwrap()).await.0, 429);
    assert_eq!(server.get(&path("two.bin"), &people.carol).await.status(), 404);
    assert_eq!(server.get(&path("one.bin"), &people.carol).await.status(), 200, "what is there is read");
    // In place of itself there is room; with an empty hand one may always come.
    assert_eq!(put("one.bin", 1_600_000).await.0, 200);
    let theirs = server.space(&people.bob, "roomy").await;
    let request = server.request("PUT", &format!("/api/v1/spaces/{theirs}/files/content?path=b"), &people.bob);
    assert_eq!(request.body(vec![b'x'; 3_000_000]).send().await.unwrap().status(), 200, "the other account");
    let refused = |event: &Value| event["action"] == "quota.refused";
    let line = server.event("/api/v1/audit", &people.alice, refused).await;
    assert_eq!((&line["user"], &line["detail"]["limit"]), (&json!("carol"), &json!("storage_mib")), "{line}");
    let deleted = server.request("DELETE", &path("one.bin"), &people.carol).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    assert_eq!(put("two.bin", 1_500_000).await.0, 200, "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_the_page_shows_an_admin_who_used_what_and_everybody_else_their_own() {
    let server = Server::start().await;
    let people = server.people().await;
    server.done("PUT", LIMITS, ROOT, json!({ "model_calls_per_day": 4321 })).await;
    let (_, begun) = begin(&server, &people.carol, "hello").await;
    story(&server, &people.carol, &begun["sessionId"], "plain answer").await;
    let page = async |key: &str| {
        let answer = server.get("/usage", key).await;
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    };
    let admins = page(&people.alice).await;
    assert!(admins.contains("By user and day") && admins.contains(">carol<"), "{admins}");
    for key in [&people.carol, &people.vera] {
        let own = page(key).await;
        assert!(own.contains("of 4\u{202f}321") && !own.contains("By user and day"), "{own}");
    }
    let foreign = page(&people.bob).await;
    assert!(foreign.contains("no limit") && !foreign.contains("carol"), "{foreign}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_a_call_that_is_canceled_has_been_paid_for() {
    let server = Server::start().await;
    let people = server.people().await;
    let (status, begun) = begin(&server, &people.carol, "slow please").await;
    assert_eq!(status, 202, "{begun}");
    story(&server, &people.carol, &begun["sessionId"], "one two").await;
    let cancel = format!("/eve/v1/session/{}/cancel", begun["sessionId"].as_str().unwrap());
    server.done("POST", &cancel, &people.carol, json!({})).await;
    story(&server, &people.carol, &begun["sessionId"], "turn.cancelled").await;
    let usage = server.done("GET", "/api/v1/usage", &people.carol, Value::Null).await;
    assert!(usage["own"][0]["tokens_in"].as_u64().unwrap() > 0, "{usage}");
    assert!(usage["own"][0]["tokens_out"].as_u64().unwrap() > 0, "{usage}");
    let bobs = server.done("GET", "/api/v1/usage", &people.bob, Value::Null).await;
    assert_eq!(bobs["today"]["tokens_in"], 0);
}
