//! The event stream of a session, read to its end and taken up again where it was left.

use std::time::Duration;

use serde_json::Value;

use super::{Client, ClientError, Lines};

/// One event of a session.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: Value,
    pub(crate) deliveries: Vec<String>,
    pub(crate) raw: Value,
}

/// A session's stream. The cursor counts events alone, as the protocol does.
pub(crate) struct SessionStream {
    client: Client,
    id: String,
    cursor: u64,
    lines: Option<Lines>,
    tries: u32,
}

/// How often a stream that breaks at once is opened again.
const TRIES: u32 = 5;

impl SessionStream {
    /// From the event with this number on. Nothing is sent yet.
    pub(crate) fn new(client: Client, id: String, cursor: u64) -> Self {
        Self { client, id, cursor, lines: None, tries: 0 }
    }

    /// The session's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// All events that are there now.
    pub(crate) async fn history(&mut self) -> Result<Vec<Event>, ClientError> {
        let query = [("follow", "false".to_owned()), ("startIndex", self.cursor.to_string())];
        let response = self.client.open(&["eve", "v1", "session", &self.id, "stream"], &query).await?;
        let mut lines = Lines::new(response);
        let mut events = Vec::new();
        while let Some(line) = lines.next().await? {
            events.extend(parse(&line));
        }
        self.cursor += u64::try_from(events.len()).unwrap_or(0);
        Ok(events)
    }

    /// The next event. Waits for it; a broken connection is taken up again. Can be dropped while it
    /// waits, and called again.
    pub(crate) async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if self.lines.is_none() {
                if self.tries > 0 {
                    tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(self.tries.min(5))).await;
                }
                let query = [("startIndex", self.cursor.to_string()), ("streamControlVersion", "1".to_owned())];
                match self.client.open(&["eve", "v1", "session", &self.id, "stream"], &query).await {
                    Ok(response) => self.lines = Some(Lines::new(response)),
                    Err(error @ (ClientError::Unreachable { .. } | ClientError::Broken(_))) if self.tries < TRIES => {
                        tracing::debug!(%error, "the stream could not be opened");
                        self.tries += 1;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(lines) = &mut self.lines else { continue };
            match lines.next().await {
                Ok(Some(line)) => {
                    if let Some(event) = parse(&line) {
                        self.cursor += 1;
                        self.tries = 0;
                        return Ok(event);
                    }
                    // The lease's end is an invitation to come again at once.
                    if line.contains("stream.lease-ended") {
                        self.lines = None;
                        self.tries = 0;
                    }
                }
                Ok(None) => {
                    self.lines = None;
                    self.tries += 1;
                    if self.tries > TRIES {
                        return Err(ClientError::Incomplete("the rest of the stream"));
                    }
                }
                Err(error) if self.tries >= TRIES => return Err(error.into()),
                Err(_) => {
                    self.lines = None;
                    self.tries += 1;
                }
            }
        }
    }
}

/// An event, if the line is one.
fn parse(line: &str) -> Option<Event> {
    let mut raw: Value = serde_json::from_str(line.trim()).ok()?;
    let kind = raw["type"].as_str()?.to_owned();
    let deliveries = raw["meta"]["deliveryIds"]
        .as_array()
        .map_or_else(Vec::new, |ids| ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect());
    let data = raw.get_mut("data").cloned().unwrap_or_default();
    Some(Event { kind, data, deliveries, raw })
}
