//! Who runs and who waits: places for jobs, given to the account that has the fewest, and within it in the order in
//! which they were asked for.
//!
//! A job whose user or account has no place left is passed over, so that one tenant's jobs never hold up another's.

use std::collections::VecDeque;

use bailiwick_auth::Tenant;
use bailiwick_types::{Incarnation, JobId, SpaceId, UserName};

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
        let running: Vec<Whose<'_>> = self.running.iter().map(|(place, _)| place.whose()).collect();
        let at = next_of(&running, self.waiting.iter().map(Place::whose))?;
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

/// Whose a job is: the account and the user.
type Whose<'a> = (Incarnation, &'a UserName);

impl Place {
    fn whose(&self) -> Whose<'_> {
        (self.tenant.incarnation(), &self.user)
    }
}

/// Which of those that wait gets the next place: of those with room, the one whose account has the fewest, and of several
/// the one that came first. So whose many jobs wait does not get each place that comes free.
fn next_of<'a>(running: &[Whose<'_>], waiting: impl Iterator<Item = Whose<'a>>) -> Option<usize> {
    let of_account = |wanted: &Whose<'_>| running.iter().filter(|it| it.0 == wanted.0).count();
    let of_user = |wanted: &Whose<'_>| running.iter().filter(|it| *it == wanted).count();
    waiting
        .enumerate()
        .filter(|(_, wanted)| of_account(wanted) < ACCOUNT_PLACES && of_user(wanted) < USER_PLACES)
        .min_by_key(|(at, wanted)| (of_account(wanted), *at))
        .map(|(at, _)| at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    type Line<'a> = Vec<(&'a str, Incarnation, UserName)>;

    /// Gives places until there are so many that run, and says whose jobs got one.
    fn give<'a>(running: &mut Line<'a>, waiting: &mut Line<'a>, places: usize) -> Vec<String> {
        let mut given = Vec::new();
        while running.len() < places {
            let all: Vec<Whose<'_>> = running.iter().map(|(_, account, user)| (*account, user)).collect();
            let Some(at) = next_of(&all, waiting.iter().map(|(_, account, user)| (*account, user))) else { break };
            let next = waiting.remove(at);
            given.push(format!("{}/{}", next.0, next.2));
            running.push(next);
        }
        given
    }

    #[test]
    fn b06_the_next_place_is_the_accounts_with_the_fewest() {
        let accounts: Vec<_> = ["acme", "globex", "initech", "late"].map(|name| (name, Incarnation::new())).into();
        let job = |account: usize, user: &str| (accounts[account].0, accounts[account].1, user.parse().unwrap());
        let (mut running, mut waiting) = (Line::new(), Line::new());
        waiting.extend(["ann", "ann", "ann", "ben", "ben", "cleo"].map(|user| job(0, user)));
        let given = give(&mut running, &mut waiting, 9);
        assert_eq!(given, ["acme/ann", "acme/ann", "acme/ben", "acme/ben"], "two for a user, four for an account");
        for account in [1, 2] {
            waiting.extend(["ann", "ben", "ann", "ben"].map(|user| job(account, user)));
        }
        // Ten places: each of the two gets three, by turns, though the first account waits for longer.
        let given = give(&mut running, &mut waiting, 10);
        let turns = ["globex/ann", "initech/ann", "globex/ben", "initech/ben", "globex/ann", "initech/ann"];
        assert_eq!(given, turns);
        // One place comes free: whoever has none gets it, though the others asked before.
        waiting.push(job(3, "zoe"));
        running.remove(0);
        assert_eq!(give(&mut running, &mut waiting, 10), ["late/zoe"]);
        // After that it is the turn of those with three, in the order in which they came.
        assert_eq!(give(&mut running, &mut waiting, 11), ["acme/ann"]);
    }
}
