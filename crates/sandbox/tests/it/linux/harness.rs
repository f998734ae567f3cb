//! Jails with their own folders and an own user, for one test each.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bailiwick_sandbox::linux::{
    CgroupUse, Exec, Execution, HelperPath, Jail, JailName, JailSpec, JailUser, Launcher, LauncherKind, Limits,
    Network, WorkspaceAccess,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The environment variable that names the helper when the suite runs as
/// another user, who cannot reach the build folder.
pub(crate) const HELPER: &str = "BAILIWICK_TEST_HELPER";
/// Likewise for cargo.
pub(crate) const CARGO: &str = "BAILIWICK_TEST_CARGO";
/// Likewise for the probe.
pub(crate) const PROBE: &str = "BAILIWICK_TEST_PROBE";

pub(crate) fn helper() -> PathBuf {
    std::env::var_os(HELPER).map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bailiwick-helper")), PathBuf::from)
}

pub(crate) fn probe() -> PathBuf {
    std::env::var_os(PROBE).map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bailiwick-probe")), PathBuf::from)
}

/// One server's view: a launcher and folders for its jails.
pub(crate) struct Host {
    pub(crate) launcher: Launcher,
    folders: TempDir,
}

/// A jail's workspace and user, from which jails can be made.
pub(crate) struct Space {
    pub(crate) workspace: PathBuf,
    pub(crate) user: JailUser,
    pub(crate) limits: Limits,
    pub(crate) access: WorkspaceAccess,
    pub(crate) shared_tmp: Option<PathBuf>,
    pub(crate) network: Network,
}

/// A number that no other test of this run has, this process or another.
fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Host {
    pub(crate) async fn new() -> Self {
        Self::with(CgroupUse::WherePossible).await
    }

    pub(crate) async fn with(cgroups: CgroupUse) -> Self {
        let launcher = Launcher::detect(HelperPath::At(helper()), cgroups).await.expect("a linux backend");
        let folders = tempfile::Builder::new().prefix("bw").tempdir().unwrap();
        // The jails' users must reach their folders.
        std::fs::set_permissions(folders.path(), PermissionsExt::from_mode(0o711)).unwrap();
        Self { launcher, folders }
    }

    pub(crate) fn is_native(&self) -> bool {
        self.launcher.promises().launcher == LauncherKind::Native
    }

    /// A folder that belongs to a user.
    pub(crate) fn folder(&self, user: JailUser) -> PathBuf {
        let path = self.folders.path().join(format!("f{}", unique()));
        std::fs::create_dir(&path).unwrap();
        self.give(&path, user);
        path.canonicalize().unwrap()
    }

    /// Gives a file or folder to a user, where the server may.
    pub(crate) fn give(&self, path: &Path, user: JailUser) {
        if self.is_native() {
            std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }

    /// A user and a workspace that no other test has.
    pub(crate) fn space(&self) -> Space {
        let id = 200_000 + std::process::id() % 100_000 * 100 + unique() % 100;
        let user = JailUser { uid: id, gid: id };
        Space {
            workspace: self.folder(user),
            user,
            limits: Limits::default(),
            access: WorkspaceAccess::ReadWrite,
            shared_tmp: None,
            network: Network::Nothing,
        }
    }

    pub(crate) async fn jail(&self, space: &Space) -> Jail {
        self.launcher.start(self.spec(space)).await.expect("a jail")
    }

    pub(crate) fn spec(&self, space: &Space) -> JailSpec {
        JailSpec {
            name: JailName::parse(&format!("test-{}-{}", std::process::id(), unique())).unwrap(),
            workspace: space.workspace.clone(),
            access: space.access,
            shared_tmp: space.shared_tmp.clone(),
            user: space.user,
            network: space.network.clone(),
            limits: space.limits,
        }
    }
}

pub(crate) async fn run(jail: &Jail, request: Exec) -> Execution {
    jail.exec(request, CancellationToken::new()).await.expect("an execution")
}

/// Runs a script.
pub(crate) async fn sh(jail: &Jail, script: &str) -> Execution {
    run(jail, Exec::shell(script)).await
}
