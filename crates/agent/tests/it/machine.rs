//! The session as a state machine: random interleavings of messages, decisions, commands and crashes,
//! against a small model of what may come of each.
//!
//! Two sessions of one server live through one list of acts. Where an act falls on a session at rest, the
//! model knows exactly where it must come to rest again; where it falls on one at work, the rules that hold
//! for every interleaving are checked: nothing that was shown changes, no turn is without its end, no call
//! runs twice, no approval is used twice, every message is answered or reported.
//!
//! `BAILIWICK_MACHINE_CASES` sets how many lists are tried, `BAILIWICK_MACHINE_SEED` from which seed they
//! are made. Lists that failed once are in `machine.regressions` and are tried first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bailiwick_agent::message::TurnPolicy;
use bailiwick_agent::{Control, ControlAnswer, Incoming, Resolution, RuntimeError};
use bailiwick_audit::Phase;
use bailiwick_auth::access::verb;
use bailiwick_store::StoreError;
use bailiwick_store::approval::{Decision, Kind};
use bailiwick_store::log::EventFilter;
use bailiwick_store::session::SessionState::{
    self, AwaitingApproval, AwaitingInput, Canceled, Done, Failed, Idle, Running,
};
use bailiwick_types::{ApprovalId, SessionId};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner};
use serde_json::Value;

use crate::fixture::{Inside, message, whole_stream};

const CASES: u32 = 12;
const SEED: u64 = 20_261_122;
/// How long a session may take to come to rest. Far above what it takes.
const PATIENCE: Duration = Duration::from_secs(30);
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/machine.regressions");
const AGENTS: [&str; 2] = ["default", "careful"];

/// Whole words only, so that a message's number does not choose its answer.
const SCRIPT: &str = r#"
turns:
  - when: { user: "write" }
    repeat: last
    steps:
      - tools: [ { name: write_file, input: { path: notes.txt, content: "{{user}}" } } ]
      - text: "Written."
  - when: { user: "both" }
    repeat: last
    steps:
      - text: "Both."
        tools:
          - { name: write_file, input: { path: one.txt, content: "1" } }
          - { name: plan, input: { items: [ { text: "think", status: done } ] } }
      - text: "Both done."
  - when: { user: "ask" }
    repeat: last
    steps:
      - tools: [ { name: ask_question, input: { question: "Which?", options: [ { label: Red }, { label: Blue } ] } } ]
      - text: "You said {{last_tool_result}}"
  - when: { user: "slow" }
    repeat: last
    steps: [ { text: "one two three four five six", chunk_chars: 4, delay_ms: 20 } ]
  - when: { user: "fail" }
    repeat: last
    steps: [ { fail: { status: 400, message: "scripted refusal" } } ]
  - default: true
    repeat: last
    steps: [ { text: "I heard: {{user}}" } ]
"#;

/// What a message makes the model do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    Hello,
    Write,
    Both,
    Ask,
    Slow,
    Fail,
}

