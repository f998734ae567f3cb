//! What a service is sent. Nothing that a person or an agent chose is more than letters in it: it calls nobody, links
//! nowhere by a mark-up of its own, and looks like nothing else.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Notice, TargetKind, What};

/// Longest text of a message, in units of UTF-16 as it is sent: the longest way in which any of them counts.
const fn longest(kind: TargetKind) -> usize {
    match kind {
        TargetKind::Slack => 3000,
        TargetKind::Discord => 2000,
        TargetKind::Telegram => 4096,
    }
}

/// Room for the line that says how many more there are.
const MORE: usize = 40;
/// Longest name of a space that is told, letters.
const NAME: usize = 80;
/// Longest address of the console that is told, letters.
const BASE: usize = 300;

/// The body of a message of these notices, all in one; `base` is where the console is, if anybody said so.
pub fn message(kind: TargetKind, chat: Option<&str>, notices: &[Notice], base: Option<&str>) -> Value {
    let text = text(kind, notices, base);
    match kind {
        TargetKind::Slack => json!({
            "text": text, "mrkdwn": false, "parse": "none", "link_names": false,
            "unfurl_links": false, "unfurl_media": false,
        }),
        // 4: no pictures of what is behind links.
        TargetKind::Discord => json!({ "content": text, "allowed_mentions": { "parse": [] }, "flags": 4 }),
        TargetKind::Telegram => json!({
            "chat_id": chat.unwrap_or_default(), "text": text, "link_preview_options": { "is_disabled": true },
        }),
    }
}

fn text(kind: TargetKind, notices: &[Notice], base: Option<&str>) -> String {
    let base = base.map(|base| base.trim_end_matches('/')).filter(|base| base.chars().count() <= BASE);
    let mut text = match notices {
        [_] => String::new(),
        several => format!("{}\n", summary(several)),
    };
    for (told, notice) in notices.iter().enumerate() {
        let line = line(kind, notice, base);
        if units(&text) + units(&line) + MORE > longest(kind) {
            let left = notices.len() - told;
            text.push_str(&format!("and {left} more"));
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// How many of what, in words.
fn summary(notices: &[Notice]) -> String {
    let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
    for notice in notices {
        *counts.entry(order(notice)).or_default() += 1;
    }
    let said: Vec<String> = counts.into_iter().map(|(which, count)| words(which, count)).collect();
    format!("{}:", said.join(", "))
}

fn order(notice: &Notice) -> u8 {
    match (&notice.what, notice.occasion()) {
        (What::Approval { .. }, _) => 0,
        (What::Question, _) => 1,
        (What::TurnFailed, _) => 2,
        (What::JobEnded { .. }, Some(super::Occasion::Failed)) => 3,
        (What::JobEnded { .. }, _) => 4,
        (What::Test, _) => 5,
    }
}

fn words(which: u8, count: usize) -> String {
    let (one, several) = match which {
        0 => ("approval waits", "approvals wait"),
        1 => ("question waits", "questions wait"),
        2 => ("turn failed", "turns failed"),
        3 => ("job failed", "jobs failed"),
        4 => ("job ended", "jobs ended"),
        _ => ("test", "tests"),
    };
    format!("{count} {}", if count == 1 { one } else { several })
}

fn line(kind: TargetKind, notice: &Notice, base: Option<&str>) -> String {
    let escaped = |text: &str| escape(kind, text);
    let agent = notice.agent.as_ref().map(|agent| escaped(agent.as_str())).unwrap_or_default();
    let place = format!("agent {agent}, space {}", escaped(&notice.space));
    let said = match &notice.what {
        What::Approval { tool } => format!("Approval wanted for {}: {place}", escaped(tool.as_str())),
        What::Question => format!("An agent asks a question: {place}"),
        What::TurnFailed => format!("A turn failed: {place}"),
        What::JobEnded { state } => format!("A job ended ({}): {place}", escaped(state)),
        What::Test => "A test of Bailiwick's notifications".to_owned(),
    };
    match base {
        // The operator's own word, and a path of ours.
        Some(base) => format!("{said} {}", link(kind, &format!("{base}{}", notice.path))),
        None => said,
    }
}

/// An address that the service may show as one.
fn link(kind: TargetKind, address: &str) -> String {
    match kind {
        TargetKind::Slack => address.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
        TargetKind::Discord | TargetKind::Telegram => address.to_owned(),
    }
}

/// A text that somebody chose, as mere letters: without control characters and marks that turn the line around, and
/// with what the service would read as its own written as it wants it.
fn escape(kind: TargetKind, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars().take(NAME).filter(|letter| !is_unseen(*letter)) {
        match (kind, letter) {
            (TargetKind::Slack, '&') => out.push_str("&amp;"),
            (TargetKind::Slack, '<') => out.push_str("&lt;"),
            (TargetKind::Slack, '>') => out.push_str("&gt;"),
            // A name that begins as a call of everybody does; a sign that cannot be seen keeps it from being one.
            (TargetKind::Slack | TargetKind::Discord, '@') => out.push_str("@\u{2060}"),
            (TargetKind::Discord, letter) if letter.is_ascii_punctuation() => {
                out.push('\\');
                out.push(letter);
            }
            // Nobody's link but ours.
            (_, ':') => out.push_str(":\u{2060}"),
            _ => out.push(letter),
        }
    }
    if text.chars().count() > NAME {
        out.push('…');
    }
    out
}

/// What is there and cannot be seen, or makes a line read otherwise than it is written.
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}
