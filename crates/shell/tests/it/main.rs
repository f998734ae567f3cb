//! Integration tests of the virtual shell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod explore;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bailiwick_files::{Access, Workspace};
use bailiwick_shell::{Mount, Output, PoolLimits, SharedTmp, Shell, ShellLimits, ShellPool, ShellSpec, Stream};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// One tenant's shell over a real directory.
struct Tenant {
    top: TempDir,
    shell: Shell,
}

fn spec(top: &TempDir, access: Access) -> ShellSpec {
    let workspace = Workspace::open(&top.path().join("space"), access, None).unwrap();
    ShellSpec {
        workspace: Mount::Files(workspace),
        tmp: SharedTmp::new(16 << 20),
        pool: ShellPool::new(PoolLimits::default()),
        limits: ShellLimits::default(),
    }
}

impl Tenant {
    fn new() -> Self {
        Self::with(Access::ReadWrite, |_| {})
    }

    fn with(access: Access, change: impl FnOnce(&mut ShellSpec)) -> Self {
        let top = TempDir::new().unwrap();
        fs::create_dir(top.path().join("space")).unwrap();
        let mut spec = spec(&top, access);
        change(&mut spec);
        Self { top, shell: Shell::new(spec) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.top.path().join("space").join(name)
    }

    async fn run(&self, command: &str) -> Output {
        self.run_for(command, Duration::from_secs(20)).await
    }

    async fn run_for(&self, command: &str, timeout: Duration) -> Output {
        run(&self.shell, command, timeout).await
    }
}

async fn run(shell: &Shell, command: &str, timeout: Duration) -> Output {
    shell.exec(command, timeout, &mut |_: Stream, _: &[u8]| {}, CancellationToken::new()).await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
