//! The driver of one session: takes up what waits, runs turns, and leaves when there is nothing to do.
//!
//! Everything that must survive is written before the next thing happens, under a lease that fences
//! off any other driver. After a crash the next driver finds in the store how far the last one came.

mod begin;
mod calls;
mod model;
mod settle;
mod spent;
mod summary;

use std::sync::Arc;

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::{Resource, Session};
use bailiwick_auth::authn::Rejection;
use bailiwick_auth::{Credential, Scope, Tenant};
use bailiwick_store::StoreError;
use bailiwick_store::agent::AgentRow;
use bailiwick_store::approval::{ApprovalRow, ApprovalState};
use bailiwick_store::session::{Caller, Delivery, SessionState, Tokens};
use bailiwick_store::turn::{CallRow, CallState, Change, Lease, Standing};
use bailiwick_types::{ApprovalId, Exhausted, RequestId, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::event::{self, At, Event};
use crate::message::{Body, Message, TurnPolicy};
use crate::runtime::{Handle, Inner};

/// What the present turn must remember between two writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Facts {
    /// The deliveries that the turn answers.
    ids: Vec<String>,
    /// Facts of the caller for this turn alone.
    client_context: Option<Value>,
    /// The schema that the answer must follow.
    output_schema: Option<Value>,
    /// Requests whose settlement the stream has shown.
    announced: Vec<ApprovalId>,
    /// The session is at work on a summary that was asked for, and on no turn.
    compacting: bool,
    /// Tokens that the call of a model which is under way was sent: counted by the next driver if this one
    /// does not hear the answer.
    sent: u64,
}

/// How a turn stops before its end.
enum Stop {
    /// Its caller canceled it.
    Canceled,
    /// It waits for a person.
    Waiting,
    /// Something went wrong that the caller should know.
    Failed { code: &'static str, message: String },
    /// The server stops; the next start goes on.
    Stopping,
    /// The store refused or failed.
    Store(StoreError),
}

impl Stop {
    /// The account has used up what the turn needs. The session stays, and takes the next message.
    fn exhausted(exhausted: &Exhausted) -> Self {
        Self::Failed { code: exhausted.resource.reason(), message: sentence(exhausted) }
    }
}

/// An error as a caller reads it.
fn sentence(error: &Exhausted) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).chain(['.']).collect()).unwrap_or_default()
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Whether the present step has been shown as begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Closed,
}

/// One driver at work.
struct Drive<'a> {
    inner: &'a Arc<Inner>,
    lease: Lease,
    handle: &'a Handle,
}

/// One turn at work.
struct Turn {
    session: Session,
    agent: AgentRow,
    caller: Caller,
    at: At,
    step: Step,
    facts: Facts,
    tokens: Tokens,
    step_tokens: Tokens,
    /// Events that go with the next write.
    events: Vec<Event>,
    /// Deliveries that the turn's end takes up: a cancel is done when the turn has ended, not before.
    taken: Vec<u64>,
}

enum Next {
    Again,
    Rest,
}

/// Why a driver stopped.
pub(crate) enum Ended {
    /// There is nothing to do, or the session is gone, or somebody else's.
    Rested,
    /// Something failed that may go better later.
    Failed,
}

/// Drives a session until it rests.
pub(crate) async fn drive(inner: &Arc<Inner>, tenant: Tenant, session: SessionId, handle: &Handle) -> Ended {
    let lease = match inner.store.turn_lease(&tenant, session).await {
        Ok(lease) => lease,
        // The session was deleted before anybody came to drive it.
        Err(StoreError::NotFound { .. }) => return Ended::Rested,
        Err(error) => {
            tracing::error!(%session, %error, "a session could not be taken up");
            return Ended::Failed;
        }
    };
    let drive = Drive { inner, lease, handle };
    loop {
        handle.take_poke();
        match drive.advance().await {
            Ok(Next::Again) => {}
            Ok(Next::Rest) => {
                if inner.release(&tenant, session, handle) {
                    return Ended::Rested;
                }
            }
            Err(StoreError::Fenced | StoreError::NotFound { .. }) => return Ended::Rested,
            // Somebody decided in the same moment: look again.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => {
                tracing::error!(%session, %error, "a session could not be driven on");
                return Ended::Failed;
            }
        }
        if handle.stopping.is_cancelled() {
            return Ended::Rested;
        }
    }
}

