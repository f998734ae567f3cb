//! `bailiwick audit`: the record of what was done, and whether it is whole.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::Context;
use crate::client::Sse;
use crate::failure::Failure;
use crate::out::{self, Format, Style};

pub(crate) mod check;

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

/// As what a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportWord {
    Jsonl,
    Csv,
}

/// The path of a log's route.
fn below<'a>(host: bool, rest: &[&'a str]) -> Vec<&'a str> {
    let log: &[&str] = if host { &["admin", "audit"] } else { &["audit"] };
    [log, rest].concat()
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
    /// Check the whole log against its tree and what was signed of it; or an exported one, without a server.
    #[command(after_help = "Example:\n  bailiwick audit verify\n  \
        bailiwick audit verify --offline audit.jsonl --key 'bailiwick+fd8e9cd2+AepK…' --older june.note")]
    Verify {
        /// The host's own log instead (operator).
        #[arg(long)]
        host: bool,
        /// Check this exported log, without a server; - reads standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "host")]
        offline: Option<PathBuf>,
        /// The server's verifier key, from a source that you trust. Without it the file only agrees with itself.
        #[arg(long, requires = "offline")]
        key: Option<String>,
        /// A checkpoint that you kept, or a file of several: the log must continue it. Can be repeated.
        #[arg(long, value_name = "NOTE", requires = "offline")]
        older: Vec<PathBuf>,
    },
    /// Write the whole log to a file that can be checked anywhere.
    #[command(after_help = "Example:\n  bailiwick audit export --out audit.jsonl")]
    Export {
        /// jsonl, which can be checked, or csv, which cannot.
        #[arg(long, value_enum, default_value_t = ExportWord::Jsonl)]
        format: ExportWord,
        /// The file; standard output if missing.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The host's own log instead (operator).
        #[arg(long)]
        host: bool,
    },
    /// Print the signed head of the log. Keep it where the server cannot write.
    #[command(after_help = "Example:\n  bailiwick audit checkpoint > june.note")]
    Checkpoint {
        /// The host's own log instead (operator).
        #[arg(long)]
        host: bool,
    },
    /// Print the server's verifier key. Note it by a way that you trust.
    #[command(after_help = "Example:\n  bailiwick audit key")]
    Key {
        /// Asked as the operator.
        #[arg(long)]
        host: bool,
    },
    /// Fetch and check a proof: that an event is in the log, or that the log continues an earlier one.
    #[command(after_help = "Example:\n  bailiwick audit proof --seq 12\n  bailiwick audit proof --from 100 --to 700")]
    Proof {
        /// That this event is in the log.
        #[arg(long, conflicts_with = "from", required_unless_present = "from")]
        seq: Option<u64>,
        /// In the log of so many events; of all, if missing.
        #[arg(long, requires = "seq")]
        size: Option<u64>,
        /// That the log of so many events is the beginning of a later one.
        #[arg(long)]
        from: Option<u64>,
        /// Of the log of so many events; of all, if missing.
        #[arg(long, requires = "from")]
        to: Option<u64>,
        /// The host's own log instead (operator).
        #[arg(long)]
        host: bool,
    },
    /// Erase what the events before a time said. Their numbers, hashes and proofs stay, and so does a record of it.
    #[command(after_help = "Example:\n  bailiwick audit retire --before 2026-01-01")]
    Retire {
        /// A day (its beginning, UTC) or a time (RFC 3339).
        #[arg(long, value_name = "DATE")]
        before: String,
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
        AuditCommand::Export { format, out, host } => check::export(context, format, out, host).await?,
        AuditCommand::Checkpoint { host } => check::checkpoint(context, host).await?,
        AuditCommand::Key { host } => check::key(context, host).await?,
        AuditCommand::Proof { seq: Some(seq), size, host, .. } => check::inclusion(context, seq, size, host).await?,
        AuditCommand::Proof { from, to, host, .. } => {
            check::consistency(context, from.unwrap_or_default(), to, host).await?;
        }
        AuditCommand::Retire { before, host } => check::retire(context, &before, host).await?,
        AuditCommand::Verify { offline: Some(file), key, older, .. } => {
            check::run(&file, key.as_deref(), &older, context.format)?;
        }
        AuditCommand::Verify { host, .. } => {
            let answer = context.get(&below(host, &["verify"])).await?;
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
                if let Some(retired) = answer["retired"].as_u64().filter(|retired| *retired > 0) {
                    out::line(&format!("       {retired} of them are retired"));
                }
                if let (Some(note), Some(key)) = (answer["checkpoint"].as_str(), answer["key"].as_str()) {
                    let continued = answer["continues"].as_u64().unwrap_or_default();
                    out::line(&format!("       continues {continued} checkpoints that the server kept"));
                    out::line(&format!("key    {}", out::clean(key)));
                    out::line("");
                    out::line(out::clean(note).trim_end());
                }
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

/// What an event is about: of a connection, where it went and what became of it.
fn about(event: &Value) -> String {
    let text = |value: &Value| if value.is_null() { String::new() } else { out::cell(value) };
    let detail = &event["detail"];
    if event["action"] != "sandbox.connect" {
        return text(&event["resource"]);
    }
    let port = detail["port"].as_u64().map_or_else(String::new, |port| format!(":{port}"));
    let request = format!("{} {}", text(&detail["method"]), text(&detail["path"]));
    let times = detail["times"].as_u64().map_or_else(String::new, |times| format!(" ({times} times)"));
    format!("{}{port} {} {}{times}", text(&detail["host"]), text(&detail["code"]), request.trim())
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
    let tail = format!("  {:<16} {:<16} {}", word("actor"), word("action"), about(event));
    let room = out::width().saturating_sub(head.chars().count() + 6);
    format!("{head}{}{}", out::paint(style, &format!("{result:<6}")), out::cut(&tail, room))
}
