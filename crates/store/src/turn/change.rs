//! How a turn's change is written: the stream, what the model is shown, and the calls.

use bailiwick_types::notification::What;
use bailiwick_types::{EventId, SessionId, Timestamp};
use serde_json::{Value, json};

use super::{CallChange, Change, Messages};
use crate::approval;
use crate::engine::Tx;
use crate::error::StoreError;
use crate::notification::{self, Place};
use crate::session::SessionState;
use crate::sql::args;

pub(super) fn write_events(tx: &mut Tx<'_>, id: SessionId, change: &Change) -> Result<(), StoreError> {
    if change.events.is_empty() {
        return Ok(());
    }
    let first = tx
        .one("SELECT next_event FROM session WHERE account = ?1 AND id = ?2", args![id], |row| row.count(0))?
        .ok_or_else(|| StoreError::not_found("session", id))?;
    let mut n = first;
    for (kind, data) in &change.events {
        let meta =
            json!({ "at": Timestamp::now(), "id": EventId::in_sequence(id, n), "deliveryIds": change.delivery_ids });
        let body = json!({ "type": kind, "data": data, "meta": meta });
        tx.exec(
            "INSERT INTO session_event (account, session, n, body) VALUES (?1, ?2, ?3, ?4)",
            args![id, n, body.to_string()],
        )?;
        n += 1;
    }
    tx.exec("UPDATE session SET next_event = ?3 WHERE account = ?1 AND id = ?2", args![id, n])?;
    Ok(())
}

pub(super) fn write_messages(tx: &mut Tx<'_>, id: SessionId, messages: &Messages) -> Result<(), StoreError> {
    let added = match messages {
        Messages::Keep => return Ok(()),
        Messages::Append(added) => added,
        Messages::Replace(added) => {
            tx.exec("DELETE FROM session_message WHERE account = ?1 AND session = ?2", args![id])?;
            added
        }
    };
    let first = tx
        .one("SELECT next_message FROM session WHERE account = ?1 AND id = ?2", args![id], |row| row.count(0))?
        .ok_or_else(|| StoreError::not_found("session", id))?;
    let mut n = first;
    for body in added {
        tx.exec(
            "INSERT INTO session_message (account, session, n, body) VALUES (?1, ?2, ?3, ?4)",
            args![id, n, body.to_string()],
        )?;
        n += 1;
    }
    tx.exec("UPDATE session SET next_message = ?3 WHERE account = ?1 AND id = ?2", args![id, n])?;
    Ok(())
}

pub(super) fn write_call(tx: &mut Tx<'_>, id: SessionId, change: &CallChange) -> Result<(), StoreError> {
    match change {
        CallChange::New(call) => tx.exec(
            "INSERT INTO tool_call (account, session, id, turn, step, place, model_id, tool, arguments, state, output) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            args![
                id,
                call.id,
                call.turn,
                call.step,
                call.place,
                &call.model_id,
                &call.tool,
                call.arguments.to_string(),
                call.state.as_str(),
                call.output.as_ref().map(Value::to_string),
            ],
        )?,
        CallChange::Done(call, output) => tx.exec(
            "UPDATE tool_call SET state = 'done', output = ?4 WHERE account = ?1 AND session = ?2 AND id = ?3",
            args![id, *call, output.to_string()],
        )?,
    };
    Ok(())
}

/// Tells the account's targets of notifications what a person should know of.
pub(super) fn tell(tx: &mut Tx<'_>, id: SessionId, change: &Change) -> Result<(), StoreError> {
    let failed = change.state == Some(SessionState::Failed);
    if change.approvals.is_empty() && !failed {
        return Ok(());
    }
    let Some(place) = Place::of_session(tx, id)? else { return Ok(()) };
    for new in &change.approvals {
        let what = match new.kind {
            approval::Kind::ToolApproval => What::Approval { tool: new.tool.clone() },
            approval::Kind::Question => What::Question,
        };
        notification::tell(tx, what, &place)?;
    }
    if failed {
        notification::tell(tx, What::TurnFailed, &place)?;
    }
    Ok(())
}
