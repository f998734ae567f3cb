//! Where a sandbox's files lie: the space's own folder, or a scratch folder apart from it. Shown to
//! nobody but the sandbox, and only against the record of entering one.

use std::path::PathBuf;

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::{StartJob, StartSandbox};
use bailiwick_files::{Access, Workspace, remove_tree};

use crate::error::StoreError;
use crate::store::Store;

/// A folder for a sandbox, as a path and opened.
pub struct WorkArea {
    /// The folder's path on this host.
    pub folder: PathBuf,
    /// The same folder.
    pub files: Workspace,
}

impl Store {
    /// The files of the session's space.
    ///
    /// # Errors
    /// If the folder cannot be made or opened.
    pub async fn area_space(&self, act: &Recorded<StartSandbox>, access: Access) -> Result<WorkArea, StoreError> {
        let tenant = act.scope().tenant();
        let space = act.resource().space();
        let folder = std::path::absolute(self.space_dir(tenant, space.id()))?;
        Ok(WorkArea { folder, files: self.workspace(space, tenant, access).await? })
    }

    /// A folder of the account apart from all spaces. `name` is ours, never a caller's.
    ///
    /// # Errors
    /// If the folder cannot be made or opened.
    pub fn area_scratch(&self, act: &Recorded<StartSandbox>, name: &str) -> Result<WorkArea, StoreError> {
        let tenant = act.scope().tenant();
        let folder = std::path::absolute(self.account_dir(tenant.incarnation()).join("scratch").join(name))?;
        self.prepare_dir(&folder, tenant)?;
        let files = Workspace::open(&folder, Access::ReadWrite, self.file_owner(tenant))?;
        Ok(WorkArea { folder, files })
    }

    /// Removes such a folder, which was a job's alone: nobody comes back to it. What cannot be removed stays in the
    /// account's quota.
    pub async fn area_scratch_clear(&self, act: &Recorded<StartJob>, name: &str) {
        let tenant = act.scope().tenant();
        let folder = self.account_dir(tenant.incarnation()).join("scratch").join(name);
        let removed = tokio::task::spawn_blocking(move || remove_tree(&folder)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "the folder of a job could not be removed");
        }
        self.storage_shrank(tenant);
    }
}
