//! Messages and answers as eve's clients send them. Unknown keys are ignored, as the protocol has it;
//! keys that would make the server call somebody, or believe that the caller is somebody else, are not.

use bailiwick_agent::message::TurnPolicy;
use bailiwick_agent::{Incoming, IncomingPart, Resolution};
use bailiwick_types::limits::{MESSAGE_BYTES, MESSAGE_PARTS};
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::error::Failure;

/// Base64 in either alphabet, padded or not.
const ENGINES: [GeneralPurpose; 2] = [
    GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    ),
    GeneralPurpose::new(
        &URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    ),
];

/// What a create asks for.
pub(crate) struct NewSession {
    pub(crate) operation: Option<String>,
    pub(crate) message: Option<Incoming>,
}

/// What a follow-up asks for.
pub(crate) enum FollowUp {
    /// A message.
    Message(Incoming),
    /// Answers to what a turn waits for.
    Answers(Vec<Resolution>),
}

/// The object of a body; an empty body is one without keys.
pub(crate) fn object(body: Option<Value>) -> Result<Map<String, Value>, Failure> {
    match body {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(Failure::Words("Expected a JSON object.")),
    }
}

fn refuse_foreign(body: &Map<String, Value>) -> Result<(), Failure> {
    let refused = |reason, message| Err(Failure::NotAccepted { reason, message });
    if present(body, "callback").is_some() {
        return refused(
            "callback_not_supported",
            "'callback' is not accepted: this server calls no address that a caller names.",
        );
    }
    if present(body, "stubs").is_some() {
        return refused("stubs_not_supported", "'stubs' is not accepted: tools are never stubbed here.");
    }
    if present(body, "forwardedPrincipal").is_some() {
        return refused(
            "forwarding_not_supported",
            "'forwardedPrincipal' is not accepted: use the key of the person it is for.",
        );
    }
    if present(body, "continuationToken").is_some() {
        return Err(Failure::Words("Session-ID routes do not accept 'continuationToken'."));
    }
    Ok(())
}

/// A key that is there and not null.
fn present<'b>(body: &'b Map<String, Value>, key: &str) -> Option<&'b Value> {
    body.get(key).filter(|value| !value.is_null())
}

/// A text that must not be empty if it is there.
pub(crate) fn text(body: &Map<String, Value>, key: &str, words: &'static str) -> Result<Option<String>, Failure> {
    match present(body, key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(Failure::Words(words)),
    }
}

/// Reads a create.
pub(crate) fn create(body: Map<String, Value>) -> Result<NewSession, Failure> {
    refuse_foreign(&body)?;
    if present(&body, "inputResponses").is_some() {
        return Err(Failure::Words("'inputResponses' is only accepted for an existing session."));
    }
    let operation = text(&body, "operationId", "Expected 'operationId' to be a non-empty string.")?;
    let message = if body.contains_key("message") {
        Some(message(&body)?)
    } else if present(&body, "clientContext").is_some() || present(&body, "outputSchema").is_some() {
        return Err(Failure::Words(
            "Creating a session without a message does not accept 'clientContext', 'callback', or 'outputSchema'.",
        ));
    } else {
        None
    };
    Ok(NewSession { operation, message })
}

/// Reads a follow-up.
pub(crate) fn follow_up(body: Map<String, Value>) -> Result<FollowUp, Failure> {
    refuse_foreign(&body)?;
    match (body.contains_key("message"), body.get("inputResponses")) {
        (true, Some(_)) => Err(Failure::Words("'message' and 'inputResponses' are mutually exclusive.")),
        (true, None) => Ok(FollowUp::Message(message(&body)?)),
        (false, Some(answers)) => Ok(FollowUp::Answers(resolutions(answers)?)),
        (false, None) => Err(Failure::Words("Expected a non-empty 'message' or a non-empty 'inputResponses' array.")),
    }
}

