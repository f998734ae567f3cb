//! Someone who holds the database's file and takes the triggers off: whatever they do to the rows of a
//! log is found when the log is read again. (A head that is rewritten together with the rows is found only
//! against a head kept elsewhere; see docs/audit.md.)

use std::path::PathBuf;

use bailiwick_audit::Problem;
use rusqlite::Connection;

use crate::account::account_dir;
use crate::fixture::Fixture;

struct Intruder {
    file: Connection,
}

impl Intruder {
    fn of(path: PathBuf) -> Self {
        let file = Connection::open(path).unwrap();
        file.execute_batch(
            "CREATE TEMP TABLE kept_event AS SELECT * FROM event; CREATE TEMP TABLE kept_head AS SELECT * FROM tree_head;",
        )
        .unwrap();
        Self { file }
    }

    fn take_the_triggers_off(&self) {
        self.run("DROP TRIGGER event_is_not_changed; DROP TRIGGER event_is_not_deleted;");
    }

    fn run(&self, sql: &str) {
        self.file.execute_batch(sql).unwrap();
    }

    fn put_everything_back(&self) {
        self.run(
            "DELETE FROM event; INSERT INTO event SELECT * FROM kept_event; \
             DELETE FROM tree_head; INSERT INTO tree_head SELECT * FROM kept_head;",
        );
    }
}

