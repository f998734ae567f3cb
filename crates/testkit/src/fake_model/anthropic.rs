//! Anthropic's Messages API as a fake.

use std::collections::HashSet;
use std::ops::Deref;

use serde_json::{Value, json};

use super::reply::{Answer, Part};
use super::server::{Dialect, Fake, Recorded};
use super::{Refusal, bad_request, ensure, is_name, known_fields, pieces, seal, sse, text};

/// A fake of Anthropic's Messages API.
pub struct FakeAnthropic(Fake);

impl FakeAnthropic {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        Self(Fake::start(Messages).await)
    }
}

impl Deref for FakeAnthropic {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.0
    }
}

struct Messages;

impl Dialect for Messages {
    fn serves(&self, path: &str) -> bool {
        path == "/v1/messages"
    }

    fn check(&self, request: &Recorded, key: Option<&str>) -> Result<(), Refusal> {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given = header("x-api-key");
        if given.is_empty() || key.is_some_and(|key| key != given) {
            return Err(Refusal {
                status: 401,
                kind: "authentication_error",
                message: format!("invalid x-api-key: {given}"),
            });
        }
        ensure(header("anthropic-version") == "2023-06-01", "anthropic-version: header is required")?;
        ensure(header("content-type") == "application/json", "content-type: application/json is required")?;
        check_body(&request.body)
    }

    fn events(&self, _path: &str, request: &Value, answer: &Answer, number: usize) -> Vec<String> {
        events(request, answer, number)
    }

    fn error_event(&self, _path: &str, kind: &str, message: &str) -> String {
        sse(Some("error"), &self.error_body(kind, message))
    }

    fn error_body(&self, kind: &str, message: &str) -> Value {
        json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": "req_body" })
    }

    fn request_id_header(&self) -> &'static str {
        "request-id"
    }
}

fn check_body(body: &Value) -> Result<(), Refusal> {
    known_fields(
        body,
        &[
            "model",
            "max_tokens",
            "stream",
            "system",
            "tools",
            "tool_choice",
            "messages",
            "thinking",
            "output_config",
            "metadata",
            "temperature",
            "top_p",
            "top_k",
            "stop_sequences",
        ],
        "body",
    )?;
    ensure(!text(body, "model", "body")?.is_empty(), "model: at least 1 character")?;
    let max_tokens = body["max_tokens"].as_u64().ok_or_else(|| bad_request("max_tokens: Field required"))?;
    ensure(max_tokens > 0, "max_tokens: must be greater than or equal to 1")?;
    ensure(body["stream"] == true, "stream: this fake only streams")?;
    check_thinking(body, max_tokens)?;
    check_tools(body)?;
    if let Some(format) = body["output_config"].get("format") {
        ensure(format["type"] == "json_schema" && format["schema"].is_object(), "output_config.format: invalid")?;
    }
    ensure(body.to_string().matches("\"cache_control\"").count() <= 4, "at most 4 blocks with cache_control")?;
    check_messages(body)
}

fn check_thinking(body: &Value, max_tokens: u64) -> Result<(), Refusal> {
    let forced = matches!(body["tool_choice"]["type"].as_str(), Some("any" | "tool"));
    match body["thinking"]["type"].as_str() {
        None => ensure(body.get("thinking").is_none(), "thinking.type: Field required"),
        Some("disabled") => Ok(()),
        Some("adaptive") => ensure(!forced, "Thinking may not be enabled when tool_choice forces tool use."),
        Some("enabled") => {
            let budget = body["thinking"]["budget_tokens"].as_u64().unwrap_or(0);
            ensure(budget >= 1_024, "thinking.budget_tokens: at least 1024")?;
            ensure(budget < max_tokens, "max_tokens must be greater than thinking.budget_tokens")?;
            ensure(!forced, "Thinking may not be enabled when tool_choice forces tool use.")
        }
        Some(other) => Err(bad_request(format!("thinking.type: {other} is not known"))),
    }
}

fn check_tools(body: &Value) -> Result<(), Refusal> {
    let Some(tools) = body.get("tools") else {
        return ensure(body.get("tool_choice").is_none(), "tool_choice: needs tools");
    };
    let mut names = HashSet::new();
    for tool in tools.as_array().ok_or_else(|| bad_request("tools: a list is required"))? {
        known_fields(tool, &["name", "description", "input_schema", "cache_control"], "tools")?;
        let name = text(tool, "name", "tools")?;
        ensure(is_name(name) && names.insert(name), "tools: names must be unique and match ^[a-zA-Z0-9_-]{1,64}$")?;
        ensure(tool["input_schema"]["type"] == "object", "tools.input_schema.type: must be object")?;
    }
    match body["tool_choice"]["type"].as_str() {
        None | Some("auto" | "any" | "none") => Ok(()),
        Some("tool") => ensure(
            body["tool_choice"]["name"].as_str().is_some_and(|name| names.contains(name)),
            "tool_choice.name: not in tools",
        ),
        Some(other) => Err(bad_request(format!("tool_choice.type: {other} is not known"))),
    }
}

