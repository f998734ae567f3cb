//! `bailiwick secret`: what the account's agents may use without ever seeing it.

use std::io::{IsTerminal as _, Read as _};

use clap::{Args, Subcommand, ValueEnum};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use reqwest::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Context;
use crate::client::Ask;
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum SecretCommand {
    /// List the account's secrets: names, grants and dates. No command shows a value.
    #[command(after_help = "Example:\n  bailiwick secret list")]
    List,
    /// Give a secret a value, from standard input or a prompt. The value before is gone.
    #[command(
        after_help = "Examples:\n  bailiwick secret set github_token --note 'read-only, for the developer agent'\n  \
        pass show github | bailiwick secret set github_token\n  \
        bailiwick secret set mail --oauth < grant.json"
    )]
    Set {
        /// Its name, as agents' files write it: secret:NAME.
        name: String,
        /// It is an OAuth client's refresh grant, as JSON: token_url, client_id, refresh_token, with or without
        /// client_secret, scope and auth (basic or body). What goes out are its access tokens.
        #[arg(long)]
        oauth: bool,
        /// What it is for.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Give a secret that is there a new value, from standard input or a prompt. The old one is released no more.
    #[command(after_help = "Example:\n  pass show github | bailiwick secret rotate github_token")]
    Rotate {
        /// Its name.
        name: String,
        /// It is an OAuth client's refresh grant, as for `set`.
        #[arg(long)]
        oauth: bool,
    },
    /// Let an agent use a secret for a host: in its sandboxes' requests, or in the calls of its model.
    #[command(after_help = "Examples:\n  bailiwick secret grant github_token --agent developer --host github.com\n  \
        bailiwick secret grant deploy_key --agent developer --host deploy.example.com --approved\n  \
        bailiwick secret grant anthropic_key --agent developer --host api.anthropic.com --used-by model")]
    Grant {
        #[command(flatten)]
        grant: GrantArgs,
        /// For how long its sandboxes have it at a time: a minute, or no longer than the call or job that asks.
        #[arg(long, value_name = "TERM", value_enum, default_value_t = LeaseWord::Minute)]
        lease: LeaseWord,
        /// For calls alone that a person approved, and no longer than the call.
        #[arg(long)]
        approved: bool,
    },
    /// Take a grant back. It holds for a minute at most.
    #[command(after_help = "Example:\n  bailiwick secret revoke github_token --agent developer --host github.com")]
    Revoke(GrantArgs),
    /// Delete a secret with its grants.
    #[command(visible_alias = "delete", after_help = "Example:\n  bailiwick secret rm github_token")]
    Rm {
        /// Its name.
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct GrantArgs {
    /// The secret.
    name: String,
    /// The agent.
    #[arg(long, value_name = "ID")]
    agent: String,
    /// The host, or `*.` and a name for all beneath it.
    #[arg(long = "host", value_name = "HOST")]
    hosts: String,
    /// By whom it is used on the agent's behalf.
    #[arg(long, value_name = "WHO", value_enum, default_value_t = UsedByWord::Sandbox)]
    used_by: UsedByWord,
}

/// By whom a secret is used.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UsedByWord {
    Sandbox,
    Model,
}

/// For how long a sandbox has a secret at a time.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeaseWord {
    Minute,
    Call,
}

