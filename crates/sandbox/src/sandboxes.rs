//! The sandboxes of the server: which backend fits a demand, and which sandboxes are running.
//!
//! A demand is compared with what a backend can promise before anything runs. What fits no backend is
//! an error that says why; nothing is ever weakened to fit. Entering a sandbox takes the record of
//! that act, and running a command in it the record of the tool call:
//!
//! ```compile_fail,E0061
//! // Entering without a record.
//! async fn misuse(sandboxes: &bailiwick_sandbox::Sandboxes, demand: bailiwick_sandbox::Demand) {
//!     let _ = sandboxes.enter(demand).await;
//! }
//! ```
//!
//! ```compile_fail,E0308
//! // Running a command with a permit that is not on record yet.
//! use bailiwick_auth::{Permit, access::verb::CallTool};
//! async fn misuse(inside: &bailiwick_sandbox::Running, call: Permit<CallTool>, run: bailiwick_sandbox::Run) {
//!     let _ = inside.run(&call, run).await;
//! }
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_auth::access::verb::{CallTool, EndSandbox, SeeSandbox, StartSandbox};
use bailiwick_auth::access::{Resource as _, Sandbox, Session};
use bailiwick_auth::{Permit, Recorded, Scope};
use bailiwick_egress::fetch::{Fetch, Fetched};
use bailiwick_files::Access;
use bailiwick_shell::{Isolation, Mount, PoolLimits, SharedTmp, Shell, ShellLimits, ShellPool, ShellSpec};
use bailiwick_types::agent::BackendChoice;
use bailiwick_types::{AgentName, Egress, Incarnation, SandboxId, SessionId, SpaceId};
use tokio::sync::OnceCell;

use crate::container::{ContainerUse, Containers};
use crate::demand::{Backend, CpuDemand, Demand, HostUse, Inside, Share};
use crate::error::SandboxError;
use crate::gate::{self, Caller, GateSettings, Gates, Keeper};
use crate::linux::{
    CgroupUse, Enforcement, HelperPath, Jail, JailName, JailSpec, JailUser, Launcher, Limits, Network, Promises,
    StartError, WayOut, WorkspaceAccess,
};
#[cfg(debug_assertions)]
use crate::linux::{OnDifference, Wall};
use crate::running::{Running, Seen, Walls};
use crate::workers::Workers;

/// What the server brings along.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which executable plays the helper roles.
    pub helper: HelperPath,
    /// Whether control groups are used.
    pub cgroups: CgroupUse,
    /// How many linux sandboxes are made ready in advance, of nobody yet.
    pub ready: usize,
    /// Whether tools may run on the host.
    pub host: HostUse,
    /// A folder of the server's own for what virtual shells share as `/tmp`.
    pub tmp: PathBuf,
    /// What the operator says of the way out.
    pub gate: GateSettings,
    /// The operator's container engine, if agents may use one.
    pub container: ContainerUse,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: Incarnation,
    share: Share,
    space: SpaceId,
    writable: Writable,
    backend: Backend,
    /// Agents that share a sandbox but not its limits share only `/tmp`.
    limits: [u64; 6],
    /// Nor, where something may leave it, do two agents: what one was granted is not the other's.
    agent: Option<AgentName>,
    /// Nor what may leave it. A definition whose rules change has another sandbox from then on.
    egress: String,
}

