//! Passkeys: what an authenticator made for a user, and its counter.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{ReadUser, SetFactors};
use bailiwick_auth::authn::passkey::{NewPasskey, PasskeyRecord, StoredPasskey, UsedPasskey};
use bailiwick_auth::authn::sign_in::{Factor, First};
use bailiwick_auth::key::KeyHash;
use bailiwick_types::{PasskeyId, Timestamp, UserName};
use serde_json::{Map, json};

use crate::device::{still_fits, still_opens, use_up};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::factor::{noted, put_codes};
use crate::sql::args;
use crate::store::Store;
use crate::{log, user};

/// Passkeys that one user may have.
const MOST: usize = 20;

/// A passkey for its user's list.
#[derive(Debug, Clone)]
pub struct PasskeyRow {
    /// Which.
    pub id: PasskeyId,
    /// For people.
    pub name: String,
    /// When made.
    pub created_at: Timestamp,
    /// When last used.
    pub last_used_at: Option<Timestamp>,
}

/// Whether what was made with it is what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewCodes {
    /// There were none: these are the user's now, and are to be shown.
    Kept,
    /// The user has others.
    NotNeeded,
}

/// A passkey is good for what it says once: its counter is noted in the transaction that it opens.
pub(crate) fn use_one(tx: &mut Tx<'_>, user: &UserName, used: &UsedPasskey) -> Result<usize, StoreError> {
    let UsedPasskey { id, was, now } = used;
    tx.exec(
        "UPDATE passkey SET credential = ?4, last_used_at = ?5 \
         WHERE account = ?1 AND id = ?2 AND holder = ?3 AND credential = ?6",
        args![id, user, now, Timestamp::now(), was],
    )
}

