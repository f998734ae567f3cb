//! Everything that this program prints, and the only place that does.
//!
//! Texts of servers, models and tools are hostile: a terminal obeys what it is sent. So what is shown
//! goes through [`clean`], which leaves no control character and nothing that turns the order of
//! letters round. A reader that has gone away (`| head`) ends the program in silence, never in a panic,
//! and never as if all had gone well.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables and sentences, for people.
    Text,
    /// JSON, for programs.
    Json,
}

/// A colour by what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
    Accent,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Accent => "36",
        }
    }
}

/// Whether standard output is a terminal that a person reads.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn colours(stream: &impl io::IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The text in a colour, if standard output is a terminal.
pub(crate) fn paint(style: Style, text: &str) -> String {
    paint_for(&io::stdout(), style, text)
}

fn paint_for(stream: &impl io::IsTerminal, style: Style, text: &str) -> String {
    if colours(stream) { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
}

/// Prints a line on standard output.
pub(crate) fn line(text: &str) {
    written(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints text on standard output as it is, at once.
pub(crate) fn piece(text: &str) {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

/// Prints raw bytes on standard output.
pub(crate) fn bytes(bytes: &[u8]) {
    written(io::stdout().lock().write_all(bytes));
}

/// Prints a line on standard error: what is about the work and not its result.
pub(crate) fn note(text: &str) {
    // Nobody is there to be told that standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints an error with its hint.
pub(crate) fn error(text: &str, hint: Option<&str>) {
    let stderr = io::stderr();
    note(&format!("{} {}", paint_for(&stderr, Style::Bad, "error:"), clean(text)));
    if let Some(hint) = hint {
        note(&format!("{} {}", paint_for(&stderr, Style::Dim, "hint:"), clean(hint)));
    }
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &Value) {
    line(&escaped(&serde_json::to_string_pretty(value).unwrap_or_default()));
}

/// JSON text whose strings hold nothing that a terminal would obey: such characters can stand nowhere
/// else in JSON, and `\\u` says the same.
pub(crate) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => text.push(c),
            c if c.is_control() || is_deceptive(c) => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}

/// Whether the program goes on when nobody reads its output any more.
static GOES_ON: AtomicBool = AtomicBool::new(false);

/// From now on a reader that has gone away does not end the program: it has work beside its output.
pub(crate) fn go_on_unread() {
    GOES_ON.store(true, Ordering::Relaxed);
}

/// What a shell reports for a program that was ended by a closed pipe (128 + SIGPIPE).
const UNREAD: i32 = 141;

fn written(result: io::Result<()>) {
    if result.is_err() && !GOES_ON.load(Ordering::Relaxed) {
        std::process::exit(UNREAD);
    }
}

/// The text without what a terminal would obey. Newlines and tabs stay.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() || is_deceptive(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The text in one line, cut to so many characters.
pub(crate) fn brief(text: &str, most: usize) -> String {
    let mut flat: String = clean(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() > most {
        flat = flat.chars().take(most.saturating_sub(1)).collect();
        flat.push('…');
    }
    flat
}

/// One line cut to so many characters; its columns stay.
pub(crate) fn cut(line: &str, most: usize) -> String {
    if line.chars().count() <= most {
        return line.to_owned();
    }
    line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Columns of the terminal; wide where there is none, so that nothing is cut in a file.
pub(crate) fn width() -> usize {
    if !is_terminal() {
        return usize::MAX;
    }
    crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns).max(40))
}

/// A table whose columns are as wide as needed; the last is cut at the terminal's edge.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| head.to_uppercase().replace('_', " ")).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| clean(cell).replace(['\n', '\t'], " ")).collect());
    }

    pub(crate) fn render(&self, width: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|n| self.rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut shown = String::new();
            for (n, cell) in row.iter().enumerate() {
                let pad = if n + 1 == row.len() { 0 } else { widths[n] + 2 };
                let _ = write!(shown, "{cell:<pad$}");
            }
            text.push_str(cut(shown.trim_end(), width).trim_end());
            text.push('\n');
        }
        text
    }

    pub(crate) fn print(&self) {
        let text = self.render(width());
        match text.split_once('\n') {
            Some((head, rest)) => piece(&format!("{}\n{rest}", paint(Style::Dim, head))),
            None => piece(&text),
        }
    }
}

/// Prints the rows of a listing: as JSON, or as a table with these columns.
pub(crate) fn rows(format: Format, listed: &Value, columns: &[&str], none: &str) {
    if format == Format::Json {
        return json(listed);
    }
    let rows = array(listed);
    if rows.is_empty() {
        return line(none);
    }
    let mut table = Table::new(columns);
    for row in rows {
        table.row(columns.iter().map(|column| cell(&row[*column])).collect());
    }
    table.print();
}

/// Prints one thing: as JSON, or its fields one a line.
pub(crate) fn thing(format: Format, value: &Value) {
    let Value::Object(fields) = value else { return json(value) };
    if format == Format::Json {
        return json(value);
    }
    let widest = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, value) in fields {
        let name = format!("{:<widest$}", clean(name));
        match value {
            Value::String(text) if text.contains('\n') => {
                line(&paint(Style::Dim, &name));
                for row in clean(text).lines() {
                    line(&format!("  {row}"));
                }
            }
            value => line(&format!("{}  {}", paint(Style::Dim, &name), cell(value))),
        }
    }
}

/// The array of a listing, bare or in the one field that holds it.
pub(crate) fn array(listed: &Value) -> &[Value] {
    match listed {
        Value::Array(rows) => rows,
        Value::Object(fields) => fields.values().find_map(Value::as_array).map_or(&[], Vec::as_slice),
        _ => &[],
    }
}

/// A value in a cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        other => clean(&other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_sent_nothing_that_it_obeys() {
        let hostile = "ok\x1b]0;owned\x07\x1b[2J\u{202e}txt.exe\r\nnext\tcell\u{9b}31m";
        let shown = clean(hostile);
        assert!(!shown.contains(['\x1b', '\x07', '\r', '\u{202e}', '\u{9b}']), "{shown:?}");
        assert!(shown.contains("\nnext\tcell"));
    }

    #[test]
    fn json_says_the_same_without_what_a_terminal_obeys() {
        let hostile = serde_json::json!({ "a": "\u{9b}31m\u{202e}\u{61c}\u{7f}\n" });
        let shown = escaped(&serde_json::to_string_pretty(&hostile).unwrap());
        assert!(!shown.contains(['\u{9b}', '\u{202e}', '\u{61c}', '\u{7f}']), "{shown:?}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), hostile);
    }

    #[test]
    fn a_table_is_cut_at_the_edge_and_only_there() {
        let mut table = Table::new(&["name", "text"]);
        table.row(vec!["a".into(), "x".repeat(100)]);
        assert!(table.render(40).lines().all(|line| line.chars().count() <= 40));
        assert!(table.render(usize::MAX).contains(&"x".repeat(100)));
    }

    #[test]
    fn listings_are_found_bare_or_wrapped() {
        assert_eq!(array(&serde_json::json!([1])).len(), 1);
        assert_eq!(array(&serde_json::json!({ "has_more": false, "rows": [1, 2] })).len(), 2);
        assert_eq!(array(&serde_json::json!(null)).len(), 0);
    }
}
