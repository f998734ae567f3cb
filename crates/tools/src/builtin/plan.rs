//! `plan`: the plan of the space, which belongs to the space and not to the session.

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::{CallTool, WriteSpace};
use serde_json::{Map, Value, json};

use crate::run::{Outcome, ToolError, ToolManager, Verdict};

pub(crate) async fn write(
    manager: &ToolManager,
    act: &Recorded<CallTool>,
    arguments: &Value,
) -> Result<Outcome, ToolError> {
    let items = arguments["items"].clone();
    let count = items.as_array().map_or(0, Vec::len);
    let permit = act
        .scope()
        .authorize::<WriteSpace>(act.resource().session().space().clone())
        .map_err(|refusal| ToolError::Said(refusal.message().to_owned()))?;
    manager.store().plan_write(permit, items).await?;
    Ok(Outcome {
        verdict: Verdict::Completed,
        output: json!({ "items": count }),
        seen: Vec::new(),
        detail: Map::from_iter([("items".to_owned(), json!(count))]),
    })
}
