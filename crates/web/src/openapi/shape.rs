//! What a route takes and gives, as JSON Schema. Written by hand beside the handlers that read it, and no
//! narrower than they are: whoever sends what this describes is not told that it is malformed.

use bailiwick_store::job::JobKind;
use bailiwick_types::QuotaOverrides;
use bailiwick_types::quota::Resource;
use serde_json::{Value, json};

use crate::route::Route;

/// Schemas that several routes share, under `#/components/schemas`.
pub(super) fn components() -> Value {
    let name = |longest: u32| json!({ "type": "string", "pattern": "^[A-Za-z0-9_.@-]+$", "maxLength": longest });
    let word = |words: &[&str]| json!({ "type": "string", "enum": words });
    json!({
        "Name": name(255),
        "ToolName": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" },
        "SpaceId": { "type": "string", "pattern": "^spc_[0-7][0-9A-HJKMNP-TV-Z]{25}$" },
        "Path": {
            "type": "string", "minLength": 1, "maxLength": 1024,
            "description": "Relative to the space's root, with `/`, without `..`, backslashes and control characters.",
        },
        "Role": word(&["admin", "user", "viewer"]),
        "Done": {
            "type": "object", "required": ["status", "result"],
            "properties": { "status": { "const": "ok" }, "result": {}, "has_more": { "type": "boolean" } },
        },
        "Failed": {
            "type": "object", "required": ["status", "error"],
            "properties": {
                "status": { "const": "error" },
                "error": {
                    "type": "object", "required": ["code", "message", "details"],
                    "properties": {
                        "code": { "type": "string", "pattern": "^[A-Z_]+$" },
                        "message": { "type": "string", "minLength": 1 },
                        "details": {
                            "type": "object", "required": ["request_id"],
                            "properties": { "request_id": { "type": "string", "pattern": "^req_" } },
                        },
                    },
                },
            },
        },
        "EveFailed": {
            "oneOf": [
                {
                    "type": "object", "required": ["ok", "error"],
                    "properties": {
                        "ok": { "const": false }, "error": { "type": "string", "minLength": 1 },
                        "code": { "type": "string" },
                        "requestId": { "type": "string" }, "errorId": { "type": "string" },
                    },
                },
                {
                    "type": "object", "required": ["error", "status", "message"],
                    "properties": {
                        "error": { "const": true }, "status": { "const": 404 }, "message": { "type": "string" },
                    },
                },
            ],
        },
        "SignFailed": {
            "type": "object", "required": ["code", "message"],
            "properties": {
                "code": { "type": "string", "pattern": "^[a-z_]+$" }, "message": { "type": "string" },
                "requestId": { "type": "string", "pattern": "^req_" },
            },
        },
        "OAuthFailed": {
            "type": "object", "required": ["error", "error_description"],
            "properties": {
                "error": { "type": "string", "pattern": "^[a-z_]+$" }, "error_description": { "type": "string" },
            },
        },
        "Client": {
            "type": "object", "required": ["redirect_uris"],
            "properties": {
                "redirect_uris": {
                    "type": "array", "minItems": 1, "maxItems": 10,
                    "items": { "type": "string", "format": "uri", "maxLength": 500 },
                    "examples": [["http://127.0.0.1:8123/callback"]],
                },
                "client_name": nullable(line(100)),
                "token_endpoint_auth_method": {
                    "type": "string", "enum": ["none", "client_secret_basic", "client_secret_post"],
                },
            },
        },
        "Message": {
            "description": "A text, or parts.",
            "oneOf": [
                { "type": "string", "pattern": "\\S" },
                { "type": "array", "minItems": 1, "items": { "oneOf": [
                    {
                        "type": "object", "required": ["type", "text"],
                        "properties": { "type": { "const": "text" }, "text": { "type": "string", "minLength": 1 } },
                    },
                    {
                        "type": "object", "required": ["type", "mediaType", "data"],
                        "properties": {
                            "type": { "const": "file" },
                            "mediaType": { "type": "string", "minLength": 1, "maxLength": 255 },
                            "filename": { "type": "string" },
                            "data": { "type": "string", "description": "Base64, or a data URL; never an address." },
                        },
                    },
                ] } },
            ],
        },
    })
}

