//! Four layers of settings become one, and each setting knows where it is from.
//!
//! Each setting is tried alone against the shape, so that one mistake does not hide the next.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::raw::Raw;
use super::{Problem, Sources};

/// Variables that begin so may be settings.
pub(super) const PREFIX: &str = "BAILIWICK_";
/// Variables of ours that are no settings.
const NO_SETTINGS: [&str; 7] = [
    "BAILIWICK_URL",
    "BAILIWICK_API_KEY",
    "BAILIWICK_ACCOUNT",
    "BAILIWICK_USER",
    "BAILIWICK_LOG",
    "BAILIWICK_ADMIN_USERNAME",
    "BAILIWICK_ADMIN_PASSWORD",
];
/// All defaults, commented.
pub(crate) const DEFAULTS: &str = include_str!("default.toml");
/// What the contract knows and this version does not do. Refused, because ignored it would deceive.
const NOT_YET: [&str; 1] = ["relay"];

/// Where a setting is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf, usize),
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One effective setting.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

type KeyPath = Vec<String>;

/// The merged settings.
pub(super) struct Layers {
    pub(super) table: Table,
    origins: BTreeMap<KeyPath, Origin>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Layers {
    /// Merges all sources. What does not fit the shape is left out and reported.
    pub(super) fn merge(sources: &Sources) -> Self {
        let defaults: Table = toml::from_str(DEFAULTS).unwrap_or_default();
        let mut layers =
            Self { table: defaults.clone(), origins: BTreeMap::new(), problems: Vec::new(), warnings: Vec::new() };
        if let Some(path) = &sources.file {
            layers.add_file(&defaults, path);
        }
        layers.add_environment(&defaults, sources);
        for (key, value, name) in &sources.flags {
            let path = key.split('.').map(str::to_owned).collect();
            layers.add_text(&defaults, path, value, Origin::Flag(name));
        }
        layers
    }

    /// Where a key is from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let path: KeyPath = key.split('.').map(str::to_owned).collect();
        let below = |path: &[String]| self.origins.iter().find(|(held, _)| held.starts_with(path)).map(|(_, at)| at);
        // What is missing in a model is told at the model.
        let model = path.get(..2).filter(|model| model[0] == "model");
        let found = self.origins.get(&path).or_else(|| below(&path)).or_else(|| model.and_then(below));
        found.cloned().unwrap_or(Origin::Default)
    }

    /// Reports a mistake at the place where the key was set.
    pub(super) fn wrong(&mut self, key: &str, text: impl Into<String>) {
        let problem = Problem { at: self.origin(key), key: key.to_owned(), text: text.into() };
        self.problems.push(problem);
    }

    /// Notes something that deserves a look.
    pub(super) fn warn(&mut self, key: &str, text: impl Into<String>) {
        let problem = Problem { at: self.origin(key), key: key.to_owned(), text: text.into() };
        self.warnings.push(problem);
    }

    /// The effective settings, secrets masked.
    pub(super) fn effective(&self) -> Vec<Entry> {
        let mut leaves = Vec::new();
        flatten(&self.table, &mut Vec::new(), &mut leaves);
        leaves
            .into_iter()
            .map(|(path, value)| {
                // A database's address can hold a password.
                let address = value.as_str().is_some_and(|url| url.starts_with("postgres"));
                let secret = path.last().is_some_and(|name| name == "root_api_key") || address;
                let value = if secret { Value::String("********".to_owned()) } else { value.clone() };
                let origin = self.origins.get(&path).cloned().unwrap_or(Origin::Default);
                Entry { key: show(&path), value, origin }
            })
            .collect()
    }

