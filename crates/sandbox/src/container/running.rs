//! One container from its making to its removal.
//!
//! It is killed by its first process, without asking the engine, and then removed by the engine; by a process
//! descriptor, so that it can never be another process that has the number by then.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use super::client::Client;
use super::room::{self, Room};
use crate::linux::cgroup::EngineGroups;
use crate::linux::receipt::{self, Declared};
use crate::linux::{Fact, Receipt, ReceiptError, StartError};

/// A container that the engine has made. Removed with this value.
pub(super) struct Made {
    client: Client,
    id: String,
    room: Room,
}

impl Made {
    pub(super) fn new(client: Client, id: String, room: Room) -> Self {
        Self { client, id, room }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// Why nobody connected in time.
    pub(super) async fn why_not(&self) -> StartError {
        match self.client.inspect(&self.id).await {
            Ok(inspected) if inspected.process.is_some() => StartError::Timeout,
            Ok(inspected) => StartError::Ended(inspected.state),
            // Removed already, as what has ended is.
            Err(_) => StartError::Ended("its first process ended at once".to_owned()),
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let (client, id) = (self.client.clone(), std::mem::take(&mut self.id));
        // Without a runtime the server is ending: its first process dies with the socket, and the engine removes
        // what has died (`AutoRemove`); if not, the next start does.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = client.remove(&id).await {
                    tracing::warn!(%error, "a container could not be removed; the next start of the server tries again");
                }
            });
        }
    }
}

/// A running container.
pub(crate) struct Container {
    made: Made,
    process: OwnedFd,
    groups: EngineGroups,
    /// Folders of the host by their places inside: what the engine bound must be what was asked for.
    folders: Vec<(&'static str, (u64, u64))>,
}

impl Container {
    /// # Errors
    /// If its groups or the folders cannot be read.
    pub(super) fn adopt(
        made: Made,
        process: OwnedFd,
        number: i32,
        folders: [(&'static str, Option<OwnedFd>); 2],
    ) -> io::Result<Self> {
        let membership = std::fs::read_to_string(format!("/proc/{number}/cgroup"))?;
        let groups = EngineGroups::find(made.id(), &membership)?;
        let folders = folders.into_iter().filter_map(|(place, folder)| Some((place, folder?)));
        let folders = folders.map(|(place, folder)| Ok((place, room::identity(&folder)?)));
        let folders = folders.collect::<io::Result<_>>()?;
        Ok(Self { made, process, groups, folders })
    }

    pub(super) fn room(&self) -> &Room {
        self.made.room()
    }

    /// Ends everything inside, whatever the first process does.
    pub(crate) fn kill(&self) {
        // One that is gone already is what we want.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
    }

    pub(crate) fn receipt(&self, process: i32, declared: &Declared) -> Result<Receipt, ReceiptError> {
        let receipt = receipt::read(process, &|membership| self.groups.observe(membership), declared)?;
        for (place, folder) in &self.folders {
            let there = room::identity_in(process, place).map_err(|_| ReceiptError::Unreadable("folders"))?;
            if there != *folder {
                return Err(ReceiptError::Differs(vec![Fact::Mounts]));
            }
        }
        Ok(receipt)
    }

    pub(crate) fn memory_kills(&self) -> Option<u64> {
        self.groups.memory_kills()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}
