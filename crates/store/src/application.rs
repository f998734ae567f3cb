//! Applications: what a user lets a client of the authorization server do for them, and its credentials.
//!
//! What is exchanged is judged in the transaction that spends it. A code or a refresh token that comes twice
//! was stolen, or its answer was: the application ends with all that it was given (RFC 9700, sections 2.1.1
//! and 4.14.2), and that is on record in the same transaction.

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{AllowApplication, ListApplications, RevokeApplication};
use bailiwick_auth::authn::application::{ApplicationRecord, TokenRecord};
use bailiwick_auth::key::{KeyHash, Kind};
use bailiwick_types::{AgentName, ApplicationId, ClientIdentifier, KeyScope, SpaceId, Timestamp, UserName};
use serde_json::{Map, json};

use crate::device::still_shown;
use crate::engine::Tx;
use crate::error::StoreError;
use crate::key::{bounds_are_there, scopes_parse, scopes_text};
use crate::log;
use crate::sql::args;
use crate::store::Store;

mod exchange;

pub use exchange::{Exchanged, NewTokens, Proof, Shown, Why};

/// Applications of one user; the one that was used longest ago makes room.
const MOST: usize = 100;
/// What an application may do.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The client.
    pub client: ClientIdentifier,
    /// The client's name at the time of the consent, for people.
    pub name: String,
    /// For what.
    pub scopes: Vec<KeyScope>,
    /// With which agent alone.
    pub agent: Option<AgentName>,
    /// In which space alone.
    pub space: Option<SpaceId>,
    /// Beneath which path of this server alone; empty for all of it.
    pub resource: String,
}

/// A consent: what it allows, and to what its code is bound.
pub struct NewApplication {
    /// What it allows.
    pub terms: Terms,
    /// Its id, and the hash of its code.
    pub code: (ApplicationId, KeyHash),
    /// Until when the code is good.
    pub code_ends: Timestamp,
    /// Where the code is sent.
    pub redirect_uri: String,
    /// What the verifier must come to (RFC 7636, S256).
    pub challenge: String,
}

/// An application, without anything that could prove it.
#[derive(Debug, Clone)]
pub struct ApplicationRow {
    /// Which.
    pub id: ApplicationId,
    /// What it may do.
    pub terms: Terms,
    /// When its user let it in.
    pub created_at: Timestamp,
    /// When it last got a token.
    pub last_used_at: Option<Timestamp>,
}

/// The ids of a user's applications.
pub(crate) fn of_user(tx: &Tx<'_>, user: &UserName) -> Result<Vec<String>, StoreError> {
    tx.all(
        "SELECT id FROM application WHERE account = ?1 AND holder = ?2 ORDER BY coalesce(last_used_at, created_at), id",
        args![user],
        |row| row.text(0),
    )
}

/// Ends all of a user's applications, and says which they were.
pub(crate) fn end_all(tx: &mut Tx<'_>, user: &UserName) -> Result<Vec<String>, StoreError> {
    let ended = of_user(tx, user)?;
    tx.exec("DELETE FROM application WHERE account = ?1 AND holder = ?2", args![user])?;
    Ok(ended)
}

fn end(tx: &mut Tx<'_>, id: &str) -> Result<(), StoreError> {
    tx.exec("DELETE FROM application WHERE account = ?1 AND id = ?2", args![id]).map(drop)
}

