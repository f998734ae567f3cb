//! A turn that waits for people: answers, refusals, time that runs out, messages that come instead.

use bailiwick_auth::access::verb::DecideApproval;
use bailiwick_auth::{Credential, Scope};
use bailiwick_store::StoreError;
use bailiwick_store::approval::{ApprovalRow, ApprovalState, Choice, Decision, Kind};
use bailiwick_store::session::{Caller, Delivery, SessionState};
use bailiwick_store::turn::{CallChange, CallRow, CallState, Change, Standing};
use bailiwick_types::RequestId;
use serde_json::{Value, json};

use super::calls::stored;
use super::{Drive, Next, Step, Stop, Turn, is_pending, of_calls, read_body};
use crate::event::{self, ResultStatus};
use crate::message::{Body, Message};

impl Drive<'_> {
    /// Looks at a session that waits for a person.
    pub(super) async fn awaiting(&self, standing: Standing) -> Result<Next, StoreError> {
        let mut turn = Turn::of(&standing);
        for delivery in &standing.deliveries {
            match read_body(delivery) {
                None => return self.drop_delivery(delivery).await,
                Some(Body::Cancel { turn: wanted }) => {
                    if wanted.is_none_or(|wanted| wanted == turn.at.turn_id()) {
                        turn.taken.push(delivery.n);
                        return self.cancel(&mut turn, &standing).await;
                    }
                    return self.drop_delivery(delivery).await;
                }
                // It stays in the queue, and ends the session when the turn is over.
                Some(Body::Reset) => return self.cancel(&mut turn, &standing).await,
                Some(Body::Message(message)) if turn.steered_by(delivery, &message) => {
                    let result = self.instead(&mut turn, &standing, delivery, message).await;
                    return self.conclude(&mut turn, result).await;
                }
                // Clearing, compacting, queued messages and those of others wait for the end of the turn.
                Some(Body::Message(_) | Body::Clear | Body::Compact) => {}
            }
        }
        let news = self.announce(&mut turn, &standing);
        let open: Vec<_> = of_calls(&standing.approvals, &standing.calls)
            .filter(|approval| is_pending(approval))
            .map(|approval| (approval.id, approval.expires_at))
            .collect();
        if open.is_empty() {
            let result = self.go_on(&mut turn, &standing).await;
            return self.conclude(&mut turn, result).await;
        }
        if news {
            turn.events.push(event::turn_waiting(turn.at, "input", &turn.tokens));
            let mut change = turn.change();
            change.facts = Some(turn.facts_json());
            self.commit(change).await?;
        }
        self.inner.wake_at(self.lease.tenant(), self.session(), &open);
        Ok(Next::Rest)
    }

    /// Shows on the stream what was decided since the last look. Whether there was anything.
    fn announce(&self, turn: &mut Turn, standing: &Standing) -> bool {
        let before = turn.facts.announced.len();
        for approval in of_calls(&standing.approvals, &standing.calls) {
            if is_pending(approval) || turn.facts.announced.contains(&approval.id) {
                continue;
            }
            turn.facts.announced.push(approval.id);
            let id = approval.id.to_string();
            let outcome = match approval.state {
                ApprovalState::Approved | ApprovalState::Used => "approved",
                ApprovalState::Denied => "denied",
                ApprovalState::Answered => "answered",
                ApprovalState::Ignored => "ignored",
                ApprovalState::Pending | ApprovalState::Expired | ApprovalState::Canceled | ApprovalState::Voided => {
                    "cancelled"
                }
            };
            if approval.kind == Kind::ToolApproval
                && let Some(decider) = &approval.decided_by
            {
                let settled = if outcome == "approved" { "approved" } else { "cancelled" };
                turn.events.push(event::approval_settled(turn.at, &id, decider.as_str(), settled));
            }
            let kind = approval.kind.as_str();
            turn.events.push(event::input_resolved(turn.at, &id, kind, outcome, approval.answer.as_ref()));
        }
        turn.facts.announced.len() > before
    }

    /// Everything is settled: goes on with the turn.
    async fn go_on(&self, turn: &mut Turn, standing: &Standing) -> Result<(), Stop> {
        self.resume(turn, standing).await?;
        if turn.step == Step::Closed {
            turn.at.step += 1;
        }
        self.steps(turn).await
    }

    /// Ends the calls that were denied, gives questions their answers, and runs what was approved.
    pub(super) async fn resume(&self, turn: &mut Turn, standing: &Standing) -> Result<(), Stop> {
        self.announce(turn, standing);
        let mut approved = Vec::new();
        let mut ended = Vec::new();
        for call in standing.calls.iter().filter(|call| call.state == CallState::Asked) {
            let Some(approval) = standing.approvals.iter().find(|approval| approval.call == call.id) else { continue };
            match approval.state {
                ApprovalState::Approved => approved.push((call.clone(), approval.id)),
                ApprovalState::Pending => {}
                _ => {
                    let (output, status, error) = self.ending(approval);
                    let shown = error.as_ref().map(|(code, message)| (*code, message.as_str()));
                    turn.events.push(event::action_result(
                        turn.at,
                        call.id,
                        call.tool.as_str(),
                        &output,
                        status,
                        shown,
                    ));
                    ended.push(CallChange::Done(call.id, stored(&output, status)));
                }
            }
        }
        if !approved.is_empty() {
            turn.at.step += 1;
            turn.step = Step::Open;
            let model = self.inner.models.find(&turn.agent.definition.model);
            turn.events.push(event::step_started(turn.at, model.map_or("unknown", |model| model.model())));
        }
        let mut change = turn.change();
        change.calls = ended;
        change.state = Some(SessionState::Running);
        change.facts = Some(turn.facts_json());
        self.commit(change).await?;
        if !approved.is_empty() {
            self.execute_approved(turn, approved).await?;
        }
        let calls: Vec<CallRow> = self.standing().await?.calls;
        self.give_results(turn, &calls).await
    }

    fn ending(&self, approval: &ApprovalRow) -> (Value, ResultStatus, Option<(&'static str, String)>) {
        if approval.state == ApprovalState::Answered {
            let answer = approval.answer.as_ref();
            let words = answer.and_then(|a| a["text"].as_str().or(a["optionId"].as_str())).unwrap_or_default();
            return (json!({ "status": "answered", "answer": words }), ResultStatus::Completed, None);
        }
        let message = match approval.state {
            ApprovalState::Ignored => "Ignored because the user continued without responding.".to_owned(),
            ApprovalState::Expired => "Nobody decided in time, so it was not run.".to_owned(),
            ApprovalState::Denied => match &approval.reason {
                Some(reason) => format!("Tool execution was denied: {reason}"),
                None => "Tool execution was denied.".to_owned(),
            },
            _ => "Tool execution was denied.".to_owned(),
        };
        let code = "TOOL_EXECUTION_DENIED";
        let output = json!({
            "code": code,
            "message": message,
            "approval": { "requestId": approval.id, "status": approval.state },
            "tool": { "result": "not_run" },
        });
        (output, ResultStatus::Rejected, Some((code, message)))
    }

    /// A message came instead of a decision: it is one in words, or the caller goes on without.
    async fn instead(
        &self,
        turn: &mut Turn,
        standing: &Standing,
        delivery: &Delivery,
        message: Message,
    ) -> Result<(), Stop> {
        let open: Vec<&ApprovalRow> =
            of_calls(&standing.approvals, &standing.calls).filter(|approval| is_pending(approval)).collect();
        if let (Some(first), Some(text)) = (open.first(), message.only_text())
            && let Some((decision, answer)) = typed(first, text)
        {
            // Decided first: said twice it is decided once, but taken up and then lost it would be gone.
            self.decide(&delivery.caller, first, decision, answer).await?;
            turn.facts.ids.push(delivery.id.clone());
            let change = Change { taken: vec![delivery.n], facts: Some(turn.facts_json()), ..Change::default() };
            self.commit(change).await?;
            return Err(Stop::Waiting);
        }
        let settled = open.iter().map(|approval| (approval.id, ApprovalState::Ignored)).collect();
        self.commit(Change { settled, ..Change::default() }).await?;
        turn.facts.ids.push(delivery.id.clone());
        let standing = self.standing().await?;
        self.resume(turn, &standing).await?;
        self.steer(turn, delivery, message).await?;
        if turn.step == Step::Closed {
            turn.at.step += 1;
        }
        self.steps(turn).await
    }

    async fn decide(
        &self,
        caller: &Caller,
        approval: &ApprovalRow,
        decision: Decision,
        answer: Value,
    ) -> Result<(), Stop> {
        let scope = self.scope_of(caller).await?;
        let found = self.inner.store.approval_find(&scope, approval.id).await?;
        let Some(found) = found else { return Ok(()) };
        match scope.authorize::<DecideApproval>(found) {
            Ok(permit) => match self.inner.store.approval_decide(permit, decision, None, answer).await {
                Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Err(refusal) => {
                // Said but not allowed: on record, and the request stays open.
                self.inner.store.observe(Some(scope.tenant()), refusal.draft().clone());
                Ok(())
            }
        }
    }

    async fn scope_of(&self, caller: &Caller) -> Result<Scope, Stop> {
        let gone = || Stop::Failed {
            code: "CALLER_NOT_AUTHORIZED",
            message: "The credential of this message's sender is not valid any more.".to_owned(),
        };
        let credential = Credential::parse(&caller.credential).ok_or_else(gone)?;
        let walk = &self.inner.walk;
        let principal = walk
            .resume(&self.inner.store, &caller.account, &caller.user, &credential, caller.address)
            .await
            .map_err(|_| gone())?;
        principal.scope(RequestId::new()).map_err(|_| gone())
    }

    /// Ends a turn that waits.
    async fn cancel(&self, turn: &mut Turn, standing: &Standing) -> Result<Next, StoreError> {
        let open: Vec<&ApprovalRow> =
            of_calls(&standing.approvals, &standing.calls).filter(|approval| is_pending(approval)).collect();
        for approval in &open {
            let (id, kind) = (approval.id.to_string(), approval.kind.as_str());
            turn.events.push(event::input_resolved(turn.at, &id, kind, "cancelled", None));
        }
        self.conclude(turn, Err(Stop::Canceled)).await
    }
}

/// A decision or an answer that was typed: an option's id, its label, its number, or, where free words
/// are allowed, anything.
fn typed(approval: &ApprovalRow, text: &str) -> Option<(Decision, Value)> {
    let said = text.trim().to_lowercase();
    let number = said.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    let by = |choice: &&Choice| choice.id.to_lowercase() == said || choice.label.to_lowercase() == said;
    let chosen = approval.options.iter().find(by).or_else(|| approval.options.get(number?));
    let id = approval.id;
    match (approval.kind, chosen) {
        (Kind::ToolApproval, Some(choice)) => {
            let decision = if choice.id == "approve" { Decision::Approve } else { Decision::Deny };
            Some((decision, json!({ "requestId": id, "optionId": choice.id })))
        }
        (Kind::ToolApproval, None) => None,
        (Kind::Question, Some(choice)) => Some((Decision::Answer, json!({ "requestId": id, "optionId": choice.id }))),
        (Kind::Question, None) => Some((Decision::Answer, json!({ "requestId": id, "text": text.trim() }))),
    }
}
