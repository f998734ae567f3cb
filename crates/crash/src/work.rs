//! The load: fifty workers, and people who decide. Each thing is written into the history before it is asked
//! for and again when it is answered. A worker stops at the first answer that does not come.

mod acts;

pub(crate) use acts::hash;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Sent};
use crate::history::{History, Message, Session, Thing, Unanswered};
use crate::random::Random;
use crate::world::{CAREFUL, FREE, HASTY, World};

/// Workers at once, each with a session of its own.
pub const WORKERS: u64 = 50;

/// One life of the server under load.
#[derive(Clone)]
pub struct Life {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) history: Arc<History>,
    /// The next token, over all lives of a run.
    pub(crate) tokens: Arc<AtomicU64>,
    workers: u64,
    /// Acts that a worker does at most.
    acts: u64,
    over: Arc<AtomicBool>,
    seed: u64,
}

/// Why a worker stopped before its time: the server is gone.
pub(crate) struct Gone;

impl Life {
    /// A life that has not begun, in which nothing is done yet.
    pub fn new(client: Client, world: Arc<World>, history: Arc<History>, tokens: Arc<AtomicU64>) -> Self {
        Self { client, world, history, tokens, workers: 0, acts: 0, over: Arc::default(), seed: 0 }
    }

    /// With so many workers, who do so much.
    #[must_use]
    pub fn with(self, seed: u64, workers: u64, acts: u64) -> Self {
        Self { seed, workers, acts, ..self }
    }

