//! `bailiwick user`: the users of an account.

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::account::sure;
use super::{Context, text};
use crate::failure::Failure;
use crate::out;

/// A role, in the words of the protocol's clients too.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleWord {
    Admin,
    #[value(alias = "user")]
    Member,
    Viewer,
}

impl RoleWord {
    const fn wire(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "user",
            Self::Viewer => "viewer",
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user, and print their first key.
    #[command(after_help = "Example:\n  bailiwick user create bob --role member")]
    Create {
        /// The name.
        name: String,
        /// The role.
        #[arg(long, value_enum, default_value = "member")]
        role: RoleWord,
    },
    /// List the users.
    #[command(after_help = "Example:\n  bailiwick user list --account acme")]
    List,
    /// Show one user.
    #[command(after_help = "Example:\n  bailiwick user show bob")]
    Show {
        /// The name.
        name: String,
    },
    /// Delete a user with all that is theirs.
    #[command(after_help = "Example:\n  bailiwick user delete bob --yes")]
    Delete {
        /// The name.
        name: String,
        /// Really.
        #[arg(long)]
        yes: bool,
    },
    /// Change a user's role; it holds from the next request on.
    #[command(after_help = "Example:\n  bailiwick user role bob viewer")]
    Role {
        /// The name.
        name: String,
        /// The role.
        #[arg(value_enum)]
        role: RoleWord,
    },
}

pub(crate) async fn run(context: &Context, command: UserCommand) -> Result<(), Failure> {
    let account = context.account().await?;
    let users = ["admin", "accounts", account.as_str(), "users"];
    match command {
        UserCommand::Create { name, role } => {
            let made = context.post(&users, &json!({ "user_id": name, "role": role.wire() })).await?;
            let key = text(&made, "user_key")?;
            context.new_key(&made, key, &format!("User {name} is there, in account {account}."));
        }
        UserCommand::List => {
            let listed = context.get(&users).await?;
            out::rows(context.format, &listed, &["user_id", "role", "created_at"], "No users.");
        }
        UserCommand::Show { name } => {
            out::thing(context.format, &context.get(&[&users[..], &[&name]].concat()).await?);
        }
        UserCommand::Delete { name, yes } => {
            sure(yes, "deletes the user with all their spaces and sessions")?;
            let gone = context.delete(&[&users[..], &[&name]].concat()).await?;
            context.done(&gone, &format!("User {name} is deleted."));
        }
        UserCommand::Role { name, role } => {
            let body = json!({ "role": role.wire() });
            let set = context.put(&[&users[..], &[&name, "role"]].concat(), &body).await?;
            context.done(&set, &format!("User {name} is {} now.", set["role"].as_str().unwrap_or(role.wire())));
        }
    }
    Ok(())
}
