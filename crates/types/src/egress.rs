//! What a sandbox may reach: eve's `SandboxNetworkPolicy`, with `secret:NAME` where that has a credential.
//!
//! Read whole when an agent is put, so that a rule which cannot be kept is refused there and not at the first
//! call. What the rules mean for a connection is the gate's to say; nothing here does I/O.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::host::{Destination, HostName, HostPattern};
use crate::name::SecretName;

/// Most hosts of one list.
const MOST_HOSTS: usize = 500;
/// Most rules of one host, and most conditions of one rule.
const MOST_RULES: usize = 50;
/// Most subnets of a kind.
const MOST_SUBNETS: usize = 200;
/// Longest text of a matcher or a header, bytes.
const LONGEST_TEXT: usize = 1024;
/// Largest compiled expression, bytes.
const LARGEST_REGEX: usize = 64 * 1024;
/// Headers that say how a message is carried, and so are the proxy's alone (RFC 9110, section 7.6.1).
const CARRIAGE: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
];

/// A word that stands for a whole policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EgressWord {
    /// Everything public.
    AllowAll,
    /// Nothing.
    #[default]
    DenyAll,
}

/// What a sandbox may reach: a word, or an allow list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Egress {
    /// `allow-all` or `deny-all`.
    Word(EgressWord),
    /// An allow list.
    List(EgressList),
}

impl Default for Egress {
    fn default() -> Self {
        Self::Word(EgressWord::DenyAll)
    }
}

impl Egress {
    /// Whether nothing at all may leave.
    pub fn denies_all(&self) -> bool {
        matches!(self, Self::Word(EgressWord::DenyAll))
    }

    /// The secrets that its rules name.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let list = if let Self::List(list) = self { Some(list) } else { None };
        let rules = list.into_iter().flat_map(|list| list.allow.values()).flatten();
        rules.flat_map(|rule| rule.act.secrets())
    }
}

impl<'de> Deserialize<'de> for Egress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, because what serde says of an untagged enum names no place.
        match Value::deserialize(deserializer)? {
            word @ Value::String(_) => EgressWord::deserialize(word).map(Self::Word),
            list => EgressList::deserialize(list).map(Self::List),
        }
        .map_err(|error| D::Error::custom(format_args!("egress: {error}")))
    }
}

/// An allow list.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct EgressList {
    /// Destinations and their rules. Without rules a host may be reached, and nobody looks inside.
    pub allow: BTreeMap<Destination, Vec<EgressRule>>,
    /// Addresses.
    #[serde(skip_serializing_if = "Subnets::is_empty")]
    pub subnets: Subnets,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawList {
    #[serde(default)]
    allow: RawAllow,
    #[serde(default)]
    subnets: Subnets,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawAllow {
    Names(Vec<String>),
    Rules(BTreeMap<String, Value>),
}

impl Default for RawAllow {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl<'de> Deserialize<'de> for EgressList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawList { allow: raw, subnets } = RawList::deserialize(deserializer)?;
        let raw: Vec<(String, Value)> = match raw {
            RawAllow::Names(names) => names.into_iter().map(|name| (name, Value::Array(Vec::new()))).collect(),
            RawAllow::Rules(rules) => rules.into_iter().collect(),
        };
        if raw.len() > MOST_HOSTS {
            return Err(D::Error::custom(format_args!("at most {MOST_HOSTS} hosts")));
        }
        let mut allow = BTreeMap::new();
        for (written, rules) in raw {
            let place = |error: &dyn fmt::Display| D::Error::custom(format_args!("{written}: {error}"));
            let destination = Destination::parse(&written).map_err(|error| place(&error))?;
            let rules = Vec::<EgressRule>::deserialize(rules).map_err(|error| place(&error))?;
            if rules.len() > MOST_RULES {
                return Err(place(&format_args!("at most {MOST_RULES} rules")));
            }
            // A credential for whatever anybody calls a host would be a credential for everybody.
            if destination.hosts == HostPattern::Any && rules.iter().any(|rule| rule.act.secrets().next().is_some()) {
                return Err(place(&"a secret needs a host, or `*.` and a name"));
            }
            if allow.insert(destination, rules).is_some() {
                return Err(place(&"is there twice"));
            }
        }
        Ok(Self { allow, subnets })
    }
}

/// Addresses that are allowed or refused whatever a name says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subnets {
    /// May be reached although they are not public.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "subnets")]
    pub allow: Vec<IpNet>,
    /// May not be reached, by any name.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "subnets")]
    pub deny: Vec<IpNet>,
}

