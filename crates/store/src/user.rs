//! Users of an account. The first is an admin; a last admin stays one; nobody deletes themselves.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{CreateUser, DeleteUser, ListUsers, ReadUser, SetRole, UnlockUser};
use bailiwick_auth::key::NewKey;
use bailiwick_auth::password::StoredPassword;
use bailiwick_types::{AccountName, Role, SpaceId, Timestamp, UserName};
use serde_json::{Map, json};

use crate::engine::Tx;
use crate::error::StoreError;
use crate::job::{self, GoesWith};
use crate::key::{self, KeyTerms};
use crate::sql::{Row, Sql, args};
use crate::store::Store;
use crate::{application, approval, device, log, passkey, password, space, usage};

/// A user.
#[derive(Debug, Clone)]
pub struct UserRow {
    /// The name.
    pub name: UserName,
    /// The role.
    pub role: Role,
    /// When made.
    pub created_at: Timestamp,
    /// How many keys.
    pub keys: u64,
}

/// Inserts a user and their personal space.
pub(crate) fn insert(tx: &mut Tx<'_>, name: &UserName, role: Role) -> Result<(), StoreError> {
    let first_event = log::next_seq(tx)?;
    let inserted = tx.exec(
        "INSERT INTO account_user (account, name, role, created_at, first_event) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO NOTHING",
        args![name, role.as_str(), Timestamp::now(), first_event],
    )?;
    if inserted == 0 {
        return Err(StoreError::exists("user", name));
    }
    space::insert_personal(tx, name)
}

fn admins(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let count =
        tx.one("SELECT count(*) FROM account_user WHERE account = ?1 AND role = 'admin'", args![], |row| row.count(0))?;
    Ok(count.unwrap_or(0))
}

/// Where the user's own record begins; `None` if there is no such user.
pub(crate) fn first_event(sql: &Sql<'_>, name: &UserName) -> Result<Option<u64>, StoreError> {
    sql.one("SELECT first_event FROM account_user WHERE account = ?1 AND name = ?2", args![name], |row| row.count(0))
}

pub(crate) fn role(tx: &Tx<'_>, name: &UserName) -> Result<Role, StoreError> {
    tx.one("SELECT role FROM account_user WHERE account = ?1 AND name = ?2", args![name], |row| row.parse(0))?
        .ok_or_else(|| StoreError::not_found("user", name))
}

