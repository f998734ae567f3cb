//! `web_fetch`: a document of the web, by the gate and under the agent's egress rules.

mod markdown;

use std::time::Duration;

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallTool;
use bailiwick_sandbox::SandboxError;
use bailiwick_sandbox::fetch::{Fetch, Fetched};
use bailiwick_types::limits::{OUTPUT_BYTES, OUTPUT_LINE_CHARS, OUTPUT_LINES};
use http::HeaderValue;
use serde_json::{Map, Value, json};
use url::Url;

use super::{blocking, text};
use crate::run::{Context, Outcome, ToolError, ToolManager, Verdict};

/// Most bytes of a document that are read. What a model reads of them is cut further.
const MOST_BYTES: usize = 4 << 20;

/// The longest that a fetch may take, redirects and all.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a document is given to the model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Markdown, of what is HTML.
    Markdown,
    /// Text alone, of what is HTML.
    Text,
    /// As it came.
    Raw,
}

pub(crate) async fn fetch(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let given = text(arguments, "url");
    let url = address(given).map_err(|why| ToolError::Said(format!("{given}: {why}")))?;
    let form = match text(arguments, "format") {
        "raw" => Form::Raw,
        "text" => Form::Text,
        _ => Form::Markdown,
    };
    if context.agent.egress.denies_all() {
        let why = "the agent's egress rules let nothing out: only an admin can name a host there";
        return Err(ToolError::Said(format!("{given}: {why}")));
    }
    let wanted = Fetch {
        url,
        accept: HeaderValue::from_static("text/html, text/markdown, text/plain, application/json, */*;q=0.5"),
        agent: HeaderValue::from_static(concat!("bailiwick/", env!("CARGO_PKG_VERSION"))),
        most: MOST_BYTES,
        patience: manager.time(context.agent, None).min(PATIENCE),
    };
    let fetching = manager.sandboxes().fetch(act, &context.agent.egress, &wanted);
    let fetched = tokio::select! {
        fetched = fetching => fetched,
        () = context.cancel.cancelled() => return Err(ToolError::Said("stopped, because the turn was canceled".to_owned())),
    };
    let fetched = fetched.map_err(|error| match error {
        SandboxError::Fetch(why) => ToolError::Fetch { url: given.to_owned(), why },
        other => ToolError::Sandbox(other),
    })?;
    let bytes = fetched.body.len();
    let (status, found) = (fetched.status.as_u16(), fetched.url.to_string());
    let kind = fetched.content_type.clone().unwrap_or_else(|| "text/plain".to_owned());
    let cut = fetched.cut;
    // Of a large page this is work, and no worker of requests is to do it.
    let read = blocking(move || readable(&fetched, form)).await?;
    let mut detail = Map::new();
    detail.insert("status".to_owned(), json!(status));
    detail.insert("bytes".to_owned(), json!(bytes));
    let mut output = json!({ "url": found, "status": status, "contentType": kind, "content": read.text });
    output["truncated"] = json!(cut || read.cut);
    Ok(Outcome { verdict: Verdict::Completed, output, seen: Vec::new(), detail })
}

/// An address of the web. What the gate would refuse anyway is told here, before anything is asked.
fn address(given: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(given).map_err(|_| "that is no address: write it with https:// or http://")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("only addresses with https:// or http:// can be fetched");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address must not hold a user or a password: credentials are secrets of the account");
    }
    url.set_fragment(None);
    Ok(url)
}

struct Readable {
    text: String,
    cut: bool,
}

