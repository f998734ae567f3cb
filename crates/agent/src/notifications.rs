//! Tells people elsewhere what happens: takes what waits for a target, asks whether it may be told, writes that down,
//! opens its address, sends, and writes down how it went.
//!
//! What was sent and not written down is sent again: at least once, and never by two servers at a time.

mod answer;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bailiwick_auth::access::verb::{SendNotification, TestNotification};
use bailiwick_auth::authn::{Rejection, Walk};
use bailiwick_auth::{Recorded, Scope};
use bailiwick_outbound::{HookSettings, Hooks};
use bailiwick_store::notification::{Claim, Leases, Outcome, StoredAddress};
use bailiwick_store::{Store, StoreError};
use bailiwick_types::SealedOf;
use bailiwick_types::notification::{Address, Notice, What, message};
use bailiwick_types::{Incarnation, TargetName, Timestamp};
use bailiwick_vault::{Released, SealError, SealedSecret, Vault, WrappedKey};
use serde_json::{Map, json};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::runtime::{RuntimeError, whole};

/// Calls at once, of all accounts. One account has four at most.
const AT_ONCE: usize = 32;
/// How often servers that share a database look for what another one left.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How long an account is left alone whose rows could not be read.
const TROUBLED: Duration = Duration::from_secs(30);
/// The longest sleep: the clock may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What a notifier is made of.
pub struct NotifierParts {
    /// The store.
    pub store: Store,
    /// Who may still give such an order.
    pub walk: Arc<Walk>,
    /// Opens addresses.
    pub vault: Arc<Vault>,
    /// Where people reach the console, if the operator said so.
    pub console: Option<String>,
    /// The operator's word about the calls.
    pub hooks: HookSettings,
}

/// Tells targets of notifications. Cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    parts: NotifierParts,
    hooks: OnceCell<Hooks>,
    places: Semaphore,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// An act on record, and what came of opening the address.
type Opened = (Recorded<SendNotification>, Result<Released, SealError>);

impl Notifier {
    /// A notifier that does nothing yet.
    pub fn new(parts: NotifierParts) -> Self {
        Self(Arc::new(Inner {
            parts,
            hooks: OnceCell::new(),
            places: Semaphore::new(AT_ONCE),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }))
    }

    /// Begins to tell what waits.
    pub fn start(&self) {
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move { inner.work().await });
    }

    /// Takes nothing new, and gives calls that are under way so long.
    pub async fn stop(&self, patience: Duration) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        // What is not done by then is taken up after the next start.
        let _ = tokio::time::timeout(patience, self.0.tasks.wait()).await;
    }

    /// Tries a target at once, and says how that went.
    ///
    /// # Errors
    /// A refusal, or that there is no such target, or the record failed. That the far side does not take it is none.
    pub async fn test(&self, scope: &Scope, name: &TargetName) -> Result<Outcome, RuntimeError> {
        let store = &self.0.parts.store;
        let permit = scope.authorize::<TestNotification>(scope.account())?;
        let target = store.notification_test(permit, name.clone()).await?;
        let sending = scope.authorize::<SendNotification>(target)?;
        let inner = Arc::clone(&self.0);
        whole(async move {
            let _place = inner.places.acquire().await.map_err(|_| StoreError::Closed)?;
            let (act, address) = inner.parts.store.notification_begin(sending, None).await?;
            let tried = Notice { what: What::Test, agent: None, space: String::new(), path: "/".to_owned() };
            Ok(inner.send(act, None, address, &[tried]).await?)
        })
        .await
    }
}

