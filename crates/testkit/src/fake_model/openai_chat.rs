//! OpenAI's Chat Completions API as a fake, and the door to the Responses API beside it.

use std::collections::HashSet;
use std::ops::Deref;

use serde_json::{Value, json};

use super::reply::{Answer, Part};
use super::server::{Dialect, Fake, Recorded};
use super::{Refusal, bad_request, ensure, is_name, known_fields, openai_error, openai_responses, pieces, sse, text};

/// A fake of OpenAI's two APIs.
pub struct FakeOpenAi(Fake);

impl FakeOpenAi {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        Self(Fake::start(OpenAi).await)
    }
}

impl Deref for FakeOpenAi {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.0
    }
}

struct OpenAi;

const RESPONSES: &str = "/v1/responses";

impl Dialect for OpenAi {
    fn serves(&self, path: &str) -> bool {
        path == "/v1/chat/completions" || path == RESPONSES
    }

    fn check(&self, request: &Recorded, key: Option<&str>) -> Result<(), Refusal> {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given = header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if given.is_empty() || key.is_some_and(|key| key != given) {
            return Err(Refusal {
                status: 401,
                kind: "invalid_request_error",
                message: format!("Incorrect API key provided: {given}. You can find your API key in the dashboard."),
            });
        }
        ensure(header("content-type") == "application/json", "Content-Type: application/json is required")?;
        ensure(request.body["stream"] == true, "stream: this fake only streams")?;
        ensure(!text(&request.body, "model", "body")?.is_empty(), "you must provide a model parameter")?;
        if request.path == RESPONSES { openai_responses::check(&request.body) } else { check(&request.body) }
    }

    fn events(&self, path: &str, request: &Value, answer: &Answer, number: usize) -> Vec<String> {
        if path == RESPONSES {
            openai_responses::events(request, answer, number)
        } else {
            events(request, answer, number)
        }
    }

    fn error_event(&self, path: &str, kind: &str, message: &str) -> String {
        if path == RESPONSES {
            let error = json!({ "code": kind, "message": message });
            let response = json!({ "id": "resp_failed", "status": "failed", "error": error, "output": [] });
            sse(Some("response.failed"), &json!({ "type": "response.failed", "response": response }))
        } else {
            sse(None, &openai_error(kind, message))
        }
    }

    fn error_body(&self, kind: &str, message: &str) -> Value {
        openai_error(kind, message)
    }

    fn request_id_header(&self) -> &'static str {
        "x-request-id"
    }
}

fn check(body: &Value) -> Result<(), Refusal> {
    known_fields(
        body,
        &[
            "model",
            "messages",
            "stream",
            "stream_options",
            "max_tokens",
            "max_completion_tokens",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "response_format",
            "reasoning_effort",
            "store",
        ],
        "body",
    )?;
    let limits = ["max_tokens", "max_completion_tokens"].map(|name| body.get(name).is_some());
    ensure(limits != [true, true], "max_tokens and max_completion_tokens are mutually exclusive")?;
    ensure(body["stream_options"]["include_usage"] == true, "stream_options.include_usage: this fake wants it")?;
    check_tools(body)?;
    if let Some(format) = body.get("response_format") {
        let named = format["json_schema"]["name"].is_string() && format["json_schema"]["schema"].is_object();
        ensure(format["type"] == "json_schema" && named, "response_format: invalid")?;
    }
    check_messages(body)
}

fn check_tools(body: &Value) -> Result<(), Refusal> {
    let Some(tools) = body.get("tools") else {
        return ensure(body.get("tool_choice").is_none(), "tool_choice is only allowed when tools are specified");
    };
    let tools = tools.as_array().ok_or_else(|| bad_request("tools: a list is required"))?;
    ensure(!tools.is_empty(), "tools: [] is too short")?;
    for tool in tools {
        known_fields(tool, &["type", "function"], "tools")?;
        ensure(tool["type"] == "function", "tools.type")?;
        known_fields(&tool["function"], &["name", "description", "parameters", "strict"], "tools.function")?;
        ensure(is_name(text(&tool["function"], "name", "tools.function")?), "tools.function.name: pattern")?;
    }
    match &body["tool_choice"] {
        Value::Null => Ok(()),
        Value::String(word) => ensure(matches!(word.as_str(), "auto" | "none" | "required"), "tool_choice"),
        object => ensure(object["function"]["name"].is_string(), "tool_choice.function.name"),
    }
}

