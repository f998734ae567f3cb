//! Credential → [`Principal`]: an ordered walk that fails closed.
//!
//! Each step accepts, skips, or rejects. The first that accepts or rejects ends the walk; if all skip,
//! or there are none, the caller is unauthenticated. Anonymous callers are admitted only where the
//! configuration ends in `none`.

pub mod application;
mod basic;
pub mod jwt;
pub mod oidc;
pub mod outbound;
pub mod passkey;
pub mod sign_in;
mod standing;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_types::{
    AccountName, AgentName, ApplicationId, DeviceId, KeyId, KeyScope, PasskeyId, Role, SpaceId, Timestamp, UserName,
};

use crate::key::{Form, KeyHash, KeyRing, Kind, PresentedKey};
use crate::lockout::Tally;
use crate::password::Password;
use crate::principal::{Bounds, Credential, Found, Member, Principal, RootMark, Tenant};
use application::{ApplicationRecord, TokenRecord};
use basic::Basic;
use jwt::Issuer;
use passkey::PasskeyRecord;
use sign_in::{SignInError, SignInRecord, SignIns};
pub use standing::StandingOrder;

/// The rows that authentication reads. The store implements it; nobody else may (`xtask tidy` checks).
pub trait Directory: Send + Sync {
    /// The key of that id, if there is one.
    fn key(&self, id: &KeyId) -> impl Future<Output = Result<Option<KeyRecord>, DirectoryError>> + Send;
    /// Notes that the key was just used. Nobody waits for it.
    fn key_used(&self, id: &KeyId, record: &KeyRecord);
    /// The active account of that name, if there is one.
    fn tenant(&self, account: &AccountName) -> impl Future<Output = Result<Option<Tenant>, DirectoryError>> + Send;
    /// The role of a user, if there is such a user.
    fn role(
        &self,
        tenant: &Tenant,
        user: &UserName,
    ) -> impl Future<Output = Result<Option<Role>, DirectoryError>> + Send;
    /// The login of that id, if there is one.
    fn device(&self, id: &DeviceId) -> impl Future<Output = Result<Option<DeviceRecord>, DirectoryError>> + Send;
    /// Notes that the login is in use. Nobody waits for it.
    fn device_seen(&self, id: &DeviceId, record: &DeviceRecord, client: IpAddr);
    /// Ends a login that nobody used for too long, on record.
    fn device_timed_out(
        &self,
        id: &DeviceId,
        record: &DeviceRecord,
        client: IpAddr,
    ) -> impl Future<Output = Result<(), DirectoryError>> + Send;
    /// The application of that id, if its user still lets it act.
    fn application(
        &self,
        id: &ApplicationId,
    ) -> impl Future<Output = Result<Option<ApplicationRecord>, DirectoryError>> + Send;
    /// The credential of an application that has that hash, if there is one: also one that was used or is too
    /// old, which is for the caller to judge.
    fn application_token(
        &self,
        id: &ApplicationId,
        kind: Kind,
        hash: &KeyHash,
    ) -> impl Future<Output = Result<Option<TokenRecord>, DirectoryError>> + Send;
    /// What a user's attempt to sign in is held against, if there is such a user.
    fn sign_in(
        &self,
        account: &AccountName,
        user: &UserName,
    ) -> impl Future<Output = Result<Option<SignInRecord>, DirectoryError>> + Send;
    /// The passkey of that id, with whose it is, if there is one.
    fn passkey(&self, id: &PasskeyId) -> impl Future<Output = Result<Option<PasskeyRecord>, DirectoryError>> + Send;
    /// Changes what is counted for a subject of [`crate::lockout`], which begins with nothing.
    fn tally<T: Send + 'static>(
        &self,
        subject: String,
        change: impl FnOnce(&mut Tally) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, DirectoryError>> + Send;
}

