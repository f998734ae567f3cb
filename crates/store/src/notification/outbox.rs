//! What targets are to be told: written with what it tells about, taken by one server at a time, and gone when it was
//! sent. A server that dies in between leaves it, and it is sent again.

use std::time::Duration;

use bailiwick_audit::{Actor, Phase, Verdict};
use bailiwick_auth::access::Notification;
use bailiwick_auth::access::verb::SendNotification;
use bailiwick_auth::{Permit, Recorded, Tenant, for_store};
use bailiwick_types::notification::{Notice, Occasion, TRIES, TargetKind, What, pause};
use bailiwick_types::{AgentName, Incarnation, ServerId, SessionId, SpaceId, TargetName, Timestamp, UserName};
use serde_json::{Map, Value, json};

use super::{TargetRow, parted, resource, there_row};
use crate::data_key::StoredKey;
use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::sql::{Sql, args};
use crate::store::Store;

/// Notices that wait for one target; beyond that the oldest go.
const WAITING: u64 = 100;
/// Targets of one account that are told something at once: the others' turn comes.
const AT_ONCE: u64 = 4;
/// How long whoever takes a target's notices has for them; longer than any call takes. What another server was telling
/// when it was killed waits for so long, where several share a database.
const LEASE: Duration = Duration::from_secs(60);
/// Between two messages to one target.
const BETWEEN: Duration = Duration::from_secs(1);
/// Answers in a row that say the target is no more.
const REFUSALS: u64 = 3;

/// The right to tell one target what waits for it, until the lease ends.
#[derive(Clone)]
pub struct Claim {
    tenant: Tenant,
    row: TargetRow,
    lease: u64,
    upto: u64,
    tries: u64,
    notices: Vec<Notice>,
}

impl Claim {
    /// The account.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The target's row.
    pub fn row(&self) -> &TargetRow {
        &self.row
    }

    /// The target as the policy sees it.
    pub fn target(&self) -> Notification {
        resource(&self.tenant, &self.row)
    }

    /// What is to be told, oldest first.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }
}

/// Whether somebody may still be telling what was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// This server, or another one on the same database.
    Held,
    /// Nobody: they are of a server that has ended, and there was no other.
    Lost,
}

/// A sealed address, and the key under which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAddress {
    /// The data key.
    pub key: StoredKey,
    /// Which of the addresses that the target had.
    pub version: u64,
    /// The address, encrypted.
    pub bytes: Vec<u8>,
    /// The chat that goes with it.
    pub chat: Option<String>,
    /// The service.
    pub kind: TargetKind,
}

/// How an attempt to tell a target ended. The text is a code, and nothing that the far side said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Delivered,
    /// It may be taken later, and not before that if somebody said so.
    Later {
        /// What happened.
        state: String,
        /// How long the far side wants to be left alone.
        after: Option<Duration>,
    },
    /// The far side will not take it.
    Refused {
        /// What it said, as a code.
        state: String,
    },
    /// The one whose order it is may not give it any more.
    Forbidden,
}

impl Outcome {
    /// The code of it.
    pub fn state(&self) -> &str {
        match self {
            Self::Delivered => "delivered",
            Self::Later { state, .. } | Self::Refused { state } => state,
            Self::Forbidden => NOT_AUTHORIZED,
        }
    }
}

const NOT_AUTHORIZED: &str = "owner_not_authorized";

/// Where something happened.
pub(crate) struct Place {
    pub(crate) agent: AgentName,
    pub(crate) space: SpaceId,
}

impl Place {
    /// Of a session.
    pub(crate) fn of_session(sql: &Sql<'_>, session: SessionId) -> Result<Option<Self>, StoreError> {
        sql.one("SELECT agent, space FROM session WHERE account = ?1 AND id = ?2", args![session], |row| {
            Ok(Self { agent: row.parse(0)?, space: row.parse(1)? })
        })
    }
}

