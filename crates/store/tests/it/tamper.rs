//! Someone who holds the database's file and takes the triggers off: whatever they do to the rows of a
//! log is found when the log is read again. (A head that is rewritten together with the rows is found only
//! against a head kept elsewhere; see docs/audit.md.)

use bailiwick_audit::Problem;

use crate::fixture::Fixture;
use crate::hood::Hood;
use crate::on_every_backend;

struct Intruder(Hood);

impl Intruder {
    /// Beside the rows of one log. On a server, what others' rows are is out of sight: each statement of a
    /// test means this log's alone.
    async fn of(hood: Hood, log: &str) -> Self {
        if matches!(hood, Hood::Server(_)) {
            for table in ["event", "tree_head"] {
                hood.run(&format!("CREATE TEMP VIEW {table} AS SELECT * FROM public.{table} WHERE account = '{log}'"))
                    .await;
            }
        }
        hood.run(
            "CREATE TEMP TABLE kept_event AS SELECT * FROM event; \
             CREATE TEMP TABLE kept_head AS SELECT * FROM tree_head;",
        )
        .await;
        Self(hood)
    }

    async fn of_account(f: &Fixture) -> Self {
        let scope = f.scope(&f.acme.admin).await;
        Self::of(Hood::of(f, &scope).await, &scope.tenant().incarnation().to_string()).await
    }

    async fn take_the_triggers_off(&self) {
        match &self.0 {
            Hood::File(_) => self.run("DROP TRIGGER event_is_not_changed; DROP TRIGGER event_is_not_deleted;").await,
            Hood::Server(_) => self.run("SET session_replication_role = replica").await,
        }
    }

    async fn run(&self, sql: &str) {
        match &self.0 {
            Hood::File(_) => self.0.run(sql).await,
            // The same bytes as this database writes them.
            Hood::Server(_) => {
                let sql = sql.replace("zeroblob(32)", "decode(repeat('00', 32), 'hex')").replace("x'00'", "'\\x00'");
                self.0.run(&sql).await;
            }
        }
    }

    async fn put_everything_back(&self) {
        self.run(
            "DELETE FROM event; INSERT INTO event SELECT * FROM kept_event; \
             DELETE FROM tree_head; INSERT INTO tree_head SELECT * FROM kept_head;",
        )
        .await;
    }
}

async fn long_log(f: &Fixture) {
    for n in 0..9 {
        f.space(&f.acme.member, &format!("space {n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_every_change_of_any_column_of_a_stored_event_is_found() {
    on_every_backend(async |f| {
        long_log(&f).await;
        let intruder = Intruder::of_account(&f).await;
        assert!(f.verify(&f.acme).await.is_ok(), "the control");
        let guarded = intruder.0.refused("UPDATE event SET action = 'x' WHERE seq = 4").await;
        assert!(guarded.contains("events are not changed"), "{guarded}");
        let guarded = intruder.0.refused("DELETE FROM event WHERE seq = 4").await;
        assert!(guarded.contains("events are not deleted"), "{guarded}");
        intruder.take_the_triggers_off().await;
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
            "untold = 1",
            "leaf_hash = zeroblob(32)",
            "leaf_hash = x'00'",
        ] {
            intruder.run(&format!("UPDATE event SET {change} WHERE seq = 7")).await;
            let found = f.verify(&f.acme).await;
            assert!(matches!(found, Err(Problem::Changed(7) | Problem::Unreadable(7))), "{change}: {found:?}");
            intruder.put_everything_back().await;
            assert!(f.verify(&f.acme).await.is_ok(), "put back after: {change}");
        }
        assert!(f.verify(&f.globex).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_dropped_swapped_doubled_and_cut_off_events_are_found() {
    on_every_backend(async |f| {
    long_log(&f).await;
    let size = f.verify(&f.acme).await.unwrap().size;
    let intruder = Intruder::of_account(&f).await;
    intruder.take_the_triggers_off().await;
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
            "DELETE FROM event WHERE seq = 5; UPDATE event SET seq = -seq WHERE seq > 5; UPDATE event SET seq = -seq - 1 WHERE seq < 0".to_owned(),
            Problem::Changed(5),
        ),
        (
            "one added at the end",
            format!(
                "INSERT INTO event SELECT account, {size}, at, actor, credential, address, request, action, resource, \
                 space, agent, phase, verdict, intent, detail, leaf_hash, untold FROM event WHERE seq = 2"
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
        intruder.run(&sql).await;
        assert_eq!(f.verify(&f.acme).await, Err(problem), "{what}");
        intruder.put_everything_back().await;
        assert!(f.verify(&f.acme).await.is_ok(), "put back after: {what}");
    }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_a_head_that_does_not_fit_is_found() {
    on_every_backend(async |f| {
        long_log(&f).await;
        let size = f.verify(&f.acme).await.unwrap().size;
        let intruder = Intruder::of_account(&f).await;
        intruder.take_the_triggers_off().await;
        for (what, sql) in [
            ("size", format!("UPDATE tree_head SET size = {}", size - 1)),
            ("root", "UPDATE tree_head SET root = zeroblob(32)".to_owned()),
            ("gone", "DELETE FROM tree_head".to_owned()),
            ("tail and size", format!("DELETE FROM event WHERE seq = {0}; UPDATE tree_head SET size = {0}", size - 1)),
        ] {
            intruder.run(&sql).await;
            assert!(f.verify(&f.acme).await.is_err(), "{what}");
            intruder.put_everything_back().await;
            assert!(f.verify(&f.acme).await.is_ok(), "put back after: {what}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_the_hosts_log_is_verified_like_an_accounts() {
    use bailiwick_auth::access::verb::ReadHostAudit;
    on_every_backend(async |f| {
        let verify = async || {
            let host = f.operator().await.host_scope(bailiwick_types::RequestId::new());
            f.store.event_verify_host(host.authorize::<ReadHostAudit>().unwrap()).await.unwrap()
        };
        assert!(verify().await.is_ok());
        let intruder = Intruder::of(Hood::of_host(&f).await, "host").await;
        intruder.take_the_triggers_off().await;
        intruder.run("UPDATE event SET resource = 'account:other' WHERE seq = 1").await;
        assert_eq!(verify().await, Err(Problem::Changed(1)));
        intruder.put_everything_back().await;
        // A row of an account's log, moved here with its own number.
        let scope = f.scope(&f.acme.admin).await;
        let life = scope.tenant().incarnation();
        let other = match &intruder.0 {
            Hood::Server(_) => "public.event".to_owned(),
            Hood::File(_) => {
                let account = f.dir().join(format!("accounts/{life}/account.db"));
                intruder.run(&format!("ATTACH '{}' AS other", account.display())).await;
                "other.event".to_owned()
            }
        };
        intruder
        .run(&format!(
            "DELETE FROM event WHERE seq = 1; INSERT INTO event SELECT 'host', seq, at, actor, credential, address, \
             request, action, resource, space, agent, phase, verdict, intent, detail, leaf_hash, untold FROM {other} \
             WHERE seq = 1 AND account = '{life}'"
        ))
        .await;
        assert_eq!(verify().await, Err(Problem::Changed(1)));
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}
