//! Finds a script's answer to a conversation and makes events of it.

use std::time::Duration;

use super::ScriptFailure;
use super::script::{Entry, Fail, Repeat, Script, Step, When};
use super::template::Place;
use crate::failure::Failure;
use crate::scrub::Scrub;
use crate::{
    AssistantMessage, AssistantPart, Completion, Event, Finish, Message, ModelError, Request, ToolCall, ToolInput,
    ToolResult, Usage, UserPart,
};

/// An answer, ready to be played.
pub(super) struct Answer {
    pub(super) events: Vec<Event>,
    pub(super) failure: Option<ModelError>,
    pub(super) delay: Duration,
}

/// Where a conversation stands.
struct Position<'a> {
    /// User messages so far.
    turn: usize,
    /// Model calls since the last of them, this one included.
    step: usize,
    /// The text of the last of them.
    user: String,
    /// The texts of all of them.
    said: Vec<String>,
    /// Tool results since then.
    results: Vec<&'a ToolResult>,
}

pub(super) fn answer(script: &Script, request: &Request) -> Result<Answer, ScriptFailure> {
    let at = Position::of(&request.messages);
    let fits = |(_, entry): &(usize, &Entry)| entry.when.as_ref().is_none_or(|when| at.fits(when));
    let Some((index, entry)) = script.turns.iter().enumerate().find(fits) else {
        return Err(ScriptFailure::NoEntry { turn: at.turn, step: at.step });
    };
    let steps = entry.steps.len();
    // An entry for one call has one step, whatever the call's number in its turn.
    let wanted = if entry.when.as_ref().is_some_and(When::answers_one_call) { 0 } else { at.step - 1 };
    let number = match entry.repeat {
        _ if wanted < steps => wanted,
        Repeat::Never => {
            return Err(ScriptFailure::NoStep { entry: index + 1, steps, step: at.step });
        }
        Repeat::Last => steps - 1,
        Repeat::All => wanted % steps,
    };
    let step = &entry.steps[number];
    let delay = Duration::from_millis(step.delay_ms.unwrap_or(script.delay_ms));
    let chunk = step.chunk_chars.or(script.chunk_chars).unwrap_or(usize::MAX);
    let mut events = Vec::new();
    let message = say(step, &at, chunk, &mut events);
    let failure = step.fail.as_ref().map(failure);
    if failure.is_none() {
        let usage = step.usage.map_or_else(|| estimate(request, &message), Usage::from);
        let finish = step.finish.unwrap_or(if step.tools.is_empty() { Finish::Stop } else { Finish::ToolCalls });
        let request_id = Some(format!("scripted_t{}_s{}", at.turn, at.step));
        events.push(Event::Finished(Completion { message, finish, usage, request_id }));
    }
    Ok(Answer { events, failure, delay })
}

fn say(step: &Step, at: &Position<'_>, chunk: usize, events: &mut Vec<Event>) -> AssistantMessage {
    let value_of = |place: &Place| at.value(place);
    let mut parts = Vec::new();
    if let Some(reasoning) = &step.reasoning {
        let text = reasoning.fill(&value_of);
        events.extend(pieces(&text, chunk).map(Event::ReasoningDelta));
        parts.push(AssistantPart::Reasoning(text));
    }
    if let Some(text) = &step.text {
        let text = text.fill(&value_of);
        events.extend(pieces(&text, chunk).map(Event::TextDelta));
        parts.push(AssistantPart::Text(text));
    }
    for (number, call) in step.tools.iter().enumerate() {
        let id = format!("call_t{}_s{}_{}", at.turn, at.step, number + 1);
        let input = call.input.fill(&value_of);
        let delta = |delta: String| Event::ToolInputDelta { id: id.clone(), name: call.name.clone(), delta };
        events.push(delta(String::new()));
        events.extend(pieces(&input.to_string(), chunk).map(delta));
        parts.push(AssistantPart::ToolCall(ToolCall {
            id: id.clone(),
            name: call.name.clone(),
            input: ToolInput::Json(input),
        }));
    }
    AssistantMessage { parts, raw: None }
}

