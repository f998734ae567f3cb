//! How the events of a session look: the answer on standard output, everything about it on standard
//! error, so that an answer can be piped on.

use serde_json::Value;

use crate::client::Event;
use crate::out::{self, Format, Style};

/// Lines of a tool's output that are shown.
const RESULT_LINES: usize = 6;

/// Where in the conversation an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    /// In a turn.
    Not,
    /// The turn waits for a person.
    Input,
    /// The turn is over.
    Turn { failed: bool },
    /// The session is over.
    Session { failed: bool },
}

/// What is shown, and what has to be remembered for it.
pub(super) struct View {
    format: Format,
    /// Text of the present message was shown, and the line is not ended.
    open_line: bool,
    streamed: bool,
    failed: bool,
    requests: Vec<Value>,
}

impl View {
    pub(super) fn new(format: Format) -> Self {
        Self { format, open_line: false, streamed: false, failed: false, requests: Vec::new() }
    }

    /// What waits for a person.
    pub(super) fn open_requests(&self) -> Vec<Value> {
        self.requests.clone()
    }

    pub(super) fn is_open(&self, id: &str) -> bool {
        self.requests.iter().any(|request| request["requestId"].as_str() == Some(id))
    }

    pub(super) fn close_request(&mut self, id: &str) {
        self.requests.retain(|request| request["requestId"].as_str() != Some(id));
    }

    /// Ends a line that text has left open.
    pub(super) fn end_line(&mut self) {
        if std::mem::take(&mut self.open_line) {
            out::line("");
        }
    }

    /// Remembers what an event opens and closes, without showing it.
    pub(super) fn take_note(&mut self, event: &Event) {
        match event.kind.as_str() {
            "input.requested" => self.requests.extend(event.data["requests"].as_array().into_iter().flatten().cloned()),
            "input.resolved" => {
                for resolution in event.data["resolutions"].as_array().into_iter().flatten() {
                    self.close_request(resolution["requestId"].as_str().unwrap_or_default());
                }
            }
            "approval.settled" => self.close_request(event.data["requestId"].as_str().unwrap_or_default()),
            "turn.started" => self.failed = false,
            "turn.failed" | "session.failed" => self.failed = true,
            _ => {}
        }
    }

    /// Shows an event, and says where it stands.
    pub(super) fn show(&mut self, event: &Event) -> Boundary {
        self.take_note(event);
        if self.format == Format::Json {
            out::line(&out::escaped(&event.raw.to_string()));
        } else {
            self.show_text(event);
        }
        match event.kind.as_str() {
            "session.waiting" => Boundary::Turn { failed: self.failed },
            "session.completed" | "session.failed" => Boundary::Session { failed: self.failed },
            "turn.waiting" if event.data["on"].as_str() == Some("input") && !self.requests.is_empty() => {
                Boundary::Input
            }
            _ => Boundary::Not,
        }
    }

    fn show_text(&mut self, event: &Event) {
        let data = &event.data;
        match event.kind.as_str() {
            "message.appended" => {
                let delta = out::clean(data["messageDelta"].as_str().unwrap_or_default());
                self.open_line = !delta.ends_with('\n');
                self.streamed = true;
                out::piece(&delta);
            }
            "message.completed" => {
                if !std::mem::take(&mut self.streamed) {
                    out::piece(&out::clean(data["message"].as_str().unwrap_or_default()));
                    self.open_line = true;
                }
                self.end_line();
            }
            "step.started" => self.streamed = false,
            _ => {
                let lines = note_lines(event);
                if !lines.is_empty() {
                    self.end_line();
                    lines.iter().for_each(|line| out::note(line));
                }
            }
        }
    }
}

