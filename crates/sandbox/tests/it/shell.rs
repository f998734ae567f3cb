//! The virtual shell, in worker processes unless a test says otherwise.

mod attacks;
mod calls;
mod files;
mod limits;
mod tenants;
#[cfg(debug_assertions)]
mod walls;
mod workers;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_files::{Access, Workspace};
use bailiwick_sandbox::Workers;
use bailiwick_sandbox::linux::HelperPath;
use bailiwick_shell::{
    Isolation, Mount, Output, PoolLimits, SharedTmp, Shell, ShellLimits, ShellPool, ShellSpec, Stream,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// One tenant's shell over a real directory.
struct Tenant {
    top: TempDir,
    spec: ShellSpec,
    shell: Shell,
}

const LONG: Duration = Duration::from_secs(60);
const SECRET: &str = "SECRET-OF-ANOTHER-TENANT";

fn worker() -> Isolation {
    let helper = HelperPath::At(env!("CARGO_BIN_EXE_bailiwick-helper").into());
    Isolation::Process(Arc::new(Workers::new(helper)))
}

fn pool(isolation: Isolation) -> ShellPool {
    ShellPool::new(PoolLimits { threads: 8, queue: LONG }, isolation)
}

impl Tenant {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ShellSpec)) -> Self {
        let top = TempDir::new().unwrap();
        fs::create_dir(top.path().join("space")).unwrap();
        fs::write(top.path().join("outside.txt"), SECRET).unwrap();
        let files = Workspace::open(&top.path().join("space"), Access::ReadWrite, None).unwrap();
        let mut spec = ShellSpec {
            workspace: Mount::Files(files),
            tmp: SharedTmp::new(top.path(), 16 << 20, None).unwrap(),
            pool: pool(worker()),
            limits: ShellLimits::default(),
        };
        change(&mut spec);
        Self { top, shell: Shell::new(spec.clone()), spec }
    }

    /// The same tenant's shell with something changed.
    fn other(&self, change: impl FnOnce(&mut ShellSpec)) -> Shell {
        let mut spec = self.spec.clone();
        change(&mut spec);
        Shell::new(spec)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.top.path().join("space").join(name)
    }

    async fn run(&self, command: &str) -> Output {
        run(&self.shell, command, LONG).await
    }

    async fn run_for(&self, command: &str, timeout: Duration) -> Output {
        run(&self.shell, command, timeout).await
    }

    /// Standard output of a command that must succeed.
    async fn print(&self, command: &str) -> String {
        let output = self.run(command).await;
        assert!(output.succeeded(), "{command}: {output:?}");
        stdout(&output)
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
