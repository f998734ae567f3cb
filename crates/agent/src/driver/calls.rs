//! The tool calls of one answer: through the gate, on record, at work, and back to the model.

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::verb::CallTool;
use bailiwick_auth::access::{Resource, Unapproved};
use bailiwick_auth::{Permit, Recorded, Scope};
use bailiwick_model::{Message as ModelMessage, Outcome as ModelOutcome, ToolCall, ToolInput, ToolResult};
use bailiwick_store::approval::{ApprovalRow, ApprovalState, Choice, Kind};
use bailiwick_store::session::SessionState;
use bailiwick_store::turn::{CallChange, CallRow, CallState, Change, Messages};
use bailiwick_store::{StoreError, quota};
use bailiwick_tools::Verdict as ToolVerdict;
use bailiwick_tools::catalogue::{self, ToolDefinition};
use bailiwick_tools::gate::{self, Asked, Judged, Question, Refused, ToolRequest};
use bailiwick_tools::run::{Context, Main};
use bailiwick_types::{AgentDefinition, ApprovalId, CallId, Exhausted, Timestamp, ToolName, failpoint, limits};
use futures::future::join_all;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{Drive, Step, Stop, Turn, Urgent, is_pending, of_calls, sentence};
use crate::event::{self, ResultStatus};

/// Calls of one answer at most; a model that wants more is told.
const CALLS: usize = 16;

/// How often the rights of a running call's caller are looked at.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// What becomes of a call that the model asked for.
pub(super) enum Planned {
    /// It may run.
    Go(Box<(CallRow, Permit<CallTool>)>),
    /// It waits for a person, or has been refused.
    Settled,
}

/// On what ground a call begins.
enum Ground {
    Permit(Permit<CallTool>),
    Approval(Unapproved, ApprovalId, [u8; 32]),
}

impl Ground {
    /// The record's line for a call that is refused although it had a ground.
    fn denied(&self) -> Draft {
        match self {
            Self::Permit(permit) => permit.draft(Phase::Act, Verdict::Denied, Map::new()),
            Self::Approval(call, ..) => call.scope().draft("tool.call", call.call(), Phase::Act, Verdict::Denied),
        }
    }
}

