//! What a call of a model costs where nobody says so: one that was canceled, interrupted or lost, and one of
//! a provider that names no figures.
//!
//! A budget that counted whole answers alone would be free for whoever stops each answer just before its end.
//! So the tokens of such a call are estimated, rather too many than too few, and counted like any others.

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallModel;
use bailiwick_model::{
    AssistantPart, Event as ModelEvent, Message as ModelMessage, Request, ToolInput, Usage, UserPart,
};
use bailiwick_store::StoreError;
use bailiwick_store::session::Tokens;
use bailiwick_store::turn::Change;
use serde_json::Value;

use super::{Drive, Stop, Turn};

/// Characters of a token: close enough to decide by.
const TOKEN: u64 = 4;
/// What a model is charged for a large picture.
const PICTURE_TOKENS: u64 = 1_600;
/// Bytes of a document for each token: its pages are read as text and as pictures.
const DOCUMENT_TOKEN: u64 = 20;

/// A call of a model that is under way: what it was sent, and what was heard of its answer so far.
pub(super) struct UnderWay {
    sent: u64,
    /// Bytes of all that the model said: text, thoughts and arguments.
    heard: u64,
    /// What the whole answer cost, once it is there.
    whole: Option<Tokens>,
}

impl UnderWay {
    pub(super) fn new(request: &Request) -> Self {
        Self { sent: sent(request), heard: 0, whole: None }
    }

    /// Tokens that it was sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn hear(&mut self, event: &ModelEvent) {
        let said = match event {
            ModelEvent::TextDelta(delta) | ModelEvent::ReasoningDelta(delta) => delta.len(),
            ModelEvent::ToolInputDelta { delta, .. } => delta.len(),
            ModelEvent::Finished(_) => 0,
        };
        self.heard = self.heard.saturating_add(said as u64);
    }

    /// The answer is whole. What it cost by the provider's word, and by ours where the provider has none.
    pub(super) fn answered(&mut self, usage: &Usage) -> Tokens {
        let ours = self.so_far();
        let said = |figure: u64, ours: u64| if figure == 0 { ours } else { figure };
        let tokens = Tokens {
            input_tokens: said(usage.input_tokens, ours.input_tokens),
            output_tokens: said(usage.output_tokens, ours.output_tokens),
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
        };
        self.whole = Some(tokens);
        tokens
    }

    /// What it has cost until now.
    pub(super) fn so_far(&self) -> Tokens {
        let (input_tokens, output_tokens) = (self.sent, self.heard.div_ceil(TOKEN));
        self.whole.unwrap_or(Tokens { input_tokens, output_tokens, ..Tokens::default() })
    }

    /// What it has cost if it failed: a provider that refused it at once charges nothing.
    pub(super) fn of_failure(&self) -> Tokens {
        if self.heard == 0 { Tokens::default() } else { self.so_far() }
    }
}

impl Drive<'_> {
    /// What was spent is counted, even where there is no session left to write it into.
    pub(super) async fn spent<T>(
        &self,
        act: &Recorded<CallModel>,
        under_way: &UnderWay,
        done: Result<T, Stop>,
    ) -> Result<T, Stop> {
        if let Err(Stop::Store(StoreError::Fenced | StoreError::NotFound { .. })) = &done {
            match self.inner.store.usage_count_gone(act, &under_way.so_far()).await {
                // Not even the account is there any more.
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    let session = self.session();
                    tracing::warn!(%session, %error, "what a deleted session had spent could not be counted");
                }
            }
        }
        done
    }
}

impl Turn {
    /// A change that settles the call of a model which was under way, with what it cost.
    pub(super) fn settled(&mut self, tokens: &Tokens) -> Change {
        self.facts.sent = 0;
        let mut change = self.change();
        change.tokens = *tokens;
        change.facts = Some(self.facts_json());
        change
    }
}

/// Tokens of everything that a model is sent.
fn sent(request: &Request) -> u64 {
    let mut letters = request.instructions.len() + request.output_schema.as_ref().map_or(0, length);
    for tool in &request.tools {
        letters += tool.name.len() + tool.description.len() + length(&tool.input_schema);
    }
    let mut files = 0_u64;
    for message in &request.messages {
        match message {
            ModelMessage::User(parts) => {
                for part in parts {
                    match part {
                        UserPart::Text(text) => letters += text.len(),
                        UserPart::Image { .. } => files = files.saturating_add(PICTURE_TOKENS),
                        UserPart::Document { bytes, .. } => {
                            files = files.saturating_add((bytes.as_bytes().len() as u64).div_ceil(DOCUMENT_TOKEN));
                        }
                    }
                }
            }
            ModelMessage::Assistant(said) => letters += said.parts.iter().map(said_length).sum::<usize>(),
            ModelMessage::ToolResults(results) => {
                letters += results.iter().map(|result| result.name.len() + result.content.len()).sum::<usize>();
            }
        }
    }
    (letters as u64).div_ceil(TOKEN).saturating_add(files)
}

fn said_length(part: &AssistantPart) -> usize {
    match part {
        AssistantPart::Text(text) | AssistantPart::Reasoning(text) => text.len(),
        AssistantPart::ToolCall(call) => {
            let input = match &call.input {
                ToolInput::Json(arguments) => length(arguments),
                ToolInput::Text(text) => text.len(),
            };
            call.name.len() + input
        }
    }
}

fn length(value: &Value) -> usize {
    value.to_string().len()
}