impl Drive<'_> {
    fn session(&self) -> SessionId {
        self.lease.session()
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        self.inner.store.turn_standing(&self.lease).await
    }

    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        self.inner.store.turn_commit(&self.lease, change).await
    }

    /// Does the next thing that waits.
    async fn advance(&self) -> Result<Next, StoreError> {
        let standing = self.standing().await?;
        match standing.row.state {
            SessionState::Idle | SessionState::Failed | SessionState::Canceled => self.idle(standing).await,
            SessionState::Running => {
                let mut turn = Turn::of(&standing);
                let result = self.recover(&mut turn, &standing).await;
                self.conclude(&mut turn, result).await
            }
            SessionState::AwaitingApproval | SessionState::AwaitingInput => self.awaiting(standing).await,
            SessionState::Done => {
                if standing.deliveries.is_empty() {
                    return Ok(Next::Rest);
                }
                // What came too late is dropped; its senders were told, or will find the session ended.
                let taken = standing.deliveries.iter().map(|delivery| delivery.n).collect();
                self.commit(Change { taken, ..Change::default() }).await?;
                Ok(Next::Again)
            }
        }
    }

    async fn idle(&self, standing: Standing) -> Result<Next, StoreError> {
        let is_reset = |delivery: &&Delivery| matches!(read_body(delivery), Some(Body::Reset));
        // A reset ends the session, whatever else waits.
        let next = standing.deliveries.iter().find(is_reset).or(standing.deliveries.first());
        let Some(delivery) = next else { return Ok(Next::Rest) };
        let Some(body) = read_body(delivery) else { return self.drop_delivery(delivery).await };
        let mut turn = Turn::of(&standing);
        match body {
            Body::Message(message) => {
                let result = self.begin(&mut turn, &standing, delivery, message).await;
                self.conclude(&mut turn, result).await
            }
            // Nothing to cancel.
            Body::Cancel { .. } => self.drop_delivery(delivery).await,
            Body::Clear => self.clear(&turn, delivery).await,
            Body::Compact => self.compact(&mut turn, delivery).await,
            Body::Reset => self.reset(&turn, delivery).await,
        }
    }

    async fn drop_delivery(&self, delivery: &Delivery) -> Result<Next, StoreError> {
        self.commit(Change { taken: vec![delivery.n], ..Change::default() }).await?;
        Ok(Next::Again)
    }

    async fn clear(&self, turn: &Turn, delivery: &Delivery) -> Result<Next, StoreError> {
        let events =
            vec![event::context_cleared(turn.at, self.session()), event::session_waiting(self.session(), &turn.tokens)];
        self.commit(Change {
            events,
            delivery_ids: turn.facts.ids.clone(),
            messages: bailiwick_store::turn::Messages::Replace(Vec::new()),
            taken: vec![delivery.n],
            ..Change::default()
        })
        .await?;
        Ok(Next::Again)
    }

    async fn reset(&self, turn: &Turn, delivery: &Delivery) -> Result<Next, StoreError> {
        self.commit(Change {
            events: vec![event::session_completed(&turn.tokens)],
            delivery_ids: turn.facts.ids.clone(),
            state: Some(SessionState::Done),
            taken: vec![delivery.n],
            ..Change::default()
        })
        .await?;
        self.inner.tools.sandboxes().end_session(self.session());
        Ok(Next::Again)
    }

    /// Writes how a turn ended, or that it waits.
    async fn conclude(&self, turn: &mut Turn, result: Result<(), Stop>) -> Result<Next, StoreError> {
        match result {
            Ok(()) => Ok(Next::Again),
            Err(Stop::Waiting) => Ok(Next::Again),
            Err(Stop::Stopping) => Ok(Next::Rest),
            Err(Stop::Store(error)) => Err(error),
            Err(Stop::Canceled) => {
                let closing = self.closing(turn, "The turn was canceled.", ApprovalState::Canceled).await?;
                turn.events.push(event::turn_cancelled(turn.at));
                self.rest(turn, closing, SessionState::Canceled, "canceled").await
            }
            Err(Stop::Failed { code, message }) => {
                let closing = self.closing(turn, "The turn failed.", ApprovalState::Canceled).await?;
                let details = json!({ "name": code, "message": message });
                turn.events.push(event::step_failed(turn.at, code, &message, &details));
                turn.events.push(event::turn_failed(turn.at, code, &message, &details, false));
                self.rest(turn, closing, SessionState::Failed, code).await
            }
        }
    }

    /// Ends the turn, in one write with what ends with it; the session waits for the next message.
    async fn rest(&self, turn: &mut Turn, closing: Change, state: SessionState, why: &str) -> Result<Next, StoreError> {
        turn.events.push(event::session_waiting(self.session(), &turn.tokens));
        let audit = vec![turn.ended(why)];
        self.commit(Change {
            events: std::mem::take(&mut turn.events),
            delivery_ids: turn.facts.ids.clone(),
            state: Some(state),
            place: Some((turn.at.turn + 1, 0)),
            facts: Some(turn.facts_json()),
            taken: std::mem::take(&mut turn.taken),
            audit,
            ..closing
        })
        .await?;
        Ok(Next::Again)
    }

    /// The turn's caller with the rights of now.
    async fn scope(&self, turn: &mut Turn) -> Result<Scope, Stop> {
        let gone = |message: String| Stop::Failed { code: "CALLER_NOT_AUTHORIZED", message };
        let caller = &turn.caller;
        let credential = Credential::parse(&caller.credential)
            .ok_or_else(|| gone("The credential of this turn's caller is not known any more.".to_owned()))?;
        let store = &self.inner.store;
        let principal =
            self.inner.walk.resume(store, &caller.account, &caller.user, &credential, caller.address).await.map_err(
                |rejection| match rejection {
                    // That the directory cannot be read says nothing about the caller: try again later.
                    Rejection::Directory(_) => Stop::Store(StoreError::Corrupt("the directory could not be read")),
                    _ => gone("The credential of this turn's caller is not valid any more.".to_owned()),
                },
            )?;
        let scope = principal
            .scope(RequestId::new())
            .map_err(|_| gone("The caller of this turn has no account any more.".to_owned()))?;
        // Read anew, so that a grant that was taken away is taken away now.
        let session = store.session_find(&scope, self.session()).await?;
        turn.session = session.ok_or_else(|| gone("The session is gone.".to_owned()))?;
        Ok(scope)
    }

    /// What came while the turn was at work, and concerns it. Commands before messages: who wants to
    /// stop a turn must not wait behind who wants to add to it.
    async fn urgent(&self, turn: &mut Turn) -> Result<Option<Urgent>, StoreError> {
        let deliveries = self.inner.store.turn_deliveries(&self.lease).await?;
        let mut steering = None;
        for delivery in deliveries {
            match read_body(&delivery) {
                Some(Body::Cancel { turn: wanted }) if wanted.as_ref().is_none_or(|w| *w == turn.at.turn_id()) => {
                    turn.taken.push(delivery.n);
                    return Ok(Some(Urgent::Cancel));
                }
                // A turn that is over, or not yet there, is not this one.
                Some(Body::Cancel { .. }) => {
                    self.commit(Change { taken: vec![delivery.n], ..Change::default() }).await?;
                }
                // A reset ends the turn first, and then the session.
                Some(Body::Reset) => return Ok(Some(Urgent::Cancel)),
                Some(Body::Message(message)) if steering.is_none() && turn.steered_by(&delivery, &message) => {
                    steering = Some(Urgent::Steer(Box::new((delivery, message))));
                }
                _ => {}
            }
        }
        Ok(steering)
    }
}

