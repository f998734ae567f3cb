//! Whether a long log makes anything slower: the same acts and requests with 10⁴, 10⁵ and 10⁶ events in the
//! account.

use std::time::Duration;

use crate::Options;
use crate::load::{self, Ask};
use crate::report::{Report, Target, micros, per_second};
use crate::server::Site;

const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];
const TIME: Duration = Duration::from_secs(3);

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let site = Site::new(&options.server, "sqlite:");
    let server = site.start();
    let mut connection = server.connect().await;
    let key = server.account(&mut connection, "acme").await;
    let mut first: Option<(f64, Duration, Duration)> = None;
    for size in SIZES.into_iter().filter(|size| *size <= options.events) {
        let mut there = events(&mut connection, &key).await;
        while there < size {
            // Every request is an event, and an answer that nobody waits for is the cheapest one.
            let ask = Ask::get("/api/v1/spaces/spc_00000000000000000000000000", &key);
            let ran = flood(server.address, ask, usize::try_from(size - there).unwrap().min(100_000)).await;
            assert!(ran > 0);
            there = events(&mut connection, &key).await;
        }
        let create = {
            let key = key.clone();
            move |n: usize| Ask::post("/api/v1/spaces", &key, format!("{{\"name\":\"s{n}\"}}"))
        };
        let acts = load::during(server.address, 16, TIME, create).await.rate();
        let mut reads = load::during(server.address, 1, TIME, {
            let key = key.clone();
            move |_| Ask::get("/api/v1/audit?order=newest&limit=20", &key)
        })
        .await
        .times;
        let read = crate::report::median(&mut reads);
        let mut whoami = load::during(server.address, 1, TIME, {
            let key = key.clone();
            move |_| Ask::get("/api/v1/agents", &key)
        })
        .await
        .times;
        let request = crate::report::median(&mut whoami);
        match first {
            None => first = Some((acts, read, request)),
            Some((acts_then, read_then, request_then)) => {
                let label = |what: &str| format!("{what}, {size} events against {}", SIZES[0]);
                let slower = |now: Duration, then: Duration| now.as_secs_f64() / then.as_secs_f64();
                report.add(
                    label("acts on record"),
                    per_second(acts),
                    per_second(acts_then),
                    acts_then / acts,
                    Target::AtMost(1.25),
                );
                report.add(
                    label("the newest 20 events"),
                    micros(read),
                    micros(read_then),
                    slower(read, read_then),
                    Target::AtMost(1.25),
                );
                report.add(
                    label("a request"),
                    micros(request),
                    micros(request_then),
                    slower(request, request_then),
                    Target::AtMost(1.25),
                );
            }
        }
    }
}

async fn flood(address: std::net::SocketAddr, ask: Ask, count: usize) -> usize {
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let ask = ask.clone();
            tokio::spawn(async move {
                let mut connection = load::Connection::open(address).await;
                for _ in 0..count / 16 {
                    connection.send(&ask).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    count
}

async fn events(connection: &mut load::Connection, key: &str) -> u64 {
    let newest = connection.good(&Ask::get("/api/v1/audit?order=newest&limit=1", key)).await;
    newest[0]["seq"].as_u64().unwrap_or(0)
}
