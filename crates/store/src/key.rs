//! API keys: hashes at rest, and where a key's holder lives.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{CreateKey, ListKeys, RevokeKey};
use bailiwick_auth::key::{KeyHash, NewKey};
use bailiwick_types::{AgentName, Incarnation, KeyId, KeyScope, SpaceId, Timestamp, UserName};
use serde_json::{Map, json};

use crate::device::still_shown;
use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::sql::args;
use crate::store::Store;

/// How often a key's last use is written down, microseconds. Finer would be a write for every read.
const USE_NOTED_EVERY: i64 = 60_000_000;

/// What a key may be used for.
#[derive(Debug, Clone)]
pub struct KeyTerms {
    /// For people.
    pub name: String,
    /// For what.
    pub scopes: Vec<KeyScope>,
    /// With which agent alone.
    pub agent: Option<AgentName>,
    /// In which space alone.
    pub space: Option<SpaceId>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

impl KeyTerms {
    /// A key without bounds.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), scopes: KeyScope::ALL.to_vec(), agent: None, space: None, expires_at: None }
    }
}

/// A key, without anything that could prove it.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// The public half.
    pub id: KeyId,
    /// What it may be used for.
    pub terms: KeyTerms,
    /// When made.
    pub created_at: Timestamp,
    /// When last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

pub(crate) fn scopes_text(scopes: &[KeyScope]) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn scopes_parse(text: &str) -> Result<Vec<KeyScope>, StoreError> {
    text.split_whitespace().map(|word| word.parse().map_err(|_| StoreError::Corrupt("a key's scopes"))).collect()
}

pub(crate) fn insert(
    tx: &mut Tx<'_>,
    user: &UserName,
    id: &KeyId,
    hash: &KeyHash,
    terms: &KeyTerms,
) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO api_key (account, id, holder, name, hash, scopes, agent, space, expires_at, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        args![
            id,
            user,
            &terms.name,
            hash.as_bytes(),
            scopes_text(&terms.scopes),
            terms.agent.as_ref(),
            terms.space,
            terms.expires_at,
            Timestamp::now(),
        ],
    )?;
    Ok(())
}

/// Whether the user, and what their credential is to be bound to, is there.
pub(crate) fn bounds_are_there(
    tx: &Tx<'_>,
    user: &UserName,
    agent: Option<&AgentName>,
    space: Option<SpaceId>,
) -> Result<(), StoreError> {
    let exists = |found: Option<()>, kind, name: String| found.ok_or(StoreError::NotFound { kind, name });
    let found = tx.one("SELECT 1 FROM account_user WHERE account = ?1 AND name = ?2", args![user], |_| Ok(()))?;
    exists(found, "user", user.to_string())?;
    if let Some(agent) = agent {
        let found =
            tx.one("SELECT 1 FROM agent WHERE account = ?1 AND name = ?2 AND deleted = 0", args![agent], |_| Ok(()))?;
        exists(found, "agent", agent.to_string())?;
    }
    if let Some(space) = space {
        // Only a space that the user owns or was granted: else the answer would tell that it exists.
        let found = tx.one(
            "SELECT 1 FROM space s WHERE account = ?1 AND id = ?2 AND (owner = ?3 OR EXISTS (SELECT 1 FROM \
             space_grant g WHERE g.account = s.account AND g.space = s.id AND g.grantee = ?3))",
            args![space, user],
            |_| Ok(()),
        )?;
        exists(found, "space", space.to_string())?;
    }
    Ok(())
}

/// Writes in the host's file where a credential's holder lives, by its public half.
pub(crate) fn locate(tx: &mut Tx<'_>, id: &str, incarnation: Incarnation) -> Result<(), StoreError> {
    tx.exec("INSERT INTO key_locator (key_id, incarnation) SELECT ?2, ?3 WHERE ?1 = 'host'", args![id, incarnation])?;
    Ok(())
}