/// A request's body.
pub(super) fn body(route: &Route) -> Value {
    match (route.method, route.path) {
        ("POST", "/api/v1/admin/accounts") => object(
            &["account_id", "admin_user_id"],
            json!({ "account_id": schema("Name"), "admin_user_id": schema("Name") }),
        ),
        ("POST", "/api/v1/admin/accounts/{account}/users") => object(
            &["user_id"],
            json!({ "user_id": schema("Name"), "role": schema("Role"), "password": nullable(new_password()) }),
        ),
        (_, "/api/v1/admin/accounts/{account}/users/{user}/role") => {
            object(&["role"], json!({ "role": schema("Role") }))
        }
        ("POST", "/api/v1/admin/accounts/{account}/users/{user}/keys") => closed(
            &["name"],
            json!({
                "name": line(100),
                "scopes": {
                    "type": ["array", "null"], "minItems": 1,
                    "items": { "type": "string", "enum": ["read", "write"] },
                },
                "agent_id": nullable(schema("Name")),
                "space_id": nullable(schema("SpaceId")),
                "expires_at": { "type": ["string", "null"], "format": "date-time" },
            }),
        ),
        (_, "/api/v1/admin/accounts/{account}/users/{user}/password") => {
            closed(&["password"], json!({ "password": new_password() }))
        }
        (_, "/api/auth/login") => closed(
            &["username", "password"],
            json!({
                "username": { "type": "string", "description": "A user, or user@account." },
                "password": { "type": "string" }, "account": nullable(schema("Name")),
                "deviceName": { "type": ["string", "null"], "maxLength": 100 },
                "totpCode": { "type": ["string", "null"], "description": "Or a recovery code." },
            }),
        ),
        (_, "/oauth/register" | "/api/v1/admin/clients") => schema("Client"),
        (_, "/oauth/token") => object(
            &["grant_type"],
            json!({
                "grant_type": { "type": "string", "enum": ["authorization_code", "refresh_token"] },
                "client_id": { "type": "string" }, "client_secret": { "type": "string" },
                "code": { "type": "string" }, "redirect_uri": { "type": "string" },
                "code_verifier": { "type": "string" }, "refresh_token": { "type": "string" },
                "scope": { "type": "string" }, "resource": { "type": "string" },
            }),
        ),
        (_, "/oauth/revoke") => object(
            &["token"],
            json!({
                "token": { "type": "string" }, "client_id": { "type": "string" },
                "client_secret": { "type": "string" }, "token_type_hint": { "type": "string" },
            }),
        ),
        (_, "/api/auth/password") => closed(
            &["currentPassword", "newPassword"],
            json!({ "currentPassword": { "type": "string" }, "newPassword": new_password() }),
        ),
        (_, "/api/auth/2fa/totp") => closed(&["password"], json!({ "password": { "type": "string" } })),
        (_, "/api/auth/2fa/totp/confirm") => closed(&["code"], json!({ "code": { "type": "string" } })),
        (_, "/api/auth/2fa/totp/remove" | "/api/auth/2fa/recovery-codes") => {
            closed(&["password", "code"], json!({ "password": { "type": "string" }, "code": { "type": "string" } }))
        }
        ("POST", "/api/auth/passkeys") => {
            closed(&["password"], json!({ "password": { "type": "string" }, "code": { "type": ["string", "null"] } }))
        }
        (_, "/api/auth/passkeys/finish") => {
            let name = json!({ "type": ["string", "null"], "maxLength": 100 });
            closed(&["ceremony", "credential"], ceremony(("name", name)))
        }
        (_, "/api/auth/passkeys/login/finish") => {
            let name = json!({ "type": ["string", "null"], "maxLength": 100 });
            closed(&["ceremony", "credential"], ceremony(("deviceName", name)))
        }
        (_, "/api/auth/passkeys/{passkey}/remove") => {
            closed(&["password", "code"], json!({ "password": { "type": "string" }, "code": { "type": "string" } }))
        }
        (_, "/api/auth/setup") => closed(
            &["username", "password"],
            json!({
                "username": schema("Name"), "password": new_password(),
                "code": { "type": ["string", "null"], "description": "As the server's log shows it." },
            }),
        ),
        ("POST", "/api/v1/spaces/{space}/jobs") => job(),
        ("POST", "/api/v1/spaces") => closed(&["name"], json!({ "name": name(), "description": line(2_000) })),
        ("PATCH", "/api/v1/spaces/{space}") => {
            closed(&[], json!({ "name": nullable(name()), "description": nullable(line(2_000)) }))
        }
        ("PUT", "/api/v1/spaces/{space}/grants") => closed(
            &["user", "level"],
            json!({ "user": schema("Name"), "level": { "type": "string", "enum": ["read", "write", "manage"] } }),
        ),
        // The schema of the tool of that name, which both doors share.
        ("PUT", "/api/v1/spaces/{space}/plan") => {
            bailiwick_tools::catalogue::find("plan").map_or_else(|| json!({}), |tool| tool.schema.clone())
        }
        ("POST", "/api/v1/audit/retire" | "/api/v1/admin/audit/retire") => {
            closed(&["before"], json!({ "before": { "type": "string", "format": "date-time" } }))
        }
        ("PUT", "/api/v1/admin/accounts/{account}/limits") => limits(),
        ("PUT", "/api/v1/secrets/{secret}") => {
            let with = |name: &str, what: Value| {
                let mut fields = json!({
                    "note": nullable(line(200)), "expect": { "type": "string", "enum": ["either", "existing"] },
                });
                fields[name] = what;
                closed(&[name], fields)
            };
            let value =
                json!({ "type": "string", "minLength": 8, "maxLength": 16384, "examples": ["a-value-of-some-length"] });
            json!({ "oneOf": [with("value", value), with("oauth", refresh_grant())] })
        }
        ("POST", "/api/v1/notifications") => closed(
            &["name", "kind", "address", "events"],
            json!({
                "name": schema("ToolName"),
                "kind": { "type": "string", "enum": ["slack", "discord", "telegram"] },
                "address": {
                    "type": "string", "maxLength": 1024,
                    "examples": ["https://discord.com/api/webhooks/123456789012345678/a-token"],
                },
                "chat": nullable(line(65)),
                "events": occasions(),
            }),
        ),
        ("PATCH", "/api/v1/notifications/{notification}") => closed(
            &[],
            json!({
                "address": { "type": ["string", "null"], "maxLength": 1024 },
                "chat": nullable(line(65)),
                "events": { "oneOf": [occasions(), { "type": "null" }] },
                "paused": { "type": ["boolean", "null"] },
            }),
        ),
        ("PUT", "/api/v1/policies") => closed(&["text"], json!({ "text": { "type": "string" } })),
        ("PUT", "/api/v1/agents/{agent}") => agent(),
        ("POST", "/api/v1/approvals/{approval}") => closed(
            &["decision"],
            json!({
                "decision": { "type": "string", "enum": ["approve", "deny"] },
                "reason": { "type": ["string", "null"], "maxLength": 2000 },
            }),
        ),
        ("POST", "/eve/v1/session") => {
            let mut fields = sending();
            fields["operationId"] = json!({ "type": "string", "minLength": 1 });
            object(&[], fields)
        }
        ("POST", "/eve/v1/session/{session}") => {
            let answers = json!({
                "type": "array", "minItems": 1,
                "items": closed(&["requestId"], json!({
                    "requestId": { "type": "string", "minLength": 1 },
                    "optionId": { "type": "string" }, "text": { "type": "string" },
                })),
            });
            json!({ "oneOf": [
                object(&["message"], sending()), object(&["inputResponses"], json!({ "inputResponses": answers })),
            ] })
        }
        (_, "/eve/v1/session/{session}/cancel") => {
            object(&[], json!({ "turnId": { "type": "string", "minLength": 1 } }))
        }
        (_, "/eve/v1/session/{session}/reset") => {
            object(&[], json!({ "reason": { "type": "string", "minLength": 1 } }))
        }
        _ => object(&[], json!({})),
    }
}

