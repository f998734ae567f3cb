//! The script's file format. Unknown keys are errors, and so is anything that could never
//! answer; a mistake is reported with its file and line.
//!
//! ```yaml
//! delay_ms: 0              # pause before each event, for all steps
//! chunk_chars: 20          # stream text in pieces of so many characters; default: whole
//! turns:                   # the first entry that fits a call answers it
//!   - when: { user: "deploy" }
//!     steps:               # one step for each model call since the user's message
//!       - reasoning: "A file first."
//!         text: "I will write the file."
//!         tools: [{ name: write_file, input: { path: notes.txt, content: "for {{user}}" } }]
//!       - text: "Done: {{last_tool_result}}"
//!   - default: true
//!     repeat: last         # last | all: what answers when the steps are used up
//!     steps: [{ text: "I heard: {{user}}" }]
//! ```
//!
//! `when` has one or more of `user` (a part of the last user message), `user_regex`, `any_user`
//! (a part of any user message that the call shows), `tool_result` (a part of the newest tool result of the turn), `turn` and `step` (counted from
//! 1); all of them have to hold. An entry that asks for `tool_result` or `step` answers one
//! call, so it has one step; put it above the entry whose steps it interrupts.
//!
//! A step may also have `finish` (`stop`, `tool-calls`, `length`, `content-filter`, `other`),
//! `usage` (`input_tokens`, `output_tokens`, `cache_read_tokens`, `cache_write_tokens`),
//! `delay_ms`, `chunk_chars`, and `fail` (`status`, `message`, `retry_after_seconds`), which
//! ends the answer with an error, after the step's text if there is some.

use std::io::Read as _;
use std::path::Path;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer};

use super::template::{Template, TemplateValue};
use crate::{Finish, Usage};

/// A script that was read and checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(default)]
    pub(super) delay_ms: u64,
    #[serde(default)]
    pub(super) chunk_chars: Option<usize>,
    pub(super) turns: Vec<Entry>,
}

/// Answers to the calls that fit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(default)]
    pub(super) when: Option<When>,
    #[serde(default)]
    default: Option<bool>,
    #[serde(default)]
    pub(super) repeat: Repeat,
    pub(super) steps: Vec<Step>,
}

/// What has to hold for an entry to fit.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct When {
    pub(super) user: Option<String>,
    #[serde(deserialize_with = "pattern")]
    pub(super) user_regex: Option<Regex>,
    pub(super) any_user: Option<String>,
    pub(super) tool_result: Option<String>,
    pub(super) turn: Option<usize>,
    pub(super) step: Option<usize>,
}

/// What answers when an entry's steps are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Repeat {
    /// Nothing: the call fails.
    #[default]
    Never,
    /// The last step, again and again.
    Last,
    /// All of them, from the first.
    All,
}

/// The answer to one call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    #[serde(default)]
    pub(super) reasoning: Option<Template>,
    #[serde(default)]
    pub(super) text: Option<Template>,
    #[serde(default)]
    pub(super) tools: Vec<ScriptedCall>,
    #[serde(default)]
    pub(super) finish: Option<Finish>,
    #[serde(default)]
    pub(super) usage: Option<ScriptedUsage>,
    #[serde(default)]
    pub(super) delay_ms: Option<u64>,
    #[serde(default)]
    pub(super) chunk_chars: Option<usize>,
    #[serde(default)]
    pub(super) fail: Option<Fail>,
}

/// A tool call to ask for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptedCall {
    pub(super) name: String,
    #[serde(default)]
    pub(super) input: TemplateValue,
}

/// Token numbers to report instead of an estimate.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScriptedUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
}

impl From<ScriptedUsage> for Usage {
    fn from(usage: ScriptedUsage) -> Self {
        let ScriptedUsage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens } = usage;
        Self { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens }
    }
}

/// An error to end with, as if a provider had answered so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fail {
    pub(super) status: u16,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) retry_after_seconds: Option<u64>,
}

