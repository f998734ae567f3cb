//! Chat Completions chunks, including those of servers that take the format lightly: calls
//! without an index or an id, whole arguments in one piece, no `[DONE]`.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::{Decode, DecodeError};
use crate::failure::Reported;
use crate::json::{self, Kept, MAX_EVENT_VALUES};
use crate::request::wire_name;
use crate::sse::SseEvent;
use crate::{AssistantMessage, AssistantPart, Completion, Event, Finish, Raw, ToolCall, Usage, WireFormat};

/// An answer in the making.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    model: String,
    text: String,
    refusal: String,
    reasoning: String,
    calls: Vec<Call>,
    /// Fields of the message that are not known here, joined over the chunks.
    rest: Map<String, Value>,
    finish: Option<Finish>,
    usage: Usage,
    kept: Kept,
}

#[derive(Clone, Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct CallDelta {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<FunctionDelta>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FunctionDelta {
    name: Option<String>,
    /// A string by the API; an object from some servers.
    arguments: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<InputDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Option<u64>,
}

impl Decoder {
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            text: String::new(),
            refusal: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
            rest: Map::new(),
            finish: None,
            usage: Usage::default(),
            kept: Kept::default(),
        }
    }

    fn delta(&mut self, delta: Delta, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        // Some servers send the thinking under both names.
        let (field, reasoning) = match (delta.reasoning_content, delta.reasoning) {
            (Some(text), _) => ("reasoning_content", text),
            (None, Some(text)) => ("reasoning", text),
            (None, None) => ("", String::new()),
        };
        if !reasoning.is_empty() {
            merge(&mut self.rest, field.to_owned(), Value::String(reasoning.clone()));
            self.reasoning.push_str(&reasoning);
            out.push_back(Event::ReasoningDelta(reasoning));
        }
        for (piece, whole) in [(delta.content, &mut self.text), (delta.refusal, &mut self.refusal)] {
            if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                whole.push_str(&piece);
                out.push_back(Event::TextDelta(piece));
            }
        }
        for (position, call) in delta.tool_calls.unwrap_or_default().into_iter().enumerate() {
            self.call(position, call, out)?;
        }
        for (name, value) in delta.rest {
            if name != "role" && !value.is_null() {
                self.kept.add(json::count(&value))?;
                merge(&mut self.rest, name, value);
            }
        }
        Ok(())
    }

    fn call(&mut self, position: usize, delta: CallDelta, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        let id = delta.id.filter(|id| !id.is_empty());
        let known = self.calls.iter().position(|call| match (delta.index, &id) {
            (Some(index), _) => call.index == Some(index),
            (None, Some(id)) => &call.id == id,
            (None, None) => false,
        });
        // Without an index and an id, a piece belongs to the call that came last.
        let known = known.or_else(|| match (delta.index, &id) {
            (None, None) => self.calls.len().checked_sub(1),
            _ => None,
        });
        let number = known.unwrap_or_else(|| {
            self.calls.push(Call { index: delta.index, ..Call::default() });
            self.calls.len() - 1
        });
        let started = known.is_none();
        if started {
            let id = id.unwrap_or_else(|| format!("call_{}", delta.index.unwrap_or(position as u64)));
            if self.calls.iter().any(|call| call.id == id) {
                return Err(DecodeError::Protocol("two tool calls of one id"));
            }
            self.calls[number].id = id;
            self.kept.add(8)?;
        }
        let call = &mut self.calls[number];
        let function = delta.function.unwrap_or_default();
        if let Some(name) = function.name.filter(|name| call.name != *name) {
            // In pieces by the API's letter; whole and repeated from some servers.
            call.name.push_str(&name);
        }
        let arguments = match function.arguments {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        call.arguments.push_str(&arguments);
        for (name, value) in delta.rest {
            if name != "type" && !value.is_null() {
                self.kept.add(json::count(&value))?;
                merge(&mut call.rest, name, value);
            }
        }
        if started || !arguments.is_empty() {
            out.push_back(Event::ToolInputDelta { id: call.id.clone(), name: call.name.clone(), delta: arguments });
        }
        Ok(())
    }

    fn finished(&mut self) -> Result<Option<Event>, DecodeError> {
        let Some(mut finish) = self.finish.take() else {
            return Ok(None);
        };
        if finish == Finish::Stop && !self.calls.is_empty() {
            finish = Finish::ToolCalls;
        }
        if finish == Finish::Stop && !self.refusal.is_empty() {
            finish = Finish::ContentFilter;
        }
        let mut parts = Vec::new();
        if !self.reasoning.is_empty() {
            parts.push(AssistantPart::Reasoning(self.reasoning.clone()));
        }
        for text in [&self.text, &self.refusal] {
            if !text.is_empty() {
                parts.push(AssistantPart::Text(text.clone()));
            }
        }
        let mut wire_calls = Vec::new();
        for call in std::mem::take(&mut self.calls) {
            self.kept.add(json::weight(&call.arguments))?;
            let input = json::tool_input(&call.arguments);
            wire_calls.push(call.in_wire_words(&input));
            parts.push(AssistantPart::ToolCall(ToolCall { id: call.id, name: call.name, input }));
        }
        let raw = self.raw(wire_calls);
        let message = AssistantMessage { parts, raw: Some(raw) };
        Ok(Some(Event::Finished(Completion { message, finish, usage: self.usage, request_id: None })))
    }

    fn raw(&mut self, calls: Vec<Value>) -> Raw {
        let mut message = Map::new();
        message.insert("role".into(), json!("assistant"));
        message.insert("content".into(), if self.text.is_empty() { Value::Null } else { json!(self.text) });
        if !self.refusal.is_empty() {
            message.insert("refusal".into(), json!(self.refusal));
        }
        if !calls.is_empty() {
            message.insert("tool_calls".into(), Value::Array(calls));
        }
        for (name, value) in std::mem::take(&mut self.rest) {
            message.entry(name).or_insert(value);
        }
        Raw { format: WireFormat::OpenaiChat, model: self.model.clone(), blocks: vec![Value::Object(message)] }
    }
}

