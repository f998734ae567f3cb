//! A tool call's arguments: whatever a model writes is refused or fits the schema, and a person approves
//! what is shown. The first byte says which tool, the rest is JSON. Catalogue and label are compiled in from their
//! own files.

#![no_main]

use catalogue::{BUILT_IN, ToolDefinition};
use label::label;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

#[allow(dead_code)]
#[path = "../../crates/tools/src/catalogue.rs"]
mod catalogue;
#[path = "../../crates/tools/src/label.rs"]
mod label;

fuzz_target!(|data: &[u8]| {
    let Some((&which, json)) = data.split_first() else { return };
    let tool = &BUILT_IN[usize::from(which) % BUILT_IN.len()];
    let Ok(arguments) = serde_json::from_slice::<Value>(json) else { return };
    shown(tool, &arguments);
    let verdict = tool.check(&arguments);
    let turned = turned(&arguments);
    assert_eq!(tool.check(&turned).is_ok(), verdict.is_ok(), "the order of keys says nothing");
    let Ok(digest) = tool.approval_digest(&arguments) else { return };
    assert_eq!(tool.approval_digest(&turned).ok(), Some(digest), "the order of keys changes an approval");
    for other in BUILT_IN.iter().filter(|other| other.name != tool.name) {
        assert_ne!(other.approval_digest(&arguments).ok(), Some(digest), "an approval holds for another tool");
    }
    if let Err(problem) = verdict {
        assert!(!problem.is_empty());
        return;
    }
    // What fits is an object of known keys.
    let fields = arguments.as_object().expect("arguments that fit are an object");
    let known = tool.schema["properties"].as_object().expect("a schema has properties");
    assert!(fields.keys().all(|key| known.contains_key(key)), "{arguments}");
    for key in tool.schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(key.as_str().expect("a key")), "{arguments}");
    }
    // Another value of any field is another call, which the approval does not cover.
    for key in fields.keys() {
        for with in [Value::Null, Value::from("another"), Value::from(7)] {
            let mut changed = arguments.clone();
            changed[key] = with;
            if changed != arguments {
                assert_ne!(tool.approval_digest(&changed).ok(), Some(digest), "{arguments} and {changed}");
            }
        }
        let mut without = fields.clone();
        without.shift_remove(key);
        assert_ne!(tool.approval_digest(&Value::Object(without)).ok(), Some(digest), "{arguments} without {key}");
    }
});

/// The words that a person reads before deciding.
fn shown(tool: &ToolDefinition, arguments: &Value) {
    let label = label(tool, arguments);
    assert!(label.chars().count() <= 140, "{label:?}");
    let deceptive = |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
    assert!(!label.contains(deceptive), "{label:?}");
}

/// The same value with the keys of every object in the opposite order.
fn turned(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(turned).collect(),
        Value::Object(fields) => {
            let turned: Map<_, _> = fields.iter().rev().map(|(key, value)| (key.clone(), turned(value))).collect();
            Value::Object(turned)
        }
        other => other.clone(),
    }
}
