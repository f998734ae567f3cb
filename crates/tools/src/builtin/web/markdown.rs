//! HTML as Markdown: what a reader sees of a page, without what moves it.
//!
//! Token by token and without a tree, so that a page cannot be nested deeper than there is stack. What is written is
//! for models and people to read, and is never rendered: nothing is escaped.

use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use url::Url;

/// What becomes of links.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// They are written with where they lead.
    Kept,
    /// Their text alone is.
    Left,
}

/// Elements whose content nobody reads.
const UNSEEN: &[&str] = &[
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "head", "select", "audio", "video",
    "canvas", "textarea",
];

/// Elements that begin a paragraph of their own, and end one.
const BLOCKS: &[&str] = &[
    "p",
    "div",
    "section",
    "article",
    "header",
    "footer",
    "main",
    "nav",
    "aside",
    "ul",
    "ol",
    "dl",
    "table",
    "blockquote",
    "form",
    "figure",
    "figcaption",
    "address",
    "fieldset",
    "details",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "body",
];

/// Deepest list that is indented further.
const DEEPEST: usize = 8;

/// Longest address of a link that is written.
const LONGEST: usize = 500;

/// What a reader sees of a page. Addresses are made whole by the page's own.
pub(super) fn of_html(html: &str, base: &Url, links: Links) -> String {
    let mut page = Page {
        links,
        base,
        out: String::new(),
        gap: Gap::None,
        unseen: None,
        raw: 0,
        lists: Vec::new(),
        fresh: false,
        link: None,
    };
    let mut emitter = DefaultEmitter::default();
    // What is within scripts, styles and the like is no markup.
    emitter.naively_switch_states(true);
    for token in Tokenizer::new_with_emitter(html, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => page.open(&tag),
            Token::EndTag(tag) => page.close(&String::from_utf8_lossy(&tag.name)),
            Token::String(text) => page.text(&String::from_utf8_lossy(&text)),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    page.out.truncate(page.out.trim_end().len());
    page.out
}

/// What stands between what was written and what comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    Line,
    Paragraph,
}

struct Page<'a> {
    links: Links,
    base: &'a Url,
    out: String,
    gap: Gap,
    /// The element that is not seen, and how often it is open.
    unseen: Option<(String, usize)>,
    /// How many elements are open that keep their spaces.
    raw: usize,
    /// Open lists: the next number of those that are numbered.
    lists: Vec<Option<usize>>,
    /// Whether a mark was just written whose text is still to come: that one begins no paragraph.
    fresh: bool,
    /// The open link: where its text begins, and where it leads.
    link: Option<(usize, Url)>,
}

