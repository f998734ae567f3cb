//! Which row of the acceptance checklist which test shows.
//!
//! The rows stand in `docs/checklist-rows.txt`. A test shows a row by having its id, in lower case, as a
//! part of its name (`t04_an_approved_call_begins_once`). A row without a test is open, and an open row
//! must be named in `docs/limits.md` with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::console::say;
use crate::repository::{File, Repository};
use crate::tidy::{Finding, Module};

const ROWS: &str = "docs/checklist-rows.txt";
const PAGE: &str = "docs/checklist.md";
const LIMITS: &str = "docs/limits.md";

/// A section of the checklist.
struct Section {
    title: String,
    rows: Vec<(String, String)>,
}

/// Writes the page.
pub(crate) fn write(repository: &Repository) -> Result<(), String> {
    let (page, _) = page(&read(repository)?)?;
    std::fs::write(repository.root().join(PAGE), page).map_err(|error| format!("{PAGE} cannot be written: {error}"))?;
    say(&format!("{PAGE} is written"));
    Ok(())
}

/// Says whether the page is what would be written, and whether each open row has its reason.
pub(crate) fn check(repository: &Repository) -> Result<(), String> {
    let files = read(repository)?;
    let (page, open) = page(&files)?;
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    if text(PAGE) != page {
        return Err(format!("{PAGE} is out of date: run `cargo xtask checklist` and commit what it writes"));
    }
    let named = named_ids(text(LIMITS));
    let silent: Vec<&str> = open.iter().map(String::as_str).filter(|id| !named.contains(*id)).collect();
    if !silent.is_empty() {
        return Err(format!("rows without a test and without a word in {LIMITS}: {}", silent.join(" ")));
    }
    say(&format!("checklist: {} rows open, each with its reason", open.len()));
    Ok(())
}

fn read(repository: &Repository) -> Result<Vec<File>, String> {
    repository.files().map_err(|error| format!("the repository cannot be read: {error}"))
}

fn rows(files: &[File]) -> Result<Vec<Section>, String> {
    let file = files.iter().find(|file| file.path == ROWS).ok_or_else(|| format!("{ROWS} is missing"))?;
    let mut sections: Vec<Section> = Vec::new();
    for line in file.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            sections.push(Section { title: title.to_owned(), rows: Vec::new() });
            continue;
        }
        let row = line.split_once(' ').filter(|(id, _)| is_id(&id.to_lowercase()));
        match (row, sections.last_mut()) {
            (Some((id, text)), Some(section)) => section.rows.push((id.to_owned(), text.to_owned())),
            _ => return Err(format!("{ROWS}: this is no row: {line}")),
        }
    }
    Ok(sections)
}

/// `a01` and the like.
fn is_id(word: &str) -> bool {
    matches!(word.as_bytes(), [letter, tens, ones]
        if letter.is_ascii_lowercase() && tens.is_ascii_digit() && ones.is_ascii_digit())
}

fn ids_in(test: &str) -> impl Iterator<Item = String> {
    test.split('_').filter(|word| is_id(word)).map(str::to_uppercase)
}

