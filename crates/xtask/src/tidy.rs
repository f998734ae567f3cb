//! Rules of the repository that the compiler cannot say. Each is a function from files to findings, and
//! each has a bad sample among its tests: a check that cannot fail is a defect.

mod arrows;
mod seams;
mod shape;
mod sql;
mod words;

use std::fmt;

use crate::checklist;
use crate::console::{fail, say};
use crate::repository::{File, Repository};
use crate::rust::Source;

/// Something that must not be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A Rust file of a crate, read.
pub(crate) struct Module<'a> {
    pub(crate) path: &'a str,
    pub(crate) crate_name: &'a str,
    pub(crate) text: &'a str,
    pub(crate) source: Source,
}

impl<'a> Module<'a> {
    /// The Rust files among these.
    pub(crate) fn all(files: &'a [File]) -> Vec<Self> {
        let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
        rust.filter_map(|file| {
            let crate_name = crate::repository::crate_of(&file.path)?;
            let source = Source::new(&file.path, &file.text);
            Some(Self { path: &file.path, crate_name, text: &file.text, source })
        })
        .collect()
    }

    /// Lines of code that are not tests, with their numbers.
    pub(crate) fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.source.lines().filter(|(line, _)| !self.source.is_test(*line))
    }
}

/// Checks the repository.
pub(crate) fn run(repository: &Repository) -> Result<(), String> {
    let files = repository.files().map_err(|error| format!("the repository cannot be read: {error}"))?;
    let modules = Module::all(&files);
    let mut findings = Vec::new();
    findings.extend(arrows::check(&files));
    findings.extend(shape::check(&files, &modules));
    findings.extend(seams::check(&modules));
    findings.extend(sql::check(&modules));
    findings.extend(words::check(&files, &modules));
    findings.extend(checklist::unknown_ids(&files, &modules));
    if findings.is_empty() {
        say(&format!("tidy: {} files, nothing found", files.len()));
        return Ok(());
    }
    for finding in &findings {
        fail(&finding.to_string());
    }
    Err(format!("tidy: {} things to mend", findings.len()))
}

#[cfg(test)]
pub(crate) mod sample {
    //! Files that a check must say yes or no to.

    use super::*;

    /// One file.
    pub(crate) fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    /// What a check of modules says about one file.
    pub(crate) fn findings(check: impl Fn(&[Module<'_>]) -> Vec<Finding>, path: &str, text: &str) -> Vec<String> {
        let files = [file(path, text)];
        check(&Module::all(&files)).into_iter().map(|finding| finding.to_string()).collect()
    }

    /// Checks that a sample is found, and that its counterpart is not.
    pub(crate) fn tells(
        check: impl Fn(&[Module<'_>]) -> Vec<Finding>,
        bad: (&str, &str),
        good: (&str, &str),
        word: &str,
    ) {
        let found = findings(&check, bad.0, bad.1);
        assert_eq!(found.len(), 1, "bad: {found:?}");
        assert!(found[0].contains(word), "{found:?}");
        assert_eq!(findings(&check, good.0, good.1), Vec::<String>::new(), "good");
    }
}