impl Store {
    /// Before the key itself: a locator without a key lets nobody in, a key without a locator is lost.
    pub(crate) async fn key_locate(&self, id: &str, incarnation: Incarnation) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.writers().write(self.host(), move |tx| locate(tx, &id, incarnation)).await
    }

    pub(crate) async fn key_unlocate(&self, ids: Vec<String>) -> Result<(), StoreError> {
        self.writers()
            .write(self.host(), move |tx| {
                for id in &ids {
                    tx.exec("DELETE FROM key_locator WHERE ?1 = 'host' AND key_id = ?2", args![id])?;
                }
                Ok(())
            })
            .await
    }

    /// Adds a key to a user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user, the agent or the space is not there.
    pub async fn key_create(&self, permit: Permit<CreateKey>, key: &NewKey, terms: KeyTerms) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let (id, hash) = (key.id.clone(), key.hash.clone());
        self.key_locate(id.as_str(), permit.tenant().incarnation()).await?;
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let shown = permit.scope().credential().clone();
        self.write(permit.tenant(), move |tx| {
            still_shown(tx, &shown)?;
            bounds_are_there(tx, &user, terms.agent.as_ref(), terms.space)?;
            insert(tx, &user, &id, &hash, &terms)?;
            draft.detail.insert("key".to_owned(), json!(id));
            draft.detail.insert("name".to_owned(), json!(terms.name));
            draft.detail.insert("scopes".to_owned(), json!(terms.scopes));
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Replaces all keys of a user by one; the old ones die at once (OpenViking's `POST …/key`).
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user is not there.
    pub async fn key_rotate(&self, permit: Permit<CreateKey>, key: &NewKey) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let (id, hash) = (key.id.clone(), key.hash.clone());
        self.key_locate(id.as_str(), permit.tenant().incarnation()).await?;
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let shown = permit.scope().credential().clone();
        let dead = self
            .write(permit.tenant(), move |tx| {
                still_shown(tx, &shown)?;
                tx.one("SELECT 1 FROM account_user WHERE account = ?1 AND name = ?2", args![&user], |_| Ok(()))?
                    .ok_or_else(|| StoreError::not_found("user", &user))?;
                let dead: Vec<String> =
                    tx.all("SELECT id FROM api_key WHERE account = ?1 AND holder = ?2", args![&user], |row| {
                        row.text(0)
                    })?;
                tx.exec("DELETE FROM api_key WHERE account = ?1 AND holder = ?2", args![&user])?;
                insert(tx, &user, &id, &hash, &KeyTerms::named("regenerated"))?;
                draft.detail.insert("key".to_owned(), json!(id));
                draft.detail.insert("revoked".to_owned(), json!(dead));
                log::append(tx, draft)?;
                Ok(dead)
            })
            .await?;
        self.key_unlocate(dead).await
    }

    /// A user's keys, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn key_list(&self, permit: Permit<ListKeys>) -> Result<Vec<KeyRow>, StoreError> {
        self.database(permit.tenant())?
            .read(|sql| {
                sql.all(
                    "SELECT id, name, scopes, agent, space, expires_at, created_at, last_used_at FROM api_key \
                 WHERE account = ?1 AND holder = ?2 ORDER BY created_at, id",
                    args![permit.resource().name()],
                    |row| {
                        let terms = KeyTerms {
                            name: row.text(1)?,
                            scopes: scopes_parse(&row.text(2)?)?,
                            agent: row.optional_parse(3)?,
                            space: row.optional_parse(4)?,
                            expires_at: row.optional_time(5)?,
                        };
                        let (created_at, last_used_at) = (row.time(6)?, row.optional_time(7)?);
                        Ok(KeyRow { id: row.parse(0)?, terms, created_at, last_used_at })
                    },
                )
            })
            .await
    }

    /// Revokes a key; it dies at once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user has no such key.
    pub async fn key_revoke(&self, permit: Permit<RevokeKey>, id: KeyId) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let gone = id.to_string();
        self.write(permit.tenant(), move |tx| {
            let deleted =
                tx.exec("DELETE FROM api_key WHERE account = ?1 AND id = ?2 AND holder = ?3", args![&id, &user])?;
            if deleted == 0 {
                return Err(StoreError::not_found("key", &id));
            }
            draft.detail.insert("key".to_owned(), json!(id));
            log::append(tx, draft).map(drop)
        })
        .await?;
        self.key_unlocate(vec![gone]).await
    }

    /// Notes that a key was used, unless that was noted in the last minute. Nobody waits for it.
    pub(crate) fn note_key_used(&self, incarnation: Incarnation, id: &KeyId, last: Option<Timestamp>) {
        let now = Timestamp::now();
        if last.is_some_and(|last| now.as_micros() - last.as_micros() < USE_NOTED_EVERY) {
            return;
        }
        let id = id.clone();
        if let Ok(database) = self.database_of(incarnation) {
            let note = move |tx: &mut Tx<'_>| {
                tx.exec(
                    "UPDATE api_key SET last_used_at = ?3 WHERE account = ?1 AND id = ?2 \
                     AND (last_used_at IS NULL OR last_used_at < ?3 - 60000000)",
                    args![&id, now],
                )
                .map(drop)
            };
            let failed = |error: StoreError| tracing::debug!(%error, "a key's last use was not noted");
            if let Err(error) = self.writers().write_later(&database, note, failed) {
                failed(error);
            }
        }
    }
}
