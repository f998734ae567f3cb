//! Data keys under keys of the host's: encrypted anew while others write, and found missing at the start. The store
//! never opens one, so what stands in for the vault here is a name before the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bailiwick_auth::access::During;
use bailiwick_auth::access::verb::{ReadVault, ReleaseSecret, RewrapKeys, RotateDataKey, SetSecret};
use bailiwick_store::StoreError;
use bailiwick_store::data_key::{Rewrapped, Rewrapping, Sealed, StoredKey};
use bailiwick_store::secret::{Expect, Sealing};
use bailiwick_types::{RequestId, SecretKind, UsedBy};

use crate::account::account_dir;
use crate::fixture::{Fixture, House, permit};
use crate::{Backend, on_every_backend};

fn key(by: &str) -> StoredKey {
    StoredKey { by: by.to_owned(), bytes: format!("{by}:key").into_bytes() }
}

/// Seals under the key that is there, or a first one under `by`.
fn sealing(by: &'static str) -> Sealing {
    Box::new(move |there, version| {
        let key = there.unwrap_or_else(|| key(by));
        let sealed = format!("{}:{version}", key.by).into_bytes();
        Ok((key, sealed))
    })
}

fn rewrapping(to: &'static str) -> Rewrapping {
    Arc::new(move |_, old| Ok((old.by != to).then(|| key(to))))
}

async fn set(f: &Fixture, house: &House, name: &str, by: &'static str) -> u64 {
    let scope = f.scope(&house.admin).await;
    let permit = permit::<SetSecret>(&scope, scope.account());
    f.store
        .secret_set(permit, name.parse().unwrap(), SecretKind::Value, None, Expect::Either, sealing(by))
        .await
        .unwrap()
}

async fn rewrap(f: &Fixture, to: &'static str, how: Rewrapping) -> Rewrapped {
    let host = f.operator().await.host_scope(RequestId::new());
    f.store.data_key_rewrap(host.authorize::<RewrapKeys>().unwrap(), to.to_owned(), how).await.unwrap()
}

async fn status(f: &Fixture) -> Vec<(String, u64)> {
    let host = f.operator().await.host_scope(RequestId::new());
    f.store.data_key_status(host.authorize::<ReadVault>().unwrap()).await.unwrap().into_iter().collect()
}

async fn begin(f: &Fixture, present: &str, held: &[&str]) -> BTreeMap<String, u64> {
    let held: BTreeSet<String> = held.iter().map(ToString::to_string).collect();
    f.store.data_key_begin(present.to_owned(), held).await.unwrap()
}

