//! The gate's process, as the server sees it: started when the first sandbox needs a way out, and again if it is
//! gone.
//!
//! The process is this executable in another role, under a user of its own where the server is root. It talks to
//! strangers on both sides, so it is the one that falls first: it has no database, no vault, no file of the
//! server's, and of secrets those alone that are in use. What it says is judged as a stranger's: it names sandboxes
//! by numbers that the server gave, and asks; what it gets is decided here. If it ends, the sandboxes that had a
//! way out have none, and the server ends them.

mod calls;
mod confine;
pub(crate) mod role;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailiwick_auth::Scope;
use bailiwick_auth::access::{During, Session};
use bailiwick_egress::fetch::{self, Believed, Fetch, Fetched};
pub use bailiwick_egress::{Lease, Limits, Line};
use bailiwick_egress::{Placeholders, Policy, Refused, Trust};
use bailiwick_types::host::HostName;
use bailiwick_types::{Egress, Incarnation, SecretName, SessionId};
use rustix::io::Errno;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::calls::Moment;
use self::calls::{Calls, InCall};
use self::wire::{FromGate, ToGate};
use crate::error::SandboxError;
use crate::linux::listeners::Listening;
use crate::linux::wire::{self as packets, PACKET_BYTES, WireError};
use crate::linux::{HelperPath, launcher};

/// The `argv[0]` of the gate.
pub(crate) const GATE_ROLE: &str = "bailiwick-gate";

/// How long the gate may take to be there, or to make ready for a sandbox.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the gate may take to tell what is left when the server stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Most refusals that an agent is told of after one command.
const MOST_TOLD: usize = 8;

/// What the operator says of the way out.
#[derive(Debug, Clone, Default)]
pub struct GateSettings {
    /// What any sandbox of this server may reach at most; an agent's own rules only narrow it.
    pub ceiling: Egress,
    /// Names and addresses that go before the resolver's.
    pub hosts: BTreeMap<HostName, Vec<IpAddr>>,
    /// Certificates of authorities that are believed besides the system's (PEM).
    pub authorities: String,
    /// What one sandbox may use.
    pub limits: Limits,
}

/// On whose behalf a sandbox goes out: the session that entered it last, and the rights of its caller then.
#[derive(Clone)]
pub struct Caller {
    /// The caller.
    pub scope: Scope,
    /// The session.
    pub session: Session,
}

/// What the keeper of secrets and of the record does.
pub type Keeping<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A secret and a host that the rules of a sandbox name together. Nothing else makes one: a gate that has fallen may
/// ask for whatever was granted, and gets what the rules of its sandboxes name.
pub struct Named {
    secret: SecretName,
    host: HostName,
}

impl Named {
    fn by(rules: &Policy, secret: SecretName, host: HostName) -> Option<Self> {
        rules.gives(&secret, &host).then_some(Self { secret, host })
    }

    /// Which secret, for which host.
    pub fn into_parts(self) -> (SecretName, HostName) {
        (self.secret, self.host)
    }
}

/// Keeps the secrets and the record; the gate asks and tells.
pub trait Keeper: Send + Sync + 'static {
    /// A secret for a caller's agent and a host, if it was granted; the release is on record before it comes back.
    /// What runs in the sandbox at that moment comes with the question.
    fn release<'a>(&'a self, caller: &'a Caller, named: Named, moment: Moment) -> Keeping<'a, Option<Lease>>;

    /// Puts on record what went out and what was refused. How often each line happened comes with it.
    fn connections<'a>(&'a self, caller: &'a Caller, lines: Vec<(Line, u32)>) -> Keeping<'a, ()>;
}

