//! `bailiwick sandbox list`, `show` and `end`: the sandboxes that run.

use clap::Subcommand;

use super::Context;
use crate::failure::Failure;
use crate::out;

/// There is no such sandbox, or it is not yours to see.
#[derive(Debug, thiserror::Error)]
#[error("there is no running sandbox {0} that you may see: `bailiwick sandbox list` says which there are")]
pub(crate) struct NotRunning(String);

#[derive(Subcommand)]
pub(crate) enum RunningCommand {
    /// List those that run: what you use, and what runs in the spaces that you manage; an admin sees all of the account.
    #[command(after_help = "Example:\n  bailiwick sandbox list")]
    List,
    /// Show one with its receipt: what the kernel said around its last command.
    #[command(after_help = "Example:\n  bailiwick sandbox show sbx_…")]
    Show {
        /// Its id.
        id: String,
    },
    /// End one, with whatever runs in it. The files of its space stay.
    #[command(after_help = "Example:\n  bailiwick sandbox end sbx_…")]
    End {
        /// Its id.
        id: String,
    },
}

pub(crate) async fn run(context: &Context, command: RunningCommand) -> Result<(), Failure> {
    match command {
        RunningCommand::List => {
            let listed = context.get(&["sandboxes"]).await?;
            let columns = ["id", "agent", "user", "backend", "scope", "network", "running", "commands", "started_at"];
            out::rows(context.format, &listed, &columns, "No sandbox runs that you may see.");
        }
        RunningCommand::Show { id } => {
            let listed = context.get(&["sandboxes"]).await?;
            let found = listed.as_array().and_then(|all| all.iter().find(|one| one["id"] == id.as_str()));
            out::thing(context.format, found.ok_or(NotRunning(id))?);
        }
        RunningCommand::End { id } => {
            let now = context.delete(&["sandboxes", &id]).await?;
            context.done(&now, &format!("{id} has ended."));
        }
    }
    Ok(())
}
