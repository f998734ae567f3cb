//! Turns: an older lease writes nothing, and what a turn writes is there as a whole or not at all.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb::{CallModel, CallTool, ReadSession};
use bailiwick_auth::access::{Asks, Session, ToolCall, ToolVerdict};
use bailiwick_auth::{Permit, Scope};
use bailiwick_store::StoreError;
use bailiwick_store::session::{SessionState, Tokens};
use bailiwick_store::turn::{CallChange, CallRow, CallState, Change, Lease, Messages};
use bailiwick_types::CallId;
use serde_json::{Map, json};

use crate::fixture::{Fixture, conflict, not_found, permit};
use crate::on_every_backend;

fn said(text: &str) -> Change {
    Change { events: vec![("message.completed", json!({ "text": text }))], ..Change::default() }
}

fn call(scope: &Scope, session: &Session, id: CallId) -> Permit<CallTool> {
    let tool: bailiwick_types::ToolName = "read_file".parse().unwrap();
    let asked = ToolCall::asked(session.clone(), id, tool.clone(), json!({ "path": "a" }), vec![tool], Asks::No);
    match scope.judge(asked).unwrap() {
        ToolVerdict::Go(permit) => permit,
        ToolVerdict::Ask(_) => panic!("somebody was asked"),
    }
}

fn requested(id: CallId) -> Change {
    let row = CallRow {
        id,
        turn: 0,
        step: 0,
        place: 0,
        model_id: "toolu_1".into(),
        tool: "read_file".parse().unwrap(),
        arguments: json!({ "path": "a" }),
        state: CallState::Requested,
        intent: None,
        output: None,
    };
    Change { calls: vec![CallChange::New(row)], ..Change::default() }
}

async fn leased(f: &Fixture) -> (Scope, Session, Lease) {
    let session = f.session(&f.acme.member).await;
    let scope = f.scope(&f.acme.member).await;
    let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
    (scope, session, lease)
}

