//! What a rule puts into a request on its way out.
//!
//! In this order: what the rule sets, what stands in the place of placeholders, the signature over all of it. A rule
//! that cannot be kept to the letter is a refusal, and no request.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aho_corasick::AhoCorasick;
use bailiwick_types::SecretName;
use bailiwick_types::egress::{BodySearch, HeaderText, Placeholder, SecretText, SigV4, Transform};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use zeroize::Zeroizing;

use crate::journal::Line;
use crate::lease::Held;
use crate::meter::{BodyError, Counted, Holding};
use crate::names::Target;
use crate::query;
use crate::refused::Refused;
use crate::request::Place;
use crate::sigv4::{self, Keys, Unsigned};
use crate::upstream::{Flow, Reached, Speaks};

/// Largest body that is read whole, bytes.
const LARGEST_BODY: usize = 1024 * 1024;
/// Largest body once its placeholders are swapped, bytes.
const LARGEST_SWAPPED: usize = 2 * LARGEST_BODY;
/// Largest text of a header or a query once its placeholders are swapped, bytes.
const LARGEST_TEXT: usize = 32 * 1024;
/// How long a sandbox may take to send a body that is read whole.
const SENDING: Duration = Duration::from_secs(60);

/// A request as it goes out.
pub(crate) struct Ready {
    pub(crate) path: PathAndQuery,
    pub(crate) body: Flow,
    /// The connection that was made before the first secret was asked for.
    pub(crate) reached: Option<Reached>,
    /// The secrets that are in it.
    pub(crate) secrets: Vec<Arc<Held>>,
}

/// A placeholder of a rule, and the word that stands for it in this sandbox.
struct Word<'r> {
    rule: &'r Placeholder,
    text: &'r str,
}

/// The secrets of one request.
struct Values(BTreeMap<SecretName, Arc<Held>>);

impl Values {
    fn of(&self, name: &SecretName) -> Result<&str, Refused> {
        self.0.get(name).map(|held| held.value.as_str()).ok_or(Refused::Secret)
    }

    fn text(&self, text: &SecretText) -> Result<Zeroizing<String>, Refused> {
        Ok(Zeroizing::new(match text {
            SecretText::Literal(text) => text.clone(),
            SecretText::Secret(name) => self.of(name)?.to_owned(),
        }))
    }
}

/// Puts into a request what a rule says.
///
/// # Errors
/// Why it cannot; then there is no request.
pub(crate) async fn prepare(
    place: &Place,
    rule: &Transform,
    (speaks, to): (Speaks, &Uri),
    parts: &mut Parts,
    body: Incoming,
    line: &mut Line,
) -> Result<Ready, Refused> {
    let scene = &place.scene;
    let host = match &place.target {
        Target::Name(host) if place.scheme == Scheme::HTTPS => Some(host),
        // Where somebody could read along there are no secrets.
        _ if rule.secrets().next().is_some() => return Err(Refused::Plain),
        _ => None,
    };
    let mut words = Vec::new();
    for placeholder in &rule.placeholders {
        let text = scene.placeholders.word(&placeholder.env).ok_or(Refused::Secret)?;
        words.push(Word { rule: placeholder, text });
    }
    let body = whole(place, rule, parts, body).await?;
    words.retain(|word| is_in(word, parts, &body));
    let needs: BTreeSet<&SecretName> = rule.always().chain(words.iter().map(|word| &word.rule.value.0)).collect();
    let (mut reached, mut values) = (None, Values(BTreeMap::new()));
    if let Some(host) = host {
        if needs.iter().any(|secret| !scene.leases.holds(secret, host)) {
            reached = Some(scene.upstream.reach(speaks, to).await?);
        }
        for secret in needs {
            values.0.insert(secret.clone(), scene.leases.get(secret, host).await?);
            if !line.secrets.contains(secret) {
                line.secrets.push(secret.clone());
            }
        }
    }

    for (name, text) in &rule.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Refused::Request)?;
        // Whatever the sandbox wrote there, also more than once.
        parts.headers.insert(name, header_value(text, &values)?);
    }
    swap_headers(&words, &values, parts)?;
    let mut query = swap_query(&words, &values, parts.uri.query().unwrap_or_default())?;
    for (name, text) in &rule.query {
        query = query::set(&query, name, &values.text(text)?);
    }
    if query.len() > LARGEST_TEXT {
        return Err(Refused::Request);
    }
    let body = match body {
        Outward::Whole { bytes, place } => Outward::Whole { bytes: swap_body(&words, &values, parts, bytes)?, place },
        passing => passing,
    };
    if let Some(signing) = &rule.sigv4 {
        query = sign(signing, &values, to, &query, parts, &body)?;
    }
    let path = if query.is_empty() { parts.uri.path().to_owned() } else { format!("{}?{query}", parts.uri.path()) };
    let path = path.parse().map_err(|_| Refused::Request)?;
    Ok(Ready { path, body: body.flow(), reached, secrets: values.0.into_values().collect() })
}

