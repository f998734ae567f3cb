//! The record: acts that are written one after another and many at once, against bare rows with the same
//! settings.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::Options;
use crate::load::{self, Ask};
use crate::report::{Report, Target, per_second, rate};
use crate::server::Site;

const TIME: Duration = Duration::from_secs(4);
const WRITERS: usize = 64;

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let site = Site::new(&options.server, "sqlite:");
    let server = site.start();
    let mut connection = server.connect().await;
    let key = server.account(&mut connection, "acme").await;
    let (mut ours, mut bare) = (0.0f64, 0.0f64);
    for _ in 0..3 {
        let create = {
            let key = key.clone();
            move |n: usize| Ask::post("/api/v1/spaces", &key, format!("{{\"name\":\"space {n}\"}}"))
        };
        let before = events(&mut connection, &key).await;
        let ran = load::during(server.address, WRITERS, TIME, create).await;
        let written = events(&mut connection, &key).await - before;
        ours = ours.max(rate(usize::try_from(written).unwrap(), ran.took));
        bare = bare.max(tokio::task::spawn_blocking(bare_groups).await.unwrap());
    }
    report.add(
        format!("events on record, {WRITERS} callers by HTTP, each with an act (SQLite)"),
        per_second(ours),
        format!("bare rows {}", per_second(bare)),
        ours / bare,
        Target::None,
    );
}

/// How many events the account has.
async fn events(connection: &mut load::Connection, key: &str) -> u64 {
    let newest = connection.good(&Ask::get("/api/v1/audit?order=newest&limit=1", key)).await;
    newest[0]["seq"].as_u64().unwrap_or(0)
}

/// One writer that commits what waits for it, as long as an event's row, one row an act.
pub(crate) fn bare_groups() -> f64 {
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
                file.prepare_cached("INSERT INTO line (body) VALUES (?1)").unwrap().execute([&body]).unwrap();
            }
            file.execute_batch("COMMIT").unwrap();
            for act in group {
                let _ = act.send(());
            }
        }
    });
    let begun = Instant::now();
    let callers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut count = 0usize;
                while begun.elapsed() < TIME / 2 {
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
