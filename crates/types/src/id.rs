//! Opaque ids: a prefix that says what it names, and a ULID.
//!
//! One registry, so that two kinds of id can never be confused and a log line can be read. An id is
//! not a secret and grants nothing; who may use the named thing is decided elsewhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// The text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected {expected}")]
pub struct IdError {
    expected: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// The prefix of this kind of id, with its underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later (to the millisecond).
            #[expect(clippy::new_without_default, reason = "an id is made on purpose, never by default")]
            pub fn new() -> Self {
                Self(Ulid::new())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                let mut buffer = [0; ulid::ULID_LEN];
                f.write_str(self.0.array_to_str(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { expected: concat!($prefix, "<26 letters and digits>") };
                let tail = text.strip_prefix($prefix).ok_or(error.clone())?;
                // Only the canonical spelling is an id, so that one thing has one name.
                let id = Ulid::from_string(tail).map_err(|_| error.clone())?;
                let parsed = Self(id);
                if parsed.to_string() == text { Ok(parsed) } else { Err(error) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// One life of an account. A re-created namesake has another, and so inherits nothing.
    Incarnation = "acc_";
    /// One of several servers on one database: a data directory.
    ServerId = "srv_";
    /// A space.
    SpaceId = "spc_";
    /// A session.
    SessionId = "ses_";
    /// One event of a session's stream.
    EventId = "evt_";
    /// An approval or a question that waits for a person.
    ApprovalId = "apr_";
    /// One tool call, as we number them (a model's own id is kept beside it).
    CallId = "call_";
    /// A job: a command that runs beside the requests.
    JobId = "job_";
    /// A running sandbox. It has another one after it ended and began anew.
    SandboxId = "sbx_";
    /// One request at any door; it is in every answer and every event that the request caused.
    RequestId = "req_";
}

impl EventId {
    /// The id of the `n`th event of a session. Ids of one session sort as its events do, also when the
    /// host's clock jumps: their time is the session's, and the number stands before the random part.
    pub fn in_sequence(session: SessionId, n: u64) -> Self {
        let random = u128::from(n & 0xff_ffff_ffff) << 40 | (Ulid::new().random() & 0xff_ffff_ffff);
        Self(Ulid::from_parts(session.0.timestamp_ms(), random))
    }
}

impl JobId {
    /// The session that a job is to its sandbox, to the gate and to the policy: of the same number, and of no
    /// conversation.
    pub fn as_session(self) -> SessionId {
        SessionId(self.0)
    }
}

/// Letters and digits in the public half of a credential.
const PUBLIC_LENGTH: usize = 16;

macro_rules! public_halves {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Makes an id of 80 random bits.
            pub fn from_bytes(bytes: [u8; 10]) -> Self {
                Self(public_half(bytes))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let well_formed =
                    text.len() == PUBLIC_LENGTH && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                if well_formed {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError { expected: "16 lower-case letters and digits" })
                }
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

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

public_halves! {
    /// The public half of an API key: 16 lower-case letters and digits, which locate the stored hash.
    KeyId;
    /// The public half of a login's token: names the device that signed in.
    DeviceId;
    /// Names a passkey; made of the credential's id, so that one credential is known once.
    PasskeyId;
    /// Names an application that a user lets act for them, and stands in each of its tokens.
    ApplicationId;
    /// Names a registered client of the authorization server, and stands in its secret.
    ClientId;
}

fn public_half(bytes: [u8; 10]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bits = 0u16;
    let mut held = 0u32;
    let mut text = String::with_capacity(PUBLIC_LENGTH);
    for byte in bytes {
        bits = (bits << 8) | u16::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[usize::from((bits >> held) & 31)]));
        }
        bits &= (1 << held) - 1;
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_another_kind_does_not() {
        let id = SpaceId::new();
        assert_eq!(id.to_string().parse::<SpaceId>().unwrap(), id);
        assert!(id.to_string().parse::<SessionId>().is_err());
        assert!(id.to_string().to_lowercase().parse::<SpaceId>().is_err());
        assert!("spc_".parse::<SpaceId>().is_err());
    }

    #[test]
    fn events_of_a_session_sort_by_their_numbers() {
        let session = SessionId::new();
        let ids: Vec<EventId> = [0, 1, 2, 255, 256, 1 << 20].map(|n| EventId::in_sequence(session, n)).to_vec();
        assert!(ids.is_sorted());
        assert_ne!(EventId::in_sequence(session, 7), EventId::in_sequence(session, 7));
    }

    #[test]
    fn key_ids_have_a_fixed_shape() {
        let id = KeyId::from_bytes([0xff; 10]);
        assert_eq!(id.as_str().len(), PUBLIC_LENGTH);
        assert_eq!(id.as_str().parse::<KeyId>().unwrap(), id);
        assert!("ABCDEFGHIJKLMNOP".parse::<KeyId>().is_err());
    }
}
