//! `bailiwick usage`: what the account used today, against what it may, and one's own share by day.

use serde_json::Value;

use super::Context;
use crate::failure::Failure;
use crate::out::{self, Format};

/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let shown = context.get(&["usage"]).await?;
    if let Format::Json = context.format {
        out::json(&shown);
        return Ok(());
    }
    let (today, limits) = (&shown["today"], &shown["limits"]);
    let sum = |one: &str, two: &str| today[one].as_u64().unwrap_or(0).saturating_add(today[two].as_u64().unwrap_or(0));
    let used = [
        ("tokens today", sum("tokens_in", "tokens_out").to_string(), &limits["tokens_per_day"]),
        ("model calls today", out::cell(&today["model_calls"]), &limits["model_calls_per_day"]),
        ("tool calls today", out::cell(&today["tool_calls"]), &limits["tool_calls_per_day"]),
        (
            "storage, MiB",
            shown["storage_bytes"].as_u64().unwrap_or(0).div_ceil(MIB).to_string(),
            &limits["storage_mib"],
        ),
        ("sessions under way", out::cell(&shown["sessions_under_way"]), &limits["concurrent_sessions"]),
    ];
    let mut table = out::Table::new(&["THE ACCOUNT", "USED", "AT MOST"]);
    for (what, used, most) in used {
        let most = if *most == 0 { "no limit".to_owned() } else { out::cell(most) };
        table.row(vec![what.to_owned(), used, most]);
    }
    table.print();
    out::line(&format!("The budgets of a day open again at {}.", out::cell(&shown["resets_at"])));
    let days = shown["own"].as_array().map_or(&[][..], Vec::as_slice);
    if days.is_empty() {
        return Ok(());
    }
    out::line("");
    let mut table = out::Table::new(&["YOU, ON", "TOKENS IN", "TOKENS OUT", "MODEL CALLS", "TOOL CALLS"]);
    let fields = ["day", "tokens_in", "tokens_out", "model_calls", "tool_calls"];
    for day in days {
        table.row(fields.iter().map(|field| out::cell(day.get(*field).unwrap_or(&Value::Null))).collect());
    }
    table.print();
    Ok(())
}
