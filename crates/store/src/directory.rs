//! What authentication reads.

use std::net::IpAddr;

use bailiwick_auth::Tenant;
use bailiwick_auth::authn::application::{ApplicationRecord, TokenRecord};
use bailiwick_auth::authn::passkey::PasskeyRecord;
use bailiwick_auth::authn::sign_in::SignInRecord;
use bailiwick_auth::authn::{DeviceRecord, Directory, DirectoryError, KeyRecord};
use bailiwick_auth::key::{KeyHash, Kind};
use bailiwick_auth::lockout::Tally;
use bailiwick_types::{AccountName, ApplicationId, DeviceId, KeyId, PasskeyId, Role, UserName};

use crate::account::{tenant_columns, tenant_of_columns};
use crate::error::StoreError;
use crate::key::scopes_parse;
use crate::sql::args;
use crate::store::Store;

fn failed(error: StoreError) -> DirectoryError {
    DirectoryError(Box::new(error))
}

impl Directory for Store {
    async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, DirectoryError> {
        self.key_record(id).await.map_err(failed)
    }

    fn key_used(&self, id: &KeyId, record: &KeyRecord) {
        self.note_key_used(record.tenant.incarnation(), id, record.last_used_at);
    }

    async fn tenant(&self, account: &AccountName) -> Result<Option<Tenant>, DirectoryError> {
        self.tenant_of(account).await.map_err(failed)
    }

    async fn role(&self, tenant: &Tenant, user: &UserName) -> Result<Option<Role>, DirectoryError> {
        let database = self.database(tenant).map_err(failed)?;
        let read = database.read(|sql| {
            sql.one("SELECT role FROM account_user WHERE account = ?1 AND name = ?2", args![user], |row| row.parse(0))
        });
        read.await.map_err(failed)
    }

    async fn device(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, DirectoryError> {
        self.device_record(id).await.map_err(failed)
    }

    fn device_seen(&self, id: &DeviceId, record: &DeviceRecord, client: IpAddr) {
        self.note_device_seen(record.tenant.incarnation(), id, client);
    }

    async fn device_timed_out(
        &self,
        id: &DeviceId,
        record: &DeviceRecord,
        client: IpAddr,
    ) -> Result<(), DirectoryError> {
        self.device_expire(id, record, client).await.map_err(failed)
    }

    async fn application(&self, id: &ApplicationId) -> Result<Option<ApplicationRecord>, DirectoryError> {
        self.application_record(id).await.map_err(failed)
    }

    async fn application_token(
        &self,
        id: &ApplicationId,
        kind: Kind,
        hash: &KeyHash,
    ) -> Result<Option<TokenRecord>, DirectoryError> {
        self.application_token_record(id, kind, hash).await.map_err(failed)
    }

    async fn sign_in(&self, account: &AccountName, user: &UserName) -> Result<Option<SignInRecord>, DirectoryError> {
        self.sign_in_record(account, user).await.map_err(failed)
    }

    async fn passkey(&self, id: &PasskeyId) -> Result<Option<PasskeyRecord>, DirectoryError> {
        self.passkey_record(id).await.map_err(failed)
    }

    async fn tally<T: Send + 'static>(
        &self,
        subject: String,
        change: impl FnOnce(&mut Tally) -> T + Send + 'static,
    ) -> Result<T, DirectoryError> {
        self.tally_change(subject, change).await.map_err(failed)
    }
}

impl Store {
    /// Where the holder of a credential lives, by the credential's public half.
    pub(crate) async fn located(&self, id: &str) -> Result<Option<Tenant>, StoreError> {
        let located = self
            .host()
            .read(|sql| {
                sql.one(
                    "SELECT a.name, a.incarnation, a.jail_user, a.policy FROM key_locator k JOIN account a \
                 ON a.incarnation = k.incarnation WHERE ?1 = 'host' AND k.key_id = ?2",
                    args![id],
                    tenant_columns,
                )
            })
            .await?;
        located.map(tenant_of_columns).transpose()
    }

    async fn device_record(&self, id: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        let Some(tenant) = self.located(id.as_str()).await? else { return Ok(None) };
        self.database(&tenant)?
            .read(|sql| {
                sql.one(
                    "SELECT d.hash, d.holder, u.role, d.last_seen_at FROM device d \
                     JOIN account_user u ON u.account = d.account AND u.name = d.holder \
                     WHERE d.account = ?1 AND d.id = ?2",
                    args![id],
                    |row| {
                        Ok(DeviceRecord {
                            hash: KeyHash::from_bytes(&row.blob(0)?).ok_or(StoreError::Corrupt("a token's hash"))?,
                            tenant: tenant.clone(),
                            user: row.parse(1)?,
                            role: row.parse(2)?,
                            last_seen_at: row.time(3)?,
                        })
                    },
                )
            })
            .await
    }

    async fn key_record(&self, id: &KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let Some(tenant) = self.located(id.as_str()).await? else { return Ok(None) };
        let found = self
            .database(&tenant)?
            .read(|sql| {
                sql.one(
                    "SELECT k.hash, k.holder, u.role, k.scopes, k.space, k.agent, k.expires_at, k.last_used_at \
                 FROM api_key k JOIN account_user u ON u.account = k.account AND u.name = k.holder \
                 WHERE k.account = ?1 AND k.id = ?2",
                    args![id],
                    |row| {
                        let record = KeyRecord {
                            hash: KeyHash::from_bytes(&row.blob(0)?).ok_or(StoreError::Corrupt("a key's hash"))?,
                            tenant: tenant.clone(),
                            user: row.parse(1)?,
                            role: row.parse(2)?,
                            scopes: scopes_parse(&row.text(3)?)?,
                            space: row.optional_parse(4)?,
                            agent: row.optional_parse(5)?,
                            expires_at: row.optional_time(6)?,
                            last_used_at: row.optional_time(7)?,
                        };
                        Ok(record)
                    },
                )
            })
            .await?;
        Ok(found)
    }
}
