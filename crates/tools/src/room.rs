//! Room on the disk, before a tool writes and while a command does.
//!
//! The account has a quota, and a workspace may have a limit of its own. A command is looked at while it runs and
//! killed when there is too much: it must never be told to stop in a way that it could ignore.

use std::time::Duration;

use bailiwick_auth::Tenant;
use bailiwick_files::Access;
use bailiwick_sandbox::NoRoom;
use bailiwick_store::area::WorkArea;
use bailiwick_store::storage::{Need, Room};
use bailiwick_types::AgentDefinition;

use crate::run::{ToolError, ToolManager};

/// Before the first look, and before the next one where looking failed.
const FIRST: Duration = Duration::from_secs(1);

impl ToolManager {
    /// Runs a command in a workspace, and kills it when its account, or the workspace, has more than it may.
    ///
    /// # Errors
    /// [`ToolError::Full`] if there is no room even to begin.
    pub(crate) async fn while_there_is_room<T>(
        &self,
        (tenant, agent, area): (&Tenant, &AgentDefinition, &WorkArea),
        no_room: &NoRoom,
        command: impl Future<Output = T>,
    ) -> Result<T, ToolError> {
        // Held by nobody meanwhile: it is the looks that count what a command writes.
        drop(self.room_in(agent, area, Need::UpTo(1)).await?);
        let most = self.disk_mib(agent, area);
        let watch = async {
            let mut pause = FIRST;
            loop {
                tokio::time::sleep(pause).await;
                pause = match self.store().storage_look(tenant, &area.folder, most).await {
                    Ok(look) => {
                        if let Some(full) = look.full {
                            return no_room.say(full.to_string());
                        }
                        look.next
                    }
                    Err(error) => {
                        tracing::warn!(account = %tenant.account(), %error, "what a command writes was not measured");
                        FIRST
                    }
                };
            }
        };
        tokio::pin!(command);
        tokio::select! {
            biased;
            done = &mut command => Ok(done),
            () = watch => Ok(command.await),
        }
    }

    /// How many MiB the workspace may have, if somebody says so: the agent's word, at most the operator's. One that
    /// cannot be written to has no limit.
    fn disk_mib(&self, agent: &AgentDefinition, area: &WorkArea) -> Option<u64> {
        match area.files.access() {
            Access::ReadWrite => [agent.limits.disk_mib, self.ceilings().disk_mib].into_iter().flatten().min(),
            Access::ReadOnly => None,
        }
    }

    /// Room in the workspace, where it has a limit of its own.
    ///
    /// # Errors
    /// [`ToolError::Full`] if there is none.
    pub(crate) async fn room_in(
        &self,
        agent: &AgentDefinition,
        area: &WorkArea,
        need: Need,
    ) -> Result<Option<Room>, ToolError> {
        let Some(most) = self.disk_mib(agent, area) else { return Ok(None) };
        self.store().storage_reserve_in(&area.folder, most, need).await?.map(Some).map_err(ToolError::Full)
    }
}