/// There is no gate, or none for this sandbox.
#[derive(Debug, thiserror::Error)]
pub enum GateFailure {
    /// The process did not start, or is gone.
    #[error("the gate is not there")]
    Gone(#[source] Option<std::io::Error>),
    /// It said why it cannot.
    #[error("the gate cannot make ready: {0}")]
    Refused(String),
    /// It took too long.
    #[error("the gate did not answer in {} seconds", PATIENCE.as_secs())]
    Timeout,
    /// The rules do not fit a message.
    #[error("the egress rules are longer than {PACKET_BYTES} bytes")]
    TooLong,
}

/// Where ways out come from.
pub(crate) struct Gates {
    helper: HelperPath,
    settings: GateSettings,
    keeper: Arc<dyn Keeper>,
    current: tokio::sync::Mutex<Option<Arc<Gate>>>,
}

/// One gate's process. It ends when this is dropped.
struct Gate {
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    #[cfg_attr(not(debug_assertions), expect(dead_code, reason = "asked for by tests"))]
    process: Option<u32>,
    gone: AtomicBool,
    next: AtomicU64,
    keeper: Arc<dyn Keeper>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Option<oneshot::Sender<Result<(), String>>>,
    opening: HashMap<u64, oneshot::Sender<Result<Option<Trust>, String>>>,
    callers: HashMap<u64, Caller>,
    rules: HashMap<u64, Arc<Policy>>,
    /// What runs in each.
    calls: HashMap<u64, Calls>,
    /// Which account has which number at the gate.
    tenants: HashMap<Incarnation, u64>,
    /// What was refused since somebody asked, for the sandbox's own agent.
    refused: HashMap<u64, Vec<String>>,
    asked: HashMap<u64, oneshot::Sender<()>>,
}

/// One sandbox's way out. Dropping it closes every connection.
pub(crate) struct WayOut {
    gate: Arc<Gate>,
    sandbox: u64,
    pub(crate) trust: Option<Trust>,
}

impl Gates {
    pub(crate) fn new(helper: HelperPath, settings: GateSettings, keeper: Arc<dyn Keeper>) -> Self {
        Self { helper, settings, keeper, current: tokio::sync::Mutex::default() }
    }

    async fn current(&self) -> Result<Arc<Gate>, GateFailure> {
        let mut held = self.current.lock().await;
        if let Some(gate) = held.as_ref().filter(|gate| !gate.shared.gone.load(Ordering::SeqCst)) {
            return Ok(Arc::clone(gate));
        }
        let gate = Gate::start(&self.helper, &self.settings, Arc::clone(&self.keeper)).await?;
        Ok(Arc::clone(held.insert(Arc::new(gate))))
    }

    /// The gate's process, if there is one, for tests. Release builds do not have this.
    #[cfg(debug_assertions)]
    pub(crate) async fn process(&self) -> Option<u32> {
        self.current.lock().await.as_ref().and_then(|gate| gate.shared.process)
    }

    /// Ends the gate, once it has told all that there was of the sandboxes that are gone.
    pub(crate) async fn close(&self) {
        let Some(gate) = self.current.lock().await.take() else { return };
        let told = async {
            while !gate.shared.state().callers.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
        if let Some(listener) = gate.listener() {
            listener.abort();
            let _ = listener.await;
        }
    }

    /// Fetches a document as a sandbox with these rules would, on a caller's behalf.
    pub(crate) async fn fetch(
        &self,
        egress: &Egress,
        (caller, during): (Caller, During),
        fetch: &Fetch,
    ) -> Result<Fetched, SandboxError> {
        let session = caller.session.id();
        let way = self.open(egress, caller).await.map_err(SandboxError::Gate)?;
        let _call = way.begin(session, during);
        let mut others = CertificateDer::pem_slice_iter(self.settings.authorities.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| SandboxError::Believed)?;
        if let Some(trust) = &way.trust {
            let own = CertificateDer::from_pem_slice(trust.certificate.as_bytes());
            others.push(own.map_err(|_| SandboxError::Believed)?);
        }
        let believed = Believed::new(others).map_err(|_| SandboxError::Believed)?;
        fetch::fetch(|| way.dial(), &believed, fetch).await.map_err(SandboxError::Fetch)
    }

    /// Makes ready for a sandbox with these rules, on a caller's behalf.
    pub(crate) async fn open(&self, egress: &Egress, caller: Caller) -> Result<WayOut, GateFailure> {
        let gate = self.current().await?;
        let sandbox = gate.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, opened) = oneshot::channel();
        let rules = Box::new((egress.clone(), self.settings.ceiling.clone()));
        let tenant = {
            let mut state = gate.shared.state();
            let next = state.tenants.len() as u64 + 1;
            let tenant = *state.tenants.entry(caller.scope.tenant().incarnation()).or_insert(next);
            state.opening.insert(sandbox, sender);
            state.callers.insert(sandbox, caller);
            state.rules.insert(sandbox, Arc::new(Policy::new(rules.0.clone(), rules.1.clone())));
            tenant
        };
        // From here on dropping it takes it back.
        let mut way = WayOut { gate: Arc::clone(&gate), sandbox, trust: None };
        let placeholders = Placeholders::random(egress).map_err(|error| GateFailure::Refused(error.to_string()))?;
        let open =
            ToGate::Open { sandbox, tenant, rules, limits: self.settings.limits, placeholders: placeholders.clone() };
        gate.shared.tell(&open, &[], &[]).await?;
        let opened = tokio::time::timeout(PATIENCE, opened).await.map_err(|_| GateFailure::Timeout)?;
        let trust = opened.map_err(|_| GateFailure::Gone(None))?.map_err(GateFailure::Refused)?;
        // What is in the sandbox's environment is said here, and not by the gate.
        way.trust = trust.map(|trust| Trust { placeholders, ..trust });
        Ok(way)
    }
}

impl Gate {
    async fn start(helper: &HelperPath, settings: &GateSettings, keeper: Arc<dyn Keeper>) -> Result<Self, GateFailure> {
        let gone = |error| GateFailure::Gone(Some(error));
        let (socket, process) = launcher::spawn(helper, GATE_ROLE, None).map_err(gone)?;
        let (sender, ready) = oneshot::channel();
        let shared = Arc::new(Shared {
            socket,
            process: process.id(),
            gone: AtomicBool::new(false),
            next: AtomicU64::new(1),
            keeper,
            state: Mutex::new(State { ready: Some(sender), ..State::default() }),
        });
        let listener = Mutex::new(Some(tokio::spawn(listen(Arc::clone(&shared), process))));
        let gate = Self { shared, listener };
        let setup = ToGate::Configure { hosts: settings.hosts.clone() };
        gate.shared.tell(&setup, settings.authorities.as_bytes(), &[]).await?;
        let ready = tokio::time::timeout(PATIENCE, ready).await.map_err(|_| GateFailure::Timeout)?;
        ready.map_err(|_| GateFailure::Gone(None))?.map_err(GateFailure::Refused)?;
        Ok(gate)
    }
}

impl Gate {
    fn listener(&self) -> Option<JoinHandle<()>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(listener) = self.listener() {
            listener.abort();
        }
    }
}