/// A body, as it comes or whole.
enum Outward {
    Passing(Flow),
    Whole { bytes: Bytes, place: crate::shares::Taken },
}

impl Outward {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Passing(_) => &[],
            Self::Whole { bytes, .. } => bytes,
        }
    }

    fn flow(self) -> Flow {
        match self {
            Self::Passing(flow) => flow,
            Self::Whole { bytes, place } => {
                Holding::new(Full::from(bytes).map_err(|never| match never {}), place).boxed()
            }
        }
    }
}

/// Reads the body, where the rule has to see it whole.
async fn whole(place: &Place, rule: &Transform, parts: &mut Parts, body: Incoming) -> Result<Outward, Refused> {
    let scene = &place.scene;
    let searched = rule.placeholders.iter().any(|placeholder| placeholder.body == BodySearch::Whole);
    let counted = Counted::new(body, Arc::clone(&scene.meter));
    if !searched && !rule.sigv4.as_ref().is_some_and(sigv4::wants_body) {
        return Ok(Outward::Passing(counted.boxed()));
    }
    let encoded = parts.headers.get_all(header::CONTENT_ENCODING);
    if searched && encoded.iter().any(|name| !name.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refused::BodyEncoded);
    }
    if counted.size_hint().lower() > LARGEST_BODY as u64 {
        return Err(Refused::BodyTooLarge);
    }
    let held = scene.bodies.take().await.ok_or(Refused::Limit)?;
    let read = tokio::time::timeout(SENDING, Limited::new(counted, LARGEST_BODY).collect()).await;
    let read = read.map_err(|_| Refused::BrokenOff)?.map_err(|error| why(&error))?;
    // Where they go there is no place for them any more.
    if read.trailers().is_some_and(|trailers| !trailers.is_empty()) {
        return Err(Refused::Request);
    }
    // Another length, perhaps, and none of the old framing.
    for name in [header::CONTENT_LENGTH, header::TRAILER] {
        parts.headers.remove(name);
    }
    Ok(Outward::Whole { bytes: read.to_bytes(), place: held })
}

fn why(error: &BodyError) -> Refused {
    if error.downcast_ref::<LengthLimitError>().is_some() {
        return Refused::BodyTooLarge;
    }
    let spent = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    if spent == Some(std::io::ErrorKind::QuotaExceeded) { Refused::Limit } else { Refused::BrokenOff }
}

/// Whether a placeholder is where its rule looks for it.
fn is_in(word: &Word<'_>, parts: &Parts, body: &Outward) -> bool {
    let Word { rule, text } = word;
    let values = rule.headers.iter().flat_map(|name| parts.headers.get_all(name));
    let query = parts.uri.query().unwrap_or_default();
    values.into_iter().any(|value| match searched(value.as_bytes()) {
        Searched::Pair(pair) => has(&pair, text),
        Searched::All => has(value.as_bytes(), text),
    }) || query::has(query, &rule.query, text)
        || (rule.body == BodySearch::Whole && has(body.bytes(), text))
}

fn has(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|part| part == word.as_bytes())
}

