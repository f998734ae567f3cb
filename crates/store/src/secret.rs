//! Secrets of the account: sealed values, and who may use them. What opens them is not here: a value leaves as it
//! lies in the database, against the record of its release.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb::{DeleteSecret, GrantSecret, ListSecrets, ReleaseSecret, SetSecret};
use bailiwick_auth::access::{During, SecretUse, Session};
use bailiwick_auth::{Permit, Recorded, Scope, for_store};
use bailiwick_types::host::{HostName, HostPattern};
use bailiwick_types::{AgentName, LeaseTerm, SecretKind, SecretName, Timestamp, UsedBy};
use serde_json::{Map, json};

use crate::data_key::{StoredKey, data_key, keep};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::sql::{Row, Sql, args};
use crate::store::Store;

mod refresh;

pub use refresh::{Refresh, Taken};

/// Most secrets of an account.
const MOST: u64 = 1000;
/// Most grants of a secret.
const MOST_GRANTS: u64 = 200;
/// A release is noted to the minute, so that a busy sandbox does not write at each request.
const NOTED_EACH: i64 = 60 * 1_000_000;

/// A sealed value, and the key under which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// The data key.
    pub key: StoredKey,
    /// What it is.
    pub kind: SecretKind,
    /// Which of the values that it had, from 1.
    pub version: u64,
    /// The value, encrypted.
    pub bytes: Vec<u8>,
    /// What is with its refresh, if it is a grant.
    pub refresh: Refresh,
}

/// What is known of a secret. Not its value.
#[derive(Debug, Clone)]
pub struct SecretRow {
    /// Its name.
    pub name: SecretName,
    /// What it is for, in its owner's words.
    pub note: String,
    /// What it is.
    pub kind: SecretKind,
    /// The error for which a grant has to be set again: nothing is released until it is.
    pub set_again: Option<String>,
    /// How many values it has had; each refresh of a grant makes one.
    pub version: u64,
    /// When it got the newest.
    pub updated_at: Timestamp,
    /// When it last went out, to the minute.
    pub released_at: Option<Timestamp>,
    /// Who may use it, and for which hosts.
    pub grants: Vec<Grant>,
}

/// That a secret may be used on behalf of an agent for some hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The agent.
    pub agent: AgentName,
    /// By its sandboxes, or by the server when it calls its model.
    pub used_by: UsedBy,
    /// The hosts.
    pub hosts: HostPattern,
    /// For how long it is released at a time.
    pub lease: LeaseTerm,
}

/// A new value: seals it under the data key that there is, or a new one, as the version that it will be.
pub type Sealing = Box<dyn FnOnce(Option<StoredKey>, u64) -> Result<(StoredKey, Vec<u8>), StoreError> + Send + 'static>;

/// Whether a secret has to be there to get a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It is made if it is not there.
    Either,
    /// One that is not there is a mistake in its name.
    Existing,
}

/// Whether a grant is given or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Given.
    Give,
    /// Taken.
    Take,
}

