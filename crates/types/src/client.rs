//! By what a client of the authorization server is known: the id that it was registered under here, or the
//! address of a document of its own (draft-ietf-oauth-client-id-metadata-document).
//!
//! One client has one spelling, and two are never taken for the same: ids are compared as text, everywhere.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::id::ClientId;

/// The text names no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no client's id: 16 lower-case letters and digits, or https://NAME/PATH")]
pub struct NoClient;

/// A client, by its `client_id`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ClientIdentifier {
    /// It was registered here.
    Registered(ClientId),
    /// It says at that address who it is.
    Document(DocumentUrl),
}

impl ClientIdentifier {
    /// The id as it is sent.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Registered(id) => id.as_str(),
            Self::Document(url) => url.as_str(),
        }
    }
}

impl From<ClientId> for ClientIdentifier {
    fn from(id: ClientId) -> Self {
        Self::Registered(id)
    }
}

impl FromStr for ClientIdentifier {
    type Err = NoClient;

    fn from_str(text: &str) -> Result<Self, NoClient> {
        if text.starts_with(SCHEME) {
            return text.parse().map(Self::Document);
        }
        text.parse().map(Self::Registered).map_err(|_| NoClient)
    }
}

/// The address of a client's document.
///
/// Stricter than the draft, section 3, which asks for `https`, a path, no fragment, no user and no dot
/// segments: the host is a name, for a person is shown it; there is no query; and nothing may be spelled in two
/// ways, so no capitals in the host, no port that goes without saying, no escaped dot or slash.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DocumentUrl {
    text: String,
    /// Where the path begins.
    path: usize,
}

const SCHEME: &str = "https://";
/// Longest address, bytes. It is stored with each consent.
const LONGEST: usize = 500;

impl DocumentUrl {
    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, with its port if that is not the usual one: whose word the document is.
    pub fn host(&self) -> &str {
        &self.text[SCHEME.len()..self.path]
    }
}

impl FromStr for DocumentUrl {
    type Err = NoClient;

    fn from_str(text: &str) -> Result<Self, NoClient> {
        let rest = text.strip_prefix(SCHEME).filter(|_| text.len() <= LONGEST).ok_or(NoClient)?;
        let (authority, path) = rest.split_once('/').ok_or(NoClient)?;
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let port = port.is_none_or(|port| {
            // Digits alone: a number's parser also takes a sign.
            let digits = !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit());
            digits && port.parse::<u16>().is_ok_and(|port| port != 443)
        });
        let plain = !path.is_empty() && is_plain(path) && path.split('/').all(|step| step != "." && step != "..");
        if !is_name(host) || !port || !plain {
            return Err(NoClient);
        }
        Ok(Self { text: text.to_owned(), path: SCHEME.len() + authority.len() })
    }
}

/// Whether a host is a name with a dot, and none that is read as a number (IPv4 has many spellings).
fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        let sign = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(sign) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or(host);
    host.len() <= 253
        && host.contains('.')
        && host.split('.').all(label)
        && last.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Whether a path has only characters of RFC 3986, section 3.3, and escapes nothing that a reader might take
/// for a dot or a slash.
fn is_plain(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => match (bytes.next(), bytes.next()) {
                (Some(high), Some(low)) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    !matches!((high, low.to_ascii_lowercase()), (b'2', b'e' | b'f') | (b'5', b'c') | (b'0' | b'1', _))
                }
                _ => false,
            },
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':'
            | b'@' | b'/' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !fits {
            return false;
        }
    }
    true
}

macro_rules! shown {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )*};
}

shown! { ClientIdentifier DocumentUrl }

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_document_has_one_spelling_and_a_name_as_its_host() {
        for (good, host) in [
            ("https://app.example/client.json", "app.example"),
            ("https://app.example/a/b%20c/", "app.example"),
            ("https://app.example:8443/client", "app.example:8443"),
            ("https://xn--bcher-kva.example/...", "xn--bcher-kva.example"),
            ("https://3com.example/@me", "3com.example"),
        ] {
            let url: DocumentUrl = good.parse().unwrap();
            assert_eq!((url.as_str(), url.host()), (good, host));
            assert_eq!(good.parse(), Ok(ClientIdentifier::Document(url)));
        }
        for bad in [
            "https://app.example",
            "https://app.example/",
            "http://app.example/client",
            "HTTPS://app.example/client",
            "https:app.example/client",
            "https:///client",
            "https:////app.example/client",
            "https://APP.example/client",
            "https://app.example./client",
            "https://app..example/client",
            "https://-app.example/client",
            "https://app_x.example/client",
            "https://localhost/client",
            "https://10.0.0.7/client",
            "https://0x0a000007/client",
            "https://1.0x7f/client",
            "https://167772167/client",
            "https://[::1]/client",
            "https://user@app.example/client",
            "https://app.example@evil.example/client",
            "https://app.example:@evil.example/client",
            "https://app.example:443/client",
            "https://app.example:0443/client",
            "https://app.example:+8443/client",
            "https://app.example:0/client",
            "https://app.example:99999/client",
            "https://app.example:/client",
            "https://app.example/client#x",
            "https://app.example/client?x=1",
            "https://app.example/./client",
            "https://app.example/a/../client",
            "https://app.example/a/..",
            "https://app.example/%2e%2E/client",
            "https://app.example/a%2fclient",
            "https://app.example/a%5cclient",
            "https://app.example/a\\client",
            "https://app.example/a%0d%0aclient",
            "https://app.example/a%",
            "https://app.example/a%zz",
            "https://app.example/a b",
            "https://app.example/\u{e9}",
            "https://\u{e4}pp.example/client",
            "https://app.example/'\"><script>",
        ] {
            assert_eq!(bad.parse::<ClientIdentifier>(), Err(NoClient), "{bad}");
        }
        assert!(format!("https://app.example/{}", "a".repeat(500)).parse::<DocumentUrl>().is_err());
        assert!(matches!("abcdefgh23456789".parse(), Ok(ClientIdentifier::Registered(_))));
    }
}