/// Tests that claim a row which does not exist.
pub(crate) fn unknown_ids(files: &[File], modules: &[Module<'_>]) -> Vec<Finding> {
    let sections = match rows(files) {
        Ok(sections) => sections,
        Err(error) => return vec![Finding::new(ROWS, 1, error)],
    };
    let known: BTreeSet<&str> = sections.iter().flat_map(|section| &section.rows).map(|(id, _)| id.as_str()).collect();
    let mut findings = Vec::new();
    for module in modules {
        for test in module.source.tests() {
            for id in ids_in(&test.name).filter(|id| !known.contains(id.as_str())) {
                let what = format!("the test {} names the row {id}, which is none", test.name);
                findings.push(Finding::new(module.path, test.line, what));
            }
        }
    }
    findings
}

/// The page, and the ids of the rows that are open.
fn page(files: &[File]) -> Result<(String, Vec<String>), String> {
    let sections = rows(files)?;
    let modules = Module::all(files);
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for module in &modules {
        for test in module.source.tests() {
            for id in ids_in(&test.name) {
                shown.entry(id).or_default().push(format!("{}: `{}`", module.crate_name, test.name));
            }
        }
    }
    let all = sections.iter().map(|section| section.rows.len()).sum::<usize>();
    let open: Vec<String> = sections
        .iter()
        .flat_map(|section| &section.rows)
        .filter(|(id, _)| !shown.contains_key(id))
        .map(|(id, _)| id.clone())
        .collect();
    let mut page = format!(
        "# Acceptance checklist\n\nMade by `cargo xtask checklist`; do not edit. {} of {all} rows have a test; why the \
         others are open, and what a tested row still lacks, is in [limits.md](limits.md).\n",
        all - open.len(),
    );
    for section in &sections {
        // Writing into a string cannot fail.
        let _ = write!(
            page,
            "\n## {}\n\n| row | what is done, and what must be seen | shown by |\n|---|---|---|\n",
            section.title
        );
        for (id, text) in &section.rows {
            let tests = shown.get(id).map_or_else(|| "**open**".to_owned(), |tests| tests.join("<br>"));
            let _ = writeln!(page, "| {id} | {} | {tests} |", text.replace('|', "\\|"));
        }
    }
    Ok((page, open))
}

/// Ids that a text names, also as a range: `N01–N08`.
fn named_ids(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut last: Option<String> = None;
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '–') {
        for (n, part) in word.split('–').enumerate() {
            if !is_id(&part.to_lowercase()) || part != part.to_uppercase() {
                last = None;
                continue;
            }
            if n > 0
                && let Some(first) = &last
                && first[..1] == part[..1]
            {
                let range = first[1..].parse::<u8>().ok().zip(part[1..].parse::<u8>().ok());
                let (from, to) = range.unwrap_or((1, 0));
                named.extend((from..=to).map(|number| format!("{}{number:02}", &part[..1])));
            }
            named.insert(part.to_owned());
            last = Some(part.to_owned());
        }
    }
    named
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::tidy::sample::file;

    fn sample(tests: &str) -> Vec<File> {
        vec![
            file("crates/store/tests/it/a.rs", tests),
            file(ROWS, "# rows\n== A. Access\nA01 no key | no way in\nA02 lists\n== Z. Storage\nZ02 kill -9\n"),
        ]
    }

    #[test]
    fn rows_are_matched_with_tests_by_id() {
        let files =
            sample("#[test]\nfn a01_no_key() {}\n#[tokio::test]\nasync fn killed_z02_twice() {}\nfn a02_helper() {}\n");
        let (page, open) = page(&files).unwrap();
        assert_eq!(open, ["A02"]);
        assert!(page.contains("| A01 | no key \\| no way in | store: `a01_no_key` |"), "{page}");
        assert!(page.contains("| Z02 | kill -9 | store: `killed_z02_twice` |"));
        assert!(page.contains("| A02 | lists | **open** |"));
        assert!(page.contains("2 of 3 rows"));
    }

    #[test]
    fn a_test_that_names_no_row_is_found() {
        let files = sample("#[test]\nfn a99_what() {}\n#[test]\nfn a01_fine() {}\n");
        let found = unknown_ids(&files, &Module::all(&files));
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().contains("A99"));
        assert_eq!(unknown_ids(&files[..1], &Module::all(&files)).len(), 1, "no rows at all");
    }

    #[test]
    fn a_line_that_is_no_row_is_found() {
        assert!(rows(&[file(ROWS, "== A\nA1 too short\n")]).is_err());
        assert!(rows(&[file(ROWS, "A01 before any section\n")]).is_err());
    }

    #[test]
    fn ids_and_ranges_are_read_from_prose() {
        let named = named_ids("A01, (B02) and N01–N03; not a04, not N09x, E07.");
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["A01", "B02", "E07", "N01", "N02", "N03"]);
    }
}
