//! Agents as files: `agents/<id>/AGENT.md`, YAML frontmatter and Markdown instructions.
//!
//! Frontmatter is data. Any other language after the fence (`---js`), a document that is not a plain
//! object, and unknown keys are errors that name the file; nothing in it is ever run.

use std::path::{Path, PathBuf};

use bailiwick_types::{AgentDefinition, AgentName};
use serde_json::Value;

/// Largest definition, bytes.
const LARGEST: u64 = 1024 * 1024;

/// What is wrong with an agent's file.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct DefinitionFileError {
    /// The file, below the agents' folder.
    pub file: String,
    /// What is wrong, and what to do.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a definition's text.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[source] std::io::Error),
    /// It is larger than any definition.
    #[error("is larger than {LARGEST} bytes")]
    TooLarge,
    /// The folder's name is no agent id.
    #[error("the folder's name is no agent id: {0}")]
    Name(#[source] bailiwick_types::NameError),
    /// No frontmatter.
    #[error("begins without frontmatter: the first line must be ---")]
    NoFrontmatter,
    /// Frontmatter in another language.
    #[error("has frontmatter in the language {0:?}: only YAML is supported, and it is never run")]
    Language(String),
    /// The frontmatter does not end.
    #[error("has frontmatter without an end: close it with a line ---")]
    Unclosed,
    /// Not YAML, or unknown keys, or wrong types.
    #[error("has frontmatter that cannot be read: {0}")]
    Yaml(String),
    /// YAML, but no object.
    #[error("has frontmatter that is not a plain object of keys and values")]
    NotAnObject,
    /// Something in it makes no sense.
    #[error(transparent)]
    Definition(#[from] bailiwick_types::agent::DefinitionError),
}

/// Reads a definition.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<AgentDefinition, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let language = first.trim_end().strip_prefix("---").ok_or(Problem::NoFrontmatter)?;
    match language.trim() {
        "" | "yaml" | "yml" => {}
        other => return Err(Problem::Language(other.to_owned())),
    }
    let mut end = None;
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            end = Some((at, at + line.len()));
            break;
        }
        at += line.len();
    }
    let (end, after) = end.ok_or(Problem::Unclosed)?;
    let yaml = &rest[..end];
    // YAML 1.2: `off` is a word, as in `sandbox: { mode: off }`, and no boolean.
    let options = serde_saphyr::options! { strict_booleans: true };
    let plain: Value =
        serde_saphyr::from_str_with_options(yaml, options).map_err(|error| Problem::Yaml(error.to_string()))?;
    let Value::Object(mut fields) = plain else { return Err(Problem::NotAnObject) };
    if fields.contains_key("instructions") {
        return Err(Problem::Yaml("instructions stand below the frontmatter, not in it".to_owned()));
    }
    fields.insert("instructions".to_owned(), Value::String(rest[after..].trim().to_owned()));
    let definition: AgentDefinition =
        serde_json::from_value(Value::Object(fields)).map_err(|error| Problem::Yaml(error.to_string()))?;
    definition.check(bailiwick_tools::is_known)?;
    Ok(definition)
}

/// Reads every agent of a folder.
///
/// # Errors
/// All that is wrong, in all files.
pub fn load_dir(dir: &Path) -> Result<Vec<(AgentName, AgentDefinition)>, Vec<DefinitionFileError>> {
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let file = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(vec![DefinitionFileError { file, problem: Problem::Io(error) }]);
        }
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = format!("{id}/AGENT.md");
        match load(&folder.join("AGENT.md"), &id) {
            Ok(agent) => found.push(agent),
            Err(problem) => wrong.push(DefinitionFileError { file, problem }),
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

fn load(file: &Path, id: &str) -> Result<(AgentName, AgentDefinition), Problem> {
    let name: AgentName = id.parse().map_err(Problem::Name)?;
    if std::fs::metadata(file).map_err(Problem::Io)?.len() > LARGEST {
        return Err(Problem::TooLarge);
    }
    let text = std::fs::read_to_string(file).map_err(Problem::Io)?;
    Ok((name, parse(&text)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const GOOD: &str = "---\nname: Developer\ntools: [bash, read_file]\nrequire_approval: [bash]\n\
         sandbox: { mode: all, scope: session, workspace: rw, backend: auto }\n\
         limits: { tool_timeout_seconds: 300, memory_mib: 1024, pids: 256, cpu: 1.0 }\n---\nYou build things.\n";

    #[test]
    fn a_definition_is_read() {
        let agent = parse(GOOD).unwrap();
        assert_eq!(agent.name, "Developer");
        assert_eq!(agent.instructions, "You build things.");
        assert_eq!(agent.tools.len(), 2);
        assert_eq!(agent.limits.pids, Some(256));
    }

    #[test]
    fn off_is_a_word() {
        let agent = parse("---\ntools: [bash]\nsandbox: { mode: off }\n---\n").unwrap();
        assert_eq!(agent.sandbox.mode, bailiwick_types::agent::SandboxMode::Off);
    }

    #[test]
    fn t14_frontmatter_is_data_and_nothing_else() {
        for (text, words) in [
            ("---js\nmodule.exports = {}\n---\n", "only YAML"),
            ("---javascript\n{}\n---\n", "only YAML"),
            ("---\n- a\n- b\n---\n", "plain object"),
            ("---\njust words\n---\n", "plain object"),
            ("---\nname: x\n", "without an end"),
            ("name: x\n", "first line"),
            ("---\nname: x\nrequire_aproval: [bash]\n---\n", "unknown field"),
            ("---\nname: [x\n---\n", "cannot be read"),
            ("---\ntools: [no_such_tool]\n---\n", "no tool named"),
            ("---\ntools: [bash]\nrequire_approval: [write_file]\n---\n", "not among"),
            ("---\nlimits: { pids: 0 }\n---\n", "more than zero"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        // A tag of another language is a word like any other: what it marks stays text.
        let tagged = parse("---\nname: !!js/function 'function(){}'\n---\n").unwrap();
        assert_eq!(tagged.name, "function(){}");
    }

    #[test]
    fn the_file_with_the_mistake_is_named() {
        let dir = std::env::temp_dir().join(format!("bailiwick-agents-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for (id, text) in [("good", GOOD), ("bad", "---js\n---\n")] {
            std::fs::create_dir_all(dir.join(id)).unwrap();
            std::fs::write(dir.join(id).join("AGENT.md"), text).unwrap();
        }
        let wrong = load_dir(&dir).unwrap_err();
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].to_string().starts_with("bad/AGENT.md:"), "{}", wrong[0]);
        std::fs::remove_dir_all(dir.join("bad")).unwrap();
        assert_eq!(load_dir(&dir).unwrap().len(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
