//! Access tokens of the grants among the secrets: the one that there is, or a new one from the token endpoint.
//!
//! A refresh token may be good for one time (RFC 6749, section 10.4): whoever sends one twice may lose the grant. So
//! one refresh of a secret runs at a time, on all servers of a database; what it brings is stored before anybody uses
//! it; and it runs to its end also where nobody waits for it any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_auth::access::verb::{RefreshSecret, ReleaseSecret};
use bailiwick_auth::access::{Journal as _, record};
use bailiwick_auth::authn::outbound::{Call, CallError, LedBy, Outbound};
use bailiwick_auth::{Permit, Recorded};
use bailiwick_store::data_key::StoredKey;
use bailiwick_store::secret::{Refresh, Sealing, StoredSecret, Taken};
use bailiwick_store::{Store, StoreError};
use bailiwick_types::Timestamp;
use bailiwick_vault::{DataKey, RefreshFailure, RefreshGrant, Refreshed, SealError, Vault, WrappedKey};
use serde_json::{Map, json};
use url::Url;

use super::{Keeper, Open, Opened, Withheld};

/// How long a release waits for a token. The gate waits a little longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it looks whether somebody else's refresh is done.
const LOOK: Duration = Duration::from_millis(100);
/// For how long a refresh is believed to run: longer than its call can take. One that was killed is begun anew then.
const HOLD: Duration = Duration::from_secs(30);
/// How long nobody asks an endpoint that gave no token.
const BACK_OFF: Duration = Duration::from_secs(10);
/// How often it is tried to store what an endpoint gave: it gives it once.
const TRIES: u32 = 3;

/// How token endpoints are called, and which of them may be elsewhere than in the public network.
#[derive(Clone)]
pub struct TokenEndpoints {
    outbound: Arc<dyn Outbound>,
    /// Origins that the operator named.
    origins: Arc<[String]>,
}

impl TokenEndpoints {
    /// Endpoints in the public network, and those of these origins wherever they are.
    pub fn new(outbound: Arc<dyn Outbound>, origins: Vec<String>) -> Self {
        Self { outbound, origins: origins.into() }
    }

    /// Whose word an address is.
    fn led_by(&self, url: &str) -> LedBy<'_> {
        let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin()).filter(url::Origin::is_tuple);
        let named = origin(url).and_then(|of| self.origins.iter().find(|named| origin(named) == Some(of.clone())));
        named.map_or(LedBy::Stranger, |named| LedBy::Configuration(named))
    }
}

/// One refresh.
struct Refreshing {
    store: Store,
    vault: Arc<Vault>,
    endpoints: TokenEndpoints,
    permit: Permit<RefreshSecret>,
    /// The number of the release's own line.
    release: u64,
    key: WrappedKey,
    version: u64,
    grant: RefreshGrant,
}

impl Keeper {
    /// The access token of a grant whose release is on record.
    pub(super) async fn token(
        &self,
        mut act: Recorded<ReleaseSecret>,
        mut stored: StoredSecret,
    ) -> Result<Opened<Open>, Withheld> {
        let began = Instant::now();
        loop {
            let now = Timestamp::now();
            // Whoever took the refresh, or failed at it, found no token that was good: nothing has to be opened.
            let tried = match &stored.refresh {
                Refresh::Failed(_) => Err(Withheld::SetAgain),
                Refresh::Waiting(until) if *until > now => Err(Withheld::Later),
                Refresh::Running(until) if *until > now => {
                    tokio::time::sleep(LOOK).await;
                    Ok(())
                }
                Refresh::Idle | Refresh::Waiting(_) | Refresh::Running(_) => {
                    let (again, grant) = self.unsealed(act, &stored, Vault::open_grant).await?;
                    act = again;
                    match grant {
                        Ok(grant) => match grant.access(now) {
                            Some((value, lasts)) => {
                                return Ok((act, Ok(Open { version: stored.version, value, lasts })));
                            }
                            None => self.refresh(&act, &stored, grant).await,
                        },
                        Err(why) => Err(why),
                    }
                }
            };
            let looked = match tried {
                Ok(()) if began.elapsed() < PATIENCE => self.store.secret_sealed(&act).await.map_err(Withheld::from),
                Ok(()) => Err(Withheld::Later),
                Err(why) => Err(why),
            };
            stored = match looked {
                Ok(stored) => stored,
                Err(why) => return Ok((act, Err(why))),
            };
        }
    }

    /// Asks the token endpoint, unless somebody else does.
    async fn refresh(
        &self,
        act: &Recorded<ReleaseSecret>,
        stored: &StoredSecret,
        grant: RefreshGrant,
    ) -> Result<(), Withheld> {
        let permit = match act.scope().authorize::<RefreshSecret>(act.resource().clone()) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.store.append(act.scope(), refusal.draft().clone()).await?;
                return Err(refusal.into());
            }
        };
        let refreshing = Refreshing {
            store: self.store.clone(),
            vault: Arc::clone(&self.vault),
            endpoints: self.endpoints.clone(),
            permit,
            release: act.intent(),
            key: WrappedKey { by: stored.key.by.clone(), bytes: stored.key.bytes.clone() },
            version: stored.version,
            grant,
        };
        tokio::spawn(refreshing.run()).await.map_err(|_| Withheld::Ending)?
    }
}