/// What the model will read of a call, as stored.
pub(super) fn stored(output: &Value, status: ResultStatus) -> Value {
    let text = match output {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let outcome = if status == ResultStatus::Completed { ModelOutcome::Succeeded } else { ModelOutcome::Failed };
    json!({ "content": text, "outcome": outcome })
}

/// The record's line for a call whose outcome nobody saw.
pub(super) fn interrupted(turn: &Turn, call: &CallRow) -> Draft {
    Draft {
        actor: Actor::Service("recovery".to_owned()),
        credential: "none".to_owned(),
        address: "this host".to_owned(),
        request: None,
        action: "tool.call".to_owned(),
        resource: format!("tool:{}", call.tool),
        space: turn.session.space_id(),
        agent: Some(turn.session.agent().clone()),
        phase: Phase::Outcome,
        verdict: Verdict::Fail,
        intent: call.intent,
        detail: Map::from_iter([
            ("call".to_owned(), json!(call.id)),
            ("error".to_owned(), json!("interrupted by a restart; may have run; not run again")),
        ]),
    }
}

impl Drive<'_> {
    /// Puts every call of an answer through the gate, and writes down what the gate said.
    pub(super) async fn plan_calls(
        &self,
        turn: &mut Turn,
        scope: &Scope,
        mut change: Change,
        calls: &[ToolCall],
    ) -> Result<Vec<Planned>, Stop> {
        let mut planned = Vec::new();
        for (place, call) in calls.iter().enumerate() {
            let id = CallId::new();
            let row = |tool: ToolName, arguments: &Value, state, output| CallRow {
                id,
                turn: turn.at.turn,
                step: turn.at.step,
                place: place as u64,
                model_id: call.id.clone(),
                tool,
                arguments: arguments.clone(),
                state,
                intent: None,
                output,
            };
            let judged = match &call.input {
                _ if place >= CALLS => Judged::Refused(Refused {
                    message: format!("Too many calls in one answer: at most {CALLS}."),
                    code: "too_many_calls",
                    refusal: None,
                }),
                ToolInput::Text(_) => Judged::Refused(Refused {
                    message: "The arguments are not JSON.".to_owned(),
                    code: "arguments_invalid",
                    refusal: None,
                }),
                ToolInput::Json(arguments) => {
                    let request = ToolRequest { id, name: call.name.clone(), arguments: arguments.clone() };
                    gate::judge(scope, &turn.session, &turn.agent.definition, &request)
                }
            };
            let arguments = match &call.input {
                ToolInput::Json(arguments) => arguments.clone(),
                ToolInput::Text(_) => Value::Null,
            };
            match judged {
                Judged::Refused(refused) => {
                    // No event on the stream: the model reads why, and asks again or does without.
                    change.audit.push(self.refused(turn, scope, call, &refused));
                    let Some(name) = call.name.parse().ok().or_else(unknown_tool) else { continue };
                    let output =
                        stored(&json!({ "error": refused.message, "code": refused.code }), ResultStatus::Rejected);
                    change.calls.push(CallChange::New(row(name, &arguments, CallState::Done, Some(output))));
                }
                Judged::Go(permit, tool) => {
                    let label = Some(gate::label(tool, &arguments));
                    change.events.push(event::action_requested(turn.at, id, &call.name, &arguments, label));
                    let row = row(tool.name.clone(), &arguments, CallState::Requested, None);
                    change.calls.push(CallChange::New(row.clone()));
                    planned.push(Planned::Go(Box::new((row, permit))));
                }
                Judged::Ask(asked) => {
                    let label = Some(gate::label(asked.tool, &arguments));
                    change.events.push(event::action_requested(turn.at, id, &call.name, &arguments, label));
                    let tool = asked.tool.name.clone();
                    let approval = self.approval(turn, id, &tool, &arguments, &asked);
                    change.audit.push(self.asked(scope, &approval, asked.call.because(), turn));
                    change.approvals.push(approval);
                    change.calls.push(CallChange::New(row(tool, &arguments, CallState::Asked, None)));
                    planned.push(Planned::Settled);
                }
                Judged::Question(permit, question) => {
                    change.events.push(event::action_requested(turn.at, id, &call.name, &arguments, None));
                    let tool = permit.resource().tool().clone();
                    let approval = self.question(turn, id, &tool, &arguments, question);
                    change.audit.push(self.asked(scope, &approval, "question", turn));
                    change.approvals.push(approval);
                    change.calls.push(CallChange::New(row(tool, &arguments, CallState::Asked, None)));
                    planned.push(Planned::Settled);
                }
            }
        }
        self.commit(change).await?;
        Ok(planned)
    }

    fn refused(&self, turn: &Turn, scope: &Scope, call: &ToolCall, refused: &Refused) -> Draft {
        let mut draft = match &refused.refusal {
            Some(refusal) => refusal.draft().clone(),
            None => {
                let mut draft = scope.draft("tool.call", &turn.session, Phase::Act, Verdict::Denied);
                let name: String = call.name.chars().filter(|c| !c.is_control()).take(64).collect();
                draft.resource = format!("tool:{name}");
                draft
            }
        };
        draft.detail.insert("code".to_owned(), json!(refused.code));
        draft
    }

    fn asked(&self, scope: &Scope, approval: &ApprovalRow, because: &str, turn: &Turn) -> Draft {
        let mut draft = scope.draft("approval.request", &turn.session, Phase::Act, Verdict::Ok);
        draft.resource = format!("approval:{}", approval.id);
        draft.detail.insert("tool".to_owned(), json!(approval.tool));
        draft.detail.insert("call".to_owned(), json!(approval.call));
        draft.detail.insert("because".to_owned(), json!(because));
        draft.detail.insert("digest".to_owned(), json!(bailiwick_audit::event::hex(&approval.digest)));
        draft
    }

    fn approval(&self, turn: &Turn, call: CallId, tool: &ToolName, arguments: &Value, asked: &Asked) -> ApprovalRow {
        let choice = |id: &str, label: &str| Choice { id: id.to_owned(), label: label.to_owned(), description: None };
        let options = vec![choice("approve", "Approve"), choice("cancel", "Cancel")];
        let row = self.open_request(turn, call, tool, arguments, asked.prompt.clone(), options);
        ApprovalRow { digest: asked.digest, approvers: turn.agent.definition.approvers.clone(), ..row }
    }

    fn question(
        &self,
        turn: &Turn,
        call: CallId,
        tool: &ToolName,
        arguments: &Value,
        question: Question,
    ) -> ApprovalRow {
        let options =
            question.options.into_iter().map(|(label, description)| Choice { id: label.clone(), label, description });
        let row = self.open_request(turn, call, tool, arguments, question.text, options.collect());
        ApprovalRow { kind: Kind::Question, ..row }
    }

    fn open_request(
        &self,
        turn: &Turn,
        call: CallId,
        tool: &ToolName,
        arguments: &Value,
        prompt: String,
        options: Vec<Choice>,
    ) -> ApprovalRow {
        let asked = turn.agent.definition.limits.approval_timeout_seconds;
        let asked = asked.map(|seconds| std::time::Duration::from_secs(seconds).min(limits::LONGEST_APPROVAL_TIME));
        let time = asked.unwrap_or(limits::APPROVAL_TIME);
        let now = Timestamp::now();
        ApprovalRow {
            id: ApprovalId::new(),
            session: self.session(),
            call,
            kind: Kind::ToolApproval,
            tool: tool.clone(),
            prompt,
            arguments: arguments.clone(),
            digest: [0; 32],
            options,
            requester: turn.caller.user.clone(),
            approvers: Vec::new(),
            state: ApprovalState::Pending,
            decided_by: None,
            reason: None,
            answer: None,
            created_at: now,
            expires_at: now.after(time),
        }
    }

    /// Runs the calls that may run, side by side, and brings the step to its end.
    pub(super) async fn run_calls(&self, turn: &mut Turn, planned: Vec<Planned>) -> Result<(), Stop> {
        let go = planned.into_iter().filter_map(|planned| match planned {
            Planned::Go(go) => {
                let (row, permit) = *go;
                Some((row, Ground::Permit(permit)))
            }
            Planned::Settled => None,
        });
        self.execute_all(turn, go.collect()).await?;
        self.after_calls(turn).await
    }

    /// Runs calls again that were allowed but never begun.
    pub(super) async fn rerun(&self, turn: &mut Turn, rows: Vec<CallRow>) -> Result<(), Stop> {
        let scope = self.scope(turn).await?;
        let mut go = Vec::new();
        for row in rows {
            let request = ToolRequest { id: row.id, name: row.tool.to_string(), arguments: row.arguments.clone() };
            match gate::judge(&scope, &turn.session, &turn.agent.definition, &request) {
                Judged::Go(permit, _) => go.push((row, Ground::Permit(permit))),
                other => {
                    let audit = refusal(other);
                    let message = "This call is not allowed any more.";
                    self.reject(&turn.at_work(), &row, "TOOL_EXECUTION_DENIED", message, audit).await?;
                }
            }
        }
        self.execute_all(turn, go).await
    }

    async fn execute_all(&self, turn: &mut Turn, go: Vec<(CallRow, Ground)>) -> Result<(), Stop> {
        if go.is_empty() {
            return Ok(());
        }
        let cancel = CancellationToken::new();
        let _cancel_on_drop = cancel.clone().drop_guard();
        let at_work = turn.at_work();
        let running = join_all(go.into_iter().map(|(row, ground)| self.execute(&at_work, row, ground, cancel.clone())));
        tokio::pin!(running);
        let mut stop = None;
        let done = loop {
            tokio::select! {
                done = &mut running => break done,
                () = self.handle.poked.notified() => {
                    if let Some(Urgent::Cancel) = self.urgent(turn).await? {
                        stop.get_or_insert(Stop::Canceled);
                        cancel.cancel();
                    }
                }
                // A tool may run for long. It does not outlive the right to run it.
                () = tokio::time::sleep(LOOK_AGAIN), if stop.is_none() => {
                    if let Err(gone @ Stop::Failed { .. }) = self.scope(turn).await {
                        stop = Some(gone);
                        cancel.cancel();
                    }
                }
            }
        };
        for result in done {
            result?;
        }
        stop.map_or(Ok(()), Err)
    }

    /// One call: intent on record, effect, outcome on record.
    async fn execute(
        &self,
        turn: &AtWork,
        row: CallRow,
        ground: Ground,
        cancel: CancellationToken,
    ) -> Result<(), Stop> {
        let mut detail = Map::new();
        detail.insert("call".to_owned(), json!(row.id));
        let store = &self.inner.store;
        if let Some(exhausted) = self.no_room(&row).await? {
            let mut denied = ground.denied();
            denied.detail = quota::refusal_detail(&exhausted);
            denied.detail.extend(detail);
            let code = exhausted.resource.reason();
            return Ok(self.reject(turn, &row, code, &sentence(&exhausted), vec![denied]).await?);
        }
        let begun = match ground {
            Ground::Permit(permit) => store.call_begin(&self.lease, permit, detail).await,
            Ground::Approval(call, approval, digest) => {
                store.call_begin_approved(&self.lease, call, approval, digest, detail).await
            }
        };
        let act: Recorded<CallTool> = match begun {
            Ok(act) => act,
            Err(StoreError::Conflict { message, .. }) => {
                return Ok(self.reject(turn, &row, "TOOL_EXECUTION_DENIED", message, Vec::new()).await?);
            }
            // The store has put it on record.
            Err(StoreError::Exhausted(exhausted)) => {
                let code = exhausted.resource.reason();
                return Ok(self.reject(turn, &row, code, &sentence(&exhausted), Vec::new()).await?);
            }
            Err(error) => return Err(error.into()),
        };
        failpoint::reach("tool.intent");
        let context = Context { lease: &self.lease, agent: &turn.agent, main: Main::Yes, cancel };
        let outcome = self.inner.tools.run(&act, &context).await;
        failpoint::reach("tool.effect");
        let (status, verdict) = match outcome.verdict {
            ToolVerdict::Completed => (ResultStatus::Completed, Verdict::Ok),
            ToolVerdict::Failed => (ResultStatus::Failed, Verdict::Fail),
        };
        let error = (status == ResultStatus::Failed).then(|| {
            let said = outcome.output["error"].as_str().or(outcome.output["message"].as_str());
            ("ACTION_RESULT_FAILED", said.unwrap_or("The tool could not do this.").to_owned())
        });
        let shown = error.as_ref().map(|(code, message)| (*code, message.as_str()));
        let mut audit = outcome.detail;
        audit.insert("call".to_owned(), json!(row.id));
        self.commit(Change {
            events: vec![event::action_result(turn.at, row.id, row.tool.as_str(), &outcome.output, status, shown)],
            delivery_ids: turn.ids.clone(),
            calls: vec![CallChange::Done(row.id, stored(&outcome.output, status))],
            seen: outcome.seen,
            audit: vec![act.outcome(verdict, audit)],
            ..Change::default()
        })
        .await?;
        Ok(())
    }

    /// Why a call that can write must not run now: the account's files take up all that they may.
    async fn no_room(&self, row: &CallRow) -> Result<Option<Exhausted>, StoreError> {
        if !catalogue::find(row.tool.as_str()).is_some_and(ToolDefinition::writes_files) {
            return Ok(None);
        }
        match self.inner.store.storage_admit(self.lease.tenant()).await {
            Err(StoreError::Exhausted(exhausted)) => Ok(Some(exhausted)),
            admitted => admitted.map(|()| None),
        }
    }

    /// Ends a call that must not run.
    async fn reject(
        &self,
        turn: &AtWork,
        row: &CallRow,
        code: &str,
        message: &str,
        audit: Vec<Draft>,
    ) -> Result<(), StoreError> {
        let output = json!({ "code": code, "message": message, "tool": { "result": "not_run" } });
        let (tool, error) = (row.tool.as_str(), Some((code, message)));
        self.commit(Change {
            events: vec![event::action_result(turn.at, row.id, tool, &output, ResultStatus::Rejected, error)],
            delivery_ids: turn.ids.clone(),
            calls: vec![CallChange::Done(row.id, stored(&output, ResultStatus::Rejected))],
            audit,
            ..Change::default()
        })
        .await
    }

    /// Runs calls that a person approved.
    pub(super) async fn execute_approved(
        &self,
        turn: &mut Turn,
        approved: Vec<(CallRow, ApprovalId)>,
    ) -> Result<(), Stop> {
        let scope = self.scope(turn).await?;
        let mut go = Vec::new();
        for (row, approval) in approved {
            let request = ToolRequest { id: row.id, name: row.tool.to_string(), arguments: row.arguments.clone() };
            match gate::judge(&scope, &turn.session, &turn.agent.definition, &request) {
                Judged::Ask(asked) => go.push((row, Ground::Approval(asked.call, approval, asked.digest))),
                Judged::Go(permit, _) => go.push((row, Ground::Permit(permit))),
                other => {
                    let audit = refusal(other);
                    let message = "This call is not allowed any more.";
                    self.reject(&turn.at_work(), &row, "TOOL_EXECUTION_DENIED", message, audit).await?;
                }
            }
        }
        self.execute_all(turn, go).await
    }

    /// Whether the model waits for the results of what it asked for.
    pub(super) async fn wants_results(&self) -> Result<bool, StoreError> {
        let last = self.inner.store.turn_last_message(&self.lease).await?;
        let last = last.and_then(|message| serde_json::from_value(message).ok());
        Ok(matches!(last, Some(ModelMessage::Assistant(said)) if said.tool_calls().next().is_some()))
    }

    /// Brings the calls of the last answer to their end: waits for people, or gives the model its results.
    pub(super) async fn after_calls(&self, turn: &mut Turn) -> Result<(), Stop> {
        let standing = self.standing().await?;
        let asked: Vec<&ApprovalRow> = of_calls(&standing.approvals, &standing.calls).collect();
        if asked.is_empty() {
            if turn.step == Step::Open {
                turn.events.push(event::step_completed(turn.at, "tool-calls", Some(&turn.step_tokens)));
                turn.step = Step::Closed;
            }
            return self.give_results(turn, &standing.calls).await;
        }
        if asked.iter().any(|approval| is_pending(approval)) {
            return self.wait(turn, &asked).await;
        }
        self.resume(turn, &standing).await
    }

    /// Shows what is asked, and waits.
    async fn wait(&self, turn: &mut Turn, asked: &[&ApprovalRow]) -> Result<(), Stop> {
        if turn.step == Step::Open {
            turn.events.push(event::step_completed(turn.at, "tool-calls", Some(&turn.step_tokens)));
            turn.step = Step::Closed;
        }
        let approvals: Vec<Value> = asked.iter().filter(|a| a.kind == Kind::ToolApproval).map(|a| request(a)).collect();
        let questions: Vec<&&ApprovalRow> = asked.iter().filter(|a| a.kind == Kind::Question).collect();
        if !questions.is_empty() {
            turn.events.push(event::turn_waiting(turn.at, "tasks", &turn.tokens));
        }
        if !approvals.is_empty() {
            turn.events.push(event::input_requested(turn.at, &approvals, None));
        }
        for question in &questions {
            turn.events.push(event::input_requested(turn.at, &[request(question)], Some(question.call)));
        }
        turn.events.push(event::turn_waiting(turn.at, "input", &turn.tokens));
        let mut change = turn.change();
        change.state =
            Some(if approvals.is_empty() { SessionState::AwaitingInput } else { SessionState::AwaitingApproval });
        change.facts = Some(turn.facts_json());
        self.commit(change).await?;
        Err(Stop::Waiting)
    }

    /// Gives the model the results of its calls, once.
    pub(super) async fn give_results(&self, turn: &mut Turn, calls: &[CallRow]) -> Result<(), Stop> {
        let mut change = turn.change();
        change.facts = Some(turn.facts_json());
        if self.wants_results().await? {
            change.messages = Messages::Append(vec![results(calls)?]);
        }
        self.commit(change).await?;
        Ok(())
    }

    /// What ends with a turn: every call without a result, so that the conversation can go on after it,
    /// and every request that nobody has decided.
    pub(super) async fn closing(&self, turn: &Turn, why: &str, settled: ApprovalState) -> Result<Change, StoreError> {
        let mut change = Change::default();
        let standing = self.standing().await?;
        for approval in of_calls(&standing.approvals, &standing.calls).filter(|approval| is_pending(approval)) {
            change.settled.push((approval.id, settled));
        }
        if !self.wants_results().await? {
            return Ok(change);
        }
        let mut calls = standing.calls;
        for call in calls.iter_mut().filter(|call| call.state != CallState::Done) {
            let output = stored(&json!({ "error": why, "code": "CANCELED" }), ResultStatus::Failed);
            change.calls.push(CallChange::Done(call.id, output.clone()));
            call.output = Some(output);
        }
        debug_assert_eq!(turn.at.turn, standing.row.turn);
        change.messages = Messages::Append(vec![results(&calls)?]);
        Ok(change)
    }
}