fn check_messages(body: &Value) -> Result<(), Refusal> {
    let messages = body["messages"].as_array().ok_or_else(|| bad_request("messages: Field required"))?;
    ensure(!messages.is_empty(), "messages: [] is too short")?;
    let mut open: HashSet<&str> = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        let place = format!("messages.{index}");
        let role = text(message, "role", &place)?;
        if role != "tool" {
            ensure(
                open.is_empty(),
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'.",
            )?;
        }
        match role {
            "system" | "developer" => drop(text(message, "content", &place)?),
            "user" => check_user(message, &place)?,
            "assistant" => open = check_assistant(message, &place)?,
            "tool" => {
                known_fields(message, &["role", "tool_call_id", "content"], &place)?;
                ensure(message["content"].is_string(), format!("{place}.content"))?;
                let known = open.remove(text(message, "tool_call_id", &place)?);
                ensure(
                    known,
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                )?;
            }
            other => {
                return Err(bad_request(format!("{place}.role: {other} is not one of the roles")));
            }
        }
    }
    ensure(open.is_empty(), "An assistant message with 'tool_calls' must be followed by tool messages")
}

fn check_user(message: &Value, place: &str) -> Result<(), Refusal> {
    let Value::Array(parts) = &message["content"] else {
        return ensure(message["content"].is_string(), format!("{place}.content"));
    };
    for part in parts {
        let fits = match part["type"].as_str() {
            Some("text") => part["text"].is_string(),
            Some("image_url") => part["image_url"]["url"].as_str().is_some_and(|url| url.starts_with("data:image/")),
            Some("file") => {
                part["file"]["file_data"].as_str().is_some_and(|url| url.starts_with("data:application/pdf;"))
            }
            _ => false,
        };
        ensure(fits, format!("{place}.content: invalid part"))?;
    }
    Ok(())
}

fn check_assistant<'a>(message: &'a Value, place: &str) -> Result<HashSet<&'a str>, Refusal> {
    let mut open = HashSet::new();
    for call in message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default() {
        ensure(call["type"] == "function", format!("{place}.tool_calls.type"))?;
        ensure(is_name(text(&call["function"], "name", place)?), format!("{place}.tool_calls.function.name: pattern"))?;
        let arguments = text(&call["function"], "arguments", place)?;
        // The real API does not look; servers with chat templates do.
        ensure(serde_json::from_str::<Value>(arguments).is_ok_and(|a| a.is_object()), format!("{place}: arguments"))?;
        ensure(open.insert(text(call, "id", place)?), format!("{place}: duplicate tool call id"))?;
    }
    ensure(
        message["content"].is_string() || message["refusal"].is_string() || !open.is_empty(),
        format!("{place}: content or tool_calls is required"),
    )?;
    Ok(open)
}

fn events(request: &Value, answer: &Answer, number: usize) -> Vec<String> {
    let mut out = Vec::new();
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
        let id = format!("chatcmpl-{number}");
        let frame = json!({
            "id": id, "object": "chat.completion.chunk", "created": 1, "model": request["model"],
            "choices": [choice], "usage": null,
        });
        sse(None, &frame)
    };
    out.push(chunk(json!({ "role": "assistant", "content": "" }), Value::Null));
    let mut finish = "stop";
    let mut index = 0;
    for part in &answer.parts {
        let mut plain = |field: &str, text: &str| {
            out.extend(pieces(text).into_iter().map(|piece| chunk(json!({ field: piece }), Value::Null)));
        };
        match part {
            Part::Thinking(text) => plain("reasoning_content", text),
            Part::Redacted(_) => {}
            Part::Text(text) => plain("content", text),
            Part::Refusal(text) => plain("refusal", text),
            Part::Tool { id, name, arguments } => {
                finish = "tool_calls";
                let id = id.clone().unwrap_or_else(|| format!("call_{number}_{index}"));
                let start = json!({
                    "index": index, "id": id, "type": "function",
                    "function": { "name": name, "arguments": "" },
                });
                out.push(chunk(json!({ "tool_calls": [start] }), Value::Null));
                for piece in pieces(arguments) {
                    let delta = json!({ "index": index, "function": { "arguments": piece } });
                    out.push(chunk(json!({ "tool_calls": [delta] }), Value::Null));
                }
                index += 1;
            }
        }
    }
    out.push(chunk(json!({}), json!(answer.finish.as_deref().unwrap_or(finish))));
    let usage = answer.usage;
    let input = usage.input + usage.cache_read;
    out.push(sse(
        None,
        &json!({
            "id": format!("chatcmpl-{number}"), "object": "chat.completion.chunk", "choices": [],
            "usage": {
                "prompt_tokens": input, "completion_tokens": usage.output, "total_tokens": input + usage.output,
                "prompt_tokens_details": { "cached_tokens": usage.cache_read },
            },
        }),
    ));
    out.push("data: [DONE]\n\n".to_owned());
    out
}
