//! Statements that are wrong on purpose, through the same pool as all others: what row-level security is for.
//!
//! They need the server that `cargo xtask test` starts; on a machine where somebody runs one test by hand
//! without it, they say so and show nothing.

use bailiwick_testkit::database::Postgres;

use super::*;
use crate::account::startup;
use crate::engine::{Database, Writers};
use crate::log;
use crate::sql::args;
use bailiwick_audit::event::LogId;

struct Two {
    pool: Arc<Pool>,
    one: Arc<Database>,
    other: Arc<Database>,
    lives: (Incarnation, Incarnation),
}

/// Two tenants on one server, with a user and an event each. `None` where there is no server.
async fn two_tenants() -> Option<Two> {
    let url = Postgres::fresh()?.url();
    let Ok(crate::DatabaseUrl::Postgres(url)) = url.parse() else { panic!("no PostgreSQL") };
    let pool = tokio::task::spawn_blocking(move || crate::postgres::open(&url)).await.unwrap().unwrap();
    let lives = (Incarnation::new(), Incarnation::new());
    let of = |life| Arc::new(Database::on_server(Arc::clone(&pool), Context::Account(life), LogId::account(life)));
    let (one, other) = (of(lives.0), of(lives.1));
    let writers = Writers::start().unwrap();
    for (database, name) in [(&one, "alice"), (&other, "bob")] {
        let named = move |tx: &mut crate::engine::Tx<'_>| {
            tx.exec(
                "INSERT INTO account_user (account, name, role, created_at) VALUES (?1, ?2, 'admin', 0)",
                args![name],
            )?;
            log::append(tx, startup("test", format!("user:{name}"))).map(drop)
        };
        writers.write(database, named).await.unwrap();
    }
    tokio::task::spawn_blocking(move || drop(writers)).await.unwrap();
    Some(Two { pool, one, other, lives })
}

/// The names that a statement finds, in a transaction of the first tenant's.
async fn names(two: &Two, text: &'static str, other: bool) -> Result<Vec<String>, StoreError> {
    let database = if other { &two.other } else { &two.one };
    database.read(|sql| sql.all(text, args![], |row| row.text(0))).await
}

/// What a failed change says: the code of PostgreSQL.
fn code<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Server(error)) => error.code().map(|code| code.code().to_owned()).unwrap_or_default(),
        Err(error) => panic!("another error: {error:?}"),
        Ok(_) => panic!("it was done"),
    }
}

/// `new row violates row-level security policy`, and `permission denied`, are one code.
const NOT_PERMITTED: &str = "42501";

