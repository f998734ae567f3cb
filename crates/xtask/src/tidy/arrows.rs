//! Which crate may use which. The table is exact: an arrow that is missing here does not compile into the
//! product unseen, and one that is no longer used does not stay here as a permission.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::repository::File;

/// Each crate and what it uses, lowest first: a crate may only use those above it in this list.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("audit", &["types"]),
    ("auth", &["types", "audit"]),
    ("outbound", &["types", "auth"]),
    ("files", &["types"]),
    ("egress", &["types"]),
    ("vault", &["types", "audit", "auth"]),
    ("shell", &["types", "files"]),
    ("store", &["types", "audit", "auth", "files"]),
    ("testkit", &["store"]),
    ("sandbox", &["types", "audit", "auth", "files", "egress", "shell"]),
    ("model", &["outbound", "vault"]),
    ("tools", &["types", "audit", "auth", "files", "vault", "store", "sandbox"]),
    ("agent", &["types", "audit", "auth", "outbound", "files", "vault", "store", "model", "tools"]),
    ("web", &["types", "audit", "auth", "files", "vault", "store", "sandbox", "tools", "agent"]),
    ("crash", &["types"]),
    ("bench", &["types", "audit", "auth", "files", "egress", "sandbox", "shell", "store", "testkit"]),
    (
        "bailiwick",
        &["types", "audit", "auth", "outbound", "vault", "store", "sandbox", "model", "tools", "agent", "web"],
    ),
    ("xtask", &[]),
];

/// What tests may use besides: this, and whatever stands before their crate in the table.
const FOR_TESTS: &str = "testkit";

const OURS: &str = "bailiwick-";

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let table: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    findings.extend(turning_back(ARROWS));
    let order: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let mut seen = BTreeSet::new();
    for file in files {
        let Some(folder) = file.path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/Cargo.toml")) else {
            continue;
        };
        let Some(allowed) = table.get(folder) else {
            findings.push(Finding::new(&file.path, 1, "a crate that is not in the table of arrows (xtask, arrows.rs)"));
            continue;
        };
        seen.insert(folder);
        match manifest(&file.text) {
            Ok(manifest) => {
                let before = order.iter().take_while(|name| **name != folder).copied().chain([FOR_TESTS]).collect();
                findings.extend(compare(&file.path, allowed, &before, &manifest));
            }
            Err(error) => findings.push(Finding::new(&file.path, 1, error)),
        }
    }
    for gone in table.keys().filter(|name| !seen.contains(*name)) {
        findings.push(Finding::new("crates/xtask/src/tidy/arrows.rs", 1, format!("there is no crate {gone}")));
    }
    if let Some(map) = files.iter().find(|file| file.path == "ARCHITECTURE.md") {
        findings.extend(drawn(map, &table.keys().copied().collect()));
    }
    findings
}

/// The table itself must have an order.
fn turning_back(table: &[(&str, &[&str])]) -> Vec<Finding> {
    let mut before = BTreeSet::new();
    let mut findings = Vec::new();
    for (name, uses) in table {
        for used in uses.iter().filter(|used| !before.contains(*used)) {
            let what = format!("the arrow from {name} to {used} turns back");
            findings.push(Finding::new("crates/xtask/src/tidy/arrows.rs", 1, what));
        }
        before.insert(*name);
    }
    findings
}

struct Manifest {
    product: BTreeSet<String>,
    tests: BTreeSet<String>,
}

fn manifest(text: &str) -> Result<Manifest, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("cannot be read: {error}"))?;
    let mut manifest = Manifest { product: BTreeSet::new(), tests: BTreeSet::new() };
    manifest.add(&table);
    // Dependencies of one platform are dependencies.
    let platforms = table.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|all| all.values());
    platforms.filter_map(toml::Value::as_table).for_each(|platform| manifest.add(platform));
    Ok(manifest)
}

impl Manifest {
    fn add(&mut self, table: &toml::Table) {
        self.product.extend(ours(table, "dependencies"));
        self.product.extend(ours(table, "build-dependencies"));
        self.tests.extend(ours(table, "dev-dependencies"));
    }
}

