//! Commands that want more than there is. None may look like success, slow
//! the server, or harm it.

use std::fs;
use std::time::{Duration, Instant};

use bailiwick_shell::{Isolation, PoolLimits, ShellError, ShellPool, Status, Stream};
use tokio_util::sync::CancellationToken;

use super::{LONG, Tenant, pool, stderr, stdout, worker};

fn resident_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn b05_endless_work_is_cut_and_never_looks_like_success() {
    let tenant = Tenant::with(|spec| {
        spec.limits.commands = 5000;
        spec.limits.loop_iterations = 5000;
    });
    for command in [
        "while true; do :; done",
        "until false; do true; done",
        "for ((;;)); do :; done",
        "yes",
        "yes | head -c 10G | wc -c",
        "seq 1 2000000 | tail -1",
        "echo aaa | sed ':a;s/a/aa/;ta'",
        "awk 'BEGIN{while(1){}}'",
        "head -c 10G /dev/zero | wc -c",
        "cat /dev/urandom | wc -c",
        "f(){ f; }; f",
        "x=a; while :; do x=$x$x; done",
        "x=(); while :; do x+=(${x[@]} 1); done",
        "echo {1..1000000000} | wc -c",
        "printf '%1000000000d' 1 | wc -c",
        "jq -n '[range(1000000000)]|length'",
        "shuf -i 1-1000000000 | tail -1",
        "eval \"$(printf 'echo x;%.0s' {1..6000})\"",
    ] {
        let output = tenant.run_for(command, Duration::from_secs(10)).await;
        assert!(!output.succeeded(), "{command}: {output:?}");
        assert!(!stderr(&output).contains("command not found"), "{command}: {output:?}");
    }
    assert_eq!(tenant.print("for i in $(seq 100); do :; done; yes | head -2").await, "y\ny\n");
}

#[tokio::test]
async fn b05_a_flood_of_output_is_cut_and_said_to_be() {
    let tenant = Tenant::with(|spec| spec.limits.output_bytes = 10_000);
    let mut streamed = 0;
    let output = tenant
        .shell
        .exec(
            "for i in $(seq 2000); do echo 0123456789; done; for i in $(seq 2000); do echo 0123456789 >&2; done",
            LONG,
            &mut |_: Stream, bytes: &[u8]| streamed += bytes.len(),
            CancellationToken::new(),
        )
        .await
        .unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len(), streamed), (10_000, 10_000, 20_000));
    assert_eq!(output.status, Status::Exited(0));
    assert_eq!(output.warnings.len(), 2, "{:?}", output.warnings);
}

#[tokio::test]
async fn b05_ten_gibibytes_pass_with_flat_memory() {
    for isolation in [worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation.clone()));
        tenant.run("echo warm up").await;
        let before = resident_kilobytes();
        for command in [
            "yes | head -c 10G | wc -c",
            "dd if=/dev/zero bs=1M count=10240 | wc -c",
            "dd if=/dev/zero of=/tmp/big bs=1M count=10240",
            "cat /dev/zero > big; cat big big big big big big big big > bigger; cat bigger bigger bigger > big",
        ] {
            let output = tenant.run_for(command, Duration::from_secs(10)).await;
            assert!(!output.succeeded(), "{command}: {output:?}");
        }
        // The interpreter may hold `memory_bytes` several times over while it
        // runs in our own process; a worker costs us nothing.
        let allowed = if matches!(isolation, Isolation::Thread) { 300 << 10 } else { 64 << 10 };
        let grown = resident_kilobytes().saturating_sub(before);
        assert!(grown < allowed, "{isolation:?}: {grown} KiB");
    }
}

#[tokio::test]
async fn b05_a_fork_bomb_ends_at_the_deadline() {
    for isolation in [worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation));
        let before = Instant::now();
        let output = tenant.run_for(":(){ :|:& };:", Duration::from_secs(1)).await;
        assert!(matches!(output.status, Status::TimedOut | Status::LimitReached(_)), "{output:?}");
        assert!(before.elapsed() < Duration::from_secs(10));
        assert_eq!(tenant.print("echo alive").await, "alive\n");
    }
}

#[tokio::test]
async fn a_command_past_its_deadline_is_stopped_and_its_output_kept() {
    for isolation in [worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation));
        for command in ["sleep 1000", "trap '' TERM; sleep 1000", "sleep 1000 & wait", "jq -n 'def f: f; f'"] {
            let before = Instant::now();
            let output = tenant.run_for(&format!("echo before; {command}"), Duration::from_secs(1)).await;
            assert!(!output.succeeded(), "{command}: {output:?}");
            assert_eq!(stdout(&output), "before\n", "{command}");
            assert!(before.elapsed() < Duration::from_secs(10), "{command}");
        }
        let output = tenant.run_for("sleep 1000; echo never > late", Duration::from_millis(200)).await;
        assert_eq!(output.status, Status::TimedOut);
        assert!(!tenant.file("late").exists());
    }
}

