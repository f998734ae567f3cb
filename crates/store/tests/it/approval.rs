//! Approvals: decided once, in time, by those who may; used up by exactly the call that was shown.

use std::time::Duration;

use bailiwick_auth::access::verb::{DecideApproval, ListApprovals};
use bailiwick_auth::access::{Asks, Session, ToolCall, ToolVerdict, Unapproved};
use bailiwick_auth::{Scope, Tenant};
use bailiwick_store::StoreError;
use bailiwick_store::approval::{ApprovalRow, ApprovalState, Choice, Decision, Kind};
use bailiwick_store::session::SessionState;
use bailiwick_store::turn::{CallChange, CallRow, CallState, Change, Lease};
use bailiwick_types::{ApprovalId, CallId, Timestamp};
use serde_json::{Map, Value, json};

use crate::fixture::{Fixture, Person, conflict, not_found, permit};
use crate::on_every_backend;

const DIGEST: [u8; 32] = [9; 32];

pub(crate) fn arguments() -> Value {
    json!({ "command": "make deploy" })
}

/// An approval of a new call in that session, asked of the requester and the named approvers.
pub(crate) fn asked(session: &Session, requester: &Person, approvers: &[&Person]) -> ApprovalRow {
    let now = Timestamp::now();
    ApprovalRow {
        id: ApprovalId::new(),
        session: session.id(),
        call: CallId::new(),
        kind: Kind::ToolApproval,
        tool: "bash".parse().unwrap(),
        prompt: "Run `make deploy`?".into(),
        arguments: arguments(),
        digest: DIGEST,
        options: vec![Choice { id: "approve".into(), label: "Approve".into(), description: None }],
        requester: requester.name.clone(),
        approvers: approvers.iter().map(|person| person.name.clone()).collect(),
        state: ApprovalState::Pending,
        decided_by: None,
        reason: None,
        answer: None,
        created_at: now,
        expires_at: now.after(Duration::from_secs(300)),
    }
}

/// Writes the approval and its call into the session.
pub(crate) async fn ask_in(f: &Fixture, lease: &Lease, row: ApprovalRow) -> ApprovalRow {
    let call = CallRow {
        id: row.call,
        turn: 0,
        step: 0,
        place: 0,
        model_id: "toolu_1".into(),
        tool: row.tool.clone(),
        arguments: row.arguments.clone(),
        state: CallState::Asked,
        intent: None,
        output: None,
    };
    let change = Change {
        calls: vec![CallChange::New(call)],
        approvals: vec![row.clone()],
        state: Some(SessionState::AwaitingApproval),
        ..Change::default()
    };
    f.store.turn_commit(lease, change).await.unwrap();
    row
}

/// The call as the gate would judge it: permitted if a person says so.
pub(crate) fn unapproved(scope: &Scope, session: &Session, call: CallId) -> Unapproved {
    let tool: bailiwick_types::ToolName = "bash".parse().unwrap();
    let call = ToolCall::asked(session.clone(), call, tool.clone(), arguments(), vec![tool], Asks::Required);
    match scope.judge(call).unwrap() {
        ToolVerdict::Ask(call) => call,
        ToolVerdict::Go(_) => panic!("nobody was asked"),
    }
}

struct Waiting {
    session: Session,
    tenant: Tenant,
    lease: Lease,
    asked: ApprovalRow,
}

async fn waiting(f: &Fixture) -> Waiting {
    let session = f.session(&f.acme.member).await;
    let tenant = f.scope(&f.acme.member).await.tenant().clone();
    let lease = f.store.turn_lease(&tenant, session.id()).await.unwrap();
    let asked = ask_in(f, &lease, asked(&session, &f.acme.member, &[])).await;
    Waiting { session, tenant, lease, asked }
}

async fn decide(f: &Fixture, by: &Person, id: ApprovalId, decision: Decision) -> Result<(), StoreError> {
    let scope = f.scope(by).await;
    let approval = f.store.approval_find(&scope, id).await?.unwrap();
    f.store.approval_decide(permit(&scope, approval), decision, None, json!("approve")).await.map(drop)
}

async fn begin(f: &Fixture, w: &Waiting, digest: [u8; 32]) -> Result<u64, StoreError> {
    let scope = f.scope(&f.acme.member).await;
    let call = unapproved(&scope, &w.session, w.asked.call);
    let begun = f.store.call_begin_approved(&w.lease, call, w.asked.id, digest, Map::new()).await;
    begun.map(|recorded| recorded.intent())
}