impl WayOut {
    /// Hands over the sandbox's sockets.
    pub(crate) async fn attach(&self, listening: Listening) -> Result<(), GateFailure> {
        let sockets = listening.0.each_ref().map(AsFd::as_fd);
        self.gate.shared.tell(&ToGate::Attach { sandbox: self.sandbox }, &[], &sockets).await
    }

    /// A connection to the proxy, as a program inside makes one.
    pub(crate) async fn dial(&self) -> std::io::Result<tokio::net::UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let told = self.gate.shared.tell(&ToGate::Admit { sandbox: self.sandbox }, &[], &[theirs.as_fd()]).await;
        told.map_err(std::io::Error::other)?;
        tokio::net::UnixStream::from_std(ours)
    }

    /// What was refused since the last question, in words for the sandbox's agent: many programs do not pass on
    /// why a proxy said no.
    pub(crate) async fn refused(&self) -> Vec<String> {
        let shared = &self.gate.shared;
        let (sender, told) = oneshot::channel();
        shared.state().asked.insert(self.sandbox, sender);
        if shared.tell(&ToGate::Tell { sandbox: self.sandbox }, &[], &[]).await.is_ok() {
            let _ = tokio::time::timeout(LAST_WORDS, told).await;
        }
        shared.state().refused.remove(&self.sandbox).unwrap_or_default()
    }

    /// Whether there is still somebody at the gate.
    pub(crate) fn is_there(&self) -> bool {
        !self.gate.shared.gone.load(Ordering::SeqCst)
    }

    /// A call or job of a session runs in the sandbox until what comes back is dropped.
    pub(crate) fn begin(&self, session: SessionId, during: During) -> InCall {
        InCall::begin(Arc::clone(&self.gate.shared), self.sandbox, session, during)
    }

    /// Goes out on this caller's behalf from now on.
    pub(crate) fn enter(&self, caller: Caller) {
        self.gate.shared.state().callers.insert(self.sandbox, caller);
    }
}

impl Drop for WayOut {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.gate.shared);
        let sandbox = self.sandbox;
        shared.state().opening.remove(&sandbox);
        // The last lines of a sandbox come after it; its caller is forgotten when the gate says that it is done.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if shared.tell(&ToGate::Close { sandbox }, &[], &[]).await.is_err() {
                    shared.state().forget(sandbox);
                }
            });
        }
    }
}

