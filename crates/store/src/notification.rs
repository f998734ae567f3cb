//! Targets of notifications: which there are, what they want to be told, and how it went. Their addresses lie sealed
//! as secrets do, and leave against the record of what is sent there.

mod outbox;

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::Notification;
use bailiwick_auth::access::verb::{
    CreateNotification, DeleteNotification, ListNotifications, TestNotification, UpdateNotification,
};
use bailiwick_auth::{Permit, Scope, Tenant, for_store};
use bailiwick_types::host::HostName;
use bailiwick_types::notification::{Occasion, TargetKind};
use bailiwick_types::{TargetName, Timestamp, UserName};
use serde_json::{Map, json};

use crate::data_key::{StoredKey, data_key, keep};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::secret::Sealing;
use crate::sql::{Row, Sql, args};
use crate::store::Store;

pub use outbox::{Claim, Leases, Outcome, StoredAddress};
pub(crate) use outbox::{Place, tell};

/// Most targets of an account.
const MOST: u64 = 20;

/// What is known of a target. Not its address.
#[derive(Debug, Clone)]
pub struct TargetRow {
    /// Its name.
    pub name: TargetName,
    /// The service.
    pub kind: TargetKind,
    /// The host that is called.
    pub host: HostName,
    /// Which chat of a bot's.
    pub chat: Option<String>,
    /// What it is told.
    pub events: Vec<Occasion>,
    /// Why nothing is sent, if nothing is.
    pub paused: Option<String>,
    /// Whose order it is.
    pub owner: UserName,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When something was last sent, or tried.
    pub last_at: Option<Timestamp>,
    /// How that went.
    pub last_state: Option<String>,
    /// Notices that wait.
    pub waiting: u64,
    /// Notices that were never sent: there were too many, or nobody took them for hours.
    pub dropped: u64,
}

/// A target to be.
pub struct NewTarget {
    /// Its name.
    pub name: TargetName,
    /// The service.
    pub kind: TargetKind,
    /// The host of its address.
    pub host: HostName,
    /// Which chat.
    pub chat: Option<String>,
    /// What it is told.
    pub events: Vec<Occasion>,
    /// Whose order it is.
    pub owner: UserName,
}

/// What becomes different. Whoever changes a target makes it their own order.
#[derive(Default)]
pub struct TargetChange {
    /// Another address: its host, its chat, and what seals it.
    pub address: Option<(HostName, Option<String>, Sealing)>,
    /// What it is told.
    pub events: Option<Vec<Occasion>>,
    /// Whether it is paused by a person.
    pub paused: Option<Paused>,
}

/// Whether a target is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// Nothing is sent or kept for it.
    Yes,
    /// It goes on, also where the server paused it.
    No,
}

/// That a person paused it.
const BY_PERSON: &str = "paused";

