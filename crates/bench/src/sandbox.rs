//! Sandboxes, measured at the sandbox: a new one with its first command against bare `bwrap … true`, a
//! command in a warm one against fork and exec.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_files::{Access, Owner, Workspace};
use bailiwick_sandbox::Workers;
use bailiwick_sandbox::linux::{
    CgroupUse, CommandLine, Exec, ExitStatus, HelperPath, Jail, JailName, JailSpec, JailUser, Launcher, Limits,
    Network, WorkspaceAccess,
};
use bailiwick_shell::{Isolation, Mount, PoolLimits, SharedTmp, Shell, ShellLimits, ShellPool, ShellSpec, Status};
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::report::{Report, Target, median};

const ROUNDS: usize = 100;
/// Whom the sandboxes run as, where the launcher can choose.
const USER: u32 = 200_001;

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let place = Place::new(&options.server);
    let launcher = async |cgroups| Launcher::detect(HelperPath::At(options.server.clone()), cgroups).await.unwrap();
    let (cold, alike) = (launcher(CgroupUse::WherePossible).await, launcher(CgroupUse::Never).await);
    let launcher = launcher(CgroupUse::WherePossible).await;
    // As the server has it.
    launcher.keep_ready(2);
    let shell = place.shell();
    let (mut new, mut built, mut same, mut warm, mut bwrap, mut exec) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    let (mut first, mut again) = (vec![], vec![]);
    for round in 0..ROUNDS {
        bwrap.push(timed(Command::new("bwrap").args(BWRAP)));
        exec.push(timed(&mut Command::new("/bin/true")));
        // bwrap knows no control groups.
        let begun = Instant::now();
        let jail = alike.start(place.jail(round)).await.unwrap();
        truth(&jail).await;
        same.push(begun.elapsed());
        jail.stop().await;
        let begun = Instant::now();
        let jail = cold.start(place.jail(round)).await.unwrap();
        truth(&jail).await;
        built.push(begun.elapsed());
        jail.stop().await;
        let begun = Instant::now();
        let jail = launcher.start(place.jail(round + ROUNDS)).await.unwrap();
        truth(&jail).await;
        new.push(begun.elapsed());
        let begun = Instant::now();
        truth(&jail).await;
        warm.push(begun.elapsed());
        jail.stop().await;
        // The next one is made ready meanwhile, which is nobody's time here.
        tokio::time::sleep(Duration::from_millis(50)).await;
        first.push(said(&place.shell()).await);
        again.push(said(&shell).await);
    }
    let ms = |times: &mut Vec<Duration>| median(times).as_secs_f64() * 1e3;
    let (new, built, same, warm) = (ms(&mut new), ms(&mut built), ms(&mut same), ms(&mut warm));
    let (bwrap, exec) = (ms(&mut bwrap), ms(&mut exec));
    report.add(
        "a new linux sandbox and `true` in it, p50",
        format!("{new:.2} ms"),
        format!("bwrap … true {bwrap:.2} ms"),
        new / bwrap,
        Target::AtMost(1.5),
    );
    report.add(
        "… where none is kept ready, p50",
        format!("{built:.2} ms"),
        format!("bwrap … true {bwrap:.2} ms"),
        built / bwrap,
        Target::None,
    );
    report.add(
        "… where none is, without control groups, as bwrap is, p50",
        format!("{same:.2} ms"),
        format!("bwrap … true {bwrap:.2} ms"),
        same / bwrap,
        Target::None,
    );
    report.add(
        "`true` in a warm linux sandbox over fork and exec, p50",
        format!("{:.2} ms", warm - exec),
        format!("1 ms over {exec:.2} ms"),
        warm - exec,
        Target::AtMost(1.0),
    );
    let (first, again) = (ms(&mut first), ms(&mut again));
    report.add("`echo` in a new virtual sandbox, p50", format!("{first:.2} ms"), "", 0.0, Target::None);
    report.add("`echo` in a warm virtual sandbox, p50", format!("{again:.2} ms"), "", 0.0, Target::None);
}

pub(crate) async fn truth(jail: &Jail) {
    let exec = Exec { command: CommandLine::Arguments(vec!["/bin/true".to_owned()]), ..Exec::shell("") };
    let done = jail.exec(exec, CancellationToken::new()).await.unwrap();
    assert_eq!(done.status, ExitStatus::Exited(0));
}

async fn said(shell: &Shell) -> Duration {
    let begun = Instant::now();
    let cancel = CancellationToken::new();
    let done = shell.exec("echo hello", Duration::from_secs(10), &mut |_, _| (), cancel).await.unwrap();
    assert_eq!((done.status, &*done.stdout), (Status::Exited(0), &b"hello\n"[..]));
    begun.elapsed()
}

/// Folders that a sandbox can be over.
pub(crate) struct Place {
    _dir: tempfile::TempDir,
    files: PathBuf,
    tmp: PathBuf,
    owner: Option<Owner>,
    pool: ShellPool,
}

impl Place {
    pub(crate) fn new(server: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (files, tmp) = (dir.path().join("files"), dir.path().join("tmp"));
        for folder in [&files, &tmp] {
            std::fs::create_dir(folder).unwrap();
        }
        // Only root gives files away.
        let owner = chown(&files, Some(USER), Some(USER)).is_ok().then_some(Owner { uid: USER, gid: USER });
        let workers = Arc::new(Workers::new(HelperPath::At(server.to_owned())));
        let pool = ShellPool::new(PoolLimits::default(), Isolation::Process(workers));
        Self { _dir: dir, files, tmp, owner, pool }
    }

    pub(crate) fn jail(&self, round: usize) -> JailSpec {
        JailSpec {
            name: JailName::parse(&format!("bench-{}-{round}", std::process::id())).unwrap(),
            workspace: self.files.clone(),
            access: WorkspaceAccess::ReadWrite,
            shared_tmp: None,
            network: Network::Nothing,
            user: JailUser { uid: USER, gid: USER },
            limits: Limits::default(),
        }
    }

    fn shell(&self) -> Shell {
        let workspace = Workspace::open(&self.files, Access::ReadWrite, self.owner).unwrap();
        Shell::new(ShellSpec {
            workspace: Mount::Files(workspace),
            tmp: SharedTmp::new(&self.tmp, 1 << 20, self.owner).unwrap(),
            pool: self.pool.clone(),
            limits: ShellLimits::default(),
        })
    }
}

/// The flags of a comparable jail.
pub(crate) const BWRAP: &[&str] = &[
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
    "--clearenv",
    "--",
    "/bin/true",
];

pub(crate) fn timed(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
    begun.elapsed()
}