/// What of a header's text is searched: within `Basic` (RFC 7617) the pair, if it can be read.
fn searched(text: &[u8]) -> Searched {
    match text.split_at_checked(6) {
        Some((scheme, pair)) if scheme.eq_ignore_ascii_case(b"basic ") => {
            Searched::Pair(STANDARD.decode(pair.trim_ascii()).map(Zeroizing::new).unwrap_or_default())
        }
        _ => Searched::All,
    }
}

enum Searched {
    All,
    Pair(Zeroizing<Vec<u8>>),
}

/// Words and what comes into their places, all in one pass: what one value brings along is not looked at again, and
/// how much it becomes is known before there is room for it.
struct Swap {
    search: AhoCorasick,
    values: Vec<Zeroizing<String>>,
}

/// It would become too much.
struct TooLong;

impl Swap {
    fn of<'w>(pairs: impl Iterator<Item = (&'w str, Zeroizing<String>)>) -> Result<Self, Refused> {
        let (words, values): (Vec<&str>, Vec<_>) = pairs.unzip();
        let search = AhoCorasick::new(words).map_err(|_| Refused::Request)?;
        Ok(Self { search, values })
    }

    /// The text with its words swapped; nothing if it has none.
    fn apply(&self, text: &[u8], most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, TooLong> {
        let value = |found: &aho_corasick::Match| self.values.get(found.pattern().as_usize()).map_or("", |text| text);
        let (mut length, mut found_any) = (text.len(), false);
        for found in self.search.find_iter(text) {
            length = length - found.len() + value(&found).len();
            found_any = true;
        }
        if !found_any {
            return Ok(None);
        }
        if length > most {
            return Err(TooLong);
        }
        let mut swapped = Zeroizing::new(Vec::with_capacity(length));
        self.search.replace_all_with_bytes(text, &mut swapped, |found, _, into| {
            into.extend_from_slice(value(found).as_bytes());
            true
        });
        Ok(Some(swapped))
    }

    /// A header's text with its words swapped, also within the pair of `Basic`.
    fn header(&self, text: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, TooLong> {
        let Searched::Pair(pair) = searched(text) else { return self.apply(text, LARGEST_TEXT) };
        let pair = self.apply(&pair, LARGEST_TEXT)?;
        Ok(pair.map(|pair| Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)).into_bytes())))
    }
}

fn swap_headers(words: &[Word<'_>], values: &Values, parts: &mut Parts) -> Result<(), Refused> {
    let written = words.iter().flat_map(|word| &word.rule.headers);
    let names: BTreeSet<String> = written.map(|name| name.to_ascii_lowercase()).collect();
    for name in names {
        let searched = |word: &&Word<'_>| word.rule.headers.iter().any(|other| other.eq_ignore_ascii_case(&name));
        let pair =
            |word: &Word<'_>| Ok((word.text.to_owned(), Zeroizing::new(values.of(&word.rule.value.0)?.to_owned())));
        let pairs = words.iter().filter(searched).map(pair).collect::<Result<Vec<_>, Refused>>()?;
        let swap = Swap::of(pairs.iter().map(|(word, value)| (word.as_str(), value.clone())))?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Refused::Request)?;
        let header::Entry::Occupied(mut entry) = parts.headers.entry(name) else { continue };
        for written in entry.iter_mut() {
            let Some(text) = swap.header(written.as_bytes()).map_err(|TooLong| Refused::Request)? else { continue };
            // A line's end in a secret would begin another header; it is no value.
            *written = HeaderValue::from_bytes(&text).map_err(|_| Refused::Secret)?;
            written.set_sensitive(true);
        }
    }
    Ok(())
}

