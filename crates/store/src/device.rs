//! Logins: one row a device, with its token's hash and when it was last seen.

use std::net::IpAddr;

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{ListDevices, RevokeDevice, SignIn};
use bailiwick_auth::authn::DeviceRecord;
use bailiwick_auth::authn::oidc::SecondFactor;
use bailiwick_auth::authn::sign_in::{Factor, First};
use bailiwick_auth::key::NewToken;
use bailiwick_auth::password::StoredPassword;
use bailiwick_auth::{Credential, Permit};
use bailiwick_types::{DeviceId, Incarnation, Timestamp, UserName};
use serde_json::{Map, json};

use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::passkey;
use crate::password;
use crate::sql::args;
use crate::store::Store;

/// Logins that one user may have; the one that was seen longest ago makes room. Without an end, whoever
/// signs in by a script and never out would fill the list.
const MOST: usize = 100;

/// A login that is being made.
pub struct NewDevice<'a> {
    /// Its token.
    pub token: &'a NewToken,
    /// For people.
    pub name: String,
    /// What its user showed first.
    pub first: First,
    /// And what else.
    pub factor: Factor,
}

/// A login, without anything that could prove it.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// The public half of its token.
    pub id: DeviceId,
    /// For people.
    pub name: String,
    /// By what its user signed in.
    pub factor: String,
    /// From where it was last seen.
    pub address: String,
    /// When made.
    pub created_at: Timestamp,
    /// When last seen, to the minute.
    pub last_seen_at: Timestamp,
}

/// Which of a user's logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// That one.
    One(DeviceId),
    /// All but that one.
    AllBut(DeviceId),
    /// All.
    All,
}

/// The public halves of a user's logins.
pub(crate) fn of_user(tx: &Tx<'_>, user: &UserName) -> Result<Vec<String>, StoreError> {
    tx.all("SELECT id FROM device WHERE account = ?1 AND holder = ?2 ORDER BY last_seen_at, id", args![user], |row| {
        row.text(0)
    })
}

/// Ends logins, and says which they were.
pub(crate) fn end(tx: &mut Tx<'_>, user: &UserName, which: &Which) -> Result<Vec<String>, StoreError> {
    let gone = |id: &String| match which {
        Which::One(one) => id == one.as_str(),
        Which::AllBut(kept) => id != kept.as_str(),
        Which::All => true,
    };
    let ended: Vec<String> = of_user(tx, user)?.into_iter().filter(gone).collect();
    for id in &ended {
        tx.exec("DELETE FROM device WHERE account = ?1 AND id = ?2", args![id])?;
    }
    Ok(ended)
}

impl Store {
    /// Makes a login, and uses up the second factor that was shown. Says which logins made room for it.
    ///
    /// # Errors
    /// `code_used` if the second factor was used up meanwhile, or there is no such one; `sign_in_changed` if
    /// the password was changed meanwhile, or a second factor set up.
    pub async fn device_create(&self, permit: Permit<SignIn>, new: NewDevice<'_>) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let (id, hash) = (new.token.id.clone(), new.token.hash.clone());
        self.key_locate(id.as_str(), permit.tenant().incarnation()).await?;
        let unmade = id.to_string();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let NewDevice { name, first, factor, .. } = new;
        let by = factor.with(&first);
        let gone = self
            .write(permit.tenant(), move |tx| {
                tx.one("SELECT 1 FROM account_user WHERE account = ?1 AND name = ?2", args![&user], |_| Ok(()))?
                    .ok_or_else(|| StoreError::not_found("user", &user))?;
                still_opens(tx, &user, &first, &factor)?;
                use_up(tx, &user, &factor)?;
                if let First::Password { anew: Some(anew), .. } = &first {
                    password::put(tx, &user, anew)?;
                }
                let mut others = of_user(tx, &user)?;
                others.truncate((others.len() + 1).saturating_sub(MOST));
                for id in &others {
                    tx.exec("DELETE FROM device WHERE account = ?1 AND id = ?2", args![id])?;
                }
                let now = Timestamp::now();
                tx.exec(
                    "INSERT INTO device (account, id, holder, name, hash, factor, address, created_at, last_seen_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
                    args![&id, &user, &name, hash.as_bytes(), &by, &draft.address, now],
                )?;
                draft.detail.insert("device".to_owned(), json!(id));
                draft.detail.insert("name".to_owned(), json!(name));
                draft.detail.insert("by".to_owned(), json!(by));
                log::append(tx, draft)?;
                Ok(others)
            })
            .await;
        match gone {
            Ok(gone) => self.key_unlocate(gone).await,
            // It may be there.
            Err(StoreError::InDoubt) => Err(StoreError::InDoubt),
            Err(error) => {
                self.key_unlocate(vec![unmade]).await?;
                Err(error)
            }
        }
    }