impl Inner {
    /// Looks after all accounts until the server stops.
    async fn work(self: Arc<Self>) {
        let store = &self.parts.store;
        let mut due = BTreeMap::new();
        let mut look_at = Timestamp::now();
        // Of a predecessor alone, whose leases would hold up what it was telling when it ended.
        let mut lost: Option<HashSet<Incarnation>> = None;
        while !self.stopping.is_cancelled() {
            let now = Timestamp::now();
            if look_at <= now {
                self.look(&mut due, &mut look_at).await;
                lost.get_or_insert_with(|| due.keys().copied().collect());
            }
            due.extend(store.notices_told().into_iter().map(|account| (account, now)));
            let ready: Vec<Incarnation> =
                due.iter().filter(|(_, at)| **at <= now).map(|(account, _)| *account).collect();
            for account in ready {
                due.remove(&account);
                let was_lost = lost.as_mut().is_some_and(|lost| lost.remove(&account));
                let leases = if was_lost { Leases::Lost } else { Leases::Held };
                if let Some(next) = self.take(account, leases).await {
                    due.insert(account, next);
                }
            }
            let now = Timestamp::now();
            let sleep = due.values().map(|at| now.until(*at)).min().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            tokio::select! {
                () = self.stopping.cancelled() => {}
                () = store.notices_wait() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Puts all accounts into the line: at the start, and now and then where other servers may have ended.
    async fn look(&self, due: &mut BTreeMap<Incarnation, Timestamp>, look_at: &mut Timestamp) {
        let now = Timestamp::now();
        match self.parts.store.notices_accounts().await {
            Ok(accounts) => {
                for account in accounts {
                    due.entry(account).or_insert(now);
                }
                let shared = self.parts.store.is_shared();
                *look_at = if shared { now.after(LOOK_EVERY) } else { Timestamp::from_micros(i64::MAX) };
            }
            Err(error) => {
                tracing::error!(%error, "the accounts could not be looked through for notifications");
                *look_at = now.after(TROUBLED);
            }
        }
    }

    /// Takes what is due in an account, and says when to come again.
    async fn take(self: &Arc<Self>, account: Incarnation, leases: Leases) -> Option<Timestamp> {
        match self.parts.store.notices_claim(account, leases).await {
            Ok((claims, next)) => {
                for claim in claims {
                    let inner = Arc::clone(self);
                    self.tasks.spawn(async move {
                        let Ok(_place) = inner.places.acquire().await else { return };
                        if let Err(error) = inner.tell(claim).await {
                            tracing::error!(%error, "a notification could not be sent or noted");
                        }
                    });
                }
                next
            }
            // Deleted meanwhile.
            Err(StoreError::NotFound { .. } | StoreError::Closed) => None,
            Err(error) => {
                tracing::error!(%error, "what waits to be told could not be read");
                Some(Timestamp::now().after(TROUBLED))
            }
        }
    }

    /// Tells one target what waits for it.
    async fn tell(&self, claim: Claim) -> Result<(), StoreError> {
        let store = &self.parts.store;
        let (tenant, owner) = (claim.tenant(), &claim.row().owner);
        let order = match self.parts.walk.standing(store, tenant.account(), owner).await {
            Ok(order) if order.tenant() == tenant => order,
            // That the directory cannot be read says nothing about the owner. The lease runs out.
            Err(Rejection::Directory(_)) => return Ok(()),
            Ok(_) | Err(_) => return store.notification_unsent(claim, Outcome::Forbidden).await,
        };
        let Ok(permit) = order.send(claim.target()) else {
            return store.notification_unsent(claim, Outcome::Forbidden).await;
        };
        let (act, address) = match store.notification_begin(permit, Some(&claim)).await {
            Ok(begun) => begun,
            // Paused, deleted, or taken over: not ours any more.
            Err(StoreError::Fenced | StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.send(act, Some(&claim), address, claim.notices()).await.map(drop)
    }

    /// Sends what is on record, and notes how it went.
    async fn send(
        &self,
        act: Recorded<SendNotification>,
        claim: Option<&Claim>,
        address: StoredAddress,
        notices: &[Notice],
    ) -> Result<Outcome, StoreError> {
        let (kind, chat) = (address.kind, address.chat.clone());
        let (act, opened) = self.opened(act, address).await?;
        let mut detail = Map::new();
        let outcome = match opened {
            Ok(address) => {
                let url = Address::parse(kind, address.expose(), chat.as_deref()).map(|address| {
                    let mut url = Zeroizing::new(String::new());
                    address.write_url(&mut url);
                    url
                });
                match (url, self.hooks().await) {
                    (Ok(url), Some(hooks)) => {
                        let body = message(kind, chat.as_deref(), notices, self.parts.console.as_deref());
                        let answered = hooks.post(&url, body.to_string()).await;
                        if let Ok(answered) = &answered {
                            detail.insert("status".to_owned(), json!(answered.status));
                        }
                        answer::judge(kind, answered)
                    }
                    (Err(_), _) => Outcome::Refused { state: "address".to_owned() },
                    (_, None) => Outcome::Later { state: "no_client".to_owned(), after: None },
                }
            }
            // The operator's to mend.
            Err(error) => {
                tracing::error!(%error, "the address of a target of notifications could not be opened");
                Outcome::Later { state: "sealed".to_owned(), after: None }
            }
        };
        self.parts.store.notification_done(&act, claim, outcome.clone(), detail).await?;
        Ok(outcome)
    }

    /// Opens an address, in a thread that may wait: the key above may be in another program's hands.
    async fn opened(&self, act: Recorded<SendNotification>, stored: StoredAddress) -> Result<Opened, StoreError> {
        let vault = Arc::clone(&self.parts.vault);
        let opening = tokio::task::spawn_blocking(move || {
            let key = WrappedKey { by: stored.key.by, bytes: stored.key.bytes };
            let of = SealedOf::Target(act.resource().name().clone());
            let sealed = SealedSecret { of, version: stored.version, bytes: stored.bytes };
            let opened = vault.open_target(&act, &key, &sealed);
            (act, opened)
        });
        opening.await.map_err(|_| StoreError::Closed)
    }

    /// The client, made at the first call: reading the system's certificates takes long.
    async fn hooks(&self) -> Option<&Hooks> {
        let settings = self.parts.hooks.clone();
        let made = self.hooks.get_or_try_init(|| async move {
            tokio::task::spawn_blocking(move || Hooks::new(settings)).await.map_err(|_| ())?.map_err(|error| {
                tracing::error!(%error, "nobody can be notified");
            })
        });
        made.await.ok()
    }
}
