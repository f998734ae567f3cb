//! `bailiwick space`: places of work, their files, and who may use them.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::json;

use super::Context;
use super::account::sure;
use crate::client::Ask;
use crate::failure::{Failure, in_file};
use crate::out::{self, Format};

/// How far a grant goes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LevelWord {
    Read,
    Write,
    Manage,
}

#[derive(Subcommand)]
pub(crate) enum SpaceCommand {
    /// Create a space of your own.
    #[command(after_help = "Example:\n  bailiwick space create website --description 'The new website'")]
    Create {
        /// Its name.
        name: String,
        /// More about it.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the spaces that you may see.
    #[command(after_help = "Example:\n  bailiwick space list")]
    List,
    /// Show one space.
    #[command(after_help = "Example:\n  bailiwick space show spc_…")]
    Show {
        /// Its id.
        id: String,
    },
    /// Rename a space.
    #[command(after_help = "Example:\n  bailiwick space rename spc_… 'The old website'")]
    Rename {
        /// Its id.
        id: String,
        /// Its new name.
        name: String,
    },
    /// Delete a space with its files and sessions.
    #[command(after_help = "Example:\n  bailiwick space delete spc_… --yes")]
    Delete {
        /// Its id.
        id: String,
        /// Really.
        #[arg(long)]
        yes: bool,
    },
    /// Give a user access.
    #[command(after_help = "Example:\n  bailiwick space grant spc_… bob write")]
    Grant {
        /// Its id.
        id: String,
        /// The user.
        grantee: String,
        /// How far.
        #[arg(value_enum)]
        level: LevelWord,
    },
    /// Take a user's access.
    #[command(after_help = "Example:\n  bailiwick space revoke spc_… bob")]
    Revoke {
        /// Its id.
        id: String,
        /// The user.
        grantee: String,
    },
    /// List who has access.
    #[command(after_help = "Example:\n  bailiwick space grants spc_…")]
    Grants {
        /// Its id.
        id: String,
    },
    /// List files.
    #[command(after_help = "Example:\n  bailiwick space files spc_… src --recursive")]
    Files {
        /// Its id.
        id: String,
        /// The folder; the whole space if missing.
        path: Option<String>,
        /// With all folders below.
        #[arg(short, long)]
        recursive: bool,
    },
    /// Copy a local file into the space.
    #[command(
        after_help = "Example:\n  bailiwick space put spc_… notes.md docs/notes.md\n  date | bailiwick space put spc_… - now.txt"
    )]
    Put {
        /// Its id.
        id: String,
        /// The local file; - for standard input.
        file: PathBuf,
        /// Where in the space; the file's own name if missing.
        path: Option<String>,
    },
    /// Print a file of the space, or save it.
    #[command(after_help = "Example:\n  bailiwick space get spc_… docs/notes.md -o notes.md")]
    Get {
        /// Its id.
        id: String,
        /// The file.
        path: String,
        /// Where to save it; standard output if missing.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show the plan.
    #[command(after_help = "Example:\n  bailiwick space plan spc_…")]
    Plan {
        /// Its id.
        id: String,
    },
}

