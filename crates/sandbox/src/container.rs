//! The `container` backend: an image of the operator's, run by Docker or Podman, with our own first process in it.
//!
//! The engine makes one container for each running sandbox, with our system call profile, the demand's user, no
//! capabilities and no network, and starts our helper in it as the first process. That one connects back over a
//! socket that is there for the start alone, confines itself as in every jail, and speaks the same protocol; so a
//! command costs no call of the engine, and the receipt is read from the kernel as for every jail. What a receipt
//! of a container compares otherwise stands in `linux::compared`.
//!
//! The engine's socket is the host's root: it must never be visible in a sandbox, and nothing of a tenant but
//! numbers and opaque folders is in what the engine is told. A container that is not what was declared is killed; a
//! host without an engine that works has no `container` backend, and nothing falls back.

mod client;
mod first;
mod loader;
mod recipe;
mod room;
mod running;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::PidfdFlags;
use tokio_util::sync::CancellationToken;

pub use client::EngineError;
use client::{Client, Kind};
pub(crate) use first::run as run_first;
use loader::{Loader, LoaderError};
use room::Room;
pub(crate) use running::Container;

use crate::linux::environment::environment;
use crate::linux::jail::{self, Built, Parts};
use crate::linux::launcher::{START_TIMEOUT, TRIAL_USER, confined, open_folder};
use crate::linux::omit::Omitted;
#[cfg(debug_assertions)]
use crate::linux::omit::{OnDifference, Wall};
use crate::linux::receipt::{Declared, Told};
use crate::linux::spec::Programs;
use crate::linux::syscalls::FilterError;
use crate::linux::wire::{self, InitSetup, PACKET_BYTES, ToInit};
use crate::linux::{
    Enforcement, Exec, ExecError, ExitStatus, HelperPath, InvalidJailName, Jail, JailSpec, JailUser, LauncherKind,
    Limits, Listening, Network, Promises, StartError, UserSeparation, WayOut, WorkspaceAccess, cgroup, confine,
    listeners, profile, raw, rlimits, syscalls,
};

/// The `argv[0]` of a container's first process, and the name of its file inside.
pub(crate) const FIRST_ROLE: &str = "bailiwick-container";
/// What a container for trial must be able to do: an image's own `/tmp` may be shut, and then ours is as well.
const TRIAL: &str = ": > /tmp/trial";
/// Our folder inside. Landlock gives no right to anything in it.
const INSIDE: &str = "/run/bailiwick";

/// Whether the operator has a container engine for agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ContainerUse {
    /// No: agents that ask for a container are refused.
    #[default]
    Off,
    /// This one.
    By(ContainerSettings),
}

/// The operator's container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSettings {
    /// The engine's API socket.
    pub socket: PathBuf,
    /// The image of all containers, by a name that the engine knows.
    pub image: String,
    /// The OCI runtime that must run them.
    pub runtime: RuntimeChoice,
    /// A folder of the server's own, for what each container needs of the host.
    pub folder: PathBuf,
}

/// Which OCI runtime runs the containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// The engine's own choice.
    #[default]
    Engines,
    /// This one, by the engine's name for it, or none.
    Named(String),
}

