//! Anthropic's Messages API, version 2023-06-01, streamed.
//!
//! What it must never do: show a thinking block that it changed. A thinking block is signed;
//! it goes back as it came, or not at all.

mod decode;
mod encode;

use bailiwick_outbound::Transport;
use futures::stream::BoxStream;
use http::header::{HeaderMap, HeaderValue};
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::endpoint::{Base, Version};
use crate::provider::{Key, json_headers};
use crate::{Effort, Event, ModelError, Policy, PromptCache, Request};

/// The provider's settings.
#[derive(Clone, Debug)]
pub(crate) struct Anthropic {
    pub(crate) base: Base,
    pub(crate) thinking: Thinking,
    pub(crate) cache: PromptCache,
}

/// How the model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thinking {
    /// Nothing is said.
    Unset,
    /// The model decides, with this effort.
    Adaptive(Effort),
    /// At most so many tokens, in addition to the answer's.
    Budget(u32),
}

impl Anthropic {
    pub(crate) fn stream(
        &self,
        transport: &Transport,
        policy: Policy,
        request: &Request,
        key: &Key,
        cancel: CancellationToken,
    ) -> Result<BoxStream<'static, Result<Event, ModelError>>, ModelError> {
        let body = encode::body(self, request)?;
        let mut headers: HeaderMap = json_headers();
        headers.insert("anthropic-version", HeaderValue::from_static(VERSION));
        if let Some(value) = key.header("")? {
            headers.insert("x-api-key", value);
        }
        Ok(Call {
            transport: transport.clone(),
            reach: self.base.reach(),
            url: self.base.join(Version::UnlessPresent, "messages"),
            headers,
            body: body.to_string().into(),
            request_id_header: "request-id",
            decoder: decode::Decoder::new(&request.model),
            policy,
            scrub: key.scrub(),
            cancel,
        }
        .stream())
    }
}

const VERSION: &str = "2023-06-01";

/// Where the API stands unless the configuration says otherwise.
pub(crate) const DEFAULT_BASE: &str = "https://api.anthropic.com";

#[cfg(test)]
pub(crate) fn decoder(model: &str) -> impl crate::call::Decode {
    decode::Decoder::new(model)
}