impl Store {
    /// A user's passkeys, the first one first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn passkey_list(&self, permit: Permit<ReadUser>) -> Result<Vec<PasskeyRow>, StoreError> {
        let user = permit.resource().name();
        self.database(permit.tenant())?
            .read(|sql| {
                sql.all(
                    "SELECT id, name, created_at, last_used_at FROM passkey \
                     WHERE account = ?1 AND holder = ?2 ORDER BY created_at, id",
                    args![user],
                    |row| {
                        Ok(PasskeyRow {
                            id: row.parse(0)?,
                            name: row.text(1)?,
                            created_at: row.time(2)?,
                            last_used_at: row.optional_time(3)?,
                        })
                    },
                )
            })
            .await
    }

    /// Notes that a user begins to add a passkey. Gives the credentials of those that they have, so that no
    /// authenticator makes a second one.
    ///
    /// # Errors
    /// `too_many_passkeys`; `code_used`, where there is a second factor already and what was shown is none.
    pub async fn passkey_begin(
        &self,
        permit: &Permit<SetFactors>,
        first: First,
        shown: Factor,
    ) -> Result<Vec<StoredPasskey>, StoreError> {
        let name = permit.resource().name().clone();
        let draft = noted(permit, "passkey_begun");
        self.write(permit.tenant(), move |tx| {
            user::role(tx, &name)?;
            still_opens(tx, &name, &first, &shown)?;
            use_up(tx, &name, &shown)?;
            let there = tx.all(
                "SELECT id, credential FROM passkey WHERE account = ?1 AND holder = ?2 ORDER BY created_at, id",
                args![&name],
                |row| Ok(StoredPasskey { id: row.parse(0)?, credential: row.text(1)? }),
            )?;
            if there.len() >= MOST {
                return Err(TOO_MANY);
            }
            log::append(tx, draft)?;
            Ok(there)
        })
        .await
    }

    /// Keeps a new passkey; and recovery codes, if the user has none.
    ///
    /// # Errors
    /// `passkey_known` if it is somebody's already, `too_many_passkeys`; `sign_in_changed` if the password is
    /// another since it was begun.
    pub async fn passkey_create(
        &self,
        permit: Permit<SetFactors>,
        made: NewPasskey,
        label: String,
        codes: Vec<KeyHash>,
    ) -> Result<NewCodes, StoreError> {
        let name = permit.resource().name().clone();
        let NewPasskey { passkey: StoredPasskey { id, credential }, fitted } = made;
        if self.located(id.as_str()).await?.is_some() {
            return Err(KNOWN);
        }
        self.key_locate(id.as_str(), permit.tenant().incarnation()).await?;
        let detail = Map::from_iter([("done".to_owned(), json!("passkey_added")), ("passkey".to_owned(), json!(id))]);
        let draft = permit.draft(Phase::Act, Verdict::Ok, detail);
        let unmade = id.to_string();
        let made = self
            .write(permit.tenant(), move |tx| {
                user::role(tx, &name)?;
                still_fits(tx, &name, &fitted)?;
                let count = |tx: &Tx<'_>, text: &'static str| tx.one(text, args![&name], |row| row.count(0));
                let there = count(tx, "SELECT count(*) FROM passkey WHERE account = ?1 AND holder = ?2")?;
                if there.unwrap_or(0) >= MOST as u64 {
                    return Err(TOO_MANY);
                }
                tx.exec(
                    "INSERT INTO passkey (account, id, holder, name, credential, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    args![&id, &name, &label, &credential, Timestamp::now()],
                )?;
                let left = count(tx, "SELECT count(*) FROM recovery_code WHERE account = ?1 AND holder = ?2")?;
                let codes_kept = if left.unwrap_or(0) == 0 { NewCodes::Kept } else { NewCodes::NotNeeded };
                if codes_kept == NewCodes::Kept {
                    put_codes(tx, &name, &codes)?;
                }
                log::append(tx, draft)?;
                Ok(codes_kept)
            })
            .await;
        match made {
            Ok(codes) => Ok(codes),
            // It may be there.
            Err(StoreError::InDoubt) => Err(StoreError::InDoubt),
            Err(error) => {
                self.key_unlocate(vec![unmade]).await?;
                Err(error)
            }
        }
    }

    /// Takes a passkey away, against a code; with the last factor go the recovery codes.
    ///
    /// # Errors
    /// `code_used` if the code was used already or is none; [`StoreError::NotFound`].
    pub async fn passkey_remove(
        &self,
        permit: Permit<SetFactors>,
        id: PasskeyId,
        shown: Factor,
    ) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let detail = Map::from_iter([("done".to_owned(), json!("passkey_removed")), ("passkey".to_owned(), json!(id))]);
        let draft = permit.draft(Phase::Act, Verdict::Ok, detail);
        let gone = id.to_string();
        self.write(permit.tenant(), move |tx| {
            use_up(tx, &name, &shown)?;
            let taken =
                tx.exec("DELETE FROM passkey WHERE account = ?1 AND id = ?2 AND holder = ?3", args![&id, &name])?;
            if taken == 0 {
                return Err(StoreError::not_found("passkey", &id));
            }
            let more = tx.one(
                "SELECT 1 FROM account_user u WHERE u.account = ?1 AND u.name = ?2 AND (EXISTS (SELECT 1 FROM totp t \
                 WHERE t.account = u.account AND t.holder = u.name AND t.confirmed = 1) \
                 OR EXISTS (SELECT 1 FROM passkey p WHERE p.account = u.account AND p.holder = u.name))",
                args![&name],
                |_| Ok(()),
            )?;
            if more.is_none() {
                put_codes(tx, &name, &[])?;
            }
            log::append(tx, draft).map(drop)
        })
        .await?;
        self.key_unlocate(vec![gone]).await
    }

    pub(crate) async fn passkey_record(&self, id: &PasskeyId) -> Result<Option<PasskeyRecord>, StoreError> {
        let Some(tenant) = self.located(id.as_str()).await? else { return Ok(None) };
        self.database(&tenant)?
            .read(|sql| {
                sql.one(
                    "SELECT p.holder, u.role, p.credential FROM passkey p \
                     JOIN account_user u ON u.account = p.account AND u.name = p.holder \
                     WHERE p.account = ?1 AND p.id = ?2",
                    args![id],
                    |row| {
                        let passkey = StoredPasskey { id: id.clone(), credential: row.text(2)? };
                        Ok(PasskeyRecord { tenant: tenant.clone(), user: row.parse(0)?, role: row.parse(1)?, passkey })
                    },
                )
            })
            .await
    }
}

/// Every passkey of a user, for what locates them.
pub(crate) fn of_user(tx: &Tx<'_>, user: &UserName) -> Result<Vec<String>, StoreError> {
    tx.all("SELECT id FROM passkey WHERE account = ?1 AND holder = ?2", args![user], |row| row.text(0))
}

const KNOWN: StoreError = StoreError::Conflict { code: "passkey_known", message: "this passkey is set up already" };
const TOO_MANY: StoreError =
    StoreError::Conflict { code: "too_many_passkeys", message: "a user has at most 20 passkeys: remove one first" };
