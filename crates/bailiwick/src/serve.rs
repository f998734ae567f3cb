//! `bailiwick serve` and `bailiwick up`: start, say so, wait, end.

use std::io;
use std::time::Duration;

use bailiwick_model::Script;
use bailiwick_sandbox::linux::{LauncherKind, Promises, WayOut};
use bailiwick_store::StoreError;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Serve, Up};
use crate::config::{Config, Loaded, LogFormat, Problem, Sources};
use crate::failure::Failure;
use crate::out::{self, Format, Style};
use crate::wiring::{self, Server, WiringError};

/// How long requests and turns may take to come to an end.
const DRAIN: Duration = Duration::from_secs(10);
/// Files that a server with many accounts and connections holds open.
const OPEN_FILES: u64 = 65_536;

/// The server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Wiring(#[from] WiringError),
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    #[error("the server ended")]
    Ended(#[source] io::Error),
    #[error("the answers of the built-in model cannot be read")]
    Script(#[from] bailiwick_model::ScriptError),
}

impl ServeError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Wiring(WiringError::Bind(address, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                Some(format!("something listens on {address} already: stop it, or choose another with --listen"))
            }
            Self::Wiring(WiringError::Database(StoreError::Version { found, known })) if found < known => {
                Some("run `bailiwick database prepare`, which needs the owner of the tables".to_owned())
            }
            Self::Wiring(WiringError::Database(StoreError::Unsafe(_))) => Some(
                "the server needs a role of its own, which owns nothing and has no BYPASSRLS: see docs/postgresql.md"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Runs `serve`.
pub(crate) async fn serve(arguments: Serve, format: Format) -> Result<(), Failure> {
    let mut sources = Sources::of_process().with_file(arguments.config);
    for (name, key, value) in arguments.listening.flags() {
        sources = sources.with_flag(name, key, value);
    }
    let Loaded { config, warnings, .. } = sources.load();
    let config = config?;
    begin_log(config.log);
    warn(&warnings);
    if config.models.is_empty() {
        tracing::warn!("no model is configured: sessions will fail until [model.default] is there");
    }
    let signals = Signals::listen()?;
    let server = wiring::start(config, None).await.map_err(ServeError::from)?;
    out::go_on_unread();
    if let Some(code) = server.setup_code() {
        tracing::info!(code, "no admin yet: open /setup on this host, or from another machine /setup with this code");
    }
    ready(&server, format);
    wait(server, signals).await
}

/// Runs `up`.
pub(crate) async fn up(arguments: Up, format: Format) -> Result<(), Failure> {
    let mut sources = Sources::of_process();
    // Dev mode takes a file only where one is named: what lies in the present folder may be for production.
    sources.file = arguments.config;
    for (name, key, value) in arguments.listening.flags() {
        sources = sources.with_flag(name, key, value);
    }
    let agents = arguments.agents.map(|dir| dir.to_string_lossy().into_owned());
    sources = sources
        .with_flag("--agents", "agents.dir", agents)
        .with_flag("up", "auth.mode", Some("dev".to_owned()))
        .with_flag("up", "auth.walk", Some("api_key,session,local_dev".to_owned()));
    let Loaded { config, warnings, .. } = sources.load();
    let config = config?;
    begin_log(config.log);
    warn(&warnings);
    let spoken = config.models.is_empty();
    let script = Script::parse("the built-in model", include_str!("serve/greeting.yaml")).map_err(ServeError::from)?;
    let shown = Shown { data: config.data_dir.display().to_string(), spoken };
    let signals = Signals::listen()?;
    let server = wiring::start(config, Some(script)).await.map_err(ServeError::from)?;
    // Who reads the greeting and goes has not asked for the server's end.
    out::go_on_unread();
    if format == Format::Text {
        welcome(&server, &shown).await;
    }
    ready(&server, format);
    wait(server, signals).await
}

struct Shown {
    data: String,
    spoken: bool,
}

/// What a person who started `up` wants to know.
async fn welcome(server: &Server, shown: &Shown) {
    let dim = |text: &str| out::paint(Style::Dim, text);
    let title = format!("Bailiwick {}, dev mode", env!("CARGO_PKG_VERSION"));
    out::line(&format!("{}: whoever is on this machine is the operator.", out::paint(Style::Bold, &title)));
    out::line("");
    out::line(&format!("  {}   http://{}/", dim("page   "), server.address()));
    if let Some(code) = server.setup_code() {
        let link = format!("http://{}/setup?code={code}", server.address());
        out::line(&format!("  {}   {link}  (makes the first admin, once)", dim("set-up ")));
    }
    out::line(&format!("  {}      {}", dim("data"), out::clean(&shown.data)));
    out::line(&format!("  {}   {}", dim("sandbox"), sandbox_line(&server.sandboxes().linux().await)));
    if shown.spoken {
        out::line(&format!(
            "  {}     none is configured, so a built-in one answers; docs/configuration.md",
            dim("model")
        ));
    }
    out::line("");
    out::line("In another terminal:");
    let url = match server.address().to_string().as_str() {
        "127.0.0.1:17880" => String::new(),
        other => format!(" --url http://{other}"),
    };
    out::line(&format!("  bailiwick chat{url}"));
    out::line(&format!("  bailiwick audit tail{url}"));
    out::line("");
}

/// Which sandbox `auto` is, in a line.
pub(crate) fn sandbox_line(linux: &Result<Promises, String>) -> String {
    match linux {
        Ok(promises) => {
            let launcher = match promises.launcher {
                LauncherKind::Native => "native",
                LauncherKind::Bubblewrap => "bubblewrap",
                LauncherKind::Engine => "container engine",
            };
            let out = match promises.way_out {
                WayOut::Gate => "no way out but the gate",
                WayOut::Nothing => "no way out at all",
            };
            format!("linux ({launcher}; Landlock {}, own namespaces, {out})", promises.landlock_abi)
        }
        Err(reason) => format!("virtual (the linux sandbox does not work here: {})", out::clean(reason)),
    }
}

/// The one line that scripts wait for.
fn ready(server: &Server, format: Format) {
    let url = format!("http://{}", server.address());
    match format {
        Format::Text => out::line(&format!("listening on {url}")),
        Format::Json => out::line(&json!({ "listening": url }).to_string()),
    }
}

/// What ends a server in good order. Listened to before anybody is told that it is ready: who ends it in
/// that moment ends it like any other.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ServeError> {
        let terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
        Ok(Self { terminate, interrupt })
    }
}

async fn wait(mut server: Server, Signals { mut terminate, mut interrupt }: Signals) -> Result<(), Failure> {
    raise_open_files();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        error = server.failed() => return Err(ServeError::Ended(error).into()),
    }
    tracing::info!("stopping");
    tokio::select! {
        () = server.stop(DRAIN) => Ok(()),
        // Whoever asks twice does not want to wait. Nothing acknowledged is lost: it is written already.
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// What the server says about itself, on standard error.
fn begin_log(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let told = std::env::var("BAILIWICK_LOG").unwrap_or_default();
    let filter = if told.is_empty() { "info" } else { &told };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A second subscriber cannot be set; the first one then stays.
    let _ = match format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(colours).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Open files up to the hard limit, within reason. What cannot be raised is left as it is.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if now.current.is_some_and(|current| current < most) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: now.maximum });
    }
}

/// A configuration of defaults and these settings alone, as the demo and the doctor run it.
pub(crate) fn embedded(flags: &[(&'static str, String)]) -> Result<Config, Failure> {
    let mut sources = Sources::default();
    for (key, value) in flags {
        sources = sources.with_flag("demo", key, Some(value.clone()));
    }
    Ok(sources.load().config?)
}
