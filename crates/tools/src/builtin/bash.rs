//! `bash`: a command in the session's sandbox.

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallTool;
use bailiwick_sandbox::{NoRoom, RanStatus, Run};
use serde_json::{Map, Value, json};

use super::text;
use crate::run::{Context, Outcome, ToolError, ToolManager, Verdict};

pub(crate) async fn run(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let (sandbox, area) = manager.enter(act, context).await?;
    let timeout = manager.time(context.agent, arguments["timeout_seconds"].as_u64());
    let script = text(arguments, "command").to_owned();
    let no_room = NoRoom::default();
    let run = Run { script, timeout, cancel: context.cancel.clone(), no_room: no_room.clone() };
    let place = (act.scope().tenant(), context.agent, &area);
    let ran = manager.while_there_is_room(place, &no_room, sandbox.run(act, run)).await??;
    let (status, code) = match &ran.status {
        RanStatus::Exited(code) => ("completed", Some(*code)),
        RanStatus::Signaled(signal) => ("completed", Some(128 + signal)),
        RanStatus::TimedOut => ("timeout", None),
        RanStatus::Canceled => ("canceled", None),
        RanStatus::OutOfMemory => ("out_of_memory", Some(137)),
        RanStatus::StorageFull(_) => ("storage_full", None),
        RanStatus::LimitReached(_) => ("limit_reached", None),
    };
    let mut output = json!({
        "status": status,
        "exitCode": code,
        "stdout": ran.stdout.text,
        "stderr": ran.stderr.text,
        "truncated": ran.stdout.truncated || ran.stderr.truncated,
    });
    let message = match &ran.status {
        RanStatus::TimedOut => Some(format!("stopped after {} seconds", timeout.as_secs())),
        RanStatus::Canceled => Some("stopped, because the turn was canceled".to_owned()),
        RanStatus::OutOfMemory => Some("stopped, because the sandbox's memory was used up".to_owned()),
        RanStatus::StorageFull(why) => Some(format!("stopped, because {why}")),
        RanStatus::LimitReached(limit) => Some(format!("cut short at a limit of the sandbox: {limit}")),
        RanStatus::Exited(_) | RanStatus::Signaled(_) => None,
    };
    if let Some(message) = message {
        output["message"] = json!(message);
    }
    let mut detail = Map::new();
    detail.insert("status".to_owned(), json!(status));
    detail.insert("exit".to_owned(), json!(code));
    detail.insert("ms".to_owned(), json!(u64::try_from(ran.wall.as_millis()).unwrap_or(u64::MAX)));
    detail.insert("stdout_bytes".to_owned(), json!(ran.stdout.total_bytes));
    detail.insert("stderr_bytes".to_owned(), json!(ran.stderr.total_bytes));
    detail.insert("sandbox".to_owned(), ran.receipt.record());
    // A command that ends with an error has still run; what did not run to its end has not.
    let verdict = match ran.status {
        RanStatus::Exited(_) | RanStatus::Signaled(_) => Verdict::Completed,
        _ => Verdict::Failed,
    };
    Ok(Outcome { verdict, output, seen: Vec::new(), detail })
}
