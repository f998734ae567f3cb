//! What is true of PostgreSQL alone: a server that looks at its database before it trusts it, and a
//! database that goes away and comes back.

use std::time::Duration;

use bailiwick_auth::access::verb::CreateSpace;
use bailiwick_store::{DatabaseUrl, Store, StoreError};
use bailiwick_testkit::database::Postgres;

use crate::Backend;
use crate::fixture::{self, Fixture, permit};

fn url(text: &str) -> bailiwick_store::url::PostgresUrl {
    match text.parse().unwrap() {
        DatabaseUrl::Postgres(url) => *url,
        DatabaseUrl::Sqlite => panic!("no PostgreSQL"),
    }
}

/// Why the server refuses to run on this database.
fn unsafe_because(database: &Postgres, url: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    match Store::open(dir.path(), &url.parse().unwrap()) {
        Err(StoreError::Unsafe(why)) => why,
        Err(other) => panic!("{}: another error: {other:?}", database.name),
        Ok(_) => panic!("{} was trusted", database.name),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn z01_a_database_that_would_not_keep_tenants_apart_is_refused() {
    let Some(database) = Postgres::fresh() else { return };
    let app = database.url();
    let root = database.superuser().await;
    assert!(fixture::open(tempfile::tempdir().unwrap().path(), &Backend::Postgres(Box::new(database.clone()))).is_ok());
    assert!(unsafe_because(&database, &database.owner_url()).contains("owns tables"));
    // Each wall taken away, seen, and put back. Roles belong to the whole server, so each has its own.
    for (take, put, why) in [
        ("ALTER TABLE session DISABLE ROW LEVEL SECURITY", "ALTER TABLE session ENABLE ROW LEVEL SECURITY", "session"),
        ("ALTER TABLE event NO FORCE ROW LEVEL SECURITY", "ALTER TABLE event FORCE ROW LEVEL SECURITY", "event"),
        (
            "CREATE POLICY wide ON space USING (TRUE)",
            "DROP POLICY wide ON space",
            "policies that do not ask for the tenant (space: wide)",
        ),
        (
            "CREATE TABLE later (n BIGINT); GRANT SELECT ON later TO bailiwick_app",
            "DROP TABLE later",
            "without forced row-level security (later)",
        ),
        (
            "ALTER POLICY reader ON session RENAME TO kept; CREATE POLICY wide ON session USING (TRUE)",
            "ALTER POLICY kept ON session RENAME TO reader; DROP POLICY wide ON session",
            "policies that do not ask for the tenant (session: wide)",
        ),
        ("GRANT DELETE ON event TO bailiwick_app", "REVOKE DELETE ON event FROM bailiwick_app", "change the record"),
        (
            "CREATE VIEW everybody AS SELECT * FROM account_user; GRANT SELECT ON everybody TO bailiwick_app",
            "DROP VIEW everybody",
            "views",
        ),
    ] {
        root.batch_execute(take).await.unwrap();
        let found = unsafe_because(&database, &app);
        assert!(found.contains(why), "{take}: {found}");
        root.batch_execute(put).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert!(Store::open(dir.path(), &app.parse().unwrap()).is_ok(), "put back after: {take}");
    }
    for (n, (wrong, why)) in [
        ("SUPERUSER", "superuser"),
        ("BYPASSRLS", "BYPASSRLS"),
        ("IN ROLE bailiwick_owner", "can become a role"),
        ("NOINHERIT IN ROLE bailiwick_owner", "can become a role"),
    ]
    .iter()
    .enumerate()
    {
        let role = format!("{}_{n}", database.name);
        root.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x' {wrong}")).await.unwrap();
        let (before, host) = app.split_once('@').unwrap();
        assert!(before.starts_with("postgres://"));
        let found = unsafe_because(&database, &format!("postgres://{role}:x@{host}"));
        assert!(found.contains(why), "{wrong}: {found}");
        root.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_prepared_once_and_by_its_owner_alone() {
    let Some(database) = Postgres::fresh() else { return };
    let owner = url(&database.owner_url());
    let again = bailiwick_store::postgres::prepare(&owner, "bailiwick_app").await.unwrap();
    assert_eq!(again.0, again.1, "nothing is left to do");
    let own = bailiwick_store::postgres::prepare(&owner, "bailiwick_owner").await;
    assert!(matches!(own, Err(StoreError::Unsafe(_))), "{own:?}");
    let missing = bailiwick_store::postgres::prepare(&owner, "nobody_here").await;
    assert!(matches!(&missing, Err(StoreError::Unsafe(why)) if why.contains("CREATE ROLE")), "{missing:?}");
    let root = database.superuser().await;
    root.batch_execute("UPDATE schema_version SET version = 99").await.unwrap();
    let newer = bailiwick_store::postgres::prepare(&owner, "bailiwick_app").await;
    assert!(matches!(newer, Err(StoreError::Version { found: 99, .. })), "{newer:?}");
    // Not prepared at all.
    root.batch_execute("DROP TABLE schema_version").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let opened = Store::open(dir.path(), &database.url().parse().unwrap());
    assert!(matches!(opened, Err(StoreError::Version { found: 0, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn z02_connections_that_are_cut_fail_their_own_acts_and_no_later_one() {
    let Some(database) = Postgres::fresh() else { return };
    let f = Fixture::new(Backend::Postgres(Box::new(database.clone()))).await;
    let root = database.superuser().await;
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = '{}' AND usename = 'bailiwick_app'",
        database.name
    );
    let mut failed = 0;
    let mut made = Vec::new();
    for n in 0..40 {
        let acts: Vec<_> = (0..8)
            .map(|m| {
                let (store, name) = (f.store.clone(), format!("space {n}.{m}"));
                let scope = f.scope(&f.acme.member);
                async move {
                    let scope = scope.await;
                    let create = permit::<CreateSpace>(&scope, scope.account());
                    store.space_create(create, name, String::new()).await
                }
            })
            .collect();
        let mut acts = acts.into_iter().map(Box::pin).collect::<Vec<_>>();
        let all = async {
            let mut results = Vec::new();
            for act in &mut acts {
                results.push(act.await);
            }
            results
        };
        let (results, cut) = tokio::join!(all, async {
            tokio::time::sleep(Duration::from_millis(n % 7)).await;
            if n % 2 == 0 { root.query_one(&cut, &[]).await.unwrap().get::<_, i64>(0) } else { 0 }
        });
        assert!(n % 2 == 1 || cut > 0, "the control: there was something to cut");
        for result in results {
            match result {
                Ok(row) => made.push(row.id),
                Err(StoreError::Unavailable(_) | StoreError::Commit) => failed += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(made.len() > 100, "{} were made, {failed} failed", made.len());
    let scope = f.scope(&f.acme.member).await;
    for id in &made {
        assert!(f.store.space_find(&scope, *id).await.unwrap().is_some(), "{id} was acknowledged");
    }
    // And none is there that was not: an act that failed is not done.
    let listed = f.store.space_list(permit(&scope, scope.account())).await.unwrap();
    assert_eq!(listed.len(), made.len() + 1, "with the personal one");
    assert!(f.verify(&f.acme).await.is_ok());
}