/// A document as text, within what a model reads at once. It is the document's beginning that is kept.
fn readable(fetched: &Fetched, form: Form) -> Result<Readable, ToolError> {
    let kind = fetched.content_type.as_deref().unwrap_or("text/plain").to_ascii_lowercase();
    let (media, parameters) = kind.split_once(';').unwrap_or((&kind, ""));
    let media = media.trim();
    let html = matches!(media, "text/html" | "application/xhtml+xml");
    if !(html || is_text(media)) {
        let bytes = fetched.body.len();
        return Err(ToolError::Said(format!("{}: {media}, {bytes} bytes: only text can be fetched", fetched.url)));
    }
    let label = parameters.split(';').filter_map(|one| one.trim().strip_prefix("charset=")).next();
    let encoding = label.and_then(|label| encoding_rs::Encoding::for_label(label.trim_matches('"').as_bytes()));
    let (text, _, _) = encoding.unwrap_or(encoding_rs::UTF_8).decode(&fetched.body);
    let text = match (html, form) {
        (true, Form::Markdown) => markdown::of_html(&text, &fetched.url, markdown::Links::Kept),
        (true, Form::Text) => markdown::of_html(&text, &fetched.url, markdown::Links::Left),
        _ => text.into_owned(),
    };
    Ok(beginning(&text))
}

/// What a model reads of a document at once: its beginning, and a line that says so.
fn beginning(text: &str) -> Readable {
    let (mut kept, mut short) = (String::new(), 0_usize);
    let mut lines = text.lines();
    let mut written = 0;
    while let Some(line) = lines.next() {
        let cut = line.char_indices().nth(OUTPUT_LINE_CHARS).map_or(line, |(at, _)| line.get(..at).unwrap_or(line));
        if written == OUTPUT_LINES || kept.len() + cut.len() >= OUTPUT_BYTES {
            let left = lines.count() + 1;
            kept.push_str(&format!("[{left} more lines are left out]\n"));
            return Readable { text: kept, cut: true };
        }
        short += usize::from(cut.len() < line.len());
        kept.push_str(cut);
        kept.push('\n');
        written += 1;
    }
    if short > 0 {
        kept.push_str(&format!("[{short} lines are shortened]\n"));
    }
    Readable { text: kept, cut: short > 0 }
}

/// Media types that are text (RFC 6838, section 4.2.1, and those of structured syntaxes, section 4.2.8).
fn is_text(media: &str) -> bool {
    media.starts_with("text/")
        || ["+json", "+xml", "+yaml"].iter().any(|suffix| media.ends_with(suffix))
        || matches!(
            media,
            "application/json"
                | "application/xml"
                | "application/yaml"
                | "application/x-yaml"
                | "application/toml"
                | "application/javascript"
                | "application/x-ndjson"
                | "application/sql"
        )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn fetched(kind: &str, body: &[u8]) -> Fetched {
        Fetched {
            url: Url::parse("https://docs.example/a/b").unwrap(),
            status: http::StatusCode::OK,
            content_type: Some(kind.to_owned()),
            body: body.to_vec().into(),
            cut: false,
        }
    }

    fn read(kind: &str, body: &[u8], form: Form) -> String {
        readable(&fetched(kind, body), form).map_or_else(|error| error.to_string(), |read| read.text)
    }

    #[test]
    fn g08_what_is_no_address_of_the_web_is_told_before_anything_is_asked() {
        assert_eq!(address("https://a.example/x?y#z").unwrap().as_str(), "https://a.example/x?y");
        for wrong in
            ["", "a.example", "file:///etc/passwd", "ftp://a.example/", "https://", "https://u:p@a.example/", "data:,x"]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn documents_are_given_as_text_and_what_is_none_is_told() {
        assert_eq!(read("text/html", b"<h1>A</h1><p>b", Form::Markdown).trim(), "# A\n\nb");
        assert_eq!(read("text/html", b"<h1>A</h1>", Form::Raw).trim(), "<h1>A</h1>");
        assert_eq!(read("application/problem+json", b"{}", Form::Markdown).trim(), "{}");
        assert_eq!(read("text/plain; charset=iso-8859-1", b"caf\xe9", Form::Text).trim(), "caf\u{e9}");
        assert!(read("image/png", b"\x89PNG", Form::Raw).contains("only text"));
        let long = readable(&fetched("text/plain", "line\n".repeat(5000).as_bytes()), Form::Raw).unwrap();
        assert!(long.cut && long.text.starts_with("line\n"), "{}", &long.text[..80]);
    }
}
