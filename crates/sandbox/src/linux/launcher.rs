//! The server's side of the launcher: finding out what this host can do, and
//! starting jails.
//!
//! A host that cannot enforce the whole jail is an error with a reason here,
//! before any command; nothing in this module weakens a jail to make it start.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailiwick_egress::Others;
use bailiwick_types::SandboxId;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::thread::CapabilitySet;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::cgroup::Layout;
use super::environment::environment;
use super::jail::{self, Built, ExecError, Jail, Parts};
use super::listeners::Listening;
use super::omit::Omitted;
#[cfg(debug_assertions)]
use super::omit::{OnDifference, Wall};
use super::receipt::{self, Declared, Receipt, ReceiptError, Told, WayOut};
use super::spec::{
    Enforcement, Exec, ExitStatus, InvalidJailName, JailName, JailSpec, JailUser, LauncherKind, Limits, Network,
    Programs, Promises, UserSeparation, WorkspaceAccess,
};
use super::wire::{
    self, FromJail, InitSetup, LauncherSetup, Method, PACKET_BYTES, Received, StartRequest, TmpSource, ToInit,
    ToLauncher, WireError,
};
use super::{LAUNCHER_ROLE, PATH, confine, raw, rlimits, syscalls};
use crate::container::EngineError;

/// How long a jail may take to start.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Which executable plays the launcher's and the first process's roles.
#[derive(Debug, Clone)]
pub enum HelperPath {
    /// This process's own; its `main` begins with `helper::dispatch`.
    CurrentExecutable,
    /// Another one whose `main` does.
    At(PathBuf),
}

/// Whether control groups are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupUse {
    /// Where this process may make them.
    WherePossible,
    /// Not at all; limits are resource limits.
    Never,
}

