//! As root: the whole suite again as a user without any right, which takes the
//! way over bubblewrap.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::harness::{CARGO, HELPER, PROBE, helper, probe};

#[test]
fn b10_the_suite_passes_without_root() {
    if !rustix::process::geteuid().is_root() {
        // This run is that run.
        return;
    }
    let folder = tempfile::Builder::new().prefix("bw-unprivileged").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = |name: &str, from: &std::path::Path| {
        let to = folder.path().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    let suite = copy("it", &std::env::current_exe().unwrap());
    let ran = Command::new(suite)
        .args(["linux::", "--test-threads=2"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env(HELPER, copy("bailiwick-helper", &helper()))
        .env(CARGO, copy("cargo", std::path::Path::new(env!("CARGO"))))
        .env(PROBE, copy("bailiwick-probe", &probe()))
        .current_dir("/")
        .uid(70_001)
        .gid(70_001)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{text}\n{}", String::from_utf8_lossy(&ran.stderr));
    let passed: u32 =
        text.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok()).unwrap();
    assert!(passed > 30, "{text}");
}