impl Say {
    fn word(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Write => "write",
            Self::Both => "both",
            Self::Ask => "ask",
            Self::Slow => "slow",
            Self::Fail => "fail",
        }
    }

    /// Where a turn that begins with it comes to rest.
    fn rests(self, agent: usize) -> SessionState {
        match self {
            Self::Hello | Self::Slow => Idle,
            Self::Write | Self::Both if AGENTS[agent] == "careful" => AwaitingApproval,
            Self::Write | Self::Both => Idle,
            Self::Ask => AwaitingInput,
            Self::Fail => Failed,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Send(Say, TurnPolicy),
    Approve,
    Deny,
    Answer,
    /// Decides again what was decided before.
    Again,
    /// Somebody of another account tries what alice may.
    Foreign,
    Cancel,
    Clear,
    Compact,
    Reset,
    Crash,
}

/// An act, on which session, and whether the next one waits until it has come to rest.
type Step = (Act, usize, bool);

fn acts() -> impl Strategy<Value = Vec<Step>> {
    let say = prop_oneof![
        3 => Just(Say::Hello), 4 => Just(Say::Write), 2 => Just(Say::Both), 2 => Just(Say::Ask),
        3 => Just(Say::Slow), 1 => Just(Say::Fail),
    ];
    let policy = prop_oneof![3 => Just(TurnPolicy::Steer), 1 => Just(TurnPolicy::Queue)];
    let act = prop_oneof![
        12 => (say, policy).prop_map(|(say, policy)| Act::Send(say, policy)),
        5 => Just(Act::Approve), 3 => Just(Act::Deny), 2 => Just(Act::Answer), 2 => Just(Act::Again),
        2 => Just(Act::Foreign), 3 => Just(Act::Cancel), 2 => Just(Act::Clear), 1 => Just(Act::Compact),
        1 => Just(Act::Reset), 3 => Just(Act::Crash),
    ];
    prop::collection::vec((act, 0usize..2, prop::bool::weighted(0.6)), 4..18)
}

/// What the model knows of a session.
struct Known {
    id: SessionId,
    agent: usize,
    /// Where it rests, if that is known.
    rests: Option<SessionState>,
    /// The lines of its stream, as far as they were read.
    seen: Vec<String>,
    /// What was accepted, and must be answered or reported.
    sent: Vec<String>,
    reset: bool,
}

struct World {
    inside: Option<Inside>,
    sessions: Vec<Known>,
    /// Decisions that were accepted, and how.
    decided: BTreeMap<ApprovalId, bool>,
    said: usize,
    crashed: bool,
}

#[test]
fn t04_t08_any_order_of_messages_decisions_commands_and_crashes_comes_to_rest() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("BAILIWICK_MACHINE_SEED").unwrap_or(SEED);
    let cases = number("BAILIWICK_MACHINE_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(CASES);
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 40,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        source_file: Some(file!()),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&acts(), |steps| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(live(&steps)).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("seed {seed}: {why}\n{steps:#?}"),
        Err(other) => panic!("seed {seed}: {other}"),
    }
}

async fn live(steps: &[Step]) -> Result<(), String> {
    let inside = Inside::new(SCRIPT).await;
    let mut sessions = Vec::new();
    let scope = inside.scope(&inside.alice).await;
    for (agent, name) in AGENTS.iter().enumerate() {
        let space = inside.store.space_personal(&scope).await.unwrap();
        let id = inside.runtime.create(&scope, space, name.parse().unwrap(), None, None).await.unwrap();
        sessions.push(Known { id, agent, rests: Some(Idle), seen: Vec::new(), sent: Vec::new(), reset: false });
    }
    let mut world = World { inside: Some(inside), sessions, decided: BTreeMap::new(), said: 0, crashed: false };
    for (place, (act, session, wait)) in steps.iter().enumerate() {
        let at = |why: String| format!("act {place}, {act:?} on {}: {why}", AGENTS[*session]);
        let must = world.apply(*act, *session).await.map_err(at)?;
        if *wait {
            world.settle(*session, must).await.map_err(at)?;
        } else {
            world.sessions[*session].rests = None;
        }
    }
    world.end().await
}

/// Where a session must come to rest, and the delivery that must have been taken up by then.
type Must = (Option<SessionState>, Option<String>);

impl World {
    fn inside(&self) -> &Inside {
        self.inside.as_ref().unwrap()
    }

