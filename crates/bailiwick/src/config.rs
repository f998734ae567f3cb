//! The configuration: defaults, then a file, then the environment, then flags.
//!
//! It is parsed whole and every mistake is reported, with its place, before anything is started. What
//! this version does not do is refused by name and never ignored. A secret is read here, kept in memory
//! that is wiped, and masked wherever the configuration is shown.

mod check;
mod gate;
mod issuer;
mod layers;
mod notifications;
mod raw;
mod secret;
mod sign_in;
mod vault;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_auth::authn::jwt::{Issuer, IssuerSettings};
use bailiwick_auth::authn::oidc::ProviderSettings;
use bailiwick_auth::lockout::LockoutSettings;
use bailiwick_auth::password::Algorithm;
use bailiwick_outbound::HookSettings;
use bailiwick_sandbox::HostUse;
use bailiwick_sandbox::container::{ContainerSettings, ContainerUse, RuntimeChoice};
use bailiwick_sandbox::gate::GateSettings;
use bailiwick_sandbox::linux::{CgroupUse, Limits};
use bailiwick_store::DatabaseUrl;
use bailiwick_types::{AccountName, ModelName, Quotas, UserName};
use bailiwick_web::{Network, Rates};
use zeroize::Zeroizing;

pub(crate) use layers::{DEFAULTS, Entry, Origin};
pub(crate) use raw::{AuthMode, LogFormat};
pub(crate) use secret::{SecretFileError, read_secret, width_problem};
pub(crate) use vault::{PresentKey, VaultSettings};

/// What the server runs with, once all of it is right.
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: Option<String>,
    pub(crate) data_dir: PathBuf,
    pub(crate) database: DatabaseUrl,
    pub(crate) root_key: Option<Zeroizing<String>>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) ip_allow: Vec<Network>,
    pub(crate) mode: AuthMode,
    pub(crate) walk: Vec<Step>,
    pub(crate) sign_in: SignInSettings,
    pub(crate) issuers: Vec<IssuerPlan>,
    pub(crate) models: BTreeMap<ModelName, bailiwick_model::Config>,
    pub(crate) sandbox: SandboxSettings,
    pub(crate) gate: GateSettings,
    /// Where the services of notifications are, if not where the world says.
    pub(crate) hooks: HookSettings,
    pub(crate) vault: VaultSettings,
    pub(crate) agents_dir: Option<PathBuf>,
    pub(crate) agents_account: AccountName,
    pub(crate) audit: AuditSettings,
    pub(crate) log: LogFormat,
    pub(crate) rates: Rates,
    /// What an account may use for which the operator set nothing else.
    pub(crate) quotas: Quotas,
}

/// An issuer of tokens, as far as it can be made without anybody to ask.
pub(crate) enum IssuerPlan {
    /// With its key.
    Fixed(Issuer),
    /// With the address of its keys.
    Publishing(IssuerSettings, String),
    /// An OpenID provider.
    Discovered {
        /// Whose tokens are whose.
        settings: IssuerSettings,
        /// How people sign in by it, if they do.
        client: Option<ProviderSettings>,
    },
}

/// How people sign in.
pub(crate) struct SignInSettings {
    pub(crate) algorithm: Algorithm,
    /// How long a login may lie unused; for ever, if there is none.
    pub(crate) idle: Option<Duration>,
    pub(crate) lockout: LockoutSettings,
    /// Of the authorization server.
    pub(crate) oauth: bailiwick_web::OAuth,
    /// Whether programs are known by documents of their own.
    pub(crate) documents: MetadataDocuments,
    /// The first admin, made at the start where there is none.
    pub(crate) first_admin: Option<FirstAdmin>,
}

/// Whether a program may be known to the authorization server by a document of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MetadataDocuments {
    /// The server fetches it.
    On,
    /// The server fetches nothing.
    Off,
}

/// What the environment says of the first admin.
pub(crate) struct FirstAdmin {
    pub(crate) name: UserName,
    pub(crate) password: Zeroizing<String>,
}

