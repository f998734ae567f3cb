//! Secrets in answers: what a host sends back of what it was sent is blanked out before it reaches the sandbox.
//!
//! The value is looked for as it is and in the spellings in which programs print what they got: base64 (RFC 4648,
//! both alphabets, at any place within a longer text, also with the escapes of JSON or of a query), hexadecimal,
//! percent-encoding and the escapes of JSON. A
//! host that wants to tell can tell in other ways: a host that gets a secret is one that the secret's owner trusts.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use zeroize::Zeroizing;

/// Spellings shorter than this are not looked for; they would be in everything.
const SHORTEST: usize = 6;

/// The spellings of one secret.
pub(crate) struct Echo {
    spellings: Vec<Zeroizing<Vec<u8>>>,
}

impl Echo {
    pub(crate) fn of(value: &str) -> Self {
        let mut all: BTreeSet<Vec<u8>> = BTreeSet::new();
        let bytes = value.as_bytes();
        all.insert(bytes.to_vec());
        for skipped in 0..3_usize {
            // Base64 of a longer text that has the value in it: letters that stand for its bytes alone, for each
            // of the three places where it can begin within a group.
            let mut padded = vec![0; skipped];
            padded.extend_from_slice(bytes);
            let from = (skipped * 8).div_ceil(6);
            let to = padded.len() * 8 / 6;
            for text in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
                let Some(text) = text.get(from..to) else { continue };
                // Within JSON and within a query.
                let (upper, lower) = (text.replace('+', "%2B").replace('/', "%2F"), text.replace('+', "%2b"));
                let spelled = [text.replace('/', "\\/"), lower.replace('/', "%2f"), upper, text.to_owned()];
                all.extend(spelled.into_iter().map(String::into_bytes));
            }
        }
        let hex = |upper: bool| -> String {
            bytes.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
        };
        all.extend([hex(false).into_bytes(), hex(true).into_bytes()]);
        let escaped = |plain: fn(u8) -> bool, upper: bool| -> String {
            bytes
                .iter()
                .map(|byte| match byte {
                    byte if plain(*byte) => char::from(*byte).to_string(),
                    byte if upper => format!("%{byte:02X}"),
                    byte => format!("%{byte:02x}"),
                })
                .collect()
        };
        for plain in [
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte),
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:@!$'()*+,;=".contains(&byte),
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte),
        ] {
            all.extend([escaped(plain, false).into_bytes(), escaped(plain, true).into_bytes()]);
        }
        let json = |slash: &str, unicode: bool| -> String {
            value
                .chars()
                .map(|letter| match letter {
                    '"' => "\\\"".to_owned(),
                    '\\' => "\\\\".to_owned(),
                    '/' => slash.to_owned(),
                    letter @ ('<' | '>' | '&' | '\'') if unicode => format!("\\u{:04x}", u32::from(letter)),
                    letter => letter.to_string(),
                })
                .collect()
        };
        all.extend([json("/", false).into_bytes(), json("\\/", false).into_bytes(), json("/", true).into_bytes()]);
        let html: String = value
            .chars()
            .map(|letter| match letter {
                '&' => "&amp;".to_owned(),
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                '"' => "&quot;".to_owned(),
                '\'' => "&#39;".to_owned(),
                letter => letter.to_string(),
            })
            .collect();
        all.insert(html.into_bytes());
        Self { spellings: all.into_iter().filter(|text| text.len() >= SHORTEST).map(Zeroizing::new).collect() }
    }
}

/// A search for several secrets at once, in all their spellings.
pub(crate) struct Echoes {
    search: AhoCorasick,
    longest: usize,
}

impl Echoes {
    /// # Errors
    /// If there are too many spellings for a search, which cannot be.
    pub(crate) fn of<'e>(secrets: impl Iterator<Item = &'e Echo>) -> Result<Self, aho_corasick::BuildError> {
        let all: BTreeSet<&[u8]> =
            secrets.flat_map(|echo| &echo.spellings).map(|spelling| spelling.as_slice()).collect();
        // How many bytes at the end may be the beginning of a spelling: always as many, whatever they are. Who saw
        // that some bytes are held back, and others are not, would learn the secret letter by letter.
        let longest = all.iter().map(|spelling| spelling.len() - 1).max().unwrap_or(0);
        let search = AhoCorasick::builder()
            // A table would have megabytes for a long value.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::Standard)
            .build(all)?;
        Ok(Self { search, longest })
    }

    /// Where something is. All of it: of two secrets that overlap, or of which one begins another, nothing is left.
    fn found(&self, text: &[u8]) -> Vec<Range<usize>> {
        self.search.find_overlapping_iter(text).map(|found| found.range()).collect()
    }
}

