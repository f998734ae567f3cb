//! Signed heads of the logs, kept in files outside of the database: whoever rewrites a log together with
//! its head does not rewrite these, the less so if their folder is on storage that is written once.
//!
//! One file a log, `<log>.txt`; each note in it is followed by an empty line. Only files are added to.
//! They are not flushed to disk one by one: one that is lost in a power cut makes nothing false.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailiwick_audit::checkpoint::{Checkpoint, SignedNote, Signer, VerifierKey};
use bailiwick_audit::event::{LogId, hex};
use bailiwick_audit::{Actor, Draft, Head, Problem, Verdict, proof};
use bailiwick_auth::Permit;
use bailiwick_auth::access::HostPermit;
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadHostAudit};
use bailiwick_types::{Incarnation, Timestamp};
use serde_json::json;

use crate::engine::Database;
use crate::error::StoreError;
use crate::log::proof::{LogNodes, unmade};
use crate::log::{append, head};
use crate::sql::Sql;
use crate::store::Store;

/// Bytes at the end of a file that are read: some thousands of checkpoints. Each was compared with the one
/// before when it was made.
const READ_BYTES: u64 = 1024 * 1024;
/// Bytes in which the newest one certainly is.
const NEWEST_BYTES: u64 = 16 * 1024;

/// The action of the event that says that a log does not continue what was signed before.
pub const FORK: &str = "audit.fork";

/// With what logs are signed, and how they are kept.
pub struct Keeping {
    /// The host's key.
    pub signer: Signer,
    /// Where checkpoints are kept.
    pub dir: PathBuf,
    /// How old an event must be before it can be retired, whoever asks.
    pub least_age: Duration,
}

/// What signs, and what it knows of what was signed before.
pub(crate) struct Seal {
    keeping: Keeping,
    newest: Mutex<HashMap<String, Newest>>,
    /// One round at a time: the last one, when the server stops, waits for the one that has taken the list.
    round: tokio::sync::Mutex<()>,
}

/// The last thing that is known of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newest {
    /// Its last checkpoint has this size.
    Size(u64),
    /// It does not continue its last checkpoint. Nothing more is signed into its file, so that the last good
    /// one stays the last.
    Forked,
}

/// What came of looking at a log.
enum Signed {
    /// Its head is kept; so many events.
    Kept(u64),
    /// It is another log than it was. Told once.
    Fork(Problem),
    /// It still is.
    StillForked,
}

impl Seal {
    pub(crate) fn signer(&self) -> &Signer {
        &self.keeping.signer
    }

    pub(crate) fn least_age(&self) -> Duration {
        self.keeping.least_age
    }

    fn path(&self, log: &LogId) -> PathBuf {
        self.keeping.dir.join(format!("{}.txt", log.as_str()))
    }

    /// The kept checkpoints of a log, in the order in which they were made.
    pub(crate) fn kept(&self, log: &LogId) -> Result<Vec<Checkpoint>, StoreError> {
        let notes = notes(&tail(&self.path(log), READ_BYTES)?.0);
        Ok(self.opened(log, &notes).collect())
    }

    fn opened<'a>(&'a self, log: &LogId, notes: &'a [SignedNote]) -> impl DoubleEndedIterator<Item = Checkpoint> + 'a {
        let (key, origin) = (self.signer().verifier_key(), self.signer().origin(log));
        // Others' notes, and those of a server of another name, say nothing about this log.
        notes.iter().filter_map(move |note| note.open(&key).ok().filter(|it| it.origin == origin))
    }