impl Store {
    /// Creates a user with a first key, and perhaps a password. The first user of an account becomes its admin.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is one of that name.
    pub async fn user_create(
        &self,
        permit: Permit<CreateUser>,
        name: UserName,
        wanted: Role,
        first_key: &NewKey,
        password: Option<StoredPassword>,
    ) -> Result<Role, StoreError> {
        let (id, hash) = (first_key.id.clone(), first_key.hash.clone());
        self.key_locate(id.as_str(), permit.tenant().incarnation()).await?;
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            let given = if admins(tx)? == 0 { Role::Admin } else { wanted };
            insert(tx, &name, given)?;
            key::insert(tx, &name, &id, &hash, &KeyTerms::named("first"))?;
            if let Some(password) = &password {
                password::put(tx, &name, password)?;
            }
            draft.resource = format!("user:{name}");
            draft.detail.insert("role".to_owned(), json!(given));
            draft.detail.insert("key".to_owned(), json!(id));
            log::append(tx, draft)?;
            Ok(given)
        })
        .await
    }

    /// Makes sure that a user is there, at the start of the server.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_bootstrap(&self, account: &AccountName, name: UserName, wanted: Role) -> Result<(), StoreError> {
        let tenant = self.tenant_of(account).await?.ok_or_else(|| StoreError::not_found("account", account))?;
        let draft = crate::account::startup("user.create", format!("user:{name}"));
        let made = self
            .write(&tenant, move |tx| {
                insert(tx, &name, wanted)?;
                log::append(tx, draft)
            })
            .await;
        match made {
            Err(StoreError::Exists { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// All users, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_list(&self, permit: Permit<ListUsers>) -> Result<Vec<UserRow>, StoreError> {
        self.database(permit.tenant())?
            .read(|sql| {
                sql.all(
                    "SELECT name, role, created_at, (SELECT count(*) FROM api_key k WHERE k.account = u.account \
                 AND k.holder = u.name) FROM account_user u WHERE account = ?1 ORDER BY created_at, name",
                    args![],
                    user_row,
                )
            })
            .await
    }

    /// One user.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn user_read(&self, permit: Permit<ReadUser>) -> Result<UserRow, StoreError> {
        let name = permit.resource().name();
        let row = self
            .database(permit.tenant())?
            .read(|sql| {
                sql.one(
                    "SELECT name, role, created_at, (SELECT count(*) FROM api_key k WHERE k.account = u.account \
                 AND k.holder = u.name) FROM account_user u WHERE account = ?1 AND name = ?2",
                    args![name],
                    user_row,
                )
            })
            .await?;
        row.ok_or_else(|| StoreError::not_found("user", name))
    }

    /// Changes a user's role; it holds from the next request on.
    ///
    /// # Errors
    /// `last_admin`, or [`StoreError::NotFound`].
    pub async fn user_role_set(&self, permit: Permit<SetRole>, wanted: Role) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            let before = role(tx, &name)?;
            if before == Role::Admin && wanted != Role::Admin && admins(tx)? == 1 {
                return Err(LAST_ADMIN);
            }
            tx.exec(
                "UPDATE account_user SET role = ?3 WHERE account = ?1 AND name = ?2",
                args![&name, wanted.as_str()],
            )?;
            draft.detail.insert("from".to_owned(), json!(before));
            draft.detail.insert("to".to_owned(), json!(wanted));
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Puts on record that a user may sign in again; the counts are forgotten after it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn user_unlock(&self, permit: Permit<UnlockUser>) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            role(tx, &name)?;
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Deletes a user: their keys, grants, spaces and files. What they did stays on record. Says which
    /// spaces went with them.
    ///
    /// # Errors
    /// `last_admin`, `self_deletion`, or [`StoreError::NotFound`].
    pub async fn user_delete(&self, permit: Permit<DeleteUser>) -> Result<Vec<SpaceId>, StoreError> {
        let name = permit.resource().name().clone();
        if permit.scope().user() == Some(&name) {
            return Err(StoreError::Conflict {
                code: "self_deletion",
                message: "nobody deletes themselves: ask another admin",
            });
        }
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let tenant = permit.tenant().clone();
        let (keys, spaces) = self
            .write(&tenant, move |tx| {
                if role(tx, &name)? == Role::Admin && admins(tx)? == 1 {
                    return Err(LAST_ADMIN);
                }
                let keys: Vec<String> =
                    tx.all("SELECT id FROM api_key WHERE account = ?1 AND holder = ?2", args![&name], |row| {
                        row.text(0)
                    })?;
                let devices = device::of_user(tx, &name)?;
                let passkeys = passkey::of_user(tx, &name)?;
                let applications = application::of_user(tx, &name)?;
                let spaces = space::owned_by(tx, &name)?;
                for id in &spaces {
                    job::go_with(tx, GoesWith::Space(*id))?;
                    tx.exec("DELETE FROM space WHERE account = ?1 AND id = ?2", args![*id])?;
                }
                tx.exec("DELETE FROM session WHERE account = ?1 AND initiator = ?2", args![&name])?;
                job::go_with(tx, GoesWith::User(&name))?;
                tx.exec("DELETE FROM job WHERE account = ?1 AND initiator = ?2", args![&name])?;
                approval::forget_approver(tx, &name)?;
                crate::notification::forget_owner(tx, &name)?;
                usage::forget_user(tx, &name)?;
                tx.exec("DELETE FROM account_user WHERE account = ?1 AND name = ?2", args![&name])?;
                draft.detail.insert("keys".to_owned(), json!(keys.len()));
                draft.detail.insert("spaces".to_owned(), json!(spaces.len()));
                draft.detail.insert("devices".to_owned(), json!(devices.len()));
                draft.detail.insert("applications".to_owned(), json!(applications.len()));
                log::append(tx, draft)?;
                Ok(([keys, devices, passkeys, applications].concat(), spaces))
            })
            .await?;
        self.key_unlocate(keys).await?;
        for id in &spaces {
            self.remove_space_files(&tenant, *id).await;
        }
        self.forget_past(&tenant).await;
        Ok(spaces)
    }
}

const LAST_ADMIN: StoreError = StoreError::Conflict {
    code: "last_admin",
    message: "this is the account's last admin: make another user admin first",
};

fn user_row(row: &Row<'_>) -> Result<UserRow, StoreError> {
    Ok(UserRow { name: row.parse(0)?, role: row.parse(1)?, created_at: row.time(2)?, keys: row.count(3)? })
}
