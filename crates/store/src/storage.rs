//! How much an account's files take up, and room for more of them.
//!
//! Files are written by us and by whatever runs in a sandbox, so that no sum of ours would stay right: the
//! folders are measured. What was measured is remembered for a while and moved by what we write ourselves,
//! so that the walk is not paid for each file; how long depends on how long the walk took, so that an account
//! with very many files costs no more than a twentieth of a core. Nobody is refused by a memory that is older
//! than a moment.

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
const MOST_ENTRIES: u64 = 4_000_000;
/// Accounts that are measured at once; more wait.
const WALKS: usize = 4;
/// Accounts that are remembered without a word about them.
const REMEMBERED: usize = 4096;

/// What is known of all accounts.
pub(crate) struct Storage {
    accounts: Mutex<HashMap<Incarnation, Arc<Known>>>,
    walks: Semaphore,
}

impl Default for Storage {
    fn default() -> Self {
        Self { accounts: Mutex::default(), walks: Semaphore::new(WALKS) }
    }
}

/// What is known of one account.
#[derive(Default)]
struct Known {
    state: Mutex<State>,
    /// One walk at a time; who comes meanwhile takes what it finds.
    walking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    measured: Option<Memory>,
    /// Bytes for which there must be room because somebody is sending them.
    reserved: u64,
    /// How often something was deleted.
    deletions: u64,
}

#[derive(Clone, Copy)]
struct Memory {
    found: Measured,
    at: Instant,
    took: Duration,
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
        let (least, walks) = match age {
            Age::Recent => (Duration::from_secs(5), 20),
            Age::Moment => (Duration::from_secs(1), 4),
        };
        self.at.elapsed() < least.max(self.took * walks)
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, age: Age) -> Option<Measured> {
        self.state().measured.filter(|memory| memory.is(age)).map(|memory| memory.found)
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
        let Some((known, _)) = &self.of else { return };
        if let Some(memory) = &mut known.state().measured {
            memory.found.bytes = memory.found.bytes.saturating_add(grown);
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
    async fn storage_of(&self, tenant: &Tenant, known: &Known, age: Age) -> Result<Measured, StoreError> {
        if let Some(found) = known.remembered(age) {
            return Ok(found);
        }
        let _one = known.walking.lock().await;
        if let Some(found) = known.remembered(age) {
            return Ok(found);
        }
        let _place = self.storage().walks.acquire().await.map_err(|_| StoreError::Closed)?;
        let dir = self.account_dir(tenant.incarnation());
        let (begun, deletions) = (Instant::now(), known.state().deletions);
        let found = tokio::task::spawn_blocking(move || walk(&dir)).await.map_err(|_| StoreError::Closed)??;
        let mut state = known.state();
        // What was deleted meanwhile may have been counted before it was gone: not worth remembering.
        if state.deletions == deletions {
            state.measured = Some(Memory { found, at: Instant::now(), took: begun.elapsed() });
        }
        Ok(found)
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
        let known = self.storage_known(tenant.incarnation());
        if let Some(memory) = &mut known.state().measured {
            memory.found.bytes = memory.found.bytes.saturating_add(bytes);
        }
    }

    /// Something was deleted. Nobody who made room is refused by an old memory.
    pub fn storage_shrank(&self, tenant: &Tenant) {
        let known = self.storage_known(tenant.incarnation());
        let mut state = known.state();
        state.measured = None;
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
