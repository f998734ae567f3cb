//! The store as a whole: the data directory, the host's file, and the accounts' files as they are used.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bailiwick_audit::event::LogId;
use bailiwick_auth::Tenant;
use bailiwick_types::{Incarnation, Quotas, ServerId};
use lru::LruCache;

use crate::checkpoint::Seal;
use crate::engine::postgres::{Context, Pool};
use crate::engine::{Database, Grown, Tx, Writers};
use crate::error::StoreError;
use crate::migrate::Schema;
use crate::snapshot::Snapshots;
use crate::storage::Storage;
use crate::url::DatabaseUrl;

/// Account files held open at once; an idle one costs about 125 KiB.
const OPEN_ACCOUNTS: usize = 256;

/// The database, the data directory, and everything in them. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Where accounts' rows are, if not in files.
    pool: Option<Arc<Pool>>,
    host: Arc<Database>,
    accounts: Mutex<LruCache<Incarnation, Arc<Database>>>,
    // Before the lock: fields are dropped in order, and writers finish before another server may begin.
    writers: Writers,
    deleted: Arc<Deleted>,
    lost: Arc<Lost>,
    grown: Arc<Grown>,
    /// What signs the heads of logs, once the server has said with what and where they are kept.
    seal: OnceLock<Arc<Seal>>,
    /// What accounts may use, once the server has said so.
    quotas: OnceLock<Quotas>,
    storage: Storage,
    snapshots: Snapshots,
    /// How many states of a space are kept, once the server has said so.
    snapshots_kept: OnceLock<usize>,
    /// The accounts' folders as they were found, before anybody could make a new one.
    found: Vec<Incarnation>,
    server: ServerId,
    _lock: std::fs::File,
}

/// Accounts that were deleted since the start. Whoever still holds a permit of one writes nothing more
/// into it; after a restart nobody holds one.
#[derive(Default)]
struct Deleted(Mutex<HashSet<Incarnation>>);

impl Deleted {
    fn contains(&self, incarnation: Incarnation) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&incarnation)
    }
}

/// Counts the observations that could not be kept.
#[derive(Default)]
pub(crate) struct Lost(AtomicU64);

impl Lost {
    pub(crate) fn one_more(&self) {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        // Told at 1, 2, 4, 8 …: what fills the log's disk should not fill the server's own log as well.
        if (before + 1).is_power_of_two() {
            tracing::warn!(lost = before + 1, "observations could not be written to the audit log");
        }
    }
}

