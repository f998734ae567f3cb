//! What the settings mean together. Everything that is wrong is reported; nothing is repaired.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_model::{KeySource, Kind, Script};
use bailiwick_sandbox::HostUse;
use bailiwick_sandbox::container::RuntimeChoice;
use bailiwick_sandbox::linux::{CgroupUse, Limits};
use bailiwick_store::DatabaseUrl;
use bailiwick_types::agent::BackendChoice;
use bailiwick_types::{HostName, ModelName, SecretName};
use bailiwick_web::{Network, Rates};
use serde::Deserialize as _;
use zeroize::Zeroizing;

use super::layers::{Layers, Origin};
use super::raw::{Audit, AuthMode, Cgroups, Container, Database, Raw, Sandbox};
use super::{
    AuditSettings, Config, ContainerEngine, Loaded, Problem, Problems, SandboxSettings, Sources, gate, issuer,
    notifications, read_secret, sign_in, vault, width_problem,
};

/// A root key that is shorter can be guessed. On loopback too: that is where a proxy's requests come from.
const ROOT_KEY_LEAST: usize = 16;
/// What a root key should have.
const ROOT_KEY_GOOD: usize = 32;

pub(super) fn load(sources: &Sources) -> Loaded {
    let mut layers = Layers::merge(sources);
    let effective = layers.effective();
    let models = layers.table.get("model").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    for (name, model) in &models {
        if model.get("provider").is_none() {
            layers.wrong(&format!("model.{name}"), "provider is missing: \"anthropic\", \"openai\" or \"scripted\"");
            if let Some(toml::Value::Table(models)) = layers.table.get_mut("model") {
                models.remove(name);
            }
        }
    }
    let raw = Raw::deserialize(toml::Value::Table(layers.table.clone()));
    let config = match raw {
        Ok(raw) => judge(&mut layers, raw, sources),
        Err(error) => {
            let problem = Problem { at: Origin::Default, key: String::new(), text: error.message().to_owned() };
            layers.problems.push(problem);
            None
        }
    };
    let config = match config {
        Some(config) if layers.problems.is_empty() => Ok(config),
        _ => Err(Problems(layers.problems)),
    };
    Loaded { config, warnings: layers.warnings, effective }
}

