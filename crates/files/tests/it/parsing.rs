//! Property tests of the path parser, which stands before every file call.

use bailiwick_types::path::{MAX_COMPONENTS, MAX_PATH_BYTES, WorkspacePath};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a05_whatever_is_accepted_stays_inside_and_parses_to_itself(
        input in prop_oneof![
            any::<String>(),
            "[a/.\\\\:C\\x00\\n~-]{0,40}",
            "(/workspace)?(/?(\\.|\\.\\.|a|b c|\u{202e}|é){1,3}){0,70}",
        ],
    ) {
        for parsed in [WorkspacePath::parse(&input), WorkspacePath::parse_in_sandbox(&input)].into_iter().flatten() {
            let text = parsed.as_str().to_owned();
            prop_assert!(!text.starts_with('/') && !text.ends_with('/'));
            prop_assert!(!text.contains('\0') && !text.contains('\\') && !text.contains('\n'));
            prop_assert!(parsed.components().all(|part| part != ".." && part != "." && !part.is_empty()));
            prop_assert!(text.len() <= MAX_PATH_BYTES && parsed.components().count() <= MAX_COMPONENTS);
            prop_assert_eq!(&WorkspacePath::parse(&text).unwrap(), &parsed);
            prop_assert_eq!(&WorkspacePath::parse_in_sandbox(&parsed.in_sandbox()).unwrap(), &parsed);
        }
    }

    #[test]
    fn a05_a_joined_name_is_a_child(dir in "[a-z]{1,4}(/[a-z]{1,4}){0,3}", name in any::<String>()) {
        let dir = WorkspacePath::parse(&dir).unwrap();
        if let Ok(child) = dir.join(&name) {
            prop_assert_eq!(child.parent(), Some(dir));
            prop_assert_eq!(child.file_name(), Some(name.as_str()));
        }
    }
}
