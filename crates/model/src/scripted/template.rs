//! Text with places to fill in: `{{user}}`, `{{turn}}`, `{{last_tool_result}}` and
//! `{{tool_result:NAME}}`. What is filled in is never read as a template again, and is cut, so
//! that a conversation that quotes itself does not double with every step.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A parsed text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(Place),
}

/// Something to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The text of the last user message.
    User,
    /// The number of user messages so far.
    Turn,
    /// The newest tool result of the turn.
    LastToolResult,
    /// The newest result of one tool in the turn.
    ToolResult(String),
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, behind)) = after.split_once("}}") else {
                return Err("`{{` without `}}`".to_owned());
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Place(Place::parse(name.trim())?));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    pub(super) fn fill(&self, value_of: &impl Fn(&Place) -> String) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Place(place) => out.extend(value_of(place).chars().take(MAX_FILLED_CHARS)),
            }
        }
        out
    }
}

impl Place {
    fn parse(name: &str) -> Result<Self, String> {
        match (name, name.strip_prefix("tool_result:").map(str::trim)) {
            ("user", _) => Ok(Self::User),
            ("turn", _) => Ok(Self::Turn),
            ("last_tool_result", _) => Ok(Self::LastToolResult),
            (_, Some(tool)) if !tool.is_empty() => Ok(Self::ToolResult(tool.to_owned())),
            _ => Err(format!(
                "unknown placeholder `{{{{{name}}}}}`; there are user, turn, last_tool_result and tool_result:NAME"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// JSON whose strings are templates.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TemplateValue {
    Text(Template),
    List(Vec<TemplateValue>),
    Map(Vec<(String, TemplateValue)>),
    Plain(Value),
}

impl TemplateValue {
    fn parse(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(&text)?),
            Value::Array(items) => Self::List(items.into_iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(map) => {
                let entry = |(name, value)| Self::parse(value).map(|value| (name, value));
                Self::Map(map.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
            plain => Self::Plain(plain),
        })
    }

    pub(super) fn fill(&self, value_of: &impl Fn(&Place) -> String) -> Value {
        match self {
            Self::Text(template) => Value::String(template.fill(value_of)),
            Self::List(items) => items.iter().map(|item| item.fill(value_of)).collect(),
            Self::Map(entries) => entries.iter().map(|(name, value)| (name.clone(), value.fill(value_of))).collect(),
            Self::Plain(value) => value.clone(),
        }
    }
}

impl Default for TemplateValue {
    /// No arguments.
    fn default() -> Self {
        Self::Map(Vec::new())
    }
}

impl<'de> Deserialize<'de> for TemplateValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if !value.is_object() {
            return Err(serde::de::Error::custom("the input of a tool is a mapping"));
        }
        Self::parse(value).map_err(serde::de::Error::custom)
    }
}

const MAX_FILLED_CHARS: usize = 20_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_unknown_ones_are_refused() {
        let template = Template::parse("a {{ user }} b {{tool_result: bash}}").unwrap();
        let filled = template.fill(&|place| match place {
            Place::User => "{{turn}}".into(),
            Place::ToolResult(name) => name.clone(),
            _ => String::new(),
        });
        assert_eq!(filled, "a {{turn}} b bash");
        assert!(Template::parse("{{usr}}").unwrap_err().contains("last_tool_result"));
        assert!(Template::parse("{{user").is_err());
    }
}
