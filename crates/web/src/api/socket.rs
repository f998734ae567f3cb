//! `/api/v1/ws`: the live side of the API over one WebSocket (RFC 6455). Sessions and the log as they
//! grow, and the few commands that a person gives while watching.
//!
//! A page of another site cannot open one, whatever its reader's browser adds. Whoever has not said by a
//! header, or by the cookie of one of our own pages, who they are, says it in the first frame and within
//! seconds; no token is ever in an address. Each command is a request like any other: authenticated
//! anew, held to the rate, asked of the policy, put on record. A socket ends within seconds of its
//! login, key or user.

mod frame;
mod outbox;
mod subscription;

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bailiwick_agent::ControlAnswer;
use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Tenant;
use bailiwick_auth::access::verb::DecideApproval;
use bailiwick_auth::authn::{Presented, Rejection};
use bailiwick_types::RequestId;
use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::approval;
use crate::app::App;
use crate::caller::{Caller, MaybeCaller};
use crate::error::Failure;
use crate::eve::session;
use crate::frame::Peer;
use crate::gate;
use crate::json;
use crate::meters::{Scarce, Slot};
use crate::presented::{self, Via};
use crate::route::{Route, routes};
use crate::serve::Held;
use frame::{Asked, Close, Hello};
use outbox::{Outbox, Waiting};
use subscription::Subscriptions;

routes! {
    GET "/api/v1/ws" open, Socket, [ReadSession, SendSession, ControlSession, DecideApproval, ReadAccountAudit, ReadAudit], Nothing, "A WebSocket: sessions and the log as they grow, messages and decisions (first frame: {type: auth, token})";
}

/// Where the socket is, as tokens for a part of the server are told.
const PATH: &str = "/api/v1/ws";

/// Longest frame from a client, bytes.
const FRAME_BYTES: usize = 256 * 1024;
/// Frames that may be refused one after the other because they come too fast.
const REFUSED: u32 = 32;
/// The rights of a socket are looked at when its account's log grows, which every change of rights makes
/// it do; and not more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a far end that takes nothing is waited for.
const UNTAKEN: Duration = Duration::from_secs(10);
/// Signs of life that may stay out.
const MISSED: u32 = 3;

async fn open(
    State(app): State<App>,
    MaybeCaller(caller): MaybeCaller,
    axum::Extension(peer): axum::Extension<Peer>,
    axum::Extension(held): axum::Extension<Held>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let own = app.settings().origin();
    if presented::is_cross_site(&headers, own.as_deref()) {
        return Err(Failure::Forged("cross_site"));
    }
    // A browser says whose page it is; who has the cookie and does not say so is no browser of ours.
    if caller.as_ref().is_some_and(|caller| caller.via == Via::Cookie) && !headers.contains_key(ORIGIN) {
        return Err(Failure::Forged("origin"));
    }
    if let Some(caller) = &caller {
        caller.scope()?;
    }
    let upgrade = upgrade.map_err(|_| Failure::NotASocket)?;
    let upgrade = upgrade.max_message_size(FRAME_BYTES).max_frame_size(FRAME_BYTES);
    let visitor = Visitor { client: gate::client(&app, &headers, peer), headers, peer };
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _held = held;
        let mut socket = socket;
        let close = match meet(&app, &mut socket, &visitor, caller).await {
            Ok(known) => serve(&app, &mut socket, known).await,
            Err(close) => close,
        };
        let (code, reason) = close.told();
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = tokio::time::timeout(UNTAKEN, socket.send(Message::Close(Some(frame)))).await;
    }))
}

/// Whoever opened the socket, as far as the handshake tells.
struct Visitor {
    headers: HeaderMap,
    peer: Peer,
    client: IpAddr,
}

/// Who a socket is of, and by what that is asked again.
struct Known {
    presented: Presented,
    caller: Caller,
    tenant: Tenant,
    _slot: Option<Slot>,
}

fn route() -> &'static Route {
    &ROUTES[0]
}

