//! What a sandbox may reach: eve's `SandboxNetworkPolicy`, with `secret:NAME` where that has a credential.
//!
//! Read whole when an agent is put, so that a rule which cannot be kept is refused there and not at the first
//! call. What the rules mean for a connection is the gate's to say; nothing here does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use self::transform::RawTransform;
use crate::host::{Destination, HostName, HostPattern};
use crate::name::SecretName;

mod transform;

pub use self::transform::{
    BodySearch, HeaderText, Placeholder, ScopeWord, SecretOnly, SecretText, SigV4, Transform, VariableName,
};

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
        self.rules().flat_map(|rule| rule.act.secrets())
    }

    /// The variables of its placeholders.
    pub fn variables(&self) -> BTreeSet<&VariableName> {
        let placeholders = self.rules().filter_map(|rule| match &rule.act {
            RuleAct::Transform(all) => Some(&all.placeholders),
            RuleAct::Pass | RuleAct::Forward(_) => None,
        });
        placeholders.flatten().map(|placeholder| &placeholder.env).collect()
    }

    fn rules(&self) -> impl Iterator<Item = &EgressRule> {
        let list = if let Self::List(list) = self { Some(list) } else { None };
        list.into_iter().flat_map(|list| list.allow.values()).flatten()
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
    /// It goes on with what the rule puts in.
    Transform(Box<Transform>),
    /// It goes to another place.
    Forward(ForwardUrl),
}

impl RuleAct {
    /// The secrets that it puts in.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let all = if let Self::Transform(all) = self { Some(all) } else { None };
        all.into_iter().flat_map(|all| all.secrets())
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

impl<'de> Deserialize<'de> for EgressRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawRule { matches, transform, forward } = RawRule::deserialize(deserializer)?;
        let transform = transform::read(transform).map_err(D::Error::custom)?;
        let act = match (transform, forward) {
            (None, None) => RuleAct::Pass,
            (Some(all), None) => RuleAct::Transform(Box::new(all)),
            (None, Some(url)) => RuleAct::Forward(url),
            (Some(_), Some(_)) => return Err(D::Error::custom("a rule has `transform` or `forwardURL`, not both")),
        };
        Ok(Self { matches, act })
    }
}

impl Serialize for EgressRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (transform, forward) = match &self.act {
            RuleAct::Pass => (Vec::new(), None),
            RuleAct::Transform(all) => (transform::written(all), None),
            RuleAct::Forward(url) => (Vec::new(), Some(url.clone())),
        };
        RawRule { matches: self.matches.clone(), transform, forward }.serialize(serializer)
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
