//! `bailiwick session`: conversations with agents.

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;

use super::{Context, text};
use crate::chat;
use crate::client::{Ask, SessionStream};
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum SessionCommand {
    /// List your sessions.
    #[command(after_help = "Example:\n  bailiwick session list")]
    List {
        /// Those of a space instead.
        #[arg(long, value_name = "ID")]
        space: Option<String>,
    },
    /// Show one session.
    #[command(after_help = "Example:\n  bailiwick session show ses_…")]
    Show {
        /// Its id.
        id: String,
    },
    /// Print the events of a session.
    #[command(after_help = "Example:\n  bailiwick session events ses_… --follow")]
    Events {
        /// Its id.
        id: String,
        /// Go on as they come.
        #[arg(short, long)]
        follow: bool,
    },
    /// Send a message, and print the answer as it comes.
    #[command(after_help = "Example:\n  bailiwick session send ses_… 'Go on'")]
    Send {
        /// Its id.
        id: String,
        /// The message.
        message: String,
        /// Do not wait for the answer.
        #[arg(long)]
        no_wait: bool,
    },
    /// End the present turn.
    #[command(after_help = "Example:\n  bailiwick session cancel ses_…")]
    Cancel {
        /// Its id.
        id: String,
    },
    /// End the session.
    #[command(after_help = "Example:\n  bailiwick session reset ses_…")]
    Reset {
        /// Its id.
        id: String,
    },
}

pub(crate) async fn run(context: &Context, command: SessionCommand) -> Result<(), Failure> {
    match command {
        SessionCommand::List { space } => {
            let listed = match &space {
                Some(space) => context.get(&["spaces", space, "sessions"]).await?,
                None => context.get(&["sessions"]).await?,
            };
            let columns = ["id", "agent", "space_id", "state", "updated_at"];
            out::rows(context.format, &listed, &columns, "No sessions.");
        }
        SessionCommand::Show { id } => out::thing(context.format, &context.get(&["sessions", &id]).await?),
        SessionCommand::Events { id, follow } => events(context, id, follow).await?,
        SessionCommand::Send { id, message, no_wait } => {
            if no_wait {
                let body = json!({ "message": message });
                let sent = context.client.eve(Method::POST, &["session", &id], Ask::body(&body)).await?;
                let delivery = text(&sent, "deliveryId")?;
                context.done(&sent, &format!("Accepted as {delivery}."));
            } else {
                chat::send_once(context, &id, &message).await?;
            }
        }
        SessionCommand::Cancel { id } => {
            let done = control(context, &id, "cancel").await?;
            context.done(&done, &said(&done, "The turn ends.", "No turn is under way."));
        }
        SessionCommand::Reset { id } => {
            let done = control(context, &id, "reset").await?;
            context.done(&done, &said(&done, "The session has ended.", "The session had ended before."));
        }
    }
    Ok(())
}

async fn control(context: &Context, id: &str, what: &str) -> Result<serde_json::Value, Failure> {
    Ok(context.client.eve(Method::POST, &["session", id, what], Ask::body(&json!({}))).await?)
}

fn said(answer: &serde_json::Value, done: &str, nothing: &str) -> String {
    let idle = answer["status"].as_str().is_some_and(|status| status.starts_with("no_active"));
    if idle { nothing.to_owned() } else { done.to_owned() }
}

async fn events(context: &Context, id: String, follow: bool) -> Result<(), Failure> {
    let mut stream = SessionStream::new(context.client.clone(), id, 0);
    let print = |event: &crate::client::Event| match context.format {
        Format::Json => out::line(&event.raw.to_string()),
        Format::Text => out::line(&chat::event_line(event)),
    };
    stream.history().await?.iter().for_each(print);
    if !follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            event = stream.next() => print(&event?),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}
