//! Takes the key of a call out of what the model says: a far side that gives it back, in whatever it likes, must
//! not put it into a conversation, onto a stream or into a tool's arguments.
//!
//! It knows the key as it is, and one that comes in pieces; not one that is spelt in another way.

use futures::stream::{self, BoxStream, StreamExt as _};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{AssistantPart, Event, ModelError, ToolInput};

/// A shorter "key" is a placeholder of a local server; and fewer letters of one than this are no leak.
const SHORTEST: usize = 8;
const INSTEAD: &str = "[redacted]";

/// The same stream without the key.
pub(crate) fn veil(
    answer: BoxStream<'static, Result<Event, ModelError>>,
    key: Option<&str>,
) -> BoxStream<'static, Result<Event, ModelError>> {
    let Some(key) = key.filter(|key| key.len() >= SHORTEST) else { return answer };
    let mut veil = Veil { key: Zeroizing::new(key.to_owned()), held: String::new(), kind: Kind::Text };
    answer.flat_map(move |event| stream::iter(veil.pass(event))).boxed()
}

struct Veil {
    key: Zeroizing<String>,
    /// The end of what was heard last, which may be the beginning of the key.
    held: String,
    kind: Kind,
}

/// What is held back is a piece of this.
#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Input { id: String, name: String },
}

impl Kind {
    fn event(&self, delta: String) -> Event {
        match self {
            Self::Text => Event::TextDelta(delta),
            Self::Reasoning => Event::ReasoningDelta(delta),
            Self::Input { id, name } => Event::ToolInputDelta { id: id.clone(), name: name.clone(), delta },
        }
    }
}

impl Veil {
    fn pass(&mut self, event: Result<Event, ModelError>) -> Vec<Result<Event, ModelError>> {
        let mut out = Vec::new();
        let (kind, delta) = match event {
            Ok(Event::TextDelta(delta)) => (Kind::Text, delta),
            Ok(Event::ReasoningDelta(delta)) => (Kind::Reasoning, delta),
            Ok(Event::ToolInputDelta { id, name, delta }) => (Kind::Input { id, name }, delta),
            Ok(Event::Finished(mut done)) => {
                self.let_go(&mut out);
                let message = &mut done.message;
                let mut found = false;
                for part in &mut message.parts {
                    found |= match part {
                        AssistantPart::Text(text) | AssistantPart::Reasoning(text) => self.clear(text),
                        AssistantPart::ToolCall(call) => {
                            let input = match &mut call.input {
                                ToolInput::Json(value) => self.clear_value(value),
                                ToolInput::Text(text) => self.clear(text),
                            };
                            self.clear(&mut call.id) | self.clear(&mut call.name) | input
                        }
                    };
                }
                // The provider's own form would say what was taken out.
                let raw = message.raw.as_ref().and_then(|raw| serde_json::to_string(raw).ok());
                if found || raw.is_some_and(|raw| raw.contains(self.key.as_str())) {
                    message.raw = None;
                }
                out.push(Ok(Event::Finished(done)));
                return out;
            }
            Err(error) => {
                self.let_go(&mut out);
                out.push(Err(error));
                return out;
            }
        };
        if kind != self.kind {
            self.let_go(&mut out);
            self.kind = kind;
        }
        let begun = delta.is_empty();
        self.held.push_str(&delta);
        let mut said = std::mem::take(&mut self.held);
        self.clear(&mut said);
        let end = said.char_indices().map(|(at, _)| at).find(|at| self.key.starts_with(&said[*at..]));
        self.held = said.split_off(end.unwrap_or(said.len()));
        // A call that has begun says so by an empty piece.
        if begun || !said.is_empty() {
            out.push(Ok(self.kind.event(said)));
        }
        out
    }

