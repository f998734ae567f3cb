//! How much an account's files take up, and room for more of them.
//!
//! Files are written by us and by whatever runs in a sandbox, so that no sum of ours would stay right: the
//! folders are measured. What was measured is remembered for a while and moved by what we write ourselves,
//! so that the walk is not paid for each file; how long depends on how long the walk took, so that an account
//! with very many files costs no more than a fraction of a core, whatever its users do, and nobody else waits
//! behind its walks. Nobody is refused by a memory that is older than a moment, unless measuring takes longer than
//! anybody should wait: then the last figure has to do.
//!
//! What a walk holds belongs to the walk: whoever asked for it may go away, and it is still the only one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
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

mod watch;

pub use watch::{Full, Look};

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
/// How long somebody waits for walks, their own and others'. Who waits holds places that others need as well.
const WAIT: Duration = Duration::from_secs(10);
/// Between two walks of one account lies so often the time that the last one took.
const PAUSES: u32 = 4;
/// Accounts that are remembered without a word about them.
const REMEMBERED: usize = 4096;

/// What is known of all accounts.
pub(crate) struct Storage {
    accounts: Mutex<HashMap<Incarnation, Arc<Known>>>,
    /// Of single workspaces, where somebody has a limit for one.
    workspaces: Mutex<HashMap<PathBuf, Arc<Known>>>,
    walks: Arc<Semaphore>,
    long_walks: Arc<Semaphore>,
}

impl Default for Storage {
    fn default() -> Self {
        let (walks, long_walks) = (Arc::new(Semaphore::new(WALKS)), Arc::new(Semaphore::new(LONG_WALKS)));
        Self { accounts: Mutex::default(), workspaces: Mutex::default(), walks, long_walks }
    }
}

/// How late an answer may come, and what of.
#[derive(Clone, Copy)]
struct Asked {
    age: Age,
    until: Instant,
}

impl Storage {
    /// What was measured no longer ago than that; else it is measured now.
    async fn ask(
        &self,
        known: &Arc<Known>,
        asked: Asked,
        look: impl FnOnce() -> Result<Measured, StoreError> + Send + 'static,
    ) -> Result<Answer, StoreError> {
        if let Some(found) = known.remembered(asked.age) {
            return Ok(Answer::Found(found));
        }
        match tokio::time::timeout_at(asked.until.into(), self.measure(known, asked.age, look)).await {
            Ok(found) => found.map(Answer::Found),
            Err(_) => Ok(Answer::Late),
        }
    }

    async fn measure(
        &self,
        known: &Arc<Known>,
        age: Age,
        look: impl FnOnce() -> Result<Measured, StoreError> + Send + 'static,
    ) -> Result<Measured, StoreError> {
        let one = Arc::clone(&known.walking).lock_owned().await;
        if let Some(found) = known.remembered(age) {
            return Ok(found);
        }
        let places = Arc::clone(if known.is_long() { &self.long_walks } else { &self.walks });
        let known = Arc::clone(known);
        // A task, so that whoever asks and goes away, again and again, has one walk under way and no more, and
        // that it keeps its turn among the others' when nobody waits for it any longer.
        let walking = tokio::spawn(async move {
            // Before a place is taken: who has to wait keeps nobody from walking.
            tokio::time::sleep(known.pause()).await;
            let place = places.acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let walking = tokio::task::spawn_blocking(move || {
                let _held = (place, one);
                known.walk(look)
            });
            walking.await.map_err(|_| StoreError::Closed)?
        });
        walking.await.map_err(|_| StoreError::Closed)?
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
    /// How many walks in a row did not see everything.
    parts: u32,
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

/// What asking how much there is came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It was measured, as lately as was asked for.
    Found(Measured),
    /// Nobody could look in time.
    Late,
}

/// How old a memory may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// To let in.
    Recent,
    /// To refuse.
    Moment,
    /// To let a command go on that runs.
    Watch,
}

impl Memory {
    fn is(&self, age: Age) -> bool {
        self.at.elapsed() < self.lasts(age)
    }

    /// How long the next walk has to wait, whatever happened since this one. An account that is deleted from
    /// without an end costs a fifth of a place, as one that is refused does.
    fn pause(&self) -> Duration {
        (self.took * PAUSES).min(OLDEST).saturating_sub(self.at.elapsed())
    }

