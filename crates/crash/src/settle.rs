//! After the last restart of a round: what was not answered is asked for again, people decide what waits,
//! and everything comes to rest, or does not in time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::history::History;
use crate::random::Random;
use crate::work;
use crate::world::World;

/// How long it may take until everything rests.
const PATIENCE: Duration = Duration::from_secs(90);

/// Brings everything to rest.
///
/// # Errors
/// If something does not rest, or is answered as it must not be.
pub async fn settle(client: &Client, world: &World, history: &History, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed, &[4]);
    let unanswered: Vec<String> = history.facts().unanswered.keys().cloned().collect();
    for operation in unanswered {
        if work::create(client, world, history, &operation).await?.is_err() {
            return Err("the server went away while nobody killed it".to_owned());
        }
    }
    let mut open: BTreeSet<String> = history.facts().sessions.keys().cloned().collect();
    let begun = Instant::now();
    loop {
        for person in 0..world.people.len() {
            match work::decide_all(client, world, history, person, &mut random, 100).await {
                Ok(_) => {}
                Err(None) => return Err("the server went away while nobody killed it".to_owned()),
                Err(Some(problem)) => return Err(problem),
            }
        }
        let mut resting = Vec::new();
        let mut stands = String::new();
        for id in &open {
            let (key, messages) = match history.facts().sessions.get(id) {
                Some(session) => {
                    let acknowledged = session.messages.iter().filter(|message| message.acknowledged).count() as u64;
                    (world.people[session.person].key.clone(), acknowledged)
                }
                None => continue,
            };
            let row = client.done("GET", &format!("/api/v1/sessions/{id}"), &key, None).await?;
            let state = row["state"].as_str().unwrap_or_default();
            // Each message here is a turn, so a session that has had fewer has something before it.
            if matches!(state, "idle" | "failed" | "done" | "canceled") && row["turn"].as_u64() >= Some(messages) {
                resting.push(id.clone());
            } else {
                stands = format!("{id} is {state} in turn {} of {messages}", row["turn"]);
            }
        }
        open.retain(|id| !resting.contains(id));
        if open.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{} sessions do not come to rest in {PATIENCE:?}, among them {stands}", open.len()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
