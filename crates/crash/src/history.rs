//! What the harness was told. An acknowledged state must be found again; one that was asked for and never
//! answered may be found; nothing else may.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something whose state is known by what the server said of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A file, written and deleted through the API: its hash, or `absent`.
    File {
        /// Whose, as an index into the world's people.
        person: usize,
        /// In which space.
        space: String,
        /// Its path.
        path: String,
    },
    /// A grant: its level, or `absent`.
    Grant {
        /// The owner of the space.
        person: usize,
        /// On which space.
        space: String,
        /// To whom.
        user: String,
    },
    /// A key: `alive` or `dead`.
    Key {
        /// Who made it for themselves.
        person: usize,
        /// Its public half.
        id: String,
        /// The whole text.
        secret: String,
    },
    /// A user: `present` or `absent`.
    User {
        /// The admin who made it.
        person: usize,
        /// Its name.
        name: String,
    },
    /// An account: `present` or `absent`.
    Account {
        /// Its name.
        name: String,
    },
    /// A space: `present` or `absent`.
    Space {
        /// Its owner.
        person: usize,
        /// Its id.
        id: String,
    },
    /// An approval: `approved` or `denied`.
    Decision {
        /// Who decided.
        person: usize,
        /// Its id.
        id: String,
    },
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { space, path, .. } => write!(f, "file {path} in {space}"),
            Self::Grant { space, user, .. } => write!(f, "grant of {user} on {space}"),
            Self::Key { id, .. } => write!(f, "key {id}"),
            Self::User { name, .. } => write!(f, "user {name}"),
            Self::Account { name } => write!(f, "account {name}"),
            Self::Space { id, .. } => write!(f, "space {id}"),
            Self::Decision { id, .. } => write!(f, "decision on {id}"),
        }
    }
}

/// What may be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// As it was acknowledged.
    pub known: String,
    /// As it was asked for and not answered.
    pub possible: Vec<String>,
}

/// A message that was sent into a session.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its text: a kind and a token that occurs once.
    pub text: String,
    /// Whether the server acknowledged it.
    pub acknowledged: bool,
}

/// A session that the server acknowledged.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose.
    pub person: usize,
    /// Which agent.
    pub agent: &'static str,
    /// In which space.
    pub space: String,
    /// What was sent into it.
    pub messages: Vec<Message>,
}

/// A session that was asked for, and not answered.
#[derive(Debug, Clone)]
pub struct Unanswered {
    /// Whose.
    pub person: usize,
    /// Which agent.
    pub agent: &'static str,
    /// The first message.
    pub text: String,
}

/// Whether the server's clock went as clocks go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clock {
    /// It did.
    #[default]
    Steady,
    /// It jumped. Then an approval may have become too old before its call began.
    Jumped,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Facts {
    /// States.
    pub things: BTreeMap<Thing, Held>,
    /// Sessions by id.
    pub sessions: BTreeMap<String, Session>,
    /// Creations without an answer, by their operation.
    pub unanswered: BTreeMap<String, Unanswered>,
    /// The server's clock.
    pub clock: Clock,
}

/// The facts, shared by all who work.
#[derive(Debug, Default)]
pub struct History(Mutex<Facts>);

impl History {
    /// The facts.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change is asked for.
    pub fn ask(&self, thing: &Thing, state: &str) {
        let mut facts = self.facts();
        let held = facts.things.entry(thing.clone()).or_default();
        if held.known.is_empty() {
            "absent".clone_into(&mut held.known);
        }
        held.possible.push(state.to_owned());
    }

    /// It was acknowledged.
    pub fn done(&self, thing: &Thing, state: &str) {
        let mut facts = self.facts();
        facts.things.insert(thing.clone(), Held { known: state.to_owned(), possible: Vec::new() });
    }

    /// It was refused: nothing has changed.
    pub fn refused(&self, thing: &Thing, state: &str) {
        if let Some(held) = self.facts().things.get_mut(thing) {
            held.possible.retain(|possible| possible != state);
        }
    }

    /// How many facts there are, for people.
    pub fn counted(&self) -> String {
        let facts = self.facts();
        let messages: usize = facts.sessions.values().map(|session| session.messages.len()).sum();
        format!("{} sessions, {messages} messages, {} states", facts.sessions.len(), facts.things.len())
    }
}

impl Held {
    /// Whether this may be found.
    pub fn allows(&self, found: &str) -> bool {
        self.known == found || self.possible.iter().any(|possible| possible == found)
    }
}