    /// What was held back turned out to be no whole key.
    fn let_go(&mut self, out: &mut Vec<Result<Event, ModelError>>) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            let said = if held.len() < SHORTEST { held } else { INSTEAD.to_owned() };
            out.push(Ok(self.kind.event(said)));
        }
    }

    /// Says whether the key was there.
    fn clear(&self, text: &mut String) -> bool {
        let there = text.contains(self.key.as_str());
        if there {
            *text = text.replace(self.key.as_str(), INSTEAD);
        }
        there
    }

    fn clear_value(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => self.clear(text),
            Value::Array(values) => values.iter_mut().fold(false, |found, value| self.clear_value(value) | found),
            Value::Object(fields) => {
                let in_values = fields.values_mut().fold(false, |found, value| self.clear_value(value) | found);
                let in_names = fields.keys().any(|name| name.contains(self.key.as_str()));
                if in_names {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(name, value)| (name.replace(self.key.as_str(), INSTEAD), value))
                        .collect();
                }
                in_values | in_names
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{AssistantMessage, Completion, Finish, ToolCall, Usage};

    const KEY: &str = "sk-test-0123456789-abcdefghij";

    fn heard(events: Vec<Event>) -> Vec<Event> {
        let answer = stream::iter(events.into_iter().map(Ok).collect::<Vec<_>>()).boxed();
        let heard: Vec<_> = veil(answer, Some(KEY)).collect().now_or_never().unwrap();
        heard.into_iter().map(Result::unwrap).collect()
    }

    fn text(events: &[Event]) -> String {
        events.iter().map(|event| if let Event::TextDelta(delta) = event { delta.as_str() } else { "" }).collect()
    }

    #[test]
    fn e08_a_key_that_comes_back_is_taken_out_of_pieces_and_of_the_whole() {
        let call = ToolCall {
            id: "c".to_owned(),
            name: "write_file".to_owned(),
            input: ToolInput::Json(json!({ "path": "a", "list": [format!("x{KEY}")], KEY: 1 })),
        };
        let parts = vec![AssistantPart::Text(format!("it is {KEY}.")), AssistantPart::ToolCall(call)];
        let message = AssistantMessage { parts, raw: None };
        let done = Completion { message, finish: Finish::Stop, usage: Usage::default(), request_id: None };
        let begun = Event::ToolInputDelta { id: "c".to_owned(), name: "write_file".to_owned(), delta: String::new() };
        let mut events: Vec<Event> = ["it is sk-te", "st-0123456789-abcdefghi", "j. sk-", "test no"]
            .map(|delta| Event::TextDelta(delta.to_owned()))
            .into();
        events.extend([Event::ReasoningDelta(KEY.to_owned()), begun.clone(), Event::Finished(done)]);
        let heard = heard(events);
        assert_eq!(text(&heard), "it is [redacted]. sk-test no");
        assert!(heard.contains(&Event::ReasoningDelta(INSTEAD.to_owned())) && heard.contains(&begun));
        let Some(Event::Finished(done)) = heard.last() else { panic!("{heard:?}") };
        assert_eq!(done.message.text(), "it is [redacted].");
        assert!(!format!("{heard:?}").contains("0123456789"));
        // What was cut off in the middle of a key is not told either.
        let cut = vec![Event::TextDelta(KEY[..20].to_owned()), Event::ReasoningDelta("so".to_owned())];
        assert_eq!(text(&self::heard(cut)), INSTEAD);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn e08_however_a_text_is_cut_it_is_the_same_text_without_the_key(
            words in prop::collection::vec(prop_oneof![Just(KEY.to_owned()), "[a-z0-9ü -]{0,12}", Just("sk-te".to_owned())], 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let whole: Vec<char> = words.concat().chars().collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| whole[cut[0]..cut[1]].iter().collect::<String>());
            let mut events: Vec<Event> = pieces.map(Event::TextDelta).collect();
            // Something else lets go of what is held back.
            events.push(Event::ReasoningDelta("end".to_owned()));
            let said = text(&heard(events));
            let without = words.concat().replace(KEY, INSTEAD);
            // What looks like the beginning of a key at the very end is told only if it is short.
            prop_assert!(said == without || without.ends_with(&KEY[..SHORTEST]) , "{said} {without}");
            prop_assert!(!said.contains(KEY));
        }
    }
}
