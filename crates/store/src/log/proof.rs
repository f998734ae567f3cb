//! Proofs for single events and between two sizes of a log, made of stored subtree roots (tiles), so that
//! a proof reads a few hundred hashes of a log of any length.

use std::sync::Arc;

use bailiwick_audit::proof::{self, MakeError, Nodes};
use bailiwick_audit::{Hash, Head, Tile};
use bailiwick_auth::Permit;
use bailiwick_auth::access::HostPermit;
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadHostAudit};

use crate::engine::Database;
use crate::error::StoreError;
use crate::log::head;
use crate::sql::{Sql, args};
use crate::store::Store;

/// Hashes of one tile.
const WIDTH: u64 = 1 << bailiwick_audit::tree::TILE_HEIGHT;

/// That an event is in the log of `size` events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The event.
    pub seq: u64,
    /// Its leaf hash.
    pub leaf: Hash,
    /// The log that it is in: so many events, with this root.
    pub head: Head,
    /// Sibling hashes, from the leaf upward.
    pub hashes: Vec<Hash>,
}

/// That a log continues an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The earlier log.
    pub from: Head,
    /// The later log.
    pub to: Head,
    /// The proof.
    pub hashes: Vec<Hash>,
}

/// Keeps the roots of subtrees that are complete now.
pub(crate) fn keep(sql: &Sql<'_>, tiles: &[Tile]) -> Result<(), StoreError> {
    for tile in tiles {
        sql.exec(
            "INSERT INTO tree_tile (account, level, n, hash) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            args![u32::from(tile.level), tile.index, &tile.root],
        )?;
    }
    Ok(())
}

/// The stored root of a subtree, if there is one.
pub(crate) fn stored(sql: &Sql<'_>, tile: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
    sql.one(
        "SELECT hash FROM tree_tile WHERE account = ?1 AND level = ?2 AND n = ?3",
        args![u32::from(tile.level), tile.index],
        |row| row.blob(0),
    )
}

/// The hashes of one log.
pub(crate) struct LogNodes<'a> {
    sql: &'a Sql<'a>,
    /// What was not stored and had to be computed: a log may have begun before tiles were kept.
    pub(crate) made: Vec<Tile>,
}

impl<'a> LogNodes<'a> {
    pub(crate) fn new(sql: &'a Sql<'a>) -> Self {
        Self { sql, made: Vec::new() }
    }
}

impl Nodes for LogNodes<'_> {
    type Error = StoreError;

    fn hashes(&mut self, level: u8, from: u64, count: usize) -> Result<Vec<Hash>, StoreError> {
        let until = from.saturating_add(count as u64);
        let hash = |blob: Vec<u8>| blob.try_into().map_err(|_| StoreError::Corrupt("a hash of the tree"));
        if level == 0 {
            // As many as there are numbers, or the caller sees that some are missing.
            return self.sql.all(
                "SELECT leaf_hash FROM event WHERE account = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq",
                args![from, until],
                |row| hash(row.blob(0)?),
            );
        }
        let found = self.sql.all(
            "SELECT n, hash FROM tree_tile WHERE account = ?1 AND level = ?2 AND n >= ?3 AND n < ?4 ORDER BY n",
            args![u32::from(level), from, until],
            |row| Ok((row.count(0)?, hash(row.blob(1)?)?)),
        )?;
        let mut found = found.into_iter().peekable();
        let mut row = Vec::with_capacity(count);
        for index in from..until {
            match found.next_if(|(n, _)| *n == index) {
                Some((_, hash)) => row.push(hash),
                None => {
                    let Some(root) = self.compute(level, index)? else { break };
                    row.push(root);
                }
            }
        }
        Ok(row)
    }
}

impl LogNodes<'_> {
    /// The root of a subtree from the hashes below it.
    fn compute(&mut self, level: u8, index: u64) -> Result<Option<Hash>, StoreError> {
        let mut row = self.hashes(level - 1, index * WIDTH, usize::try_from(WIDTH).unwrap_or(usize::MAX))?;
        if row.len() as u64 != WIDTH {
            return Ok(None);
        }
        while row.len() > 1 {
            let pairs = row.as_chunks::<2>().0.iter();
            row = pairs.map(|[left, right]| bailiwick_audit::tree::node_hash(left, right)).collect();
        }
        let root = row.pop();
        self.made.extend(root.map(|root| Tile { level, index, root }));
        Ok(root)
    }
}

