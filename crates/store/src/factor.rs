//! Second factors: the authenticator app's sealed secret, and recovery codes as keyed hashes.

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::{ReadUser, ResetFactors, SetFactors};
use bailiwick_auth::authn::sign_in::Factor;
use bailiwick_auth::key::KeyHash;
use bailiwick_types::{Timestamp, UserName};
use serde_json::{Map, json};

use crate::device::{self, Which, use_up};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::sql::args;
use crate::store::Store;
use crate::{application, log, passkey, user};

/// What a user has set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    /// Whether an authenticator app is asked for.
    pub totp: bool,
    /// Recovery codes that are left.
    pub recovery_codes: u64,
    /// Passkeys.
    pub passkeys: u64,
}

pub(crate) fn noted<V>(permit: &Permit<V>, done: &'static str) -> Draft
where
    V: bailiwick_auth::access::Verb,
{
    permit.draft(Phase::Act, Verdict::Ok, Map::from_iter([("done".to_owned(), json!(done))]))
}

pub(crate) fn put_codes(tx: &mut Tx<'_>, user: &UserName, codes: &[KeyHash]) -> Result<(), StoreError> {
    tx.exec("DELETE FROM recovery_code WHERE account = ?1 AND holder = ?2", args![user])?;
    for code in codes {
        tx.exec("INSERT INTO recovery_code (account, holder, hash) VALUES (?1, ?2, ?3)", args![user, code.as_bytes()])?;
    }
    Ok(())
}

/// How long a begun app waits for its first code, microseconds.
const BEGUN_FOR: i64 = 10 * 60 * 1_000_000;

/// There is an app already.
const SET_UP: StoreError =
    StoreError::Conflict { code: "totp_set_up", message: "an authenticator app is set up: remove it first" };
/// There is none.
const NOT_SET_UP: StoreError =
    StoreError::Conflict { code: "totp_not_set_up", message: "no authenticator app is set up" };

impl Store {
    /// What a user has set up.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn factors_read(&self, permit: Permit<ReadUser>) -> Result<Factors, StoreError> {
        let user = permit.resource().name();
        self.database(permit.tenant())?
            .read(|sql| {
                let count = |text: &'static str| sql.one(text, args![user], |row| row.count(0));
                Ok(Factors {
                    totp: count("SELECT count(*) FROM totp WHERE account = ?1 AND holder = ?2 AND confirmed = 1")?
                        .is_some_and(|n| n > 0),
                    recovery_codes: count("SELECT count(*) FROM recovery_code WHERE account = ?1 AND holder = ?2")?
                        .unwrap_or(0),
                    passkeys: count("SELECT count(*) FROM passkey WHERE account = ?1 AND holder = ?2")?.unwrap_or(0),
                })
            })
            .await
    }

    /// Keeps the sealed secret of an app that has not shown a code yet. Until it does nobody is asked for one.
    ///
    /// # Errors
    /// `totp_set_up` if there is an app already.
    pub async fn totp_begin(&self, permit: Permit<SetFactors>, sealed: Vec<u8>) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let draft = noted(&permit, "totp_begun");
        self.write(permit.tenant(), move |tx| {
            user::role(tx, &name)?;
            let kept = tx.exec(
                "INSERT INTO totp (account, holder, sealed, confirmed, last_step, created_at) \
                 VALUES (?1, ?2, ?3, 0, 0, ?4) ON CONFLICT (account, holder) DO UPDATE SET \
                 sealed = excluded.sealed, created_at = excluded.created_at WHERE totp.confirmed = 0",
                args![&name, sealed.as_slice(), Timestamp::now()],
            )?;
            if kept == 0 { Err(SET_UP) } else { log::append(tx, draft).map(drop) }
        })
        .await
    }

    /// The sealed secret that waits for its first code.
    ///
    /// # Errors
    /// `totp_not_set_up` if none does.
    pub async fn totp_waiting(&self, permit: &Permit<SetFactors>) -> Result<Vec<u8>, StoreError> {
        let user = permit.resource().name();
        let found = self
            .database(permit.tenant())?
            .read(|sql| {
                sql.one(
                    "SELECT sealed FROM totp WHERE account = ?1 AND holder = ?2 AND confirmed = 0 AND created_at > ?3",
                    args![user, Timestamp::now().as_micros() - BEGUN_FOR],
                    |row| row.blob(0),
                )
            })
            .await?;
        found.ok_or(NOT_SET_UP)
    }

    /// From now on the app is asked for: it showed the code of `step`. `sealed`: the secret that it was for.
    ///
    /// # Errors
    /// `totp_not_set_up` if another was begun meanwhile.
    pub async fn totp_confirm(
        &self,
        permit: Permit<SetFactors>,
        sealed: Vec<u8>,
        step: u64,
        codes: Vec<KeyHash>,
    ) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let draft = noted(&permit, "totp_enabled");
        self.write(permit.tenant(), move |tx| {
            let confirmed = tx.exec(
                "UPDATE totp SET confirmed = 1, last_step = ?4 \
                 WHERE account = ?1 AND holder = ?2 AND confirmed = 0 AND sealed = ?3",
                args![&name, sealed.as_slice(), step],
            )?;
            if confirmed == 0 {
                return Err(NOT_SET_UP);
            }
            put_codes(tx, &name, &codes)?;
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Takes the app and the recovery codes away, against a code of one of them.
    ///
    /// # Errors
    /// `code_used` if the code was used already or is none.
    pub async fn totp_remove(&self, permit: Permit<SetFactors>, shown: Factor) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let draft = noted(&permit, "totp_disabled");
        self.write(permit.tenant(), move |tx| {
            use_up(tx, &name, &shown)?;
            tx.exec("DELETE FROM totp WHERE account = ?1 AND holder = ?2", args![&name])?;
            // Passkeys can be lost, too.
            if passkey::of_user(tx, &name)?.is_empty() {
                put_codes(tx, &name, &[])?;
            }
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Puts new recovery codes in place of all the old ones, against a code.
    ///
    /// # Errors
    /// `code_used` if the code was used already or is none.
    pub async fn recovery_codes_replace(
        &self,
        permit: Permit<SetFactors>,
        shown: Factor,
        codes: Vec<KeyHash>,
    ) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let draft = noted(&permit, "recovery_codes_replaced");
        self.write(permit.tenant(), move |tx| {
            use_up(tx, &name, &shown)?;
            put_codes(tx, &name, &codes)?;
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Takes all of a user's second factors away, and ends their logins: somebody who lost them asked for it,
    /// or somebody who stole them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the user is not there.
    pub async fn factors_reset(&self, permit: Permit<ResetFactors>) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        let ended = self
            .write(permit.tenant(), move |tx| {
                user::role(tx, &name)?;
                let totp = tx.exec("DELETE FROM totp WHERE account = ?1 AND holder = ?2", args![&name])?;
                let passkeys = passkey::of_user(tx, &name)?;
                tx.exec("DELETE FROM passkey WHERE account = ?1 AND holder = ?2", args![&name])?;
                put_codes(tx, &name, &[])?;
                let ended = device::end(tx, &name, &Which::All)?;
                draft.detail.insert("totp".to_owned(), json!(totp));
                draft.detail.insert("passkeys".to_owned(), json!(passkeys.len()));
                let applications = application::end_all(tx, &name)?;
                draft.detail.insert("logins_ended".to_owned(), json!(ended.len()));
                draft.detail.insert("applications_ended".to_owned(), json!(applications.len()));
                log::append(tx, draft)?;
                Ok([ended, passkeys, applications].concat())
            })
            .await?;
        self.key_unlocate(ended).await
    }
}
