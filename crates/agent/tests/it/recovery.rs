//! What a restart finds, and what it makes of it.

use std::time::Duration;

use bailiwick_agent::Control;
use bailiwick_store::approval::Decision;
use bailiwick_store::session::SessionState::{AwaitingApproval, Idle, Running};

use crate::SCRIPT;
use crate::fixture::Inside;

#[tokio::test(flavor = "multi_thread")]
async fn t08_a_waiting_approval_survives_a_restart() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    let inside = inside.restart().await;
    let pending = inside.pending(&inside.alice).await;
    assert_eq!(pending.len(), 1);
    let alice = inside.scope(&inside.alice).await;
    inside.runtime.decide(&alice, pending[0].approval.id, Decision::Approve, None).await.unwrap();
    inside.until(id, Idle, row.events).await;
    assert!(inside.wrote("notes.txt").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_model_call_is_made_again() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    let inside = inside.restart().await;
    inside.until(id, Idle, 0).await;
    let events = inside.events(id).await;
    let whole = events.iter().rev().find(|e| e["type"] == "message.completed").unwrap();
    assert_eq!(whole["data"]["message"], "one two three four five six seven eight nine ten");
    let interrupted = events.iter().find(|e| e["type"] == "step.completed").unwrap();
    assert_eq!(interrupted["data"]["finishReason"], "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_in_the_queue_is_answered_after_a_restart() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    inside.send(id, "and then this").await;
    let inside = inside.restart().await;
    let mut row = inside.until(id, Idle, 0).await;
    for _ in 0..10 {
        if inside.events(id).await.iter().any(|e| e["data"]["message"] == "I heard: and then this") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        row = inside.row(id).await;
    }
    panic!("not answered: {row:?}");
}

const SLOW_SUMMARY: &str = r#"
turns:
  - when: { user: "Summarise this conversation" }
    steps: [ { text: "a summary", delay_ms: 400 } ]
  - default: true
    repeat: last
    steps: [ { text: "I heard: {{user}}" } ]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_that_a_restart_interrupted_is_made_again_and_is_no_turn() {
    let inside = Inside::new(SLOW_SUMMARY).await;
    let id = inside.begin("default", "hello").await;
    let row = inside.until(id, Idle, 0).await;
    let scope = inside.scope(&inside.alice).await;
    inside.runtime.control(&scope, inside.session(id).await, Control::Compact).await.unwrap();
    inside.until(id, Running, row.events).await;
    let inside = inside.restart().await;
    // Asked for, asked for again, done, waiting.
    let after = inside.until(id, Idle, row.events + 3).await;
    inside.send(id, "still there?").await;
    let end = inside.until(id, Idle, after.events).await;
    let types = inside.types(id).await;
    let count = |kind: &str| types.iter().filter(|t| *t == kind).count();
    assert_eq!((count("turn.started"), count("turn.completed"), count("turn.failed")), (2, 2, 0), "{types:?}");
    assert_eq!((count("compaction.requested"), count("compaction.completed")), (2, 1), "{types:?}");
    assert_eq!(end.turn, 2);
}
