//! What the gate and the calls of models ask for: secrets against the record of their release. And what the gate
//! tells: the record of what went out.

mod refresh;

use std::sync::Arc;
use std::time::Duration;

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{CallModel, ReleaseSecret};
use bailiwick_auth::access::{During, Journal, SecretUse, record};
use bailiwick_auth::authn::outbound::CallError;
use bailiwick_auth::{Recorded, Scope};
use bailiwick_sandbox::gate::{Caller, Keeping, Lease, Line, Moment, Named};
use bailiwick_store::secret::StoredSecret;
use bailiwick_store::{Store, StoreError};
use bailiwick_types::host::HostName;
use bailiwick_types::{LeaseTerm, SealedOf, SecretKind, SecretName, UsedBy};
use bailiwick_vault::{RefreshFailure, Released, SealError, SealedSecret, Vault, WrappedKey};
use futures::future::join_all;
use serde_json::{Map, json};

pub use self::refresh::TokenEndpoints;

/// How long a sandbox may use a secret before it is asked about again: how long a grant that was taken still holds.
const LEASE: Duration = Duration::from_secs(60);

/// The action of a connection on the record.
pub const CONNECT: &str = "sandbox.connect";

/// Answers the gate from the store and the vault.
pub struct Keeper {
    store: Store,
    vault: Arc<Vault>,
    endpoints: TokenEndpoints,
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
    /// It is a grant that its token endpoint refused.
    #[error("the token endpoint refused its refresh grant: an admin has to set it again")]
    SetAgain,
    /// It is a grant, and its token endpoint gave no token.
    #[error(transparent)]
    Token(#[from] RefreshFailure),
    /// It is a grant, and its token endpoint could not be asked.
    #[error("the token endpoint was not asked: {0}")]
    Endpoint(#[from] CallError),
    /// It is a grant, and somebody else's refresh takes long, or failed a moment ago.
    #[error("there is no access token at the moment")]
    Later,
    /// The server is ending.
    #[error("the server is ending")]
    Ending,
}

/// A secret as it goes out.
struct Open {
    version: u64,
    value: Released,
    /// How long it may be used at most.
    lasts: Duration,
}

/// An act on record, and what came of it.
type Opened<T> = (Recorded<ReleaseSecret>, Result<T, Withheld>);

/// A way to open what is sealed.
type Opening<T> = fn(&Vault, &Recorded<ReleaseSecret>, &WrappedKey, &SealedSecret) -> Result<T, SealError>;

impl Keeper {
    /// A keeper over the server's store and vault.
    pub fn new(store: Store, vault: Arc<Vault>, endpoints: TokenEndpoints) -> Self {
        Self { store, vault, endpoints }
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
        let asked = self
            .store
            .secret_use(call.scope(), call.resource().clone(), secret, host, (UsedBy::Model, During::Nothing))
            .await?;
        Ok(self.released(call.scope(), asked, Some(call.intent())).await?.value)
    }

    /// Asks the policy, writes the release down, and only then opens the value.
    async fn released(&self, scope: &Scope, asked: SecretUse, call: Option<u64>) -> Result<Open, Withheld> {
        let mut detail = Map::from_iter([
            ("host".to_owned(), json!(asked.host())),
            ("session".to_owned(), json!(asked.session().id())),
            ("used_by".to_owned(), json!(asked.used_by())),
            ("lease".to_owned(), json!(asked.lease())),
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
            Ok(open) => (Verdict::Ok, Map::from_iter([("version".to_owned(), json!(open.version))])),
            Err(why) => (Verdict::Fail, Map::from_iter([("error".to_owned(), json!(why.code()))])),
        };
        act.settle(&self.store, verdict, detail).await?;
        opened
    }

    async fn opened(&self, act: Recorded<ReleaseSecret>) -> Result<Opened<Open>, Withheld> {
        let stored = match self.store.secret_sealed(&act).await {
            Ok(stored) => stored,
            Err(error) => return Ok((act, Err(error.into()))),
        };
        let version = stored.version;
        match stored.kind {
            SecretKind::Value => {
                let (act, value) = self.unsealed(act, &stored, Vault::open).await?;
                Ok((act, value.map(|value| Open { version, value, lasts: LEASE })))
            }
            SecretKind::OAuth => self.token(act, stored).await,
        }
    }

    /// Opens a value, in a thread that may wait: the key above may be in another program's hands.
    async fn unsealed<T: Send + 'static>(
        &self,
        act: Recorded<ReleaseSecret>,
        stored: &StoredSecret,
        open: Opening<T>,
    ) -> Result<Opened<T>, Withheld> {
        let vault = Arc::clone(&self.vault);
        let key = WrappedKey { by: stored.key.by.clone(), bytes: stored.key.bytes.clone() };
        let of = SealedOf::of_secret(act.resource().secret().clone(), stored.kind);
        let sealed = SealedSecret { of, version: stored.version, bytes: stored.bytes.clone() };
        let opening = tokio::task::spawn_blocking(move || {
            let opened = open(&vault, &act, &key, &sealed);
            (act, opened.map_err(Withheld::from))
        });
        opening.await.map_err(|_| Withheld::Ending)
    }
}

impl Withheld {
    /// A stable word for the record.
    fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Store(_) | Self::Record(_) => "store_failed",
            Self::Sealed(_) => "sealed",
            Self::SetAgain | Self::Token(RefreshFailure::Refused(_)) => "set_again",
            Self::Token(_) | Self::Endpoint(_) | Self::Later => "no_token",
            Self::Ending => "ending",
        }
    }
}

impl bailiwick_sandbox::gate::Keeper for Keeper {
    fn release<'a>(&'a self, caller: &'a Caller, named: Named, moment: Moment) -> Keeping<'a, Option<Lease>> {
        Box::pin(async move {
            let (scope, session) = (&caller.scope, caller.session.clone());
            let (secret, host) = named.into_parts();
            let released = async {
                let use_of = (UsedBy::Sandbox, moment.during);
                let asked = self.store.secret_use(scope, session, secret, host, use_of).await?;
                let call = (asked.lease() != LeaseTerm::Minute).then_some(moment.number);
                Ok((self.released(scope, asked, None).await?, call))
            };
            match released.await {
                Ok((Open { value, lasts, .. }, call)) => {
                    Some(Lease { value: value.expose().to_owned().into(), lasts: lasts.min(LEASE), call })
                }
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