impl Store {
    /// The account's secrets by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn secret_list(&self, permit: Permit<ListSecrets>) -> Result<Vec<SecretRow>, StoreError> {
        self.database(permit.tenant())?
            .read(|sql| {
                let mut rows = sql.all(
                    "SELECT name, note, version, updated_at, released_at, kind, refresh, refresh_until FROM secret \
                     WHERE account = ?1 ORDER BY name",
                    args![],
                    secret_row,
                )?;
                let grants = sql.all(
                    "SELECT secret, agent, used_by, hosts, lease FROM secret_grant WHERE account = ?1 \
                     ORDER BY secret, agent, used_by, hosts",
                    args![],
                    |row| Ok((row.parse::<SecretName>(0)?, grant(row, 1)?)),
                )?;
                for (of, grant) in grants {
                    if let Ok(at) = rows.binary_search_by(|row| row.name.cmp(&of))
                        && let Some(row) = rows.get_mut(at)
                    {
                        row.grants.push(grant);
                    }
                }
                Ok(rows)
            })
            .await
    }

    /// Gives a secret a value, the first or a new one, and says its version. The one before is gone.
    ///
    /// # Errors
    /// `too_many_secrets`, [`StoreError::NotFound`] for one that has to be there, or what `sealing` says.
    pub async fn secret_set(
        &self,
        permit: Permit<SetSecret>,
        name: SecretName,
        kind: SecretKind,
        note: Option<String>,
        expect: Expect,
        sealing: Sealing,
    ) -> Result<u64, StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            let newest = version(tx, &name)?;
            if newest.is_none() && expect == Expect::Existing {
                return Err(StoreError::not_found("secret", &name));
            }
            if newest.is_none() && count(tx, "SELECT count(*) FROM secret WHERE account = ?1")? >= MOST {
                return Err(TOO_MANY);
            }
            let version = newest.unwrap_or(0) + 1;
            let key = data_key(tx)?;
            let (used, sealed) = sealing(key.clone(), version)?;
            let now = Timestamp::now();
            if key.as_ref() != Some(&used) {
                keep(tx, &used)?;
            }
            tx.exec(
                "INSERT INTO secret (account, name, note, version, sealed, updated_at, kind) \
                 VALUES (?1, ?2, coalesce(?3, ''), ?4, ?5, ?6, ?7) ON CONFLICT (account, name) DO UPDATE SET \
                 note = coalesce(?3, secret.note), version = excluded.version, sealed = excluded.sealed, \
                 updated_at = excluded.updated_at, kind = excluded.kind, refresh = '', refresh_until = 0",
                args![&name, note.as_ref(), version, sealed.as_slice(), now, kind.as_str()],
            )?;
            draft.resource = format!("secret:{name}");
            draft.detail.insert("kind".to_owned(), json!(kind));
            draft.detail.insert("version".to_owned(), json!(version));
            log::append(tx, draft)?;
            Ok(version)
        })
        .await
    }

    /// Gives or takes a grant. One that is there already has the lease that is given now; one that is not there stays
    /// so.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], `too_many_grants`.
    pub async fn secret_grant(
        &self,
        permit: Permit<GrantSecret>,
        name: SecretName,
        grant: Grant,
        change: Change,
    ) -> Result<(), StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            version(tx, &name)?.ok_or_else(|| StoreError::not_found("secret", &name))?;
            let (agent, used_by, hosts) = (grant.agent, grant.used_by.as_str(), grant.hosts.to_string());
            // A name that is spelt wrong would be a grant to nobody, or to somebody who comes later.
            crate::agent::newest(tx, &agent)?.ok_or_else(|| StoreError::not_found("agent", &agent))?;
            let done = match change {
                Change::Give => {
                    let one = "SELECT count(*) FROM secret_grant WHERE account = ?1 AND secret = ?2";
                    let there = tx.one(one, args![&name], |row| row.count(0))?.unwrap_or(0);
                    if there >= MOST_GRANTS {
                        return Err(TOO_MANY_GRANTS);
                    }
                    tx.exec(
                        "INSERT INTO secret_grant (account, secret, agent, used_by, hosts, created_at, lease) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
                         ON CONFLICT (account, secret, agent, used_by, hosts) DO UPDATE SET lease = excluded.lease",
                        args![&name, &agent, used_by, hosts.as_str(), Timestamp::now(), grant.lease.as_str()],
                    )?;
                    draft.detail.insert("lease".to_owned(), json!(grant.lease));
                    "given"
                }
                Change::Take => {
                    tx.exec(
                        "DELETE FROM secret_grant WHERE account = ?1 AND secret = ?2 AND agent = ?3 AND used_by = ?4 \
                         AND hosts = ?5",
                        args![&name, &agent, used_by, hosts.as_str()],
                    )?;
                    "taken"
                }
            };
            draft.resource = format!("secret:{name}");
            draft.detail.insert("done".to_owned(), json!(done));
            draft.detail.insert("hosts".to_owned(), json!(hosts));
            draft.detail.insert("used_by".to_owned(), json!(used_by));
            draft.agent = Some(agent);
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Deletes a secret with its grants.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn secret_delete(&self, permit: Permit<DeleteSecret>, name: SecretName) -> Result<(), StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            if tx.exec("DELETE FROM secret WHERE account = ?1 AND name = ?2", args![&name])? == 0 {
                return Err(StoreError::not_found("secret", &name));
            }
            draft.resource = format!("secret:{name}");
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// The use of a secret for a host on behalf of a session, as the policy has to know it. Of one that is not
    /// there nothing was granted.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn secret_use(
        &self,
        scope: &Scope,
        session: Session,
        name: SecretName,
        host: HostName,
        (used_by, during): (UsedBy, During),
    ) -> Result<SecretUse, StoreError> {
        let grants = self
            .database(scope.tenant())?
            .read(|sql| {
                sql.all(
                    "SELECT agent, used_by, hosts, lease FROM secret_grant \
                     WHERE account = ?1 AND secret = ?2 AND used_by = ?3",
                    args![&name, used_by.as_str()],
                    |row| grant(row, 0),
                )
            })
            .await?;
        let fitting: Vec<Grant> = grants.into_iter().filter(|grant| grant.hosts.fits(&host)).collect();
        // Of several the most specific counts, as with destinations: an exact host may be kept closer than the rest.
        let own = fitting.iter().filter(|grant| &grant.agent == session.agent());
        let lease = own.max_by_key(|grant| grant.hosts.specificity()).map_or(LeaseTerm::default(), |grant| grant.lease);
        let granted = fitting.into_iter().map(|grant| grant.agent).collect();
        Ok(for_store::secret_use(session, name, host, (used_by, during), granted, lease))
    }

    /// The sealed value of a secret whose release is on record.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn secret_sealed(&self, act: &Recorded<ReleaseSecret>) -> Result<StoredSecret, StoreError> {
        let name = act.resource().secret().clone();
        let (found, noted) = self
            .database(act.scope().tenant())?
            .read(|sql| {
                // One statement, so that the key is the one under which the value is, also while keys are changed.
                let found = sql.one(
                    "SELECT data_key.wrapped_by, data_key.wrapped, secret.version, secret.sealed, secret.released_at, \
                     secret.kind, secret.refresh, secret.refresh_until FROM secret JOIN data_key ON data_key.account = secret.account \
                     WHERE secret.account = ?1 AND secret.name = ?2",
                    args![&name],
                    |row| {
                        let key = StoredKey { by: row.text(0)?, bytes: row.blob(1)? };
                        let (kind, refresh) = (kind(row, 5)?, Refresh::read(row, 6)?);
                        let found = StoredSecret { key, kind, version: row.count(2)?, bytes: row.blob(3)?, refresh };
                        Ok((found, row.optional_time(4)?))
                    },
                )?;
                found.ok_or_else(|| StoreError::not_found("secret", &name))
            })
            .await?;
        let now = Timestamp::now();
        if noted.is_none_or(|noted| now.as_micros() - noted.as_micros() >= NOTED_EACH) {
            self.write(act.scope().tenant(), move |tx| {
                tx.exec("UPDATE secret SET released_at = ?3 WHERE account = ?1 AND name = ?2", args![&name, now])
                    .map(drop)
            })
            .await?;
        }
        Ok(found)
    }
}

