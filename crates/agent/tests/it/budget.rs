//! What was spent is counted however an answer ends: nobody gets tokens for nothing by not hearing them out.

use std::time::Duration;

use bailiwick_agent::Control;
use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb;
use bailiwick_store::approval::Decision;
use bailiwick_store::log::EventFilter;
use bailiwick_store::session::SessionState::{AwaitingApproval, Canceled, Failed, Idle, Running};
use bailiwick_store::usage::Spent;
use bailiwick_types::{Quota, Quotas, SessionId};
use serde_json::json;

use crate::SCRIPT;
use crate::fixture::{Inside, message};

/// What the account of a key's holder spent today.
async fn spent(inside: &Inside, key: &str) -> Spent {
    let scope = inside.scope(key).await;
    let permit = scope.authorize::<verb::ReadUsage>(scope.account()).unwrap();
    inside.store.usage_read(&permit).await.unwrap().today
}

/// The same, once something of it was counted.
async fn counted(inside: &Inside, key: &str) -> Spent {
    for _ in 0..1_000 {
        let spent = spent(inside, key).await;
        if spent.tokens() > 0 {
            return spent;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no tokens were counted");
}

/// A session of bob's, who is of the other account.
async fn bobs(inside: &Inside, text: &str) -> SessionId {
    let scope = inside.scope(&inside.bob).await;
    let space = inside.store.space_personal(&scope).await.unwrap();
    inside.runtime.create(&scope, space, "default".parse().unwrap(), None, Some(message(text))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_an_answer_that_is_canceled_is_paid_for() {
    let inside = Inside::new(SCRIPT).await;
    inside.store.limit_accounts(Quotas { tokens_per_day: Quota::new(5), ..Quotas::default() });
    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    let scope = inside.scope(&inside.alice).await;
    inside.runtime.control(&scope, inside.session(id).await, Control::Cancel { turn: None }).await.unwrap();
    let row = inside.until(id, Canceled, 0).await;
    let alices = spent(&inside, &inside.alice).await;
    assert!(alices.tokens_in > 5 && alices.tokens_out > 0, "{alices:?}");
    assert_eq!((row.tokens.input_tokens, row.tokens.output_tokens), (alices.tokens_in, alices.tokens_out));
    inside.send(id, "hello").await;
    let row = inside.until(id, Failed, row.events).await;
    let told = inside.events(id).await.pop().unwrap();
    assert_eq!(told["type"], "session.waiting", "{row:?}");
    let failed = inside.events(id).await.into_iter().rfind(|event| event["type"] == "turn.failed").unwrap();
    assert_eq!(failed["data"]["code"], "budget_exceeded", "{failed}");
    assert!(failed["data"]["message"].as_str().unwrap().contains("opens again at"), "{failed}");
    assert_eq!(spent(&inside, &inside.alice).await, alices, "what was refused cost nothing");
    // The other account has as much, and has not used it.
    assert_eq!(spent(&inside, &inside.bob).await, Spent::default());
    bobs(&inside, "hello").await;
    counted(&inside, &inside.bob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_an_answer_that_a_message_interrupts_is_paid_for() {
    let inside = Inside::new(SCRIPT).await;
    // Control: the same message, on its own.
    bobs(&inside, "hello").await;
    let one = counted(&inside, &inside.bob).await;
    let id = inside.begin("default", "ponder").await;
    inside.until(id, Running, 3).await;
    inside.send(id, "hello").await;
    inside.until(id, Idle, 0).await;
    let both = spent(&inside, &inside.alice).await;
    assert_eq!((one.model_calls, both.model_calls), (1, 2));
    assert!(both.tokens_in > one.tokens_in, "{both:?}, {one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_an_answer_that_a_restart_lost_is_paid_for_once() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    assert_eq!(spent(&inside, &inside.alice).await.tokens(), 0, "counted when it ends");
    let inside = inside.restart().await;
    let row = inside.until(id, Idle, 0).await;
    let twice = spent(&inside, &inside.alice).await;
    assert_eq!(twice.model_calls, 2);
    assert_eq!((row.tokens.input_tokens, row.tokens.output_tokens), (twice.tokens_in, twice.tokens_out));
    bobs(&inside, "slow").await;
    let once = counted(&inside, &inside.bob).await;
    assert!(twice.tokens_in > once.tokens_in, "{twice:?}, {once:?}");
    // A restart with no call under way counts nothing again.
    let inside = inside.restart().await;
    inside.until(id, Idle, 0).await;
    assert_eq!(spent(&inside, &inside.alice).await, twice);
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_an_answer_whose_space_is_deleted_is_paid_for_and_its_end_is_on_record() {
    let inside = Inside::new(SCRIPT).await;
    let scope = inside.scope(&inside.alice).await;
    let create = scope.authorize::<verb::CreateSpace>(scope.account()).unwrap();
    let row = inside.store.space_create(create, "short".to_owned(), String::new()).await.unwrap();
    let space = inside.store.space_find(&scope, row.id).await.unwrap().unwrap();
    let incoming = Some(message("slow"));
    let id = inside.runtime.create(&scope, space.clone(), "default".parse().unwrap(), None, incoming).await.unwrap();
    inside.until(id, Running, 5).await;
    inside.runtime.space_delete(scope.authorize::<verb::DeleteSpace>(space).unwrap()).await.unwrap();
    let spent = counted(&inside, &inside.alice).await;
    assert!(spent.tokens_in > 0 && spent.tokens_out > 0, "{spent:?}");
    assert_eq!(self::spent(&inside, &inside.bob).await, Spent::default());
    let all = scope.authorize::<verb::ReadAccountAudit>(scope.account()).unwrap();
    let log = inside.store.event_list(all, EventFilter { limit: 1000, ..EventFilter::default() }).await.unwrap();
    let end = log.iter().rfind(|event| event.draft.action == "model.call" && event.draft.phase == Phase::Outcome);
    let end = &end.unwrap().draft;
    assert_eq!((end.verdict, &end.detail["ended"]), (Verdict::Fail, &json!("session deleted")));
}

/// What the model said last: in these scripts, what it read of its tools.
async fn last_words(inside: &Inside, id: SessionId) -> String {
    let events = inside.events(id).await;
    let last = events.iter().rfind(|event| event["type"] == "message.completed").unwrap();
    last["data"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_a_used_up_budget_of_tool_calls_is_told_to_the_model_and_runs_nothing() {
    let inside = Inside::new(SCRIPT).await;
    inside.store.limit_accounts(Quotas { tool_calls_per_day: Quota::new(1), ..Quotas::default() });
    let id = inside.begin("default", "write it").await;
    let row = inside.until(id, Idle, 0).await;
    assert!(inside.wrote("notes.txt").await && !last_words(&inside, id).await.contains("budget_exceeded"));
    inside.send(id, "both").await;
    inside.until(id, Idle, row.events).await;
    assert!(!inside.wrote("one.txt").await);
    let types = inside.types(id).await;
    assert_eq!(types.last().map(String::as_str), Some("session.waiting"), "{types:?}");
    // One that a person approved meets the same budget, and its turn comes to its end.
    let careful = inside.begin("careful", "write it").await;
    let row = inside.until(careful, AwaitingApproval, 0).await;
    let alice = inside.scope(&inside.alice).await;
    let pending = inside.pending(&inside.alice).await;
    inside.runtime.decide(&alice, pending[0].approval.id, Decision::Approve, None).await.unwrap();
    inside.until(careful, Idle, row.events).await;
    let words = last_words(&inside, careful).await;
    assert!(words.contains("budget_exceeded") && words.contains("opens again at"), "{words}");
    assert_eq!(spent(&inside, &inside.alice).await.tool_calls, 1);
    bobs(&inside, "write it").await;
    let begun = std::time::Instant::now();
    while spent(&inside, &inside.bob).await.tool_calls == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the other account has its own");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_a_tool_that_could_write_is_refused_while_nothing_is_left_and_one_that_reads_is_not() {
    let inside = Inside::new(SCRIPT).await;
    inside.store.limit_accounts(Quotas { storage_mib: Quota::new(1), ..Quotas::default() });
    let scope = inside.scope(&inside.alice).await;
    let space = inside.store.space_personal(&scope).await.unwrap();
    let permit = scope.authorize::<verb::WriteSpace>(space).unwrap();
    let files = inside.store.space_files_to_write(&permit).await.unwrap();
    let (notes, big) = ("notes.txt".parse().unwrap(), "big.bin".parse().unwrap());
    files.write(&notes, b"was here before").unwrap();
    files.write(&big, &vec![1; 2 * 1024 * 1024]).unwrap();
    let id = inside.begin("default", "both").await;
    let row = inside.until(id, Idle, 0).await;
    assert!(!inside.wrote("one.txt").await);
    inside.send(id, "read it").await;
    let row = inside.until(id, Idle, row.events).await;
    assert!(last_words(&inside, id).await.contains("was here before"));
    inside.send(id, "write it").await;
    let row = inside.until(id, Idle, row.events).await;
    assert!(last_words(&inside, id).await.contains("storage_exceeded"));
    // Positive control: with room the same call runs.
    files.remove(&big).unwrap();
    inside.store.storage_shrank(scope.tenant());
    inside.send(id, "both").await;
    inside.until(id, Idle, row.events).await;
    assert!(inside.wrote("one.txt").await);
}

const SILENT: &str = r#"
turns:
  - default: true
    repeat: last
    steps: [ { text: "I name no figures", usage: { input_tokens: 0, output_tokens: 0 } } ]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn i17_a_provider_that_names_no_figures_does_not_make_a_budget_endless() {
    let inside = Inside::new(SILENT).await;
    let id = inside.begin("default", "hello").await;
    inside.until(id, Idle, 0).await;
    let spent = spent(&inside, &inside.alice).await;
    assert!(spent.tokens_in > 0, "{spent:?}");
    assert_eq!(spent.tokens_out, 5, "a token for every four letters");
}
