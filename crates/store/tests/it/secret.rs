//! Grants and for how long each is, and the right to refresh a grant of OAuth: one at a time has it.

use std::time::Duration;

use bailiwick_audit::Verdict;
use bailiwick_auth::access::verb::{GrantSecret, ListSecrets, RefreshSecret, ReleaseSecret, SetSecret};
use bailiwick_auth::access::{During, record};
use bailiwick_store::StoreError;
use bailiwick_store::data_key::StoredKey;
use bailiwick_store::secret::{Change, Expect, Grant, Refresh, Sealing};
use bailiwick_types::host::HostPattern;
use bailiwick_types::{LeaseTerm, SecretKind, Timestamp, UsedBy};
use serde_json::Map;

use crate::fixture::{Fixture, House, permit};
use crate::on_every_backend;

fn sealing() -> Sealing {
    Box::new(|there, version| {
        let key = there.unwrap_or_else(|| StoredKey { by: "one".to_owned(), bytes: b"key".to_vec() });
        Ok((key, format!("sealed:{version}").into_bytes()))
    })
}

async fn set(f: &Fixture, house: &House, kind: SecretKind) -> u64 {
    let scope = f.scope(&house.admin).await;
    let permit = permit::<SetSecret>(&scope, scope.account());
    f.store.secret_set(permit, "token".parse().unwrap(), kind, None, Expect::Either, sealing()).await.unwrap()
}

async fn grant(f: &Fixture, house: &House, hosts: &str, lease: LeaseTerm) {
    let scope = f.scope(&house.admin).await;
    let permit = permit::<GrantSecret>(&scope, scope.account());
    let hosts = HostPattern::parse(hosts).unwrap();
    let grant = Grant { agent: "helper".parse().unwrap(), used_by: UsedBy::Sandbox, hosts, lease };
    f.store.secret_grant(permit, "token".parse().unwrap(), grant, Change::Give).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_of_several_grants_the_most_specific_says_when_a_secret_is_released() {
    on_every_backend(async |f| {
        for house in [&f.acme, &f.globex] {
            set(&f, house, SecretKind::Value).await;
        }
        grant(&f, &f.acme, "*.example", LeaseTerm::Minute).await;
        grant(&f, &f.acme, "api.example", LeaseTerm::ApprovedCall).await;
        grant(&f, &f.acme, "*.calls.example", LeaseTerm::Call).await;
        let asked = async |house: &House, host: &str, during| {
            let (scope, session) = (f.scope(&house.admin).await, f.session(&house.admin).await);
            let (name, host) = ("token".parse().unwrap(), host.parse().unwrap());
            let asked = f.store.secret_use(&scope, session, name, host, (UsedBy::Sandbox, during)).await.unwrap();
            scope.authorize::<ReleaseSecret>(asked).map(drop).map_err(|refusal| refusal.code().unwrap_or("none"))
        };
        for (host, during, expected) in [
            ("www.example", During::Nothing, Ok(())),
            ("x.calls.example", During::Nothing, Err("no_call_running")),
            ("x.calls.example", During::Call, Ok(())),
            ("api.example", During::Nothing, Err("no_call_running")),
            ("api.example", During::Call, Err("call_not_approved")),
            ("api.example", During::ApprovedCall, Ok(())),
            ("example", During::ApprovedCall, Err("secret_not_granted")),
        ] {
            assert_eq!(asked(&f.acme, host, during).await, expected, "{host} {during:?}");
            assert_eq!(asked(&f.globex, host, during).await, Err("secret_not_granted"), "{host}");
        }
        // Given again it is what it is now, and is one.
        grant(&f, &f.acme, "api.example", LeaseTerm::Call).await;
        assert_eq!(asked(&f.acme, "api.example", During::Call).await, Ok(()));
        let scope = f.scope(&f.acme.admin).await;
        let rows = f.store.secret_list(permit::<ListSecrets>(&scope, scope.account())).await.unwrap();
        let leases: Vec<_> = rows[0].grants.iter().map(|grant| (grant.hosts.to_string(), grant.lease)).collect();
        let expected =
            [("*.calls.example", LeaseTerm::Call), ("*.example", LeaseTerm::Minute), ("api.example", LeaseTerm::Call)];
        assert_eq!(leases, expected.map(|(hosts, lease)| (hosts.to_owned(), lease)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_the_right_to_refresh_a_grant_is_one_servers_and_lapses() {
    on_every_backend(async |f| {
        set(&f, &f.acme, SecretKind::Value).await;
        grant(&f, &f.acme, "api.example", LeaseTerm::Minute).await;
        let (scope, session) = (f.scope(&f.acme.admin).await, f.session(&f.acme.admin).await);
        let allowed = async || {
            let (name, host) = ("token".parse().unwrap(), "api.example".parse().unwrap());
            let using = (UsedBy::Sandbox, During::Nothing);
            let asked = f.store.secret_use(&scope, session.clone(), name, host, using).await.unwrap();
            scope.authorize::<RefreshSecret>(asked).unwrap()
        };
        let long = Duration::from_secs(600);
        let take = async |version, time| f.store.secret_refresh_take(&allowed().await, version, time).await.unwrap();
        assert!(take(1, long).await.is_none(), "a value is not refreshed");
        assert_eq!(set(&f, &f.acme, SecretKind::OAuth).await, 2);
        assert!(take(1, long).await.is_none(), "another version");
        // The first lapses at once, as that of a server that was killed; the second holds.
        let first = take(2, Duration::ZERO).await.unwrap();
        let second = take(2, long).await.unwrap();
        assert!(take(2, long).await.is_none());
        let begun = async || record(&f.store, allowed().await, Map::new()).await.unwrap();
        let late = f.store.secret_refreshed(&begun().await, &first, Map::new(), sealing()).await;
        assert!(matches!(late, Err(StoreError::NotFound { .. })), "{late:?}");
        let done = f.store.secret_refreshed(&begun().await, &second, Map::new(), sealing()).await;
        assert_eq!(done.unwrap(), 3);
        // It failed: nobody before its time, then somebody; with an error of the standard nobody, until it is set.
        let fails = async |version, next| {
            let taken = take(version, long).await.unwrap();
            f.store.secret_refresh_failed(&begun().await, &taken, next, Map::new()).await.unwrap();
        };
        fails(3, Refresh::Waiting(Timestamp::now().after(long))).await;
        assert!(take(3, long).await.is_none());
        assert_eq!(set(&f, &f.acme, SecretKind::OAuth).await, 4);
        fails(4, Refresh::Waiting(Timestamp::now())).await;
        fails(4, Refresh::Failed("invalid_grant".to_owned())).await;
        assert!(take(4, long).await.is_none());
        let row = async || f.store.secret_list(permit::<ListSecrets>(&scope, scope.account())).await.unwrap().remove(0);
        assert_eq!(row().await.set_again.as_deref(), Some("invalid_grant"));
        assert_eq!(set(&f, &f.acme, SecretKind::OAuth).await, 5);
        assert_eq!((row().await.set_again, row().await.kind), (None, SecretKind::OAuth));
        assert!(take(5, long).await.is_some(), "the control");
        // Each outcome stands with what it did.
        let events = f.events(&f.acme).await;
        let of = events.iter().filter(|event| event.draft.action == "secret.refresh" && event.draft.intent.is_some());
        let verdicts: Vec<Verdict> = of.map(|event| event.draft.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fail, Verdict::Fail, Verdict::Fail]);
    })
    .await;
}