/// Finds out whose the socket is.
async fn meet(app: &App, socket: &mut WebSocket, visitor: &Visitor, caller: Option<Caller>) -> Result<Known, Close> {
    let headers = match &caller {
        Some(_) => visitor.headers.clone(),
        None => {
            let hello = tokio::time::timeout(app.settings().times.hello, first(socket)).await;
            said(&visitor.headers, hello.map_err(|_| Close::Silent)??)?
        }
    };
    let request = RequestId::new();
    let known = know(app, visitor, &headers, request).await.and_then(|known| {
        // Whom the gate knew, it has counted.
        if caller.is_none() {
            rated(app, &known.caller)?;
        }
        Ok(known)
    });
    let known = match known {
        Ok(known) => known,
        Err(failure) => {
            if let Failure::Rejected(rejection) = &failure {
                gate::reject(app, route(), rejection, Some(visitor.client), request);
            }
            tell(socket, &frame::failed(None, &failure, request)).await?;
            if let Failure::TooFast(_) = failure {
                app.meters().too_fast();
                return Err(Close::TooFast);
            }
            return Err(Close::Unknown);
        }
    };
    let bounds = known.caller.principal.user().map(ToString::to_string);
    let role = known.caller.principal.role();
    let beat = app.settings().times.heartbeat.as_secs();
    let ready = json!({ "type": "ready", "account": known.tenant.account(), "user": bounds, "role": role,
        "heartbeatSeconds": beat });
    tell(socket, &ready.to_string()).await?;
    Ok(known)
}

async fn know(app: &App, visitor: &Visitor, headers: &HeaderMap, request: RequestId) -> Result<Known, Failure> {
    let (peer, client) = (visitor.peer, visitor.client);
    let (presented, wanted, via) = presented::read((PATH, headers), (peer.0, gate::gateway(app, peer)), client)?;
    let principal = app.walk().authenticate(app.store(), &presented).await?;
    let caller = Caller { principal, request, wanted, via };
    // The operator without a tenant has nothing to watch here.
    let tenant = caller.scope()?.tenant().clone();
    let slot = Slot::take(Scarce::Sockets, app, &caller)?;
    Ok(Known { presented, caller, tenant, _slot: slot })
}

/// Counts a frame of whoever sends it, as one request of theirs.
fn rated(app: &App, caller: &Caller) -> Result<(), Failure> {
    let who = (caller.principal.tenant().map(Tenant::incarnation), caller.principal.user().cloned());
    Ok(app.principals().check(who)?)
}

/// The first frame, which is a credential.
async fn first(socket: &mut WebSocket) -> Result<Hello, Close> {
    loop {
        match socket.recv().await {
            None | Some(Err(_) | Ok(Message::Close(_))) => return Err(Close::Left),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(text))) => {
                let value = json::parse(text.as_bytes()).map_err(|_| Close::NoHello)?;
                return serde_json::from_value(value).map_err(|_| Close::NoHello);
            }
            Some(Ok(Message::Binary(_))) => return Err(Close::NoHello),
        }
    }
}

