//! Accounts: the tenants. The row in the host's file is what makes an account exist; its own directory
//! is made before that row, and emptied after it is gone.

use std::sync::Arc;

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{CreateAccount, DeleteAccount, ListAccounts, PutPolicy, ReadAccount, ReadPolicy};
use bailiwick_auth::access::{AccountPolicies, HostPermit, PolicyError};
use bailiwick_auth::key::NewKey;
use bailiwick_auth::{Permit, Tenant, for_store};
use bailiwick_files::{Access, Workspace, remove_tree};
use bailiwick_types::{AccountName, AgentDefinition, AgentName, Incarnation, Role, SpaceId, Timestamp, UserName};
use serde_json::{Map, json};

use crate::engine::Tx;
use crate::error::StoreError;
use crate::key::{self, KeyTerms};
use crate::log;
use crate::sql::{Sql, args};
use crate::store::Store;
use crate::{agent, user};

/// An account as the operator sees it: never what is in it.
#[derive(Debug, Clone)]
pub struct AccountRow {
    /// Its name.
    pub name: AccountName,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many users it has.
    pub users: u64,
}

/// What a new account begins with.
pub struct NewAccount<'a> {
    /// Its name.
    pub name: AccountName,
    /// Its first admin, with a first key. Borrowed, because the caller still has to show its text.
    pub admin: Option<(UserName, &'a NewKey)>,
    /// Its first agents.
    pub agents: Vec<(AgentName, AgentDefinition)>,
}

impl Store {
    /// Creates an account with its first admin.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is one of that name.
    pub async fn account_create(
        &self,
        permit: HostPermit<CreateAccount>,
        new: NewAccount<'_>,
    ) -> Result<(), StoreError> {
        let label = format!("account:{}", new.name);
        let detail = Map::from_iter([("admin".to_owned(), json!(new.admin.as_ref().map(|(name, _)| name)))]);
        let draft = permit.draft(label, Verdict::Ok, detail);
        self.account_make(draft, new).await.map(drop)
    }

