//! B05, B06, B07: how commands and containers end, and that nothing is left of them, in the engine either.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bailiwick_sandbox::linux::{Exec, ExecError, ExitStatus};
use tokio_util::sync::CancellationToken;

use super::engine::{BARE, Engine, start};
use crate::linux::harness::{helper, probe, run, sh};

#[tokio::test(flavor = "multi_thread")]
async fn b05_b06_a_command_ends_in_time_or_when_it_is_canceled_and_its_container_goes_on() {
    let engine = Engine::start();
    let container = start(&engine.containers_of(BARE).await, &engine.spec()).await;
    let script = "trap '' TERM; setsid sleep 1000 & (sleep 1000 &); touch ready; sleep 1000; sleep 1000";
    let hurried = |script: &str| Exec { grace: Duration::from_millis(200), ..Exec::shell(script) };
    let ran = run(&container, Exec { timeout: Duration::from_secs(1), ..hurried(script) }).await;
    assert_eq!(ran.status, ExitStatus::TimedOut);
    let count = "cat /proc/[0-9]*/comm | grep -c sleep";
    assert_eq!(sh(&container, count).await.stdout.text.trim(), "0");
    let cancel = CancellationToken::new();
    let (ran, ()) = tokio::join!(container.exec(hurried("touch canceled; sleep 1000"), cancel.clone()), async {
        sh(&container, "until [ -e canceled ]; do sleep 0.05; done").await;
        let there = sh(&container, count).await;
        assert_ne!(there.stdout.text.trim(), "0", "the control");
        cancel.cancel();
    });
    assert_eq!(ran.unwrap().status, ExitStatus::Canceled);
    assert_eq!(sh(&container, "echo still").await.stdout.text, "still\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b07_a_container_that_is_dropped_stopped_or_killed_by_others_is_gone() {
    let engine = Engine::start();
    let containers = engine.containers_of(BARE).await;
    let dropped = start(&containers, &engine.spec()).await;
    let first = dropped.receipt().process;
    engine.has(1).await;
    drop(dropped);
    engine.has(0).await;
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    let stopped = start(&containers, &engine.spec()).await;
    engine.has(1).await;
    stopped.stop().await;
    engine.has(0).await;
    let killed = start(&containers, &engine.spec()).await;
    engine.podman(&["kill", &engine.has(1).await[0]]);
    let ended = killed.exec(Exec::shell("true"), CancellationToken::new()).await;
    assert!(matches!(ended, Err(ExecError::JailEnded)), "{ended:?}");
    assert!(!killed.is_alive());
    engine.has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b07_a_killed_server_leaves_no_container() {
    let engine = Engine::start();
    let spec = engine.spec();
    let settings = engine.settings();
    let mut server = Command::new(probe())
        .arg("containers")
        .args([&helper(), &settings.socket, &settings.folder, &spec.workspace])
        .args([BARE, &spec.user.uid.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let first: i32 = line.trim().strip_prefix("ready=").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    assert!(Path::new(&format!("/proc/{first}")).exists(), "the control");
    let label = engine.podman(&[
        "inspect",
        "--format",
        "{{index .Config.Labels \"bailiwick.owner\"}}",
        &engine.has(1).await[0],
    ]);
    server.kill().unwrap();
    server.wait().unwrap();
    engine.has(0).await;
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    // What an engine did not remove, because it was ended as well, the next start does; nobody else's.
    engine.podman(&["create", "--label", &format!("bailiwick.owner={label}"), BARE, "true"]);
    let others = engine.podman(&["create", "--label", "bailiwick.owner=another", BARE, "true"]);
    engine.has(2).await;
    engine.containers_of(BARE).await;
    assert_eq!(engine.has(1).await, [others]);
}
