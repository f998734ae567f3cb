//! The process that makes workers: what ends with it, and what goes on without it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_sandbox::Workers;
use bailiwick_sandbox::linux::HelperPath;
use bailiwick_shell::{Isolation, ShellError, Status, Stream, WorkerSource};
use rustix::process::{Pid, Signal};
use tokio_util::sync::CancellationToken;

use super::{LONG, Tenant, pool};

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

/// A tenant, and where its workers come from.
fn tenant() -> (Tenant, Arc<Workers>) {
    let helper = HelperPath::At(env!("CARGO_BIN_EXE_bailiwick-helper").into());
    let workers = Arc::new(Workers::new(helper));
    let source = Isolation::Process(Arc::clone(&workers) as Arc<dyn WorkerSource>);
    (Tenant::with(|spec| spec.pool = pool(source)), workers)
}

async fn maker(workers: &Workers) -> Option<Pid> {
    workers.process().await.and_then(|id| Pid::from_raw(id.try_into().ok()?))
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
    let (tenant, workers) = tenant();
    assert_eq!(maker(&workers).await, None, "nothing is started before it is needed");
    tenant.print("echo first").await;
    let first = maker(&workers).await.unwrap();
    tenant.print("echo second").await;
    assert_eq!(maker(&workers).await, Some(first), "one for all");
    let shell = tenant.shell.clone();
    let busy = tokio::spawn(async move {
        shell.exec("sleep 50", LONG, &mut |_: Stream, _: &[u8]| {}, CancellationToken::new()).await
    });
    eventually("the command runs", || !children(first, "bw-worker").is_empty()).await;
    let worker = children(first, "bw-worker")[0];
    rustix::process::kill_process(first, Signal::KILL).unwrap();
    let done = busy.await.unwrap();
    assert!(matches!(done, Err(ShellError::Crashed)), "not the command's doing: {done:?}");
    eventually("the worker is gone", || !is_alive(worker)).await;
    assert_eq!(tenant.print("echo third").await, "third\n");
    assert_ne!(maker(&workers).await, Some(first));
}

#[tokio::test]
async fn a_command_that_is_given_up_leaves_no_worker() {
    let (tenant, workers) = tenant();
    tenant.print("true").await;
    let one = maker(&workers).await.unwrap();
    let shell = tenant.shell.clone();
    let busy = tokio::spawn(async move {
        shell.exec("sleep 50", LONG, &mut |_: Stream, _: &[u8]| {}, CancellationToken::new()).await
    });
    eventually("the command runs", || !children(one, "bw-worker").is_empty()).await;
    busy.abort();
    eventually("no worker is left", || children(one, "bw-worker").is_empty()).await;
    assert_eq!(maker(&workers).await, Some(one));
}

#[tokio::test]
async fn the_maker_of_workers_ends_with_its_last_shell() {
    let (tenant, workers) = tenant();
    tenant.print("true").await;
    let one = maker(&workers).await.unwrap();
    assert!(is_alive(one));
    drop((tenant, workers));
    eventually("the maker is gone", || !is_alive(one)).await;
}

#[tokio::test]
async fn the_layout_in_which_a_command_crashed_is_not_used_again() {
    let (tenant, workers) = tenant();
    tenant.print("true").await;
    let one = maker(&workers).await.unwrap();
    let shell = tenant.shell.clone();
    let neighbour = tokio::spawn(async move { super::run(&shell, "sleep 6; echo still here", LONG).await });
    eventually("the neighbour runs", || !children(one, "bw-worker").is_empty()).await;
    // Overflows the interpreter's stack.
    let output = tenant.run(&format!("jq -n '{}1{}'", "[".repeat(100_000), "]".repeat(100_000))).await;
    assert!(format!("{:?}", output.status).contains("memory or stack"), "{output:?}");
    assert_eq!(maker(&workers).await, None, "it makes no more");
    tenant.print("true").await;
    let two = maker(&workers).await.unwrap();
    assert_ne!(one, two);
    // Nobody else's command ends with it, and it goes when its last one has ended.
    assert!(is_alive(one));
    assert_eq!(super::stdout(&neighbour.await.unwrap()), "still here\n");
    tenant.print("true").await;
    eventually("it is gone", || !is_alive(one)).await;
}

#[tokio::test]
async fn a_maker_that_does_not_answer_holds_nobody_up_for_long() {
    let (tenant, workers) = tenant();
    tenant.print("true").await;
    let one = maker(&workers).await.unwrap();
    rustix::process::kill_process(one, Signal::STOP).unwrap();
    // Who is canceled meanwhile does not wait for it.
    let (begun, cancel) = (Instant::now(), CancellationToken::new());
    let canceling = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        canceling.cancel();
    });
    let output = tenant.shell.exec("true", LONG, &mut |_: Stream, _: &[u8]| {}, cancel).await.unwrap();
    assert_eq!(output.status, Status::Canceled);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // Who waits is told, and the next one has another.
    let failed = tenant.shell.exec("true", LONG, &mut |_: Stream, _: &[u8]| {}, CancellationToken::new()).await;
    assert!(matches!(failed, Err(ShellError::Start { .. })), "{failed:?}");
    assert_eq!(tenant.print("echo here").await, "here\n");
    assert_ne!(maker(&workers).await, Some(one));
    eventually("the one that was stopped is gone", || !is_alive(one)).await;
}
