//! The events of a session's stream, in the form of eve's session protocol, version 26.

use bailiwick_model::Finish;
use bailiwick_store::session::Tokens;
use bailiwick_types::{CallId, SessionId};
use serde_json::{Map, Value, json};

use crate::message::{Message, Part};

/// An event: its type and its data.
pub(crate) type Event = (&'static str, Value);

/// Where in the session an event belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) turn: u64,
    pub(crate) step: u64,
}

impl At {
    pub(crate) fn turn_id(self) -> String {
        format!("turn_{}", self.turn)
    }

    fn turn(self, mut data: Value) -> Value {
        data["sequence"] = json!(self.turn);
        data["turnId"] = json!(self.turn_id());
        data
    }

    fn step(self, data: Value) -> Value {
        let mut data = self.turn(data);
        data["stepIndex"] = json!(self.step);
        data
    }
}

pub(crate) fn session_started(agent: &str, name: &str) -> Event {
    let build = concat!("bailiwick@", env!("CARGO_PKG_VERSION"));
    let runtime = json!({ "agentId": agent, "agentName": name, "eveVersion": "0.80.1", "build": build });
    ("session.started", json!({ "runtime": runtime }))
}

pub(crate) fn turn_started(at: At) -> Event {
    ("turn.started", at.turn(json!({})))
}

pub(crate) fn turn_completed(at: At) -> Event {
    ("turn.completed", at.turn(json!({})))
}

pub(crate) fn turn_cancelled(at: At) -> Event {
    ("turn.cancelled", at.turn(json!({})))
}

pub(crate) fn message_received(at: At, message: &Message) -> Event {
    let parts: Vec<Value> = message
        .parts
        .iter()
        .map(|part| match part {
            Part::Text { text } => json!({ "type": "text", "text": text }),
            Part::File(file) => {
                let mut shown = json!({ "type": "file", "mediaType": file.media_type, "size": file.size });
                if let Some(name) = &file.filename {
                    shown["filename"] = json!(name);
                }
                shown
            }
        })
        .collect();
    ("message.received", at.turn(json!({ "message": message.flat(), "parts": parts })))
}

pub(crate) fn step_started(at: At, model: &str) -> Event {
    ("step.started", at.step(json!({ "modelId": model })))
}

pub(crate) fn text_delta(at: At, delta: &str) -> Event {
    ("message.appended", at.step(json!({ "messageDelta": delta })))
}

pub(crate) fn reasoning_delta(at: At, delta: &str) -> Event {
    ("reasoning.appended", at.step(json!({ "reasoningDelta": delta })))
}

pub(crate) fn reasoning_completed(at: At, text: &str) -> Event {
    ("reasoning.completed", at.step(json!({ "reasoning": text })))
}

pub(crate) fn message_completed(at: At, text: &str, finish: &str) -> Event {
    ("message.completed", at.step(json!({ "message": text, "finishReason": finish })))
}

pub(crate) fn action_requested(at: At, call: CallId, tool: &str, input: &Value, label: Option<String>) -> Event {
    let action = json!({ "callId": call, "kind": "tool-call", "toolName": tool, "input": input });
    let mut data = json!({ "actions": [action] });
    if let Some(label) = label {
        data["presentation"] = json!({ call.to_string(): { "label": label } });
    }
    ("actions.requested", at.step(data))
}

/// How a call ended, as clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultStatus {
    Completed,
    Failed,
    Rejected,
}

pub(crate) fn action_result(
    at: At,
    call: CallId,
    tool: &str,
    output: &Value,
    status: ResultStatus,
    error: Option<(&str, &str)>,
) -> Event {
    let mut result = json!({ "callId": call, "kind": "tool-result", "toolName": tool, "output": output });
    let word = match status {
        ResultStatus::Completed => "completed",
        ResultStatus::Failed => "failed",
        ResultStatus::Rejected => "rejected",
    };
    if status != ResultStatus::Completed {
        result["isError"] = json!(true);
    }
    let mut data = json!({ "result": result, "status": word });
    if let Some((code, message)) = error {
        data["error"] = json!({ "code": code, "message": message });
    }
    ("action.result", at.step(data))
}

pub(crate) fn step_completed(at: At, finish: &str, tokens: Option<&Tokens>) -> Event {
    let mut data = json!({ "finishReason": finish });
    if let Some(tokens) = tokens {
        data["usage"] = json!(tokens);
    }
    ("step.completed", at.step(data))
}

pub(crate) fn input_requested(at: At, requests: &[Value], call: Option<CallId>) -> Event {
    let mut data = json!({ "requests": requests });
    if let Some(call) = call {
        data["callId"] = json!(call);
    }
    ("input.requested", at.step(data))
}

pub(crate) fn turn_waiting(at: At, on: &str, tokens: &Tokens) -> Event {
    ("turn.waiting", at.turn(json!({ "on": on, "usage": tokens })))
}

pub(crate) fn approval_settled(at: At, request: &str, responder: &str, outcome: &str) -> Event {
    let data = json!({ "requestId": request, "responderPrincipalId": responder, "outcome": outcome });
    ("approval.settled", at.step(data))
}

pub(crate) fn input_resolved(at: At, request: &str, kind: &str, outcome: &str, response: Option<&Value>) -> Event {
    let mut resolution = Map::new();
    resolution.insert("requestId".to_owned(), json!(request));
    resolution.insert("kind".to_owned(), json!(kind));
    resolution.insert("outcome".to_owned(), json!(outcome));
    if let Some(response) = response {
        resolution.insert("response".to_owned(), response.clone());
    }
    ("input.resolved", at.step(json!({ "resolutions": [resolution] })))
}

pub(crate) fn result_completed(at: At, result: &Value) -> Event {
    ("result.completed", at.step(json!({ "result": result })))
}

pub(crate) fn step_failed(at: At, code: &str, message: &str, details: &Value) -> Event {
    ("step.failed", at.step(json!({ "code": code, "message": message, "details": details })))
}

pub(crate) fn turn_failed(at: At, code: &str, message: &str, details: &Value, terminal: bool) -> Event {
    let data = json!({ "code": code, "message": message, "details": details, "terminal": terminal });
    ("turn.failed", at.turn(data))
}

pub(crate) fn session_waiting(session: SessionId, tokens: &Tokens) -> Event {
    let data = json!({ "continuationToken": session, "usage": tokens, "wait": "next-user-message" });
    ("session.waiting", data)
}

pub(crate) fn session_completed(tokens: &Tokens) -> Event {
    ("session.completed", json!({ "usage": tokens }))
}

pub(crate) fn context_cleared(at: At, session: SessionId) -> Event {
    ("context.cleared", at.turn(json!({ "sessionId": session })))
}

pub(crate) fn compaction_requested(at: At, session: SessionId, model: &str, tokens: u64) -> Event {
    let data = json!({ "modelId": model, "sessionId": session, "usageInputTokens": tokens });
    ("compaction.requested", at.step(data))
}

pub(crate) fn compaction_completed(at: At, session: SessionId, model: &str) -> Event {
    ("compaction.completed", at.step(json!({ "modelId": model, "sessionId": session })))
}

/// The finish reason as eve's clients know it.
pub(crate) fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::ToolCalls => "tool-calls",
        Finish::Length => "length",
        Finish::ContentFilter => "content-filter",
        Finish::Other => "other",
    }
}