fn judge(layers: &mut Layers, raw: Raw, sources: &Sources) -> Option<Config> {
    let file = sources.file.as_deref();
    let database = database(layers, &raw.database, file);
    if raw.objects.url != "file:" {
        layers.wrong("objects.url", "not supported in this version: only \"file:\", in server.data_dir");
    }
    if let Some(url) = &raw.server.public_url {
        let fits = url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !fits {
            layers.wrong("server.public_url", "not a URL: write for example \"https://bailiwick.example.com\"");
        }
    }
    let trusted_proxies = networks(layers, "server.trusted_proxies", &raw.server.trusted_proxies);
    let ip_allow = networks(layers, "server.ip_allow", &raw.server.ip_allow);
    let walk = walk(layers, raw.auth.mode, raw.auth.walk.as_deref());
    let listen = listen(layers, &raw.server.listen);
    let public = listen.is_some_and(|at| !at.ip().to_canonical().is_loopback());
    if public && (raw.auth.mode == AuthMode::Dev || walk.contains(&Step::LocalDev)) {
        layers.wrong(
            "server.listen",
            format!(
                "{} can be reached from other machines, and dev mode lets everyone in: \
                 listen on 127.0.0.1, or set auth.mode = \"api_key\"",
                raw.server.listen
            ),
        );
    }
    let proxied = raw.server.public_url.is_some() || !raw.server.trusted_proxies.is_empty();
    if proxied && raw.auth.mode == AuthMode::Dev {
        layers.wrong(
            "auth.mode",
            "\"dev\" lets every caller of this host in, and through a proxy everybody is one: \
             set auth.mode = \"api_key\", or leave out server.public_url and server.trusted_proxies",
        );
    }
    if !trusted_proxies.is_empty() && raw.server.public_url.is_none() {
        let text = "there is a proxy before the server: say how people reach it, or cookies are not marked for https";
        layers.warn("server.public_url", text);
    }
    if raw.auth.mode == AuthMode::Trusted && trusted_proxies.is_empty() {
        layers.wrong(
            "server.trusted_proxies",
            "auth.mode = \"trusted\" believes a gateway: name its address here, or nobody is let in",
        );
    }
    if raw.auth.mode == AuthMode::Trusted && !walk.contains(&Step::ApiKey) {
        layers
            .wrong("auth.walk", "auth.mode = \"trusted\" needs `api_key` in the walk: the gateway shows the root key");
    }
    if public && walk.contains(&Step::Anonymous) {
        layers.warn("auth.walk", "`none` on a public address: everyone who reaches it is user `anonymous`");
    }
    let sign_in = sign_in::check(layers, &raw.auth, &sources.environment);
    let root_key = root_key(layers, &raw, &walk, file);
    let public_url = raw.server.public_url.as_deref();
    let issuers = issuer::check(layers, raw.auth.jwt, raw.auth.oidc, &walk, public_url);
    for (name, model) in &raw.model {
        check_model(layers, name.as_str(), model);
    }
    let sandbox = sandbox(layers, &raw.sandbox);
    if raw.sandbox.allow_host {
        layers.warn("sandbox.allow_host", "agents may run tools on the host, without walls");
    }
    let gate = gate::check(layers, raw.gate, raw.egress);
    let hooks = notifications::check(layers, raw.notifications);
    let vault = vault::check(layers, raw.vault);
    let data_dir = resolve(layers, "server.data_dir", &raw.server.data_dir);
    let misfit = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if raw.server.name.is_empty() || raw.server.name.len() > 200 || raw.server.name.contains(misfit) {
        let text = "signs the record: 1 to 200 bytes without spaces, control characters and `+`, such as a host's name";
        layers.wrong("server.name", text);
    }
    let audit = audit(layers, &raw.audit, &data_dir);
    let agents_dir = raw.agents.dir.as_ref().map(|dir| resolve(layers, "agents.dir", dir));
    if let Some(dir) = &agents_dir {
        agents(layers, dir, &raw.model);
    }
    let models = raw
        .model
        .into_iter()
        .map(|(name, mut model)| {
            let key = |what: &str| format!("model.{name}.{what}");
            model.api_key_file = model.api_key_file.map(|path| resolve(layers, &key("api_key_file"), &path));
            model.script = model.script.map(|path| resolve(layers, &key("script"), &path));
            (name, model)
        })
        .collect();
    Some(Config {
        name: raw.server.name,
        listen: listen?,
        public_url: raw.server.public_url,
        data_dir,
        database: database?,
        root_key,
        trusted_proxies,
        ip_allow,
        mode: raw.auth.mode,
        walk,
        sign_in,
        issuers,
        models,
        sandbox,
        gate,
        hooks,
        vault,
        agents_dir,
        agents_account: raw.agents.account,
        audit,
        log: raw.log.format,
        rates: Rates {
            principal: NonZeroU32::new(raw.limits.requests_per_second_per_principal),
            address: NonZeroU32::new(raw.limits.requests_per_second_per_address),
        },
        quotas: raw.limits.account,
    })
}

/// How the record is signed and how long it is kept.
fn audit(layers: &mut Layers, raw: &Audit, data_dir: &Path) -> AuditSettings {
    if raw.checkpoint_seconds == 0 {
        layers.wrong("audit.checkpoint_seconds", "must be at least 1");
    }
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let retention = (raw.retention_days > 0).then(|| hours(u64::from(raw.retention_days) * 24));
    let least_age = hours(u64::from(raw.least_age_hours));
    if retention.is_some_and(|kept| kept < least_age) {
        layers.wrong("audit.retention_days", "is shorter than audit.least_age_hours: nothing could be retired");
    }
    AuditSettings {
        checkpoint_every: Duration::from_secs(raw.checkpoint_seconds),
        checkpoint_dir: match &raw.checkpoint_dir {
            Some(dir) => resolve(layers, "audit.checkpoint_dir", dir),
            None => data_dir.join("checkpoints"),
        },
        retention,
        least_age,
    }
}