/// Why a script cannot be used. Operators and authors read it: it names the file.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("{file}: the script cannot be read")]
    Unreadable {
        /// The file as configured.
        file: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is longer than a script may be.
    #[error("{file}: a script has at most 1 MiB")]
    TooLong {
        /// The file as configured.
        file: String,
    },
    /// The file is not a script.
    #[error("{file}:{line}: {problem}")]
    Format {
        /// The file as configured.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong there, and what to do.
        problem: String,
    },
    /// An entry contradicts itself.
    #[error("{file}: entry {entry} of `turns`: {problem}")]
    Entry {
        /// The file as configured.
        file: String,
        /// The entry, from 1.
        entry: usize,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
}

impl Script {
    /// Reads and checks a script's file.
    ///
    /// # Errors
    /// If it cannot be read or is not a script.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let file = path.display().to_string();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|open| open.take(MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(|source| ScriptError::Unreadable { file: file.clone(), source })?;
        Self::parse(&file, &text)
    }

    /// Reads and checks a script's text. `file` is the name in errors.
    ///
    /// # Errors
    /// If it is not a script.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScriptError> {
        if text.len() as u64 > MAX_BYTES {
            return Err(ScriptError::TooLong { file: file.to_owned() });
        }
        let script: Self = serde_saphyr::from_str(text).map_err(|error| ScriptError::Format {
            file: file.to_owned(),
            line: error.location().map_or(1, |location| location.line()),
            problem: error.without_snippet().to_string(),
        })?;
        if script.turns.is_empty() {
            return Err(ScriptError::Entry { file: file.to_owned(), entry: 1, problem: "add at least one entry" });
        }
        let sane_pace = |delay: u64, chunk: Option<usize>| delay <= MAX_DELAY_MS && chunk != Some(0);
        for (index, entry) in script.turns.iter().enumerate() {
            let last = index + 1 == script.turns.len();
            let paces = entry.steps.iter().all(|step| sane_pace(step.delay_ms.unwrap_or(0), step.chunk_chars));
            let problem = if !paces || !sane_pace(script.delay_ms, script.chunk_chars) {
                Some("set `delay_ms` to at most 600000 and `chunk_chars` to at least 1")
            } else {
                entry.problem().or_else(|| {
                    (entry.when.is_none() && !last)
                        .then_some("move it to the end: entries after `default: true` never answer")
                })
            };
            if let Some(problem) = problem {
                return Err(ScriptError::Entry { file: file.to_owned(), entry: index + 1, problem });
            }
        }
        Ok(script)
    }
}

impl Entry {
    fn problem(&self) -> Option<&'static str> {
        match (&self.when, self.default) {
            (None, Some(true)) => {}
            (Some(when), None) if when.asks_something() => {
                if when.answers_one_call() && self.steps.len() != 1 {
                    return Some("give it exactly one step, since `tool_result` or `step` picks one call");
                }
                if when.turn == Some(0) || when.step == Some(0) {
                    return Some("count `turn` and `step` from 1");
                }
            }
            (Some(_), None) => {
                return Some("give `when` at least one condition, or write `default: true`");
            }
            _ => return Some("give it either `when` or `default: true`"),
        }
        if self.steps.is_empty() {
            return Some("add at least one step");
        }
        let silent = |step: &Step| step.text.is_none() && step.tools.is_empty() && step.fail.is_none();
        if self.steps.iter().any(silent) {
            return Some("give each step `text`, `tools` or `fail`");
        }
        let failures = self.steps.iter().filter_map(|step| step.fail.as_ref());
        if failures.into_iter().any(|fail| !(400..=599).contains(&fail.status)) {
            return Some("set the `status` of `fail` between 400 and 599");
        }
        None
    }
}

impl When {
    fn asks_something(&self) -> bool {
        self.user.is_some()
            || self.user_regex.is_some()
            || self.any_user.is_some()
            || self.turn.is_some()
            || self.answers_one_call()
    }

    /// Whether the conditions pick one call of a turn and not a whole turn.
    pub(super) fn answers_one_call(&self) -> bool {
        self.tool_result.is_some() || self.step.is_some()
    }
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let built = RegexBuilder::new(&text).size_limit(1 << 20).build();
    built.map(Some).map_err(|_| serde::de::Error::custom("`user_regex` is not a regular expression"))
}

const MAX_BYTES: u64 = 1024 * 1024;
const MAX_DELAY_MS: u64 = 600_000;
