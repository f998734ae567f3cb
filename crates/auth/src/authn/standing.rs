//! Orders that users left: what goes on without the credential by which it was begun, because it is for an account and
//! for as long as its admins want it.

use std::net::{IpAddr, Ipv4Addr};

use bailiwick_types::{AccountName, RequestId, UserName};

use super::{Directory, Rejection, Walk, named};
use crate::access::verb::SendNotification;
use crate::access::{Notification, Permit, Refusal, Scope};
use crate::principal::{Credential, Found, Principal, Tenant};

/// What a user's order permits, and nothing else: there is no way from it to their other rights.
pub struct StandingOrder(Scope);

impl StandingOrder {
    /// In which tenant.
    pub fn tenant(&self) -> &Tenant {
        self.0.tenant()
    }

    /// Asks the policy whether a target of notifications may be told something.
    ///
    /// # Errors
    /// The refusal.
    pub fn send(&self, target: Notification) -> Result<Permit<SendNotification>, Refusal> {
        self.0.authorize(target)
    }
}

impl Walk {
    /// The order that a user left when they set a target of notifications, with the rights that they have now.
    ///
    /// # Errors
    /// If the user is gone.
    pub async fn standing(
        &self,
        directory: &impl Directory,
        account: &AccountName,
        user: &UserName,
    ) -> Result<StandingOrder, Rejection> {
        let found = Found::User(named(directory, account, user).await?);
        // Nobody asks from anywhere: it is the server itself.
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let principal = Principal { found, credential: Credential::Standing, address };
        principal.scope(RequestId::new()).map(StandingOrder).map_err(|_| Rejection::NoSuchTenant)
    }
}