impl Key {
    /// Whether it is the same sandbox but for its egress rules.
    fn is_as(&self, other: &Self) -> bool {
        let Self { tenant, share, space, writable, backend, limits, agent, egress: _ } = other;
        (&self.tenant, &self.share, &self.space, &self.writable, &self.backend, &self.limits, &self.agent)
            == (tenant, share, space, writable, backend, limits, agent)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Writable {
    Yes,
    No,
}

/// The sandboxes of the server.
pub struct Sandboxes {
    settings: Settings,
    /// Tried at first use, and again if the launcher's process has died.
    launcher: tokio::sync::Mutex<Option<(Instant, Result<Launcher, String>)>>,
    /// Likewise.
    containers: tokio::sync::Mutex<Option<(Instant, Result<Containers, String>)>>,
    gates: Gates,
    pool: ShellPool,
    running: Mutex<HashMap<Key, Arc<OnceCell<Arc<Running>>>>>,
    tmps: Mutex<HashMap<(Incarnation, Share), SharedTmp>>,
    #[cfg(debug_assertions)]
    left_out: Mutex<Vec<Wall>>,
}

/// How long a failed trial of the linux backend is believed.
const TRY_AGAIN: Duration = Duration::from_secs(60);

impl Sandboxes {
    /// No sandbox is running yet; nothing is started before it is needed.
    pub fn new(settings: Settings, keeper: Arc<dyn Keeper>) -> Self {
        let gates = Gates::new(settings.helper.clone(), settings.gate.clone(), keeper);
        let workers = Arc::new(Workers::new(settings.helper.clone()));
        let pool = ShellPool::new(PoolLimits::default(), Isolation::Process(workers));
        Self {
            settings,
            launcher: tokio::sync::Mutex::default(),
            containers: tokio::sync::Mutex::default(),
            gates,
            pool,
            running: Mutex::default(),
            tmps: Mutex::default(),
            #[cfg(debug_assertions)]
            left_out: Mutex::default(),
        }
    }

    /// What the linux backend promises on this host, or why there is none. Tried once.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub async fn linux(&self) -> Result<Promises, String> {
        self.launcher().await.map(|launcher| launcher.promises())
    }

    async fn launcher(&self) -> Result<Launcher, String> {
        let mut held = self.launcher.lock().await;
        match &*held {
            Some((_, Ok(launcher))) => return Ok(launcher.clone()),
            Some((at, Err(why))) if at.elapsed() < TRY_AGAIN => return Err(why.clone()),
            _ => {}
        }
        let found = Launcher::detect(self.settings.helper.clone(), self.settings.cgroups).await;
        let found = found.map_err(|error| reasons(&error));
        if let Ok(launcher) = &found {
            launcher.keep_ready(self.settings.ready);
        }
        if let Err(why) = &found {
            tracing::warn!(why, "there is no linux sandbox on this host; `auto` is the virtual one");
        }
        held.insert((Instant::now(), found)).1.clone()
    }

    /// What the container backend promises, and by which engine, or why there is none. Tried once.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn container(&self) -> Result<(Promises, String), SandboxError> {
        self.containers().await.map(|containers| (containers.promises(), containers.engine().to_owned()))
    }

    async fn containers(&self) -> Result<Containers, SandboxError> {
        let ContainerUse::By(settings) = &self.settings.container else {
            return Err(SandboxError::NoBackend("container"));
        };
        let mut held = self.containers.lock().await;
        match &*held {
            Some((_, Ok(containers))) => return Ok(containers.clone()),
            Some((at, Err(why))) if at.elapsed() < TRY_AGAIN => {
                return Err(SandboxError::ContainersUnavailable(why.clone()));
            }
            _ => {}
        }
        let found = Containers::detect(&self.settings.helper, settings).await;
        let found = found.map_err(|error| reasons(&error));
        if let Err(why) = &found {
            tracing::warn!(why, "there is no container sandbox on this host; agents that ask for one are refused");
        }
        held.insert((Instant::now(), found)).1.clone().map_err(SandboxError::ContainersUnavailable)
    }

