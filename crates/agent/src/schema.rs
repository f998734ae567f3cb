//! Schemas that callers bring along, for an answer of theirs. A schema is a program of sorts: one of a
//! few hundred bytes can ask for more work than a server will ever do. Its size is bounded here, with
//! every reference counted as what it stands for.

use serde_json::Value;

/// Longest schema, bytes.
const BYTES: usize = 64 * 1024;
/// Nodes of a schema, references written out.
const NODES: usize = 10_000;
/// References inside references.
const DEPTH: usize = 32;

/// What is wrong with a schema.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("Expected 'outputSchema' to be a JSON-serializable object.")]
    NotAnObject,
    #[error("'outputSchema' is too long: at most {BYTES} bytes")]
    TooLong,
    #[error("'outputSchema' asks for too much work: at most {NODES} parts, with its references written out")]
    TooMuch,
    #[error("'outputSchema' may refer only to its own parts, as \"#/$defs/name\"")]
    Reference,
    #[error("'outputSchema' is not a JSON Schema")]
    Invalid,
}

/// Checks a schema before it is used.
pub(crate) fn check(schema: &Value) -> Result<(), Problem> {
    if !schema.is_object() {
        return Err(Problem::NotAnObject);
    }
    if schema.to_string().len() > BYTES {
        return Err(Problem::TooLong);
    }
    let mut left = NODES;
    count(schema, schema, &mut left, &mut Vec::new())?;
    match jsonschema::draft202012::options().build(schema) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::Invalid),
    }
}

fn count<'a>(root: &'a Value, node: &'a Value, left: &mut usize, within: &mut Vec<&'a str>) -> Result<(), Problem> {
    *left = left.checked_sub(1).ok_or(Problem::TooMuch)?;
    match node {
        Value::Array(items) => items.iter().try_for_each(|item| count(root, item, left, within)),
        Value::Object(fields) => {
            const ELSEWHERE: [&str; 4] = ["$dynamicRef", "$recursiveRef", "$id", "$anchor"];
            if fields.keys().any(|key| ELSEWHERE.contains(&key.as_str())) {
                return Err(Problem::Reference);
            }
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("$ref", Value::String(to)) => follow(root, to, left, within)?,
                    // What is defined costs where it is used.
                    ("$defs" | "definitions", _) => {}
                    _ => count(root, value, left, within)?,
                }
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn follow<'a>(root: &'a Value, to: &'a str, left: &mut usize, within: &mut Vec<&'a str>) -> Result<(), Problem> {
    let target = to.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).ok_or(Problem::Reference)?;
    // A part that refers to itself is walked as deep as the answer is, not for ever.
    if within.contains(&to) {
        return Ok(());
    }
    if within.len() >= DEPTH {
        return Err(Problem::TooMuch);
    }
    within.push(to);
    count(root, target, left, within)?;
    within.pop();
    Ok(())
}

/// The value of an answer, if it follows the schema. Away from the threads that serve requests.
pub(crate) async fn read(schema: Value, text: String) -> Option<Value> {
    let reading = tokio::task::spawn_blocking(move || {
        let value: Value = serde_json::from_str(text.trim()).ok()?;
        let validator = jsonschema::draft202012::options().build(&schema).ok()?;
        validator.is_valid(&value).then_some(value)
    });
    reading.await.ok()?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn honest_schemas_pass_and_bombs_do_not() {
        let honest = json!({
            "type": "object", "properties": { "next": { "$ref": "#/$defs/item" } },
            "$defs": { "item": { "type": "object", "properties": { "next": { "$ref": "#/$defs/item" } } } },
        });
        assert!(check(&honest).is_ok());
        let mut defs = serde_json::Map::new();
        for n in 0..30 {
            let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
            defs.insert(format!("d{n}"), json!({ "allOf": [next, next] }));
        }
        defs.insert("d30".to_owned(), json!({ "type": "object" }));
        let bomb = json!({ "$ref": "#/$defs/d0", "$defs": defs });
        assert!(matches!(check(&bomb), Err(Problem::TooMuch)));
        for elsewhere in ["https://example.com/schema", "file:///etc/passwd", "other.json", "#/nowhere"] {
            assert!(matches!(check(&json!({ "$ref": elsewhere })), Err(Problem::Reference)), "{elsewhere}");
        }
        assert!(matches!(check(&json!({ "$dynamicRef": "#x" })), Err(Problem::Reference)));
        assert!(matches!(check(&json!({ "type": "no such type" })), Err(Problem::Invalid)));
    }
}
