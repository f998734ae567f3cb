//! Spaces, their plan and their files.

use serde_json::{Value, json};

use crate::support::{Server, code, reason, taken};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_is_made_renamed_planned_and_deleted() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.carol, "one").await;
    let path = format!("/api/v1/spaces/{space}");
    let changed = server.done("PATCH", &path, &people.carol, json!({ "name": "two" })).await;
    assert_eq!((changed["name"].as_str(), changed["owner"].as_str()), (Some("two"), Some("carol")));
    for bad in
        [json!({ "name": "" }), json!({ "name": "a\nb" }), json!({ "name": "x".repeat(300) }), json!({ "nam": "x" })]
    {
        assert_eq!(server.refused("PATCH", &path, &people.carol, bad).await.0, 400);
    }
    let plan = json!({ "items": [{ "text": "think", "status": "done" }] });
    server.done("PUT", &format!("{path}/plan"), &people.carol, plan.clone()).await;
    assert_eq!(server.done("GET", &format!("{path}/plan"), &people.carol, Value::Null).await, plan);
    let bad = json!({ "items": [{ "text": "x", "status": "maybe" }] });
    assert_eq!(server.refused("PUT", &format!("{path}/plan"), &people.carol, bad).await.0, 400);
    let ghost = json!({ "user": "nobody", "level": "read" });
    assert_eq!(server.refused("PUT", &format!("{path}/grants"), &people.carol, ghost).await.0, 404);
    server.done("DELETE", &path, &people.carol, Value::Null).await;
    assert_eq!(server.get(&path, &people.carol).await.status(), 404);
    let spaces = server.done("GET", "/api/v1/spaces", &people.carol, Value::Null).await;
    let personal = format!("/api/v1/spaces/{}", spaces[0]["id"].as_str().unwrap());
    let (status, body) = server.refused("DELETE", &personal, &people.carol, Value::Null).await;
    assert_eq!((status, code(&body), reason(&body)), (409, "CONFLICT", "personal_space"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_in_and_come_out_as_attachments_and_on_record() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.carol, "files").await;
    let content = |path: &str| format!("/api/v1/spaces/{space}/files/content?path={path}");
    let page = "<script>alert(1)</script>";
    let put =
        server.request("PUT", &content("site/gr%C3%B6%C3%9Fe.html"), &people.carol).body(page).send().await.unwrap();
    let (status, put) = taken(put).await;
    assert_eq!(
        (status.as_u16(), put["result"]["size"].as_u64(), put["result"]["created"].as_bool()),
        (200, Some(25), Some(true))
    );
    let read = server.get(&content("site/gr%C3%B6%C3%9Fe.html"), &people.carol).await;
    for (header, value) in [
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("content-disposition", "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.html"),
        ("content-length", "25"),
    ] {
        assert_eq!(read.headers()[header], value);
    }
    assert_eq!(read.text().await.unwrap(), page);
    let top = server.done("GET", &format!("/api/v1/spaces/{space}/files"), &people.carol, Value::Null).await;
    assert_eq!((top[0]["path"].as_str(), top[0]["kind"].as_str()), (Some("site"), Some("directory")));
    let all =
        server.done("GET", &format!("/api/v1/spaces/{space}/files?recursive=true"), &people.carol, Value::Null).await;
    assert!(all.as_array().unwrap().iter().any(|row| row["path"] == "site/größe.html"));

    assert_eq!(server.refused("DELETE", &content("site"), &people.carol, Value::Null).await.0, 409);
    server.done("DELETE", &format!("{}&recursive=true", content("site")), &people.carol, Value::Null).await;
    assert_eq!(server.get(&content("site/x"), &people.carol).await.status(), 404);

    let events = server
        .done("GET", &format!("/api/v1/spaces/{space}/events?action=space.write"), &people.carol, Value::Null)
        .await;
    let told: Vec<(String, String)> = events
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|event| {
            (event["detail"]["file"].as_str().unwrap().to_owned(), event["result"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ("put", "BEGUN"),
        ("put", "OK"),
        ("delete", "BEGUN"),
        ("delete", "FAIL"),
        ("delete-all", "BEGUN"),
        ("delete-all", "OK"),
    ];
    assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a05_paths_that_leave_the_space_are_refused_by_every_route() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.carol, "files").await;
    let long = "x".repeat(300);
    for path in ["../x", "..%2f..%2fB%2ffiles%2fx", "/etc/passwd", "a%00b", "a%0Ab", "a%5Cb", "C:/x", long.as_str()] {
        for (method, route) in
            [("GET", "files"), ("GET", "files/content"), ("PUT", "files/content"), ("DELETE", "files/content")]
        {
            let url = format!("/api/v1/spaces/{space}/{route}?path={path}");
            let (status, body) = server.refused(method, &url, &people.carol, Value::Null).await;
            assert_eq!((status, reason(&body)), (400, "path_traversal"), "{method} {path}");
        }
    }
    let listed = server.done("GET", &format!("/api/v1/spaces/{space}/files"), &people.carol, Value::Null).await;
    assert_eq!(listed, json!([]), "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_reads_and_does_not_write() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.alice, "shared").await;
    let path = format!("/api/v1/spaces/{space}/files/content?path=a.txt");
    server.request("PUT", &path, &people.alice).body("a").send().await.unwrap();
    server
        .done(
            "PUT",
            &format!("/api/v1/spaces/{space}/grants"),
            &people.alice,
            json!({ "user": "carol", "level": "read" }),
        )
        .await;
    assert_eq!(server.get(&path, &people.carol).await.status(), 200);
    assert_eq!(server.request("PUT", &path, &people.carol).body("b").send().await.unwrap().status(), 403);
    assert_eq!(server.get(&path, &people.alice).await.text().await.unwrap(), "a");
    // What was done in a shared space is shown, but not from where and with which key.
    let events = format!("/api/v1/spaces/{space}/events?action=space.grant");
    let seen = server.done("GET", &events, &people.carol, Value::Null).await;
    assert_eq!((seen[0]["actor"].as_str(), &seen[0]["address"]), (Some("user:alice"), &Value::Null));
    let own = server.done("GET", &events, &people.alice, Value::Null).await;
    assert_eq!(own[0]["address"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_empties_a_whole_space() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.carol, "kept").await;
    let content = |path: &str| format!("/api/v1/spaces/{space}/files/content?path={path}");
    for file in ["a.txt", "folder/b.txt"] {
        server.request("PUT", &content(file), &people.carol).body("kept").send().await.unwrap();
    }
    for path in [".", "./", "./.", "folder/./.."] {
        for recursive in ["", "&recursive=true"] {
            let url = format!("{}{recursive}", content(path));
            let (status, body) = server.refused("DELETE", &url, &people.carol, Value::Null).await;
            assert!(status == 400 && ["whole_space", "path_traversal"].contains(&reason(&body)), "{url}: {body}");
        }
    }
    let (_, body) =
        server.refused("DELETE", &format!("{}&recursive=true", content(".")), &people.carol, Value::Null).await;
    assert_eq!(reason(&body), "whole_space");
    for file in ["a.txt", "folder/b.txt"] {
        assert_eq!(server.get(&content(file), &people.carol).await.text().await.unwrap(), "kept");
    }
    // Positive control: a folder goes with all below it.
    server.done("DELETE", &format!("{}&recursive=true", content("folder")), &people.carol, Value::Null).await;
    assert_eq!(server.get(&content("folder/b.txt"), &people.carol).await.status(), 404);
}
