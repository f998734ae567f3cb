//! The command line: what can be said to this program. It does nothing itself.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::Given;
use crate::command::{
    account, agent, approval, audit, database, job, key, notification, policy, sandbox, secret, session, space, user,
    vault,
};
use crate::out::Format;

/// A self-hosted, multi-tenant runtime for AI agents.
#[derive(Parser)]
#[command(name = "bailiwick", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "First steps:\n  bailiwick demo        everything it is for, once, in ten seconds\n  \
    bailiwick up          a server on this machine, for this machine\n  \
    bailiwick chat        talk to an agent on it\n\n\
    Exit codes: 0 done, 1 failed, 2 usage, 64 bad configuration.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args)]
pub(crate) struct Global {
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// The server [BAILIWICK_URL; default http://127.0.0.1:17880].
    #[arg(long, global = true, value_name = "URL", help_heading = "Client")]
    url: Option<String>,
    /// The key; others on this machine can see it in the process list, so prefer BAILIWICK_API_KEY.
    #[arg(long, global = true, value_name = "KEY", help_heading = "Client")]
    api_key: Option<String>,
    /// A file of mode 0600 with the key.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Client", conflicts_with = "api_key")]
    api_key_file: Option<PathBuf>,
    /// The account that is meant; one's own if missing. With --user and the operator's key: act in it.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Client")]
    account: Option<String>,
    /// With --account and the operator's key: act as this user, on record.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Client")]
    user: Option<String>,
}

impl Global {
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }

    pub(crate) fn given(&self) -> Given {
        Given {
            url: self.url.clone(),
            key: self.api_key.clone(),
            key_file: self.api_key_file.clone(),
            account: self.account.clone(),
            user: self.user.clone(),
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a server for this machine alone, without keys.
    #[command(after_help = "Example:\n  bailiwick up --listen 127.0.0.1:8080")]
    Up(Up),
    /// Start a server.
    #[command(after_help = "Example:\n  bailiwick serve -c /etc/bailiwick/bailiwick.toml")]
    Serve(Serve),
    /// Show what it is for: accounts, an agent, a sandbox, an approval, a refusal, a verified record.
    #[command(after_help = "Example:\n  bailiwick demo --keep")]
    Demo(Demo),
    /// Make a configuration and an agents folder.
    #[command(after_help = "Example:\n  bailiwick init ./bailiwick && bailiwick serve -c ./bailiwick/bailiwick.toml")]
    Init {
        /// The folder; made if missing.
        dir: PathBuf,
    },
    /// Check this host and the configuration before others rely on it.
    #[command(after_help = "Example:\n  bailiwick doctor -c bailiwick.toml")]
    Doctor {
        /// The configuration [default: bailiwick.toml, if there is one].
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// A PostgreSQL database for the server.
    #[command(subcommand)]
    Database(database::DatabaseCommand),
    /// Tenants (operator).
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Users of an account.
    #[command(subcommand)]
    User(user::UserCommand),
    /// API keys of a user.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Agents of the account.
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Spaces, their files and who may use them.
    #[command(subcommand)]
    Space(space::SpaceCommand),
    /// Conversations with agents.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Commands that run in the background.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Where people are told what happens: Slack, Discord, Telegram.
    #[command(subcommand)]
    Notification(notification::NotificationCommand),
    /// Calls that wait for a person.
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// The record of everything that was done.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Secrets that agents may use and nobody sees.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// The keys under which secrets lie.
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// The account's own rules.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// What the account used today, against what it may, and your own share.
    #[command(after_help = "Example:\n  bailiwick usage")]
    Usage,
    /// Prove against a running server that one account reaches nothing of another (operator).
    #[command(
        after_help = "Example:\n  bailiwick prove-isolation --url https://agents.example.com --api-key-file root.key"
    )]
    ProveIsolation,
    /// The sandboxes: which run, and whether they hold on this machine.
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Talk to an agent in the terminal.
    #[command(
        after_help = "Example:\n  bailiwick chat --agent default\n  echo 'What is in this space?' | bailiwick chat"
    )]
    Chat(Chat),
}

/// What can be done with sandboxes.
#[derive(Subcommand)]
pub(crate) enum SandboxCommand {
    /// Attack those of this machine from inside, as an agent's programs could, and print what each attack was
    /// answered.
    #[command(after_help = "Examples:\n  bailiwick sandbox attack\n  bailiwick sandbox attack --backend linux --json")]
    Attack(Attack),
    #[command(flatten)]
    Running(sandbox::RunningCommand),
}

/// Which sandboxes are attacked.
#[derive(Args)]
pub(crate) struct Attack {
    /// The configuration whose sandboxes are meant [default: the defaults].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One kind alone.
    #[arg(long, value_name = "KIND")]
    pub(crate) backend: Option<BackendWord>,
    /// A wall that is left out, to see that it is missed.
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "WALL", hide = true)]
    pub(crate) without: Vec<String>,
}

/// A kind of sandbox.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum BackendWord {
    /// Real programs in namespaces.
    Linux,
    /// Real programs of an image.
    Container,
    /// The virtual shell.
    Virtual,
}

#[derive(Args)]
pub(crate) struct Listening {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address and port.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// How the server's own log is written.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogWord>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogWord {
    Text,
    Json,
}

impl Listening {
    /// The settings that these flags are.
    pub(crate) fn flags(&self) -> [(&'static str, &'static str, Option<String>); 3] {
        let format = self.log_format.map(|word| match word {
            LogWord::Text => "text".to_owned(),
            LogWord::Json => "json".to_owned(),
        });
        [
            ("--data", "server.data_dir", self.data.as_ref().map(|path| path.to_string_lossy().into_owned())),
            ("--listen", "server.listen", self.listen.clone()),
            ("--log-format", "log.format", format),
        ]
    }
}

#[derive(Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) listening: Listening,
    /// A configuration to begin with, for its models and ceilings.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A folder of agents as files.
    #[arg(long, value_name = "DIR")]
    pub(crate) agents: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) listening: Listening,
    /// The configuration [default: bailiwick.toml, if there is one].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Demo {
    /// Leave the data directory behind, and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the effective configuration with the place that each setting is from. Secrets are masked.
    #[command(after_help = "Example:\n  bailiwick config print -c bailiwick.toml")]
    Print {
        /// The configuration [default: bailiwick.toml, if there is one].
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print the commented defaults instead.
        #[arg(long)]
        defaults: bool,
    },
}

#[derive(Args)]
pub(crate) struct Chat {
    /// The space; your personal one if missing.
    #[arg(long, value_name = "ID")]
    pub(crate) space: Option<String>,
    /// The agent; `default` if missing.
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
    /// Go on with a session.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
}
