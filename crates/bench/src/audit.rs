//! The record: acts that are written one after another and many at once, against bare rows with the same
//! settings.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Scope;
use bailiwick_auth::access::Journal as _;
use bailiwick_auth::authn::{Browser, Presented, Step, Walk};
use bailiwick_auth::key::{KeyRing, PresentedKey};
use bailiwick_store::account::NewAccount;
use bailiwick_store::{DatabaseUrl, Store};
use bailiwick_types::RequestId;
use rusqlite::Connection;

use crate::Options;
use crate::report::{Report, Target, per_second, rate};

const TIME: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

pub(crate) async fn measure(_options: &Options, report: &mut Report) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &DatabaseUrl::Sqlite).unwrap();
    let scope = scope(&store).await;
    for (callers, target) in [(1, Target::None), (64, Target::AtLeast(0.7)), (256, Target::AtLeast(0.7))] {
        let (mut ours, mut bare) = (0.0f64, 0.0f64);
        for _ in 0..ROUNDS {
            ours = ours.max(events(&store, &scope, callers).await);
            bare = bare.max(tokio::task::spawn_blocking(move || bare_groups(callers)).await.unwrap());
        }
        report.add(
            format!("events appended to the record, {callers} callers (SQLite)"),
            per_second(ours),
            format!("bare rows {}", per_second(bare)),
            ours / bare,
            target,
        );
    }
}

/// A user of a new account, as a key makes them.
async fn scope(store: &Store) -> Scope {
    let walk = Walk::new(vec![Step::ApiKey], KeyRing::new([7; 32]), None);
    let made = walk.ring().make().unwrap();
    let admin = Some(("alice".parse().unwrap(), &made));
    let new = NewAccount { name: "acme".parse().unwrap(), admin, agents: Vec::new() };
    store.account_bootstrap(new).await.unwrap();
    let shown = Presented {
        path: "/".to_owned(),
        key: Some(PresentedKey::new(&made.into_text())),
        account: None,
        user: None,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        basic: None,
        gateway: bailiwick_auth::authn::Gateway::Anybody,
        browser: Browser::Own,
    };
    walk.authenticate(store, &shown).await.unwrap().scope(RequestId::new()).unwrap()
}

/// Events that are on disk before their callers go on.
async fn events(store: &Store, scope: &Scope, callers: usize) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (store, scope) = (store.clone(), scope.clone());
            tokio::spawn(async move {
                let mut count = 0usize;
                while begun.elapsed() < TIME {
                    let draft = scope.draft("bench.act", &scope.account(), Phase::Act, Verdict::Ok);
                    store.append(&scope, draft).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    rate(count, begun.elapsed())
}

/// One writer that commits what waits for it: as long as an event's row, one row an act, each in a
/// transaction of its own inside the group's.
fn bare_groups(callers: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let file = Connection::open(dir.path().join("bare.db")).unwrap();
    file.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-1024; PRAGMA secure_delete=ON; \
         CREATE TABLE line (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;",
    )
    .unwrap();
    let (sender, receiver) = channel::<channel_of::Act>();
    let writer = std::thread::spawn(move || {
        let body = "x".repeat(350);
        while let Ok(first) = receiver.recv() {
            let mut group = vec![first];
            group.extend(receiver.try_iter().take(255));
            file.execute_batch("BEGIN IMMEDIATE").unwrap();
            for _ in &group {
                // An act of its own inside the group: it could fail alone.
                file.prepare_cached("SAVEPOINT act").unwrap().execute([]).unwrap();
                file.prepare_cached("INSERT INTO line (body) VALUES (?1)").unwrap().execute([&body]).unwrap();
                file.prepare_cached("RELEASE act").unwrap().execute([]).unwrap();
            }
            file.execute_batch("COMMIT").unwrap();
            for act in group {
                let _ = act.send(());
            }
        }
    });
    let begun = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut count = 0usize;
                while begun.elapsed() < TIME {
                    let (done, answer) = channel();
                    sender.send(done).unwrap();
                    answer.recv().unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    drop(sender);
    let count = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    let rate = rate(count, begun.elapsed());
    writer.join().unwrap();
    rate
}

mod channel_of {
    /// Whom to tell that a row is on disk.
    pub(super) type Act = std::sync::mpsc::Sender<()>;
}
