//! Where a provider's API stands. A base address is parsed once, here; what comes out has no
//! user, no query and no fragment, and is HTTPS or loopback unless plain HTTP was asked for.

use bailiwick_outbound::{Origin, OriginError, Plain, Reach};
use url::Url;

use crate::PlainHttp;

/// Why a base address is not taken. The text never repeats the address, which may hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointProblem {
    #[error("is not an http or https URL")]
    NotHttp,
    #[error("has a user or password; give the key as api_key_file or api_key_env")]
    HasUser,
    #[error("has a query or a fragment; give only the address")]
    HasQuery,
    #[error(
        "is plain http to another machine, which shows the key to the network; use https, or set plain_http = \"anywhere\""
    )]
    Plain,
    #[error("is an address where no provider is: link-local, multicast, or where clouds keep credentials")]
    Nobodys,
}

impl From<OriginError> for EndpointProblem {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::NotHttp => Self::NotHttp,
            OriginError::HasUser => Self::HasUser,
            OriginError::Plain => Self::Plain,
            OriginError::Nobodys => Self::Nobodys,
        }
    }
}

/// A base address, and its origin, which is all that calls to it may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    url: Url,
    origin: Origin,
}

/// How an API's path is put behind a base address that has a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// `/v1` is added unless the path ends with it: the habit of Anthropic's clients.
    UnlessPresent,
    /// `/v1` is added only to an empty path: the habit of OpenAI's clients, whose base
    /// addresses elsewhere end in `/v1`, `/v1beta/openai`, `/api/paas/v4` and more.
    IfNoPath,
}

impl Base {
    pub(crate) fn parse(text: &str, plain: PlainHttp) -> Result<Self, EndpointProblem> {
        let url = Url::parse(text).map_err(|_| EndpointProblem::NotHttp)?;
        let plain = match plain {
            PlainHttp::Loopback => Plain::Loopback,
            PlainHttp::Anywhere => Plain::Anywhere,
        };
        let origin = Origin::of(&url, plain)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointProblem::HasQuery);
        }
        Ok(Self { url, origin })
    }

    /// What calls may reach: the host that the operator named, wherever it is, and nothing else.
    pub(crate) fn reach(&self) -> Reach {
        Reach::Named(self.origin.clone())
    }

    /// The address of one call, for example of `chat/completions`.
    pub(crate) fn join(&self, version: Version, path: &str) -> Url {
        let base = self.url.path().trim_end_matches('/');
        let add = match version {
            Version::UnlessPresent => !base.ends_with("/v1"),
            Version::IfNoPath => base.is_empty(),
        };
        let whole = format!("{base}{}/{path}", if add { "/v1" } else { "" });
        let mut url = self.url.clone();
        url.set_path(&whole);
        url
    }

    /// The host's name or address.
    pub(crate) fn host(&self) -> Option<&str> {
        self.url.host_str()
    }

    /// Whether the host is this name or stands below it.
    pub(crate) fn is_below(&self, domain: &str) -> bool {
        self.url.host_str().is_some_and(|host| {
            host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn joined(base: &str, version: Version) -> String {
        Base::parse(base, PlainHttp::Loopback).unwrap().join(version, "x").to_string()
    }

    #[test]
    fn slashes_and_versions_are_tolerated() {
        for base in ["https://a.example", "https://a.example/", "https://a.example/v1", "https://a.example/v1/"] {
            assert_eq!(joined(base, Version::UnlessPresent), "https://a.example/v1/x");
            assert_eq!(joined(base, Version::IfNoPath), "https://a.example/v1/x");
        }
        assert_eq!(joined("https://a.example/anthropic/", Version::UnlessPresent), "https://a.example/anthropic/v1/x");
        assert_eq!(joined("https://a.example/v1beta/openai", Version::IfNoPath), "https://a.example/v1beta/openai/x");
    }

    #[test]
    fn plain_http_needs_loopback_or_a_decision() {
        for base in ["http://127.0.0.1:8080", "http://[::1]:8080/v1", "http://localhost:1", "https://far.example"] {
            assert!(Base::parse(base, PlainHttp::Loopback).is_ok(), "{base}");
        }
        for base in ["http://far.example", "http://10.0.0.7", "http://localhost.far.example"] {
            assert_eq!(Base::parse(base, PlainHttp::Loopback), Err(EndpointProblem::Plain), "{base}");
            assert!(Base::parse(base, PlainHttp::Anywhere).is_ok(), "{base}");
        }
    }

    #[test]
    fn other_schemes_users_and_queries_are_refused() {
        let problem = |base| Base::parse(base, PlainHttp::Anywhere).unwrap_err();
        assert_eq!(problem("file:///etc/passwd"), EndpointProblem::NotHttp);
        assert_eq!(problem("api.example.com"), EndpointProblem::NotHttp);
        assert_eq!(problem("https://u:p@a.example"), EndpointProblem::HasUser);
        assert_eq!(problem("https://a.example/?key=1"), EndpointProblem::HasQuery);
        assert_eq!(problem("http://169.254.169.254/latest"), EndpointProblem::Nobodys);
    }

    #[test]
    fn a_host_is_below_a_domain_by_whole_labels() {
        let base = |text| Base::parse(text, PlainHttp::Loopback).unwrap();
        assert!(base("https://api.openai.com").is_below("openai.com"));
        assert!(!base("https://notopenai.com").is_below("openai.com"));
    }
}