/// Reads the agents' files, as the start will.
fn agents(layers: &mut Layers, dir: &Path, models: &BTreeMap<ModelName, bailiwick_model::Config>) {
    if !dir.is_dir() {
        return layers.wrong("agents.dir", format!("there is no folder {}", dir.display()));
    }
    match bailiwick_agent::definition::load_dir(dir) {
        Err(wrong) => wrong.iter().for_each(|error| layers.wrong("agents.dir", error.to_string())),
        Ok(found) => {
            for (id, definition) in found {
                if !models.contains_key(&definition.model) && definition.model != ModelName::first() {
                    layers.wrong("agents.dir", format!("{id}/AGENT.md: there is no [model.{}]", definition.model));
                }
                if !definition.egress.denies_all() && definition.sandbox.backend == BackendChoice::Virtual {
                    let text = "egress: the virtual sandbox has no way out; its tools will be refused";
                    layers.warn("agents.dir", format!("{id}/AGENT.md: {text}"));
                }
            }
        }
    }
}

fn listen(layers: &mut Layers, text: &str) -> Option<SocketAddr> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = local.as_deref().unwrap_or(text).parse().ok();
    if parsed.is_none() {
        layers.wrong("server.listen", format!("not an address with a port: {text}; write for example 127.0.0.1:17880"));
    }
    parsed
}

fn walk(layers: &mut Layers, mode: AuthMode, words: Option<&[String]>) -> Vec<Step> {
    let Some(words) = words else {
        return match mode {
            AuthMode::Dev => vec![Step::ApiKey, Step::Session, Step::LocalDev],
            AuthMode::ApiKey => vec![Step::ApiKey, Step::Session],
            AuthMode::Trusted => vec![Step::ApiKey],
        };
    };
    let mut steps = Vec::new();
    for (place, word) in words.iter().enumerate() {
        match Step::parse(word) {
            Some(step) if steps.contains(&step) => layers.wrong("auth.walk", format!("`{word}` stands there twice")),
            Some(step) => {
                let ends = matches!(step, Step::Placeholder | Step::Anonymous);
                if ends && place + 1 < words.len() {
                    layers.wrong("auth.walk", format!("`{word}` ends the walk: nothing after it is ever asked"));
                }
                steps.push(step);
            }
            None => layers.wrong(
                "auth.walk",
                format!("there is no authenticator `{word}`: use api_key, session, basic, jwt:<name>, oidc:<name>, local_dev, placeholder or none"),
            ),
        }
    }
    if steps.contains(&Step::LocalDev) && mode != AuthMode::Dev {
        layers.wrong("auth.walk", "`local_dev` is for auth.mode = \"dev\" alone");
    }
    if mode == AuthMode::Dev && !steps.contains(&Step::LocalDev) {
        layers.wrong("auth.walk", "auth.mode = \"dev\" needs `local_dev` in the walk");
    }
    if words.is_empty() {
        layers.warn("auth.walk", "empty: nobody is let in");
    }
    if steps.contains(&Step::Placeholder) {
        layers
            .warn("auth.walk", "ends in `placeholder`: callers without a key are refused with a reminder to set it up");
    }
    steps
}

/// Where the database is, with the password of its role.
fn database(layers: &mut Layers, raw: &Database, file: Option<&Path>) -> Option<DatabaseUrl> {
    let url = match raw.url.parse::<DatabaseUrl>() {
        Ok(url) => url,
        Err(error) => {
            layers.wrong("database.url", error.to_string());
            return None;
        }
    };
    match (url, &raw.password_file) {
        (DatabaseUrl::Sqlite, None) => Some(DatabaseUrl::Sqlite),
        (DatabaseUrl::Sqlite, Some(_)) => {
            layers.wrong("database.password_file", "is for PostgreSQL: SQLite has no password");
            None
        }
        (DatabaseUrl::Postgres(url), Some(path)) => {
            if url.has_password() {
                layers.wrong("database.password_file", "give the password in the file or in database.url, not in both");
            }
            let path = resolve(layers, "database.password_file", path);
            match read_secret(&path) {
                Ok(password) => Some(DatabaseUrl::Postgres(Box::new(url.with_password(&password)))),
                Err(error) => {
                    layers.wrong("database.password_file", error.to_string());
                    None
                }
            }
        }
        (DatabaseUrl::Postgres(url), None) => {
            if url.has_password() {
                private_if_in_file(layers, "database.url", file);
            }
            Some(DatabaseUrl::Postgres(url))
        }
    }
}

