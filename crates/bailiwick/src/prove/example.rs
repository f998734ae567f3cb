//! A request to each route that whoever may would be answered well. A route that stands here with
//! nothing is asked with an empty object, and its control shows whether that was enough.

use serde_json::{Value, json};

use super::tenant::{Tenant, rule};

/// Routes that answer nobody, and why: there is no control for them.
pub(super) const ANSWER_NOBODY: [(&str, &str); 16] = [
    ("/api/v1/notifications/{notification}/test", "it calls a service of somebody else's"),
    ("/api/v1/ws", "it is a WebSocket, which a request without its handshake is told"),
    ("/api/auth/2fa/totp/confirm", "it asks for an app's present code"),
    ("/api/auth/2fa/totp/remove", "it asks for an app's present code"),
    ("/api/auth/2fa/recovery-codes", "it asks for an app's present code"),
    ("/api/auth/passkeys", "the server has no name for which browsers make passkeys"),
    ("/api/auth/passkeys/finish", "it asks for what an authenticator made"),
    ("/api/auth/passkeys/{passkey}/remove", "it asks for an app's present code"),
    ("/api/auth/passkeys/login", "the server has no name for which browsers make passkeys"),
    ("/api/auth/passkeys/login/finish", "it asks for what an authenticator made"),
    ("/api/auth/setup", "it is for a server without an admin"),
    ("/oauth/token", "it asks for a code that a browser was given"),
    ("/oauth/revoke", "it asks for a token of an application"),
    ("/api/auth/logout", "it ends the login that asks, and keys ask here"),
    ("/eve/v1/session/{session}/stubs", "tools are never stubbed"),
    ("/eve/v1/session/{session}/subagents/{call}/{child}/stream", "there are no remote agents"),
];

/// The query that a route needs.
pub(super) fn query(path: &str) -> &'static str {
    match path {
        "/api/v1/spaces/{space}/files/content" => "?path=secret.txt",
        "/api/v1/spaces/{space}/files" => "?recursive=true",
        "/api/v1/audit/proof/inclusion" | "/api/v1/admin/audit/proof/inclusion" => "?seq=0&size=1",
        "/api/v1/audit/proof/consistency" | "/api/v1/admin/audit/proof/consistency" => "?from=1&to=2",
        "/eve/v1/session/{session}/stream" => "?follow=false",
        _ => "",
    }
}

/// The body that a route takes, as `whose` would send it. `new` is a name that nobody has.
pub(super) fn body(method: &str, path: &str, whose: &Tenant, new: &str) -> Value {
    let users = "/api/v1/admin/accounts/{account}/users";
    match (method, path.strip_prefix(users)) {
        ("post", Some("")) => return json!({ "user_id": new, "role": "user" }),
        ("put", Some("/{user}/password")) => return json!({ "password": whose.secret }),
        ("put", Some("/{user}/role")) => return json!({ "role": "viewer" }),
        ("post", Some("/{user}/keys")) => return json!({ "name": new }),
        _ => {}
    }
    match (method, path) {
        ("post", "/api/auth/login") => {
            let name = format!("{}@{}", whose.id("user"), whose.id("account"));
            json!({ "username": name, "password": whose.secret })
        }
        ("post", "/api/auth/2fa/totp") => json!({ "password": whose.secret }),
        ("post", "/api/auth/password") => json!({ "currentPassword": whose.secret, "newPassword": whose.secret }),
        ("post", "/oauth/register" | "/api/v1/admin/clients") => {
            json!({ "client_name": new, "redirect_uris": ["http://127.0.0.1/callback"] })
        }
        ("post", "/api/v1/admin/accounts") => json!({ "account_id": new, "admin_user_id": "chief" }),
        ("put", "/api/v1/admin/accounts/{account}/limits") => json!({ "tokens_per_day": 1_000_000 }),
        ("put", "/api/v1/secrets/{secret}") => json!({ "value": whose.secret }),
        ("post", "/api/v1/notifications") => json!({
            "name": new, "kind": "discord", "address": "https://discord.com/api/webhooks/1/token", "events": ["done"],
        }),
        ("patch", "/api/v1/notifications/{notification}") => json!({ "paused": true }),
        ("put", "/api/v1/policies") => json!({ "text": rule(new) }),
        ("post", "/api/v1/spaces") => json!({ "name": new }),
        ("post", "/api/v1/spaces/{space}/jobs") => json!({ "command": "true" }),
        ("patch", "/api/v1/spaces/{space}") => json!({ "name": new }),
        ("put", "/api/v1/spaces/{space}/grants") => json!({ "user": whose.id("user"), "level": "manage" }),
        ("put", "/api/v1/spaces/{space}/plan") => json!({ "items": [{ "text": new, "status": "done" }] }),
        ("post", "/api/v1/approvals/{approval}") => json!({ "decision": "deny" }),
        // Nothing is that old.
        ("post", "/api/v1/audit/retire" | "/api/v1/admin/audit/retire") => json!({ "before": "2000-01-01T00:00:00Z" }),
        ("post", "/eve/v1/session/{session}") => json!({ "message": new }),
        _ => json!({}),
    }
}
