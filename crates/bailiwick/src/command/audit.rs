//! `bailiwick audit`: the record of what was done, and whether it is whole.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Context;
use crate::client::Sse;
use crate::failure::Failure;
use crate::out::{self, Format, Style};

#[derive(Args)]
pub(crate) struct Filter {
    /// Only this action, or all that begin with it and a dot.
    #[arg(long)]
    action: Option<String>,
    /// Only this result: OK, FAIL, DENIED or BEGUN.
    #[arg(long)]
    result: Option<String>,
    /// Only what this user did.
    #[arg(long = "by", value_name = "USER")]
    by: Option<String>,
    /// Only what this agent did.
    #[arg(long)]
    agent: Option<String>,
    /// Only in this space.
    #[arg(long, value_name = "ID")]
    space: Option<String>,
    /// Not before (RFC 3339).
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before (RFC 3339).
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// At most so many.
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// List events: the account's for its admins, one's own for others.
    #[command(after_help = "Example:\n  bailiwick audit list --result DENIED --limit 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// The host's own log instead (operator).
        #[arg(long)]
        host: bool,
    },
    /// Follow events as they come.
    #[command(after_help = "Example:\n  bailiwick audit tail")]
    Tail {
        /// Begin after this event.
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
    /// Check the whole log against its tree.
    #[command(after_help = "Example:\n  bailiwick audit verify")]
    Verify {
        /// The host's own log instead (operator).
        #[arg(long)]
        host: bool,
    },
}

pub(crate) async fn run(context: &Context, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List { filter, host } => {
            let fields = [
                ("action", filter.action),
                ("result", filter.result),
                ("user", filter.by),
                ("agent", filter.agent),
                ("space", filter.space),
                ("from", filter.from),
                ("to", filter.to),
                ("limit", filter.limit.map(|n| n.to_string())),
            ];
            let query: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let path: &[&str] = if host { &["admin", "audit"] } else { &["audit"] };
            let listed = context.get_with(path, &query).await?;
            if context.format == Format::Json {
                out::json(&listed);
            } else {
                // The server gives the newest first; a person reads down to it.
                out::array(&listed).iter().rev().for_each(|event| out::line(&event_line(event)));
            }
        }
        AuditCommand::Tail { after } => {
            let query: Vec<_> = after.map(|seq| ("after", seq.to_string())).into_iter().collect();
            tail(context, query).await?;
        }
        AuditCommand::Verify { host } => {
            let path: &[&str] = if host { &["admin", "audit", "verify"] } else { &["audit", "verify"] };
            let answer = context.get(path).await?;
            let whole = verdict(&answer);
            if context.format == Format::Json {
                out::json(&answer);
            } else if whole {
                let size = answer["size"].as_u64().unwrap_or_default();
                let root = out::cell(&answer["root"]);
                out::line(&format!(
                    "{} {size} events, none changed, missing or added",
                    out::paint(Style::Good, "whole:")
                ));
                out::line(&format!("root   {root}"));
            } else {
                let problem = out::cell(&answer["problem"]);
                out::line(&format!("{} {problem}", out::paint(Style::Bad, "not whole:")));
            }
            if !whole {
                return Err(Failure::Reported);
            }
        }
    }
    Ok(())
}

/// Whether the server found the log whole. Anything but a plain yes is a no.
pub(crate) fn verdict(answer: &Value) -> bool {
    answer["ok"].as_bool() == Some(true)
}

/// Follows the log; a stream that ends is opened again where it ended.
async fn tail(context: &Context, mut query: Vec<(&'static str, String)>) -> Result<(), Failure> {
    loop {
        let response = context.client.open(&["api", "v1", "audit", "stream"], &query).await?;
        let mut events = Sse::new(response);
        let mut seen = 0u32;
        loop {
            let next = tokio::select! {
                next = events.next() => next,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let Ok(Some((id, data))) = next else { break };
            seen += 1;
            match (context.format, serde_json::from_str::<Value>(&data)) {
                (Format::Text, Ok(event)) => out::line(&event_line(&event)),
                _ => out::line(&data),
            }
            if let Some(id) = id {
                query = vec![("after", id)];
            }
        }
        // A server that ends every stream at once shall not be asked without a pause.
        if seen == 0 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

/// One event in one line: when, how it ended, who, what, on what.
pub(crate) fn event_line(event: &Value) -> String {
    let word = |name: &str| if event[name].is_null() { String::new() } else { out::cell(&event[name]) };
    let result = word("result");
    let style = match result.as_str() {
        "OK" => Style::Good,
        "DENIED" => Style::Warn,
        "FAIL" => Style::Bad,
        _ => Style::Dim,
    };
    let at = word("at");
    let clock = at.get(11..19).unwrap_or(&at);
    let head = format!("{:>5}  {clock}  ", word("seq"));
    let tail = format!("  {:<16} {:<16} {}", word("actor"), word("action"), word("resource"));
    let room = out::width().saturating_sub(head.chars().count() + 6);
    format!("{head}{}{}", out::paint(style, &format!("{result:<6}")), out::cut(&tail, room))
}
