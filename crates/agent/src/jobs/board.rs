//! Who runs and who waits: places for jobs, given out in the order in which they were asked for.
//!
//! A job whose user or account has no place left is passed over, so that one tenant's jobs never hold up another's.

use std::collections::VecDeque;

use bailiwick_auth::Tenant;
use bailiwick_types::{JobId, SpaceId, UserName};

/// Jobs that run at once.
const PLACES: usize = 16;
/// Jobs of one account that run at once.
const ACCOUNT_PLACES: usize = 4;
/// Jobs of one user that run at once.
const USER_PLACES: usize = 2;

/// A job, and whose it is.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) tenant: Tenant,
    pub(crate) user: UserName,
    pub(crate) space: SpaceId,
    pub(crate) id: JobId,
}

/// The jobs that run, with what is known of each, and those that wait.
pub(super) struct Board<T> {
    running: Vec<(Place, T)>,
    waiting: VecDeque<Place>,
}

impl<T> Default for Board<T> {
    fn default() -> Self {
        Self { running: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<T> Board<T> {
    /// A job waits from now on, if it was not known yet.
    pub(super) fn wait(&mut self, place: Place) {
        let known = self.running.iter().map(|(running, _)| running).chain(&self.waiting).any(|it| it.id == place.id);
        if !known {
            self.waiting.push_back(place);
        }
    }

    /// The next job that may run. It has its place from now on.
    pub(super) fn next(&mut self, make: impl FnOnce() -> T) -> Option<(Place, &T)> {
        if self.running.len() >= PLACES {
            return None;
        }
        let has_room = |wanted: &Place| {
            let of_account = || self.running.iter().filter(|(it, _)| it.tenant == wanted.tenant);
            of_account().count() < ACCOUNT_PLACES
                && of_account().filter(|(it, _)| it.user == wanted.user).count() < USER_PLACES
        };
        let at = self.waiting.iter().position(has_room)?;
        let place = self.waiting.remove(at)?;
        self.running.push((place.clone(), make()));
        self.running.last().map(|(_, handle)| (place, handle))
    }

    /// A job's place is free again.
    pub(super) fn leave(&mut self, id: JobId) {
        self.running.retain(|(place, _)| place.id != id);
    }

    /// A job waits no more.
    pub(super) fn forget(&mut self, fits: impl Fn(&Place) -> bool) {
        self.waiting.retain(|place| !fits(place));
    }

    /// Those that run.
    pub(super) fn running(&self) -> impl Iterator<Item = &(Place, T)> {
        self.running.iter()
    }
}
