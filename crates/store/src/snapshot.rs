//! What the files of a space were before an agent changed them: kept before each call that can change files, listed,
//! compared with now, and put back.
//!
//! They lie beside the spaces, in folders of the server's own: `snapshots/<space>/<n>.json` says what it is,
//! `<n>.tree` what stood where, `contents/` has the bytes by their hash. A file on the disk is whole or not there: it is
//! written beside and renamed. Nothing here is flushed, as the workspaces themselves are not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_auth::access::verb::{CallTool, ReadSpace, StartJob, WriteSpace};
use bailiwick_auth::{Permit, Recorded, Tenant};
use bailiwick_files::{Access, Bounds, Change, Contents, FileError, Item, LeftOut, PutBack, Tree, Workspace};
use bailiwick_types::{CallId, JobId, SessionId, SpaceId, Timestamp, ToolName};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::quota;
use crate::store::Store;

/// Entries of a space of which states are kept.
const ENTRIES: usize = 50_000;
/// The largest file that is kept, bytes.
const FILE_BYTES: u64 = 64 << 20;
/// All that is kept of one space, bytes.
const SPACE_BYTES: u64 = 1 << 30;
/// States beyond the number that is kept before the oldest go: what they alone held is looked for then.
const SLACK: usize = 8;
/// Paths that are named of what was left out.
const NAMED: usize = 20;
/// Spaces whose last state is remembered.
const REMEMBERED: usize = 64;

/// What came after a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Before {
    /// A tool call.
    Call {
        /// In which session.
        session: SessionId,
        /// The call.
        call: CallId,
        /// Which tool.
        tool: ToolName,
    },
    /// A job.
    Job {
        /// Which one.
        job: JobId,
    },
    /// An earlier state was put back.
    Restore {
        /// Which one.
        snapshot: u64,
    },
}

/// A kept state of a space's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Its number in the space; they grow.
    pub id: u64,
    /// When it was kept.
    pub at: Timestamp,
    /// What came after it.
    pub before: Before,
    /// Files and folders in it.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many entries were left out, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
    /// The first of them.
    pub left_out_paths: Vec<String>,
}

/// What came of keeping a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is there, or was already.
    As(u64),
    /// It is not, and why: a stable word.
    Not(&'static str),
}

/// How a kept state differs from now.
#[derive(Debug)]
pub struct Changes {
    /// The state.
    pub row: SnapshotRow,
    /// What is other now, the first so many.
    pub changes: Vec<(String, Change)>,
    /// How much is.
    pub count: u64,
}

/// States are kept one after another in each space.
#[derive(Default)]
pub(crate) struct Snapshots {
    spaces: Mutex<HashMap<SpaceId, Arc<Mutex<Line>>>>,
}

/// What is known of a space's states.
#[derive(Default)]
struct Line {
    last: Option<(u64, Tree)>,
    /// Bytes of all contents, once they were counted.
    bytes: Option<u64>,
}

/// The folder of one space's states, and its line.
#[derive(Clone)]
struct Shelf {
    dir: PathBuf,
    line: Arc<Mutex<Line>>,
}

/// Puts a state back. Taken with the right to write, used when that is on record.
pub struct Restorer {
    store: Store,
    tenant: Tenant,
    shelf: Shelf,
    files: Workspace,
    id: u64,
}

impl Store {
    /// How many states of a space are kept at least; none by 0.
    pub fn keep_snapshots(&self, count: usize) {
        let _ = self.snapshot_slot().set(count);
    }

    /// Keeps the state of a call's space before it changes something. A call does not fail because its state was not
    /// kept; that is said.
    pub async fn snapshot_before_call(&self, act: &Recorded<CallTool>) -> Kept {
        let (session, call, tool) = (act.resource().session(), act.resource().id(), act.resource().tool().clone());
        let before = Before::Call { session: session.id(), call, tool };
        self.snapshot(act.scope().tenant(), session.space().id(), before).await
    }

    /// The same before a job.
    pub async fn snapshot_before_job(&self, act: &Recorded<StartJob>) -> Kept {
        let (job, space) = (act.resource().id(), act.resource().space().id());
        self.snapshot(act.scope().tenant(), space, Before::Job { job }).await
    }

    async fn snapshot(&self, tenant: &Tenant, space: SpaceId, before: Before) -> Kept {
        match self.try_snapshot(tenant, space, before).await {
            Ok(kept) => kept,
            Err(StoreError::File(FileError::TooLarge { .. })) => Kept::Not("too_many_entries"),
            Err(error) => {
                tracing::warn!(%space, %error, "the state of a space was not kept");
                Kept::Not("failed")
            }
        }
    }

    async fn try_snapshot(&self, tenant: &Tenant, space: SpaceId, before: Before) -> Result<Kept, StoreError> {
        let keep = self.snapshot_slot().get().copied().unwrap_or(0);
        if keep == 0 {
            return Ok(Kept::Not("off"));
        }
        let room = self.snapshot_room(tenant).await?;
        let dir = self.space_dir(tenant, space);
        let shelf = self.shelf(tenant, space);
        let taken = tokio::task::spawn_blocking(move || {
            let files = Workspace::open(&dir, Access::ReadOnly, None)?;
            let mut line = shelf.line.lock().unwrap_or_else(PoisonError::into_inner);
            shelf.take(&mut line, &files, before, (keep, room))
        });
        let (kept, bytes) = taken.await.map_err(|_| StoreError::Closed)??;
        self.storage_grew(tenant, bytes);
        Ok(kept)
    }