    /// Signs a log's head and keeps it, if the log grew; looks first whether it continues what was signed.
    fn sign(&self, database: &Database) -> Result<Signed, StoreError> {
        let log = database.log();
        // One at a time: what stands last in the file must be what is known to stand there.
        let mut known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, apart) = match known.get(log.as_str()) {
            Some(Newest::Forked) => return Ok(Signed::StillForked),
            Some(Newest::Size(size)) => (Some(*size), ""),
            None => {
                let (text, whole) = tail(&self.path(log), NEWEST_BYTES)?;
                let notes = notes(&text);
                let newest = self.opened(log, &notes).next_back();
                if let Some(newest) = &newest
                    && let Some(problem) = database.read_snapshot(|sql| fork(sql, newest))?
                {
                    known.insert(log.as_str().to_owned(), Newest::Forked);
                    return Ok(Signed::Fork(problem));
                }
                // The server may have ended while it wrote the last one.
                (newest.map(|newest| newest.size), if whole { "" } else { "\n\n" })
            }
        };
        let head = database.read_blocking(head)?;
        if before.is_some_and(|before| head.size < before) {
            known.insert(log.as_str().to_owned(), Newest::Forked);
            return Ok(Signed::Fork(Problem::Shrunk { size: head.size, older: before.unwrap_or_default() }));
        }
        if before != Some(head.size) {
            let note = self.signer().checkpoint(log, &head, Timestamp::now());
            let mut options = OpenOptions::new();
            let mut file = options.create(true).append(true).mode(0o600).open(self.path(log))?;
            file.write_all(format!("{apart}{note}\n").as_bytes())?;
        }
        known.insert(log.as_str().to_owned(), Newest::Size(head.size));
        Ok(Signed::Kept(head.size))
    }
}

/// The end of a file, and whether it ends as a file of notes does.
fn tail(path: &std::path::Path, bytes: u64) -> Result<(String, bool), StoreError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((String::new(), true)),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    let whole = end.is_empty() || end.ends_with(b"\n\n");
    Ok((String::from_utf8_lossy(&end).into_owned(), whole))
}

/// The notes in a text; what is cut or no note is passed over.
fn notes(text: &str) -> Vec<SignedNote> {
    let blocks: Vec<&str> = text.split("\n\n").map(|block| block.trim_start_matches('\n')).collect();
    let pairs = blocks.windows(2).filter(|pair| pair[1].starts_with('\u{2014}'));
    pairs.filter_map(|pair| format!("{}\n\n{}\n", pair[0], pair[1].trim_end_matches('\n')).parse().ok()).collect()
}

/// Whether the log does not continue an older checkpoint. Reads what proofs are made of, not every event.
fn fork(sql: &Sql<'_>, older: &Checkpoint) -> Result<Option<Problem>, StoreError> {
    let now = head(sql)?;
    if now.size < older.size {
        return Ok(Some(Problem::Shrunk { size: now.size, older: older.size }));
    }
    let root = |size: u64| match size {
        0 => Ok(Some(bailiwick_audit::Frontier::new().root())),
        _ => match proof::root_at(&mut LogNodes::new(sql), size) {
            Ok(root) => Ok(Some(root)),
            Err(proof::MakeError::Incomplete { .. }) => Ok(None),
            Err(error) => Err(unmade(error)),
        },
    };
    if root(older.size)? != Some(older.root) {
        return Ok(Some(Problem::Fork { size: older.size, root: hex(&older.root) }));
    }
    // Or the stored subtrees are the old ones, and the head is of another log.
    if root(now.size)? != Some(now.root) {
        return Ok(Some(Problem::Root(hex(&now.root))));
    }
    Ok(None)
}