#[tokio::test]
async fn a_canceled_command_stops() {
    for isolation in [worker(), Isolation::Thread] {
        let tenant = Tenant::with(|spec| spec.pool = pool(isolation));
        let cancel = CancellationToken::new();
        let trigger = cancel.clone();
        let before = Instant::now();
        let output = tenant
            .shell
            .exec(
                "echo started; sleep 1000; echo never > late",
                LONG,
                &mut move |_: Stream, _: &[u8]| trigger.cancel(),
                cancel,
            )
            .await
            .unwrap();
        assert_eq!((output.status, output.stdout.as_slice()), (Status::Canceled, b"started\n".as_slice()));
        assert!(before.elapsed() < Duration::from_secs(10));
        assert!(!tenant.file("late").exists());
        // One that was canceled before it began does not begin.
        let canceled = CancellationToken::new();
        canceled.cancel();
        let output = tenant.shell.exec("echo x > late", LONG, &mut |_, _| {}, canceled).await.unwrap();
        assert_eq!(output.status, Status::Canceled);
        assert!(!tenant.file("late").exists());
    }
}

#[tokio::test]
async fn a_dropped_call_gives_its_place_back() {
    for isolation in [worker(), Isolation::Thread] {
        let pool = ShellPool::new(PoolLimits { threads: 1, queue: LONG }, isolation);
        let tenant = Tenant::with(|spec| spec.pool = pool.clone());
        let call = tenant.run("sleep 1000; echo x > late");
        assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
        // With one place in all, this waits until the dropped call is gone.
        assert_eq!(tenant.print("echo next").await, "next\n");
        assert!(!tenant.file("late").exists());
        assert_eq!(pool.stuck(), 0);
    }
}

#[tokio::test]
async fn a_full_pool_says_so() {
    let limits = PoolLimits { threads: 1, queue: Duration::from_millis(200) };
    let tenant = Tenant::with(|spec| spec.pool = ShellPool::new(limits, worker()));
    let holder = tenant.shell.clone();
    let busy =
        tokio::spawn(
            async move { holder.exec("sleep 5", LONG, &mut |_, _| {}, CancellationToken::new()).await.unwrap() },
        );
    while tenant.spec.pool.running() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = tenant.shell.exec("true", LONG, &mut |_, _| {}, CancellationToken::new()).await;
    match refused {
        Err(error @ ShellError::Overloaded { running: 1, stuck: 0 }) => assert_eq!(error.code(), "overloaded"),
        other => panic!("{other:?}"),
    }
    busy.abort();
}

/// Each of these overflows the interpreter's stack, in some form of build.
#[tokio::test]
async fn b05_a_command_that_overflows_the_interpreters_stack_harms_itself_only() {
    let tenant = Tenant::new();
    let deep = 100_000;
    let mut died = 0;
    for command in [
        format!("jq -n '{}1{}'", "[".repeat(deep), "]".repeat(deep)),
        format!("find . {} -true", "!".to_owned() + &" !".repeat(deep)),
        format!("test {}1", "\\( ".repeat(deep)),
        format!("{}true", "eval ".repeat(1000)),
        format!("{}true", "time ".repeat(deep)),
    ] {
        let output = tenant.run_for(&format!("echo before > f; {command}"), Duration::from_secs(10)).await;
        assert!(!output.succeeded(), "{:.40}: {output:?}", command);
        if let Status::LimitReached(text) = &output.status {
            died += usize::from(text.contains("memory or stack"));
        }
        assert_eq!(tenant.print("echo alive").await, "alive\n");
    }
    assert!(died > 0, "no command overflowed: the test shows nothing any more");
}

#[tokio::test]
async fn syntax_errors_are_told_as_bash_tells_them() {
    let tenant = Tenant::new();
    let output = tenant.run("if then fi").await;
    assert_eq!(output.status, Status::Exited(2));
    assert!(stderr(&output).contains("syntax error near unexpected token"), "{output:?}");
    assert_eq!(tenant.run("exit 7").await.status, Status::Exited(7));
    assert_eq!(tenant.run("no-such-program").await.status, Status::Exited(127));
    assert!(!tenant.run("exec 3<>/dev/tcp/127.0.0.1/22; curl http://127.0.0.1/").await.succeeded());
}