impl Subnets {
    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

fn subnets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let written = Vec::<String>::deserialize(deserializer)?;
    if written.len() > MOST_SUBNETS {
        return Err(D::Error::custom(format_args!("at most {MOST_SUBNETS} subnets")));
    }
    let read = |text: String| {
        let subnet = text.parse::<IpNet>().map_err(|_| format!("{text}: a subnet is an address, `/` and a length"))?;
        // `10.1.2.3/8` says two things; whoever wrote it meant one of them.
        if subnet.trunc() == subnet { Ok(subnet) } else { Err(format!("{text}: did you mean {}?", subnet.trunc())) }
    };
    written.into_iter().map(read).collect::<Result<_, String>>().map_err(D::Error::custom)
}

/// A rule of a host: which requests, and what becomes of them. The first that fits holds.
#[derive(Debug, Clone, PartialEq)]
pub struct EgressRule {
    /// Which requests; nothing for all.
    pub matches: Option<RequestMatch>,
    /// What becomes of them.
    pub act: RuleAct,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RuleAct {
    /// It goes on as it is.
    Pass,
    /// It goes on with these headers in the place of its own.
    Transform(BTreeMap<String, HeaderText>),
    /// It goes to another place.
    Forward(ForwardUrl),
}

impl RuleAct {
    /// The secrets that it puts in.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let headers = if let Self::Transform(headers) = self { Some(headers) } else { None };
        headers.into_iter().flat_map(|headers| headers.values()).filter_map(HeaderText::secret)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    matches: Option<RequestMatch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    transform: Vec<RawTransform>,
    #[serde(rename = "forwardURL", default, skip_serializing_if = "Option::is_none")]
    forward: Option<ForwardUrl>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTransform {
    headers: BTreeMap<String, HeaderText>,
}

impl<'de> Deserialize<'de> for EgressRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawRule { matches, transform, forward } = RawRule::deserialize(deserializer)?;
        let mut headers = BTreeMap::new();
        for (name, text) in transform.into_iter().flat_map(|one| one.headers) {
            let name = name.to_ascii_lowercase();
            let token = |letter: u8| letter.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&letter);
            if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
                return Err(D::Error::custom(format_args!("{name:?} is no name of a header")));
            }
            if CARRIAGE.contains(&name.as_str()) {
                return Err(D::Error::custom(format_args!("{name} says how a request is carried: no rule sets it")));
            }
            if headers.insert(name.clone(), text).is_some() {
                return Err(D::Error::custom(format_args!("{name} is set twice")));
            }
        }
        let act = match (headers.is_empty(), forward) {
            (true, None) => RuleAct::Pass,
            (false, None) => RuleAct::Transform(headers),
            (true, Some(url)) => RuleAct::Forward(url),
            (false, Some(_)) => return Err(D::Error::custom("a rule has `transform` or `forwardURL`, not both")),
        };
        Ok(Self { matches, act })
    }
}

impl Serialize for EgressRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (transform, forward) = match &self.act {
            RuleAct::Pass => (Vec::new(), None),
            RuleAct::Transform(headers) => (vec![RawTransform { headers: headers.clone() }], None),
            RuleAct::Forward(url) => (Vec::new(), Some(url.clone())),
        };
        RawRule { matches: self.matches.clone(), transform, forward }.serialize(serializer)
    }
}

/// The text of a header: as it is written, or with a secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// Sent as it is. Whoever reads the agent's definition reads it.
    Literal(String),
    /// `secret:NAME`, or a scheme before it (`Bearer secret:NAME`).
    Secret(Option<String>, SecretName),
    /// `Basic USER:secret:NAME`: user and secret as RFC 7617 has them.
    Basic(String, SecretName),
}

impl HeaderText {
    /// The secret in it.
    pub fn secret(&self) -> Option<&SecretName> {
        match self {
            Self::Literal(_) => None,
            Self::Secret(_, name) | Self::Basic(_, name) => Some(name),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST_TEXT || !text.bytes().all(|letter| matches!(letter, b' '..=b'~')) {
            return Err(format!("a header's text is at most {LONGEST_TEXT} printable letters of ASCII"));
        }
        let Some((before, name)) = text.split_once("secret:") else { return Ok(Self::Literal(text.to_owned())) };
        let name = name.parse::<SecretName>().map_err(|error| error.to_string())?;
        let scheme = before.strip_suffix(' ').filter(|word| {
            !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-')
        });
        if before.is_empty() {
            return Ok(Self::Secret(None, name));
        }
        if let Some(scheme) = scheme {
            return Ok(Self::Secret(Some(scheme.to_owned()), name));
        }
        let user = before.strip_prefix("Basic ").and_then(|rest| rest.strip_suffix(':'));
        match user {
            Some(user) if !user.contains(':') => Ok(Self::Basic(user.to_owned(), name)),
            _ => Err("write `secret:NAME`, `Bearer secret:NAME` or `Basic USER:secret:NAME`".to_owned()),
        }
    }
}

impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Secret(None, name) => write!(f, "secret:{name}"),
            Self::Secret(Some(scheme), name) => write!(f, "{scheme} secret:{name}"),
            Self::Basic(user, name) => write!(f, "Basic {user}:secret:{name}"),
        }
    }
}

