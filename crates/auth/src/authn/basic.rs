//! A user's name and password with each request (RFC 7617). Checking a password is slow on purpose, so one
//! that was right is remembered for a minute: as a keyed hash, in memory, beside what it was checked
//! against. A changed password, or a second factor that was set up, is another record and remembered by
//! nobody.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_types::{AccountName, UserName};
use lru::LruCache;
use zeroize::Zeroizing;

use super::sign_in::{Claim, SignInError, SignInRecord, SignIns, resolve};
use super::{Directory, Rejection};
use crate::key::KeyRing;
use crate::lockout::prefix;
use crate::password::Password;
use crate::principal::{Bounds, Member, PasswordMark};

/// How long a right password is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Of how many users.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

pub(super) struct Basic {
    sign_ins: Arc<SignIns>,
    right: Mutex<LruCache<[u8; 32], Instant>>,
}

impl Basic {
    pub(super) fn new(sign_ins: Arc<SignIns>) -> Self {
        Self { sign_ins, right: Mutex::new(LruCache::new(MOST)) }
    }

    /// Whose name and password they are.
    pub(super) async fn check(
        &self,
        directory: &impl Directory,
        ring: &KeyRing,
        name: &str,
        password: &Password,
        client: IpAddr,
    ) -> Result<(Member, PasswordMark), Rejection> {
        let named: Option<(AccountName, UserName)> = resolve(directory, name, None).await?;
        let record = match &named {
            Some((account, user)) => directory.sign_in(account, user).await?,
            None => None,
        };
        if let Some(record) = &record
            && let Some(mark) = mark(ring, record, password, client)
            && self.remembers(&mark)
        {
            return Ok((member(record), of_record(ring, record).ok_or(Rejection::Invalid)?));
        }
        let claim = Claim { name, account: None, password: password.again(), client };
        let proven = self.sign_ins.by_password(directory, claim).await.map_err(Rejection::SignIn)?;
        match proven.alone() {
            Ok(identified) => self.sign_ins.succeeded(directory, identified.attempt).await?,
            // A second factor cannot be shown here, and is not done without.
            Err(proven) => {
                self.sign_ins.asked_for_more(directory, proven).await?;
                return Err(Rejection::Invalid);
            }
        }
        // What was checked is what is there now, or the next request checks again.
        let record = record.ok_or(Rejection::SignIn(SignInError::Wrong(None)))?;
        if let Some(mark) = mark(ring, &record, password, client) {
            self.right.lock().unwrap_or_else(PoisonError::into_inner).push(mark, Instant::now());
        }
        Ok((member(&record), of_record(ring, &record).ok_or(Rejection::Invalid)?))
    }

    fn remembers(&self, mark: &[u8; 32]) -> bool {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(mark).is_some_and(|at| at.elapsed() < REMEMBERED)
    }
}

/// Names a user with the password that is kept of them and nothing else to show; nothing where there is more.
pub(super) fn of_record(ring: &KeyRing, record: &SignInRecord) -> Option<PasswordMark> {
    if record.has_second_factor() {
        return None;
    }
    let stored = record.password.as_ref()?.as_text();
    let text = format!("password\0{}\0{}\0{stored}", record.tenant.incarnation(), record.user);
    let [a, b, c, d, ..] = *ring.hash(&text).as_bytes();
    Some(PasswordMark(u32::from_be_bytes([a, b, c, d])))
}

/// Names a password together with all that it was checked against; nothing where more is asked for.
fn mark(ring: &KeyRing, record: &SignInRecord, password: &Password, client: IpAddr) -> Option<[u8; 32]> {
    if record.has_second_factor() {
        return None;
    }
    let stored = record.password.as_ref()?.as_text();
    // And with the address that showed it: a shortcut for all would be a way round the lockout.
    let whose = format!("{}\0{}\0{}", record.tenant.incarnation(), record.user, prefix(client));
    let text = Zeroizing::new(format!("basic\0{whose}\0{stored}\0{}", password.text()));
    Some(*ring.hash(&text).as_bytes())
}

fn member(record: &SignInRecord) -> Member {
    let SignInRecord { tenant, user, role, .. } = record.clone();
    Member { tenant, user, role, bounds: Bounds::none() }
}
