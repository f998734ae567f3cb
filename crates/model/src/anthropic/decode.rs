//! The Messages API's events, read strictly where we act on them and leniently elsewhere.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use crate::call::{Decode, DecodeError};
use crate::failure::Reported;
use crate::json::{self, Kept, MAX_EVENT_VALUES};
use crate::request::wire_name;
use crate::sse::SseEvent;
use crate::{AssistantMessage, AssistantPart, Completion, Event, Finish, Raw, ToolCall, ToolInput, Usage, WireFormat};

/// An answer in the making.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    model: String,
    blocks: BTreeMap<u64, Block>,
    finish: Option<Finish>,
    usage: WireUsage,
    kept: Kept,
}

/// A content block in the making.
#[derive(Clone, Debug)]
struct Block {
    /// As it started, without what the deltas bring.
    start: Value,
    /// The text, thinking or JSON so far.
    text: String,
    signature: String,
    citations: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Wire {
    MessageStart {
        message: MessageStart,
    },
    ContentBlockStart {
        index: u64,
        content_block: Value,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    MessageDelta {
        delta: MessageDelta,
        #[serde(default)]
        usage: WireUsage,
    },
    MessageStop,
    Error {
        error: Reported,
    },
    /// `ping`, `content_block_stop`, and events that are not known yet.
    #[serde(other)]
    Ignored,
}

#[derive(Deserialize)]
struct MessageStart {
    #[serde(default)]
    usage: WireUsage,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(rename = "citations_delta")]
    Citations { citation: Value },
    #[serde(other)]
    Ignored,
}

#[derive(Deserialize)]
struct MessageDelta {
    #[serde(default)]
    stop_reason: Option<String>,
}

/// Numbers are cumulative; a later event only overrides what it names.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl Decoder {
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            blocks: BTreeMap::new(),
            finish: None,
            usage: WireUsage::default(),
            kept: Kept::default(),
        }
    }

    fn start(&mut self, index: u64, start: Value, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        if self.blocks.contains_key(&index) {
            return Err(DecodeError::Protocol("two content blocks of one index"));
        }
        let mut block = Block { start, text: String::new(), signature: String::new(), citations: Vec::new() };
        match block.kind() {
            "tool_use" => {
                let id = block.field("id");
                if id.is_empty()
                    || self.blocks.values().any(|other| other.kind() == "tool_use" && other.field("id") == id)
                {
                    return Err(DecodeError::Protocol("a tool call without an id of its own"));
                }
                out.push_back(Event::ToolInputDelta {
                    id: id.to_owned(),
                    name: block.field("name").to_owned(),
                    delta: String::new(),
                });
            }
            // A block may start with a first piece already inside.
            "text" => {
                block.text = block.field("text").to_owned();
                emit(out, &block.text, Event::TextDelta);
            }
            "thinking" => {
                block.text = block.field("thinking").to_owned();
                block.signature = block.field("signature").to_owned();
                emit(out, &block.text, Event::ReasoningDelta);
            }
            _ => {}
        }
        self.blocks.insert(index, block);
        Ok(())
    }

    fn delta(&mut self, index: u64, delta: Delta, values: usize, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        let Some(block) = self.blocks.get_mut(&index) else {
            return Err(DecodeError::Protocol("a piece of a content block that has not started"));
        };
        match delta {
            Delta::Text { text } => {
                block.text.push_str(&text);
                emit(out, &text, Event::TextDelta);
            }
            Delta::Thinking { thinking } => {
                block.text.push_str(&thinking);
                emit(out, &thinking, Event::ReasoningDelta);
            }
            Delta::Signature { signature } => block.signature.push_str(&signature),
            Delta::InputJson { partial_json } => {
                block.text.push_str(&partial_json);
                if block.kind() == "tool_use" && !partial_json.is_empty() {
                    let (id, name) = (block.field("id").to_owned(), block.field("name").to_owned());
                    out.push_back(Event::ToolInputDelta { id, name, delta: partial_json });
                }
            }
            Delta::Citations { citation } => {
                self.kept.add(values)?;
                block.citations.push(citation);
            }
            Delta::Ignored => {}
        }
        Ok(())
    }

    fn stop(&mut self, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        let Some(finish) = self.finish else {
            return Err(DecodeError::Protocol("an end without a reason to stop"));
        };
        let mut message = AssistantMessage::default();
        let mut raw = Vec::new();
        for block in std::mem::take(&mut self.blocks).into_values() {
            let input = block.input();
            if matches!(input, Some(ToolInput::Json(_))) {
                // Arguments are kept twice: as a part and in the raw block.
                self.kept.add(2 * json::weight(&block.text))?;
            }
            message.parts.extend(block.part(input.as_ref()));
            raw.push(block.into_raw(input));
        }
        message.raw = Some(Raw { format: WireFormat::AnthropicMessages, model: self.model.clone(), blocks: raw });
        out.push_back(Event::Finished(Completion {
            message,
            finish,
            usage: self.usage.in_our_words(),
            request_id: None,
        }));
        Ok(())
    }
}

