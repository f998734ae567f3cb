//! How much an account's files take up, and room for more of them.
//!
//! Files are written by us and by whatever runs in a sandbox, so that no sum of ours would stay right: the
//! folders are measured. What was measured is remembered for a while and moved by what we write ourselves,
//! so that the walk is not paid for each file; how long depends on how long the walk took, so that an account
//! with very many files costs no more than a twentieth of a core while it is asked for room, and a fifth while
//! it is refused. Nobody is refused by a memory that is older than a moment.
//!
//! A walk is a task of its own: whoever asked may go away, and the walk that was begun is still the only one.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_auth::access::verb::WriteSpace;
use bailiwick_auth::{Permit, Tenant};
use bailiwick_files::{FileError, Measured, Seen, measure};
use bailiwick_types::quota::Resource;
use bailiwick_types::{Exhausted, Incarnation};
use tokio::sync::{Semaphore, watch};

use crate::error::StoreError;
use crate::quota;
use crate::store::Store;

/// Entries that are looked at, files and folders. Who has more is told to have too much.
const MOST_ENTRIES: u64 = 1_000_000;
/// Accounts that are measured at once; more wait.
const WALKS: usize = 4;
/// How long somebody waits for a walk. Then an older memory has to do, or none: that others have many files
/// must not stop anybody's work.
const WAIT: Duration = Duration::from_secs(10);
/// Accounts that are remembered without a word about them.
const REMEMBERED: usize = 4096;

/// What is known of all accounts.
pub(crate) struct Storage {
    accounts: Mutex<HashMap<Incarnation, Arc<Known>>>,
    walks: Arc<Semaphore>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { accounts: Mutex::default(), walks: Arc::new(Semaphore::new(WALKS)) }
    }
}

/// What is known of one account.
#[derive(Default)]
struct Known {
    state: Mutex<State>,
}

/// The end of a walk, for all who wait for it.
type Walked = watch::Receiver<Option<Result<Measured, io::ErrorKind>>>;

#[derive(Default)]
struct State {
    measured: Option<Memory>,
    /// The walk that is under way. One at a time; who comes meanwhile takes what it finds.
    walking: Option<Walked>,
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
    /// Whether something was deleted since, or meanwhile: there may be less than that.
    high: bool,
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
        // What may be too much lets somebody in as well as the truth does, and refuses nobody.
        (age == Age::Recent || !self.high) && self.at.elapsed() < least.max(self.took * walks)
    }

    /// How long to wait before the next walk, whoever asks for it.
    fn pause(&self) -> Duration {
        (self.took * 4).saturating_sub(self.at.elapsed())
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, age: Age) -> Option<Measured> {
        self.state().measured.filter(|memory| memory.is(age)).map(|memory| memory.found)
    }

    /// Measures, and remembers what it finds.
    async fn walk(&self, walks: Arc<Semaphore>, dir: PathBuf) -> Result<Measured, io::ErrorKind> {
        let place = walks.acquire_owned().await;
        let (begun, deletions) = (Instant::now(), self.state().deletions);
        let found = tokio::task::spawn_blocking(move || {
            let _place = place;
            walk(&dir)
        });
        let found = match found.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(failed(&error)),
            // The server is going down, or the walk panicked.
            Err(_) => Err(io::ErrorKind::Other),
        };
        let mut state = self.state();
        state.walking = None;
        if let Ok(found) = found {
            let high = state.deletions != deletions;
            state.measured = Some(Memory { found, at: Instant::now(), took: begun.elapsed(), high });
        }
        found
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
    async fn storage_of(&self, tenant: &Tenant, known: &Arc<Known>, age: Age) -> Result<Measured, StoreError> {
        let mut found = None;
        // A second time, if what is found may be too much: something was deleted while it was looked at.
        for _ in 0..2 {
            if let Some(found) = known.remembered(age) {
                return Ok(found);
            }
            let walked = self.storage_walked(tenant, known).await;
            found = Some(match walked {
                Some(Ok(found)) => found,
                Some(Err(kind)) => return Err(StoreError::Io(kind.into())),
                None => break,
            });
        }
        if let Some(found) = found {
            return Ok(found);
        }
        tracing::warn!(account = %tenant.account(), "files are not measured in time");
        let state = known.state();
        Ok(state.measured.map_or(Measured { bytes: 0, entries: 0, seen: Seen::Whole }, |memory| memory.found))
    }

    /// What the walk under way finds, or a new one; nothing if that takes too long.
    async fn storage_walked(&self, tenant: &Tenant, known: &Arc<Known>) -> Option<Result<Measured, io::ErrorKind>> {
        let mut walked = {
            let mut state = known.state();
            match &state.walking {
                Some(walked) => walked.clone(),
                None => {
                    let (tell, walked) = watch::channel(None);
                    state.walking = Some(walked.clone());
                    let dir = self.account_dir(tenant.incarnation());
                    let pause = state.measured.map_or(Duration::ZERO, |memory| memory.pause());
                    let (known, walks) = (Arc::clone(known), Arc::clone(&self.storage().walks));
                    tokio::spawn(async move {
                        tokio::time::sleep(pause).await;
                        tell.send_replace(Some(known.walk(walks, dir).await));
                    });
                    walked
                }
            }
        };
        let told = tokio::time::timeout(WAIT, walked.wait_for(Option::is_some)).await.ok()?.ok()?;
        *told
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
        state.deletions = state.deletions.wrapping_add(1);
        if let Some(memory) = &mut state.measured {
            memory.high = true;
        }
    }
}

