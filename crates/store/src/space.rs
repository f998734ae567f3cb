//! Spaces: isolated places of work, private to their owner until granted.

use std::collections::HashMap;
use std::path::PathBuf;

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::Space;
use bailiwick_auth::access::verb::{
    CreateSpace, DeleteSpace, GrantSpace, ListSpaces, ReadSpace, SeeSpace, UpdateSpace, WriteSpace,
};
use bailiwick_auth::{Permit, Scope, Tenant, for_store};
use bailiwick_files::{Access, Owner, Workspace, remove_tree};
use bailiwick_types::{GrantLevel, SpaceId, Timestamp, UserName};
use serde_json::{Map, Value, json};

use crate::engine::Tx;
use crate::error::StoreError;
use crate::job::{self, GoesWith};
use crate::log;
use crate::sql::{Row, Sql, args};
use crate::store::Store;

/// A space's row.
#[derive(Debug, Clone)]
pub struct SpaceRow {
    /// Its id.
    pub id: SpaceId,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Who owns it.
    pub owner: UserName,
    /// Whether it is its owner's personal space.
    pub personal: Personal,
    /// When made.
    pub created_at: Timestamp,
    /// When last changed.
    pub updated_at: Timestamp,
}

/// Whether a space is its owner's personal one, which is there from the start and stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personal {
    /// It is.
    Yes,
    /// It is not.
    No,
}

const ROW: &str = "SELECT id, name, description, owner, personal, created_at, updated_at FROM space \
     WHERE account = ?1 AND id = ?2";

/// The spaces that a user owns or was granted; for an admin, all.
const LIST: &str = "SELECT id, name, description, owner, personal, created_at, updated_at FROM space s \
     WHERE account = ?1 AND (?3 = 'admin' OR owner = ?2 OR EXISTS (SELECT 1 FROM space_grant g \
     WHERE g.account = s.account AND g.space = s.id AND g.grantee = ?2)) ORDER BY created_at, id";
/// All grants of these spaces.
const LIST_GRANTS: &str = "SELECT a.space, a.grantee, a.level FROM space_grant a \
     JOIN space s ON s.account = a.account AND s.id = a.space \
     WHERE a.account = ?1 AND (?3 = 'admin' OR s.owner = ?2 OR EXISTS (SELECT 1 FROM space_grant g \
     WHERE g.account = s.account AND g.space = s.id AND g.grantee = ?2)) ORDER BY a.space, a.grantee";

fn space_row(row: &Row<'_>) -> Result<SpaceRow, StoreError> {
    Ok(SpaceRow {
        id: row.parse(0)?,
        name: row.text(1)?,
        description: row.text(2)?,
        owner: row.parse(3)?,
        personal: if row.int(4)? == 0 { Personal::No } else { Personal::Yes },
        created_at: row.time(5)?,
        updated_at: row.time(6)?,
    })
}

pub(crate) fn insert_personal(tx: &mut Tx<'_>, owner: &UserName) -> Result<(), StoreError> {
    insert(tx, SpaceId::new(), "Personal", "", owner, Personal::Yes)
}

fn insert(
    tx: &mut Tx<'_>,
    id: SpaceId,
    name: &str,
    description: &str,
    owner: &UserName,
    personal: Personal,
) -> Result<(), StoreError> {
    let now = Timestamp::now();
    tx.exec(
        "INSERT INTO space (account, id, name, description, owner, personal, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        args![id, name, description, owner, i64::from(personal == Personal::Yes), now],
    )?;
    Ok(())
}

pub(crate) fn owned_by(sql: &Sql<'_>, owner: &UserName) -> Result<Vec<SpaceId>, StoreError> {
    sql.all("SELECT id FROM space WHERE account = ?1 AND owner = ?2", args![owner], |row| row.parse(0))
}