/// The directory could not be read. Nobody is let in.
#[derive(Debug, thiserror::Error)]
#[error("the directory could not be read")]
pub struct DirectoryError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A key's row, with its holder.
#[derive(Clone)]
pub struct KeyRecord {
    /// The keyed hash.
    pub hash: KeyHash,
    /// The holder's tenant.
    pub tenant: Tenant,
    /// The holder.
    pub user: UserName,
    /// The holder's role now.
    pub role: Role,
    /// For what.
    pub scopes: Vec<KeyScope>,
    /// In which space alone.
    pub space: Option<SpaceId>,
    /// With which agent alone.
    pub agent: Option<AgentName>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as that is noted.
    pub last_used_at: Option<Timestamp>,
}

/// A login's row, with whose it is.
#[derive(Clone)]
pub struct DeviceRecord {
    /// The token's keyed hash.
    pub hash: KeyHash,
    /// The user's tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: UserName,
    /// The user's role now.
    pub role: Role,
    /// When it was last in use, as far as that is noted.
    pub last_seen_at: Timestamp,
}

/// What a request shows of its caller.
pub struct Presented {
    /// `X-API-Key`, else the bearer token, else the cookie `vibe_session`.
    pub key: Option<PresentedKey>,
    /// The name and the password of `Authorization: Basic`.
    pub basic: Option<(String, Password)>,
    /// `X-OpenViking-Account`; honoured from the operator alone.
    pub account: Option<AccountName>,
    /// `X-OpenViking-User`; honoured from the operator alone.
    pub user: Option<UserName>,
    /// The path that is asked for. A token for a part of the server is none elsewhere.
    pub path: String,
    /// The peer's socket address. Never a header.
    pub peer: IpAddr,
    /// The client's address for the record: the peer's, or what a trusted proxy said. Decides nothing.
    pub client: IpAddr,
    /// Whether the request could have been made by a page of somebody else in the caller's browser.
    pub browser: Browser,
    /// Whether the socket's far end is a proxy that is believed.
    pub gateway: Gateway,
}

/// Who holds the far end of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// One of `server.trusted_proxies`.
    Trusted,
    /// Anybody.
    Anybody,
}

/// What the root key together with the headers of a tenant means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootKeyUse {
    /// The operator acts for that user, and it is on record as such.
    #[default]
    Operator,
    /// A gateway has authenticated that user (`auth.mode = "trusted"`). The key counts from trusted proxies
    /// alone.
    Gateway,
}

/// Where a request was made, as far as its headers tell. It matters where a socket alone lets a caller
/// in: every page that the developer's browser shows can reach the loopback, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browser {
    /// By a program on this host, or by a page that this server gave out.
    Own,
    /// Perhaps by a page of another origin, by a name that is not this host's own, or through a proxy.
    Foreign,
}

/// A step of the walk (`auth.walk`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The root key, or a user's key.
    ApiKey,
    /// The token of a login.
    Session,
    /// A user's name and password with each request (RFC 7617).
    Basic,
    /// A token of that issuer, `[auth.jwt.<name>]`.
    Jwt(String),
    /// A token of that OpenID provider, `[auth.oidc.<name>]`.
    Oidc(String),
    /// A loopback socket in dev mode.
    LocalDev,
    /// Fails closed, and says that authentication is not set up.
    Placeholder,
    /// Anyone, as the user `anonymous` of account `default`.
    Anonymous,
}