/// What is said about an event beside the answer.
fn note_lines(event: &Event) -> Vec<String> {
    let data = &event.data;
    match event.kind.as_str() {
        "actions.requested" => data["actions"].as_array().into_iter().flatten().map(|a| called(a, data)).collect(),
        "action.result" => result_lines(data),
        "input.resolved" => {
            let words = data["resolutions"].as_array().into_iter().flatten();
            words
                .filter_map(|r| r["outcome"].as_str())
                .map(|word| out::paint(Style::Dim, &format!("  {}", out::clean(word))))
                .collect()
        }
        "turn.failed" | "session.failed" => {
            let message = out::brief(data["message"].as_str().unwrap_or("the turn failed"), 600);
            vec![format!("{} {message}", out::paint(Style::Bad, "failed:"))]
        }
        "turn.cancelled" => vec![out::paint(Style::Warn, "canceled")],
        "context.cleared" => vec![out::paint(Style::Dim, "the conversation is forgotten")],
        "compaction.completed" => vec![out::paint(Style::Dim, "the conversation is summarised")],
        _ => Vec::new(),
    }
}

/// A tool call in a line.
fn called(action: &Value, data: &Value) -> String {
    let tool = action["toolName"].as_str().unwrap_or("?");
    let call = action["callId"].as_str().unwrap_or_default();
    let label = data["presentation"][call]["label"].as_str().map(str::to_owned);
    let told = label.unwrap_or_else(|| action["input"].to_string());
    let mark = out::paint(Style::Accent, &format!("* {}", out::brief(tool, 64)));
    format!("{mark}  {}", out::brief(&told, 160))
}

/// What a tool call gave: how it ended, and the beginning of what it said.
fn result_lines(data: &Value) -> Vec<String> {
    let output = &data["result"]["output"];
    let dim = |line: &str| out::paint(Style::Dim, &format!("  {}", out::brief(line, 160)));
    if data["status"].as_str() != Some("completed") {
        let said = data["error"]["message"].as_str().or_else(|| output["error"].as_str()).or_else(|| output.as_str());
        let word = data["status"].as_str().unwrap_or("failed");
        return vec![format!(
            "  {} {}",
            out::paint(Style::Warn, &format!("{word}:")),
            out::brief(said.unwrap_or(""), 400)
        )];
    }
    let mut lines = Vec::new();
    if let Some(code) = output["exitCode"].as_i64().filter(|code| *code != 0) {
        lines.push(format!("  {}", out::paint(Style::Warn, &format!("exit {code}"))));
    }
    let texts = ["stdout", "stderr", "content", "text"].iter().filter_map(|field| output[*field].as_str());
    let all: Vec<&str> = texts.chain(output.as_str()).flat_map(str::lines).collect();
    lines.extend(all.iter().take(RESULT_LINES).map(|line| dim(line)));
    if all.len() > RESULT_LINES {
        lines.push(dim(&format!("… {} more lines", all.len() - RESULT_LINES)));
    }
    lines
}

/// An event in one line, for `session events`.
pub(crate) fn event_line(event: &Event) -> String {
    let at = event.raw["meta"]["at"].as_str().unwrap_or_default();
    let clock = at.get(11..19).unwrap_or("--:--:--");
    let data = &event.data;
    let told = match event.kind.as_str() {
        "message.received" | "message.completed" => data["message"].as_str().unwrap_or_default().to_owned(),
        "message.appended" => data["messageDelta"].as_str().unwrap_or_default().to_owned(),
        "actions.requested" => data["actions"].as_array().into_iter().flatten().map(|a| called(a, data)).collect(),
        "action.result" => {
            let tool = data["result"]["toolName"].as_str().unwrap_or_default();
            format!("{tool} {}: {}", data["status"].as_str().unwrap_or_default(), data["result"]["output"])
        }
        "input.requested" => data["requests"][0]["prompt"].as_str().unwrap_or_default().to_owned(),
        "turn.failed" | "session.failed" | "step.failed" => data["message"].as_str().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let line = format!("{}  {:<18} {}", out::clean(clock), out::clean(&event.kind), out::brief(&told, 200));
    out::cut(&line, out::width())
}