/// A secret that stands in the configuration file itself makes it a file that must be as private as one.
fn private_if_in_file(layers: &mut Layers, key: &str, file: Option<&Path>) {
    if let (Origin::File(..), Some(path)) = (layers.origin(key), file)
        && let Some(problem) = std::fs::File::open(path).ok().and_then(|file| width_problem(path, &file))
    {
        layers.wrong(key, problem.to_string());
    }
}

/// The operator's key, if the walk needs one.
fn root_key(layers: &mut Layers, raw: &Raw, walk: &[Step], file: Option<&Path>) -> Option<Zeroizing<String>> {
    let (inline, separate) = (&raw.server.root_api_key, &raw.server.root_api_key_file);
    if inline.is_some() && separate.is_some() {
        layers.wrong("server.root_api_key", "give either root_api_key or root_api_key_file, not both");
    }
    let (name, key) = match (inline, separate) {
        (Some(text), _) => {
            private_if_in_file(layers, "server.root_api_key", file);
            ("server.root_api_key", Zeroizing::new(text.clone()))
        }
        (None, Some(path)) => {
            let path = resolve(layers, "server.root_api_key_file", path);
            match read_secret(&path) {
                Ok(key) => ("server.root_api_key_file", key),
                Err(error) => {
                    layers.wrong("server.root_api_key_file", error.to_string());
                    return None;
                }
            }
        }
        (None, None) => {
            if walk.contains(&Step::ApiKey) && raw.auth.mode != AuthMode::Dev {
                layers.wrong(
                    "server.root_api_key_file",
                    "missing: the operator's key makes the first account; \
                     `bailiwick init DIR` makes a configuration with one, `bailiwick up` needs none",
                );
            }
            return None;
        }
    };
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        layers.wrong(name, "must be visible ASCII characters without spaces");
    } else if key.len() < ROOT_KEY_LEAST && raw.auth.mode != AuthMode::Dev {
        layers.wrong(name, format!("has {} characters, which can be guessed: use at least {ROOT_KEY_GOOD}", key.len()));
    } else if key.len() < ROOT_KEY_GOOD {
        layers.warn(name, format!("has {} characters: use at least {ROOT_KEY_GOOD} random ones", key.len()));
    }
    Some(key)
}

fn check_model(layers: &mut Layers, name: &str, model: &bailiwick_model::Config) {
    let key = |what: &str| format!("model.{name}.{what}");
    let url = model.base_url.as_deref().and_then(|url| url::Url::parse(url).ok());
    if url.is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        layers.wrong(&key("base_url"), "holds a credential, which logs would show: give api_key_file or api_key_env");
    }
    for problem in model.problems() {
        layers.wrong(&key(problem.key), problem.problem);
    }
    match model.key_source() {
        KeySource::File(path) => {
            let path = resolve(layers, &key("api_key_file"), &path);
            if let Err(error) = read_secret(&path) {
                layers.wrong(&key("api_key_file"), error.to_string());
            }
        }
        KeySource::Env(variable) => {
            if std::env::var_os(&variable).is_none_or(|value| value.is_empty()) {
                layers.wrong(&key("api_key_env"), format!("the environment variable {variable} is not set"));
            }
        }
        KeySource::Secret(secret) => {
            if let Err(error) = secret.parse::<SecretName>() {
                layers.wrong(&key("api_key_secret"), error.to_string());
            }
            // A grant is for a name: what has none cannot be granted anything.
            if let Some(Err(error)) = model.host().map(|host| HostName::parse(&host)) {
                let text = format!("{error}; accounts grant their keys to a host's name, so it needs one");
                layers.wrong(&key("base_url"), text);
            }
        }
        KeySource::NotConfigured if model.base_url.is_none() => {
            layers.wrong(&format!("model.{name}"), "has no key: give api_key_file, api_key_env or api_key_secret");
        }
        KeySource::NotConfigured | KeySource::NotNeeded => {}
    }
    if let (Kind::Scripted, Some(path)) = (model.provider, &model.script) {
        let path = resolve(layers, &key("script"), path);
        if let Err(error) = Script::load(&path) {
            layers.wrong(&key("script"), error.to_string());
        }
    }
}

