//! Roles inside an account, levels of a grant on a space, scopes of a key. What they allow is
//! written in one place, the base policy of crate `auth`; nothing here decides anything.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is none of the known words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what}: use {allowed}")]
pub struct WordError {
    what: &'static str,
    allowed: &'static str,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident ($what:literal, $allowed:literal) { $($(#[$vdoc:meta])* $variant:ident = $text:literal $(| $alias:literal)*,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {$(
            $(#[$vdoc])*
            #[serde(rename = $text $(, alias = $alias)*)]
            $variant,
        )*}

        impl $name {
            /// Every value, lowest first.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word as stored and shown.
            pub const fn as_str(self) -> &'static str {
                match self {$(Self::$variant => $text,)*}
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                match text {
                    $($text $(| $alias)* => Ok(Self::$variant),)*
                    _ => Err(WordError { what: $what, allowed: $allowed }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

words! {
    /// What a user is inside the account. Ordered: each may do all that the lower ones may.
    Role ("role", "admin, member or viewer") {
        /// Reads only.
        Viewer = "viewer",
        /// Works: spaces, sessions, own keys.
        Member = "member" | "user",
        /// Sets up the account: users, agents, keys of others.
        Admin = "admin",
    }

    /// How far a grant on a space goes. Ordered.
    GrantLevel ("grant level", "read, write or manage") {
        /// Sees the space and reads in it.
        Read = "read",
        /// Changes files and runs sessions.
        Write = "write",
        /// Gives grants on, too.
        Manage = "manage",
    }

    /// What a key may be used for.
    KeyScope ("key scope", "read or write") {
        /// Routes that change nothing.
        Read = "read",
        /// Routes that change something.
        Write = "write",
    }
}
