//! The Responses API's events. The finished items are the answer; the deltas are for display.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::{Value, json};

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
    /// Calls that have begun, by output index: id and name.
    begun: BTreeMap<u64, (String, String)>,
    /// Finished items, by output index.
    items: BTreeMap<u64, Value>,
    kept: Kept,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Wire {
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: u64, item: Begun },
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: u64, item: Value },
    #[serde(rename = "response.output_text.delta", alias = "response.refusal.delta")]
    Text { delta: String },
    #[serde(rename = "response.reasoning_summary_text.delta", alias = "response.reasoning_text.delta")]
    Reasoning { delta: String },
    /// Parts of a summary are paragraphs.
    #[serde(rename = "response.reasoning_summary_part.added")]
    ReasoningPart {
        #[serde(default)]
        summary_index: u64,
    },
    #[serde(rename = "response.function_call_arguments.delta")]
    Arguments { output_index: u64, delta: String },
    #[serde(rename = "response.completed", alias = "response.incomplete")]
    Ended { response: Ended },
    #[serde(rename = "response.failed")]
    Failed { response: Failed },
    #[serde(rename = "error")]
    Error {
        #[serde(default)]
        error: Option<Reported>,
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        message: Option<String>,
    },
    #[serde(other)]
    Ignored,
}

#[derive(Deserialize)]
struct Begun {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    call_id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Ended {
    #[serde(default)]
    output: Vec<Value>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    incomplete_details: Option<Incomplete>,
}

#[derive(Deserialize)]
struct Incomplete {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Failed {
    #[serde(default)]
    error: Option<Reported>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireUsage {
    input_tokens: u64,
    output_tokens: u64,
    input_tokens_details: Option<InputDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Option<u64>,
}

impl Decoder {
    pub(super) fn new(model: &str) -> Self {
        Self { model: model.to_owned(), begun: BTreeMap::new(), items: BTreeMap::new(), kept: Kept::default() }
    }

    fn ended(&mut self, response: Ended, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        let mut items: Vec<Value> = std::mem::take(&mut self.items).into_values().collect();
        if items.is_empty() {
            items = response.output;
        }
        let mut parts = Vec::new();
        let mut refused = false;
        for item in &mut items {
            match item["type"].as_str() {
                Some("message") => refused |= texts(item, &mut parts),
                Some("reasoning") => parts.extend(reasoning(item)),
                Some("function_call") => {
                    let call = self.call(item)?;
                    if parts.iter().any(|part| matches!(part, AssistantPart::ToolCall(other) if other.id == call.id)) {
                        return Err(DecodeError::Protocol("two tool calls of one id"));
                    }
                    parts.push(AssistantPart::ToolCall(call));
                }
                _ => {}
            }
        }
        let has_calls = parts.iter().any(|part| matches!(part, AssistantPart::ToolCall(_)));
        let reason = response.incomplete_details.and_then(|details| details.reason);
        let finish = match (response.status.as_deref(), reason.as_deref()) {
            (_, Some("max_output_tokens")) => Finish::Length,
            (_, Some("content_filter")) => Finish::ContentFilter,
            (Some("incomplete"), _) => Finish::Other,
            _ if has_calls => Finish::ToolCalls,
            _ if refused => Finish::ContentFilter,
            _ => Finish::Stop,
        };
        let raw = Raw { format: WireFormat::OpenaiResponses, model: self.model.clone(), blocks: items };
        let usage = response.usage.unwrap_or_default().in_our_words();
        let message = AssistantMessage { parts, raw: Some(raw) };
        out.push_back(Event::Finished(Completion { message, finish, usage, request_id: None }));
        Ok(())
    }

    /// A call, whose raw form is mended where the API would not take it back.
    fn call(&mut self, item: &mut Value) -> Result<ToolCall, DecodeError> {
        let field = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let (id, name, arguments) = (field("call_id"), field("name"), field("arguments"));
        if id.is_empty() {
            return Err(DecodeError::Protocol("a tool call without an id"));
        }
        self.kept.add(json::weight(&arguments))?;
        let input = json::tool_input(&arguments);
        item["name"] = json!(wire_name(&name));
        if !matches!(input, ToolInput::Json(Value::Object(_))) || arguments.trim().is_empty() {
            item["arguments"] = json!(json::input_object(&input).to_string());
        }
        Ok(ToolCall { id, name, input })
    }
}

impl Decode for Decoder {
    fn read(&mut self, event: &SseEvent, out: &mut VecDeque<Event>) -> Result<(), DecodeError> {
        if event.data.is_empty() || event.data == "[DONE]" {
            return Ok(());
        }
        match json::parse(&event.data, MAX_EVENT_VALUES)? {
            Wire::ItemAdded { output_index, item } => {
                if item.kind == "function_call" {
                    self.kept.add(4)?;
                    self.begun.insert(output_index, (item.call_id.clone(), item.name.clone()));
                    out.push_back(Event::ToolInputDelta { id: item.call_id, name: item.name, delta: String::new() });
                }
            }
            Wire::ItemDone { output_index, item } => {
                self.kept.add(json::count(&item))?;
                if self.items.insert(output_index, item).is_some() {
                    return Err(DecodeError::Protocol("two items of one index"));
                }
            }
            Wire::Text { delta } => out.push_back(Event::TextDelta(delta)),
            Wire::Reasoning { delta } => out.push_back(Event::ReasoningDelta(delta)),
            Wire::ReasoningPart { summary_index: 0 } => {}
            Wire::ReasoningPart { .. } => out.push_back(Event::ReasoningDelta("\n\n".to_owned())),
            Wire::Arguments { output_index, delta } => {
                let Some((id, name)) = self.begun.get(&output_index) else {
                    return Err(DecodeError::Protocol("arguments of a tool call that has not started"));
                };
                out.push_back(Event::ToolInputDelta { id: id.clone(), name: name.clone(), delta });
            }
            Wire::Ended { response } => self.ended(response, out)?,
            Wire::Failed { response } => return Err(reported(response.error.unwrap_or_default())),
            Wire::Error { error: Some(error), .. } => return Err(reported(error)),
            Wire::Error { error: None, code, message } => {
                let (kind, message) = (code.unwrap_or_default(), message.unwrap_or_default());
                return Err(DecodeError::Reported { kind, message });
            }
            Wire::Ignored => {}
        }
        Ok(())
    }
}

impl WireUsage {
    fn in_our_words(&self) -> Usage {
        let cached = self.input_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        Usage {
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cache_read_tokens: cached.unwrap_or_default(),
            cache_write_tokens: 0,
        }
    }
}

fn reported(error: Reported) -> DecodeError {
    DecodeError::Reported { kind: error.name(), message: error.message }
}

/// Adds a message's texts; says whether one of them is a refusal.
fn texts(item: &Value, parts: &mut Vec<AssistantPart>) -> bool {
    let mut refused = false;
    for content in item["content"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = match content["type"].as_str() {
            Some("output_text") => content["text"].as_str(),
            Some("refusal") => {
                refused = true;
                content["refusal"].as_str()
            }
            _ => None,
        };
        parts.extend(text.filter(|text| !text.is_empty()).map(|text| AssistantPart::Text(text.to_owned())));
    }
    refused
}

/// The readable part of a reasoning item, if it has one.
fn reasoning(item: &Value) -> Option<AssistantPart> {
    let texts = |field: &str| -> Vec<&str> {
        let list = item[field].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|part| part["text"].as_str()).collect()
    };
    let all = [texts("summary"), texts("content")].concat().join("\n\n");
    (!all.is_empty()).then_some(AssistantPart::Reasoning(all))
}
