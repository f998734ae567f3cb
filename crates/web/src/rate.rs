//! How often one principal, and one address, may ask. The limits are far above what a person or a busy
//! application does; who meets one is told when to come again, and nobody else notices.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Requests a second (`limits.requests_per_second_per_…`); `None`: as many as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Of one user of one account, by whichever credential.
    pub principal: Option<NonZeroU32>,
    /// From one address, whoever asks.
    pub address: Option<NonZeroU32>,
}

/// Asked too often: seconds until the next answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFast(pub(crate) u64);

/// Counts for one of the two limits. A second's worth may come at once.
pub(crate) struct Limiter {
    limit: Option<RateLimiter<u64, HashMapStateStore<u64>, DefaultClock>>,
    clock: DefaultClock,
    /// Secret, so that nobody finds two keys that are counted as one.
    hasher: RandomState,
    asked: AtomicU64,
}

/// What counts as one address: of IPv6 the network, because one host can have any address in it.
pub(crate) fn counted(address: IpAddr) -> u64 {
    match address.to_canonical() {
        // In a range of IPv6 that is nobody's.
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

/// Who has not asked for a while is forgotten once in so many requests.
const CLEAN_EVERY: u64 = 8192;

impl Limiter {
    pub(crate) fn new(rate: Option<NonZeroU32>) -> Self {
        Self {
            limit: rate.map(|rate| RateLimiter::hashmap(Quota::per_second(rate))),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
            asked: AtomicU64::new(0),
        }
    }

    /// So many a minute, all of which may come at once: for what costs others something.
    pub(crate) fn per_minute(rate: NonZeroU32) -> Self {
        Self { limit: Some(RateLimiter::hashmap(Quota::per_minute(rate))), ..Self::new(None) }
    }

    /// Counts a request of `who`.
    pub(crate) fn check(&self, who: impl Hash) -> Result<(), TooFast> {
        let Some(limit) = &self.limit else { return Ok(()) };
        if self.asked.fetch_add(1, Ordering::Relaxed) % CLEAN_EVERY == CLEAN_EVERY - 1 {
            limit.retain_recent();
        }
        limit.check_key(&self.hasher.hash_one(who)).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            TooFast(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn i17_one_is_held_to_the_limit_and_the_other_is_not() {
        let limiter = Limiter::new(NonZeroU32::new(5));
        let passed = |who: &str| (0..50).filter(|_| limiter.check(who).is_ok()).count();
        let first = passed("one");
        // Time goes on while it runs.
        assert!((5..=6).contains(&first), "{first}");
        assert!((5..=6).contains(&passed("other")));
        assert_eq!(limiter.check("one"), Err(TooFast(1)));
        assert!((0..1000).all(|_| Limiter::new(None).check("one").is_ok()));
    }

    #[test]
    fn i17_a_network_of_ipv6_is_one_address() {
        let of = |text: &str| counted(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn i17_who_has_gone_is_forgotten() {
        let limiter = Limiter::new(NonZeroU32::new(1_000_000));
        for n in 0..CLEAN_EVERY * 2 {
            let _ = limiter.check(n);
        }
        assert!(limiter.limit.as_ref().unwrap().len() < usize::try_from(CLEAN_EVERY).unwrap() * 2);
    }
}
