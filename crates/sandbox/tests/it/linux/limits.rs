//! B05: what one jail can use up, and that its neighbour does not notice.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bailiwick_sandbox::linux::{CgroupUse, Enforcement, Exec, ExitStatus};

use super::harness::{Host, run, sh};

fn within(script: &str, millis: u64) -> Exec {
    Exec { timeout: Duration::from_millis(millis), grace: Duration::from_millis(200), ..Exec::shell(script) }
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_fork_bomb_is_stopped_at_the_pids_limit() {
    let host = Host::new().await;
    let neighbour = host.jail(&host.space()).await;
    let mut space = host.space();
    space.limits.pids = 48;
    let jail = host.jail(&space).await;
    let bomb = tokio::spawn(async move {
        let ran = run(&jail, within("bomb() { bomb | bomb & }; bomb; sleep 100", 2000)).await;
        (jail, ran)
    });
    // While it burns, the neighbour still answers.
    for _ in 0..10 {
        assert_eq!(sh(&neighbour, "echo here").await.stdout.text, "here\n");
    }
    let (jail, ran) = bomb.await.unwrap();
    assert!(ran.stderr.text.contains("Resource temporarily unavailable"), "{ran:?}");
    assert_eq!(ran.status, ExitStatus::TimedOut);
    // Nothing of it is left, and the jail can be used again.
    let ran = sh(&jail, "echo /proc/[0-9]* | wc -w").await;
    assert!(ran.stdout.text.trim().parse::<u32>().unwrap() <= 5, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_memory_is_limited() {
    let host = Host::new().await;
    let neighbour = host.jail(&host.space()).await;
    let mut space = host.space();
    space.limits.memory_bytes = 64 << 20;
    let jail = host.jail(&space).await;
    // `tail` keeps a line without end in memory.
    let eat = "head -c 300M /dev/zero | tail | wc -c; exit ${PIPESTATUS[1]}";
    let ran = run(&jail, Exec::shell(eat)).await;
    if host.launcher.promises().memory == Enforcement::RlimitPerProcess {
        assert!(ran.stderr.text.contains("memory exhausted"), "{ran:?}");
    } else {
        assert_eq!(ran.status, ExitStatus::OutOfMemory, "{ran:?}");
    }
    assert_eq!(sh(&jail, "echo still").await.stdout.text, "still\n");
    assert_eq!(sh(&neighbour, "echo here").await.stdout.text, "here\n");
    // The same command within the limit.
    let ran = run(&neighbour, Exec::shell(eat.replace("300M", "30M"))).await;
    assert_eq!(ran.stdout.text.trim(), (30 << 20).to_string());
}

/// A disk of one MiB over a folder.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn over(folder: &'a Path) -> Self {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(folder).status();
        assert!(mounted.unwrap().success());
        Self(folder)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_a_full_disk_is_an_error_to_whoever_filled_it() {
    let host = Host::new().await;
    if !host.is_native() {
        // Only root makes a small disk.
        return;
    }
    let neighbour = host.jail(&host.space()).await;
    let space = host.space();
    let _disk = SmallDisk::over(&space.workspace);
    host.give(&space.workspace, space.user);
    let jail = host.jail(&space).await;
    let fill = "head -c 4M /dev/zero > big; echo $?; stat -c %s big";
    let ran = sh(&jail, fill).await;
    assert!(ran.stderr.text.contains("No space left on device"), "{ran:?}");
    assert!(ran.stdout.text.starts_with("1\n"), "{ran:?}");
    // The control: elsewhere there is room, and here again once it is made.
    assert_eq!(sh(&neighbour, fill).await.stdout.text, format!("0\n{}\n", 4 << 20));
    assert_eq!(sh(&jail, "rm big; echo small > small; cat small").await.stdout.text, "small\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_without_control_groups_the_weaker_limits_are_named_and_hold() {
    let host = Host::with(CgroupUse::Never).await;
    let promises = host.launcher.promises();
    assert_eq!(promises.memory, Enforcement::RlimitPerProcess);
    assert_eq!(promises.pids, Enforcement::RlimitPerUser);
    assert_eq!(promises.cpu, Enforcement::Nothing);
    let mut space = host.space();
    space.limits.pids = 32;
    space.limits.memory_bytes = 64 << 20;
    let jail = host.jail(&space).await;
    let ran = sh(&jail, "head -c 300M /dev/zero | tail | wc -c").await;
    assert!(ran.stderr.text.contains("memory exhausted"), "{ran:?}");
    let ran = run(&jail, within("bomb() { bomb | bomb & }; bomb; sleep 100", 1000)).await;
    assert!(ran.stderr.text.contains("Resource temporarily unavailable"), "{ran:?}");
    assert_eq!(sh(&jail, "echo still").await.stdout.text, "still\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_file_size_open_files_and_tmp_are_limited() {
    let host = Host::new().await;
    let mut space = host.space();
    space.limits.file_bytes = 1 << 20;
    space.limits.tmp_bytes = 256 << 10;
    space.limits.open_files = 32;
    let jail = host.jail(&space).await;
    let ran = sh(&jail, "head -c 2M /dev/zero > /workspace/big; echo $?; stat -c %s /workspace/big").await;
    // 128 + SIGXFSZ, and exactly the limit.
    assert_eq!(ran.stdout.text, "153\n1048576\n", "{ran:?}");
    let ran = sh(&jail, "head -c 512K /dev/zero > /workspace/small; echo $?").await;
    assert_eq!(ran.stdout.text, "0\n");
    let ran = sh(&jail, "head -c 512K /dev/zero > /tmp/x; echo $?").await;
    assert!(ran.stderr.text.contains("No space left"), "{ran:?}");
    let ran = sh(&jail, "head -c 128K /dev/zero > /tmp/x; echo $?").await;
    assert_eq!(ran.stdout.text, "0\n");
    let open = "n=0; while exec {fd}< /dev/null; do n=$((n+1)); [ $n -lt 200 ] || break; done; echo $n";
    let ran = sh(&jail, open).await;
    assert!(ran.stderr.text.contains("Too many open files"), "{ran:?}");
    let ran = sh(&host.jail(&host.space()).await, open).await;
    assert_eq!(ran.stdout.text, "200\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_processor_time_is_limited() {
    let host = Host::new().await;
    if host.launcher.promises().cpu == Enforcement::Nothing {
        // Promised as nothing, which the facade must refuse if it is demanded.
        assert!(!host.is_native(), "root has control groups here");
        return;
    }
    let mut slow = host.space();
    slow.limits.cpu_millis = 100;
    let (slow, fast) = (host.jail(&slow).await, host.jail(&host.space()).await);
    let burn = "timeout 1 bash -c 'while :; do :; done'; times";
    let (slow, fast) = tokio::join!(sh(&slow, burn), sh(&fast, burn));
    let seconds = |text: &str| -> f64 {
        // The second line is the children's.
        let user = text.lines().nth(1).unwrap().split_whitespace().next().unwrap();
        let (minutes, seconds) = user.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let (slow, fast) = (seconds(&slow.stdout.text), seconds(&fast.stdout.text));
    assert!(slow < 0.3 && fast > slow, "slow {slow}, fast {fast}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_endless_output_is_cut_and_costs_no_memory() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let before = resident();
    let ran = run(&jail, within("yes 0123456789", 2000)).await;
    let after = resident();
    assert_eq!(ran.status, ExitStatus::TimedOut);
    assert!(ran.stdout.truncated && ran.stdout.text.len() < 52 << 10);
    assert!(ran.stdout.total_bytes > 8 << 20, "{} bytes", ran.stdout.total_bytes);
    assert!(after < before + 24, "{before} MiB before, {after} MiB after");
    // One line without end.
    let ran = run(&jail, within("cat /dev/zero", 1000)).await;
    assert_eq!(ran.status, ExitStatus::TimedOut);
    assert!(ran.stdout.truncated && ran.stdout.text.len() < 10 << 10);
    assert!(resident() < before + 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_output_limits_keep_the_end() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let ran = sh(&jail, "seq 5000; seq 3 >&2").await;
    let (first, rest) = ran.stdout.text.split_once('\n').unwrap();
    assert!(first.contains("5000 lines") && first.contains("3000 lines left out"), "{first}");
    assert!(rest.starts_with("3001\n") && rest.ends_with("\n5000\n"));
    assert_eq!(ran.stderr.text, "1\n2\n3\n");
    assert!(!ran.stderr.truncated);
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_shared_memory_and_the_number_of_files_in_tmp_are_limited() {
    let host = Host::new().await;
    let mut space = host.space();
    space.limits.tmp_bytes = 512 << 20;
    let jail = host.jail(&space).await;
    let ran = sh(&jail, "head -c 80M /dev/zero > /dev/shm/x; echo $?; rm /dev/shm/x").await;
    assert!(ran.stderr.text.contains("No space left"), "{ran:?}");
    assert_eq!(sh(&jail, "head -c 8M /dev/zero > /dev/shm/x; echo $?").await.stdout.text, "0\n");
    if host.is_native() {
        // Bubblewrap has no way to say how many; there the size alone is limited.
        let many = "cd /tmp; i=0; while [ $i -lt 70000 ] && echo > $i; do i=$((i+1)); done; echo $i";
        let ran = sh(&jail, many).await;
        assert!(ran.stderr.text.contains("No space left"), "{:?}", ran.status);
        let made: u32 = ran.stdout.text.trim().parse().unwrap();
        assert!((60_000..66_000).contains(&made), "{made}");
        sh(&jail, "find /tmp -mindepth 1 -delete").await;
    }
    assert_eq!(sh(&jail, "echo still").await.stdout.text, "still\n");
}