/// A job, which may take as long as its kind allows.
fn job() -> Value {
    let of = |required: &[&str], words: Value, kind: JobKind| {
        closed(
            required,
            json!({
                "command": { "type": "string", "minLength": 1, "maxLength": 16_384, "pattern": "^[^\\u0000]*\\S[^\\u0000]*$" },
                "agent": nullable(schema("Name")),
                "kind": words,
                "timeout_seconds": { "type": ["integer", "null"], "minimum": 1, "maximum": kind.seconds() },
            }),
        )
    };
    let named = |kind: JobKind| of(&["command", "kind"], json!({ "const": kind.as_str() }), kind);
    let short = of(&["command"], json!({ "enum": ["short", null] }), JobKind::Short);
    json!({ "oneOf": [short, named(JobKind::Clone), named(JobKind::Build)] })
}

/// A number for each limit: 0 for none, null for the default.
fn limits() -> Value {
    let figure = json!({ "type": ["integer", "null"], "minimum": 0, "maximum": QuotaOverrides::LARGEST });
    let fields = Resource::ALL.iter().map(|resource| (resource.as_str().to_owned(), figure.clone()));
    closed(&[], Value::Object(fields.collect()))
}

/// An OAuth client's refresh grant.
fn refresh_grant() -> Value {
    let text = |longest: u32, example: &str| json!({ "type": "string", "minLength": 1, "maxLength": longest, "examples": [example] });
    closed(
        &["token_url", "client_id", "refresh_token"],
        json!({
            "token_url": { "type": "string", "format": "uri", "examples": ["https://sso.example/token"] },
            "client_id": text(2048, "client"), "client_secret": text(8192, "client-secret"),
            "refresh_token": text(8192, "refresh-token"), "scope": text(2048, "read"),
            "auth": { "type": "string", "enum": ["basic", "body"] },
        }),
    )
}

