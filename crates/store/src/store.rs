//! The store as a whole: the data directory, the host's file, and the accounts' files as they are used.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_audit::event::LogId;
use bailiwick_auth::Tenant;
use bailiwick_types::Incarnation;
use lru::LruCache;

use crate::engine::{Database, Tx, Writers};
use crate::error::StoreError;
use crate::migrate::Schema;

/// Account files held open at once; an idle one costs about 125 KiB.
const OPEN_ACCOUNTS: usize = 256;

/// The database, the data directory, and everything in them. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    host: Arc<Database>,
    accounts: Mutex<LruCache<Incarnation, Arc<Database>>>,
    writers: Writers,
    lost: AtomicU64,
    _lock: std::fs::File,
}

impl Store {
    /// Opens a data directory, and makes what is missing in it.
    ///
    /// # Errors
    /// If it cannot be used, is of a newer version, or another server uses it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        make_private(dir)?;
        make_private(&dir.join("accounts"))?;
        let lock = std::fs::File::create(dir.join("lock"))?;
        lock.try_lock().map_err(|_| StoreError::Locked)?;
        let host = Database::open(dir.join("control.db"), Some("host".to_owned()), LogId::host(), Schema::Host)?;
        let accounts = Mutex::new(LruCache::new(NonZeroUsize::new(OPEN_ACCOUNTS).unwrap_or(NonZeroUsize::MIN)));
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            host: Arc::new(host),
            accounts,
            writers: Writers::start()?,
            lost: AtomicU64::new(0),
            _lock: lock,
        })))
    }

    /// Finishes what waits to be written. Later writes answer [`StoreError::Closed`].
    pub fn close(&self) {
        self.0.writers.close();
    }

    /// Observations that could not be kept since the start.
    pub fn lost_observations(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.0.host.read(|sql| sql.one("SELECT count(*) FROM account WHERE ?1 = 'host'", &[], |_| Ok(()))).map(drop)
    }

    pub(crate) fn lost_observation(&self) {
        let lost = self.0.lost.fetch_add(1, Ordering::Relaxed);
        if lost.is_power_of_two() || lost == 0 {
            tracing::warn!(lost = lost + 1, "observations could not be written to the audit log");
        }
    }

    pub(crate) fn host(&self) -> &Arc<Database> {
        &self.0.host
    }

    pub(crate) fn writers(&self) -> &Writers {
        &self.0.writers
    }

    pub(crate) fn account_dir(&self, incarnation: Incarnation) -> PathBuf {
        self.0.dir.join("accounts").join(incarnation.to_string())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The file of a tenant. Opening a cold one takes a fraction of a millisecond.
    pub(crate) fn database(&self, tenant: &Tenant) -> Result<Arc<Database>, StoreError> {
        self.database_of(tenant.incarnation())
    }

    pub(crate) fn database_of(&self, incarnation: Incarnation) -> Result<Arc<Database>, StoreError> {
        let mut accounts = self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = accounts.get(&incarnation) {
            return Ok(Arc::clone(database));
        }
        let path = self.account_dir(incarnation).join("account.db");
        // A directory that is gone is a deleted account, and must not come back as an empty one.
        if !path.exists() {
            return Err(StoreError::not_found("account", "of this request"));
        }
        self.open_account(&mut accounts, incarnation, path)
    }

    pub(crate) fn create_database(&self, incarnation: Incarnation) -> Result<Arc<Database>, StoreError> {
        let dir = self.account_dir(incarnation);
        make_private(&dir)?;
        make_private(&dir.join("spaces"))?;
        let mut accounts = self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_account(&mut accounts, incarnation, dir.join("account.db"))
    }

    fn open_account(
        &self,
        accounts: &mut LruCache<Incarnation, Arc<Database>>,
        incarnation: Incarnation,
        path: PathBuf,
    ) -> Result<Arc<Database>, StoreError> {
        let log = LogId::account(incarnation);
        let database = Arc::new(Database::open(path, Some(incarnation.to_string()), log, Schema::Account)?);
        // Only files that nobody holds may leave: whoever holds one may be waiting to be woken by it.
        while accounts.len() >= OPEN_ACCOUNTS {
            let idle = accounts.iter().rev().find(|(_, held)| Arc::strong_count(held) == 1).map(|(id, _)| *id);
            match idle {
                Some(id) => accounts.pop(&id),
                None => {
                    accounts.resize(NonZeroUsize::new(accounts.len() + 1).unwrap_or(NonZeroUsize::MIN));
                    break;
                }
            };
        }
        accounts.push(incarnation, Arc::clone(&database));
        Ok(database)
    }

    pub(crate) fn forget_database(&self, incarnation: Incarnation) {
        self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner).pop(&incarnation);
    }

    /// Runs an act in a transaction of the tenant's file.
    pub(crate) async fn write<T, F>(&self, tenant: &Tenant, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let database = self.database(tenant)?;
        self.0.writers.write(&database, work).await
    }
}

fn make_private(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    if !dir.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    Ok(())
}
