//! The configuration of one model, `[model.<name>]`, and its rules. It names where a key is
//! found and never holds one. All problems are reported together.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::endpoint::Base;
use crate::{Policy, Retry, Timeouts};

/// One model.
///
/// ```toml
/// [model.default]
/// provider = "anthropic"
/// model = "claude-sonnet-4-5"
/// api_key_file = "/etc/bailiwick/anthropic.key"
/// ```
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which API, or the scripted model.
    pub provider: Kind,
    /// The API's address, with or without `/v1`. Default: the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// A file with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// An environment variable with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The secret of each account that holds the account's own key: a call never goes with another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<String>,
    /// The provider's name of the model. Not needed for the scripted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The scripted model's YAML file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
    /// Which of OpenAI's APIs.
    #[serde(default)]
    pub api: Api,
    /// The most tokens of one answer, thinking not counted.
    #[serde(default = "default_max_output_tokens")]
    pub max_output_tokens: u32,
    /// How hard a reasoning model thinks. Default: the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// A fixed thinking budget, for Anthropic models that do not take `effort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking_budget_tokens: Option<u32>,
    /// Whether reasoning comes back encrypted, to be sent again (OpenAI's Responses API).
    #[serde(default)]
    pub encrypted_reasoning: EncryptedReasoning,
    /// Whether the provider is asked to cache the prompt (Anthropic; the others decide alone).
    #[serde(default)]
    pub prompt_cache: PromptCache,
    /// Where plain HTTP is allowed.
    #[serde(default)]
    pub plain_http: PlainHttp,
    /// How long to wait.
    #[serde(default)]
    pub timeouts: TimeoutConfig,
    /// How often to try.
    #[serde(default)]
    pub retry: RetryConfig,
}

/// The provider of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Anthropic's Messages API.
    Anthropic,
    /// OpenAI's APIs, and the many servers that speak them.
    Openai,
    /// A file with answers.
    Scripted,
}

/// Which of OpenAI's APIs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Chat Completions, which compatible servers have.
    #[default]
    Chat,
    /// Responses, which keeps a model's reasoning through a tool loop.
    Responses,
}

/// How hard a reasoning model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

/// Whether reasoning comes back encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EncryptedReasoning {
    /// Asked for. Nothing is stored at the provider, so this is the only way to keep it.
    #[default]
    Include,
    /// Not asked for: models without reasoning refuse the question.
    Omit,
}

/// Whether the provider is asked to cache the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptCache {
    /// Asked, for the provider's shortest time.
    #[default]
    On,
    /// Not asked.
    Off,
}

/// Where plain HTTP is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlainHttp {
    /// To this machine only.
    #[default]
    Loopback,
    /// To any address; the network sees the key and everything said.
    Anywhere,
}

/// How long to wait, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutConfig {
    /// For the first bytes of an answer.
    pub first_byte_seconds: u64,
    /// Between two pieces of an answer.
    pub idle_seconds: u64,
    /// For everything, retries included.
    pub total_seconds: u64,
}

impl Default for TimeoutConfig {
    fn default() -> Self {
        let Timeouts { first_byte, idle, total } = Timeouts::default();
        Self { first_byte_seconds: first_byte.as_secs(), idle_seconds: idle.as_secs(), total_seconds: total.as_secs() }
    }
}

/// How often to try.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Tries in all.
    pub attempts: u32,
    /// The longest pause that is waited for.
    pub max_wait_seconds: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let Retry { attempts, max_wait, .. } = Retry::default();
        Self { attempts, max_wait_seconds: max_wait.as_secs() }
    }
}

/// Where the key of a model is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
    /// In each account's secret of this name.
    Secret(String),
    /// The model needs none: it is scripted.
    NotNeeded,
    /// None is configured. Calls go without one, as local servers allow.
    NotConfigured,
}

