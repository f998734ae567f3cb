//! The process that makes workers: what ends with it, and what goes on without it.

use std::fs;
use std::time::{Duration, Instant};

use bailiwick_shell::{ShellError, Stream};
use rustix::process::{Pid, Signal};
use tokio_util::sync::CancellationToken;

use super::{LONG, Tenant, pool, worker};

/// Processes of this name whose parent is this one.
fn children(parent: Pid, name: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let status = processes.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    let field = |status: &str, name: &str| -> String {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    status
        .filter(|status| field(status, "PPid:") == parent.to_string() && field(status, "Name:") == name)
        .filter(|status| !field(status, "State:").starts_with('Z'))
        .filter_map(|status| Pid::from_raw(field(&status, "Pid:").parse().ok()?))
        .collect()
}

/// Whoever adopts an orphan may take its time to bury it.
fn is_alive(process: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn forker() -> Option<Pid> {
    children(rustix::process::getpid(), "bw-workers").first().copied()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn commands_end_with_the_maker_of_their_workers_and_the_next_one_has_a_new_maker() {
    let tenant = Tenant::new();
    assert_eq!(forker(), None, "nothing is started before it is needed");
    tenant.print("echo first").await;
    let maker = forker().unwrap();
    tenant.print("echo second").await;
    assert_eq!(forker(), Some(maker), "one for all");
    let shell = tenant.shell.clone();
    let busy = tokio::spawn(async move {
        shell.exec("while true; do :; done", LONG, &mut |_: Stream, _: &[u8]| {}, CancellationToken::new()).await
    });
    eventually("the command runs", || !children(maker, "bw-worker").is_empty()).await;
    let worker = children(maker, "bw-worker")[0];
    rustix::process::kill_process(maker, Signal::KILL).unwrap();
    let done = busy.await.unwrap();
    assert!(matches!(done, Err(ShellError::Crashed)), "not the command's doing: {done:?}");
    eventually("the worker is gone", || !is_alive(worker)).await;
    assert_eq!(tenant.print("echo third").await, "third\n");
    assert_ne!(forker(), Some(maker));
}

#[tokio::test]
async fn a_command_that_is_given_up_leaves_no_worker() {
    let tenant = Tenant::new();
    tenant.print("true").await;
    let maker = forker().unwrap();
    let shell = tenant.shell.clone();
    let busy = tokio::spawn(async move {
        shell.exec("while true; do :; done", LONG, &mut |_: Stream, _: &[u8]| {}, CancellationToken::new()).await
    });
    eventually("the command runs", || !children(maker, "bw-worker").is_empty()).await;
    busy.abort();
    eventually("no worker is left", || children(maker, "bw-worker").is_empty()).await;
    assert_eq!(forker(), Some(maker));
}

#[tokio::test]
async fn the_maker_of_workers_ends_with_its_last_shell() {
    let tenant = Tenant::new();
    let other = tenant.other(|spec| spec.pool = pool(worker()));
    super::run(&other, "true", LONG).await;
    let maker = forker().unwrap();
    drop(other);
    eventually("the maker is gone", || forker() != Some(maker)).await;
}
