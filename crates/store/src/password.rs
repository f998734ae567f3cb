//! Passwords: hashes at rest, apart from the users. No read gives one out but authentication's.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{ResetPassword, SetPassword};
use bailiwick_auth::password::StoredPassword;
use bailiwick_types::{AccountName, Role, Timestamp, UserName};
use serde_json::{Map, json};

use crate::device::{self, Which};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::sql::{Sql, args};
use crate::store::Store;
use crate::{application, log, user};

/// Puts a user's password in place of the one before.
pub(crate) fn put(tx: &mut Tx<'_>, user: &UserName, password: &StoredPassword) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO account_password (account, holder, hash, changed_at) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (account, holder) DO UPDATE SET hash = excluded.hash, changed_at = excluded.changed_at",
        args![user, password.as_text(), Timestamp::now()],
    )?;
    Ok(())
}

/// Whether some admin of the account can sign in: by a password, a passkey or a key.
fn has_admin(sql: &Sql<'_>) -> Result<bool, StoreError> {
    let found = sql.one(
        "SELECT 1 FROM account_user u WHERE u.account = ?1 AND u.role = 'admin' AND ( \
         EXISTS (SELECT 1 FROM account_password p WHERE p.account = u.account AND p.holder = u.name) \
         OR EXISTS (SELECT 1 FROM passkey k WHERE k.account = u.account AND k.holder = u.name) \
         OR EXISTS (SELECT 1 FROM api_key k WHERE k.account = u.account AND k.holder = u.name))",
        args![],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// By which of the two ways of the first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBoot {
    /// The page or route of the set-up.
    Page,
    /// Variables of the environment.
    Environment,
}

impl Store {
    /// Sets a user's own password and ends their other logins, all but `kept`. `fitted`: the present one,
    /// that they showed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user is not there; `sign_in_changed` if somebody else set another
    /// password meanwhile.
    pub async fn password_set(
        &self,
        permit: Permit<SetPassword>,
        (fitted, password): (StoredPassword, StoredPassword),
        kept: Which,
    ) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let ended = self
            .write(permit.tenant(), move |tx| {
                device::still_fits(tx, &user, &fitted)?;
                replace(tx, user, password, kept, draft)
            })
            .await?;
        self.key_unlocate(ended).await
    }

    /// Gives another user a password, and ends all of their logins.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user is not there.
    pub async fn password_reset(
        &self,
        permit: Permit<ResetPassword>,
        password: StoredPassword,
    ) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let ended = self.write(permit.tenant(), move |tx| replace(tx, user, password, Which::All, draft)).await?;
        self.key_unlocate(ended).await
    }

    /// Whether the first account still waits for its first admin.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn first_admin_missing(&self) -> Result<bool, StoreError> {
        let Some(tenant) = self.tenant_of(&AccountName::first()).await? else { return Ok(true) };
        self.database(&tenant)?.read(has_admin).await.map(|there| !there)
    }

    /// Whether the set-up is open to whoever comes: the first account waits for its first admin, and the
    /// operator has made no other account. Where there are tenants, a neighbour on the machine is to become none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn set_up_open(&self) -> Result<bool, StoreError> {
        let first = AccountName::first();
        let other = self
            .host()
            .read(move |sql| {
                sql.one("SELECT 1 FROM account WHERE ?1 = 'host' AND name <> ?2 LIMIT 1", args![&first], |_| Ok(()))
            })
            .await?;
        if other.is_some() { Ok(false) } else { self.first_admin_missing().await }
    }

    /// Makes the first admin of the first account, if there is none that can sign in.
    ///
    /// # Errors
    /// `set_up_already`; [`StoreError::Exists`] if the name is that of somebody who is no admin.
    pub async fn first_admin_create(
        &self,
        name: UserName,
        password: StoredPassword,
        by: FirstBoot,
        address: String,
    ) -> Result<(), StoreError> {
        let first = AccountName::first();
        let tenant = self.tenant_of(&first).await?.ok_or_else(|| StoreError::not_found("account", &first))?;
        let mut draft = crate::account::startup("user.create", format!("user:{name}"));
        draft.address = address;
        let by = match by {
            FirstBoot::Page => "setup",
            FirstBoot::Environment => "environment",
        };
        draft.detail = Map::from_iter([("role".to_owned(), json!(Role::Admin)), ("by".to_owned(), json!(by))]);
        self.write(&tenant, move |tx| {
            // Asked here, so that of two at once one is too late.
            if has_admin(tx)? {
                return Err(StoreError::Conflict {
                    code: "set_up_already",
                    message: "this server has an admin already: sign in, or ask them for an account",
                });
            }
            match user::insert(tx, &name, Role::Admin) {
                // The admin of dev mode is there from the start, with no way to sign in.
                Err(StoreError::Exists { .. }) if user::role(tx, &name)? == Role::Admin => {}
                other => other?,
            }
            put(tx, &name, &password)?;
            log::append(tx, draft).map(drop)
        })
        .await
    }
}

fn replace(
    tx: &mut Tx<'_>,
    user: UserName,
    password: StoredPassword,
    which: Which,
    mut draft: bailiwick_audit::Draft,
) -> Result<Vec<String>, StoreError> {
    user::role(tx, &user)?;
    put(tx, &user, &password)?;
    let ended = device::end(tx, &user, &which)?;
    // Whoever knew the old one may have let an application of theirs in.
    let applications = application::end_all(tx, &user)?;
    draft.detail.insert("logins_ended".to_owned(), json!(ended.len()));
    draft.detail.insert("applications_ended".to_owned(), json!(applications.len()));
    log::append(tx, draft)?;
    Ok([ended, applications].concat())
}