/// Takes an agent's grants: another agent of that name is another agent.
pub(crate) fn forget_agent(tx: &mut Tx<'_>, agent: &AgentName) -> Result<(), StoreError> {
    tx.exec("DELETE FROM secret_grant WHERE account = ?1 AND agent = ?2", args![agent]).map(drop)
}

fn count(sql: &Sql<'_>, statement: &'static str) -> Result<u64, StoreError> {
    Ok(sql.one(statement, args![], |row| row.count(0))?.unwrap_or(0))
}

fn version(sql: &Sql<'_>, name: &SecretName) -> Result<Option<u64>, StoreError> {
    sql.one("SELECT version FROM secret WHERE account = ?1 AND name = ?2", args![name], |row| row.count(0))
}

fn secret_row(row: &Row<'_>) -> Result<SecretRow, StoreError> {
    Ok(SecretRow {
        name: row.parse(0)?,
        kind: kind(row, 5)?,
        set_again: Refresh::read(row, 6)?.failed(),
        note: row.text(1)?,
        version: row.count(2)?,
        updated_at: row.time(3)?,
        released_at: row.optional_time(4)?,
        grants: Vec::new(),
    })
}

pub(crate) fn kind(row: &Row<'_>, at: usize) -> Result<SecretKind, StoreError> {
    row.text(at)?.parse().map_err(|_| StoreError::Corrupt("a secret's kind"))
}

fn grant(row: &Row<'_>, at: usize) -> Result<Grant, StoreError> {
    let hosts = HostPattern::parse(&row.text(at + 2)?).map_err(|_| StoreError::Corrupt("a grant's hosts"))?;
    let used_by = row.text(at + 1)?.parse().map_err(|_| StoreError::Corrupt("a grant's use"))?;
    let lease = row.text(at + 3)?.parse().map_err(|_| StoreError::Corrupt("a grant's lease"))?;
    Ok(Grant { agent: row.parse(at)?, used_by, hosts, lease })
}

const TOO_MANY: StoreError =
    StoreError::Conflict { code: "too_many_secrets", message: "an account has at most 1000 secrets: delete some" };
const TOO_MANY_GRANTS: StoreError =
    StoreError::Conflict { code: "too_many_grants", message: "a secret has at most 200 grants: take some back" };