impl Store {
    /// Lets an application act for a user, once its code is exchanged.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the client, the agent or the space is not there; `sign_in_changed` if the
    /// login or key that asks has ended meanwhile.
    pub async fn application_allow(
        &self,
        permit: Permit<AllowApplication>,
        new: NewApplication,
    ) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        if !self.client_there(&new.terms.client).await? {
            return Err(StoreError::not_found("client", &new.terms.client));
        }
        let id = new.code.0.to_string();
        self.key_locate(&id, permit.tenant().incarnation()).await?;
        let unmade = id.clone();
        let detail = Map::from_iter([
            ("application".to_owned(), json!(id)),
            ("client".to_owned(), json!(new.terms.client)),
            ("name".to_owned(), json!(new.terms.name)),
            ("scopes".to_owned(), json!(new.terms.scopes)),
            ("agent".to_owned(), json!(new.terms.agent)),
            ("space".to_owned(), json!(new.terms.space)),
            ("resource".to_owned(), json!(new.terms.resource)),
            ("redirect_uri".to_owned(), json!(new.redirect_uri)),
        ]);
        let draft = permit.draft(Phase::Act, Verdict::Ok, detail);
        let shown = permit.scope().credential().clone();
        let allowed = self.write(permit.tenant(), move |tx| {
            still_shown(tx, &shown)?;
            allow(tx, &user, &new, draft)
        });
        let made = allowed.await;
        match made {
            Ok(gone) => self.key_unlocate(gone).await,
            // It may be there.
            Err(StoreError::InDoubt) => Err(StoreError::InDoubt),
            Err(error) => {
                self.key_unlocate(vec![unmade]).await?;
                Err(error)
            }
        }
    }

    /// The applications that may act for a user, the one used last first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn application_list(&self, permit: Permit<ListApplications>) -> Result<Vec<ApplicationRow>, StoreError> {
        self.database(permit.tenant())?
            .read(|sql| {
                sql.all(
                    "SELECT id, client, name, scopes, agent, space, resource, created_at, last_used_at \
                     FROM application a WHERE account = ?1 AND holder = ?2 AND last_used_at IS NOT NULL AND EXISTS ( \
                     SELECT 1 FROM application_token t WHERE t.account = a.account AND t.application = a.id \
                     AND t.used_at IS NULL AND t.expires_at > ?3) ORDER BY last_used_at DESC, id",
                    args![permit.resource().name(), Timestamp::now()],
                    |row| {
                        let terms = Terms {
                            client: row.parse(1)?,
                            name: row.text(2)?,
                            scopes: scopes_parse(&row.text(3)?)?,
                            agent: row.optional_parse(4)?,
                            space: row.optional_parse(5)?,
                            resource: row.text(6)?,
                        };
                        let (created_at, last_used_at) = (row.time(7)?, row.optional_time(8)?);
                        Ok(ApplicationRow { id: row.parse(0)?, terms, created_at, last_used_at })
                    },
                )
            })
            .await
    }

    /// Ends an application; its tokens die at once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user has no such application.
    pub async fn application_revoke(
        &self,
        permit: Permit<RevokeApplication>,
        id: ApplicationId,
    ) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let gone = id.to_string();
        self.write(permit.tenant(), move |tx| {
            let ended =
                tx.exec("DELETE FROM application WHERE account = ?1 AND id = ?2 AND holder = ?3", args![&id, &user])?;
            if ended == 0 {
                return Err(StoreError::not_found("application", &id));
            }
            draft.detail.insert("application".to_owned(), json!(id));
            log::append(tx, draft).map(drop)
        })
        .await?;
        self.key_unlocate(vec![gone]).await
    }

    pub(crate) async fn application_record(&self, id: &ApplicationId) -> Result<Option<ApplicationRecord>, StoreError> {
        let Some(tenant) = self.located(id.as_str()).await? else { return Ok(None) };
        self.database(&tenant)?
            .read(|sql| {
                sql.one(
                    "SELECT a.holder, u.role, a.scopes, a.space, a.agent, a.resource FROM application a \
                     JOIN account_user u ON u.account = a.account AND u.name = a.holder \
                     WHERE a.account = ?1 AND a.id = ?2",
                    args![id],
                    |row| {
                        Ok(ApplicationRecord {
                            tenant: tenant.clone(),
                            user: row.parse(0)?,
                            role: row.parse(1)?,
                            scopes: scopes_parse(&row.text(2)?)?,
                            space: row.optional_parse(3)?,
                            agent: row.optional_parse(4)?,
                            resource: row.text(5)?,
                        })
                    },
                )
            })
            .await
    }

    pub(crate) async fn application_token_record(
        &self,
        id: &ApplicationId,
        kind: Kind,
        hash: &KeyHash,
    ) -> Result<Option<TokenRecord>, StoreError> {
        let Some(tenant) = self.located(id.as_str()).await? else { return Ok(None) };
        self.database(&tenant)?
            .read(|sql| {
                sql.one(
                    "SELECT a.holder, u.role, t.scopes, a.space, a.agent, a.resource, t.expires_at \
                     FROM application_token t JOIN application a ON a.account = t.account AND a.id = t.application \
                     JOIN account_user u ON u.account = a.account AND u.name = a.holder \
                     WHERE t.account = ?1 AND t.application = ?2 AND t.hash = ?3 AND t.kind = ?4",
                    args![id, hash.as_bytes(), kind.as_str()],
                    |row| {
                        let application = ApplicationRecord {
                            tenant: tenant.clone(),
                            user: row.parse(0)?,
                            role: row.parse(1)?,
                            scopes: scopes_parse(&row.text(2)?)?,
                            space: row.optional_parse(3)?,
                            agent: row.optional_parse(4)?,
                            resource: row.text(5)?,
                        };
                        Ok(TokenRecord { application, expires_at: row.time(6)? })
                    },
                )
            })
            .await
    }
}

/// Makes the rows of a consent, and says which applications made room for it.
fn allow(tx: &mut Tx<'_>, user: &UserName, new: &NewApplication, draft: Draft) -> Result<Vec<String>, StoreError> {
    let NewApplication { terms, code: (id, hash), code_ends, redirect_uri, challenge } = new;
    bounds_are_there(tx, user, terms.agent.as_ref(), terms.space)?;
    let now = Timestamp::now();
    // What can get no token any more is nobody's application.
    let mut gone: Vec<String> = tx.all(
        "SELECT id FROM application a WHERE account = ?1 AND holder = ?2 AND NOT EXISTS ( \
         SELECT 1 FROM application_token t WHERE t.account = a.account AND t.application = a.id \
         AND t.used_at IS NULL AND t.expires_at > ?3)",
        args![user, now],
        |row| row.text(0),
    )?;
    let mut left = of_user(tx, user)?;
    left.retain(|id| !gone.contains(id));
    left.truncate((left.len() + 1).saturating_sub(MOST));
    gone.extend(left);
    for old in &gone {
        end(tx, old)?;
    }
    tx.exec(
        "INSERT INTO application (account, id, holder, client, name, scopes, agent, space, resource, redirect_uri, \
         challenge, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        args![
            id,
            user,
            &terms.client,
            &terms.name,
            scopes_text(&terms.scopes),
            terms.agent.as_ref(),
            terms.space,
            &terms.resource,
            redirect_uri,
            challenge,
            now,
        ],
    )?;
    insert(tx, id, (Kind::Code, hash, *code_ends), &terms.scopes)?;
    log::append(tx, draft)?;
    Ok(gone)
}

fn insert(
    tx: &mut Tx<'_>,
    id: &ApplicationId,
    (kind, hash, ends): (Kind, &KeyHash, Timestamp),
    scopes: &[KeyScope],
) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO application_token (account, application, hash, kind, scopes, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        args![id, hash.as_bytes(), kind.as_str(), scopes_text(scopes), Timestamp::now(), ends],
    )
    .map(drop)
}