impl UsedByWord {
    fn query(self) -> [(&'static str, String); 1] {
        let word = match self {
            Self::Sandbox => "sandbox",
            Self::Model => "model",
        };
        [("used_by", word.to_owned())]
    }

    fn whose(self, agent: &str) -> String {
        match self {
            Self::Sandbox => format!("Sandboxes of agent {agent}"),
            Self::Model => format!("Calls of agent {agent}'s model"),
        }
    }
}

pub(crate) async fn run(context: &Context, command: SecretCommand) -> Result<(), Failure> {
    match command {
        SecretCommand::List => {
            let mut listed = context.get(&["secrets"]).await?;
            if context.format == Format::Text
                && let Some(secrets) = listed.as_array_mut()
            {
                for secret in secrets {
                    let grants = secret["grants"].as_array().into_iter().flatten();
                    let grants = grants.filter_map(|grant| {
                        let (agent, hosts) = (grant["agent"].as_str()?, grant["hosts"].as_str()?);
                        let model = grant["used_by"] == "model";
                        let when = match grant["lease"].as_str() {
                            Some("call") => " during calls",
                            Some("approved_call") => " during approved calls",
                            _ => "",
                        };
                        Some(format!("{agent}{} for {hosts}{when}", if model { "'s model" } else { "" }))
                    });
                    secret["grants"] = json!(grants.collect::<Vec<_>>().join(", "));
                }
            }
            let columns = ["name", "kind", "set_again", "version", "updated_at", "released_at", "grants", "note"];
            out::rows(context.format, &listed, &columns, "No secrets.");
        }
        SecretCommand::Set { name, oauth, note } => {
            let mut body = read_body(oauth)?;
            body["note"] = json!(note);
            let set = context.put(&["secrets", &name], &body).await?;
            say_set(context, &name, &set);
        }
        SecretCommand::Rotate { name, oauth } => {
            let mut body = read_body(oauth)?;
            body["expect"] = json!("existing");
            let set = context.put(&["secrets", &name], &body).await?;
            say_set(context, &name, &set);
        }
        SecretCommand::Grant { grant: GrantArgs { name, agent, hosts, used_by }, lease, approved } => {
            let path = ["secrets", &name, "grants", &agent, &hosts];
            let (lease, when) = match (lease, approved) {
                (_, true) => ("approved_call", " during calls that a person approved"),
                (LeaseWord::Call, false) => ("call", " during their calls"),
                (LeaseWord::Minute, false) => ("minute", ""),
            };
            let [used] = used_by.query();
            let query = [used, ("lease", lease.to_owned())];
            let granted = context.client.api(Method::PUT, &path, Ask::query(&query)).await?;
            context.done(&granted, &format!("{} may use {name} for {hosts}{when}.", used_by.whose(&agent)));
        }
        SecretCommand::Revoke(GrantArgs { name, agent, hosts, used_by }) => {
            let path = ["secrets", &name, "grants", &agent, &hosts];
            let gone = context.client.api(Method::DELETE, &path, Ask::query(&used_by.query())).await?;
            let whose = used_by.whose(&agent);
            context.done(&gone, &format!("{whose} may use {name} for {hosts} no more, after a minute at most."));
        }
        SecretCommand::Rm { name } => {
            let gone = context.delete(&["secrets", &name]).await?;
            context.done(&gone, &format!("Secret {name} is deleted."));
        }
    }
    Ok(())
}

/// Says that a secret has a value, and where it can be put.
fn say_set(context: &Context, name: &str, set: &Value) {
    let version = set["version"].as_u64().unwrap_or(1);
    let hint = if version == 1 { "; no agent may use it before it is granted" } else { "" };
    context.done(set, &format!("Secret {name} has a value (version {version}){hint}."));
    if set["fits_in"] == "basic_alone" {
        out::note("It has line ends, which no header can have: only `Basic USER:secret:NAME` can send it.");
    }
}

fn unread(error: std::io::Error) -> Failure {
    Failure::File { path: "standard input".to_owned(), error }
}

/// A line that the terminal does not show; nothing if it was broken off.
fn typed() -> std::io::Result<Option<Zeroizing<String>>> {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = disable_raw_mode();
        }
    }
    enable_raw_mode()?;
    let _restore = Restore;
    let mut line = Zeroizing::new(String::new());
    loop {
        let Event::Key(key) = event::read()? else { continue };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            _ if key.kind == KeyEventKind::Release => {}
            KeyCode::Enter => return Ok(Some(line)),
            KeyCode::Esc => return Ok(None),
            KeyCode::Char('c' | 'd') if control => return Ok(None),
            KeyCode::Char('u') if control => line.clear(),
            KeyCode::Backspace => drop(line.pop()),
            KeyCode::Char(letter) if !control => line.push(letter),
            _ => {}
        }
    }
}

/// A value or a grant, as it is sent.
fn read_body(oauth: bool) -> Result<Value, Failure> {
    let value = read_value(if oauth { "Grant" } else { "Value" })?;
    if !oauth {
        return Ok(json!({ "value": value.as_str() }));
    }
    let grant = serde_json::from_str::<Value>(&value);
    // The error would show what stands there.
    let grant = grant.map_err(|_| Failure::Usage {
        text: "standard input is not JSON".to_owned(),
        hint: "a grant is an object of token_url, client_id and refresh_token",
    })?;
    Ok(json!({ "oauth": grant }))
}

/// The value: typed without being shown, or what comes in. Never an argument: others can see those.
pub(crate) fn read_value(what: &str) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    if std::io::stdin().is_terminal() {
        out::note(&format!("{what} (it is not shown; Enter ends it):"));
        text = typed().map_err(unread)?.ok_or(Failure::Reported)?;
    } else {
        std::io::stdin().lock().read_to_string(&mut text).map_err(unread)?;
    }
    // `echo` and editors end a file with a line end, which is no part of a secret.
    let value = text.strip_suffix('\n').map_or(text.as_str(), |rest| rest.strip_suffix('\r').unwrap_or(rest));
    Ok(Zeroizing::new(value.to_owned()))
}
