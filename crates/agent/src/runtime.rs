//! The runtime: what the doors call, and who drives which session.
//!
//! A call of a caller is authorised, written down and acknowledged here; the work itself is a driver's.
//! Drivers exist only while their session has something to do, so a parked session costs no memory.

mod call;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailiwick_audit::Verdict;
use bailiwick_auth::access::verb::{
    ControlSession, CreateSession, DecideApproval, DeleteAccount, DeleteSpace, DeleteUser, ReadApproval, ReadSession,
    SendSession, UseAgent, WriteSpace,
};
use bailiwick_auth::access::{HostPermit, Session, Space, record};
use bailiwick_auth::authn::Walk;
use bailiwick_auth::{Permit, Scope, Tenant};
use bailiwick_store::approval::{Decision, Kind};
use bailiwick_store::session::NewSession;
use bailiwick_store::storage::Need;
use bailiwick_store::{Store, StoreError};
use bailiwick_tools::ToolManager;
use bailiwick_types::{
    AccountName, AgentName, ApprovalId, Incarnation, SessionId, Timestamp, WorkspacePath, failpoint,
};
use futures::FutureExt;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::driver;
use crate::jobs::Jobs;
use crate::message::{Body, FilePart, Message, Part};
use crate::models::Models;

pub use call::{Control, ControlAnswer, Incoming, IncomingPart, Resolution, RuntimeError, RuntimeLimits};

/// Sessions at work. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) walk: Arc<Walk>,
    pub(crate) tools: Arc<ToolManager>,
    pub(crate) models: Models,
    pub(crate) limits: RuntimeLimits,
    places: Semaphore,
    account_places: Mutex<HashMap<Incarnation, Arc<Semaphore>>>,
    drivers: Mutex<HashMap<Key, Arc<Handle>>>,
    timers: Mutex<HashSet<Key>>,
    pub(crate) jobs: Jobs,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// A session in its tenant.
type Key = (Incarnation, SessionId);

/// How others reach a driver.
pub(crate) struct Handle {
    /// Something came while the driver was at work.
    pub(crate) poked: Notify,
    again: AtomicBool,
    /// Cancelled when the server stops.
    pub(crate) stopping: CancellationToken,
}

