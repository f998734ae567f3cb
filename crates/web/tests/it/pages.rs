//! The public pages, and what a key adds to them.

use serde_json::{Value, json};

use crate::support::{ROOT, Server, taken};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_who_a_key_is_and_refuses_a_wrong_one() {
    let server = Server::start().await;
    let people = server.people().await;
    let (status, body) = taken(server.get("/health", "").await).await;
    assert_eq!(status, 200);
    assert_eq!(body["status"], "ok");
    assert_eq!((body["healthy"].clone(), body["auth_mode"].clone()), (json!(true), json!("api_key")));
    assert!(body.get("account_id").is_none());
    let (_, body) = taken(server.get("/health", &people.carol).await).await;
    assert_eq!(
        (body["account_id"].clone(), body["user_id"].clone(), body["role"].clone()),
        (json!("acme"), json!("carol"), json!("user"))
    );
    let (_, body) = taken(server.get("/health", ROOT).await).await;
    assert_eq!(body["role"], "root");
    assert_eq!(server.get("/health", "wrong").await.status(), 401);
    assert_eq!(server.get("/ready", "").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_the_operators() {
    let server = Server::start().await;
    let people = server.people().await;
    assert_eq!(server.get("/metrics", "").await.status(), 401);
    assert_eq!(server.get("/metrics", &people.alice).await.status(), 403);
    let text = server.get("/metrics", ROOT).await.text().await.unwrap();
    assert!(
        text.contains(
            "bailiwick_http_requests_total{route=\"/api/v1/admin/accounts\",method=\"POST\",status=\"200\"} 2"
        )
    );
    assert!(!text.contains("acme") && !text.contains("alice"), "e08: no tenant in a metric");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_describes_every_route_to_those_who_have_a_key() {
    let server = Server::start().await;
    let people = server.people().await;
    let (_, public) = taken(server.get("/openapi.json", "").await).await;
    let (_, whole) = taken(server.get("/openapi.json", &people.vera).await).await;
    assert_eq!(whole["openapi"], "3.1.0");
    let described = |document: &Value, path: &str| document["paths"].get(path).is_some();
    assert!(described(&public, "/health") && !described(&public, "/api/v1/spaces"));
    for route in bailiwick_web::route::programs() {
        let operation = &whole["paths"][route.path][route.method.to_lowercase()];
        assert_eq!(operation["summary"], route.summary, "{} {}", route.method, route.path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_routes_and_methods_answer_in_the_voice_of_their_protocol() {
    let server = Server::start().await;
    let (status, body) = taken(server.get("/api/v1/nothing", "").await).await;
    assert_eq!((status.as_u16(), body["error"]["message"].as_str()), (404, Some("Not Found")));
    let (status, body) = taken(server.request("PUT", "/api/v1/spaces", "").send().await.unwrap()).await;
    assert_eq!((status.as_u16(), body["status"].as_str()), (405, Some("error")));
    let (status, body) = taken(server.get("/eve/v1/nothing", "").await).await;
    assert_eq!((status.as_u16(), body["error"].as_bool()), (404, Some(true)));
    let response = server.get("/api/v1/nothing", "").await;
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
}