    /// Creates the account that exists from the first start, if it is not there.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn account_bootstrap(&self, new: NewAccount<'_>) -> Result<(), StoreError> {
        if account_row(self, &new.name).await?.is_some() {
            return Ok(());
        }
        let draft = startup("account.create", format!("account:{}", new.name));
        match self.account_make(draft, new).await {
            Err(StoreError::Exists { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn account_make(&self, draft: Draft, new: NewAccount<'_>) -> Result<Incarnation, StoreError> {
        // Asked again, bindingly, by the insert below; here so that no directory is made for nothing.
        if account_row(self, &new.name).await?.is_some() {
            return Err(StoreError::exists("account", &new.name));
        }
        let incarnation = Incarnation::new();
        let jail_user = self.writers().write(self.host(), next_jail_user).await?;
        let database = self.create_database(incarnation)?;
        let locator = new.admin.as_ref().map(|(_, key)| key.id.clone());
        let (inside, agents, admin) =
            (draft.clone(), new.agents, new.admin.map(|(name, key)| (name, key.id.clone(), key.hash.clone())));
        self.writers()
            .write(&database, move |tx| {
                log::append(tx, inside)?;
                for (name, definition) in &agents {
                    agent::insert(tx, name, definition, "built-in")?;
                }
                if let Some((name, id, hash)) = &admin {
                    user::insert(tx, name, Role::Admin)?;
                    key::insert(tx, name, id, hash, &KeyTerms::named("first"))?;
                }
                Ok(())
            })
            .await?;
        let name = new.name.clone();
        let made = self
            .writers()
            .write(self.host(), move |tx| {
                let inserted = tx.exec(
                    "INSERT INTO account (name, incarnation, jail_user, created_at) SELECT ?2, ?3, ?4, ?5 \
                     WHERE ?1 = 'host' ON CONFLICT DO NOTHING",
                    args![&name, incarnation, jail_user, Timestamp::now()],
                )?;
                if inserted == 0 {
                    return Err(StoreError::exists("account", &name));
                }
                if let Some(id) = &locator {
                    key::locate(tx, id.as_str(), incarnation)?;
                }
                log::append(tx, draft)
            })
            .await;
        match made {
            Ok(_) => Ok(incarnation),
            // It may be there. If it is not, the next start finds its folder and clears it away.
            Err(StoreError::InDoubt) => Err(StoreError::InDoubt),
            Err(error) => {
                let emptied = self.writers().write(&database, |tx| empty(tx)).await;
                drop(database);
                if emptied.is_ok() {
                    self.remove_unmade(incarnation);
                }
                Err(error)
            }
        }
    }

    /// All accounts, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn account_list(&self, _permit: HostPermit<ListAccounts>) -> Result<Vec<AccountRow>, StoreError> {
        let rows = self
            .host()
            .read(|sql| {
                sql.all(
                    "SELECT name, incarnation, created_at FROM account WHERE ?1 = 'host' ORDER BY created_at, name",
                    args![],
                    |row| Ok((row.parse(0)?, row.parse::<Incarnation>(1)?, row.time(2)?)),
                )
            })
            .await?;
        let mut accounts = Vec::with_capacity(rows.len());
        for (name, incarnation, created_at) in rows {
            let count = |sql: &Sql<'_>| {
                sql.one("SELECT count(*) FROM account_user WHERE account = ?1", args![], |row| row.count(0))
            };
            let users = self.database_of(incarnation)?.read(count).await?.unwrap_or(0);
            accounts.push(AccountRow { name, created_at, users });
        }
        Ok(accounts)
    }

    /// One account.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was deleted meanwhile.
    pub async fn account_read(&self, permit: Permit<ReadAccount>) -> Result<AccountRow, StoreError> {
        let (tenant, name) = (permit.tenant(), permit.tenant().account());
        let incarnation = tenant.incarnation();
        let created_at = self
            .host()
            .read(|sql| {
                sql.one(
                    "SELECT created_at FROM account WHERE ?1 = 'host' AND incarnation = ?2",
                    args![incarnation],
                    |row| row.time(0),
                )
            })
            .await?;
        let created_at = created_at.ok_or_else(|| StoreError::not_found("account", name))?;
        let users = self
            .database(tenant)?
            .read(|sql| sql.one("SELECT count(*) FROM account_user WHERE account = ?1", args![], |row| row.count(0)))
            .await?;
        Ok(AccountRow { name: name.clone(), created_at, users: users.unwrap_or(0) })
    }

    /// Deletes an account: its keys die at once, its files and rows after; its log stays. Says which life
    /// of the account it was.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that name.
    pub async fn account_delete(
        &self,
        permit: HostPermit<DeleteAccount>,
        name: AccountName,
    ) -> Result<Incarnation, StoreError> {
        let draft = permit.draft(format!("account:{name}"), Verdict::Ok, Map::new());
        let (incarnation, inside) = self
            .writers()
            .write(self.host(), move |tx| {
                let incarnation = tx
                    .one("SELECT incarnation FROM account WHERE ?1 = 'host' AND name = ?2", args![&name], |row| {
                        row.parse::<Incarnation>(0)
                    })?
                    .ok_or_else(|| StoreError::not_found("account", &name))?;
                tx.exec("DELETE FROM account WHERE ?1 = 'host' AND name = ?2", args![&name])?;
                tx.exec("DELETE FROM key_locator WHERE ?1 = 'host' AND incarnation = ?2", args![incarnation])?;
                let inside = draft.clone();
                log::append(tx, draft)?;
                Ok((incarnation, inside))
            })
            .await?;
        self.mark_deleted(incarnation);
        let database = self.database_of(incarnation)?;
        let emptied = self
            .writers()
            .write(&database, move |tx| {
                log::append(tx, inside)?;
                empty(tx)
            })
            .await;
        drop(database);
        // If the rows are still there the folders stay, too: by them the next start sees what is left to do.
        emptied?;
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.remove_files(incarnation)).await.map_err(|_| StoreError::Closed)?;
        Ok(incarnation)
    }

