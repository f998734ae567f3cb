//! Which calls run in a sandbox: secrets that are granted for calls are released while one does, and the gate uses
//! them no longer.
//!
//! The gate cannot tell which of a sandbox's processes asks. So it is all that runs at the moment that counts: where
//! one of several calls was not approved, none is; where one is another session's, nothing runs. And when one begins
//! or ends, whatever was released for those before is over.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use bailiwick_auth::access::During;
use bailiwick_types::SessionId;
use rustix::io::Errno;

use super::wire::ToGate;
use super::{Caller, Shared};
use crate::linux::wire::{self as packets, WireError};

/// The calls of one sandbox.
#[derive(Default)]
pub(super) struct Calls {
    /// Grows whenever one begins or ends.
    number: u64,
    running: Vec<Running>,
}

struct Running {
    since: u64,
    session: SessionId,
    during: During,
}

/// What runs in a sandbox at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// What counts of it.
    pub during: During,
    /// The number of the calls that run.
    pub number: u64,
}

impl Moment {
    pub(super) fn of(calls: Option<&Calls>, caller: Option<&Caller>) -> Self {
        let Some((calls, caller)) = calls.zip(caller) else { return Self { during: During::Nothing, number: 0 } };
        calls.moment(caller.session.id())
    }
}

impl Calls {
    fn moment(&self, session: SessionId) -> Moment {
        let of = |running: &Running| if running.session == session { running.during } else { During::Nothing };
        let during = self.running.iter().map(of).min().unwrap_or(During::Nothing);
        Moment { during, number: self.number }
    }

    fn begin(&mut self, session: SessionId, during: During) -> u64 {
        self.number += 1;
        self.running.push(Running { since: self.number, session, during });
        self.number
    }

    fn end(&mut self, since: u64) -> u64 {
        self.running.retain(|running| running.since != since);
        self.number += 1;
        self.number
    }
}

/// A call that runs in a sandbox, until this is dropped.
#[must_use = "the call ends when this is dropped"]
pub(crate) struct InCall {
    shared: Arc<Shared>,
    sandbox: u64,
    since: u64,
}

impl InCall {
    pub(super) fn begin(shared: Arc<Shared>, sandbox: u64, session: SessionId, during: During) -> Self {
        let since = shared.state().calls.entry(sandbox).or_default().begin(session, during);
        shared.announce(sandbox, since);
        Self { shared, sandbox, since }
    }
}

impl Drop for InCall {
    fn drop(&mut self) {
        // A sandbox that is forgotten has none.
        let number = self.shared.state().calls.get_mut(&self.sandbox).map(|calls| calls.end(self.since));
        if let Some(number) = number {
            self.shared.announce(self.sandbox, number);
        }
    }
}

impl Shared {
    /// Tells the gate which calls run now: at once if the socket takes it. The gate keeps the largest number.
    fn announce(self: &Arc<Self>, sandbox: u64, number: u64) {
        let message = ToGate::Calls { sandbox, number };
        let sent = packets::send(self.socket.as_fd(), &message, &[], &[]);
        if matches!(sent, Err(WireError::Socket(Errno::AGAIN)))
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = Arc::clone(self);
            runtime.spawn(async move { shared.tell(&message, &[], &[]).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g04_what_counts_is_the_least_of_all_that_runs_and_of_this_session_alone() {
        let (own, other) = (SessionId::new(), SessionId::new());
        let mut calls = Calls::default();
        let during = |calls: &Calls| calls.moment(own).during;
        assert_eq!(during(&calls), During::Nothing);
        let approved = calls.begin(own, During::ApprovedCall);
        assert_eq!(during(&calls), During::ApprovedCall);
        let number = calls.moment(own).number;
        let plain = calls.begin(own, During::Call);
        assert_eq!(during(&calls), During::Call, "the gate cannot tell which of them asks");
        assert!(calls.moment(own).number > number, "what was released before is over");
        let number = calls.end(plain);
        assert_eq!((during(&calls), calls.moment(own).number), (During::ApprovedCall, number));
        let strange = calls.begin(other, During::ApprovedCall);
        assert_eq!(during(&calls), During::Nothing);
        assert_eq!(calls.moment(other).during, During::Nothing);
        calls.end(strange);
        calls.end(approved);
        assert_eq!(during(&calls), During::Nothing, "what was left behind has nothing");
        assert!(calls.running.is_empty());
    }
}
