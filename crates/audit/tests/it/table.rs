//! Events as a table, read back by a reader that is not ours.

use std::process::Command;

use bailiwick_audit::export::csv;
use serde_json::{Value, json};

use crate::fixture::{Log, run};

#[test]
fn e05_a_table_reads_back_as_it_was_written() {
    let mut log = Log::new();
    log.rows[4].0.draft.resource = "a \"quoted\", broken\r\nname".into();
    log.rows[5].0.draft.address = "=HYPERLINK(\"https://example.com\")".into();
    log.rehash();
    let mut table = csv::HEADER.to_owned();
    for (n, (event, hash)) in log.rows.iter().enumerate() {
        if n < 2 {
            csv::retired_row(&mut table, event.seq, hash)
        } else {
            csv::event_row(&mut table, event, hash).unwrap()
        }
    }
    let mut python = Command::new("python3");
    let program = "import csv, io, json, sys\n\
        text = sys.stdin.buffer.read().decode()\n\
        print(json.dumps(list(csv.DictReader(io.StringIO(text, newline=''), strict=True))))";
    python.args(["-I", "-c", program]);
    let (code, out) = run(python, table.as_bytes());
    assert_eq!(code, 0, "{out}");
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(rows.len(), 12);
    for (row, (event, hash)) in rows.iter().zip(&log.rows) {
        assert_eq!(row["seq"], event.seq.to_string());
        assert_eq!(row["leaf_hash"], bailiwick_audit::event::hex(hash));
    }
    assert_eq!((&rows[0]["actor"], &rows[0]["detail"]), (&json!(""), &json!("")));
    assert_eq!(rows[3]["detail"], log_detail(&log, 3));
    assert_eq!(rows[4]["resource"], "a \"quoted\", broken\r\nname");
    assert_eq!(rows[5]["address"], "'=HYPERLINK(\"https://example.com\")");
    assert_eq!(rows[7]["intent"], "6");
    assert_eq!(rows[9]["actor"], "operator");
}

fn log_detail(log: &Log, n: usize) -> String {
    let detail = Value::Object(log.rows[n].0.draft.detail.clone());
    String::from_utf8(bailiwick_audit::canonical(&detail).unwrap()).unwrap()
}