    /// Empties what is left of accounts that no longer exist; at the start, and after a deletion. What
    /// cannot be removed now is tried again at the next start.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn purge_leftovers(&self) -> Result<(), StoreError> {
        // Only what was there before the server let anybody in: an account that is being made has its
        // folder before its row.
        for incarnation in self.found_at_open().iter().copied() {
            let dir = self.account_dir(incarnation);
            let known = self
                .host()
                .read(|sql| {
                    sql.one("SELECT 1 FROM account WHERE ?1 = 'host' AND incarnation = ?2", args![incarnation], |_| {
                        Ok(())
                    })
                })
                .await?;
            let empty_folder =
                if self.keeps_files() { !dir.join("account.db").exists() } else { !dir.join("spaces").exists() };
            if known.is_none() && empty_folder {
                // The server ended while it made the account. Nothing was in it, and what is to be done for
                // others must not fail at it.
                self.remove_unmade(incarnation);
            } else if known.is_none() && dir.join("spaces").exists() {
                // Rows first: the folder of the spaces is what tells that there is something left to do.
                self.writers().write(&self.database_of(incarnation)?, |tx| empty(tx)).await?;
                let store = self.clone();
                let removing = tokio::task::spawn_blocking(move || store.remove_files(incarnation));
                removing.await.map_err(|_| StoreError::Closed)?;
                if !self.keeps_files() {
                    // Its log is in the database. An empty folder is all that is left here.
                    let _ = std::fs::remove_dir(&dir);
                }
            } else if known.is_some() {
                self.purge_folders(incarnation, &dir).await?;
            }
        }
        Ok(())
    }

    /// Folders of spaces that are no more (a running sandbox may have written while its space was being
    /// deleted), and what sandboxes shared as `/tmp` before the restart.
    async fn purge_folders(&self, incarnation: Incarnation, dir: &std::path::Path) -> Result<(), StoreError> {
        let database = self.database_of(incarnation)?;
        for folder in [dir.join("spaces"), dir.join("snapshots"), dir.join("scratch")] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let gone = match name.to_str().map(|name| (name, name.parse::<SpaceId>())) {
                    Some((_, Ok(id))) => database
                        .read(|sql| {
                            sql.one("SELECT 1 FROM space WHERE account = ?1 AND id = ?2", args![id], |_| Ok(()))
                        })
                        .await?
                        .is_none(),
                    Some((name, Err(_))) => name.starts_with("tmp-"),
                    None => false,
                };
                let cleared = tokio::task::spawn_blocking(move || match gone {
                    true => remove_tree(&entry.path()),
                    false => {
                        // Half-written files of writers that a crash ended.
                        if let Ok(files) = Workspace::open(&entry.path(), Access::ReadWrite, None) {
                            let _ = files.remove_leftovers();
                        }
                        Ok(())
                    }
                });
                if let Ok(Err(error)) = cleared.await {
                    tracing::warn!(%error, "a leftover folder could not be removed");
                }
            }
        }
        Ok(())
    }

    /// Removes an account's files once its rows are gone, and what is left of the rows in the write-ahead log.
    fn remove_files(&self, incarnation: Incarnation) {
        let dir = self.account_dir(incarnation);
        let forgotten = self.database_of(incarnation).and_then(|database| database.forget_past());
        self.forget_database(incarnation);
        // In this order: while there is a folder of spaces, the next start tries again.
        for folder in ["scratch", "snapshots", "spaces"] {
            let folder = dir.join(folder);
            if let Err(error) = remove_tree(&folder) {
                tracing::warn!(%error, "files of a deleted account could not be removed; they are tried again at the next start");
                return;
            }
        }
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the write-ahead log of a deleted account was not shortened");
        }
    }

    /// Removes what was prepared for an account that then was not made. Nobody has heard of it.
    fn remove_unmade(&self, incarnation: Incarnation) {
        self.forget_database(incarnation);
        if let Err(error) = std::fs::remove_dir_all(self.account_dir(incarnation)) {
            tracing::warn!(%error, "the directory of an account that was not made could not be removed");
        }
    }

    /// The account's own policies, as written.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn policy_read(&self, permit: Permit<ReadPolicy>) -> Result<String, StoreError> {
        let incarnation = permit.tenant().incarnation();
        let text = self
            .host()
            .read(|sql| {
                sql.one(
                    "SELECT policy FROM account WHERE ?1 = 'host' AND incarnation = ?2",
                    args![incarnation],
                    |row| row.text(0),
                )
            })
            .await?;
        text.ok_or_else(|| StoreError::not_found("account", permit.tenant().account()))
    }

    /// Sets the account's own policies. They hold from the next request on.
    ///
    /// # Errors
    /// If the database fails. The text must have been checked by [`AccountPolicies::parse`].
    pub async fn policy_put(
        &self,
        permit: Permit<PutPolicy>,
        text: String,
    ) -> Result<Result<(), PolicyError>, StoreError> {
        if let Err(error) = AccountPolicies::parse(&text) {
            return Ok(Err(error));
        }
        let detail = Map::from_iter([("bytes".to_owned(), json!(text.len()))]);
        let draft = permit.draft(Phase::Act, Verdict::Ok, detail);
        let incarnation = permit.tenant().incarnation();
        // The account's log first: a policy that took hold unrecorded would be worse than one recorded that did not.
        self.write(permit.tenant(), move |tx| log::append(tx, draft)).await?;
        let account = permit.tenant().account().clone();
        self.writers()
            .write(self.host(), move |tx| {
                let set = tx.exec(
                    "UPDATE account SET policy = ?3, policy_version = policy_version + 1 \
                     WHERE ?1 = 'host' AND incarnation = ?2",
                    args![incarnation, &text],
                )?;
                if set == 0 { Err(StoreError::not_found("account", &account)) } else { Ok(()) }
            })
            .await?;
        Ok(Ok(()))
    }

    /// The tenant of an account's name, if there is one.
    pub(crate) async fn tenant_of(&self, name: &AccountName) -> Result<Option<Tenant>, StoreError> {
        account_row(self, name).await
    }
}

