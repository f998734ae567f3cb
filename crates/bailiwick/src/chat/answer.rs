//! Answers to what a turn waits for: approvals by key, questions by number.

use reqwest::Method;
use serde_json::{Value, json};

use super::input::{Key, Keys, Typed};
use super::{ChatError, Talk};
use crate::client::Ask;
use crate::failure::Failure;
use crate::out::{self, Style};

/// How a request was met.
enum Met {
    /// With this answer.
    Answer(Value),
    /// By somebody else meanwhile.
    Elsewhere,
    /// Not at all: the turn shall end.
    Cancel,
}

impl Talk<'_> {
    /// Asks the person for everything that is open, and sends the answers.
    pub(super) async fn answer_open(&mut self) -> Result<(), Failure> {
        for request in self.view.open_requests() {
            let id = request["requestId"].as_str().unwrap_or_default().to_owned();
            self.view.end_line();
            let met = if request["kind"].as_str() == Some("question") {
                self.question(&request).await?
            } else {
                self.approval(&request).await?
            };
            let Some(session) = self.stream.as_ref().map(|stream| stream.id().to_owned()) else { return Ok(()) };
            match met {
                Met::Answer(mut answer) => {
                    answer["requestId"] = json!(id);
                    let body = json!({ "inputResponses": [answer] });
                    self.client.eve(Method::POST, &["session", &session], Ask::body(&body)).await?;
                    self.view.close_request(&id);
                }
                Met::Elsewhere => out::note(&out::paint(Style::Dim, "decided elsewhere")),
                Met::Cancel => {
                    self.client.eve(Method::POST, &["session", &session, "cancel"], Ask::body(&json!({}))).await?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn approval(&mut self, request: &Value) -> Result<Met, Failure> {
        // What was typed before this was asked is no answer to it.
        self.input.forget_typed();
        let prompt = out::brief(request["prompt"].as_str().unwrap_or("Approve this call?"), 400);
        out::note(&out::paint(Style::Bold, &prompt));
        // The whole call, always: the prompt is its beginning, and the end can be what matters.
        details(request);
        if !self.input.is_terminal() {
            return match self.input.line("").await.map_err(ChatError::Terminal)? {
                Typed::End => Err(ChatError::Unanswered.into()),
                Typed::Line(line) => Ok(Met::Answer(json!({ "optionId": option_of(&line) }))),
            };
        }
        loop {
            out::note(&out::paint(Style::Dim, "y approve   n refuse   d details"));
            let id = request["requestId"].as_str().unwrap_or_default();
            match self.key_or_elsewhere(id).await? {
                None => return Ok(Met::Elsewhere),
                Some(Key::Char('y')) => return Ok(Met::Answer(json!({ "optionId": "approve" }))),
                Some(Key::Char('n')) => return Ok(Met::Answer(json!({ "optionId": "cancel" }))),
                Some(Key::Char('d')) => details(request),
                Some(Key::Interrupt) => return Ok(Met::Cancel),
                Some(Key::Char(_)) => {}
            }
        }
    }

    /// A key; or `None` if somebody else has decided first.
    async fn key_or_elsewhere(&mut self, id: &str) -> Result<Option<Key>, Failure> {
        let mut keys = Keys::listen();
        loop {
            let Some(stream) = &mut self.stream else { return Ok(None) };
            tokio::select! {
                key = keys.key() => return Ok(key.map_err(ChatError::Terminal)?),
                event = stream.next() => {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            keys.stop().await;
                            return Err(error.into());
                        }
                    };
                    self.view.take_note(&event);
                    if !self.view.is_open(id) {
                        keys.stop().await;
                        self.view.show(&event);
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn question(&mut self, request: &Value) -> Result<Met, Failure> {
        out::note(&out::paint(Style::Bold, &out::clean(request["prompt"].as_str().unwrap_or("?"))));
        let options = request["options"].as_array().cloned().unwrap_or_default();
        for (n, option) in options.iter().enumerate() {
            let more = option["description"].as_str().map(|text| format!(" ({text})")).unwrap_or_default();
            let label = option["label"].as_str().unwrap_or_default();
            out::note(&out::clean(&format!("  {}  {label}{more}", n + 1)));
        }
        match self.input.line("answer> ").await.map_err(ChatError::Terminal)? {
            Typed::End if self.input.is_terminal() => Ok(Met::Cancel),
            Typed::End => Err(ChatError::Unanswered.into()),
            Typed::Line(line) => Ok(Met::Answer(choice(&options, line.trim()))),
        }
    }
}

/// The chosen option by number, id or label; else the answer in words.
fn choice(options: &[Value], typed: &str) -> Value {
    let by_number = typed.parse::<usize>().ok().and_then(|n| options.get(n.checked_sub(1)?));
    let same = |value: &Value| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(typed));
    let by_name = || options.iter().find(|option| same(&option["id"]) || same(&option["label"]));
    match by_number.or_else(by_name).and_then(|option| option["id"].as_str()) {
        Some(id) => json!({ "optionId": id }),
        None => json!({ "text": typed }),
    }
}

/// A typed answer to an approval. Only a plain yes approves.
fn option_of(line: &str) -> &'static str {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" | "approve" => "approve",
        _ => "cancel",
    }
}

/// Shows the whole call, as it will run.
fn details(request: &Value) {
    let action = &request["action"];
    out::note(&out::clean(&format!("tool   {}", action["toolName"].as_str().unwrap_or("?"))));
    let input = serde_json::to_string_pretty(&action["input"]).unwrap_or_default();
    for line in input.lines() {
        out::note(&out::clean(&format!("  {line}")));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_chosen_by_number_id_or_label() {
        let options = [json!({ "id": "red", "label": "The red one" }), json!({ "id": "blue", "label": "Blue" })];
        assert_eq!(choice(&options, "2"), json!({ "optionId": "blue" }));
        assert_eq!(choice(&options, "the RED one"), json!({ "optionId": "red" }));
        assert_eq!(choice(&options, "red"), json!({ "optionId": "red" }));
        for other in ["0", "3", "green"] {
            assert_eq!(choice(&options, other), json!({ "text": other }));
        }
    }

    #[test]
    fn only_a_plain_yes_approves() {
        for yes in ["y", " Yes\n", "approve"] {
            assert_eq!(option_of(yes), "approve");
        }
        for no in ["", "n", "yes please", "yy", "ok", "1"] {
            assert_eq!(option_of(no), "cancel", "{no}");
        }
    }
}
