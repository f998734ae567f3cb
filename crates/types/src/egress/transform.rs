//! What a rule puts into requests: headers, parameters of the query, secrets in the place of placeholders, a signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{CARRIAGE, LONGEST_TEXT, MOST_RULES};
use crate::name::SecretName;

/// What a rule puts into the requests that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transform {
    /// Headers, in the place of the request's own.
    pub headers: BTreeMap<String, HeaderText>,
    /// Parameters of the query, in the place of the request's own.
    pub query: BTreeMap<String, SecretText>,
    /// What the sandbox writes where a secret is to stand.
    pub placeholders: Vec<Placeholder>,
    /// The signature of a cloud.
    pub sigv4: Option<SigV4>,
}

impl Transform {
    /// The secrets in it. Those of placeholders go along only where a request has the placeholder.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let placeholders = self.placeholders.iter().map(|one| &one.value.0);
        self.always().chain(placeholders)
    }

    /// The secrets that every request gets.
    pub fn always(&self) -> impl Iterator<Item = &SecretName> {
        let headers = self.headers.values().filter_map(HeaderText::secret);
        let query = self.query.values().filter_map(SecretText::secret);
        let signing = self.sigv4.iter().flat_map(SigV4::secrets);
        headers.chain(query).chain(signing)
    }

    /// What is to be set once is set once, and what a signature says is nobody else's to say.
    fn checked(self) -> Result<Self, String> {
        for placeholder in &self.placeholders {
            if let Some(name) = placeholder.headers.iter().find(|name| self.headers.contains_key(*name)) {
                return Err(format!("{name} is set, and has a placeholder"));
            }
            if let Some(name) = placeholder.query.iter().find(|name| self.query.contains_key(*name)) {
                return Err(format!("{name} is set, and has a placeholder"));
            }
        }
        let names: BTreeSet<&VariableName> = self.placeholders.iter().map(|one| &one.env).collect();
        if names.len() < self.placeholders.len() {
            return Err("a placeholder is there twice".to_owned());
        }
        let mut headers = self.headers.keys().chain(self.placeholders.iter().flat_map(|one| &one.headers));
        let signed = |name: &String| name == "authorization" || name == "date" || name.starts_with("x-amz-");
        match headers.find(|name| signed(name)).filter(|_| self.sigv4.is_some()) {
            Some(name) => Err(format!("{name} belongs to the signature")),
            None => Ok(self),
        }
    }
}

/// One entry of a rule's `transform`, as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(super) struct RawTransform {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, HeaderText>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string: BTreeMap<String, SecretText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placeholder: Option<Placeholder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sigv4: Option<SigV4>,
}

/// Puts the entries of a rule together; nothing if there are none.
pub(super) fn read(entries: Vec<RawTransform>) -> Result<Option<Transform>, String> {
    if entries.len() > MOST_RULES {
        return Err(format!("at most {MOST_RULES} entries of `transform`"));
    }
    let mut all = Transform::default();
    let some = !entries.is_empty();
    for RawTransform { headers, query_string, placeholder, sigv4 } in entries {
        if headers.is_empty() && query_string.is_empty() && placeholder.is_none() && sigv4.is_none() {
            return Err("`transform` has `headers`, `queryString`, `placeholder` or `sigv4`".to_owned());
        }
        for (name, text) in headers {
            let name = header(&name)?;
            if all.headers.insert(name.clone(), text).is_some() {
                return Err(format!("{name} is set twice"));
            }
        }
        for (name, text) in query_string {
            parameter(&name)?;
            if all.query.insert(name.clone(), text).is_some() {
                return Err(format!("{name} is set twice"));
            }
        }
        all.placeholders.extend(placeholder);
        if sigv4.is_some() && std::mem::replace(&mut all.sigv4, sigv4).is_some() {
            return Err("a request has one signature".to_owned());
        }
    }
    if some { all.checked().map(Some) } else { Ok(None) }
}

/// The entries that are read as this.
pub(super) fn written(all: &Transform) -> Vec<RawTransform> {
    let Transform { headers, query, placeholders, sigv4 } = all.clone();
    let first = RawTransform { headers, query_string: query, placeholder: None, sigv4 };
    let empty = first.headers.is_empty() && first.query_string.is_empty() && first.sigv4.is_none();
    let placeholders =
        placeholders.into_iter().map(|one| RawTransform { placeholder: Some(one), ..Default::default() });
    (!empty).then_some(first).into_iter().chain(placeholders).collect()
}

/// A header's name that a rule may set, in lower case.
fn header(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    let token = |letter: u8| letter.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&letter);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    if CARRIAGE.contains(&name.as_str()) {
        return Err(format!("{name} says how a request is carried: no rule sets it"));
    }
    Ok(name)
}

