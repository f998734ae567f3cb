//! Words that must not stand in the repository: places of one machine, and what does not belong into
//! finished code.

use super::{Finding, Module};
use crate::repository::File;
use crate::rust::has_word;

/// Places of the machine that something was written on, and addresses of registries. In two halves each,
/// so that this file does not find itself.
const PLACES: &[[&str; 2]] = &[
    ["/wo", "rk/"],
    ["/ro", "ot/"],
    ["/home/", "runner"],
    ["index.crates", ".io"],
    ["static.crates", ".io"],
    ["registry.npm", "js.org"],
    ["proxy.golang", ".org"],
    ["pypi", ".org/simple"],
];

/// Lines that may name such a place: a file, and words of the line.
const PLACES_ALLOWED: &[(&str, &str)] = &[
    // A lock file names where each package comes from, for everybody alike.
    ("Cargo.lock", ""),
    // A path that a sandbox must refuse.
    ("crates/sandbox/tests/it/shell/files.rs", ".bashrc\""),
];

const UNFINISHED: &[&str] = &["todo", "dbg", "unimplemented"];

pub(super) fn check(files: &[File], modules: &[Module<'_>]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = files.iter().flat_map(places).collect();
    // What is installed here was written, and licensed, by others.
    let installed = files.iter().filter(|file| file.path.split('/').any(|part| part == "node_modules"));
    findings.extend(installed.map(|file| Finding::new(&file.path, 1, "was installed, and does not belong here")));
    findings.extend(in_modules(modules));
    findings
}

fn places(file: &File) -> Vec<Finding> {
    let allowed = |line: &str| PLACES_ALLOWED.iter().any(|(path, words)| file.path == *path && line.contains(words));
    let mut findings = Vec::new();
    for (n, line) in file.text.lines().enumerate() {
        for place in PLACES.iter().map(|halves| halves.concat()) {
            if line.contains(&place) && !allowed(line) {
                findings.push(Finding::new(
                    &file.path,
                    n + 1,
                    format!("names {place}, which is a place of one machine"),
                ));
            }
        }
    }
    findings
}

fn in_modules(modules: &[Module<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for module in modules {
        for (line, code) in module.source.lines() {
            if code.trim_start().starts_with("#[ignore") {
                findings.push(Finding::new(module.path, line, "an ignored test tests nothing"));
            }
            for word in UNFINISHED {
                if has_word(code, word) && code.contains(&format!("{word}!")) {
                    findings.push(Finding::new(module.path, line, format!("{word}! is not finished")));
                }
            }
            if has_word(code, "set_var") {
                findings.push(Finding::new(module.path, line, "changes the environment of the whole process"));
            }
        }
    }
    findings
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::tidy::sample::{file, tells};

    const PATH: &str = "crates/web/src/x.rs";

    #[test]
    fn places_of_one_machine_are_found_in_any_file() {
        for place in PLACES {
            let text = format!("see {}something\n", place.concat());
            assert_eq!(places(&file("docs/x.md", &text)).len(), 1, "{text}");
        }
        assert!(places(&file("docs/x.md", "see /workspace/src and the root/ folder\n")).is_empty());
        let allowed = file("crates/sandbox/tests/it/shell/files.rs", &format!("        \"/ro{}.bashrc\",\n", "ot/"));
        assert!(places(&allowed).is_empty());
        assert_eq!(places(&file("crates/sandbox/tests/it/shell/other.rs", &allowed.text)).len(), 1);
    }

    #[test]
    fn unfinished_code_is_found() {
        tells(in_modules, (PATH, "fn f() { todo!() }\n"), (PATH, "// todo!()\nlet todo = 1;\n"), "todo!");
        tells(in_modules, (PATH, "dbg!(x);\n"), (PATH, "let s = \"dbg!(x)\";\n"), "dbg!");
        tells(in_modules, (PATH, "#[test]\n#[ignore]\nfn f() {}\n"), (PATH, "fn ignore() {}\n"), "ignored");
        tells(in_modules, (PATH, "std::env::set_var(a, b);\n"), (PATH, "let var = std::env::var(a);\n"), "environment");
    }

    #[test]
    fn what_npm_installed_is_found() {
        let files = [file("conformance/x/node_modules/y/z.js", "x"), file("conformance/x/node_modules.mjs", "x")];
        assert_eq!(check(&files, &[]).len(), 1);
    }
}