/// Why this host has no `linux` backend.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Root in a container, most likely.
    #[error("the server is root but lacks these capabilities: {0}")]
    RootWithoutCapabilities(String),
    /// No rights and no helper for that.
    #[error("the server is not root and there is no bubblewrap (bwrap) in {PATH}")]
    BubblewrapMissing,
    /// Another user could change the program that we would run.
    #[error("bubblewrap at {0} can be changed by others than root")]
    BubblewrapNotTrusted(PathBuf),
    /// The kernel has no Landlock, or it is switched off.
    #[error("the kernel does not enforce Landlock")]
    Landlock,
    /// There is no filter for this host.
    #[error("there are no system call filters for this host")]
    Filters(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The launcher did not start.
    #[error("the launcher did not start")]
    Launcher(#[source] std::io::Error),
    /// A jail for trial did not start.
    #[error("a jail for trial did not start")]
    TrialStart(#[source] StartError),
    /// A jail for trial did not run a command.
    #[error("a jail for trial did not run a command")]
    TrialExec(#[source] ExecError),
    /// A command in a jail for trial failed.
    #[error("a command in a jail for trial ended with {0:?}")]
    TrialStatus(ExitStatus),
}

/// Why a jail did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The workspace or the shared folder is not an absolute path to a folder
    /// without symbolic links.
    #[error("the folder {0} cannot be opened safely")]
    Folder(PathBuf, #[source] std::io::Error),
    /// The user is none that a jail may have.
    #[error("a jail may not run as user {0} and group {1}")]
    User(u32, u32),
    /// The launcher is gone.
    #[error("the launcher is gone")]
    LauncherGone,
    /// The container engine did not do as it was asked.
    #[error("the container engine refused")]
    Engine(#[from] EngineError),
    /// The kernel refused a step.
    #[error("could not {step}")]
    Step {
        /// What was tried.
        step: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The jail ended before it was ready.
    #[error("the jail ended before it was ready: {0}")]
    Ended(String),
    /// The jail took too long.
    #[error("the jail was not ready in {} seconds", START_TIMEOUT.as_secs())]
    Timeout,
    /// The kernel shows another jail than the one declared.
    #[error("the jail is not what was declared")]
    Receipt(#[from] ReceiptError),
    /// The server lacks descriptors or memory.
    #[error("the server could not prepare the start")]
    Local(#[from] std::io::Error),
    /// A bug or a hostile jail.
    #[error("the jail does not speak the protocol")]
    Protocol,
}

/// Starts jails. Cheap to clone; the launcher process ends with the last clone
/// and the last jail.
#[derive(Clone)]
pub struct Launcher {
    shared: Arc<Shared>,
    way_out: WayOut,
}

/// What the launcher's handle and its jails share.
pub(crate) struct Shared {
    socket: AsyncFd<OwnedFd>,
    #[cfg_attr(not(debug_assertions), expect(dead_code, reason = "held, and asked for by tests"))]
    process: tokio::process::Child,
    promises: Promises,
    cgroups: Layout,
    filters: Vec<u8>,
    filter_count: u32,
    next_jail: AtomicU64,
    ready: Mutex<Stock>,
}

/// Names under which the launcher keeps processes ready.
#[derive(Default)]
struct Stock {
    names: VecDeque<JailName>,
    wanted: usize,
}

impl Shared {
    /// Asks the launcher to kill a jail; a launcher that is gone has done so.
    pub(crate) fn kill(&self, jail: u64) {
        let message = ToLauncher::Kill { jail };
        let _ = wire::send(self.socket.as_fd(), &message, &[], &[]);
    }

    pub(crate) fn receipt(&self, process: i32, declared: &Declared) -> Result<Receipt, ReceiptError> {
        receipt::read(process, &|membership| self.cgroups.observe(&declared.name, membership), declared)
    }

    pub(crate) fn memory_kills(&self, name: &JailName) -> Option<u64> {
        self.cgroups.memory_kills(name)
    }
}

impl Launcher {
    /// Finds out how this host can build jails, starts the launcher and tries
    /// one jail.
    ///
    /// # Errors
    /// [`Unavailable`], with the reason for which no jail can be built.
    pub async fn detect(helper: HelperPath, cgroups: CgroupUse) -> Result<Self, Unavailable> {
        let landlock_abi =
            raw::landlock_abi().filter(|abi| *abi >= confine::LOWEST_ABI).ok_or(Unavailable::Landlock)?;
        let filters = syscalls::compile().map_err(|error| Unavailable::Filters(error.into()))?;
        let (kind, method) = method(&helper)?;
        let cgroups = match cgroups {
            CgroupUse::WherePossible => Layout::detect(),
            CgroupUse::Never => Layout::default(),
        };
        let promises = promises(kind, &cgroups, landlock_abi);
        let (socket, process) = spawn(&helper, LAUNCHER_ROLE, None).map_err(Unavailable::Launcher)?;
        let setup = LauncherSetup { method, cgroups: cgroups.clone() };
        wire::send(socket.as_fd(), &ToLauncher::Configure(setup), &[], &[])
            .map_err(|_| Unavailable::Launcher(std::io::ErrorKind::BrokenPipe.into()))?;
        let mut launcher = Self {
            shared: Arc::new(Shared {
                socket,
                process,
                promises,
                cgroups,
                filter_count: u32::try_from(filters.len()).unwrap_or(u32::MAX),
                filters: syscalls::encode(&filters),
                next_jail: AtomicU64::new(1),
                ready: Mutex::default(),
            }),
            way_out: WayOut::Gate,
        };
        // What a way out needs of the kernel is tried as well. A host that lacks it has jails without one.
        match launcher.try_one(Network::Gate(None)).await {
            Ok(()) => {}
            Err(Unavailable::TrialStart(why)) => {
                launcher.try_one(Network::Nothing).await?;
                tracing::warn!(%why, "jails on this host have no way out: what needs one is refused");
                launcher.way_out = WayOut::Nothing;
            }
            Err(other) => return Err(other),
        }
        Ok(launcher)
    }

    /// What is enforced on this host, and by what.
    #[must_use]
    pub fn promises(&self) -> Promises {
        Promises { way_out: self.way_out, ..self.shared.promises }
    }

    /// Has the launcher keep so many processes ready, each in namespaces and control groups of its own, for jails that
    /// are asked for later: what takes longest is done then. They have nothing of anybody. By bubblewrap there is
    /// none.
    pub fn keep_ready(&self, count: usize) {
        if self.shared.promises.launcher == LauncherKind::Native {
            self.stock().wanted = count;
            self.restock();
        }
    }

    /// The launcher's process, for tests. Release builds do not have this.
    #[cfg(debug_assertions)]
    pub fn process(&self) -> Option<u32> {
        self.shared.process.id()
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what was used up.
    fn restock(&self) {
        let mut stock = self.stock();
        while stock.names.len() < stock.wanted {
            // One that nobody had before, whoever was killed and left groups behind.
            let Ok(name) = JailName::parse(&SandboxId::new().to_string().to_lowercase()) else { return };
            // A launcher that is gone or busy is no matter here: a jail is then built when it is asked for.
            if wire::send(self.shared.socket.as_fd(), &ToLauncher::Prepare(name.clone()), &[], &[]).is_err() {
                return;
            }
            stock.names.push_back(name);
        }
    }

    /// Starts a jail and checks it against the kernel's view of it.
    ///
    /// # Errors
    /// [`StartError`]; then nothing of the jail is left running.
    pub async fn start(&self, spec: JailSpec) -> Result<Jail, StartError> {
        self.build(spec, Omitted::default()).await
    }

    /// Starts a jail that lacks some walls, for tests. Release builds do not
    /// have this.
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

    async fn build(&self, mut spec: JailSpec, omitted: Omitted) -> Result<Jail, StartError> {
        if omitted.is_nothing()
            && let Some(ready) = self.stock().names.pop_front()
        {
            spec.name = ready;
        }
        let started = self.build_as_named(spec, omitted).await;
        // Not before, so that it does not stand in the way of this one.
        self.restock();
        started
    }

    async fn build_as_named(&self, spec: JailSpec, omitted: Omitted) -> Result<Jail, StartError> {
        if spec.user.uid < JailUser::LOWEST || spec.user.gid < JailUser::LOWEST {
            return Err(StartError::User(spec.user.uid, spec.user.gid));
        }
        let shared = &self.shared;
        let workspace = open_folder(&spec.workspace)?;
        let tmp = spec.shared_tmp.as_deref().map(open_folder).transpose()?;
        let (ours, theirs) = wire::socket_pair().map_err(std::io::Error::from)?;
        // The kernel then says who sent what.
        rustix::net::sockopt::set_socket_passcred(&ours, true).map_err(std::io::Error::from)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(std::io::Error::from)?;
        let promises = &shared.promises;
        let ceilings = rlimits::ceilings(&spec.limits, promises.memory, promises.pids);
        let setup = InitSetup {
            access: spec.access,
            programs: Programs::Hosts,
            landlock_abi: promises.landlock_abi,
            rlimits: ceilings.clone(),
            environment: environment(&spec),
            omitted: omitted.clone(),
        };
        wire::send(ours.as_fd(), &ToInit::Configure(setup), &shared.filters, &[]).map_err(|_| StartError::Protocol)?;
        let number = shared.next_jail.fetch_add(1, Ordering::Relaxed);
        let (errors, errors_end) = pipe_pair()?;
        let request = request(&spec, number, omitted.clone());
        let mut fds = vec![theirs.as_fd(), errors_end.as_fd()];
        if promises.launcher == LauncherKind::Native {
            fds.push(workspace.as_fd());
            fds.extend(tmp.as_ref().map(AsFd::as_fd));
        }
        self.ask(&ToLauncher::Start(request), &fds).await?;
        drop((theirs, errors_end, workspace, tmp));

        // From here on a failure must not leave a jail behind.
        let mut parts = Parts {
            socket: raw::watch(ours)?,
            built: Built::ByLauncher { launcher: Arc::clone(shared), number },
            declared: Declared {
                launcher: promises.launcher,
                name: spec.name,
                user: match promises.users {
                    UserSeparation::OwnUser => Some((spec.user.uid, spec.user.gid)),
                    UserSeparation::ServersUser => None,
                },
                filters: shared.filter_count,
                landlock: promises.landlock_abi,
                access: spec.access,
                gate: None,
                ceilings,
                groups: shared.cgroups.declare(&spec.limits),
                told: Told::default(),
                environment: Vec::new(),
                image: None,
                omitted,
            },
        };
        let ready = tokio::time::timeout(START_TIMEOUT, ready(&mut parts, errors)).await;
        let outcome = match ready {
            // Sockets that nobody asked for, or none where they are needed, are another protocol.
            Ok(Ok((_, listening))) if listening.is_some() != (spec.network != Network::Nothing) => {
                Err(StartError::Protocol)
            }
            Ok(Ok((process, listening))) => {
                let gate = listening.as_ref().map(|listening| listening.namespace().unwrap_or_default());
                parts.declared.gate = gate;
                jail::adopt(parts, process, listening).map_err(StartError::from)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Timeout),
        };
        outcome.inspect_err(|_| shared.kill(number))
    }

    async fn ask(&self, message: &ToLauncher, fds: &[BorrowedFd<'_>]) -> Result<(), StartError> {
        loop {
            let mut guard = self.shared.socket.writable().await?;
            match wire::send(self.shared.socket.as_fd(), message, &[], fds) {
                Ok(()) => return Ok(()),
                Err(WireError::Socket(rustix::io::Errno::AGAIN)) => guard.clear_ready(),
                Err(_) => return Err(StartError::LauncherGone),
            }
        }
    }

    /// One jail, one command: what cannot work is found before it is needed.
    async fn try_one(&self, network: Network) -> Result<(), Unavailable> {
        static TRIALS: AtomicU64 = AtomicU64::new(0);
        let trial = TRIALS.fetch_add(1, Ordering::Relaxed);
        let name = format!("trial-{}-{trial}", std::process::id());
        let jail = self
            .start(JailSpec {
                name: JailName::parse(&name)
                    .map_err(|InvalidJailName| Unavailable::TrialStart(StartError::Protocol))?,
                workspace: PathBuf::from("/usr"),
                access: WorkspaceAccess::ReadOnly,
                shared_tmp: None,
                user: TRIAL_USER,
                network,
                limits: Limits::default(),
            })
            .await
            .map_err(Unavailable::TrialStart)?;
        let exec = Exec { timeout: Duration::from_secs(10), ..Exec::shell("exit 0") };
        let ran = jail.exec(exec, CancellationToken::new()).await;
        jail.stop().await;
        match ran.map_err(Unavailable::TrialExec)?.status {
            ExitStatus::Exited(0) => Ok(()),
            other => Err(Unavailable::TrialStatus(other)),
        }
    }
}

/// The user of the jail for trial, which touches no file.
pub(crate) const TRIAL_USER: JailUser = JailUser { uid: 65_533, gid: 65_533 };

/// Waits for the first process's report; its number on the host.
async fn ready(parts: &mut Parts, mut errors: pipe::Receiver) -> Result<(i32, Option<Listening>), StartError> {
    let mut buffer = vec![0; PACKET_BYTES];
    let mut listening = None;
    let mut received = jail::receive(&parts.socket, &mut buffer).await;
    if let Ok(Received { message: FromJail::Listening, fds, .. }) = &mut received {
        listening = Some(Listening::received(std::mem::take(fds)).ok_or(StartError::Protocol)?);
        received = jail::receive(&parts.socket, &mut buffer).await;
    }
    match received {
        Ok(received) => {
            let (process, told) = confined(received)?;
            parts.declared.told = told;
            Ok((process, listening))
        }
        Err(WireError::Closed) => {
            let mut text = vec![0; 1024];
            let length = errors.read(&mut text).await.unwrap_or(0);
            text.truncate(length);
            Err(StartError::Ended(String::from_utf8_lossy(&text).trim().to_owned()))
        }
        Err(_) => Err(StartError::Protocol),
    }
}

/// What a first process says once it is confined, and its number on the host.
pub(crate) fn confined(received: Received<FromJail>) -> Result<(i32, Told), StartError> {
    match received.message {
        FromJail::Ready { told } => Ok((received.sender.ok_or(StartError::Protocol)?, told)),
        FromJail::SetupFailed { step, errno } => {
            Err(StartError::Step { step, source: std::io::Error::from_raw_os_error(errno) })
        }
        _ => Err(StartError::Protocol),
    }
}

fn method(helper: &HelperPath) -> Result<(LauncherKind, Method), Unavailable> {
    if rustix::process::geteuid().is_root() {
        let have = rustix::thread::capabilities(None).map_err(|errno| Unavailable::Launcher(errno.into()))?.effective;
        let need = CapabilitySet::SYS_ADMIN
            | CapabilitySet::SETUID
            | CapabilitySet::SETGID
            | CapabilitySet::SETPCAP
            | CapabilitySet::NET_ADMIN
            | CapabilitySet::CHOWN
            | CapabilitySet::KILL;
        let missing = need - have;
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter_names().map(|(name, _)| name).collect();
            return Err(Unavailable::RootWithoutCapabilities(names.join(", ")));
        }
        return Ok((LauncherKind::Native, Method::Native));
    }
    let program = PATH
        .split(':')
        .map(|folder| Path::new(folder).join("bwrap"))
        .find(|path| path.is_file())
        .ok_or(Unavailable::BubblewrapMissing)?;
    let program = program.canonicalize().map_err(Unavailable::Launcher)?;
    let about = program.metadata().map_err(Unavailable::Launcher)?;
    if about.uid() != 0 || about.mode() & 0o022 != 0 {
        return Err(Unavailable::BubblewrapNotTrusted(program));
    }
    let init = match helper {
        HelperPath::CurrentExecutable => std::env::current_exe().map_err(Unavailable::Launcher)?,
        HelperPath::At(path) => path.canonicalize().map_err(Unavailable::Launcher)?,
    };
    let method = Method::Bubblewrap {
        program: program.to_string_lossy().into_owned(),
        init: init.to_string_lossy().into_owned(),
    };
    Ok((LauncherKind::Bubblewrap, method))
}

fn promises(launcher: LauncherKind, cgroups: &Layout, landlock_abi: i32) -> Promises {
    let by = |place: &Option<super::cgroup::Place>, without| {
        place.as_ref().map_or(without, super::cgroup::Place::enforcement)
    };
    Promises {
        launcher,
        memory: by(&cgroups.memory, Enforcement::RlimitPerProcess),
        pids: by(&cgroups.pids, Enforcement::RlimitPerUser),
        cpu: by(&cgroups.cpu, Enforcement::Nothing),
        open_files: Enforcement::RlimitPerProcess,
        file_bytes: Enforcement::RlimitPerProcess,
        tmp_bytes: Enforcement::Mount,
        landlock_abi,
        way_out: WayOut::Gate,
        users: match launcher {
            LauncherKind::Native | LauncherKind::Engine => UserSeparation::OwnUser,
            LauncherKind::Bubblewrap => UserSeparation::ServersUser,
        },
    }
}

/// Starts this program in a role, with a socket to it. `left_in`: what a test leaves in its environment.
pub(crate) fn spawn(
    helper: &HelperPath,
    role: &str,
    left_in: Option<(&str, &str)>,
) -> std::io::Result<(AsyncFd<OwnedFd>, tokio::process::Child)> {
    let (ours, theirs) = wire::socket_pair()?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let program = match helper {
        HelperPath::CurrentExecutable => Path::new("/proc/self/exe"),
        HelperPath::At(path) => path,
    };
    let process = tokio::process::Command::new(program)
        .arg0(role)
        .env_clear()
        .envs(left_in)
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok((raw::watch(ours)?, process))
}

fn request(spec: &JailSpec, jail: u64, omitted: Omitted) -> StartRequest {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    StartRequest {
        jail,
        name: spec.name.clone(),
        uid: spec.user.uid,
        gid: spec.user.gid,
        access: spec.access,
        tmp: if spec.shared_tmp.is_some() { TmpSource::Shared } else { TmpSource::Private },
        limits: spec.limits,
        workspace_path: path(&spec.workspace),
        tmp_path: spec.shared_tmp.as_deref().map(path).unwrap_or_default(),
        network: as_sent(&spec.network),
        omitted,
    }
}

/// What a jail's programs may reach, for whoever builds it.
pub(crate) fn as_sent(network: &Network) -> wire::Network {
    match network {
        Network::Nothing => wire::Network::Nothing,
        Network::Gate(trust) => wire::Network::Gate(trust.as_ref().map(|trust| wire::Believed {
            certificate: trust.certificate.clone(),
            hosts: trust.others == Others::Reachable,
        })),
    }
}

/// Opens a folder whose path goes over no symbolic link.
pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd, StartError> {
    let refuse = |error: std::io::Error| StartError::Folder(path.to_owned(), error);
    if !path.is_absolute() || path.to_str().is_none() {
        return Err(refuse(std::io::ErrorKind::InvalidInput.into()));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), how).map_err(|errno| refuse(errno.into()))
}

/// A pipe whose reading end is for this runtime.
pub(crate) fn pipe_pair() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}