/// A query whose words are swapped in the parameters in which their rules look for them.
fn swap_query(words: &[Word<'_>], values: &Values, query: &str) -> Result<String, Refused> {
    let mut swaps: BTreeMap<Vec<usize>, Swap> = BTreeMap::new();
    let mut swapped = String::with_capacity(query.len());
    for (number, piece) in query.split('&').enumerate() {
        if number > 0 {
            swapped.push('&');
        }
        let (key, text) = piece.split_once('=').unwrap_or((piece, ""));
        let is_here =
            |(_, word): &(usize, &Word<'_>)| text.contains(word.text) && query::is_one_of(key, &word.rule.query);
        let here: Vec<usize> = words.iter().enumerate().filter(is_here).map(|(at, _)| at).collect();
        if here.is_empty() {
            swapped.push_str(piece);
            continue;
        }
        let swap = match swaps.entry(here) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let of = new.key().iter().filter_map(|at| words.get(*at));
                let pair = |word: &Word<'_>| {
                    Ok((word.text.to_owned(), Zeroizing::new(query::escaped(values.of(&word.rule.value.0)?))))
                };
                let pairs = of.map(pair).collect::<Result<Vec<_>, Refused>>()?;
                new.insert(Swap::of(pairs.iter().map(|(word, value)| (word.as_str(), value.clone())))?)
            }
        };
        let room = LARGEST_TEXT.saturating_sub(swapped.len());
        let text = swap.apply(text.as_bytes(), room).map_err(|TooLong| Refused::Request)?.ok_or(Refused::Request)?;
        swapped.push_str(key);
        swapped.push('=');
        swapped.push_str(std::str::from_utf8(&text).map_err(|_| Refused::Request)?);
    }
    Ok(swapped)
}