fn fill(text: &mut [u8], range: Range<usize>) {
    let end = range.end.min(text.len());
    if let Some(place) = text.get_mut(range.start..end) {
        place.fill(b'*');
    }
}

/// Blanks out every secret in the text of headers.
pub(crate) fn blank_headers(echoes: &Echoes, headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let found = echoes.found(value.as_bytes());
        if !found.is_empty() {
            let mut text = value.as_bytes().to_vec();
            found.into_iter().for_each(|range| fill(&mut text, range));
            // Stars in the place of what was valid are valid.
            *value = HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("*"));
        }
    }
}

/// Blanks out secrets in a stream of bytes that comes in pieces. As long as before, so that no length that was
/// announced becomes wrong.
pub(crate) struct Blanking {
    echoes: Arc<Echoes>,
    /// As it came: what is blanked could not be found again as part of something longer.
    kept: BytesMut,
    /// How much of its beginning belongs to something whose beginning was given.
    owed: usize,
}

impl Blanking {
    pub(crate) fn new(echoes: Arc<Echoes>) -> Self {
        Self { echoes, kept: BytesMut::new(), owed: 0 }
    }

    /// Takes a piece, and gives what cannot be part of a secret any more.
    pub(crate) fn pass(&mut self, piece: &[u8]) -> Bytes {
        self.kept.extend_from_slice(piece);
        self.give(self.kept.len().saturating_sub(self.echoes.longest))
    }

    /// Whether nothing is held back.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What is left at the end, or after a pause.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.give(self.kept.len())
    }

    fn give(&mut self, length: usize) -> Bytes {
        let found = self.echoes.found(&self.kept);
        let mut given = self.kept.split_to(length);
        let mut owed = self.owed;
        for range in found.into_iter().filter(|range| range.start < length) {
            owed = owed.max(range.end);
            fill(&mut given, range);
        }
        fill(&mut given, 0..self.owed);
        self.owed = owed.saturating_sub(length);
        given.freeze()
    }
}

/// How long the end of a stream is held back while nothing comes after it: a message may be whole, and its reader may
/// be waited for.
pub(crate) const QUIET: Duration = Duration::from_millis(20);

/// A body without secrets.
pub(crate) struct Blanked<B> {
    inner: B,
    /// Runs while something is held back and nothing comes.
    quiet: Option<Pin<Box<Sleep>>>,
    blanking: Blanking,
    /// What comes after the rest: trailers, or the end.
    after: Option<After>,
}

enum After {
    Trailers(HeaderMap),
    End,
}

impl<B> Blanked<B> {
    pub(crate) fn new(inner: B, echoes: Arc<Echoes>) -> Self {
        Self { inner, quiet: None, blanking: Blanking::new(echoes), after: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Blanked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        loop {
            match self.after.take() {
                Some(After::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(After::End) => {
                    self.after = Some(After::End);
                    return Poll::Ready(None);
                }
                None => {}
            }
            let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending if self.blanking.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let quiet = self.quiet.get_or_insert_with(|| Box::pin(tokio::time::sleep(QUIET)));
                    ready!(quiet.as_mut().poll(cx));
                    self.quiet = None;
                    return Poll::Ready(Some(Ok(Frame::data(self.blanking.rest()))));
                }
                Poll::Ready(frame) => {
                    self.quiet = None;
                    frame.transpose()?
                }
            };
            let given = match frame.map(Frame::into_data) {
                Some(Ok(data)) => self.blanking.pass(&data),
                Some(Err(other)) => {
                    let Ok(mut trailers) = other.into_trailers() else { continue };
                    blank_headers(&self.blanking.echoes, &mut trailers);
                    self.after = Some(After::Trailers(trailers));
                    self.blanking.rest()
                }
                None => {
                    self.after = Some(After::End);
                    self.blanking.rest()
                }
            };
            if !given.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(given))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.blanking.kept.is_empty() && (matches!(self.after, Some(After::End)) || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.blanking.kept.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + kept);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    const VALUE: &str = "ghp_S3cr/t+\"value\"<&>16";

    fn search(values: &[&str]) -> Arc<Echoes> {
        let all: Vec<Echo> = values.iter().map(|value| Echo::of(value)).collect();
        Arc::new(Echoes::of(all.iter()).unwrap())
    }

    fn through(value: &str, text: &[u8], pieces: &[usize]) -> Vec<u8> {
        let mut blanking = Blanking::new(search(&[value]));
        let mut rest = text;
        let mut out = Vec::new();
        for piece in pieces {
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            out.extend_from_slice(&blanking.pass(now));
            rest = later;
        }
        out.extend_from_slice(&blanking.pass(rest));
        out.extend_from_slice(&blanking.rest());
        out
    }

    #[test]
    fn g06_a_secret_does_not_come_back_in_any_usual_spelling() {
        let json = serde_json::to_string(VALUE).unwrap();
        let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("k", VALUE).finish();
        let hex: String = VALUE.bytes().map(|byte| format!("{byte:02x}")).collect();
        for spelling in [VALUE.to_owned(), json.trim_matches('"').to_owned(), form.replace("k=", ""), hex] {
            let text = format!("before {spelling} after");
            let out = String::from_utf8(through(VALUE, text.as_bytes(), &[9, 3])).unwrap();
            assert_eq!(out, format!("before {} after", "*".repeat(spelling.len())));
        }
        for user in ["u:", "xx:", "abc:", ""] {
            for after in ["", "!", "!!"] {
                let whole = format!("{user}{VALUE}{after}");
                for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
                    let out = String::from_utf8(through(VALUE, text.as_bytes(), &[5])).unwrap();
                    assert_eq!(out.len(), text.len());
                    let left = out.bytes().filter(|byte| *byte != b'*').count();
                    assert!(left <= 12 && out.contains("********"), "{text} {out}");
                    let decoded = STANDARD.decode(out.replace('*', "A")).unwrap_or_default();
                    assert!(!String::from_utf8_lossy(&decoded).contains("S3cr"));
                }
            }
        }
        assert_eq!(through(VALUE, b"ghp_S3cr but no more", &[4]), b"ghp_S3cr but no more");
    }

