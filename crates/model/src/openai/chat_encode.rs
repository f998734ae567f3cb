//! A request in the words of Chat Completions.

use serde_json::{Map, Value, json};

use super::{OpenAi, data_url, result_text, schema};
use crate::request::wire_name;
use crate::{
    AssistantMessage, AssistantPart, Message, Request, RequestProblem, ToolChoice, UserPart, WireFormat, json,
};

/// The JSON body of a call.
pub(super) fn body(settings: &OpenAi, request: &Request) -> Result<Value, RequestProblem> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    body.insert("messages".into(), Value::Array(messages(request)?));
    body.insert("stream".into(), json!(true));
    body.insert("stream_options".into(), json!({ "include_usage": true }));
    // OpenAI's reasoning models refuse the old name; most compatible servers know only that one.
    let limit = if settings.base.is_below("openai.com") || settings.base.is_below("azure.com") {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    body.insert(limit.into(), json!(request.max_output_tokens));
    if settings.base.is_below("openai.com") {
        body.insert("store".into(), json!(false));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), tools(request));
        match &request.tool_choice {
            ToolChoice::Auto => {}
            ToolChoice::Required => drop(body.insert("tool_choice".into(), json!("required"))),
            ToolChoice::Never => drop(body.insert("tool_choice".into(), json!("none"))),
            ToolChoice::Named(name) => {
                let choice = json!({ "type": "function", "function": { "name": name } });
                body.insert("tool_choice".into(), choice);
            }
        }
    }
    if let Some(effort) = settings.effort {
        body.insert("reasoning_effort".into(), json!(effort.as_str()));
    }
    if let Some(schema) = &request.output_schema {
        let named = json!({ "name": "answer", "schema": schema, "strict": schema::is_strict(schema) });
        body.insert("response_format".into(), json!({ "type": "json_schema", "json_schema": named }));
    }
    Ok(Value::Object(body))
}

fn tools(request: &Request) -> Value {
    let function = |tool: &crate::Tool| json!({ "name": tool.name, "description": tool.description, "parameters": tool.input_schema });
    request.tools.iter().map(|tool| json!({ "type": "function", "function": function(tool) })).collect()
}

fn messages(request: &Request) -> Result<Vec<Value>, RequestProblem> {
    let mut out = Vec::new();
    if !request.instructions.is_empty() {
        out.push(json!({ "role": "system", "content": request.instructions }));
    }
    // The server's own form of a message carries reasoning. Some servers need it within a tool
    // loop, and some refuse it outside of one.
    let loop_start = request.messages.iter().rposition(|message| matches!(message, Message::User(_))).unwrap_or(0);
    for (index, message) in request.messages.iter().enumerate() {
        match message {
            Message::User(parts) => {
                let content = user_content(parts).ok_or(RequestProblem::MediaType { index })?;
                out.push(json!({ "role": "user", "content": content }));
            }
            Message::Assistant(answer) => {
                let raw = answer.raw.as_ref().filter(|_| index > loop_start);
                let raw = raw.and_then(|raw| raw.blocks_for(WireFormat::OpenaiChat, &request.model));
                match raw {
                    Some(blocks) => out.extend_from_slice(blocks),
                    None => out.extend(assistant(answer)),
                }
            }
            Message::ToolResults(results) => out.extend(results.iter().map(
                |result| json!({ "role": "tool", "tool_call_id": result.call_id, "content": result_text(result) }),
            )),
        }
    }
    Ok(out)
}

fn user_content(parts: &[UserPart]) -> Option<Value> {
    if let [UserPart::Text(text)] = parts {
        return Some(json!(text));
    }
    parts
        .iter()
        .map(|part| match part {
            UserPart::Text(text) => Some(json!({ "type": "text", "text": text })),
            UserPart::Image { media_type, bytes } => media_type
                .starts_with("image/")
                .then(|| json!({ "type": "image_url", "image_url": { "url": data_url(media_type, bytes) } })),
            UserPart::Document { media_type, name, bytes } if media_type == "application/pdf" => {
                let file = json!({ "filename": name, "file_data": data_url(media_type, bytes) });
                Some(json!({ "type": "file", "file": file }))
            }
            UserPart::Document { media_type, name, bytes } => {
                let text = text_document(media_type, name, bytes)?;
                Some(json!({ "type": "text", "text": text }))
            }
        })
        .collect()
}

/// A text document as text: the API takes only PDF as a file.
pub(super) fn text_document(media_type: &str, name: &str, bytes: &crate::Blob) -> Option<String> {
    let text = std::str::from_utf8(bytes.as_bytes()).ok()?;
    media_type.starts_with("text/").then(|| format!("Document {name}:\n{text}"))
}

/// An answer rebuilt from its parts, without the reasoning, which has no place in the API.
fn assistant(answer: &AssistantMessage) -> Option<Value> {
    let text = answer.text();
    let calls: Vec<Value> = answer
        .parts
        .iter()
        .filter_map(|part| match part {
            AssistantPart::ToolCall(call) => Some(json!({
                "id": call.id,
                "type": "function",
                "function": {
                    "name": wire_name(&call.name),
                    "arguments": json::input_object(&call.input).to_string(),
                },
            })),
            AssistantPart::Text(_) | AssistantPart::Reasoning(_) => None,
        })
        .collect();
    match (text.is_empty(), calls.is_empty()) {
        (true, true) => None,
        (false, true) => Some(json!({ "role": "assistant", "content": text })),
        (true, false) => Some(json!({ "role": "assistant", "content": null, "tool_calls": calls })),
        (false, false) => Some(json!({ "role": "assistant", "content": text, "tool_calls": calls })),
    }
}
