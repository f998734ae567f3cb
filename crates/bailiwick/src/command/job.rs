//! `bailiwick job`: commands that run in the background, in a space and as an agent.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Context, text};
use crate::client::{ClientError, Lines};
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum JobCommand {
    /// Start a command, and print the job's id.
    #[command(after_help = "Example:\n  bailiwick job start --space spc_… --kind build 'make all'")]
    Start {
        /// The space in which it runs.
        #[arg(long, value_name = "ID")]
        space: String,
        /// The agent as which it runs; `default` if missing.
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// What it is for: short 5 minutes, clone 10, build 30.
        #[arg(long, value_name = "KIND", default_value = "short")]
        kind: KindWord,
        /// Seconds until it is stopped; what its kind allows if missing.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        /// Print what it says until it ends; the exit code is 0 only if it ends well.
        #[arg(short, long)]
        follow: bool,
        /// The command, for the sandbox's shell.
        command: String,
    },
    /// List the jobs of a space.
    #[command(after_help = "Example:\n  bailiwick job list --space spc_…")]
    List {
        /// The space.
        #[arg(long, value_name = "ID")]
        space: String,
    },
    /// Show one job.
    #[command(after_help = "Example:\n  bailiwick job show --space spc_… job_…")]
    Show {
        /// Its space.
        #[arg(long, value_name = "ID")]
        space: String,
        /// Its id.
        id: String,
    },
    /// Print what a job said.
    #[command(after_help = "Example:\n  bailiwick job log --space spc_… job_… --follow")]
    Log {
        /// Its space.
        #[arg(long, value_name = "ID")]
        space: String,
        /// Its id.
        id: String,
        /// Go on until it ends; the exit code is 0 only if it ends well.
        #[arg(short, long)]
        follow: bool,
        /// Begin after the event of this number.
        #[arg(long, value_name = "NUMBER", default_value = "0")]
        after: u64,
    },
    /// Cancel a job.
    #[command(after_help = "Example:\n  bailiwick job cancel --space spc_… job_…")]
    Cancel {
        /// Its space.
        #[arg(long, value_name = "ID")]
        space: String,
        /// Its id.
        id: String,
    },
}

/// What a job is for.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum KindWord {
    /// Anything else.
    Short,
    /// Copying a repository.
    Clone,
    /// Building something.
    Build,
}

impl KindWord {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Clone => "clone",
            Self::Build => "build",
        }
    }
}

pub(crate) async fn run(context: &Context, command: JobCommand) -> Result<(), Failure> {
    match command {
        JobCommand::Start { space, agent, kind, timeout, follow, command } => {
            let body = json!({
                "command": command, "agent": agent, "kind": kind.as_str(), "timeout_seconds": timeout,
            });
            let made = context.post(&["spaces", &space, "jobs"], &body).await?;
            let id = text(&made, "id")?;
            if follow {
                out::note(&out::clean(id));
                return read(context, (&space, id), 0, Until::End).await;
            }
            context.done(&made, id);
        }
        JobCommand::List { space } => {
            let listed = context.get(&["spaces", &space, "jobs"]).await?;
            let columns = ["id", "agent", "kind", "state", "created_at", "command"];
            out::rows(context.format, &listed, &columns, "No jobs.");
        }
        JobCommand::Show { space, id } => {
            out::thing(context.format, &context.get(&["spaces", &space, "jobs", &id]).await?);
        }
        JobCommand::Log { space, id, follow, after } => {
            let until = if follow { Until::End } else { Until::Now };
            return read(context, (&space, &id), after, until).await;
        }
        JobCommand::Cancel { space, id } => {
            let row = context.delete(&["spaces", &space, "jobs", &id]).await?;
            let state = text(&row, "state")?;
            let said = match state {
                "running" => "The job is being stopped.".to_owned(),
                state => format!("The job is {state}."),
            };
            context.done(&row, &said);
        }
    }
    Ok(())
}

/// How far a log is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// What is there.
    Now,
    /// To the job's end.
    End,
}

/// How often a stream that breaks at once is opened again.
const TRIES: u32 = 5;

/// Prints a log from one event on. A connection that breaks is taken up where it was.
async fn read(context: &Context, (space, id): (&str, &str), mut after: u64, until: Until) -> Result<(), Failure> {
    let path = ["api", "v1", "spaces", space, "jobs", id, "log"];
    let mut tries = 0;
    loop {
        let query = [("after", after.to_string()), ("follow", (until == Until::End).to_string())];
        let opened = context.client.open(&path, &query).await;
        let mut lines = match opened {
            Ok(response) => Lines::new(response),
            Err(ClientError::Unreachable { .. } | ClientError::Broken(_)) if tries < TRIES && until == Until::End => {
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_millis(200) * 2u32.pow(tries)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        while let Ok(Some(line)) = lines.next().await {
            let Ok(event) = serde_json::from_str::<Value>(line.trim()) else { continue };
            tries = 0;
            after = event["n"].as_u64().unwrap_or(after);
            print(context.format, &event);
            if event["type"] == "done" {
                return match event["state"].as_str() {
                    Some("ok") => Ok(()),
                    _ if until == Until::Now => Ok(()),
                    // How it ended was printed with its last event.
                    _ => Err(Failure::Reported),
                };
            }
        }
        if until == Until::Now {
            return Ok(());
        }
        tries += 1;
        if tries > TRIES {
            return Err(ClientError::Incomplete("the rest of the log").into());
        }
    }
}

/// How a job ended, in words.
fn ending(event: &Value) -> String {
    let state = event["state"].as_str().unwrap_or("ended");
    match (event["message"].as_str(), event["exit"].as_i64(), event["signal"].as_i64()) {
        (Some(message), ..) => format!("{state}: {message}"),
        (None, Some(code), _) => format!("{state}: exit code {code}"),
        (None, None, Some(signal)) => format!("{state}: signal {signal}"),
        (None, None, None) => state.to_owned(),
    }
}

fn print(format: Format, event: &Value) {
    if format == Format::Json {
        return out::line(&out::escaped(&event.to_string()));
    }
    if let Some(bytes) = event["left_out"].as_u64() {
        out::note(&format!("[{bytes} bytes left out]"));
    }
    match event["type"].as_str() {
        Some("output") => {
            for piece in out::array(&event["output"]) {
                for line in piece["stdout"].as_str().unwrap_or_default().split_inclusive('\n') {
                    out::piece(&shown(line));
                }
                for line in piece["stderr"].as_str().unwrap_or_default().lines() {
                    out::note(&out::clean(line));
                }
            }
        }
        Some("dropped") => out::note("[older output was dropped to make room]"),
        Some("done") => out::note(&out::clean(&ending(event))),
        _ => {}
    }
}

/// A line without control characters but its end.
fn shown(line: &str) -> String {
    match line.strip_suffix('\n') {
        Some(rest) => format!("{}\n", out::clean(rest.trim_end_matches('\r'))),
        None => out::clean(line),
    }
}
