//! Any bytes, and nearly right ones: no verifier panics, and the two never disagree.

use bailiwick_audit::export::verify_export;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value};

use crate::fixture::{Log, WHOLE, event, signer, verdict};

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::num::f64::ANY.prop_map(Value::from),
        (-1e22..1e22f64).prop_map(Value::from),
        (-1e-5..1e-5f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

/// Numbers, texts and orders of keys: what RFC 8785 says of them, two implementations take the same way.
#[test]
fn e07_any_detail_has_the_same_canonical_form_in_both() {
    let mut runner = TestRunner::deterministic();
    let pairs = prop::collection::vec((any::<String>(), json()), 0..6);
    let events = (0..600).map(|seq| {
        let detail = Map::from_iter(pairs.new_tree(&mut runner).unwrap().current());
        event(seq, Value::Object(detail))
    });
    let export = Log::of(events.collect()).export(&signer(), 0);
    assert_eq!(verdict(&export, Some(&signer().verifier_key()), &[]).0, WHOLE);
}

/// One bit in every byte: always found; and by the same word in both, wherever both are asked.
#[test]
fn e07_every_changed_byte_is_found_by_both() {
    let export = Log::new().export(&signer(), 2);
    let key = signer().verifier_key();
    assert_eq!(verdict(&export, Some(&key), &[]).0, WHOLE);
    for at in 0..export.len() {
        let mut changed = export.clone();
        changed[at] ^= 1 << (at % 7);
        assert!(verify_export(changed.as_slice(), Some(&key), &[]).is_err(), "byte {at}");
        if at.is_multiple_of(211) {
            verdict(&changed, Some(&key), &[]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(verify_export(bytes.as_slice(), None, &[]).is_err());
    }

    #[test]
    fn spoilt_exports_are_read_without_panic(
        at in any::<prop::sample::Index>(),
        removed in 0..80usize,
        put in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let export = Log::new().export(&signer(), 2);
        let mut spoilt = export.clone();
        let at = at.index(spoilt.len());
        let end = (at + removed).min(spoilt.len());
        spoilt.splice(at..end, put);
        prop_assert_eq!(verify_export(spoilt.as_slice(), None, &[]).is_ok(), spoilt == export);
    }

    #[test]
    fn any_lines_of_json_are_read_without_panic(values in prop::collection::vec(json(), 0..5)) {
        let mut export = Log::new().export(&signer(), 2);
        let end = export.len() - "{\"end\":true,\"events\":12}\n".len();
        export.truncate(end);
        for value in values {
            export.extend(bailiwick_audit::canonical(&value).unwrap());
            export.push(b'\n');
        }
        prop_assert!(verify_export(export.as_slice(), None, &[]).is_err());
    }
}

/// The deepest detail that is read, and one level more: the line's object is the first, the detail's the second.
#[test]
fn e07_both_read_as_deep_as_each_other() {
    let nested = |levels: usize| (0..levels).fold(Value::Null, |inner, _| Value::from(vec![inner]));
    for (levels, expected) in [(100, WHOLE), (125, WHOLE), (126, "form"), (300, "form")] {
        let detail = Map::from_iter([("a".to_owned(), nested(levels))]);
        let export = Log::of(vec![event(0, Value::Object(detail))]).export(&signer(), 0);
        assert_eq!(verdict(&export, None, &[]).0, expected, "{levels}");
    }
}

/// Brackets without end: refused by depth, not by the stack.
#[test]
fn deep_nesting_is_refused() {
    for text in ["[", "{\"a\":"] {
        let line = [text.repeat(100_000).as_bytes(), b"\n"].concat();
        assert_eq!(verdict(&line, None, &[]).0, "form");
    }
}
