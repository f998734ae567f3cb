//! What the handlers share, and the settings of the edge.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bailiwick_agent::{Notifier, Runtime};
use bailiwick_auth::authn::Walk;
use bailiwick_auth::authn::oidc::Providers;
use bailiwick_auth::authn::passkey::{Passkeys, UnfitOrigin};
use bailiwick_auth::authn::sign_in::SignIns;
use bailiwick_sandbox::Sandboxes;
use bailiwick_store::Store;
use bailiwick_types::{AgentDefinition, AgentName, Incarnation, ModelName, UserName};
use bailiwick_vault::{Seal, Vault};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::meters::Meters;
use crate::network::Network;
use crate::oauth::{Documents, OAuth};
use crate::presented::is_loopback;
use crate::rate::{Limiter, Rates};

/// The server's parts, as the binary puts them together.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// Who is let in.
    pub walk: Arc<Walk>,
    /// Who signs in, and how often that failed.
    pub sign_ins: Arc<SignIns>,
    /// Seals the secrets of second factors.
    pub seal: Seal,
    /// Keeps the accounts' secrets.
    pub vault: Arc<Vault>,
    /// Makes and checks passkeys; or why none can be made here.
    pub passkeys: Result<Passkeys, UnfitOrigin>,
    /// By whose word people sign in, too.
    pub providers: Providers,
    /// The documents by which programs are known to the authorization server.
    pub documents: Documents,
    /// Sessions at work.
    pub runtime: Runtime,
    /// Tells targets of notifications.
    pub notifier: Notifier,
    /// For the count of what runs.
    pub sandboxes: Arc<Sandboxes>,
}

/// How callers are known, as `/health` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// By keys.
    #[default]
    ApiKey,
    /// By the word of a gateway that holds the root key.
    Trusted,
    /// Whoever is on this host is the operator.
    Dev,
}

impl AuthMode {
    /// The word of `auth.mode`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Trusted => "trusted",
            Self::Dev => "dev",
        }
    }
}

/// How long a caller may take, and how often a stream is looked after.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For a request's head, and for an idle connection.
    pub head: Duration,
    /// Between two pieces of a request's body.
    pub body_pause: Duration,
    /// For a whole body that is not an upload.
    pub body: Duration,
    /// Between two signs of life on a stream, and between two looks at its reader's rights.
    pub heartbeat: Duration,
    /// For a stream whose reader knows how to come again.
    pub lease: Duration,
    /// For a socket's first frame, which says whose it is.
    pub hello: Duration,
    /// For connections to end when the server stops.
    pub drain: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body_pause: Duration::from_secs(15),
            body: Duration::from_secs(60),
            heartbeat: Duration::from_secs(10),
            lease: Duration::from_secs(60),
            hello: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// The settings of the edge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For people (`server.name`).
    pub server_name: String,
    /// Under which URL people reach the server, if it is not that of the socket.
    pub public_url: Option<String>,
    /// How callers are known.
    pub auth_mode: AuthMode,
    /// Whose `X-Forwarded-For` counts for `ip_allow`.
    pub trusted_proxies: Vec<Network>,
    /// Who may connect; empty: anyone.
    pub ip_allow: Vec<Network>,
    /// The agents of a new account.
    pub first_agents: Vec<(AgentName, AgentDefinition)>,
    /// What a set-up from elsewhere than this host has to show; `None`: nothing opens it from there.
    pub setup_code: Option<String>,
    /// The configured models; an agent may name only these.
    pub models: Vec<ModelName>,
    /// How often one may ask.
    pub rates: Rates,
    /// Connections at once.
    pub connections: usize,
    /// How long things may take.
    pub times: Times,
    /// Of the authorization server.
    pub oauth: OAuth,
}

impl Settings {
    /// The origin under which people reach the server, if it is configured (RFC 6454, section 6.2).
    pub(crate) fn origin(&self) -> Option<String> {
        let (scheme, rest) = self.public_url.as_deref()?.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        Some(format!("{scheme}://{host}"))
    }

    /// Whether people reach the server by TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server_name: "bailiwick".to_owned(),
            public_url: None,
            auth_mode: AuthMode::default(),
            trusted_proxies: Vec::new(),
            ip_allow: Vec::new(),
            first_agents: Vec::new(),
            setup_code: None,
            models: Vec::new(),
            rates: Rates::default(),
            connections: 4096,
            times: Times::default(),
            oauth: OAuth::default(),
        }
    }
}

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    parts: Parts,
    settings: Settings,
    meters: Meters,
    principals: Limiter,
    addresses: Limiter,
    uploads: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
    closing: CancellationToken,
    listening: OnceLock<SocketAddr>,
}