    /// Which backend fits. `auto` is the strongest that this host has.
    ///
    /// # Errors
    /// Why none fits.
    pub async fn choose(&self, demand: &Demand) -> Result<Backend, SandboxError> {
        let choice = match demand.inside {
            Inside::Host => BackendChoice::Host,
            Inside::Sandbox(choice) => choice,
        };
        if choice == BackendChoice::Host {
            return match self.settings.host {
                HostUse::Allowed => Ok(Backend::Host),
                HostUse::Refused => Err(SandboxError::HostRefused),
            };
        }
        let goes_out = !demand.egress.denies_all();
        match choice {
            BackendChoice::Virtual if goes_out => Err(SandboxError::NoWayOut("virtual")),
            BackendChoice::Virtual => Ok(Backend::Virtual),
            // Never by `auto`: it runs what is in an image, and the operator's agents choose that knowingly.
            BackendChoice::Container => {
                let (promises, _) = self.container().await?;
                fits("container", &promises, demand.cpu, &demand.egress)?;
                Ok(Backend::Container)
            }
            // Only this one has a way out, so an agent that has rules for one gets no other.
            BackendChoice::Linux | BackendChoice::Auto | BackendChoice::Host
                if choice == BackendChoice::Linux || goes_out =>
            {
                let promises = self.linux().await.map_err(SandboxError::LinuxUnavailable)?;
                fits("linux", &promises, demand.cpu, &demand.egress)?;
                Ok(Backend::Linux)
            }
            BackendChoice::Linux | BackendChoice::Auto | BackendChoice::Host => match self.linux().await {
                Ok(promises) if fits("linux", &promises, demand.cpu, &demand.egress).is_ok() => Ok(Backend::Linux),
                _ => Ok(Backend::Virtual),
            },
        }
    }

    /// Enters the sandbox of a session, and starts it if it is not running.
    ///
    /// # Errors
    /// If no backend fits, or the sandbox does not start.
    pub async fn enter(
        &self,
        act: &Recorded<StartSandbox>,
        demand: Demand,
    ) -> Result<(Arc<Running>, Backend), SandboxError> {
        let backend = self.choose(&demand).await?;
        let key = Key {
            tenant: demand.tenant,
            share: demand.share.clone(),
            space: demand.space,
            writable: match demand.files.access() {
                Access::ReadWrite => Writable::Yes,
                Access::ReadOnly => Writable::No,
            },
            backend,
            limits: limits_key(&demand.limits),
            agent: (!demand.egress.denies_all()).then(|| act.resource().agent().clone()),
            egress: serde_json::to_string(&demand.egress).unwrap_or_default(),
        };
        let caller = || Caller { scope: act.scope().clone(), session: act.resource().clone() };
        // Rules that have changed hold at once, also for what the old ones let begin.
        self.end(|other| other.egress != key.egress && other.is_as(&key));
        loop {
            let cell = Arc::clone(lock(&self.running).entry(key.clone()).or_default());
            let running = cell.get_or_try_init(|| self.start(backend, &demand, caller())).await?;
            if running.is_alive() {
                running.entered_by(caller);
                return Ok((Arc::clone(running), backend));
            }
            // It died, most likely of its own program's doing; the next one begins anew.
            let mut all = lock(&self.running);
            if all.get(&key).is_some_and(|held| Arc::ptr_eq(held, &cell)) {
                all.remove(&key);
            }
        }
    }

    /// Fetches a document for a recorded call, by the gate and under the agent's rules: as a program in a sandbox of
    /// its would, but with no sandbox.
    ///
    /// # Errors
    /// [`SandboxError::Fetch`] with the reason, or that there is no gate.
    pub async fn fetch(
        &self,
        act: &Recorded<CallTool>,
        egress: &Egress,
        fetch: &Fetch,
    ) -> Result<Fetched, SandboxError> {
        let caller = Caller { scope: act.scope().clone(), session: act.resource().session().clone() };
        self.gates.fetch(egress, (caller, act.during()), fetch).await
    }

