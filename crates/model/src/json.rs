//! Parses JSON of the far side within bounds. A parsed value takes some forty times the room of
//! its shortest text (`[0,0,0,…]`), so a limit on bytes alone would not bound memory.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Limit, ToolInput};

/// Why a text of the far side was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonProblem {
    NotJson,
    TooMany,
}

/// Parses a text of at most `max_values` values. The depth is bounded by the parser, at 128.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, max_values: usize) -> Result<T, JsonProblem> {
    if weight(text) > max_values {
        return Err(JsonProblem::TooMany);
    }
    serde_json::from_str(text).map_err(|_| JsonProblem::NotJson)
}

/// An upper estimate of the values in a JSON text: its separators outside of strings.
pub(crate) fn weight(text: &str) -> usize {
    let mut count = 1;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// The values in a parsed value, itself included.
pub(crate) fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// The arguments of a tool call. No text at all stands for no arguments.
pub(crate) fn tool_input(text: &str) -> ToolInput {
    if text.trim().is_empty() {
        return ToolInput::Json(Value::Object(serde_json::Map::new()));
    }
    match parse(text, MAX_EVENT_VALUES) {
        Ok(value) => ToolInput::Json(value),
        Err(JsonProblem::NotJson | JsonProblem::TooMany) => ToolInput::Text(text.to_owned()),
    }
}

/// Arguments as the object that the APIs ask for. Text that is no JSON is shown to the model
/// under a name that says so.
pub(crate) fn input_object(input: &ToolInput) -> Value {
    match input {
        ToolInput::Json(Value::Object(map)) => Value::Object(map.clone()),
        ToolInput::Json(other) => serde_json::json!({ "unparsable_input": other.to_string() }),
        ToolInput::Text(text) => serde_json::json!({ "unparsable_input": text }),
    }
}

/// Counts what is kept of one answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(usize);

impl Kept {
    pub(crate) fn add(&mut self, values: usize) -> Result<(), Limit> {
        self.0 = self.0.saturating_add(values);
        if self.0 > MAX_KEPT_VALUES { Err(Limit::KeptValues) } else { Ok(()) }
    }
}

/// Values in one event. The largest honest ones repeat the request's tools and the whole answer.
pub(crate) const MAX_EVENT_VALUES: usize = 100_000;
/// Values kept of one answer.
const MAX_KEPT_VALUES: usize = 200_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn text_inside_strings_weighs_nothing() {
        assert_eq!(weight(r#"{"a":"x,y,[{\",,"}"#), 2);
        assert_eq!(weight("[0,0,0]"), 4);
    }

    #[test]
    fn many_values_and_deep_ones_are_refused_and_ordinary_ones_are_not() {
        assert_eq!(parse::<Value>("[1,2,3]", 4).unwrap(), serde_json::json!([1, 2, 3]));
        assert_eq!(parse::<Value>("[1,2,3]", 3), Err(JsonProblem::TooMany));
        assert_eq!(parse::<Value>(&"[".repeat(5_000), 10_000), Err(JsonProblem::NotJson));
    }

    #[test]
    fn arguments_that_are_not_json_are_kept_as_text() {
        assert_eq!(tool_input(""), ToolInput::Json(serde_json::json!({})));
        assert_eq!(tool_input("{\"a\":"), ToolInput::Text("{\"a\":".into()));
    }
}
