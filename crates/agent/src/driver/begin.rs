//! The beginning of a turn, its steps, and its recovery after a restart.

use bailiwick_audit::Verdict;
use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::ReadSpace;
use bailiwick_model::{Message as ModelMessage, UserPart};
use bailiwick_store::StoreError;
use bailiwick_store::session::{Delivery, SessionState, Tokens};
use bailiwick_store::turn::{CallChange, CallState, Change, Messages, Standing};
use serde_json::{Map, Value, json};

use super::model::Answered;
use super::{Drive, Next, Step, Stop, Turn, Urgent};
use crate::event::{self, At, ResultStatus};
use crate::message::{FilePart, Message, Part};

/// Pictures up to this size are shown to the model; larger ones are named to it.
const PICTURE_BYTES: u64 = 3 * 1024 * 1024;
/// Documents up to this size are shown to the model.
const DOCUMENT_BYTES: u64 = 5 * 1024 * 1024;

impl Drive<'_> {
    /// Begins a turn with a message.
    pub(super) async fn begin(
        &self,
        turn: &mut Turn,
        standing: &Standing,
        delivery: &Delivery,
        message: Message,
    ) -> Result<(), Stop> {
        turn.caller = delivery.caller.clone();
        turn.at = At { turn: standing.row.turn, step: 0 };
        turn.facts = super::Facts {
            ids: vec![delivery.id.clone()],
            client_context: message.client_context.clone(),
            output_schema: message.output_schema.clone(),
            ..super::Facts::default()
        };
        if standing.row.events == 0 {
            let (id, name) = (turn.agent.name.as_str(), &turn.agent.definition.name);
            turn.events.push(event::session_started(id, if name.is_empty() { id } else { name }));
        }
        turn.events.push(event::turn_started(turn.at));
        turn.events.push(event::message_received(turn.at, &message));
        // Taken up before anything can fail: a message that could not be taken up would come again for ever.
        let mut change = turn.change();
        change.state = Some(SessionState::Running);
        change.caller = Some(turn.caller.clone());
        change.facts = Some(turn.facts_json());
        change.taken = vec![delivery.n];
        change.messages = Messages::Append(vec![self.user_message(turn, &message).await]);
        self.commit(change).await?;
        if standing.newest.is_none() {
            let message = "The agent of this session was deleted.".to_owned();
            return Err(Stop::Failed { code: "AGENT_DELETED", message });
        }
        self.steps(turn).await
    }

    /// A message joins the turn that is under way.
    pub(super) async fn steer(&self, turn: &mut Turn, delivery: &Delivery, message: Message) -> Result<(), Stop> {
        if !turn.facts.ids.contains(&delivery.id) {
            turn.facts.ids.push(delivery.id.clone());
        }
        turn.facts.client_context = message.client_context.clone().or(turn.facts.client_context.take());
        turn.facts.output_schema = message.output_schema.clone().or(turn.facts.output_schema.take());
        turn.events.push(event::message_received(turn.at, &message));
        let mut change = turn.change();
        change.taken = vec![delivery.n];
        change.facts = Some(turn.facts_json());
        change.messages = Messages::Append(vec![self.user_message(turn, &message).await]);
        change.state = Some(SessionState::Running);
        self.commit(change).await?;
        Ok(())
    }

    /// What the model reads of a caller's message.
    async fn user_message(&self, turn: &mut Turn, message: &Message) -> Value {
        let mut parts = Vec::new();
        for part in &message.parts {
            match part {
                Part::Text { text } => parts.push(UserPart::Text(text.clone())),
                Part::File(file) => {
                    let label = format!("Attached file /workspace/{} ({})", file.path, file.media_type);
                    parts.push(UserPart::Text(label));
                    // Without the right to read it, the file is only named.
                    if let Ok(scope) = self.scope(turn).await {
                        parts.extend(self.file_part(turn, &scope, file).await);
                    }
                }
            }
        }
        serde_json::to_value(ModelMessage::User(parts)).unwrap_or_default()
    }

    /// The file itself, where a model can look at it. A file that cannot be read is only named.
    async fn file_part(&self, turn: &Turn, scope: &Scope, file: &FilePart) -> Option<UserPart> {
        let picture = matches!(file.media_type.as_str(), "image/png" | "image/jpeg" | "image/gif" | "image/webp");
        let document = file.media_type == "application/pdf";
        let limit = if picture { PICTURE_BYTES } else { DOCUMENT_BYTES };
        if !(picture || document) || file.size > limit {
            return None;
        }
        let permit = scope.authorize::<ReadSpace>(turn.session.space().clone()).ok()?;
        let files = self.inner.store.space_files(&permit).await.ok()?;
        let place = file.place()?;
        let bytes = tokio::task::spawn_blocking(move || files.read(&place, limit)).await.ok()?.ok()?;
        let media_type = file.media_type.clone();
        Some(if picture {
            UserPart::Image { media_type, bytes: bytes.into() }
        } else {
            let name = file.filename.clone().unwrap_or_else(|| "document".to_owned());
            UserPart::Document { media_type, name, bytes: bytes.into() }
        })
    }

    /// Model calls and tool calls in turn, until the model has said everything.
    pub(super) async fn steps(&self, turn: &mut Turn) -> Result<(), Stop> {
        loop {
            match self.urgent(turn).await? {
                Some(Urgent::Cancel) => return Err(Stop::Canceled),
                Some(Urgent::Steer(steering)) => {
                    let (delivery, message) = *steering;
                    self.steer(turn, &delivery, message).await?;
                }
                None => {}
            }
            if self.handle.stopping.is_cancelled() {
                return Err(Stop::Stopping);
            }
            match self.call_model(turn).await? {
                Answered::Final => return Ok(()),
                Answered::Interrupted => turn.step = Step::Closed,
                Answered::Tools(planned) => self.run_calls(turn, planned).await?,
            }
            // After an approval the next step is open already: its calls were its beginning.
            if turn.step == Step::Closed {
                turn.at.step += 1;
            }
        }
    }

    /// Goes on with a turn that a crash or a restart interrupted.
    pub(super) async fn recover(&self, turn: &mut Turn, standing: &Standing) -> Result<(), Stop> {
        // A model was asked and nobody heard its answer: what it was sent is spent all the same.
        let lost = Tokens { input_tokens: turn.facts.sent, ..Tokens::default() };
        turn.tokens.add(&lost);
        if std::mem::take(&mut turn.facts.compacting) {
            // There is no turn to go on with. What asked for the summary is still in the queue.
            self.commit(Change { state: Some(SessionState::Idle), ..turn.settled(&lost) }).await?;
            return Ok(());
        }
        let mut change = turn.settled(&lost);
        for call in standing.calls.iter().filter(|call| call.state == CallState::Started) {
            // Its intent is on record and its outcome is not: it may have run. It is not run again.
            let message = "The server was restarted while this ran. It may have taken effect; it was not run again.";
            let output = json!({ "error": message, "code": "INTERRUPTED" });
            let error = Some(("INTERRUPTED", message));
            let (id, tool) = (call.id, call.tool.as_str());
            change.events.push(event::action_result(turn.at, id, tool, &output, ResultStatus::Failed, error));
            change.calls.push(CallChange::Done(id, super::calls::stored(&output, ResultStatus::Failed)));
            change.audit.push(super::calls::interrupted(turn, call));
        }
        let unanswered = self.wants_results().await?;
        if !unanswered {
            // The model was being called. What it said is lost; the step ends, and the next one asks again.
            change.events.push(event::step_completed(turn.at, "other", None));
        }
        self.commit(change).await?;
        if unanswered {
            // Calls that were never begun go through the gate again, with the rights of now.
            let waiting = standing.calls.iter().filter(|call| call.state == CallState::Requested);
            let waiting: Vec<_> = waiting.cloned().collect();
            self.rerun(turn, waiting).await?;
            self.after_calls(turn).await?;
        }
        if turn.step == Step::Closed {
            turn.at.step += 1;
        }
        self.steps(turn).await
    }

    /// Puts a summary in the place of the conversation.
    pub(super) async fn compact(&self, turn: &mut Turn, delivery: &Delivery) -> Result<Next, StoreError> {
        turn.caller = delivery.caller.clone();
        turn.facts.compacting = true;
        let result = match self.check_budget(turn) {
            Ok(()) => self.summarise(turn).await,
            Err(stop) => Err(stop),
        };
        if matches!(result, Err(Stop::Stopping)) {
            return Ok(Next::Rest);
        }
        turn.facts.compacting = false;
        let mut events = std::mem::take(&mut turn.events);
        if let Err(Stop::Store(error)) = result {
            return Err(error);
        }
        if let Err(Stop::Failed { code, message }) = &result {
            let details = json!({ "name": code, "message": message });
            events.push(event::step_failed(turn.at, code, message, &details));
        }
        events.push(event::session_waiting(self.session(), &turn.tokens));
        self.commit(Change {
            events,
            delivery_ids: turn.facts.ids.clone(),
            taken: vec![delivery.n],
            // The call of the model marked the session as at work.
            state: Some(SessionState::Idle),
            place: Some((turn.at.turn, 0)),
            facts: Some(turn.facts_json()),
            ..Change::default()
        })
        .await?;
        Ok(Next::Again)
    }

    /// The record's line for a turn that ended.
    pub(super) fn turn_audit(&self, turn: &Turn, scope: &Scope, verdict: Verdict) -> bailiwick_audit::Draft {
        let mut draft = scope.draft("turn.end", &turn.session, bailiwick_audit::Phase::Observation, verdict);
        draft.detail =
            Map::from_iter([("turn".to_owned(), json!(turn.at.turn)), ("steps".to_owned(), json!(turn.at.step + 1))]);
        draft
    }
}
