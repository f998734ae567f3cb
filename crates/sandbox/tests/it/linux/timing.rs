//! How long a warm command takes. A wide bound: it guards against a design
//! that starts a jail per command, not against a busy machine.

use std::time::{Duration, Instant};

use bailiwick_sandbox::linux::{CommandLine, Exec, ExitStatus};

use super::harness::{Host, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_command_is_cheap() {
    let host = Host::new().await;
    let space = host.space();
    let started = Instant::now();
    let jail = host.jail(&space).await;
    let cold = started.elapsed();
    let exec = Exec { command: CommandLine::Arguments(vec!["/bin/true".to_owned()]), ..Exec::shell("") };
    let mut times = Vec::new();
    for _ in 0..100 {
        let ran = run(&jail, exec.clone()).await;
        assert_eq!(ran.status, ExitStatus::Exited(0));
        times.push(ran.wall);
    }
    times.sort_unstable();
    let mut plain = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        std::process::Command::new("/bin/true").status().unwrap();
        plain.push(started.elapsed());
    }
    plain.sort_unstable();
    eprintln!("cold {cold:?}, warm p50 {:?} p99 {:?}, fork+exec p50 {:?}", times[50], times[98], plain[50]);
    assert!(times[50] < plain[50] + Duration::from_millis(50));
}
