//! Whether the time of a failed login tells who is there: two distributions, and a test of their ranks.

use std::time::{Duration, Instant};

use hyper::StatusCode;

use super::{ACCOUNT, attempt, user};
use crate::load::Connection;
use crate::report::{Report, Target, micros};
use crate::server::Running;

/// Attempts of each kind; a multiple of six.
const ATTEMPTS: usize = 600;
/// Every order of the three, so that each comes as often after each.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
/// Standard deviations that chance alone passes in three of a thousand runs.
const CHANCE: f64 = 3.0;

pub(super) async fn measure(server: &Running, report: &mut Report) {
    user(server, "someone").await;
    // Names of one length: there, not there, and in an account that is not there.
    let names = [format!("someone@{ACCOUNT}"), format!("no-body@{ACCOUNT}"), "someone@elsewhere".to_owned()];
    let asks = names.map(|name| attempt(&name, "a wrong password"));
    let mut alone = Connection::open(server.address).await;
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ATTEMPTS + ORDERS.len() {
        for which in ORDERS[round % ORDERS.len()] {
            let begun = Instant::now();
            let (status, _) = alone.send(&asks[which]).await;
            let took = begun.elapsed();
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            // The first of each order only warm up.
            if round >= ORDERS.len() {
                times[which].push(took);
            }
        }
    }
    for times in &mut times {
        times.sort();
    }
    let [there, nobody, nowhere] = &times;
    for (label, other) in [("nobody of that name", nobody), ("no such account", nowhere)] {
        for (part, word) in [(50, "p50"), (90, "p90")] {
            let at = |times: &[Duration]| times[times.len() * part / 100];
            let (ours, beside) = (at(other), at(there));
            report.add(
                format!("a failed login, {label}, {word}"),
                micros(ours),
                format!("somebody {}", micros(beside)),
                ours.as_secs_f64() / beside.as_secs_f64(),
                Target::None,
            );
        }
        let z = rank_test(there, other);
        report.add(
            "… told apart by rank",
            format!("z = {z:.2}"),
            format!("{CHANCE}"),
            z.abs() / CHANCE,
            Target::AtMost(1.0),
        );
    }
}

/// Mann and Whitney's U of two samples, as standard deviations from what it is if both are of one
/// distribution: positive if the second is the slower one.
fn rank_test(first: &[Duration], second: &[Duration]) -> f64 {
    let (m, n) = (first.len() as f64, second.len() as f64);
    let mut all: Vec<(Duration, bool)> =
        first.iter().map(|time| (*time, false)).chain(second.iter().map(|time| (*time, true))).collect();
    all.sort();
    let (mut ranks, mut at) = (0.0, 0);
    while at < all.len() {
        let end = at + all[at..].partition_point(|(time, _)| *time <= all[at].0);
        // Equal times share the middle of their ranks.
        let rank = (at + end + 1) as f64 / 2.0;
        ranks += rank * all[at..end].iter().filter(|(_, second)| *second).count() as f64;
        at = end;
    }
    let u = ranks - n * (n + 1.0) / 2.0;
    (u - m * n / 2.0) / (m * n * (m + n + 1.0) / 12.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: &[u64]) -> Vec<Duration> {
        micros.iter().copied().map(Duration::from_micros).collect()
    }

    #[test]
    fn the_rank_test_is_that_of_the_books() {
        // U = 13 of 5 and 5, where 12.5 is the middle and 4.787 a standard deviation.
        let (one, other) = (times(&[1, 4, 5, 8, 9]), times(&[2, 3, 6, 7, 10]));
        assert!((rank_test(&one, &other) - (13.0 - 12.5) / 4.787).abs() < 1e-3);
        assert!((rank_test(&one, &other) + rank_test(&other, &one)).abs() < 1e-9, "the other way round");
        assert!(rank_test(&one, &one).abs() < 1e-9, "ties");
        assert!(rank_test(&times(&[1, 2, 3, 4]), &times(&[5, 6, 7, 8])) > 2.3);
    }
}
