//! Secrets, for as long as a request needs them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_types::SecretName;
use bailiwick_types::host::HostName;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::echo::{Echo, Echoes};
use crate::refused::Refused;

/// Most secrets that one sandbox uses at once, counted by host.
const MOST_HELD: usize = 128;
/// How often it is asked again when calls began or ended meanwhile.
const TRIES: usize = 3;
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A secret's value, for one sandbox and one host, for a while.
pub struct Lease {
    /// The value.
    pub value: Zeroizing<String>,
    /// How long it may be used.
    pub lasts: Duration,
    /// The number of the calls during which it may be used; nothing: it is for no call.
    pub call: Option<u64>,
}

/// A question to whoever keeps the secrets.
pub struct Ask {
    /// The number under which the sandbox was opened.
    pub sandbox: u64,
    /// Which secret.
    pub secret: SecretName,
    /// For which host.
    pub host: HostName,
    /// Where the answer goes; nothing if there is none for this sandbox and host.
    pub answer: oneshot::Sender<Option<Lease>>,
}

/// A secret in use.
pub(crate) struct Held {
    pub(crate) value: Zeroizing<String>,
    /// What it looks like when it comes back.
    echo: Echo,
    until: Instant,
    call: Option<u64>,
}

/// The secrets that one sandbox uses at the moment.
pub(crate) struct Leases {
    sandbox: u64,
    to: mpsc::Sender<Ask>,
    held: Mutex<AllHeld>,
    /// What is being asked for: whoever needs the same waits for the one answer.
    asking: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
}

/// A secret, and where it may go.
type Key = (SecretName, HostName);

/// A place in the line for one key. The line is gone with its last.
struct Asking<'l> {
    leases: &'l Leases,
    key: &'l Key,
    line: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut asking = self.leases.asking.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one.
        if Arc::strong_count(&self.line) == 2 {
            asking.remove(self.key);
        }
    }
}

#[derive(Default)]
struct AllHeld {
    leases: HashMap<Key, Arc<Held>>,
    /// One search for all that a host has, until that changes.
    searches: HashMap<HostName, Arc<Echoes>>,
    /// Which calls run at the moment, as a number that grows whenever one begins or ends.
    calls: u64,
}

impl AllHeld {
    /// A lease that may be used now. One of a call that ended is kept for what may come back of it, and for nothing
    /// else.
    fn usable(&self, key: &Key) -> Option<&Arc<Held>> {
        self.leases.get(key).filter(|lease| lease.call.is_none_or(|call| call == self.calls))
    }

    fn usable_at(&mut self, key: &Key, now: Instant) -> Option<Arc<Held>> {
        self.at(now);
        self.usable(key).map(Arc::clone)
    }

    /// Forgets what may not be used any more.
    fn at(&mut self, now: Instant) {
        let Self { leases, searches, .. } = self;
        leases.retain(|(_, host), lease| {
            if lease.until <= now {
                searches.remove(host);
            }
            lease.until > now
        });
    }
}

impl Leases {
    pub(crate) fn new(sandbox: u64, to: mpsc::Sender<Ask>) -> Self {
        Self { sandbox, to, held: Mutex::default(), asking: Mutex::default() }
    }

    /// The secret, for a request to this host.
    ///
    /// # Errors
    /// [`Refused::Secret`], also where nobody answers.
    pub(crate) async fn get(&self, secret: &SecretName, host: &HostName) -> Result<Arc<Held>, Refused> {
        let key = (secret.clone(), host.clone());
        if let Some(lease) = self.held().usable_at(&key, Instant::now()) {
            return Ok(lease);
        }
        let asking = self.line(&key);
        let _first = asking.line.lock().await;
        for _ in 0..TRIES {
            let now = Instant::now();
            {
                let mut held = self.held();
                if let Some(lease) = held.usable_at(&key, now) {
                    return Ok(lease);
                }
                if held.leases.len() >= MOST_HELD && !held.leases.contains_key(&key) {
                    return Err(Refused::Limit);
                }
            }
            let Lease { value, lasts, call } = self.ask(secret, host).await.ok_or(Refused::Secret)?;
            let echo = Echo::of(&value);
            let lease = Arc::new(Held { value, echo, until: now + lasts, call });
            let mut held = self.held();
            if lease.call.is_some_and(|call| call != held.calls) {
                continue;
            }
            held.searches.remove(host);
            held.leases.insert(key.clone(), Arc::clone(&lease));
            return Ok(lease);
        }
        Err(Refused::Secret)
    }

