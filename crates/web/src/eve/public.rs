//! Whether the server runs, in the exact shape that eve's client demands.

use axum::Json;
use serde_json::{Value, json};

use crate::route::routes;

routes! {
    GET "/eve/v1/health" health, Public, [], Nothing, "Whether sessions can be run";
}

async fn health() -> Json<Value> {
    Json(json!({ "ok": true, "status": "ready", "workflowId": "workflow//bailiwick//session" }))
}