    #[test]
    fn g06_base64_is_found_within_the_escapes_of_json_and_of_a_query() {
        // Letters whose base64 has both letters that are escaped, at each of the three places.
        let value = "?~?~?~?~?~?~";
        for user in ["", "u", "us"] {
            let plain = STANDARD.encode(format!("{user}{value}"));
            assert!(plain.contains('/') && plain.contains('+'), "{plain}");
            let json = plain.replace('/', "\\/");
            let query: String = form_urlencoded::byte_serialize(plain.as_bytes()).collect();
            for text in [json, query.replace("%2F", "%2f").replace("%2B", "%2b"), query, plain] {
                let out = String::from_utf8(through(value, text.as_bytes(), &[7])).unwrap();
                let left = out.bytes().filter(|byte| *byte != b'*').count();
                assert!(out.len() == text.len() && left <= 12, "{text} {out}");
            }
        }
    }

    #[test]
    fn g06_of_secrets_that_begin_or_overlap_each_other_nothing_is_left() {
        let (short, long, across) = ("token-one", "token-one-and-more", "more-of-it-all");
        let echoes = search(&[short, long, across]);
        let text = format!("a {long} b {short} c token-one-and-more-of-it-all d");
        let wanted = format!("a {} b {} c {} d", "*".repeat(18), "*".repeat(9), "*".repeat(28));
        for cut in 0..text.len() {
            let mut blanking = Blanking::new(Arc::clone(&echoes));
            let (first, second) = text.as_bytes().split_at(cut);
            let mut out = blanking.pass(first).to_vec();
            out.extend_from_slice(&blanking.pass(second));
            out.extend_from_slice(&blanking.rest());
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{cut}");
        }
        // Byte by byte.
        let mut blanking = Blanking::new(Arc::clone(&echoes));
        let mut out: Vec<u8> = text.bytes().flat_map(|byte| blanking.pass(&[byte]).to_vec()).collect();
        out.extend_from_slice(&blanking.rest());
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
        let mut headers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_str(&text).unwrap())]);
        blank_headers(&echoes, &mut headers);
        assert_eq!(headers[http::header::ETAG], wanted.as_str());
    }

    #[test]
    fn g06_what_is_held_back_tells_nothing_of_the_secret() {
        let given = |text: &str| {
            let mut blanking = Blanking::new(search(&[VALUE]));
            blanking.pass(format!("{}{text}", "x".repeat(300)).as_bytes()).len()
        };
        // A guess that is right so far, one that is wrong, and one in another spelling.
        assert_eq!(given("ghp_S3cr"), given("ghp_S3cx"));
        assert_eq!(given("6768705f"), given("6768705e"));
        assert_eq!(given("g"), given("h"));
    }

    proptest! {
        #[test]
        fn g06_where_a_text_is_cut_changes_nothing(
            value in "[a-z]{6,10}", around in "[a-z]{0,12}", cuts in proptest::collection::vec(0_usize..20, 0..6),
        ) {
            let text = format!("{around}{value}{around}{value}");
            let whole = through(&value, text.as_bytes(), &[]);
            prop_assert_eq!(&through(&value, text.as_bytes(), &cuts), &whole);
            prop_assert!(!String::from_utf8(whole).unwrap().contains(&value));
        }
    }
}
