//! Secrets: the host's own keys, and the credentials of models.
//!
//! What is kept here leaves only as a [`Released`] value, and only against the record of the act that
//! needs it. Nothing here is `Debug`, `Display`, `Clone` or `Serialize`, and all of it is wiped when
//! dropped.
//!
//! ```compile_fail,E0061
//! // A secret without a record.
//! fn misuse(keys: &bailiwick_vault::ModelKeys, model: &bailiwick_types::ModelName) {
//!     let _ = keys.open(model);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! // A secret against the record of another act.
//! use bailiwick_auth::{Recorded, access::verb::CallTool};
//! fn misuse(keys: &bailiwick_vault::ModelKeys, model: &bailiwick_types::ModelName, act: &Recorded<CallTool>) {
//!     let _ = keys.open(act, model);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! // An account's secret against the record of another act.
//! use bailiwick_auth::{Recorded, access::verb::CallTool};
//! use bailiwick_vault::{SealedSecret, Vault, WrappedKey};
//! fn misuse(vault: &Vault, key: &WrappedKey, sealed: &SealedSecret, act: &Recorded<CallTool>) {
//!     let _ = vault.open(act, key, sealed);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! // What is sent to a token endpoint, against the record of the release alone.
//! use bailiwick_auth::{Recorded, access::verb::ReleaseSecret};
//! fn misuse(grant: &bailiwick_vault::RefreshGrant, act: &Recorded<ReleaseSecret>) {
//!     let _ = grant.request(act);
//! }
//! ```
//!
//! ```
//! // The positive control.
//! use bailiwick_auth::{Recorded, access::verb::CallModel};
//! fn right(keys: &bailiwick_vault::ModelKeys, model: &bailiwick_types::ModelName, act: &Recorded<CallModel>) {
//!     let _ = keys.open(act, model);
//! }
//! ```

pub mod envelope;
pub mod host_keys;
pub mod oauth;
pub mod redact;
pub mod seal;

use std::collections::BTreeMap;

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallModel;
use bailiwick_types::ModelName;
use zeroize::Zeroizing;

pub use envelope::{DataKey, KeyEncryption, LocalKey, SealedSecret, Vault, WrappedKey};
pub use host_keys::{HostKeys, HostKeysError};
pub use oauth::{GrantError, RefreshFailure, RefreshGrant, Refreshed};
pub use redact::Redactor;
pub use seal::{Purpose, Seal, SealError};

/// A secret at rest in memory.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret's text. The caller wipes its own copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// A secret in the clear, for the moment of its use.
pub struct Released(Zeroizing<String>);

impl Released {
    /// The secret's text. Call it where the header is written, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The credentials of the configured models.
#[derive(Default)]
pub struct ModelKeys {
    keys: BTreeMap<ModelName, Secret>,
}

impl ModelKeys {
    /// No credentials yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the credential of a model.
    pub fn insert(&mut self, model: ModelName, secret: Secret) {
        self.keys.insert(model, secret);
    }

    /// Opens the credential of a model for one recorded call; `None` if that model needs none.
    pub fn open(&self, _act: &Recorded<CallModel>, model: &ModelName) -> Option<Released> {
        self.keys.get(model).map(|secret| Released(secret.0.clone()))
    }

    /// What finds these secrets in a text, in order to hide them.
    pub fn redactor(&self) -> Redactor {
        Redactor::new(self.keys.iter().map(|(name, secret)| (format!("model.{name}"), secret.0.as_str())))
    }
}
