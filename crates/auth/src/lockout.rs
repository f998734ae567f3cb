//! Against guessing: how many attempts to sign in may fail, for one account's user and from one address.
//!
//! An attempt counts as a failure from its beginning, and is forgiven when it turns out to be none. So
//! attempts that run beside each other cannot outrun the count, and one that is broken off stays counted.
//! Counts are kept in memory, where a restart clears them, or in the host's database, where several servers
//! share them.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailiwick_types::{AccountName, Timestamp, UserName};
use lru::LruCache;

use crate::authn::sign_in::subject;
use crate::authn::{Directory, DirectoryError};

/// After how many failures attempts are refused, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The last failure that is answered as one.
    pub failures: u32,
    /// Counted from the first failure; what is older is forgotten.
    pub window: Duration,
    /// How long attempts are refused then.
    pub lock: Duration,
}

/// Where counts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// In this process.
    #[default]
    Memory,
    /// In the host's database.
    Database,
}

/// Both rules, and where counts are kept (`auth.lockout`).
#[derive(Debug, Clone, Copy)]
pub struct LockoutSettings {
    /// For one user, from wherever.
    pub account: Rule,
    /// For one address, over all users.
    pub address: Rule,
    /// Where.
    pub keep: Keep,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for LockoutSettings {
    fn default() -> Self {
        Self {
            account: Rule { failures: 10, window: DAY, lock: Duration::from_secs(15 * 60) },
            address: Rule { failures: 30, window: DAY, lock: DAY },
            keep: Keep::default(),
        }
    }
}

/// What is counted for one user or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Failures, with the attempts that are under way.
    pub failures: u32,
    /// When the first of them was.
    pub since: Option<Timestamp>,
    /// Until when attempts are refused.
    pub until: Option<Timestamp>,
}

/// Attempts are refused until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked(pub Timestamp);

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_add(by))
}

impl Tally {
    /// Counts an attempt.
    ///
    /// # Errors
    /// If there were too many; this one is then not counted.
    pub fn begin(&mut self, rule: &Rule, now: Timestamp) -> Result<(), Locked> {
        if let Some(until) = self.until.filter(|until| now < *until) {
            return Err(Locked(until));
        }
        let over = self.until.is_some() || self.since.is_some_and(|since| later(since, rule.window) <= now);
        if over {
            *self = Self::default();
        }
        self.since = self.since.or(Some(now));
        self.failures = self.failures.saturating_add(1);
        if self.failures >= rule.failures {
            self.until = Some(later(now, rule.lock));
        }
        Ok(())
    }

    /// One attempt was no failure after all.
    pub fn forgive(&mut self, rule: &Rule) {
        self.failures = self.failures.saturating_sub(1);
        if self.failures < rule.failures {
            self.until = None;
        }
    }
}

/// Counts kept in memory. More than these would be a flood from everywhere; the oldest make room.
const KEPT: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// Counts attempts, and refuses them.
pub struct Lockout {
    settings: LockoutSettings,
    memory: Mutex<LruCache<String, Tally>>,
}

/// An attempt that was let through. Unless it is forgiven or succeeds, it stays a failure.
#[must_use = "an attempt that is not ended stays a failure"]
pub struct Attempt {
    user: Option<String>,
    address: String,
}

/// Why an attempt is not let through.
#[derive(Debug, thiserror::Error)]
pub enum Held {
    /// Too many failures of this user.
    #[error("too many failed attempts: this user can sign in again later")]
    User(Locked),
    /// Too many failures from this address.
    #[error("too many failed attempts from this address")]
    Address(Locked),
    /// The counts could not be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl Lockout {
    /// No failures yet.
    pub fn new(settings: LockoutSettings) -> Self {
        Self { settings, memory: Mutex::new(LruCache::new(KEPT)) }
    }

    /// Begins an attempt. `user`: as whom, if the name can be one.
    pub(crate) async fn begin(
        &self,
        directory: &impl Directory,
        user: Option<(&AccountName, &UserName)>,
        address: IpAddr,
    ) -> Result<Attempt, Held> {
        let (of_user, of_address) = (self.settings.account, self.settings.address);
        let now = Timestamp::now();
        let attempt = Attempt {
            user: user.map(|(account, user)| format!("user:{account}/{user}")),
            address: format!("address:{}", prefix(address)),
        };
        let begun = self.change(directory, &attempt.address, move |tally| tally.begin(&of_address, now)).await?;
        begun.map_err(Held::Address)?;
        if let Some(user) = &attempt.user {
            let begun = self.change(directory, user, move |tally| tally.begin(&of_user, now)).await?;
            if let Err(locked) = begun {
                // It was answered without a look at the password, so it says nothing about the address.
                self.change(directory, &attempt.address, move |tally| tally.forgive(&of_address)).await?;
                return Err(Held::User(locked));
            }
        }
        Ok(attempt)
    }

