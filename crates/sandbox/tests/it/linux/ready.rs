//! Processes that wait to become jails.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::harness::{Host, run};
use bailiwick_sandbox::linux::{Exec, ExitStatus};

/// The launcher's children that have its name still: what it keeps ready.
fn ready(launcher: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|number| {
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            // `number (name) state parent …`
            let of = stat.split_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            stat.contains("(bw-launcher)") && of == Some(&launcher.to_string())
        })
        .collect()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_b09_what_was_ready_was_nobodys_and_is_exactly_what_was_declared() {
    let host = Host::new().await;
    if !host.is_native() {
        return;
    }
    let launcher = host.launcher.process().unwrap();
    assert!(ready(launcher).is_empty(), "none is kept ready but by whoever asks for it");
    host.launcher.keep_ready(2);
    eventually("two are ready", || ready(launcher).len() == 2).await;
    let first = ready(launcher);

    // Two tenants with limits of their own. What a receipt shows is compared before each command.
    let (mut one, mut other) = (host.space(), host.space());
    (one.limits.memory_bytes, one.limits.pids) = (64 << 20, 32);
    (other.limits.memory_bytes, other.limits.pids) = (128 << 20, 48);
    let jails = [(host.jail(&one).await, &one), (host.jail(&other).await, &other), (host.jail(&one).await, &one)];
    eventually("others are made ready", || {
        let waiting = ready(launcher);
        waiting.len() == 2 && !waiting.iter().any(|number| first.contains(number))
    })
    .await;
    let mut networks = Vec::new();
    for (jail, space) in &jails {
        let script = "id -u; readlink /proc/self/ns/net; (: | sleep 0.1) && echo mine > file; ls";
        let ran = run(jail, Exec::shell(script)).await;
        assert_eq!(ran.status, ExitStatus::Exited(0), "{ran:?}");
        let lines: Vec<&str> = ran.stdout.text.lines().collect();
        assert_eq!((lines[0], lines[2]), (&*space.user.uid.to_string(), "file"));
        networks.push(lines[1].to_owned());
        let groups = ran.receipt.record()["cgroups"].clone();
        assert_eq!(
            (&groups["memory"], &groups["pids"]),
            (&space.limits.memory_bytes.into(), &space.limits.pids.into())
        );
    }
    networks.sort();
    networks.dedup();
    assert_eq!(networks.len(), 3, "each has a network of its own");

    // What waited and was killed is built when it is asked for.
    let gone = |number: &u32| !std::path::Path::new(&format!("/proc/{number}")).exists();
    let waiting = ready(launcher);
    for number in &waiting {
        kill_process(Pid::from_raw((*number).try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    eventually("the end of those that were killed", || waiting.iter().all(gone)).await;
    let jail = host.jail(&other).await;
    assert_eq!(run(&jail, Exec::shell("true")).await.status, ExitStatus::Exited(0));

    // With the launcher all of it ends.
    eventually("one is ready again", || !ready(launcher).is_empty()).await;
    let waiting = ready(launcher);
    kill_process(Pid::from_raw(launcher.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    eventually("the end of all that waited", || waiting.iter().all(gone)).await;
}
