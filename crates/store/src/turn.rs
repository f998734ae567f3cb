//! The work of a turn: what the runtime writes while it drives a session.
//!
//! A turn holds a [`Lease`], a number that fences: once another driver has taken a newer one, every
//! write under the old one fails. A lease permits nothing but writing into its own session; each
//! effect of a turn (a model call, a tool call) takes a fresh permit of the turn's caller besides.

mod change;

use bailiwick_audit::{Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{CallModel, CallTool};
use bailiwick_auth::access::{Resource, Session, Unapproved};
use bailiwick_auth::{Permit, Recorded, Tenant, for_store};
use bailiwick_types::{ApprovalId, CallId, Exhausted, Quotas, SessionId, Timestamp, ToolName, UserName};
use serde_json::{Map, Value, json};

use crate::agent::{self, AgentRow};
use crate::approval::{self, ApprovalRow, ApprovalState};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::session::{self, Caller, Delivery, SessionRow, SessionState, Tokens};
use crate::sql::{Sql, args};
use crate::store::Store;
use crate::usage::{Spending, Spent};
use crate::{log, quota, space, usage};
use change::{tell, write_call, write_events, write_messages};

/// The right to write into one session until somebody takes it over.
#[derive(Clone)]
pub struct Lease {
    tenant: Tenant,
    session: SessionId,
    number: u64,
}

impl Lease {
    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The session.
    pub fn session(&self) -> SessionId {
        self.session
    }
}

/// How far a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState {
    /// Wanted by the model, and allowed to run.
    Requested,
    /// Waits for a person.
    Asked,
    /// Its intent is on record: it may have run.
    Started,
    /// Has a result, or was refused.
    Done,
}

impl CallState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Asked => "asked",
            Self::Started => "started",
            Self::Done => "done",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        [Self::Requested, Self::Asked, Self::Started, Self::Done]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(StoreError::Corrupt("a call's state"))
    }
}

/// One tool call of a session.
#[derive(Debug, Clone)]
pub struct CallRow {
    /// Our id.
    pub id: CallId,
    /// In which turn.
    pub turn: u64,
    /// In which step.
    pub step: u64,
    /// Its place among the step's calls.
    pub place: u64,
    /// The model's id for it.
    pub model_id: String,
    /// Which tool.
    pub tool: ToolName,
    /// With which arguments.
    pub arguments: Value,
    /// How far it is.
    pub state: CallState,
    /// The number of the intent's event.
    pub intent: Option<u64>,
    /// What the model will read; its shape is the runtime's.
    pub output: Option<Value>,
}

/// Everything that a driver must know to go on.
pub struct Standing {
    /// The session as the policy sees it.
    pub session: Session,
    /// Its row.
    pub row: SessionRow,
    /// Who sent the message that the present turn answers.
    pub caller: Caller,
    /// The agent in the version that the session began with.
    pub agent: AgentRow,
    /// The agent as it is defined now; `None` if it was deleted.
    pub newest: Option<AgentRow>,
    /// What callers sent and no turn has taken up.
    pub deliveries: Vec<Delivery>,
    /// The calls of the present turn.
    pub calls: Vec<CallRow>,
    /// The approvals and questions of the present turn.
    pub approvals: Vec<ApprovalRow>,
}

/// What the model is shown, changed.
#[derive(Debug, Clone, Default)]
pub enum Messages {
    /// Not at all.
    #[default]
    Keep,
    /// These come after the others.
    Append(Vec<Value>),
    /// These instead of all others.
    Replace(Vec<Value>),
}

/// A change of one tool call.
#[derive(Debug, Clone)]
pub enum CallChange {
    /// The model wants it.
    New(CallRow),
    /// It has a result, or was refused.
    Done(CallId, Value),
}

