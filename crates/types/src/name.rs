//! Names that people choose: accounts, users, agents, models, tools.
//!
//! The rules for accounts, users and agents are those of the OpenViking protocol, so that its
//! clients' names fit: letters, digits and `_ . @ -`, at most 255 bytes, at most one `@`.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text cannot be such a name. The message names the field and says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A character outside the allowed set.
    #[error("{0} must be alpha_numeric string: use letters, digits and _ . @ - only")]
    Characters(&'static str),
    /// More bytes than allowed.
    #[error("{0} is too long: at most {1} bytes")]
    TooLong(&'static str, usize),
    /// `.`, `..`, two `@`, or a reserved beginning.
    #[error("{0} {1}")]
    Reserved(&'static str, &'static str),
}

const LONGEST: usize = 255;

fn check(field: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(field));
    }
    if text.len() > LONGEST {
        return Err(NameError::TooLong(field, LONGEST));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'@' | b'-')) {
        return Err(NameError::Characters(field));
    }
    if text == "." || text == ".." {
        return Err(NameError::Reserved(field, "cannot be . or .."));
    }
    if text.bytes().filter(|b| *b == b'@').count() > 1 {
        return Err(NameError::Reserved(field, "may contain at most one @"));
    }
    Ok(())
}

fn check_account(field: &'static str, text: &str) -> Result<(), NameError> {
    check(field, text)?;
    if text.starts_with('_') {
        return Err(NameError::Reserved(field, "cannot start with underscore _."));
    }
    Ok(())
}

fn check_tool(field: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(field));
    }
    if text.len() > 64 {
        return Err(NameError::TooLong(field, 64));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        return Err(NameError::Characters(field));
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $field:literal, $check:path;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check($field, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// A tenant's name.
    AccountName, "account_id", check_account;
    /// A user's name inside one account.
    UserName, "user_id", check;
    /// An agent's name inside one account.
    AgentName, "agent_id", check;
    /// The name of a configured model, as in `[model.<name>]`.
    ModelName, "model", check_tool;
    /// A secret's name inside one account.
    SecretName, "secret", check_tool;
    /// The name of a target of notifications inside one account.
    TargetName, "notification", check_tool;
    /// A tool's name, as a model sees it.
    ToolName, "tool", check_tool;
}

impl AccountName {
    /// The account that exists from the first start.
    pub fn first() -> Self {
        Self("default".to_owned())
    }
}

impl AgentName {
    /// The agent that every account has from the start.
    pub fn first() -> Self {
        Self("default".to_owned())
    }
}

impl ModelName {
    /// The model that agents use when they name none.
    pub fn first() -> Self {
        Self("default".to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_protocol() {
        for good in ["acme", "a.b", "alice@example.com", "A-1_2"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a@b@c", "a\0", "a\n"] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(255).parse::<UserName>().is_ok());
        assert!("x".repeat(256).parse::<UserName>().is_err());
        assert_eq!("_x".parse::<AccountName>().unwrap_err().to_string(), "account_id cannot start with underscore _.");
    }
}