/// Puts what happened into the line of each target that wants to know, in the transaction in which it happens.
pub(crate) fn tell(tx: &mut Tx<'_>, what: What, place: &Place) -> Result<(), StoreError> {
    let targets = tx.all(
        "SELECT name, events, next_notice, (SELECT count(*) FROM notice n WHERE n.account = ?1 \
         AND n.target = notification.name) FROM notification WHERE account = ?1 AND paused = ''",
        args![],
        |row| Ok((row.parse::<TargetName>(0)?, parted(&row.text(1)?)?, row.count(2)?, row.count(3)?)),
    )?;
    if targets.is_empty() {
        return Ok(());
    }
    let space =
        tx.one("SELECT name FROM space WHERE account = ?1 AND id = ?2", args![place.space], |row| row.text(0))?;
    let path = match what {
        What::Approval { .. } | What::Question => "/approvals".to_owned(),
        _ => format!("/spaces/{}", place.space),
    };
    let notice = Notice { what, agent: Some(place.agent.clone()), space: space.unwrap_or_default(), path };
    let wanted = |events: &[Occasion]| notice.occasion().is_some_and(|occasion| events.contains(&occasion));
    for (name, _, n, waiting) in targets.into_iter().filter(|(_, events, ..)| wanted(events)) {
        let body = serde_json::to_string(&notice)?;
        tx.exec(
            "INSERT INTO notice (account, target, n, body, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            args![&name, n, body, Timestamp::now()],
        )?;
        let dropped = if waiting >= WAITING {
            tx.exec(
                "DELETE FROM notice WHERE account = ?1 AND target = ?2 AND n = \
                 (SELECT min(n) FROM notice o WHERE o.account = ?1 AND o.target = ?2)",
                args![&name],
            )?
        } else {
            0
        };
        tx.exec(
            "UPDATE notification SET next_notice = next_notice + 1, dropped = dropped + ?3 \
             WHERE account = ?1 AND name = ?2",
            args![&name, dropped],
        )?;
        tx.told();
    }
    Ok(())
}

impl Store {
    /// The accounts that have something to tell since this was last asked.
    pub fn notices_told(&self) -> Vec<Incarnation> {
        self.grown().take_told().into_iter().filter_map(|log| log.parse().ok()).collect()
    }

    /// Returns when there are such accounts.
    pub async fn notices_wait(&self) {
        self.grown().wait_told().await;
    }