/// A space as the policy sees it.
pub(crate) fn facts(sql: &Sql<'_>, tenant: &Tenant, id: SpaceId) -> Result<Option<Space>, StoreError> {
    let owner: Option<UserName> =
        sql.one("SELECT owner FROM space WHERE account = ?1 AND id = ?2", args![id], |row| row.parse(0))?;
    let Some(owner) = owner else { return Ok(None) };
    Ok(Some(for_store::space(tenant, id, owner, grants(sql, id)?)))
}

/// A permit may outlive its space: what is gone is not written to, and no event says that it was.
pub(crate) fn must_be_there(sql: &Sql<'_>, id: SpaceId) -> Result<(), StoreError> {
    sql.one("SELECT 1 FROM space WHERE account = ?1 AND id = ?2", args![id], |_| Ok(()))?
        .ok_or_else(|| StoreError::not_found("space", id))
}

fn grants(sql: &Sql<'_>, id: SpaceId) -> Result<Vec<(UserName, GrantLevel)>, StoreError> {
    sql.all(
        "SELECT grantee, level FROM space_grant WHERE account = ?1 AND space = ?2 ORDER BY grantee",
        args![id],
        |row| Ok((row.parse(0)?, row.parse(1)?)),
    )
}

impl Store {
    /// Finds a space of the scope's tenant, as the policy sees it. `None` if there is none of that id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn space_find(&self, scope: &Scope, id: SpaceId) -> Result<Option<Space>, StoreError> {
        self.database(scope.tenant())?.read_for(scope, |sql| facts(sql, scope.tenant(), id)).await
    }

    /// The caller's personal space.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the caller is no user, or has none.
    pub async fn space_personal(&self, scope: &Scope) -> Result<Space, StoreError> {
        let user = scope.user().ok_or_else(|| StoreError::not_found("space", "personal"))?;
        self.database(scope.tenant())?
            .read_for(scope, |sql| {
                let id: SpaceId = sql
                    .one(
                        "SELECT id FROM space WHERE account = ?1 AND owner = ?2 AND personal = 1",
                        args![user],
                        |row| row.parse(0),
                    )?
                    .ok_or_else(|| StoreError::not_found("space", "personal"))?;
                facts(sql, scope.tenant(), id)?.ok_or_else(|| StoreError::not_found("space", id))
            })
            .await
    }

    /// The spaces that the caller owns or was granted; for admins, that others exist.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn space_list(&self, permit: Permit<ListSpaces>) -> Result<Vec<SpaceRow>, StoreError> {
        let scope = permit.scope();
        let Some(user) = scope.user() else { return Ok(Vec::new()) };
        self.database(permit.tenant())?
            .read_for(scope, |sql| {
                let role = scope.role().map(bailiwick_types::Role::as_str);
                let mut rows = sql.all(LIST, args![user, role], space_row)?;
                let mut grants: HashMap<SpaceId, Vec<(UserName, GrantLevel)>> = HashMap::new();
                sql.all(LIST_GRANTS, args![user, role], |row| {
                    grants.entry(row.parse(0)?).or_default().push((row.parse(1)?, row.parse(2)?));
                    Ok(())
                })?;
                // The statement narrows, the policy decides.
                rows.retain(|row| {
                    let grants = grants.remove(&row.id).unwrap_or_default();
                    scope.may::<SeeSpace>(&for_store::space(scope.tenant(), row.id, row.owner.clone(), grants))
                });
                Ok(rows)
            })
            .await
    }

    /// One space.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn space_see(&self, permit: Permit<SeeSpace>) -> Result<SpaceRow, StoreError> {
        let id = permit.resource().id();
        self.database(permit.tenant())?
            .read_for(permit.scope(), |sql| sql.one(ROW, args![id], space_row))
            .await?
            .ok_or_else(|| StoreError::not_found("space", id))
    }

    /// Creates a space. The owner is the caller.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn space_create(
        &self,
        permit: Permit<CreateSpace>,
        name: String,
        description: String,
    ) -> Result<SpaceRow, StoreError> {
        let Some(owner) = permit.scope().user().cloned() else {
            return Err(StoreError::Conflict { code: "no_user", message: "only a user can own a space" });
        };
        let id = SpaceId::new();
        let detail = Map::from_iter([("name".to_owned(), json!(name))]);
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, detail);
        draft.resource = format!("space:{id}");
        draft.space = Some(id);
        self.write(permit.tenant(), move |tx| {
            insert(tx, id, &name, &description, &owner, Personal::No)?;
            log::append(tx, draft)?;
            tx.one(ROW, args![id], space_row)?.ok_or_else(|| StoreError::not_found("space", id))
        })
        .await
    }

    /// Renames or describes a space.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn space_update(
        &self,
        permit: Permit<UpdateSpace>,
        name: Option<String>,
        description: Option<String>,
    ) -> Result<SpaceRow, StoreError> {
        let id = permit.resource().id();
        let draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            tx.exec(
                "UPDATE space SET name = coalesce(?3, name), description = coalesce(?4, description), \
                 updated_at = ?5 WHERE account = ?1 AND id = ?2",
                args![id, name.as_ref(), description.as_ref(), Timestamp::now()],
            )?;
            log::append(tx, draft)?;
            tx.one(ROW, args![id], space_row)?.ok_or_else(|| StoreError::not_found("space", id))
        })
        .await
    }

    /// Deletes a space with its files and sessions. A personal space stays.
    ///
    /// # Errors
    /// `personal_space`.
    pub async fn space_delete(&self, permit: Permit<DeleteSpace>) -> Result<(), StoreError> {
        let id = permit.resource().id();
        let draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let tenant = permit.tenant().clone();
        self.write(&tenant, move |tx| {
            let row = tx.one(ROW, args![id], space_row)?.ok_or_else(|| StoreError::not_found("space", id))?;
            if row.personal == Personal::Yes {
                return Err(StoreError::Conflict {
                    code: "personal_space",
                    message: "a personal space goes only with its user",
                });
            }
            job::go_with(tx, GoesWith::Space(id))?;
            tx.exec("DELETE FROM space WHERE account = ?1 AND id = ?2", args![id])?;
            log::append(tx, draft).map(drop)
        })
        .await?;
        self.remove_space_files(&tenant, id).await;
        self.forget_past(&tenant).await;
        Ok(())
    }

    /// Who has which grant.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn grant_list(&self, permit: Permit<SeeSpace>) -> Result<Vec<(UserName, GrantLevel)>, StoreError> {
        self.database(permit.tenant())?.read_for(permit.scope(), |sql| grants(sql, permit.resource().id())).await
    }

    /// Gives, changes or (with `None`) takes a grant.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such user.
    pub async fn grant_set(
        &self,
        permit: Permit<GrantSpace>,
        user: UserName,
        level: Option<GrantLevel>,
    ) -> Result<(), StoreError> {
        let id = permit.resource().id();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        draft.detail.insert("user".to_owned(), json!(user));
        draft.detail.insert("level".to_owned(), json!(level));
        self.write(permit.tenant(), move |tx| {
            must_be_there(tx, id)?;
            match level {
                None => {
                    tx.exec(
                        "DELETE FROM space_grant WHERE account = ?1 AND space = ?2 AND grantee = ?3",
                        args![id, &user],
                    )?;
                }
                Some(level) => {
                    tx.one("SELECT 1 FROM account_user WHERE account = ?1 AND name = ?2", args![&user], |_| Ok(()))?
                        .ok_or_else(|| StoreError::not_found("user", &user))?;
                    tx.exec(
                        "INSERT INTO space_grant (account, space, grantee, level) VALUES (?1, ?2, ?3, ?4) \
                         ON CONFLICT (account, space, grantee) DO UPDATE SET level = excluded.level",
                        args![id, &user, level.as_str()],
                    )?;
                }
            }
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// The space's plan.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn plan_read(&self, permit: &Permit<ReadSpace>) -> Result<Value, StoreError> {
        let id = permit.resource().id();
        self.database(permit.tenant())?
            .read_for(permit.scope(), |sql| {
                sql.one("SELECT plan FROM space WHERE account = ?1 AND id = ?2", args![id], |row| row.json(0))
            })
            .await?
            .ok_or_else(|| StoreError::not_found("space", id))
    }

    /// Sets the space's plan.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn plan_write(&self, permit: Permit<WriteSpace>, plan: Value) -> Result<(), StoreError> {
        let id = permit.resource().id();
        let items = plan.as_array().map_or(0, Vec::len);
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::from_iter([("items".to_owned(), json!(items))]));
        draft.action = "plan.write".to_owned();
        self.write(permit.tenant(), move |tx| {
            must_be_there(tx, id)?;
            tx.exec(
                "UPDATE space SET plan = ?3, updated_at = ?4 WHERE account = ?1 AND id = ?2",
                args![id, plan.to_string(), Timestamp::now()],
            )?;
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// The space's files, to read.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub async fn space_files(&self, permit: &Permit<ReadSpace>) -> Result<Workspace, StoreError> {
        self.workspace(permit.resource(), permit.tenant(), Access::ReadOnly).await
    }

    /// The space's files, to read and write.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub async fn space_files_to_write(&self, permit: &Permit<WriteSpace>) -> Result<Workspace, StoreError> {
        self.workspace(permit.resource(), permit.tenant(), Access::ReadWrite).await
    }

    /// Where a space's files lie. For the sandbox, which binds the folder; never shown to anybody.
    pub(crate) fn space_dir(&self, tenant: &Tenant, id: SpaceId) -> PathBuf {
        self.account_dir(tenant.incarnation()).join("spaces").join(id.to_string())
    }

    pub(crate) async fn workspace(
        &self,
        space: &Space,
        tenant: &Tenant,
        access: Access,
    ) -> Result<Workspace, StoreError> {
        let dir = self.space_dir(tenant, space.id());
        self.database(tenant)?.read(|sql| must_be_there(sql, space.id())).await?;
        self.prepare_dir(&dir, tenant)?;
        Ok(Workspace::open(&dir, access, self.file_owner(tenant))?)
    }

    /// Makes a folder for files that a sandbox may own.
    pub(crate) fn prepare_dir(&self, dir: &std::path::Path, tenant: &Tenant) -> Result<(), StoreError> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        if !dir.exists() {
            // Whoever still holds a permit of a deleted account gets no new folder in it.
            if self.is_deleted(tenant.incarnation()) {
                return Err(StoreError::not_found("account", "of this request"));
            }
            if let Some(above) = dir.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o711).create(above)?;
            }
            // For the account's own user alone.
            match std::fs::DirBuilder::new().mode(0o700).create(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        // Looked at each time: a crash may have come between the making and the giving away.
        if let Some(owner) = self.file_owner(tenant)
            && std::fs::metadata(dir)?.uid() != owner.uid
        {
            std::os::unix::fs::chown(dir, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(())
    }

    /// As root, an account's files belong to the account's own unprivileged user; else to the server's.
    pub(crate) fn file_owner(&self, tenant: &Tenant) -> Option<Owner> {
        rustix::process::geteuid().is_root().then(|| Owner { uid: tenant.jail_user(), gid: tenant.jail_user() })
    }

    /// After a deletion: what was deleted leaves the write-ahead log as well. If readers are in the way it
    /// goes with a later one.
    pub(crate) async fn forget_past(&self, tenant: &Tenant) {
        let Ok(database) = self.database(tenant) else { return };
        let forgotten = tokio::task::spawn_blocking(move || database.forget_past()).await;
        if let Ok(Err(error)) = forgotten {
            tracing::debug!(%error, "the write-ahead log was not shortened after a deletion");
        }
    }

    pub(crate) async fn remove_space_files(&self, tenant: &Tenant, id: SpaceId) {
        let (dir, kept) = (self.space_dir(tenant, id), self.snapshots_dir(tenant, id));
        self.forget_snapshots(id);
        let removed = tokio::task::spawn_blocking(move || remove_tree(&dir).and(remove_tree(&kept))).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "files of a deleted space could not be removed");
        }
        self.storage_shrank(tenant);
    }
}
