//! OpenAI's two APIs, Chat Completions and Responses, and the servers that speak them.
//!
//! What it must never do: let a conversation be stored at the provider (`store` is false), or
//! fail for a field that a compatible server adds or leaves out.

mod chat_decode;
mod chat_encode;
mod responses_decode;
mod responses_encode;
mod schema;

use bailiwick_outbound::Transport;
use futures::stream::BoxStream;
use http::header::AUTHORIZATION;
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Decode};
use crate::endpoint::{Base, Version};
use crate::provider::{Key, json_headers};
use crate::{Api, Effort, EncryptedReasoning, Event, ModelError, Outcome, Policy, Request, ToolResult};

/// The provider's settings.
#[derive(Clone, Debug)]
pub(crate) struct OpenAi {
    pub(crate) base: Base,
    pub(crate) api: Api,
    pub(crate) effort: Option<Effort>,
    pub(crate) encrypted_reasoning: EncryptedReasoning,
}

impl OpenAi {
    pub(crate) fn stream(
        &self,
        transport: &Transport,
        policy: Policy,
        request: &Request,
        key: &Key,
        cancel: CancellationToken,
    ) -> Result<BoxStream<'static, Result<Event, ModelError>>, ModelError> {
        match self.api {
            Api::Chat => {
                let body = chat_encode::body(self, request)?;
                let decoder = chat_decode::Decoder::new(&request.model);
                self.call(transport, policy, ("chat/completions", &body), decoder, key, cancel)
            }
            Api::Responses => {
                let body = responses_encode::body(self, request)?;
                let decoder = responses_decode::Decoder::new(&request.model);
                self.call(transport, policy, ("responses", &body), decoder, key, cancel)
            }
        }
    }

    fn call<D: Decode>(
        &self,
        transport: &Transport,
        policy: Policy,
        (path, body): (&str, &serde_json::Value),
        decoder: D,
        key: &Key,
        cancel: CancellationToken,
    ) -> Result<BoxStream<'static, Result<Event, ModelError>>, ModelError> {
        let mut headers = json_headers();
        if let Some(value) = key.header("Bearer ")? {
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Call {
            transport: transport.clone(),
            reach: self.base.reach(),
            url: self.base.join(Version::IfNoPath, path),
            headers,
            body: body.to_string().into(),
            request_id_header: "x-request-id",
            decoder,
            policy,
            scrub: key.scrub(),
            cancel,
        }
        .stream())
    }
}

/// The text of a tool's result. Neither API has a field for failure, so the text says it.
fn result_text(result: &ToolResult) -> String {
    match result.outcome {
        Outcome::Succeeded => result.content.clone(),
        Outcome::Failed => format!("The tool call failed.\n{}", result.content),
    }
}

/// An attachment as the data URL that both APIs take.
fn data_url(media_type: &str, bytes: &crate::Blob) -> String {
    format!("data:{media_type};base64,{}", bytes.to_base64())
}

/// Where the APIs stand unless the configuration says otherwise.
pub(crate) const DEFAULT_BASE: &str = "https://api.openai.com";

#[cfg(test)]
pub(crate) fn chat_decoder(model: &str) -> impl Decode {
    chat_decode::Decoder::new(model)
}

#[cfg(test)]
pub(crate) fn responses_decoder(model: &str) -> impl Decode {
    responses_decode::Decoder::new(model)
}
