//! Somebody else's things: not there, in the very words of what never was.

use serde_json::{Value, json};

use crate::support::{Server, taken, without_id};

const NEVER: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a03_a04_foreign_spaces_and_sessions_are_told_apart_from_none_by_nobody() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.alice, "secret-name").await;
    let path = format!("/api/v1/spaces/{space}/files/content?path=a.txt");
    let put = server.request("PUT", &path, &people.alice).body("canary").send().await.unwrap();
    assert_eq!(put.status(), 200);
    let session = server.done("POST", "/eve/v1/session", &people.alice, json!({})).await;
    let session = session["sessionId"].as_str().unwrap().to_owned();

    let routes = [
        ("GET", "/api/v1/spaces/{s}"),
        ("PATCH", "/api/v1/spaces/{s}"),
        ("DELETE", "/api/v1/spaces/{s}"),
        ("GET", "/api/v1/spaces/{s}/grants"),
        ("PUT", "/api/v1/spaces/{s}/grants"),
        ("DELETE", "/api/v1/spaces/{s}/grants/alice"),
        ("GET", "/api/v1/spaces/{s}/plan"),
        ("PUT", "/api/v1/spaces/{s}/plan"),
        ("GET", "/api/v1/spaces/{s}/sessions"),
        ("GET", "/api/v1/spaces/{s}/events"),
        ("GET", "/api/v1/spaces/{s}/files"),
        ("GET", "/api/v1/spaces/{s}/files/content?path=a.txt"),
        ("PUT", "/api/v1/spaces/{s}/files/content?path=a.txt"),
        ("DELETE", "/api/v1/spaces/{s}/files/content?path=a.txt"),
        ("GET", "/api/v1/sessions/{e}"),
        ("GET", "/eve/v1/session/{e}/stream"),
        ("POST", "/eve/v1/session/{e}"),
        ("POST", "/eve/v1/session/{e}/cancel"),
        ("POST", "/eve/v1/session/{e}/clear"),
        ("POST", "/eve/v1/session/{e}/compact"),
        ("POST", "/eve/v1/session/{e}/reset"),
        ("GET", "/eve/v1/session/{e}/stubs"),
        ("GET", "/eve/v1/session/{e}/subagents/c/d/stream"),
    ];
    for (method, route) in routes {
        let real = route.replace("{s}", &space).replace("{e}", &session);
        let none = route.replace("{s}", &format!("spc_{NEVER}")).replace("{e}", &format!("ses_{NEVER}"));
        // A stranger of another account, and a colleague without a grant.
        for key in [&people.bob, &people.dave, &people.carol] {
            let (a, a_body) = taken(server.send(method, &real, key, json!({ "message": "x" })).await).await;
            let (b, b_body) = taken(server.send(method, &none, key, json!({ "message": "x" })).await).await;
            assert_eq!((a.as_u16(), b.as_u16()), (404, 404), "{method} {route}");
            let a_text = without_id(a_body).replace(&space, "ID").replace(&session, "ID");
            let b_text =
                without_id(b_body).replace(&format!("spc_{NEVER}"), "ID").replace(&format!("ses_{NEVER}"), "ID");
            assert_eq!(a_text, b_text, "{method} {route}");
            if route.starts_with("/eve") {
                assert!(a_text.contains("Session not found."), "{a_text}");
            }
        }
    }
    // Control: the owner still has all of it, unchanged.
    let own = server.get(&format!("/api/v1/spaces/{space}/files/content?path=a.txt"), &people.alice).await;
    assert_eq!(own.text().await.unwrap(), "canary");
    assert_eq!(server.get(&format!("/api/v1/sessions/{session}"), &people.alice).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a02_a11_a12_lists_show_ones_own_and_what_was_granted() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.carol, "carols").await;
    let names = async |key: &str, query: &str| {
        let rows = server.done("GET", &format!("/api/v1/spaces{query}"), key, Value::Null).await;
        rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&people.carol, "").await, ["Personal", "carols"]);
    assert_eq!(names(&people.vera, "?userId=carol&user=carol&owner=carol").await, ["Personal"]);
    assert_eq!(names(&people.bob, "?account=acme").await, ["Personal", "Personal"], "globex, as its admin");
    let (status, _) =
        server.refused("POST", "/api/v1/spaces", &people.carol, json!({ "name": "x", "owner": "vera" })).await;
    assert_eq!(status, 400, "a body names no owner");

    // An admin sees that it exists, and reads it only after granting themselves access, on record.
    let plan = format!("/api/v1/spaces/{space}/plan");
    assert_eq!(server.get(&format!("/api/v1/spaces/{space}"), &people.alice).await.status(), 200);
    assert_eq!(server.get(&plan, &people.alice).await.status(), 403);
    let grants = format!("/api/v1/spaces/{space}/grants");
    server.done("PUT", &grants, &people.alice, json!({ "user": "alice", "level": "read" })).await;
    assert_eq!(server.get(&plan, &people.alice).await.status(), 200);
    let events = server.done("GET", "/api/v1/audit?action=space.grant", &people.alice, Value::Null).await;
    assert_eq!(
        (events[0]["actor"].as_str(), events[0]["detail"]["user"].as_str()),
        (Some("user:alice"), Some("alice"))
    );
    server.done("DELETE", &format!("{grants}/alice"), &people.carol, Value::Null).await;
    assert_eq!(server.get(&plan, &people.alice).await.status(), 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bound_keys_reach_one_space_and_one_agent() {
    let server = Server::start().await;
    let people = server.people().await;
    let (one, two) = (server.space(&people.carol, "one").await, server.space(&people.carol, "two").await);
    let keys = "/api/v1/admin/accounts/acme/users/carol/keys";
    let made =
        server.done("POST", keys, &people.carol, json!({ "name": "b", "space_id": one, "agent_id": "careful" })).await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(server.get(&format!("/api/v1/spaces/{one}"), key).await.status(), 200);
    assert_eq!(server.get(&format!("/api/v1/spaces/{two}"), key).await.status(), 404);
    // Headers cannot change what a key is bound to.
    let request = server
        .request("POST", "/eve/v1/session", key)
        .header("x-bailiwick-agent", "default")
        .header("x-bailiwick-space", &two);
    let (status, body) = taken(request.send().await.unwrap()).await;
    assert_eq!(status, 202, "{body}");
    let id = body["sessionId"].as_str().unwrap();
    let row = server.done("GET", &format!("/api/v1/sessions/{id}"), &people.carol, Value::Null).await;
    assert_eq!((row["agent"].as_str(), row["space_id"].as_str()), (Some("careful"), Some(one.as_str())));
}
