//! `bailiwick key`: API keys. A key is shown once, when it is made.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Context, text};
use crate::failure::Failure;
use crate::out;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ScopeWord {
    Read,
    Write,
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and print it.
    #[command(after_help = "Example:\n  bailiwick key create ci --scope read --expires 2027-12-31T00:00:00Z")]
    Create {
        /// What it is for, for people.
        name: String,
        /// Whose key; one's own if missing.
        #[arg(long, value_name = "USER")]
        of: Option<String>,
        /// For what; everything that the user may if missing.
        #[arg(long, value_enum)]
        scope: Vec<ScopeWord>,
        /// Good for this agent alone.
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// Good in this space alone.
        #[arg(long, value_name = "ID")]
        space: Option<String>,
        /// Until when (RFC 3339).
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List the keys of a user.
    #[command(after_help = "Example:\n  bailiwick key list --of bob")]
    List {
        /// Whose keys; one's own if missing.
        #[arg(long, value_name = "USER")]
        of: Option<String>,
    },
    /// Revoke a key; it dies at once.
    #[command(after_help = "Example:\n  bailiwick key revoke abcd2345efgh6789")]
    Revoke {
        /// The part of the key after `bwk_`.
        id: String,
        /// Whose key; one's own if missing.
        #[arg(long, value_name = "USER")]
        of: Option<String>,
    },
    /// Replace all keys of a user by a new one, and print it.
    #[command(after_help = "Example:\n  bailiwick key rotate --of bob")]
    Rotate {
        /// Whose keys; one's own if missing.
        #[arg(long, value_name = "USER")]
        of: Option<String>,
    },
}

pub(crate) async fn run(context: &Context, command: KeyCommand) -> Result<(), Failure> {
    let (KeyCommand::Create { of, .. }
    | KeyCommand::List { of }
    | KeyCommand::Revoke { of, .. }
    | KeyCommand::Rotate { of }) = &command;
    let user = match of {
        Some(user) => user.clone(),
        None => context.user().await?,
    };
    let account = context.account().await?;
    let holder = ["admin", "accounts", account.as_str(), "users", user.as_str()];
    let keys = [&holder[..], &["keys"]].concat();
    match command {
        KeyCommand::Create { name, scope, agent, space, expires, .. } => {
            let mut body = json!({ "name": name });
            if !scope.is_empty() {
                let words = scope.iter().map(|word| match word {
                    ScopeWord::Read => "read",
                    ScopeWord::Write => "write",
                });
                body["scopes"] = words.collect::<Vec<_>>().into();
            }
            for (field, value) in [("agent_id", agent), ("space_id", space), ("expires_at", expires)] {
                if let Some(value) = value {
                    body[field] = Value::String(value);
                }
            }
            let made = context.post(&keys, &body).await?;
            let key = text(&made, "key")?;
            context.new_key(&made, key, &format!("A key of {user}, named {name}."));
        }
        KeyCommand::List { .. } => {
            let listed = context.get(&keys).await?;
            let columns = ["id", "name", "scopes", "agent_id", "space_id", "expires_at", "last_used_at"];
            out::rows(context.format, &listed, &columns, "No keys.");
        }
        KeyCommand::Revoke { id, .. } => {
            let gone = context.delete(&[&keys[..], &[&id]].concat()).await?;
            context.done(&gone, &format!("Key {id} is revoked."));
        }
        KeyCommand::Rotate { .. } => {
            let made = context.post(&[&holder[..], &["key"]].concat(), &json!({})).await?;
            let key = text(&made, "user_key")?;
            context.new_key(&made, key, &format!("All earlier keys of {user} are dead."));
        }
    }
    Ok(())
}
