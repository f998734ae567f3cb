//! What the gate asks for and tells: secrets against the record of their release, and the record of what went out.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::access::verb::ReleaseSecret;
use bailiwick_auth::access::{Journal, SecretUse, record};
use bailiwick_sandbox::gate::{Caller, Keeping, Lease, Line, Named};
use bailiwick_store::{Store, StoreError};
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
enum Withheld {
    #[error("it was refused: {0}")]
    Refused(#[from] bailiwick_auth::Refusal),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the record failed")]
    Record(#[from] bailiwick_auth::access::JournalError),
    #[error(transparent)]
    Sealed(#[from] SealError),
}

impl Keeper {
    /// A keeper over the server's store and vault.
    pub fn new(store: Store, vault: Arc<Vault>) -> Self {
        Self { store, vault }
    }

    /// Asks the policy, writes the release down, and only then opens the value.
    async fn released(&self, caller: &Caller, named: Named) -> Result<Released, Withheld> {
        let (secret, host) = named.into_parts();
        let asked: SecretUse = self.store.secret_use(&caller.scope, caller.session.clone(), secret, host).await?;
        let mut detail = Map::from_iter([
            ("host".to_owned(), json!(asked.host())),
            ("session".to_owned(), json!(asked.session().id())),
        ]);
        let permit = match caller.scope.authorize::<ReleaseSecret>(asked) {
            Ok(permit) => permit,
            Err(refusal) => {
                let mut draft = refusal.draft().clone();
                draft.detail.append(&mut detail);
                self.store.append(&caller.scope, draft).await?;
                return Err(refusal.into());
            }
        };
        let act = record(&self.store, permit, detail).await?;
        let opened = self.opened(&act).await;
        let (verdict, detail) = match &opened {
            Ok((version, _)) => (Verdict::Ok, Map::from_iter([("version".to_owned(), json!(version))])),
            Err(_) => (Verdict::Fail, Map::new()),
        };
        act.settle(&self.store, verdict, detail).await?;
        opened.map(|(_, value)| value)
    }

    async fn opened(&self, act: &bailiwick_auth::Recorded<ReleaseSecret>) -> Result<(u64, Released), Withheld> {
        let stored = self.store.secret_sealed(act).await?;
        let key = WrappedKey { by: stored.key.by, bytes: stored.key.bytes };
        let sealed =
            SealedSecret { name: act.resource().secret().clone(), version: stored.version, bytes: stored.bytes };
        Ok((sealed.version, self.vault.open(act, &key, &sealed)?))
    }
}

impl bailiwick_sandbox::gate::Keeper for Keeper {
    fn release<'a>(&'a self, caller: &'a Caller, named: Named) -> Keeping<'a, Option<Lease>> {
        Box::pin(async move {
            match self.released(caller, named).await {
                Ok(value) => Some(Lease { value: value.expose().to_owned().into(), lasts: LEASE }),
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