fn line(longest: u32) -> Value {
    json!({ "type": "string", "maxLength": longest, "description": "One line without control characters." })
}

fn new_password() -> Value {
    json!({ "type": "string", "minLength": 8, "maxLength": 1024 })
}

fn name() -> Value {
    let mut name = line(200);
    name["minLength"] = json!(1);
    name
}

/// The fields of a message to an agent.
fn sending() -> Value {
    json!({
        "message": schema("Message"),
        "turnPolicy": { "type": "string", "enum": ["steer", "queue"] },
        "clientContext": { "oneOf": [
            { "type": "string", "minLength": 1 }, { "type": "object" },
            { "type": "array", "items": { "type": "string", "minLength": 1 } },
        ] },
        "outputSchema": { "type": "object" },
    })
}

fn agent() -> Value {
    let positive = json!({ "type": "integer", "minimum": 1 });
    let tools = json!({ "type": "array", "items": schema("ToolName") });
    let choice = |words: &[&str]| json!({ "type": "string", "enum": words });
    closed(
        &[],
        json!({
            "name": { "type": "string" }, "description": { "type": "string" }, "model": schema("ToolName"),
            "tools": tools.clone(), "require_approval": tools.clone(), "elevated": tools,
            "approvers": { "type": "array", "items": schema("Name") },
            "sandbox": closed(&[], json!({
                "mode": choice(&["off", "non-main", "all"]), "scope": choice(&["session", "agent", "shared", "viber"]),
                "workspace": choice(&["none", "ro", "rw"]),
                "backend": choice(&["auto", "virtual", "linux", "container", "host"]),
            })),
            "egress": { "oneOf": [
                choice(&["allow-all", "deny-all"]),
                closed(&[], json!({ "allow": { "type": "object" }, "subnets": {} })),
            ] },
            "limits": closed(&[], json!({
                "tool_timeout_seconds": positive.clone(), "approval_timeout_seconds": positive.clone(),
                "memory_mib": positive.clone(), "pids": positive.clone(), "steps": positive.clone(),
                "disk_mib": positive.clone(), "session_tokens": positive.clone(), "output_tokens": positive,
                "cpu": { "type": "number", "exclusiveMinimum": 0 },
            })),
            "skills": { "type": "array", "items": { "type": "string" } },
            "instructions": { "type": "string" },
            "id": {}, "version": {}, "source": {}, "updated_at": {},
        }),
    )
}