fn message(body: &Map<String, Value>) -> Result<Incoming, Failure> {
    const EMPTY: Failure = Failure::Words("Expected 'message' to be non-empty when provided.");
    let parts = match body.get("message") {
        Some(Value::String(text)) if text.trim().is_empty() => return Err(EMPTY),
        Some(Value::String(text)) => vec![IncomingPart::Text(text.clone())],
        Some(Value::Array(parts)) if parts.is_empty() => return Err(EMPTY),
        Some(Value::Array(parts)) if parts.len() > MESSAGE_PARTS => {
            return Err(Failure::Said(format!("'message' has too many parts: at most {MESSAGE_PARTS}.")));
        }
        Some(Value::Array(parts)) => parts.iter().map(part).collect::<Result<_, _>>()?,
        _ => return Err(Failure::Words("Expected 'message' to be a string or an array of text/file parts.")),
    };
    // A file's content goes into the space; its name is told to whoever follows the session.
    let told = parts.iter().map(|part| match part {
        IncomingPart::Text(text) => text.len(),
        IncomingPart::File { filename, .. } => filename.as_ref().map_or(0, String::len),
    });
    fits("message", told.sum())?;
    let policy = match present(body, "turnPolicy") {
        None => TurnPolicy::default(),
        Some(Value::String(word)) if word == "steer" => TurnPolicy::Steer,
        Some(Value::String(word)) if word == "queue" => TurnPolicy::Queue,
        Some(_) => return Err(Failure::Words("Expected 'turnPolicy' to be either 'queue' or 'steer'.")),
    };
    Ok(Incoming { parts, client_context: context(body)?, output_schema: schema(body)?, policy })
}

/// What people say is one event of the stream each time, and every reader of it holds that in memory.
fn fits(key: &str, bytes: usize) -> Result<(), Failure> {
    if bytes <= MESSAGE_BYTES {
        return Ok(());
    }
    Err(Failure::Said(format!(
        "'{key}' is too long: {bytes} bytes of text, at most {MESSAGE_BYTES}. Send long text as a file part."
    )))
}

fn context(body: &Map<String, Value>) -> Result<Option<Value>, Failure> {
    let Some(context) = present(body, "clientContext") else { return Ok(None) };
    match context {
        Value::String(text) if !text.is_empty() => {}
        Value::Object(_) => {}
        Value::Array(entries) => {
            if !entries.iter().all(|entry| entry.as_str().is_some_and(|text| !text.is_empty())) {
                return Err(Failure::Words("Expected 'clientContext' array entries to be non-empty strings."));
            }
        }
        _ => return Err(Failure::Words("Expected 'clientContext' to be a string, string array, or JSON object.")),
    }
    Ok(Some(context.clone()))
}

fn schema(body: &Map<String, Value>) -> Result<Option<Value>, Failure> {
    match present(body, "outputSchema") {
        None => Ok(None),
        Some(schema @ Value::Object(_)) => Ok(Some(schema.clone())),
        Some(_) => Err(Failure::Words("Expected 'outputSchema' to be a JSON-serializable object.")),
    }
}

fn part(value: &Value) -> Result<IncomingPart, Failure> {
    let Value::Object(part) = value else {
        return Err(Failure::Words("Expected each message part to be an object."));
    };
    match part.get("type").and_then(Value::as_str) {
        Some("text") => match part.get("text").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(IncomingPart::Text(text.to_owned())),
            _ => Err(Failure::Words("Text parts require a non-empty 'text' string.")),
        },
        Some("file") => file(part),
        other => Err(Failure::Said(format!(
            "Unsupported message part type {:?}. Use 'text' or 'file'.",
            other.unwrap_or("undefined").chars().take(40).collect::<String>()
        ))),
    }
}