    /// Lets everybody stop after what they do just now.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Everybody works until each has done enough, or the server is gone. People go on deciding until then.
    ///
    /// # Errors
    /// If a worker was answered in a way that no crash explains.
    pub async fn work(&self) -> Result<(), String> {
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..self.workers {
            let life = self.clone();
            workers.spawn(async move { life.worker(worker).await });
        }
        let mut deciders = tokio::task::JoinSet::new();
        for person in 0..self.world.people.len() {
            let life = self.clone();
            deciders.spawn(async move { life.decider(person).await });
        }
        let mut problems = Vec::new();
        while let Some(ended) = workers.join_next().await {
            problems.extend(ended.map_err(|error| format!("a worker was lost: {error}"))?.err());
        }
        self.end();
        while let Some(ended) = deciders.join_next().await {
            problems.extend(ended.map_err(|error| format!("a decider was lost: {error}"))?.err());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    }

    /// Keys, grants, users, spaces and accounts, so many that some stay and some go.
    ///
    /// # Errors
    /// If one is refused, or the server is gone.
    pub async fn some_of_each(&self) -> Result<(), String> {
        let mut random = Random::new(self.seed, &[6]);
        for _ in 0..50 {
            if self.people(0, &mut random).await?.is_err() {
                return Err("the server went away while nobody killed it".to_owned());
            }
        }
        Ok(())
    }

    async fn worker(&self, worker: u64) -> Result<(), String> {
        let mut random = Random::new(self.seed, &[2, worker]);
        for _ in 0..self.acts {
            if self.is_over() {
                break;
            }
            let person = usize::try_from(random.below(self.world.people.len() as u64)).unwrap_or(0);
            let act = match random.below(100) {
                0..=59 => self.session(person, &mut random).await,
                60..=84 => self.file(person, &mut random).await,
                _ => self.people(person, &mut random).await,
            };
            match act {
                Ok(Ok(())) => {}
                Ok(Err(Gone)) => break,
                Err(problem) => return Err(problem),
            }
        }
        Ok(())
    }

    pub(crate) fn token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins a session, sends more into it, and follows it for a while or not.
    async fn session(&self, person: usize, random: &mut Random) -> Result<Result<(), Gone>, String> {
        let agent = *random.pick(&[FREE, FREE, FREE, CAREFUL, CAREFUL, HASTY]);
        let text = self.message(random);
        let operation = format!("op-{:x}-{}", self.seed, self.token());
        let asked = Unanswered { person, agent, text: text.clone() };
        self.history.facts().unanswered.insert(operation.clone(), asked);
        let Ok(id) = create(&self.client, &self.world, &self.history, &operation).await? else {
            return Ok(Err(Gone));
        };
        for _ in 0..random.below(3) {
            if random.percent(40) && !self.follow(person, &id).await? {
                return Ok(Err(Gone));
            }
            let text = self.message(random);
            if let Some(session) = self.history.facts().sessions.get_mut(&id) {
                session.messages.push(Message { text: text.clone(), acknowledged: false });
            }
            let json = json!({ "message": text, "turnPolicy": "queue" });
            let key = &self.world.people[person].key;
            let path = format!("/eve/v1/session/{id}");
            let sent = Sent { key, json: Some(json), ..Sent::default() };
            let Ok(answer) = self.client.send("POST", &path, sent).await else { return Ok(Err(Gone)) };
            if answer.status != 202 {
                return unwell(&format!("a message to {id}"), &answer);
            }
            if let Some(session) = self.history.facts().sessions.get_mut(&id)
                && let Some(message) = session.messages.iter_mut().find(|message| message.text == text)
            {
                message.acknowledged = true;
            }
        }
        Ok(Ok(()))
    }

    fn message(&self, random: &mut Random) -> String {
        let kind = *random.pick(&["append", "append", "append", "write", "both", "both", "talk", "slow"]);
        format!("{kind}-{:x}x{}", self.seed & 0xffff_ffff, self.token())
    }

    /// Reads the session's stream until it waits, or for a moment. Whether the server is still there.
    async fn follow(&self, person: usize, id: &str) -> Result<bool, String> {
        let path = format!("/api/v1/sessions/{id}");
        for _ in 0..20 {
            let Ok(answer) = self.client.get(&path, &self.world.people[person].key).await else { return Ok(false) };
            if !answer.is_good() {
                return Err(format!("{path}: an acknowledged session is not there: {}", answer.shown()));
            }
            if !matches!(answer.result()["state"].as_str(), Some("running")) || self.is_over() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(true)
    }

    /// One who looks again and again at what waits, and decides most of it.
    async fn decider(&self, person: usize) -> Result<(), String> {
        let mut random = Random::new(self.seed, &[3, person as u64]);
        while !self.is_over() {
            match decide_all(&self.client, &self.world, &self.history, person, &mut random, 70).await {
                Ok(_) => {}
                Err(None) => return Ok(()),
                Err(Some(problem)) => return Err(problem),
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        Ok(())
    }
}

/// Asks for a session that is in the history without an answer. Says its id.
pub(crate) async fn create(
    client: &Client,
    world: &World,
    history: &History,
    operation: &str,
) -> Result<Result<String, Gone>, String> {
    let asked = history.facts().unanswered.get(operation).cloned();
    let Some(Unanswered { person, agent, text }) = asked else {
        return Err(format!("{operation} was never asked for"));
    };
    let who = &world.people[person];
    let headers = [("x-bailiwick-agent", agent), ("x-bailiwick-space", who.space.as_str())];
    let json = json!({ "message": text, "operationId": operation });
    let sent = Sent { key: &who.key, headers: &headers, json: Some(json), ..Sent::default() };
    let Ok(answer) = client.send("POST", "/eve/v1/session", sent).await else { return Ok(Err(Gone)) };
    if answer.status != 202 {
        return unwell(operation, &answer).map(|gone| gone.map(|()| String::new()));
    }
    let id = crate::world::text(&answer.json(), "sessionId")?;
    let mut facts = history.facts();
    facts.unanswered.remove(operation);
    let messages = vec![Message { text, acknowledged: true }];
    facts.sessions.insert(id.clone(), Session { person, agent, space: who.space.clone(), messages });
    Ok(Ok(id))
}

/// An answer that refuses. While the server closes it may say so; all else is a problem.
pub(crate) fn unwell(what: &str, answer: &crate::client::Answer) -> Result<Result<(), Gone>, String> {
    if answer.status == 503 { Ok(Err(Gone)) } else { Err(format!("{what}: {}", answer.shown())) }
}

/// Decides so many in a hundred of what waits for this person. How many wait still; `None` if the server is
/// gone.
pub(crate) async fn decide_all(
    client: &Client,
    world: &World,
    history: &History,
    person: usize,
    random: &mut Random,
    percent: u64,
) -> Result<usize, Option<String>> {
    let key = &world.people[person].key;
    let waiting = client.get("/api/v1/approvals", key).await.map_err(|_| None)?;
    if waiting.status == 503 {
        return Err(None);
    }
    let Value::Array(waiting) = waiting.result() else { return Err(Some(format!("approvals: {}", waiting.shown()))) };
    let mut left = 0;
    for approval in waiting.iter().filter(|approval| approval["agent"] != HASTY) {
        let id = approval["id"].as_str().unwrap_or_default().to_owned();
        let thing = Thing::Decision { person, id: id.clone() };
        if !random.percent(percent) {
            left += 1;
            continue;
        }
        // What was asked for before the crash, and not answered, is asked for again as it was.
        let before = history.facts().things.get(&thing).and_then(|held| held.possible.first().cloned());
        let (word, state) = match before.as_deref() {
            Some("approved") => ("approve", "approved"),
            Some(_) => ("deny", "denied"),
            None if random.percent(75) => ("approve", "approved"),
            None => ("deny", "denied"),
        };
        history.ask(&thing, state);
        let path = format!("/api/v1/approvals/{id}");
        let sent = Sent { key, json: Some(json!({ "decision": word })), ..Sent::default() };
        let answer = client.send("POST", &path, sent).await.map_err(|_| None)?;
        match answer.status {
            200 => history.done(&thing, state),
            503 => return Err(None),
            // Listed, and decided in the moment between: by an answer that did not come.
            409 => {}
            _ => return Err(Some(format!("{path}: {}", answer.shown()))),
        }
        if answer.status == 200 && random.percent(20) {
            let sent = Sent { key, json: Some(json!({ "decision": word })), ..Sent::default() };
            let again = client.send("POST", &path, sent).await.map_err(|_| None)?;
            if again.status != 409 && again.status != 503 {
                return Err(Some(format!("{path}: a second decision was answered {}", again.shown())));
            }
        }
    }
    Ok(left)
}