/// Removes everything but the log.
fn empty(sql: &Sql<'_>) -> Result<(), StoreError> {
    // Keys and grants go with their users, sessions and all that is in them with their spaces.
    for statement in [
        "DELETE FROM space WHERE account = ?1",
        "DELETE FROM account_user WHERE account = ?1",
        "DELETE FROM agent WHERE account = ?1",
        "DELETE FROM usage_day WHERE account = ?1",
        "DELETE FROM account_limits WHERE account = ?1",
        "DELETE FROM secret WHERE account = ?1",
        "DELETE FROM notification WHERE account = ?1",
        "DELETE FROM data_key WHERE account = ?1",
    ] {
        sql.exec(statement, args![])?;
    }
    Ok(())
}

async fn account_row(store: &Store, name: &AccountName) -> Result<Option<Tenant>, StoreError> {
    let row = store
        .host()
        .read(|sql| {
            sql.one(
                "SELECT name, incarnation, jail_user, policy FROM account WHERE ?1 = 'host' AND name = ?2",
                args![name],
                tenant_columns,
            )
        })
        .await?;
    row.map(tenant_of_columns).transpose()
}

impl Store {
    /// All accounts, to look for what a server left behind. One that cannot be read must not hold the others up.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) async fn all_tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        let all = self
            .host()
            .read(|sql| {
                sql.all(
                    "SELECT name, incarnation, jail_user, policy FROM account WHERE ?1 = 'host'",
                    args![],
                    tenant_columns,
                )
            })
            .await?;
        let tenant = |columns: TenantColumns| {
            let name = columns.0.clone();
            let tenant = tenant_of_columns(columns);
            tenant.inspect_err(|error| tracing::error!(account = %name, %error, "an account could not be read")).ok()
        };
        Ok(all.into_iter().filter_map(tenant).collect())
    }
}

pub(crate) type TenantColumns = (AccountName, Incarnation, u32, String);

pub(crate) fn tenant_columns(row: &crate::sql::Row<'_>) -> Result<TenantColumns, StoreError> {
    let jail_user = u32::try_from(row.int(2)?).map_err(|_| StoreError::Corrupt("a jail user"))?;
    Ok((row.parse(0)?, row.parse(1)?, jail_user, row.text(3)?))
}

pub(crate) fn tenant_of_columns((name, incarnation, jail_user, policy): TenantColumns) -> Result<Tenant, StoreError> {
    let policies = if policy.is_empty() { AccountPolicies::none() } else { parsed_policies(&policy)? };
    Ok(for_store::tenant(name, incarnation, jail_user, policies))
}

/// Parsed policies by their text: parsing costs a hundred decisions.
fn parsed_policies(text: &str) -> Result<Arc<AccountPolicies>, StoreError> {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};
    static PARSED: LazyLock<Mutex<HashMap<String, Arc<AccountPolicies>>>> = LazyLock::new(Mutex::default);
    let held = || PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(policies) = held().get(text) {
        return Ok(Arc::clone(policies));
    }
    // Policies that were accepted once and cannot be read now must not become no policies. Read outside
    // of the lock, so that nobody waits for another account's policies.
    let policies = AccountPolicies::parse(text).map_err(|_| StoreError::Corrupt("an account's policies"))?;
    let mut parsed = held();
    if parsed.len() >= 256 {
        parsed.clear();
    }
    parsed.insert(text.to_owned(), Arc::clone(&policies));
    Ok(policies)
}

fn next_jail_user(tx: &mut Tx<'_>) -> Result<u32, StoreError> {
    tx.exec("UPDATE jail_user_given SET highest = highest + 1 WHERE ?1 = 'host'", args![])?;
    let given = tx.one("SELECT highest FROM jail_user_given WHERE ?1 = 'host'", args![], |row| row.int(0))?;
    given.and_then(|n| u32::try_from(n).ok()).ok_or(StoreError::Corrupt("the jail users"))
}

/// The record's line for what the server does to itself while it starts.
pub(crate) fn startup(action: &str, resource: String) -> Draft {
    Draft {
        actor: Actor::Service("startup".to_owned()),
        credential: "none".to_owned(),
        address: "this host".to_owned(),
        request: None,
        action: action.to_owned(),
        resource,
        space: None,
        agent: None,
        phase: Phase::Act,
        verdict: Verdict::Ok,
        intent: None,
        detail: Map::new(),
    }
}