    /// How much an account has left for states: a quarter of its quota stays free, for they are not to stand in the
    /// way of work.
    async fn snapshot_room(&self, tenant: &Tenant) -> Result<u64, StoreError> {
        let defaults = self.default_quotas();
        let limits = self.database(tenant)?.read(|sql| quota::in_force(sql, &defaults)).await?;
        let Some(limit) = limits.storage_mib.mib_in_bytes().most() else { return Ok(u64::MAX) };
        let used = self.storage_measured(tenant).await?.bytes;
        Ok((limit / 4 * 3).saturating_sub(used))
    }

    fn shelf(&self, tenant: &Tenant, space: SpaceId) -> Shelf {
        let mut spaces = self.snapshots().spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if spaces.len() >= REMEMBERED && !spaces.contains_key(&space) {
            spaces.retain(|_, line| Arc::strong_count(line) > 1);
        }
        let line = Arc::clone(spaces.entry(space).or_default());
        drop(spaces);
        Shelf { dir: self.snapshots_dir(tenant, space), line }
    }

    /// Where a space's states lie; never shown to anybody.
    pub(crate) fn snapshots_dir(&self, tenant: &Tenant, space: SpaceId) -> PathBuf {
        self.account_dir(tenant.incarnation()).join("snapshots").join(space.to_string())
    }

    /// The kept states of a space, the newest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn snapshot_list(&self, permit: &Permit<ReadSpace>) -> Result<Vec<SnapshotRow>, StoreError> {
        let shelf = self.shelf(permit.tenant(), permit.resource().id());
        let rows = move || {
            let mut rows = Vec::new();
            for id in shelf.ids()?.into_iter().rev() {
                rows.extend(shelf.row(id)?);
            }
            Ok(rows)
        };
        tokio::task::spawn_blocking(rows).await.map_err(|_| StoreError::Closed)?
    }

    /// How a kept state differs from now; at most so many paths.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is not kept (any more); [`StoreError::File`].
    pub async fn snapshot_changes(
        &self,
        permit: &Permit<ReadSpace>,
        id: u64,
        most: usize,
    ) -> Result<Changes, StoreError> {
        let shelf = self.shelf(permit.tenant(), permit.resource().id());
        let files = self.space_files(permit).await?;
        let looked = move || {
            let (row, tree) = shelf.kept(id)?;
            let now = files.look(Some(&tree), ENTRIES, FILE_BYTES)?;
            let mut changes: Vec<(String, Change)> =
                tree.changes(&now).map(|(path, change)| (path.to_owned(), change)).collect();
            let count = changes.len() as u64;
            changes.sort();
            changes.truncate(most);
            Ok(Changes { row, changes, count })
        };
        tokio::task::spawn_blocking(looked).await.map_err(|_| StoreError::Closed)?
    }

    /// What puts a state back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is not kept (any more), or if the folder cannot be opened.
    pub async fn snapshot_restorer(&self, permit: &Permit<WriteSpace>, id: u64) -> Result<Restorer, StoreError> {
        let tenant = permit.tenant().clone();
        let shelf = self.shelf(&tenant, permit.resource().id());
        let files = self.space_files_to_write(permit).await?;
        shelf.row(id)?.ok_or_else(|| StoreError::not_found("snapshot", id))?;
        Ok(Restorer { store: self.clone(), tenant, shelf, files, id })
    }

    /// Removes the states of a space that is gone.
    pub(crate) fn forget_snapshots(&self, space: SpaceId) {
        self.snapshots().spaces.lock().unwrap_or_else(PoisonError::into_inner).remove(&space);
    }
}

impl Restorer {
    /// Keeps the state of now, and makes the files what they were. What could not be put back is in the answer.
    ///
    /// # Errors
    /// `snapshot_not_kept` if the state of now cannot be kept: nothing is lost for good, and nothing was changed.
    pub async fn run(self) -> Result<PutBack, StoreError> {
        let Self { store, tenant, shelf, files, id } = self;
        let keep = store.snapshot_slot().get().copied().unwrap_or(0).max(1);
        let room = store.snapshot_room(&tenant).await?;
        let put = tokio::task::spawn_blocking(move || {
            let mut line = shelf.line.lock().unwrap_or_else(PoisonError::into_inner);
            // Read before: keeping the state of now may be what drops this one.
            let (_, tree) = shelf.kept(id)?;
            let before = Before::Restore { snapshot: id };
            let (kept, bytes) = shelf.take(&mut line, &files, before, (keep + SLACK, room))?;
            if let Kept::Not(_) = kept {
                return Err(StoreError::Conflict {
                    code: "snapshot_not_kept",
                    message: "the files as they are now cannot be kept, so nothing was changed: make room first",
                });
            }
            let Some((_, now)) = &line.last else { return Err(StoreError::not_found("snapshot", id)) };
            Ok((files.put_back(&tree, now, &shelf.contents()?, ENTRIES)?, bytes))
        });
        let done = put.await.map_err(|_| StoreError::Closed)?;
        // What is measured anew is right, whichever way it went.
        store.storage_shrank(&tenant);
        let (done, bytes) = done?;
        store.storage_grew(&tenant, bytes);
        Ok(done)
    }
}

