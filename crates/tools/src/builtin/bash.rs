//! `bash`: a command in the session's sandbox.

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::CallTool;
use bailiwick_sandbox::{RanStatus, Run};
use serde_json::{Map, Value, json};

use super::text;
use crate::run::{Context, Outcome, ToolError, ToolManager, Verdict};

pub(crate) async fn run(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    context: &Context<'_>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let (sandbox, _) = manager.enter(act, context).await?;
    let timeout = manager.time(context.agent, arguments["timeout_seconds"].as_u64());
    let script = text(arguments, "command").to_owned();
    let ran = sandbox.run(act, Run { script, timeout, cancel: context.cancel.clone() }).await?;
    let (status, code) = match &ran.status {
        RanStatus::Exited(code) => ("completed", Some(*code)),
        RanStatus::Signaled(signal) => ("completed", Some(128 + signal)),
        RanStatus::TimedOut => ("timeout", None),
        RanStatus::Canceled => ("canceled", None),
        RanStatus::OutOfMemory => ("out_of_memory", Some(137)),
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
