//! A Podman service, an image with the probe, and containers by them.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use bailiwick_sandbox::container::{ContainerSettings, Containers, ContainersUnavailable, RuntimeChoice};
use bailiwick_sandbox::linux::{HelperPath, Jail, JailName, JailSpec, JailUser, Limits, Network, WorkspaceAccess};
pub(super) use bailiwick_testkit::podman::BARE;
use bailiwick_testkit::podman::Podman;

use crate::linux::harness::{helper, probe};

/// An image with curl, and with the libraries of it and of the probe.
pub(super) const IMAGE: &str = "localhost/image";

/// A server's view of an engine.
pub(super) struct Engine(Podman);

impl Deref for Engine {
    type Target = Podman;

    fn deref(&self) -> &Podman {
        &self.0
    }
}

impl Engine {
    pub(super) fn start() -> Self {
        Self(Podman::start())
    }

    pub(super) fn settings(&self) -> ContainerSettings {
        ContainerSettings {
            socket: self.socket(),
            image: BARE.to_owned(),
            runtime: RuntimeChoice::Engines,
            folder: self.dir().join("server"),
        }
    }

    pub(super) async fn detect(&self, settings: &ContainerSettings) -> Result<Containers, ContainersUnavailable> {
        Containers::detect(&HelperPath::At(helper()), settings).await
    }

    /// What most tests want.
    pub(super) async fn containers_of(&self, image: &str) -> Containers {
        if image == IMAGE {
            self.0.import(IMAGE, &[&probe(), Path::new("/usr/bin/curl")]);
        }
        let settings = ContainerSettings { image: image.to_owned(), ..self.settings() };
        self.detect(&settings).await.expect("a container backend")
    }

    /// A demand that no other test has.
    pub(super) fn spec(&self) -> JailSpec {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Not those of the jails of this process.
        let id = 11_000_000 + std::process::id() % 100_000 * 100 + number % 100;
        let user = JailUser { uid: id, gid: id };
        JailSpec {
            name: JailName::parse(&format!("test-{}-{number}", std::process::id())).unwrap(),
            workspace: self.folder(&format!("ws{number}"), user),
            access: WorkspaceAccess::ReadWrite,
            shared_tmp: None,
            user,
            network: Network::Nothing,
            limits: Limits::default(),
        }
    }

    /// A folder of a user.
    pub(super) fn folder(&self, name: &str, user: JailUser) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid)).unwrap();
        path.canonicalize().unwrap()
    }
}

/// Puts the probe into a workspace.
pub(super) fn place_probe(spec: &JailSpec) {
    std::fs::copy(probe(), spec.workspace.join("probe")).unwrap();
}

pub(super) async fn start(containers: &Containers, spec: &JailSpec) -> Jail {
    containers.start(spec.clone()).await.expect("a container")
}
