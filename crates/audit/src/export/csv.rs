//! Events as a table (RFC 4180), for spreadsheets. A table proves nothing; [`super`] has the form that does.

use super::{Line, WriteError};
use crate::event::{Event, hex};
use crate::tree::Hash;

/// The first line: the names of the columns.
pub const HEADER: &str = "seq,at,actor,credential,address,request,action,resource,space,agent,phase,verdict,intent,\
                          detail,leaf_hash\r\n";

/// Appends an event.
///
/// # Errors
/// If its detail has no canonical form.
pub fn event_row(out: &mut String, event: &Event, leaf_hash: &Hash) -> Result<(), WriteError> {
    let event = Line::of(event, leaf_hash);
    let detail = serde_json_canonicalizer::to_string(&event.detail)?;
    row(
        out,
        [
            event.seq.to_string().as_str(),
            &event.at.to_string(),
            &event.actor,
            &event.credential,
            &event.address,
            event.request.as_deref().unwrap_or_default(),
            &event.action,
            &event.resource,
            event.space.as_deref().unwrap_or_default(),
            event.agent.as_deref().unwrap_or_default(),
            &event.phase,
            &event.verdict,
            &event.intent.map(|n| n.to_string()).unwrap_or_default(),
            &detail,
            &event.leaf_hash,
        ],
    );
    Ok(())
}

/// Appends what is left of a retired event: all other cells are empty.
pub fn retired_row(out: &mut String, seq: u64, leaf_hash: &Hash) {
    let mut cells = [""; 15];
    let (seq, leaf_hash) = (seq.to_string(), hex(leaf_hash));
    (cells[0], cells[14]) = (&seq, &leaf_hash);
    row(out, cells);
}

fn row(out: &mut String, cells: [&str; 15]) {
    for (n, text) in cells.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        cell(out, text);
    }
    out.push_str("\r\n");
}

fn cell(out: &mut String, text: &str) {
    // A spreadsheet takes such a cell for a formula and runs it. Callers choose some of these texts.
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { "'" } else { "" };
    if text.contains([',', '"', '\r', '\n']) {
        out.push('"');
        out.push_str(guard);
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(guard);
        out.push_str(text);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::new();
        cell(&mut out, text);
        out
    }

    #[test]
    fn e05_cells_are_quoted_and_never_formulas() {
        for (text, cell) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("a=b", "a=b"),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\r=1", "\"'\r=1\""),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
        ] {
            assert_eq!(written(text), cell, "{text:?}");
        }
    }

    #[test]
    fn e05_a_retired_row_has_all_columns() {
        let mut out = String::new();
        retired_row(&mut out, 3, &[0xab; 32]);
        assert_eq!(out, format!("3,,,,,,,,,,,,,,{}\r\n", "ab".repeat(32)));
        assert_eq!(out.matches(',').count(), HEADER.matches(',').count());
    }
}