    async fn start(&self, backend: Backend, demand: &Demand, caller: Caller) -> Result<Arc<Running>, SandboxError> {
        let session = caller.session.clone();
        let walls = match backend {
            Backend::Virtual => Walls::Virtual(self.shell(demand)?),
            Backend::Linux | Backend::Container => {
                let way = if demand.egress.denies_all() {
                    None
                } else {
                    Some(self.gates.open(&demand.egress, caller).await.map_err(SandboxError::Gate)?)
                };
                let network =
                    way.as_ref().map_or(Network::Nothing, |way: &gate::WayOut| Network::Gate(way.trust.clone()));
                let started = if backend == Backend::Container {
                    self.containers().await?.start(jail_spec(demand, network)?).await
                } else {
                    self.start_jail(demand, network).await?
                };
                let jail = started.map_err(SandboxError::Start)?;
                if let Some((way, listening)) = way.as_ref().zip(jail.listening()) {
                    way.attach(listening).await.map_err(SandboxError::Gate)?;
                }
                Walls::Jail { jail, way }
            }
            Backend::Host => Walls::Host { folder: demand.folder.clone(), user: demand.user },
        };
        Ok(Arc::new(Running::new(walls, session)))
    }

    #[cfg(not(debug_assertions))]
    async fn jail(&self, launcher: &Launcher, spec: JailSpec) -> Result<Jail, StartError> {
        launcher.start(spec).await
    }

    #[cfg(debug_assertions)]
    async fn jail(&self, launcher: &Launcher, spec: JailSpec) -> Result<Jail, StartError> {
        let walls = lock(&self.left_out).clone();
        if walls.is_empty() {
            return launcher.start(spec).await;
        }
        launcher.start_without(spec, &walls, OnDifference::Tolerate).await
    }

    /// Leaves walls out of the linux sandboxes that start from now on, so that tests can show what finds it. Release
    /// builds do not have this.
    #[cfg(debug_assertions)]
    pub fn leave_out(&self, walls: &[Wall]) {
        *lock(&self.left_out) = walls.to_vec();
    }

    /// A jail of the launcher's, which is started anew if it is gone.
    async fn start_jail(&self, demand: &Demand, network: Network) -> Result<Result<Jail, StartError>, SandboxError> {
        let launcher = self.launcher().await.map_err(SandboxError::LinuxUnavailable)?;
        match self.jail(&launcher, jail_spec(demand, network.clone())?).await {
            Err(StartError::LauncherGone) => {
                *self.launcher.lock().await = None;
                let launcher = self.launcher().await.map_err(SandboxError::LinuxUnavailable)?;
                Ok(self.jail(&launcher, jail_spec(demand, network)?).await)
            }
            started => Ok(started),
        }
    }

    fn shell(&self, demand: &Demand) -> Result<Shell, SandboxError> {
        let tmp = {
            let mut tmps = lock(&self.tmps);
            let key = (demand.tenant, demand.share.clone());
            match tmps.get(&key) {
                Some(tmp) => tmp.clone(),
                None => {
                    let made = SharedTmp::new(&self.settings.tmp, demand.limits.tmp_bytes, demand.files.owner());
                    let tmp = made.map_err(SandboxError::Shell)?;
                    tmps.insert(key, tmp.clone());
                    tmp
                }
            }
        };
        let defaults = ShellLimits::default();
        let memory = usize::try_from(demand.limits.memory_bytes).unwrap_or(usize::MAX);
        let limits = ShellLimits {
            memory_bytes: defaults.memory_bytes.min(memory),
            file_bytes: defaults.file_bytes.min(demand.limits.file_bytes),
            ..defaults
        };
        let workspace = Mount::Files(demand.files.clone());
        Ok(Shell::new(ShellSpec { workspace, tmp, pool: self.pool.clone(), limits }))
    }

