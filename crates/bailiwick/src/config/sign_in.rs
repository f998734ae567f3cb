//! How people sign in: hashes, the end of unused logins, lockout, and the first admin.

use std::time::Duration;

use bailiwick_auth::lockout::{Keep, LockoutSettings, Rule};
use bailiwick_auth::password::{Algorithm, Password};
use bailiwick_types::UserName;
use bailiwick_web as web;
use zeroize::Zeroizing;

use super::layers::Layers;
use super::raw::{Auth, Counts, Hashing, Lockout, OAuth, Passwords, Registration};
use super::{FirstAdmin, SignInSettings};

/// The variables that name the first admin, and those of another system that people come from.
const VARIABLES: [(&str, &str); 2] = [
    ("BAILIWICK_ADMIN_USERNAME", "BAILIWICK_ADMIN_PASSWORD"),
    ("VIBECODER_ADMIN_USERNAME", "VIBECODER_ADMIN_PASSWORD"),
];
/// Longest window and longest lock, hours: counts are kept for twice as long.
const LONGEST_HOURS: u32 = 24;

/// An access token cannot be told from a stolen one before its end, minutes.
const LONGEST_ACCESS_MINUTES: u32 = 24 * 60;
/// As long as a client stays known without any use, days.
const LONGEST_REFRESH_DAYS: u32 = 180;

/// Whether a variable is one of those.
pub(super) fn is_variable(name: &str) -> bool {
    VARIABLES.iter().any(|(user, password)| name == *user || name == *password)
}

pub(super) fn check(layers: &mut Layers, raw: &Auth, environment: &[(String, String)]) -> SignInSettings {
    let algorithm = algorithm(layers, &raw.password);
    let minutes = raw.session.idle_timeout_minutes;
    SignInSettings {
        algorithm,
        idle: (minutes > 0).then(|| Duration::from_secs(u64::from(minutes) * 60)),
        lockout: lockout(layers, &raw.lockout),
        first_admin: first_admin(layers, environment, algorithm),
        oauth: oauth(layers, &raw.oauth),
        documents: raw.oauth.metadata_documents,
    }
}

fn oauth(layers: &mut Layers, raw: &OAuth) -> web::OAuth {
    for (name, value, most) in [
        ("access_token_minutes", raw.access_token_minutes, LONGEST_ACCESS_MINUTES),
        ("refresh_token_days", raw.refresh_token_days, LONGEST_REFRESH_DAYS),
    ] {
        if value == 0 || value > most {
            layers.wrong(&format!("auth.oauth.{name}"), format!("from 1 to {most}"));
        }
    }
    web::OAuth {
        registration: match raw.registration {
            Registration::Open => web::Registration::Open,
            Registration::Operator => web::Registration::Operator,
        },
        access: Duration::from_secs(u64::from(raw.access_token_minutes) * 60),
        refresh: Duration::from_secs(u64::from(raw.refresh_token_days) * 24 * 3600),
        ..web::OAuth::default()
    }
}

fn algorithm(layers: &mut Layers, raw: &Passwords) -> Algorithm {
    let algorithm = match raw.algorithm {
        Hashing::Argon2id => {
            Algorithm::Argon2id { memory: raw.memory_mib.saturating_mul(1024), passes: raw.cost.unwrap_or(2) }
        }
        Hashing::Bcrypt => Algorithm::Bcrypt { cost: raw.cost.unwrap_or(12) },
    };
    if let Some(problem) = algorithm.problem() {
        let key = match raw.cost {
            Some(_) => "auth.password.cost",
            None => "auth.password.memory_mib",
        };
        layers.wrong(key, problem);
    }
    algorithm
}

fn lockout(layers: &mut Layers, raw: &Lockout) -> LockoutSettings {
    for (name, value) in [
        ("failures", raw.failures),
        ("minutes", raw.minutes),
        ("address_failures", raw.address_failures),
        ("address_hours", raw.address_hours),
        ("window_hours", raw.window_hours),
    ] {
        if value == 0 {
            layers.wrong(&format!("auth.lockout.{name}"), "must be at least 1");
        }
    }
    for (name, hours) in [
        ("minutes", raw.minutes.div_ceil(60)),
        ("address_hours", raw.address_hours),
        ("window_hours", raw.window_hours),
    ] {
        if hours > LONGEST_HOURS {
            layers.wrong(&format!("auth.lockout.{name}"), "at most a day");
        }
    }
    let hours = |hours: u32| Duration::from_secs(u64::from(hours) * 3600);
    let window = hours(raw.window_hours);
    LockoutSettings {
        account: Rule { failures: raw.failures, window, lock: Duration::from_secs(u64::from(raw.minutes) * 60) },
        address: Rule { failures: raw.address_failures, window, lock: hours(raw.address_hours) },
        keep: match raw.keep {
            Counts::Memory => Keep::Memory,
            Counts::Database => Keep::Database,
        },
    }
}

fn first_admin(layers: &mut Layers, environment: &[(String, String)], algorithm: Algorithm) -> Option<FirstAdmin> {
    let value = |name: &str| environment.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str());
    let (user, password) = VARIABLES.into_iter().find(|(a, b)| value(a).is_some() || value(b).is_some())?;
    let (Some(name), Some(text)) = (value(user), value(password)) else {
        layers.wrong("", format!("{user} and {password} belong together: give both or none"));
        return None;
    };
    let name: UserName = match name.parse() {
        Ok(name) => name,
        Err(error) => {
            layers.wrong("", format!("{user}: {error}"));
            return None;
        }
    };
    if let Err(unfit) = Password::new(text).fit(name.as_str(), algorithm) {
        layers.wrong("", format!("{password}: {unfit}"));
        return None;
    }
    Some(FirstAdmin { name, password: Zeroizing::new(text.to_owned()) })
}