impl<'a> Position<'a> {
    fn of(messages: &'a [Message]) -> Self {
        let turn = messages.iter().filter(|message| matches!(message, Message::User(_))).count();
        let last = messages.iter().rposition(|message| matches!(message, Message::User(_))).unwrap_or(0);
        let since = &messages[last.min(messages.len())..];
        let user = match since.first() {
            Some(Message::User(parts)) => text_of(parts),
            _ => String::new(),
        };
        let said = messages.iter().filter_map(|message| match message {
            Message::User(parts) => Some(text_of(parts)),
            Message::Assistant(_) | Message::ToolResults(_) => None,
        });
        let answered = since.iter().filter(|message| matches!(message, Message::Assistant(_))).count();
        let results = since.iter().flat_map(|message| match message {
            Message::ToolResults(results) => results.as_slice(),
            Message::User(_) | Message::Assistant(_) => &[],
        });
        Self { turn, step: answered + 1, user, said: said.collect(), results: results.collect() }
    }

    fn fits(&self, when: &When) -> bool {
        let result = |part: &String| self.results.last().is_some_and(|last| last.content.contains(part.as_str()));
        when.user.as_ref().is_none_or(|part| self.user.contains(part.as_str()))
            && when.user_regex.as_ref().is_none_or(|pattern| pattern.is_match(&self.user))
            && when.any_user.as_ref().is_none_or(|part| self.said.iter().any(|text| text.contains(part.as_str())))
            && when.tool_result.as_ref().is_none_or(result)
            && when.turn.is_none_or(|turn| turn == self.turn)
            && when.step.is_none_or(|step| step == self.step)
    }

    fn value(&self, place: &Place) -> String {
        let content = |result: Option<&&ToolResult>| result.map(|result| result.content.clone()).unwrap_or_default();
        match place {
            Place::User => self.user.clone(),
            Place::Turn => self.turn.to_string(),
            Place::LastToolResult => content(self.results.last()),
            Place::ToolResult(name) => content(self.results.iter().rev().find(|result| &result.name == name)),
        }
    }
}

fn text_of(parts: &[UserPart]) -> String {
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            UserPart::Text(text) => Some(text.as_str()),
            UserPart::Image { .. } | UserPart::Document { .. } => None,
        })
        .collect();
    texts.join("\n")
}

/// The same errors as a provider's, from the same table.
fn failure(fail: &Fail) -> ModelError {
    let mut headers = http::HeaderMap::new();
    if let Some(seconds) = fail.retry_after_seconds {
        headers.insert(http::header::RETRY_AFTER, seconds.into());
    }
    Failure::of_status(fail.status, &headers, &fail.message, &Scrub::new(None)).error
}

/// Four characters a token, the usual rule of thumb.
fn estimate(request: &Request, message: &AssistantMessage) -> Usage {
    let said: usize = request
        .messages
        .iter()
        .map(|message| match message {
            Message::User(parts) => text_of(parts).len(),
            Message::Assistant(answer) => length(answer),
            Message::ToolResults(results) => results.iter().map(|result| result.content.len()).sum(),
        })
        .sum();
    let tokens = |characters: usize| characters.div_ceil(4) as u64;
    Usage {
        input_tokens: tokens(request.instructions.len() + said),
        output_tokens: tokens(length(message)),
        ..Usage::default()
    }
}

fn length(answer: &AssistantMessage) -> usize {
    let length = |part: &AssistantPart| match part {
        AssistantPart::Text(text) | AssistantPart::Reasoning(text) => text.len(),
        AssistantPart::ToolCall(call) => {
            call.name.len()
                + match &call.input {
                    ToolInput::Json(value) => value.to_string().len(),
                    ToolInput::Text(text) => text.len(),
                }
        }
    };
    answer.parts.iter().map(length).sum()
}

/// A text in pieces of so many characters.
fn pieces(text: &str, chunk: usize) -> impl Iterator<Item = String> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().nth(chunk).map_or(rest.len(), |(at, _)| at);
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece.to_owned())
    })
}