    async fn apply(&mut self, act: Act, session: usize) -> Result<Must, String> {
        let Known { id, rests, reset, .. } = self.sessions[session];
        match act {
            Act::Crash => {
                let inside = self.inside.take().unwrap();
                self.inside = Some(inside.restart().await);
                self.crashed = true;
                Ok((rests, None))
            }
            Act::Send(say, policy) => self.send(session, say, policy).await,
            Act::Approve => self.decide(id, rests, Kind::ToolApproval, Decision::Approve).await,
            Act::Deny => self.decide(id, rests, Kind::ToolApproval, Decision::Deny).await,
            Act::Answer => self.decide(id, rests, Kind::Question, Decision::Answer).await,
            Act::Again => {
                let alice = self.inside().scope(&self.inside().alice).await;
                for (approval, approved) in &self.decided {
                    // Also the other way round: a no must not become a yes.
                    let other = if *approved { Decision::Deny } else { Decision::Approve };
                    for decision in [Decision::Approve, other] {
                        match self.inside().runtime.decide(&alice, *approval, decision, None).await {
                            Err(RuntimeError::Store(StoreError::Conflict { .. })) => {}
                            other => return Err(format!("{approval} was decided twice: {other:?}")),
                        }
                    }
                }
                Ok((rests, None))
            }
            Act::Foreign => {
                let inside = self.inside();
                let bob = inside.scope(&inside.bob).await;
                for pending in inside.pending(&inside.alice).await {
                    let approval = pending.approval.id;
                    match inside.runtime.decide(&bob, approval, Decision::Approve, None).await {
                        Err(RuntimeError::NotFound) => {}
                        other => return Err(format!("somebody else decided {approval}: {other:?}")),
                    }
                }
                match inside.runtime.send(&bob, inside.session(id).await, message("foreign")).await {
                    Err(RuntimeError::Refused(refusal)) if refusal.code().is_none() => Ok((rests, None)),
                    other => Err(format!("somebody else sent: {other:?}")),
                }
            }
            Act::Cancel => {
                let cancel = Control::Cancel { turn: None };
                let to = |state| if matches!(state, AwaitingApproval | AwaitingInput) { Canceled } else { state };
                self.control(id, cancel, reset).await.map(|()| (rests.map(to), None))
            }
            // They wait for the end of a turn that waits for a person.
            Act::Clear => self.control(id, Control::Clear, reset).await.map(|()| (at_leisure(rests), None)),
            Act::Compact => {
                self.control(id, Control::Compact, reset).await?;
                // With a new beginning nothing has failed.
                let to = |state| if matches!(state, Failed | Canceled) { Idle } else { state };
                Ok((at_leisure(rests).map(to), None))
            }
            Act::Reset => {
                self.control(id, Control::Reset, reset).await?;
                self.sessions[session].reset = true;
                Ok((Some(Done), None))
            }
        }
    }

    async fn send(&mut self, session: usize, say: Say, policy: TurnPolicy) -> Result<Must, String> {
        self.said += 1;
        let Known { id, agent, rests, reset, .. } = self.sessions[session];
        let inside = self.inside();
        let scope = inside.scope(&inside.alice).await;
        let incoming = Incoming { policy, ..message(&format!("{} no. {}", say.word(), self.said)) };
        let delivery = match inside.runtime.send(&scope, inside.session(id).await, incoming).await {
            Ok(delivery) => delivery,
            // After a reset, at the latest when it has taken effect, nothing is taken any more.
            Err(RuntimeError::Store(StoreError::Conflict { code: "session_not_active", .. })) if reset => {
                return Ok((rests, None));
            }
            Err(error) => return Err(format!("not taken: {error}")),
        };
        if rests == Some(Done) {
            return Err("a session that has ended took a message".to_owned());
        }
        self.sessions[session].sent.push(delivery.clone());
        let must = match (rests, policy) {
            (Some(Idle | Failed | Canceled), _) | (Some(AwaitingApproval), TurnPolicy::Steer) => Some(say.rests(agent)),
            // Any words answer a question, and the turn ends.
            (Some(AwaitingInput), TurnPolicy::Steer) => Some(Idle),
            _ => None,
        };
        // One that waits for its turn is taken up later.
        Ok((must, must.is_some().then_some(delivery)))
    }

    async fn decide(
        &mut self,
        id: SessionId,
        rests: Option<SessionState>,
        kind: Kind,
        decision: Decision,
    ) -> Result<Must, String> {
        let inside = self.inside();
        let pending = inside.pending(&inside.alice).await;
        let Some(open) = pending.into_iter().map(|p| p.approval).find(|a| a.session == id && a.kind == kind) else {
            return match rests {
                Some(AwaitingApproval) if kind == Kind::ToolApproval => Err("it waits for nothing".to_owned()),
                Some(AwaitingInput) if kind == Kind::Question => Err("it waits for nothing".to_owned()),
                other => Ok((other, None)),
            };
        };
        let scope = inside.scope(&inside.alice).await;
        let approved = matches!(decision, Decision::Approve);
        let outcome = if kind == Kind::Question {
            let answer = Resolution { request: open.id.to_string(), option: Some("Blue".to_owned()), text: None };
            inside.runtime.respond(&scope, inside.session(id).await, vec![answer]).await.map(drop)
        } else {
            inside.runtime.decide(&scope, open.id, decision, None).await
        };
        match outcome {
            Ok(()) => {
                if let Some(before) = self.decided.insert(open.id, approved) {
                    return Err(format!("{} was decided twice, before as {before}", open.id));
                }
                Ok((rests.map(|_| Idle), None))
            }
            // A message, a cancel or a reset was faster; never at rest.
            Err(RuntimeError::Store(StoreError::Conflict { .. })) if rests.is_none() => Ok((None, None)),
            Err(error) => Err(format!("{} could not be decided: {error}", open.id)),
        }
    }

