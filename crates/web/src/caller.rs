//! The caller of a request, as a handler takes it. The gate puts it there; a route without a gate has
//! none, and its handler then fails closed.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use bailiwick_auth::authn::{Browser, Directory, RootKeyUse};
use bailiwick_auth::{HostScope, Principal, Scope};
use bailiwick_types::{AccountName, RequestId};
use http::request::Parts;

use crate::app::App;
use crate::error::Failure;
use crate::frame::Peer;
use crate::network;
use crate::presented::{Via, Wanted, browser};

/// Who is calling, in which request, and what they want to work with.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) request: RequestId,
    pub(crate) wanted: Wanted,
    pub(crate) via: Via,
}

impl Caller {
    /// The scope of the caller's own tenant.
    pub(crate) fn scope(&self) -> Result<Scope, Failure> {
        Ok(self.principal.scope(self.request)?)
    }

    /// The scope for acts on the host.
    pub(crate) fn host(&self) -> HostScope {
        self.principal.host_scope(self.request)
    }

    /// The scope for setting up the account of that name. An account that is none of the caller's
    /// business is told apart from none by nobody.
    pub(crate) async fn account(&self, app: &App, name: &str) -> Result<(AccountName, Scope), Failure> {
        let missing = || Failure::not_found("account", name);
        let account: AccountName = name.parse().map_err(|_| missing())?;
        // A gateway that says one account and asks for another one's has a defect, and is told so.
        let named = self.wanted.account.as_ref().filter(|_| app.walk().root_use() == RootKeyUse::Gateway);
        if named.is_some_and(|named| *named != account) {
            return Err(Failure::NotAccepted {
                reason: "account_conflict",
                message: "header X-OpenViking-Account and the path name two accounts",
            });
        }
        let found = app.store().tenant(&account).await.map_err(bailiwick_auth::authn::Rejection::from)?;
        let tenant = found.ok_or_else(missing)?;
        let scope = self.principal.scope_in(&tenant, self.request).ok_or_else(missing)?;
        Ok((account, scope))
    }

    /// The same caller with the rights of now, for a stream that has been open for a while. `None` if
    /// the credential or the user is gone.
    pub(crate) async fn again(&self, app: &App) -> Option<Self> {
        let tenant = self.principal.tenant()?;
        let found = app.walk().look_again(app.store(), &self.principal).await;
        // A namesake that was made anew is somebody else.
        let principal = found.ok().filter(|found| found.tenant() == Some(tenant))?;
        Some(Self { principal, ..self.clone() })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or(Failure::Defect("a handler without a gate asked for its caller"))
    }
}

/// The caller of a route that also answers without a credential.
pub(crate) struct MaybeCaller(pub(crate) Option<Caller>);

impl FromRequestParts<App> for MaybeCaller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Caller>().cloned()))
    }
}

/// Who asks at a door where nobody has to be known.
pub(crate) struct Visitor {
    /// The request.
    pub(crate) request: RequestId,
    /// The socket's far end.
    pub(crate) peer: IpAddr,
    /// The client: the peer, or what a trusted proxy said.
    pub(crate) address: IpAddr,
    /// Whether a page of somebody else could have asked.
    pub(crate) browser: Browser,
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let missing = Failure::Defect("a request without its socket or number");
        let (Some(peer), Some(request)) = (parts.extensions.get::<Peer>(), parts.extensions.get::<RequestId>()) else {
            return Err(missing);
        };
        // What a trusted proxy says unreadably is nobody's address: the proxy's own then counts.
        let address = network::client(peer.0, &parts.headers, &app.settings().trusted_proxies).unwrap_or(peer.0);
        Ok(Self { request: *request, peer: peer.0, address, browser: browser(&parts.headers) })
    }
}