impl Store {
    /// Opens a data directory, makes what is missing in it, and looks whether the database is fit to use.
    /// Blocks for as long as a database server takes to answer.
    ///
    /// # Errors
    /// If it cannot be used, is of another version, or another server uses it;
    /// [`StoreError::Unsafe`] if the database would not keep tenants apart.
    pub fn open(dir: &Path, url: &DatabaseUrl) -> Result<Self, StoreError> {
        make_private(dir)?;
        // Without symbolic links, because sandboxes are given folders below it by their names.
        let dir = &dir.canonicalize()?;
        make_private(&dir.join("accounts"))?;
        let mut lock = open_lock(&dir.join("lock"))?;
        lock.try_lock().map_err(|_| StoreError::Locked)?;
        let server = server_of(&mut lock)?;
        let found = std::fs::read_dir(dir.join("accounts"))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<Incarnation>().ok())
            .collect();
        let (pool, host) = match url {
            DatabaseUrl::Sqlite => (None, Database::in_file(dir.join("control.db"), LogId::host(), Schema::Host)?),
            DatabaseUrl::Postgres(url) => {
                let pool = crate::postgres::open(url)?;
                (Some(Arc::clone(&pool)), Database::on_server(pool, Context::Host, LogId::host()))
            }
        };
        let grown = Arc::default();
        let host = host.noting(&grown);
        let accounts = Mutex::new(LruCache::new(NonZeroUsize::new(OPEN_ACCOUNTS).unwrap_or(NonZeroUsize::MIN)));
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            pool,
            host: Arc::new(host),
            accounts,
            writers: Writers::start()?,
            deleted: Arc::default(),
            lost: Arc::default(),
            grown,
            seal: OnceLock::new(),
            quotas: OnceLock::new(),
            storage: Storage::default(),
            snapshots: Snapshots::default(),
            snapshots_kept: OnceLock::new(),
            found,
            server,
            _lock: lock,
        })))
    }

    /// Finishes what waits to be written. Later writes answer [`StoreError::Closed`].
    pub fn close(&self) {
        self.0.writers.close();
    }

    /// Observations that could not be kept since the start.
    pub fn lost_observations(&self) -> u64 {
        self.0.lost.0.load(Ordering::Relaxed)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.0
            .host
            .read(|sql| sql.one("SELECT count(*) FROM account WHERE ?1 = 'host'", &[], |_| Ok(())))
            .await
            .map(drop)
    }

    pub(crate) fn grown(&self) -> &Grown {
        &self.0.grown
    }

    pub(crate) fn seal_slot(&self) -> &OnceLock<Arc<Seal>> {
        &self.0.seal
    }

    pub(crate) fn quota_slot(&self) -> &OnceLock<Quotas> {
        &self.0.quotas
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.0.storage
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    pub(crate) fn snapshot_slot(&self) -> &OnceLock<usize> {
        &self.0.snapshots_kept
    }

    pub(crate) fn accounts_dir(&self) -> PathBuf {
        self.0.dir.join("accounts")
    }

    pub(crate) fn lost(&self) -> &Arc<Lost> {
        &self.0.lost
    }

    /// From now on nothing is written for this account but its log.
    pub(crate) fn mark_deleted(&self, incarnation: Incarnation) {
        self.0.deleted.0.lock().unwrap_or_else(PoisonError::into_inner).insert(incarnation);
    }

    pub(crate) fn is_deleted(&self, incarnation: Incarnation) -> bool {
        self.0.deleted.contains(incarnation)
    }

    pub(crate) fn host(&self) -> &Arc<Database> {
        &self.0.host
    }

    pub(crate) fn writers(&self) -> &Writers {
        &self.0.writers
    }

    /// Whether other servers may work on the same accounts: not on files, which one server has for itself.
    pub fn is_shared(&self) -> bool {
        !self.keeps_files()
    }

    /// Which of several servers this one is. The same after a restart: what is under this name and not in this
    /// process is of a predecessor that is gone, because its data directory is this one's now.
    pub fn server(&self) -> ServerId {
        self.0.server
    }

    /// Whether accounts' rows are in files of their own.
    pub(crate) fn keeps_files(&self) -> bool {
        self.0.pool.is_none()
    }

    pub(crate) fn account_dir(&self, incarnation: Incarnation) -> PathBuf {
        self.0.dir.join("accounts").join(incarnation.to_string())
    }

    /// The accounts' folders that were there when the store was opened.
    pub(crate) fn found_at_open(&self) -> &[Incarnation] {
        &self.0.found
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
        // A file that is gone is a deleted account, and must not come back as an empty one. On a server the
        // rows themselves say what there is.
        if self.keeps_files() && !self.account_dir(incarnation).join("account.db").exists() {
            return Err(StoreError::not_found("account", "of this request"));
        }
        self.open_account(&mut accounts, incarnation)
    }

    pub(crate) fn create_database(&self, incarnation: Incarnation) -> Result<Arc<Database>, StoreError> {
        let dir = self.account_dir(incarnation);
        make_private(&dir)?;
        make_private(&dir.join("spaces"))?;
        let mut accounts = self.0.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_account(&mut accounts, incarnation)
    }

    fn open_account(
        &self,
        accounts: &mut LruCache<Incarnation, Arc<Database>>,
        incarnation: Incarnation,
    ) -> Result<Arc<Database>, StoreError> {
        let log = LogId::account(incarnation);
        let database = match &self.0.pool {
            Some(pool) => Database::on_server(Arc::clone(pool), Context::Account(incarnation), log),
            None => Database::in_file(self.account_dir(incarnation).join("account.db"), log, Schema::Account)?,
        };
        let database = Arc::new(database.noting(&self.0.grown));
        // Only files that nobody holds and nobody watches may leave: a watcher would never be woken again.
        while accounts.len() >= OPEN_ACCOUNTS {
            let free = |held: &Arc<Database>| Arc::strong_count(held) == 1 && !held.is_watched();
            let idle = accounts.iter().rev().find(|(_, held)| free(held)).map(|(id, _)| *id);
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
        let (deleted, incarnation) = (Arc::clone(&self.0.deleted), tenant.incarnation());
        // Asked inside the transaction: the file's acts stand in one line, and so does its emptying.
        let work = move |tx: &mut Tx<'_>| {
            if deleted.contains(incarnation) {
                return Err(StoreError::not_found("account", "of this request"));
            }
            work(tx)
        };
        self.0.writers.write(&database, work).await
    }
}

fn open_lock(path: &Path) -> Result<std::fs::File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    Ok(std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?)
}

/// The name that a data directory gives to its server: what its lock says, or a new one.
fn server_of(lock: &mut std::fs::File) -> Result<ServerId, StoreError> {
    use std::io::{Read, Seek, Write};
    let mut said = Vec::new();
    lock.take(64).read_to_end(&mut said)?;
    if let Some(id) = std::str::from_utf8(&said).ok().and_then(|said| said.trim().parse().ok()) {
        return Ok(id);
    }
    let id = ServerId::new();
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{id}")?;
    lock.sync_all()?;
    Ok(id)
}

/// Nobody can list it or open its files; what is known by its full name can be reached, because tools on
/// the host run as the account's own user and must come to their workspace.
fn make_private(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    if !dir.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    }
    Ok(())
}
