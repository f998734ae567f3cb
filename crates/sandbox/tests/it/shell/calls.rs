//! What a call starts with, what it leaves, and what it costs others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bailiwick_shell::{Isolation, PoolLimits, ShellPool, Stream};
use tokio_util::sync::CancellationToken;

use super::{LONG, Tenant, pool, stdout, worker};

#[tokio::test]
async fn each_call_starts_fresh_and_keeps_only_files() {
    for isolation in [worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation));
        tenant
            .print("x=1; export Y=2; f(){ :; }; alias a=b; mkdir d; cd d; echo w > w; echo t > /tmp/t; > /var-file")
            .await;
        let text =
            tenant.print("pwd; echo \"[$x$Y]\"; type f 2>/dev/null; cat d/w /tmp/t; ls / | grep var-file; true").await;
        assert_eq!(text, "/workspace\n[]\nw\nt\n");
    }
}

#[tokio::test]
async fn the_environment_is_ours_and_holds_nothing_of_the_servers() {
    // The test runner's own environment is the canary: it has variables that
    // no shell of a tenant may see.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    for isolation in [worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation));
        let text = tenant.print("env | sort").await;
        let expected = ["AI_AGENT=bailiwick", "HOME=/workspace", "PATH=/usr/bin:/bin", "PWD=/workspace", "USER=agent"];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let all = tenant.print("set; export -p; declare -p; cat /proc/self/* 2>/dev/null; true").await;
        for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO")) {
            assert!(!all.contains(&name), "{name}");
            assert!(value.len() < 12 || !all.contains(&value), "{name}");
        }
    }
}

#[tokio::test]
async fn output_streams_while_the_command_runs() {
    let tenant = Tenant::new();
    let start = Instant::now();
    let mut first = None;
    let output = tenant
        .shell
        .exec(
            "echo one; echo err >&2; sleep 1; printf '\\377\\000two'",
            LONG,
            &mut |_: Stream, _: &[u8]| {
                first.get_or_insert_with(|| start.elapsed());
            },
            CancellationToken::new(),
        )
        .await
        .unwrap();
    assert!(output.succeeded(), "{output:?}");
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (b"one\n\xff\0two".as_slice(), b"err\n".as_slice())
    );
    assert!(first.unwrap() + Duration::from_millis(500) < start.elapsed(), "it all came at the end");
}

/// Ticks every 5 ms on the caller's only thread and keeps the longest delay.
#[tokio::test(flavor = "current_thread")]
async fn a_busy_shell_does_not_delay_the_servers_timers() {
    for isolation in [worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation));
        let longest = Arc::new(AtomicU64::new(0));
        let ticks = Arc::new(AtomicU64::new(0));
        let (delay, count) = (Arc::clone(&longest), Arc::clone(&ticks));
        let ticker = tokio::spawn(async move {
            let step = Duration::from_millis(5);
            loop {
                let before = Instant::now();
                // Time between two polls of this task is what a handler would
                // lose; waiting for the processor is not ours to answer for,
                // so it is taken out by the thread's own clock.
                let (wall, own) = (before, thread_time());
                tokio::time::sleep(step).await;
                let blocked = (thread_time() - own).min(wall.elapsed());
                delay.fetch_max(blocked.as_millis() as u64, Ordering::Relaxed);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        for command in ["while :; do :; done", "seq 100000 | sort -rn | md5sum", "jq -n '[range(300000)]|length'"] {
            tenant.run_for(command, Duration::from_secs(2)).await;
        }
        ticker.abort();
        assert!(ticks.load(Ordering::Relaxed) > 50, "the timer hardly ran");
        assert!(longest.load(Ordering::Relaxed) < 50, "{} ms", longest.load(Ordering::Relaxed));
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_shells_at_once() {
    let shared = ShellPool::new(PoolLimits { threads: 16, queue: LONG }, worker());
    let tenants: Vec<_> = (0..100).map(|_| Tenant::with(|spec| spec.pool = shared.clone())).collect();
    let calls: Vec<_> = tenants
        .iter()
        .enumerate()
        .map(|(number, tenant)| {
            let shell = tenant.shell.clone();
            tokio::spawn(async move {
                let command = format!("echo {number} > f; sleep 0.1; cat f; ls /tmp; echo {number} > /tmp/mine");
                super::run(&shell, &command, LONG).await
            })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let output = call.await.unwrap();
        assert!(output.succeeded(), "{output:?}");
        assert_eq!(stdout(&output), format!("{number}\n"));
    }
    assert_eq!((shared.running(), shared.stuck()), (0, 0));
}