fn counts(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_every_data_key_is_encrypted_anew_on_record_and_then_the_old_key_is_not_needed() {
    on_every_backend(async |f| {
        assert_eq!(begin(&f, "one", &["one"]).await, BTreeMap::new());
        set(&f, &f.acme, "token", "one").await;
        set(&f, &f.globex, "token", "one").await;
        // The next start has another key, and knows the old one still.
        assert_eq!(begin(&f, "two", &["two", "one"]).await, BTreeMap::new());
        let f = f.restart();
        // Without it, it would not start; and it says who needs it.
        assert_eq!(begin(&f, "two", &["two"]).await, BTreeMap::from([("one".to_owned(), 2)]));
        assert_eq!(status(&f).await, counts(&[("one", 2)]));

        // Killed in the middle: one account is done, the other is as it was, and both keys are needed.
        let done = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&done);
        let failing: Rewrapping = Arc::new(move |_, _| match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(Some(key("two"))),
            _ => Err(StoreError::Closed),
        });
        let host = f.operator().await.host_scope(RequestId::new());
        let cut = f.store.data_key_rewrap(host.authorize::<RewrapKeys>().unwrap(), "two".to_owned(), failing).await;
        assert!(matches!(cut, Err(StoreError::Closed)));
        let f = f.restart();
        assert_eq!(status(&f).await, counts(&[("one", 1), ("two", 1)]));
        assert_eq!(begin(&f, "two", &["two"]).await, BTreeMap::from([("one".to_owned(), 1)]));

        // A program that fails for one account leaves that one alone, and the old key noted.
        let broken: Rewrapping = Arc::new(|_, old| match old.by.as_str() {
            "two" => Ok(None),
            _ => Err(StoreError::Io(std::io::Error::other("out of reach"))),
        });
        assert_eq!(rewrap(&f, "two", broken).await, Rewrapped { rewrapped: 0, already: 1, failed: 1 });
        assert_eq!(begin(&f, "two", &["two"]).await.len(), 1);

        assert_eq!(rewrap(&f, "two", rewrapping("two")).await, Rewrapped { rewrapped: 1, already: 1, failed: 0 });
        assert_eq!(rewrap(&f, "two", rewrapping("two")).await, Rewrapped { rewrapped: 0, already: 2, failed: 0 });
        assert_eq!(status(&f).await, counts(&[("two", 2)]));
        let f = f.restart();
        assert_eq!(begin(&f, "two", &["two"]).await, BTreeMap::new(), "the old one can go");
        for house in [&f.acme, &f.globex] {
            let events = f.events(house).await;
            let of: Vec<_> = events.iter().filter(|event| event.draft.action == "host.vault.rewrap").collect();
            assert_eq!(of.len(), 1, "one act, one event");
            assert_eq!((&of[0].draft.detail["from"], &of[0].draft.detail["under"]), (&"one".into(), &"two".into()));
            assert!(f.verify(house).await.is_ok());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_secrets_that_are_set_while_keys_are_encrypted_anew_lie_under_the_key_that_is_there() {
    on_every_backend(async |f| {
        set(&f, &f.acme, "token", "zero").await;
        for round in 0..8 {
            let to: &'static str = ["one", "two"][round % 2];
            let (_, rewrapped) = tokio::join!(
                async {
                    for _ in 0..5 {
                        set(&f, &f.acme, "token", "never").await;
                    }
                },
                rewrap(&f, to, rewrapping(to))
            );
            assert_eq!(rewrapped.failed, 0);
            assert_eq!(status(&f).await, counts(&[(to, 1)]));
        }
        assert_eq!(set(&f, &f.acme, "token", "never").await, 42, "no version was lost");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_a_data_key_is_changed_with_all_that_lies_under_it_or_not_at_all() {
    on_every_backend(async |f| {
        for name in ["a", "b", "c"] {
            set(&f, &f.acme, name, "one").await;
        }
        set(&f, &f.globex, "a", "one").await;
        let scope = f.scope(&f.acme.admin).await;
        let rotate = || permit::<RotateDataKey>(&scope, scope.account());
        let anew = |values: Vec<Sealed>| -> Vec<Sealed> {
            let anew = |value: Sealed| Sealed { bytes: [value.bytes.as_slice(), b"!"].concat(), ..value };
            values.into_iter().map(anew).collect()
        };
        let failing = f.store.data_key_rotate(
            rotate(),
            Box::new(move |_, mut values| {
                values.pop();
                Ok((key("lost"), anew(values)))
            }),
        );
        assert!(failing.await.is_err(), "one secret less");
        assert_eq!(status(&f).await, counts(&[("one", 2)]), "nothing was changed");
        let done = f.store.data_key_rotate(rotate(), Box::new(move |_, values| Ok((key("new"), anew(values)))));
        assert_eq!(done.await.unwrap(), 3);
        assert_eq!(status(&f).await, counts(&[("new", 1), ("one", 1)]), "the neighbour's is as it was");
        let events = f.events(&f.acme).await;
        let event = events.iter().rfind(|event| event.draft.action == "secret.key.rotate").unwrap();
        assert_eq!(event.draft.detail["secrets"], 3);
        // The operator may, too, and sees nothing by it.
        let operator = f.set_up(&f.globex).await;
        assert!(operator.authorize::<RotateDataKey>(operator.account()).is_ok());
        assert!(operator.authorize::<SetSecret>(operator.account()).is_err());
        let member = f.scope(&f.acme.member).await;
        assert!(member.authorize::<RotateDataKey>(member.account()).is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_the_data_key_of_a_deleted_account_is_gone_and_needs_no_key() {
    on_every_backend(async |f| {
        set(&f, &f.acme, "token", "one").await;
        set(&f, &f.globex, "token", "two").await;
        assert_eq!(begin(&f, "two", &["two"]).await, BTreeMap::from([("one".to_owned(), 1)]), "the control");
        let host = f.operator().await.host_scope(RequestId::new());
        f.store.account_delete(host.authorize().unwrap(), f.acme.account.clone()).await.unwrap();
        assert_eq!(begin(&f, "two", &["two"]).await, BTreeMap::new());
        assert_eq!(status(&f).await, counts(&[("two", 1)]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_a_grant_of_an_older_file_is_for_sandboxes_and_for_nobody_else() {
    let f = Fixture::new(Backend::Sqlite).await;
    set(&f, &f.acme, "token", "one").await;
    let scope = f.scope(&f.acme.admin).await;
    let path = account_dir(&f, &scope).join("account.db");
    let account = scope.tenant().incarnation().to_string();
    drop(scope);
    let f = f.restart_around(|| {
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch(
            "DROP TABLE notice; DROP TABLE notification; DROP TABLE job_event; DROP TABLE job; ALTER TABLE secret DROP COLUMN kind; \
             ALTER TABLE secret DROP COLUMN refresh; ALTER TABLE secret DROP COLUMN refresh_until; \
             DROP TABLE secret_grant; CREATE TABLE secret_grant (account TEXT NOT NULL, secret TEXT NOT NULL, \
             agent TEXT NOT NULL, hosts TEXT NOT NULL, created_at INTEGER NOT NULL, \
             PRIMARY KEY (account, secret, agent, hosts)) STRICT, WITHOUT ROWID; \
             INSERT INTO secret_grant SELECT account, 'token', 'helper', 'api.example', 1 FROM secret; \
             PRAGMA user_version = 7",
        )
        .unwrap();
        let found: String = file.query_row("SELECT account FROM secret_grant", [], |row| row.get(0)).unwrap();
        assert!(found.contains(&account) || account.contains(&found), "{found} {account}");
    });
    let scope = f.scope(&f.acme.admin).await;
    let rows = f.store.secret_list(permit(&scope, scope.account())).await.unwrap();
    let grants: Vec<_> = rows[0].grants.iter().map(|grant| (grant.used_by, grant.hosts.to_string())).collect();
    assert_eq!(grants, [(UsedBy::Sandbox, "api.example".to_owned())]);
    let session = f.session(&f.acme.admin).await;
    let asked = async |used_by| {
        let (name, host) = ("token".parse().unwrap(), "api.example".parse().unwrap());
        let asked = f.store.secret_use(&scope, session.clone(), name, host, (used_by, During::Nothing)).await.unwrap();
        scope.authorize::<ReleaseSecret>(asked).map(drop).map_err(|refusal| refusal.code())
    };
    assert_eq!(asked(UsedBy::Sandbox).await, Ok(()), "the control");
    assert_eq!(asked(UsedBy::Model).await, Err(Some("secret_not_granted")));
}