impl Refreshing {
    async fn run(self) -> Result<(), Withheld> {
        let Self { store, vault, endpoints, permit, release, key, version, grant } = self;
        // Before anything is asked for: what comes back has to be sealed.
        let (opener, tenant) = (Arc::clone(&vault), permit.tenant().clone());
        let unlocked = tokio::task::spawn_blocking(move || opener.unlock(&tenant, key)).await;
        let key = Arc::new(unlocked.map_err(|_| Withheld::Ending)??);
        let Some(taken) = store.secret_refresh_take(&permit, version, HOLD).await? else { return Ok(()) };
        let detail =
            Map::from_iter([("at".to_owned(), json!(grant.token_host())), ("release".to_owned(), json!(release))]);
        let act = record(&store, permit, detail).await?;
        match asked(&endpoints, &act, &grant).await {
            Ok(refreshed) => {
                let (grant, rotated) = grant.after(refreshed);
                let detail = Map::from_iter([("rotated".to_owned(), json!(rotated))]);
                let new = (Arc::new(grant), key, vault);
                let mut tries = 0;
                loop {
                    let stored = store.secret_refreshed(&act, &taken, detail.clone(), sealing(&act, &new)).await;
                    tries += 1;
                    match stored {
                        Ok(_) => return Ok(()),
                        Err(error) if tries >= TRIES || matches!(error, StoreError::NotFound { .. }) => {
                            return lost(&store, act, error).await;
                        }
                        Err(_) => tokio::time::sleep(LOOK).await,
                    }
                }
            }
            Err(why) => failed(&store, act, &taken, why).await,
        }
    }
}

async fn asked(
    endpoints: &TokenEndpoints,
    act: &Recorded<RefreshSecret>,
    grant: &RefreshGrant,
) -> Result<Refreshed, Withheld> {
    let (url, sent) = (grant.token_url(), Timestamp::now());
    let call = Call { url, led_by: endpoints.led_by(url), form: Some(grant.request(act)) };
    let reply = endpoints.outbound.call(call).await?;
    Ok(Refreshed::of_answer(reply.status, &reply.body, sent)?)
}

/// What came is of no use: the secret is another one by now, or the database does not take it.
async fn lost(store: &Store, act: Recorded<RefreshSecret>, error: StoreError) -> Result<(), Withheld> {
    let detail = Map::from_iter([("error".to_owned(), json!("not_stored"))]);
    act.settle(store, bailiwick_audit::Verdict::Fail, detail).await?;
    match error {
        // Whoever set it meanwhile is right.
        StoreError::NotFound { .. } => Ok(()),
        error => {
            tracing::error!(%error, "a new access token could not be stored; the refresh token may have been used up");
            Err(error.into())
        }
    }
}

/// Writes down that there is no token, and when the endpoint may be asked again.
async fn failed(store: &Store, act: Recorded<RefreshSecret>, taken: &Taken, why: Withheld) -> Result<(), Withheld> {
    let (error, status) = match &why {
        Withheld::Token(RefreshFailure::Refused(word)) => (*word, None),
        Withheld::Token(RefreshFailure::Status(status)) => ("status", Some(*status)),
        Withheld::Endpoint(CallError::Address) => ("not_https", None),
        Withheld::Endpoint(CallError::Network) => ("not_public", None),
        Withheld::Endpoint(CallError::Silent) => ("unreachable", None),
        _ => ("answer_unusable", None),
    };
    let next = match &why {
        Withheld::Token(RefreshFailure::Refused(word)) => Refresh::Failed((*word).to_owned()),
        _ => Refresh::Waiting(Timestamp::now().after(BACK_OFF)),
    };
    let mut detail = Map::from_iter([("error".to_owned(), json!(error))]);
    detail.extend(status.map(|status| ("status".to_owned(), json!(status))));
    match store.secret_refresh_failed(&act, taken, next, detail).await {
        Ok(()) => Err(why),
        Err(error) => lost(store, act, error).await,
    }
}

fn sealing(act: &Recorded<RefreshSecret>, new: &(Arc<RefreshGrant>, Arc<DataKey>, Arc<Vault>)) -> Sealing {
    let (grant, key, vault) = new.clone();
    let (tenant, name) = (act.scope().tenant().clone(), act.resource().secret().clone());
    Box::new(move |there, version| {
        let failed = |error: SealError| StoreError::Io(std::io::Error::other(error));
        // Somebody may have encrypted it anew, or changed it, in the meantime.
        let key = match there.map(|StoredKey { by, bytes }| WrappedKey { by, bytes }) {
            Some(there) if there != *key.wrapped() => Arc::new(vault.unlock(&tenant, there).map_err(failed)?),
            _ => key,
        };
        let sealed = key.seal_grant(&name, version, &grant).map_err(failed)?;
        let WrappedKey { by, bytes } = key.wrapped().clone();
        Ok((StoredKey { by, bytes }, sealed.bytes))
    })
}