/// What a turn writes at once: all of it, or nothing.
#[derive(Default)]
pub struct Change {
    /// New events of the stream: type and data.
    pub events: Vec<(&'static str, Value)>,
    /// The deliveries that these events belong to.
    pub delivery_ids: Vec<String>,
    /// What the model is shown.
    pub messages: Messages,
    /// Where the session stands now.
    pub state: Option<SessionState>,
    /// Turn and step now.
    pub place: Option<(u64, u64)>,
    /// Who the present turn answers.
    pub caller: Option<Caller>,
    /// What the turn must remember.
    pub facts: Option<Value>,
    /// Tokens to add.
    pub tokens: Tokens,
    /// Deliveries that are taken up.
    pub taken: Vec<u64>,
    /// Changed tool calls.
    pub calls: Vec<CallChange>,
    /// New approvals and questions.
    pub approvals: Vec<ApprovalRow>,
    /// Pending approvals that the turn waits for no longer: ignored, or canceled. One that was decided
    /// in this moment stays decided.
    pub settled: Vec<(ApprovalId, ApprovalState)>,
    /// Contents of files that the session has now seen.
    pub seen: Vec<(String, [u8; 32])>,
    /// Lines of the audit log.
    pub audit: Vec<Draft>,
}

/// A lease is for one session, and a permit is; what is begun with both must be of the same.
fn same_session(lease: &Lease, session: &Session) -> Result<(), StoreError> {
    if session.id() == lease.session && session.tenant() == Some(&lease.tenant) {
        return Ok(());
    }
    Err(StoreError::Conflict { code: "wrong_session", message: "the permit is for another session than the lease" })
}

/// How long after its time an approved call may still begin: a restart, not a week.
const STALE_AFTER: std::time::Duration = std::time::Duration::from_secs(15 * 60);

fn fence(tx: &mut Tx<'_>, lease: &Lease) -> Result<(), StoreError> {
    let held =
        tx.one("SELECT lease FROM session WHERE account = ?1 AND id = ?2", args![lease.session], |row| row.count(0))?;
    if held == Some(lease.number) { Ok(()) } else { Err(StoreError::Fenced) }
}

fn apply(tx: &mut Tx<'_>, lease: &Lease, change: &Change) -> Result<(), StoreError> {
    fence(tx, lease)?;
    let id = lease.session;
    write_events(tx, id, change)?;
    write_messages(tx, id, &change.messages)?;
    let (turn, step) = change.place.unzip();
    tx.exec(
        "UPDATE session SET state = coalesce(?3, state), turn = coalesce(?4, turn), step = coalesce(?5, step), \
         turn_facts = coalesce(?6, turn_facts), caller = coalesce(?7, caller), updated_at = ?8 \
         WHERE account = ?1 AND id = ?2",
        args![
            id,
            change.state.map(SessionState::as_str),
            turn,
            step,
            change.facts.as_ref().map(Value::to_string),
            change.caller.as_ref().map(serde_json::to_string).transpose()?,
            Timestamp::now(),
        ],
    )?;
    if change.tokens != Tokens::default() {
        let (mut tokens, caller): (Tokens, Caller) = tx
            .one("SELECT usage, caller FROM session WHERE account = ?1 AND id = ?2", args![id], |row| {
                Ok((row.json(0)?, row.json(1)?))
            })?
            .ok_or_else(|| StoreError::not_found("session", id))?;
        tokens.add(&change.tokens);
        let (tokens_in, tokens_out) = (change.tokens.input_tokens, change.tokens.output_tokens);
        usage::count(tx, Some(&caller.user), &Spent { tokens_in, tokens_out, ..Spent::default() })?;
        tx.exec(
            "UPDATE session SET usage = ?3 WHERE account = ?1 AND id = ?2",
            args![id, serde_json::to_string(&tokens)?],
        )?;
    }
    for n in &change.taken {
        tx.exec("DELETE FROM delivery WHERE account = ?1 AND session = ?2 AND n = ?3", args![id, *n])?;
    }
    for call in &change.calls {
        write_call(tx, id, call)?;
    }
    for new in &change.approvals {
        if new.session != id || new.state != ApprovalState::Pending {
            return Err(StoreError::Corrupt("an approval of another session"));
        }
        approval::insert(tx, new)?;
    }
    tell(tx, id, change)?;
    for (approval, to) in &change.settled {
        // A turn can give up waiting. It cannot decide.
        if !matches!(to, ApprovalState::Ignored | ApprovalState::Canceled) {
            return Err(StoreError::Corrupt("a turn that decides its own approval"));
        }
        tx.exec(
            "UPDATE approval SET state = ?4 WHERE account = ?1 AND id = ?2 AND session = ?3 AND state = 'pending'",
            args![*approval, id, to.as_str()],
        )?;
    }
    for (path, hash) in &change.seen {
        tx.exec(
            "INSERT INTO file_seen (account, session, path, hash) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (account, session, path) DO UPDATE SET hash = excluded.hash",
            args![id, path, hash],
        )?;
    }
    for draft in &change.audit {
        log::append(tx, draft.clone())?;
    }
    tx.touched(id);
    Ok(())
}

fn calls(sql: &Sql<'_>, id: SessionId, turn: u64) -> Result<Vec<CallRow>, StoreError> {
    sql.all(
        "SELECT id, turn, step, place, model_id, tool, arguments, state, intent, output FROM tool_call \
         WHERE account = ?1 AND session = ?2 AND turn = ?3 ORDER BY step, place",
        args![id, turn],
        |row| {
            Ok(CallRow {
                id: row.parse(0)?,
                turn: row.count(1)?,
                step: row.count(2)?,
                place: row.count(3)?,
                model_id: row.text(4)?,
                tool: row.parse(5)?,
                arguments: row.json(6)?,
                state: CallState::parse(&row.text(7)?)?,
                intent: row.optional_int(8)?.and_then(|n| u64::try_from(n).ok()),
                output: row.optional_json(9)?,
            })
        },
    )
}

fn deliveries(sql: &Sql<'_>, id: SessionId) -> Result<Vec<Delivery>, StoreError> {
    sql.all(
        "SELECT n, id, body, caller FROM delivery WHERE account = ?1 AND session = ?2 ORDER BY n",
        args![id],
        |row| Ok(Delivery { n: row.count(0)?, id: row.text(1)?, body: row.json(2)?, caller: row.json(3)? }),
    )
}

fn standing(sql: &Sql<'_>, tenant: &Tenant, id: SessionId) -> Result<Standing, StoreError> {
    let row = session::read_row(sql, id)?.ok_or_else(|| StoreError::not_found("session", id))?;
    let caller: Caller = sql
        .one("SELECT caller FROM session WHERE account = ?1 AND id = ?2", args![id], |row| row.json(0))?
        .ok_or_else(|| StoreError::not_found("session", id))?;
    let space = space::facts(sql, tenant, row.space)?.ok_or(StoreError::Corrupt("a session without its space"))?;
    let session = for_store::session(space, id, row.agent.clone(), row.initiator.clone());
    let agent = agent::version(sql, &row.agent, row.agent_version)?;
    let deliveries = deliveries(sql, id)?;
    let calls = calls(sql, id, row.turn)?;
    let approvals = approval::of_turn(sql, id, row.turn)?;
    let newest = agent::newest(sql, &row.agent)?;
    Ok(Standing { session, row, caller, agent, newest, deliveries, calls, approvals })
}

impl Store {
    /// Takes the session over: from now on only the holder of this lease writes into it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the session is gone.
    pub async fn turn_lease(&self, tenant: &Tenant, session: SessionId) -> Result<Lease, StoreError> {
        let number = self
            .write(tenant, move |tx| {
                tx.exec("UPDATE session SET lease = lease + 1 WHERE account = ?1 AND id = ?2", args![session])?;
                tx.one("SELECT lease FROM session WHERE account = ?1 AND id = ?2", args![session], |row| row.count(0))?
                    .ok_or_else(|| StoreError::not_found("session", session))
            })
            .await?;
        Ok(Lease { tenant: tenant.clone(), session, number })
    }