    /// A user's logins, the one seen last first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn device_list(&self, permit: Permit<ListDevices>) -> Result<Vec<DeviceRow>, StoreError> {
        self.database(permit.tenant())?
            .read(|sql| {
                sql.all(
                    "SELECT id, name, factor, address, created_at, last_seen_at FROM device \
                     WHERE account = ?1 AND holder = ?2 ORDER BY last_seen_at DESC, id",
                    args![permit.resource().name()],
                    |row| {
                        Ok(DeviceRow {
                            id: row.parse(0)?,
                            name: row.text(1)?,
                            factor: row.text(2)?,
                            address: row.text(3)?,
                            created_at: row.time(4)?,
                            last_seen_at: row.time(5)?,
                        })
                    },
                )
            })
            .await
    }

    /// Ends a login; its token dies at once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user has no such login.
    pub async fn device_revoke(&self, permit: Permit<RevokeDevice>, id: DeviceId) -> Result<(), StoreError> {
        let user = permit.resource().name().clone();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let ended = self
            .write(permit.tenant(), move |tx| {
                let ended = end(tx, &user, &Which::One(id.clone()))?;
                if ended.is_empty() {
                    return Err(StoreError::not_found("device", &id));
                }
                draft.detail.insert("device".to_owned(), json!(id));
                log::append(tx, draft)?;
                Ok(ended)
            })
            .await?;
        self.key_unlocate(ended).await
    }

    /// Ends a login that nobody used for too long.
    pub(crate) async fn device_expire(
        &self,
        id: &DeviceId,
        record: &DeviceRecord,
        client: IpAddr,
    ) -> Result<(), StoreError> {
        let draft = Draft {
            actor: Actor::User(record.user.clone()),
            credential: format!("device:{id}"),
            address: client.to_string(),
            request: None,
            action: "auth.session.timeout".to_owned(),
            resource: format!("user:{}", record.user),
            space: None,
            agent: None,
            phase: Phase::Act,
            verdict: Verdict::Ok,
            intent: None,
            detail: Map::from_iter([("device".to_owned(), json!(id))]),
        };
        let (one, seen) = (id.clone(), record.last_seen_at);
        let ended = self
            .write(&record.tenant, move |tx| {
                // Unless another request found it first, or it came back to life meanwhile.
                let ended = tx.exec(
                    "DELETE FROM device WHERE account = ?1 AND id = ?2 AND last_seen_at = ?3",
                    args![&one, seen],
                )?;
                if ended > 0 {
                    log::append(tx, draft)?;
                }
                Ok(ended > 0)
            })
            .await?;
        if ended { self.key_unlocate(vec![id.to_string()]).await } else { Ok(()) }
    }

    /// Notes that a login is in use. Nobody waits for it.
    pub(crate) fn note_device_seen(&self, incarnation: Incarnation, id: &DeviceId, client: IpAddr) {
        let (id, now, address) = (id.clone(), Timestamp::now(), client.to_string());
        let failed = |error: StoreError| tracing::debug!(%error, "a login's use was not noted");
        let noted = self.database_of(incarnation).and_then(|database| {
            let note = move |tx: &mut Tx<'_>| {
                tx.exec(
                    "UPDATE device SET last_seen_at = ?3, address = ?4 WHERE account = ?1 AND id = ?2 \
                     AND last_seen_at < ?3",
                    args![&id, now, &address],
                )
                .map(drop)
            };
            self.writers().write_later(&database, note, failed)
        });
        if let Err(error) = noted {
            failed(error);
        }
    }
}

