//! What a call to a model gives back, piece by piece. A stream of these ends with exactly one
//! [`Event::Finished`] or one error, never with silence.

use serde::{Deserialize, Serialize};

use crate::AssistantMessage;

/// One piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// More of the model's thinking.
    ReasoningDelta(String),
    /// More of the text.
    TextDelta(String),
    /// More of a tool call's arguments, as JSON text. For display only: a call is acted upon
    /// when it stands in the finished message.
    ToolInputDelta {
        /// The call's id.
        id: String,
        /// The tool's name as far as it is known.
        name: String,
        /// The next piece; empty when the call has only begun.
        delta: String,
    },
    /// The whole answer. The last event.
    Finished(Completion),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// What the model said and asked for.
    pub message: AssistantMessage,
    /// Why it stopped.
    pub finish: Finish,
    /// What it cost.
    pub usage: Usage,
    /// The provider's id of the call, for its support.
    pub request_id: Option<String>,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// It had said everything.
    Stop,
    /// It waits for tool results.
    ToolCalls,
    /// It ran out of tokens; a tool call in the message may be cut.
    Length,
    /// The provider, or the model itself, declined.
    ContentFilter,
    /// A reason that is not known here.
    Other,
}

/// Tokens of one call, or of many, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Everything the model read, the cached part included, whatever the provider's own habit.
    pub input_tokens: u64,
    /// Everything it wrote, thinking included.
    pub output_tokens: u64,
    /// The part of the input that came from the provider's cache.
    pub cache_read_tokens: u64,
    /// The part of the input that was put into it.
    pub cache_write_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    /// Adds without overflow: the numbers come from the far side.
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cache_read_tokens = self.cache_read_tokens.saturating_add(other.cache_read_tokens);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(other.cache_write_tokens);
    }
}
