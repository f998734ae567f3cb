//! The server's parts, put together in one place: parse, wire, wait.
//!
//! Order matters and is kept: the configuration is whole before anything is opened, the data directory
//! is locked before the port is bound, and the port is bound before anybody is told that it is.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bailiwick_agent::{Models, Notifier, NotifierParts, OwnKey, Runtime, RuntimeLimits};
use bailiwick_auth::authn::jwt::{Issuer, IssuerError};
use bailiwick_auth::authn::oidc::{Provider as IdentityProvider, Providers};
use bailiwick_auth::authn::outbound::Outbound;
use bailiwick_auth::authn::passkey::Passkeys;
use bailiwick_auth::authn::sign_in::SignIns;
use bailiwick_auth::authn::{RootKeyUse, Step, Walk};
use bailiwick_auth::password::{Password, Passwords, PasswordsError};
use bailiwick_auth::totp;
use bailiwick_model::{KeySource, Provider, Script};
use bailiwick_outbound::{Client, Lazy, Patience, Transport, TransportError};
use bailiwick_sandbox::linux::HelperPath;
use bailiwick_sandbox::{Sandboxes, Settings};
use bailiwick_store::account::NewAccount;
use bailiwick_store::checkpoint::Keeping;
use bailiwick_store::password::FirstBoot;
use bailiwick_store::{DatabaseUrl, Store, StoreError};
use bailiwick_tools::run::Ceilings;
use bailiwick_tools::{Keeper, TokenEndpoints, ToolManager};
use bailiwick_types::{AccountName, AgentDefinition, AgentName, HostName, ModelName, Role, Timestamp, UserName};
use bailiwick_vault::{HostKeys, HostKeysError, ModelKeys, Secret, Vault};
use bailiwick_web as web;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::{
    AuditSettings, AuthMode, Config, FirstAdmin, IssuerPlan, MetadataDocuments, PresentKey, SecretFileError,
    VaultSettings, read_secret,
};

