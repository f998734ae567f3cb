//! The shape of the configuration file. Strict: no key beyond those named here. It decides nothing;
//! what the values mean together is judged in `check`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use bailiwick_types::Egress;
use bailiwick_types::{AccountName, ModelName, Quotas};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) egress: Egress,
    pub(super) server: Server,
    pub(super) auth: Auth,
    pub(super) database: Database,
    pub(super) objects: Place,
    #[serde(default)]
    pub(super) model: BTreeMap<ModelName, bailiwick_model::Config>,
    pub(super) sandbox: Sandbox,
    pub(super) gate: Gate,
    pub(super) notifications: Notifications,
    pub(super) vault: Vault,
    pub(super) agents: Agents,
    pub(super) audit: Audit,
    pub(super) log: Log,
    pub(super) limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) requests_per_second_per_principal: u32,
    pub(super) requests_per_second_per_address: u32,
    pub(super) account: Quotas,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) public_url: Option<String>,
    pub(super) data_dir: PathBuf,
    pub(super) root_api_key: Option<String>,
    pub(super) root_api_key_file: Option<PathBuf>,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) ip_allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) mode: AuthMode,
    pub(super) walk: Option<Vec<String>>,
    pub(super) password: Passwords,
    pub(super) session: Session,
    pub(super) lockout: Lockout,
    pub(super) oauth: OAuth,
    #[serde(default)]
    pub(super) jwt: BTreeMap<String, Jwt>,
    #[serde(default)]
    pub(super) oidc: BTreeMap<String, Oidc>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    // What is missing is told in `issuer`: here each setting must fit alone.
    pub(super) algorithm: Option<String>,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) public_key_file: Option<PathBuf>,
    pub(super) jwks_url: Option<String>,
    #[serde(default)]
    pub(super) issuer: String,
    #[serde(default)]
    pub(super) audiences: Vec<String>,
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    pub(super) account: Option<AccountName>,
    pub(super) account_claim: Option<String>,
    #[serde(default = "sub")]
    pub(super) user_claim: String,
    pub(super) role_claim: Option<String>,
    #[serde(default = "half_a_minute")]
    pub(super) clock_skew_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Oidc {
    #[serde(default)]
    pub(super) issuer: String,
    #[serde(default)]
    pub(super) audiences: Vec<String>,
    pub(super) algorithm: Option<String>,
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    pub(super) account: Option<AccountName>,
    pub(super) account_claim: Option<String>,
    #[serde(default = "sub")]
    pub(super) user_claim: String,
    pub(super) role_claim: Option<String>,
    #[serde(default = "half_a_minute")]
    pub(super) clock_skew_seconds: u64,
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) second_factor: SecondFactor,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SecondFactor {
    #[default]
    Own,
    Provider,
}

fn sub() -> String {
    "sub".to_owned()
}

fn half_a_minute() -> u64 {
    30
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Passwords {
    pub(super) algorithm: Hashing,
    pub(super) memory_mib: u32,
    pub(super) cost: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hashing {
    Argon2id,
    Bcrypt,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    pub(super) idle_timeout_minutes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lockout {
    pub(super) failures: u32,
    pub(super) minutes: u32,
    pub(super) address_failures: u32,
    pub(super) address_hours: u32,
    pub(super) window_hours: u32,
    pub(super) keep: Counts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OAuth {
    pub(super) registration: Registration,
    pub(super) metadata_documents: super::MetadataDocuments,
    pub(super) access_token_minutes: u32,
    pub(super) refresh_token_days: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Registration {
    Open,
    Operator,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Counts {
    Memory,
    Database,
}

/// `auth.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthMode {
    /// Keys.
    ApiKey,
    /// Headers of a trusted proxy that shows the root key.
    Trusted,
    /// A loopback socket is enough.
    Dev,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) url: String,
    pub(super) password_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sandbox {
    pub(super) allow_host: bool,
    pub(super) cgroups: Cgroups,
    pub(super) memory_mib: u64,
    pub(super) pids: u32,
    pub(super) cpu: f64,
    pub(super) open_files: u64,
    pub(super) file_mib: u64,
    pub(super) tmp_mib: u64,
    pub(super) disk_mib: Option<u64>,
    pub(super) tool_timeout_seconds: u64,
    pub(super) idle_seconds: u64,
    pub(super) ready: u8,
    pub(super) container: Option<Container>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Container {
    // What is missing is told in `check`: here each setting must fit alone.
    pub(super) socket: Option<PathBuf>,
    pub(super) image: Option<String>,
    pub(super) runtime: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cgroups {
    Auto,
    Never,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agents {
    pub(super) dir: Option<PathBuf>,
    pub(super) account: AccountName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    pub(super) checkpoint_seconds: u64,
    pub(super) checkpoint_dir: Option<PathBuf>,
    pub(super) retention_days: u32,
    pub(super) least_age_hours: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: LogFormat,
}

/// How the server's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gate {
    #[serde(default)]
    pub(super) hosts: BTreeMap<String, Addresses>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) connections: u32,
    pub(super) requests_per_minute: u32,
    pub(super) traffic_mib: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notifications {
    #[serde(default)]
    pub(super) hosts: BTreeMap<String, String>,
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    pub(super) key_file: Option<PathBuf>,
    pub(super) key_env: Option<String>,
    #[serde(default)]
    pub(super) key_command: KeyCommand,
    pub(super) key_command_seconds: u64,
    pub(super) old_key_files: Vec<PathBuf>,
    pub(super) old_key_envs: Vec<String>,
    pub(super) old_key_commands: Vec<KeyCommand>,
    pub(super) token_origins: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyCommand {
    // What is missing is told in `vault`: here each setting must fit alone.
    pub(super) id: Option<String>,
    pub(super) command: Option<Vec<String>>,
}

impl KeyCommand {
    /// Whether nothing is said of it.
    pub(super) fn is_empty(&self) -> bool {
        self.id.is_none() && self.command.is_none()
    }
}

/// One address, or some.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Addresses {
    One(IpAddr),
    Several(Vec<IpAddr>),
}