    /// Where the session stands.
    ///
    /// # Errors
    /// If the database fails, or the session is gone.
    pub async fn turn_standing(&self, lease: &Lease) -> Result<Standing, StoreError> {
        self.database(&lease.tenant)?.read(|sql| standing(sql, &lease.tenant, lease.session)).await
    }

    /// What the model is shown, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn turn_messages(&self, lease: &Lease) -> Result<Vec<Value>, StoreError> {
        self.database(&lease.tenant)?
            .read(|sql| {
                sql.all(
                    "SELECT body FROM session_message WHERE account = ?1 AND session = ?2 ORDER BY n",
                    args![lease.session],
                    |row| row.json(0),
                )
            })
            .await
    }

    /// The newest of them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn turn_last_message(&self, lease: &Lease) -> Result<Option<Value>, StoreError> {
        self.database(&lease.tenant)?
            .read(|sql| {
                sql.one(
                    "SELECT body FROM session_message WHERE account = ?1 AND session = ?2 ORDER BY n DESC LIMIT 1",
                    args![lease.session],
                    |row| row.json(0),
                )
            })
            .await
    }

    /// What callers sent and no turn has taken up.
    ///
    /// # Errors
    /// If the database fails, or the session is gone.
    pub async fn turn_deliveries(&self, lease: &Lease) -> Result<Vec<Delivery>, StoreError> {
        self.database(&lease.tenant)?
            .read(|sql| {
                let there =
                    sql.one("SELECT 1 FROM session WHERE account = ?1 AND id = ?2", args![lease.session], |_| Ok(()))?;
                there.ok_or_else(|| StoreError::not_found("session", lease.session))?;
                deliveries(sql, lease.session)
            })
            .await
    }

    /// The content hash of a file as the session last saw it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn turn_file_seen(&self, lease: &Lease, path: &str) -> Result<Option<[u8; 32]>, StoreError> {
        self.database(&lease.tenant)?
            .read(|sql| {
                sql.one(
                    "SELECT hash FROM file_seen WHERE account = ?1 AND session = ?2 AND path = ?3",
                    args![lease.session, path],
                    |row| row.blob(0)?.try_into().map_err(|_| StoreError::Corrupt("a content hash")),
                )
            })
            .await
    }

    /// Writes what a turn did.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another driver has taken over.
    pub async fn turn_commit(&self, lease: &Lease, change: Change) -> Result<(), StoreError> {
        let held = lease.clone();
        self.write(&lease.tenant, move |tx| apply(tx, &held, &change)).await
    }

    /// Puts the intent of a model call on record, together with what the turn writes before it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], or if the record cannot be written: the call must not happen.
    /// [`StoreError::Exhausted`] if a budget is used up; what the turn writes before it is then written, too.
    pub async fn model_begin(
        &self,
        lease: &Lease,
        permit: Permit<CallModel>,
        detail: Map<String, Value>,
        change: Change,
    ) -> Result<Recorded<CallModel>, StoreError> {
        same_session(lease, permit.resource())?;
        let draft = permit.draft(Phase::Intent, Verdict::Begun, detail);
        let (held, quotas, user) = (lease.clone(), self.default_quotas(), permit.scope().user().cloned());
        let begun = self
            .write(&lease.tenant, move |tx| {
                apply(tx, &held, &change)?;
                spend(tx, &quotas, (user.as_ref(), Spending::ModelCall), draft)
            })
            .await?;
        Ok(for_store::recorded(permit, begun?))
    }

    /// Puts the intent of a tool call on record, and marks the call as begun.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], `already_started`, or if the record cannot be written: nothing must run.
    /// [`StoreError::Exhausted`] if the day's budget is used up; the refusal is then on record.
    pub async fn call_begin(
        &self,
        lease: &Lease,
        permit: Permit<CallTool>,
        detail: Map<String, Value>,
    ) -> Result<Recorded<CallTool>, StoreError> {
        same_session(lease, permit.resource().session())?;
        let draft = permit.draft(Phase::Intent, Verdict::Begun, detail);
        let call = permit.resource().id();
        let (held, quotas, user) = (lease.clone(), self.default_quotas(), permit.scope().user().cloned());
        let begun =
            self.write(&lease.tenant, move |tx| begin(tx, (&held, call), &quotas, user.as_ref(), draft)).await?;
        Ok(for_store::recorded(permit, begun?))
    }

    /// As [`Self::call_begin`], for a call that a person approved: uses the approval up in the same
    /// transaction. `digest` is over the tool's definition and the arguments as they are now; if it is
    /// not the one that was approved, the approval is void and nothing runs.
    ///
    /// # Errors
    /// `approval_void`, or as [`Self::call_begin`].
    pub async fn call_begin_approved(
        &self,
        lease: &Lease,
        call: Unapproved,
        approval: ApprovalId,
        digest: [u8; 32],
        detail: Map<String, Value>,
    ) -> Result<Recorded<CallTool>, StoreError> {
        same_session(lease, call.call().session())?;
        let id = call.call().id();
        let mut draft = call.scope().draft("tool.call", call.call(), Phase::Intent, Verdict::Begun);
        draft.detail = detail;
        draft.detail.insert("approval".to_owned(), json!(approval));
        let (held, quotas, user) = (lease.clone(), self.default_quotas(), call.scope().user().cloned());
        let resource = call.call().label();
        let begun = self
            .write(&lease.tenant, move |tx| {
                fence(tx, &held)?;
                let row =
                    approval::read_row(tx, approval)?.ok_or_else(|| StoreError::not_found("approval", approval))?;
                // An approval of another call says nothing about this one, and is left as it is.
                if row.session != held.session || row.call != id {
                    return Err(StoreError::not_found("approval", approval));
                }
                // What was decided long ago was decided about another moment.
                let stale = row.expires_at.after(STALE_AFTER) < Timestamp::now();
                if row.digest != digest || stale {
                    approval::advance(tx, approval, ApprovalState::Approved, ApprovalState::Voided)?;
                    let mut voided = draft.clone();
                    voided.action = "approval.void".to_owned();
                    voided.resource = resource;
                    voided.phase = Phase::Act;
                    voided.verdict = Verdict::Denied;
                    log::append(tx, voided)?;
                    return Ok(None);
                }
                approval::advance(tx, approval, ApprovalState::Approved, ApprovalState::Used)?;
                begin(tx, (&held, id), &quotas, user.as_ref(), draft).map(Some)
            })
            .await?;
        let begun = begun.ok_or(StoreError::Conflict {
            code: "approval_void",
            message: "the tool or its arguments are not those that were approved",
        })?;
        Ok(for_store::recorded_with_approval(call, begun?))
    }

    /// The sessions of an account that a restart must look at: those in the middle of something.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn turns_unfinished(&self) -> Result<Vec<(Tenant, SessionId)>, StoreError> {
        let mut found = Vec::new();
        for tenant in self.all_tenants().await? {
            match self.unfinished_of(&tenant).await {
                Ok(some) => found.extend(some.into_iter().map(|session| (tenant.clone(), session))),
                Err(error) => {
                    let account = tenant.account();
                    tracing::error!(%account, %error, "the unfinished sessions of an account could not be listed");
                }
            }
        }
        Ok(found)
    }

    async fn unfinished_of(&self, tenant: &Tenant) -> Result<Vec<SessionId>, StoreError> {
        self.database(tenant)?
            .read(|sql| {
                sql.all(
                    "SELECT id FROM session WHERE account = ?1 \
                 AND (state NOT IN ('idle', 'failed', 'done', 'canceled') \
                 OR EXISTS (SELECT 1 FROM delivery d WHERE d.account = ?1 AND d.session = session.id))",
                    args![],
                    |row| row.parse(0),
                )
            })
            .await
    }
}

