//! B05 and B06: how commands and jails end, and that nothing outlives them.

use std::time::Duration;

use bailiwick_sandbox::linux::{CommandLine, Exec, ExecError, ExitStatus, Jail};
use tokio_util::sync::CancellationToken;

use super::harness::{Host, helper, probe, run, sh};

/// How many processes with this name the jail has.
async fn count(jail: &Jail, name: &str) -> usize {
    let ran = sh(jail, "cat /proc/[0-9]*/comm 2>/dev/null").await;
    assert!(ran.stdout.text.lines().any(|line| line == "init"), "{ran:?}");
    ran.stdout.text.lines().filter(|line| *line == name).count()
}

/// Waits inside the jail until a file is there.
async fn wait_for(jail: &Jail, path: &str) {
    let ran = sh(jail, &format!("until [ -e {path} ]; do sleep 0.01; done")).await;
    assert_eq!(ran.status, ExitStatus::Exited(0));
}

fn hurried(script: &str, timeout: u64, grace: u64) -> Exec {
    Exec { timeout: Duration::from_millis(timeout), grace: Duration::from_millis(grace), ..Exec::shell(script) }
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_after_the_time_limit_the_whole_tree_is_dead() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    // Its own session, a double fork, a deaf one, and the usual kind.
    let script = "trap '' TERM; setsid sleep 1000 & (setsid sleep 1000 & ) ; \
        (trap '' TERM; sleep 1000) & touch /workspace/ready; sleep 1000; sleep 1000";
    let (ran, ()) = tokio::join!(run(&jail, hurried(script, 1500, 200)), async {
        wait_for(&jail, "/workspace/ready").await;
        assert!(count(&jail, "sleep").await >= 3, "the control runs");
    });
    assert_eq!(ran.status, ExitStatus::TimedOut);
    assert!(ran.wall < Duration::from_secs(5), "{:?}", ran.wall);
    assert_eq!(count(&jail, "sleep").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_cancel_is_sigterm_first_and_sigkill_after_the_grace() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let polite = "trap 'echo got-term; exit 0' TERM; touch /workspace/polite; \
        while :; do sleep 0.01; done";
    let deaf = "trap '' TERM; touch /workspace/deaf; while :; do sleep 0.01; done";
    let cancel = CancellationToken::new();
    let (polite, deaf, ()) = tokio::join!(
        jail.exec(Exec { grace: Duration::from_secs(20), ..Exec::shell(polite) }, cancel.clone()),
        jail.exec(Exec { grace: Duration::from_millis(300), ..Exec::shell(deaf) }, cancel.clone()),
        async {
            wait_for(&jail, "/workspace/polite").await;
            wait_for(&jail, "/workspace/deaf").await;
            cancel.cancel();
        }
    );
    let (polite, deaf) = (polite.unwrap(), deaf.unwrap());
    assert_eq!((polite.status, deaf.status), (ExitStatus::Canceled, ExitStatus::Canceled));
    assert_eq!(polite.stdout.text, "got-term\n");
    assert!(polite.wall < Duration::from_secs(10), "it did not wait for SIGKILL");
    assert!(deaf.wall >= Duration::from_millis(300));
    assert_eq!(deaf.stdout.text, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_commands_run_at_once_and_only_their_own_processes_end() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    // Each needs the other to go on.
    let first = "touch /workspace/a; until [ -e /workspace/b ]; do sleep 0.01; done; \
        until [ -e /workspace/stop ]; do sleep 0.01; done; echo first";
    let second = "until [ -e /workspace/a ]; do sleep 0.01; done; touch /workspace/b; \
        setsid sleep 1000 & exit 7";
    let (first, ()) = tokio::join!(sh(&jail, first), async {
        assert_eq!(sh(&jail, second).await.status, ExitStatus::Exited(7));
        let ran = sh(&jail, "grep -l 1000 /proc/[0-9]*/cmdline").await;
        assert_eq!(ran.stdout.text.lines().count(), 1, "only grep itself: {ran:?}");
        sh(&jail, "touch /workspace/stop").await;
    });
    assert_eq!((first.status, first.stdout.text.as_str()), (ExitStatus::Exited(0), "first\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_kills_its_supervisor_leaves_nothing() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let script = "setsid sh -c 'touch /workspace/ready; while :; do sleep 0.02; done' & \
        until [ -e /workspace/ready ]; do sleep 0.01; done; kill -9 $PPID; sleep 1000";
    let ran = sh(&jail, script).await;
    assert_eq!(ran.status, ExitStatus::Signaled(9));
    assert_eq!(count(&jail, "sleep").await, 0);
    assert_eq!(count(&jail, "sh").await, 0);
    assert!(jail.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_supervisor_costs_the_jail_not_the_server() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let ran = run(&jail, hurried("kill -STOP $PPID; sleep 1000", 300, 100)).await;
    assert_eq!(ran.status, ExitStatus::TimedOut);
    let ended = jail.exec(Exec::shell("true"), CancellationToken::new()).await;
    assert!(matches!(ended, Err(ExecError::JailEnded)), "{ended:?}");
    assert!(!jail.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_jail_of_the_same_name_does_not_touch_the_first() {
    let host = Host::new().await;
    let spec = host.spec(&host.space());
    let first = host.launcher.start(spec.clone()).await.unwrap();
    let second = host.launcher.start(spec).await;
    if host.is_native() {
        assert!(second.is_err(), "its control groups are taken");
    }
    drop(second);
    assert_eq!(sh(&first, "echo still").await.stdout.text, "still\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_process_cannot_be_signaled_from_inside() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    sh(&jail, "for s in $(seq 1 64); do kill -$s 1; done").await;
    assert_eq!(sh(&jail, "echo still").await.stdout.text, "still\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_command_is_killed() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    tokio::select! {
        _ = sh(&jail, "touch /workspace/ready; sleep 1000") => panic!("it does not end"),
        () = wait_for(&jail, "/workspace/ready") => {}
    }
    let ran = sh(&jail, "while grep -q sleep /proc/[0-9]*/comm; do :; done").await;
    assert_eq!(ran.status, ExitStatus::Exited(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_run_say_so() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let words = |words: &[&str]| CommandLine::Arguments(words.iter().map(|word| (*word).to_owned()).collect());
    let ran = run(&jail, Exec { command: words(&["nonexistent"]), ..Exec::shell("") }).await;
    assert_eq!(ran.status, ExitStatus::Exited(127));
    assert!(ran.stderr.text.contains("No such file"), "{ran:?}");
    let ran = run(&jail, Exec { directory: "/nowhere".to_owned(), ..Exec::shell("true") }).await;
    assert_eq!(ran.status, ExitStatus::Exited(127));
    let ran = run(&jail, Exec { command: words(&["echo", "a b", ""]), ..Exec::shell("") }).await;
    assert_eq!(ran.stdout.text, "a b \n");
    for script in ["", "a\0b"] {
        let refused = jail.exec(Exec::shell(script), CancellationToken::new()).await;
        assert!(matches!(refused, Err(ExecError::Unreadable)));
    }
    let long = "#".repeat(128 * 1024);
    let refused = jail.exec(Exec::shell(long), CancellationToken::new()).await;
    assert!(matches!(refused, Err(ExecError::TooLong)));
    let fits = format!("echo fits #{}", "\"\n#".repeat(43_000));
    assert_eq!(sh(&jail, &fits).await.stdout.text, "fits\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_stopping_or_dropping_a_jail_ends_all_its_processes() {
    let host = Host::new().await;
    for dropped in [false, true] {
        let jail = host.jail(&host.space()).await;
        let first = watch(jail.receipt().process);
        if dropped {
            drop(jail);
        } else {
            jail.stop().await;
        }
        ended(&first).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_when_the_server_is_killed_its_jails_are_gone() {
    use std::io::BufRead;
    let host = Host::new().await;
    let space = host.space();
    let mut server = std::process::Command::new(probe())
        .arg("server")
        .arg(helper())
        .arg(&space.workspace)
        .arg(space.user.uid.to_string())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(server.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let first: i32 = line.trim().strip_prefix("ready=").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    let first = watch(first);
    let server_id = server.id();
    server.kill().unwrap();
    server.wait().unwrap();
    // The first process is reaped only after everything in its namespace.
    ended(&first).await;
    let groups = ["memory", "pids", "cpu", "unified"]
        .map(|controller| format!("/sys/fs/cgroup/{controller}/bailiwick-jails/victim-{server_id}"));
    for _ in 0..200 {
        if groups.iter().all(|group| !std::path::Path::new(group).exists()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a control group was left");
}

fn watch(process: i32) -> std::os::fd::OwnedFd {
    let pid = rustix::process::Pid::from_raw(process).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
}

async fn ended(process: &std::os::fd::OwnedFd) {
    let process = process.try_clone().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut wait = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        rustix::event::poll(&mut wait, Some(&limit)).unwrap()
    });
    assert_eq!(ended.await.unwrap(), 1, "the process ended in ten seconds");
}