/// Something that cannot wait for the end of the turn.
enum Urgent {
    Cancel,
    Steer(Box<(Delivery, Message)>),
}

impl Turn {
    fn of(standing: &Standing) -> Self {
        let row = &standing.row;
        Self {
            session: standing.session.clone(),
            agent: narrowed(standing),
            caller: standing.caller.clone(),
            at: At { turn: row.turn, step: row.step },
            step: Step::Closed,
            facts: serde_json::from_value(row.facts.clone()).unwrap_or_default(),
            tokens: row.tokens,
            step_tokens: Tokens::default(),
            events: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Whether a message joins this turn: by the same caller with the same credential, for it runs with
    /// that credential's rights.
    fn steered_by(&self, delivery: &Delivery, message: &Message) -> bool {
        message.policy == TurnPolicy::Steer
            && delivery.caller.user == self.caller.user
            && delivery.caller.credential == self.caller.credential
    }

    /// The record's line for a turn that came to no good end.
    fn ended(&self, why: &str) -> Draft {
        Draft {
            actor: Actor::User(self.caller.user.clone()),
            credential: self.caller.credential.clone(),
            address: self.caller.address.to_string(),
            request: None,
            action: "turn.end".to_owned(),
            resource: self.session.label(),
            space: self.session.space_id(),
            agent: Some(self.session.agent().clone()),
            phase: Phase::Observation,
            verdict: Verdict::Fail,
            intent: None,
            detail: Map::from_iter([
                ("turn".to_owned(), json!(self.at.turn)),
                ("steps".to_owned(), json!(self.at.step + 1)),
                ("why".to_owned(), json!(why)),
            ]),
        }
    }

    fn facts_json(&self) -> Value {
        serde_json::to_value(&self.facts).unwrap_or_default()
    }

    /// A change that carries the events which wait, and belongs to this turn's deliveries.
    fn change(&mut self) -> Change {
        Change {
            events: std::mem::take(&mut self.events),
            delivery_ids: self.facts.ids.clone(),
            place: Some((self.at.turn, self.at.step)),
            ..Change::default()
        }
    }
}

/// The agent as the session began with it, and no wider than it is defined now: a tool that was taken
/// away is away, and one that must be approved must be approved, in old sessions too.
fn narrowed(standing: &Standing) -> AgentRow {
    let mut agent = standing.agent.clone();
    let Some(newest) = &standing.newest else {
        agent.definition.tools.clear();
        return agent;
    };
    let (old, new) = (&mut agent.definition, &newest.definition);
    old.tools.retain(|tool| new.tools.contains(tool));
    for tool in &new.require_approval {
        if !old.require_approval.contains(tool) {
            old.require_approval.push(tool.clone());
        }
    }
    old.elevated.retain(|tool| new.elevated.contains(tool));
    old.approvers.retain(|user| new.approvers.contains(user));
    agent
}

fn read_body(delivery: &Delivery) -> Option<Body> {
    serde_json::from_value(delivery.body.clone()).ok()
}

/// The approvals and questions of these calls.
fn of_calls<'a>(approvals: &'a [ApprovalRow], calls: &'a [CallRow]) -> impl Iterator<Item = &'a ApprovalRow> {
    approvals
        .iter()
        .filter(|approval| calls.iter().any(|call| call.id == approval.call && call.state == CallState::Asked))
}

fn is_pending(approval: &ApprovalRow) -> bool {
    approval.state == ApprovalState::Pending
}
