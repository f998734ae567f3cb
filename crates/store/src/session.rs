//! Sessions: durable conversations. The row says where a session stands; its stream is numbered and
//! only grows; what callers sent waits in `delivery` until a turn takes it up.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb::{
    ControlSession, CreateSession, ListSessions, ReadSession, ReadSpace, SendSession, UseAgent,
};
use bailiwick_auth::access::{Session, Verb};
use bailiwick_auth::{Permit, Scope, Tenant, for_store};
use bailiwick_types::{AccountName, AgentName, SessionId, SpaceId, Timestamp, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::agent::{self, AgentRow};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::sql::{Row, Sql, args};
use crate::store::Store;
use crate::{log, quota, space};

mod stream;

pub(crate) use stream::fitting;

/// Messages that may wait for one session. Commands have some room of their own: a session that is
/// flooded must still be stopped.
const MESSAGES_WAITING: u64 = 64;
const DELIVERIES_WAITING: u64 = MESSAGES_WAITING + 16;
/// Bytes that may wait for one session.
const BYTES_WAITING: u64 = 16 * 1024 * 1024;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// Waits for a message.
    Idle,
    /// A turn is under way.
    Running,
    /// A turn waits for a person's decision about a tool call.
    AwaitingApproval,
    /// A turn waits for a person's answer to a question.
    AwaitingInput,
    /// The last turn failed. Waits for a message, as when idle.
    Failed,
    /// Ended by a reset.
    Done,
    /// The last turn was canceled. Waits for a message, as when idle.
    Canceled,
}

impl SessionState {
    /// The word as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::AwaitingApproval => "awaiting-approval",
            Self::AwaitingInput => "awaiting-input",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Canceled => "canceled",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_value(json!(text)).map_err(|_| StoreError::Corrupt("a session's state"))
    }

    /// Whether it takes no more messages.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done)
    }
}

/// Who sent a message: enough to find the caller again after a restart, and nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The account.
    pub account: AccountName,
    /// The user.
    pub user: UserName,
    /// By which credential, as on the record.
    pub credential: String,
    /// From which address.
    pub address: std::net::IpAddr,
}

impl Caller {
    /// The caller of a scope; `None` for the operator without tenant headers.
    pub fn of(scope: &Scope) -> Option<Self> {
        Some(Self {
            account: scope.tenant().account().clone(),
            user: scope.user()?.clone(),
            credential: scope.credential().to_text(),
            address: scope.address(),
        })
    }
}

/// Tokens of a session or a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// Read by the model.
    pub input_tokens: u64,
    /// Written by the model.
    pub output_tokens: u64,
    /// Read from the provider's cache.
    pub cache_read_tokens: u64,
    /// Written to the provider's cache.
    pub cache_write_tokens: u64,
}

impl Tokens {
    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
    }

    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input_tokens + self.output_tokens
    }
}

/// A session's row.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// Its space.
    pub space: SpaceId,
    /// Its agent.
    pub agent: AgentName,
    /// The agent's version, which stays.
    pub agent_version: u64,
    /// Who began it.
    pub initiator: UserName,
    /// Where it stands.
    pub state: SessionState,
    /// The number of the present turn, or of the next one when idle.
    pub turn: u64,
    /// The number of the present model call in the turn.
    pub step: u64,
    /// How many events its stream has.
    pub events: u64,
    /// What the present turn must remember; its shape is the runtime's.
    pub facts: Value,
    /// Tokens so far.
    pub tokens: Tokens,
    /// When begun.
    pub created_at: Timestamp,
    /// When last changed.
    pub updated_at: Timestamp,
}

/// Something that a caller sent.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its place in the queue.
    pub n: u64,
    /// Its id, as the caller was told.
    pub id: String,
    /// What it says; its shape is the runtime's.
    pub body: Value,
    /// Who sent it.
    pub caller: Caller,
}

/// A new session, or the one that the same operation began before.
pub struct Created {
    /// The session.
    pub session: Session,
    /// Whether this call made it.
    pub fresh: Fresh,
}

/// Whether a call made the thing that it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// It did.
    Yes,
    /// An earlier one had.
    No,
}

/// What a new session begins with.
pub struct NewSession {
    /// Makes the creation idempotent for this user.
    pub operation: Option<String>,
    /// The first message, with its delivery's id.
    pub first: Option<(String, Value)>,
}

/// The one delivery whose meaning the store knows.
const RESET: &str = r#"{"kind":"reset"}"#;

const ROW: &str = "SELECT id, space, agent, agent_version, initiator, state, turn, step, next_event, turn_facts, \
     usage, created_at, updated_at FROM session WHERE account = ?1 AND id = ?2";

