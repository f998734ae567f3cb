//! How files look: not too long, each with a word on what it is for, one test binary a crate.

use super::{Finding, Module};
use crate::repository::File;

/// Lines of a file without its tests.
const LONGEST: usize = 800;

pub(super) fn check(files: &[File], modules: &[Module<'_>]) -> Vec<Finding> {
    let mut findings = in_modules(modules);
    findings.extend(files.iter().filter_map(|file| misplaced(&file.path)));
    findings
}

fn in_modules(modules: &[Module<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for module in modules {
        let lines = module.source.lines_without_tests();
        if lines > LONGEST {
            let what = format!("{lines} lines without tests, at most {LONGEST}: split it");
            findings.push(Finding::new(module.path, 1, what));
        }
        if !module.text.starts_with("//! ") {
            let what = "does not open with `//!`: what it is for, and what it must never do";
            findings.push(Finding::new(module.path, 1, what));
        }
    }
    findings
}

fn misplaced(path: &str) -> Option<Finding> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["crates", .., "mod.rs"] => Some(Finding::new(path, 1, "no mod.rs: x.rs beside x/")),
        ["crates", _, "tests", file] if file.ends_with(".rs") => {
            Some(Finding::new(path, 1, "one integration binary a crate: put it into tests/it/"))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::tidy::sample::tells;

    const PATH: &str = "crates/types/src/x.rs";

    #[test]
    fn a_file_that_is_too_long_without_its_tests_is_found() {
        let long = format!("//! Long.\n{}", "fn a() {}\n".repeat(LONGEST));
        let tests = "fn a() {}\n".repeat(LONGEST - 10);
        let good = format!("//! Short.\n#[cfg(test)]\nmod tests {{\n{tests}{tests}}}\n");
        tells(in_modules, (PATH, &long), (PATH, &good), "801 lines");
    }

    #[test]
    fn a_module_that_does_not_say_what_it_is_for_is_found() {
        tells(in_modules, (PATH, "use std::fmt;\n"), (PATH, "//! Ids.\nuse std::fmt;\n"), "does not open");
        tells(in_modules, (PATH, "// Not the same.\n"), (PATH, "//! Ids.\n"), "does not open");
    }

    #[test]
    fn misplaced_files_are_found() {
        assert!(misplaced("crates/a/src/b/mod.rs").is_some());
        assert!(misplaced("crates/a/tests/second.rs").is_some());
        assert!(misplaced("crates/a/tests/it/second.rs").is_none());
        assert!(misplaced("crates/a/src/b.rs").is_none());
    }
}