/// Our crates in a section, by their own names even where the section calls them otherwise.
fn ours(table: &toml::Table, section: &str) -> BTreeSet<String> {
    let entries = table.get(section).and_then(toml::Value::as_table).into_iter().flatten();
    let names = entries.map(|(name, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(name));
    names.filter_map(|name| name.strip_prefix(OURS).map(str::to_owned)).collect()
}

fn compare(path: &str, allowed: &BTreeSet<&str>, for_tests: &BTreeSet<&str>, manifest: &Manifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    for used in manifest.product.iter().filter(|used| !allowed.contains(used.as_str())) {
        findings.push(Finding::new(path, 1, format!("uses {used}, to which it has no arrow")));
    }
    for unused in allowed.iter().filter(|used| !manifest.product.contains(**used)) {
        findings.push(Finding::new(path, 1, format!("does not use {unused} any more: take the arrow away")));
    }
    for used in manifest.tests.iter().filter(|used| !for_tests.contains(used.as_str())) {
        findings.push(Finding::new(path, 1, format!("its tests use {used}, to which it has no arrow")));
    }
    findings
}

/// ARCHITECTURE.md has a table whose rows begin with the crates' names; it must name them all.
fn drawn(map: &File, crates: &BTreeSet<&str>) -> Vec<Finding> {
    let rows: BTreeSet<&str> =
        map.text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name)).collect();
    let missing = crates.difference(&rows).map(|name| format!("the crate {name} is not in the table of crates"));
    let gone = rows.difference(crates).map(|name| format!("the table of crates names {name}, which is none"));
    missing.chain(gone).map(|what| Finding::new(&map.path, 1, what)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::tidy::sample::file;

    fn of(text: &str, allowed: &[&str]) -> Vec<String> {
        let manifest = manifest(text).unwrap();
        compare("crates/x/Cargo.toml", &allowed.iter().copied().collect(), &BTreeSet::from([FOR_TESTS]), &manifest)
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_found_in_every_section_and_spelling() {
        assert_eq!(of("[dependencies]\nbailiwick-types.workspace = true\nserde = \"1\"\n", &["types"]), [""; 0]);
        for bad in [
            "[dependencies]\nbailiwick-store.workspace = true\n",
            "[dependencies]\nbailiwick-store = { path = \"../store\" }\n",
            "[dependencies.bailiwick-store]\nworkspace = true\n",
            "[build-dependencies]\nbailiwick-store.workspace = true\n",
            "[dev-dependencies]\nbailiwick-store.workspace = true\n",
            "[target.'cfg(unix)'.dependencies]\nbailiwick-store.workspace = true\n",
            "[dependencies]\nharmless = { package = \"bailiwick-store\", path = \"../store\" }\n",
        ] {
            let found = of(bad, &[]);
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
            assert!(found[0].contains("store, to which it has no arrow"), "{found:?}");
        }
        assert_eq!(of("[dev-dependencies]\nbailiwick-testkit.workspace = true\n", &[]), [""; 0]);
    }

    #[test]
    fn an_arrow_that_nobody_uses_is_found() {
        assert!(of("[dependencies]\n", &["types"])[0].contains("does not use types any more"));
    }

    #[test]
    fn a_table_that_turns_back_is_found() {
        assert!(turning_back(ARROWS).is_empty());
        let found = turning_back(&[("a", &["b"]), ("b", &["a"])]);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().contains("from a to b"));
    }

    #[test]
    fn a_crate_without_a_place_in_the_table_or_in_the_map_is_found() {
        let found = check(&[file("crates/sneaky/Cargo.toml", "[package]\nname = \"sneaky\"\n")]);
        assert!(found.iter().any(|finding| finding.path == "crates/sneaky/Cargo.toml"));
        let map = file("ARCHITECTURE.md", "| crate | owns |\n|---|---|\n| `types` | ids |\n| `ghost` | nothing |\n");
        let found = drawn(&map, &BTreeSet::from(["types", "audit"]));
        let found: Vec<_> = found.into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            found,
            ["the crate audit is not in the table of crates", "the table of crates names ghost, which is none"]
        );
    }
}
