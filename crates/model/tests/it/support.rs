//! What every test needs: a provider that talks to a fake, a key, and a collected answer.

use std::time::Duration;

use bailiwick_model::{
    AssistantMessage, AssistantPart, Completion, Config, Credential, Event, Message, ModelError, Outcome, Policy,
    Provider, Request, Retry, Tool, ToolCall, ToolResult,
};
use bailiwick_outbound::Transport;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const KEY: &str = "sk-test-9f8e7d6c5b4a39281706";

pub(crate) struct TestKey(pub(crate) &'static str);

impl Credential for TestKey {
    fn expose(&self) -> &str {
        self.0
    }
}

/// How a model is called.
pub(crate) fn transport() -> Transport {
    Transport::new(Duration::from_secs(10)).unwrap()
}

/// A provider of `{provider, base_url, model: "m1", …extra}` whose retries do not wait.
pub(crate) fn provider(kind: &str, base_url: &str, extra: Value) -> Provider {
    let mut config = json!({ "provider": kind, "base_url": base_url, "model": "m1" });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let config: Config = serde_json::from_value(config).unwrap();
    Provider::new(&config, transport()).unwrap().with_policy(quick())
}

/// The default bounds with pauses of milliseconds.
pub(crate) fn quick() -> Policy {
    Policy {
        retry: Retry { attempts: 3, base: Duration::from_millis(2), max_wait: Duration::from_secs(1) },
        ..Policy::default()
    }
}

pub(crate) fn ask(text: &str) -> Request {
    Request::new("m1", vec![Message::user(text)])
}

pub(crate) fn tool(name: &str) -> Tool {
    let schema = json!({ "type": "object", "properties": { "path": { "type": "string" } } });
    Tool { name: name.into(), description: format!("does {name}"), input_schema: schema }
}

/// Everything that a call gave.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) events: Vec<Event>,
    pub(crate) end: Result<Completion, ModelError>,
}

impl Got {
    pub(crate) fn done(&self) -> &Completion {
        self.end.as_ref().unwrap()
    }

    pub(crate) fn error(&self) -> &ModelError {
        self.end.as_ref().unwrap_err()
    }

    /// The text deltas, joined.
    pub(crate) fn text(&self) -> String {
        self.joined(|event| if let Event::TextDelta(text) = event { Some(text) } else { None })
    }

    pub(crate) fn reasoning(&self) -> String {
        self.joined(|event| if let Event::ReasoningDelta(text) = event { Some(text) } else { None })
    }

    /// The pieces of one tool's arguments, joined.
    pub(crate) fn tool_input(&self, wanted: &str) -> String {
        self.joined(|event| match event {
            Event::ToolInputDelta { id, delta, .. } if id == wanted => Some(delta),
            _ => None,
        })
    }

    fn joined<'a>(&'a self, piece: impl Fn(&'a Event) -> Option<&'a String>) -> String {
        self.events.iter().filter_map(piece).map(String::as_str).collect()
    }
}

pub(crate) async fn call(provider: &Provider, request: &Request) -> Got {
    call_with(provider, request, CancellationToken::new()).await
}

pub(crate) async fn call_with(provider: &Provider, request: &Request, cancel: CancellationToken) -> Got {
    let mut stream = provider.stream(request, Some(&TestKey(KEY)), cancel);
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Finished(completion)) => {
                assert!(stream.next().await.is_none(), "something came after the end");
                return Got { events, end: Ok(completion) };
            }
            Ok(event) => events.push(event),
            Err(error) => {
                assert!(stream.next().await.is_none(), "something came after the error");
                return Got { events, end: Err(error) };
            }
        }
    }
    panic!("the stream ended in silence after {events:?}");
}

/// What has to happen at once: far sooner than any timeout of a call would end it.
pub(crate) async fn at_once<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it did not happen at once")
}

/// The conversation with the answer and a result for each of its calls added.
pub(crate) fn continued(request: &Request, answer: &AssistantMessage, result: &str) -> Request {
    let results = answer.tool_calls().map(|call| ToolResult {
        call_id: call.id.clone(),
        name: call.name.clone(),
        content: result.to_owned(),
        outcome: Outcome::Succeeded,
    });
    let results: Vec<ToolResult> = results.collect();
    let mut next = request.clone();
    next.messages.push(Message::Assistant(answer.clone()));
    if !results.is_empty() {
        next.messages.push(Message::ToolResults(results));
    }
    next
}

/// The answer after a round through a session's JSON.
pub(crate) fn stored(answer: &AssistantMessage) -> AssistantMessage {
    let text = serde_json::to_string(&Message::Assistant(answer.clone())).unwrap();
    match serde_json::from_str(&text).unwrap() {
        Message::Assistant(answer) => answer,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn calls(answer: &AssistantMessage) -> Vec<ToolCall> {
    answer.tool_calls().cloned().collect()
}

pub(crate) fn said(text: &str) -> AssistantPart {
    AssistantPart::Text(text.into())
}
