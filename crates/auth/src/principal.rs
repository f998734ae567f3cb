//! Who is calling, once that is proven; and in which tenant. Made by `authn` alone.

use std::net::IpAddr;
use std::sync::Arc;

use bailiwick_audit::Actor;
use bailiwick_types::{
    AccountName, AgentName, ApplicationId, DeviceId, Incarnation, KeyId, KeyScope, RequestId, Role, SpaceId, Timestamp,
    UserName,
};

use crate::access::policy::AccountPolicies;
use crate::access::scope::{Scope, Standing};

/// A tenant: one life of one account. Comes from the store, by way of authentication; never from a
/// path, a header or a body.
#[derive(Clone)]
pub struct Tenant(pub(crate) Arc<TenantFacts>);

pub(crate) struct TenantFacts {
    pub(crate) account: AccountName,
    pub(crate) incarnation: Incarnation,
    pub(crate) jail_user: u32,
    pub(crate) policies: Arc<AccountPolicies>,
}

impl Tenant {
    /// The account's name, for people.
    pub fn account(&self) -> &AccountName {
        &self.0.account
    }

    /// The account's present life; what storage is keyed by.
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// The account's number in the range of unprivileged users that sandboxes run as.
    pub fn jail_user(&self) -> u32 {
        self.0.jail_user
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        self.0.incarnation == other.0.incarnation
    }
}

impl Eq for Tenant {}

/// Tells one root key from the next: the beginning of its keyed hash. It gives nothing of the key away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootMark(pub(crate) u32);

/// Tells a user's password from the next one, by its kept form. It gives nothing of either away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordMark(pub(crate) u32);

/// By what the caller proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The root key of that mark.
    RootKey(RootMark),
    /// A user's key.
    Key(KeyId),
    /// The token of a login.
    Device(DeviceId),
    /// A token of an application, until then.
    Application {
        /// Which application, by its user's consent.
        id: ApplicationId,
        /// Until when the token is good. The application itself may go on.
        expires_at: Timestamp,
    },
    /// A user's name and password, shown with each request: that one.
    Basic(PasswordMark),
    /// A token of that issuer, until then, as no more than that role.
    Jwt {
        /// Of `[auth.jwt.<name>]`.
        name: String,
        /// Its `exp`.
        expires_at: Timestamp,
        /// What its claim says, if one is configured.
        role: Option<Role>,
    },
    /// A token of that OpenID provider, likewise.
    Oidc {
        /// Of `[auth.oidc.<name>]`.
        name: String,
        /// Its `exp`.
        expires_at: Timestamp,
        /// What its claim says, if one is configured.
        role: Option<Role>,
    },
    /// What a person showed to sign in, in the request that does so; nothing goes on with it.
    SignIn,
    /// An order that a user left, which goes on without them: with their rights of now, for one act alone.
    Standing,
    /// Nothing but a loopback socket, in dev mode.
    LocalDev,
    /// Nothing, where the configuration ends in `none`.
    Anonymous,
}

impl Credential {
    /// As the record shows it.
    pub fn to_text(&self) -> String {
        match self {
            Self::RootKey(RootMark(mark)) => format!("root-key:{mark:08x}"),
            Self::Key(id) => format!("key:{id}"),
            Self::Device(id) => format!("device:{id}"),
            Self::Application { id, expires_at } => format!("application:{id}:{}", expires_at.as_micros()),
            Self::SignIn => "sign-in".to_owned(),
            Self::Basic(PasswordMark(mark)) => format!("basic:{mark:08x}"),
            Self::Jwt { name, expires_at, role } => token_text("jwt", name, *expires_at, *role),
            Self::Oidc { name, expires_at, role } => token_text("oidc", name, *expires_at, *role),
            Self::Standing => "standing".to_owned(),
            Self::LocalDev => "local-dev".to_owned(),
            Self::Anonymous => "none".to_owned(),
        }
    }

    /// Reads what [`Self::to_text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "local-dev" => Some(Self::LocalDev),
            "none" => Some(Self::Anonymous),
            "sign-in" => Some(Self::SignIn),
            "standing" => Some(Self::Standing),
            _ => match text.split_once(':')? {
                ("root-key", mark) => u32::from_str_radix(mark, 16).ok().map(|mark| Self::RootKey(RootMark(mark))),
                ("key", id) => id.parse().ok().map(Self::Key),
                ("basic", mark) => u32::from_str_radix(mark, 16).ok().map(|mark| Self::Basic(PasswordMark(mark))),
                ("device", id) => id.parse().ok().map(Self::Device),
                ("application", rest) => {
                    let (id, end) = rest.split_once(':')?;
                    let expires_at = Timestamp::from_micros(end.parse().ok()?);
                    Some(Self::Application { id: id.parse().ok()?, expires_at })
                }
                ("jwt", rest) => token_parse(rest).map(|(name, expires_at, role)| Self::Jwt { name, expires_at, role }),
                ("oidc", rest) => {
                    token_parse(rest).map(|(name, expires_at, role)| Self::Oidc { name, expires_at, role })
                }
                _ => None,
            },
        }
    }

    /// The authenticator's name, as eve's `SessionAuthContext.authenticator`.
    pub fn authenticator(&self) -> &'static str {
        match self {
            Self::RootKey(_) | Self::Key(_) => "api-key",
            Self::Device(_) | Self::SignIn => "session",
            Self::Application { .. } => "oauth",
            Self::Basic(_) => "http-basic",
            Self::Jwt { .. } => "jwt",
            Self::Oidc { .. } => "oidc",
            Self::Standing => "standing",
            Self::LocalDev => "local-dev",
            Self::Anonymous => "none",
        }
    }
}