async fn state(f: &Fixture, w: &Waiting) -> ApprovalState {
    let rows = f.store.turn_standing(&w.lease).await.unwrap().approvals;
    rows.into_iter().find(|row| row.id == w.asked.id).unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_of_fifty_who_decide_at_once_exactly_one_wins() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        let scope = f.scope(&f.acme.member).await;
        let approval = f.store.approval_find(&scope, w.asked.id).await.unwrap().unwrap();
        let deciders: Vec<_> = (0..50)
            .map(|n| {
                let (store, permit) = (f.store.clone(), permit::<DecideApproval>(&scope, approval.clone()));
                let decision = if n % 2 == 0 { Decision::Approve } else { Decision::Deny };
                tokio::spawn(async move { store.approval_decide(permit, decision, None, Value::Null).await })
            })
            .collect();
        let mut won = 0;
        for decider in deciders {
            match decider.await.unwrap() {
                Ok(session) => {
                    assert_eq!(session, w.session.id());
                    won += 1;
                }
                error => assert_eq!(conflict(error), "already_decided"),
            }
        }
        assert_eq!(won, 1);
        let decided = f.actions(&f.acme).await.iter().filter(|action| *action == "approval.decide").count();
        assert_eq!(decided, 1, "and one line says so");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_an_approved_call_begins_once() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        assert_eq!(conflict(begin(&f, &w, DIGEST).await), "already_decided", "not before a decision");
        decide(&f, &f.acme.member, w.asked.id, Decision::Approve).await.unwrap();
        let intent = begin(&f, &w, DIGEST).await.unwrap();
        let event = &f.events(&f.acme).await[usize::try_from(intent).unwrap()];
        assert_eq!((event.draft.action.as_str(), event.draft.phase.as_str()), ("tool.call", "intent"));
        assert_eq!(event.draft.detail["approval"], json!(w.asked.id));
        assert_eq!(state(&f, &w).await, ApprovalState::Used);
        assert_eq!(conflict(begin(&f, &w, DIGEST).await), "already_decided");
        assert_eq!(conflict(decide(&f, &f.acme.member, w.asked.id, Decision::Deny).await), "already_decided");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_of_many_who_begin_an_approved_call_at_once_one_does() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        decide(&f, &f.acme.member, w.asked.id, Decision::Approve).await.unwrap();
        let scope = f.scope(&f.acme.member).await;
        let tries: Vec<_> = (0..20)
            .map(|_| {
                let (store, lease, id) = (f.store.clone(), w.lease.clone(), w.asked.id);
                let call = unapproved(&scope, &w.session, w.asked.call);
                tokio::spawn(async move {
                    store.call_begin_approved(&lease, call, id, DIGEST, Map::new()).await.map(drop).is_ok()
                })
            })
            .collect();
        let mut begun = 0;
        for one in tries {
            begun += usize::from(one.await.unwrap());
        }
        assert_eq!(begun, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_a_denied_call_never_begins() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        decide(&f, &f.acme.member, w.asked.id, Decision::Deny).await.unwrap();
        assert_eq!(conflict(begin(&f, &w, DIGEST).await), "already_decided");
        assert_eq!(state(&f, &w).await, ApprovalState::Denied);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_after_its_time_an_approval_can_only_expire_and_before_it_cannot() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        assert_eq!(conflict(f.store.approval_expire(&w.tenant, w.asked.id).await), "not_yet");
        let over = Timestamp::from_micros(Timestamp::now().as_micros() - 1);
        let late = ApprovalRow { expires_at: over, ..asked(&w.session, &f.acme.member, &[]) };
        let late = ask_in(&f, &w.lease, late).await;
        assert_eq!(conflict(decide(&f, &f.acme.member, late.id, Decision::Approve).await), "already_decided");
        let scope = f.scope(&f.acme.member).await;
        let list = f.store.approval_list(permit::<ListApprovals>(&scope, scope.account())).await.unwrap();
        assert_eq!(list.iter().map(|one| one.approval.id).collect::<Vec<_>>(), [w.asked.id]);
        f.store.approval_expire(&w.tenant, late.id).await.unwrap();
        assert_eq!(conflict(f.store.approval_expire(&w.tenant, late.id).await), "already_decided");
        let event = f.events(&f.acme).await.pop().unwrap();
        assert_eq!(event.draft.action, "approval.expire");
        assert_eq!(event.draft.actor.to_text(), "service:approval-clock");
        decide(&f, &f.acme.member, w.asked.id, Decision::Approve).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_an_approval_of_one_call_releases_no_other() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        let other = ask_in(&f, &w.lease, asked(&w.session, &f.acme.member, &[])).await;
        decide(&f, &f.acme.member, w.asked.id, Decision::Approve).await.unwrap();
        let scope = f.scope(&f.acme.member).await;
        let call = unapproved(&scope, &w.session, other.call);
        let begun = f.store.call_begin_approved(&w.lease, call, w.asked.id, DIGEST, Map::new()).await;
        assert_eq!(not_found(begun), "approval");
        // Nor one of another session.
        let elsewhere = waiting(&f).await;
        let call = unapproved(&scope, &elsewhere.session, elsewhere.asked.call);
        let begun = f.store.call_begin_approved(&elsewhere.lease, call, w.asked.id, DIGEST, Map::new()).await;
        assert_eq!(not_found(begun), "approval");
        assert_eq!(state(&f, &w).await, ApprovalState::Approved, "it is still good for its own call");
        begin(&f, &w, DIGEST).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_changed_tool_or_other_arguments_void_the_approval_for_good() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        decide(&f, &f.acme.member, w.asked.id, Decision::Approve).await.unwrap();
        let mut changed = DIGEST;
        changed[0] ^= 1;
        assert_eq!(conflict(begin(&f, &w, changed).await), "approval_void");
        assert_eq!(state(&f, &w).await, ApprovalState::Voided);
        assert_eq!(conflict(begin(&f, &w, DIGEST).await), "already_decided", "the right digest comes too late");
        let event = f.events(&f.acme).await.pop().unwrap();
        assert_eq!((event.draft.action.as_str(), event.draft.verdict.as_str()), ("approval.void", "DENIED"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_a_driver_that_was_taken_over_from_voids_nothing() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        decide(&f, &f.acme.member, w.asked.id, Decision::Approve).await.unwrap();
        let newer = f.store.turn_lease(&w.tenant, w.session.id()).await.unwrap();
        assert!(matches!(begin(&f, &w, [1; 32]).await, Err(StoreError::Fenced)));
        let w = Waiting { lease: newer, ..w };
        assert_eq!(state(&f, &w).await, ApprovalState::Approved);
        begin(&f, &w, DIGEST).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_the_requester_and_named_approvers_decide_and_for_others_it_is_not_there() {
    on_every_backend(async |f| {
        let session = f.session(&f.acme.member).await;
        let tenant = f.scope(&f.acme.member).await.tenant().clone();
        let lease = f.store.turn_lease(&tenant, session.id()).await.unwrap();
        let row = ask_in(&f, &lease, asked(&session, &f.acme.member, &[&f.acme.admin])).await;
        let may = async |person: &Person| {
            let scope = f.scope(person).await;
            match f.store.approval_find(&scope, row.id).await.unwrap() {
                None => Err(None),
                Some(approval) => scope.authorize::<DecideApproval>(approval).map(drop).map_err(|no| no.code()),
            }
        };
        assert_eq!(may(&f.acme.member).await, Ok(()));
        assert_eq!(may(&f.acme.admin).await, Ok(()));
        assert_eq!(may(&f.acme.viewer).await, Err(None));
        assert_eq!(may(&f.globex.member).await, Err(None), "`bob` of another tenant is somebody else");
        let list = async |person: &Person| {
            let scope = f.scope(person).await;
            f.store.approval_list(permit::<ListApprovals>(&scope, scope.account())).await.unwrap().len()
        };
        assert_eq!((list(&f.acme.member).await, list(&f.acme.admin).await), (1, 1));
        assert_eq!((list(&f.acme.viewer).await, list(&f.globex.member).await), (0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_pending_and_decided_approvals_survive_a_restart() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        let id = w.asked.id;
        let (session, tenant, asked) = (w.session, w.tenant, w.asked);
        drop(w.lease);
        let f = f.restart();
        let found = f.store.turns_unfinished().await.unwrap();
        assert_eq!(found.iter().map(|(_, session)| *session).collect::<Vec<_>>(), [session.id()]);
        decide(&f, &f.acme.member, id, Decision::Approve).await.unwrap();
        let f = f.restart();
        let lease = f.store.turn_lease(&tenant, session.id()).await.unwrap();
        let w = Waiting { session, tenant, lease, asked };
        assert_eq!(state(&f, &w).await, ApprovalState::Approved);
        begin(&f, &w, DIGEST).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_takes_an_answer_and_an_approval_takes_a_decision() {
    on_every_backend(async |f| {
        let w = waiting(&f).await;
        assert_eq!(conflict(decide(&f, &f.acme.member, w.asked.id, Decision::Answer).await), "wrong_kind");
        let question = ApprovalRow { kind: Kind::Question, ..asked(&w.session, &f.acme.member, &[]) };
        let question = ask_in(&f, &w.lease, question).await;
        assert_eq!(conflict(decide(&f, &f.acme.member, question.id, Decision::Approve).await), "wrong_kind");
        decide(&f, &f.acme.member, question.id, Decision::Answer).await.unwrap();
        let rows = f.store.turn_standing(&w.lease).await.unwrap().approvals;
        let row = rows.into_iter().find(|row| row.id == question.id).unwrap();
        assert_eq!((row.state, row.answer), (ApprovalState::Answered, Some(json!("approve"))));
        assert_eq!(row.decided_by, Some(f.acme.member.name.clone()));
    })
    .await;
}
