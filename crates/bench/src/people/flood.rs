//! A flood of wrong logins: what those notice who are known already.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::task::JoinSet;

use super::{ACCOUNT, attempt};
use crate::load::{self, Ask, Connection, Ran};
use crate::report::{Report, Target, micros, per_second, rate};
use crate::server::Running;

/// Addresses that attempts come from, and attempts at once from each: together as many as may wait for a
/// hash, so that the threads which hash have always more to do.
const ADDRESSES: u8 = 8;
const AT_ONCE: usize = 8;
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 4;
const CALLERS: usize = 16;

/// Attempts that go on until they are stopped.
struct Flood {
    begun: Instant,
    stop: Arc<AtomicBool>,
    hashed: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Flood {
    /// Begins, and comes back when all attempts are under way.
    async fn start(server: &Running) -> Self {
        let (stop, hashed, refused) = (Arc::default(), Arc::default(), Arc::default());
        let mut flood = Self { begun: Instant::now(), stop, hashed, refused, tasks: JoinSet::new() };
        for n in 0..usize::from(ADDRESSES) * AT_ONCE {
            let own = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + (n / AT_ONCE) as u8));
            let mut connection = Connection::open_from(own, server.address).await;
            let (stop, hashed, refused) =
                (Arc::clone(&flood.stop), Arc::clone(&flood.hashed), Arc::clone(&flood.refused));
            let ask = attempt(&format!("stranger-{n}@{ACCOUNT}"), "a wrong password");
            flood.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match connection.send(&ask).await.0 {
                        StatusCode::UNAUTHORIZED => hashed.fetch_add(1, Ordering::Relaxed),
                        StatusCode::TOO_MANY_REQUESTS => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
        }
        // The line stands once somebody of it was answered.
        while flood.hashed.load(Ordering::Relaxed) < AT_ONCE {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        flood.begun = Instant::now();
        flood.hashed.store(0, Ordering::Relaxed);
        flood.refused.store(0, Ordering::Relaxed);
        flood
    }

    /// Stops, and says how many a second were hashed and refused.
    async fn stop(mut self) -> (f64, f64) {
        let took = self.begun.elapsed();
        let (hashed, refused) = (self.hashed.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
        (rate(hashed, took), rate(refused, took))
    }
}

pub(super) async fn measure(server: &Running, key: &str, report: &mut Report) {
    let (mut many, mut one) = ([0.0f64; 2], [Vec::new(), Vec::new()]);
    let (mut hashed, mut refused) = (0.0f64, 0.0f64);
    for _ in 0..ROUNDS {
        for flooded in 0..2 {
            let flood = if flooded == 1 { Some(Flood::start(server).await) } else { None };
            many[flooded] = many[flooded].max(ask(server, key, CALLERS).await.rate());
            one[flooded].extend(ask(server, key, 1).await.times);
            if let Some(flood) = flood {
                let told = flood.stop().await;
                (hashed, refused) = (hashed.max(told.0), refused.max(told.1));
            }
        }
    }
    let [quiet, flooded] = many;
    report.add(
        format!("GET /api/v1/spaces, {CALLERS} callers, in a flood of wrong logins"),
        per_second(flooded),
        format!("without {}", per_second(quiet)),
        flooded / quiet,
        Target::AtLeast(0.8),
    );
    for (part, word, target) in [(50, "p50", Target::AtMost(1.25)), (99, "p99", Target::None)] {
        let [quiet, flooded] = one.each_mut().map(|times| percentile(times, part));
        report.add(
            format!("… one caller, {word}"),
            micros(flooded),
            format!("without {}", micros(quiet)),
            flooded.as_secs_f64() / quiet.as_secs_f64(),
            target,
        );
    }
    report.add("… wrong logins checked meanwhile", format!("{hashed:.1}/s"), "", 0.0, Target::None);
    report.add("… wrong logins told to come again", format!("{refused:.1}/s"), "", 0.0, Target::None);
}

async fn ask(server: &Running, key: &str, callers: usize) -> Ran {
    let ask = Ask::get("/api/v1/spaces", key);
    load::during(server.address, callers, TIME, move |_| ask.clone()).await
}

fn percentile(times: &mut [Duration], part: usize) -> Duration {
    times.sort();
    times[(times.len() * part / 100).min(times.len() - 1)]
}