/// The parameters of a query.
pub(super) fn query(route: &Route) -> Vec<Value> {
    let text = || json!({ "type": "string" });
    let path = || schema("Path");
    let count = || json!({ "type": "integer", "minimum": 1 });
    let flag = || json!({ "type": "boolean" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let time = || json!({ "type": "string", "format": "date-time" });
    let events = || {
        vec![
            ("action", text()),
            ("result", json!({ "type": "string", "enum": ["OK", "FAIL", "DENIED", "BEGUN"] })),
            ("user", schema("Name")),
            ("agent", schema("Name")),
            ("space", schema("SpaceId")),
            ("from", time()),
            ("to", time()),
            ("limit", count()),
            ("after", number()),
        ]
    };
    let fields: Vec<(&str, Value)> = match (route.method, route.path) {
        ("GET", "/api/v1/admin/accounts") => vec![("name", text()), ("limit", count()), ("page", number())],
        ("GET", "/api/v1/admin/accounts/{account}/users") => {
            vec![("name", text()), ("role", schema("Role")), ("limit", count()), ("page", number())]
        }
        ("GET", "/api/v1/sessions" | "/api/v1/spaces/{space}/sessions" | "/api/v1/spaces/{space}/jobs") => {
            vec![("limit", count())]
        }
        ("GET", "/api/v1/audit" | "/api/v1/audit/stream" | "/api/v1/admin/audit" | "/api/v1/spaces/{space}/events") => {
            events()
        }
        ("GET", "/api/v1/spaces/{space}/files") | ("DELETE", "/api/v1/spaces/{space}/files/content") => {
            vec![("path", path()), ("recursive", flag())]
        }
        (_, "/api/v1/spaces/{space}/files/content") => vec![("path", path())],
        (_, "/api/v1/secrets/{secret}/grants/{agent}/{hosts}") => {
            let lease = json!({ "type": "string", "enum": ["minute", "call", "approved_call"] });
            vec![("used_by", json!({ "type": "string", "enum": ["sandbox", "model"] })), ("lease", lease)]
        }
        ("GET", "/api/v1/audit/proof/inclusion" | "/api/v1/admin/audit/proof/inclusion") => {
            vec![("seq", sample(number(), 0)), ("size", sample(count(), 1))]
        }
        ("GET", "/api/v1/audit/proof/consistency" | "/api/v1/admin/audit/proof/consistency") => {
            vec![("from", sample(count(), 1)), ("to", sample(count(), 2))]
        }
        ("GET", "/api/v1/audit/export" | "/api/v1/admin/audit/export") => {
            vec![("format", json!({ "type": "string", "enum": ["jsonl", "csv"] }))]
        }
        (_, "/api/v1/spaces/{space}/jobs/{job}/log") => vec![("after", number()), ("follow", flag())],
        (_, "/eve/v1/session/{session}/stream") => vec![
            ("startIndex", json!({ "type": "integer" })),
            ("follow", text()),
            ("includeTailIndex", text()),
            ("streamControlVersion", text()),
        ],
        _ => Vec::new(),
    };
    fields.into_iter().map(|(name, schema)| json!({ "name": name, "in": "query", "schema": schema })).collect()
}

/// What a target of notifications is told.
fn occasions() -> Value {
    let word = json!({ "type": "string", "enum": ["approval", "question", "failed", "done"] });
    json!({ "type": "array", "minItems": 1, "items": word })
}

/// What comes back if all went well, by media type.
pub(super) fn reply(route: &Route) -> Value {
    let media = match (route.method, route.path) {
        ("GET", "/") => "text/html",
        (_, "/metrics") => "text/plain",
        (_, "/api/v1/audit/stream") => "text/event-stream",
        (_, "/eve/v1/session/{session}/stream" | "/api/v1/spaces/{space}/jobs/{job}/log") => "application/x-ndjson",
        ("GET", "/api/v1/spaces/{space}/files/content") => "application/octet-stream",
        ("GET", "/api/v1/audit/export" | "/api/v1/admin/audit/export") => {
            return json!({ "application/jsonl": {}, "text/csv": {} });
        }
        ("GET", "/api/v1/audit/checkpoint" | "/api/v1/admin/audit/checkpoint") => {
            return json!({ "application/json": { "schema": schema("Done") }, "text/plain": {} });
        }
        (_, path) if path.starts_with("/api/auth/") => {
            return json!({ "application/json": { "schema": { "type": "object" } } });
        }
        (_, path) if path.starts_with("/api/") => return json!({ "application/json": { "schema": schema("Done") } }),
        _ => return json!({ "application/json": { "schema": { "type": "object" } } }),
    };
    json!({ media: {} })
}

/// What comes back if not.
pub(super) fn failure(route: &Route) -> Value {
    let name = match route.path {
        path if path.starts_with("/eve/") => "EveFailed",
        path if path.starts_with("/api/auth/") => "SignFailed",
        path if path.starts_with("/oauth/") => "OAuthFailed",
        _ => "Failed",
    };
    json!({ "$ref": format!("#/components/responses/{name}") })
}

/// With a value that is certainly there: every log has some events.
fn sample(mut schema: Value, example: u64) -> Value {
    schema["examples"] = json!([example]);
    schema
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn nullable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// An object that may have other fields as well, which are ignored.
fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// An object with these fields alone.
/// The second half of a passkey's ceremony.
fn ceremony((name, shape): (&str, Value)) -> Value {
    json!({
        "ceremony": { "type": "string", "description": "As it was begun." },
        "credential": { "type": "object", "description": "PublicKeyCredential.toJSON() of the browser." },
        name: shape,
    })
}

fn closed(required: &[&str], properties: Value) -> Value {
    let mut object = object(required, properties);
    object["additionalProperties"] = json!(false);
    object
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::route::{Shape, programs as table};

    /// Routes whose body says nothing: whatever object is sent is ignored.
    const EMPTY: [&str; 3] = [
        "/api/v1/admin/accounts/{account}/users/{user}/key",
        "/eve/v1/session/{session}/clear",
        "/eve/v1/session/{session}/compact",
    ];

    #[test]
    fn every_json_body_is_described() {
        for route in table().filter(|route| route.body == Shape::Json) {
            let described = body(route) != object(&[], json!({}));
            assert_eq!(described, !EMPTY.contains(&route.path), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let components = components();
        let mut text = components.to_string();
        for route in table() {
            text.push_str(&format!("{}{:?}{}", body(route), query(route), reply(route)));
        }
        let text = text.replace('\\', "");
        let names: Vec<&str> =
            text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(names.len() > 20, "positive control: {names:?}");
        for name in names {
            assert!(components.get(name).is_some(), "{name}");
        }
    }
}
