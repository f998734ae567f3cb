//! One call to a model, and the rules that every provider has for it. The rules are checked
//! here, for the scripted provider too, so that a conversation that a real API would refuse is
//! noticed before anything is sent. Nothing is repaired silently.

use std::collections::HashSet;

use serde_json::Value;

use crate::{AssistantMessage, Message, UserPart};

/// One call to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The provider's name of the model.
    pub model: String,
    /// The system prompt; empty for none.
    pub instructions: String,
    /// The conversation. It starts with a user message and ends with a user message or tool
    /// results.
    pub messages: Vec<Message>,
    /// The tools the model may ask for.
    pub tools: Vec<Tool>,
    /// Whether it may, must or must not ask for one.
    pub tool_choice: ToolChoice,
    /// A JSON schema that the answer's text has to follow.
    pub output_schema: Option<Value>,
    /// The most tokens that the answer may have.
    pub max_output_tokens: u32,
}

/// A tool as the model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Letters, digits, `_` and `-`, at most 64 of them.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// The JSON schema of its arguments, an object schema.
    pub input_schema: Value,
}

/// Whether the model asks for a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// It has to call at least one.
    Required,
    /// It may call none.
    Never,
    /// It has to call this one.
    Named(String),
}

/// Why a request cannot be sent. Always the caller's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestProblem {
    /// There is nothing to answer.
    #[error("the conversation is empty")]
    Empty,
    /// The first entry is not a user message.
    #[error("the conversation does not start with a user message")]
    StartsWithoutUser,
    /// The last entry is an answer already.
    #[error("the conversation does not end with a user message or tool results")]
    EndsWithAssistant,
    /// A user message without content.
    #[error("user message {index} has no content")]
    EmptyUserMessage {
        /// Its place in the conversation, from 0.
        index: usize,
    },
    /// Results that do not stand right after the calls they belong to.
    #[error("the tool results at {index} do not follow a message with tool calls")]
    ResultsWithoutCalls {
        /// Their place in the conversation, from 0.
        index: usize,
    },
    /// A call without exactly one result, or a result without a call.
    #[error("the tool calls at {index} and the results after them do not match one to one")]
    CallsAndResultsDiffer {
        /// The place of the calls in the conversation, from 0.
        index: usize,
    },
    /// A tool definition that no API takes.
    #[error("tool {index} has a name that is not 1 to 64 of the characters A-Z a-z 0-9 _ -, or is not unique")]
    ToolName {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// A tool whose schema is not an object schema.
    #[error("tool {index} has a schema that is not a JSON object")]
    ToolSchema {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// A forced tool that is not offered.
    #[error("the tool choice names a tool that is not offered, or there are no tools")]
    ToolChoice,
    /// No room for an answer.
    #[error("the answer may have no tokens")]
    NoOutputTokens,
    /// A kind of attachment that the API does not take.
    #[error("the model API takes no attachment of the media type of message {index}")]
    MediaType {
        /// The message's place in the conversation, from 0.
        index: usize,
    },
}

impl Request {
    /// A request of a conversation alone: no instructions, no tools, 8,192 tokens of answer.
    pub fn new(model: impl Into<String>, messages: Vec<Message>) -> Self {
        Self {
            model: model.into(),
            instructions: String::new(),
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            output_schema: None,
            max_output_tokens: 8_192,
        }
    }

    /// Checks what every provider would refuse.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), RequestProblem> {
        if self.max_output_tokens == 0 {
            return Err(RequestProblem::NoOutputTokens);
        }
        self.check_tools()?;
        match (self.messages.first(), self.messages.last()) {
            (None, _) | (_, None) => return Err(RequestProblem::Empty),
            (Some(Message::Assistant(_) | Message::ToolResults(_)), _) => {
                return Err(RequestProblem::StartsWithoutUser);
            }
            (_, Some(Message::Assistant(_))) => return Err(RequestProblem::EndsWithAssistant),
            (Some(Message::User(_)), Some(Message::User(_) | Message::ToolResults(_))) => {}
        }
        for (index, message) in self.messages.iter().enumerate() {
            self.check_message(index, message)?;
        }
        Ok(())
    }

    fn check_tools(&self) -> Result<(), RequestProblem> {
        let mut names = HashSet::new();
        for (index, tool) in self.tools.iter().enumerate() {
            let shape = (1..=64).contains(&tool.name.len()) && tool.name.bytes().all(is_name_byte);
            if !shape || !names.insert(tool.name.as_str()) {
                return Err(RequestProblem::ToolName { index });
            }
            if !tool.input_schema.is_object() {
                return Err(RequestProblem::ToolSchema { index });
            }
        }
        match &self.tool_choice {
            ToolChoice::Auto | ToolChoice::Never => Ok(()),
            ToolChoice::Required if !names.is_empty() => Ok(()),
            ToolChoice::Named(name) if names.contains(name.as_str()) => Ok(()),
            ToolChoice::Required | ToolChoice::Named(_) => Err(RequestProblem::ToolChoice),
        }
    }

    fn check_message(&self, index: usize, message: &Message) -> Result<(), RequestProblem> {
        match message {
            Message::User(parts) => {
                let filled = parts.iter().any(|part| !matches!(part, UserPart::Text(text) if text.trim().is_empty()));
                if filled { Ok(()) } else { Err(RequestProblem::EmptyUserMessage { index }) }
            }
            Message::Assistant(answer) => self.check_calls(index, answer),
            Message::ToolResults(_) => match index.checked_sub(1).map(|before| &self.messages[before]) {
                Some(Message::Assistant(answer)) if answer.tool_calls().next().is_some() => Ok(()),
                _ => Err(RequestProblem::ResultsWithoutCalls { index }),
            },
        }
    }

    fn check_calls(&self, index: usize, answer: &AssistantMessage) -> Result<(), RequestProblem> {
        let mut open = HashSet::new();
        for call in answer.tool_calls() {
            if !open.insert(call.id.as_str()) {
                return Err(RequestProblem::CallsAndResultsDiffer { index });
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let Some(Message::ToolResults(results)) = self.messages.get(index + 1) else {
            return Err(RequestProblem::CallsAndResultsDiffer { index });
        };
        let all_known = results.iter().all(|result| open.remove(result.call_id.as_str()));
        if all_known && open.is_empty() { Ok(()) } else { Err(RequestProblem::CallsAndResultsDiffer { index }) }
    }
}

/// A name that the APIs take on the way back. The model may have invented any string; an
/// invented name must not make every later call of the session fail.
pub(crate) fn wire_name(name: &str) -> String {
    let mut shaped: String =
        name.chars().take(64).map(|c| if c.is_ascii() && is_name_byte(c as u8) { c } else { '_' }).collect();
    if shaped.is_empty() {
        shaped.push_str("unnamed");
    }
    shaped
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{AssistantPart, Outcome, ToolCall, ToolInput, ToolResult};

    fn call(id: &str) -> AssistantPart {
        AssistantPart::ToolCall(ToolCall { id: id.into(), name: "t".into(), input: ToolInput::Json(json!({})) })
    }

    fn result(id: &str) -> ToolResult {
        ToolResult { call_id: id.into(), name: "t".into(), content: "ok".into(), outcome: Outcome::Succeeded }
    }

    fn check(messages: Vec<Message>) -> Result<(), RequestProblem> {
        Request::new("m", messages).check()
    }

    fn calls(ids: &[&str]) -> Message {
        Message::Assistant(AssistantMessage { parts: ids.iter().map(|id| call(id)).collect(), raw: None })
    }

    #[test]
    fn a_matching_tool_loop_is_taken() {
        let results = Message::ToolResults(vec![result("b"), result("a")]);
        assert_eq!(check(vec![Message::user("hi"), calls(&["a", "b"]), results]), Ok(()));
    }

    #[test]
    fn broken_conversations_are_refused_with_their_place() {
        let hi = || Message::user("hi");
        assert_eq!(check(vec![]), Err(RequestProblem::Empty));
        assert_eq!(check(vec![Message::user("  ")]), Err(RequestProblem::EmptyUserMessage { index: 0 }));
        assert_eq!(check(vec![calls(&["a"]), hi()]), Err(RequestProblem::StartsWithoutUser));
        assert_eq!(check(vec![hi(), calls(&["a"])]), Err(RequestProblem::EndsWithAssistant));
        for results in [vec![], vec![result("b")], vec![result("a"), result("a")]] {
            assert_eq!(
                check(vec![hi(), calls(&["a"]), Message::ToolResults(results)]),
                Err(RequestProblem::CallsAndResultsDiffer { index: 1 })
            );
        }
        assert_eq!(check(vec![hi(), calls(&["a"]), hi()]), Err(RequestProblem::CallsAndResultsDiffer { index: 1 }));
        assert_eq!(
            check(vec![hi(), Message::ToolResults(vec![result("a")])]),
            Err(RequestProblem::ResultsWithoutCalls { index: 1 })
        );
    }

    #[test]
    fn tools_are_checked() {
        let tool = |name: &str| Tool { name: name.into(), description: String::new(), input_schema: json!({}) };
        let mut request = Request::new("m", vec![Message::user("hi")]);
        request.tools = vec![tool("ok_1-x")];
        assert_eq!(request.check(), Ok(()));
        request.tool_choice = ToolChoice::Named("other".into());
        assert_eq!(request.check(), Err(RequestProblem::ToolChoice));
        request.tools = vec![tool("a"), tool("a b")];
        assert_eq!(request.check(), Err(RequestProblem::ToolName { index: 1 }));
        request.tools = vec![tool("a"), tool("a")];
        assert_eq!(request.check(), Err(RequestProblem::ToolName { index: 1 }));
    }

    #[test]
    fn invented_names_get_a_shape_the_apis_take() {
        assert_eq!(wire_name("functions.bash:0"), "functions_bash_0");
        assert_eq!(wire_name(""), "unnamed");
        assert_eq!(wire_name("good-name_1"), "good-name_1");
    }
}
