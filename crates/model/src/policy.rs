//! How long a call may take, how often it is tried, and how much is accepted. Every call has
//! all of these bounds; none can be switched off.

use std::time::Duration;

/// The bounds of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Time.
    pub timeouts: Timeouts,
    /// Tries.
    pub retry: Retry,
    /// Sizes.
    pub limits: Limits,
}

/// How long to wait. The connection's own limit belongs to the client, [`crate::Http`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the start of a try to the first bytes of its answer.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// For everything: tries, pauses and the answer.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { first_byte: Duration::from_secs(120), idle: Duration::from_secs(120), total: Duration::from_secs(900) }
    }
}

/// How often to try. Only what has a chance is repeated, and never an answer that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all; 1 for no retry.
    pub attempts: u32,
    /// The pause before the second try; it doubles for each one after.
    pub base: Duration,
    /// The longest pause. If the provider asks for more, the call fails at once and says how
    /// long was asked for: to come back earlier would be impolite and useless.
    pub max_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, base: Duration::from_millis(500), max_wait: Duration::from_secs(20) }
    }
}

impl Retry {
    /// The pause after failed try `tried` (from 1), or `None` if that was the last one.
    /// Between half and all of the doubled base, at random, so that many callers do not come
    /// back at the same moment; never less than the provider asked for.
    pub(crate) fn pause(&self, tried: u32, asked: Option<Duration>) -> Option<Duration> {
        if tried >= self.attempts || asked.is_some_and(|asked| asked > self.max_wait) {
            return None;
        }
        let doubled = self.base.saturating_mul(1 << tried.saturating_sub(1).min(16));
        // Without randomness the pause is merely not spread.
        let spread = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        let pause = doubled.min(self.max_wait).mul_f64(0.5 + spread / 2.0);
        Some(asked.map_or(pause, |asked| asked.max(pause)))
    }
}

/// How much is accepted of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event. The longest honest ones repeat the whole request and answer.
    pub event_bytes: usize,
    /// Bytes of the whole answer.
    pub response_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes: 4 * 1024 * 1024, response_bytes: 64 * 1024 * 1024 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_spread_and_have_an_end() {
        let retry = Retry { attempts: 4, base: Duration::from_millis(100), max_wait: Duration::from_millis(300) };
        for (tried, low, high) in [(1, 50, 100), (2, 100, 200), (3, 150, 300)] {
            let pause = retry.pause(tried, None).unwrap().as_millis();
            assert!((low..=high).contains(&pause), "{tried}: {pause}");
        }
        assert_eq!(retry.pause(4, None), None);
    }

    #[test]
    fn what_the_provider_asks_for_is_kept_or_the_call_fails() {
        let retry = Retry { attempts: 3, base: Duration::from_millis(1), max_wait: Duration::from_secs(2) };
        assert_eq!(retry.pause(1, Some(Duration::from_secs(2))), Some(Duration::from_secs(2)));
        assert_eq!(retry.pause(1, Some(Duration::from_secs(3))), None);
    }
}
