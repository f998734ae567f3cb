//! The engine: one server a directory, groups of commits, a bounded number of open files, a clean end.

use std::collections::HashSet;
use std::path::Path;
use std::task::{Context, Waker};

use bailiwick_auth::access::verb::CreateSpace;
use bailiwick_store::StoreError;
use bailiwick_store::account::NewAccount;
use bailiwick_types::{AccountName, RequestId, Role};

use crate::account::account_dir;
use crate::fixture::{self, Fixture, permit};
use crate::hood::Hood;
use crate::{Backend, on_every_backend};

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_share_a_data_directory() {
    on_every_backend(async |f| {
        assert!(matches!(fixture::open(f.dir(), &f.backend), Err(StoreError::Locked)));
        assert!(f.login(&f.acme.admin.key).await.is_ok(), "the first goes on");
        let f = f.restart();
        assert!(f.login(&f.acme.admin.key).await.is_ok(), "the control: once it has ended, another may begin");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_newer_version_is_refused_and_left_alone() {
    on_every_backend(async |f| {
        let (dir, backend) = (f.dir().to_owned(), f.backend.clone());
        let hood = Hood::of_host(&f).await;
        let (newer, known) = match backend {
            Backend::Sqlite => ("PRAGMA user_version = 99", "PRAGMA user_version = 5"),
            Backend::Postgres(_) => ("UPDATE schema_version SET version = 99", "UPDATE schema_version SET version = 9"),
        };
        f.store.close();
        hood.run(newer).await;
        let f = f.restart_around(|| {
            let refused = fixture::open(&dir, &backend);
            assert!(matches!(refused, Err(StoreError::Version { found: 99, .. })));
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(hood.run(known)));
        });
        assert!(f.login(&f.acme.admin.key).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_closing_nothing_is_written_and_reads_still_answer() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        f.store.close();
        let create = permit::<CreateSpace>(&scope, scope.account());
        let made = f.store.space_create(create, "late".into(), String::new()).await;
        assert!(matches!(made, Err(StoreError::Closed)));
        assert_eq!(f.store.space_list(permit(&scope, scope.account())).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_is_on_disk_before_another_server_can_begin() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let before = f.events(&f.acme).await.len();
        for _ in 0..2_000 {
            let mut draft = scope.draft(
                "test.observed",
                &scope.account(),
                bailiwick_audit::Phase::Observation,
                bailiwick_audit::Verdict::Ok,
            );
            draft.request = None;
            f.store.observe(Some(scope.tenant()), draft);
        }
        // Dropped without a word, as by a server that forgot to close.
        let f = f.drop_and_reopen();
        let events = f.events(&f.acme).await;
        assert_eq!(events.len(), before + 2_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_that_wait_together_share_a_commit() {
    let f = Fixture::new(crate::Backend::Sqlite).await;
    let scope = f.scope(&f.acme.member).await;
    let database = account_dir(&f, &scope).join("account.db");
    let before = commits(&database);
    const ACTS: usize = 200;
    // Held up by a stranger's lock, so that they certainly wait together.
    let stranger = rusqlite::Connection::open(&database).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut acts: Vec<_> = (0..ACTS)
        .map(|n| {
            let create = permit::<CreateSpace>(&scope, scope.account());
            Box::pin(f.store.space_create(create, format!("space {n}"), String::new()))
        })
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    for act in &mut acts {
        assert!(act.as_mut().poll(&mut context).is_pending(), "nothing is written while the lock is held");
    }
    stranger.execute_batch("ROLLBACK").unwrap();
    let mut ids = HashSet::new();
    for act in acts {
        ids.insert(act.await.unwrap().id);
    }
    assert_eq!(ids.len(), ACTS);
    let commits = commits(&database) - before;
    assert!((1..=4).contains(&commits), "{ACTS} acts took {commits} commits");
    assert!(f.verify(&f.acme).await.is_ok());
}

/// Commits in a write-ahead log: frames that carry the database's size (SQLite's file format, section 4.1).
fn commits(database: &Path) -> usize {
    const HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;
    let log = std::fs::read(database.with_extension("db-wal")).unwrap();
    let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let page = usize::try_from(word(8)).unwrap();
    let salt = &log[16..24];
    (HEADER..log.len() - FRAME_HEADER)
        .step_by(FRAME_HEADER + page)
        .filter(|at| &log[at + 8..at + 16] == salt && word(at + 4) != 0)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_accounts_than_files_may_be_open_all_work_and_watchers_are_still_woken() {
    let f = Fixture::new(crate::Backend::Sqlite).await;
    let scope = f.scope(&f.acme.admin).await;
    let mut watch = f.store.event_watch(scope.tenant()).unwrap();
    watch.mark_unchanged();
    let names: Vec<AccountName> = (0..300).map(|n| format!("tenant-{n}").parse().unwrap()).collect();
    let mut keys = Vec::new();
    for (n, name) in names.iter().enumerate() {
        // A key for some of them, to come back to later.
        let key = (n % 50 == 0).then(|| f.walk.ring().make().unwrap());
        let admin = key.as_ref().map(|key| ("root".parse().unwrap(), key));
        f.store.account_bootstrap(NewAccount { name: name.clone(), admin, agents: Vec::new() }).await.unwrap();
        if let Some(key) = key {
            keys.push((name.clone(), key.into_text().to_string()));
        }
    }
    let open = open_files(f.dir());
    assert!((200..=257).contains(&open), "{open} accounts' files are open");
    for (name, key) in keys {
        let principal = f.login(&key).await.unwrap();
        assert_eq!(principal.tenant().unwrap().account(), &name);
        let scope = principal.scope(RequestId::new()).unwrap();
        f.store.space_create(permit(&scope, scope.account()), "work".into(), String::new()).await.unwrap();
    }
    assert!(!watch.has_changed().unwrap(), "the control: nothing happened there so far");
    f.space(&f.acme.member, "here").await;
    tokio::time::timeout(std::time::Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    assert!(f.store.turns_unfinished().await.unwrap().is_empty());
    assert!(open_files(f.dir()) <= 257);
}

/// Databases below that directory which this process holds open.
fn open_files(dir: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let files: HashSet<_> = open.filter(|file| file.starts_with(dir) && file.ends_with("account.db")).collect();
    files.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_file_is_brought_to_the_newest_version_when_it_is_opened() {
    let f = Fixture::new(Backend::Sqlite).await;
    {
        let scope = f.scope(&f.acme.member).await;
        f.space(&f.acme.member, "kept").await;
        let path = account_dir(&f, &scope).join("account.db");
        f.store.close();
        {
            let file = rusqlite::Connection::open(&path).unwrap();
            file.execute_batch(
                "ALTER TABLE account_user RENAME TO user; ALTER TABLE user DROP COLUMN first_event; \
                 ALTER TABLE api_key RENAME COLUMN holder TO user; ALTER TABLE space_grant RENAME COLUMN grantee TO user; \
                 DROP TABLE account_password; DROP TABLE device; DROP TABLE totp; DROP TABLE recovery_code; \
                 DROP TABLE passkey; DROP TABLE account_limits; DROP TABLE usage_day; DROP TABLE application_token; DROP TABLE application; \
                 DROP TABLE notice; DROP TABLE notification; DROP TABLE job_event; DROP TABLE job; DROP TABLE secret_grant; DROP TABLE secret; DROP TABLE data_key; DROP TABLE tree_tile; DROP TRIGGER event_is_not_changed; ALTER TABLE event DROP COLUMN untold; \
                 CREATE TRIGGER event_is_not_changed BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'x'); END; \
                 PRAGMA user_version = 1",
            )
            .unwrap();
        }
        let f = f.restart();
        let scope = f.scope(&f.acme.member).await;
        let spaces = f.store.space_list(permit(&scope, scope.account())).await.unwrap();
        assert_eq!(spaces.len(), 2);
        let carol = fixture::user(&f.store, &f.walk, &f.acme.admin, "carol", Role::Member).await.unwrap();
        assert!(f.login(&carol.key).await.is_ok());
        assert!(f.verify(&f.acme).await.is_ok());
    }
}
