//! `bailiwick notification`: where people are told what happens.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Context;
use super::secret::read_value;
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum NotificationCommand {
    /// List the account's targets, and how the last message to each went. No command shows an address.
    #[command(after_help = "Example:\n  bailiwick notification list")]
    List,
    /// Add a target. The webhook's URL, or the bot's token, comes from standard input or a prompt.
    #[command(
        after_help = "Examples:\n  bailiwick notification add ops --kind slack --on approval,question,failed\n  \
        pass show telegram-bot | bailiwick notification add phone --kind telegram --chat 12345 --on approval"
    )]
    Add {
        /// Its name.
        name: String,
        /// The service.
        #[arg(long, value_name = "SERVICE", value_enum)]
        kind: KindWord,
        /// Telegram: which chat, a number or @channel.
        #[arg(long, value_name = "CHAT", allow_hyphen_values = true)]
        chat: Option<String>,
        /// What it is told.
        #[arg(long, value_name = "OCCASIONS", value_enum, value_delimiter = ',', required = true)]
        on: Vec<OccasionWord>,
    },
    /// Change what a target is told, or its address, which comes from standard input or a prompt.
    #[command(after_help = "Examples:\n  bailiwick notification set ops --on approval,failed\n  \
        bailiwick notification set phone --new-address --chat @team")]
    Set {
        /// The target.
        name: String,
        /// What it is told from now on.
        #[arg(long, value_name = "OCCASIONS", value_enum, value_delimiter = ',')]
        on: Option<Vec<OccasionWord>>,
        /// Read another address.
        #[arg(long)]
        new_address: bool,
        /// Telegram: which chat, with the address.
        #[arg(long, value_name = "CHAT", allow_hyphen_values = true, requires = "new_address")]
        chat: Option<String>,
    },
    /// Send a target a test, and say how the far side took it.
    #[command(after_help = "Example:\n  bailiwick notification test ops")]
    Test {
        /// The target.
        name: String,
    },
    /// Send a target nothing for now.
    #[command(after_help = "Example:\n  bailiwick notification pause ops")]
    Pause {
        /// The target.
        name: String,
    },
    /// Go on with a target, also where the server paused it.
    #[command(after_help = "Example:\n  bailiwick notification resume ops")]
    Resume {
        /// The target.
        name: String,
    },
    /// Remove a target, with what waits for it.
    #[command(visible_alias = "delete", after_help = "Example:\n  bailiwick notification rm ops")]
    Rm {
        /// The target.
        name: String,
    },
}

/// A service.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindWord {
    Slack,
    Discord,
    Telegram,
}

/// What a person is told of.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum OccasionWord {
    /// A call waits for an approval.
    Approval,
    /// An agent asks a question.
    Question,
    /// A turn or a job failed.
    Failed,
    /// A job ended otherwise.
    Done,
}

/// The word as the server knows it.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn words(on: Vec<OccasionWord>) -> Vec<String> {
    on.into_iter().map(word).collect()
}

pub(crate) async fn run(context: &Context, command: NotificationCommand) -> Result<(), Failure> {
    match command {
        NotificationCommand::List => {
            let mut listed = context.get(&["notifications"]).await?;
            if context.format == Format::Text
                && let Some(targets) = listed.as_array_mut()
            {
                for target in targets {
                    let events: Vec<&str> = out::array(&target["events"]).iter().filter_map(Value::as_str).collect();
                    target["events"] = json!(events.join(","));
                }
            }
            let columns =
                ["name", "kind", "host", "events", "paused", "last_at", "last_state", "waiting", "dropped", "owner"];
            out::rows(context.format, &listed, &columns, "No targets of notifications.");
        }
        NotificationCommand::Add { name, kind, chat, on } => {
            let address = read_value(if kind == KindWord::Telegram { "The bot's token" } else { "The webhook's URL" })?;
            let body = json!({
                "name": name, "kind": word(kind), "address": address.as_str(), "chat": chat, "events": words(on),
            });
            let made = context.post(&["notifications"], &body).await?;
            context.done(&made, &format!("Target {name} is added: try it with `bailiwick notification test {name}`."));
        }
        NotificationCommand::Set { name, on, new_address, chat } => {
            let address = if new_address { Some(read_value("The new address")?) } else { None };
            let address = address.as_ref().map(|address| address.as_str());
            let body = json!({ "events": on.map(words), "address": address, "chat": chat });
            let set = context.patch(&["notifications", &name], &body).await?;
            context.done(&set, &format!("Target {name} is changed."));
        }
        NotificationCommand::Test { name } => {
            let tried = context.post(&["notifications", &name, "test"], &json!({})).await?;
            let state = tried["state"].as_str().unwrap_or_default();
            if tried["delivered"] != true {
                context.done(&tried, &format!("Target {name} did not take it: {}", out::clean(state)));
                return Err(Failure::Reported);
            }
            context.done(&tried, &format!("Target {name} took it."));
        }
        NotificationCommand::Pause { name } => {
            let set = context.patch(&["notifications", &name], &json!({ "paused": true })).await?;
            context.done(&set, &format!("Target {name} is told nothing for now."));
        }
        NotificationCommand::Resume { name } => {
            let set = context.patch(&["notifications", &name], &json!({ "paused": false })).await?;
            context.done(&set, &format!("Target {name} is told what happens."));
        }
        NotificationCommand::Rm { name } => {
            let gone = context.delete(&["notifications", &name]).await?;
            context.done(&gone, &format!("Target {name} is removed."));
        }
    }
    Ok(())
}
