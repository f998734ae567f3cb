//! Bodies of requests: what our strict reader takes, any other reader takes as well and reads alike; what
//! is too deep, or has one key twice, nobody gets to see. The reader is private to its crate and is
//! compiled in here from its own file.

#![no_main]

use bailiwick_types::limits::{JSON_DEPTH, JSON_VALUES};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

#[allow(dead_code)]
#[path = "../../crates/web/src/json.rs"]
mod json;

fuzz_target!(|data: &[u8]| {
    let plain = serde_json::from_slice::<Value>(data);
    match json::parse(data) {
        Ok(value) => {
            assert_eq!(plain.ok().as_ref(), Some(&value), "two readers disagree");
            let (depth, values) = measure(&value);
            assert!(depth <= JSON_DEPTH && values <= JSON_VALUES, "{depth} levels, {values} values");
            let again = json::parse(value.to_string().as_bytes()).expect("what was read can be read again");
            assert_eq!(again, value);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
    // A key that comes twice is found wherever it stands.
    if let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(data)
        && let Some(key) = fields.keys().next()
    {
        let key = Value::from(key.as_str());
        let twice = format!("{{{key}:1,{key}:1}}");
        assert!(json::parse(twice.as_bytes()).is_err(), "{twice}");
    }
});

fn measure(value: &Value) -> (usize, usize) {
    let of = |inner: &mut dyn Iterator<Item = &Value>| {
        let (mut depth, mut values) = (0, 1);
        for value in inner {
            let (deep, many) = measure(value);
            depth = depth.max(deep);
            values += many;
        }
        (depth + 1, values)
    };
    match value {
        Value::Array(items) => of(&mut items.iter()),
        Value::Object(fields) => of(&mut fields.values()),
        _ => (0, 1),
    }
}