/// The server could not be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WiringError {
    #[error("the data directory {0} cannot be used")]
    DataDir(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Keys(#[from] HostKeysError),
    #[error("the data directory {0} cannot be opened")]
    Store(PathBuf, #[source] StoreError),
    #[error("checkpoints cannot be signed in this server's name")]
    Signer(#[from] bailiwick_audit::checkpoint::KeyError),
    #[error("checkpoints cannot be kept in {0}")]
    Checkpoints(PathBuf, #[source] StoreError),
    #[error("the database cannot be used")]
    Database(#[source] StoreError),
    #[error(transparent)]
    Passwords(#[from] PasswordsError),
    #[error("the first account cannot be made")]
    Bootstrap(#[source] StoreError),
    #[error("model {0} cannot be used: {1}")]
    Model(ModelName, #[source] bailiwick_model::BuildError),
    #[error("the key of model {0} cannot be read")]
    ModelKey(ModelName, #[source] SecretFileError),
    #[error("the environment variable {0} is not set")]
    ModelKeyVariable(String),
    #[error(
        "the data keys of {accounts} accounts lie under the key {id}, which is not in the ring: add it to [vault], \
         as vault.old_key_files if it is a file (the usual one is {usual}), run `bailiwick vault rewrap`, and take it \
         out after that"
    )]
    VaultKey { id: String, accounts: u64, usual: PathBuf },
    #[error("the host of model {0}: {1}")]
    ModelHost(ModelName, String),
    #[error("models and identity providers cannot be called")]
    Outbound(#[from] TransportError),
    #[error("an issuer of tokens cannot be used")]
    Issuer(#[from] IssuerError),
    #[error("{0} cannot be bound")]
    Bind(SocketAddr, #[source] io::Error),
    #[error("an agent's file is wrong: {0}")]
    Agents(String),
    #[error("a built-in name is wrong")]
    Name(#[from] bailiwick_types::NameError),
}

/// A running server.
pub(crate) struct Server {
    address: SocketAddr,
    store: Store,
    runtime: Runtime,
    notifier: Notifier,
    sandboxes: Arc<Sandboxes>,
    ending: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
    setup_code: Option<String>,
}

/// Where sandboxes that nobody uses are looked for.
const REAP_EVERY: Duration = Duration::from_secs(30);
/// How long a connection to a model may take, name and TLS included.
const MODEL_CONNECT: Duration = Duration::from_secs(10);
/// How often old events are looked for.
const RETIRE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Starts a server. `spoken` answers where no model named `default` is configured.
pub(crate) async fn start(mut config: Config, spoken: Option<Script>) -> Result<Server, WiringError> {
    let data = config.data_dir.clone();
    let in_data = |error| WiringError::DataDir(data.clone(), error);
    let folder = data.join("keys");
    let keys = HostKeys::load_or_make(&folder)?;
    let (vault, token_origins) = vault(&folder, &mut config)?;
    let (dir, url) = (data.clone(), config.database.clone());
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir, &url)).await;
    let store = opened.unwrap_or(Err(StoreError::Closed)).map_err(|error| match config.database {
        DatabaseUrl::Sqlite => WiringError::Store(data.clone(), error),
        DatabaseUrl::Postgres(_) => WiringError::Database(error),
    })?;
    let held = std::iter::once(vault.current()).chain(vault.old()).map(str::to_owned).collect();
    let missing = store.data_key_begin(vault.current().to_owned(), held).await.map_err(WiringError::Database)?;
    if let Some((id, accounts)) = missing.into_iter().next() {
        return Err(WiringError::VaultKey { id, accounts, usual: folder.join("vault") });
    }
    store.limit_accounts(config.quotas);
    let tmp = data.join("tmp");
    empty_folder(&tmp).map_err(in_data)?;
    let root_key = config.root_key.as_ref().map(|key| key.as_str());
    let root_use = match config.mode {
        AuthMode::Trusted => RootKeyUse::Gateway,
        AuthMode::ApiKey | AuthMode::Dev => RootKeyUse::Operator,
    };
    let passwords = Passwords::start(config.sign_in.algorithm)?;
    let sign_ins = Arc::new(SignIns::new(passwords.clone(), config.sign_in.lockout));
    let (issuers, providers, documents) = outside(std::mem::take(&mut config.issuers), config.sign_in.documents)?;
    let walk = Walk::new(config.walk.clone(), keys.ring(), root_key);
    let walk = Arc::new(
        walk.with_idle(config.sign_in.idle)
            .with_root_use(root_use)
            .with_issuers(issuers)
            .with_sign_ins(Arc::clone(&sign_ins)),
    );
    let signer = keys.checkpoint_signer(&config.name)?;
    let (dir, least_age) = (config.audit.checkpoint_dir.clone(), config.audit.least_age);
    let kept = store.keep_checkpoints(Keeping { signer, dir: dir.clone(), least_age });
    kept.map_err(|error| WiringError::Checkpoints(dir, error))?;
    bootstrap(&store, &config).await?;
    first_admin(&store, &passwords, &config).await?;
    let setup_code = setup_code(&store, &walk).await?;

    let vault = Arc::new(vault);
    let endpoints = TokenEndpoints::new(Arc::new(Lazy::new(Patience::default())), token_origins);
    let keeper = Arc::new(Keeper::new(store.clone(), Arc::clone(&vault), endpoints));
    let (models, mut redactor, names) = models(&config, spoken, Arc::clone(&keeper))?;
    if let Some(key) = root_key {
        redactor.add("server.root_api_key".to_owned(), key);
    }
    let settings = Settings {
        helper: HelperPath::CurrentExecutable,
        cgroups: config.sandbox.cgroups,
        ready: config.sandbox.ready,
        host: config.sandbox.host,
        tmp,
        gate: config.gate.clone(),
        container: config.sandbox.container_use(&data),
    };
    let sandboxes = Arc::new(Sandboxes::new(settings, keeper));
    let sandbox = &config.sandbox;
    let ceilings = Ceilings { sandbox: sandbox.limits, tool_time: sandbox.tool_time, disk_mib: sandbox.disk_mib };
    let tools = Arc::new(ToolManager::new(store.clone(), Arc::clone(&sandboxes), redactor, ceilings));
    let runtime = Runtime::new(store.clone(), Arc::clone(&walk), tools, models, RuntimeLimits::default());
    let notifier = Notifier::new(NotifierParts {
        store: store.clone(),
        walk: Arc::clone(&walk),
        vault: Arc::clone(&vault),
        console: config.public_url.clone(),
        hooks: config.hooks.clone(),
    });
    let passkeys = Passkeys::new(config.public_url.as_deref(), &config.name);
    let parts = web::Parts {
        passkeys,
        providers,
        documents,
        store: store.clone(),
        walk,
        sign_ins,
        seal: keys.seal(),
        vault,
        runtime: runtime.clone(),
        notifier: notifier.clone(),
        sandboxes: Arc::clone(&sandboxes),
    };
    let app = web::App::new(parts, web::Settings { setup_code: setup_code.clone(), ..edge(&config, names) });

    let bound = TcpListener::bind(config.listen).await;
    let listener = bound.map_err(|error| WiringError::Bind(config.listen, error))?;
    let address = listener.local_addr().map_err(|error| WiringError::Bind(config.listen, error))?;
    let ending = CancellationToken::new();
    let serving = tokio::spawn(web::serve(listener, app, ending.clone()));
    background(&store, &runtime, &sandboxes, config.sandbox.idle, &ending);
    keep_record(&store, &config.audit, &ending);
    notifier.start();
    Ok(Server { address, store, runtime, notifier, sandboxes, ending, serving, setup_code })
}

/// The ring of keys above the data keys, and where token endpoints may be besides the public network.
fn vault(folder: &Path, config: &mut Config) -> Result<(Vault, Vec<String>), WiringError> {
    let usual = VaultSettings { present: PresentKey::Usual, old: Vec::new(), token_origins: Vec::new() };
    let VaultSettings { present, old, token_origins } = std::mem::replace(&mut config.vault, usual);
    let present = match present {
        PresentKey::Usual => Box::new(HostKeys::vault_key(folder)?),
        PresentKey::Configured(key) => key,
    };
    Ok((old.into_iter().fold(Vault::new(present), Vault::with_old), token_origins))
}

/// Whoever else is believed something, and by which client they are asked: issuers of tokens for the walk,
/// providers by which people sign in, documents of programs. Nobody is asked yet.
fn outside(
    plans: Vec<IssuerPlan>,
    documents: MetadataDocuments,
) -> Result<(Vec<Issuer>, Providers, web::Documents), WiringError> {
    // Reading the system's certificates takes longer than all the rest of the start.
    let mut outbound: Option<Arc<dyn Outbound>> = None;
    let mut shared = || -> Result<Arc<dyn Outbound>, TransportError> {
        Ok(match &outbound {
            Some(client) => Arc::clone(client),
            None => Arc::clone(outbound.insert(Arc::new(Client::new(Patience::default())?))),
        })
    };
    let (mut issuers, mut providers) = (Vec::new(), Vec::new());
    for plan in plans {
        match plan {
            IssuerPlan::Fixed(issuer) => issuers.push(issuer),
            IssuerPlan::Publishing(settings, url) => issuers.push(Issuer::publishing(settings, url, shared()?)?),
            // One set of keys for both uses. What is not in the walk is never asked there.
            IssuerPlan::Discovered { settings, client } => {
                let issuer = Issuer::discovered(settings, shared()?)?;
                providers.extend(client.and_then(|client| IdentityProvider::new(client, &issuer)));
                issuers.push(issuer);
            }
        }
    }
    let documents = match documents {
        MetadataDocuments::Off => web::Documents::Off,
        MetadataDocuments::On => {
            web::Documents::fetched_by(outbound.unwrap_or_else(|| Arc::new(Lazy::new(Patience::default()))))
        }
    };
    Ok((issuers, Providers::new(providers), documents))
}

/// What goes on beside the requests.
fn background(
    store: &Store,
    runtime: &Runtime,
    sandboxes: &Arc<Sandboxes>,
    idle: Duration,
    ending: &CancellationToken,
) {
    let recovering = runtime.clone();
    tokio::spawn(async move { recovering.recover().await });
    let (purging, ended) = (store.clone(), ending.clone());
    tokio::spawn(async move {
        if let Err(error) = purging.purge_leftovers().await
            && !ended.is_cancelled()
        {
            tracing::warn!(%error, "what deleted accounts left could not be looked for");
        }
    });
    // What a killed predecessor left in the container engine goes now, not when somebody first wants a container.
    let trying = Arc::clone(sandboxes);
    tokio::spawn(async move { drop(trying.container().await) });
    let (reaping, ended) = (Arc::clone(sandboxes), ending.clone());
    tokio::spawn(async move {
        while tokio::time::timeout(REAP_EVERY, ended.cancelled()).await.is_err() {
            reaping.reap(idle);
        }
    });
}

/// Signs the heads of logs that grew, and retires what is too old.
fn keep_record(store: &Store, settings: &AuditSettings, ending: &CancellationToken) {
    let (signing, every, ended) = (store.clone(), settings.checkpoint_every, ending.clone());
    tokio::spawn(async move {
        loop {
            if let Err(error) = signing.checkpoint_grown().await {
                tracing::error!(%error, "no checkpoints are kept");
            }
            if tokio::time::timeout(every, ended.cancelled()).await.is_ok() {
                return;
            }
        }
    });
    let Some(retention) = settings.retention else { return };
    let (retiring, ended) = (store.clone(), ending.clone());
    let retention = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    tokio::spawn(async move {
        loop {
            let before = Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(retention));
            match retiring.event_retire_all(before).await {
                Ok(logs) => tracing::info!(logs, "old events were retired"),
                Err(error) => tracing::warn!(%error, "old events could not be retired"),
            }
            if tokio::time::timeout(RETIRE_EVERY, ended.cancelled()).await.is_ok() {
                return;
            }
        }
    });
}

impl Server {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a set-up from another machine has to show, while there is no admin.
    pub(crate) fn setup_code(&self) -> Option<&str> {
        self.setup_code.as_deref()
    }

    /// Its sandboxes.
    pub(crate) fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    /// Waits until the listener fails; it does not end by itself.
    pub(crate) async fn failed(&mut self) -> io::Error {
        match (&mut self.serving).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::Error::other("the listener ended"),
            Err(error) => io::Error::other(error),
        }
    }

    /// Ends: no new connections, streams end, running turns come to rest, what waits is written.
    pub(crate) async fn stop(self, patience: Duration) {
        self.ending.cancel();
        let drained = async {
            if let Ok(Err(error)) = self.serving.await {
                tracing::warn!(%error, "the listener failed");
            }
        };
        // Both at once: a stream waits for its turn, and a turn for its reader.
        let (served, ()) = tokio::join!(tokio::time::timeout(patience, drained), self.runtime.stop(patience));
        if served.is_err() {
            tracing::warn!("some connections were cut");
        }
        // After the turns, whose last words it may take up.
        self.notifier.stop(patience).await;
        self.sandboxes.close().await;
        self.store.close();
        // What was written last is signed, too.
        if let Err(error) = self.store.checkpoint_grown().await {
            tracing::warn!(%error, "the last checkpoints were not kept");
        }
    }
}

/// The account, users and agents that are there from the first start.
async fn bootstrap(store: &Store, config: &Config) -> Result<(), WiringError> {
    let first = NewAccount { name: AccountName::first(), admin: None, agents: first_agents() };
    store.account_bootstrap(first).await.map_err(WiringError::Bootstrap)?;
    let users: [(Step, &str, Role); 2] =
        [(Step::LocalDev, "default", Role::Admin), (Step::Anonymous, "anonymous", Role::Member)];
    for (_, name, role) in users.into_iter().filter(|(step, _, _)| config.walk.contains(step)) {
        let name: UserName = name.parse()?;
        store.user_bootstrap(&AccountName::first(), name, role).await.map_err(WiringError::Bootstrap)?;
    }
    let Some(dir) = &config.agents_dir else { return Ok(()) };
    let found = bailiwick_agent::definition::load_dir(dir)
        .map_err(|wrong| WiringError::Agents(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    store.agent_sync(&config.agents_account, found).await.map_err(WiringError::Bootstrap)
}

/// The first admin, if the environment names one and there is none.
async fn first_admin(store: &Store, passwords: &Passwords, config: &Config) -> Result<(), WiringError> {
    let Some(FirstAdmin { name, password }) = &config.sign_in.first_admin else { return Ok(()) };
    if !store.first_admin_missing().await.map_err(WiringError::Bootstrap)? {
        tracing::info!("there is an admin already: the variables that name the first one can go");
        return Ok(());
    }
    let stored = passwords.hash(Password::new(password)).await.map_err(|_| PasswordsError::Hash)?;
    let made = store.first_admin_create(name.clone(), stored, FirstBoot::Environment, "this host".to_owned()).await;
    match made {
        Ok(()) => {
            tracing::info!(user = %name, "the first admin was made: change the password, and remove it from the environment");
            Ok(())
        }
        // Another server on the same database was faster.
        Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(WiringError::Bootstrap(error)),
    }
}

/// A code for the set-up from another machine, while there is no admin.
async fn setup_code(store: &Store, walk: &Walk) -> Result<Option<String>, WiringError> {
    if !walk.admits_logins() || !store.set_up_open().await.map_err(WiringError::Bootstrap)? {
        return Ok(None);
    }
    let codes = totp::recovery_codes().map_err(|_| PasswordsError::Hash)?;
    Ok(codes.first().map(|code| code.to_string()))
}

/// The agent `default`: every built-in tool, no approvals inside the sandbox, no way out of it.
pub(crate) fn first_agents() -> Vec<(AgentName, AgentDefinition)> {
    let definition = AgentDefinition {
        name: "Default".to_owned(),
        description: "All built-in tools, in a sandbox without a network.".to_owned(),
        model: ModelName::first(),
        tools: bailiwick_tools::catalogue::BUILT_IN.iter().map(|tool| tool.name.clone()).collect(),
        require_approval: Vec::new(),
        approvers: Vec::new(),
        sandbox: Default::default(),
        elevated: Vec::new(),
        egress: Default::default(),
        limits: Default::default(),
        skills: Vec::new(),
        instructions: "You work in the files of a space, which are in /workspace, with tools that run in a sandbox \
                       without a network. Do what is asked, then say in a few sentences what you did."
            .to_owned(),
    };
    vec![(AgentName::first(), definition)]
}

type Wired = (Models, bailiwick_vault::Redactor, Vec<ModelName>);

fn models(config: &Config, spoken: Option<Script>, keeper: Arc<Keeper>) -> Result<Wired, WiringError> {
    // Reading the system's certificates takes longer than all the rest of the start; once is enough.
    let mut transport: Option<Transport> = None;
    let mut providers = BTreeMap::new();
    let mut keys = ModelKeys::new();
    let mut own = BTreeMap::new();
    for (name, model) in &config.models {
        let shared = match &transport {
            Some(transport) => transport.clone(),
            None => transport.insert(Transport::new(MODEL_CONNECT)?).clone(),
        };
        let built = Provider::new(model, shared);
        providers.insert(name.clone(), built.map_err(|error| WiringError::Model(name.clone(), error))?);
        let key: Option<Zeroizing<String>> = match model.key_source() {
            KeySource::File(path) => {
                Some(read_secret(&path).map_err(|error| WiringError::ModelKey(name.clone(), error))?)
            }
            KeySource::Env(variable) => {
                let value = std::env::var(&variable).map_err(|_| WiringError::ModelKeyVariable(variable))?;
                Some(Zeroizing::new(value))
            }
            KeySource::Secret(secret) => {
                let failed = |error: &dyn std::fmt::Display| WiringError::ModelHost(name.clone(), error.to_string());
                let host = HostName::parse(&model.host().unwrap_or_default()).map_err(|error| failed(&error))?;
                let secret = secret.parse().map_err(|error: bailiwick_types::NameError| failed(&error))?;
                own.insert(name.clone(), OwnKey { secret, host });
                None
            }
            KeySource::NotNeeded | KeySource::NotConfigured => None,
        };
        if let Some(key) = key {
            keys.insert(name.clone(), Secret::new(key.to_string()));
        }
    }
    if let Some(script) = spoken {
        providers.entry(ModelName::first()).or_insert_with(|| Provider::scripted(script));
    }
    let redactor = keys.redactor();
    let names = providers.keys().cloned().collect();
    Ok((Models::new(providers, keys, own, keeper), redactor, names))
}

fn edge(config: &Config, models: Vec<ModelName>) -> web::Settings {
    web::Settings {
        server_name: config.name.clone(),
        public_url: config.public_url.clone(),
        auth_mode: match config.mode {
            AuthMode::Dev => web::AuthMode::Dev,
            AuthMode::ApiKey => web::AuthMode::ApiKey,
            AuthMode::Trusted => web::AuthMode::Trusted,
        },
        trusted_proxies: config.trusted_proxies.clone(),
        ip_allow: config.ip_allow.clone(),
        first_agents: first_agents(),
        models,
        rates: config.rates,
        oauth: config.sign_in.oauth,
        ..web::Settings::default()
    }
}

/// Makes a private folder, or empties it of what an earlier run left.
fn empty_folder(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(dir)
}
