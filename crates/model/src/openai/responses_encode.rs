//! A request in the words of the Responses API. Nothing is stored at the provider; what it
//! needs to remember travels with each request.

use serde_json::{Map, Value, json};

use super::{OpenAi, chat_encode::text_document, data_url, result_text, schema};
use crate::request::wire_name;
use crate::{
    AssistantMessage, AssistantPart, EncryptedReasoning, Message, Request, RequestProblem, ToolChoice, UserPart,
    WireFormat, json,
};

/// The JSON body of a call.
pub(super) fn body(settings: &OpenAi, request: &Request) -> Result<Value, RequestProblem> {
    let mut body = Map::new();
    body.insert("model".into(), json!(request.model));
    if !request.instructions.is_empty() {
        body.insert("instructions".into(), json!(request.instructions));
    }
    body.insert("input".into(), Value::Array(input(request)?));
    body.insert("stream".into(), json!(true));
    body.insert("store".into(), json!(false));
    // The API refuses less than this.
    body.insert("max_output_tokens".into(), json!(request.max_output_tokens.max(16)));
    if settings.encrypted_reasoning == EncryptedReasoning::Include {
        body.insert("include".into(), json!(["reasoning.encrypted_content"]));
    }
    if let Some(effort) = settings.effort {
        body.insert("reasoning".into(), json!({ "effort": effort.as_str(), "summary": "auto" }));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), tools(request));
        match &request.tool_choice {
            ToolChoice::Auto => {}
            ToolChoice::Required => drop(body.insert("tool_choice".into(), json!("required"))),
            ToolChoice::Never => drop(body.insert("tool_choice".into(), json!("none"))),
            ToolChoice::Named(name) => {
                body.insert("tool_choice".into(), json!({ "type": "function", "name": name }));
            }
        }
    }
    if let Some(schema) = &request.output_schema {
        let strict = schema::is_strict(schema);
        let format = json!({ "type": "json_schema", "name": "answer", "schema": schema, "strict": strict });
        body.insert("text".into(), json!({ "format": format }));
    }
    Ok(Value::Object(body))
}

fn tools(request: &Request) -> Value {
    request
        .tools
        .iter()
        .map(|tool| {
            json!({
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
                // The API's default would rewrite the schema.
                "strict": false,
            })
        })
        .collect()
}

fn input(request: &Request) -> Result<Vec<Value>, RequestProblem> {
    let mut out = Vec::new();
    for (index, message) in request.messages.iter().enumerate() {
        match message {
            Message::User(parts) => {
                let content = user_content(parts).ok_or(RequestProblem::MediaType { index })?;
                out.push(json!({ "type": "message", "role": "user", "content": content }));
            }
            Message::Assistant(answer) => {
                let raw = answer.raw.as_ref();
                match raw.and_then(|raw| raw.blocks_for(WireFormat::OpenaiResponses, &request.model)) {
                    Some(items) => out.extend(replayable(items)),
                    None => rebuilt(answer, &mut out),
                }
            }
            Message::ToolResults(results) => out.extend(results.iter().map(|result| {
                json!({ "type": "function_call_output", "call_id": result.call_id, "output": result_text(result) })
            })),
        }
    }
    Ok(out)
}

fn user_content(parts: &[UserPart]) -> Option<Value> {
    parts
        .iter()
        .map(|part| match part {
            UserPart::Text(text) => Some(json!({ "type": "input_text", "text": text })),
            UserPart::Image { media_type, bytes } => media_type
                .starts_with("image/")
                .then(|| json!({ "type": "input_image", "image_url": data_url(media_type, bytes) })),
            UserPart::Document { media_type, name, bytes } if media_type == "application/pdf" => {
                let data = data_url(media_type, bytes);
                Some(json!({ "type": "input_file", "filename": name, "file_data": data }))
            }
            UserPart::Document { media_type, name, bytes } => {
                let text = text_document(media_type, name, bytes)?;
                Some(json!({ "type": "input_text", "text": text }))
            }
        })
        .collect()
}

/// The API's own items, as they came. Reasoning that is not encrypted refers to a stored item,
/// and nothing is stored; the API would not find it. The item after it must then lose its id
/// too, or the API asks where its reasoning is.
fn replayable(items: &[Value]) -> Vec<Value> {
    let lost = |item: &Value| item["type"] == "reasoning" && !item["encrypted_content"].is_string();
    let any_lost = items.iter().any(lost);
    let mut kept: Vec<Value> = items.iter().filter(|item| !lost(item)).cloned().collect();
    if any_lost {
        for item in kept.iter_mut().filter_map(Value::as_object_mut) {
            item.remove("id");
        }
    }
    kept
}

fn rebuilt(answer: &AssistantMessage, out: &mut Vec<Value>) {
    out.extend(answer.parts.iter().filter_map(|part| match part {
        AssistantPart::Text(text) => {
            let content = json!([{ "type": "output_text", "text": text }]);
            Some(json!({ "type": "message", "role": "assistant", "content": content }))
        }
        AssistantPart::Reasoning(_) => None,
        AssistantPart::ToolCall(call) => Some(json!({
            "type": "function_call",
            "call_id": call.id,
            "name": wire_name(&call.name),
            "arguments": json::input_object(&call.input).to_string(),
        })),
    }));
}
