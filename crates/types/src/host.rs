//! Names of hosts, in the one spelling in which they are compared.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name of a host, bytes (RFC 1035, section 2.3.4, without the length octets).
const LONGEST: usize = 253;

/// The text cannot be the name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing, or nothing between two dots.
    #[error("a host's name has a part that is empty")]
    Empty,
    /// Longer than a name can be.
    #[error("a host's name is too long")]
    TooLong,
    /// Something that is in no name: a port, a path, a user, a space.
    #[error("a host's name has letters, digits, `-` and dots alone: no port, path, user or address")]
    Characters,
    /// An address, in some notation.
    #[error("this is an address, not a name: addresses are for `subnets`")]
    Address,
    /// A port that is none.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// A pattern with a star elsewhere than in front.
    #[error("a pattern is a name, `*.` and a name, or `*`")]
    Pattern,
}

/// The name of a host: lower case, A-labels (RFC 5890), without a final dot, and no address in any notation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// Reads a name as somebody wrote it.
    ///
    /// # Errors
    /// [`HostError`], which says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.len() > 4 * LONGEST {
            return Err(HostError::TooLong);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        let ascii =
            idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL).map_err(|_| HostError::Characters)?;
        if ascii.len() > LONGEST {
            return Err(HostError::TooLong);
        }
        if ascii.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(HostError::Empty);
        }
        let fits =
            |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, b'-' | b'_' | b'.');
        if !ascii.bytes().all(fits) || ascii.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
            return Err(HostError::Characters);
        }
        if ends_in_a_number(&ascii) {
            return Err(HostError::Address);
        }
        Ok(Self(ascii.into_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies beneath `suffix`: `a.example` beneath `example`, and not `example` itself.
    pub fn is_beneath(&self, suffix: &Self) -> bool {
        let own = self.0.strip_suffix(suffix.as_str());
        own.is_some_and(|own| own.len() > 1 && own.ends_with('.'))
    }
}

/// What a parser of addresses somewhere would take for one: the last part is a number (WHATWG URL, "ends in a
/// number checker").
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|letter| letter.is_ascii_hexdigit()));
    hexadecimal || last.bytes().all(|letter| letter.is_ascii_digit())
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Which hosts a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// One.
    Exact(HostName),
    /// `*.example`: all beneath it, however deep, and not itself.
    Beneath(HostName),
    /// `*`.
    Any,
}

impl HostPattern {
    /// Reads `name`, `*.name` or `*`.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix('*') {
            None if text.contains('*') => Err(HostError::Pattern),
            None => HostName::parse(text).map(Self::Exact),
            Some("") => Ok(Self::Any),
            Some(rest) => match rest.strip_prefix('.') {
                Some(suffix) if !suffix.contains('*') => HostName::parse(suffix).map(Self::Beneath),
                _ => Err(HostError::Pattern),
            },
        }
    }

    /// Whether it is for this host.
    pub fn fits(&self, host: &HostName) -> bool {
        match self {
            Self::Exact(name) => host == name,
            Self::Beneath(suffix) => host.is_beneath(suffix),
            Self::Any => true,
        }
    }

    /// Of two patterns that fit, the more specific has the larger.
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Beneath(suffix) => (1, suffix.as_str().len()),
            Self::Exact(_) => (2, 0),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Beneath(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Where one may go: hosts, and a port if it is another than the usual ones (443 and 80).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// Which hosts.
    pub hosts: HostPattern,
    /// Which port; nothing for the usual ones.
    pub port: Option<u16>,
}

impl Destination {
    /// Reads a pattern of hosts, or one with `:` and a port.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let (hosts, port) = match text.rsplit_once(':') {
            None => (text, None),
            Some((hosts, digits)) if !digits.is_empty() && digits.bytes().all(|letter| letter.is_ascii_digit()) => {
                let port = digits.parse::<u16>().ok().filter(|port| *port != 0).ok_or(HostError::Port)?;
                (hosts, Some(port))
            }
            Some(_) => return Err(HostError::Port),
        };
        Ok(Self { hosts: HostPattern::parse(hosts)?, port })
    }

    /// Whether it is for this host and port.
    pub fn fits(&self, host: &HostName, port: u16) -> bool {
        self.port.map_or(matches!(port, 443 | 80), |own| own == port) && self.hosts.fits(host)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.hosts),
            Some(port) => write!(f, "{}:{port}", self.hosts),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn g02_a_host_has_one_spelling() {
        for (written, read) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com.", "example.com"),
            ("b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("B\u{dc}CHER.example", "xn--bcher-kva.example"),
            ("ex\u{ff41}mple.com", "example.com"),
            ("a\u{3002}example", "a.example"),
            ("my_bucket.example", "my_bucket.example"),
            ("1password.example", "1password.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(HostName::parse(written).unwrap().as_str(), read, "{written}");
        }
    }

    #[test]
    fn g03_an_address_is_no_name_however_it_is_written() {
        for address in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "1.2.3.4.",
            "example.0x10",
            "a.b.0x",
            "\u{ff11}27.0.0.1",
            "\u{2460}27.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
        ] {
            assert_eq!(HostName::parse(address), Err(HostError::Address), "{address}");
        }
    }

    #[test]
    fn g02_what_is_more_than_a_name_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = "a.".repeat(200);
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a:80",
            "a/b",
            "a\\b",
            "u@a",
            "[::1]",
            "::1",
            "a%41",
            "a\0b",
            "a\nb",
            "*.a",
            "-a.example",
            "a-.example",
            "a#b",
            "a?b",
            &long,
            &longer,
            "xn--a\u{fc}.example",
        ] {
            assert!(HostName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn g02_a_pattern_fits_what_lies_beneath_and_no_neighbour() {
        let pattern = HostPattern::parse("*.Example.com").unwrap();
        assert_eq!(pattern.to_string(), "*.example.com");
        for (host, fits) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            ("evilexample.com", false),
            ("example.com.evil.org", false),
        ] {
            assert_eq!(pattern.fits(&HostName::parse(host).unwrap()), fits, "{host}");
        }
        for text in ["*a.com", "a.*.com", "**", "*.*.com", "*.", "*.10.0.0.1", "a*"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
        assert!(HostPattern::parse("*").unwrap().fits(&HostName::parse("anything.example").unwrap()));
        let to =
            |text: &str, port| Destination::parse(text).unwrap().fits(&HostName::parse("a.example").unwrap(), port);
        assert!(to("a.example", 443) && to("*.example", 80) && to("a.example:8443", 8443) && to("*:22", 22));
        assert!(!to("a.example", 22) && !to("a.example:8443", 443) && !to("b.example:8443", 8443));
        for text in
            ["a.example:", "a.example:0", "a.example:65536", "a.example:http", "a.example:+1", "a.example:80:80"]
        {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
        let specific = |text: &str| HostPattern::parse(text).unwrap().specificity();
        assert!(specific("a.b.c") > specific("*.b.c"));
        assert!(specific("*.b.c") > specific("*.c"));
        assert!(specific("*.c") > specific("*"));
    }
}