fn token_text(kind: &str, name: &str, expires_at: Timestamp, role: Option<Role>) -> String {
    format!("{kind}:{name}:{}:{}", expires_at.as_micros(), role.map_or("", Role::as_str))
}

fn token_parse(text: &str) -> Option<(String, Timestamp, Option<Role>)> {
    let mut parts = text.rsplitn(3, ':');
    let (role, end, name) = (parts.next()?, parts.next()?, parts.next()?);
    let role = if role.is_empty() { None } else { Some(role.parse().ok()?) };
    Some((name.to_owned(), Timestamp::from_micros(end.parse().ok()?), role))
}

/// What a credential allows of what its user may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// For what.
    pub scopes: Vec<KeyScope>,
    /// In which space alone.
    pub space: Option<SpaceId>,
    /// With which agent alone.
    pub agent: Option<AgentName>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

impl Bounds {
    /// No bounds.
    pub fn none() -> Self {
        Self { scopes: KeyScope::ALL.to_vec(), space: None, agent: None, expires_at: None }
    }

    /// Whether it has fewer scopes than there are, or an end. Such a credential makes no others, which
    /// could outlast or outdo it.
    pub fn is_limited(&self) -> bool {
        self.expires_at.is_some() || KeyScope::ALL.iter().any(|scope| !self.scopes.contains(scope))
    }
}

/// A user of a tenant, as looked up for this request.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) tenant: Tenant,
    pub(crate) user: UserName,
    pub(crate) role: Role,
    pub(crate) bounds: Bounds,
}

/// What authentication found the caller to be.
#[derive(Clone)]
pub(crate) enum Found {
    /// The operator, perhaps acting as a user by explicit headers.
    Operator(Option<Member>),
    User(Member),
}

/// Someone who proved who they are. Only `authn` makes one.
#[derive(Clone)]
pub struct Principal {
    pub(crate) found: Found,
    pub(crate) credential: Credential,
    pub(crate) address: IpAddr,
}

/// The operator's key reached a tenant's route without saying which tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this route is about one account's data: send X-OpenViking-Account and X-OpenViking-User, or use a user's key")]
pub struct NoTenant;

impl Principal {
    /// The scope of the caller's own tenant.
    ///
    /// # Errors
    /// If the caller is the operator and named no tenant.
    pub fn scope(&self, request: RequestId) -> Result<Scope, NoTenant> {
        let (member, actor) = match &self.found {
            Found::User(member) => (member, Actor::User(member.user.clone())),
            Found::Operator(Some(member)) => (member, Actor::OperatorFor(member.user.clone())),
            Found::Operator(None) => return Err(NoTenant),
        };
        Ok(Scope::new(
            member.tenant.clone(),
            Standing::User { user: member.user.clone(), role: member.role, bounds: member.bounds.clone() },
            actor,
            self.credential.clone(),
            self.address,
            request,
        ))
    }

    /// The scope for setting up `tenant`: any account for the operator, one's own for a user.
    /// `None` where that account is none of the caller's business; answer as if it did not exist.
    pub fn scope_in(&self, tenant: &Tenant, request: RequestId) -> Option<Scope> {
        match &self.found {
            Found::User(member) if member.tenant == *tenant => self.scope(request).ok(),
            Found::User(_) => None,
            Found::Operator(_) => Some(Scope::new(
                tenant.clone(),
                Standing::Operator,
                Actor::Operator,
                self.credential.clone(),
                self.address,
                request,
            )),
        }
    }

    /// The scope for acts on the whole host. Anyone may have one; what it permits, the policy says.
    pub fn host_scope(&self, request: RequestId) -> HostScope {
        let actor = match &self.found {
            Found::Operator(_) => Actor::Operator,
            Found::User(member) => Actor::User(member.user.clone()),
        };
        HostScope {
            member: match &self.found {
                Found::Operator(_) => None,
                Found::User(member) => Some(member.clone()),
            },
            actor,
            credential: self.credential.clone(),
            address: self.address,
            request,
        }
    }

    /// The tenant, unless the caller is the operator and named none.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.member().map(|member| &member.tenant)
    }

    /// The user's name, unless the caller is the operator and named none.
    pub fn user(&self) -> Option<&UserName> {
        self.member().map(|member| &member.user)
    }

    /// The user's role, unless the caller is the operator and named none.
    pub fn role(&self) -> Option<Role> {
        self.member().map(|member| member.role)
    }

    /// What the credential allows.
    pub fn bounds(&self) -> Option<&Bounds> {
        self.member().map(|member| &member.bounds)
    }

    /// Whether the root key, or dev mode's stand-in for it, was shown.
    pub fn is_operator(&self) -> bool {
        matches!(self.found, Found::Operator(_))
    }

    /// By what the caller proved who they are.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Where the request came from.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    fn member(&self) -> Option<&Member> {
        match &self.found {
            Found::User(member) => Some(member),
            Found::Operator(member) => member.as_ref(),
        }
    }
}

/// A caller and a request, for acts on the whole host. A different type from [`Scope`], so that no
/// tenant's act can be reached through it.
#[derive(Clone)]
pub struct HostScope {
    pub(crate) member: Option<Member>,
    pub(crate) actor: Actor,
    pub(crate) credential: Credential,
    pub(crate) address: IpAddr,
    pub(crate) request: RequestId,
}