    fn line<'l>(&'l self, key: &'l Key) -> Asking<'l> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Arc::clone(asking.entry(key.clone()).or_default());
        Asking { leases: self, key, line }
    }

    async fn ask(&self, secret: &SecretName, host: &HostName) -> Option<Lease> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { sandbox: self.sandbox, secret: secret.clone(), host: host.clone(), answer };
        let asking = async {
            self.to.send(ask).await.ok()?;
            answered.await.ok()?
        };
        tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
    }

    /// Other calls run now: leases of those before are over.
    pub(crate) fn calls(&self, number: u64) {
        let mut held = self.held();
        held.calls = held.calls.max(number);
    }

    /// Whether a secret is here already.
    pub(crate) fn holds(&self, secret: &SecretName, host: &HostName) -> bool {
        self.held().usable_at(&(secret.clone(), host.clone()), Instant::now()).is_some()
    }

    fn held(&self) -> MutexGuard<'_, AllHeld> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may come back from a host at this moment: what it was sent, which may be over or another by now, and all
    /// that it has. Nothing if it has no secret.
    ///
    /// # Errors
    /// [`Refused::Secret`] if it cannot be searched for.
    pub(crate) fn echoes(&self, host: &HostName, sent: &[Arc<Held>]) -> Result<Option<Arc<Echoes>>, Refused> {
        let mut held = self.held();
        let is_over = |one: &&Arc<Held>| !held.leases.values().any(|lease| Arc::ptr_eq(lease, one));
        let over: Vec<&Arc<Held>> = sent.iter().filter(is_over).collect();
        if !over.is_empty() {
            let of_host = held.leases.iter().filter(|((_, to), _)| to == host).map(|(_, lease)| lease);
            let all = of_host.chain(over).map(|lease| &lease.echo);
            return Echoes::of(all).map(|search| Some(Arc::new(search))).map_err(|_| Refused::Secret);
        }
        if let Some(search) = held.searches.get(host) {
            return Ok(Some(Arc::clone(search)));
        }
        let mut echoes = held.leases.iter().filter(|((_, to), _)| to == host).map(|(_, lease)| &lease.echo).peekable();
        if echoes.peek().is_none() {
            return Ok(None);
        }
        let search = Arc::new(Echoes::of(echoes).map_err(|_| Refused::Secret)?);
        held.searches.insert(host.clone(), Arc::clone(&search));
        Ok(Some(search))
    }
}

#[cfg(test)]
impl Held {
    /// A secret that is in use by nobody.
    pub(crate) fn of(value: &str) -> Self {
        let value = Zeroizing::new(value.to_owned());
        Self { echo: Echo::of(&value), value, until: Instant::now(), call: None }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn g06_what_was_sent_is_searched_for_when_its_lease_is_over() {
        let (to, mut asks) = mpsc::channel::<Ask>(1);
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                let value = Zeroizing::new(format!("value-of-{}", ask.secret));
                let lasts = if ask.secret.as_str() == "short" { Duration::ZERO } else { Duration::from_secs(60) };
                let _ = ask.answer.send(Some(Lease { value, lasts, call: None }));
            }
        });
        let leases = Leases::new(1, to);
        let host = HostName::parse("far.test").unwrap();
        let short = leases.get(&"short".parse().unwrap(), &host).await.unwrap();
        let long = leases.get(&"long".parse().unwrap(), &host).await.unwrap();
        assert!(!leases.holds(&"short".parse().unwrap(), &host), "its time is over");
        let blanked = |sent: &[Arc<Held>]| {
            let search = leases.echoes(&host, sent).unwrap().unwrap();
            let mut blanking = crate::echo::Blanking::new(search);
            let text = [blanking.pass(b"value-of-short value-of-long"), blanking.rest()].concat();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(blanked(&[short, long]), format!("{} {}", "*".repeat(14), "*".repeat(13)));
        // The control: whoever was not sent it may not know it.
        assert_eq!(blanked(&[]), format!("value-of-short {}", "*".repeat(13)));
    }

    #[tokio::test]
    async fn g04_what_many_need_at_once_is_asked_for_once() {
        let (to, mut asks) = mpsc::channel::<Ask>(64);
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                let value = Zeroizing::new("a-value".to_owned());
                let _ = ask.answer.send(Some(Lease { value, lasts: Duration::from_secs(60), call: None }));
            }
        });
        let (leases, host) = (Arc::new(Leases::new(1, to)), HostName::parse("far.test").unwrap());
        let mut many = tokio::task::JoinSet::new();
        for number in 0..40 {
            let (leases, host) = (Arc::clone(&leases), host.clone());
            let secret = if number % 2 == 0 { "one" } else { "other" }.parse().unwrap();
            many.spawn(async move { leases.get(&secret, &host).await.is_ok() });
        }
        assert!(many.join_all().await.into_iter().all(|got| got));
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
        assert!(leases.asking.lock().unwrap().is_empty(), "and nobody waits any more");
    }
}
