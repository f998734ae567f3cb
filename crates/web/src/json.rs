//! JSON as it comes from callers: strict where two readers could disagree.
//!
//! One key twice, bytes that are no UTF-8, and nesting beyond the limit are errors. What passes here is
//! one value that every reader reads alike.

use std::fmt;

use bailiwick_types::limits::{JSON_DEPTH, JSON_VALUES};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonProblem {
    /// Not text.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// Nested too deep.
    #[error("the body is nested deeper than {JSON_DEPTH} levels")]
    TooDeep,
    /// More values than any request needs; each costs memory far beyond its text.
    #[error("the body holds more than {JSON_VALUES} values")]
    TooMany,
    /// Not JSON, or a key comes twice.
    #[error("the body is not valid JSON: {0}")]
    Syntax(#[source] serde_json::Error),
}

/// Reads one value.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, JsonProblem> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonProblem::NotUtf8)?;
    let shape = Outline::of(bytes);
    if shape.depth > JSON_DEPTH {
        return Err(JsonProblem::TooDeep);
    }
    if shape.values > JSON_VALUES {
        return Err(JsonProblem::TooMany);
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut reader).map_err(JsonProblem::Syntax)?;
    reader.end().map_err(JsonProblem::Syntax)?;
    Ok(value)
}

/// What a text will cost, counted outside of its strings before anything is built.
struct Outline {
    /// The deepest nesting.
    depth: usize,
    /// Values, or a few more.
    values: usize,
}

impl Outline {
    fn of(bytes: &[u8]) -> Self {
        let (mut now, mut in_string, mut escaped) = (0usize, false, false);
        let mut outline = Self { depth: 0, values: 1 };
        for byte in bytes {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'[' | b'{' => {
                    now += 1;
                    outline.values += 1;
                    outline.depth = outline.depth.max(now);
                }
                b']' | b'}' => now = now.saturating_sub(1),
                b',' => outline.values += 1,
                _ => {}
            }
        }
        outline
    }
}

/// Builds a value and refuses a key that comes twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "the key {:?} comes twice",
                    key.chars().take(40).collect::<String>()
                )));
            }
            let value = entries.next_value_seed(Self)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn honest_json_is_read_as_it_stands() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x\"]["],"b":{"c":{}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn doubled_keys_depth_and_bytes_are_refused() {
        assert!(parse(br#"{"a":1,"b":{"c":1,"c":2}}"#).unwrap_err().to_string().contains("twice"));
        assert!(matches!(parse(b"\"\xff\""), Err(JsonProblem::NotUtf8)));
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(JSON_DEPTH).as_bytes()).is_ok());
        assert!(matches!(parse(nested(JSON_DEPTH + 1).as_bytes()), Err(JsonProblem::TooDeep)));
        assert!(matches!(parse("[".repeat(1_000_000).as_bytes()), Err(JsonProblem::TooDeep)));
        let many = |n: usize| format!("[{}0]", "0,".repeat(n));
        assert!(parse(many(JSON_VALUES - 2).as_bytes()).is_ok());
        assert!(matches!(parse(many(JSON_VALUES).as_bytes()), Err(JsonProblem::TooMany)));
        for text in ["", "{", "{} {}", "nul", "1e999", "'a'"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
