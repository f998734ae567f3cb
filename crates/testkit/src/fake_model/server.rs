//! The part that the fakes share: a port, a queue of replies, a record of requests, and the
//! sending of bytes with all that can go wrong with it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use futures::stream;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Refusal;
use super::reply::{Answer, Reply, Way, WayEnd, What};

/// A request that reached a fake.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The connection's far end; the same for two requests on one connection.
    pub peer: SocketAddr,
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; `null` if it was not JSON.
    pub body: Value,
}

/// What makes one API of a fake.
pub(super) trait Dialect: Send + Sync + 'static {
    /// Whether this path is served at all.
    fn serves(&self, path: &str) -> bool;
    /// Refuses what the real API refuses. `key` is the only key that is right, if one was set.
    fn check(&self, request: &Recorded, key: Option<&str>) -> Result<(), Refusal>;
    /// The events of an answer, each a whole text.
    fn events(&self, path: &str, request: &Value, answer: &Answer, number: usize) -> Vec<String>;
    /// The event of an error in the stream.
    fn error_event(&self, path: &str, kind: &str, message: &str) -> String;
    /// The body of an error by status.
    fn error_body(&self, kind: &str, message: &str) -> Value;
    /// The header with the id of a request.
    fn request_id_header(&self) -> &'static str;
}

/// A fake model API on a port of loopback. Ends with the value.
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    dialect: Box<dyn Dialect>,
    key: Mutex<Option<String>>,
    queue: Mutex<VecDeque<Reply>>,
    always: Mutex<Option<Reply>>,
    requests: watch::Sender<Vec<Recorded>>,
    abandoned: watch::Sender<usize>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(super) async fn start(dialect: impl Dialect) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            dialect: Box::new(dialect),
            key: Mutex::default(),
            queue: Mutex::default(),
            always: Mutex::default(),
            requests: watch::Sender::new(Vec::new()),
            abandoned: watch::Sender::new(0),
        });
        let router = Router::new().fallback(serve).with_state(shared.clone());
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, shared, task }
    }

    /// The address without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Queues an answer for the next request that is taken.
    pub fn push(&self, reply: Reply) {
        self.shared.queue.lock().unwrap().push_back(reply);
    }

    /// Answers so whenever the queue is empty.
    pub fn always(&self, reply: Reply) {
        *self.shared.always.lock().unwrap() = Some(reply);
    }

    /// From now on only this key is right.
    pub fn require_key(&self, key: &str) {
        *self.shared.key.lock().unwrap() = Some(key.to_owned());
    }

    /// All requests so far, the refused ones too.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.borrow().clone()
    }

    /// The body of the newest request.
    pub fn last_body(&self) -> Value {
        self.shared.requests.borrow().last().unwrap().body.clone()
    }

    /// Waits until so many requests have come.
    pub async fn until_requests(&self, count: usize) {
        self.shared.requests.subscribe().wait_for(|all| all.len() >= count).await.unwrap();
    }

    /// How many clients have left before their answer was complete.
    pub fn abandoned(&self) -> usize {
        *self.shared.abandoned.borrow()
    }

    /// Waits until so many clients have left before their answer was complete.
    pub async fn until_abandoned(&self, count: usize) {
        self.shared.abandoned.subscribe().wait_for(|left| *left >= count).await.unwrap();
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 64 * 1024 * 1024).await.unwrap_or_default();
    let recorded = Recorded {
        peer,
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    let path = recorded.path.clone();
    let body = recorded.body.clone();
    let key = shared.key.lock().unwrap().clone();
    let checked = if !shared.dialect.serves(&path) {
        Err(Refusal { status: 404, kind: "not_found_error", message: format!("no such route: {path}") })
    } else if parts.method != "POST" {
        Err(Refusal { status: 405, kind: "invalid_request_error", message: "use POST".to_owned() })
    } else {
        shared.dialect.check(&recorded, key.as_deref())
    };
    let mut number = 0;
    shared.requests.send_modify(|all| {
        all.push(recorded);
        number = all.len();
    });
    let id = format!("req_fake_{number}");
    if let Err(refusal) = checked {
        let body = shared.dialect.error_body(refusal.kind, &refusal.message).to_string();
        return shared.respond(refusal.status, "application/json", &id, &[], Body::from(body));
    }
    let reply = shared.queue.lock().unwrap().pop_front().or_else(|| shared.always.lock().unwrap().clone());
    let Some(reply) = reply else {
        let body = shared.dialect.error_body("invalid_request_error", "the fake has no reply queued").to_string();
        return shared.respond(400, "application/json", &id, &[], Body::from(body));
    };
    match reply.what {
        What::Hang => {
            let _guard = Guard { shared: shared.clone(), complete: false };
            std::future::pending().await
        }
        What::Error { status, kind, message } => {
            let body = shared.dialect.error_body(&kind, &message).to_string();
            shared.respond(status, "application/json", &id, &reply.headers, Body::from(body))
        }
        What::Raw { status, content_type, body } => {
            let body = shared.clone().send(vec![body], reply.way);
            shared.respond(status, &content_type, &id, &reply.headers, body)
        }
        What::Answer(answer) => {
            let events = arranged(&*shared.dialect, &path, &body, &answer, number);
            let events = events.into_iter().map(Bytes::from).collect();
            let body = shared.clone().send(events, reply.way);
            shared.respond(200, "text/event-stream; charset=utf-8", &id, &reply.headers, body)
        }
    }
}

