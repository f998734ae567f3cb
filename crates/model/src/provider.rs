//! A configured model: the one thing that the rest of the house calls.

use std::path::Path;

use bailiwick_outbound::Transport;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::anthropic::{self, Anthropic, Thinking};
use crate::endpoint::Base;
use crate::openai::{self, OpenAi};
use crate::scripted::{Script, ScriptError, Scripted};
use crate::scrub::Scrub;
use crate::veil::veil;
use crate::{Config, ConfigProblem, Credential, Event, Kind, ModelError, Policy, Request};

/// A configured model. Cheap to share; holds no key and no conversation.
#[derive(Clone, Debug)]
pub struct Provider {
    api: ProviderApi,
    policy: Policy,
    model: String,
    max_output_tokens: u32,
}

#[derive(Clone, Debug)]
enum ProviderApi {
    Anthropic(Anthropic, Transport),
    OpenAi(OpenAi, Transport),
    Scripted(Scripted),
}

/// Why a model cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Mistakes in its configuration.
    #[error("{}", list(.0))]
    Config(Vec<ConfigProblem>),
    /// A mistake in its script.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

impl Provider {
    /// The model of a configuration, called by this transport. A script is read now, once.
    ///
    /// # Errors
    /// All mistakes of the configuration, or the first of the script.
    pub fn new(config: &Config, transport: Transport) -> Result<Self, BuildError> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(BuildError::Config(problems));
        }
        let base = |default: &str| {
            let text = config.base_url.as_deref().unwrap_or(default);
            Base::parse(text, config.plain_http).map_err(|problem| {
                BuildError::Config(vec![ConfigProblem { key: "base_url", problem: problem.to_string() }])
            })
        };
        let api = match config.provider {
            Kind::Anthropic => {
                let thinking = match (config.effort, config.thinking_budget_tokens) {
                    (Some(effort), _) => Thinking::Adaptive(effort),
                    (None, Some(tokens)) => Thinking::Budget(tokens),
                    (None, None) => Thinking::Unset,
                };
                let base = base(anthropic::DEFAULT_BASE)?;
                ProviderApi::Anthropic(Anthropic { base, thinking, cache: config.prompt_cache }, transport)
            }
            Kind::Openai => {
                let settings = OpenAi {
                    base: base(openai::DEFAULT_BASE)?,
                    api: config.api,
                    effort: config.effort,
                    encrypted_reasoning: config.encrypted_reasoning,
                };
                ProviderApi::OpenAi(settings, transport)
            }
            Kind::Scripted => {
                let path = config.script.as_deref().unwrap_or(Path::new(""));
                ProviderApi::Scripted(Scripted::new(Script::load(path)?))
            }
        };
        let model = config.model.clone().unwrap_or_else(|| "scripted".to_owned());
        Ok(Self { api, policy: config.policy(), model, max_output_tokens: config.max_output_tokens })
    }

    /// The scripted model on a script that is already read, as the demo and tests have it.
    pub fn scripted(script: Script) -> Self {
        let api = ProviderApi::Scripted(Scripted::new(script));
        Self { api, policy: Policy::default(), model: "scripted".to_owned(), max_output_tokens: 8_192 }
    }

    /// The same model with other bounds than its configuration's.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The provider's name of the configured model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The configured most tokens of one answer.
    pub fn max_output_tokens(&self) -> u32 {
        self.max_output_tokens
    }

    /// Calls the model. Nothing is sent before the stream is polled; it ends with one
    /// [`Event::Finished`] or one error. To drop it, or to cancel the token, closes the
    /// connection. The key is copied into one header, and to where it is taken out of the answer again; it is not
    /// needed after this returns.
    pub fn stream(
        &self,
        request: &Request,
        key: Option<&dyn Credential>,
        cancel: CancellationToken,
    ) -> BoxStream<'static, Result<Event, ModelError>> {
        let key_text = key.map(Credential::expose);
        let started = request.check().map_err(ModelError::from).and_then(|()| match &self.api {
            ProviderApi::Anthropic(api, transport) => {
                api.stream(transport, self.policy, request, &Key::new(key), cancel)
            }
            ProviderApi::OpenAi(api, transport) => api.stream(transport, self.policy, request, &Key::new(key), cancel),
            ProviderApi::Scripted(api) => Ok(api.stream(request, cancel)),
        });
        veil(started.unwrap_or_else(|error| stream::iter([Err(error)]).boxed()), key_text)
    }
}

/// The key of one call. Wiped on drop; the header that is made of it is not, because the HTTP
/// client copies it as it likes.
pub(crate) struct Key(Option<Zeroizing<String>>);

impl Key {
    fn new(key: Option<&dyn Credential>) -> Self {
        Self(key.map(|key| Zeroizing::new(key.expose().to_owned())))
    }

    /// The header's value, marked so that no `Debug` shows it.
    pub(crate) fn header(&self, prefix: &str) -> Result<Option<HeaderValue>, ModelError> {
        let Some(key) = &self.0 else { return Ok(None) };
        let text = Zeroizing::new(format!("{prefix}{}", key.as_str()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| ModelError::KeyMalformed)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    pub(crate) fn scrub(&self) -> Scrub {
        Scrub::new(self.0.as_ref().map(|key| key.as_str()))
    }
}

/// The headers that every provider gets.
pub(crate) fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers
}

fn list(problems: &[ConfigProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