    fn add_file(&mut self, defaults: &Table, path: &PathBuf) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let at = Origin::File(path.clone(), 0);
                return self.problems.push(Problem {
                    at,
                    key: String::new(),
                    text: format!("cannot be read: {error}"),
                });
            }
        };
        let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let (spans, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let at = Origin::File(path.clone(), error.span().map_or(0, |span| line(span.start)));
            self.problems.push(Problem { at, key: String::new(), text: error.message().to_owned() });
        }
        let table: Table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(error) => {
                if errors.is_empty() {
                    let at = Origin::File(path.clone(), error.span().map_or(0, |span| line(span.start)));
                    self.problems.push(Problem { at, key: String::new(), text: error.message().to_owned() });
                }
                return;
            }
        };
        let mut places = BTreeMap::new();
        offsets(spans.get_ref(), &mut Vec::new(), &mut places);
        let mut leaves = Vec::new();
        flatten(&table, &mut Vec::new(), &mut leaves);
        for (key, value) in leaves {
            let origin = Origin::File(path.clone(), places.get(&key).map_or(0, |offset| line(*offset)));
            match fits(defaults, &table, &key, value) {
                Ok(()) => self.set(key, value.clone(), origin),
                Err(text) => self.problems.push(Problem { at: origin, key: show(&key), text }),
            }
        }
    }

    fn add_environment(&mut self, defaults: &Table, sources: &Sources) {
        for (name, value) in &sources.environment {
            let origin = Origin::Environment(name.clone());
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if rest.contains("__") {
                let path = rest.to_lowercase().split("__").map(str::to_owned).collect();
                self.add_text(defaults, path, value, origin);
            } else if !NO_SETTINGS.contains(&name.as_str()) {
                let text =
                    "is not a setting: a setting is named BAILIWICK_SECTION__KEY, with two underscores".to_owned();
                self.warnings.push(Problem { at: origin, key: String::new(), text });
            }
        }
    }

    /// Takes a value that came as text: as a string if a string is wanted, else as TOML, else as a list
    /// with commas.
    fn add_text(&mut self, defaults: &Table, path: KeyPath, text: &str, origin: Origin) {
        let parsed =
            toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"));
        let list = || Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect());
        let as_string = Value::String(text.to_owned());
        let mut first_problem = None;
        for candidate in [Some(as_string), parsed, Some(list())].into_iter().flatten() {
            match fits(defaults, &self.table, &path, &candidate) {
                Ok(()) => return self.set(path, candidate, origin),
                Err(problem) => first_problem = first_problem.or(Some(problem)),
            }
        }
        let text = first_problem.unwrap_or_default();
        self.problems.push(Problem { at: origin, key: show(&path), text });
    }

    fn set(&mut self, path: KeyPath, value: Value, origin: Origin) {
        put(&mut self.table, &path, value);
        self.origins.insert(path, origin);
    }
}

/// Tries one setting alone, on top of the defaults.
fn fits(defaults: &Table, whole: &Table, path: &[String], value: &Value) -> Result<(), String> {
    let key = show(path);
    if NOT_YET.iter().any(|not_yet| key == *not_yet || key.starts_with(&format!("{not_yet}."))) {
        return Err("not supported in this version: remove it".to_owned());
    }
    let mut alone = defaults.clone();
    put(&mut alone, path, value.clone());
    // A model's only key without a default: the setting shall not be blamed for its absence.
    if let [section, name, rest @ ..] = path
        && section == "model"
        && rest != ["provider"]
    {
        let told = whole.get("model").and_then(|models| models.get(name)).and_then(|model| model.get("provider"));
        let known = told.filter(|told| matches!(told.as_str(), Some("anthropic" | "openai" | "scripted")));
        let provider = known.cloned().unwrap_or_else(|| Value::String("scripted".to_owned()));
        put(&mut alone, &[section.clone(), name.clone(), "provider".to_owned()], provider);
    }
    match Raw::deserialize(Value::Table(alone)) {
        Ok(_) => Ok(()),
        Err(error) => Err(said(error.message())),
    }
}

/// The parser's words, or ours where a key is unknown.
fn said(message: &str) -> String {
    match message.strip_prefix("unknown field").and_then(|rest| rest.split_once("expected ")) {
        Some((_, known)) => format!("unknown key: use {}", known.replace('`', "")),
        None => message.to_owned(),
    }
}

fn put(table: &mut Table, path: &[String], value: Value) {
    let Some((last, folders)) = path.split_last() else { return };
    let mut at = table;
    for folder in folders {
        let inner = at.entry(folder.clone()).or_insert_with(|| Value::Table(Table::new()));
        if !inner.is_table() {
            *inner = Value::Table(Table::new());
        }
        let Value::Table(inner) = inner else { return };
        at = inner;
    }
    at.insert(last.clone(), value);
}

/// Everything that is no table, and empty tables, so that an unknown empty section is seen.
fn flatten<'a>(table: &'a Table, path: &mut KeyPath, out: &mut Vec<(KeyPath, &'a Value)>) {
    for (name, value) in table {
        path.push(name.clone());
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, path, out),
            Value::Table(_) if path.len() == 1 && KNOWN_SECTIONS.contains(&name.as_str()) => {}
            value => out.push((path.clone(), value)),
        }
        path.pop();
    }
}

/// Sections that may stand empty.
const KNOWN_SECTIONS: [&str; 11] =
    ["server", "auth", "database", "objects", "model", "sandbox", "gate", "notifications", "vault", "agents", "log"];

fn offsets(table: &DeTable<'_>, path: &mut KeyPath, out: &mut BTreeMap<KeyPath, usize>) {
    for (name, value) in table {
        path.push(name.get_ref().to_string());
        out.insert(path.clone(), name.span().start);
        if let DeValue::Table(inner) = value.get_ref() {
            offsets(inner, path, out);
        }
        path.pop();
    }
}

fn show(path: &[String]) -> String {
    path.join(".")
}