/// A mistake in a model's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigProblem {
    /// The key inside `[model.<name>]`.
    pub key: &'static str,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl Config {
    /// Where the key is found.
    pub fn key_source(&self) -> KeySource {
        match (self.provider, &self.api_key_secret, &self.api_key_file, &self.api_key_env) {
            (Kind::Scripted, ..) => KeySource::NotNeeded,
            (_, Some(name), ..) => KeySource::Secret(name.clone()),
            (_, None, Some(file), _) => KeySource::File(file.clone()),
            (_, None, None, Some(name)) => KeySource::Env(name.clone()),
            (_, None, None, None) => KeySource::NotConfigured,
        }
    }

    /// Every mistake; none means that the model can be used.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        let mut report = |key, problem: &str| found.push(ConfigProblem { key, problem: problem.to_owned() });
        if self.provider == Kind::Scripted {
            if self.script.is_none() {
                report("script", "name the YAML file with the answers of the scripted model");
            }
        } else {
            if self.model.as_deref().is_none_or(|model| model.trim().is_empty()) {
                report("model", "name the model as its provider does");
            }
            if self.script.is_some() {
                report("script", "only for provider = \"scripted\"");
            }
        }
        if self.api_key_file.is_some() && self.api_key_env.is_some() {
            report("api_key_file", "give either api_key_file or api_key_env, not both");
        }
        if self.api_key_secret.is_some() {
            if self.api_key_file.is_some() || self.api_key_env.is_some() {
                report(
                    "api_key_secret",
                    "is instead of api_key_file and api_key_env: an account without one is refused",
                );
            }
            if self.provider == Kind::Scripted {
                report("api_key_secret", "not for provider = \"scripted\", which needs no key");
            }
        }
        if self.api != Api::default() && self.provider != Kind::Openai {
            report("api", "only for provider = \"openai\"");
        }
        if let Some(budget) = self.thinking_budget_tokens {
            if self.provider != Kind::Anthropic {
                report("thinking_budget_tokens", "only for provider = \"anthropic\"; use effort");
            } else if self.effort.is_some() {
                report("thinking_budget_tokens", "give either effort or thinking_budget_tokens, not both");
            } else if budget < 1_024 {
                report("thinking_budget_tokens", "at least 1024");
            }
        }
        if self.max_output_tokens == 0 {
            report("max_output_tokens", "at least 1");
        }
        let times = [self.timeouts.first_byte_seconds, self.timeouts.idle_seconds, self.timeouts.total_seconds];
        if times.iter().any(|seconds| !(1..=86_400).contains(seconds)) {
            report("timeouts", "each between 1 and 86400 seconds");
        }
        if !(1..=10).contains(&self.retry.attempts) || self.retry.max_wait_seconds > 3_600 {
            report("retry", "attempts between 1 and 10, max_wait_seconds at most 3600");
        }
        if let Some(Err(problem)) = self.base_url.as_deref().map(|url| Base::parse(url, self.plain_http)) {
            report("base_url", &problem.to_string());
        }
        found
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            timeouts: Timeouts {
                first_byte: Duration::from_secs(self.timeouts.first_byte_seconds),
                idle: Duration::from_secs(self.timeouts.idle_seconds),
                total: Duration::from_secs(self.timeouts.total_seconds),
            },
            retry: Retry {
                attempts: self.retry.attempts,
                max_wait: Duration::from_secs(self.retry.max_wait_seconds),
                ..Retry::default()
            },
            ..Policy::default()
        }
    }
}

impl Config {
    /// The host that is called, and gets the key, as the address has it; `None` for a script and for what is no
    /// address.
    pub fn host(&self) -> Option<String> {
        let usual = match self.provider {
            Kind::Anthropic => crate::anthropic::DEFAULT_BASE,
            Kind::Openai => crate::openai::DEFAULT_BASE,
            Kind::Scripted => return None,
        };
        let base = Base::parse(self.base_url.as_deref().unwrap_or(usual), self.plain_http).ok()?;
        base.host().map(str::to_owned)
    }
}

impl Effort {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

fn default_max_output_tokens() -> u32 {
    8_192
}