/// Said once in the server's log; whoever waits is told that it failed.
fn failed(error: &FileError) -> io::ErrorKind {
    tracing::error!(%error, "the files of an account cannot be measured");
    match error {
        FileError::Io { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    }
}

const fn full(most: u64) -> Exhausted {
    Exhausted { resource: Resource::StorageMib, most, opens_at: None }
}

/// The folders of the spaces, and those that sandboxes have apart from them.
fn walk(account: &Path) -> Result<Measured, FileError> {
    let spaces = measure(&account.join("spaces"), MOST_ENTRIES)?;
    let scratch = measure(&account.join("scratch"), MOST_ENTRIES.saturating_sub(spaces.entries).max(1))?;
    Ok(spaces.and(scratch))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn memory(ago: Duration, took: Duration, high: bool) -> Memory {
        let found = Measured { bytes: 1, entries: 1, seen: Seen::Whole };
        Memory { found, at: Instant::now().checked_sub(ago).unwrap(), took, high }
    }

    #[test]
    fn i17_after_a_deletion_a_memory_lets_in_and_refuses_nobody() {
        let quick = Duration::from_millis(1);
        for (high, refuses) in [(false, true), (true, false)] {
            let memory = memory(Duration::ZERO, quick, high);
            assert!(memory.is(Age::Recent));
            assert_eq!(memory.is(Age::Moment), refuses);
        }
        assert!(!memory(Duration::from_secs(6), quick, false).is(Age::Recent));
    }

    #[test]
    fn i17_the_longer_a_walk_takes_the_longer_the_next_one_waits_whatever_is_deleted() {
        let slow = Duration::from_secs(2);
        for high in [false, true] {
            assert!(memory(Duration::ZERO, slow, high).pause() > Duration::from_secs(7));
            assert_eq!(memory(Duration::from_secs(9), slow, high).pause(), Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn i17_a_walk_goes_on_when_its_asker_goes_and_is_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("spaces/a")).unwrap();
        let (known, walks) = (Arc::new(Known::default()), Arc::new(Semaphore::new(1)));
        // Nobody waits for it.
        drop(tokio::spawn({
            let (known, walks, dir) = (Arc::clone(&known), Arc::clone(&walks), dir.path().to_owned());
            async move { known.walk(walks, dir).await }
        }));
        for _ in 0..500 {
            if known.remembered(Age::Moment).is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(known.remembered(Age::Moment).unwrap().entries, 1);
        assert_eq!(walks.available_permits(), 1);
    }
}
