//! Paths of a workspace: what is parsed stays below the root, and has one spelling.

#![no_main]

use bailiwick_types::path::{MAX_COMPONENT_BYTES, MAX_COMPONENTS, MAX_PATH_BYTES, SANDBOX_ROOT, WorkspacePath};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The parts of a text as directories and a name, for joins.
    let (head, tail) = text.split_once('\n').unwrap_or((text, "x"));
    let plain = WorkspacePath::parse(head);
    let sandboxed = WorkspacePath::parse_in_sandbox(head);
    if let Ok(path) = &plain {
        holds(path);
        assert_eq!(sandboxed.as_ref(), Ok(path), "a relative path is the same for a sandbox");
        if let Ok(joined) = path.join(tail) {
            holds(&joined);
            assert!(joined.is_within(path) && joined != *path, "{joined:?} is not below {path:?}");
            assert_eq!(joined.parent().as_ref(), Some(path));
            assert_eq!(joined.file_name(), Some(tail));
        }
    }
    if let Ok(path) = &sandboxed {
        holds(path);
        assert!(plain.is_ok() || head.starts_with(SANDBOX_ROOT), "{head:?}");
    }
});

fn holds(path: &WorkspacePath) {
    let text = path.as_str();
    assert_eq!(WorkspacePath::parse(text).as_ref(), Ok(path), "the normal form is its own normal form");
    assert_eq!(WorkspacePath::parse_in_sandbox(&path.in_sandbox()).as_ref(), Ok(path));
    assert!(text.len() <= MAX_PATH_BYTES && !text.starts_with('/') && !text.ends_with('/'), "{text:?}");
    assert!(!text.contains(['\\', '\0', '\n', '\r', '\u{202e}']), "{text:?}");
    assert!(path.components().count() <= MAX_COMPONENTS);
    for component in path.components() {
        assert!(!matches!(component, "" | "." | ".."), "{text:?}");
        assert!(component.len() <= MAX_COMPONENT_BYTES);
    }
    // The standard library's own reading of it: nothing but names.
    let normal = |part| matches!(part, std::path::Component::Normal(_));
    assert!(path.is_root() || std::path::Path::new(text).components().all(normal), "{text:?}");
    // And a resolver that does what a kernel does, which must never leave the root.
    let mut depth = 0usize;
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.checked_sub(1).expect("the path climbs out of its workspace"),
            _ => depth += 1,
        }
    }
    assert_eq!(depth, path.components().count());
    assert!(path.is_within(&WorkspacePath::root()) && path.is_within(path));
    if let Some(parent) = path.parent() {
        assert!(path.is_within(&parent) && !parent.is_within(path));
    }
}
