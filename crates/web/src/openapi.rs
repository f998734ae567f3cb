//! `/openapi.json`: the table of routes as an OpenAPI 3.1 document. It is made from the table that
//! serves them, so it cannot describe a route that is not there, or leave one out.

mod shape;

use serde_json::{Map, Value, json};

use crate::app::Settings;
use crate::route::{Access, Route, Shape, programs};

/// How much of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// What anyone may ask for.
    Public,
    /// All of it.
    Whole,
}

/// The document.
pub(crate) fn document(settings: &Settings, part: Part) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in programs().filter(|route| part == Part::Whole || route.access != Access::Known) {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": settings.server_name,
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Errors under /api/v1 are {status, error: {code, message, details}}, and under /eve/v1 \
                            {ok: false, error, code?}, under /api/auth {code, message}, and under /oauth {error, error_description}. Every reply carries X-Request-Id.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
                "bearer": { "type": "http", "scheme": "bearer", "description": "A key, or a login's token." },
            },
            "responses": { "Failed": failed("Failed"), "EveFailed": failed("EveFailed"), "SignFailed": failed("SignFailed"),
                "OAuthFailed": failed("OAuthFailed") },
            "schemas": shape::components(),
        },
    });
    if let Some(url) = &settings.public_url {
        document["servers"] = json!([{ "url": url }]);
    }
    document
}

fn operation(route: &Route) -> Value {
    let group = match route.path {
        path if path.starts_with("/eve/") => "eve sessions",
        path if path.starts_with("/api/auth/") => "signing in",
        path if path.starts_with("/oauth/") || path.starts_with("/.well-known/oauth-") => "authorization server",
        path if path.starts_with("/api/") => "control plane",
        _ => "server",
    };
    let mut operation = json!({
        "summary": route.summary,
        "tags": [group],
        "operationId": operation_id(route),
        "parameters": parameters(route),
        "responses": {
            "2XX": { "description": "Done.", "content": shape::reply(route) },
            "4XX": shape::failure(route),
            // Some of these come before a request is one: nobody has read what it asks for.
            "431": { "description": "The head is too long. There is no body if it was too long to be read at all." },
            "5XX": shape::failure(route),
        },
        "security": security(route.access),
    });
    if !route.verbs.is_empty() {
        operation["x-bailiwick-verbs"] = json!(route.verbs);
    }
    if route.access == Access::Socket {
        operation["responses"]["101"] = json!({ "description": "The socket is open. Its frames are in docs/api.md." });
    }
    operation["requestBody"] = match route.body {
        Shape::Nothing => return operation,
        Shape::Json => {
            let schema = shape::body(route);
            // An empty body is an object without fields.
            let required =
                schema.get("oneOf").is_some() || schema["required"].as_array().is_some_and(|all| !all.is_empty());
            json!({ "required": required, "content": { "application/json": { "schema": schema } } })
        }
        Shape::Form => {
            json!({ "required": true, "content": { "application/x-www-form-urlencoded": { "schema": shape::body(route) } } })
        }
        Shape::File => json!({ "content": { "application/octet-stream": {} } }),
    };
    operation
}

fn operation_id(route: &Route) -> String {
    let mut id = route.method.to_lowercase();
    for part in route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        id.push('_');
        id.push_str(part);
    }
    id
}

fn failed(schema: &str) -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    json!({ "description": "Not done; the body says why, and holds the request id.", "content": content })
}

fn parameters(route: &Route) -> Vec<Value> {
    let named = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    named
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(shape::query(route))
        .collect()
}

fn security(access: Access) -> Value {
    match access {
        Access::Public => json!([]),
        Access::Greeting | Access::Socket => json!([{}, { "key": [] }, { "bearer": [] }]),
        Access::Known => json!([{ "key": [] }, { "bearer": [] }]),
    }
}
