//! Secrets, for as long as a request needs them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_types::SecretName;
use bailiwick_types::host::HostName;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::echo::Echo;
use crate::refused::Refused;

/// Most secrets that one sandbox uses at once, counted by host.
const MOST_HELD: usize = 128;
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A secret's value, for one sandbox and one host, for a while.
pub struct Lease {
    /// The value.
    pub value: Zeroizing<String>,
    /// How long it may be used.
    pub lasts: Duration,
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
    pub(crate) echo: Arc<Echo>,
    until: Instant,
}

/// The secrets that one sandbox uses at the moment.
pub(crate) struct Leases {
    sandbox: u64,
    to: mpsc::Sender<Ask>,
    held: Mutex<HashMap<(SecretName, HostName), Arc<Held>>>,
}

impl Leases {
    pub(crate) fn new(sandbox: u64, to: mpsc::Sender<Ask>) -> Self {
        Self { sandbox, to, held: Mutex::default() }
    }

    /// The secret, for a request to this host.
    ///
    /// # Errors
    /// [`Refused::Secret`], also where nobody answers.
    pub(crate) async fn get(&self, secret: &SecretName, host: &HostName) -> Result<Arc<Held>, Refused> {
        let key = (secret.clone(), host.clone());
        let now = Instant::now();
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|_, lease| lease.until > now);
            if held.len() >= MOST_HELD && !held.contains_key(&key) {
                return Err(Refused::Limit);
            }
            if let Some(lease) = held.get(&key) {
                return Ok(Arc::clone(lease));
            }
        }
        let (answer, answered) = oneshot::channel();
        let ask = Ask { sandbox: self.sandbox, secret: secret.clone(), host: host.clone(), answer };
        let asking = async {
            self.to.send(ask).await.ok()?;
            answered.await.ok()?
        };
        let lease = tokio::time::timeout(PATIENCE, asking).await.ok().flatten().ok_or(Refused::Secret)?;
        let echo = Arc::new(Echo::of(&lease.value).map_err(|_| Refused::Secret)?);
        let lease = Arc::new(Held { value: lease.value, echo, until: now + lease.lasts });
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&lease));
        Ok(lease)
    }

    /// What may come back from a host at this moment.
    pub(crate) fn echoes(&self, host: &HostName) -> Vec<Arc<Echo>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|((_, to), _)| to == host).map(|(_, lease)| Arc::clone(&lease.echo)).collect()
    }
}
