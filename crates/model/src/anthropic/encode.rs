//! A request in the words of the Messages API.

use serde_json::{Map, Value, json};

use super::{Anthropic, Thinking};
use crate::request::wire_name;
use crate::{
    AssistantMessage, AssistantPart, Blob, Message, Outcome, PromptCache, Request, RequestProblem, ToolChoice,
    UserPart, WireFormat, json,
};

/// The JSON body of a call.
pub(super) fn body(settings: &Anthropic, request: &Request) -> Result<Value, RequestProblem> {
    // The API refuses a forced tool together with thinking; the force is the caller's decision.
    let forced = matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
    let thinking = if forced { Thinking::Unset } else { settings.thinking };
    let budget = if let Thinking::Budget(tokens) = thinking { tokens } else { 0 };
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    // The API counts thinking into the answer; the house does not.
    body.insert("max_tokens".into(), json!(request.max_output_tokens.saturating_add(budget)));
    body.insert("stream".into(), json!(true));
    if !request.instructions.is_empty() {
        body.insert("system".into(), json!([{ "type": "text", "text": request.instructions }]));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), tools(request));
        if let Some(choice) = tool_choice(&request.tool_choice) {
            body.insert("tool_choice".into(), choice);
        }
    }
    body.insert("messages".into(), Value::Array(messages(request)?));
    let mut output = Map::new();
    match thinking {
        Thinking::Unset => {}
        Thinking::Adaptive(effort) => {
            body.insert("thinking".into(), json!({ "type": "adaptive", "display": "summarized" }));
            output.insert("effort".into(), json!(effort.as_str()));
        }
        Thinking::Budget(tokens) => {
            body.insert("thinking".into(), json!({ "type": "enabled", "budget_tokens": tokens }));
        }
    }
    if let Some(schema) = &request.output_schema {
        output.insert("format".into(), json!({ "type": "json_schema", "schema": schema }));
    }
    if !output.is_empty() {
        body.insert("output_config".into(), Value::Object(output));
    }
    if settings.cache == PromptCache::On {
        mark_cache(&mut body);
    }
    Ok(Value::Object(body))
}

fn tools(request: &Request) -> Value {
    request
        .tools
        .iter()
        .map(|tool| json!({ "name": tool.name, "description": tool.description, "input_schema": tool.input_schema }))
        .collect()
}

fn tool_choice(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::Required => Some(json!({ "type": "any" })),
        ToolChoice::Never => Some(json!({ "type": "none" })),
        ToolChoice::Named(name) => Some(json!({ "type": "tool", "name": name })),
    }
}

fn messages(request: &Request) -> Result<Vec<Value>, RequestProblem> {
    let mut out: Vec<(&'static str, Vec<Value>)> = Vec::new();
    for (index, message) in request.messages.iter().enumerate() {
        let (role, blocks) = match message {
            Message::User(parts) => {
                let blocks: Option<Vec<Value>> = parts.iter().filter(|part| !is_empty(part)).map(user_block).collect();
                ("user", blocks.ok_or(RequestProblem::MediaType { index })?)
            }
            Message::Assistant(answer) => ("assistant", assistant_blocks(answer, &request.model)),
            Message::ToolResults(results) => ("user", results.iter().map(result_block).collect()),
        };
        if blocks.is_empty() {
            continue;
        }
        // The API joins neighbours of one role itself; some compatible servers refuse them.
        match out.last_mut() {
            Some((last, held)) if *last == role => held.extend(blocks),
            _ => out.push((role, blocks)),
        }
    }
    Ok(out.into_iter().map(|(role, content)| json!({ "role": role, "content": content })).collect())
}

fn is_empty(part: &UserPart) -> bool {
    // The API refuses an empty text block.
    matches!(part, UserPart::Text(text) if text.trim().is_empty())
}

fn user_block(part: &UserPart) -> Option<Value> {
    match part {
        UserPart::Text(text) => Some(json!({ "type": "text", "text": text })),
        UserPart::Image { media_type, bytes } => {
            matches!(media_type.as_str(), "image/png" | "image/jpeg" | "image/gif" | "image/webp")
                .then(|| json!({ "type": "image", "source": base64_source(media_type, bytes) }))
        }
        UserPart::Document { media_type, name, bytes } if media_type == "application/pdf" => {
            Some(json!({ "type": "document", "title": name, "source": base64_source(media_type, bytes) }))
        }
        UserPart::Document { media_type, name, bytes } if media_type.starts_with("text/") => {
            let data = std::str::from_utf8(bytes.as_bytes()).ok()?;
            let source = json!({ "type": "text", "media_type": "text/plain", "data": data });
            Some(json!({ "type": "document", "title": name, "source": source }))
        }
        UserPart::Document { .. } => None,
    }
}

fn base64_source(media_type: &str, bytes: &Blob) -> Value {
    json!({ "type": "base64", "media_type": media_type, "data": bytes.to_base64() })
}

fn assistant_blocks(answer: &AssistantMessage, model: &str) -> Vec<Value> {
    let raw = answer.raw.as_ref().and_then(|raw| raw.blocks_for(WireFormat::AnthropicMessages, model));
    if let Some(blocks) = raw {
        return blocks.iter().filter(|block| is_replayable(block)).cloned().collect();
    }
    answer
        .parts
        .iter()
        .filter_map(|part| match part {
            AssistantPart::Text(text) if text.trim().is_empty() => None,
            AssistantPart::Text(text) => Some(json!({ "type": "text", "text": text })),
            // Thinking without its signature is refused.
            AssistantPart::Reasoning(_) => None,
            AssistantPart::ToolCall(call) => Some(json!({
                "type": "tool_use",
                "id": wire_name(&call.id),
                "name": wire_name(&call.name),
                "input": json::input_object(&call.input),
            })),
        })
        .collect()
}

/// Whether the API takes its own block back: not an empty text, and not a thinking block that
/// was cut off before its signature.
fn is_replayable(block: &Value) -> bool {
    let filled = |field: &str| block[field].as_str().is_some_and(|text| !text.trim().is_empty());
    match block["type"].as_str() {
        Some("text") => filled("text"),
        Some("thinking") => filled("signature"),
        _ => true,
    }
}

fn result_block(result: &crate::ToolResult) -> Value {
    let mut block = json!({
        "type": "tool_result",
        "tool_use_id": wire_name(&result.call_id),
        "content": result.content,
    });
    if result.outcome == Outcome::Failed {
        block["is_error"] = json!(true);
    }
    block
}

/// Marks the ends of what stays the same from step to step: tools, instructions, conversation.
/// The last block of a request is never thinking and never empty, which could not be marked.
fn mark_cache(body: &mut Map<String, Value>) {
    let mark = |list: Option<&mut Value>| {
        if let Some(Value::Object(last)) = list.and_then(Value::as_array_mut).and_then(|list| list.last_mut()) {
            last.insert("cache_control".into(), json!({ "type": "ephemeral" }));
        }
    };
    mark(body.get_mut("tools"));
    mark(body.get_mut("system"));
    let last = body.get_mut("messages").and_then(Value::as_array_mut).and_then(|list| list.last_mut());
    mark(last.and_then(|message| message.get_mut("content")));
}