fn file(part: &Map<String, Value>) -> Result<IncomingPart, Failure> {
    const DATA: Failure = Failure::Words("File parts require a 'data' string (base64, data URL, or URL).");
    let media_type = match part.get("mediaType").and_then(Value::as_str) {
        Some(media_type) if !media_type.is_empty() && media_type.len() <= 255 => media_type.to_owned(),
        _ => return Err(Failure::Words("File parts require a non-empty 'mediaType' string.")),
    };
    let data = part.get("data").and_then(Value::as_str).ok_or(DATA)?;
    let encoded = match data.split_once(':') {
        None => data,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("data") => match rest.split_once(',') {
            Some((kind, encoded)) if kind.ends_with(";base64") => encoded,
            _ => return Err(DATA),
        },
        // Fetching it would be a request of ours to wherever a caller likes.
        Some(_) => {
            return Err(Failure::NotAccepted {
                reason: "file_url_not_supported",
                message: "Files by URL are not accepted: send the content as base64.",
            });
        }
    };
    let bytes = ENGINES.iter().find_map(|engine| engine.decode(encoded).ok()).ok_or(DATA)?;
    let filename = part.get("filename").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    Ok(IncomingPart::File { media_type, filename, bytes })
}

fn resolutions(answers: &Value) -> Result<Vec<Resolution>, Failure> {
    const ENTRY: Failure = Failure::Words("Expected every 'inputResponses' entry to match the HITL response schema.");
    let Some(entries) = answers.as_array().filter(|entries| !entries.is_empty()) else {
        return Err(Failure::Words("Expected 'inputResponses' to be a non-empty array."));
    };
    let answers: Vec<Resolution> = entries
        .iter()
        .map(|entry| {
            let entry = entry.as_object().ok_or(ENTRY)?;
            // Strict: an answer with a key that we would overlook is not the answer that was meant.
            if entry.keys().any(|key| !matches!(key.as_str(), "requestId" | "optionId" | "text")) {
                return Err(ENTRY);
            }
            let field = |key: &str| match entry.get(key) {
                None => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(_) => Err(ENTRY),
            };
            let request = field("requestId")?.filter(|id| !id.is_empty()).ok_or(ENTRY)?;
            Ok(Resolution { request, option: field("optionId")?, text: field("text")? })
        })
        .collect::<Result<_, _>>()?;
    let told = answers.iter().flat_map(|answer| [&answer.option, &answer.text]).flatten().map(String::len);
    fits("inputResponses", told.sum())?;
    Ok(answers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(result: Result<impl Sized, Failure>) -> String {
        result.map(drop).expect_err("refused").to_string()
    }

    fn body(text: &str) -> Map<String, Value> {
        object(Some(serde_json::from_str(text).unwrap())).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_words_of_refusals_are_the_protocols() {
        for (text, expected) in [
            (r#"{"message":""}"#, "Expected 'message' to be non-empty when provided."),
            (r#"{"message":5}"#, "Expected 'message' to be a string or an array of text/file parts."),
            (r#"{"message":[5]}"#, "Expected each message part to be an object."),
            (r#"{"message":[{"type":"text"}]}"#, "Text parts require a non-empty 'text' string."),
            (r#"{"message":[{"type":"file"}]}"#, "File parts require a non-empty 'mediaType' string."),
            (r#"{"message":"x","turnPolicy":"now"}"#, "Expected 'turnPolicy' to be either 'queue' or 'steer'."),
            (
                r#"{"message":"x","clientContext":5}"#,
                "Expected 'clientContext' to be a string, string array, or JSON object.",
            ),
            (r#"{"message":"x","outputSchema":[]}"#, "Expected 'outputSchema' to be a JSON-serializable object."),
            (r#"{"inputResponses":[]}"#, "'inputResponses' is only accepted for an existing session."),
            (r#"{"operationId":""}"#, "Expected 'operationId' to be a non-empty string."),
            (r#"{"continuationToken":"x"}"#, "Session-ID routes do not accept 'continuationToken'."),
            (
                r#"{"clientContext":"x"}"#,
                "Creating a session without a message does not accept 'clientContext', 'callback', or 'outputSchema'.",
            ),
        ] {
            assert_eq!(words(create(body(text))), expected);
        }
        for (text, expected) in [
            ("{}", "Expected a non-empty 'message' or a non-empty 'inputResponses' array."),
            (r#"{"message":"x","inputResponses":[]}"#, "'message' and 'inputResponses' are mutually exclusive."),
            (r#"{"inputResponses":[]}"#, "Expected 'inputResponses' to be a non-empty array."),
            (
                r#"{"inputResponses":[{"requestId":"a","extra":1}]}"#,
                "Expected every 'inputResponses' entry to match the HITL response schema.",
            ),
        ] {
            assert_eq!(words(follow_up(body(text))), expected);
        }
    }

    #[test]
    fn i17_what_is_said_at_once_has_an_end_and_files_are_not_counted() {
        let text = |n: usize| json!({ "type": "text", "text": "ä".repeat(n / 2) });
        let file = |name: usize, bytes: usize| {
            let data = "AAAA".repeat(bytes / 3);
            json!({ "type": "file", "mediaType": "text/plain", "filename": "n".repeat(name), "data": data })
        };
        let answers = |n: usize| json!({ "requestId": "apr_1", "text": "x".repeat(n) });
        let half = MESSAGE_BYTES / 2;
        let parts = |n: usize| vec![json!({ "type": "text", "text": "x" }); n];
        for (body, expected) in [
            (json!({ "message": "x".repeat(MESSAGE_BYTES) }), None),
            (json!({ "message": "x".repeat(MESSAGE_BYTES + 1) }), Some("262145 bytes of text, at most 262144.")),
            (json!({ "message": [text(half), text(half)] }), None),
            (json!({ "message": [text(half), text(half), text(2)] }), Some("262146 bytes of text")),
            (json!({ "message": [text(half), file(half, 3 * MESSAGE_BYTES)] }), None),
            (json!({ "message": [text(half), file(half + 1, 3)] }), Some("262145 bytes of text")),
            (json!({ "message": parts(MESSAGE_PARTS) }), None),
            (json!({ "message": parts(MESSAGE_PARTS + 1) }), Some("too many parts: at most 256.")),
            (json!({ "inputResponses": [answers(half), answers(half)] }), None),
            (json!({ "inputResponses": [answers(half), answers(half + 1)] }), Some("'inputResponses' is too long")),
        ] {
            match (follow_up(object(Some(body)).unwrap_or_else(|error| panic!("{error}"))), expected) {
                (Ok(_), None) => {}
                (Err(error @ Failure::Said(_)), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (other, expected) => panic!("{:?}, expected {expected:?}", other.map(drop)),
            }
        }
    }

    #[test]
    fn nobody_is_called_and_nobody_is_believed() {
        for text in [
            r#"{"message":"x","callback":{"url":"http://127.0.0.1:1/"}}"#,
            r#"{"message":"x","stubs":{}}"#,
            r#"{"message":"x","forwardedPrincipal":{"current":{}}}"#,
            r#"{"message":[{"type":"file","mediaType":"a/b","data":"http://127.0.0.1/x"}]}"#,
        ] {
            assert!(matches!(create(body(text)), Err(Failure::NotAccepted { .. })), "{text}");
        }
        assert!(create(body(r#"{"message":"x"}"#)).is_ok());
    }

    #[test]
    fn files_come_as_base64_in_either_spelling() {
        for data in ["aGk/aGk+", "aGk_aGk-", "data:text/plain;base64,aGk/aGk+"] {
            let text = format!(r#"{{"message":[{{"type":"file","mediaType":"text/plain","data":"{data}"}}]}}"#);
            let new = create(body(&text)).unwrap_or_else(|error| panic!("{error}"));
            match &new.message.unwrap().parts[..] {
                [IncomingPart::File { bytes, .. }] => assert_eq!(bytes, b"hi?hi>"),
                other => panic!("{other:?}"),
            }
        }
    }
}