impl Store {
    /// From now on heads are signed and kept. Said once, at the start.
    ///
    /// # Errors
    /// If the folder cannot be made, or it was said before.
    pub fn keep_checkpoints(&self, keeping: Keeping) -> Result<(), StoreError> {
        if !keeping.dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&keeping.dir)?;
        }
        let seal = Arc::new(Seal { keeping, newest: Mutex::default(), round: tokio::sync::Mutex::default() });
        self.seal_slot()
            .set(seal)
            .map_err(|_| StoreError::Conflict { code: "kept_already", message: "checkpoints are kept already" })?;
        // It is looked at soon, also if it does not grow.
        self.grown().note(&LogId::host());
        Ok(())
    }

    pub(crate) fn seal(&self) -> Result<Arc<Seal>, StoreError> {
        self.seal_slot()
            .get()
            .cloned()
            .ok_or(StoreError::Conflict { code: "not_signed", message: "this server signs no checkpoints" })
    }

    /// What others check this server's checkpoints with.
    ///
    /// # Errors
    /// If this server does not sign.
    pub fn verifier_key(&self) -> Result<VerifierKey, StoreError> {
        Ok(self.seal()?.signer().verifier_key())
    }

    /// Signs and keeps the heads of the logs that grew since the last time, and looks at each that is met for
    /// the first time. A log that does not continue its last checkpoint is an alarm: in the server's own log,
    /// and in the host's.
    ///
    /// # Errors
    /// If this server does not sign. A log that fails is told in the server's own log, and tried again.
    pub async fn checkpoint_grown(&self) -> Result<(), StoreError> {
        let seal = self.seal()?;
        let _round = seal.round.lock().await;
        for log in self.grown().take() {
            let database = match log.parse::<Incarnation>() {
                Ok(life) => self.database_of(life),
                Err(_) => Ok(Arc::clone(self.host())),
            };
            let signed = match database {
                Ok(database) => self.sign_kept(&database).await.map(drop),
                // An account that was not made after all.
                Err(StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            };
            match signed {
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, log, "the head of a log could not be kept; it is tried again");
                    match log.parse::<Incarnation>() {
                        Ok(life) => self.grown().note(&LogId::account(life)),
                        Err(_) => self.grown().note(&LogId::host()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Signs and keeps one log's head; says how many events it covers.
    pub(crate) async fn sign_kept(&self, database: &Arc<Database>) -> Result<u64, StoreError> {
        let (seal, signing) = (self.seal()?, Arc::clone(database));
        let signed =
            tokio::task::spawn_blocking(move || seal.sign(&signing)).await.map_err(|_| StoreError::Closed)??;
        let forked = StoreError::Conflict {
            code: "log_forked",
            message: "the log does not continue what was signed before: run `audit verify`, and see docs/audit.md",
        };
        match signed {
            Signed::Kept(size) => Ok(size),
            Signed::StillForked => Err(forked),
            Signed::Fork(problem) => {
                let log = database.log().as_str();
                tracing::error!(log, %problem, "A LOG IS NOT THE ONE THAT WAS SIGNED BEFORE: somebody rewrote it");
                let mut draft = Draft {
                    actor: Actor::Service("checkpoints".to_owned()),
                    verdict: Verdict::Fail,
                    ..crate::account::startup(FORK, format!("log:{log}"))
                };
                draft.phase = bailiwick_audit::Phase::Observation;
                draft.detail.insert("problem".to_owned(), json!(problem.to_string()));
                self.writers().write(self.host(), move |tx| append(tx, draft)).await?;
                Err(forked)
            }
        }
    }

    /// The signed head of the account's log as it is now.
    ///
    /// # Errors
    /// If the database fails, or this server does not sign.
    pub async fn event_checkpoint(&self, permit: Permit<ReadAccountAudit>) -> Result<(Head, SignedNote), StoreError> {
        self.checkpoint(&*self.database(permit.tenant())?).await
    }

    /// The signed head of the host's log as it is now.
    ///
    /// # Errors
    /// If the database fails, or this server does not sign.
    pub async fn event_checkpoint_host(
        &self,
        _permit: HostPermit<ReadHostAudit>,
    ) -> Result<(Head, SignedNote), StoreError> {
        self.checkpoint(self.host()).await
    }

    async fn checkpoint(&self, database: &Database) -> Result<(Head, SignedNote), StoreError> {
        let seal = self.seal()?;
        let head = database.read(head).await?;
        let note = seal.signer().checkpoint(database.log(), &head, Timestamp::now());
        Ok((head, note))
    }
}
