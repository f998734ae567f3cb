//! `glob` and `grep`: what is where in the workspace. Bounded in files, in bytes and in matches.

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallTool;
use bailiwick_files::{EntryKind, WalkLimits, Workspace};
use bailiwick_types::WorkspacePath;
use bailiwick_types::limits::{OUTPUT_BYTES, OUTPUT_LINE_CHARS};
use globset::{Glob, GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};

use super::{blocking, count, failed, path_or_root, text};
use crate::run::{Context, Outcome, ToolError, ToolManager, Verdict};

/// Entries that are looked at.
const ENTRIES: usize = 50_000;
/// The largest file that is searched, bytes.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Bytes that one search reads.
const BYTES: u64 = 256 * 1024 * 1024;
const USUAL_LIMIT: usize = 100;

/// Alternatives inside alternatives; more is nothing that a person would write.
const NESTED: usize = 4;

/// Reads a pattern. Called away from the threads that serve requests, because a hostile pattern can
/// cost more than a glance.
fn matcher(pattern: &str) -> Result<GlobMatcher, ToolError> {
    let mut depth = 0usize;
    for letter in pattern.bytes() {
        match letter {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTED {
            return Err(ToolError::Said("the pattern nests its alternatives too deep".to_owned()));
        }
    }
    let glob: Result<Glob, _> = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| ToolError::Said(format!("the pattern cannot be read: {error}")))
}

pub(crate) async fn glob(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let start = path_or_root(arguments)?;
    let pattern = text(arguments, "pattern").to_owned();
    let limit = count(arguments, "limit").unwrap_or(USUAL_LIMIT);
    let files = manager.files(act, context).await?.files;
    let (found, truncated) = blocking(move || {
        let matcher = matcher(&pattern)?;
        let mut walk = files.walk(&start, limits()).map_err(failed(&start))?;
        let mut found = Vec::new();
        let mut more = false;
        for walked in walk.by_ref() {
            if walked.entry.kind != EntryKind::File || !fits(&matcher, &start, &walked.path) {
                continue;
            }
            if found.len() == limit {
                more = true;
                break;
            }
            found.push(walked.path.in_sandbox());
        }
        Ok((found, more || walk.truncated()))
    })
    .await?;
    let detail = Map::from_iter([("found".to_owned(), json!(found.len()))]);
    let output = json!({ "paths": found, "truncated": truncated });
    Ok(Outcome { verdict: Verdict::Completed, output, seen: Vec::new(), detail })
}

fn limits() -> WalkLimits {
    WalkLimits { entries: ENTRIES, ..WalkLimits::default() }
}

/// A pattern fits the path below the folder that was named; one without a slash fits the file's name.
fn fits(matcher: &GlobMatcher, start: &WorkspacePath, path: &WorkspacePath) -> bool {
    let below = path.as_str().strip_prefix(start.as_str()).unwrap_or(path.as_str()).trim_start_matches('/');
    let below = if start.is_root() { path.as_str() } else { below };
    matcher.is_match(below)
        || (!matcher.glob().glob().contains('/') && path.file_name().is_some_and(|n| matcher.is_match(n)))
}

struct Search {
    regex: Regex,
    only: Option<GlobMatcher>,
    context: usize,
    limit: usize,
}

pub(crate) async fn grep(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let start = path_or_root(arguments)?;
    let pattern = text(arguments, "pattern").to_owned();
    let ignore_case = arguments["ignore_case"].as_bool().unwrap_or(false);
    let only = arguments["glob"].as_str().map(str::to_owned);
    let (context_lines, limit) =
        (count(arguments, "context").unwrap_or(0), count(arguments, "limit").unwrap_or(USUAL_LIMIT));
    let files = manager.files(act, context).await?.files;
    let found = blocking(move || {
        let regex = RegexBuilder::new(&pattern)
            .case_insensitive(ignore_case)
            .size_limit(1 << 20)
            .build()
            .map_err(|error| ToolError::Said(format!("the pattern cannot be read: {error}")))?;
        let only = only.as_deref().map(matcher).transpose()?;
        Search { regex, only, context: context_lines, limit }.run(&files, &start)
    })
    .await?;
    let detail = Map::from_iter([("found".to_owned(), json!(found.matches))]);
    let output = json!({ "content": found.text, "matchCount": found.matches, "truncated": found.truncated });
    Ok(Outcome { verdict: Verdict::Completed, output, seen: Vec::new(), detail })
}

#[derive(Default)]
struct Found {
    text: String,
    matches: usize,
    read: u64,
    truncated: bool,
}

impl Search {
    fn run(&self, files: &Workspace, start: &WorkspacePath) -> Result<Found, ToolError> {
        let mut found = Found::default();
        let stat = files.stat(start).map_err(failed(start))?;
        if stat.kind == EntryKind::File {
            self.file(files, start, &mut found);
            return Ok(found);
        }
        let mut walk = files.walk(start, limits()).map_err(failed(start))?;
        for walked in walk.by_ref() {
            if found.truncated {
                break;
            }
            let wanted = self.only.as_ref().is_none_or(|only| fits(only, start, &walked.path));
            if walked.entry.kind == EntryKind::File && walked.entry.size <= LARGEST && wanted {
                self.file(files, &walked.path, &mut found);
            }
        }
        found.truncated |= walk.truncated();
        Ok(found)
    }

    fn file(&self, files: &Workspace, path: &WorkspacePath, found: &mut Found) {
        // A file that vanished, or that is no text, has no lines.
        let Ok(content) = files.read(path, LARGEST) else { return };
        found.read += content.len() as u64;
        let Ok(content) = String::from_utf8(content) else { return };
        let lines: Vec<&str> = content.lines().collect();
        let mut shown_to = 0;
        for (n, _) in lines.iter().enumerate().filter(|(_, line)| self.regex.is_match(line)) {
            if found.matches == self.limit || found.text.len() > OUTPUT_BYTES || found.read > BYTES {
                found.truncated = true;
                return;
            }
            found.matches += 1;
            let from = n.saturating_sub(self.context).max(shown_to);
            let to = (n + self.context + 1).min(lines.len());
            for (at, around) in lines.iter().enumerate().take(to).skip(from) {
                let mark = if at == n { ':' } else { '-' };
                let cut: String = around.chars().take(OUTPUT_LINE_CHARS).collect();
                found.text.push_str(&format!("{}{mark}{}{mark}{cut}\n", path.as_str(), at + 1));
            }
            shown_to = to;
        }
    }
}