    fn lasts(&self, age: Age) -> Duration {
        let (least, walks) = match (self.since, age) {
            (Since::Growth, Age::Watch) => return watch::lasts(self.took),
            (Since::Growth, Age::Recent) => (Duration::from_secs(5), 20),
            (Since::Growth, Age::Moment) => (Duration::from_secs(1), PAUSES),
            // Who made room is not refused by an old memory; but a deletion must not buy a long walk each time.
            (Since::Deletion, _) if self.took < LONG => return Duration::ZERO,
            (Since::Deletion, _) => (Duration::ZERO, PAUSES),
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

    /// The last figure, however old. Where there is none, what we wrote ourselves: never less than that.
    fn last(&self) -> Measured {
        let state = self.state();
        let written = Measured { bytes: state.written, entries: 0, seen: Seen::Part };
        state.measured.map_or(written, |memory| memory.found)
    }

    fn pause(&self) -> Duration {
        self.state().measured.map_or(Duration::ZERO, |memory| memory.pause())
    }

    fn is_long(&self) -> bool {
        self.state().measured.is_some_and(|memory| memory.took >= LONG)
    }

    /// Measures, and remembers what was found.
    fn walk(&self, look: impl FnOnce() -> Result<Measured, StoreError>) -> Result<Measured, StoreError> {
        let (deletions, written) = {
            let state = self.state();
            (state.deletions, state.written)
        };
        let begun = Instant::now();
        let mut found = look()?;
        let mut state = self.state();
        // What was written meanwhile may lie where the walk had been before.
        found.bytes = found.bytes.saturating_add(state.written.saturating_sub(written));
        // What was deleted meanwhile may have been counted before it was gone.
        let since = if state.deletions == deletions { Since::Growth } else { Since::Deletion };
        state.parts = if found.seen == Seen::Part { state.parts.saturating_add(1) } else { 0 };
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
    fn take(&self, limit: u64, answer: Answer, need: Need) -> Option<u64> {
        let mut state = self.state();
        let found = match (state.measured, answer) {
            (Some(memory), _) => memory.found,
            (None, Answer::Found(found)) => found,
            // That others have many files must not stop anybody's work.
            (None, Answer::Late) => Measured { bytes: state.written, entries: 0, seen: Seen::Whole },
        };
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

    async fn storage_of(&self, tenant: &Tenant, known: &Arc<Known>, asked: Asked) -> Result<Answer, StoreError> {
        let dir = self.account_dir(tenant.incarnation());
        let answer = self.storage().ask(known, asked, move || walk(&dir)).await?;
        if answer == Answer::Late {
            tracing::warn!(account = %tenant.account(), "files were not measured in time: the last figure has to do");
        }
        Ok(answer)
    }

    pub(crate) async fn storage_measured(&self, tenant: &Tenant) -> Result<Measured, StoreError> {
        let known = self.storage_known(tenant.incarnation());
        let asked = Asked { age: Age::Recent, until: Instant::now() + WAIT };
        Ok(match self.storage_of(tenant, &known, asked).await? {
            Answer::Found(found) => found,
            Answer::Late => known.last(),
        })
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
        let until = Instant::now() + WAIT;
        for age in [Age::Recent, Age::Moment] {
            let answer = self.storage_of(tenant, &known, Asked { age, until }).await?;
            if let Some(bytes) = known.take(limit, answer, need) {
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

/// The folders of the spaces, what is kept of their earlier states, and what sandboxes have apart from them.
fn walk(account: &Path) -> Result<Measured, StoreError> {
    let mut all = measure(&account.join("spaces"), MOST_ENTRIES)?;
    for folder in ["snapshots", "scratch"] {
        all = all.and(measure(&account.join(folder), MOST_ENTRIES.saturating_sub(all.entries).max(1))?);
    }
    Ok(all)
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

    #[test]
    fn i17_the_next_walk_waits_in_proportion_to_the_last_whatever_is_deleted() {
        for since in [Since::Growth, Since::Deletion] {
            let took = Duration::from_millis(100);
            let fresh = memory(took, since);
            assert!(fresh.pause() > took * 3 && fresh.pause() <= took * 4);
            let old = Memory { at: Instant::now().checked_sub(took * 5).unwrap(), ..fresh };
            assert_eq!(old.pause(), Duration::ZERO);
        }
    }

    const MANY: Measured = Measured { bytes: 700, entries: 1, seen: Seen::Whole };

    /// For an answer that comes, and for one that must not be waited for.
    fn asked(age: Age, wait: Duration) -> Asked {
        Asked { age, until: Instant::now() + wait }
    }

    #[tokio::test]
    async fn i17_a_walk_goes_on_when_its_asker_goes_and_is_the_only_one() {
        let (storage, known) = (Arc::new(Storage::default()), Arc::new(Known::default()));
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let asker = tokio::spawn({
            let (storage, known) = (Arc::clone(&storage), Arc::clone(&known));
            let look = move || {
                begun.send(()).unwrap();
                ends.recv().unwrap();
                Ok(MANY)
            };
            async move { storage.ask(&known, asked(Age::Recent, WAIT), look).await }
        });
        begins.await.unwrap();
        asker.abort();
        assert!(asker.await.unwrap_err().is_cancelled());
        // The walk has its place and the account's turn still, so that nobody begins another one.
        assert_eq!(storage.walks.available_permits(), WALKS - 1);
        for age in [Age::Recent, Age::Moment] {
            let answer = storage.ask(&known, asked(age, Duration::ZERO), || panic!("a second walk")).await.unwrap();
            assert_eq!(answer, Answer::Late);
        }
        // Another account is measured meanwhile.
        let other = Arc::new(Known::default());
        let answer = storage.ask(&other, asked(Age::Moment, WAIT), || Ok(MANY)).await.unwrap();
        assert_eq!(answer, Answer::Found(MANY));
        end.send(()).unwrap();
        // Who waits takes what it found.
        let answer = storage.ask(&known, asked(Age::Moment, WAIT), || panic!("a second walk")).await.unwrap();
        assert_eq!(answer, Answer::Found(MANY));
        // And its place comes back.
        let _all = storage.walks.acquire_many(u32::try_from(WALKS).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn i17_who_deletes_while_a_walk_is_under_way_has_the_next_one_wait() {
        let (storage, known) = (Storage::default(), Arc::new(Known::default()));
        // Deleted from without an end: no walk is worth remembering.
        let look = |known: &Arc<Known>| {
            let known = Arc::clone(known);
            let (tell, told) = std::sync::mpsc::channel();
            let look = move || {
                let begun = Instant::now();
                known.state().deletions += 1;
                // It takes its time.
                while begun.elapsed() < Duration::from_millis(20) {
                    std::hint::spin_loop();
                }
                tell.send((begun, Instant::now())).unwrap();
                Ok(MANY)
            };
            (look, told)
        };
        let mut last: Option<(Instant, Instant)> = None;
        for _ in 0..3 {
            let (look, told) = look(&known);
            storage.ask(&known, asked(Age::Moment, WAIT), look).await.unwrap();
            let (begun, ended) = told.recv().unwrap();
            if let Some((before, after)) = last {
                assert!(begun - after >= (after - before) * PAUSES, "{:?}", begun - after);
            }
            last = Some((begun, ended));
        }
    }

    #[tokio::test]
    async fn i17_where_others_are_measured_for_too_long_the_last_figure_has_to_do() {
        let (storage, known) = (Storage::default(), Arc::new(Known::default()));
        let places = Arc::clone(&storage.walks).acquire_many_owned(u32::try_from(WALKS).unwrap()).await.unwrap();
        let late = async |known: &Arc<Known>| {
            let asked = asked(Age::Moment, Duration::from_millis(1));
            storage.ask(known, asked, || Ok(Measured { bytes: 1, ..MANY })).await.unwrap()
        };
        // Without a figure, what we wrote ourselves is counted; the usage says that there is more.
        assert_eq!(late(&known).await, Answer::Late);
        known.grow(600);
        assert_eq!(known.take(1000, Answer::Late, Need::All(401)), None);
        assert_eq!(known.take(1000, Answer::Late, Need::All(300)), Some(300));
        assert_eq!(known.take(1000, Answer::Late, Need::UpTo(1000)), Some(100));
        assert_eq!((known.last().bytes, known.last().seen), (600, Seen::Part));
        // With one, it counts however old it is, and whatever was deleted.
        let old = Arc::new(Known::default());
        let at = Instant::now().checked_sub(OLDEST).unwrap();
        old.state().measured = Some(Memory { found: MANY, at, ..memory(Duration::ZERO, Since::Deletion) });
        assert_eq!(late(&old).await, Answer::Late);
        assert_eq!((old.take(1000, Answer::Late, Need::All(301)), old.last()), (None, MANY));
        assert_eq!(old.take(1000, Answer::Late, Need::All(300)), Some(300));
        // Once there is a place again, it is looked: nobody lost their turn by not waiting.
        drop(places);
        let answer = storage.ask(&old, asked(Age::Moment, WAIT), || panic!("a second walk")).await.unwrap();
        assert_eq!(answer, Answer::Found(Measured { bytes: 1, ..MANY }));
    }
}