impl Store {
    /// The account's data key, for whoever is about to seal an address under it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn notification_key(&self, scope: &Scope) -> Result<Option<StoredKey>, StoreError> {
        self.database(scope.tenant())?.read(data_key).await
    }

    /// The account's targets by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn notification_list(&self, permit: Permit<ListNotifications>) -> Result<Vec<TargetRow>, StoreError> {
        self.database(permit.tenant())?
            .read(|sql| {
                sql.all(
                    "SELECT name, kind, host, chat, events, paused, owner, created_at, updated_at, last_at, last_state, \
                     dropped, (SELECT count(*) FROM notice n WHERE n.account = ?1 AND n.target = notification.name) \
                     FROM notification WHERE account = ?1 ORDER BY name",
                    args![],
                    target_row,
                )
            })
            .await
    }

    /// Adds a target.
    ///
    /// # Errors
    /// `notification_exists`, `too_many_notifications`, or what `sealing` says.
    pub async fn notification_create(
        &self,
        permit: Permit<CreateNotification>,
        new: NewTarget,
        sealing: Sealing,
    ) -> Result<TargetRow, StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            let there = tx.one("SELECT count(*) FROM notification WHERE account = ?1", args![], |row| row.count(0))?;
            if there.unwrap_or(0) >= MOST {
                return Err(TOO_MANY);
            }
            if read_row(tx, &new.name)?.is_some() {
                return Err(EXISTS);
            }
            let (now, sealed) = (Timestamp::now(), sealed(tx, 1, sealing)?);
            tx.exec(
                "INSERT INTO notification (account, name, kind, host, chat, events, paused, owner, version, sealed, \
                 created_at, updated_at, next_notice, tries, refused, dropped, lease, lease_until, due_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, '', ?7, 1, ?8, ?9, ?9, 1, 0, 0, 0, 0, 0, 0)",
                args![
                    &new.name,
                    new.kind.as_str(),
                    new.host.as_str(),
                    new.chat.as_ref(),
                    joined(&new.events),
                    &new.owner,
                    sealed.as_slice(),
                    now,
                ],
            )?;
            draft.resource = format!("notification:{}", new.name);
            draft.detail.insert("kind".to_owned(), json!(new.kind));
            draft.detail.insert("host".to_owned(), json!(new.host));
            draft.detail.insert("events".to_owned(), json!(new.events));
            log::append(tx, draft)?;
            there_row(tx, &new.name)
        })
        .await
    }

    /// Changes a target, and makes it the order of whoever does.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or what the sealing says.
    pub async fn notification_update(
        &self,
        permit: Permit<UpdateNotification>,
        name: TargetName,
        owner: UserName,
        change: TargetChange,
    ) -> Result<TargetRow, StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            let before = there_row(tx, &name)?;
            draft.resource = format!("notification:{name}");
            if let Some((host, chat, sealing)) = change.address {
                let version = "SELECT version FROM notification WHERE account = ?1 AND name = ?2";
                let version = tx.one(version, args![&name], |row| row.count(0))?.unwrap_or(0) + 1;
                let sealed = sealed(tx, version, sealing)?;
                tx.exec(
                    "UPDATE notification SET host = ?3, chat = ?4, version = ?5, sealed = ?6 \
                     WHERE account = ?1 AND name = ?2",
                    args![&name, host.as_str(), chat.as_ref(), version, sealed.as_slice()],
                )?;
                draft.detail.insert("host".to_owned(), json!(host));
                draft.detail.insert("version".to_owned(), json!(version));
            }
            let events = change.events.unwrap_or_else(|| before.events.clone());
            let paused = match change.paused {
                Some(Paused::Yes) => BY_PERSON,
                Some(Paused::No) => "",
                None => before.paused.as_deref().unwrap_or_default(),
            };
            tx.exec(
                "UPDATE notification SET events = ?3, paused = ?4, owner = ?5, updated_at = ?6 \
                 WHERE account = ?1 AND name = ?2",
                args![&name, joined(&events), paused, &owner, Timestamp::now()],
            )?;
            // It begins anew, and at once.
            if change.paused == Some(Paused::No) {
                tx.exec(
                    "UPDATE notification SET refused = 0, tries = 0, due_at = 0 WHERE account = ?1 AND name = ?2",
                    args![&name],
                )?;
            }
            if change.paused == Some(Paused::Yes) {
                tx.exec("DELETE FROM notice WHERE account = ?1 AND target = ?2", args![&name])?;
            }
            tx.told();
            draft.detail.insert("events".to_owned(), json!(events));
            draft.detail.insert("paused".to_owned(), json!(!paused.is_empty()));
            log::append(tx, draft)?;
            there_row(tx, &name)
        })
        .await
    }

    /// Removes a target with what waits for it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn notification_delete(
        &self,
        permit: Permit<DeleteNotification>,
        name: TargetName,
    ) -> Result<(), StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            if tx.exec("DELETE FROM notification WHERE account = ?1 AND name = ?2", args![&name])? == 0 {
                return Err(StoreError::not_found("notification", &name));
            }
            draft.resource = format!("notification:{name}");
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Writes down that somebody tries a target, and gives it as the policy sees it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn notification_test(
        &self,
        permit: Permit<TestNotification>,
        name: TargetName,
    ) -> Result<Notification, StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let row = self
            .write(permit.tenant(), move |tx| {
                let row = there_row(tx, &name)?;
                draft.resource = format!("notification:{name}");
                log::append(tx, draft)?;
                Ok(row)
            })
            .await?;
        Ok(resource(permit.tenant(), &row))
    }

    /// A target that somebody is about to change.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn notification_read(
        &self,
        permit: &Permit<UpdateNotification>,
        name: &TargetName,
    ) -> Result<TargetRow, StoreError> {
        self.database(permit.tenant())?.read(|sql| there_row(sql, name)).await
    }
}