impl Serialize for HeaderText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Which requests a rule is for. All that is said has to fit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct RequestMatch {
    /// The path, decoded as far as letters need no escape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Matcher>,
    /// One of these.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "methods")]
    pub method: Vec<String>,
    /// For each of these some parameter of the query fits.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "pairs")]
    pub query_string: Vec<PairMatcher>,
    /// For each of these some header fits.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "pairs")]
    pub headers: Vec<PairMatcher>,
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let written = Vec::<String>::deserialize(deserializer)?;
    let fits =
        |method: &String| (1..=20).contains(&method.len()) && method.bytes().all(|letter| letter.is_ascii_uppercase());
    match written.iter().find(|method| !fits(method)) {
        _ if written.len() > MOST_RULES => Err(D::Error::custom(format_args!("at most {MOST_RULES} methods"))),
        Some(wrong) => Err(D::Error::custom(format_args!("{wrong:?} is no method: write GET, POST, …"))),
        None => Ok(written),
    }
}

fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PairMatcher>, D::Error> {
    let written = Vec::<PairMatcher>::deserialize(deserializer)?;
    if written.len() > MOST_RULES {
        return Err(D::Error::custom(format_args!("at most {MOST_RULES} conditions")));
    }
    Ok(written)
}

/// A name and a value, each of which fits or is not asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairMatcher {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Matcher>,
    /// The value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Matcher>,
}

impl PairMatcher {
    /// Whether a pair fits.
    pub fn fits(&self, key: &str, value: &str) -> bool {
        let fits = |matcher: &Option<Matcher>, text| matcher.as_ref().is_none_or(|matcher| matcher.fits(text));
        fits(&self.key, key) && fits(&self.value, value)
    }
}

/// A condition on a text.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// It is this.
    Exact(String),
    /// It begins with this.
    StartsWith(String),
    /// All of it is what the expression describes: an expression that fits somewhere would let in whatever
    /// somebody puts around it.
    Regex(Box<Regex>, String),
}

impl Matcher {
    /// Whether a text fits.
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => text == wanted,
            Self::StartsWith(wanted) => text.starts_with(wanted.as_str()),
            Self::Regex(expression, _) => expression.is_match(text),
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other))
            | (Self::StartsWith(one), Self::StartsWith(other))
            | (Self::Regex(_, one), Self::Regex(_, other)) => one == other,
            _ => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum RawMatcher {
    Exact(String),
    StartsWith(String),
    Regex(String),
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exact(text) => RawMatcher::Exact(text.clone()),
            Self::StartsWith(text) => RawMatcher::StartsWith(text.clone()),
            Self::Regex(_, text) => RawMatcher::Regex(text.clone()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawMatcher::deserialize(deserializer)?;
        let (RawMatcher::Exact(text) | RawMatcher::StartsWith(text) | RawMatcher::Regex(text)) = &raw;
        if text.len() > LONGEST_TEXT {
            return Err(D::Error::custom(format_args!("a condition has at most {LONGEST_TEXT} bytes")));
        }
        Ok(match raw {
            RawMatcher::Exact(text) => Self::Exact(text),
            RawMatcher::StartsWith(text) => Self::StartsWith(text),
            RawMatcher::Regex(text) => {
                let build = |text: &str| RegexBuilder::new(text).size_limit(LARGEST_REGEX).build();
                // Alone as well: `a)|(?:b` is no expression, and would be two in brackets.
                let whole = build(&text).and_then(|_| build(&format!(r"\A(?:{text})\z")));
                Self::Regex(whole.map(Box::new).map_err(D::Error::custom)?, text)
            }
        })
    }
}

/// Where a rule sends requests instead: `https://NAME[:PORT][/PATH]`. The request's own path and query come after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardUrl {
    /// The host.
    pub host: HostName,
    /// The port.
    pub port: u16,
    /// What stands before the request's path; empty or beginning with a slash, without one at its end.
    pub base: String,
}

impl ForwardUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: forwardURL is https://NAME[:PORT][/PATH], without user, query and fragment");
        let rest = text.strip_prefix("https://").filter(|_| text.len() <= LONGEST_TEXT).ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let (host, port) = authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let host = HostName::parse(host).map_err(|error| format!("{text}: {error}"))?;
        let port = match port {
            None => 443,
            Some(digits) if digits.bytes().all(|letter| letter.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-._~/@:+".contains(&letter);
        let dots = path.split('/').any(|step| matches!(step, "." | ".."));
        if port == 0 || dots || !path.bytes().all(plain) {
            return Err(wrong());
        }
        let base = path.trim_end_matches('/');
        Ok(Self { host, port, base: if base.is_empty() { String::new() } else { format!("/{base}") } })
    }
}

impl fmt::Display for ForwardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.host)?;
        if self.port != 443 {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.base)
    }
}

impl Serialize for ForwardUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ForwardUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
