//! Sessions and their streams: every message once, every call with one end, no number left out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Checking;
use crate::history::Session;
use crate::world::HASTY;

/// A tool call as the stream shows it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) id: String,
    /// The token that it leaves behind.
    pub(super) token: String,
    pub(super) tool: String,
    pub(super) space: String,
    pub(super) end: Option<End>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It ran.
    Completed,
    /// It was cut off, and perhaps ran.
    Interrupted,
    /// It did not run.
    Rejected,
    /// It ran and failed.
    Failed(String),
}

pub(super) async fn check(checking: &Checking<'_>, findings: &mut Vec<String>) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    for (id, session) in &checking.facts.sessions {
        let key = &checking.world.people[session.person].key;
        let row = checking.client.get(&format!("/api/v1/sessions/{id}"), key).await?;
        if !row.is_good() {
            findings.push(format!("session {id}: acknowledged and not there: {}", row.shown()));
            continue;
        }
        let path = format!("/eve/v1/session/{id}/stream?follow=false");
        let stream = checking.client.get(&path, key).await?;
        let text = String::from_utf8_lossy(&stream.bytes).into_owned();
        let events: Vec<Value> = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap_or(Value::Null))
            .collect();
        let promised = row.result()["events"].as_u64().unwrap_or(0);
        if (events.len() as u64) < promised {
            findings.push(format!("session {id}: {} events in the stream, {promised} in its row", events.len()));
        }
        one(id, session, &events, &mut calls, findings);
    }
    Ok(calls)
}

fn one(id: &str, session: &Session, events: &[Value], calls: &mut Vec<Call>, findings: &mut Vec<String>) {
    let mut wrong = |what: String| findings.push(format!("session {id} ({}): {what}", session.agent));
    for (place, event) in events.iter().enumerate() {
        let number = event["meta"]["id"].as_str().and_then(number_of);
        if number != Some(place as u64) {
            wrong(format!("event {place} of the stream is number {number:?}: {}", event["meta"]["id"]));
            break;
        }
    }
    let received: Vec<&str> = of(events, "message.received").filter_map(|data| data["message"].as_str()).collect();
    for message in &session.messages {
        let times = received.iter().filter(|text| **text == message.text).count();
        if times > 1 || (times == 0 && message.acknowledged) {
            let told = if message.acknowledged { "acknowledged" } else { "not acknowledged" };
            wrong(format!("the message {} was {told} and is there {times} times", message.text));
        }
    }
    for text in &received {
        if !session.messages.iter().any(|message| message.text == **text) {
            wrong(format!("nobody sent the message {text}"));
        }
    }
    for failed in of(events, "turn.failed") {
        wrong(format!("a turn failed: {} {}", failed["code"], failed["message"]));
    }
    if count(events, "turn.started") != received.len() {
        wrong(format!("{} messages began {} turns", received.len(), count(events, "turn.started")));
    }
    let ended = count(events, "turn.completed") + count(events, "turn.failed") + count(events, "turn.cancelled");
    if ended != received.len() {
        wrong(format!("{} turns ended {ended} times", received.len()));
    }
    let mine = calls_of(session, events, &mut wrong);
    for text in &received {
        let expected: &[&str] = match text.split('-').next() {
            Some("append") => &["bash"],
            Some("write") => &["write_file"],
            Some("both") => &["bash", "write_file"],
            _ => &[],
        };
        let mut found: Vec<&str> =
            mine.iter().filter(|call| call.token == **text).map(|call| call.tool.as_str()).collect();
        found.sort_unstable();
        if found != expected {
            wrong(format!("the message {text} made the calls {found:?}"));
        }
    }
    calls.extend(mine);
}

fn calls_of(session: &Session, events: &[Value], wrong: &mut impl FnMut(String)) -> Vec<Call> {
    let mut calls: BTreeMap<String, Call> = BTreeMap::new();
    for data in of(events, "actions.requested") {
        for action in data["actions"].as_array().into_iter().flatten() {
            let tool = action["toolName"].as_str().unwrap_or_default().to_owned();
            let id = action["callId"].as_str().unwrap_or_default().to_owned();
            let token = token_of(&action["input"]);
            let call = Call { id: id.clone(), token, tool, space: session.space.clone(), end: None };
            if calls.insert(id.clone(), call).is_some() {
                wrong(format!("the call {id} was requested twice"));
            }
        }
    }
    for data in of(events, "action.result") {
        let id = data["result"]["callId"].as_str().unwrap_or_default();
        let code = data["error"]["code"].as_str().unwrap_or_default();
        let end = match (data["status"].as_str().unwrap_or_default(), code) {
            ("completed", _) => End::Completed,
            ("rejected", _) => End::Rejected,
            ("failed", "INTERRUPTED") => End::Interrupted,
            (_, code) => End::Failed(format!("{code} {}", data["error"]["message"])),
        };
        match calls.get_mut(id) {
            None => wrong(format!("a result for the call {id}, which nobody requested")),
            Some(Call { end: Some(first), .. }) => wrong(format!("the call {id} ended twice: {first:?}, {end:?}")),
            Some(call) => call.end = Some(end),
        }
    }
    for call in calls.values() {
        match &call.end {
            None => wrong(format!("the call {} of {} has no end", call.id, call.token)),
            Some(End::Failed(why)) => wrong(format!("the call {} of {} failed: {why}", call.id, call.token)),
            Some(end) if session.agent == HASTY && *end != End::Rejected => {
                wrong(format!("the call {} of {}, which nobody approved, is {end:?}", call.id, call.token));
            }
            Some(_) => {}
        }
    }
    let unresolved: BTreeSet<&str> = resolutions(events, "input.requested", "requests")
        .difference(&resolutions(events, "input.resolved", "resolutions"))
        .copied()
        .collect();
    if !unresolved.is_empty() {
        wrong(format!("requests that the stream never resolved: {unresolved:?}"));
    }
    calls.into_values().collect()
}

fn resolutions<'e>(events: &'e [Value], kind: &'static str, field: &str) -> BTreeSet<&'e str> {
    let lists = of(events, kind).filter_map(|data| data[field].as_array());
    lists.flatten().filter_map(|entry| entry["requestId"].as_str()).collect()
}

fn of<'e>(events: &'e [Value], kind: &'static str) -> impl Iterator<Item = &'e Value> {
    events.iter().filter(move |event| event["type"] == kind).map(|event| &event["data"])
}

fn count(events: &[Value], kind: &'static str) -> usize {
    of(events, kind).count()
}

/// The token in a call's arguments: both tools name a file after it.
fn token_of(input: &Value) -> String {
    let text = input["path"].as_str().or(input["command"].as_str()).unwrap_or_default();
    text.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The number in an event's id: the middle 40 bits of its ULID (see `EventId::in_sequence`).
fn number_of(id: &str) -> Option<u64> {
    const DIGITS: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let (_, text) = id.split_once('_')?;
    let mut value = 0_u128;
    for byte in text.bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == byte.to_ascii_lowercase())?;
        value = (value << 5) | digit as u128;
    }
    u64::try_from((value >> 40) & 0xff_ffff_ffff).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_number_in_an_id_is_the_events() {
        let session = bailiwick_types::SessionId::new();
        for n in [0, 1, 255, 70_000] {
            let id = bailiwick_types::EventId::in_sequence(session, n).to_string();
            assert_eq!(number_of(&id), Some(n), "{id}");
        }
    }
}