    async fn control(&self, id: SessionId, control: Control, reset: bool) -> Result<(), String> {
        let inside = self.inside();
        let scope = inside.scope(&inside.alice).await;
        match inside.runtime.control(&scope, inside.session(id).await, control).await {
            Ok(ControlAnswer::Accepted) => Ok(()),
            Ok(ControlAnswer::NoActive) if reset => Ok(()),
            Ok(ControlAnswer::NoActive) => Err("a session that has not ended is not active".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits until the session rests where it must.
    async fn settle(&mut self, session: usize, (must, delivery): Must) -> Result<(), String> {
        let id = self.sessions[session].id;
        let begun = Instant::now();
        loop {
            let inside = self.inside();
            let row = inside.row(id).await;
            let waits = matches!(row.state, AwaitingApproval | AwaitingInput);
            let busy = inside.store.turns_unfinished().await.unwrap().iter().any(|(_, other)| *other == id);
            let taken = match &delivery {
                None => true,
                Some(delivery) => of_delivery(&inside.events(id).await, delivery).next().is_some(),
            };
            let rests = row.state != Running && (waits || !busy);
            if rests && taken && must.is_none_or(|must| must == row.state) {
                // At rest with a person, what was sent last may still be on its way.
                let sure = must.is_some() || !waits;
                self.sessions[session].rests = sure.then_some(row.state);
                return self.look(session).await;
            }
            if begun.elapsed() > PATIENCE {
                let types = inside.types(id).await;
                return Err(format!("must come to rest {must:?} with {delivery:?}, and is {row:#?}: {types:#?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The rules of a stream, at any time.
    async fn look(&mut self, session: usize) -> Result<(), String> {
        let id = self.sessions[session].id;
        let inside = self.inside();
        let scope = inside.scope(&inside.alice).await;
        let permit = scope.authorize::<verb::ReadSession>(inside.session(id).await).unwrap();
        let counted = usize::try_from(inside.store.session_read(&permit).await.unwrap().events).unwrap();
        let lines = whole_stream(&inside.store, &permit).await;
        if lines.len() < counted {
            return Err(format!("{counted} events are counted and {} are there: a gap", lines.len()));
        }
        let known = &mut self.sessions[session];
        if !lines.starts_with(&known.seen) {
            return Err("what was on the stream has changed".to_owned());
        }
        known.seen = lines;
        Ok(())
    }

    /// Gives every open request an answer until nothing is left to do, then checks all that must hold.
    async fn end(mut self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let unfinished = self.inside().store.turns_unfinished().await.unwrap();
            if unfinished.is_empty() {
                break;
            }
            for session in 0..self.sessions.len() {
                let id = self.sessions[session].id;
                self.decide(id, None, Kind::ToolApproval, Decision::Approve).await?;
                self.decide(id, None, Kind::Question, Decision::Answer).await?;
            }
            if begun.elapsed() > PATIENCE {
                let left: Vec<_> = unfinished.iter().map(|(_, session)| session).collect();
                return Err(format!("never comes to rest: {left:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for session in 0..self.sessions.len() {
            self.look(session).await?;
            let known = &self.sessions[session];
            let row = self.inside().row(known.id).await;
            if known.reset != (row.state == Done) {
                return Err(format!("reset: {}, state: {:?}", known.reset, row.state));
            }
            let events: Vec<Value> = known.seen.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            turns(&events, row.turn)?;
            calls(&events)?;
            for delivery in &known.sent {
                // A reset ends the session with all that waits, and says so.
                if !known.reset && !of_delivery(&events, delivery).any(|event| is_end(&event["type"])) {
                    return Err(format!("the message {delivery} was neither answered nor reported"));
                }
            }
        }
        self.record().await
    }

    /// What the account's log says of calls.
    async fn record(&self) -> Result<(), String> {
        let inside = self.inside();
        let scope = inside.scope(&inside.alice).await;
        let verify = scope.authorize::<verb::ReadAccountAudit>(scope.account()).unwrap();
        inside.store.event_verify(verify).await.unwrap().map_err(|problem| problem.to_string())?;
        let all = scope.authorize::<verb::ReadAccountAudit>(scope.account()).unwrap();
        let filter = EventFilter { limit: 100_000, ..EventFilter::default() };
        let log = inside.store.event_list(all, filter).await.unwrap();
        let mut begun = BTreeSet::new();
        let mut writes = 0;
        for intent in log.iter().filter(|event| event.draft.phase == Phase::Intent) {
            let outcomes = log.iter().filter(|other| other.draft.intent == Some(intent.seq)).count();
            // A model call that a crash cut off has none and is made anew; a tool call always has one.
            let least = usize::from(!self.crashed || intent.draft.action == "tool.call");
            if !(least..=1).contains(&outcomes) {
                return Err(format!("event {} ({}) has {outcomes} outcomes", intent.seq, intent.draft.action));
            }
            if intent.draft.action != "tool.call" {
                continue;
            }
            let call = intent.draft.detail.get("call").map(Value::to_string).ok_or("an intent without its call")?;
            if !begun.insert(call.clone()) {
                return Err(format!("the call {call} ran twice"));
            }
            let careful = intent.draft.agent.as_ref().is_some_and(|agent| agent.as_str() == "careful");
            writes += usize::from(careful && intent.draft.resource == "tool:write_file");
        }
        let approved = self.decided.values().filter(|approved| **approved).count();
        if writes > approved {
            return Err(format!("{writes} calls ran on {approved} approvals"));
        }
        Ok(())
    }
}

/// A session that waits for a person does what else was asked only afterwards.
fn at_leisure(rests: Option<SessionState>) -> Option<SessionState> {
    rests.filter(|state| !matches!(state, AwaitingApproval | AwaitingInput))
}

fn of_delivery<'e>(events: &'e [Value], delivery: &'e str) -> impl Iterator<Item = &'e Value> {
    let named = move |event: &&Value| {
        event["meta"]["deliveryIds"].as_array().is_some_and(|ids| ids.iter().any(|id| id == delivery))
    };
    events.iter().filter(named)
}

fn is_end(kind: &Value) -> bool {
    matches!(kind.as_str(), Some("turn.completed" | "turn.failed" | "turn.cancelled"))
}

/// Turns are counted without a gap, one after another, each with one end; every event has its own id.
fn turns(events: &[Value], counted: u64) -> Result<(), String> {
    let mut ids = BTreeSet::new();
    let mut open = None;
    let mut next = 0;
    for event in events {
        if !ids.insert(event["meta"]["id"].as_str().ok_or("an event without an id")?) {
            return Err(format!("an id comes twice: {event}"));
        }
        if event["type"] == "turn.started" {
            if open.is_some() || event["data"]["sequence"] != next {
                return Err(format!("turn {next} is next, {open:?} is open: {event}"));
            }
            open = Some(next);
            next += 1;
        } else if is_end(&event["type"]) && open.take().is_none_or(|open| event["data"]["sequence"] != open) {
            return Err(format!("the end of a turn that was not open: {event}"));
        }
    }
    match open {
        None if next == counted => Ok(()),
        _ => Err(format!("{next} turns were shown, {counted} counted, open: {open:?}")),
    }
}

/// No call has two results, and none of a completed turn is without one.
fn calls(events: &[Value]) -> Result<(), String> {
    let mut asked: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    let mut completed = BTreeSet::new();
    for event in events {
        let sequence = event["data"]["sequence"].as_u64().unwrap_or(u64::MAX);
        match event["type"].as_str().unwrap_or_default() {
            "actions.requested" => {
                for action in event["data"]["actions"].as_array().into_iter().flatten() {
                    asked.insert(action["callId"].as_str().unwrap_or_default(), (sequence, 0));
                }
            }
            "action.result" => {
                let call = event["data"]["result"]["callId"].as_str().unwrap_or_default();
                asked.get_mut(call).ok_or(format!("the result of a call that nobody asked for: {event}"))?.1 += 1;
            }
            "turn.completed" => drop(completed.insert(sequence)),
            _ => {}
        }
    }
    for (call, (turn, results)) in asked {
        if results > 1 || (results == 0 && completed.contains(&turn)) {
            return Err(format!("the call {call} of turn {turn} has {results} results"));
        }
    }
    Ok(())
}