fn session_row(row: &Row<'_>) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        id: row.parse(0)?,
        space: row.parse(1)?,
        agent: row.parse(2)?,
        agent_version: row.count(3)?,
        initiator: row.parse(4)?,
        state: SessionState::parse(&row.text(5)?)?,
        turn: row.count(6)?,
        step: row.count(7)?,
        events: row.count(8)?,
        facts: row.json(9)?,
        tokens: row.json(10)?,
        created_at: row.time(11)?,
        updated_at: row.time(12)?,
    })
}

pub(crate) fn read_row(sql: &Sql<'_>, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
    sql.one(ROW, args![id], session_row)
}

/// A session as the policy sees it.
pub(crate) fn facts(sql: &Sql<'_>, tenant: &Tenant, id: SessionId) -> Result<Option<Session>, StoreError> {
    let Some(row) = read_row(sql, id)? else { return Ok(None) };
    let space = space::facts(sql, tenant, row.space)?.ok_or(StoreError::Corrupt("a session without its space"))?;
    Ok(Some(for_store::session(space, row.id, row.agent, row.initiator)))
}

pub(crate) fn enqueue(
    tx: &mut Tx<'_>,
    session: SessionId,
    id: &str,
    body: &Value,
    caller: &Caller,
) -> Result<(), StoreError> {
    let text = body.to_string();
    let (waiting, last, bytes) = tx
        .one(
            "SELECT count(*), coalesce(max(n), 0), coalesce(sum(length(body)), 0) FROM delivery \
             WHERE account = ?1 AND session = ?2",
            args![session],
            |row| Ok((row.count(0)?, row.count(1)?, row.count(2)?)),
        )?
        .unwrap_or((0, 0, 0));
    let most = if body["kind"] == "message" { MESSAGES_WAITING } else { DELIVERIES_WAITING };
    if waiting >= most || (waiting > 0 && bytes + text.len() as u64 > BYTES_WAITING) {
        return Err(StoreError::Conflict {
            code: "session_not_ready",
            message: "too many messages wait for this session: wait for its answer",
        });
    }
    tx.exec(
        "INSERT INTO delivery (account, session, n, id, body, caller, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        args![session, last + 1, id, text, serde_json::to_string(caller)?, Timestamp::now()],
    )?;
    tx.touched(session);
    Ok(())
}

impl Store {
    /// Begins a session.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the agent is not there; [`StoreError::Exhausted`] if there is a first
    /// message and the account has too many sessions at work.
    pub async fn session_create(
        &self,
        space: Permit<CreateSession>,
        agent: Permit<UseAgent>,
        new: NewSession,
    ) -> Result<Created, StoreError> {
        let no_user = StoreError::Conflict { code: "no_user", message: "only a user can begin a session" };
        let caller = Caller::of(space.scope()).ok_or(no_user)?;
        let tenant = space.tenant().clone();
        let (space_facts, agent_name) = (space.resource().clone(), agent.resource().name().clone());
        let mut draft = space.draft(Phase::Act, Verdict::Ok, Map::new());
        let id = SessionId::new();
        draft.resource = format!("session:{id}");
        draft.agent = Some(agent_name.clone());
        let (within, quotas) = (tenant.clone(), self.default_quotas());
        self.write(&tenant, move |tx| {
            if let Some(operation) = &new.operation {
                let earlier = tx.one(
                    "SELECT id FROM session WHERE account = ?1 AND initiator = ?2 AND operation = ?3",
                    args![&caller.user, operation],
                    |row| row.parse::<SessionId>(0),
                )?;
                if let Some(earlier) = earlier {
                    let session =
                        facts(tx, &within, earlier)?.ok_or_else(|| StoreError::not_found("session", earlier))?;
                    // The same name for another thing: whoever repeats must mean the same.
                    if session.space().id() != space_facts.id() || *session.agent() != agent_name {
                        let message = "this operationId began a session in another space or of another agent";
                        return Err(StoreError::Conflict { code: "operation_mismatch", message });
                    }
                    return Ok(Created { session, fresh: Fresh::No });
                }
            }
            space::must_be_there(tx, space_facts.id())?;
            let AgentRow { version, .. } =
                agent::newest(tx, &agent_name)?.ok_or_else(|| StoreError::not_found("agent", &agent_name))?;
            let now = Timestamp::now();
            tx.exec(
                "INSERT INTO session (account, id, space, agent, agent_version, initiator, state, turn, step, lease, \
                 next_event, next_message, caller, operation, turn_facts, usage, created_at, updated_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'idle', 0, 0, 0, 0, 0, ?7, ?8, '{}', ?9, ?10, ?10)",
                args![
                    id,
                    space_facts.id(),
                    &agent_name,
                    version,
                    &caller.user,
                    serde_json::to_string(&caller)?,
                    new.operation.as_ref(),
                    serde_json::to_string(&Tokens::default())?,
                    now,
                ],
            )?;
            if let Some((delivery, body)) = &new.first {
                quota::admit_turn(tx, &quotas, id)?;
                enqueue(tx, id, delivery, body, &caller)?;
            }
            log::append(tx, draft)?;
            let session = for_store::session(space_facts, id, agent_name, caller.user);
            Ok(Created { session, fresh: Fresh::Yes })
        })
        .await
    }

