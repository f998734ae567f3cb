//! A conversation in the house's own words: what a session stores and what every provider is
//! given. Nothing here names a wire format, except [`Raw`], which carries a provider's own
//! blocks untouched and is never read by anyone but that provider.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Blob;

/// One entry of a conversation.
///
/// As JSON: `{"role": "user" | "assistant" | "tool_results", "content": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", content = "content", rename_all = "snake_case")]
pub enum Message {
    /// What a person, a trigger or a parent agent said.
    User(Vec<UserPart>),
    /// What the model answered.
    Assistant(AssistantMessage),
    /// What became of the tool calls of the assistant message just before.
    ToolResults(Vec<ToolResult>),
}

impl Message {
    /// A user message of one text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User(vec![UserPart::Text(text.into())])
    }
}

/// A piece of a user message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum UserPart {
    /// Plain text.
    Text(String),
    /// A picture that the model looks at.
    Image {
        /// Its media type, for example `image/png`.
        media_type: String,
        /// The file itself.
        bytes: Blob,
    },
    /// A document that the model reads.
    Document {
        /// Its media type, for example `application/pdf` or `text/plain`.
        media_type: String,
        /// The name under which the model sees it.
        name: String,
        /// The file itself.
        bytes: Blob,
    },
}

/// What the model answered in one call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AssistantMessage {
    /// The answer in the house's words. This is what is shown, checked and acted upon.
    pub parts: Vec<AssistantPart>,
    /// The provider's own form of the same answer. Whoever edits `parts` (a redaction, for
    /// example) must drop it, or the provider is sent the unedited form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Raw>,
}

impl AssistantMessage {
    /// The visible text, its pieces joined.
    pub fn text(&self) -> String {
        self.parts
            .iter()
            .filter_map(|part| match part {
                AssistantPart::Text(text) => Some(text.as_str()),
                AssistantPart::Reasoning(_) | AssistantPart::ToolCall(_) => None,
            })
            .collect()
    }

    /// The tool calls, in the model's order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            AssistantPart::ToolCall(call) => Some(call),
            AssistantPart::Text(_) | AssistantPart::Reasoning(_) => None,
        })
    }
}

/// A piece of an assistant message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum AssistantPart {
    /// Text for the reader.
    Text(String),
    /// The model's thinking, or the provider's summary of it.
    Reasoning(String),
    /// An act that the model asks for.
    ToolCall(ToolCall),
}

/// An act that the model asks for. Nothing about it is checked yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call; a result refers to it. Unique within one message.
    pub id: String,
    /// The tool's name as the model wrote it; it may not exist.
    pub name: String,
    /// The arguments.
    pub input: ToolInput,
}

/// The arguments of a tool call as they came.
///
/// As JSON: `{"json": …}` or `{"text": "…"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolInput {
    /// Parsed arguments. Not necessarily an object, and not checked against the tool's schema.
    Json(Value),
    /// Text that is not JSON, or more JSON than is parsed, kept as such so that the model can
    /// be told.
    Text(String),
}

/// The result of one tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The id of the call.
    pub call_id: String,
    /// The tool's name as called.
    pub name: String,
    /// What the model reads.
    pub content: String,
    /// Whether it worked.
    pub outcome: Outcome,
}

/// Whether a tool call did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran and answered.
    Succeeded,
    /// It was refused, invalid, or went wrong; the content says why.
    Failed,
}

/// A provider's own blocks of one assistant message, kept verbatim: thinking signatures,
/// encrypted reasoning, fields nobody here knows. They go back only in the same format and to
/// the same model; otherwise the message is rebuilt from its parts, without the reasoning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raw {
    /// The format the blocks are written in.
    pub format: WireFormat,
    /// The model that wrote them, as it was asked for.
    pub model: String,
    /// The blocks, in order.
    pub blocks: Vec<Value>,
}

/// The formats in which raw blocks exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireFormat {
    /// Content blocks of Anthropic's Messages API.
    AnthropicMessages,
    /// One assistant message of OpenAI's Chat Completions API.
    OpenaiChat,
    /// Output items of OpenAI's Responses API.
    OpenaiResponses,
}

impl Raw {
    /// The blocks, if they may be sent to `model` in `format`.
    pub(crate) fn blocks_for(&self, format: WireFormat, model: &str) -> Option<&[Value]> {
        (self.format == format && self.model == model).then_some(self.blocks.as_slice())
    }
}
