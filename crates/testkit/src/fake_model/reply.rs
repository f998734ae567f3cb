//! What a fake answers: the content in neutral words, and what happens to it on the way.

use std::time::Duration;

use axum::body::Bytes;
use serde_json::Value;

/// One answer of a fake.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) what: What,
    pub(super) headers: Vec<(String, String)>,
    pub(super) way: Way,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// An answer in the API's own events.
    Answer(Answer),
    /// An error with the API's own body.
    Error { status: u16, kind: String, message: String },
    /// These very bytes.
    Raw { status: u16, content_type: String, body: Bytes },
    /// Nothing, ever.
    Hang,
}

/// The content of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) parts: Vec<Part>,
    pub(super) finish: Option<String>,
    pub(super) usage: FakeUsage,
    /// Events put in as they are: after how many of ours, and the whole text.
    pub(super) extra: Vec<(usize, String)>,
    /// An error event after so many events: kind and message.
    pub(super) error: Option<(usize, String, String)>,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Thinking(String),
    Redacted(String),
    Text(String),
    Refusal(String),
    Tool { id: Option<String>, name: String, arguments: String },
}

/// What happens to the events on the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    pub(super) delay: Duration,
    pub(super) bytes_per_chunk: Option<usize>,
    pub(super) end: WayEnd,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum WayEnd {
    #[default]
    Complete,
    /// The connection breaks after so many chunks.
    Cut(usize),
    /// Nothing more comes after so many chunks.
    Stall(usize),
}

/// Token numbers in an answer. `input` is what was read without the cache.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct FakeUsage {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
}

impl Default for FakeUsage {
    fn default() -> Self {
        Self { input: 10, output: 5, cache_read: 0, cache_write: 0 }
    }
}

impl Reply {
    /// An empty answer to add parts to.
    pub fn answer() -> Self {
        Self { what: What::Answer(Answer::default()), headers: Vec::new(), way: Way::default() }
    }

    /// A text.
    pub fn text(text: &str) -> Self {
        Self::answer().and_text(text)
    }

    /// One tool call.
    pub fn tool(name: &str, input: Value) -> Self {
        Self::answer().and_tool(name, input)
    }

    /// An error by status, with the API's body.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::of(What::Error { status, kind: kind.to_owned(), message: message.to_owned() })
    }

    /// These very bytes.
    pub fn raw(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::of(What::Raw { status, content_type: content_type.to_owned(), body: body.into() })
    }

    /// No answer at all; the request stays open.
    pub fn hang() -> Self {
        Self::of(What::Hang)
    }

    fn of(what: What) -> Self {
        Self { what, headers: Vec::new(), way: Way::default() }
    }

    fn part(mut self, part: Part) -> Self {
        if let What::Answer(answer) = &mut self.what {
            answer.parts.push(part);
        }
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn and_text(self, text: &str) -> Self {
        self.part(Part::Text(text.to_owned()))
    }

    /// Adds a refusal (OpenAI) or ends with one (Anthropic).
    #[must_use]
    pub fn and_refusal(self, text: &str) -> Self {
        self.part(Part::Refusal(text.to_owned()))
    }

    /// Adds thinking: a signed block, a reasoning item, or `reasoning_content`.
    #[must_use]
    pub fn and_thinking(self, text: &str) -> Self {
        self.part(Part::Thinking(text.to_owned()))
    }

    /// Adds a block of redacted thinking (Anthropic).
    #[must_use]
    pub fn and_redacted_thinking(self, data: &str) -> Self {
        self.part(Part::Redacted(data.to_owned()))
    }

    /// Adds a tool call with an id of the fake's choice.
    #[must_use]
    pub fn and_tool(self, name: &str, input: Value) -> Self {
        self.part(Part::Tool { id: None, name: name.to_owned(), arguments: input.to_string() })
    }

    /// Adds a tool call with this id and these arguments, whatever they are.
    #[must_use]
    pub fn and_odd_tool(self, id: &str, name: &str, arguments: &str) -> Self {
        self.part(Part::Tool { id: Some(id.to_owned()), name: name.to_owned(), arguments: arguments.to_owned() })
    }

    /// Sets the API's own reason to stop; for Responses the reason of an incomplete answer.
    #[must_use]
    pub fn finish(mut self, reason: &str) -> Self {
        if let What::Answer(answer) = &mut self.what {
            answer.finish = Some(reason.to_owned());
        }
        self
    }

    /// Sets the token numbers.
    #[must_use]
    pub fn usage(mut self, usage: FakeUsage) -> Self {
        if let What::Answer(answer) = &mut self.what {
            answer.usage = usage;
        }
        self
    }

    /// Puts this text into the stream after so many events.
    #[must_use]
    pub fn insert_after(mut self, events: usize, text: &str) -> Self {
        if let What::Answer(answer) = &mut self.what {
            answer.extra.push((events, text.to_owned()));
        }
        self
    }

    /// Ends the stream with the API's error event after so many events.
    #[must_use]
    pub fn error_after(mut self, events: usize, kind: &str, message: &str) -> Self {
        if let What::Answer(answer) = &mut self.what {
            answer.error = Some((events, kind.to_owned(), message.to_owned()));
        }
        self
    }

    /// Sets a response header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before each chunk.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.way.delay = delay;
        self
    }

    /// Sends chunks of so many bytes instead of one for each event.
    #[must_use]
    pub fn bytes_per_chunk(mut self, bytes: usize) -> Self {
        self.way.bytes_per_chunk = Some(bytes);
        self
    }

    /// Breaks the connection after so many chunks.
    #[must_use]
    pub fn cut_after(mut self, chunks: usize) -> Self {
        self.way.end = WayEnd::Cut(chunks);
        self
    }

    /// Sends nothing more after so many chunks, and keeps the connection.
    #[must_use]
    pub fn stall_after(mut self, chunks: usize) -> Self {
        self.way.end = WayEnd::Stall(chunks);
        self
    }
}
