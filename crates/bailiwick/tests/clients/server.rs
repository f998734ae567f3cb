//! A real server with a scripted model, on a free port.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

pub const ROOT: &str = "root-key-of-the-eve-checks";

/// The server, which ends with the test.
pub struct Server {
    process: Child,
    pub url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn server() -> Server {
    server_on("127.0.0.1:0", "")
}

/// A server at that address, with more in its configuration.
pub fn server_on(listen: &str, more: &str) -> Server {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.yaml"), bailiwick_testkit::eve::script()).unwrap();
    let config = format!(
        "[server]\nlisten = \"{listen}\"\ndata_dir = \"{0}/data\"\nroot_api_key = \"{ROOT}\"\n{more}\n\
         [model.default]\nprovider = \"scripted\"\nscript = \"{0}/model.yaml\"\n",
        dir.path().display()
    );
    let file = dir.path().join("bailiwick.toml");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .env("BAILIWICK_DATABASE__URL", bailiwick_testkit::database::chosen_text())
        .args(["serve", "-c"])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let url = loop {
        let line = lines.next().expect("the server ended").unwrap();
        if let Some(url) = line.strip_prefix("listening on ") {
            break url.to_owned();
        }
    };
    Server { process, url, _dir: dir }
}

impl Server {
    pub async fn call(&self, method: reqwest::Method, path: &str, key: &str, body: Value) -> Value {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let reply = client
            .request(method, format!("{}{path}", self.url))
            .header("x-api-key", key)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = reply.status();
        let text = reply.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// An account with the agents that the checks use. The key of its first admin.
    pub async fn account(&self, name: &str, admin: &str) -> String {
        let new = json!({ "account_id": name, "admin_user_id": admin });
        let made = self.call(reqwest::Method::POST, "/api/v1/admin/accounts", ROOT, new).await;
        let key = made["result"]["user_key"].as_str().unwrap().to_owned();
        let tools = ["bash", "read_file", "write_file", "edit_file", "glob", "grep", "plan", "ask_question"];
        let sandbox = json!({ "backend": "virtual" });
        for (agent, asks) in [("scripted", json!([])), ("careful", json!(["write_file"]))] {
            let definition = json!({ "tools": tools, "require_approval": asks, "sandbox": sandbox });
            self.call(reqwest::Method::PUT, &format!("/api/v1/agents/{agent}"), &key, definition).await;
        }
        key
    }
}