/// A parameter's name: one that nobody spells in two ways.
fn parameter(name: &str) -> Result<(), String> {
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-._~".contains(&letter);
    match (1..=100).contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(format!("{name:?}: a parameter's name has letters, digits, `-`, `.`, `_` and `~`")),
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
        printable(text)?;
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

fn printable(text: &str) -> Result<(), String> {
    match text.len() <= LONGEST_TEXT && text.bytes().all(|letter| matches!(letter, b' '..=b'~')) {
        true => Ok(()),
        false => Err(format!("a text is at most {LONGEST_TEXT} printable letters of ASCII")),
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

/// A text as it is written, or a secret alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretText {
    /// Sent as it is. Whoever reads the agent's definition reads it.
    Literal(String),
    /// `secret:NAME`.
    Secret(SecretName),
}

impl SecretText {
    /// The secret that it is.
    pub fn secret(&self) -> Option<&SecretName> {
        match self {
            Self::Literal(_) => None,
            Self::Secret(name) => Some(name),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        printable(text)?;
        match text.split_once("secret:") {
            None => Ok(Self::Literal(text.to_owned())),
            Some(("", name)) => name.parse().map(Self::Secret).map_err(|error| format!("{error}")),
            Some(_) => Err("write `secret:NAME`, and nothing around it".to_owned()),
        }
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Secret(name) => write!(f, "secret:{name}"),
        }
    }
}

/// A secret: `secret:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretOnly(pub SecretName);

impl SecretOnly {
    fn parse(text: &str) -> Result<Self, String> {
        match SecretText::parse(text)? {
            SecretText::Secret(name) => Ok(Self(name)),
            SecretText::Literal(_) => Err("write `secret:NAME`: the value itself stands in no rule".to_owned()),
        }
    }
}

impl fmt::Display for SecretOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret:{}", self.0)
    }
}

/// The name of an environment variable that no program and no shell takes for a setting of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableName(String);

/// Variables that a sandbox has already, or that change what programs do whatever is in them.
const TAKEN: [&str; 24] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "LANG",
    "TERM",
    "AI_AGENT",
    "ENV",
    "BASH_ENV",
    "IFS",
    "PS4",
    "PWD",
    "OLDPWD",
    "CDPATH",
    "GLOBIGNORE",
    "SHELLOPTS",
    "BASHOPTS",
    "POSIXLY_CORRECT",
    "EDITOR",
    "PAGER",
    "HOSTALIASES",
    "RES_OPTIONS",
];
/// Beginnings and ends of such.
const TAKEN_BEGIN: [&str; 8] =
    ["LD_", "LC_", "NODE_OPTIONS", "NODE_USE_", "NODE_EXTRA_", "PYTHON", "PERL", "GIT_CONFIG"];
const TAKEN_END: [&str; 5] = ["_PROXY", "_CERT", "_CERTS", "_CAINFO", "_BUNDLE"];

impl VariableName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let letter = |letter: u8| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == b'_';
        let begins = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !begins || text.len() > 64 || !text.bytes().all(letter) {
            return Err(format!("{text:?}: a variable's name has capital letters, digits and `_`, and 64 at most"));
        }
        let taken = TAKEN.contains(&text)
            || TAKEN_BEGIN.iter().any(|begin| text.starts_with(begin))
            || TAKEN_END.iter().any(|end| text.ends_with(end))
            || text == "SSL_CERT_FILE";
        if taken { Err(format!("{text} is taken: choose another name")) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(HeaderText, SecretText, SecretOnly, VariableName);

/// A word in the sandbox's environment that stands for a secret, and where in a request it may be swapped for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placeholder {
    /// The variable in which the sandbox finds the word.
    pub env: VariableName,
    /// What it stands for.
    pub value: SecretOnly,
    /// In these headers, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// In these parameters of the query.
    #[serde(rename = "queryString", skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
    /// Whether in the body.
    #[serde(skip_serializing_if = "BodySearch::is_off")]
    pub body: BodySearch,
}

/// Whether a body is searched for placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum BodySearch {
    /// It goes on as it comes.
    #[default]
    Off,
    /// It is read whole before it goes on, and a long one not at all.
    Whole,
}

impl BodySearch {
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

impl From<bool> for BodySearch {
    fn from(whole: bool) -> Self {
        if whole { Self::Whole } else { Self::Off }
    }
}

impl From<BodySearch> for bool {
    fn from(search: BodySearch) -> Self {
        search == BodySearch::Whole
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPlaceholder {
    env: VariableName,
    value: SecretOnly,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    query_string: Vec<String>,
    #[serde(default)]
    body: BodySearch,
}

impl<'de> Deserialize<'de> for Placeholder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RawPlaceholder { env, value, headers, query_string, body } = RawPlaceholder::deserialize(deserializer)?;
        if headers.len() > MOST_RULES || query_string.len() > MOST_RULES {
            return Err(D::Error::custom(format_args!("at most {MOST_RULES} names")));
        }
        let headers =
            headers.iter().map(|name| header(name)).collect::<Result<Vec<_>, _>>().map_err(D::Error::custom)?;
        query_string.iter().try_for_each(|name| parameter(name)).map_err(D::Error::custom)?;
        if headers.is_empty() && query_string.is_empty() && body.is_off() {
            return Err(D::Error::custom(format_args!("{env}: say where: `headers`, `queryString` or `body`")));
        }
        Ok(Self { env, value, headers, query: query_string, body })
    }
}

/// Requests are signed as AWS wants it (Signature Version 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SigV4 {
    /// The id of the access key.
    pub access_key: SecretText,
    /// The access key itself.
    pub secret_key: SecretOnly,
    /// What goes with keys that are good for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretOnly>,
    /// `eu-west-1`, …
    pub region: ScopeWord,
    /// `s3`, `sts`, …
    pub service: ScopeWord,
}

impl SigV4 {
    fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        let token = self.session_token.as_ref().map(|token| &token.0);
        self.access_key.secret().into_iter().chain([&self.secret_key.0]).chain(token)
    }
}

/// A word of a signature's scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeWord(String);

impl ScopeWord {
    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let fits = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
        match (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?}: regions and services have small letters, digits and `-`")),
        }
    }
}

impl fmt::Display for ScopeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(ScopeWord);
