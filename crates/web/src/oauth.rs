//! The authorization server: by it a user lets somebody else's program act for them (OAuth 2.1, RFC 9700).
//!
//! The page on which they decide is the console's (`console/consent.rs`). Here are the routes that programs
//! ask: what the server is (RFC 8414, RFC 9728), how a program becomes a client (RFC 7591), tokens (RFC 6749),
//! and their end (RFC 7009). It is there only where people sign in, and where the server knows the address
//! under which they reach it; a token that is sent to another address would be anybody's.

pub(crate) mod asked;
mod client;
pub(crate) mod document;
mod error;
mod metadata;
pub(crate) mod redirect;
pub(crate) mod register;
mod token;

use std::time::Duration;

use bailiwick_types::{KeyScope, Timestamp};

use crate::app::App;
use crate::error::Failure;
use crate::route::Route;

pub use document::Documents;
pub(crate) use error::{OAuthError, body};

/// The rows of every route.
pub(crate) fn tables() -> impl Iterator<Item = &'static [Route]> {
    [metadata::ROUTES, register::ROUTES, token::ROUTES].into_iter()
}

/// The settings of the authorization server.
#[derive(Debug, Clone, Copy)]
pub struct OAuth {
    /// Who may register a client.
    pub registration: Registration,
    /// How long a code is good.
    pub code: Duration,
    /// How long an access token is good.
    pub access: Duration,
    /// How long a refresh token is good, if it lies unused.
    pub refresh: Duration,
}

/// Who may register a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Any program, for itself.
    Open,
    /// The operator alone.
    Operator,
}

impl Default for OAuth {
    fn default() -> Self {
        Self {
            registration: Registration::Open,
            code: Duration::from_secs(60),
            access: Duration::from_secs(3600),
            refresh: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// The server's own address as a client knows it (RFC 8414, section 2), if there is an authorization server.
pub(crate) fn issuer(app: &App) -> Result<String, Failure> {
    // Who asks for it elsewhere is told what any route that is not there tells.
    app.issuer().filter(|_| app.walk().admits_logins()).ok_or(Failure::NoRoute)
}

/// The scopes of a text, in their own order; `None` if none of them is known. What is not known is left out,
/// as RFC 6749 has it (section 3.3).
pub(crate) fn scopes(text: &str) -> Option<Vec<KeyScope>> {
    let asked: Vec<KeyScope> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
    // Who may change things and not see them can do nothing.
    let wanted = if asked.contains(&KeyScope::Write) { KeyScope::ALL.to_vec() } else { asked };
    let found: Vec<KeyScope> = KeyScope::ALL.iter().copied().filter(|scope| wanted.contains(scope)).collect();
    (!found.is_empty()).then_some(found)
}

/// Scopes as one text.
pub(crate) fn scopes_text(scopes: &[KeyScope]) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ")
}

/// The part of this server that an address names: its path below the issuer, without the last slash
/// (RFC 8707). `None` if it is not this server's.
pub(crate) fn resource(issuer: &str, address: &str) -> Option<String> {
    let path = address.strip_prefix(issuer)?.trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    let steps = path.split('/').skip(1).all(|step| !step.is_empty() && step != "." && step != "..");
    let fits = path.is_empty() || path.starts_with('/');
    (fits && steps && path.len() <= 200 && path.bytes().all(plain)).then(|| path.to_owned())
}

/// A moment from now on.
pub(crate) fn after(time: Duration) -> Timestamp {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(Timestamp::now().as_micros().saturating_add(micros))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_this_server_or_beneath_it() {
        let of = |address: &str| resource("https://b.example", address);
        for (address, path) in [
            ("https://b.example", ""),
            ("https://b.example/", ""),
            ("https://b.example/mcp", "/mcp"),
            ("https://b.example/mcp/spaces/spc_1/", "/mcp/spaces/spc_1"),
        ] {
            assert_eq!(of(address).as_deref(), Some(path), "{address}");
        }
        for foreign in [
            "",
            "https://b.example.evil",
            "https://b.example@evil.example/",
            "https://b.example:8443/",
            "http://b.example/",
            "https://evil.example/https://b.example",
            "https://b.example/a/../b",
            "https://b.example//a",
            "https://b.example/a?x=1",
            "https://b.example/a#x",
            "https://b.example/%61",
        ] {
            assert_eq!(of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn scopes_are_known_words_and_writing_means_reading_too() {
        assert_eq!(scopes("read"), Some(vec![KeyScope::Read]));
        assert_eq!(scopes("write offline_access"), Some(KeyScope::ALL.to_vec()));
        assert_eq!(scopes("openid admin"), None);
        assert_eq!(scopes(""), None);
    }
}