    /// Stops what has not been used for so long. Called now and then by the server.
    pub fn reap(&self, idle: Duration) {
        let mut stopped = Vec::new();
        {
            let mut running = lock(&self.running);
            running.retain(|_, cell| match cell.get() {
                // More holders than this map and the cell: somebody is in it.
                Some(held) if Arc::strong_count(held) == 1 && held.unused_for() >= idle => {
                    stopped.push(Arc::clone(held));
                    false
                }
                // One whose start failed, and that nobody is trying to start.
                None => Arc::strong_count(cell) > 1,
                Some(_) => true,
            });
            let alive: Vec<_> = running.keys().map(|key| (key.tenant, key.share.clone())).collect();
            lock(&self.tmps).retain(|key, _| alive.contains(key));
        }
        // Dropping a jail kills it; outside of the lock, for that takes system calls.
        drop(stopped);
    }

    /// Stops the sandboxes of an ended session.
    pub fn end_session(&self, session: SessionId) {
        let share = Share::Session(session);
        self.end(|key| key.share == share);
        lock(&self.tmps).retain(|(_, other), _| *other != share);
    }

    /// Stops the sandboxes that hold a space's files; the space is being deleted.
    pub fn end_space(&self, space: SpaceId) {
        self.end(|key| key.space == space);
    }

    /// Stops all sandboxes of a tenant; the account is being deleted.
    pub fn end_tenant(&self, tenant: Incarnation) {
        self.end(|key| key.tenant == tenant);
        lock(&self.tmps).retain(|(other, _), _| *other != tenant);
    }

    /// The running sandboxes of a tenant on this server, the oldest first, each with the session that entered it last.
    pub fn running(&self, scope: &Scope) -> Vec<(SandboxId, Session)> {
        let tenant = scope.tenant().incarnation();
        let mut found: Vec<_> = {
            let running = lock(&self.running);
            let of = running.iter().filter(|(key, _)| key.tenant == tenant);
            of.filter_map(|(_, cell)| cell.get().filter(|held| held.is_alive()))
                .map(|held| (held.id(), held.session()))
                .collect()
        };
        found.sort_by_key(|(id, _)| *id);
        found
    }

    /// What is known of one; nothing if it has ended.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is spent")]
    pub fn seen(&self, permit: Permit<SeeSandbox>) -> Option<Seen> {
        let running = lock(&self.running);
        let mut all = running.iter().filter_map(|(key, cell)| Some((key, cell.get()?)));
        let (key, held) = all.find(|(key, held)| is(permit.resource(), key, held))?;
        Some(held.seen(key.space, key.backend, key.share.clone()))
    }

    /// Ends one, with whatever runs in it. Says whether it was there.
    pub fn end_one(&self, act: &Recorded<EndSandbox>) -> bool {
        let sandbox = act.resource();
        let mut there = false;
        self.end_held(|key, held| {
            let found = held.is_some_and(|held| is(sandbox, key, held));
            there |= found;
            found
        });
        there
    }

    fn end(&self, which: impl Fn(&Key) -> bool) {
        self.end_held(|key, _| which(key));
    }

    fn end_held(&self, mut which: impl FnMut(&Key, Option<&Arc<Running>>) -> bool) {
        let ended: Vec<_> = lock(&self.running).extract_if(|key, cell| which(key, cell.get())).collect();
        // Killed, not only dropped: somebody may still be in it. Outside of the lock, for that takes system calls.
        for running in ended.iter().filter_map(|(_, cell)| cell.get()) {
            running.kill();
        }
    }

    /// Stops all sandboxes, and the gate once it has said all. The server is stopping.
    pub async fn close(&self) {
        self.end(|_| true);
        self.gates.close().await;
    }

    /// The gate's process, if there is one, for tests. Release builds do not have this.
    #[cfg(debug_assertions)]
    pub async fn gate_process(&self) -> Option<u32> {
        self.gates.process().await
    }

    /// How many sandboxes are running.
    pub fn count(&self) -> usize {
        lock(&self.running).len()
    }
}

fn limits_key(limits: &Limits) -> [u64; 6] {
    [
        limits.memory_bytes,
        u64::from(limits.pids),
        u64::from(limits.cpu_millis),
        limits.open_files,
        limits.file_bytes,
        limits.tmp_bytes,
    ]
}

