//! `read_file`, `write_file`, `edit_file`: text files of the workspace, opened beneath its root.

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallTool;
use bailiwick_files::{Expect, FileError, Workspace, content_hash};
use bailiwick_store::storage::{Need, Room};
use bailiwick_types::WorkspacePath;
use bailiwick_types::limits::{OUTPUT_BYTES, OUTPUT_LINE_CHARS, OUTPUT_LINES};
use serde_json::{Map, Value, json};

use super::{blocking, count, failed, path, text};
use crate::run::{Context, Outcome, ToolError, ToolManager, Verdict};

/// The largest file that is read or written whole, bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

pub(crate) async fn read(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let path = path(arguments)?;
    let first = count(arguments, "offset").unwrap_or(1);
    let most = count(arguments, "limit").unwrap_or(OUTPUT_LINES).min(OUTPUT_LINES);
    let files = manager.files(act, context).await?.files;
    let named = path.clone();
    let content = blocking(move || files.read(&named, LARGEST).map_err(failed(&named))).await?;
    let hash = content_hash(&content);
    let Ok(content) = String::from_utf8(content) else {
        return Err(ToolError::Said(format!("{}: not a text file", path.in_sandbox())));
    };
    let total = content.lines().count();
    if first > total.max(1) {
        return Err(ToolError::Said(format!(
            "{}: has {total} lines, offset {first} is past its end",
            path.in_sandbox()
        )));
    }
    let mut shown = String::new();
    let mut next = None;
    for (n, line) in content.lines().enumerate().skip(first - 1) {
        let mut line = line.to_owned();
        if line.chars().count() > OUTPUT_LINE_CHARS {
            line = line.chars().take(OUTPUT_LINE_CHARS).collect::<String>() + " [line cut]";
        }
        if n + 1 - first >= most || shown.len() + line.len() + 12 > OUTPUT_BYTES {
            next = Some(n + 1);
            break;
        }
        shown.push_str(&format!("{}: {line}\n", n + 1));
    }
    let mut output = json!({
        "path": path.in_sandbox(),
        "content": shown,
        "totalLines": total,
        "truncated": next.is_some(),
    });
    if let Some(next) = next {
        output["nextOffset"] = json!(next);
    }
    Ok(Outcome {
        verdict: Verdict::Completed,
        output,
        seen: vec![(path.as_str().to_owned(), hash)],
        detail: about(&path),
    })
}

pub(crate) async fn write(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let path = path(arguments)?;
    let content = text(arguments, "content").as_bytes().to_vec();
    let seen = manager.store().turn_file_seen(context.lease, path.as_str()).await?;
    let area = manager.files(act, context).await?;
    let room = manager.room_in(context.agent, &area, Need::All(content.len() as u64)).await?;
    let (files, named) = (area.files, path.clone());
    let written = blocking(move || {
        let expect = seen.map_or(Expect::Absent, Expect::Hash);
        put(&files, &named, &content, expect)
    })
    .await?;
    fill(room, written.size);
    manager.store().storage_grew(act.scope().tenant(), written.size);
    let mut detail = about(&path);
    detail.insert("bytes".to_owned(), json!(written.size));
    detail.insert("sha256".to_owned(), json!(bailiwick_audit::event::hex(&written.sha256)));
    Ok(Outcome {
        verdict: Verdict::Completed,
        output: json!({ "path": path.in_sandbox(), "existed": !written.created, "bytes": written.size }),
        seen: vec![(path.as_str().to_owned(), written.sha256)],
        detail,
    })
}

fn put(
    files: &Workspace,
    path: &WorkspacePath,
    content: &[u8],
    expect: Expect,
) -> Result<bailiwick_files::Written, ToolError> {
    match files.write_if(path, content, expect) {
        Err(FileError::Exists) => Err(ToolError::Said(format!(
            "{}: exists, and this session has not read it: read it first, then write",
            path.in_sandbox()
        ))),
        // What the session saw is gone, not changed; then there is nothing to overwrite.
        Err(FileError::Changed | FileError::NotFound)
            if matches!(expect, Expect::Hash(_)) && matches!(files.stat(path), Err(FileError::NotFound)) =>
        {
            files.write_if(path, content, Expect::Absent).map_err(failed(path))
        }
        other => other.map_err(failed(path)),
    }
}

pub(crate) async fn edit(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let path = path(arguments)?;
    let (old, new) = (text(arguments, "old").to_owned(), text(arguments, "new").to_owned());
    let Some(seen) = manager.store().turn_file_seen(context.lease, path.as_str()).await? else {
        return Err(ToolError::Said(format!("{}: read it first, then edit", path.in_sandbox())));
    };
    let area = manager.files(act, context).await?;
    let room = manager.room_in(context.agent, &area, Need::All(new.len() as u64)).await?;
    let (files, named) = (area.files, path.clone());
    let written = blocking(move || {
        let content = files.read(&named, LARGEST).map_err(failed(&named))?;
        if content_hash(&content) != seen {
            return Err(failed(&named)(FileError::Changed));
        }
        let Ok(content) = String::from_utf8(content) else {
            return Err(ToolError::Said(format!("{}: not a text file", named.in_sandbox())));
        };
        match content.matches(&old).take(2).count() {
            0 => Err(ToolError::Said(format!("{}: the old passage does not occur", named.in_sandbox()))),
            1 => put(&files, &named, content.replacen(&old, &new, 1).as_bytes(), Expect::Hash(seen)),
            _ => Err(ToolError::Said(format!(
                "{}: the old passage occurs more than once: give more of its surroundings",
                named.in_sandbox()
            ))),
        }
    })
    .await?;
    fill(room, written.size);
    manager.store().storage_grew(act.scope().tenant(), written.size);
    let mut detail = about(&path);
    detail.insert("bytes".to_owned(), json!(written.size));
    detail.insert("sha256".to_owned(), json!(bailiwick_audit::event::hex(&written.sha256)));
    Ok(Outcome {
        verdict: Verdict::Completed,
        output: json!({ "path": path.in_sandbox(), "bytes": written.size }),
        seen: vec![(path.as_str().to_owned(), written.sha256)],
        detail,
    })
}

/// What was written is there now, until it is measured.
fn fill(room: Option<Room>, size: u64) {
    if let Some(room) = room {
        room.fill(size);
    }
}

fn about(path: &WorkspacePath) -> Map<String, Value> {
    Map::from_iter([("path".to_owned(), json!(path.as_str()))])
}