impl Handle {
    /// Whether something has come since the last call.
    pub(crate) fn take_poke(&self) -> bool {
        self.again.swap(false, Ordering::AcqRel)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id for a delivery, of the shape that eve's clients know: a UUID (RFC 9562, version 7).
fn delivery_id() -> String {
    let id = ulid::Ulid::new().0;
    let id = (id & !(0xf000 << 64) & !(0xc000 << 48)) | (0x7000 << 64) | (0x8000 << 48);
    let hex = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl Runtime {
    /// A runtime over the server's parts. Nothing runs yet.
    pub fn new(store: Store, walk: Arc<Walk>, tools: Arc<ToolManager>, models: Models, limits: RuntimeLimits) -> Self {
        Self(Arc::new(Inner {
            store,
            walk,
            tools,
            models,
            limits,
            places: Semaphore::new(limits.turns),
            account_places: Mutex::default(),
            drivers: Mutex::default(),
            timers: Mutex::default(),
            jobs: Jobs::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }))
    }

    /// Begins a session of `agent` in `space`, with a first message or without. The same `operation` of
    /// the same user gives the same session.
    ///
    /// # Errors
    /// A refusal, or what is wrong with the message.
    pub async fn create(
        &self,
        scope: &Scope,
        space: Space,
        agent: AgentName,
        operation: Option<String>,
        message: Option<Incoming>,
    ) -> Result<SessionId, RuntimeError> {
        let using = scope.authorize::<UseAgent>(scope.agent_named(agent))?;
        let creating = scope.authorize::<CreateSession>(space.clone())?;
        let first = match message {
            None => None,
            Some(message) => {
                let message = self.receive(scope, &space, message).await?;
                Some((delivery_id(), serde_json::to_value(Body::Message(message)).map_err(StoreError::from)?))
            }
        };
        let waiting = first.is_some();
        let (this, tenant) = (self.clone(), scope.tenant().clone());
        whole(async move {
            let created = this.0.store.session_create(creating, using, NewSession { operation, first }).await?;
            let id = created.session.id();
            if waiting {
                this.0.wake(&tenant, id);
            }
            Ok(id)
        })
        .await
    }

    /// Sends a message into a session. Says the delivery's id.
    ///
    /// # Errors
    /// A refusal, what is wrong with the message, or that the session has ended.
    pub async fn send(&self, scope: &Scope, session: Session, message: Incoming) -> Result<String, RuntimeError> {
        let space = session.space().clone();
        let id = session.id();
        let permit = scope.authorize::<SendSession>(session)?;
        let message = self.receive(scope, &space, message).await?;
        let delivery = delivery_id();
        let body = serde_json::to_value(Body::Message(message)).map_err(StoreError::from)?;
        let (this, tenant) = (self.clone(), scope.tenant().clone());
        whole(async move {
            this.0.store.session_send(permit, delivery.clone(), body).await?;
            this.0.wake(&tenant, id);
            Ok(delivery)
        })
        .await
    }

    /// Answers what a turn waits for.
    ///
    /// # Errors
    /// A refusal; `NotFound` for a request that is not this session's; a conflict for one that is
    /// settled already.
    pub async fn respond(
        &self,
        scope: &Scope,
        session: Session,
        responses: Vec<Resolution>,
    ) -> Result<String, RuntimeError> {
        let id = session.id();
        let _may = scope.authorize::<ReadSession>(session)?;
        if responses.is_empty() {
            let message = "Expected 'inputResponses' to be a non-empty array.".to_owned();
            return Err(RuntimeError::Invalid { code: "responses_empty", message });
        }
        let (this, scope) = (self.clone(), scope.clone());
        whole(async move {
            let mut settled = Ok(());
            for response in responses {
                settled = this.answer(&scope, id, response).await;
                if settled.is_err() {
                    break;
                }
            }
            // Also after an error: what came before it is decided.
            this.0.wake(scope.tenant(), id);
            settled.map(|()| delivery_id())
        })
        .await
    }

    async fn answer(&self, scope: &Scope, id: SessionId, response: Resolution) -> Result<(), RuntimeError> {
        let approval: ApprovalId = response.request.parse().map_err(|_| RuntimeError::NotFound)?;
        let found = self.0.store.approval_find(scope, approval).await?.ok_or(RuntimeError::NotFound)?;
        if found.session().id() != id {
            return Err(RuntimeError::NotFound);
        }
        self.settle(scope, approval, response).await
    }

    async fn settle(&self, scope: &Scope, id: ApprovalId, response: Resolution) -> Result<(), RuntimeError> {
        let found = self.0.store.approval_find(scope, id).await?.ok_or(RuntimeError::NotFound)?;
        let reading = scope.authorize::<ReadApproval>(found.clone())?;
        let row = self.0.store.approval_read(&reading).await?.approval;
        let decision = match (row.kind, response.option.as_deref()) {
            (Kind::Question, _) => Decision::Answer,
            (Kind::ToolApproval, Some("approve")) => Decision::Approve,
            (Kind::ToolApproval, Some("cancel" | "deny")) => Decision::Deny,
            // Whatever else was sent is not a yes.
            (Kind::ToolApproval, _) => Decision::Deny,
        };
        let mut answer = json!({ "requestId": id });
        if let Some(option) = response.option {
            answer["optionId"] = json!(option);
        }
        if let Some(text) = response.text {
            answer["text"] = json!(text);
        }
        let permit = scope.authorize::<DecideApproval>(found)?;
        self.0.store.approval_decide(permit, decision, None, answer).await?;
        Ok(())
    }

    /// Decides an approval.
    ///
    /// # Errors
    /// A refusal, `NotFound`, or that it was decided before.
    pub async fn decide(
        &self,
        scope: &Scope,
        id: ApprovalId,
        decision: Decision,
        reason: Option<String>,
    ) -> Result<(), RuntimeError> {
        let found = self.0.store.approval_find(scope, id).await?.ok_or(RuntimeError::NotFound)?;
        let permit = scope.authorize::<DecideApproval>(found)?;
        let option = match decision {
            Decision::Approve => "approve",
            Decision::Deny | Decision::Answer => "cancel",
        };
        let answer = json!({ "requestId": id, "optionId": option });
        let (this, tenant) = (self.clone(), scope.tenant().clone());
        whole(async move {
            let session = this.0.store.approval_decide(permit, decision, reason, answer).await?;
            failpoint::reach("approval.decided");
            this.0.wake(&tenant, session);
            Ok(())
        })
        .await
    }

    /// Commands a session.
    ///
    /// # Errors
    /// A refusal.
    pub async fn control(
        &self,
        scope: &Scope,
        session: Session,
        control: Control,
    ) -> Result<ControlAnswer, RuntimeError> {
        let id = session.id();
        let permit = scope.authorize::<ControlSession>(session)?;
        let body = match control {
            Control::Cancel { turn } => Body::Cancel { turn },
            Control::Clear => Body::Clear,
            Control::Compact => Body::Compact,
            Control::Reset => Body::Reset,
        };
        let body = serde_json::to_value(body).map_err(StoreError::from)?;
        let (this, tenant) = (self.clone(), scope.tenant().clone());
        whole(async move {
            match this.0.store.session_control(permit, delivery_id(), body).await {
                Err(StoreError::Conflict { code: "session_not_active", .. }) => return Ok(ControlAnswer::NoActive),
                other => other?,
            }
            this.0.wake(&tenant, id);
            Ok(ControlAnswer::Accepted)
        })
        .await
    }

    /// Checks a message, and puts its files into the space.
    async fn receive(&self, scope: &Scope, space: &Space, incoming: Incoming) -> Result<Message, RuntimeError> {
        let mut parts = Vec::with_capacity(incoming.parts.len());
        for part in incoming.parts {
            parts.push(match part {
                IncomingPart::Text(text) => Part::Text { text },
                IncomingPart::File { media_type, filename, bytes } => {
                    Part::File(self.attach(scope, space, media_type, filename, bytes).await?)
                }
            });
        }
        if parts.is_empty() {
            let message = "Expected 'message' to be non-empty when provided.".to_owned();
            return Err(RuntimeError::Invalid { code: "message_empty", message });
        }
        if let Some(schema) = &incoming.output_schema {
            crate::schema::check(schema)
                .map_err(|problem| RuntimeError::Invalid { code: "output_schema", message: problem.to_string() })?;
        }
        Ok(Message {
            parts,
            client_context: incoming.client_context,
            output_schema: incoming.output_schema,
            policy: incoming.policy,
        })
    }

    async fn attach(
        &self,
        scope: &Scope,
        space: &Space,
        media_type: String,
        filename: Option<String>,
        bytes: Vec<u8>,
    ) -> Result<FilePart, RuntimeError> {
        let size = bytes.len() as u64;
        let limit = self.0.limits.attachment_bytes;
        if size > limit {
            return Err(RuntimeError::TooLarge { size, limit, filename, media_type });
        }
        let hash = bailiwick_audit::event::hex(&Sha256::digest(&bytes)[..8]);
        // The caller's name is a name, not a path: what could lead elsewhere becomes an underscore.
        let name: String = filename
            .as_deref()
            .unwrap_or("file")
            .chars()
            .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ') { c } else { '_' })
            .take(100)
            .collect();
        let name = if name.trim_matches(['.', ' ']).is_empty() { "file".to_owned() } else { name };
        let path = format!(".eve/attachments/{hash}/{name}");
        let place = WorkspacePath::parse(&path)
            .map_err(|error| RuntimeError::Invalid { code: "path_traversal", message: error.to_string() })?;
        let permit = scope.authorize::<WriteSpace>(space.clone())?;
        let files = self.0.store.space_files_to_write(&permit).await?;
        // What was sent before lies there already.
        let (looking, at) = (files.clone(), place.clone());
        let there = tokio::task::spawn_blocking(move || looking.stat(&at).map_or(0, |stat| stat.size));
        let grows = size.saturating_sub(there.await.map_err(|_| StoreError::Closed)?);
        let room = self.0.store.storage_reserve(&permit, Need::All(grows)).await?;
        let detail = Map::from_iter([
            ("file".to_owned(), json!("attach")),
            ("path".to_owned(), json!(path)),
            ("bytes".to_owned(), json!(size)),
        ]);
        let act = record(&self.0.store, permit, detail).await?;
        let written = tokio::task::spawn_blocking(move || files.write(&place, &bytes)).await;
        let written = written.map_err(|_| StoreError::Closed)?;
        let verdict = if written.is_ok() { Verdict::Ok } else { Verdict::Fail };
        act.settle(&self.0.store, verdict, Map::new()).await?;
        written?;
        room.fill(grows);
        Ok(FilePart { media_type, filename, size, path })
    }

    /// Deletes a space, and stops what runs in it.
    ///
    /// # Errors
    /// As the store's.
    pub async fn space_delete(&self, permit: Permit<DeleteSpace>) -> Result<(), StoreError> {
        let (tenant, space) = (permit.tenant().incarnation(), permit.resource().id());
        self.0.store.space_delete(permit).await?;
        self.0.tools.sandboxes().end_space(space);
        self.0.jobs.end(|place| place.space == space);
        self.poke_tenant(tenant);
        Ok(())
    }

    /// Deletes a user with their spaces, and stops what runs in them.
    ///
    /// # Errors
    /// As the store's.
    pub async fn user_delete(&self, permit: Permit<DeleteUser>) -> Result<(), StoreError> {
        let (tenant, user) = (permit.tenant().incarnation(), permit.resource().name().clone());
        let spaces = self.0.store.user_delete(permit).await?;
        for space in &spaces {
            self.0.tools.sandboxes().end_space(*space);
        }
        self.0
            .jobs
            .end(|place| place.tenant.incarnation() == tenant && (place.user == user || spaces.contains(&place.space)));
        self.poke_tenant(tenant);
        Ok(())
    }

    /// Deletes an account, and stops what runs in it.
    ///
    /// # Errors
    /// As the store's.
    pub async fn account_delete(
        &self,
        permit: HostPermit<DeleteAccount>,
        account: AccountName,
    ) -> Result<(), StoreError> {
        let tenant = self.0.store.account_delete(permit, account).await?;
        self.0.tools.sandboxes().end_tenant(tenant);
        self.0.jobs.end(|place| place.tenant.incarnation() == tenant);
        self.poke_tenant(tenant);
        Ok(())
    }

    /// Lets every driver of a tenant look whether its session is still there.
    fn poke_tenant(&self, tenant: Incarnation) {
        for ((of, _), handle) in lock(&self.0.drivers).iter() {
            if *of == tenant {
                handle.again.store(true, Ordering::Release);
                handle.poked.notify_one();
            }
        }
    }

    /// Takes up what a crash or a restart left. Runs beside the serving of requests.
    pub async fn recover(&self) {
        match self.0.store.turns_unfinished().await {
            Ok(found) => {
                for (tenant, session) in found {
                    self.0.wake(&tenant, session);
                }
            }
            Err(error) => tracing::error!(%error, "unfinished sessions could not be listed"),
        }
        self.0.recover_jobs().await;
    }

    /// Stops: no new work is begun, running turns are given so long to come to a resting place.
    pub async fn stop(&self, patience: Duration) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        for handle in lock(&self.0.drivers).values() {
            handle.poked.notify_one();
        }
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("some turns did not come to rest; they go on at the next start");
        }
    }
}

/// Runs an act and what follows from it to their end, also if the one who asked goes away in between:
/// a message that is on disk must not wait for a restart because nobody was woken.
pub(crate) async fn whole<T: Send + 'static>(
    act: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::spawn(act).await.map_err(|_| StoreError::Closed)?
}

