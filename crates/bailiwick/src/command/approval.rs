//! `bailiwick approval`: calls that wait for a person.

use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::failure::Failure;
use crate::out;

#[derive(Subcommand)]
pub(crate) enum ApprovalCommand {
    /// List what waits for your decision.
    #[command(after_help = "Example:\n  bailiwick approval list")]
    List,
    /// Show one with all its arguments.
    #[command(after_help = "Example:\n  bailiwick approval show apr_…")]
    Show {
        /// Its id.
        id: String,
    },
    /// Let exactly this call run, with exactly these arguments, once.
    #[command(after_help = "Example:\n  bailiwick approval approve apr_…")]
    Approve {
        /// Its id.
        id: String,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Refuse it; the agent is told.
    #[command(after_help = "Example:\n  bailiwick approval deny apr_… --reason 'not on a Friday'")]
    Deny {
        /// Its id.
        id: String,
        /// Why; the agent reads it.
        #[arg(long)]
        reason: Option<String>,
    },
}

pub(crate) async fn run(context: &Context, command: ApprovalCommand) -> Result<(), Failure> {
    match command {
        ApprovalCommand::List => {
            let listed = context.get(&["approvals"]).await?;
            let columns = ["id", "kind", "agent", "requester", "expires_at", "prompt"];
            out::rows(context.format, &listed, &columns, "Nothing waits for you.");
        }
        ApprovalCommand::Show { id } => out::thing(context.format, &context.get(&["approvals", &id]).await?),
        ApprovalCommand::Approve { id, reason } => decide(context, &id, "approve", reason).await?,
        ApprovalCommand::Deny { id, reason } => decide(context, &id, "deny", reason).await?,
    }
    Ok(())
}

async fn decide(context: &Context, id: &str, decision: &str, reason: Option<String>) -> Result<(), Failure> {
    let mut body = json!({ "decision": decision });
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    let now = context.post(&["approvals", id], &body).await?;
    let word = if decision == "approve" { "approved" } else { "denied" };
    context.done(&now, &format!("{id}: {word}."));
    Ok(())
}
