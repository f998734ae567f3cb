//! Notifications: to which services they go, about what, and what makes an address of one.
//!
//! A target is one of three services by its own name, and nothing that only looks like it: an address is compared
//! with what the service documents, letter by letter, and never interpreted. It is a secret, so nothing here keeps
//! one, and no error repeats it.

mod text;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{AgentName, ToolName};

pub use text::message;

/// The service that a target is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// An incoming webhook of Slack.
    Slack,
    /// A webhook of Discord.
    Discord,
    /// A bot of Telegram.
    Telegram,
}

impl TargetKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Discord => "discord",
            Self::Telegram => "telegram",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody wants to be told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A call waits for a person's approval.
    Approval,
    /// An agent asks a person something.
    Question,
    /// A turn of a session failed, or a job did.
    Failed,
    /// A job ended otherwise.
    Done,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Approval, Self::Question, Self::Failed, Self::Done];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Question => "question",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }
}

/// The word is none of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Of the services.
    #[error("a target is at \"slack\", \"discord\" or \"telegram\"")]
    Kind,
    /// Of the occasions.
    #[error("a person is told of \"approval\", \"question\", \"failed\" and \"done\"")]
    Occasion,
}

impl FromStr for TargetKind {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        [Self::Slack, Self::Discord, Self::Telegram]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(WordError::Kind)
    }
}

impl FromStr for Occasion {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        Self::ALL.into_iter().find(|occasion| occasion.as_str() == text).ok_or(WordError::Occasion)
    }
}

/// What happened, in facts that are no secret: no arguments, no output, no words of a model's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A call of this tool waits for an approval.
    Approval {
        /// The tool.
        tool: ToolName,
    },
    /// The agent asks a question.
    Question,
    /// A turn failed.
    TurnFailed,
    /// A job ended so.
    JobEnded {
        /// `ok`, `failed`, `timeout` or `canceled`.
        state: String,
    },
    /// Somebody tries the target.
    Test,
}

/// One thing to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// By which agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// In which space, by the name that people know it by.
    pub space: String,
    /// Where in the console it can be seen.
    pub path: String,
}

impl Notice {
    /// The occasion that it is one of; `None` for a test, which is told whatever was chosen.
    pub fn occasion(&self) -> Option<Occasion> {
        Some(match &self.what {
            What::Approval { .. } => Occasion::Approval,
            What::Question => Occasion::Question,
            What::TurnFailed => Occasion::Failed,
            What::JobEnded { state } if matches!(state.as_str(), "failed" | "timeout") => Occasion::Failed,
            What::JobEnded { .. } => Occasion::Done,
            What::Test => return None,
        })
    }
}

/// Why a text is no address of a target. It never repeats the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not https.
    #[error("the URL begins with https://")]
    Scheme,
    /// Another host, or something that only looks like the right one.
    #[error("the URL's host is {0}, without a user, a port or anything else around it")]
    Host(&'static str),
    /// Another path than those that take messages.
    #[error("the URL's path is {0}")]
    Path(&'static str),
    /// What is no token of a bot.
    #[error("a bot's token is digits, a colon, and letters, digits, `_` and `-`")]
    Token,
    /// No chat, or what is none.
    #[error("a chat is a number, or @ and a channel's name (chat)")]
    Chat,
    /// A chat where the address says where to.
    #[error("a chat is for telegram alone: here the URL says where to")]
    ChatUnwanted,
    /// Longer than any.
    #[error("this is longer than an address can be")]
    TooLong,
}

/// Longest URL or token, bytes.
const LONGEST: usize = 1024;

/// An address that was looked at. It borrows the secret, and is not `Debug`.
pub struct Address<'a> {
    host: &'static str,
    before: &'static str,
    rest: &'a str,
    after: &'static str,
}

impl<'a> Address<'a> {
    /// Reads the URL of a webhook, or the token of a bot together with its chat.
    ///
    /// # Errors
    /// [`AddressError`], which says what is wrong with it and not what it is.
    pub fn parse(kind: TargetKind, text: &'a str, chat: Option<&str>) -> Result<Self, AddressError> {
        if text.len() > LONGEST {
            return Err(AddressError::TooLong);
        }
        if kind != TargetKind::Telegram && chat.is_some() {
            return Err(AddressError::ChatUnwanted);
        }
        match kind {
            TargetKind::Slack => {
                let (host, rest) = after_host(text, &["hooks.slack.com"], AddressError::Host("hooks.slack.com"))?;
                let fits = is_slack(rest);
                let said = AddressError::Path("/services/T…/B…/…, as Slack shows it for an incoming webhook");
                if fits { Ok(Self { host, before: "/", rest, after: "" }) } else { Err(said) }
            }
            TargetKind::Discord => {
                let said = AddressError::Host("discord.com or discordapp.com");
                let (host, rest) = after_host(text, &["discord.com", "discordapp.com"], said)?;
                let said = AddressError::Path("/api/webhooks/NUMBER/TOKEN, with ?thread_id=NUMBER at most");
                if is_discord(rest) { Ok(Self { host, before: "/", rest, after: "" }) } else { Err(said) }
            }
            TargetKind::Telegram => {
                if !is_token(text) {
                    return Err(AddressError::Token);
                }
                if !chat.is_some_and(is_chat) {
                    return Err(AddressError::Chat);
                }
                Ok(Self { host: "api.telegram.org", before: "/bot", rest: text, after: "/sendMessage" })
            }
        }
    }

