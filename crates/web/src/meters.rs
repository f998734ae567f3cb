//! Numbers for the operator: how many requests, refusals and streams. Labels are routes and statuses,
//! never an account, a user, a key or a path as it was sent, so that no tenant shows in a metric.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bailiwick_types::{Incarnation, UserName};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;

/// Refused credentials that are written down in a second; more are counted. Somebody who guesses keys
/// must not be able to fill the log.
const REJECTIONS_A_SECOND: u32 = 20;

/// Counters since the start.
#[derive(Default)]
pub(crate) struct Meters {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    rejections: Mutex<Rejections>,
    streams: Mutex<Taken>,
    sockets: Mutex<Taken>,
    uploads: Mutex<Taken>,
    long_bodies: Mutex<Taken>,
    too_fast: AtomicU64,
}

/// How many each user of each account has.
type Taken = HashMap<Incarnation, HashMap<UserName, usize>>;

/// What one user may have only so many of at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scarce {
    /// Streams that are read. A stream is a connection, and connections are everybody's.
    Streams,
    /// WebSockets that are open.
    Sockets,
    /// Files that are sent, and folders that are removed: each holds a thread, for as long as it takes.
    Uploads,
    /// Long bodies that are no files. They are held in memory.
    LongBodies,
}

impl Scarce {
    /// In words.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Sockets => "sockets",
            Self::Uploads => "uploads",
            Self::LongBodies => "long bodies",
        }
    }

    /// A stable word for having too many.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Streams => "too_many_streams",
            Self::Sockets => "too_many_sockets",
            Self::Uploads => "too_many_uploads",
            Self::LongBodies => "too_many_long_bodies",
        }
    }

    /// For one user.
    const fn most(self) -> usize {
        match self {
            Self::Streams => 64,
            Self::Sockets => 32,
            Self::Uploads => 8,
            Self::LongBodies => 4,
        }
    }

    /// For all users of one account: an account can have any number of users, and must not use up what
    /// others need.
    const fn most_of_account(self) -> usize {
        match self {
            Self::Streams => 1024,
            Self::Sockets => 512,
            Self::Uploads => 32,
            Self::LongBodies => 16,
        }
    }
}

#[derive(Default)]
struct Rejections {
    second: Option<Instant>,
    written: u32,
    unwritten: u64,
    total: u64,
}

/// One of what a user may have only so many of, for as long as it is kept.
pub(crate) struct Slot {
    app: App,
    of: Scarce,
    tenant: Incarnation,
    user: UserName,
}

impl Slot {
    /// Takes a slot. The operator without a tenant needs none: who runs the server needs no walls from it.
    pub(crate) fn take(of: Scarce, app: &App, caller: &Caller) -> Result<Option<Self>, Failure> {
        let (Some(tenant), Some(user)) = (caller.principal.tenant(), caller.principal.user()) else {
            return Ok(None);
        };
        let (tenant, user) = (tenant.incarnation(), user.clone());
        let mut taken = app.meters().taken(of);
        let account = taken.entry(tenant).or_default();
        let own = account.get(&user).copied().unwrap_or(0);
        if own >= of.most() {
            return Err(Failure::TooMany { of, most: of.most(), who: "one user" });
        }
        if account.values().sum::<usize>() >= of.most_of_account() {
            return Err(Failure::TooMany { of, most: of.most_of_account(), who: "one account" });
        }
        account.insert(user.clone(), own + 1);
        drop(taken);
        Ok(Some(Self { app: app.clone(), of, tenant, user }))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.app.meters().taken(self.of);
        let Some(account) = taken.get_mut(&self.tenant) else { return };
        if let Some(own) = account.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                account.remove(&self.user);
            }
        }
        if account.is_empty() {
            taken.remove(&self.tenant);
        }
    }
}

impl Meters {
    fn taken(&self, of: Scarce) -> MutexGuard<'_, Taken> {
        let taken = match of {
            Scarce::Streams => &self.streams,
            Scarce::Sockets => &self.sockets,
            Scarce::Uploads => &self.uploads,
            Scarce::LongBodies => &self.long_bodies,
        };
        taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that was refused because of its rate. As [`Self::rejection`]: `Some` if it may be
    /// written down.
    pub(crate) fn too_fast(&self) -> Option<u64> {
        self.too_fast.fetch_add(1, Ordering::Relaxed);
        self.rejection()
    }

    pub(crate) fn request(&self, method: &'static str, route: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, method, status)).or_default() += 1;
    }

    /// Counts a refused credential. `Some` if it may be written down, with the number of those before
    /// it that were not.
    pub(crate) fn rejection(&self) -> Option<u64> {
        let mut seen = self.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        seen.total += 1;
        let now = Instant::now();
        if seen.second.is_none_or(|second| now.duration_since(second).as_secs() >= 1) {
            seen.second = Some(now);
            seen.written = 0;
        }
        if seen.written < REJECTIONS_A_SECOND {
            seen.written += 1;
            Some(std::mem::take(&mut seen.unwritten))
        } else {
            seen.unwritten += 1;
            None
        }
    }

    /// The Prometheus text format, version 0.0.4.
    pub(crate) fn text(&self, lost: u64, sandboxes: usize) -> String {
        let mut text = String::from("# TYPE bailiwick_http_requests_total counter\n");
        for ((route, method, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(
                text,
                "bailiwick_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            );
        }
        let rejected = self.rejections.lock().unwrap_or_else(PoisonError::into_inner).total;
        let fast = self.too_fast.load(Ordering::Relaxed);
        let streams: usize = self.taken(Scarce::Streams).values().flat_map(HashMap::values).sum();
        let _ = write!(
            text,
            "# TYPE bailiwick_credentials_refused_total counter\nbailiwick_credentials_refused_total {rejected}\n\
             # TYPE bailiwick_requests_too_fast_total counter\nbailiwick_requests_too_fast_total {fast}\n\
             # TYPE bailiwick_observations_lost_total counter\nbailiwick_observations_lost_total {lost}\n\
             # TYPE bailiwick_streams_open gauge\nbailiwick_streams_open {streams}\n\
             # TYPE bailiwick_sandboxes_running gauge\nbailiwick_sandboxes_running {sandboxes}\n"
        );
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_rejections_is_counted_and_not_written() {
        let meters = Meters::default();
        let written = (0..1_000).filter(|_| meters.rejection().is_some()).count();
        // The clock may turn once while the loop runs.
        assert!((20..=40).contains(&written), "{written}");
        assert!(meters.text(0, 0).contains("bailiwick_credentials_refused_total 1000"));
    }
}
