//! A command runs, its status and output come back.

use bailiwick_sandbox::linux::ExitStatus;

use super::harness::{Host, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_and_its_output_and_status_come_back() {
    let host = Host::new().await;
    let jail = host.jail(&host.space()).await;
    let ran = sh(&jail, "echo out; echo err >&2; exit 3").await;
    assert_eq!(ran.status, ExitStatus::Exited(3));
    assert_eq!((ran.stdout.text.as_str(), ran.stderr.text.as_str()), ("out\n", "err\n"));
}