impl Decode for Decoder {
    fn read(&mut self, event: &SseEvent, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        if event.data.is_empty() {
            return Ok(());
        }
        match json::parse(&event.data, MAX_EVENT_VALUES)? {
            Wire::MessageStart { message } => self.usage.update(message.usage),
            Wire::ContentBlockStart { index, content_block } => {
                self.kept.add(json::weight(&event.data))?;
                self.start(index, content_block, out)?;
            }
            Wire::ContentBlockDelta { index, delta } => self.delta(index, delta, json::weight(&event.data), out)?,
            Wire::MessageDelta { delta, usage } => {
                self.usage.update(usage);
                if let Some(reason) = delta.stop_reason {
                    self.finish = Some(finish(&reason));
                }
            }
            Wire::MessageStop => self.stop(out)?,
            Wire::Error { error } => {
                return Err(DecodeError::Reported { kind: error.name(), message: error.message });
            }
            Wire::Ignored => {}
        }
        Ok(())
    }
}

impl Block {
    fn kind(&self) -> &str {
        self.field("type")
    }

    fn field(&self, name: &str) -> &str {
        self.start[name].as_str().unwrap_or_default()
    }

    /// The arguments, for the blocks that have some: our tools' and the provider's own.
    fn input(&self) -> Option<ToolInput> {
        let start = self.start.get("input")?;
        Some(if self.text.is_empty() { ToolInput::Json(start.clone()) } else { json::tool_input(&self.text) })
    }

    fn part(&self, input: Option<&ToolInput>) -> Option<AssistantPart> {
        match self.kind() {
            "text" if !self.text.is_empty() => Some(AssistantPart::Text(self.text.clone())),
            "thinking" if !self.text.is_empty() => Some(AssistantPart::Reasoning(self.text.clone())),
            "tool_use" => Some(AssistantPart::ToolCall(ToolCall {
                id: self.field("id").to_owned(),
                name: self.field("name").to_owned(),
                input: input.cloned().unwrap_or_else(|| json::tool_input(&self.text)),
            })),
            _ => None,
        }
    }

    fn into_raw(mut self, input: Option<ToolInput>) -> Value {
        let (id, name) = (wire_name(self.field("id")), wire_name(self.field("name")));
        let kind = self.kind().to_owned();
        let Some(block) = self.start.as_object_mut() else {
            return self.start;
        };
        match kind.as_str() {
            "text" => {
                block.insert("text".into(), self.text.into());
                if !self.citations.is_empty() {
                    block.insert("citations".into(), self.citations.into());
                }
            }
            "thinking" => {
                block.insert("thinking".into(), self.text.into());
                block.insert("signature".into(), self.signature.into());
            }
            _ => {
                if kind == "tool_use" {
                    // Only a compatible server ever needs this: results go by the same shape.
                    block.insert("id".into(), id.into());
                    block.insert("name".into(), name.into());
                }
                if let Some(input) = input {
                    block.insert("input".into(), json::input_object(&input));
                }
            }
        }
        self.start
    }
}

impl WireUsage {
    fn update(&mut self, later: Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_creation_input_tokens = later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
    }

    /// The API counts cached input apart; the house counts it in.
    fn in_our_words(self) -> Usage {
        let read = self.cache_read_input_tokens.unwrap_or_default();
        let written = self.cache_creation_input_tokens.unwrap_or_default();
        Usage {
            input_tokens: self.input_tokens.unwrap_or_default().saturating_add(read).saturating_add(written),
            output_tokens: self.output_tokens.unwrap_or_default(),
            cache_read_tokens: read,
            cache_write_tokens: written,
        }
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "end_turn" | "stop_sequence" => Finish::Stop,
        "tool_use" => Finish::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "refusal" => Finish::ContentFilter,
        _ => Finish::Other,
    }
}

fn emit(out: &mut VecDeque<Event>, text: &str, event: impl Fn(String) -> Event) {
    if !text.is_empty() {
        out.push_back(event(text.to_owned()));
    }
}