/// Whether that is the sandbox of this key: an id alone is no proof of anything.
fn is(sandbox: &Sandbox, key: &Key, held: &Running) -> bool {
    let tenant = sandbox.tenant().is_some_and(|tenant| tenant.incarnation() == key.tenant);
    tenant && held.id() == sandbox.id() && sandbox.space().id() == key.space
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with its causes, in one line.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Every limit must be enforced by something, and what is to go out must have a way.
fn fits(backend: &'static str, promises: &Promises, cpu: CpuDemand, egress: &Egress) -> Result<(), SandboxError> {
    let limits = [
        ("memory", promises.memory),
        ("processes", promises.pids),
        ("open files", promises.open_files),
        ("file size", promises.file_bytes),
        ("the size of /tmp", promises.tmp_bytes),
    ];
    let cpu = (cpu == CpuDemand::Enforced).then_some(("processor time", promises.cpu));
    match limits.into_iter().chain(cpu).find(|(_, by)| *by == Enforcement::Nothing) {
        Some((limit, _)) => Err(SandboxError::Limit { backend, limit }),
        None if promises.way_out == WayOut::Nothing && !egress.denies_all() => Err(SandboxError::NoWayOut(backend)),
        None => Ok(()),
    }
}

fn jail_spec(demand: &Demand, network: Network) -> Result<JailSpec, SandboxError> {
    // Nothing of the tenant is in the name, because the name can be seen from inside.
    let name = JailName::parse(&SessionId::new().to_string().replace('_', "-").to_lowercase())
        .map_err(|_| SandboxError::NoBackend("linux"))?;
    Ok(JailSpec {
        name,
        workspace: demand.folder.clone(),
        access: match demand.files.access() {
            Access::ReadOnly => WorkspaceAccess::ReadOnly,
            Access::ReadWrite => WorkspaceAccess::ReadWrite,
        },
        shared_tmp: demand.shared_tmp.clone(),
        user: JailUser { uid: demand.user, gid: demand.user },
        network,
        limits: demand.limits,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::linux::{LauncherKind, UserSeparation};

    #[test]
    fn b08_what_a_container_cannot_keep_is_refused_before_it_is_made() {
        let promises = Promises {
            launcher: LauncherKind::Engine,
            memory: Enforcement::CgroupV1,
            pids: Enforcement::CgroupV1,
            cpu: Enforcement::Nothing,
            open_files: Enforcement::RlimitPerProcess,
            file_bytes: Enforcement::RlimitPerProcess,
            tmp_bytes: Enforcement::Mount,
            landlock_abi: 6,
            way_out: WayOut::Nothing,
            users: UserSeparation::OwnUser,
        };
        let egress = |text| serde_json::from_str::<Egress>(text).unwrap();
        let (nothing, something) = (egress(r#""deny-all""#), egress(r#"{ "allow": ["example.com"] }"#));
        let fits = |promises, cpu, egress| fits("container", promises, cpu, egress);
        assert!(fits(&promises, CpuDemand::WherePossible, &nothing).is_ok());
        let refused = fits(&promises, CpuDemand::Enforced, &nothing).unwrap_err();
        assert!(matches!(refused, SandboxError::Limit { backend: "container", limit: "processor time" }));
        let refused = fits(&promises, CpuDemand::WherePossible, &something).unwrap_err();
        assert!(matches!(refused, SandboxError::NoWayOut("container")));
        let whole = Promises { cpu: Enforcement::CgroupV1, way_out: WayOut::Gate, ..promises };
        assert!(fits(&whole, CpuDemand::Enforced, &something).is_ok());
        let weak = Promises { memory: Enforcement::Nothing, ..whole };
        assert!(matches!(fits(&weak, CpuDemand::Enforced, &nothing), Err(SandboxError::Limit { limit: "memory", .. })));
    }
}