    /// The host that is called.
    pub fn host(&self) -> &'static str {
        self.host
    }

    /// Writes the URL that is called to the end of a text, whose owner wipes it.
    pub fn write_url(&self, into: &mut String) {
        into.reserve(LONGEST + 64);
        for part in ["https://", self.host, self.before, self.rest, self.after] {
            into.push_str(part);
        }
    }
}

/// What stands behind `https://HOST/`, if the host is one of these. Scheme and host are compared without their case,
/// and with the port that https has anyway; nothing else may stand there.
fn after_host<'a>(
    text: &'a str,
    hosts: &[&'static str],
    other: AddressError,
) -> Result<(&'static str, &'a str), AddressError> {
    let scheme = text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let rest = scheme.and_then(|_| text.get(8..)).ok_or(AddressError::Scheme)?;
    let (authority, path) = rest.split_once('/').ok_or(other)?;
    let name = authority.strip_suffix(":443").unwrap_or(authority);
    let host = hosts.iter().find(|host| host.eq_ignore_ascii_case(name)).ok_or(other)?;
    Ok((host, path))
}

fn all(text: &str, longest: usize, fits: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= longest && text.bytes().all(fits)
}

fn digits(text: &str) -> bool {
    all(text, 20, |byte| byte.is_ascii_digit())
}

fn token_letters(text: &str) -> bool {
    all(text, 256, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// `services/T…/B…/…`. What stands under `workflows/` and `triggers/` takes no text, but what its author made up.
fn is_slack(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("services/") else { return false };
    let mut parts = rest.split('/');
    let mut id = |first: char| {
        let part = parts.next().unwrap_or_default();
        part.starts_with(first) && all(part, 64, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    let team = id('T') && id('B');
    let token = parts.next().unwrap_or_default();
    team && all(token, 128, |byte| byte.is_ascii_alphanumeric()) && parts.next().is_none()
}

/// `api/webhooks/ID/TOKEN` or `api/vN/webhooks/ID/TOKEN`, and into which thread.
fn is_discord(path: &str) -> bool {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let thread = query.is_none_or(|query| query.strip_prefix("thread_id=").is_some_and(digits));
    let mut parts = path.split('/');
    let mut next = || parts.next().unwrap_or_default();
    if next() != "api" {
        return false;
    }
    let mut part = next();
    if let Some(version) = part.strip_prefix('v') {
        if !all(version, 2, |byte| byte.is_ascii_digit()) {
            return false;
        }
        part = next();
    }
    part == "webhooks" && digits(next()) && token_letters(next()) && parts.next().is_none() && thread
}

/// `^\d+:[A-Za-z0-9_-]+$`.
fn is_token(text: &str) -> bool {
    text.split_once(':').is_some_and(|(bot, token)| digits(bot) && token_letters(token))
}

/// `^-?\d+$`, or `@` and the name of a public channel.
fn is_chat(text: &str) -> bool {
    match text.strip_prefix('@') {
        Some(name) => {
            let letters = all(name, 64, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
            letters && name.starts_with(|first: char| first.is_ascii_alphabetic())
        }
        None => digits(text.strip_prefix('-').unwrap_or(text)),
    }
}

/// How often one message is tried: for about three hours.
pub const TRIES: u64 = 14;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How long to wait before the next try after so many in vain: twice as long each time, and up to a quarter more or
/// less as `chance` says, so that many who failed together do not come back together. Who said how long is believed,
/// up to an hour, and never called earlier.
pub fn pause(tried: u64, asked: Option<Duration>, chance: u64) -> Duration {
    let (least, spread) = match asked {
        Some(asked) => {
            let asked = asked.min(LONGEST_PAUSE);
            (asked, asked / 4)
        }
        None => {
            let doubled = 1u32.checked_shl(u32::try_from(tried.saturating_sub(1)).unwrap_or(u32::MAX));
            let whole = FIRST_PAUSE.saturating_mul(doubled.unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
            (whole - whole / 4, whole / 2)
        }
    };
    least + spread.mul_f64(f64::from(u32::try_from(chance % 1024).unwrap_or(0)) / 1024.0)
}

#[cfg(test)]
mod tests;
