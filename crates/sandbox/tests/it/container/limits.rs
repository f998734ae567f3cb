//! B05: what one container can use up, and that its neighbour does not notice.

use std::time::Duration;

use bailiwick_sandbox::linux::{Enforcement, Exec, ExitStatus};

use super::engine::{BARE, Engine, start};
use crate::linux::harness::{run, sh};

#[tokio::test(flavor = "multi_thread")]
async fn b05_limits_hold_and_the_neighbour_answers() {
    let engine = Engine::start();
    let containers = engine.containers_of(BARE).await;
    let promises = containers.promises();
    for by in [promises.memory, promises.pids, promises.cpu] {
        assert!(matches!(by, Enforcement::CgroupV1 | Enforcement::CgroupV2), "{promises:?}");
    }
    let mut spec = engine.spec();
    spec.limits.memory_bytes = 64 << 20;
    spec.limits.pids = 48;
    spec.limits.tmp_bytes = 1 << 20;
    spec.limits.file_bytes = 2 << 20;
    spec.limits.open_files = 64;
    let (container, neighbour) = (start(&containers, &spec).await, start(&containers, &engine.spec()).await);

    // Memory, of one process.
    let eat = "awk 'BEGIN { s = \"x\"; for (i = 0; i < 27; i++) s = s s; print length(s) }'";
    let ran = sh(&container, eat).await;
    assert_eq!((ran.status, ran.stdout.text.as_str()), (ExitStatus::OutOfMemory, ""), "{ran:?}");
    let ran = sh(&neighbour, eat).await;
    assert_eq!(ran.stdout.text.trim(), (1 << 27).to_string(), "the control: {ran:?}");

    // Processes.
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 100";
    let within = Exec { timeout: Duration::from_secs(2), grace: Duration::from_millis(200), ..Exec::shell(bomb) };
    let (ran, answer) = tokio::join!(run(&container, within), sh(&neighbour, "echo here"));
    assert_eq!((ran.status, answer.stdout.text.as_str()), (ExitStatus::TimedOut, "here\n"));
    assert!(
        ran.stderr.text.contains("Resource temporarily unavailable") || ran.stderr.text.contains("can't fork"),
        "{ran:?}"
    );

    // Files and memory file systems.
    let script = "head -c 3000000 /dev/zero > big; echo $?; head -c 2000000 /dev/zero > /tmp/x; echo $?; ulimit -n; \
                  ulimit -c; ls -l big /tmp/x";
    let ran = sh(&container, script).await;
    let said: Vec<&str> = ran.stdout.text.lines().collect();
    // 153 is the signal of a file that is too large.
    assert_eq!((said[0], said[1], said[2], said[3]), ("153", "1", "64", "0"), "{ran:?}");
    let sizes = said[4..].join("\n");
    assert!(sizes.contains(" 2097152 ") && sizes.contains(" 1048576 "), "{ran:?}");
    let ran =
        sh(&neighbour, "head -c 3000000 /dev/zero > big; echo $?; head -c 2000000 /dev/zero > /tmp/x; echo $?").await;
    assert_eq!(ran.stdout.text, "0\n0\n", "the control");
    assert_eq!(sh(&container, "echo still").await.stdout.text, "still\n");
}
