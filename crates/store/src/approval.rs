//! What waits for a person: approvals of tool calls, and questions. A decision is made once; an
//! approved call runs once, and only with the arguments and the tool definition that were shown.

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::access::Approval;
use bailiwick_auth::access::verb::{DecideApproval, ListApprovals, ReadApproval};
use bailiwick_auth::{Permit, Scope, Tenant, for_store};
use bailiwick_types::{AgentName, ApprovalId, CallId, SessionId, SpaceId, Timestamp, ToolName, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::session;
use crate::sql::{Row, Sql, args};
use crate::store::Store;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// May this call run?
    ToolApproval,
    /// A question of the agent's.
    Question,
}

impl Kind {
    /// The word as stored, and as eve's clients know it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToolApproval => "tool-approval",
            Self::Question => "question",
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    /// Nobody has decided.
    Pending,
    /// A person said yes; the call has not begun.
    Approved,
    /// The approved call has begun; the approval is spent.
    Used,
    /// A person said no.
    Denied,
    /// A person answered the question.
    Answered,
    /// Nobody decided in time.
    Expired,
    /// The requester went on without deciding.
    Ignored,
    /// The turn was canceled.
    Canceled,
    /// The tool's definition or the arguments are not those that were approved.
    Voided,
}

impl ApprovalState {
    /// The word as stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Used => "used",
            Self::Denied => "denied",
            Self::Answered => "answered",
            Self::Expired => "expired",
            Self::Ignored => "ignored",
            Self::Canceled => "canceled",
            Self::Voided => "voided",
        }
    }
}

/// A choice that is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What a client sends.
    pub id: String,
    /// What a person reads.
    pub label: String,
    /// More, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What is asked of a person, and what came of it.
#[derive(Debug, Clone)]
pub struct ApprovalRow {
    /// Its id.
    pub id: ApprovalId,
    /// The session that waits.
    pub session: SessionId,
    /// The call that waits.
    pub call: CallId,
    /// What is asked.
    pub kind: Kind,
    /// Of which tool.
    pub tool: ToolName,
    /// In words.
    pub prompt: String,
    /// With which arguments.
    pub arguments: Value,
    /// Over tool definition and arguments.
    pub digest: [u8; 32],
    /// The choices.
    pub options: Vec<Choice>,
    /// Who asked for the turn.
    pub requester: UserName,
    /// Who else may decide.
    pub approvers: Vec<UserName>,
    /// How far it is.
    pub state: ApprovalState,
    /// Who decided.
    pub decided_by: Option<UserName>,
    /// Why, in the decider's words.
    pub reason: Option<String>,
    /// The answer, as the client sent it.
    pub answer: Option<Value>,
    /// When asked.
    pub created_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A pending approval in its surroundings, for the list.
#[derive(Debug, Clone)]
pub struct PendingApproval {
    /// What is asked.
    pub approval: ApprovalRow,
    /// In which space.
    pub space: SpaceId,
    /// By which agent.
    pub agent: AgentName,
}

/// A person's decision.
#[derive(Debug, Clone)]
pub enum Decision {
    /// The call may run.
    Approve,
    /// It may not.
    Deny,
    /// The answer to a question.
    Answer,
}

const COLUMNS: &str = "SELECT id, session, call, kind, tool, prompt, arguments, digest, options, requester, approvers, \
     state, decided_by, reason, answer, created_at, expires_at FROM approval WHERE account = ?1 AND id = ?2";

fn approval_row(row: &Row<'_>) -> Result<ApprovalRow, StoreError> {
    let word = |text: String| json!(text);
    Ok(ApprovalRow {
        id: row.parse(0)?,
        session: row.parse(1)?,
        call: row.parse(2)?,
        kind: serde_json::from_value(word(row.text(3)?))?,
        tool: row.parse(4)?,
        prompt: row.text(5)?,
        arguments: row.json(6)?,
        digest: row.blob(7)?.try_into().map_err(|_| StoreError::Corrupt("an approval's digest"))?,
        options: row.json(8)?,
        requester: row.parse(9)?,
        approvers: row.json(10)?,
        state: serde_json::from_value(word(row.text(11)?))?,
        decided_by: row.optional_parse(12)?,
        reason: row.optional_text(13)?,
        answer: row.optional_json(14)?,
        created_at: row.time(15)?,
        expires_at: row.time(16)?,
    })
}

pub(crate) fn read_row(sql: &Sql<'_>, id: ApprovalId) -> Result<Option<ApprovalRow>, StoreError> {
    sql.one(COLUMNS, args![id], approval_row)
}

pub(crate) fn of_turn(sql: &Sql<'_>, session: SessionId, turn: u64) -> Result<Vec<ApprovalRow>, StoreError> {
    sql.all(
        "SELECT a.id, a.session, a.call, a.kind, a.tool, a.prompt, a.arguments, a.digest, a.options, a.requester, \
         a.approvers, a.state, a.decided_by, a.reason, a.answer, a.created_at, a.expires_at FROM approval a \
         JOIN tool_call c ON c.account = a.account AND c.session = a.session AND c.id = a.call \
         WHERE a.account = ?1 AND a.session = ?2 AND c.turn = ?3 ORDER BY a.id",
        args![session, turn],
        approval_row,
    )
}

pub(crate) fn insert(tx: &mut Tx<'_>, new: &ApprovalRow) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO approval (account, id, session, call, kind, tool, prompt, arguments, digest, options, requester, \
         approvers, state, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        args![
            new.id,
            new.session,
            new.call,
            new.kind.as_str(),
            &new.tool,
            &new.prompt,
            new.arguments.to_string(),
            &new.digest,
            serde_json::to_string(&new.options)?,
            &new.requester,
            serde_json::to_string(&new.approvers)?,
            new.state.as_str(),
            new.created_at,
            new.expires_at,
        ],
    )?;
    Ok(())
}

