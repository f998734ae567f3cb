//! What a socket watches: each a task of its own, that asks for its reader's right before every page and
//! waits where its reader is slow.

use std::collections::HashMap;

use serde_json::json;
use tokio::task::AbortHandle;

use crate::api::audit::{self, Wanted};
use crate::api::socket::outbox::Outbox;
use crate::api::stream::LogPages;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::eve::stream::SessionPages;
use crate::meters::{Scarce, Slot};

/// Subscriptions of one socket.
const MOST: usize = 32;
/// Events in one read; fewer where they are long.
const PAGE: usize = 64;

/// The subscriptions of a socket; they end with it.
pub(super) struct Subscriptions {
    outbox: Outbox,
    running: HashMap<String, AbortHandle>,
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

impl Subscriptions {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self { outbox, running: HashMap::new() }
    }

    /// Ends one; there may be none of that name.
    pub(super) fn end(&mut self, id: &str) {
        if let Some(task) = self.running.remove(id) {
            task.abort();
        }
    }

    /// Watches a session.
    pub(super) async fn session(
        &mut self,
        app: &App,
        caller: &Caller,
        id: String,
        session: &str,
        start: i64,
    ) -> Result<(), Failure> {
        self.place(&id)?;
        let pages = SessionPages::open(app, caller, session, start).await?;
        let slot = Slot::take(Scarce::Streams, app, caller)?;
        let outbox = self.outbox.clone();
        let name = id.clone();
        let task = tokio::spawn(async move {
            let _slot = slot;
            let _ = follow_session(pages, &id, &outbox).await;
            let _ = outbox.put(json!({ "type": "end", "id": id }).to_string()).await;
        });
        self.running.insert(name, task.abort_handle());
        Ok(())
    }

    /// Watches the log.
    pub(super) async fn audit(
        &mut self,
        app: &App,
        caller: &Caller,
        id: String,
        wanted: &Wanted,
    ) -> Result<(), Failure> {
        self.place(&id)?;
        let pages = LogPages::open(app, caller, wanted).await?;
        let slot = Slot::take(Scarce::Streams, app, caller)?;
        let outbox = self.outbox.clone();
        let name = id.clone();
        let task = tokio::spawn(async move {
            let _slot = slot;
            let _ = follow_log(pages, &id, &outbox).await;
            let _ = outbox.put(json!({ "type": "end", "id": id }).to_string()).await;
        });
        self.running.insert(name, task.abort_handle());
        Ok(())
    }

    /// A place for one more, under a name that is free.
    fn place(&mut self, id: &str) -> Result<(), Failure> {
        self.running.retain(|_, task| !task.is_finished());
        if self.running.contains_key(id) {
            return Err(Failure::Parameters("frame.id: names a subscription that is running".to_owned()));
        }
        if self.running.len() >= MOST {
            return Err(Failure::TooMany { of: Scarce::Streams, most: MOST, who: "one socket" });
        }
        Ok(())
    }
}

/// Until the session ends, or the right to read it.
async fn follow_session(mut pages: SessionPages, id: &str, outbox: &Outbox) -> Option<()> {
    let id = json!(id);
    loop {
        let first = pages.next();
        let events = pages.read(PAGE).await?;
        if events.is_empty() {
            if pages.over().await? {
                return Some(());
            }
            pages.grown().await?;
            continue;
        }
        pages.still_may().await?;
        for (index, event) in (first..).zip(events) {
            // As it is kept, byte for byte.
            let frame = format!(r#"{{"type":"event","id":{id},"index":{index},"event":{event}}}"#);
            outbox.put(frame).await?;
        }
    }
}

/// Until the right to read it ends.
async fn follow_log(mut pages: LogPages, id: &str, outbox: &Outbox) -> Option<()> {
    loop {
        let events = pages.read().await?;
        for event in &events {
            let frame = json!({ "type": "audit", "id": id, "event": audit::shown(event) });
            outbox.put(frame.to_string()).await?;
        }
        if events.is_empty() {
            pages.grown().await?;
        }
    }
}
