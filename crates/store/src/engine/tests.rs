//! What cannot be brought about from outside: an act that panics in the middle of a group.

use std::sync::Arc;

use bailiwick_audit::event::LogId;
use rusqlite::Connection;

use super::{Database, Writers};
use crate::account::startup;
use crate::error::StoreError;
use crate::log;
use crate::migrate::Schema;
use crate::sql::args;

fn database(dir: &tempfile::TempDir) -> Arc<Database> {
    Arc::new(Database::in_file(dir.path().join("account.db"), LogId::host(), Schema::Account).unwrap())
}

fn events(database: &Database) -> Vec<String> {
    let read = |sql: &crate::sql::Sql<'_>| {
        sql.all("SELECT resource FROM event WHERE account = ?1 ORDER BY seq", args![], |row| row.text(0))
    };
    database.read_blocking(read).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_panics_or_fails_takes_nothing_of_its_neighbours_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (database, writers) = (database(&dir), Writers::start().unwrap());
    // Held up, so that all of them are one group.
    let stranger = Connection::open(dir.path().join("account.db")).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut acts: Vec<_> = (0..9)
        .map(|n| {
            Box::pin(writers.write(&database, move |tx| {
                let seq = log::append(tx, startup("test", format!("test:{n}")))?;
                match n % 3 {
                    0 => Ok(seq),
                    1 => Err(StoreError::Fenced),
                    _ => panic!("act {n} panics, as the test wants it to"),
                }
            }))
        })
        .collect();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for act in &mut acts {
        assert!(act.as_mut().poll(&mut context).is_pending());
    }
    stranger.execute_batch("ROLLBACK").unwrap();
    let mut done = Vec::new();
    for (n, act) in acts.into_iter().enumerate() {
        match (n % 3, act.await) {
            (0, Ok(seq)) => done.push(seq),
            (1, Err(StoreError::Fenced)) | (2, Err(StoreError::Corrupt(_))) => {}
            (_, other) => panic!("act {n}: {other:?}"),
        }
    }
    assert_eq!(done, [0, 1, 2], "the numbers close up over what was rolled back");
    assert_eq!(events(&database), ["test:0", "test:3", "test:6"]);
    let after = writers.write(&database, |tx| log::append(tx, startup("test", "test:after".to_owned()))).await;
    assert_eq!(after.unwrap(), 3, "and the writer lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_be_committed_tells_everyone_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let (database, writers) = (database(&dir), Writers::start().unwrap());
    let broken = writers
        .write(&database, |tx| {
            // Ends the transaction under the engine's feet.
            tx.raw().execute_batch("ROLLBACK")?;
            Ok(())
        })
        .await;
    assert!(matches!(broken, Err(StoreError::Commit)), "{broken:?}");
    let after = writers.write(&database, |tx| log::append(tx, startup("test", "test:after".to_owned()))).await;
    assert_eq!(after.unwrap(), 0);
    assert_eq!(events(&database), ["test:after"]);
}