impl Page<'_> {
    fn open(&mut self, tag: &StartTag<()>) {
        let name = &*String::from_utf8_lossy(&tag.name);
        if let Some((unseen, depth)) = &mut self.unseen {
            *depth += usize::from(unseen == name && !tag.self_closing);
            return;
        }
        if UNSEEN.contains(&name) {
            if !tag.self_closing {
                self.unseen = Some((name.to_owned(), 1));
            }
            return;
        }
        match name {
            "br" => self.want(Gap::Line),
            "hr" => self.block("---"),
            "li" => {
                let depth = self.lists.len().clamp(1, DEEPEST) - 1;
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}{}. ", "  ".repeat(depth), *number - 1)
                    }
                    _ => format!("{}- ", "  ".repeat(depth)),
                };
                self.fresh = false;
                self.want(Gap::Line);
                self.write(&mark);
                self.fresh = true;
            }
            "ul" | "ol" => {
                self.want(if self.lists.is_empty() { Gap::Paragraph } else { Gap::Line });
                // Deeper ones are counted no further: whoever closes them closes those that are there.
                if self.lists.len() < 64 {
                    self.lists.push((name == "ol").then_some(1));
                }
            }
            "tr" | "dt" | "option" => self.want(Gap::Line),
            "td" | "th" if !self.at_line_start() => self.write(" | "),
            "dd" => {
                self.want(Gap::Line);
                self.write("  ");
            }
            "pre" => {
                self.block("```");
                self.gap = Gap::Line;
                self.raw += 1;
            }
            "code" | "kbd" | "samp" if self.raw == 0 => self.write("`"),
            "strong" | "b" if self.links == Links::Kept => self.write("**"),
            "img" => {
                let alternative = attribute(tag, "alt").unwrap_or_default();
                if !alternative.trim().is_empty() {
                    self.text(&format!("[image: {}]", alternative.trim()));
                }
            }
            "a" if self.links == Links::Kept => {
                let leads = attribute(tag, "href").and_then(|href| self.base.join(href.trim()).ok());
                let leads = leads.filter(|url| matches!(url.scheme(), "http" | "https" | "mailto"));
                self.finish_link();
                if let Some(url) = leads.filter(|url| url.as_str().len() <= LONGEST) {
                    self.write("[");
                    self.link = Some((self.out.len(), url));
                }
            }
            "blockquote" => self.block("> "),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                let level = name.get(1..).and_then(|level| level.parse().ok()).unwrap_or(1);
                self.block(&format!("{} ", "#".repeat(level)));
            }
            _ if BLOCKS.contains(&name) => self.want(Gap::Paragraph),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        if let Some((unseen, depth)) = &mut self.unseen {
            *depth -= usize::from(unseen == name);
            if *depth == 0 {
                self.unseen = None;
            }
            return;
        }
        match name {
            "a" => self.finish_link(),
            "ul" | "ol" => {
                self.lists.pop();
                self.want(if self.lists.is_empty() { Gap::Paragraph } else { Gap::Line });
            }
            "pre" if self.raw > 0 => {
                self.raw -= 1;
                self.want(Gap::Line);
                self.write("```");
                self.want(Gap::Paragraph);
            }
            "code" | "kbd" | "samp" if self.raw == 0 => self.mark("`"),
            "strong" | "b" if self.links == Links::Kept => self.mark("**"),
            _ if BLOCKS.contains(&name) => self.want(Gap::Paragraph),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if self.unseen.is_some() {
            return;
        }
        if self.raw > 0 {
            self.fill();
            self.out.push_str(text);
            return;
        }
        for (n, word) in text.split(|letter: char| letter.is_ascii_whitespace()).enumerate() {
            if n > 0 {
                self.want(Gap::Space);
            }
            if !word.is_empty() {
                self.write(word);
            }
        }
    }

    /// Ends the open link; one without text leaves nothing.
    fn finish_link(&mut self) {
        if let Some((begin, url)) = self.link.take() {
            if self.out.get(begin..).is_none_or(|text| text.trim().is_empty()) {
                self.out.truncate(begin - 1);
            } else {
                self.mark(&format!("]({url})"));
            }
        }
    }

    /// Begins a block with this.
    fn block(&mut self, text: &str) {
        self.fresh = false;
        self.want(Gap::Paragraph);
        self.write(text);
        match text.ends_with(' ') {
            true => self.fresh = true,
            false => self.want(Gap::Paragraph),
        }
    }

    fn at_line_start(&self) -> bool {
        self.gap >= Gap::Line || self.out.is_empty() || self.out.ends_with('\n')
    }

    fn want(&mut self, gap: Gap) {
        if !self.fresh {
            self.gap = self.gap.max(gap);
        }
    }

    /// Writes what stands in between.
    fn fill(&mut self) {
        let between = match std::mem::replace(&mut self.gap, Gap::None) {
            Gap::Space if !self.out.ends_with([' ', '\n']) => " ",
            Gap::Line => "\n",
            Gap::Paragraph => "\n\n",
            Gap::None | Gap::Space => "",
        };
        if !self.out.is_empty() {
            self.out.push_str(between);
        }
    }

    fn write(&mut self, text: &str) {
        self.fill();
        self.out.push_str(text);
        self.fresh = false;
    }

    /// Writes right behind what was written: an ending mark.
    fn mark(&mut self, text: &str) {
        self.out.push_str(text);
    }
}

fn attribute(tag: &StartTag<()>, name: &str) -> Option<String> {
    tag.attributes.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn shown(html: &str) -> String {
        of_html(html, &Url::parse("https://docs.example/guide/one").unwrap(), Links::Kept)
    }

    #[test]
    fn a_page_is_read_as_a_reader_sees_it() {
        let page = "<!doctype html><html><head><title>T</title><style>p{}</style></head><body><h2>Set\n up</h2>\
            <p>Run <code>make</code>, then <b>wait</b>.<br>See <a href='../two?x=1#y'>the\n next</a> page.</p>\
            <ul><li>one<li>two<ol><li>deep</ol></ul><pre><code>a  b\n  c</code></pre>\
            <table><tr><th>k<th>v<tr><td>1<td>2</table><script>if (a < b) { alert('<p>no') }</script><img alt='A boat' src=x>";
        assert_eq!(
            shown(page),
            "## Set up\n\nRun `make`, then **wait**.\nSee [the next](https://docs.example/two?x=1#y) page.\n\n- one\n- two\n  \
             1. deep\n\n```\na  b\n  c\n```\n\nk | v\n1 | 2\n\n[image: A boat]"
        );
        let plain = of_html("<a href=/x>here</a> <b>now</b>", &Url::parse("https://a.example").unwrap(), Links::Left);
        assert_eq!(plain, "here now");
    }

    #[test]
    fn links_that_lead_nowhere_are_text_and_entities_are_letters() {
        assert_eq!(shown("<a href='javascript:alert(1)'>x</a> &amp; &lt;b&gt; <a href='/y'></a>z"), "x & <b> z");
    }

    #[test]
    fn hostile_pages_end() {
        for piece in [
            "<ul><li>",
            "<div>",
            "<pre>",
            "<a href=x>",
            "<script>",
            "</ul></pre></a>",
            "<blockquote>",
            "<",
            "&",
            "<svg>",
        ] {
            let page = piece.repeat(200_000);
            assert!(shown(&page).len() < 40_000_000);
        }
    }
}