/// The longest pause before a driver that failed tries again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest sleep towards a point in time.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(15);

impl Inner {
    /// Makes sure that somebody drives the session.
    pub(crate) fn wake(self: &Arc<Self>, tenant: &Tenant, session: SessionId) {
        if self.stopping.is_cancelled() {
            return;
        }
        let key = (tenant.incarnation(), session);
        let mut drivers = lock(&self.drivers);
        if let Some(handle) = drivers.get(&key) {
            handle.again.store(true, Ordering::Release);
            handle.poked.notify_one();
            return;
        }
        let handle = Arc::new(Handle {
            poked: Notify::new(),
            again: AtomicBool::new(false),
            stopping: self.stopping.child_token(),
        });
        drivers.insert(key, Arc::clone(&handle));
        let (inner, tenant) = (Arc::clone(self), tenant.clone());
        self.tasks.spawn(async move {
            inner.keep_driving(&tenant, session, &handle).await;
            // A driver that is gone must not stay as the one that would be poked.
            let mut drivers = lock(&inner.drivers);
            if drivers.get(&key).is_some_and(|held| Arc::ptr_eq(held, &handle)) {
                drivers.remove(&key);
            }
        });
    }

    /// Drives until the session rests or is gone. A failure, a panic among them, is tried again after a
    /// pause: what was acknowledged must not wait for a restart.
    async fn keep_driving(self: &Arc<Self>, tenant: &Tenant, session: SessionId, handle: &Handle) {
        let mut pause = Duration::from_secs(1);
        loop {
            let account = self.account_place(tenant.incarnation());
            let (Ok(_account), Ok(_place)) = (account.acquire().await, self.places.acquire().await) else { return };
            let driving = AssertUnwindSafe(driver::drive(self, tenant.clone(), session, handle)).catch_unwind();
            match driving.await {
                Ok(driver::Ended::Rested) => return,
                Ok(driver::Ended::Failed) => {}
                Err(_) => tracing::error!(%session, "a driver panicked"),
            }
            drop((_account, _place));
            tokio::select! {
                () = handle.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn account_place(&self, tenant: Incarnation) -> Arc<Semaphore> {
        let mut places = lock(&self.account_places);
        if places.len() > 4096 {
            places.retain(|_, places| Arc::strong_count(places) > 1);
        }
        Arc::clone(places.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.limits.account_turns))))
    }

