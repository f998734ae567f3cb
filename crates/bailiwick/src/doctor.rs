//! `bailiwick doctor`: what should be known before others rely on this server.
//!
//! One line a check: ok, warning or failed, and what to do. It changes nothing: the self-test of the
//! sandboxes has a server and a data directory of its own.

mod host;
mod selftest;

use std::path::PathBuf;

use bailiwick_auth::authn::Step;
use serde_json::json;

use crate::config::{AuthMode, Config, Loaded, Sources};
use crate::failure::Failure;
use crate::out::{self, Format, Style};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Warning,
    Failed,
}

impl Health {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One check.
pub(super) struct Check {
    name: &'static str,
    health: Health,
    found: String,
    advice: &'static str,
}

/// All checks so far.
#[derive(Default)]
pub(super) struct Findings(Vec<Check>);

impl Findings {
    pub(super) fn good(&mut self, name: &'static str, found: impl Into<String>) {
        self.0.push(Check { name, health: Health::Good, found: found.into(), advice: "" });
    }

    pub(super) fn warning(&mut self, name: &'static str, found: impl Into<String>, advice: &'static str) {
        self.0.push(Check { name, health: Health::Warning, found: found.into(), advice });
    }

    pub(super) fn failed(&mut self, name: &'static str, found: impl Into<String>, advice: &'static str) {
        self.0.push(Check { name, health: Health::Failed, found: found.into(), advice });
    }
}

/// Runs the command.
pub(crate) async fn run(file: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let sources = Sources::of_process().with_file(file);
    let named = sources.file.as_ref().map_or_else(|| "defaults alone".to_owned(), |path| path.display().to_string());
    let Loaded { config, warnings, .. } = sources.load();
    for warning in &warnings {
        findings.warning("configuration", warning.to_string(), "");
    }
    let sandbox = match config {
        Ok(config) => {
            findings.good("configuration", named);
            access(&mut findings, &config);
            models(&mut findings, &config);
            host::check(&mut findings, &config);
            Some(config.sandbox)
        }
        Err(problems) => {
            for problem in &problems.0 {
                findings.failed("configuration", problem.to_string(), "");
            }
            None
        }
    };
    host::kernel(&mut findings);
    selftest::check(&mut findings, sandbox).await;
    print(&findings, format);
    if findings.0.iter().any(|check| check.health == Health::Failed) { Err(Failure::Reported) } else { Ok(()) }
}

/// Who is let in, and from where.
fn access(findings: &mut Findings, config: &Config) {
    match (config.is_public(), &config.public_url) {
        (false, _) => findings.good("address", format!("{}: this machine alone", config.listen)),
        (true, Some(url)) if url.starts_with("https://") => {
            findings.good("address", format!("{}, for {url}", config.listen));
        }
        (true, _) => findings.warning(
            "address",
            format!("{} can be reached from other machines over plain HTTP", config.listen),
            "put a proxy with TLS before it, and set server.public_url to its https address",
        ),
    }
    match config.walk.last() {
        _ if config.mode == AuthMode::Dev => {
            findings.warning(
                "callers",
                "dev mode: whoever is on this machine is the operator",
                "set auth.mode = \"api_key\"",
            );
        }
        Some(Step::ApiKey) => findings.good("callers", "keys alone"),
        Some(Step::Jwt(_) | Step::Oidc(_)) => {
            findings.good("callers", "keys, people who signed in, and tokens of known issuers")
        }
        Some(Step::Basic) => findings.good("callers", "keys, and people with their passwords"),
        Some(Step::Session) => findings.good("callers", "keys, and people who signed in"),
        Some(Step::Placeholder) => {
            let advice = "when keys are all you want: auth.walk = [\"api_key\"]";
            findings.warning("callers", "the walk ends in `placeholder`: without a key nobody is let in", advice);
        }
        Some(Step::Anonymous) => {
            let advice = "leave `none` out of auth.walk, unless that is meant";
            findings.warning("callers", "everyone without a key is user `anonymous`", advice);
        }
        Some(Step::LocalDev) | None => {
            findings.failed("callers", "nobody can be let in", "set auth.walk = [\"api_key\"]")
        }
    }
    match &config.root_key {
        Some(key) if key.len() >= 32 => findings.good("root key", format!("{} characters", key.len())),
        Some(key) => {
            let advice = "use 32 random characters or more; `bailiwick init` makes such a key";
            findings.warning("root key", format!("{} characters: it can be guessed", key.len()), advice);
        }
        None if config.walk.contains(&Step::ApiKey) => {
            findings.warning("root key", "none", "set server.root_api_key_file")
        }
        None => findings.good("root key", "none, and none is needed"),
    }
}

fn models(findings: &mut Findings, config: &Config) {
    if config.models.keys().any(|name| name.as_str() == "default") {
        let names: Vec<String> = config.models.keys().map(ToString::to_string).collect();
        findings.good("models", names.join(", "));
    } else {
        findings.warning("models", "none is named `default`, which agents use", "add [model.default]");
    }
}

fn print(findings: &Findings, format: Format) {
    if format == Format::Json {
        let rows = findings.0.iter().map(|check| {
            json!({ "check": check.name, "result": check.health.word(), "found": check.found, "advice": check.advice })
        });
        return out::json(&json!(rows.collect::<Vec<_>>()));
    }
    for check in &findings.0 {
        let style = match check.health {
            Health::Good => Style::Good,
            Health::Warning => Style::Warn,
            Health::Failed => Style::Bad,
        };
        let word = out::paint(style, &format!("{:<7}", check.health.word()));
        let advice = if check.advice.is_empty() { String::new() } else { format!("; {}", check.advice) };
        out::line(&format!("{word}  {:<17} {}", check.name, out::brief(&format!("{}{advice}", check.found), 400)));
    }
}