impl Step {
    /// Reads a word of `auth.walk`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "api_key" => Some(Self::ApiKey),
            "session" => Some(Self::Session),
            "basic" => Some(Self::Basic),
            "local_dev" => Some(Self::LocalDev),
            "placeholder" => Some(Self::Placeholder),
            "none" => Some(Self::Anonymous),
            _ => match text.split_once(':')? {
                (_, "") => None,
                ("jwt", name) => Some(Self::Jwt(name.to_owned())),
                ("oidc", name) => Some(Self::Oidc(name.to_owned())),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::ApiKey => "api_key",
            Self::Session => "session",
            Self::Basic => "basic",
            Self::Jwt(name) => return write!(f, "jwt:{name}"),
            Self::Oidc(name) => return write!(f, "oidc:{name}"),
            Self::LocalDev => "local_dev",
            Self::Placeholder => "placeholder",
            Self::Anonymous => "none",
        };
        f.write_str(word)
    }
}

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// No credential that any step knows.
    #[error("Missing API Key when resolving identity.")]
    Missing,
    /// A credential, and it is wrong, expired or revoked: which, is not said.
    #[error("Invalid API key")]
    Invalid,
    /// The login was not used for too long, and is gone.
    #[error("Signed out: nobody used this login for too long.")]
    TimedOut,
    /// A name and a password that were not taken.
    #[error(transparent)]
    SignIn(SignInError),
    /// `placeholder`: nobody has set authentication up.
    #[error("Authentication is not set up on this server: replace `placeholder` in auth.walk.")]
    NotConfigured,
    /// A token of an issuer whose keys cannot be had just now: nothing is proven.
    #[error(transparent)]
    Issuer(#[from] jwt::Unavailable),
    /// The operator named an account or user that is not there.
    #[error("There is no such account or user: check X-OpenViking-Account and X-OpenViking-User.")]
    NoSuchTenant,
    /// Only one of the two tenant headers.
    #[error("Send X-OpenViking-Account and X-OpenViking-User together.")]
    HalfTenant,
    /// The directory could not be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// The walk, and what its steps need.
pub struct Walk {
    steps: Vec<Step>,
    ring: KeyRing,
    root: Option<KeyHash>,
    idle: Option<Duration>,
    root_use: RootKeyUse,
    issuers: Vec<Issuer>,
    basic: Option<Basic>,
}

/// Where the anonymous and the local developer live.
const FIRST_USER: &str = "default";
const ANONYMOUS_USER: &str = "anonymous";
/// How long a login may lie unused, unless the configuration says otherwise.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How often a login's use is written down at most. Finer would be a write for every read.
const SEEN_EVERY: Duration = Duration::from_secs(60);

impl Walk {
    /// A walk over `steps`. `root_key` is the operator's key in the clear; only its hash is kept.
    pub fn new(steps: Vec<Step>, ring: KeyRing, root_key: Option<&str>) -> Self {
        let root = root_key.map(|text| ring.hash(text));
        Self { steps, ring, root, idle: Some(IDLE), root_use: RootKeyUse::default(), issuers: Vec::new(), basic: None }
    }

    /// With another limit on how long a login may lie unused; without one, `None`.
    #[must_use]
    pub fn with_idle(self, idle: Option<Duration>) -> Self {
        Self { idle, ..self }
    }

    /// With another meaning of the root key beside the headers of a tenant.
    #[must_use]
    pub fn with_root_use(self, root_use: RootKeyUse) -> Self {
        Self { root_use, ..self }
    }

    /// With the issuers that steps name.
    #[must_use]
    pub fn with_issuers(self, issuers: Vec<Issuer>) -> Self {
        Self { issuers, ..self }
    }

    /// With what checks passwords, for the step `basic`.
    #[must_use]
    pub fn with_sign_ins(self, sign_ins: Arc<SignIns>) -> Self {
        Self { basic: Some(Basic::new(sign_ins)), ..self }
    }

    /// Whether a name and a password are of any use with each request.
    pub fn admits_basic(&self) -> bool {
        self.steps.contains(&Step::Basic)
    }

    /// What the root key means beside the headers of a tenant.
    pub fn root_use(&self) -> RootKeyUse {
        self.root_use
    }

    /// How long a login may lie unused.
    pub fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// Whether logins are of any use here.
    pub fn admits_logins(&self) -> bool {
        self.steps.contains(&Step::Session)
    }

    /// Makes and checks keys.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Whether dev mode's step is in the walk.
    pub fn admits_local_dev(&self) -> bool {
        self.steps.contains(&Step::LocalDev)
    }

    /// Walks.
    ///
    /// # Errors
    /// If a step rejects, or all skip.
    pub async fn authenticate(&self, directory: &impl Directory, shown: &Presented) -> Result<Principal, Rejection> {
        for step in &self.steps {
            let accepted = match step {
                Step::ApiKey => self.api_key(directory, shown).await?,
                Step::Session => self.session(directory, shown).await?,
                Step::Basic => self.with_password(directory, shown).await?,
                Step::Jwt(_) | Step::Oidc(_) => self.token(directory, shown, step).await?,
                Step::LocalDev => self.local_dev(directory, shown).await?,
                Step::Placeholder => return Err(Rejection::NotConfigured),
                Step::Anonymous => self.anonymous(directory, shown).await?,
            };
            if let Some(principal) = accepted {
                return Ok(principal);
            }
        }
        // Something that no step knows is wrong, not missing.
        Err(if shown.key.is_some() { Rejection::Invalid } else { Rejection::Missing })
    }

    /// Finds again the caller of a turn that is under way: the user must still be there, the key still
    /// hold. The turn goes on with the rights of now, not of then.
    ///
    /// # Errors
    /// If the credential or the user is gone.
    pub async fn resume(
        &self,
        directory: &impl Directory,
        account: &AccountName,
        user: &UserName,
        credential: &Credential,
        address: IpAddr,
    ) -> Result<Principal, Rejection> {
        let found = match credential {
            Credential::Key(_) if !self.steps.contains(&Step::ApiKey) => return Err(Rejection::Invalid),
            Credential::Key(id) => {
                let record = directory.key(id).await?.filter(still_good).ok_or(Rejection::Invalid)?;
                if record.tenant.account() != account || record.user != *user {
                    return Err(Rejection::Invalid);
                }
                Found::User(member_of(record))
            }
            Credential::Device(_) if !self.admits_logins() => return Err(Rejection::Invalid),
            // A turn goes on while its user is away; that the login lay unused is no reason to end it.
            Credential::Device(id) => {
                let record = directory.device(id).await?.ok_or(Rejection::Invalid)?;
                if record.tenant.account() != account || record.user != *user {
                    return Err(Rejection::Invalid);
                }
                Found::User(member_of_device(&record))
            }
            Credential::Application { .. } if !self.admits_logins() => return Err(Rejection::Invalid),
            // A turn goes on while its application may renew its token.
            Credential::Application { id, expires_at } => {
                let record = directory.application(id).await?.ok_or(Rejection::Invalid)?;
                if record.tenant.account() != account || record.user != *user {
                    return Err(Rejection::Invalid);
                }
                Found::User(record.member(*expires_at))
            }
            Credential::SignIn | Credential::Standing => return Err(Rejection::Invalid),
            Credential::Basic(_) if !self.admits_basic() => return Err(Rejection::Invalid),
            Credential::Basic(mark) => {
                let record = directory.sign_in(account, user).await?.ok_or(Rejection::Invalid)?;
                // Another password, or a second factor, is another way in.
                if basic::of_record(&self.ring, &record) != Some(*mark) {
                    return Err(Rejection::Invalid);
                }
                Found::User(named(directory, account, user).await?)
            }
            Credential::Jwt { name, .. } if !self.steps.contains(&Step::Jwt(name.clone())) => {
                return Err(Rejection::Invalid);
            }
            Credential::Oidc { name, .. } if !self.steps.contains(&Step::Oidc(name.clone())) => {
                return Err(Rejection::Invalid);
            }
            Credential::Jwt { expires_at, role, .. } | Credential::Oidc { expires_at, role, .. } => {
                Found::User(jwt::bounded(named(directory, account, user).await?, *expires_at, *role)?)
            }
            // The root key of then must be the one of now.
            Credential::RootKey(mark) if Some(*mark) != self.root_mark() => return Err(Rejection::Invalid),
            Credential::RootKey(_) => {
                let member = named(directory, account, user).await?;
                match self.root_use {
                    RootKeyUse::Operator => Found::Operator(Some(member)),
                    RootKeyUse::Gateway => Found::User(member),
                }
            }
            Credential::LocalDev if !self.admits_local_dev() => return Err(Rejection::Invalid),
            Credential::LocalDev => Found::Operator(Some(named(directory, account, user).await?)),
            Credential::Anonymous if !self.steps.contains(&Step::Anonymous) => return Err(Rejection::Invalid),
            Credential::Anonymous => Found::User(named(directory, account, user).await?),
        };
        Ok(Principal { found, credential: credential.clone(), address })
    }

    /// Looks again at who opened a stream: as [`Self::resume`], and their login must be in use.
    ///
    /// # Errors
    /// If the credential or the user is gone, or the login lay unused for too long.
    pub async fn look_again(&self, directory: &impl Directory, principal: &Principal) -> Result<Principal, Rejection> {
        let (Some(tenant), Some(user)) = (principal.tenant(), principal.user()) else { return Err(Rejection::Invalid) };
        if let (Credential::Device(id), Some(idle)) = (principal.credential(), self.idle) {
            let record = directory.device(id).await?.ok_or(Rejection::Invalid)?;
            if since(record.last_seen_at) > idle {
                return Err(Rejection::TimedOut);
            }
        }
        if let Credential::Application { expires_at, .. } = principal.credential()
            && *expires_at <= Timestamp::now()
        {
            return Err(Rejection::Invalid);
        }
        let (account, address) = (tenant.account(), principal.address());
        self.resume(directory, account, user, principal.credential(), address).await
    }

    /// The root key's mark, if the walk asks for keys at all.
    fn root_mark(&self) -> Option<RootMark> {
        self.root.as_ref().filter(|_| self.steps.contains(&Step::ApiKey)).map(KeyHash::mark)
    }

    async fn api_key(&self, directory: &impl Directory, shown: &Presented) -> Result<Option<Principal>, Rejection> {
        let Some(key) = &shown.key else { return Ok(None) };
        if let Some(root) = self.root.as_ref().filter(|root| self.ring.matches(key, root)) {
            let member = match (&shown.account, &shown.user) {
                (Some(account), Some(user)) => Some(named(directory, account, user).await?),
                (None, None) => None,
                _ => return Err(Rejection::HalfTenant),
            };
            let found = match (self.root_use, member) {
                (RootKeyUse::Operator, member) => Found::Operator(member),
                // The key of a gateway that anybody could show from anywhere would be everybody's key.
                (RootKeyUse::Gateway, _) if shown.gateway != Gateway::Trusted => return Err(Rejection::Invalid),
                (RootKeyUse::Gateway, Some(member)) => Found::User(member),
                (RootKeyUse::Gateway, None) => Found::Operator(None),
            };
            let credential = Credential::RootKey(root.mark());
            return Ok(Some(Principal { found, credential, address: shown.client }));
        }
        // What has not the form of a key is for another step.
        let Form::Key(id) = key.form() else { return Ok(None) };
        let Some(record) = directory.key(id).await? else { return Err(Rejection::Invalid) };
        if !self.ring.matches(key, &record.hash) || !still_good(&record) {
            return Err(Rejection::Invalid);
        }
        directory.key_used(id, &record);
        let credential = Credential::Key(id.clone());
        Ok(Some(Principal { found: Found::User(member_of(record)), credential, address: shown.client }))
    }

    async fn session(&self, directory: &impl Directory, shown: &Presented) -> Result<Option<Principal>, Rejection> {
        let (key, id) = match shown.key.as_ref().map(|key| (key, key.form())) {
            Some((key, Form::Device(id))) => (key, id),
            Some((key, Form::Application(kind, id))) => {
                return self.application(directory, (key, *kind, id), shown).await.map(Some);
            }
            _ => return Ok(None),
        };
        let Some(record) = directory.device(id).await? else { return Err(Rejection::Invalid) };
        // The hash first: who does not hold the token ends nobody's login.
        if !self.ring.matches(key, &record.hash) {
            return Err(Rejection::Invalid);
        }
        let unused = since(record.last_seen_at);
        if self.idle.is_some_and(|idle| unused > idle) {
            directory.device_timed_out(id, &record, shown.client).await?;
            return Err(Rejection::TimedOut);
        }
        // Often enough that nobody who is there is taken for away.
        if unused >= self.idle.map_or(SEEN_EVERY, |idle| SEEN_EVERY.min(idle / 10)) {
            directory.device_seen(id, &record, shown.client);
        }
        let (found, credential) = (Found::User(member_of_device(&record)), Credential::Device(id.clone()));
        Ok(Some(Principal { found, credential, address: shown.client }))
    }

    async fn with_password(
        &self,
        directory: &impl Directory,
        shown: &Presented,
    ) -> Result<Option<Principal>, Rejection> {
        let (Some(basic), Some((name, password))) = (&self.basic, &shown.basic) else { return Ok(None) };
        let (member, mark) = basic.check(directory, &self.ring, name, password, shown.client).await?;
        Ok(Some(Principal { found: Found::User(member), credential: Credential::Basic(mark), address: shown.client }))
    }

    async fn token(
        &self,
        directory: &impl Directory,
        shown: &Presented,
        step: &Step,
    ) -> Result<Option<Principal>, Rejection> {
        let Some((key, Form::Other)) = shown.key.as_ref().map(|key| (key, key.form())) else { return Ok(None) };
        let Some(issuer) = self.issuers.iter().find(|issuer| issuer.step() == step) else { return Ok(None) };
        let Some(claimed) = issuer.read(key.text()).await? else { return Ok(None) };
        let member = named(directory, &claimed.account, &claimed.user).await.map_err(|error| match error {
            // Whom a token names is not said to whom it names.
            Rejection::NoSuchTenant => Rejection::Invalid,
            other => other,
        })?;
        if issuer.wants_ours() {
            let record = directory.sign_in(&claimed.account, &claimed.user).await?;
            if record.is_none_or(|record| record.has_second_factor()) {
                return Err(Rejection::Invalid);
            }
        }
        let (expires_at, role) = (claimed.expires_at, claimed.role);
        let member = jwt::bounded(member, expires_at, role)?;
        let credential = match step {
            Step::Oidc(name) => Credential::Oidc { name: name.clone(), expires_at, role },
            Step::Jwt(name) => Credential::Jwt { name: name.clone(), expires_at, role },
            _ => return Ok(None),
        };
        Ok(Some(Principal { found: Found::User(member), credential, address: shown.client }))
    }

    async fn local_dev(&self, directory: &impl Directory, shown: &Presented) -> Result<Option<Principal>, Rejection> {
        // Who shows a credential wants to be known by it.
        if shown.key.is_some() {
            return Ok(None);
        }
        if !shown.peer.to_canonical().is_loopback() || shown.browser == Browser::Foreign {
            return Ok(None);
        }
        let member = match (&shown.account, &shown.user) {
            (Some(account), Some(user)) => named(directory, account, user).await?,
            (None, None) => {
                let user = FIRST_USER.parse().map_err(|_| Rejection::NoSuchTenant)?;
                named(directory, &AccountName::first(), &user).await?
            }
            _ => return Err(Rejection::HalfTenant),
        };
        let found = Found::Operator(Some(member));
        Ok(Some(Principal { found, credential: Credential::LocalDev, address: shown.client }))
    }

    async fn anonymous(&self, directory: &impl Directory, shown: &Presented) -> Result<Option<Principal>, Rejection> {
        // A wrong credential is never better than none.
        if shown.key.is_some() {
            return Ok(None);
        }
        let user = ANONYMOUS_USER.parse().map_err(|_| Rejection::NoSuchTenant)?;
        let found = Found::User(named(directory, &AccountName::first(), &user).await?);
        Ok(Some(Principal { found, credential: Credential::Anonymous, address: shown.client }))
    }
}

fn still_good(record: &KeyRecord) -> bool {
    record.expires_at.is_none_or(|end| Timestamp::now() < end)
}

fn member_of(record: KeyRecord) -> Member {
    Member {
        tenant: record.tenant,
        user: record.user,
        role: record.role,
        bounds: Bounds {
            scopes: record.scopes,
            space: record.space,
            agent: record.agent,
            expires_at: record.expires_at,
        },
    }
}

fn member_of_device(record: &DeviceRecord) -> Member {
    let DeviceRecord { tenant, user, role, .. } = record.clone();
    Member { tenant, user, role, bounds: Bounds::none() }
}

/// How long ago; nothing, if the clock was set back.
fn since(then: Timestamp) -> Duration {
    let micros = Timestamp::now().as_micros().saturating_sub(then.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

async fn named(directory: &impl Directory, account: &AccountName, user: &UserName) -> Result<Member, Rejection> {
    let tenant = directory.tenant(account).await?.ok_or(Rejection::NoSuchTenant)?;
    let role = directory.role(&tenant, user).await?.ok_or(Rejection::NoSuchTenant)?;
    Ok(Member { tenant, user: user.clone(), role, bounds: Bounds::none() })
}
