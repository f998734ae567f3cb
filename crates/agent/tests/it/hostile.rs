//! What a hostile reading found, shown to be mended.

use bailiwick_agent::message::TurnPolicy;
use bailiwick_agent::{Control, Incoming, IncomingPart};
use bailiwick_auth::access::verb;
use bailiwick_store::key::KeyTerms;
use bailiwick_store::session::SessionState::{Failed, Idle, Running};
use serde_json::json;

use crate::SCRIPT;
use crate::fixture::{Inside, message};

impl Inside {
    /// Another key of alice's.
    async fn another_key(&self) -> String {
        let scope = self.scope(&self.alice).await;
        let permit = scope.authorize::<verb::CreateKey>(scope.user_named("alice".parse().unwrap())).unwrap();
        let key = self.walk.ring().make().unwrap();
        self.store.key_create(permit, &key, KeyTerms::named("second")).await.unwrap();
        key.into_text().to_string()
    }

    async fn revoke(&self, key: &str) {
        let scope = self.scope(&self.alice).await;
        let permit = scope.authorize::<verb::RevokeKey>(scope.user_named("alice".parse().unwrap())).unwrap();
        let shown = bailiwick_auth::key::PresentedKey::new(key);
        let bailiwick_auth::key::Form::Key(id) = shown.form().clone() else { panic!("no key: {key}") };
        self.store.key_revoke(permit, id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_from_a_key_that_died_ends_one_turn_and_not_all_of_them() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    let second = inside.another_key().await;
    let scope = inside.scope(&second).await;
    let file = IncomingPart::File { media_type: "image/png".into(), filename: None, bytes: vec![1, 2, 3] };
    let queued =
        Incoming { parts: vec![IncomingPart::Text("look".into()), file], policy: TurnPolicy::Queue, ..message("look") };
    inside.runtime.send(&scope, inside.session(id).await, queued).await.unwrap();
    inside.revoke(&second).await;
    inside.until(id, Failed, 0).await;
    // The first turn's answer, the dead key's turn that failed, and nothing after it.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let types = inside.types(id).await;
    assert_eq!(types.iter().filter(|t| *t == "turn.started").count(), 2, "{types:?}");
    assert_eq!(types.iter().filter(|t| *t == "turn.failed").count(), 1);
    assert_eq!(inside.row(id).await.state, Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_is_seen_behind_a_message_that_steers() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "slow").await;
    inside.until(id, Running, 5).await;
    inside.send(id, "and more").await;
    let scope = inside.scope(&inside.alice).await;
    let cancel = Control::Cancel { turn: Some("turn_0".into()) };
    inside.runtime.control(&scope, inside.session(id).await, cancel).await.unwrap();
    let row = inside.until(id, Idle, 0).await;
    let row = if row.turn < 2 { inside.until(id, Idle, row.events).await } else { row };
    let events = inside.events(id).await;
    let canceled: Vec<_> = events.iter().filter(|e| e["type"] == "turn.cancelled").collect();
    assert_eq!(canceled.len(), 1);
    assert_eq!(canceled[0]["data"]["turnId"], "turn_0");
    assert_eq!(row.turn, 2, "the message was answered in a turn of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_begins_no_turn() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "hello").await;
    let row = inside.until(id, Idle, 0).await;
    let scope = inside.scope(&inside.alice).await;
    inside.runtime.control(&scope, inside.session(id).await, Control::Compact).await.unwrap();
    let after = inside.until(id, Idle, row.events).await;
    assert_eq!(after.turn, row.turn);
    let types = inside.types(id).await;
    assert_eq!(types.iter().filter(|t| *t == "turn.started").count(), 1, "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_asks_for_endless_work_is_refused() {
    let inside = Inside::new(SCRIPT).await;
    let mut defs = serde_json::Map::new();
    for n in 0..40 {
        let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
        defs.insert(format!("d{n}"), json!({ "allOf": [next, next] }));
    }
    defs.insert("d40".to_owned(), json!({}));
    let schema = json!({ "$ref": "#/$defs/d0", "$defs": defs });
    let scope = inside.scope(&inside.alice).await;
    let space = inside.store.space_personal(&scope).await.unwrap();
    let incoming = Incoming { output_schema: Some(schema), ..message("structured") };
    let refused = inside.runtime.create(&scope, space, "default".parse().unwrap(), None, Some(incoming)).await;
    assert!(refused.unwrap_err().to_string().contains("too much work"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_was_taken_away_is_away_in_old_sessions_too() {
    let inside = Inside::new(SCRIPT).await;
    let id = inside.begin("default", "hello").await;
    let row = inside.until(id, Idle, 0).await;
    let scope = inside.scope(&inside.alice).await;
    let narrower = crate::fixture::agent(r#"{"tools":["read_file","write_file"],"require_approval":["write_file"]}"#);
    let permit = scope.authorize::<verb::PutAgent>(scope.account()).unwrap();
    inside.store.agent_put(permit, "default".parse().unwrap(), narrower).await.unwrap();
    inside.send(id, "write it").await;
    inside.until(id, bailiwick_store::session::SessionState::AwaitingApproval, row.events).await;
    assert!(!inside.wrote("notes.txt").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_pattern_is_an_answer_and_not_the_end_of_the_session() {
    let pattern = format!("{}b{}", "{a,".repeat(251), "}".repeat(251));
    let script = format!(
        "turns:\n  - when: {{ user: \"glob\" }}\n    repeat: last\n    steps:\n      - tools: [ {{ name: glob, input: {{ pattern: \"{pattern}\" }} }} ]\n      - text: \"no\"\n  - default: true\n    repeat: last\n    steps: [ {{ text: \"yes\" }} ]\n"
    );
    let inside = Inside::new(&script).await;
    let id = inside.begin("default", "glob").await;
    let row = inside.until(id, Idle, 0).await;
    inside.send(id, "are you there").await;
    inside.until(id, Idle, row.events).await;
    assert!(format!("{:?}", inside.events(id).await).contains("nests its alternatives"));
}
