//! A conversation that grew too long, or whose caller asked for it: the model's own summary in its place.

use bailiwick_audit::Verdict;
use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallModel;
use bailiwick_model::{
    Credential, Event as ModelEvent, Message as ModelMessage, ModelError, Provider, Request, UserPart,
};
use bailiwick_store::StoreError;
use bailiwick_store::turn::Messages;
use futures::StreamExt;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::spent::UnderWay;
use super::{Drive, Stop, Turn, Urgent};
use crate::event;

/// A stored message as text, for counting and for summaries: files are named, not shown.
fn plain_message(message: &Value) -> String {
    match serde_json::from_value(message.clone()) {
        Ok(ModelMessage::User(parts)) => {
            let parts = parts.into_iter().map(|part| match part {
                UserPart::Text(text) => text,
                UserPart::Image { media_type, .. } => format!("[a picture, {media_type}]"),
                UserPart::Document { name, .. } => format!("[the document {name}]"),
            });
            format!("User: {}", parts.collect::<Vec<_>>().join("\n"))
        }
        Ok(ModelMessage::Assistant(said)) => {
            let calls: Vec<String> = said.tool_calls().map(|call| format!("[calls {}]", call.name)).collect();
            format!("Assistant: {} {}", said.text(), calls.join(" "))
        }
        Ok(ModelMessage::ToolResults(results)) => {
            let results = results.into_iter().map(|result| format!("Result of {}: {}", result.name, result.content));
            results.collect::<Vec<_>>().join("\n")
        }
        Err(_) => String::new(),
    }
}

pub(super) fn estimate(messages: &[Value]) -> u64 {
    // Four characters a token is close enough to decide when to summarise.
    messages.iter().map(|message| plain_message(message).len() as u64 / 4).sum()
}

impl Drive<'_> {
    /// Has the model summarise the conversation, and puts the summary in its place.
    pub(super) async fn summarise(&self, turn: &mut Turn) -> Result<(), Stop> {
        let stored = self.inner.store.turn_messages(&self.lease).await?;
        if stored.len() < 2 {
            return Ok(());
        }
        // The newest message of the caller, if the turn has not answered it yet, stays as it is.
        let keep = usize::from(matches!(
            stored.last().and_then(|m| serde_json::from_value(m.clone()).ok()),
            Some(ModelMessage::User(_))
        ));
        let kept: Vec<Value> = stored[stored.len() - keep..].to_vec();
        let provider = self.provider(turn)?;
        let before = estimate(&stored);
        turn.events.push(event::compaction_requested(turn.at, self.session(), provider.model(), before));
        let text = stored[..stored.len() - keep].iter().map(plain_message).collect::<Vec<_>>().join("\n\n");
        let ask = format!(
            "Summarise this conversation for yourself, so that you can go on with it: what was asked, what was done \
             and found, which files matter, what is open. Do not act on it.\n\n{text}"
        );
        let mut request = Request::new(provider.model(), vec![ModelMessage::user(ask)]);
        request.max_output_tokens = provider.max_output_tokens().min(4_096);
        let mut under_way = UnderWay::new(&request);
        let act = self.record_call(turn, &provider, &under_way).await?;
        let done = self.hear_summary(turn, (&provider, &request), &act, &mut under_way, kept).await;
        self.spent(&act, &under_way, done).await
    }

    /// Hears a summary, and puts it before the messages that are kept.
    async fn hear_summary(
        &self,
        turn: &mut Turn,
        (provider, request): (&Provider, &Request),
        act: &Recorded<CallModel>,
        under_way: &mut UnderWay,
        kept: Vec<Value>,
    ) -> Result<(), Stop> {
        let key = self.model_key(turn, act).await?;
        let credential = key.as_ref().map(|key| key as &dyn Credential);
        let cancel = CancellationToken::new();
        let _cancel_on_drop = cancel.clone().drop_guard();
        let mut stream = provider.stream(request, credential, cancel);
        drop(key);
        let completion = loop {
            tokio::select! {
                biased;
                () = self.handle.poked.notified() => if let Some(Urgent::Cancel) = self.urgent(turn).await? {
                    self.settle_unfinished(turn, act, under_way, "canceled").await?;
                    return Err(Stop::Canceled);
                },
                () = self.handle.stopping.cancelled() => return Err(Stop::Stopping),
                next = stream.next() => match next {
                    Some(Ok(ModelEvent::Finished(completion))) => break completion,
                    Some(Ok(event)) => under_way.hear(&event),
                    Some(Err(error)) => return Err(self.model_failed(turn, act, under_way, &error).await?),
                    None => return Err(self.model_failed(turn, act, under_way, &ModelError::Interrupted).await?),
                },
            }
        };
        let tokens = under_way.answered(&completion.usage);
        turn.tokens.add(&tokens);
        let summary = format!("Summary of the conversation so far:\n{}", completion.message.text());
        let mut messages = vec![serde_json::to_value(ModelMessage::user(summary)).map_err(StoreError::from)?];
        if !kept.is_empty() {
            // Two messages of the user in a row are one to a model; between them stands a word of its own.
            let noted = bailiwick_model::AssistantMessage {
                parts: vec![bailiwick_model::AssistantPart::Text("Noted.".to_owned())],
                raw: None,
            };
            messages.push(serde_json::to_value(ModelMessage::Assistant(noted)).map_err(StoreError::from)?);
        }
        messages.extend(kept);
        turn.events.push(event::compaction_completed(turn.at, self.session(), provider.model()));
        let mut change = turn.settled(&tokens);
        change.messages = Messages::Replace(messages);
        change.audit = vec![act.outcome(Verdict::Ok, Map::from_iter([("for".to_owned(), json!("compaction"))]))];
        self.commit(change).await?;
        Ok(())
    }
}
