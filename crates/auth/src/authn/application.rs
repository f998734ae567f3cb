//! Tokens of applications: what a user lets somebody else's program do for them (RFC 6749, RFC 9700).
//!
//! An access token is a login with bounds. It has the role that its user has now, the scopes, agent and space
//! that they gave it, and an end; so it makes no keys and changes no sign-in, by the policy that there is. A
//! code or a refresh token is a way to such a token and nothing else: no route but that of tokens takes one.

use std::net::IpAddr;

use bailiwick_types::{AgentName, ApplicationId, KeyScope, Role, SpaceId, Timestamp, UserName};

use super::{Directory, DirectoryError, Presented, Rejection, Walk};
use crate::key::{Form, Kind, PresentedKey};
use crate::principal::{Bounds, Credential, Found, Member, Principal, Tenant};

/// An application's row, with whose it is.
#[derive(Clone)]
pub struct ApplicationRecord {
    /// The user's tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: UserName,
    /// The user's role now.
    pub role: Role,
    /// For what.
    pub scopes: Vec<KeyScope>,
    /// In which space alone.
    pub space: Option<SpaceId>,
    /// With which agent alone.
    pub agent: Option<AgentName>,
    /// Beneath which path of this server alone; empty for all of it (RFC 8707).
    pub resource: String,
}

impl ApplicationRecord {
    /// The user, as far as the application may act for them.
    pub(super) fn member(self, expires_at: Timestamp) -> Member {
        let Self { tenant, user, role, scopes, space, agent, .. } = self;
        Member { tenant, user, role, bounds: Bounds { scopes, space, agent, expires_at: Some(expires_at) } }
    }

    /// Whether a token of it is meant for that path.
    fn is_for(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.resource.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// One credential's row, with its application.
#[derive(Clone)]
pub struct TokenRecord {
    /// Of which application. Its scopes are those of this very token, which may be fewer.
    pub application: ApplicationRecord,
    /// Until when.
    pub expires_at: Timestamp,
}

impl Walk {
    /// By an access token.
    pub(super) async fn application(
        &self,
        directory: &impl Directory,
        (key, kind, id): (&PresentedKey, Kind, &ApplicationId),
        shown: &Presented,
    ) -> Result<Principal, Rejection> {
        // What is for the route of tokens alone proves nothing elsewhere.
        if kind != Kind::Access {
            return Err(Rejection::Invalid);
        }
        let hash = self.ring().hash(key.text());
        let found = directory.application_token(id, kind, &hash).await?;
        let TokenRecord { application, expires_at } = found.ok_or(Rejection::Invalid)?;
        if expires_at <= Timestamp::now() || !application.is_for(&shown.path) {
            return Err(Rejection::Invalid);
        }
        let credential = Credential::Application { id: id.clone(), expires_at };
        Ok(Principal { found: Found::User(application.member(expires_at)), credential, address: shown.client })
    }

    /// Who is behind a credential that an application shows at the route of tokens, and of which kind it is.
    /// It may be used up or too old: whoever is asked for tokens judges that in the act's own transaction, so
    /// that what comes twice is seen. `None` if it is none of ours.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub async fn holder(
        &self,
        directory: &impl Directory,
        shown: &PresentedKey,
        client: IpAddr,
    ) -> Result<Option<(Principal, Kind, ApplicationId)>, DirectoryError> {
        let Form::Application(kind, id) = shown.form() else { return Ok(None) };
        let hash = self.ring().hash(shown.text());
        let Some(record) = directory.application_token(id, *kind, &hash).await? else { return Ok(None) };
        let credential = Credential::Application { id: id.clone(), expires_at: record.expires_at };
        let found = Found::User(record.application.member(record.expires_at));
        Ok(Some((Principal { found, credential, address: client }, *kind, id.clone())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use bailiwick_types::Incarnation;

    use super::*;
    use crate::access::policy::AccountPolicies;

    #[test]
    fn a_token_for_a_part_of_the_server_is_none_for_a_namesake_of_it() {
        let policies: Arc<AccountPolicies> = AccountPolicies::none();
        let of = |resource: &str| ApplicationRecord {
            tenant: crate::for_store::tenant("acme".parse().unwrap(), Incarnation::new(), 1, Arc::clone(&policies)),
            user: "alice".parse().unwrap(),
            role: Role::Member,
            scopes: vec![KeyScope::Read],
            space: None,
            agent: None,
            resource: resource.to_owned(),
        };
        assert!(of("").is_for("/api/v1/spaces") && of("").is_for("/"));
        assert!(of("/eve").is_for("/eve") && of("/eve").is_for("/eve/v1/info"));
        for other in ["/eves/v1", "/api/v1/eve", "/", "", "/EVE/v1", "eve"] {
            assert!(!of("/eve").is_for(other), "{other}");
        }
    }
}
