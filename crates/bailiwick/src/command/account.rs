//! `bailiwick account`: the operator's view of tenants, which is never what is in them.

use clap::Subcommand;
use serde_json::json;

use super::{Context, text};
use crate::failure::Failure;
use crate::out;

#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Create an account with its first admin, and print the admin's key.
    #[command(after_help = "Example:\n  bailiwick account create acme --admin alice")]
    Create {
        /// Its name.
        name: String,
        /// Its first admin.
        #[arg(long, default_value = "admin")]
        admin: String,
    },
    /// List all accounts.
    #[command(after_help = "Example:\n  bailiwick account list")]
    List,
    /// Show one account.
    #[command(after_help = "Example:\n  bailiwick account show acme")]
    Show {
        /// Its name.
        name: String,
    },
    /// Delete an account with everything in it. Its audit log stays.
    #[command(after_help = "Example:\n  bailiwick account delete acme --yes")]
    Delete {
        /// Its name.
        name: String,
        /// Really.
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(context: &Context, command: AccountCommand) -> Result<(), Failure> {
    match command {
        AccountCommand::Create { name, admin } => {
            let body = json!({ "account_id": name, "admin_user_id": admin });
            let made = context.post(&["admin", "accounts"], &body).await?;
            let key = text(&made, "user_key")?;
            context.new_key(&made, key, &format!("Account {name} is there, with the admin {admin}."));
        }
        AccountCommand::List => {
            let listed = context.get(&["admin", "accounts"]).await?;
            out::rows(context.format, &listed, &["account_id", "user_count", "status", "created_at"], "No accounts.");
        }
        AccountCommand::Show { name } => {
            out::thing(context.format, &context.get(&["admin", "accounts", &name]).await?);
        }
        AccountCommand::Delete { name, yes } => {
            sure(yes, "deletes the account with all its users, spaces and sessions")?;
            let gone = context.delete(&["admin", "accounts", &name]).await?;
            context.done(&gone, &format!("Account {name} is deleted; its audit log stays."));
        }
    }
    Ok(())
}

/// What cannot be undone is asked for twice.
pub(super) fn sure(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(Failure::Usage { text: format!("this {what}, and cannot be undone"), hint: "add --yes if you are sure" })
}
