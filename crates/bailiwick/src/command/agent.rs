//! `bailiwick agent`: definitions of agents, on the server and as files.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;

use super::Context;
use crate::failure::{Failure, in_file};
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum AgentCommand {
    /// List the account's agents.
    #[command(after_help = "Example:\n  bailiwick agent list")]
    List,
    /// Show an agent's definition.
    #[command(after_help = "Example:\n  bailiwick agent show default")]
    Show {
        /// Its id.
        id: String,
    },
    /// Create or change an agent from a file.
    #[command(after_help = "Example:\n  bailiwick agent put agents/developer/AGENT.md")]
    Put {
        /// AGENT.md, or a definition as JSON.
        file: PathBuf,
        /// Its id; for AGENT.md the name of its folder if missing.
        #[arg(long)]
        id: Option<String>,
    },
    /// Delete an agent. Sessions that began with it keep what they have.
    #[command(after_help = "Example:\n  bailiwick agent delete developer")]
    Delete {
        /// Its id.
        id: String,
    },
    /// Check a folder of agents without a server.
    #[command(after_help = "Example:\n  bailiwick agent check agents/")]
    Check {
        /// The folder that holds `<id>/AGENT.md`.
        dir: PathBuf,
    },
}

pub(crate) async fn run(context: &Context, command: AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::List => {
            let listed = context.get(&["agents"]).await?;
            let columns = ["id", "name", "version", "model", "tools", "require_approval"];
            out::rows(context.format, &listed, &columns, "No agents.");
        }
        AgentCommand::Show { id } => {
            out::thing(context.format, &context.get(&["agents", &id]).await?);
        }
        AgentCommand::Put { file, id } => {
            let (definition, folder) = read(&file)?;
            let id = id.or(folder).ok_or(Failure::Usage {
                text: "the agent has no id".to_owned(),
                hint: "name it with --id, or put AGENT.md into a folder of that name",
            })?;
            let put = context.put(&["agents", &id], &definition).await?;
            let version = put["version"].as_u64().map_or_else(String::new, |version| format!(" (version {version})"));
            context.done(&put, &format!("Agent {id} is as in {}{version}.", file.display()));
        }
        AgentCommand::Delete { id } => {
            let gone = context.delete(&["agents", &id]).await?;
            context.done(&gone, &format!("Agent {id} is deleted."));
        }
        AgentCommand::Check { dir } => return check(&dir, context.format),
    }
    Ok(())
}

/// Reads a definition from `AGENT.md` or JSON; of the former, also the folder's name.
fn read(file: &Path) -> Result<(Value, Option<String>), Failure> {
    let text = std::fs::read_to_string(file).map_err(in_file(file))?;
    let wrong = |problem: String| Failure::Definition { path: file.display().to_string(), problem };
    if file.extension().is_some_and(|extension| extension == "json") {
        let value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        return Ok((value, None));
    }
    let definition = bailiwick_agent::definition::parse(&text).map_err(|error| wrong(error.to_string()))?;
    let folder = std::path::absolute(file).ok().and_then(|path| {
        let is_agent = path.file_name().is_some_and(|name| name == "AGENT.md");
        path.parent().filter(|_| is_agent)?.file_name().map(|name| name.to_string_lossy().into_owned())
    });
    Ok((serde_json::to_value(&definition).map_err(|error| wrong(error.to_string()))?, folder))
}

/// Checks a folder; every mistake is reported.
pub(crate) fn check(dir: &Path, format: Format) -> Result<(), Failure> {
    let read = bailiwick_agent::definition::load_dir(dir);
    if format == Format::Json {
        let (agents, problems): (Vec<String>, Vec<String>) = match &read {
            Ok(found) => (found.iter().map(|(id, _)| id.to_string()).collect(), Vec::new()),
            Err(wrong) => (Vec::new(), wrong.iter().map(ToString::to_string).collect()),
        };
        out::json(&serde_json::json!({ "ok": problems.is_empty(), "agents": agents, "problems": problems }));
    } else {
        match &read {
            Ok(found) if found.is_empty() => out::line("No agents there."),
            Ok(found) => {
                found.iter().for_each(|(id, _)| out::line(&format!("{}  {id}", out::paint(out::Style::Good, "ok"))))
            }
            Err(wrong) => wrong.iter().for_each(|problem| {
                out::line(&format!("{}  {}", out::paint(out::Style::Bad, "failed"), out::clean(&problem.to_string())));
            }),
        }
    }
    read.map(drop).map_err(|_| Failure::Reported)
}
