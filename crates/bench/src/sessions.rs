//! Sessions and turns, with the scripted model, so that nothing is measured but the runtime itself.

use std::time::{Duration, Instant};

use crate::Options;
use crate::load::{self, Ask, Connection};
use crate::report::{Report, Target, median, per_second, rate};
use crate::server::{Running, Site};

/// What eve itself was measured at, on a machine like this one: sessions made per second, and a turn's p50.
const EVE_SESSIONS: f64 = 30.0;
const EVE_TURN: Duration = Duration::from_millis(225);

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let site = Site::new(&options.server, "sqlite:");
    let server = site.start();
    let mut connection = server.connect().await;
    let key = server.account(&mut connection, "acme").await;
    let mut created = 0.0f64;
    for _ in 0..3 {
        let key = key.clone();
        let ask = move |_: usize| Ask::post("/eve/v1/session", &key, "{}");
        created = created.max(load::during(server.address, 64, Duration::from_secs(3), ask).await.rate());
    }
    report.add(
        "durable sessions made, 64 callers (SQLite)",
        per_second(created),
        "2000/s",
        created / 2000.0,
        Target::AtLeast(1.0),
    );
    report.add("… against eve", per_second(created), per_second(EVE_SESSIONS), created / EVE_SESSIONS, Target::None);

    // In the virtual shell, whatever else this machine has.
    let agent = "{\"tools\":[\"bash\"],\"sandbox\":{\"mode\":\"all\",\"backend\":\"virtual\"}}";
    let put = Ask { method: "PUT", ..Ask::post("/api/v1/agents/quick", &key, agent) };
    connection.good(&put).await;
    let mut times = Vec::new();
    for _ in 0..200 {
        times.push(turn(&mut connection, &key, "quick").await);
    }
    let p50 = median(&mut times).as_secs_f64() * 1e3;
    report.add(
        "a turn with a command in the virtual shell, one caller, p50",
        format!("{p50:.2} ms"),
        "5 ms",
        p50 / 5.0,
        Target::AtMost(1.0),
    );
    let eve = EVE_TURN.as_secs_f64() * 1e3;
    report.add("… against eve", format!("{p50:.2} ms"), format!("{eve:.0} ms"), p50 / eve, Target::None);
    let turns = together(&server, &key, "quick", 8).await;
    report.add("turns like that, 8 callers", per_second(turns), "400/s", turns / 400.0, Target::AtLeast(1.0));
    let put = Ask { method: "PUT", ..Ask::post("/api/v1/agents/plain", &key, "{\"tools\":[]}") };
    connection.good(&put).await;
    let plain = together(&server, &key, "plain", 8).await;
    report.add("turns without a tool, 8 callers", per_second(plain), "", 0.0, Target::None);
}

/// A new session, a message, and its stream to the end of the turn.
async fn turn(connection: &mut Connection, key: &str, agent: &str) -> Duration {
    let begun = Instant::now();
    let message = if agent == "plain" { "hello" } else { "run" };
    let ask = Ask::post("/eve/v1/session", key, format!("{{\"message\":\"{message}\"}}"));
    let made = connection.good(&ask.with("x-bailiwick-agent", agent)).await;
    let id = made["sessionId"].as_str().unwrap();
    // A stream is left while it goes on, and takes its connection with it.
    let stream = Ask::get(format!("/eve/v1/session/{id}/stream"), key);
    Connection::open(connection.address).await.read_until(&stream, b"\"session.waiting\"").await;
    begun.elapsed()
}

async fn together(server: &Running, key: &str, agent: &'static str, callers: usize) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..3 {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (address, key) = (server.address, key.to_owned());
                tokio::spawn(async move {
                    let mut connection = Connection::open(address).await;
                    let mut count = 0usize;
                    while begun.elapsed() < Duration::from_secs(3) {
                        turn(&mut connection, &key, agent).await;
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
        best = best.max(rate(count, begun.elapsed()));
    }
    best
}

/// Sessions that are not at rest, as the files say.
pub(crate) fn unfinished(site: &Site) -> i64 {
    let mut count = 0;
    for entry in std::fs::read_dir(site.data().join("accounts")).unwrap().flatten() {
        let file = entry.path().join("account.db");
        let Ok(file) = rusqlite::Connection::open(file) else { continue };
        count += file
            .query_row(
                "SELECT (SELECT count(*) FROM session WHERE state = 'running') + (SELECT count(*) FROM delivery)",
                [],
                |row| row.get::<_, i64>(0),
            )
            .unwrap_or(0);
    }
    count
}
