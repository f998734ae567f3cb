//! OpenAI's Responses API as a fake. It stores nothing, so a reasoning item comes back
//! encrypted or is not found.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::reply::{Answer, Part};
use super::{Refusal, bad_request, ensure, is_name, known_fields, pieces, seal, sse, text};

pub(super) fn check(body: &Value) -> Result<(), Refusal> {
    known_fields(
        body,
        &[
            "model",
            "instructions",
            "input",
            "stream",
            "store",
            "max_output_tokens",
            "include",
            "reasoning",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "text",
        ],
        "body",
    )?;
    ensure(body["store"] == false, "store: this fake stores nothing")?;
    if let Some(limit) = body.get("max_output_tokens") {
        ensure(limit.as_u64().is_some_and(|limit| limit >= 16), "max_output_tokens: integer below minimum value 16")?;
    }
    for tool in body["tools"].as_array().map(Vec::as_slice).unwrap_or_default() {
        known_fields(tool, &["type", "name", "description", "parameters", "strict"], "tools")?;
        ensure(tool["type"] == "function" && is_name(text(tool, "name", "tools")?), "tools.name: pattern")?;
    }
    if let Some(format) = body["text"].get("format") {
        let named = format["name"].is_string() && format["schema"].is_object();
        ensure(format["type"] == "json_schema" && named, "text.format: invalid")?;
    }
    check_input(body)
}

fn check_input(body: &Value) -> Result<(), Refusal> {
    let input = body["input"].as_array().ok_or_else(|| bad_request("input: a list is required"))?;
    ensure(!input.is_empty(), "input: [] is too short")?;
    let mut open: HashSet<&str> = HashSet::new();
    for (index, item) in input.iter().enumerate() {
        let place = format!("input[{index}]");
        match text(item, "type", &place)? {
            "message" => check_message(item, &place)?,
            "function_call" => {
                ensure(is_name(text(item, "name", &place)?), format!("{place}.name: pattern"))?;
                let arguments = text(item, "arguments", &place)?;
                ensure(serde_json::from_str::<Value>(arguments).is_ok(), format!("{place}.arguments"))?;
                ensure(open.insert(text(item, "call_id", &place)?), format!("{place}: duplicate call_id"))?;
            }
            "function_call_output" => {
                known_fields(item, &["type", "call_id", "output"], &place)?;
                let known = open.remove(text(item, "call_id", &place)?);
                ensure(known, "No tool call found for function call output with this call_id.")?;
            }
            "reasoning" => {
                let id = text(item, "id", &place)?;
                let encrypted = item["encrypted_content"].as_str();
                ensure(
                    encrypted == Some(seal(id).as_str()),
                    format!("Item with id '{id}' not found. Items are not persisted when `store` is set to false."),
                )?;
                let next = input.get(index + 1).and_then(|next| next["type"].as_str());
                ensure(
                    matches!(next, Some("message" | "function_call" | "reasoning")),
                    format!("Item '{id}' of type 'reasoning' was provided without its required following item."),
                )?;
            }
            other => return Err(bad_request(format!("{place}.type: {other} is not known"))),
        }
    }
    ensure(open.is_empty(), "No tool output found for function call.")
}

fn check_message(item: &Value, place: &str) -> Result<(), Refusal> {
    let role = text(item, "role", place)?;
    for part in item["content"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let fits = match (role, part["type"].as_str()) {
            ("user", Some("input_text")) | ("assistant", Some("output_text")) => part["text"].is_string(),
            ("user", Some("input_image")) => {
                part["image_url"].as_str().is_some_and(|url| url.starts_with("data:image/"))
            }
            ("user", Some("input_file")) => part["file_data"].is_string() && part["filename"].is_string(),
            ("assistant", Some("refusal")) => part["refusal"].is_string(),
            _ => false,
        };
        ensure(fits, format!("{place}.content: invalid part for role {role}"))?;
    }
    Ok(())
}