/// How the record is signed and how long it is kept.
#[derive(Debug, Clone)]
pub(crate) struct AuditSettings {
    pub(crate) checkpoint_every: Duration,
    pub(crate) checkpoint_dir: PathBuf,
    /// What is older is retired; for ever, if there is none.
    pub(crate) retention: Option<Duration>,
    pub(crate) least_age: Duration,
}

/// The operator's part of the sandboxes.
#[derive(Debug, Clone)]
pub(crate) struct SandboxSettings {
    pub(crate) host: HostUse,
    pub(crate) cgroups: CgroupUse,
    pub(crate) limits: Limits,
    pub(crate) tool_time: Duration,
    /// MiB of one workspace, where there is such a limit.
    pub(crate) disk_mib: Option<u64>,
    pub(crate) idle: Duration,
    pub(crate) ready: usize,
    pub(crate) container: Option<ContainerEngine>,
}

/// The container engine that agents may ask for.
#[derive(Debug, Clone)]
pub(crate) struct ContainerEngine {
    pub(crate) socket: PathBuf,
    pub(crate) image: String,
    pub(crate) runtime: RuntimeChoice,
}

impl SandboxSettings {
    /// What containers need, with a folder of the server's own.
    pub(crate) fn container_use(&self, data: &Path) -> ContainerUse {
        match &self.container {
            None => ContainerUse::Off,
            Some(ContainerEngine { socket, image, runtime }) => ContainerUse::By(ContainerSettings {
                socket: socket.clone(),
                image: image.clone(),
                runtime: runtime.clone(),
                folder: data.join("containers"),
            }),
        }
    }
}

impl Config {
    /// Whether others than this machine can connect.
    pub(crate) fn is_public(&self) -> bool {
        !self.listen.ip().to_canonical().is_loopback()
    }
}

/// From where to read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The file, if one was named.
    pub(crate) file: Option<PathBuf>,
    /// Flags: the key that each sets, its value, its name.
    pub(crate) flags: Vec<(&'static str, String, &'static str)>,
    /// Variables of the environment that may be meant for us.
    pub(crate) environment: Vec<(String, String)>,
}

impl Sources {
    /// The process's own environment, no file and no flags.
    pub(crate) fn of_process() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                let ours = |name: &String| name.starts_with(layers::PREFIX) || sign_in::is_variable(name);
                let name = name.into_string().ok().filter(ours)?;
                Some((name, value.to_string_lossy().into_owned()))
            })
            .collect();
        Self { environment, ..Self::default() }
    }

    /// With a file: the named one, else `bailiwick.toml` in the present folder if there is one.
    #[must_use]
    pub(crate) fn with_file(mut self, named: Option<PathBuf>) -> Self {
        let usual = || Some(PathBuf::from("bailiwick.toml")).filter(|path| path.exists());
        self.file = named.or_else(usual);
        self
    }

    /// With a flag, if it was given.
    #[must_use]
    pub(crate) fn with_flag(mut self, name: &'static str, key: &'static str, value: Option<String>) -> Self {
        self.flags.extend(value.map(|value| (key, value, name)));
        self
    }

    /// Reads and checks everything.
    pub(crate) fn load(&self) -> Loaded {
        check::load(self)
    }
}

/// What came of reading.
pub(crate) struct Loaded {
    /// What to run with, or everything that is wrong.
    pub(crate) config: Result<Config, Problems>,
    /// What is right but deserves a look.
    pub(crate) warnings: Vec<Problem>,
    /// The effective settings, secrets masked, each with the place that it is from.
    pub(crate) effective: Vec<Entry>,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) at: Origin,
    pub(crate) key: String,
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.at, self.key.as_str()) {
            (at, "") => write!(f, "{at}: {}", self.text),
            (at, key) => write!(f, "{at}: {key}: {}", self.text),
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has a mistake:")?,
            n => write!(f, "the configuration has {n} mistakes:")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
