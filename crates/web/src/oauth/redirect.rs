//! Where a browser may be sent with a code.
//!
//! An address is compared as it was registered, character by character; of a program on the user's own
//! machine the port alone may be another one (RFC 8252, section 7.3). What can be registered at all is bounded
//! to what cannot send a code in the clear or run anything.

/// Longest address, bytes.
const LONGEST: usize = 500;

/// Schemes of programs that many people have and that do not keep to RFC 8252, section 7.1, by which a scheme
/// of one's own has a dot in it.
const PROGRAMS: [&str; 4] = ["cursor", "vscode", "vscode-insiders", "windsurf"];

/// An address to which a browser may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedirectUri {
    text: String,
    scheme: usize,
    host: Host,
}

/// What stands between the scheme and the path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// A machine that everybody can name.
    Named(String),
    /// The user's own, with what comes after the port.
    Loopback { name: String, rest: String },
    /// A program of the user's own machine, by its scheme.
    Program,
}

impl RedirectUri {
    /// Reads one. `None` if nobody should be sent there.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| {
            b.is_ascii_graphic()
                && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' | b'\'')
        };
        if text.len() > LONGEST || !text.bytes().all(plain) {
            return None;
        }
        let (scheme, after) = text.split_once(':')?;
        let first = scheme.bytes().next()?;
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.');
        if !first.is_ascii_lowercase() || !scheme.bytes().all(fits) {
            return None;
        }
        let host = match scheme {
            "https" => Host::Named(authority(after)?.0.to_owned()),
            "http" => loopback(after)?,
            program if program.contains('.') || PROGRAMS.contains(&program) => Host::Program,
            _ => return None,
        };
        Some(Self { text: text.to_owned(), scheme: scheme.len(), host })
    }

    /// The whole of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// What a person is told of it: the host, or the scheme of a program.
    pub(crate) fn shown(&self) -> String {
        match &self.host {
            Host::Named(host) => host.clone(),
            Host::Loopback { name, .. } => format!("{name} (a program on this computer)"),
            Host::Program => format!("{}: (a program on this computer)", &self.text[..self.scheme]),
        }
    }

    /// Whether it is a program of the user's machine that is known by its scheme.
    pub(crate) fn is_program(&self) -> bool {
        self.host == Host::Program
    }

    /// Whether any program of the user's machine could be listening there.
    pub(crate) fn is_local(&self) -> bool {
        !matches!(self.host, Host::Named(_))
    }

    /// The source by which a page's policy lets its form lead there.
    pub(crate) fn source(&self) -> String {
        let scheme = &self.text[..self.scheme];
        match &self.host {
            Host::Named(host) => format!("https://{host}"),
            // A policy has no way to name an address of IPv6.
            Host::Loopback { name, .. } if name.starts_with('[') => "http:".to_owned(),
            Host::Loopback { name, .. } => format!("http://{name}:*"),
            Host::Program => format!("{scheme}:"),
        }
    }

    /// Whether this is what was registered.
    pub(crate) fn fits(&self, registered: &str) -> bool {
        if self.text == registered {
            return true;
        }
        let Some(known) = Self::parse(registered) else { return false };
        matches!((&self.host, &known.host), (Host::Loopback { .. }, Host::Loopback { .. })) && self.host == known.host
    }

    /// The address with these fields in its query.
    pub(crate) fn with(&self, fields: &[(&str, &str)]) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let sign = if self.text.contains('?') { '&' } else { '?' };
        format!("{}{sign}{query}", self.text)
    }
}

/// The host with its port, and what comes after, of `//host:port/rest`. No user, and a port that is one.
fn authority(after: &str) -> Option<(&str, &str)> {
    let rest = after.strip_prefix("//")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (host, port) = split_port(authority);
    let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(name),
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    (fits && port).then_some((authority, rest))
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn loopback(after: &str) -> Option<Host> {
    let (authority, rest) = authority(after)?;
    let (name, _) = split_port(authority);
    let own = matches!(name, "127.0.0.1" | "[::1]" | "localhost");
    own.then(|| Host::Loopback { name: name.to_owned(), rest: rest.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_where_a_code_is_anybodys_or_something_runs() {
        for good in [
            "https://app.example/callback",
            "https://app.example:8443/callback?x=1",
            "https://app.example",
            "http://127.0.0.1:3000/callback",
            "http://127.0.0.1/callback",
            "http://[::1]:1/callback",
            "http://localhost:17/cb",
            "com.example.app:/callback",
            "cursor://anysphere.cursor-retrieval/oauth/callback",
        ] {
            assert!(RedirectUri::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/callback",
            "//app.example/callback",
            "http://app.example/callback",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil.example/",
            "http://localhost@evil.example/",
            "http://127.0.0.1:3000@evil.example/",
            "http://127.0.0.2/callback",
            "https://user@app.example/",
            "https://app.example/#fragment",
            "https://app.example\\@evil.example/",
            "https://app.example/a b",
            "https://app.example/\u{e9}",
            "https://app.example/\r\nx: y",
            "https://",
            "https:///path",
            "https:app.example",
            "https://app.example:0/",
            "https://app.example:99999/",
            "https://app.example:/",
            "https://a_b.example/",
            "https://*.example/",
            "https://APP.example/",
            "HTTPS://app.example/",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "mailto:a@b.example",
            "intent://x",
            "view-source:https://app.example",
            "1.x:/",
        ] {
            assert_eq!(RedirectUri::parse(bad), None, "{bad}");
        }
        assert_eq!(RedirectUri::parse(&format!("https://app.example/{}", "a".repeat(500))), None);
    }

    #[test]
    fn an_address_is_the_registered_one_or_another_port_of_the_same_machine() {
        let fits = |asked: &str, registered: &str| RedirectUri::parse(asked).is_some_and(|uri| uri.fits(registered));
        assert!(fits("https://app.example/cb", "https://app.example/cb"));
        assert!(fits("http://127.0.0.1:4000/cb", "http://127.0.0.1/cb"));
        assert!(fits("http://127.0.0.1:4000/cb?a=1", "http://127.0.0.1:3/cb?a=1"));
        assert!(fits("http://localhost:4000/cb", "http://localhost:3000/cb"));
        for (asked, registered) in [
            ("https://app.example/cb/", "https://app.example/cb"),
            ("https://app.example/cb?x=1", "https://app.example/cb"),
            ("https://app.example/cb/../evil", "https://app.example/cb"),
            ("https://app.example:8443/cb", "https://app.example/cb"),
            ("https://app.example.evil.example/cb", "https://app.example/cb"),
            ("http://localhost:4000/cb", "http://127.0.0.1:4000/cb"),
            ("http://127.0.0.1:4000/cb", "http://[::1]:4000/cb"),
            ("http://127.0.0.1:4000/evil", "http://127.0.0.1:4000/cb"),
            ("http://127.0.0.1:4000/cb?x", "http://127.0.0.1:4000/cb"),
            ("com.example.app:/other", "com.example.app:/cb"),
        ] {
            assert!(!fits(asked, registered), "{asked}");
        }
    }

    #[test]
    fn what_is_added_is_added_to_the_query() {
        let with = |text: &str| RedirectUri::parse(text).unwrap().with(&[("code", "a b"), ("state", "&x=\r\n")]);
        assert_eq!(with("https://a.example/cb"), "https://a.example/cb?code=a+b&state=%26x%3D%0D%0A");
        assert_eq!(with("https://a.example/cb?y=1"), "https://a.example/cb?y=1&code=a+b&state=%26x%3D%0D%0A");
    }
}