/// What cannot be proven was asked wrongly; what cannot be read is a log that is not whole.
pub(crate) fn unmade(error: MakeError<StoreError>) -> StoreError {
    match error {
        MakeError::Index { .. } => {
            StoreError::Conflict { code: "no_such_event", message: "the log of that size has no such event" }
        }
        MakeError::Sizes { .. } => StoreError::Conflict {
            code: "no_such_sizes",
            message: "the earlier size must be at least 1 and at most the later one",
        },
        MakeError::Incomplete { .. } => StoreError::Corrupt("the hashes of the log: verify it"),
        MakeError::Read(error) => error,
    }
}

/// The size that is meant: the log's own if none is named. A log cannot be proven to be longer than it is.
fn wanted(sql: &Sql<'_>, size: Option<u64>) -> Result<u64, StoreError> {
    let now = head(sql)?.size;
    match size {
        Some(size) if size > now => Err(StoreError::Conflict {
            code: "log_is_shorter",
            message: "the log has fewer events than that: ask for its checkpoint first",
        }),
        size => Ok(size.unwrap_or(now)),
    }
}

fn root_at(nodes: &mut LogNodes<'_>, size: u64) -> Result<Head, StoreError> {
    Ok(Head { size, root: proof::root_at(nodes, size).map_err(unmade)? })
}

fn inclusion(nodes: &mut LogNodes<'_>, seq: u64, size: Option<u64>) -> Result<InclusionProof, StoreError> {
    let size = wanted(nodes.sql, size)?;
    let hashes = proof::inclusion(nodes, seq, size).map_err(unmade)?;
    let leaf = nodes.hashes(0, seq, 1)?.pop().ok_or(StoreError::Corrupt("a leaf's hash"))?;
    Ok(InclusionProof { seq, leaf, head: root_at(nodes, size)?, hashes })
}

fn consistency(nodes: &mut LogNodes<'_>, from: u64, to: Option<u64>) -> Result<ConsistencyProof, StoreError> {
    let to = wanted(nodes.sql, to)?;
    let hashes = proof::consistency(nodes, from, to).map_err(unmade)?;
    Ok(ConsistencyProof { from: root_at(nodes, from)?, to: root_at(nodes, to)?, hashes })
}

impl Store {
    /// Makes a proof of one moment, and keeps the roots that had to be computed for it.
    async fn prove<T: Send + 'static>(
        &self,
        database: Arc<Database>,
        make: impl FnOnce(&mut LogNodes<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reading = Arc::clone(&database);
        let (proof, made) = tokio::task::spawn_blocking(move || {
            reading.read_snapshot(|sql| {
                let mut nodes = LogNodes::new(sql);
                let proof = make(&mut nodes)?;
                Ok((proof, nodes.made))
            })
        })
        .await
        .map_err(|_| StoreError::Closed)??;
        if !made.is_empty() {
            // They are made again if this fails: a server that ends writes nothing more.
            let _ = self.writers().write_later(&database, move |tx| keep(tx.sql, &made), |_| ());
        }
        Ok(proof)
    }

    /// Proves that an event is in the account's log of `size` events, or of all.
    ///
    /// # Errors
    /// If it is not, or the database fails.
    pub async fn event_proof_inclusion(
        &self,
        permit: Permit<ReadAccountAudit>,
        seq: u64,
        size: Option<u64>,
    ) -> Result<InclusionProof, StoreError> {
        self.prove(self.database(permit.tenant())?, move |nodes| inclusion(nodes, seq, size)).await
    }

    /// Proves that the account's log of `to` events, or of all, begins with that of `from` events.
    ///
    /// # Errors
    /// If there are no such sizes, or the database fails.
    pub async fn event_proof_consistency(
        &self,
        permit: Permit<ReadAccountAudit>,
        from: u64,
        to: Option<u64>,
    ) -> Result<ConsistencyProof, StoreError> {
        self.prove(self.database(permit.tenant())?, move |nodes| consistency(nodes, from, to)).await
    }

    /// As [`Self::event_proof_inclusion`], for the host's log.
    ///
    /// # Errors
    /// The same.
    pub async fn event_proof_inclusion_host(
        &self,
        _permit: HostPermit<ReadHostAudit>,
        seq: u64,
        size: Option<u64>,
    ) -> Result<InclusionProof, StoreError> {
        self.prove(Arc::clone(self.host()), move |nodes| inclusion(nodes, seq, size)).await
    }

    /// As [`Self::event_proof_consistency`], for the host's log.
    ///
    /// # Errors
    /// The same.
    pub async fn event_proof_consistency_host(
        &self,
        _permit: HostPermit<ReadHostAudit>,
        from: u64,
        to: Option<u64>,
    ) -> Result<ConsistencyProof, StoreError> {
        self.prove(Arc::clone(self.host()), move |nodes| consistency(nodes, from, to)).await
    }
}
