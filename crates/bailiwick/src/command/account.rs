//! `bailiwick account`: the operator's view of tenants, which is never what is in them.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Context, text};
use crate::failure::Failure;
use crate::out::{self, Format};

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
    /// Show or set what an account may use. 0 is no limit, `default` is the server's default again.
    #[command(after_help = "Example:\n  bailiwick account limits acme\n  \
        bailiwick account limits acme --set tokens_per_day=5000000 --set storage_mib=default")]
    Limits {
        /// Its name.
        name: String,
        /// One limit: tokens_per_day, model_calls_per_day, tool_calls_per_day, storage_mib or concurrent_sessions.
        #[arg(long, value_name = "LIMIT=NUMBER")]
        set: Vec<String>,
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
        AccountCommand::Limits { name, set } => limits(context, &name, &set).await?,
        AccountCommand::Delete { name, yes } => {
            sure(yes, "deletes the account with all its users, spaces and sessions")?;
            let gone = context.delete(&["admin", "accounts", &name]).await?;
            context.done(&gone, &format!("Account {name} is deleted; its audit log stays."));
        }
    }
    Ok(())
}

async fn limits(context: &Context, name: &str, changes: &[String]) -> Result<(), Failure> {
    let path = ["admin", "accounts", name, "limits"];
    let mut shown = context.get(&path).await?;
    if !changes.is_empty() {
        // Set whole: what is not named stays as it is.
        let mut all = shown["set"].as_object().cloned().unwrap_or_default();
        for change in changes {
            let (limit, value) = parsed(change)?;
            all.insert(limit, value);
        }
        shown = context.put(&path, &Value::Object(all)).await?;
    }
    if let Format::Json = context.format {
        out::json(&shown);
        return Ok(());
    }
    let mut table = out::Table::new(&["LIMIT", "IN FORCE", "DEFAULT"]);
    let figure = |value: &Value| if value == 0 { "none".to_owned() } else { out::cell(value) };
    for (limit, value) in shown["limits"].as_object().into_iter().flatten() {
        table.row(vec![limit.clone(), figure(value), figure(&shown["defaults"][limit])]);
    }
    table.print();
    Ok(())
}

/// `limit=number`, or `limit=default`.
fn parsed(change: &str) -> Result<(String, Value), Failure> {
    let hint = "write --set LIMIT=NUMBER, or LIMIT=default; 0 is no limit";
    let wrong = || Failure::Usage { text: format!("{change} is no limit and a number"), hint };
    let (limit, value) = change.split_once('=').ok_or_else(wrong)?;
    let value = match value {
        "default" => Value::Null,
        number => json!(number.parse::<u64>().map_err(|_| wrong())?),
    };
    Ok((limit.to_owned(), value))
}

/// What cannot be undone is asked for twice.
pub(super) fn sure(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(Failure::Usage { text: format!("this {what}, and cannot be undone"), hint: "add --yes if you are sure" })
}
