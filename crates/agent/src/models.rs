//! The configured models and their credentials: the operator's, or each account's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallModel;
use bailiwick_model::Provider;
use bailiwick_tools::{Keeper, Withheld};
use bailiwick_types::{HostName, ModelName, SecretName};
use bailiwick_vault::{ModelKeys, Released};

/// The configured models. A credential leaves only against the record of the call that needs it.
pub struct Models {
    providers: BTreeMap<ModelName, Provider>,
    keys: ModelKeys,
    own: BTreeMap<ModelName, OwnKey>,
    keeper: Arc<Keeper>,
}

/// Where the key of a model is that each account brings.
#[derive(Debug, Clone)]
pub struct OwnKey {
    /// The account's secret.
    pub secret: SecretName,
    /// The host that is called, for which the secret must be granted.
    pub host: HostName,
}

/// There is no key for a call, and nothing was sent.
pub(crate) struct NoKey<'m> {
    pub(crate) wanted: &'m OwnKey,
    pub(crate) why: Withheld,
}

impl Models {
    /// Models, the operator's credentials, which keys the accounts bring, and who releases those.
    pub fn new(
        providers: BTreeMap<ModelName, Provider>,
        keys: ModelKeys,
        own: BTreeMap<ModelName, OwnKey>,
        keeper: Arc<Keeper>,
    ) -> Self {
        Self { providers, keys, own, keeper }
    }

    /// The model of that name.
    pub fn find(&self, name: &ModelName) -> Option<&Provider> {
        self.providers.get(name)
    }

    /// The names of all models.
    pub fn names(&self) -> impl Iterator<Item = &ModelName> {
        self.providers.keys()
    }

    /// The credential for one recorded call. Where accounts bring their own, there is no other.
    pub(crate) async fn open(
        &self,
        act: &Recorded<CallModel>,
        name: &ModelName,
    ) -> Result<Option<Released>, NoKey<'_>> {
        let Some(wanted) = self.own.get(name) else { return Ok(self.keys.open(act, name)) };
        let released = self.keeper.for_model(act, wanted.secret.clone(), wanted.host.clone()).await;
        released.map(Some).map_err(|why| NoKey { wanted, why })
    }
}
