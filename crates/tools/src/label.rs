//! What a person reads of a call before deciding about it. It must show nothing that could fool the reader.

use serde_json::Value;

use crate::catalogue::{Kind, ToolDefinition};

/// A call in a few words, for people.
pub fn label(tool: &ToolDefinition, arguments: &Value) -> String {
    let argument = |name: &str| clip(arguments[name].as_str().unwrap_or_default(), 120);
    match tool.kind {
        Kind::Bash => format!("Run {}", argument("command")),
        Kind::ReadFile => format!("Read {}", argument("path")),
        Kind::WriteFile => format!("Write {}", argument("path")),
        Kind::EditFile => format!("Edit {}", argument("path")),
        Kind::Glob => format!("List {}", argument("pattern")),
        Kind::Grep => format!("Search {}", argument("pattern")),
        Kind::WebFetch => format!("Fetch {}", argument("url")),
        Kind::Plan => "Write the plan".to_owned(),
        Kind::AskQuestion => "Ask a question".to_owned(),
    }
}

/// The beginning of a text, in one line, without characters that could fool a reader.
pub(crate) fn clip(text: &str, chars: usize) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c == '\n' || c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control() && !is_deceptive(*c))
        .take(chars)
        .collect();
    if text.chars().count() > chars {
        shown.push('…');
    }
    shown
}

/// Characters that change the order or hide parts of what a person approves.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