impl Shelf {
    fn contents(&self) -> Result<Contents, StoreError> {
        Ok(Contents::open(&self.dir.join("contents"))?)
    }

    /// The numbers of the states, the oldest first.
    fn ids(&self) -> Result<Vec<u64>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn row(&self, id: u64) -> Result<Option<SnapshotRow>, StoreError> {
        read(&self.dir.join(format!("{id}.json")))
    }

    fn tree(&self, id: u64) -> Result<Option<Tree>, StoreError> {
        read(&self.dir.join(format!("{id}.tree")))
    }

    fn kept(&self, id: u64) -> Result<(SnapshotRow, Tree), StoreError> {
        let (row, tree) = (self.row(id)?, self.tree(id)?);
        row.zip(tree).ok_or_else(|| StoreError::not_found("snapshot", id))
    }

    /// Keeps the state of now, if it is another than the last; and the bytes that were written for it.
    fn take(
        &self,
        line: &mut Line,
        files: &Workspace,
        before: Before,
        (keep, room): (usize, u64),
    ) -> Result<(Kept, u64), StoreError> {
        let contents = self.contents()?;
        let mut ids = self.ids()?;
        let newest = ids.last().copied();
        if line.last.as_ref().map(|(id, _)| *id) != newest {
            line.last = match newest {
                Some(id) => self.tree(id)?.map(|tree| (id, tree)),
                None => None,
            };
        }
        let mut held = match line.bytes {
            Some(bytes) => bytes,
            None => self.sweep(&contents, &ids)?,
        };
        // Before and not after: what is not needed makes room for what is.
        let crowded = held > SPACE_BYTES / 4 * 3 || room < SPACE_BYTES / 16;
        if ids.len() >= keep + SLACK || (crowded && ids.len() > 1) {
            let gone = if crowded { ids.len().div_ceil(2) } else { ids.len() + 1 - keep };
            for id in ids.drain(..gone.min(ids.len() - 1)) {
                fs::remove_file(self.dir.join(format!("{id}.json")))?;
                fs::remove_file(self.dir.join(format!("{id}.tree")))?;
            }
            held = self.sweep(&contents, &ids)?;
        }
        let new_bytes = SPACE_BYTES.saturating_sub(held).min(room);
        let bounds = Bounds { entries: ENTRIES, file_bytes: FILE_BYTES, new_bytes };
        let last = line.last.as_ref().map(|(_, tree)| tree);
        let (tree, written) = files.keep(&contents, last, bounds)?;
        // Too high where the same bytes were there already; counted anew when states go.
        line.bytes = Some(held + written);
        if let Some((id, last)) = &mut line.last
            && last.changes(&tree).next().is_none()
        {
            // The same state; what tells unchanged files apart may be newer.
            *last = tree;
            return Ok((Kept::As(*id), written));
        }
        if room == 0 {
            return Ok((Kept::Not("storage_full"), written));
        }
        let id = newest.unwrap_or(0) + 1;
        write(&self.dir.join(format!("{id}.tree")), &tree)?;
        write(&self.dir.join(format!("{id}.json")), &described(id, before, &tree))?;
        line.last = Some((id, tree));
        Ok((Kept::As(id), written))
    }

    /// Removes the contents that no state has; the bytes of those that stay.
    fn sweep(&self, contents: &Contents, ids: &[u64]) -> Result<u64, StoreError> {
        let trees = ids.iter().filter_map(|id| self.tree(*id).transpose()).collect::<Result<Vec<_>, _>>()?;
        let used: HashSet<&str> = trees.iter().flat_map(Tree::contents).collect();
        Ok(contents.sweep(&used)?)
    }
}

fn described(id: u64, before: Before, tree: &Tree) -> SnapshotRow {
    let (mut bytes, mut left_out, mut left_out_paths) = (0, BTreeMap::new(), Vec::new());
    for (path, item) in &tree.items {
        match item {
            Item::File { size, .. } => bytes += size,
            Item::LeftOut { why } => {
                *left_out.entry(*why).or_default() += 1;
                if left_out_paths.len() < NAMED {
                    left_out_paths.push(path.clone());
                }
            }
            Item::Directory { .. } | Item::Link { .. } => {}
        }
    }
    let entries = tree.items.len() as u64;
    SnapshotRow { id, at: Timestamp::now(), before, entries, bytes, left_out, left_out_paths }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => serde_json::from_slice(&text?).map(Some).map_err(|_| StoreError::Corrupt("a kept state of a space")),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let text = serde_json::to_vec(value).map_err(|_| StoreError::Corrupt("a kept state of a space"))?;
    file.write_all(&text)?;
    Ok(fs::rename(&beside, path)?)
}