impl State {
    fn forget(&mut self, sandbox: u64) {
        self.callers.remove(&sandbox);
        self.rules.remove(&sandbox);
        self.calls.remove(&sandbox);
        self.refused.remove(&sandbox);
        self.asked.remove(&sandbox);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the first refusals for the sandbox's agent.
    fn note(&self, sandbox: u64, lines: &[(Line, u32)]) {
        let mut state = self.state();
        let kept = state.refused.entry(sandbox).or_default();
        for (line, _) in lines {
            let Some(why) = Refused::of_code(&line.outcome) else { continue };
            let port = if line.port == 0 { String::new() } else { format!(":{}", line.port) };
            let text = format!("{}{port}: {why} ({})", line.host, why.code());
            if kept.len() < MOST_TOLD && !kept.contains(&text) {
                kept.push(text);
            }
        }
    }

    async fn tell(&self, message: &ToGate, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), GateFailure> {
        loop {
            let mut guard = self.socket.writable().await.map_err(|error| GateFailure::Gone(Some(error)))?;
            match packets::send(self.socket.as_fd(), message, bytes, fds) {
                Ok(()) => return Ok(()),
                Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
                Err(WireError::TooLarge(_)) => return Err(GateFailure::TooLong),
                Err(_) => return Err(GateFailure::Gone(None)),
            }
        }
    }
}

/// Hears what the gate says until it is gone.
async fn listen(shared: Arc<Shared>, mut process: tokio::process::Child) {
    let mut buffer = vec![0; PACKET_BYTES];
    let why = loop {
        match receive(&shared.socket, &mut buffer).await {
            Ok(message) => heard(&shared, message).await,
            Err(error) => break error,
        }
    };
    tracing::warn!(%why, "the gate ended; sandboxes with a way out end with it");
    shared.gone.store(true, Ordering::SeqCst);
    *shared.state() = State::default();
    // It may only have stopped to make sense.
    let _ = process.kill().await;
}

async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Result<FromGate, WireError> {
    loop {
        let mut guard = socket.readable().await.map_err(|_| WireError::Closed)?;
        match packets::receive::<FromGate>(socket.get_ref(), buffer) {
            Ok(received) => return Ok(received.message),
            Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
            Err(error) => return Err(error),
        }
    }
}

async fn heard(shared: &Arc<Shared>, message: FromGate) {
    match message {
        FromGate::Ready { failed } => {
            if let Some(sender) = shared.state().ready.take() {
                let _ = sender.send(failed.map_or(Ok(()), Err));
            }
        }
        FromGate::Opened { sandbox, outcome } => {
            if let Some(sender) = shared.state().opening.remove(&sandbox) {
                let _ = sender.send(outcome);
            }
        }
        FromGate::Told { sandbox } => {
            if let Some(sender) = shared.state().asked.remove(&sandbox) {
                let _ = sender.send(());
            }
        }
        FromGate::Closed { sandbox } => {
            shared.state().forget(sandbox);
        }
        FromGate::Ask { ask, sandbox, secret, host } => {
            let (caller, rules, moment) = {
                let state = shared.state();
                let caller = state.callers.get(&sandbox).cloned();
                let moment = Moment::of(state.calls.get(&sandbox), caller.as_ref());
                (caller, state.rules.get(&sandbox).cloned(), moment)
            };
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let told = format!("{secret} for {host}");
                let named = rules.and_then(|rules| Named::by(&rules, secret, host));
                if named.is_none() && caller.is_some() {
                    tracing::error!(sandbox, told, "the gate asked for a secret that no rule of this sandbox names");
                }
                let lease = match caller.zip(named) {
                    Some((caller, named)) => shared.keeper.release(&caller, named, moment).await,
                    None => None,
                };
                let (lasts, call) =
                    (lease.as_ref().map(|lease| lease.lasts), lease.as_ref().and_then(|lease| lease.call));
                let value = lease.as_ref().map(|lease| lease.value.as_bytes()).unwrap_or_default();
                let _ = shared.tell(&ToGate::Answer { ask, lasts, call }, value, &[]).await;
            });
        }
        // One after the other, so that the record has them in order and a flood waits at the gate.
        FromGate::Lines(lines) => {
            let mut by_sandbox: BTreeMap<u64, Vec<(Line, u32)>> = BTreeMap::new();
            for (sandbox, line, times) in lines {
                by_sandbox.entry(sandbox).or_default().push((line, times));
            }
            for (sandbox, lines) in by_sandbox {
                let caller = shared.state().callers.get(&sandbox).cloned();
                if let Some(caller) = caller {
                    shared.note(sandbox, &lines);
                    shared.keeper.connections(&caller, lines).await;
                }
            }
        }
    }
}
