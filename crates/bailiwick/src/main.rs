//! The binary: it parses, wires and waits.
//!
//! Roles that this program plays for itself (a sandbox's first process, a shell's worker) begin before
//! anything else, while there is one thread; everything after that belongs to a command.

mod attack;
mod chat;
mod cli;
mod client;
mod command;
mod config;
mod demo;
mod doctor;
mod failure;
mod init;
mod key_program;
mod out;
mod prove;
mod serve;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, ConfigCommand, SandboxCommand};
use command::Context;
use config::Sources;
use failure::{Code, Failure};
use out::Format;

fn main() -> ExitCode {
    bailiwick_sandbox::helper::dispatch();
    let cli = Cli::parse();
    let code = match run(cli) {
        Ok(()) => Code::Done,
        Err(failure) => {
            if !matches!(failure, Failure::Reported) {
                out::error(&failure.text(), failure.hint().as_deref());
            }
            failure.code()
        }
    };
    ExitCode::from(code as u8)
}

fn run(cli: Cli) -> Result<(), Failure> {
    let format = cli.global.format();
    match cli.command {
        Command::Init { dir } => init::run(&dir, format),
        Command::Config(ConfigCommand::Print { config, defaults }) => print_config(config, defaults, format),
        Command::Agent(command::agent::AgentCommand::Check { dir }) => command::agent::check(&dir, format),
        Command::Vault(command::vault::VaultCommand::MakeKey { file }) => command::vault::make_key(&file, format),
        Command::Audit(command::audit::AuditCommand::Verify { offline: Some(file), key, older, .. }) => {
            command::audit::check::run(&file, key.as_deref(), &older, format)
        }
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4)))
                // Far above the places of uploads, each of which holds one for as long as it trickles.
                .max_blocking_threads(512)
                .thread_keep_alive(std::time::Duration::from_secs(5))
                .enable_all()
                .build()
                .map_err(|error| Failure::File { path: "the asynchronous runtime".to_owned(), error })?;
            let done = runtime.block_on(dispatch(command, &cli.global));
            // A thread may still wait for a line that nobody will type.
            runtime.shutdown_background();
            done
        }
    }
}

async fn dispatch(command: Command, global: &cli::Global) -> Result<(), Failure> {
    let format = global.format();
    let context = || Context::new(global.given(), format);
    match command {
        Command::Up(arguments) => serve::up(arguments, format).await,
        Command::Serve(arguments) => serve::serve(arguments, format).await,
        Command::Demo(arguments) => demo::run(arguments, format).await,
        Command::Database(command) => command::database::run(command, format).await,
        Command::Doctor { config } => doctor::run(config, format).await,
        Command::Account(command) => command::account::run(&context()?, command).await,
        Command::User(command) => command::user::run(&context()?, command).await,
        Command::Key(command) => command::key::run(&context()?, command).await,
        Command::Agent(command) => command::agent::run(&context()?, command).await,
        Command::Space(command) => command::space::run(&context()?, command).await,
        Command::Session(command) => command::session::run(&context()?, command).await,
        Command::Job(command) => command::job::run(&context()?, command).await,
        Command::Notification(command) => command::notification::run(&context()?, command).await,
        Command::Approval(command) => command::approval::run(&context()?, command).await,
        Command::Audit(command) => command::audit::run(&context()?, command).await,
        Command::Usage => command::usage::run(&context()?).await,
        Command::Secret(command) => command::secret::run(&context()?, command).await,
        Command::Vault(command) => command::vault::run(&context()?, command).await,
        Command::Policy(command) => command::policy::run(&context()?, command).await,
        Command::ProveIsolation => prove::run(global.given(), format).await,
        Command::Sandbox(SandboxCommand::Attack(asked)) => attack::run(attack::Plan::of(asked)?, format).await,
        Command::Sandbox(SandboxCommand::Running(command)) => command::sandbox::run(&context()?, command).await,
        Command::Chat(arguments) => chat::run(&context()?, arguments).await,
        // Done before a runtime was needed.
        Command::Init { .. } | Command::Config(_) => Ok(()),
    }
}

/// Prints the effective configuration. What is wrong is reported too, and the exit code says so.
fn print_config(file: Option<std::path::PathBuf>, defaults: bool, format: Format) -> Result<(), Failure> {
    if defaults {
        out::piece(config::DEFAULTS);
        return Ok(());
    }
    let loaded = Sources::of_process().with_file(file).load();
    if format == Format::Json {
        let entries = loaded.effective.iter().map(|entry| {
            let value = serde_json::to_value(&entry.value).unwrap_or_default();
            (entry.key.clone(), serde_json::json!({ "value": value, "from": entry.origin.to_string() }))
        });
        out::json(&serde_json::Value::Object(entries.collect()));
    } else {
        let widest = loaded.effective.iter().map(|entry| entry.key.chars().count() + entry.value.to_string().len() + 3);
        let widest = widest.max().unwrap_or(0).min(60);
        for entry in &loaded.effective {
            let setting = out::clean(&format!("{} = {}", entry.key, entry.value));
            let from = out::paint(out::Style::Dim, &out::clean(&format!("# {}", entry.origin)));
            out::line(&format!("{setting:<widest$}  {from}"));
        }
    }
    loaded.warnings.iter().for_each(|warning| out::note(&out::clean(&format!("warning: {warning}"))));
    match loaded.config {
        // What is missing is no mistake of anybody's yet; what was said wrongly is.
        Err(problems) if problems.0.iter().all(|problem| problem.at == config::Origin::Default) => {
            problems.0.iter().for_each(|problem| out::note(&out::clean(&format!("not ready: {problem}"))));
            Ok(())
        }
        other => other.map(drop).map_err(Failure::from),
    }
}
