//! How much an account's files take up, and room for more of them.
//!
//! Files are written by us and by whatever runs in a sandbox, so that no sum of ours would stay right: the
//! folders are measured. What was measured is remembered for a while and moved by what we write ourselves,
//! so that the walk is not paid for each file; how long depends on how long the walk took, so that an account
//! with very many files costs no more than a fraction of a core, whatever its users do, and nobody else waits
//! behind its walks. Nobody is refused by a memory that is older than a moment.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_auth::access::verb::WriteSpace;
use bailiwick_auth::{Permit, Tenant};
use bailiwick_files::{Measured, Seen, measure};
use bailiwick_types::quota::Resource;
use bailiwick_types::{Exhausted, Incarnation};
use tokio::sync::Semaphore;

use crate::error::StoreError;
use crate::quota;
use crate::store::Store;

/// Entries that are looked at, files and folders. Who has more is told to have too much.
const MOST_ENTRIES: u64 = 1_000_000;
/// Accounts that are measured at once; more wait.
const WALKS: usize = 4;
/// Of those whose last walk was a long one, so many at once: they wait for each other and for nobody else.
const LONG_WALKS: usize = 2;
/// From here on a walk is a long one.
const LONG: Duration = Duration::from_millis(250);
/// However long a walk took, it is not remembered for longer: sandboxes write meanwhile.
const OLDEST: Duration = Duration::from_secs(60);
/// Accounts that are remembered without a word about them.
const REMEMBERED: usize = 4096;

/// What is known of all accounts.
pub(crate) struct Storage {
    accounts: Mutex<HashMap<Incarnation, Arc<Known>>>,
    walks: Arc<Semaphore>,
    long_walks: Arc<Semaphore>,
}

impl Default for Storage {
    fn default() -> Self {
        let (walks, long_walks) = (Arc::new(Semaphore::new(WALKS)), Arc::new(Semaphore::new(LONG_WALKS)));
        Self { accounts: Mutex::default(), walks, long_walks }
    }
}

/// What is known of one account.
#[derive(Default)]
struct Known {
    state: Mutex<State>,
    /// One walk at a time; who comes meanwhile takes what it finds.
    walking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    measured: Option<Memory>,
    /// Bytes for which there must be room because somebody is sending them.
    reserved: u64,
    /// How often something was deleted.
    deletions: u64,
    /// Bytes that we wrote, ever.
    written: u64,
}

#[derive(Clone, Copy)]
struct Memory {
    found: Measured,
    at: Instant,
    took: Duration,
    since: Since,
}

/// What happened since a measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Nothing that makes it too high.
    Growth,
    /// Something was deleted, so that it may be.
    Deletion,
}

/// How old a memory may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// To let in.
    Recent,
    /// To refuse.
    Moment,
}

impl Memory {
    fn is(&self, age: Age) -> bool {
        self.at.elapsed() < self.lasts(age)
    }

    fn lasts(&self, age: Age) -> Duration {
        let (least, walks) = match (self.since, age) {
            (Since::Growth, Age::Recent) => (Duration::from_secs(5), 20),
            (Since::Growth, Age::Moment) => (Duration::from_secs(1), 4),
            // Who made room is not refused by an old memory; but a deletion must not buy a long walk each time.
            (Since::Deletion, _) if self.took < LONG => return Duration::ZERO,
            (Since::Deletion, _) => (Duration::ZERO, 4),
        };
        least.max((self.took * walks).min(OLDEST))
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, age: Age) -> Option<Measured> {
        self.state().measured.filter(|memory| memory.is(age)).map(|memory| memory.found)
    }

    fn is_long(&self) -> bool {
        self.state().measured.is_some_and(|memory| memory.took >= LONG)
    }

    /// Measures, and remembers what was found.
    fn walk(&self, account: &Path) -> Result<Measured, StoreError> {
        let (deletions, written) = {
            let state = self.state();
            (state.deletions, state.written)
        };
        let begun = Instant::now();
        let mut found = walk(account)?;
        let mut state = self.state();
        // What was written meanwhile may lie where the walk had been before.
        found.bytes = found.bytes.saturating_add(state.written.saturating_sub(written));
        // What was deleted meanwhile may have been counted before it was gone.
        let since = if state.deletions == deletions { Since::Growth } else { Since::Deletion };
        state.measured = Some(Memory { found, at: Instant::now(), took: begun.elapsed(), since });
        Ok(found)
    }

    /// We wrote so many bytes more.
    fn grow(&self, bytes: u64) {
        let mut state = self.state();
        state.written = state.written.saturating_add(bytes);
        if let Some(memory) = &mut state.measured {
            memory.found.bytes = memory.found.bytes.saturating_add(bytes);
        }
    }

    /// Takes room for so many bytes, or for as many of them as there is room for.
    fn take(&self, limit: u64, found: Measured, need: Need) -> Option<u64> {
        let mut state = self.state();
        let found = state.measured.map_or(found, |memory| memory.found);
        if found.seen == Seen::Part {
            return None;
        }
        let left = limit.saturating_sub(found.bytes.saturating_add(state.reserved));
        let bytes = match need {
            Need::All(bytes) if bytes <= left => bytes,
            Need::UpTo(bytes) if left > 0 => bytes.min(left),
            _ => return None,
        };
        state.reserved += bytes;
        Some(bytes)
    }
}

/// How much room is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// So many bytes, or none at all. Of 0 also where nothing is left.
    All(u64),
    /// So many bytes at most, and one at least.
    UpTo(u64),
}

/// Room for bytes that are being written, held until they are.
#[must_use = "room that is dropped is given back"]
pub struct Room {
    /// Of whom, and out of how many MiB; nobody's where there is no limit.
    of: Option<(Arc<Known>, u64)>,
    bytes: u64,
}