/// The answer's events with the extra ones put in.
fn arranged(dialect: &dyn Dialect, path: &str, request: &Value, answer: &Answer, number: usize) -> Vec<String> {
    let mut events = dialect.events(path, request, answer, number);
    if let Some((after, kind, message)) = &answer.error {
        events.truncate(*after);
        events.push(dialect.error_event(path, kind, message));
    }
    for (after, text) in answer.extra.iter().rev() {
        events.insert((*after).min(events.len()), text.clone());
    }
    events
}

impl Shared {
    fn respond(&self, status: u16, content_type: &str, id: &str, headers: &[(String, String)], body: Body) -> Response {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .header(header::CONTENT_TYPE, content_type)
            .header(self.dialect.request_id_header(), id);
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            response.headers_mut().unwrap().insert(name, value.parse().unwrap());
        }
        response.body(body).unwrap()
    }

    fn send(self: Arc<Self>, events: Vec<Bytes>, way: Way) -> Body {
        let chunks: Vec<Bytes> = match way.bytes_per_chunk {
            Some(size) => events.concat().chunks(size).map(Bytes::copy_from_slice).collect(),
            None => events,
        };
        let guard = Guard { shared: self, complete: false };
        let start = (chunks.into_iter().enumerate(), guard);
        Body::from_stream(stream::unfold(start, move |(mut chunks, mut guard)| {
            let way = way.clone();
            async move {
                let next = chunks.next();
                let sent = next.as_ref().map_or(usize::MAX, |(number, _)| *number);
                match way.end {
                    WayEnd::Cut(after) if sent >= after => {
                        guard.done();
                        // Time for what was sent before to leave: hyper drops it otherwise.
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                        return Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), (chunks, guard)));
                    }
                    WayEnd::Stall(after) if sent >= after => {
                        std::future::pending::<()>().await;
                    }
                    _ => {}
                }
                let Some((_, chunk)) = next else {
                    guard.done();
                    return None;
                };
                if !way.delay.is_zero() {
                    tokio::time::sleep(way.delay).await;
                }
                Some((Ok(chunk), (chunks, guard)))
            }
        }))
    }
}

/// Notices when an answer is dropped before it is complete: the client has left.
struct Guard {
    shared: Arc<Shared>,
    complete: bool,
}

impl Guard {
    fn done(&mut self) {
        self.complete = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.complete {
            self.shared.abandoned.send_modify(|left| *left += 1);
        }
    }
}