/// What a call at work must know of its turn.
struct AtWork {
    at: event::At,
    ids: Vec<String>,
    agent: AgentDefinition,
}

impl Turn {
    fn at_work(&self) -> AtWork {
        AtWork { at: self.at, ids: self.facts.ids.clone(), agent: self.agent.definition.clone() }
    }
}

/// The record's line for a call that the gate refuses now.
fn refusal(judged: Judged) -> Vec<Draft> {
    match judged {
        Judged::Refused(Refused { refusal: Some(refusal), .. }) => vec![refusal.draft().clone()],
        _ => Vec::new(),
    }
}

/// The results of the calls of the turn's last step with calls, as the model reads them.
fn results(calls: &[CallRow]) -> Result<Value, StoreError> {
    let step = calls.iter().map(|call| call.step).max().unwrap_or(0);
    let results = calls
        .iter()
        .filter(|call| call.step == step)
        .map(|call| {
            let output = call.output.clone().unwrap_or_default();
            let outcome = serde_json::from_value(output["outcome"].clone()).unwrap_or(ModelOutcome::Failed);
            ToolResult {
                call_id: call.model_id.clone(),
                name: call.tool.to_string(),
                content: output["content"].as_str().unwrap_or("no result").to_owned(),
                outcome,
            }
        })
        .collect();
    Ok(serde_json::to_value(ModelMessage::ToolResults(results))?)
}

/// A request as eve's clients know it.
fn request(approval: &ApprovalRow) -> Value {
    let action = json!({
        "callId": approval.call,
        "kind": "tool-call",
        "toolName": approval.tool,
        "input": approval.arguments,
    });
    let question = approval.kind == Kind::Question;
    let display = match (question, approval.options.is_empty()) {
        (false, _) => "confirmation",
        (true, false) => "select",
        (true, true) => "text",
    };
    json!({
        "requestId": approval.id,
        "kind": approval.kind,
        "prompt": approval.prompt,
        "action": action,
        "options": approval.options,
        "display": display,
        "allowFreeform": question,
    })
}

/// Stands on record in the place of a name that no tool can have.
fn unknown_tool() -> Option<ToolName> {
    "unknown".parse().ok()
}