/// No browser makes passkeys for the address that is configured.
const PASSKEYS_OFF: Failure = Failure::NotAccepted {
    reason: "passkeys_off",
    message: "passkeys need a name: the operator sets server.public_url to https://NAME",
};

/// Uploads at once; each holds a thread. More wait.
const UPLOADS: usize = 256;
/// Whole logs that are read at once; each costs a core. More wait.
const VERIFICATIONS: usize = 2;

impl App {
    /// The edge over the server's parts.
    pub fn new(parts: Parts, settings: Settings) -> Self {
        let (meters, closing) = (Meters::default(), CancellationToken::new());
        let (uploads, verifications) = (Arc::new(Semaphore::new(UPLOADS)), Arc::new(Semaphore::new(VERIFICATIONS)));
        let (principals, addresses) = (Limiter::new(settings.rates.principal), Limiter::new(settings.rates.address));
        Self(Arc::new(Inner {
            parts,
            settings,
            meters,
            principals,
            addresses,
            uploads,
            verifications,
            closing,
            listening: OnceLock::new(),
        }))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.parts.store
    }

    pub(crate) fn walk(&self) -> &Walk {
        &self.0.parts.walk
    }

    pub(crate) fn sign_ins(&self) -> &SignIns {
        &self.0.parts.sign_ins
    }

    /// What makes and checks passkeys.
    pub(crate) fn passkeys(&self) -> Result<&Passkeys, Failure> {
        self.0.parts.passkeys.as_ref().map_err(|_| PASSKEYS_OFF)
    }

    /// By whose word people sign in, too.
    pub(crate) fn providers(&self) -> &Providers {
        &self.0.parts.providers
    }

    /// How a user signs in was changed: what they had begun with a passkey is void.
    pub(crate) fn forget_ceremonies(&self, tenant: Incarnation, user: &UserName) {
        if let Ok(passkeys) = &self.0.parts.passkeys {
            passkeys.forget(tenant, user);
        }
    }

    /// The documents by which programs are known.
    pub(crate) fn documents(&self) -> &Documents {
        &self.0.parts.documents
    }

    pub(crate) fn notifier(&self) -> &Notifier {
        &self.0.parts.notifier
    }

    pub(crate) fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.0.parts.vault)
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.0.parts.seal
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.0.parts.runtime
    }

    pub(crate) fn sandboxes(&self) -> &Sandboxes {
        &self.0.parts.sandboxes
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Says where the server listens; the first that is said stays.
    pub(crate) fn listens_on(&self, address: SocketAddr) {
        let _ = self.0.listening.set(address);
    }

    /// The server's own address, by which tokens are told for whom they are: the configured one, or that of a
    /// socket that nobody else can reach. `None` where it would go over the network in the clear.
    pub(crate) fn issuer(&self) -> Option<String> {
        let Some(url) = self.settings().public_url.as_deref() else {
            let address = self.0.listening.get().filter(|address| address.ip().is_loopback())?;
            return Some(format!("http://{address}"));
        };
        let url = url.trim_end_matches('/');
        let own = |rest: &str| is_loopback(rest.split('/').next().unwrap_or(rest));
        let kept = url.starts_with("https://") || url.strip_prefix("http://").is_some_and(own);
        (kept && !url.contains(['?', '#', '@'])).then(|| url.to_owned())
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// What counts the requests of one principal.
    pub(crate) fn principals(&self) -> &Limiter {
        &self.0.principals
    }

    /// What counts the requests of one address.
    pub(crate) fn addresses(&self) -> &Limiter {
        &self.0.addresses
    }

    /// A place among the uploads.
    pub(crate) async fn upload_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = Arc::clone(&self.0.uploads).acquire_owned().await;
        place.map_err(|_| Failure::Defect("the places of uploads are closed"))
    }

    /// A place among those who read whole logs.
    pub(crate) async fn verification_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = Arc::clone(&self.0.verifications).acquire_owned().await;
        place.map_err(|_| Failure::Defect("the places of verifications are closed"))
    }

    /// Cancelled when the server begins to stop: streams end, so that connections can.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }
}