/// Moves an approval from one state to another; fails if it is not in the first.
pub(crate) fn advance(
    tx: &mut Tx<'_>,
    id: ApprovalId,
    from: ApprovalState,
    to: ApprovalState,
) -> Result<(), StoreError> {
    let moved = tx.exec(
        "UPDATE approval SET state = ?4 WHERE account = ?1 AND id = ?2 AND state = ?3",
        args![id, from.as_str(), to.as_str()],
    )?;
    if moved == 0 { Err(ALREADY_DECIDED) } else { Ok(()) }
}

/// Takes a user who is being deleted out of what waits for a decision: a re-created namesake decides nothing
/// that was put to the earlier one.
pub(crate) fn forget_approver(tx: &mut Tx<'_>, name: &UserName) -> Result<(), StoreError> {
    let pending =
        tx.all("SELECT id, approvers FROM approval WHERE account = ?1 AND state = 'pending'", args![], |row| {
            Ok((row.parse::<ApprovalId>(0)?, row.json::<Vec<UserName>>(1)?))
        })?;
    for (id, mut approvers) in pending {
        if approvers.contains(name) {
            approvers.retain(|approver| approver != name);
            tx.exec(
                "UPDATE approval SET approvers = ?3 WHERE account = ?1 AND id = ?2",
                args![id, serde_json::to_string(&approvers)?],
            )?;
        }
    }
    Ok(())
}

const ALREADY_DECIDED: StoreError = StoreError::Conflict {
    code: "already_decided",
    message: "this was decided before, or its time is over: nothing has changed",
};

fn facts(sql: &Sql<'_>, tenant: &Tenant, row: &ApprovalRow) -> Result<Option<Approval>, StoreError> {
    let Some(session) = session::facts(sql, tenant, row.session)? else { return Ok(None) };
    Ok(Some(for_store::approval(session, row.id, row.requester.clone(), row.approvers.clone())))
}

