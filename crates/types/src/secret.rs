//! Secrets of accounts: what they are, by whom they are used, and for how long.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{SecretName, TargetName};

/// By whom a secret is used on behalf of an agent. A grant is for one of them and never for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsedBy {
    /// The gate, in requests that the agent's sandboxes make.
    #[default]
    Sandbox,
    /// The server, when it calls the agent's model.
    Model,
}

impl UsedBy {
    /// The word for it in grants, in policies and on the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Model => "model",
        }
    }
}

impl fmt::Display for UsedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is used by \"sandbox\" or \"model\"")]
pub struct UsedByError;

impl FromStr for UsedBy {
    type Err = UsedByError;

    fn from_str(text: &str) -> Result<Self, UsedByError> {
        match text {
            "sandbox" => Ok(Self::Sandbox),
            "model" => Ok(Self::Model),
            _ => Err(UsedByError),
        }
    }
}

/// What a sealed value is of: its account's data key seals secrets, grants and addresses of targets, and none opens as
/// another, whatever their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedOf {
    /// A secret's value.
    Secret(SecretName),
    /// A secret that is a refresh grant.
    Grant(SecretName),
    /// The address of a target of notifications.
    Target(TargetName),
}

impl SealedOf {
    /// What a secret of this kind is sealed as.
    pub fn of_secret(name: SecretName, kind: SecretKind) -> Self {
        match kind {
            SecretKind::Value => Self::Secret(name),
            SecretKind::OAuth => Self::Grant(name),
        }
    }
}

/// What a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretKind {
    /// A value that goes out as it was set.
    #[default]
    Value,
    /// A refresh grant of an OAuth client (RFC 6749, section 6). What goes out are its access tokens, one after the
    /// other, and nothing else of it.
    OAuth,
}

impl SecretKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::OAuth => "oauth",
        }
    }
}

/// The word names no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is a \"value\" or \"oauth\"")]
pub struct SecretKindError;

impl FromStr for SecretKind {
    type Err = SecretKindError;

    fn from_str(text: &str) -> Result<Self, SecretKindError> {
        match text {
            "value" => Ok(Self::Value),
            "oauth" => Ok(Self::OAuth),
            _ => Err(SecretKindError),
        }
    }
}

/// For how long a sandbox has a secret that it was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseTerm {
    /// For a minute.
    #[default]
    Minute,
    /// For the call or job during which it is asked for, and not outside of one.
    Call,
    /// For the call during which it is asked for, and for calls alone that a person approved.
    ApprovedCall,
}

impl LeaseTerm {
    /// The word for it in grants, in policies and on the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Call => "call",
            Self::ApprovedCall => "approved_call",
        }
    }
}

/// The word names no term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lease is for a \"minute\", a \"call\" or an \"approved_call\"")]
pub struct LeaseTermError;

impl FromStr for LeaseTerm {
    type Err = LeaseTermError;

    fn from_str(text: &str) -> Result<Self, LeaseTermError> {
        match text {
            "minute" => Ok(Self::Minute),
            "call" => Ok(Self::Call),
            "approved_call" => Ok(Self::ApprovedCall),
            _ => Err(LeaseTermError),
        }
    }
}
