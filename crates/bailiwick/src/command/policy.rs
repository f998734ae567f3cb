//! `bailiwick policy`: the account's own rules, which may forbid and ask, never permit.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::failure::{Failure, in_file};
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show the account's rules.
    #[command(after_help = "Example:\n  bailiwick policy show")]
    Show,
    /// Set the account's rules from a file in the Cedar language.
    #[command(after_help = "Example:\n  bailiwick policy set rules.cedar")]
    Set {
        /// The file; - for standard input.
        file: PathBuf,
    },
}

pub(crate) async fn run(context: &Context, command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Show => {
            let shown = context.get(&["policies"]).await?;
            let text = shown.as_str().or_else(|| shown["text"].as_str()).or_else(|| shown["policy"].as_str());
            match (context.format, text) {
                (Format::Json, _) | (_, None) => out::json(&shown),
                (Format::Text, Some("")) => out::line("The account has no rules of its own."),
                (Format::Text, Some(text)) => out::line(out::clean(text).trim_end()),
            }
        }
        PolicyCommand::Set { file } => {
            let mut text = String::new();
            if file.as_os_str() == "-" {
                std::io::stdin().lock().read_to_string(&mut text).map_err(in_file(&file))?;
            } else {
                text = std::fs::read_to_string(&file).map_err(in_file(&file))?;
            }
            let set = context.put(&["policies"], &json!({ "text": text })).await?;
            context.done(&set, "The rules hold from the next request on.");
        }
    }
    Ok(())
}