#[tokio::test(flavor = "multi_thread")]
async fn z03_an_older_lease_writes_nothing() {
    on_every_backend(async |f| {
        let (scope, session, older) = leased(&f).await;
        let id = CallId::new();
        f.store.turn_commit(&older, requested(id)).await.unwrap();
        let newer = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
        let events = f.actions(&f.acme).await.len();

        assert!(matches!(f.store.turn_commit(&older, said("late")).await, Err(StoreError::Fenced)));
        let model = permit::<CallModel>(&scope, session.clone());
        let begun = f.store.model_begin(&older, model, Map::new(), said("late")).await;
        assert!(matches!(begun, Err(StoreError::Fenced)));
        let begun = f.store.call_begin(&older, call(&scope, &session, id), Map::new()).await;
        assert!(matches!(begun, Err(StoreError::Fenced)));
        let read = permit::<ReadSession>(&scope, session.clone());
        assert!(f.store.session_events(&read, 0, 10).await.unwrap().is_empty());
        assert_eq!(f.actions(&f.acme).await.len(), events, "nothing that did not happen is on record");

        f.store.turn_commit(&newer, said("now")).await.unwrap();
        let recorded = f.store.call_begin(&newer, call(&scope, &session, id), Map::new()).await.unwrap();
        recorded.settle(&f.store, Verdict::Ok, Map::new()).await.unwrap();
        assert_eq!(f.store.session_events(&read, 0, 10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z03_of_many_drivers_the_last_to_take_over_writes() {
    on_every_backend(async |f| {
        let (scope, session, _) = leased(&f).await;
        let takers: Vec<_> = (0..20)
            .map(|_| {
                let (store, tenant, id) = (f.store.clone(), scope.tenant().clone(), session.id());
                tokio::spawn(async move { store.turn_lease(&tenant, id).await.unwrap() })
            })
            .collect();
        let mut wrote = 0;
        let mut leases = Vec::new();
        for taker in takers {
            leases.push(taker.await.unwrap());
        }
        for lease in &leases {
            wrote += usize::from(f.store.turn_commit(lease, said("mine")).await.is_ok());
        }
        assert_eq!(wrote, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_for_one_session_begins_nothing_under_the_lease_of_another() {
    on_every_backend(async |f| {
        let (scope, session, _) = leased(&f).await;
        let (_, _, other) = leased(&f).await;
        let id = CallId::new();
        f.store.turn_commit(&other, requested(id)).await.unwrap();
        let model = permit::<CallModel>(&scope, session.clone());
        assert_eq!(conflict(f.store.model_begin(&other, model, Map::new(), Change::default()).await), "wrong_session");
        let tool = call(&scope, &session, id);
        assert_eq!(conflict(f.store.call_begin(&other, tool, Map::new()).await), "wrong_session");
        // A lease of another tenant, likewise.
        let foreign = f.session(&f.globex.member).await;
        let tenant = f.scope(&f.globex.member).await.tenant().clone();
        let foreign = f.store.turn_lease(&tenant, foreign.id()).await.unwrap();
        let model = permit::<CallModel>(&scope, session);
        let begun = f.store.model_begin(&foreign, model, Map::new(), Change::default()).await;
        assert_eq!(conflict(begun), "wrong_session");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e06_a_call_begins_only_with_its_intent_on_record_and_only_once() {
    on_every_backend(async |f| {
        let (scope, session, lease) = leased(&f).await;
        let id = CallId::new();
        let unknown = f.store.call_begin(&lease, call(&scope, &session, id), Map::new()).await;
        assert_eq!(conflict(unknown), "already_started", "a call that the session does not have");
        f.store.turn_commit(&lease, requested(id)).await.unwrap();
        let detail = Map::from_iter([("backend".to_owned(), json!("virtual"))]);
        let recorded = f.store.call_begin(&lease, call(&scope, &session, id), detail).await.unwrap();
        let again = f.store.call_begin(&lease, call(&scope, &session, id), Map::new()).await;
        assert_eq!(conflict(again), "already_started");
        let intent = recorded.intent();
        recorded.settle(&f.store, Verdict::Fail, Map::new()).await.unwrap();
        let events = f.events(&f.acme).await;
        let begun = &events[usize::try_from(intent).unwrap()];
        assert_eq!((begun.draft.phase, begun.draft.verdict), (Phase::Intent, Verdict::Begun));
        let ended = events.last().unwrap();
        assert_eq!((ended.draft.phase, ended.draft.verdict), (Phase::Outcome, Verdict::Fail));
        assert_eq!(ended.draft.intent, Some(intent));
        let open = f.store.turn_standing(&lease).await.unwrap().calls;
        assert_eq!((open[0].state, open[0].intent), (CallState::Started, Some(intent)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_written_whole_is_not_written_at_all() {
    on_every_backend(async |f| {
        let (scope, session, lease) = leased(&f).await;
        let id = CallId::new();
        f.store.turn_commit(&lease, requested(id)).await.unwrap();
        let events = f.actions(&f.acme).await.len();
        // The same call twice: the event before it must not stay.
        let change = Change { events: said("half").events, audit: Vec::new(), ..requested(id) };
        let committed = f.store.turn_commit(&lease, change).await;
        assert!(matches!(committed, Err(StoreError::Database(_) | StoreError::Server(_))), "{committed:?}");
        let read = permit::<ReadSession>(&scope, session);
        assert!(f.store.session_events(&read, 0, 10).await.unwrap().is_empty());
        assert_eq!(f.actions(&f.acme).await.len(), events);
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_reads_back_what_it_wrote() {
    on_every_backend(async |f| {
        let (scope, session, lease) = leased(&f).await;
        let tokens = Tokens { input_tokens: 3, output_tokens: 4, ..Tokens::default() };
        for text in ["one", "two"] {
            let change = Change {
                messages: Messages::Append(vec![json!(text)]),
                place: Some((2, 1)),
                state: Some(SessionState::Running),
                facts: Some(json!({ "k": text })),
                seen: vec![("a.txt".into(), [1; 32])],
                tokens,
                ..said(text)
            };
            f.store.turn_commit(&lease, change).await.unwrap();
        }
        assert_eq!(f.store.turn_messages(&lease).await.unwrap(), [json!("one"), json!("two")]);
        let all = Change { messages: Messages::Replace(vec![json!("short")]), ..Change::default() };
        f.store.turn_commit(&lease, all).await.unwrap();
        assert_eq!(f.store.turn_messages(&lease).await.unwrap(), [json!("short")]);
        let standing = f.store.turn_standing(&lease).await.unwrap();
        assert_eq!((standing.row.turn, standing.row.step, standing.row.state), (2, 1, SessionState::Running));
        assert_eq!(standing.row.facts, json!({ "k": "two" }));
        assert_eq!(standing.row.tokens.total(), 14);
        assert_eq!(standing.row.events, 2);
        assert_eq!(f.store.turn_file_seen(&lease, "a.txt").await.unwrap(), Some([1; 32]));
        assert_eq!(f.store.turn_file_seen(&lease, "b.txt").await.unwrap(), None);
        f.store.space_delete(permit(&scope, session.space().clone())).await.unwrap();
        assert!(matches!(f.store.turn_commit(&lease, said("late")).await, Err(StoreError::Fenced)));
        assert_eq!(not_found(f.store.turn_lease(scope.tenant(), session.id()).await), "session");
    })
    .await;
}
