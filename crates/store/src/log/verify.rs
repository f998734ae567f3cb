//! Reads a whole log and compares it with its tree, and with what was signed of it before.

use std::sync::Arc;

use bailiwick_audit::checkpoint::{Checkpoint, SignedNote};
use bailiwick_audit::event::hex;
use bailiwick_audit::{Frontier, Head, Problem, Verifier};
use bailiwick_auth::Permit;
use bailiwick_auth::access::HostPermit;
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadHostAudit};
use bailiwick_types::Timestamp;

use crate::checkpoint::Seal;
use crate::engine::Database;
use crate::error::StoreError;
use crate::log::{Kept, STEP, head, kept, proof};
use crate::sql::args;
use crate::store::Store;

/// Rows in one read, so that no log is too long for memory.
const ROWS: usize = 2_000;

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its size and root.
    pub head: Head,
    /// How many of its first events are retired.
    pub retired: u64,
    /// How many kept checkpoints it continues.
    pub continued: usize,
    /// The head, signed, where the server signs.
    pub checkpoint: Option<SignedNote>,
}

/// Compares what has been read with the kept checkpoints, oldest first.
struct Continuing {
    older: Vec<Checkpoint>,
    next: usize,
}

impl Continuing {
    fn new(mut older: Vec<Checkpoint>, now: u64) -> Result<Self, Problem> {
        older.sort_by_key(|checkpoint| checkpoint.size);
        match older.last() {
            Some(last) if last.size > now => Err(Problem::Shrunk { size: now, older: last.size }),
            _ => Ok(Self { older, next: 0 }),
        }
    }

    fn compare(&mut self, tree: &Frontier) -> Result<(), Problem> {
        while let Some(then) = self.older.get(self.next).filter(|then| then.size == tree.size()) {
            if then.root != tree.root() {
                return Err(Problem::Fork { size: then.size, root: hex(&then.root) });
            }
            self.next += 1;
        }
        Ok(())
    }
}

fn verify(database: &Database, seal: Option<&Seal>) -> Result<Result<Verified, Problem>, StoreError> {
    // Read before the log is, so that each is of a time at which the log had at least so many events.
    let older = seal.map(|seal| seal.kept(database.log())).transpose()?.unwrap_or_default();
    database.read_snapshot(|sql| {
        let head = head(sql)?;
        let mut verifier = Verifier::new(database.log().clone());
        let mut tree = Frontier::new();
        let continued = older.len();
        let mut older = match Continuing::new(older, head.size) {
            Ok(older) => older,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Err(problem) = older.compare(&tree) {
            return Ok(Err(problem));
        }
        loop {
            let rows = sql.all(STEP, args![tree.size(), i64::MAX, ROWS], kept)?;
            for row in &rows {
                let (taken, hash) = match row {
                    Kept::Whole(event, hash) => (verifier.next(event, hash), hash),
                    Kept::Retired(seq, hash) => (verifier.next_retired(*seq, hash), hash),
                    // A row that we could not have written so was written by somebody else.
                    Kept::Unreadable(seq) => return Ok(Err(Problem::Unreadable(*seq))),
                };
                if let Err(problem) = taken {
                    return Ok(Err(problem));
                }
                for tile in tree.append(*hash) {
                    if proof::stored(sql, &tile)?.is_some_and(|stored| stored != tile.root) {
                        return Ok(Err(Problem::Tile { level: tile.level, index: tile.index }));
                    }
                }
                if let Err(problem) = older.compare(&tree) {
                    return Ok(Err(problem));
                }
            }
            if rows.len() < ROWS {
                let retired = verifier.retired();
                return Ok(verifier.finish(&head).map(|head| {
                    let sign = |seal: &Seal| seal.signer().checkpoint(database.log(), &head, Timestamp::now());
                    Verified { checkpoint: seal.map(sign), head, retired, continued }
                }));
            }
        }
    })
}

impl Store {
    /// Reads the account's whole log and compares it with its tree and with the kept checkpoints.
    ///
    /// # Errors
    /// If the database fails. That the log is not whole is an answer, not an error.
    pub async fn event_verify(
        &self,
        permit: Permit<ReadAccountAudit>,
    ) -> Result<Result<Verified, Problem>, StoreError> {
        self.verified(self.database(permit.tenant())?).await
    }

    /// The same for the host's log.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn event_verify_host(
        &self,
        _permit: HostPermit<ReadHostAudit>,
    ) -> Result<Result<Verified, Problem>, StoreError> {
        self.verified(Arc::clone(self.host())).await
    }

    async fn verified(&self, database: Arc<Database>) -> Result<Result<Verified, Problem>, StoreError> {
        let seal = self.seal_slot().get().cloned();
        tokio::task::spawn_blocking(move || verify(&database, seal.as_deref())).await.map_err(|_| StoreError::Closed)?
    }
}
