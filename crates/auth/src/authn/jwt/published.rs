//! The keys that an issuer publishes, kept with an expiry.
//!
//! They are in force until they expire, whatever becomes of the attempts to get new ones; after three quarters
//! of that time they are fetched again beside the requests. A token with an unknown `kid` has them fetched
//! again at once, but not more than once a minute, whoever sends how many. One fetch is under way at a time, by
//! a task of its own, so that nobody who hangs up ends it; who needs it waits for it, and not for ever. After a
//! failure nothing is tried for a while, and nobody waits.
//!
//! Without keys in force nothing is proven.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use tokio::sync::watch;
use tokio::time::Instant;

use super::discovery::{self, Metadata};
use super::keys::{self, PublishedKey, candidates};
use crate::authn::outbound::{Call, CallError, LedBy, Outbound};

/// Between two fetches for what is only hoped for.
const EVERY: Duration = Duration::from_secs(60);
/// After a failure, where there is nothing in force.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a request waits for a fetch, which goes on without it.
const WAIT: Duration = Duration::from_secs(6);

/// Where the keys are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// At that address.
    Keys(String),
    /// Where that issuer's document says.
    Discovery(String),
}

/// An issuer's keys cannot be had just now. Why is in the server's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the identity provider does not answer: try again in a moment")]
pub struct Unavailable;

/// What was fetched.
pub(in crate::authn) struct Kept {
    pub(super) keys: Vec<PublishedKey>,
    /// What the provider says of itself, where that was asked.
    pub(in crate::authn) metadata: Option<Metadata>,
    fetched: Instant,
    lifetime: Duration,
}

impl Kept {
    fn is_in_force(&self, now: Instant) -> bool {
        now < self.fetched + self.lifetime
    }

    fn is_old(&self, now: Instant) -> bool {
        now >= self.fetched + self.lifetime / 4 * 3
    }
}

/// What somebody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authn) enum Need<'a> {
    /// A key that a token with that `kid` is signed with.
    Key(Option<&'a str>),
    /// What the provider says of itself.
    Metadata,
}

#[derive(Default)]
struct State {
    kept: Option<Arc<Kept>>,
    /// When the last fetch began; if it failed, when it did.
    tried: Option<Instant>,
    /// The fetch that is under way: it says so when it is over.
    flight: Option<watch::Receiver<()>>,
}

/// What to do for somebody who needs keys.
enum Step {
    Use(Arc<Kept>),
    /// Use them; and get new ones beside that.
    UseAndRenew(Arc<Kept>),
    Fetch,
    Fail,
}

impl State {
    fn step(&self, need: Need<'_>, now: Instant) -> Step {
        let rests = |pause: Duration| self.tried.is_some_and(|tried| now < tried + pause);
        match self.kept.as_ref().filter(|kept| kept.is_in_force(now)) {
            // Who comes while it is under way waits for it; after it failed, nobody does.
            None if self.flight.is_none() && rests(AFTER_FAILURE) => Step::Fail,
            None => Step::Fetch,
            Some(kept) => {
                let known = match need {
                    Need::Key(kid) => candidates(&kept.keys, kid).next().is_some(),
                    Need::Metadata => true,
                };
                match (known, rests(EVERY)) {
                    (true, false) if kept.is_old(now) => Step::UseAndRenew(Arc::clone(kept)),
                    (false, false) => Step::Fetch,
                    // What it brings may be just that key.
                    (false, true) if self.flight.is_some() => Step::Fetch,
                    (true | false, _) => Step::Use(Arc::clone(kept)),
                }
            }
        }
    }
}

/// An issuer's published keys.
pub(in crate::authn) struct Published {
    /// For the server's own log.
    step: String,
    source: Source,
    wanted: Option<Algorithm>,
    outbound: Arc<dyn Outbound>,
    state: Mutex<State>,
}

