//! Whether a JSON schema can be asked for strictly. OpenAI's strict mode refuses a schema with
//! optional or open properties; such a schema is sent without it, and the caller checks the
//! answer as it has to anyway.

use serde_json::Value;

/// Whether every object in the schema is closed and requires all of its properties.
pub(super) fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let object = map.get("type").is_some_and(|kind| kind == "object") || map.contains_key("properties");
            let closed = map.get("additionalProperties") == Some(&Value::Bool(false));
            let names = map.get("properties").and_then(Value::as_object).map(|p| p.keys().collect::<Vec<_>>());
            let required = map.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let complete = names.unwrap_or_default().iter().all(|name| required.iter().any(|r| r == name.as_str()));
            (!object || (closed && complete)) && map.values().all(is_strict)
        }
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::is_strict;

    #[test]
    fn only_closed_and_complete_objects_are_strict() {
        let closed =
            json!({"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false});
        assert!(is_strict(&closed));
        assert!(!is_strict(&json!({"type":"array","items":{"type":"object"}})));
        let mut optional = closed.clone();
        optional["required"] = json!([]);
        assert!(!is_strict(&optional));
    }
}