#[tokio::test(flavor = "multi_thread")]
async fn z01_a_query_that_forgets_its_tenant_or_names_another_returns_nothing_of_theirs() {
    let Some(two) = two_tenants().await else { return };
    let right = "SELECT name FROM account_user WHERE account = ?1 ORDER BY name";
    assert_eq!(names(&two, right, false).await.unwrap(), ["alice"], "the control");
    assert_eq!(names(&two, right, true).await.unwrap(), ["bob"], "the control");
    for wrong in [
        "SELECT name FROM account_user WHERE ?1 = ?1",
        "SELECT name FROM account_user WHERE account <> ?1 OR TRUE",
        "SELECT a.name FROM account_user a JOIN account_user b ON ?1 = ?1",
        "SELECT name FROM account_user WHERE account = ?1 UNION SELECT name FROM account_user",
    ] {
        assert_eq!(names(&two, wrong, false).await.unwrap(), ["alice"], "{wrong}");
        assert_eq!(names(&two, wrong, true).await.unwrap(), ["bob"], "{wrong}");
    }
    for nothing in [
        "SELECT name FROM account_user WHERE account <> ?1",
        "SELECT name FROM account WHERE ?1 = ?1",
        "SELECT key_id FROM key_locator WHERE ?1 = ?1",
    ] {
        assert!(names(&two, nothing, false).await.unwrap().is_empty(), "{nothing}");
    }
    // The other tenant named outright.
    let named = two
        .one
        .read(|sql| {
            sql.all("SELECT name FROM account_user WHERE account = ?2 AND ?1 = ?1", args![two.lives.1], |row| {
                row.text(0)
            })
        })
        .await;
    assert!(named.unwrap().is_empty());
    let events = "SELECT resource FROM event WHERE ?1 = ?1 ORDER BY seq";
    assert_eq!(names(&two, events, true).await.unwrap(), ["user:bob"]);
    // And a transaction that begins for nobody sees nobody.
    let seen = tokio::task::spawn_blocking({
        let pool = Arc::clone(&two.pool);
        move || {
            let session = pool.connect().unwrap();
            let all = "SELECT (SELECT count(*) FROM account_user) + (SELECT count(*) FROM event) + (SELECT count(*) FROM \
                 jail_user_given)";
            let rows = pool.block_on(session.client().query_one(all, &[])).unwrap();
            rows.get::<_, i64>(0)
        }
    });
    assert_eq!(seen.await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn z01_a_query_for_one_user_shows_no_other_users_spaces_and_conversations() {
    let Some(two) = two_tenants().await else { return };
    let writers = Writers::start().unwrap();
    let (own, granted, foreign) = ("spc_own", "spc_granted", "spc_foreign");
    let fill = move |tx: &mut crate::engine::Tx<'_>| {
        tx.exec("INSERT INTO account_user (account, name, role, created_at) VALUES (?1, 'carol', 'user', 0)", args![])?;
        for (space, owner) in [(own, "carol"), (granted, "alice"), (foreign, "alice")] {
            tx.exec(
                "INSERT INTO space (account, id, name, description, owner, personal, created_at, updated_at) \
                 VALUES (?1, ?2, ?2, '', ?3, 0, 0, 0)",
                args![space, owner],
            )?;
            tx.exec(
                "INSERT INTO session (account, id, space, agent, agent_version, initiator, state, turn, step, lease, \
                 next_event, next_message, caller, turn_facts, usage, created_at, updated_at) \
                 VALUES (?1, ?2, ?2, 'a', 1, ?3, 'idle', 0, 0, 0, 0, 0, '{}', '{}', '{}', 0, 0)",
                args![space, owner],
            )?;
            tx.exec("INSERT INTO session_event (account, session, n, body) VALUES (?1, ?2, 0, ?2)", args![space])?;
            tx.exec("INSERT INTO session_message (account, session, n, body) VALUES (?1, ?2, 0, ?2)", args![space])?;
        }
        tx.exec(
            "INSERT INTO space_grant (account, space, grantee, level) VALUES (?1, ?2, 'carol', 'read')",
            args![granted],
        )
        .map(drop)
    };
    writers.write(&two.one, fill).await.unwrap();
    tokio::task::spawn_blocking(move || drop(writers)).await.unwrap();
    let seen = async |reader: Reader<'_>, text: &'static str| {
        two.one.read_as(reader, |sql| sql.all(text, args![], |row| row.text(0))).await.unwrap()
    };
    let (carol, alice): (UserName, UserName) = ("carol".parse().unwrap(), "alice".parse().unwrap());
    for forgets in [
        "SELECT id FROM space WHERE account = ?1 ORDER BY id",
        "SELECT id FROM session WHERE account = ?1 ORDER BY id",
        "SELECT body FROM session_event WHERE account = ?1 ORDER BY body",
        "SELECT body FROM session_message WHERE account = ?1 ORDER BY body",
    ] {
        assert_eq!(seen(Reader::Server, forgets).await, [foreign, granted, own], "the control: {forgets}");
        assert_eq!(seen(Reader::User(&carol, Role::Member), forgets).await, [granted, own], "{forgets}");
        assert_eq!(seen(Reader::User(&alice, Role::Member), forgets).await, [foreign, granted], "{forgets}");
        // An admin sees that there is a space, and not what is said in it.
        let all = if forgets.contains("FROM space ") { 3 } else { 2 };
        assert_eq!(seen(Reader::User(&alice, Role::Admin), forgets).await.len(), all, "{forgets}");
    }
    let bob: UserName = "bob".parse().unwrap();
    let other = two.other.read_as(Reader::User(&bob, Role::Admin), |sql| {
        sql.all("SELECT id FROM space WHERE ?1 = ?1", args![], |row| row.text(0))
    });
    assert!(other.await.unwrap().is_empty(), "and the tenant's fence stands before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn z01_a_change_that_names_another_tenant_is_refused_or_finds_nothing() {
    let Some(two) = two_tenants().await else { return };
    let writers = Writers::start().unwrap();
    let other = two.lives.1;
    let insert =
        "INSERT INTO account_user (account, name, role, created_at) SELECT ?2, 'mallory', 'admin', 0 WHERE ?1 = ?1";
    let own = two.lives.0;
    writers.write(&two.one, move |tx| tx.exec(insert, args![own])).await.unwrap();
    let planted = writers.write(&two.one, move |tx| tx.exec(insert, args![other])).await;
    assert_eq!(code(planted), NOT_PERMITTED);
    for text in [
        "UPDATE account_user SET role = 'viewer' WHERE account = ?2 AND ?1 = ?1",
        "DELETE FROM account_user WHERE account = ?2 AND ?1 = ?1",
        "UPDATE tree_head SET size = 0 WHERE account = ?2 AND ?1 = ?1",
    ] {
        let changed = writers.write(&two.one, move |tx| tx.exec(text, args![other])).await;
        assert_eq!(changed.unwrap(), 0, "{text}");
    }
    // To move a row into another tenant is to insert it there.
    let moved = "UPDATE account_user SET account = ?2 WHERE account = ?1";
    assert_eq!(code(writers.write(&two.one, move |tx| tx.exec(moved, args![other])).await), NOT_PERMITTED);
    let everything = "DELETE FROM account_user WHERE ?1 = ?1";
    assert_eq!(writers.write(&two.one, move |tx| tx.exec(everything, args![])).await.unwrap(), 2, "alice and mallory");
    assert_eq!(names(&two, "SELECT name FROM account_user WHERE account = ?1", true).await.unwrap(), ["bob"]);
    tokio::task::spawn_blocking(move || drop(writers)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_the_servers_role_cannot_change_the_record_even_in_its_own_tenant() {
    let Some(two) = two_tenants().await else { return };
    let writers = Writers::start().unwrap();
    for text in [
        "DELETE FROM event WHERE account = ?1",
        "UPDATE event SET leaf_hash = '' WHERE account = ?1",
        "UPDATE event SET seq = seq + 1 WHERE account = ?1",
        "TRUNCATE event",
        "DELETE FROM tree_head WHERE account = ?1",
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "ALTER TABLE event DISABLE ROW LEVEL SECURITY",
        "SET session_replication_role = replica",
        "CREATE TABLE mine (n BIGINT)",
    ] {
        let refused = tokio::task::block_in_place(|| {
            two.one.transact(|sql| match text.contains("?1") {
                true => sql.exec(text, args![]).map(drop),
                false => sql.control_for_test(text),
            })
        });
        assert_eq!(code(refused), NOT_PERMITTED, "{text}");
    }
    // What the grant lets through, the trigger stops.
    let detail = "UPDATE event SET detail = '{\"a\":1}' WHERE account = ?1";
    let changed = writers.write(&two.one, move |tx| tx.exec(detail, args![])).await;
    assert_eq!(code(changed), "P0001");
    let more = writers.write(&two.one, |tx| log::append(tx, startup("test", "test:more".to_owned()))).await;
    assert_eq!(more.unwrap(), 1, "the control: the log is added to");
    tokio::task::spawn_blocking(move || drop(writers)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn z01_requests_that_are_given_up_leave_no_tenant_in_a_connection() {
    let Some(two) = two_tenants().await else { return };
    // Reads that are dropped at any point, that fail, and that panic; then everybody still sees their own.
    for round in 0..60u64 {
        let one = Arc::clone(&two.one);
        let read = tokio::spawn(async move {
            one.read(|sql| {
                let slow = sql.one("SELECT pg_sleep(0.005)::text WHERE ?1 = ?1", args![], |_| Ok(()))?;
                match round % 3 {
                    0 => Ok(slow),
                    1 => Err(StoreError::Fenced),
                    _ => panic!("a read that panics, as the test wants it to"),
                }
            })
            .await
        });
        tokio::time::sleep(Duration::from_micros(round * 150)).await;
        read.abort();
        let _ = read.await;
        let all = "SELECT name FROM account_user WHERE ?1 = ?1";
        assert_eq!(names(&two, all, true).await.unwrap(), ["bob"], "round {round}");
    }
    // They come back a moment after the answer.
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.append(&mut lock(&two.pool.idle));
        if two.pool.free.available_permits() == CONNECTIONS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!idle.is_empty(), "the control: connections came back");
    tokio::task::spawn_blocking(move || {
        for session in idle {
            let left = "SELECT coalesce(current_setting('app.account_id', true), '')";
            let rows = session.answer(session.client().query_one(left, &[])).unwrap();
            assert_eq!(rows.get::<_, String>(0), "");
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn z02_a_commit_whose_answer_was_lost_is_looked_up() {
    let Some(two) = two_tenants().await else { return };
    let pool = Arc::clone(&two.pool);
    let context = Context::Account(two.lives.0);
    tokio::task::spawn_blocking(move || {
        let begin = format!("BEGIN; SET LOCAL app.account_id = '{context}'; SELECT pg_current_xact_id()::text");
        let mut kept = pool.connect().unwrap();
        let number = kept.begin(&begin).unwrap();
        assert_eq!(kept.status_of(&number).unwrap(), None, "in progress");
        kept.control("COMMIT").unwrap();
        assert_eq!(pool.ended(&number), Ended::Committed);
        let mut lost = pool.connect().unwrap();
        let number = lost.begin(&begin).unwrap();
        // The connection breaks before the commit arrives.
        drop(lost);
        assert_eq!(pool.ended(&number), Ended::RolledBack);
    })
    .await
    .unwrap();
}
