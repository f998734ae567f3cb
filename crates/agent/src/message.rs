//! What callers send into a session, in the form in which it waits in the store.

use bailiwick_types::WorkspacePath;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that waits for a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// A message.
    Message(Message),
    /// End the present turn.
    Cancel {
        /// Only if it is this turn.
        turn: Option<String>,
    },
    /// Forget the conversation, keep the session.
    Clear,
    /// Put a summary in the place of the conversation.
    Compact,
    /// End the session.
    Reset,
}

/// A message of a caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its pieces, at least one.
    pub parts: Vec<Part>,
    /// Facts for this turn alone: the model reads them, the history does not keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_context: Option<Value>,
    /// The schema that this turn's answer must follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// What to do if a turn is under way.
    #[serde(default)]
    pub policy: TurnPolicy,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A file, which lies in the space.
    File(FilePart),
}

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilePart {
    /// Its media type, as the caller said.
    pub media_type: String,
    /// Its name, as the caller said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Its size, bytes.
    pub size: u64,
    /// Where it lies in the space.
    pub path: String,
}

/// What a message does while a turn is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnPolicy {
    /// It joins the turn.
    #[default]
    Steer,
    /// It waits for the next.
    Queue,
}

impl Message {
    /// The message as one text, as the stream shows it.
    pub fn flat(&self) -> String {
        let lines: Vec<String> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text { text } => text.clone(),
                Part::File(file) => {
                    format!("[file: {} ({})]", file.filename.as_deref().unwrap_or("file"), file.media_type)
                }
            })
            .collect();
        lines.join("\n")
    }

    /// The message's own text, if it is nothing else.
    pub fn only_text(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text { text }] => Some(text),
            _ => None,
        }
    }
}

impl FilePart {
    /// Where the file lies, as a path.
    pub fn place(&self) -> Option<WorkspacePath> {
        WorkspacePath::parse(&self.path).ok()
    }
}