    /// Every account, to look for what a server left behind.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn notices_accounts(&self) -> Result<Vec<Incarnation>, StoreError> {
        self.host()
            .read(|sql| sql.all("SELECT incarnation FROM account WHERE ?1 = 'host'", args![], |row| row.parse(0)))
            .await
    }

    /// Takes what is due in an account, and says when to look again, if anything waits. Leases of this server that are
    /// known to be lost hold nobody up.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn notices_claim(
        &self,
        account: Incarnation,
        leases: Leases,
    ) -> Result<(Vec<Claim>, Option<Timestamp>), StoreError> {
        let columns = self
            .host()
            .read(|sql| {
                sql.one(
                    "SELECT name, incarnation, jail_user, policy FROM account WHERE ?1 = 'host' AND incarnation = ?2",
                    args![account],
                    crate::account::tenant_columns,
                )
            })
            .await?;
        let Some(columns) = columns else { return Ok((Vec::new(), None)) };
        let tenant = crate::account::tenant_of_columns(columns)?;
        // Most who are looked at have nothing: no transaction for them.
        let there = "SELECT 1 FROM notice WHERE account = ?1 LIMIT 1";
        if self.database(&tenant)?.read(|sql| sql.one(there, args![], |_| Ok(()))).await?.is_none() {
            return Ok((Vec::new(), None));
        }
        let (of, server) = (tenant.clone(), self.server());
        self.write(&tenant, move |tx| {
            if leases == Leases::Lost {
                tx.exec(
                    "UPDATE notification SET lease_until = 0 WHERE account = ?1 AND lease_until > 0 AND lease_by = ?2",
                    args![server],
                )?;
            }
            claim(tx, &of, server)
        })
        .await
    }

    /// Puts the intent to tell a target something on record, and gives its sealed address. `claim` is what is told;
    /// without one somebody tries the target.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease is over, or if the record cannot be written: nothing must be sent.
    pub async fn notification_begin(
        &self,
        permit: Permit<SendNotification>,
        claim: Option<&Claim>,
    ) -> Result<(Recorded<SendNotification>, StoredAddress), StoreError> {
        let name = permit.resource().name().clone();
        let fence = claim.map(|claim| (claim.row.name.clone(), claim.lease));
        if fence.as_ref().is_some_and(|(of, _)| *of != name) {
            return Err(StoreError::Fenced);
        }
        let mut detail = Map::from_iter([
            ("kind".to_owned(), json!(permit.resource().kind())),
            ("host".to_owned(), json!(permit.resource().host())),
        ]);
        match claim {
            Some(claim) => {
                detail.insert("notices".to_owned(), json!(claim.notices.len()));
                detail.insert("try".to_owned(), json!(claim.tries + 1));
            }
            None => drop(detail.insert("test".to_owned(), json!(true))),
        }
        let draft = permit.draft(Phase::Intent, Verdict::Begun, detail);
        let (intent, address) = self
            .write(permit.tenant(), move |tx| {
                if let Some((name, lease)) = &fence {
                    let held = "SELECT 1 FROM notification WHERE account = ?1 AND name = ?2 AND lease = ?3 \
                         AND lease_until > ?4 AND paused = ''";
                    tx.one(held, args![name, *lease, Timestamp::now()], |_| Ok(()))?.ok_or(StoreError::Fenced)?;
                }
                let found = tx.one(
                    "SELECT data_key.wrapped_by, data_key.wrapped, n.version, n.sealed, n.chat, n.kind \
                     FROM notification n JOIN data_key ON data_key.account = n.account \
                     WHERE n.account = ?1 AND n.name = ?2",
                    args![&name],
                    |row| {
                        let kind = row.text(5)?.parse().map_err(|_| StoreError::Corrupt("a target's service"))?;
                        let key = StoredKey { by: row.text(0)?, bytes: row.blob(1)? };
                        let (version, bytes, chat) = (row.count(2)?, row.blob(3)?, row.optional_text(4)?);
                        Ok(StoredAddress { key, version, bytes, chat, kind })
                    },
                )?;
                let found = found.ok_or_else(|| StoreError::not_found("notification", &name))?;
                Ok((log::append(tx, draft)?, found))
            })
            .await?;
        Ok((for_store::recorded(permit, intent), address))
    }

    /// Writes how an attempt went: on record, and on the target's row. What was taken waits no more.
    ///
    /// # Errors
    /// If the database fails; what was sent is then sent again.
    pub async fn notification_done(
        &self,
        act: &Recorded<SendNotification>,
        claim: Option<&Claim>,
        outcome: Outcome,
        mut detail: Map<String, Value>,
    ) -> Result<(), StoreError> {
        let verdict = if outcome == Outcome::Delivered { Verdict::Ok } else { Verdict::Fail };
        detail.insert("code".to_owned(), json!(outcome.state()));
        let draft = act.outcome(verdict, detail);
        let (name, claim) = (act.resource().name().clone(), claim.cloned());
        self.write(act.scope().tenant(), move |tx| {
            tx.exec(
                "UPDATE notification SET last_at = ?3, last_state = ?4 WHERE account = ?1 AND name = ?2",
                args![&name, Timestamp::now(), outcome.state()],
            )?;
            if let Some(claim) = &claim {
                settle(tx, claim, &outcome)?;
            }
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Ends a claim that came to nothing before anything was sent: whose order it was may not give it, or the server
    /// could not open the address.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn notification_unsent(&self, claim: Claim, outcome: Outcome) -> Result<(), StoreError> {
        let tenant = claim.tenant.clone();
        self.write(&tenant, move |tx| {
            let name = &claim.row.name;
            tx.exec(
                "UPDATE notification SET last_at = ?3, last_state = ?4 WHERE account = ?1 AND name = ?2",
                args![name, Timestamp::now(), outcome.state()],
            )?;
            settle(tx, &claim, &outcome)
        })
        .await
    }
}

/// Takes the targets that are due, oldest first, and says when the next one is.
fn claim(tx: &mut Tx<'_>, tenant: &Tenant, server: ServerId) -> Result<(Vec<Claim>, Option<Timestamp>), StoreError> {
    let now = Timestamp::now();
    let waiting = tx.all(
        "SELECT name, lease_until, due_at FROM notification WHERE account = ?1 AND paused = '' \
         AND EXISTS (SELECT 1 FROM notice n WHERE n.account = ?1 AND n.target = notification.name) \
         ORDER BY due_at, name",
        args![],
        |row| Ok((row.parse::<TargetName>(0)?, row.time(1)?, row.time(2)?)),
    )?;
    let mut places = AT_ONCE.saturating_sub(waiting.iter().filter(|(_, until, _)| *until > now).count() as u64);
    let (mut claims, mut next) = (Vec::new(), None::<Timestamp>);
    for (name, until, due) in waiting {
        let ready = until.max(due);
        if ready > now {
            next = Some(next.map_or(ready, |next| next.min(ready)));
            continue;
        }
        if places == 0 {
            // Whoever is done looks again.
            continue;
        }
        places -= 1;
        // Another server may have been quicker.
        let taken = tx.exec(
            "UPDATE notification SET lease = lease + 1, lease_until = ?3, lease_by = ?5 \
             WHERE account = ?1 AND name = ?2 AND lease_until <= ?4 AND paused = ''",
            args![&name, now.after(LEASE), now, server],
        )?;
        if taken == 1 {
            claims.push(taken_claim(tx, tenant, &name)?);
        }
    }
    Ok((claims, next))
}

fn taken_claim(tx: &Tx<'_>, tenant: &Tenant, name: &TargetName) -> Result<Claim, StoreError> {
    let found =
        tx.one("SELECT lease, tries FROM notification WHERE account = ?1 AND name = ?2", args![name], |row| {
            Ok((row.count(0)?, row.count(1)?))
        })?;
    let (lease, tries) = found.ok_or_else(|| StoreError::not_found("notification", name))?;
    let notices =
        tx.all("SELECT n, body FROM notice WHERE account = ?1 AND target = ?2 ORDER BY n", args![name], |row| {
            Ok((row.count(0)?, row.json::<Notice>(1)?))
        })?;
    let upto = notices.last().map_or(0, |(n, _)| *n);
    let notices = notices.into_iter().map(|(_, notice)| notice).collect();
    Ok(Claim { tenant: tenant.clone(), row: there_row(tx, name)?, lease, upto, tries, notices })
}

/// What follows for a target from how it went, if the lease still holds.
fn settle(tx: &mut Tx<'_>, claim: &Claim, outcome: &Outcome) -> Result<(), StoreError> {
    let (name, now) = (&claim.row.name, Timestamp::now());
    let held = tx.exec(
        "UPDATE notification SET lease_until = 0 WHERE account = ?1 AND name = ?2 AND lease = ?3",
        args![name, claim.lease],
    )?;
    if held == 0 {
        return Ok(());
    }
    tx.told();
    let tries = claim.tries + 1;
    let due = |asked| now.after(pause(tries, asked, chance()));
    match outcome {
        Outcome::Delivered => {
            told(tx, claim)?;
            tx.exec(
                "UPDATE notification SET tries = 0, refused = 0, due_at = ?3 WHERE account = ?1 AND name = ?2",
                args![name, now.after(BETWEEN)],
            )?;
        }
        Outcome::Later { .. } if tries >= TRIES => {
            let gone = told(tx, claim)?;
            tx.exec(
                "UPDATE notification SET tries = 0, dropped = dropped + ?3, due_at = ?4 \
                 WHERE account = ?1 AND name = ?2",
                args![name, gone, due(None)],
            )?;
        }
        Outcome::Later { after, .. } => {
            tx.exec(
                "UPDATE notification SET tries = ?3, due_at = ?4 WHERE account = ?1 AND name = ?2",
                args![name, tries, due(*after)],
            )?;
        }
        Outcome::Refused { state } => {
            tx.exec(
                "UPDATE notification SET tries = ?3, refused = refused + 1, due_at = ?4 \
                 WHERE account = ?1 AND name = ?2",
                args![name, tries, due(None)],
            )?;
            let refused = "SELECT refused FROM notification WHERE account = ?1 AND name = ?2";
            if tx.one(refused, args![name], |row| row.count(0))?.unwrap_or(0) >= REFUSALS {
                stop(tx, claim, "refused", state)?;
            }
        }
        Outcome::Forbidden => stop(tx, claim, NOT_AUTHORIZED, NOT_AUTHORIZED)?,
    }
    Ok(())
}

/// Takes what a claim was about out of the line, and says how much that was.
fn told(tx: &Tx<'_>, claim: &Claim) -> Result<u64, StoreError> {
    let name = &claim.row.name;
    let gone = tx.exec("DELETE FROM notice WHERE account = ?1 AND target = ?2 AND n <= ?3", args![name, claim.upto])?;
    Ok(gone as u64)
}

/// Pauses a target because of how it went, on record. What waits stays, until somebody says that it goes on.
fn stop(tx: &mut Tx<'_>, claim: &Claim, why: &str, code: &str) -> Result<(), StoreError> {
    let (name, owner): (_, &UserName) = (&claim.row.name, &claim.row.owner);
    tx.exec("UPDATE notification SET paused = ?3 WHERE account = ?1 AND name = ?2", args![name, why])?;
    let mut draft = crate::account::startup("notification.stop", format!("notification:{name}"));
    draft.actor = Actor::Service("notifications".to_owned());
    draft.verdict = Verdict::Fail;
    draft.detail.insert("why".to_owned(), json!(why));
    draft.detail.insert("code".to_owned(), json!(code));
    draft.detail.insert("owner".to_owned(), json!(owner));
    log::append(tx, draft).map(drop)
}

/// A number that nobody chose.
fn chance() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