/// Why a fetch gave nothing.
#[derive(Debug, thiserror::Error)]
enum Fetch {
    #[error("{0}: {1}")]
    Call(String, #[source] CallError),
    #[error("{0} answers with status {1}")]
    Status(String, u16),
    #[error("{0} is no document of this issuer: its `issuer` must be, to the letter, what is configured")]
    Document(String),
    #[error("{0} is no set of keys, or has too many")]
    Set(String),
    #[error("{0} has no key that can be used here")]
    NoKey(String),
}

impl Published {
    pub(super) fn new(
        step: String,
        source: Source,
        wanted: Option<Algorithm>,
        outbound: Arc<dyn Outbound>,
    ) -> Arc<Self> {
        Arc::new(Self { step, source, wanted, outbound, state: Mutex::default() })
    }

    /// The client, for other calls to the same provider.
    pub(in crate::authn) fn outbound(&self) -> &dyn Outbound {
        &*self.outbound
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force; fetched, if there is nothing or it has not what is needed.
    pub(in crate::authn) async fn kept(self: &Arc<Self>, need: Need<'_>) -> Result<Arc<Kept>, Unavailable> {
        let step = self.state().step(need, Instant::now());
        match step {
            Step::Use(kept) => return Ok(kept),
            Step::UseAndRenew(kept) => {
                drop(self.fetch_beside());
                return Ok(kept);
            }
            Step::Fail => return Err(Unavailable),
            Step::Fetch => {}
        }
        let mut flight = self.fetch_beside();
        // It is over when its sender is gone.
        let _ = tokio::time::timeout(WAIT, flight.changed()).await;
        // What was in force before it stays so if it failed.
        self.state().kept.clone().filter(|kept| kept.is_in_force(Instant::now())).ok_or(Unavailable)
    }

    /// Begins a fetch, or joins the one that is under way.
    fn fetch_beside(self: &Arc<Self>) -> watch::Receiver<()> {
        let mut state = self.state();
        // Without its sender it has ended, and could not say so.
        if let Some(flight) = state.flight.as_ref().filter(|flight| flight.has_changed().is_ok()) {
            return flight.clone();
        }
        let (over, flight) = watch::channel(());
        state.flight = Some(flight.clone());
        state.tried = Some(Instant::now());
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = this.fetch().await;
            let mut state = this.state();
            state.flight = None;
            match fetched {
                Ok(kept) => state.kept = Some(Arc::new(kept)),
                Err(error) => {
                    state.tried = Some(Instant::now());
                    tracing::warn!(issuer = this.step, %error, "an issuer's keys were not fetched");
                }
            }
            drop(state);
            drop(over);
        });
        flight
    }

    async fn fetch(&self) -> Result<Kept, Fetch> {
        let (address, configured, metadata) = match &self.source {
            Source::Keys(url) => (url.clone(), url, None),
            Source::Discovery(issuer) => {
                let at = discovery::address(issuer);
                let (text, _) = self.get(&at, issuer).await?;
                let metadata = discovery::read(&text, issuer).ok_or(Fetch::Document(at))?;
                (metadata.jwks_uri.clone(), issuer, Some(metadata))
            }
        };
        let (text, lifetime) = self.get(&address, configured).await?;
        let keys = keys::read(&text, self.wanted).ok_or_else(|| Fetch::Set(address.clone()))?;
        if keys.is_empty() {
            return Err(Fetch::NoKey(address));
        }
        Ok(Kept { keys, metadata, fetched: Instant::now(), lifetime })
    }

    async fn get(&self, url: &str, configured: &str) -> Result<(Vec<u8>, Duration), Fetch> {
        let answer = self.outbound.call(Call { url, led_by: LedBy::Configuration(configured), form: None }).await;
        let mut answer = answer.map_err(|error| Fetch::Call(url.to_owned(), error))?;
        if answer.status != 200 {
            return Err(Fetch::Status(url.to_owned(), answer.status));
        }
        let lifetime = answer.lifetime();
        Ok((std::mem::take(&mut *answer.body), lifetime))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
