//! Turns without people in between.

use bailiwick_agent::message::TurnPolicy;
use bailiwick_agent::{Control, Incoming};
use bailiwick_auth::access::verb;
use bailiwick_store::log::EventFilter;
use bailiwick_store::session::SessionState::{Canceled, Done, Failed, Idle, Running};
use serde_json::json;

use crate::SCRIPT;
use crate::fixture::{Inside, message};

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_turn_has_the_events_that_clients_know() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "hello").await;
    inside.until(id, Idle, 0).await;
    let types = inside.types(id).await;
    let without_deltas: Vec<&str> = types.iter().map(String::as_str).filter(|t| *t != "message.appended").collect();
    assert_eq!(
        without_deltas,
        [
            "session.started",
            "turn.started",
            "message.received",
            "step.started",
            "message.completed",
            "step.completed",
            "turn.completed",
            "session.waiting"
        ]
    );
    let events = inside.events(id).await;
    let said: String = events.iter().filter_map(|e| e["data"]["messageDelta"].as_str()).collect();
    assert_eq!(said, "I heard: hello");
    let ids: Vec<&str> = events.iter().map(|e| e["meta"]["id"].as_str().unwrap()).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_writes_and_the_next_turn_reads_it() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "write it").await;
    let row = inside.until(id, Idle, 0).await;
    assert!(inside.types(id).await.contains(&"action.result".to_owned()));
    inside.send(id, "read it").await;
    inside.until(id, Idle, row.events).await;
    let events = inside.events(id).await;
    let last = events.iter().rev().find(|e| e["type"] == "message.completed").unwrap();
    assert!(last["data"]["message"].as_str().unwrap().contains("1: hello"), "{last}");
    // The plan, the files and the sessions of a space outlive the turn (A09).
    let scope = inside.scope(&inside.alice).await;
    let verify = scope.authorize::<verb::ReadAccountAudit>(scope.account()).unwrap();
    inside.store.event_verify(verify).await.unwrap().unwrap();
    let all = scope.authorize::<verb::ReadAccountAudit>(scope.account()).unwrap();
    let log = inside.store.event_list(all, EventFilter { limit: 1000, ..EventFilter::default() }).await.unwrap();
    for act in ["session.create", "model.call", "tool.call", "sandbox.start"] {
        let rows: Vec<_> = log.iter().filter(|event| event.draft.action == act).collect();
        assert!(!rows.is_empty(), "{act} is not on record");
    }
    // Every intent has its outcome, and it comes after.
    for event in log.iter().filter(|event| event.draft.phase == bailiwick_audit::Phase::Intent) {
        let outcome = log.iter().find(|other| other.draft.intent == Some(event.seq));
        assert!(outcome.is_some_and(|outcome| outcome.seq > event.seq), "{event:?} has no outcome");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_t02_refused_calls_run_nothing_and_the_model_reads_why() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "bad tools").await;
    inside.until(id, Idle, 0).await;
    let events = inside.events(id).await;
    let ran: Vec<_> = events.iter().filter(|e| e["type"] == "action.result").collect();
    // Only the call with the bad path came through the gate; the path was refused by the tool.
    assert_eq!(ran.len(), 1);
    assert!(ran[0].to_string().contains("path_traversal"), "{}", ran[0]);
    let scope = inside.scope(&inside.alice).await;
    let all = scope.authorize::<verb::ReadAccountAudit>(scope.account()).unwrap();
    let filter = EventFilter { limit: 1000, verdict: Some(bailiwick_audit::Verdict::Denied), ..EventFilter::default() };
    let denied = inside.store.event_list(all, filter).await.unwrap();
    let codes: Vec<_> = denied.iter().map(|e| e.draft.detail["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(codes, ["tool_not_granted", "tool_unknown", "arguments_invalid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_answer_run_side_by_side() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "both").await;
    inside.until(id, Idle, 0).await;
    let types = inside.types(id).await;
    assert_eq!(types.iter().filter(|t| *t == "actions.requested").count(), 2);
    assert_eq!(types.iter().filter(|t| *t == "action.result").count(), 2);
    let scope = inside.scope(&inside.alice).await;
    let space = inside.store.space_personal(&scope).await.unwrap();
    let permit = scope.authorize::<verb::ReadSpace>(space).unwrap();
    assert_eq!(inside.store.plan_read(&permit).await.unwrap(), json!([{ "text": "think", "status": "done" }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_secret_in_a_result_is_hidden_from_the_model() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "leak").await;
    inside.until(id, Idle, 0).await;
    let events = inside.events(id).await;
    let last = events.iter().rev().find(|e| e["type"] == "message.completed").unwrap().to_string();
    assert!(last.contains("[redacted:test]") && !last.contains("very-secret-value"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_answer_follows_its_schema_or_fails() {
    let inside = Inside::new(SCRIPT).await;
    let schema = json!({ "type": "object", "required": ["colour"], "properties": { "count": { "type": "integer" } } });
    let with = |text: &str| Incoming { output_schema: Some(schema.clone()), ..message(text) };
    let id = inside.begin_with("default", with("structured")).await;
    inside.until(id, Idle, 0).await;
    let events = inside.events(id).await;
    let result = events.iter().find(|e| e["type"] == "result.completed").unwrap();
    assert_eq!(result["data"]["result"], json!({ "colour": "red", "count": 3 }));

    let id = inside.begin_with("default", with("hello")).await;
    inside.until(id, Failed, 0).await;
    let events = inside.events(id).await;
    let failed = events.iter().find(|e| e["type"] == "turn.failed").unwrap();
    assert_eq!(failed["data"]["code"], "OUTPUT_SCHEMA_NOT_FULFILLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_context_is_for_one_turn() {
    let inside = Inside::new(SCRIPT).await;
    let incoming = Incoming { client_context: Some(json!({ "page": "orders" })), ..message("hello") };
    let id = inside.begin_with("default", incoming).await;
    let row = inside.until(id, Idle, 0).await;
    inside.send(id, "hello again").await;
    inside.until(id, Idle, row.events).await;
    let stream = inside.events(id).await;
    assert!(!format!("{stream:?}").contains("orders"), "client context is not shown on the stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_model_call_ends_the_turn_and_the_session_goes_on() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "fail").await;
    let row = inside.until(id, Failed, 0).await;
    let types = inside.types(id).await;
    assert_eq!(&types[types.len() - 3..], ["step.failed", "turn.failed", "session.waiting"]);
    inside.send(id, "hello").await;
    inside.until(id, Idle, row.events).await;
    assert!(inside.types(id).await.contains(&"turn.completed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_stops_an_answer_at_once() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    let scope = inside.scope(&inside.alice).await;
    inside.runtime.control(&scope, inside.session(id).await, Control::Cancel { turn: None }).await.unwrap();
    inside.until(id, Canceled, 0).await;
    let types = inside.types(id).await;
    assert_eq!(&types[types.len() - 2..], ["turn.cancelled", "session.waiting"]);
    assert!(!types.contains(&"message.completed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_steers_before_the_answer_shows_and_queues_after() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "ponder").await;
    inside.until(id, Running, 3).await;
    let delivery = inside.send(id, "second").await;
    inside.until(id, Idle, 0).await;
    let events = inside.events(id).await;
    let types: Vec<_> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(types.iter().filter(|t| **t == "turn.started").count(), 1, "{types:?}");
    assert!(types.contains(&"step.completed"));
    let last = events.last().unwrap();
    assert!(last["meta"]["deliveryIds"].to_string().contains(&delivery));

    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    let queued = Incoming { policy: TurnPolicy::Queue, ..message("third") };
    let scope = inside.scope(&inside.alice).await;
    inside.runtime.send(&scope, inside.session(id).await, queued).await.unwrap();
    let row = inside.until(id, Idle, 0).await;
    if row.turn < 2 {
        inside.until(id, Idle, row.events).await;
    }
    let types = inside.types(id).await;
    assert_eq!(types.iter().filter(|t| *t == "turn.started").count(), 2, "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_compact_and_reset() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "hello").await;
    let row = inside.until(id, Idle, 0).await;
    let scope = inside.scope(&inside.alice).await;
    inside.runtime.control(&scope, inside.session(id).await, Control::Compact).await.unwrap();
    let row = inside.until(id, Idle, row.events).await;
    assert!(inside.types(id).await.contains(&"compaction.completed".to_owned()));
    inside.runtime.control(&scope, inside.session(id).await, Control::Clear).await.unwrap();
    let row = inside.until(id, Idle, row.events).await;
    assert!(inside.types(id).await.contains(&"context.cleared".to_owned()));
    inside.runtime.control(&scope, inside.session(id).await, Control::Reset).await.unwrap();
    inside.until(id, Done, row.events).await;
    let again = inside.runtime.send(&scope, inside.session(id).await, message("hello")).await.unwrap_err();
    assert!(again.to_string().contains("no longer active"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a03_a_foreign_session_is_not_found_and_its_owner_finds_it() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "hello").await;
    inside.until(id, Idle, 0).await;
    let bob = inside.scope(&inside.bob).await;
    assert!(inside.store.session_find(&bob, id).await.unwrap().is_none());
    let alice = inside.scope(&inside.alice).await;
    assert!(inside.store.session_find(&alice, id).await.unwrap().is_some(), "positive control");
    // A session that was read under another scope is of no use either.
    let stolen = inside.session(id).await;
    let refused = inside.runtime.send(&bob, stolen, message("hello")).await.unwrap_err();
    assert!(matches!(refused, bailiwick_agent::RuntimeError::Refused(refusal) if refusal.code().is_none()));
}
