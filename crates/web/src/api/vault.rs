//! The keys that keep secrets: the host's own, above the accounts' data keys, and those data keys. No route shows a
//! key; what is shown are ids.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::Tenant;
use bailiwick_auth::access::verb::{ReadVault, RewrapKeys, RotateDataKey};
use bailiwick_store::StoreError;
use bailiwick_store::data_key::{Resealing, Rewrapping, Sealed, StoredKey};
use bailiwick_store::secret::Sealing;
use bailiwick_vault::{DataKey, SealError, SealedSecret, WrappedKey};
use serde_json::{Value, json};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::Segments;
use crate::reply;
use crate::route::routes;

routes! {
    GET "/api/v1/admin/vault" status, Known, [ReadVault], Nothing, "The host's keys above the accounts' data keys by their ids, and how many accounts need each";
    POST "/api/v1/admin/vault/rewrap" rewrap, Known, [RewrapKeys], Nothing, "Encrypt every account's data key anew under the host's present key";
    POST "/api/v1/admin/accounts/{account}/data-key" rotate, Known, [RotateDataKey], Nothing, "Seal all secrets of an account anew under a new data key";
}

pub(crate) fn failed(error: SealError) -> StoreError {
    StoreError::Io(io::Error::other(error))
}

pub(crate) fn wrapped(key: StoredKey) -> WrappedKey {
    WrappedKey { by: key.by, bytes: key.bytes }
}

pub(crate) fn stored(key: &WrappedKey) -> StoredKey {
    StoredKey { by: key.by.clone(), bytes: key.bytes.clone() }
}

/// Runs what may wait for a key program.
pub(crate) async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SealError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| Failure::Defect("the vault panicked"))??)
}

/// Seals a value under the account's data key `found`, which is made with the account's first one. That key is opened
/// before the transaction, so that nobody else's writing waits for a key program; if it is another one by then, in it.
/// `seal` is given the key and the value's version.
pub(crate) async fn sealing(
    app: &App,
    tenant: &Tenant,
    found: Option<StoredKey>,
    seal: impl FnOnce(&DataKey, u64) -> Result<SealedSecret, SealError> + Send + 'static,
) -> Result<Sealing, Failure> {
    let (vault, tenant, found) = (app.vault(), tenant.clone(), found.map(wrapped));
    let prepared = waiting(move || {
        let key = match found {
            Some(key) => vault.unlock(&tenant, key),
            None => vault.new_key(&tenant),
        };
        Ok((key?, vault, tenant))
    });
    let (key, vault, tenant) = prepared.await?;
    Ok(Box::new(move |there, version| {
        let key = match there.map(wrapped) {
            Some(there) if there != *key.wrapped() => vault.unlock(&tenant, there).map_err(failed)?,
            _ => key,
        };
        let sealed = seal(&key, version).map_err(failed)?;
        Ok((stored(key.wrapped()), sealed.bytes))
    }))
}

async fn status(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ReadVault>()?;
    let mut under: BTreeMap<String, u64> = app.store().data_key_status(permit).await?;
    let vault = app.vault();
    let mut row = |id: &str, state: &str| -> Value {
        json!({ "id": id, "state": state, "accounts": under.remove(id).unwrap_or(0) })
    };
    let mut keys = vec![row(vault.current(), "present")];
    keys.extend(vault.old().map(|id| row(id, "old")));
    // Another server on the same database may have given them one that this one was not given.
    keys.extend(under.into_iter().map(|(id, accounts)| json!({ "id": id, "state": "missing", "accounts": accounts })));
    Ok(reply::done(json!({ "keys": keys })))
}

async fn rewrap(State(app): State<App>, caller: Caller) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<RewrapKeys>()?;
    let (store, vault) = (app.store().clone(), app.vault());
    let present = vault.current().to_owned();
    let rewrapping: Rewrapping = Arc::new(move |account, key| {
        let new = vault.rewrap(account, &wrapped(key.clone())).map_err(failed)?;
        Ok(new.as_ref().map(stored))
    });
    let under = present.clone();
    // To its end, also if the caller goes away meanwhile.
    let running = tokio::spawn(async move { store.data_key_rewrap(permit, present, rewrapping).await });
    let done = running.await.map_err(|_| Failure::Defect("the encrypting of data keys panicked"))??;
    Ok(reply::done(json!({
        "under": under, "rewrapped": done.rewrapped, "already": done.already, "failed": done.failed,
    })))
}

async fn rotate(State(app): State<App>, caller: Caller, Segments(name): Segments<String>) -> Result<Response, Failure> {
    let (account, scope) = caller.account(&app, &name).await?;
    let permit = scope.authorize::<RotateDataKey>(scope.account())?;
    let (vault, tenant) = (app.vault(), scope.tenant().clone());
    let old = wrapped(app.store().data_key_read(&permit).await?);
    // Both keys before the transaction: nobody else's writing waits for a key program.
    let (again, of) = (Arc::clone(&vault), tenant.clone());
    let (old, new) = waiting(move || Ok((again.unlock(&of, old)?, again.new_key(&of)?))).await?;
    let resealing: Resealing = Box::new(move |key, values| {
        let key = wrapped(key);
        // Somebody may have encrypted it anew, or changed it, in the same moment.
        let old = if *old.wrapped() == key { old } else { vault.unlock(&tenant, key).map_err(failed)? };
        let values: Result<Vec<Sealed>, SealError> =
            values.into_iter().map(|value| reseal(&old, &new, value)).collect();
        Ok((stored(new.wrapped()), values.map_err(failed)?))
    });
    let secrets = app.store().data_key_rotate(permit, resealing).await?;
    Ok(reply::done(json!({ "account": account, "secrets": secrets })))
}

fn reseal(old: &DataKey, new: &DataKey, value: Sealed) -> Result<Sealed, SealError> {
    let Sealed { of, version, bytes } = value;
    let sealed = old.reseal(new, &SealedSecret { of, version, bytes })?;
    Ok(Sealed { of: sealed.of, version: sealed.version, bytes: sealed.bytes })
}
