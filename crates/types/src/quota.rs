//! What an account may use: budgets that open again each day (UTC), and quotas of what it holds at once.
//!
//! Figures and words alone. Who counts is the store; who refuses stands beside the spending.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Microseconds of a day of UTC, which knows no leap seconds here.
const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// The most of something. As a number; 0 says that there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quota(u64);

impl Quota {
    /// No limit at all.
    pub const NONE: Self = Self(0);

    /// A limit of so many; of 0, none.
    pub const fn new(most: u64) -> Self {
        Self(most)
    }

    /// How many; `None` where there is no limit.
    pub const fn most(self) -> Option<u64> {
        if self.0 == 0 { None } else { Some(self.0) }
    }

    /// As stored and shown: 0 for none.
    pub const fn to_number(self) -> u64 {
        self.0
    }

    /// Whether one who has used so much may use more.
    pub fn leaves_some(self, used: u64) -> bool {
        self.most().is_none_or(|most| used < most)
    }

    /// The same figure of MiB in bytes.
    #[must_use]
    pub fn mib_in_bytes(self) -> Self {
        Self(self.0.saturating_mul(MIB))
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Tokens of models in a day, in and out.
    TokensPerDay,
    /// Calls of models in a day.
    ModelCallsPerDay,
    /// Calls of tools in a day.
    ToolCallsPerDay,
    /// What all workspaces hold, in MiB.
    StorageMib,
    /// Sessions with a turn under way.
    ConcurrentSessions,
}

impl Resource {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::TokensPerDay, Self::ModelCallsPerDay, Self::ToolCallsPerDay, Self::StorageMib, Self::ConcurrentSessions];

    /// Its key in the configuration, in requests and on the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokensPerDay => "tokens_per_day",
            Self::ModelCallsPerDay => "model_calls_per_day",
            Self::ToolCallsPerDay => "tool_calls_per_day",
            Self::StorageMib => "storage_mib",
            Self::ConcurrentSessions => "concurrent_sessions",
        }
    }

    /// The stable word of a refusal.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TokensPerDay | Self::ModelCallsPerDay | Self::ToolCallsPerDay => "budget_exceeded",
            Self::StorageMib => "storage_exceeded",
            Self::ConcurrentSessions => "too_many_sessions",
        }
    }
}

/// The limits of one account, all of them known. Without a word of anybody there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// Tokens of models in a day, in and out.
    pub tokens_per_day: Quota,
    /// Calls of models in a day.
    pub model_calls_per_day: Quota,
    /// Calls of tools in a day.
    pub tool_calls_per_day: Quota,
    /// What all workspaces hold, in MiB.
    pub storage_mib: Quota,
    /// Sessions with a turn under way.
    pub concurrent_sessions: Quota,
}

impl Quotas {
    /// The limit of one resource.
    pub const fn of(&self, resource: Resource) -> Quota {
        match resource {
            Resource::TokensPerDay => self.tokens_per_day,
            Resource::ModelCallsPerDay => self.model_calls_per_day,
            Resource::ToolCallsPerDay => self.tool_calls_per_day,
            Resource::StorageMib => self.storage_mib,
            Resource::ConcurrentSessions => self.concurrent_sessions,
        }
    }
}

/// What the operator set for one account. What is left out, or null, is the server's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaOverrides {
    /// Tokens of models in a day, in and out.
    pub tokens_per_day: Option<Quota>,
    /// Calls of models in a day.
    pub model_calls_per_day: Option<Quota>,
    /// Calls of tools in a day.
    pub tool_calls_per_day: Option<Quota>,
    /// What all workspaces hold, in MiB.
    pub storage_mib: Option<Quota>,
    /// Sessions with a turn under way.
    pub concurrent_sessions: Option<Quota>,
}

impl QuotaOverrides {
    /// The limits that come of these over the server's defaults.
    #[must_use]
    pub fn over(&self, defaults: &Quotas) -> Quotas {
        Quotas {
            tokens_per_day: self.tokens_per_day.unwrap_or(defaults.tokens_per_day),
            model_calls_per_day: self.model_calls_per_day.unwrap_or(defaults.model_calls_per_day),
            tool_calls_per_day: self.tool_calls_per_day.unwrap_or(defaults.tool_calls_per_day),
            storage_mib: self.storage_mib.unwrap_or(defaults.storage_mib),
            concurrent_sessions: self.concurrent_sessions.unwrap_or(defaults.concurrent_sessions),
        }
    }

