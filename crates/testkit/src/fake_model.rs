//! Model APIs on loopback: strict about what they are sent, scripted in what they answer.
//!
//! A fake refuses what the real API refuses, with the same status and shape of error, records
//! every request, and plays one queued [`Reply`] for each request that it takes. It must never
//! be more lenient than the real API in anything that our encoder does.

mod anthropic;
mod openai_chat;
mod openai_responses;
mod reply;
mod server;

pub use anthropic::FakeAnthropic;
pub use openai_chat::FakeOpenAi;
pub use reply::{FakeUsage, Reply};
pub use server::{Fake, Recorded};

use serde_json::{Value, json};

/// Why a fake refuses a request: status, kind, message.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal { status: 400, kind: "invalid_request_error", message: message.into() }
}

pub(crate) fn ensure(holds: bool, message: impl Into<String>) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(bad_request(message)) }
}

/// Refuses an object's fields that are not known.
pub(crate) fn known_fields(value: &Value, known: &[&str], place: &str) -> Result<(), Refusal> {
    let map = value.as_object().ok_or_else(|| bad_request(format!("{place}: not an object")))?;
    match map.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(bad_request(format!("{place}.{name}: Extra inputs are not permitted"))),
        None => Ok(()),
    }
}

pub(crate) fn text<'a>(value: &'a Value, field: &str, place: &str) -> Result<&'a str, Refusal> {
    value[field].as_str().ok_or_else(|| bad_request(format!("{place}.{field}: a string is required")))
}

pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// One server-sent event.
pub(crate) fn sse(name: Option<&str>, data: &Value) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

/// OpenAI's shape of an error.
pub(crate) fn openai_error(kind: &str, message: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": null } })
}

/// A mark that the far side can check later: changed text has another one.
pub(crate) fn seal(text: &str) -> String {
    // FNV-1a; this is a test's signature, not a secret's.
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("sealed-{hash:016x}")
}

/// Pieces of a few characters, as a model streams.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(6).map(|piece| piece.iter().collect()).collect()
}