    /// The attempt was no failure, and no success: something more is asked for.
    pub(crate) async fn forgive(&self, directory: &impl Directory, attempt: Attempt) -> Result<(), DirectoryError> {
        let (of_user, of_address) = (self.settings.account, self.settings.address);
        self.change(directory, &attempt.address, move |tally| tally.forgive(&of_address)).await?;
        match &attempt.user {
            Some(user) => self.change(directory, user, move |tally| tally.forgive(&of_user)).await,
            None => Ok(()),
        }
    }

    /// The attempt succeeded: the user's earlier failures are forgotten, the address's are not, because one
    /// right password among many wrong ones is what a thief's list looks like.
    pub(crate) async fn succeed(&self, directory: &impl Directory, attempt: Attempt) -> Result<(), DirectoryError> {
        let of_address = self.settings.address;
        self.change(directory, &attempt.address, move |tally| tally.forgive(&of_address)).await?;
        match &attempt.user {
            Some(user) => self.change(directory, user, |tally| *tally = Tally::default()).await,
            None => Ok(()),
        }
    }

    /// Forgets a user's failures, because an admin says so.
    ///
    /// # Errors
    /// If the counts cannot be written.
    pub async fn release(
        &self,
        directory: &impl Directory,
        account: &AccountName,
        user: &UserName,
    ) -> Result<(), DirectoryError> {
        self.change(directory, &format!("user:{account}/{user}"), |tally| *tally = Tally::default()).await?;
        // As they are counted who type their name alone.
        match subject(user.as_str(), None).filter(|_| *account == AccountName::first()) {
            Some((account, user)) => {
                self.change(directory, &format!("user:{account}/{user}"), |tally| *tally = Tally::default()).await
            }
            None => Ok(()),
        }
    }

    async fn change<T: Send + 'static>(
        &self,
        directory: &impl Directory,
        subject: &str,
        change: impl FnOnce(&mut Tally) -> T + Send + 'static,
    ) -> Result<T, DirectoryError> {
        if self.settings.keep == Keep::Database {
            return directory.tally(subject.to_owned(), change).await;
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tally = memory.pop(subject).unwrap_or_default();
        let answer = change(&mut tally);
        if tally != Tally::default() && tally.failures > 0 {
            memory.push(subject.to_owned(), tally);
        }
        Ok(answer)
    }
}

/// What counts as one address: of IPv6 the network, because one host can have any address in it.
pub(crate) fn prefix(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { failures: 10, window: DAY, lock: Duration::from_secs(900) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
    }

    #[test]
    fn i03_ten_failures_lock_for_fifteen_minutes_and_then_the_count_starts_anew() {
        let mut tally = Tally::default();
        for n in 0..10 {
            assert!(tally.begin(&RULE, at(n)).is_ok(), "{n}");
        }
        assert_eq!(tally.begin(&RULE, at(10)), Err(Locked(at(9 + 900))));
        assert_eq!(tally.begin(&RULE, at(908)), Err(Locked(at(909))));
        assert_eq!(tally.failures, 10, "what is refused is not counted, so the lock does not move");
        for n in 0..10 {
            assert!(tally.begin(&RULE, at(909 + n)).is_ok(), "after the end, {n}");
        }
        assert!(tally.begin(&RULE, at(919)).is_err());
    }

    #[test]
    fn i03_an_attempt_that_was_right_unlocks_and_old_failures_are_forgotten() {
        let mut tally = Tally::default();
        for n in 0..9 {
            tally.begin(&RULE, at(n)).unwrap();
        }
        tally.begin(&RULE, at(9)).unwrap();
        tally.forgive(&RULE);
        assert!(tally.begin(&RULE, at(10)).is_ok(), "the tenth was none");
        let mut tally = Tally::default();
        for n in 0..9 {
            tally.begin(&RULE, at(n)).unwrap();
        }
        assert!(tally.begin(&RULE, at(24 * 3600)).is_ok());
        assert_eq!(tally.failures, 1);
    }

    #[test]
    fn i04_an_address_is_a_host_of_ipv4_or_a_network_of_ipv6() {
        let of = |text: &str| prefix(text.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }
}