pub(crate) async fn run(context: &Context, command: SpaceCommand) -> Result<(), Failure> {
    match command {
        SpaceCommand::Create { name, description } => {
            let made = context.post(&["spaces"], &json!({ "name": name, "description": description })).await?;
            out::thing(context.format, &made);
        }
        SpaceCommand::List => {
            let listed = context.get(&["spaces"]).await?;
            out::rows(context.format, &listed, &["id", "name", "owner", "personal", "updated_at"], "No spaces.");
        }
        SpaceCommand::Show { id } => out::thing(context.format, &context.get(&["spaces", &id]).await?),
        SpaceCommand::Rename { id, name } => {
            let body = json!({ "name": name });
            let now = context.client.api(Method::PATCH, &["spaces", &id], Ask::body(&body)).await?;
            context.done(&now, &format!("Space {id} is named {name} now."));
        }
        SpaceCommand::Delete { id, yes } => {
            sure(yes, "deletes the space with all its files and sessions")?;
            let gone = context.delete(&["spaces", &id]).await?;
            context.done(&gone, &format!("Space {id} is deleted."));
        }
        SpaceCommand::Grant { id, grantee, level } => {
            let level = match level {
                LevelWord::Read => "read",
                LevelWord::Write => "write",
                LevelWord::Manage => "manage",
            };
            let body = json!({ "user": grantee, "level": level });
            let now = context.put(&["spaces", &id, "grants"], &body).await?;
            context.done(&now, &format!("{grantee} has {level} access to {id}."));
        }
        SpaceCommand::Revoke { id, grantee } => {
            let now = context.delete(&["spaces", &id, "grants", &grantee]).await?;
            context.done(&now, &format!("{grantee} has no access to {id} any more."));
        }
        SpaceCommand::Grants { id } => {
            let listed = context.get(&["spaces", &id, "grants"]).await?;
            out::rows(context.format, &listed, &["user", "level"], "Nobody but the owner.");
        }
        SpaceCommand::Files { id, path, recursive } => {
            let mut query = Vec::new();
            query.extend(path.map(|path| ("path", path)));
            if recursive {
                query.push(("recursive", "true".to_owned()));
            }
            let listed = context.get_with(&["spaces", &id, "files"], &query).await?;
            out::rows(context.format, &listed, &["path", "kind", "size", "modified"], "No files.");
        }
        SpaceCommand::Put { id, file, path } => put(context, &id, file, path).await?,
        SpaceCommand::Get { id, path, output } => {
            let query = [("path", path)];
            let response = context.client.open(&["api", "v1", "spaces", &id, "files", "content"], &query).await?;
            let bytes = response.bytes().await.map_err(crate::client::ClientError::Broken)?;
            match output {
                Some(file) => std::fs::write(&file, &bytes).map_err(in_file(&file))?,
                // A person's terminal is protected; a pipe gets the bytes as they are.
                None if out::is_terminal() => out::piece(&out::clean(&String::from_utf8_lossy(&bytes))),
                None => out::bytes(&bytes),
            }
        }
        SpaceCommand::Plan { id } => {
            let plan = context.get(&["spaces", &id, "plan"]).await?;
            show_plan(context.format, &plan);
        }
    }
    Ok(())
}

async fn put(context: &Context, id: &str, file: PathBuf, path: Option<String>) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let stdin = file.as_os_str() == "-";
    if stdin {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(in_file(&file))?;
    } else {
        bytes = std::fs::read(&file).map_err(in_file(&file))?;
    }
    let own = || file.file_name().filter(|_| !stdin).map(|name| name.to_string_lossy().into_owned());
    let path = path.or_else(own).ok_or(Failure::Usage {
        text: "the file has no name in the space".to_owned(),
        hint: "add it: bailiwick space put ID - NAME",
    })?;
    let size = bytes.len();
    let query = [("path", path.clone())];
    let put = context.client.upload(&["api", "v1", "spaces", id, "files", "content"], &query, bytes).await?;
    context.done(&put, &format!("{path}: {size} bytes."));
    Ok(())
}

/// Prints a plan as a list with ticks.
pub(crate) fn show_plan(format: Format, plan: &serde_json::Value) {
    if format == Format::Json {
        return out::json(plan);
    }
    let items = out::array(plan);
    if items.is_empty() {
        return out::line("No plan.");
    }
    for item in items {
        let mark = match item["status"].as_str() {
            Some("done") => out::paint(out::Style::Good, "[x]"),
            Some("in_progress") => out::paint(out::Style::Warn, "[>]"),
            _ => "[ ]".to_owned(),
        };
        out::line(&format!("{mark} {}", out::clean(item["text"].as_str().unwrap_or_default())));
    }
}