impl Room {
    /// How many bytes fit; `None` where there is no limit.
    pub fn bytes(&self) -> Option<u64> {
        self.of.as_ref().map(|_| self.bytes)
    }

    /// Why no more than that fits.
    pub fn exhausted(&self) -> Option<Exhausted> {
        self.of.as_ref().map(|(_, most)| full(*most))
    }

    /// So many bytes more are there now.
    pub fn fill(self, grown: u64) {
        if let Some((known, _)) = &self.of {
            known.grow(grown);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some((known, _)) = &self.of {
            let mut state = known.state();
            state.reserved = state.reserved.saturating_sub(self.bytes);
        }
    }
}

impl Store {
    fn storage_known(&self, tenant: Incarnation) -> Arc<Known> {
        let mut accounts = self.storage().accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() > REMEMBERED {
            accounts.retain(|_, known| Arc::strong_count(known) > 1);
        }
        Arc::clone(accounts.entry(tenant).or_default())
    }

    /// What was measured no longer ago than that; else it is measured now.
    async fn storage_of(&self, tenant: &Tenant, known: &Arc<Known>, age: Age) -> Result<Measured, StoreError> {
        if let Some(found) = known.remembered(age) {
            return Ok(found);
        }
        let one = Arc::clone(&known.walking).lock_owned().await;
        if let Some(found) = known.remembered(age) {
            return Ok(found);
        }
        let places = if known.is_long() { &self.storage().long_walks } else { &self.storage().walks };
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (known, dir) = (Arc::clone(known), self.account_dir(tenant.incarnation()));
        let walking = tokio::task::spawn_blocking(move || {
            // Held by the walk and not by who waits for it: whoever asks and goes away, again and again, has
            // one walk under way and no more.
            let _held = (one, place);
            known.walk(&dir)
        });
        walking.await.map_err(|_| StoreError::Closed)?
    }

    pub(crate) async fn storage_measured(&self, tenant: &Tenant) -> Result<Measured, StoreError> {
        self.storage_of(tenant, &self.storage_known(tenant.incarnation()), Age::Recent).await
    }

    /// Room for a file that is about to be written.
    ///
    /// # Errors
    /// [`StoreError::Exhausted`] if the account has none left.
    pub async fn storage_reserve(&self, permit: &Permit<WriteSpace>, need: Need) -> Result<Room, StoreError> {
        self.storage_take(permit.tenant(), need).await
    }

    /// Whether the account has any room left, for work that may write.
    ///
    /// # Errors
    /// [`StoreError::Exhausted`] if it has none.
    pub async fn storage_admit(&self, tenant: &Tenant) -> Result<(), StoreError> {
        self.storage_take(tenant, Need::UpTo(1)).await.map(drop)
    }

    async fn storage_take(&self, tenant: &Tenant, need: Need) -> Result<Room, StoreError> {
        let defaults = self.default_quotas();
        let limits = self.database(tenant)?.read(|sql| quota::in_force(sql, &defaults)).await?;
        let (Some(most), Some(limit)) = (limits.storage_mib.most(), limits.storage_mib.mib_in_bytes().most()) else {
            return Ok(Room { of: None, bytes: 0 });
        };
        let known = self.storage_known(tenant.incarnation());
        for age in [Age::Recent, Age::Moment] {
            let found = self.storage_of(tenant, &known, age).await?;
            if let Some(bytes) = known.take(limit, found, need) {
                return Ok(Room { of: Some((known, most)), bytes });
            }
        }
        Err(full(most).into())
    }

    /// We wrote so many bytes into a workspace. What was remembered is moved by it, and soon measured anew.
    pub fn storage_grew(&self, tenant: &Tenant, bytes: u64) {
        self.storage_known(tenant.incarnation()).grow(bytes);
    }

    /// Something was deleted: what was measured before is too high.
    pub fn storage_shrank(&self, tenant: &Tenant) {
        let known = self.storage_known(tenant.incarnation());
        let mut state = known.state();
        if let Some(memory) = &mut state.measured {
            memory.since = Since::Deletion;
        }
        state.deletions = state.deletions.wrapping_add(1);
    }
}

const fn full(most: u64) -> Exhausted {
    Exhausted { resource: Resource::StorageMib, most, opens_at: None }
}

/// The folders of the spaces, and those that sandboxes have apart from them.
fn walk(account: &Path) -> Result<Measured, StoreError> {
    let spaces = measure(&account.join("spaces"), MOST_ENTRIES)?;
    let scratch = measure(&account.join("scratch"), MOST_ENTRIES.saturating_sub(spaces.entries).max(1))?;
    Ok(spaces.and(scratch))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn memory(took: Duration, since: Since) -> Memory {
        let found = Measured { bytes: 0, entries: 0, seen: Seen::Whole };
        Memory { found, at: Instant::now(), took, since }
    }

    #[test]
    fn i17_who_deletes_is_measured_anew_and_does_not_buy_a_long_walk_each_time() {
        let (short, long) = (Duration::from_millis(3), Duration::from_secs(2));
        for age in [Age::Recent, Age::Moment] {
            assert_eq!(memory(short, Since::Deletion).lasts(age), Duration::ZERO);
            // Walking takes a fifth of the time at most.
            assert_eq!(memory(long, Since::Deletion).lasts(age), long * 4);
        }
        assert_eq!(memory(short, Since::Growth).lasts(Age::Recent), Duration::from_secs(5));
        assert_eq!(memory(long, Since::Growth).lasts(Age::Recent), long * 20);
        assert_eq!(memory(long * 20, Since::Growth).lasts(Age::Recent), OLDEST);
        assert_eq!(memory(short, Since::Growth).lasts(Age::Moment), Duration::from_secs(1));
    }
}
