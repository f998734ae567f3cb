//! What the gate and the calls of models ask for: secrets against the record of their release. And what the gate
//! tells: the record of what went out.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{CallModel, ReleaseSecret};
use bailiwick_auth::access::{Journal, SecretUse, record};
use bailiwick_auth::{Recorded, Scope};
use bailiwick_sandbox::gate::{Caller, Keeping, Lease, Line, Named};
use bailiwick_store::{Store, StoreError};
use bailiwick_types::host::HostName;
use bailiwick_types::notification::SealedOf;
use bailiwick_types::{SecretName, UsedBy};
use bailiwick_vault::{Released, SealError, SealedSecret, Vault, WrappedKey};
use futures::future::join_all;
use serde_json::{Map, json};

/// How long a sandbox may use a secret before it is asked about again: how long a grant that was taken still holds.
const LEASE: Duration = Duration::from_secs(60);

/// The action of a connection on the record.
pub const CONNECT: &str = "sandbox.connect";

/// Answers the gate from the store and the vault.
pub struct Keeper {
    store: Store,
    vault: Arc<Vault>,
}

/// A secret was not released.
#[derive(Debug, thiserror::Error)]
pub enum Withheld {
    /// It was not granted for this, or a policy forbids it. Of one that is not there nothing was granted.
    #[error("it was refused: {0}")]
    Refused(#[from] bailiwick_auth::Refusal),
    /// It could not be looked up.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The release could not be put on record.
    #[error("the record failed")]
    Record(#[from] bailiwick_auth::access::JournalError),
    /// It could not be opened.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The server is ending.
    #[error("the server is ending")]
    Ending,
}

/// An act on record, and what came of it: the version of the value, and the value.
type Opened = (Recorded<ReleaseSecret>, Result<(u64, Released), Withheld>);

impl Keeper {
    /// A keeper over the server's store and vault.
    pub fn new(store: Store, vault: Arc<Vault>) -> Self {
        Self { store, vault }
    }

    /// A secret of the caller's account, for one call of a model that is on record.
    ///
    /// # Errors
    /// [`Withheld`]. A refusal is on record.
    pub async fn for_model(
        &self,
        call: &Recorded<CallModel>,
        secret: SecretName,
        host: HostName,
    ) -> Result<Released, Withheld> {
        let asked = self.store.secret_use(call.scope(), call.resource().clone(), secret, host, UsedBy::Model).await?;
        self.released(call.scope(), asked, Some(call.intent())).await
    }

    /// Asks the policy, writes the release down, and only then opens the value.
    async fn released(&self, scope: &Scope, asked: SecretUse, call: Option<u64>) -> Result<Released, Withheld> {
        let mut detail = Map::from_iter([
            ("host".to_owned(), json!(asked.host())),
            ("session".to_owned(), json!(asked.session().id())),
            ("used_by".to_owned(), json!(asked.used_by())),
        ]);
        // The number of the model call's own line.
        detail.extend(call.map(|call| ("call".to_owned(), json!(call))));
        let permit = match scope.authorize::<ReleaseSecret>(asked) {
            Ok(permit) => permit,
            Err(refusal) => {
                let mut draft = refusal.draft().clone();
                draft.detail.append(&mut detail);
                self.store.append(scope, draft).await?;
                return Err(refusal.into());
            }
        };
        let act = record(&self.store, permit, detail).await?;
        let (act, opened) = self.opened(act).await?;
        let (verdict, detail) = match &opened {
            Ok((version, _)) => (Verdict::Ok, Map::from_iter([("version".to_owned(), json!(version))])),
            Err(_) => (Verdict::Fail, Map::new()),
        };
        act.settle(&self.store, verdict, detail).await?;
        opened.map(|(_, value)| value)
    }

    /// Opens a value, in a thread that may wait: the key above may be in another program's hands.
    async fn opened(&self, act: Recorded<ReleaseSecret>) -> Result<Opened, Withheld> {
        let stored = match self.store.secret_sealed(&act).await {
            Ok(stored) => stored,
            Err(error) => return Ok((act, Err(error.into()))),
        };
        let vault = Arc::clone(&self.vault);
        let opening = tokio::task::spawn_blocking(move || {
            let key = WrappedKey { by: stored.key.by, bytes: stored.key.bytes };
            let name = act.resource().secret().clone();
            let sealed = SealedSecret { of: SealedOf::Secret(name), version: stored.version, bytes: stored.bytes };
            let opened = vault.open(&act, &key, &sealed);
            (act, opened.map(|value| (sealed.version, value)).map_err(Withheld::from))
        });
        opening.await.map_err(|_| Withheld::Ending)
    }
}

impl bailiwick_sandbox::gate::Keeper for Keeper {
    fn release<'a>(&'a self, caller: &'a Caller, named: Named) -> Keeping<'a, Option<Lease>> {
        Box::pin(async move {
            let (scope, session) = (&caller.scope, caller.session.clone());
            let (secret, host) = named.into_parts();
            let released = async {
                let asked = self.store.secret_use(scope, session, secret, host, UsedBy::Sandbox).await?;
                self.released(scope, asked, None).await
            };
            match released.await {
                Ok(value) => Some(Lease { value: value.expose().to_owned().into(), lasts: LEASE }),
                // The operator's to mend.
                Err(why @ Withheld::Sealed(_)) => {
                    tracing::error!(%why, "a secret could not be opened");
                    None
                }
                Err(why) => {
                    tracing::debug!(%why, "a secret was not released");
                    None
                }
            }
        })
    }

    fn connections<'a>(&'a self, caller: &'a Caller, lines: Vec<(Line, u32)>) -> Keeping<'a, ()> {
        Box::pin(async move {
            // Together, so that they come into one group of the log.
            let written = lines.into_iter().map(|(line, times)| {
                let draft = draft(caller, line, times);
                self.store.append(&caller.scope, draft)
            });
            let lost = join_all(written).await.into_iter().filter(Result::is_err).count();
            if lost > 0 {
                tracing::error!(lost, "connections of a sandbox could not be put on record");
            }
        })
    }
}

/// The record's line for a connection. `FAIL`: it was allowed, and the far side did not take it.
fn draft(caller: &Caller, line: Line, times: u32) -> Draft {
    let verdict = match line.outcome.as_str() {
        "allowed" => Verdict::Ok,
        outcome if outcome.starts_with("upstream_") => Verdict::Fail,
        "name_unknown" | "broken_off" => Verdict::Fail,
        _ => Verdict::Denied,
    };
    let mut draft = caller.scope.draft(CONNECT, &caller.session, Phase::Observation, verdict);
    let Line { kind, host, port, address, method, path, outcome, status, secrets } = line;
    draft.detail.insert("kind".to_owned(), json!(kind));
    draft.detail.insert("host".to_owned(), json!(host));
    draft.detail.insert("code".to_owned(), json!(outcome));
    let more = [
        ("port", (port != 0).then(|| json!(port))),
        ("address", address.map(|address| json!(address))),
        ("method", method.map(|method| json!(method))),
        ("path", path.map(|path| json!(path))),
        ("status", status.map(|status| json!(status))),
        ("secrets", (!secrets.is_empty()).then(|| json!(secrets))),
        ("times", (times > 1).then(|| json!(times))),
    ];
    let more = more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    draft.detail.extend(more);
    draft
}