    /// The largest figure that can be kept: that of the databases' integers.
    pub const LARGEST: u64 = i64::MAX as u64;

    /// The first figure that is too large to be kept.
    pub fn too_large(&self) -> Option<Resource> {
        let figures = self.over(&Quotas::default());
        Resource::ALL.into_iter().find(|resource| figures.of(*resource).to_number() > Self::LARGEST)
    }
}

/// A day of UTC, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The day of a point in time.
    pub const fn of(at: Timestamp) -> Self {
        Self(at.as_micros().div_euclid(DAY_MICROS))
    }

    /// Today by the host's clock.
    pub fn today() -> Self {
        Self::of(Timestamp::now())
    }

    /// From its number.
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn to_number(self) -> i64 {
        self.0
    }

    /// So many days earlier.
    #[must_use]
    pub const fn earlier(self, days: i64) -> Self {
        Self(self.0.saturating_sub(days))
    }

    /// When it ends and the next one begins.
    pub const fn end(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_add(1).saturating_mul(DAY_MICROS))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 3339: the date stands before the `T`.
        let begin = Timestamp::from_micros(self.0.saturating_mul(DAY_MICROS)).to_string();
        f.write_str(begin.split('T').next().unwrap_or(&begin))
    }
}

impl Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An account has used up what it may use of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Exhausted {
    /// Of what.
    pub resource: Resource,
    /// How much it may.
    pub most: u64,
    /// When there will be some again; `None` where that is not a matter of time.
    pub opens_at: Option<Timestamp>,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.most;
        match self.resource {
            Resource::TokensPerDay => write!(f, "the account has used its {most} tokens of today")?,
            Resource::ModelCallsPerDay => write!(f, "the account has used its {most} model calls of today")?,
            Resource::ToolCallsPerDay => write!(f, "the account has used its {most} tool calls of today")?,
            Resource::StorageMib => {
                write!(f, "the account's files take up its {most} MiB: delete some first")?;
            }
            Resource::ConcurrentSessions => {
                write!(f, "the account has {most} sessions at work, which is its limit: wait for one to end its turn")?;
            }
        }
        match self.opens_at {
            Some(at) => write!(f, ": the budget opens again at {at}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_of_utc() {
        let at: Timestamp = "2026-11-22T23:59:59.999Z".parse().unwrap();
        assert_eq!(Day::of(at).to_string(), "2026-11-22");
        assert_eq!(Day::of(at).end().to_string(), "2026-11-23T00:00:00.000Z");
        assert_eq!(Day::of(Day::of(at).end()).to_string(), "2026-11-23");
        assert_eq!(Day::of(Timestamp::from_micros(-1)).to_string(), "1969-12-31");
    }

    #[test]
    fn nothing_is_no_limit_and_a_limit_is_met_when_it_is_used_up() {
        assert!(Quota::NONE.leaves_some(u64::MAX));
        assert!(Quota::new(2).leaves_some(1));
        assert!(!Quota::new(2).leaves_some(2));
        assert_eq!(Quota::new(u64::MAX).mib_in_bytes().most(), Some(u64::MAX));
    }

    #[test]
    fn what_is_not_set_is_the_default_and_an_unknown_key_is_an_error() {
        let defaults = Quotas { tokens_per_day: Quota::new(5), storage_mib: Quota::new(7), ..Quotas::default() };
        let set: QuotaOverrides = serde_json::from_str(r#"{"tokens_per_day":0,"storage_mib":null}"#).unwrap();
        let limits = set.over(&defaults);
        assert_eq!((limits.tokens_per_day, limits.storage_mib), (Quota::NONE, Quota::new(7)));
        for wrong in [r#"{"tokens":1}"#, r#"{"tokens_per_day":-1}"#, r#"{"tokens_per_day":1.5}"#] {
            assert!(serde_json::from_str::<QuotaOverrides>(wrong).is_err(), "{wrong}");
        }
        let huge: QuotaOverrides = serde_json::from_str(r#"{"storage_mib":18446744073709551615}"#).unwrap();
        assert_eq!((huge.too_large(), set.too_large()), (Some(Resource::StorageMib), None));
    }
}