fn check_messages(body: &Value) -> Result<(), Refusal> {
    let messages = body["messages"].as_array().ok_or_else(|| bad_request("messages: Field required"))?;
    ensure(!messages.is_empty(), "messages: at least one message is required")?;
    ensure(messages[0]["role"] == "user", "messages: first message must use the \"user\" role")?;
    let mut open: HashSet<String> = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        let place = format!("messages.{index}");
        known_fields(message, &["role", "content"], &place)?;
        let role = text(message, "role", &place)?;
        ensure(matches!(role, "user" | "assistant"), format!("{place}: Unexpected role \"{role}\""))?;
        let blocks = match &message["content"] {
            Value::String(text) => vec![json!({ "type": "text", "text": text })],
            Value::Array(blocks) => blocks.clone(),
            _ => return Err(bad_request(format!("{place}.content: Field required"))),
        };
        ensure(!blocks.is_empty(), format!("{place}: must have non-empty content"))?;
        let results: HashSet<String> = blocks
            .iter()
            .filter(|block| block["type"] == "tool_result")
            .map(|block| block["tool_use_id"].as_str().unwrap_or_default().to_owned())
            .collect();
        ensure(results.is_subset(&open), format!("{place}: unexpected `tool_use_id` found in `tool_result` blocks"))?;
        ensure(
            open.is_subset(&results),
            format!("{place}: `tool_use` ids were found without `tool_result` blocks immediately after"),
        )?;
        open = check_blocks(role, &blocks, &place)?;
    }
    ensure(open.is_empty(), "messages: `tool_use` ids were found without `tool_result` blocks")
}

/// Checks the blocks of a message and returns the ids of its tool calls.
fn check_blocks(role: &str, blocks: &[Value], place: &str) -> Result<HashSet<String>, Refusal> {
    let mut calls = HashSet::new();
    let mut beyond_results = false;
    for block in blocks {
        let kind = text(block, "type", place)?;
        match (role, kind) {
            (_, "text") => {
                ensure(!text(block, "text", place)?.trim().is_empty(), format!("{place}: text must be non-empty"))?;
            }
            ("user", "image") => {
                let media = block["source"]["media_type"].as_str().unwrap_or_default();
                let known = matches!(media, "image/png" | "image/jpeg" | "image/gif" | "image/webp");
                ensure(known && block["source"]["type"] == "base64", format!("{place}: image source"))?;
            }
            ("user", "document") => {
                let source = (block["source"]["type"].as_str(), block["source"]["media_type"].as_str());
                let known =
                    matches!(source, (Some("base64"), Some("application/pdf")) | (Some("text"), Some("text/plain")));
                ensure(known, format!("{place}: document source"))?;
            }
            ("user", "tool_result") => {
                ensure(!beyond_results, format!("{place}: tool_result blocks must come first"))?;
                ensure(block["content"].is_string(), format!("{place}: tool_result content"))?;
            }
            ("assistant", "tool_use") => {
                let (id, name) = (text(block, "id", place)?, text(block, "name", place)?);
                ensure(is_name(id) && is_name(name), format!("{place}: tool_use id or name: pattern"))?;
                ensure(block["input"].is_object(), format!("{place}: tool_use.input: should be a valid dictionary"))?;
                ensure(calls.insert(id.to_owned()), format!("{place}: `tool_use` ids must be unique"))?;
            }
            ("assistant", "thinking") => {
                let sealed = seal(text(block, "thinking", place)?);
                ensure(
                    block["signature"] == sealed.as_str(),
                    format!("{place}: Invalid `signature` in `thinking` block"),
                )?;
                ensure(block.get("cache_control").is_none(), format!("{place}: thinking cannot be cached"))?;
            }
            ("assistant", "redacted_thinking") => ensure(block["data"].is_string(), format!("{place}: data"))?,
            _ => {
                return Err(bad_request(format!("{place}: block of type {kind} is not allowed for role {role}")));
            }
        }
        beyond_results |= kind != "tool_result";
    }
    Ok(calls)
}

fn events(request: &Value, answer: &Answer, number: usize) -> Vec<String> {
    let usage = answer.usage;
    let mut out = Vec::new();
    let mut send = |value: Value| out.push(sse(value["type"].as_str(), &value));
    send(json!({ "type": "message_start", "message": {
        "id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": request["model"],
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": usage.input, "output_tokens": 1,
            "cache_read_input_tokens": usage.cache_read, "cache_creation_input_tokens": usage.cache_write,
        },
    }}));
    send(json!({ "type": "ping" }));
    let mut stop_reason = "end_turn";
    let mut index = 0;
    for part in &answer.parts {
        let (start, deltas) = match part {
            Part::Thinking(thinking) => {
                let mut deltas: Vec<Value> = pieces(thinking)
                    .iter()
                    .map(|piece| json!({ "type": "thinking_delta", "thinking": piece }))
                    .collect();
                deltas.push(json!({ "type": "signature_delta", "signature": seal(thinking) }));
                (json!({ "type": "thinking", "thinking": "", "signature": "" }), deltas)
            }
            Part::Redacted(data) => (json!({ "type": "redacted_thinking", "data": data }), Vec::new()),
            Part::Text(text) => {
                let deltas = pieces(text).iter().map(|piece| json!({ "type": "text_delta", "text": piece })).collect();
                (json!({ "type": "text", "text": "" }), deltas)
            }
            Part::Refusal(_) => {
                stop_reason = "refusal";
                continue;
            }
            Part::Tool { id, name, arguments } => {
                stop_reason = "tool_use";
                let id = id.clone().unwrap_or_else(|| format!("toolu_{number}_{index}"));
                let mut deltas = vec![json!({ "type": "input_json_delta", "partial_json": "" })];
                deltas.extend(
                    pieces(arguments).iter().map(|piece| json!({ "type": "input_json_delta", "partial_json": piece })),
                );
                (json!({ "type": "tool_use", "id": id, "name": name, "input": {} }), deltas)
            }
        };
        send(json!({ "type": "content_block_start", "index": index, "content_block": start }));
        for delta in deltas {
            send(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        send(json!({ "type": "content_block_stop", "index": index }));
        index += 1;
    }
    let stop_reason = answer.finish.as_deref().unwrap_or(stop_reason);
    send(json!({
        "type": "message_delta",
        "delta": { "stop_reason": stop_reason, "stop_sequence": null },
        "usage": { "output_tokens": usage.output },
    }));
    send(json!({ "type": "message_stop" }));
    out
}
