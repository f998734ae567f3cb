//! How long a start takes, how much memory it needs, and how large the program is.

use std::time::Duration;

use crate::Options;
use crate::load::{self, Ask};
use crate::report::{Report, Target, median};
use crate::server::Site;

const PARKED: usize = 10_000;
const MIB: f64 = 1024.0;

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let bytes = std::fs::metadata(&options.server).unwrap().len();
    let mib = bytes as f64 / MIB / MIB;
    report.add("the program's size", format!("{mib:.1} MiB"), "60 MiB", mib / 60.0, Target::AtMost(1.0));

    let site = Site::new(&options.server, "sqlite:");
    drop(site.start());
    let mut times: Vec<Duration> = (0..11).map(|_| site.start().took).collect();
    let start = median(&mut times).as_secs_f64() * 1e3;
    report.add("from start to ready", format!("{start:.0} ms"), "150 ms", start / 150.0, Target::AtMost(1.0));

    let server = site.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = server.resident() as f64 / MIB;
    report.add("memory, idle", format!("{idle:.1} MiB"), "40 MiB", idle / 40.0, Target::AtMost(1.0));

    let mut connection = server.connect().await;
    let key = server.account(&mut connection, "acme").await;
    // Each has an agent, a space, a first message and an answer, and waits for the next.
    let made = {
        let key = key.clone();
        let per = PARKED / 16;
        let address = server.address;
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let key = key.clone();
                tokio::spawn(async move {
                    let mut connection = load::Connection::open(address).await;
                    for _ in 0..per {
                        connection.good(&Ask::post("/eve/v1/session", &key, "{\"message\":\"hello\"}")).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        per * 16
    };
    let mut waited = 0;
    while waited < 600 {
        if crate::sessions::unfinished(&site) == 0 {
            break;
        }
        waited += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let parked = server.resident() as f64 / MIB;
    report.add(
        format!("memory with {made} parked sessions"),
        format!("{parked:.1} MiB"),
        "200 MiB",
        parked / 200.0,
        Target::AtMost(1.0),
    );
}