/// The headers that the first frame stands for, so that one reader judges both.
fn said(handshake: &HeaderMap, hello: Hello) -> Result<HeaderMap, Close> {
    let mut headers = handshake.clone();
    for name in [AUTHORIZATION, COOKIE, HeaderName::from_static("x-api-key")] {
        headers.remove(name);
    }
    let Hello::Auth { token, account, user } = hello;
    let named = [("x-openviking-account", account), ("x-openviking-user", user)];
    let token = token.map(|token| format!("Bearer {token}"));
    for (name, value) in named.into_iter().chain([("authorization", token)]) {
        if let Some(value) = value {
            let value = HeaderValue::from_str(&value).map_err(|_| Close::NoHello)?;
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(headers)
}

/// Sends one frame, to a far end that takes it.
async fn tell(socket: &mut WebSocket, text: &str) -> Result<(), Close> {
    let sent = tokio::time::timeout(UNTAKEN, socket.send(Message::text(text))).await;
    sent.map_err(|_| Close::Left)?.map_err(|_| Close::Left)
}

/// A socket whose owner is known.
struct Live<'a> {
    app: &'a App,
    known: Known,
    subscriptions: Subscriptions,
    log: watch::Receiver<u64>,
    looked: Instant,
    /// When to look because the log has grown. Kept here, so that nothing else that happens makes it forgotten.
    look_due: Option<Instant>,
    /// Frames that were refused one after the other.
    refused: u32,
    beat: Instant,
    heard: Instant,
}

/// What the socket's loop woke up for.
enum Woken {
    Heard(Option<Result<Message, axum::Error>>),
    Ready(Waiting),
    Grown,
    Look,
    Beat,
    Closing,
}

async fn serve(app: &App, socket: &mut WebSocket, known: Known) -> Close {
    let (outbox, mut ready) = Outbox::new();
    let Ok(log) = app.store().event_watch(&known.tenant) else { return Close::Unknown };
    let now = Instant::now();
    let beat = now + app.settings().times.heartbeat;
    let subscriptions = Subscriptions::new(outbox);
    let mut live = Live { app, known, subscriptions, log, looked: now, look_due: None, refused: 0, beat, heard: now };
    loop {
        let woken = tokio::select! {
            () = app.closing().cancelled() => Woken::Closing,
            () = tokio::time::sleep_until(live.beat) => Woken::Beat,
            () = at(live.look_due) => Woken::Look,
            // One look is for all that comes until then.
            Ok(()) = live.log.changed(), if live.look_due.is_none() => Woken::Grown,
            Some(frame) = ready.recv() => Woken::Ready(frame),
            message = socket.recv() => Woken::Heard(message),
        };
        let ended = match woken {
            Woken::Closing => Err(Close::Stopping),
            Woken::Beat => live.beat(socket).await,
            Woken::Grown => {
                live.look_due = Some(live.looked + LOOK_EVERY);
                Ok(())
            }
            Woken::Look => live.look().await,
            // Its room is free again when it is sent.
            Woken::Ready(frame) => tell(socket, &frame.text).await,
            Woken::Heard(message) => live.heard(socket, message).await,
        };
        if let Err(close) = ended {
            return close;
        }
    }
}

/// Waits for that time, where there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Live<'_> {
    async fn beat(&mut self, socket: &mut WebSocket) -> Result<(), Close> {
        let every = self.app.settings().times.heartbeat;
        self.beat = Instant::now() + every;
        if self.heard.elapsed() > every * MISSED {
            return Err(Close::Left);
        }
        self.look().await?;
        let sent = tokio::time::timeout(UNTAKEN, socket.send(Message::Ping(Vec::new().into()))).await;
        sent.map_err(|_| Close::Left)?.map_err(|_| Close::Left)
    }

    /// Looks again whether the socket's owner is still let in. To be there and only watch is no use of a
    /// login: it ends by itself as it would without the socket.
    async fn look(&mut self) -> Result<(), Close> {
        self.looked = Instant::now();
        self.look_due = None;
        match self.app.walk().look_again(self.app.store(), &self.known.caller.principal).await {
            Ok(principal) if principal.tenant() == Some(&self.known.tenant) => {
                self.known.caller.principal = principal;
                Ok(())
            }
            Ok(_) => Err(Close::Unknown),
            // Asked as a request would ask, the login ends and that is put on record.
            Err(Rejection::TimedOut) => {
                let _ = self.app.walk().authenticate(self.app.store(), &self.known.presented).await;
                Err(Close::TimedOut)
            }
            // A database that is away for a moment has taken nobody's right.
            Err(Rejection::Directory(_)) => Ok(()),
            Err(_) => Err(Close::Unknown),
        }
    }

    async fn heard(
        &mut self,
        socket: &mut WebSocket,
        message: Option<Result<Message, axum::Error>>,
    ) -> Result<(), Close> {
        self.heard = Instant::now();
        let text = match message {
            None | Some(Ok(Message::Close(_))) => return Err(Close::Left),
            Some(Err(_)) => return Err(Close::Unreadable),
            // The answer to our own sign of life.
            Some(Ok(Message::Pong(_))) => return Ok(()),
            Some(Ok(Message::Binary(_))) => return Err(Close::Unreadable),
            Some(Ok(Message::Ping(_))) => None,
            Some(Ok(Message::Text(text))) => Some(text),
        };
        // Before anything is done for it.
        if let Err(failure) = rated(self.app, &self.known.caller) {
            return self.refuse(socket, text.as_deref(), &failure).await;
        }
        self.refused = 0;
        let Some(text) = text else { return Ok(()) };
        let asked = match frame::read(text.as_bytes()) {
            Ok(asked) => asked,
            Err(failure) => return tell(socket, &frame::failed(None, &failure, RequestId::new())).await,
        };
        if let Asked::Ping {} = asked {
            return tell(socket, r#"{"type":"pong"}"#).await;
        }
        self.again().await?;
        let (request, id, kind) = (self.known.caller.request, asked.id().to_owned(), asked.kind());
        let begun = Instant::now();
        let outcome = self.act(asked).await;
        self.record(kind, outcome.as_ref().err(), begun);
        let answer = match outcome {
            Ok(Some(mut result)) => {
                result["type"] = json!("done");
                result["id"] = json!(id);
                result.to_string()
            }
            Ok(None) => return Ok(()),
            Err(failure) => frame::failed(Some(&id), &failure, request),
        };
        tell(socket, &answer).await
    }

    /// A frame that came too fast is told so, and nothing more is done for it. Who goes on all the same is
    /// closed.
    async fn refuse(&mut self, socket: &mut WebSocket, text: Option<&str>, failure: &Failure) -> Result<(), Close> {
        self.refused += 1;
        self.known.caller.request = RequestId::new();
        // Read for its id alone, by which the client knows what was refused.
        let asked = text.and_then(|text| frame::read(text.as_bytes()).ok());
        self.record(asked.as_ref().map_or("unread", Asked::kind), Some(failure), Instant::now());
        if self.refused >= REFUSED {
            return Err(Close::TooFast);
        }
        match text {
            Some(_) => {
                let id = asked.as_ref().map(Asked::id);
                tell(socket, &frame::failed(id, failure, self.known.caller.request)).await
            }
            None => Ok(()),
        }
    }

    /// A command is a request: its sender is authenticated anew, by what they showed.
    async fn again(&mut self) -> Result<(), Close> {
        let principal = match self.app.walk().authenticate(self.app.store(), &self.known.presented).await {
            Ok(principal) => principal,
            Err(rejection) => {
                let client = Some(self.known.presented.client);
                gate::reject(self.app, route(), &rejection, client, RequestId::new());
                return Err(if matches!(rejection, Rejection::TimedOut) { Close::TimedOut } else { Close::Unknown });
            }
        };
        if principal.tenant() != Some(&self.known.tenant) || principal.user() != self.known.caller.principal.user() {
            return Err(Close::Unknown);
        }
        self.known.caller.principal = principal;
        self.known.caller.request = RequestId::new();
        Ok(())
    }

    async fn act(&mut self, asked: Asked) -> Result<Option<Value>, Failure> {
        let (app, caller) = (self.app, &self.known.caller);
        match asked {
            Asked::Ping {} => Ok(None),
            Asked::Subscribe { id, session: Some(session), start_index, audit: None } => {
                self.subscriptions.session(app, caller, id, &session, start_index.unwrap_or(0)).await?;
                Ok(Some(json!({})))
            }
            Asked::Subscribe { id, session: None, start_index: None, audit: Some(wanted) } => {
                self.subscriptions.audit(app, caller, id, &wanted).await?;
                Ok(Some(json!({})))
            }
            Asked::Subscribe { .. } => {
                Err(Failure::Words("a subscription is to a session (with startIndex or without), or to audit"))
            }
            Asked::Unsubscribe { id } => {
                self.subscriptions.end(&id);
                Ok(Some(json!({})))
            }
            Asked::Send { session, body, .. } => {
                let delivery = session::send(app, caller, &session, async || Ok(Some(body))).await?;
                Ok(Some(json!({ "sessionId": session, "deliveryId": delivery })))
            }
            Asked::Cancel { session, .. } => {
                let status = match session::end_turn(app, caller, &session, async || Ok(None)).await? {
                    ControlAnswer::Accepted => "accepted",
                    ControlAnswer::NoActive => "no_active_turn",
                };
                Ok(Some(json!({ "sessionId": session, "status": status })))
            }
            Asked::Decide { approval, decision, reason, .. } => {
                let scope = caller.scope()?;
                let found = approval::find(app, &scope, &approval).await?;
                let id = found.id();
                let _permit = scope.authorize::<DecideApproval>(found)?;
                approval::fits(reason.as_deref())?;
                let state = approval::decided(app, &scope, id, decision, reason).await?;
                Ok(Some(json!({ "approvalId": id, "state": state })))
            }
        }
    }

    /// The line that a request leaves, and what it was refused.
    fn record(&self, kind: &'static str, failure: Option<&Failure>, begun: Instant) {
        let (app, caller) = (self.app, &self.known.caller);
        let status = failure.map_or(200, |failure| failure.status().as_u16());
        app.meters().request("WS", route().path, status);
        // As the gate does: enough of them to show who it was, and not so many that they fill the record.
        if let Some(Failure::TooFast(_)) = failure
            && app.meters().too_fast().is_none()
        {
            return;
        }
        if let Some(failure) = failure {
            gate::note(app, route(), caller, failure, caller.request);
        }
        let Ok(scope) = caller.scope() else { return };
        let verdict = match status {
            200 => Verdict::Ok,
            401 | 403 => Verdict::Denied,
            _ => Verdict::Fail,
        };
        let mut draft = scope.draft("ws.request", &scope.account(), Phase::Observation, verdict);
        draft.resource = format!("route:{}", route().path);
        draft.detail.insert("type".to_owned(), json!(kind));
        draft.detail.insert("status".to_owned(), json!(status));
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        draft.detail.insert("ms".to_owned(), json!(ms));
        app.store().observe(Some(&self.known.tenant), draft);
    }
}
