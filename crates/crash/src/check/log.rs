//! The audit logs: whole by their own verification, no number left out, every intent with one outcome at
//! most, and no call begun twice.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Checking;
use super::sessions::{Call, End};
use crate::client::Client;
use crate::history::Thing;
use crate::process::ROOT_KEY;

pub(super) async fn check(checking: &Checking<'_>, calls: &[Call], findings: &mut Vec<String>) -> Result<(), String> {
    let mut begun: BTreeSet<String> = BTreeSet::new();
    let mut written: BTreeSet<String> = BTreeSet::new();
    for admin in checking.world.people.iter().filter(|person| person.admin) {
        let name = format!("the log of {}", admin.account);
        let events = whole(checking.client, &name, "/api/v1/audit", &admin.key, findings).await?;
        pairs(&name, &events, &mut begun, findings);
        let done = events.iter().filter(|event| event["phase"] == "outcome" && event["result"] == "OK");
        written.extend(done.filter_map(|event| event["detail"]["path"].as_str().map(str::to_owned)));
    }
    whole(checking.client, "the host's log", "/api/v1/admin/audit", ROOT_KEY, findings).await?;
    for call in calls {
        let ran = matches!(call.end, Some(End::Completed | End::Interrupted | End::Failed(_)));
        if ran != begun.contains(&call.id) {
            let said = if ran { "has no intent" } else { "has an intent" };
            findings.push(format!("the call {} is {:?} and {said} in the log", call.id, call.end));
        }
    }
    for (thing, held) in &checking.facts.things {
        if let Thing::File { path, .. } = thing
            && path.starts_with("files/")
            && held.known != "absent"
            && !written.contains(path)
        {
            findings.push(format!("{thing} was acknowledged, and its outcome is not in the log"));
        }
    }
    Ok(())
}

/// Reads a whole log. Whether it verifies and has no gaps goes into the findings.
async fn whole(
    client: &Client,
    name: &str,
    path: &str,
    key: &str,
    findings: &mut Vec<String>,
) -> Result<Vec<Value>, String> {
    let verdict = client.done("GET", &format!("{path}/verify"), key, None).await?;
    if verdict["ok"] != true {
        findings.push(format!("{name} does not verify: {verdict}"));
    }
    let size = verdict["size"].as_u64().unwrap_or(0);
    let mut events: Vec<Value> = Vec::new();
    let mut next = 1;
    loop {
        let page = client.done("GET", &format!("{path}?after={}&limit=1000", next - 1), key, None).await?;
        let Value::Array(page) = page else { return Err(format!("{path}: {page}")) };
        if page.is_empty() {
            break;
        }
        for event in &page {
            let seq = event["seq"].as_u64().unwrap_or(0);
            if seq != next {
                findings.push(format!("{name}: after number {} comes {seq}", next - 1));
            }
            next = seq + 1;
        }
        events.extend(page);
        if next >= size {
            break;
        }
    }
    if next < size {
        findings.push(format!("{name}: ends at {next}, and its tree has {size} leaves"));
    }
    Ok(events)
}

fn pairs(name: &str, events: &[Value], begun: &mut BTreeSet<String>, findings: &mut Vec<String>) {
    let mut outcomes: BTreeMap<u64, u64> = BTreeMap::new();
    for event in events.iter().filter(|event| event["phase"] == "outcome") {
        match event["intent"].as_u64() {
            Some(intent) => *outcomes.entry(intent).or_default() += 1,
            None => findings.push(format!("{name}: the outcome {} has no intent", event["seq"])),
        }
    }
    for (intent, times) in outcomes.iter().filter(|(_, times)| **times > 1) {
        findings.push(format!("{name}: the intent {intent} has {times} outcomes"));
    }
    let intents: BTreeSet<u64> =
        events.iter().filter(|event| event["phase"] == "intent").filter_map(|event| event["seq"].as_u64()).collect();
    for outcome in outcomes.keys().filter(|outcome| **outcome > 0 && !intents.contains(outcome)) {
        findings.push(format!("{name}: an outcome of {outcome}, which is no intent"));
    }
    for event in events.iter().filter(|event| event["phase"] == "intent" && event["action"] == "tool.call") {
        let seq = event["seq"].as_u64().unwrap_or(0);
        let call = event["detail"]["call"].as_str().unwrap_or_default();
        if !begun.insert(call.to_owned()) {
            findings.push(format!("{name}: the call {call} was begun twice, the second time at {seq}"));
        }
        if !outcomes.contains_key(&seq) {
            findings.push(format!("{name}: the call {call}, begun at {seq}, has no outcome"));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(events: &[Value]) -> Vec<String> {
        let mut findings = Vec::new();
        pairs("the log", events, &mut BTreeSet::new(), &mut findings);
        findings
    }

    fn intent(seq: u64, call: &str) -> Value {
        json!({ "seq": seq, "phase": "intent", "action": "tool.call", "detail": { "call": call } })
    }

    fn outcome(seq: u64, intent: u64) -> Value {
        json!({ "seq": seq, "phase": "outcome", "action": "tool.call", "intent": intent, "detail": {} })
    }

    #[test]
    fn e03_pairs_that_are_none_are_found() {
        assert_eq!(found(&[intent(1, "a"), outcome(2, 1)]), Vec::<String>::new());
        for (events, word) in [
            (vec![intent(1, "a"), outcome(2, 1), outcome(3, 1)], "has 2 outcomes"),
            (vec![intent(1, "a")], "has no outcome"),
            (vec![intent(1, "a"), outcome(2, 1), intent(3, "a"), outcome(4, 3)], "was begun twice"),
            (vec![outcome(2, 1)], "which is no intent"),
        ] {
            let findings = found(&events);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].contains(word), "{findings:?}");
        }
    }
}
