//! The decoders against a far side that speaks in the protocols' own words, in any order and
//! with any values: no panic, no event after the end, no answer without a reason to stop.

use std::collections::VecDeque;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::call::Decode;
use crate::sse::SseEvent;
use crate::{Event, anthropic, openai};

/// Values of every kind, strings from the protocols among them.
fn leaf() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "text",
        "thinking",
        "tool_use",
        "text_delta",
        "input_json_delta",
        "thinking_delta",
        "message",
        "function_call",
        "reasoning",
        "output_text",
        "refusal",
        "stop",
        "tool_calls",
        "end_turn",
        "{\"a\":",
        "{}",
        "",
        "c1",
        "é🦀",
    ]);
    prop_oneof![
        word.prop_map(Value::from),
        any::<u8>().prop_map(|n| json!(n % 3)),
        Just(Value::Null),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        Just(json!(true)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "type",
        "index",
        "id",
        "name",
        "text",
        "input",
        "delta",
        "content_block",
        "partial_json",
        "content",
        "choices",
        "tool_calls",
        "function",
        "arguments",
        "finish_reason",
        "usage",
        "error",
        "message",
        "code",
        "item",
        "output_index",
        "call_id",
        "response",
        "output",
        "summary",
        "status",
        "stop_reason",
        "input_tokens",
    ]);
    leaf().prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// An event: one of the protocols' types, and fields that may or may not fit it.
fn event() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec![
        "message_start",
        "content_block_start",
        "content_block_delta",
        "message_delta",
        "message_stop",
        "error",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.completed",
        "response.failed",
    ]);
    let fitting = prop::sample::select(vec![
        json!({ "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "index": 1, "content_block": { "type": "tool_use", "id": "c1", "name": "n", "input": {} } }),
        json!({ "index": 0, "delta": { "type": "text_delta", "text": "x" } }),
        json!({ "index": 1, "delta": { "type": "input_json_delta", "partial_json": "{" } }),
        json!({ "delta": { "stop_reason": "end_turn" } }),
        json!({ "choices": [{ "delta": { "content": "x", "extra": "y" }, "finish_reason": "stop" }] }),
        json!({ "choices": [{ "delta": { "tool_calls": [{ "index": 0, "function": { "arguments": "{}" } }] } }] }),
        json!({ "output_index": 0, "item": { "type": "function_call", "call_id": "c", "name": "n", "arguments": "1" } }),
        json!({ "response": { "output": [], "status": "completed" } }),
    ]);
    (kind, fitting, value(), any::<bool>()).prop_map(|(kind, fitting, noise, noisy)| {
        let mut event = Map::new();
        event.insert("type".into(), json!(kind));
        event.extend(fitting.as_object().cloned().unwrap_or_default());
        if let (true, Value::Object(noise)) = (noisy, noise) {
            event.extend(noise);
        }
        Value::Object(event).to_string()
    })
}

fn play(mut decoder: impl Decode, events: &[String]) {
    let mut out = VecDeque::new();
    for data in events {
        if decoder.read(&SseEvent { name: String::new(), data: data.clone() }, &mut out).is_err() {
            return;
        }
        if matches!(out.back(), Some(Event::Finished(_))) {
            break;
        }
    }
    let _ = decoder.end(&mut out);
    let ends = out.iter().filter(|event| matches!(event, Event::Finished(_))).count();
    assert!(ends <= 1);
    if let Some(Event::Finished(done)) = out.back() {
        let ids: Vec<&str> = done.message.tool_calls().map(|call| call.id.as_str()).collect();
        assert!(ids.iter().all(|id| ids.iter().filter(|other| other == &id).count() == 1), "{ids:?}");
    }
}

proptest! {
    #[test]
    fn any_order_of_any_events_is_survived(events in prop::collection::vec(event(), 0..12)) {
        play(anthropic::decoder("m"), &events);
        play(openai::chat_decoder("m"), &events);
        play(openai::responses_decoder("m"), &events);
        let mut done = events;
        done.push("[DONE]".to_owned());
        play(openai::chat_decoder("m"), &done);
    }

    #[test]
    fn any_value_is_survived(values in prop::collection::vec(value(), 0..4)) {
        let events: Vec<String> = values.iter().map(Value::to_string).collect();
        play(anthropic::decoder("m"), &events);
        play(openai::chat_decoder("m"), &events);
        play(openai::responses_decoder("m"), &events);
    }
}