/// What was checked outside of the transaction must still be what is there: else a login could outlive the
/// change of the password that it was made with.
pub(crate) fn still_opens(tx: &Tx<'_>, user: &UserName, first: &First, factor: &Factor) -> Result<(), StoreError> {
    match (first, factor) {
        // Whose row is still there, which `use_up` sees to.
        (First::Passkey, Factor::PasskeyAlone(_)) => return Ok(()),
        (First::Passkey, _) | (_, Factor::PasskeyAlone(_)) => return Err(CHANGED),
        (First::Password { fitted, .. }, _) => still_fits(tx, user, fitted)?,
        (First::Provider { second_factor: SecondFactor::Provider, .. }, _) => return Ok(()),
        (First::Provider { second_factor: SecondFactor::Own, .. }, _) => {}
    }
    let wanted = tx.one(
        "SELECT 1 FROM account_user u WHERE u.account = ?1 AND u.name = ?2 AND (EXISTS (SELECT 1 FROM totp t \
         WHERE t.account = u.account AND t.holder = u.name AND t.confirmed = 1) \
         OR EXISTS (SELECT 1 FROM passkey p WHERE p.account = u.account AND p.holder = u.name))",
        args![user],
        |_| Ok(()),
    )?;
    if wanted.is_some() && matches!(factor, Factor::Alone) { Err(CHANGED) } else { Ok(()) }
}

/// Whether what its caller showed is still good. A request may be long on its way, and what it asks for is to
/// outlive it: whoever lost a login that is ended gets nothing lasting by what they had begun with it.
pub(crate) fn still_shown(tx: &Tx<'_>, credential: &Credential) -> Result<(), StoreError> {
    let there = match credential {
        Credential::Device(id) => {
            tx.one("SELECT 1 FROM device WHERE account = ?1 AND id = ?2", args![id], |_| Ok(()))?
        }
        Credential::Key(id) => tx.one("SELECT 1 FROM api_key WHERE account = ?1 AND id = ?2", args![id], |_| Ok(()))?,
        _ => Some(()),
    };
    there.ok_or(CHANGED)
}

/// Whether the password that was checked is still the kept one.
pub(crate) fn still_fits(tx: &Tx<'_>, user: &UserName, fitted: &StoredPassword) -> Result<(), StoreError> {
    let kept = tx.one(
        "SELECT 1 FROM account_password WHERE account = ?1 AND holder = ?2 AND hash = ?3",
        args![user, fitted.as_text()],
        |_| Ok(()),
    )?;
    kept.ok_or(CHANGED)
}

/// Somebody else changed it meanwhile.
const CHANGED: StoreError =
    StoreError::Conflict { code: "sign_in_changed", message: "how you sign in was changed just now: sign in again" };

/// A code is good once. Judged here, in the transaction that makes the login: two at once cannot both use it.
pub(crate) fn use_up(tx: &mut Tx<'_>, user: &UserName, factor: &Factor) -> Result<(), StoreError> {
    let used = match factor {
        Factor::Alone => 1,
        Factor::Passkey(used) | Factor::PasskeyAlone(used) => passkey::use_one(tx, user, used)?,
        Factor::Totp { step } => tx.exec(
            "UPDATE totp SET last_step = ?3 WHERE account = ?1 AND holder = ?2 AND confirmed = 1 AND last_step < ?3",
            args![user, *step],
        )?,
        Factor::Recovery(hash) => tx.exec(
            "DELETE FROM recovery_code WHERE account = ?1 AND holder = ?2 AND hash = ?3",
            args![user, hash.as_bytes()],
        )?,
    };
    if used == 0 { Err(CODE_USED) } else { Ok(()) }
}

/// The second factor was used already, or never was one.
const CODE_USED: StoreError =
    StoreError::Conflict { code: "code_used", message: "this code was used already, or is none of yours" };