    /// Lets a driver go, unless something has come for it meanwhile.
    pub(crate) fn release(&self, tenant: &Tenant, session: SessionId, handle: &Handle) -> bool {
        let mut drivers = lock(&self.drivers);
        if handle.take_poke() {
            return false;
        }
        drivers.remove(&(tenant.incarnation(), session));
        true
    }

    /// Wakes the session when its open requests run out of time. One timer a session.
    pub(crate) fn wake_at(self: &Arc<Self>, tenant: &Tenant, session: SessionId, open: &[(ApprovalId, Timestamp)]) {
        let Some(last) = open.iter().map(|(_, at)| *at).max() else { return };
        let key = (tenant.incarnation(), session);
        if !lock(&self.timers).insert(key) {
            return;
        }
        let (inner, tenant, stopping) = (Arc::clone(self), tenant.clone(), self.stopping.clone());
        let open = open.to_vec();
        self.tasks.spawn(async move {
            // In pieces: the time is the clock's, and a clock can jump, for example when its host has slept.
            loop {
                let left = Timestamp::now().until(last);
                if left.is_zero() {
                    break;
                }
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep((left + Duration::from_millis(20)).min(LOOK_AT_CLOCK)) => {}
                }
            }
            lock(&inner.timers).remove(&key);
            for (id, _) in open {
                match inner.store.approval_expire(&tenant, id).await {
                    // Decided meanwhile, or gone with its session: nothing to expire.
                    Ok(()) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                    Err(error) => tracing::error!(%error, "an approval could not be expired"),
                }
            }
            inner.wake(&tenant, session);
        });
    }
}