/// Ends the orders of a user who is being deleted: a namesake who comes later has given none.
pub(crate) fn forget_owner(tx: &mut Tx<'_>, user: &UserName) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE notification SET paused = 'owner_gone' WHERE account = ?1 AND owner = ?2 AND paused = ''",
        args![user],
    )
    .map(drop)
}

/// A target as the policy sees it.
fn resource(tenant: &Tenant, row: &TargetRow) -> Notification {
    for_store::notification(tenant, row.name.clone(), row.kind, row.host.clone())
}

/// Seals an address in the transaction that keeps it, with the data key if that is the first.
fn sealed(tx: &mut Tx<'_>, version: u64, sealing: Sealing) -> Result<Vec<u8>, StoreError> {
    let key = data_key(tx)?;
    let (used, sealed) = sealing(key.clone(), version)?;
    if key.as_ref() != Some(&used) {
        keep(tx, &used)?;
    }
    Ok(sealed)
}

const ROW: &str = "SELECT name, kind, host, chat, events, paused, owner, created_at, updated_at, last_at, last_state, \
     dropped, (SELECT count(*) FROM notice n WHERE n.account = ?1 AND n.target = ?2) \
     FROM notification WHERE account = ?1 AND name = ?2";

fn read_row(sql: &Sql<'_>, name: &TargetName) -> Result<Option<TargetRow>, StoreError> {
    sql.one(ROW, args![name], target_row)
}

fn there_row(sql: &Sql<'_>, name: &TargetName) -> Result<TargetRow, StoreError> {
    read_row(sql, name)?.ok_or_else(|| StoreError::not_found("notification", name))
}

fn target_row(row: &Row<'_>) -> Result<TargetRow, StoreError> {
    Ok(TargetRow {
        name: row.parse(0)?,
        kind: row.text(1)?.parse().map_err(|_| StoreError::Corrupt("a target's service"))?,
        host: row.text(2)?.parse().map_err(|_| StoreError::Corrupt("a target's host"))?,
        chat: row.optional_text(3)?,
        events: parted(&row.text(4)?)?,
        paused: Some(row.text(5)?).filter(|why| !why.is_empty()),
        owner: row.parse(6)?,
        created_at: row.time(7)?,
        updated_at: row.time(8)?,
        last_at: row.optional_time(9)?,
        last_state: row.optional_text(10)?,
        dropped: row.count(11)?,
        waiting: row.count(12)?,
    })
}

fn joined(events: &[Occasion]) -> String {
    events.iter().map(|occasion| occasion.as_str()).collect::<Vec<_>>().join(",")
}

fn parted(text: &str) -> Result<Vec<Occasion>, StoreError> {
    let words = text.split(',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| StoreError::Corrupt("what a target is told"))).collect()
}

const TOO_MANY: StoreError = StoreError::Conflict {
    code: "too_many_notifications",
    message: "an account has at most 20 targets of notifications: delete some",
};
const EXISTS: StoreError =
    StoreError::Conflict { code: "notification_exists", message: "there is a target of this name" };
