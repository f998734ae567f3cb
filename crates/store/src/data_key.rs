//! Data keys: the one under which an account's secrets are sealed, itself encrypted by a key of the host's. It lies
//! here as nothing that opens anything; what it is encrypted with, and when it is so anew, is in `vault`.
//!
//! The host's own rows name each key of the host's under which a data key may lie: a key stands there before it
//! encrypts anything, and goes when nothing is left under it. So one look tells at the start whether one is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::HostPermit;
use bailiwick_auth::access::verb::{ReadVault, RewrapKeys, RotateDataKey, SetSecret};
use bailiwick_types::{AccountName, Incarnation, SealedOf, Timestamp};
use serde_json::{Map, json};

use crate::engine::{Database, Tx};
use crate::error::StoreError;
use crate::log;
use crate::sql::{Sql, args};
use crate::store::Store;

/// The action of the event that says which of the host's keys encrypts from now on.
const BEGUN: &str = "host.vault.begin";
/// A data key that changes so often under a rewrap is looked at again by the next one.
const TRIES: usize = 5;

/// A data key as it lies here: by which key it is encrypted, and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Which key encrypted it.
    pub by: String,
    /// The key, encrypted.
    pub bytes: Vec<u8>,
}

/// A sealed value as it lies here.
pub struct Sealed {
    /// Of what.
    pub of: SealedOf,
    /// Which of the values that it had.
    pub version: u64,
    /// The value, encrypted.
    pub bytes: Vec<u8>,
}

/// Encrypts a data key anew under the present key of the host; `None` if it lies there already.
pub type Rewrapping = Arc<dyn Fn(Incarnation, &StoredKey) -> Result<Option<StoredKey>, StoreError> + Send + Sync>;

/// Seals all values of an account under a new data key.
pub type Resealing =
    Box<dyn FnOnce(StoredKey, Vec<Sealed>) -> Result<(StoredKey, Vec<Sealed>), StoreError> + Send + 'static>;

/// What came of encrypting all data keys anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Accounts whose data key was encrypted anew.
    pub rewrapped: u64,
    /// Accounts whose data key lay under the present key already.
    pub already: u64,
    /// Accounts whose data key is as it was, because something failed.
    pub failed: u64,
}