impl Decode for Decoder {
    fn read(&mut self, event: &SseEvent, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        if event.data == "[DONE]" {
            let end = self.finished()?.ok_or(DecodeError::Protocol("an end without a reason to stop"))?;
            out.push_back(end);
            return Ok(());
        }
        if event.data.is_empty() {
            return Ok(());
        }
        let chunk: Chunk = json::parse(&event.data, MAX_EVENT_VALUES)?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let error = Reported::of(error);
            return Err(DecodeError::Reported { kind: error.name(), message: error.message });
        }
        if let Some(usage) = chunk.usage {
            self.usage = usage.in_our_words();
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                self.delta(delta, out)?;
            }
            if let Some(reason) = choice.finish_reason {
                self.finish = Some(finish(&reason));
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        out.extend(self.finished()?);
        Ok(())
    }
}

impl Call {
    fn in_wire_words(&self, input: &crate::ToolInput) -> Value {
        let mut call = self.rest.clone();
        call.insert("id".into(), json!(self.id));
        call.insert("type".into(), json!("function"));
        let arguments = match input {
            crate::ToolInput::Json(Value::Object(_)) if !self.arguments.trim().is_empty() => self.arguments.clone(),
            other => json::input_object(other).to_string(),
        };
        call.insert("function".into(), json!({ "name": wire_name(&self.name), "arguments": arguments }));
        Value::Object(call)
    }
}

impl WireUsage {
    fn in_our_words(&self) -> Usage {
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        Usage {
            input_tokens: self.prompt_tokens.unwrap_or_default(),
            output_tokens: self.completion_tokens.unwrap_or_default(),
            cache_read_tokens: cached.unwrap_or_default(),
            cache_write_tokens: 0,
        }
    }
}

/// Joins a field's pieces: text and lists grow, anything else is replaced.
fn merge(into: &mut Map<String, Value>, name: String, piece: Value) {
    match (into.get_mut(&name), piece) {
        (Some(Value::String(whole)), Value::String(piece)) => whole.push_str(&piece),
        (Some(Value::Array(whole)), Value::Array(piece)) => whole.extend(piece),
        (_, piece) => drop(into.insert(name, piece)),
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "stop" => Finish::Stop,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "length" => Finish::Length,
        "content_filter" => Finish::ContentFilter,
        _ => Finish::Other,
    }
}