/// Why this host has no `container` backend.
#[derive(Debug, thiserror::Error)]
pub enum ContainersUnavailable {
    /// Whoever is not root can neither give a container another user nor look into it.
    #[error("containers need a server that is root")]
    NotRoot,
    /// The engine is not root's.
    #[error("the container engine runs without root, so its users are not the accounts'")]
    Rootless,
    /// The kernel has no Landlock, or it is switched off.
    #[error("the kernel does not enforce Landlock")]
    Landlock,
    /// There is no filter for this host.
    #[error("there are no system call filters for this host")]
    Filters(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine does not answer, or not as it should.
    #[error("the container engine")]
    Engine(#[from] EngineError),
    /// The engine would run something else than the operator wants.
    #[error("the engine runs containers by {is}, not by {asked}; Podman takes another runtime only in containers.conf")]
    Runtime {
        /// What was asked for.
        asked: String,
        /// What the engine has.
        is: String,
    },
    /// Our own program cannot be given to a container.
    #[error("the helper cannot be given to a container")]
    Helper(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server's folder for containers.
    #[error("the folder for containers cannot be used")]
    Folder(#[source] std::io::Error),
    /// A container for trial did not start.
    #[error("a container for trial did not start")]
    TrialStart(#[source] StartError),
    /// A container for trial did not run a command.
    #[error("a container for trial did not run a command")]
    TrialExec(#[source] ExecError),
    /// A command in a container for trial failed.
    #[error("a command in a container for trial ended with {0:?}")]
    TrialStatus(ExitStatus),
}

impl From<FilterError> for ContainersUnavailable {
    fn from(error: FilterError) -> Self {
        Self::Filters(error.into())
    }
}

impl From<LoaderError> for ContainersUnavailable {
    fn from(error: LoaderError) -> Self {
        Self::Helper(error.into())
    }
}

/// Starts containers. Cheap to clone.
#[derive(Clone)]
pub struct Containers {
    shared: Arc<Shared>,
    way_out: WayOut,
}

/// What all containers of a server have in common.
struct Shared {
    client: Client,
    /// The image's identity: a name could mean another one later.
    image: String,
    runtime: RuntimeChoice,
    folder: PathBuf,
    /// Marks the containers of this server among those of the engine.
    owner: String,
    loader: Loader,
    /// As the engine wants it.
    profile: String,
    filters: Vec<u8>,
    filter_count: u32,
    promises: Promises,
}

impl Containers {
    /// Finds out what the engine can do, removes what a predecessor of this server left there, and tries one
    /// container.
    ///
    /// # Errors
    /// [`ContainersUnavailable`], with the reason for which there are no containers.
    pub async fn detect(helper: &HelperPath, settings: &ContainerSettings) -> Result<Self, ContainersUnavailable> {
        if !rustix::process::geteuid().is_root() {
            return Err(ContainersUnavailable::NotRoot);
        }
        let landlock_abi =
            raw::landlock_abi().filter(|abi| *abi >= confine::LOWEST_ABI).ok_or(ContainersUnavailable::Landlock)?;
        let filters = syscalls::compile()?;
        let loader = Loader::of(helper).await?;
        let client = Client::connect(&settings.socket).await?;
        let about = client.about().await?;
        if about.rootless {
            return Err(ContainersUnavailable::Rootless);
        }
        if let RuntimeChoice::Named(asked) = &settings.runtime
            && client.kind() == Kind::Podman
            && *asked != about.runtime
        {
            return Err(ContainersUnavailable::Runtime { asked: asked.clone(), is: about.runtime });
        }
        let image = client.image(&settings.image).await?;
        let owner = room::prepare(&settings.folder).map_err(ContainersUnavailable::Folder)?;
        let removed = client.remove_all(&owner).await?;
        if removed > 0 {
            tracing::warn!(removed, "containers of a server that did not stop in good order were removed");
        }
        let profile = profile::profile()?.to_string();
        let profile = match client.kind() {
            Kind::Docker => profile,
            Kind::Podman => room::write_profile(&settings.folder, &profile).map_err(ContainersUnavailable::Folder)?,
        };
        let mut containers = Self {
            shared: Arc::new(Shared {
                promises: about.promises(landlock_abi),
                client,
                image,
                runtime: settings.runtime.clone(),
                folder: settings.folder.clone(),
                owner,
                loader,
                profile,
                filter_count: u32::try_from(filters.len()).unwrap_or(u32::MAX),
                filters: syscalls::encode(&filters),
            }),
            way_out: WayOut::Gate,
        };
        // What a way out needs is tried as well. A host that lacks it has containers without one.
        match containers.try_one(Network::Gate(None)).await {
            Ok(()) => {}
            Err(ContainersUnavailable::TrialStart(why)) => {
                containers.try_one(Network::Nothing).await?;
                tracing::warn!(%why, "containers on this host have no way out: what needs one is refused");
                containers.way_out = WayOut::Nothing;
            }
            Err(other) => return Err(other),
        }
        Ok(containers)
    }

    /// What is enforced, and by what.
    #[must_use]
    pub fn promises(&self) -> Promises {
        Promises { way_out: self.way_out, ..self.shared.promises }
    }

    /// The engine and its version.
    #[must_use]
    pub fn engine(&self) -> &str {
        self.shared.client.name()
    }

    /// Starts a container and checks it against the kernel's view of it.
    ///
    /// # Errors
    /// [`StartError`]; then nothing of the container is left running.
    pub async fn start(&self, spec: JailSpec) -> Result<Jail, StartError> {
        self.build(spec, Omitted::default()).await
    }

    /// Starts a container whose first process leaves out some walls, for tests. Release builds do not have this.
    ///
    /// # Errors
    /// [`StartError`], with the receipt's differences if they are to fail.
    #[cfg(debug_assertions)]
    pub async fn start_without(
        &self,
        spec: JailSpec,
        walls: &[Wall],
        difference: OnDifference,
    ) -> Result<Jail, StartError> {
        self.build(spec, Omitted::new(walls, difference)).await
    }

    async fn build(&self, spec: JailSpec, omitted: Omitted) -> Result<Jail, StartError> {
        let JailUser { uid, gid } = spec.user;
        if uid < JailUser::LOWEST || gid < JailUser::LOWEST {
            return Err(StartError::User(uid, gid));
        }
        let shared = &self.shared;
        let workspace = open_folder(&spec.workspace)?;
        // Opened to see that no link is in the way; the engine opens it by its path, and the receipt compares.
        let tmp = spec.shared_tmp.as_deref().map(open_folder).transpose()?;
        let room = Room::make(&shared.folder, &spec)?;
        let ceilings = rlimits::ceilings(&spec.limits, shared.promises.memory, shared.promises.pids);
        let recipe = recipe::recipe(shared, &spec, &room, &ceilings)?;
        // A task of its own: who stops waiting in the middle must not leave a container that nobody knows.
        let (client, name) = (shared.client.clone(), spec.name.clone());
        let making = tokio::spawn(async move {
            let id = client.create(name.as_str(), recipe).await?;
            Ok::<_, EngineError>(running::Made::new(client, id, room))
        });
        let made = making.await.map_err(|_| StartError::Protocol)??;
        let begun = tokio::time::timeout(START_TIMEOUT, async {
            shared.client.start(made.id()).await?;
            made.room().connected(spec.user).await.map_err(StartError::Local)
        });
        let (socket, process) = match begun.await {
            Ok(begun) => begun?,
            Err(_) => return Err(made.why_not().await),
        };
        let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty()).map_err(std::io::Error::from)?;
        let number = process.as_raw_nonzero().get();
        let inspected = shared.client.inspect(made.id()).await?;
        // Whoever else could reach the socket is not the container's first process.
        if inspected.process != Some(number) || !shared.is_by(&inspected.runtime) {
            return Err(StartError::Protocol);
        }
        let folders = [("workspace", Some(workspace)), ("tmp", tmp)];
        let container = Container::adopt(made, pidfd, number, folders)?;
        container.room().close();
        let listening = match spec.network {
            Network::Nothing => None,
            Network::Gate(_) => Some(lead_to_gate(number).await?),
        };
        let mut parts = Parts {
            socket,
            built: Built::ByEngine(Box::new(container)),
            declared: Declared {
                launcher: LauncherKind::Engine,
                name: spec.name.clone(),
                user: Some((uid, gid)),
                // The engine's own on top.
                filters: shared.filter_count + 1,
                landlock: shared.promises.landlock_abi,
                access: spec.access,
                gate: listening.as_ref().map(|listening| listening.namespace().unwrap_or_default()),
                groups: shared.declared_groups(&spec.limits),
                ceilings: ceilings.clone(),
                told: Told::default(),
                environment: inspected.environment,
                image: Some(shared.image.clone()),
                omitted: omitted.clone(),
            },
        };
        let setup = InitSetup {
            access: spec.access,
            programs: Programs::Images,
            landlock_abi: shared.promises.landlock_abi,
            rlimits: ceilings,
            environment: environment(&spec),
            omitted,
        };
        let ready = tokio::time::timeout(START_TIMEOUT, async {
            wire::send(rustix::fd::AsFd::as_fd(&parts.socket), &ToInit::Configure(setup), &shared.filters, &[])
                .map_err(|_| StartError::Protocol)?;
            let received = jail::receive(&parts.socket, &mut vec![0; PACKET_BYTES]).await;
            confined(received.map_err(|_| StartError::Ended("its first process closed the socket".to_owned()))?)
        });
        let (sender, told) = ready.await.map_err(|_| StartError::Timeout)??;
        if sender != number {
            return Err(StartError::Protocol);
        }
        parts.declared.told = told;
        jail::adopt(parts, number, listening).map_err(StartError::from)
    }

    /// One container, one command: what cannot work is found before it is needed.
    async fn try_one(&self, network: Network) -> Result<(), ContainersUnavailable> {
        let workspace = self.shared.folder.join(room::EMPTY);
        let name = room::fresh_name().map_err(|InvalidJailName| StartError::Protocol);
        let spec = JailSpec {
            name: name.map_err(ContainersUnavailable::TrialStart)?,
            workspace: workspace.canonicalize().map_err(ContainersUnavailable::Folder)?,
            access: WorkspaceAccess::ReadOnly,
            shared_tmp: None,
            user: TRIAL_USER,
            network,
            limits: Limits::default(),
        };
        let jail = self.start(spec).await.map_err(ContainersUnavailable::TrialStart)?;
        let exec = Exec { timeout: Duration::from_secs(10), ..Exec::shell(TRIAL) };
        let ran = jail.exec(exec, CancellationToken::new()).await;
        jail.stop().await;
        match ran.map_err(ContainersUnavailable::TrialExec)?.status {
            ExitStatus::Exited(0) => Ok(()),
            other => Err(ContainersUnavailable::TrialStatus(other)),
        }
    }
}

impl Shared {
    /// Whether this is the runtime that was asked for. Podman does not tell, and was asked for its only one.
    fn is_by(&self, runtime: &str) -> bool {
        match &self.runtime {
            RuntimeChoice::Named(asked) if self.client.kind() == Kind::Docker => asked == runtime,
            RuntimeChoice::Named(_) | RuntimeChoice::Engines => true,
        }
    }

    /// The limits that the kernel must show.
    fn declared_groups(&self, limits: &Limits) -> Vec<(&'static str, u64)> {
        let all = [
            ("memory", self.promises.memory, limits.memory_bytes),
            ("pids", self.promises.pids, u64::from(limits.pids)),
            ("cpu", self.promises.cpu, cgroup::cpu_millis(limits)),
        ];
        let counted = |by| matches!(by, Enforcement::CgroupV1 | Enforcement::CgroupV2);
        all.into_iter().filter(|(_, by, _)| counted(*by)).map(|(name, _, limit)| (name, limit)).collect()
    }
}

impl client::About {
    fn promises(&self, landlock_abi: i32) -> Promises {
        let by = |can: bool, without| if can { self.groups } else { without };
        Promises {
            launcher: LauncherKind::Engine,
            memory: by(self.memory, Enforcement::RlimitPerProcess),
            pids: by(self.pids, Enforcement::RlimitPerUser),
            cpu: by(self.cpu, Enforcement::Nothing),
            open_files: Enforcement::RlimitPerProcess,
            file_bytes: Enforcement::RlimitPerProcess,
            tmp_bytes: Enforcement::Mount,
            landlock_abi,
            way_out: WayOut::Gate,
            users: UserSeparation::OwnUser,
        }
    }
}

/// Binds the sockets that lead to the gate in a container's network namespace, on a thread that ends with it: a
/// thread in another namespace must not do anything else.
async fn lead_to_gate(process: i32) -> Result<Listening, StartError> {
    let (answer, bound) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("bw-listeners".to_owned()).spawn(move || {
        let _ = answer.send(listeners::open_in(process));
    })?;
    let bound = bound.await.map_err(|_| StartError::Protocol)?;
    bound.map_err(|error| StartError::Step {
        step: error.step.to_owned(),
        source: std::io::Error::from_raw_os_error(error.errno),
    })
}