    /// Finds a session of the scope's tenant, as the policy sees it. `None` if there is none of that id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session_find(&self, scope: &Scope, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.database(scope.tenant())?.read_for(scope, |sql| facts(sql, scope.tenant(), id)).await
    }

    /// A session's row.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it was deleted meanwhile.
    pub async fn session_read(&self, permit: &Permit<ReadSession>) -> Result<SessionRow, StoreError> {
        let id = permit.resource().id();
        self.database(permit.tenant())?
            .read_for(permit.scope(), |sql| read_row(sql, id))
            .await?
            .ok_or_else(|| StoreError::not_found("session", id))
    }

    /// The caller's sessions, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session_list(
        &self,
        permit: Permit<ListSessions>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let scope = permit.scope();
        let Some(user) = scope.user() else { return Ok(Vec::new()) };
        self.database(permit.tenant())?
            .read_for(scope, |sql| {
                let rows = sql.all(
                "SELECT id, space, agent, agent_version, initiator, state, turn, step, next_event, turn_facts, usage, \
                 created_at, updated_at FROM session WHERE account = ?1 AND initiator = ?2 ORDER BY id DESC LIMIT ?3",
                args![user, limit],
                session_row,
            )?;
                self.only_readable(sql, scope, rows)
            })
            .await
    }

    /// The sessions of a space that the caller may read, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session_list_in(
        &self,
        permit: &Permit<ReadSpace>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        self.database(permit.tenant())?
            .read_for(permit.scope(), |sql| {
                let rows = sql.all(
                "SELECT id, space, agent, agent_version, initiator, state, turn, step, next_event, turn_facts, usage, \
                 created_at, updated_at FROM session WHERE account = ?1 AND space = ?2 ORDER BY id DESC LIMIT ?3",
                args![permit.resource().id(), limit],
                session_row,
            )?;
                self.only_readable(sql, permit.scope(), rows)
            })
            .await
    }

    fn only_readable(
        &self,
        sql: &Sql<'_>,
        scope: &Scope,
        rows: Vec<SessionRow>,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let mut readable = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(space) = space::facts(sql, scope.tenant(), row.space)? else { continue };
            let session = for_store::session(space, row.id, row.agent.clone(), row.initiator.clone());
            if scope.may::<ReadSession>(&session) {
                readable.push(row);
            }
        }
        Ok(readable)
    }

    /// Puts a message into the session's queue.
    ///
    /// # Errors
    /// `session_not_active` if the session has ended, `session_not_ready` if too much waits,
    /// [`StoreError::Exhausted`] if the account has too many sessions at work.
    pub async fn session_send(
        &self,
        permit: Permit<SendSession>,
        delivery: String,
        body: Value,
    ) -> Result<(), StoreError> {
        self.deliver(permit, delivery, body).await
    }

    /// Puts a command (cancel, clear, compact, reset) into the session's queue.
    ///
    /// # Errors
    /// `session_not_active` if the session has ended.
    pub async fn session_control(
        &self,
        permit: Permit<ControlSession>,
        delivery: String,
        body: Value,
    ) -> Result<(), StoreError> {
        self.deliver(permit, delivery, body).await
    }

    async fn deliver<V: Verb<Resource = Session>>(
        &self,
        permit: Permit<V>,
        delivery: String,
        body: Value,
    ) -> Result<(), StoreError> {
        let id = permit.resource().id();
        let no_user = StoreError::Conflict { code: "no_user", message: "only a user can send into a session" };
        let caller = Caller::of(permit.scope()).ok_or(no_user)?;
        let kind = body.get("kind").cloned().unwrap_or(Value::Null);
        let (works, quotas) = (kind == "message" || kind == "compact", self.default_quotas());
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::from_iter([("kind".to_owned(), kind)]));
        draft.detail.insert("delivery".to_owned(), json!(delivery));
        self.write(permit.tenant(), move |tx| {
            let row = read_row(tx, id)?.ok_or_else(|| StoreError::not_found("session", id))?;
            // A reset that waits for its turn has ended the session for everybody who comes after it.
            let reset = tx.one(
                "SELECT 1 FROM delivery WHERE account = ?1 AND session = ?2 AND body = ?3",
                args![id, RESET],
                |_| Ok(()),
            )?;
            if row.state.is_ended() || reset.is_some() {
                return Err(StoreError::Conflict {
                    code: "session_not_active",
                    message: "The session is no longer active.",
                });
            }
            if works {
                quota::admit_turn(tx, &quotas, id)?;
            }
            enqueue(tx, id, &delivery, &body, &caller)?;
            log::append(tx, draft).map(drop)
        })
        .await
    }
}