/// The number of an intent that is on record, or which budget is used up, which is on record instead.
type Begun = Result<u64, Exhausted>;

/// Puts an intent on record and counts it; or puts on record that there is nothing left to spend.
fn spend(
    tx: &mut Tx<'_>,
    quotas: &Quotas,
    (who, what): (Option<&UserName>, Spending),
    draft: Draft,
) -> Result<Begun, StoreError> {
    match usage::spend(tx, quotas, who, what)? {
        Ok(()) => log::append(tx, draft).map(Ok),
        Err(exhausted) => log::append(tx, quota::denied(draft, &exhausted)).map(|_| Err(exhausted)),
    }
}

fn begin(
    tx: &mut Tx<'_>,
    (lease, call): (&Lease, CallId),
    quotas: &Quotas,
    who: Option<&UserName>,
    draft: Draft,
) -> Result<Begun, StoreError> {
    fence(tx, lease)?;
    let intent = match spend(tx, quotas, (who, Spending::ToolCall), draft)? {
        Ok(intent) => intent,
        exhausted => return Ok(exhausted),
    };
    let begun = tx.exec(
        "UPDATE tool_call SET state = 'started', intent = ?4 WHERE account = ?1 AND session = ?2 AND id = ?3 \
         AND state IN ('requested', 'asked')",
        args![lease.session, call, intent],
    )?;
    if begun == 0 {
        return Err(StoreError::Conflict { code: "already_started", message: "this call was begun before" });
    }
    Ok(Ok(intent))
}