impl Store {
    /// Finds an approval of the scope's tenant, as the policy sees it. `None` if there is none of that id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn approval_find(&self, scope: &Scope, id: ApprovalId) -> Result<Option<Approval>, StoreError> {
        self.database(scope.tenant())?
            .read(|sql| match read_row(sql, id)? {
                None => Ok(None),
                Some(row) => facts(sql, scope.tenant(), &row),
            })
            .await
    }

    /// One approval.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn approval_read(&self, permit: &Permit<ReadApproval>) -> Result<PendingApproval, StoreError> {
        let approval = permit.resource();
        let row = self
            .database(permit.tenant())?
            .read(|sql| read_row(sql, approval.id()))
            .await?
            .ok_or_else(|| StoreError::not_found("approval", approval.id()))?;
        let session = approval.session();
        Ok(PendingApproval { approval: row, space: session.space().id(), agent: session.agent().clone() })
    }

    /// The pending approvals that the caller may decide, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn approval_list(&self, permit: Permit<ListApprovals>) -> Result<Vec<PendingApproval>, StoreError> {
        let scope = permit.scope();
        self.database(permit.tenant())?
            .read(|sql| {
                let rows = sql.all(
                    "SELECT id, session, call, kind, tool, prompt, arguments, digest, options, requester, approvers, \
                 state, decided_by, reason, answer, created_at, expires_at FROM approval \
                 WHERE account = ?1 AND state = 'pending' AND expires_at > ?2 ORDER BY id LIMIT 1000",
                    args![Timestamp::now()],
                    approval_row,
                )?;
                let mut seen = Vec::new();
                for row in rows {
                    if let Some(resource) = facts(sql, scope.tenant(), &row)?
                        && scope.may::<DecideApproval>(&resource)
                    {
                        let session = resource.session();
                        let (space, agent) = (session.space().id(), session.agent().clone());
                        seen.push(PendingApproval { approval: row, space, agent });
                    }
                }
                Ok(seen)
            })
            .await
    }

    /// Decides. Once; a second decision, or one after the time is over, changes nothing.
    ///
    /// # Errors
    /// `already_decided`.
    pub async fn approval_decide(
        &self,
        permit: Permit<DecideApproval>,
        decision: Decision,
        reason: Option<String>,
        answer: Value,
    ) -> Result<SessionId, StoreError> {
        let id = permit.resource().id();
        let session = permit.resource().session().id();
        let decider = permit.scope().user().cloned();
        let word = match decision {
            Decision::Approve => ApprovalState::Approved,
            Decision::Deny => ApprovalState::Denied,
            Decision::Answer => ApprovalState::Answered,
        };
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        draft.detail.insert("decision".to_owned(), json!(word.as_str()));
        self.write(permit.tenant(), move |tx| {
            let row = read_row(tx, id)?.ok_or_else(|| StoreError::not_found("approval", id))?;
            let fits = match decision {
                Decision::Approve | Decision::Deny => row.kind == Kind::ToolApproval,
                Decision::Answer => row.kind == Kind::Question,
            };
            if !fits {
                return Err(StoreError::Conflict {
                    code: "wrong_kind",
                    message: "an approval takes approve or deny; a question takes an answer",
                });
            }
            if row.expires_at <= Timestamp::now() {
                return Err(ALREADY_DECIDED);
            }
            advance(tx, id, ApprovalState::Pending, word)?;
            tx.exec(
                "UPDATE approval SET decided_by = ?3, reason = ?4, answer = ?5 WHERE account = ?1 AND id = ?2",
                args![id, decider.as_ref(), reason.as_ref(), answer.to_string()],
            )?;
            draft.detail.insert("tool".to_owned(), json!(row.tool));
            draft.detail.insert("digest".to_owned(), json!(bailiwick_audit::event::hex(&row.digest)));
            log::append(tx, draft)?;
            tx.touched(session);
            Ok(())
        })
        .await?;
        Ok(session)
    }

    /// Ends what nobody decided in time.
    ///
    /// # Errors
    /// `already_decided` if somebody just did.
    pub async fn approval_expire(&self, tenant: &Tenant, id: ApprovalId) -> Result<(), StoreError> {
        self.write(tenant, move |tx| {
            let row = read_row(tx, id)?.ok_or_else(|| StoreError::not_found("approval", id))?;
            if row.expires_at > Timestamp::now() {
                return Err(StoreError::Conflict { code: "not_yet", message: "its time is not over" });
            }
            advance(tx, id, ApprovalState::Pending, ApprovalState::Expired)?;
            let mut draft = crate::account::startup("approval.expire", format!("approval:{id}"));
            draft.actor = bailiwick_audit::Actor::Service("approval-clock".to_owned());
            log::append(tx, Draft { detail: Map::from_iter([("tool".to_owned(), json!(row.tool))]), ..draft })?;
            tx.touched(row.session);
            Ok(())
        })
        .await
    }
}
