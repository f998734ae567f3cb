//! Numbers for the operator: how many requests, refusals and streams. Labels are routes and statuses,
//! never an account, a user, a key or a path as it was sent, so that no tenant shows in a metric.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bailiwick_types::{Incarnation, UserName};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;

/// Streams that one user may hold open. A stream is a connection, and connections are everybody's.
const STREAMS_A_USER: usize = 64;
/// Refused credentials that are written down in a second; more are counted. Somebody who guesses keys
/// must not be able to fill the log.
const REJECTIONS_A_SECOND: u32 = 20;

/// Counters since the start.
#[derive(Default)]
pub(crate) struct Meters {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    rejections: Mutex<Rejections>,
    streams: Mutex<HashMap<(Incarnation, UserName), usize>>,
}

#[derive(Default)]
struct Rejections {
    second: Option<Instant>,
    written: u32,
    unwritten: u64,
    total: u64,
}

/// A place among the streams of a user, for as long as the stream lives.
pub(crate) struct OpenStream {
    app: App,
    holder: (Incarnation, UserName),
}

impl OpenStream {
    /// Takes a place.
    pub(crate) fn new(app: &App, caller: &Caller) -> Result<Self, Failure> {
        let nobody = Failure::Defect("a stream for nobody");
        let (Some(tenant), Some(user)) = (caller.principal.tenant(), caller.principal.user()) else {
            return Err(nobody);
        };
        let holder = (tenant.incarnation(), user.clone());
        let mut streams = app.meters().streams.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(holder.clone()).or_default();
        if *open >= STREAMS_A_USER {
            return Err(Failure::TooManyStreams(STREAMS_A_USER));
        }
        *open += 1;
        drop(streams);
        Ok(Self { app: app.clone(), holder })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.app.meters().streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = streams.get_mut(&self.holder) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.holder);
            }
        }
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
        let streams: usize = self.streams.lock().unwrap_or_else(PoisonError::into_inner).values().sum();
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