impl Store {
    /// The data key under which the account's secrets are, for whoever is about to seal one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn secret_key(&self, permit: &Permit<SetSecret>) -> Result<Option<StoredKey>, StoreError> {
        self.database(permit.tenant())?.read(data_key).await
    }

    /// The data key of an account that is about to get another one.
    ///
    /// # Errors
    /// `no_data_key`.
    pub async fn data_key_read(&self, permit: &Permit<RotateDataKey>) -> Result<StoredKey, StoreError> {
        self.database(permit.tenant())?.read(data_key).await?.ok_or(NO_DATA_KEY)
    }

    /// Seals all secrets of the account under a new data key, in one transaction; the old key is gone with it. Says
    /// how many secrets there are.
    ///
    /// # Errors
    /// `no_data_key`, or what `resealing` says; all is then as it was.
    pub async fn data_key_rotate(
        &self,
        permit: Permit<RotateDataKey>,
        resealing: Resealing,
    ) -> Result<u64, StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let done = self.write(permit.tenant(), move |tx| {
            let key = data_key(tx)?.ok_or(NO_DATA_KEY)?;
            let mut sealed = tx.all(
                "SELECT name, version, sealed, kind FROM secret WHERE account = ?1 ORDER BY name",
                args![],
                |row| {
                    let of = SealedOf::of_secret(row.parse(0)?, crate::secret::kind(row, 3)?);
                    Ok(Sealed { of, version: row.count(1)?, bytes: row.blob(2)? })
                },
            )?;
            let secrets = sealed.len() as u64;
            sealed.extend(tx.all(
                "SELECT name, version, sealed FROM notification WHERE account = ?1 ORDER BY name",
                args![],
                |row| Ok(Sealed { of: SealedOf::Target(row.parse(0)?), version: row.count(1)?, bytes: row.blob(2)? }),
            )?);
            let there = sealed.len() as u64;
            let (new, sealed) = resealing(key, sealed)?;
            for Sealed { of, version, bytes } in &sealed {
                let changed = match of {
                    SealedOf::Secret(name) | SealedOf::Grant(name) => tx.exec(
                        "UPDATE secret SET sealed = ?4 WHERE account = ?1 AND name = ?2 AND version = ?3",
                        args![name, *version, bytes.as_slice()],
                    )?,
                    SealedOf::Target(name) => tx.exec(
                        "UPDATE notification SET sealed = ?4 WHERE account = ?1 AND name = ?2 AND version = ?3",
                        args![name, *version, bytes.as_slice()],
                    )?,
                };
                if changed != 1 {
                    return Err(StoreError::Corrupt("a secret that was sealed anew"));
                }
            }
            if sealed.len() as u64 != there {
                return Err(StoreError::Corrupt("secrets that were sealed anew"));
            }
            draft.detail.insert("secrets".to_owned(), json!(secrets));
            draft.detail.insert("notifications".to_owned(), json!(there - secrets));
            draft.detail.insert("under".to_owned(), json!(new.by));
            keep(tx, &new)?;
            log::append(tx, draft)?;
            Ok(secrets)
        });
        let there = done.await?;
        // What the old key opens is in the write-ahead log still, and so is that key.
        self.forget_past(permit.tenant()).await;
        Ok(there)
    }

    /// How many accounts have their data key under which of the host's keys.
    ///
    /// # Errors
    /// If a database fails.
    pub async fn data_key_status(&self, _permit: HostPermit<ReadVault>) -> Result<BTreeMap<String, u64>, StoreError> {
        self.under().await
    }

    /// Encrypts every account's data key anew under the present key, one account after the other: each in one
    /// transaction with its event, so that whoever is killed in the middle begins again where they were. When all lie
    /// there, no other key is needed any more.
    ///
    /// # Errors
    /// If the accounts cannot be listed. An account that fails is told in the server's own log, and the others go on.
    pub async fn data_key_rewrap(
        &self,
        permit: HostPermit<RewrapKeys>,
        present: String,
        rewrapping: Rewrapping,
    ) -> Result<Rewrapped, StoreError> {
        let mut done = Rewrapped::default();
        for (name, account) in self.lives().await? {
            let draft = permit.draft(format!("account:{name}"), Verdict::Ok, Map::new());
            match self.rewrap_one(account, draft, &rewrapping).await {
                Ok(Some(Changed::Anew)) => done.rewrapped += 1,
                Ok(Some(Changed::Not)) => done.already += 1,
                // It has no secrets, or was deleted meanwhile.
                Ok(None) | Err(StoreError::NotFound { .. }) => {}
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                Err(error) => {
                    tracing::error!(%error, account = %name, "a data key could not be encrypted anew");
                    done.failed += 1;
                }
            }
        }
        let verdict = if done.failed == 0 { Verdict::Ok } else { Verdict::Fail };
        let detail = Map::from_iter([
            ("under".to_owned(), json!(present)),
            ("rewrapped".to_owned(), json!(done.rewrapped)),
            ("already".to_owned(), json!(done.already)),
            ("failed".to_owned(), json!(done.failed)),
        ]);
        let draft = permit.draft("host:vault".to_owned(), verdict, detail);
        self.writers()
            .write(self.host(), move |tx| {
                if done.failed == 0 {
                    tx.exec("DELETE FROM vault_key WHERE ?1 = 'host' AND id <> ?2", args![&present])?;
                }
                log::append(tx, draft).map(drop)
            })
            .await?;
        Ok(done)
    }

    /// Says at the start which key encrypts from now on. Gives the keys that are needed and not held, with the number
    /// of accounts that need each; nothing is noted then, and the server must not go on.
    ///
    /// # Errors
    /// If a database fails.
    pub async fn data_key_begin(
        &self,
        present: String,
        held: BTreeSet<String>,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        let noted = self
            .host()
            .read(|sql| sql.all("SELECT id FROM vault_key WHERE ?1 = 'host'", args![], |row| row.text(0)))
            .await?;
        let noted: BTreeSet<String> = noted.into_iter().collect();
        let mut kept = noted.clone();
        // A database from before these rows has none, and a key that stands here may have nothing under it any more.
        if noted.is_empty() || !noted.is_subset(&held) {
            let under = self.under().await?;
            let missing: BTreeMap<_, _> = under.iter().filter(|(id, _)| !held.contains(*id)).collect();
            if !missing.is_empty() {
                return Ok(missing.into_iter().map(|(id, accounts)| (id.clone(), *accounts)).collect());
            }
            kept = under.into_keys().collect();
        }
        kept.insert(present.clone());
        if kept == noted {
            return Ok(BTreeMap::new());
        }
        let mut draft = crate::account::startup(BEGUN, "host:vault".to_owned());
        draft.detail.insert("under".to_owned(), json!(present));
        self.writers()
            .write(self.host(), move |tx| {
                tx.exec("DELETE FROM vault_key WHERE ?1 = 'host'", args![])?;
                for id in &kept {
                    tx.exec(
                        "INSERT INTO vault_key (id, since) SELECT ?2, ?3 WHERE ?1 = 'host'",
                        args![id, Timestamp::now()],
                    )?;
                }
                log::append(tx, draft).map(drop)
            })
            .await?;
        Ok(BTreeMap::new())
    }

    /// All accounts, by their name and life.
    async fn lives(&self) -> Result<Vec<(AccountName, Incarnation)>, StoreError> {
        self.host()
            .read(|sql| {
                sql.all("SELECT name, incarnation FROM account WHERE ?1 = 'host' ORDER BY name", args![], |row| {
                    Ok((row.parse(0)?, row.parse(1)?))
                })
            })
            .await
    }

    async fn under(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut under = BTreeMap::new();
        for (_, account) in self.lives().await? {
            let key = match self.database_of(account) {
                Ok(database) => database.read(data_key).await?,
                Err(StoreError::NotFound { .. }) => None,
                Err(error) => return Err(error),
            };
            if let Some(key) = key {
                *under.entry(key.by).or_insert(0) += 1;
            }
        }
        Ok(under)
    }

    async fn rewrap_one(
        &self,
        account: Incarnation,
        draft: Draft,
        rewrapping: &Rewrapping,
    ) -> Result<Option<Changed>, StoreError> {
        let database = self.database_of(account)?;
        for _ in 0..TRIES {
            let Some(old) = database.read(data_key).await? else { return Ok(None) };
            let (asked, with) = (old.clone(), Arc::clone(rewrapping));
            // Outside of the transaction: the key above may be in another program's hands.
            let new = tokio::task::spawn_blocking(move || with(account, &asked)).await;
            let Some(new) = new.map_err(|_| StoreError::Closed)?? else { return Ok(Some(Changed::Not)) };
            if self.replace(&database, account, draft.clone(), old, new).await? {
                return Ok(Some(Changed::Anew));
            }
        }
        Err(StoreError::Conflict { code: "busy", message: "the data key changed again and again: try once more" })
    }

    /// Puts a key in the place of the one from which it was made, if that is still there.
    async fn replace(
        &self,
        database: &Arc<Database>,
        account: Incarnation,
        mut draft: Draft,
        old: StoredKey,
        new: StoredKey,
    ) -> Result<bool, StoreError> {
        let store = self.clone();
        self.writers()
            .write(database, move |tx| {
                if store.is_deleted(account) {
                    return Err(StoreError::not_found("account", "of this request"));
                }
                if data_key(tx)?.as_ref() != Some(&old) {
                    return Ok(false);
                }
                keep(tx, &new)?;
                draft.detail.insert("from".to_owned(), json!(old.by));
                draft.detail.insert("under".to_owned(), json!(new.by));
                log::append(tx, draft)?;
                Ok(true)
            })
            .await
    }
}

/// What became of one account's data key.
enum Changed {
    Anew,
    Not,
}

pub(crate) fn data_key(sql: &Sql<'_>) -> Result<Option<StoredKey>, StoreError> {
    sql.one("SELECT wrapped_by, wrapped FROM data_key WHERE account = ?1", args![], |row| {
        Ok(StoredKey { by: row.text(0)?, bytes: row.blob(1)? })
    })
}

/// Keeps the account's data key, the first or another one.
pub(crate) fn keep(tx: &mut Tx<'_>, key: &StoredKey) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO data_key (account, wrapped_by, wrapped, updated_at) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (account) DO UPDATE SET wrapped_by = excluded.wrapped_by, \
         wrapped = excluded.wrapped, updated_at = excluded.updated_at",
        args![&key.by, key.bytes.as_slice(), Timestamp::now()],
    )
    .map(drop)
}

const NO_DATA_KEY: StoreError =
    StoreError::Conflict { code: "no_data_key", message: "the account has had no secret yet, so it has no data key" };
