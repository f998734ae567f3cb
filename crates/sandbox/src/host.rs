//! Commands on the host, without walls: for elevated tools and `sandbox.mode: off`, and only where the
//! operator has said so. Still an empty environment, a process group of its own, output that is cut
//! while it streams, and, where the server is root, the tenant's unprivileged user.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::demand::{Ran, RanStatus, Run};
use crate::output::{Captured, Collector, OutputLimits};
use crate::receipt::Receipt;

/// The command could not be run.
#[derive(Debug, thiserror::Error)]
#[error("the host could not {doing}")]
pub struct HostError {
    doing: &'static str,
    #[source]
    source: std::io::Error,
}

const GRACE: Duration = bailiwick_types::limits::KILL_GRACE;
/// How long the output of a process that somebody else still holds is awaited.
const DRAIN: Duration = Duration::from_millis(200);

pub(crate) async fn run(folder: &Path, user: u32, run: Run) -> Result<Ran, HostError> {
    let began = Instant::now();
    let failed = |doing| move |source| HostError { doing, source };
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(&run.script)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("LANG", "C.UTF-8")
        .env("AI_AGENT", "bailiwick")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn().map_err(|source| match source.kind() {
        // The folders above the workspace must let the account's user pass.
        std::io::ErrorKind::PermissionDenied => {
            HostError { doing: "come to the workspace as the account's user", source }
        }
        _ => HostError { doing: "start the command", source },
    })?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    // Also if nobody waits for it any more: what was begun is ended, with its group. A process that makes
    // a group of its own escapes this; only a sandbox holds those.
    let mut end = EndOfGroup(group);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let out = tokio::spawn(collect(out));
    let err = tokio::spawn(collect(err));
    let (stopped, exited) = tokio::select! {
        exited = child.wait() => (None, Some(exited)),
        () = tokio::time::sleep(run.timeout) => (Some(RanStatus::TimedOut), None),
        () = run.cancel.cancelled() => (Some(RanStatus::Canceled), None),
        () = run.no_room.said() => (Some(run.no_room.status()), None),
    };
    let exited = match exited {
        Some(exited) => exited,
        None => {
            let grace = async {
                if run.no_room.why().is_none() {
                    signal(group, Signal::TERM);
                    tokio::select! {
                        () = tokio::time::sleep(GRACE) => {}
                        () = run.no_room.said() => {}
                    }
                }
            };
            tokio::select! {
                exited = child.wait() => exited,
                () = grace => {
                    signal(group, Signal::KILL);
                    child.wait().await
                }
            }
        }
    };
    // Whatever the command left behind in its group goes before its output is waited for; and only now,
    // while the group's number cannot be anybody else's.
    signal(end.0.take(), Signal::KILL);
    let exited = exited.map_err(failed("wait for the command"))?;
    let status = stopped.unwrap_or_else(|| {
        use std::os::unix::process::ExitStatusExt;
        match (exited.code(), exited.signal()) {
            (Some(code), _) => RanStatus::Exited(code),
            (None, signal) => RanStatus::Signaled(signal.unwrap_or(0)),
        }
    });
    Ok(Ran {
        status,
        stdout: finish(out).await,
        stderr: finish(err).await,
        wall: began.elapsed(),
        receipt: Receipt::Host,
    })
}

struct EndOfGroup(Option<Pid>);

impl Drop for EndOfGroup {
    fn drop(&mut self) {
        signal(self.0, Signal::KILL);
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The group may be gone already, which is what we want.
        let _ = kill_process_group(group, signal);
    }
}

async fn collect(stream: Option<impl AsyncRead + Unpin>) -> Collector {
    let mut collector = Collector::new(OutputLimits::default());
    let Some(mut stream) = stream else { return collector };
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        collector.write(&buffer[..n]);
        tokio::task::yield_now().await;
    }
    collector
}

async fn finish(reading: tokio::task::JoinHandle<Collector>) -> Captured {
    let stop = reading.abort_handle();
    match tokio::time::timeout(DRAIN, reading).await {
        Ok(Ok(collector)) => collector.finish(),
        _ => {
            stop.abort();
            Collector::new(OutputLimits::default()).finish()
        }
    }
}
