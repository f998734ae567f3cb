//! Room while a command runs, and room in one workspace.
//!
//! What a sandbox writes passes none of our doors, so it is looked at while it is written. Looking goes the way of
//! every other measurement, with the same turns and places, so that many commands of one account cost it one walk;
//! it is only asked for less often than by somebody who waits. Must never end a command because of something that
//! was not seen: figures are, and two walks in a row that came to no end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_auth::Tenant;
use bailiwick_files::{Seen, measure};
use bailiwick_types::Exhausted;

use super::{Age, Answer, Asked, Known, MOST_ENTRIES, Need, OLDEST, REMEMBERED, Room, WAIT, full, walk};
use crate::error::StoreError;
use crate::quota;
use crate::store::Store;

/// The least time between two looks at the files of a running command.
const LEAST: Duration = Duration::from_secs(1);
/// Between two looks lies so often the time that the last walk took: some three hundredths of a core.
const PAUSES: u32 = 30;
/// A tree that is moved about while it is walked is not seen whole. Once is chance.
const PARTS: u32 = 2;

/// What there is too much of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The account's files.
    #[error("{0}")]
    Account(Exhausted),
    /// The files of one workspace, which may have so many MiB.
    #[error("the workspace's files take up its {0} MiB: delete some first")]
    Workspace(u64),
}

/// A look at the files of a running command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What there is too much of, if there is.
    pub full: Option<Full>,
    /// When the next look is due.
    pub next: Duration,
}

/// How long a figure is good enough for a command that runs.
pub(super) fn lasts(took: Duration) -> Duration {
    LEAST.max((took * PAUSES).min(OLDEST))
}

impl Known {
    /// How long the last walk took.
    fn took(&self) -> Duration {
        self.state().measured.map_or(Duration::ZERO, |memory| memory.took)
    }

    /// Whether so many walks in a row did not see everything that it cannot be chance.
    fn hides(&self) -> bool {
        self.state().parts >= PARTS
    }
}

impl Store {
    /// Looks whether a command that runs may go on: whether its account's files fit into the account's quota, and
    /// those of its workspace into `most_mib`.
    ///
    /// # Errors
    /// If the quota cannot be read, or the files cannot be measured.
    pub async fn storage_look(
        &self,
        tenant: &Tenant,
        workspace: &Path,
        most_mib: Option<u64>,
    ) -> Result<Look, StoreError> {
        let defaults = self.default_quotas();
        let limits = self.database(tenant)?.read(|sql| quota::in_force(sql, &defaults)).await?;
        let mut took = Duration::ZERO;
        let mut found = None;
        if let (Some(most), Some(limit)) = (limits.storage_mib.most(), limits.storage_mib.mib_in_bytes().most()) {
            let known = self.storage_known(tenant.incarnation());
            let dir = self.account_dir(tenant.incarnation());
            if self.is_over(&known, limit, || dir.clone(), |dir| walk(&dir)).await? {
                found = Some(Full::Account(full(most)));
            }
            took += known.took();
        }
        if let (None, Some(most)) = (&found, most_mib) {
            let known = self.workspace_known(workspace);
            let look = |dir: std::path::PathBuf| Ok(measure(&dir, MOST_ENTRIES)?);
            if self.is_over(&known, most.saturating_mul(1 << 20), || workspace.to_owned(), look).await? {
                found = Some(Full::Workspace(most));
            }
            took += known.took();
        }
        Ok(Look { full: found, next: lasts(took) })
    }

    /// Room in one workspace that may have so many MiB, for work that may write there.
    ///
    /// # Errors
    /// If it cannot be measured. `Ok(Err(_))` if there is none.
    pub async fn storage_reserve_in(
        &self,
        workspace: &Path,
        most_mib: u64,
        need: Need,
    ) -> Result<Result<Room, Full>, StoreError> {
        let known = self.workspace_known(workspace);
        let until = Instant::now() + WAIT;
        for age in [Age::Recent, Age::Moment] {
            let dir = workspace.to_owned();
            let look = move || Ok(measure(&dir, MOST_ENTRIES)?);
            let answer = self.storage().ask(&known, Asked { age, until }, look).await?;
            if let Some(bytes) = known.take(most_mib.saturating_mul(1 << 20), answer, need) {
                return Ok(Ok(Room { of: Some((known, most_mib)), bytes }));
            }
        }
        Ok(Err(Full::Workspace(most_mib)))
    }

    /// Whether there is more than that. What ends a command is measured anew before, where it was not just measured.
    async fn is_over<D: Send + 'static>(
        &self,
        known: &Arc<Known>,
        limit: u64,
        dir: impl Fn() -> D,
        look: fn(D) -> Result<bailiwick_files::Measured, StoreError>,
    ) -> Result<bool, StoreError> {
        let until = Instant::now() + WAIT;
        let mut over = false;
        for age in [Age::Watch, Age::Moment] {
            let dir = dir();
            match self.storage().ask(known, Asked { age, until }, move || look(dir)).await? {
                Answer::Found(found) => over = found.bytes > limit || (found.seen == Seen::Part && known.hides()),
                // Nobody could look in time. What was seen before has to do, and the next look is not far.
                Answer::Late => {}
            }
            if !over {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn workspace_known(&self, workspace: &Path) -> Arc<Known> {
        let mut all = self.storage().workspaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.len() > REMEMBERED {
            all.retain(|_, known| Arc::strong_count(known) > 1);
        }
        Arc::clone(all.entry(workspace.to_owned()).or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use bailiwick_files::Measured;

    use super::*;

    #[test]
    fn b05_looks_cost_some_hundredths_of_a_core_and_the_first_of_a_second_is_not_waited_for_longer() {
        assert_eq!(lasts(Duration::ZERO), Duration::from_secs(1));
        assert_eq!(lasts(Duration::from_millis(10)), Duration::from_secs(1));
        assert_eq!(lasts(Duration::from_millis(100)), Duration::from_secs(3));
        assert_eq!(lasts(Duration::from_secs(100)), OLDEST);
    }

    #[test]
    fn b05_a_walk_that_missed_something_ends_nothing_and_two_in_a_row_do() {
        let known = Known::default();
        let walk = |seen| known.walk(|| Ok(Measured { bytes: 1, entries: 1, seen })).unwrap();
        walk(Seen::Part);
        assert!(!known.hides());
        walk(Seen::Whole);
        walk(Seen::Part);
        assert!(!known.hides(), "not in a row");
        walk(Seen::Part);
        assert!(known.hides());
        walk(Seen::Whole);
        assert!(!known.hides());
    }
}