fn sandbox(layers: &mut Layers, raw: &Sandbox) -> SandboxSettings {
    let positive = [
        ("memory_mib", raw.memory_mib > 0),
        ("pids", raw.pids > 0),
        ("cpu", raw.cpu.is_finite() && raw.cpu > 0.0),
        ("open_files", raw.open_files > 0),
        ("file_mib", raw.file_mib > 0),
        ("tmp_mib", raw.tmp_mib > 0),
        ("disk_mib", raw.disk_mib != Some(0)),
        ("tool_timeout_seconds", raw.tool_timeout_seconds > 0),
        ("idle_seconds", raw.idle_seconds > 0),
    ];
    for (name, _) in positive.iter().filter(|(_, good)| !good) {
        layers.wrong(&format!("sandbox.{name}"), "must be more than zero");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked positive; `as` saturates")]
    let cpu_millis = (raw.cpu * 1000.0).ceil() as u32;
    let mib = |n: u64| n.saturating_mul(1 << 20);
    SandboxSettings {
        host: if raw.allow_host { HostUse::Allowed } else { HostUse::Refused },
        cgroups: match raw.cgroups {
            Cgroups::Auto => CgroupUse::WherePossible,
            Cgroups::Never => CgroupUse::Never,
        },
        limits: Limits {
            memory_bytes: mib(raw.memory_mib),
            pids: raw.pids,
            cpu_millis,
            open_files: raw.open_files,
            file_bytes: mib(raw.file_mib),
            tmp_bytes: mib(raw.tmp_mib),
        },
        disk_mib: raw.disk_mib,
        tool_time: Duration::from_secs(raw.tool_timeout_seconds),
        idle: Duration::from_secs(raw.idle_seconds),
        ready: raw.ready.into(),
        container: raw.container.as_ref().map(|raw| container(layers, raw)),
    }
}

fn container(layers: &mut Layers, raw: &Container) -> ContainerEngine {
    let socket = resolve(layers, "sandbox.container.socket", raw.socket.as_deref().unwrap_or(Path::new("")));
    if raw.socket.is_none() || !socket.is_absolute() {
        layers.wrong("sandbox.container.socket", "must be an absolute path, for example /run/podman/podman.sock");
    }
    let image = raw.image.clone().unwrap_or_default();
    if image.is_empty() {
        layers.wrong("sandbox.container.image", "must name an image that the engine has");
    }
    let runtime = match raw.runtime.as_deref() {
        Some("") => {
            layers.wrong("sandbox.container.runtime", "must be a name; leave it out for the engine's own choice");
            RuntimeChoice::Engines
        }
        Some(name) => RuntimeChoice::Named(name.to_owned()),
        None => RuntimeChoice::Engines,
    };
    ContainerEngine { socket, image, runtime }
}

/// The ranges as the edge reads them: what it cannot read is an error here, never a range less.
fn networks(layers: &mut Layers, key: &str, texts: &[String]) -> Vec<Network> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(error) => layers.wrong(key, format!("{text}: {error}")),
        }
    }
    networks
}

/// A path as written: `~` is the home folder; relative to the file that says it, else to the present folder.
pub(super) fn resolve(layers: &Layers, key: &str, path: &Path) -> PathBuf {
    if let Ok(rest) = path.strip_prefix("~") {
        return std::env::home_dir().unwrap_or_default().join(rest);
    }
    match layers.origin(key) {
        Origin::File(file, _) => file.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path)),
        _ => path.to_owned(),
    }
}