fn header_value(text: &HeaderText, values: &Values) -> Result<HeaderValue, Refused> {
    let written = Zeroizing::new(match text {
        HeaderText::Literal(text) => return HeaderValue::from_str(text).map_err(|_| Refused::Request),
        HeaderText::Secret(None, name) => values.of(name)?.to_owned(),
        HeaderText::Secret(Some(scheme), name) => format!("{scheme} {}", values.of(name)?),
        HeaderText::Basic(user, name) => {
            let pair = Zeroizing::new(format!("{user}:{}", values.of(name)?));
            format!("Basic {}", STANDARD.encode(pair.as_bytes()))
        }
    });
    let mut value = HeaderValue::from_str(&written).map_err(|_| Refused::Secret)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Swaps the words of a body, in the spelling that its kind has for what stands in it.
fn swap_body(words: &[Word<'_>], values: &Values, parts: &Parts, bytes: Bytes) -> Result<Bytes, Refused> {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let searched = words.iter().filter(|word| word.rule.body == BodySearch::Whole);
    let pair =
        |word: &Word<'_>| Ok((word.text.to_owned(), Zeroizing::new(spelled(kind, values.of(&word.rule.value.0)?))));
    let pairs = searched.map(pair).collect::<Result<Vec<_>, Refused>>()?;
    let swap = Swap::of(pairs.iter().map(|(word, value)| (word.as_str(), value.clone())))?;
    let mut swapped = swap.apply(&bytes, LARGEST_SWAPPED).map_err(|TooLong| Refused::BodyTooLarge)?;
    Ok(swapped.as_mut().map_or(bytes, |swapped| Bytes::from(std::mem::take(&mut **swapped))))
}

/// A value as it stands within a text of a kind.
fn spelled(kind: &str, value: &str) -> String {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/x-www-form-urlencoded" {
        return query::escaped(value);
    }
    if kind != "application/json" && !kind.ends_with("+json") {
        return value.to_owned();
    }
    let letter = |letter: char| match letter {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        letter if u32::from(letter) < 0x20 => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    };
    value.chars().map(letter).collect()
}

fn sign(
    rule: &SigV4,
    values: &Values,
    to: &Uri,
    query: &str,
    parts: &mut Parts,
    body: &Outward,
) -> Result<String, Refused> {
    let access_key = values.text(&rule.access_key)?;
    let session_token = rule.session_token.as_ref().map(|token| values.of(&token.0)).transpose()?;
    let keys = Keys { access_key: &access_key, secret_key: values.of(&rule.secret_key.0)?, session_token };
    let unsigned = Unsigned {
        method: parts.method.as_str(),
        authority: to.authority().map(http::uri::Authority::as_str).unwrap_or_default(),
        path: parts.uri.path(),
        query,
        body: body.bytes(),
    };
    sigv4::sign(rule, &keys, &unsigned, &mut parts.headers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn g04_a_word_is_swapped_within_the_pair_of_basic_as_well() {
        let swap = swap(&[("bwp_1", "s3:cret")]);
        let swapped = |text: &str| {
            let swapped = swap.header(text.as_bytes()).ok().unwrap();
            swapped.map(|text| String::from_utf8(text.to_vec()).unwrap())
        };
        assert_eq!(swapped("Bearer bwp_1").as_deref(), Some("Bearer s3:cret"));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(swapped(&basic("me:bwp_1")), Some(basic("me:s3:cret")));
        assert_eq!(swapped(&basic("me:bwp_1").replace("Basic", "bASIC")), Some(basic("me:s3:cret")));
        for none in ["Bearer bwp_2", "Basic bwp_1", &basic("me:other"), "Basic", ""] {
            assert_eq!(swapped(none), None, "{none}");
        }
    }

    fn swap(pairs: &[(&str, &str)]) -> Swap {
        Swap::of(pairs.iter().map(|(word, value)| (*word, Zeroizing::new((*value).to_owned())))).ok().unwrap()
    }

    #[test]
    fn g04_what_a_value_brings_along_is_not_swapped_and_nothing_grows_without_bounds() {
        // The value of the one is the word of the other, again and again.
        let (words, much) = ("bwp_2".repeat(4000), "x".repeat(16 << 10));
        let swap = swap(&[("bwp_1", &words), ("bwp_2", &much)]);
        let once = swap.apply(b"a bwp_1 b", LARGEST_TEXT).ok().unwrap().unwrap();
        assert_eq!(*once, format!("a {words} b").into_bytes());
        let text = "bwp_1".repeat(2000) + "bwp_2";
        assert!(swap.apply(text.as_bytes(), LARGEST_TEXT).is_err());
        assert!(swap.header(format!("Basic {}", STANDARD.encode(&text)).as_bytes()).is_err());
        assert!(swap.apply(b"nothing", 3).is_ok(), "what is not swapped has another limit");
    }

    #[test]
    fn g04_a_word_is_swapped_in_the_parameters_that_are_named_and_in_no_others() {
        let placeholder = |text: &str| serde_json::from_str::<Placeholder>(text).unwrap();
        let one = placeholder(r#"{ "env": "ONE", "value": "secret:one", "queryString": ["key"] }"#);
        let two = placeholder(r#"{ "env": "TWO", "value": "secret:two", "queryString": ["key", "q"] }"#);
        let words = [Word { rule: &one, text: "bwp_1" }, Word { rule: &two, text: "bwp_2" }];
        let held = |value: &str| Arc::new(Held::of(value));
        // What the one brings along looks like the other.
        let values = [("one", "s&bwp_2"), ("two", "t")].map(|(name, value)| (name.parse().unwrap(), held(value)));
        let values = Values(BTreeMap::from(values));
        for (query, becomes) in [
            ("key=bwp_1&q=bwp_1", "key=s%26bwp_2&q=bwp_1"),
            ("q=bwp_2&key=a-bwp_1-bwp_2", "q=t&key=a-s%26bwp_2-t"),
            ("%6bey=bwp_1", "%6bey=s%26bwp_2"),
            ("bwp_1=key&x", "bwp_1=key&x"),
            ("", ""),
        ] {
            assert_eq!(swap_query(&words, &values, query).ok().unwrap(), becomes, "{query}");
        }
        let query = format!("key={}", "bwp_1".repeat(6000));
        assert!(matches!(swap_query(&words, &values, &query), Err(Refused::Request)));
    }

    #[test]
    fn g04_a_value_is_spelled_as_the_kind_of_a_body_wants_it() {
        let value = "a\"b\\c&d=e";
        for (kind, text) in [
            ("application/json; charset=utf-8", r#"a\"b\\c&d=e"#),
            ("application/vnd.api+json", r#"a\"b\\c&d=e"#),
            ("application/x-www-form-urlencoded", "a%22b%5Cc%26d%3De"),
            ("text/plain", value),
            ("", value),
        ] {
            assert_eq!(spelled(kind, value), text, "{kind}");
        }
    }
}
