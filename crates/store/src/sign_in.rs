//! What an attempt to sign in is held against, and the counts of those that failed.

use bailiwick_auth::authn::passkey::StoredPasskey;
use bailiwick_auth::authn::sign_in::{SignInRecord, StoredTotp};
use bailiwick_auth::lockout::Tally;
use bailiwick_auth::password::StoredPassword;
use bailiwick_types::{AccountName, Timestamp, UserName};

use crate::error::StoreError;
use crate::sql::args;
use crate::store::Store;

/// Counts whose last change was this long ago say nothing any more, microseconds: two days, which is twice
/// the longest window.
const STALE: i64 = 2 * 24 * 3600 * 1_000_000;

impl Store {
    pub(crate) async fn sign_in_record(
        &self,
        account: &AccountName,
        user: &UserName,
    ) -> Result<Option<SignInRecord>, StoreError> {
        let Some(tenant) = self.tenant_of(account).await? else { return Ok(None) };
        self.database(&tenant)?
            .read(|sql| {
                let role =
                    sql.one("SELECT role FROM account_user WHERE account = ?1 AND name = ?2", args![user], |row| {
                        row.parse(0)
                    })?;
                let Some(role) = role else { return Ok(None) };
                let password = sql.one(
                    "SELECT hash FROM account_password WHERE account = ?1 AND holder = ?2",
                    args![user],
                    |row| Ok(StoredPassword::from_text(row.text(0)?)),
                )?;
                let totp = sql.one(
                    "SELECT sealed, last_step FROM totp WHERE account = ?1 AND holder = ?2 AND confirmed = 1",
                    args![user],
                    |row| Ok(StoredTotp { sealed: row.blob(0)?, last_step: row.count(1)? }),
                )?;
                let passkeys = sql.all(
                    "SELECT id, credential FROM passkey WHERE account = ?1 AND holder = ?2 ORDER BY created_at, id",
                    args![user],
                    |row| Ok(StoredPasskey { id: row.parse(0)?, credential: row.text(1)? }),
                )?;
                let (tenant, user) = (tenant.clone(), user.clone());
                Ok(Some(SignInRecord { tenant, user, role, password, totp, passkeys }))
            })
            .await
    }

    /// Changes one count in the host's database.
    pub(crate) async fn tally_change<T: Send + 'static>(
        &self,
        subject: String,
        change: impl FnOnce(&mut Tally) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writers()
            .write(self.host(), move |tx| {
                let found = tx.one(
                    "SELECT failures, since, locked_until FROM sign_in_tally WHERE ?1 = 'host' AND subject = ?2",
                    args![&subject],
                    |row| {
                        let failures = u32::try_from(row.count(0)?).unwrap_or(u32::MAX);
                        Ok(Tally { failures, since: row.optional_time(1)?, until: row.optional_time(2)? })
                    },
                )?;
                let mut tally = found.unwrap_or_default();
                let answer = change(&mut tally);
                if tally.failures == 0 {
                    tx.exec("DELETE FROM sign_in_tally WHERE ?1 = 'host' AND subject = ?2", args![&subject])?;
                } else if found != Some(tally) {
                    tx.exec(
                        "INSERT INTO sign_in_tally (subject, failures, since, locked_until) \
                         SELECT ?2, ?3, ?4, ?5 WHERE ?1 = 'host' ON CONFLICT (subject) DO UPDATE SET \
                         failures = excluded.failures, since = excluded.since, locked_until = excluded.locked_until",
                        args![&subject, tally.failures, tally.since, tally.until],
                    )?;
                    let stale = Timestamp::now().as_micros() - STALE;
                    tx.exec("DELETE FROM sign_in_tally WHERE ?1 = 'host' AND since < ?2", args![stale])?;
                }
                Ok(answer)
            })
            .await
    }
}