async fn with_a_long_log() -> Fixture {
    let f = Fixture::new(crate::Backend::Sqlite).await;
    for n in 0..9 {
        f.space(&f.acme.member, &format!("space {n}")).await;
    }
    f
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_every_change_of_any_column_of_a_stored_event_is_found() {
    let f = with_a_long_log().await;
    let scope = f.scope(&f.acme.admin).await;
    let intruder = Intruder::of(account_dir(&f, &scope).join("account.db"));
    assert!(f.verify(&f.acme).await.is_ok(), "the control");
    let guarded = intruder.file.execute("UPDATE event SET action = 'x' WHERE seq = 4", []);
    assert!(guarded.unwrap_err().to_string().contains("events are not changed"));
    let guarded = intruder.file.execute("DELETE FROM event WHERE seq = 4", []);
    assert!(guarded.unwrap_err().to_string().contains("events are not deleted"));
    intruder.take_the_triggers_off();
    for change in [
        "at = at + 1",
        "actor = 'user:mallory'",
        "actor = 'nobody we know'",
        "credential = 'root-key'",
        "address = '10.0.0.1'",
        "request = NULL",
        "action = 'space.read'",
        "resource = 'space:other'",
        "space = NULL",
        "agent = 'helper'",
        "phase = 'intent'",
        "phase = 'afterthought'",
        "verdict = 'FAIL'",
        "verdict = 'MAYBE'",
        "intent = 3",
        "detail = '{\"name\":\"renamed\"}'",
        "detail = 'no JSON'",
        "leaf_hash = zeroblob(32)",
        "leaf_hash = x'00'",
    ] {
        intruder.run(&format!("UPDATE event SET {change} WHERE seq = 7"));
        let found = f.verify(&f.acme).await;
        assert!(matches!(found, Err(Problem::Changed(7) | Problem::Unreadable(7))), "{change}: {found:?}");
        intruder.put_everything_back();
        assert!(f.verify(&f.acme).await.is_ok(), "put back after: {change}");
    }
    assert!(f.verify(&f.globex).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_dropped_swapped_doubled_and_cut_off_events_are_found() {
    let f = with_a_long_log().await;
    let scope = f.scope(&f.acme.admin).await;
    let size = f.verify(&f.acme).await.unwrap().size;
    let intruder = Intruder::of(account_dir(&f, &scope).join("account.db"));
    intruder.take_the_triggers_off();
    let last = size - 1;
    let cases = [
        ("first dropped", "DELETE FROM event WHERE seq = 0".to_owned(), Problem::Gap { expected: 0, found: 1 }),
        ("one dropped", "DELETE FROM event WHERE seq = 5".to_owned(), Problem::Gap { expected: 5, found: 6 }),
        ("last dropped", format!("DELETE FROM event WHERE seq = {last}"), Problem::Length { head: size, found: last }),
        ("tail cut", "DELETE FROM event WHERE seq >= 3".to_owned(), Problem::Length { head: size, found: 3 }),
        ("all cut", "DELETE FROM event".to_owned(), Problem::Length { head: size, found: 0 }),
        (
            "two swapped",
            "UPDATE event SET seq = -1 WHERE seq = 4; UPDATE event SET seq = 4 WHERE seq = 6; \
             UPDATE event SET seq = 6 WHERE seq = -1"
                .to_owned(),
            Problem::Changed(4),
        ),
        (
            "closed up after one was dropped",
            "DELETE FROM event WHERE seq = 5; UPDATE event SET seq = seq - 1 WHERE seq > 5".to_owned(),
            Problem::Changed(5),
        ),
        (
            "one added at the end",
            format!(
                "INSERT INTO event SELECT account, {size}, at, actor, credential, address, request, action, resource, \
                 space, agent, phase, verdict, intent, detail, leaf_hash FROM event WHERE seq = 2"
            ),
            Problem::Changed(size),
        ),
        (
            "one moved to another log",
            "UPDATE event SET account = 'acc_elsewhere' WHERE seq = 5".to_owned(),
            Problem::Gap { expected: 5, found: 6 },
        ),
    ];
    for (what, sql, problem) in cases {
        intruder.run(&sql);
        assert_eq!(f.verify(&f.acme).await, Err(problem), "{what}");
        intruder.put_everything_back();
        assert!(f.verify(&f.acme).await.is_ok(), "put back after: {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_a_head_that_does_not_fit_is_found() {
    let f = with_a_long_log().await;
    let scope = f.scope(&f.acme.admin).await;
    let size = f.verify(&f.acme).await.unwrap().size;
    let intruder = Intruder::of(account_dir(&f, &scope).join("account.db"));
    intruder.take_the_triggers_off();
    for (what, sql) in [
        ("size", format!("UPDATE tree_head SET size = {}", size - 1)),
        ("root", "UPDATE tree_head SET root = zeroblob(32)".to_owned()),
        ("gone", "DELETE FROM tree_head".to_owned()),
        ("tail and size", format!("DELETE FROM event WHERE seq = {0}; UPDATE tree_head SET size = {0}", size - 1)),
    ] {
        intruder.run(&sql);
        assert!(f.verify(&f.acme).await.is_err(), "{what}");
        intruder.put_everything_back();
        assert!(f.verify(&f.acme).await.is_ok(), "put back after: {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_the_hosts_log_is_verified_like_an_accounts() {
    use bailiwick_auth::access::verb::ReadHostAudit;
    let f = Fixture::new(crate::Backend::Sqlite).await;
    let verify = async || {
        let host = f.operator().await.host_scope(bailiwick_types::RequestId::new());
        f.store.event_verify_host(host.authorize::<ReadHostAudit>().unwrap()).await.unwrap()
    };
    assert!(verify().await.is_ok());
    let intruder = Intruder::of(f.dir().join("control.db"));
    intruder.take_the_triggers_off();
    intruder.run("UPDATE event SET resource = 'account:other' WHERE seq = 1");
    assert_eq!(verify().await, Err(Problem::Changed(1)));
    intruder.put_everything_back();
    // A row of an account's log, moved here with its own number.
    let account = account_dir(&f, &f.scope(&f.acme.admin).await).join("account.db");
    intruder.run(&format!(
        "ATTACH '{}' AS other; DELETE FROM event WHERE seq = 1; INSERT INTO event SELECT 'host', seq, at, actor, \
         credential, address, request, action, resource, space, agent, phase, verdict, intent, detail, leaf_hash \
         FROM other.event WHERE seq = 1",
        account.display()
    ));
    assert_eq!(verify().await, Err(Problem::Changed(1)));
    assert!(f.verify(&f.acme).await.is_ok());
}
