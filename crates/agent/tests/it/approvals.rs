//! Turns that wait for people.

use bailiwick_agent::{Control, Resolution, RuntimeError};
use bailiwick_auth::access::verb;
use bailiwick_store::approval::{Decision, PendingApproval};
use bailiwick_store::session::SessionState::{AwaitingApproval, AwaitingInput, Canceled, Idle};
use bailiwick_types::WorkspacePath;

use crate::SCRIPT;
use crate::fixture::{Inside, whole_stream};

impl Inside {
    pub async fn pending(&self, key: &str) -> Vec<PendingApproval> {
        let scope = self.scope(key).await;
        let permit = scope.authorize::<verb::ListApprovals>(scope.account()).unwrap();
        self.store.approval_list(permit).await.unwrap()
    }

    pub async fn wrote(&self, path: &str) -> bool {
        let scope = self.scope(&self.alice).await;
        let space = self.store.space_personal(&scope).await.unwrap();
        let permit = scope.authorize::<verb::ReadSpace>(space).unwrap();
        self.store.space_files(&permit).await.unwrap().stat(&WorkspacePath::parse(path).unwrap()).is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t03_t04_a_call_waits_runs_once_when_approved_and_cannot_be_decided_twice() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    assert!(!inside.wrote("notes.txt").await, "nothing runs before the decision");
    let types = inside.types(id).await;
    assert_eq!(&types[types.len() - 3..], ["step.completed", "input.requested", "turn.waiting"]);

    let pending = inside.pending(&inside.alice).await;
    assert_eq!(pending.len(), 1);
    assert!(inside.pending(&inside.bob).await.is_empty());
    let approval = pending[0].approval.id;
    let alice = inside.scope(&inside.alice).await;
    inside.runtime.decide(&alice, approval, Decision::Approve, None).await.unwrap();
    inside.until(id, Idle, row.events).await;
    assert!(inside.wrote("notes.txt").await);
    let types = inside.types(id).await;
    let after: Vec<&str> = types[usize::try_from(row.events).unwrap()..].iter().map(String::as_str).collect();
    assert_eq!(after[..4], ["approval.settled", "input.resolved", "step.started", "action.result"]);
    assert_eq!(types.iter().filter(|t| *t == "action.result").count(), 1, "it ran once");

    let again = inside.runtime.decide(&alice, approval, Decision::Approve, None).await.unwrap_err();
    assert!(again.to_string().contains("decided before"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_a_denied_call_does_not_run_and_the_model_reads_the_refusal() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    let approval = inside.pending(&inside.alice).await[0].approval.id;
    let alice = inside.scope(&inside.alice).await;
    inside.runtime.decide(&alice, approval, Decision::Deny, Some("not now".to_owned())).await.unwrap();
    inside.until(id, Idle, row.events).await;
    assert!(!inside.wrote("notes.txt").await);
    let events = inside.events(id).await;
    let result = events.iter().find(|e| e["type"] == "action.result").unwrap();
    assert_eq!(result["data"]["status"], "rejected");
    let last = events.iter().rev().find(|e| e["type"] == "message.completed").unwrap().to_string();
    assert!(last.contains("not now"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_without_a_decision_in_time_nothing_runs() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("hasty", "write it").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    let approval = inside.pending(&inside.alice).await[0].approval.id;
    inside.until(id, Idle, row.events).await;
    assert!(!inside.wrote("notes.txt").await);
    let alice = inside.scope(&inside.alice).await;
    let late = inside.runtime.decide(&alice, approval, Decision::Approve, None).await.unwrap_err();
    assert!(matches!(late, RuntimeError::Store(_)), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_only_the_requester_may_decide() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    inside.until(id, AwaitingApproval, 0).await;
    let approval = inside.pending(&inside.alice).await[0].approval.id;
    let bob = inside.scope(&inside.bob).await;
    let foreign = inside.runtime.decide(&bob, approval, Decision::Approve, None).await.unwrap_err();
    assert!(matches!(foreign, RuntimeError::NotFound), "{foreign}");
    assert!(!inside.wrote("notes.txt").await);
    let alice = inside.scope(&inside.alice).await;
    inside.runtime.decide(&alice, approval, Decision::Approve, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_an_approval_does_not_release_the_next_call() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    let alice = inside.scope(&inside.alice).await;
    let first = inside.pending(&inside.alice).await[0].approval.id;
    inside.runtime.decide(&alice, first, Decision::Approve, None).await.unwrap();
    let row = inside.until(id, Idle, row.events).await;
    inside.send(id, "write it").await;
    inside.until(id, AwaitingApproval, row.events).await;
    let second = inside.pending(&inside.alice).await;
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].approval.id, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_word_decides_and_any_other_message_goes_on_without() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    inside.send(id, " Approve ").await;
    inside.until(id, Idle, row.events).await;
    assert!(inside.wrote("notes.txt").await);

    let id = inside.begin("careful", "both").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    inside.send(id, "never mind").await;
    inside.until(id, Idle, row.events).await;
    assert!(!inside.wrote("one.txt").await);
    let events = inside.events(id).await;
    let resolved = events.iter().find(|e| e["type"] == "input.resolved").unwrap();
    assert_eq!(resolved["data"]["resolutions"][0]["outcome"], "ignored");
    let last = events.iter().rev().find(|e| e["type"] == "message.completed").unwrap();
    assert_eq!(last["data"]["message"], "I heard: never mind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_its_answer() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "ask me").await;
    let row = inside.until(id, AwaitingInput, 0).await;
    let types = inside.types(id).await;
    assert_eq!(&types[types.len() - 3..], ["turn.waiting", "input.requested", "turn.waiting"]);
    let events = inside.events(id).await;
    let asked = events.iter().find(|e| e["type"] == "input.requested").unwrap();
    let request = asked["data"]["requests"][0]["requestId"].as_str().unwrap().to_owned();
    let alice = inside.scope(&inside.alice).await;
    let answer = Resolution { request, option: Some("Blue".to_owned()), text: None };
    inside.runtime.respond(&alice, inside.session(id).await, vec![answer]).await.unwrap();
    inside.until(id, Idle, row.events).await;
    let events = inside.events(id).await;
    let last = events.iter().rev().find(|e| e["type"] == "message.completed").unwrap().to_string();
    assert!(last.contains("Blue"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_a_turn_that_waits() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    let row = inside.until(id, AwaitingApproval, 0).await;
    let alice = inside.scope(&inside.alice).await;
    inside.runtime.control(&alice, inside.session(id).await, Control::Cancel { turn: None }).await.unwrap();
    let row = inside.until(id, Canceled, row.events).await;
    let types = inside.types(id).await;
    assert_eq!(&types[types.len() - 3..], ["input.resolved", "turn.cancelled", "session.waiting"]);
    assert!(inside.pending(&inside.alice).await.is_empty());
    // The conversation can go on: the model's call has a result.
    inside.send(id, "hello").await;
    inside.until(id, Idle, row.events).await;
    assert!(inside.types(id).await.ends_with(&["turn.completed".to_owned(), "session.waiting".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_a_revoked_key_stops_the_turn_it_began() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("careful", "write it").await;
    inside.until(id, AwaitingApproval, 0).await;
    let approval = inside.pending(&inside.alice).await[0].approval.id;
    let alice = inside.scope(&inside.alice).await;
    // Approved with a key that is revoked before the call can run: the rights of now count.
    let key = alice.credential().to_text().strip_prefix("key:").unwrap().parse().unwrap();
    let holder = alice.user_named(alice.user().unwrap().clone());
    inside.store.key_revoke(alice.authorize::<verb::RevokeKey>(holder).unwrap(), key).await.unwrap();
    inside.runtime.decide(&alice, approval, Decision::Approve, None).await.unwrap();
    let store = inside.store.clone();
    let stream = alice.authorize::<verb::ReadSession>(store.session_find(&alice, id).await.unwrap().unwrap()).unwrap();
    let mut grew = store.session_watch(&stream).unwrap();
    for _ in 0..100 {
        if store.session_read(&stream).await.unwrap().state == Idle {
            break;
        }
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), grew.changed()).await;
    }
    let lines = whole_stream(&store, &stream).await;
    assert!(lines.iter().any(|line| line.contains("CALLER_NOT_AUTHORIZED")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("action.result")), "nothing ran");
}
