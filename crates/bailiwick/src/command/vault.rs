//! `bailiwick vault`: the keys under which secrets lie. Nothing shows one.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bailiwick_vault::{KeyEncryption as _, LocalKey, SealError};
use clap::Subcommand;
use serde_json::{Value, json};

use super::Context;
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum VaultCommand {
    /// Show the host's keys by their ids, and how many accounts have their data key under each (operator).
    #[command(after_help = "Example:\n  bailiwick vault status")]
    Status,
    /// Encrypt every account's data key anew under the host's present key (operator). Old keys can go after it.
    #[command(after_help = "Example:\n  bailiwick vault rewrap")]
    Rewrap,
    /// Seal all secrets of an account anew under a new data key (its admin, or the operator with --account).
    #[command(after_help = "Example:\n  bailiwick vault rotate --account acme")]
    Rotate,
    /// Make a key for vault.key_file, in a new file that only you can read. No server is asked.
    #[command(after_help = "Example:\n  bailiwick vault make-key /etc/bailiwick/vault-2.key")]
    MakeKey {
        /// The file; one that is there stays as it is.
        file: PathBuf,
    },
}

pub(crate) async fn run(context: &Context, command: VaultCommand) -> Result<(), Failure> {
    match command {
        VaultCommand::Status => {
            let status = context.get(&["admin", "vault"]).await?;
            out::rows(context.format, &status["keys"], &["id", "state", "accounts"], "No keys.");
        }
        VaultCommand::Rewrap => {
            let done = context.post(&["admin", "vault", "rewrap"], &json!({})).await?;
            let figure = |name: &str| done[name].as_u64().unwrap_or(0);
            let (rewrapped, already, failed) = (figure("rewrapped"), figure("already"), figure("failed"));
            let under = done["under"].as_str().unwrap_or_default();
            context.done(&done, &format!("{rewrapped} data keys are under {under} now, {already} were already."));
            if failed > 0 {
                let text = format!("{failed} data keys are as they were: the server's log says why");
                out::error(&text, Some("keep the old keys in the ring, and run it again"));
                return Err(Failure::Reported);
            }
        }
        VaultCommand::Rotate => {
            let account = context.account().await?;
            let done: Value = context.post(&["admin", "accounts", &account, "data-key"], &json!({})).await?;
            let secrets = done["secrets"].as_u64().unwrap_or(0);
            context
                .done(&done, &format!("Account {account} has a new data key: {secrets} secrets are sealed under it."));
        }
        // Done before a server was needed.
        VaultCommand::MakeKey { .. } => {}
    }
    Ok(())
}

/// Makes a key's file, and says its id.
pub(crate) fn make_key(path: &Path, format: Format) -> Result<(), Failure> {
    let failed = |error| Failure::File { path: path.display().to_string(), error };
    let key = LocalKey::random().map_err(|error: SealError| failed(std::io::Error::other(error)))?;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    file.write_all(key.expose()).and_then(|()| file.sync_all()).map_err(failed)?;
    match format {
        Format::Json => out::json(&json!({ "file": path, "id": key.id() })),
        Format::Text => out::line(&out::clean(&format!("{} holds the key {}.", path.display(), key.id()))),
    }
    Ok(())
}
