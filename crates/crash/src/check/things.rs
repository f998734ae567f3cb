//! Files, grants, keys, users, spaces and decisions: each as it was acknowledged last.

use serde_json::Value;

use super::Checking;
use crate::history::{Clock, Thing};
use crate::process::ROOT_KEY;
use crate::work::hash;

pub(super) async fn check(checking: &Checking<'_>, findings: &mut Vec<String>) -> Result<(), String> {
    for (thing, held) in &checking.facts.things {
        let found = state(checking, thing).await?;
        // A decision that was never acknowledged may have come too late.
        let late = matches!(thing, Thing::Decision { .. })
            && match checking.facts.clock {
                Clock::Steady => held.known == "absent" && found == "expired",
                Clock::Jumped => matches!(found.as_str(), "expired" | "voided"),
            };
        if !late && !held.allows(&found) {
            let mut possible = held.possible.clone();
            possible.push(held.known.clone());
            findings.push(format!("{thing}: found {found}, but it was {}", possible.join(" or ")));
        }
    }
    Ok(())
}

async fn state(checking: &Checking<'_>, thing: &Thing) -> Result<String, String> {
    let key = |person: &usize| checking.world.people[*person].key.as_str();
    let account = |person: &usize| checking.world.people[*person].account.as_str();
    let get = async |path: String, key: &str| checking.client.get(&path, key).await;
    let there = |status: u16| match status {
        200 => "present".to_owned(),
        404 => "absent".to_owned(),
        other => format!("status {other}"),
    };
    Ok(match thing {
        Thing::File { person, space, path } => {
            let answer = get(format!("/api/v1/spaces/{space}/files/content?path={path}"), key(person)).await?;
            if answer.status == 200 { hash(&answer.bytes) } else { there(answer.status).replace("present", "?") }
        }
        Thing::Grant { person, space, user } => {
            let answer = get(format!("/api/v1/spaces/{space}/grants"), key(person)).await?;
            let Value::Array(rows) = answer.result() else { return Ok(answer.shown()) };
            let row = rows.iter().find(|row| row["user"] == user.as_str());
            row.and_then(|row| row["level"].as_str()).unwrap_or("absent").to_owned()
        }
        Thing::Key { secret, .. } => match get("/api/v1/spaces".to_owned(), secret).await?.status {
            200 => "alive".to_owned(),
            401 => "dead".to_owned(),
            other => format!("status {other}"),
        },
        Thing::User { person, name } => {
            let path = format!("/api/v1/admin/accounts/{}/users/{name}", account(person));
            there(get(path, key(person)).await?.status)
        }
        Thing::Account { name } => there(get(format!("/api/v1/admin/accounts/{name}"), ROOT_KEY).await?.status),
        Thing::Space { person, id } => there(get(format!("/api/v1/spaces/{id}"), key(person)).await?.status),
        Thing::Decision { person, id } => {
            let answer = get(format!("/api/v1/approvals/{id}"), key(person)).await?;
            match answer.result()["state"].as_str() {
                // At rest an approval that was given is used up.
                Some("used") => "approved".to_owned(),
                Some("approved") => "approved and never used".to_owned(),
                Some(state) => state.to_owned(),
                None => answer.shown(),
            }
        }
    })
}
