//! The configured models and their credentials.

use std::collections::BTreeMap;

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallModel;
use bailiwick_model::Provider;
use bailiwick_types::ModelName;
use bailiwick_vault::{ModelKeys, Released};

/// The configured models. A credential leaves only against the record of the call that needs it.
pub struct Models {
    providers: BTreeMap<ModelName, Provider>,
    keys: ModelKeys,
}

impl Models {
    /// Models and credentials.
    pub fn new(providers: BTreeMap<ModelName, Provider>, keys: ModelKeys) -> Self {
        Self { providers, keys }
    }

    /// The model of that name.
    pub fn find(&self, name: &ModelName) -> Option<&Provider> {
        self.providers.get(name)
    }

    /// The names of all models.
    pub fn names(&self) -> impl Iterator<Item = &ModelName> {
        self.providers.keys()
    }

    pub(crate) fn open(&self, act: &Recorded<CallModel>, name: &ModelName) -> Option<Released> {
        self.keys.open(act, name)
    }
}
