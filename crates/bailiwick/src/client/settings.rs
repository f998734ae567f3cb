//! Which server, and with which key: flags, then the environment, then `~/.config/bailiwick/cli.toml`.

use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::{SecretFileError, read_secret, width_problem};

/// What the flags said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub(crate) url: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) account: Option<String>,
    pub(crate) user: Option<String>,
}

/// Which server, and who we are to it.
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) key: Option<Zeroizing<String>>,
    pub(crate) account: Option<String>,
    pub(crate) user: Option<String>,
}

/// The client's own settings are wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("not a URL of a server: {0}")]
    Url(String),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        path: String,
        #[source]
        error: std::io::Error,
    },
    #[error("{path}: {problem}")]
    Wrong { path: String, problem: String },
}

/// The file's shape.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CliFile {
    url: Option<String>,
    api_key: Option<String>,
    account: Option<String>,
    user: Option<String>,
}

/// Where `bailiwick up` and `serve` listen if nothing else is said.
const USUAL: &str = "http://127.0.0.1:17880";

impl Settings {
    /// Reads flags, environment and file.
    pub(crate) fn load(given: Given) -> Result<Self, SettingsError> {
        let file = match std::env::home_dir() {
            Some(home) => read_file(&home.join(".config/bailiwick/cli.toml"))?,
            None => CliFile::default(),
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = given.url.or_else(|| variable("BAILIWICK_URL"));
        let url = url.or_else(|| file.url.clone()).unwrap_or_else(|| USUAL.to_owned());
        let parsed = read_url(&url).ok_or(SettingsError::Url(url))?;
        // The file's key and names are for the file's server; no other must see them.
        let theirs = file.url.as_deref().or(Some(USUAL)).and_then(read_url);
        let file =
            if theirs.is_some_and(|theirs| theirs.origin() == parsed.origin()) { file } else { CliFile::default() };
        let key = match (given.key, &given.key_file) {
            (Some(key), _) => Some(Zeroizing::new(key)),
            (None, Some(path)) => Some(read_secret(path)?),
            (None, None) => variable("BAILIWICK_API_KEY").or(file.api_key).map(Zeroizing::new),
        };
        Ok(Self {
            url: parsed,
            key,
            account: given.account.or_else(|| variable("BAILIWICK_ACCOUNT")).or(file.account),
            user: given.user.or_else(|| variable("BAILIWICK_USER")).or(file.user),
        })
    }
}

fn read_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn read_file(path: &Path) -> Result<CliFile, SettingsError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(CliFile::default()),
        Err(error) => return Err(SettingsError::Unreadable { path: path.display().to_string(), error }),
    };
    if let Some(problem) = width_problem(path, &file) {
        return Err(problem.into());
    }
    let text = std::io::read_to_string(file)
        .map_err(|error| SettingsError::Unreadable { path: path.display().to_string(), error })?;
    // The message alone: the parser's excerpt could show the key.
    toml::from_str(&text)
        .map_err(|error| SettingsError::Wrong { path: path.display().to_string(), problem: error.message().to_owned() })
}