pub(super) fn events(request: &Value, answer: &Answer, number: usize) -> Vec<String> {
    let mut out = Vec::new();
    let mut sequence = 0;
    let mut send = |mut value: Value| {
        value["sequence_number"] = json!(sequence);
        sequence += 1;
        out.push(sse(value["type"].as_str(), &value));
    };
    let frame = |status: &str| {
        json!({
            "id": format!("resp_{number}"), "object": "response", "status": status, "model": request["model"],
            "output": [], "usage": null, "error": null, "incomplete_details": null, "store": false,
        })
    };
    send(json!({ "type": "response.created", "response": frame("in_progress") }));
    send(json!({ "type": "response.in_progress", "response": frame("in_progress") }));
    let encrypted =
        request["include"].as_array().is_some_and(|list| list.contains(&json!("reasoning.encrypted_content")));
    let mut items = Vec::new();
    for part in &answer.parts {
        let index = items.len();
        let item_id = format!("item_{number}_{index}");
        let (begun, done, deltas) = item(part, &item_id, number, encrypted);
        send(json!({ "type": "response.output_item.added", "output_index": index, "item": begun }));
        for (kind, piece) in deltas {
            let kind = format!("response.{kind}.delta");
            let mut delta = json!({ "type": kind, "item_id": item_id, "output_index": index, "delta": piece });
            delta["content_index"] = json!(0);
            send(delta);
        }
        send(json!({ "type": "response.output_item.done", "output_index": index, "item": done }));
        items.push(done);
    }
    let usage = answer.usage;
    let input = usage.input + usage.cache_read;
    let mut response = frame(if answer.finish.is_some() { "incomplete" } else { "completed" });
    response["output"] = Value::Array(items);
    response["usage"] = json!({
        "input_tokens": input, "output_tokens": usage.output, "total_tokens": input + usage.output,
        "input_tokens_details": { "cached_tokens": usage.cache_read },
        "output_tokens_details": { "reasoning_tokens": 0 },
    });
    if let Some(reason) = &answer.finish {
        response["incomplete_details"] = json!({ "reason": reason });
    }
    let kind = if answer.finish.is_some() { "response.incomplete" } else { "response.completed" };
    send(json!({ "type": kind, "response": response }));
    out
}

/// An item as it begins, as it ends, and its deltas in between.
fn item(part: &Part, id: &str, number: usize, encrypted: bool) -> (Value, Value, Vec<(&'static str, String)>) {
    let deltas = |kind: &'static str, text: &str| pieces(text).into_iter().map(|piece| (kind, piece)).collect();
    let message = |content: Value| json!({ "type": "message", "id": id, "status": "completed", "role": "assistant", "content": content });
    match part {
        Part::Thinking(text) => {
            let begun = json!({ "type": "reasoning", "id": id, "summary": [] });
            let mut done =
                json!({ "type": "reasoning", "id": id, "summary": [{ "type": "summary_text", "text": text }] });
            if encrypted {
                done["encrypted_content"] = json!(seal(id));
            }
            (begun, done, deltas("reasoning_summary_text", text))
        }
        Part::Redacted(_) => {
            let mut done = json!({ "type": "reasoning", "id": id, "summary": [] });
            if encrypted {
                done["encrypted_content"] = json!(seal(id));
            }
            (done.clone(), done, Vec::new())
        }
        Part::Text(text) => {
            let content = json!([{ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }]);
            (message(json!([])), message(content), deltas("output_text", text))
        }
        Part::Refusal(text) => {
            let content = json!([{ "type": "refusal", "refusal": text }]);
            (message(json!([])), message(content), deltas("refusal", text))
        }
        Part::Tool { id: call_id, name, arguments } => {
            let call_id = call_id.clone().unwrap_or_else(|| format!("call_{number}_{id}"));
            let call = |arguments: &str| {
                json!({
                    "type": "function_call", "id": id, "call_id": call_id, "name": name,
                    "arguments": arguments, "status": "completed",
                })
            };
            (call(""), call(arguments), deltas("function_call_arguments", arguments))
        }
    }
}
