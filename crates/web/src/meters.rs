//! Numbers for the operator: how many requests, refusals and streams. Labels are routes and statuses,
//! never an account, a user, a key or a path as it was sent, so that no tenant shows in a metric.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::app::App;

/// Refused credentials that are written down in a second; more are counted. Somebody who guesses keys
/// must not be able to fill the log.
const REJECTIONS_A_SECOND: u32 = 20;

/// Counters since the start.
#[derive(Default)]
pub(crate) struct Meters {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    rejections: Mutex<Rejections>,
    streams: AtomicU64,
}

#[derive(Default)]
struct Rejections {
    second: Option<Instant>,
    written: u32,
    unwritten: u64,
    total: u64,
}

/// Counts a stream for as long as it lives.
pub(crate) struct OpenStream(App);

impl OpenStream {
    pub(crate) fn new(app: &App) -> Self {
        app.meters().streams.fetch_add(1, Ordering::Relaxed);
        Self(app.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.meters().streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Meters {
    pub(crate) fn request(&self, method: &'static str, route: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, method, status)).or_default() += 1;
    }

    /// Counts a refused credential. `Some` if it may be written down, with the number of those before
    /// it that were not.
    pub(crate) fn rejection(&self) -> Option<u64> {
        let mut seen = self.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        seen.total += 1;
        let now = Instant::now();
        if seen.second.is_none_or(|second| now.duration_since(second).as_secs() >= 1) {
            seen.second = Some(now);
            seen.written = 0;
        }
        if seen.written < REJECTIONS_A_SECOND {
            seen.written += 1;
            Some(std::mem::take(&mut seen.unwritten))
        } else {
            seen.unwritten += 1;
            None
        }
    }

    /// The Prometheus text format, version 0.0.4.
    pub(crate) fn text(&self, lost: u64, sandboxes: usize) -> String {
        let mut text = String::from("# TYPE bailiwick_http_requests_total counter\n");
        for ((route, method, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(
                text,
                "bailiwick_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            );
        }
        let rejected = self.rejections.lock().unwrap_or_else(PoisonError::into_inner).total;
        let streams = self.streams.load(Ordering::Relaxed);
        let _ = write!(
            text,
            "# TYPE bailiwick_credentials_refused_total counter\nbailiwick_credentials_refused_total {rejected}\n\
             # TYPE bailiwick_observations_lost_total counter\nbailiwick_observations_lost_total {lost}\n\
             # TYPE bailiwick_streams_open gauge\nbailiwick_streams_open {streams}\n\
             # TYPE bailiwick_sandboxes_running gauge\nbailiwick_sandboxes_running {sandboxes}\n"
        );
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_rejections_is_counted_and_not_written() {
        let meters = Meters::default();
        let written = (0..1_000).filter(|_| meters.rejection().is_some()).count();
        // The clock may turn once while the loop runs.
        assert!((20..=40).contains(&written), "{written}");
        assert!(meters.text(0, 0).contains("bailiwick_credentials_refused_total 1000"));
    }
}
