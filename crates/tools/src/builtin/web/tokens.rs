//! The tokens of HTML, as far as reading a page needs them: tags with their attributes, and text (WHATWG HTML,
//! section 13.2.5, without its error cases: what is no tag is text). Linear in the page's length.

use std::borrow::Cow;

/// A token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `<name …>`.
    Open(Tag<'a>),
    /// `</name>`.
    Close(String),
    /// Text, with its character references resolved.
    Text(Cow<'a, str>),
}

/// A start tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    /// In small letters.
    pub(super) name: String,
    /// Whether it ends itself.
    pub(super) empty: bool,
    attributes: &'a str,
}

impl Tag<'_> {
    /// The value of an attribute, of several the first.
    pub(super) fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.attributes;
        loop {
            rest = rest.trim_start_matches(|letter: char| letter.is_ascii_whitespace() || letter == '/');
            if rest.is_empty() {
                return None;
            }
            // The first letter may be anything, even `=`.
            let end = rest
                .char_indices()
                .skip(1)
                .find(|(_, letter)| letter.is_ascii_whitespace() || matches!(letter, '=' | '/'));
            let (name, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
            let value_at = after.trim_start();
            let (value, after) = match value_at.strip_prefix('=') {
                None => ("", after),
                Some(value) => {
                    let value = value.trim_start();
                    match value.chars().next() {
                        Some(quote @ ('"' | '\'')) => {
                            let inner = value.get(1..).unwrap_or_default();
                            inner.split_once(quote).unwrap_or((inner, ""))
                        }
                        _ => value
                            .split_at(value.find(|letter: char| letter.is_ascii_whitespace()).unwrap_or(value.len())),
                    }
                }
            };
            if name.eq_ignore_ascii_case(wanted) {
                return Some(resolved(value).into_owned());
            }
            rest = after;
        }
    }
}

/// Elements whose content is text until their own end tag.
const RAW: [&str; 8] = ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"];

/// The tokens of a page.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    /// The element whose end tag is waited for.
    raw: Option<String>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(page: &'a str) -> Self {
        Self { rest: page, raw: None }
    }

    fn text(&mut self, length: usize) -> Token<'a> {
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        Token::Text(resolved(text))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            if let Some(name) = self.raw.take() {
                let end = end_of(self.rest, &name);
                if end > 0 {
                    return Some(self.text(end));
                }
                continue;
            }
            let Some(after) = self.rest.strip_prefix('<') else {
                return Some(self.text(self.rest.find('<').unwrap_or(self.rest.len())));
            };
            if let Some(comment) = after.strip_prefix("!--") {
                self.rest = comment.find("-->").map_or("", |at| &comment[at + 3..]);
            } else if after.starts_with(['!', '?']) {
                self.rest = after.find('>').map_or("", |at| &after[at + 1..]);
            } else if let Some(name) =
                after.strip_prefix('/').filter(|name| name.starts_with(|letter: char| letter.is_ascii_alphabetic()))
            {
                let (inside, rest) = tag(name);
                self.rest = rest;
                return Some(Token::Close(named(inside).0));
            } else if after.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
                let (inside, rest) = tag(after);
                self.rest = rest;
                let (name, attributes) = named(inside);
                let empty = attributes.ends_with('/');
                if RAW.contains(&name.as_str()) && !rest.is_empty() {
                    self.raw = Some(name.clone());
                }
                return Some(Token::Open(Tag { name, empty, attributes }));
            } else {
                let end = after.find('<').map_or(self.rest.len(), |at| at + 1);
                return Some(self.text(end));
            }
        }
    }
}

/// What is inside of a tag, and what comes behind it. A `>` in quotes does not end it.
fn tag(text: &str) -> (&str, &str) {
    let mut quote = None;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, '>') => return (&text[..at], &text[at + 1..]),
            // A quote opens a value, and nothing else.
            (None, '"' | '\'') if before == '=' => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
        if !letter.is_ascii_whitespace() {
            before = letter;
        }
    }
    (text, "")
}

fn named(inside: &str) -> (String, &str) {
    let end = inside.find(|letter: char| letter.is_ascii_whitespace() || letter == '/').unwrap_or(inside.len());
    let (name, attributes) = inside.split_at(end);
    (name.to_ascii_lowercase(), attributes)
}

/// Where an element's end tag begins; the end of the page, if it has none.
fn end_of(page: &str, name: &str) -> usize {
    let mut from = 0;
    while let Some(at) = page.get(from..).and_then(|rest| rest.find("</")) {
        let begin = from + at;
        let behind = page.get(begin + 2..begin + 2 + name.len());
        if behind.is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return begin;
        }
        from = begin + 2;
    }
    page.len()
}

/// Text with its character references resolved (section 13.2.5.72): those by number, and the names that people write.
fn resolved(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let end = after.char_indices().take(12).find(|(_, letter)| *letter == ';').map(|(at, _)| at);
        let letter = end.and_then(|end| reference(after.get(..end)?));
        match (letter, end) {
            (Some(letter), Some(end)) => {
                out.push(letter);
                rest = after.get(end + 1..).unwrap_or_default();
            }
            _ => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn reference(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code).filter(|letter| *letter != '\0');
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "hellip" => '…',
        "mdash" => '—',
        "ndash" => '–',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "laquo" => '«',
        "raquo" => '»',
        "bull" => '•',
        "middot" => '·',
        "times" => '×',
        "rarr" => '→',
        "larr" => '←',
        "deg" => '°',
        "euro" => '€',
        "sect" => '§',
        "para" => '¶',
        "auml" => 'ä',
        "ouml" => 'ö',
        "uuml" => 'ü',
        "Auml" => 'Ä',
        "Ouml" => 'Ö',
        "Uuml" => 'Ü',
        "szlig" => 'ß',
        "eacute" => 'é',
        "egrave" => 'è',
        "agrave" => 'à',
        "ccedil" => 'ç',
        _ => return None,
    })
}
