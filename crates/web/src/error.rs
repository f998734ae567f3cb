//! What can go wrong for a caller, and the two voices in which it is told: OpenViking's envelope, and
//! eve's. This is the one place that turns a failure into a reply.
//!
//! A cause is logged and never told. What is another tenant's is told in the words of what never was.

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bailiwick_agent::RuntimeError;
use bailiwick_auth::NoTenant;
use bailiwick_auth::Refusal;
use bailiwick_auth::access::JournalError;
use bailiwick_auth::authn::Rejection;
use bailiwick_auth::authn::oidc::ProviderError;
use bailiwick_auth::authn::sign_in::SignInError;
use bailiwick_auth::lockout::{Held, Locked};
use bailiwick_auth::password::Unfit;
use bailiwick_files::FileError;
use bailiwick_store::StoreError;
use bailiwick_types::{Exhausted, NameError, PathError, RequestId, Timestamp, WorkspacePath};
use bailiwick_vault::SealError;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::console;
use crate::json::JsonProblem;
use crate::meters::Scarce;
use crate::oauth::{self, OAuthError};
use crate::rate::TooFast;
use crate::sign_in::{NotSignedIn, seconds_until};

/// A request that is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The policy said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Somebody could not sign in.
    #[error(transparent)]
    SignIn(#[from] NotSignedIn),
    /// A client of the authorization server asks wrongly, or for what it may not have.
    #[error(transparent)]
    OAuth(#[from] OAuthError),
    /// A page of somebody else may have asked for this. Why it is thought so.
    #[error("this request may come from a page of another site: use a page of this server, or a key in a header")]
    Forged(&'static str),
    /// The set-up was asked for from elsewhere, without its code.
    #[error("from another machine the set-up asks for its code: the server's log and terminal show it")]
    SetUpCode,
    /// What was sealed cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A password that is not good enough.
    #[error("the new password is {0}")]
    Password(#[from] Unfit),
    /// The caller is not let in.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The operator did not say which tenant.
    #[error(transparent)]
    NoTenant(#[from] NoTenant),
    /// There is no such thing, or not for this caller.
    #[error("{kind} not found: {name}")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// As the caller named it.
        name: String,
    },
    /// No route of that path.
    #[error("Not Found")]
    NoRoute,
    /// A route of sockets, asked without a WebSocket's handshake.
    #[error("this route is a WebSocket: ask with its handshake")]
    NotASocket,
    /// No such method on that path.
    #[error("Method Not Allowed")]
    NoMethod,
    /// The caller sent something that makes no sense.
    #[error("Invalid request parameters: {0}")]
    Parameters(String),
    /// The same, in words that a protocol fixes.
    #[error("{0}")]
    Words(&'static str),
    /// The same, with a word of the caller's in it.
    #[error("{0}")]
    Said(String),
    /// It is not said once, and clearly, which host is meant.
    #[error("Invalid request: {0}")]
    Host(&'static str),
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A path that leaves its space or cannot be one.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A body that is no JSON.
    #[error("Invalid request parameters: {0}")]
    Json(#[from] JsonProblem),
    /// A body that is longer than allowed.
    #[error("the body is too long: at most {0} bytes")]
    TooLong(u64),
    /// A request target that is longer than allowed.
    #[error("the request target is too long: at most {0} bytes")]
    TargetTooLong(usize),
    /// A head that is longer than allowed.
    #[error("the request's headers are too long: at most {0} bytes together")]
    HeadTooLong(usize),
    /// A body of a type that the route does not read.
    #[error("the body's type is not accepted: send {0}")]
    MediaType(&'static str),
    /// The body did not come in time, or its connection broke.
    #[error("the request's body did not arrive in time")]
    BodyLate,
    /// The caller holds all that one may.
    #[error("too many {} at once: at most {most} for {who}; wait for some to end", .of.as_str())]
    TooMany {
        /// Of what.
        of: Scarce,
        /// How many one may hold.
        most: usize,
        /// Who is "one".
        who: &'static str,
    },
    /// The caller, or their address, asks too often.
    #[error("too many requests: try again in a moment")]
    TooFast(TooFast),
    /// Something that this server does not do on purpose.
    #[error("{message}")]
    NotAccepted {
        /// A stable word.
        reason: &'static str,
        /// Why, and what to do.
        message: &'static str,
    },
    /// The caller's address is not on the list.
    #[error("requests from this address are not accepted")]
    Address,
    /// The store said no, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime said no, or failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The record could not be written, so the act was not done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No random bytes for a key.
    #[error(transparent)]
    Entropy(#[from] bailiwick_auth::key::NoEntropy),
    /// A defect of ours.
    #[error("{0}")]
    Defect(&'static str),
}

/// In which protocol a reply is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// OpenViking's envelope.
    Viking,
    /// eve's.
    Eve,
    /// That of `/api/auth`: a code and a message.
    Sign,
    /// That of the authorization server's routes for programs.
    OAuth,
    /// A page for a person.
    Page,
}

impl Voice {
    /// The voice of a path.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            path if path.starts_with("/eve/") => Self::Eve,
            path if path.starts_with("/api/auth/") => Self::Sign,
            path if console::is_page(path) => Self::Page,
            path if path.starts_with("/oauth/") => Self::OAuth,
            _ => Self::Viking,
        }
    }
}

/// What a caller is told.
struct Told {
    status: StatusCode,
    code: &'static str,
    /// A stable word of ours.
    reason: Option<&'static str>,
    message: String,
    details: Map<String, Value>,
    /// Seconds until it is worth to try again.
    retry_after: Option<u64>,
}

impl Told {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, reason: None, message: message.into(), details: Map::new(), retry_after: None }
    }

    fn because(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
    }

    fn not_found(kind: &str, name: &str) -> Self {
        Self::named(StatusCode::NOT_FOUND, "NOT_FOUND", "not found", kind, name)
    }

    fn named(status: StatusCode, code: &'static str, what: &str, kind: &str, name: &str) -> Self {
        let mut told = Self::new(status, code, format!("{} {what}: {name}", capital(kind)));
        told.details.insert("resource".to_owned(), json!(name));
        told.details.insert("type".to_owned(), json!(kind));
        told
    }

    fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "The server failed. Tell the operator the request id.")
    }

    fn unavailable(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }

    fn unauthenticated(rejection: &Rejection) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", rejection.to_string())
    }

    fn forbidden(message: impl Into<String>, reason: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message).because(reason)
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

impl Failure {
    /// For an id that cannot be one: there is nothing of that name.
    pub(crate) fn not_found(kind: &'static str, name: &str) -> Self {
        Self::NotFound { kind, name: name.to_owned() }
    }

    /// A failure with a file of a space, which the caller named.
    pub(crate) fn of_file(error: FileError, path: &WorkspacePath) -> Self {
        match error {
            FileError::NotFound => Self::not_found("file", path.as_str()),
            other => Self::File(other),
        }
    }

    /// What goes on record, if this is a refusal.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::Runtime(RuntimeError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// What is not there, or not for this caller.
    pub(crate) fn missing(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::NotFound { kind, name }
            | Self::Store(StoreError::NotFound { kind, name })
            | Self::Runtime(RuntimeError::Store(StoreError::NotFound { kind, name })) => Some((kind, name)),
            _ => None,
        }
    }

    /// What the account has used up.
    pub(crate) fn exhausted(&self) -> Option<&Exhausted> {
        match self {
            Self::Store(StoreError::Exhausted(exhausted))
            | Self::Runtime(RuntimeError::Store(StoreError::Exhausted(exhausted))) => Some(exhausted),
            _ => None,
        }
    }

    /// The status that it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        self.told().status
    }

    /// What a caller is told of it.
    pub(crate) fn message(&self) -> String {
        self.told().message
    }

    /// Seconds after which it is worth to try again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let told = self.told();
        (told.status == StatusCode::TOO_MANY_REQUESTS).then(|| told.retry_after.unwrap_or(10))
    }

    /// Its stable word.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.told().reason
    }

    /// Its stable word, or else that of its kind.
    pub(crate) fn word(&self) -> &'static str {
        let told = self.told();
        told.reason.unwrap_or(told.code)
    }

    /// Puts the cause of what is ours into the log.
    pub(crate) fn log(&self, request: RequestId) {
        if self.status().is_server_error() {
            tracing::error!(%request, cause = %chain(self), "a request failed");
        }
    }

    fn told(&self) -> Told {
        if let Some((kind, name)) = self.missing() {
            return Told::not_found(kind, name);
        }
        match self {
            Self::Refused(refusal) | Self::Runtime(RuntimeError::Refused(refusal)) => of_refusal(refusal),
            Self::Rejected(rejection) => of_rejection(rejection),
            Self::SignIn(refused) => of_sign_in(refused),
            Self::Forged(code) => Told::forbidden(self.to_string(), code),
            Self::OAuth(error) => Told::new(error.status(), "INVALID_ARGUMENT", error.description).because(error.code),
            Self::SetUpCode => Told::forbidden(self.to_string(), "setup_code"),
            Self::Password(_) => Told::invalid(self.to_string()).because("weak_password"),
            Self::NoTenant(error) => Told::forbidden(error.to_string(), "tenant_required"),
            Self::NotFound { kind, name } => Told::not_found(kind, name),
            Self::NoRoute => Told::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Not Found"),
            Self::NoMethod => {
                Told::new(StatusCode::METHOD_NOT_ALLOWED, "INVALID_ARGUMENT", "Method Not Allowed").because("method")
            }
            Self::NotASocket => {
                Told::new(StatusCode::UPGRADE_REQUIRED, "INVALID_ARGUMENT", self.to_string()).because("not_a_socket")
            }
            Self::Parameters(_) | Self::Words(_) | Self::Said(_) | Self::Name(_) | Self::Json(_) => {
                Told::invalid(self.to_string())
            }
            Self::Host(_) => Told::invalid(self.to_string()).because("host"),
            Self::Path(error) => {
                let mut told = Told::invalid(error.to_string()).because(error.code());
                told.details.insert("why".to_owned(), json!(error.reason()));
                told
            }
            Self::TooLong(_) => {
                Told::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT", self.to_string()).because("too_large")
            }
            Self::TargetTooLong(_) => {
                Told::new(StatusCode::URI_TOO_LONG, "INVALID_ARGUMENT", self.to_string()).because("uri_too_long")
            }
            Self::HeadTooLong(_) => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                Told::new(status, "INVALID_ARGUMENT", self.to_string()).because("headers_too_long")
            }
            Self::MediaType(_) => Told::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT", self.to_string())
                .because("media_type"),
            Self::BodyLate => {
                Told::new(StatusCode::REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", self.to_string()).because("body_timeout")
            }
            Self::TooMany { of, .. } => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                Told::new(status, "RESOURCE_EXHAUSTED", self.to_string()).because(of.reason())
            }
            Self::TooFast(TooFast(seconds)) => {
                let told = Told::new(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", self.to_string());
                Told { retry_after: Some(*seconds), ..told.because("rate_limited") }
            }
            Self::NotAccepted { reason, message } => Told::invalid(*message).because(reason),
            Self::Address => Told::forbidden(self.to_string(), "address_not_allowed"),
            Self::Store(error) | Self::Runtime(RuntimeError::Store(error)) => of_store(error),
            Self::File(error) | Self::Runtime(RuntimeError::Files(error)) => of_file(error),
            Self::Runtime(error) => of_runtime(error),
            Self::Journal(error) => of_journal(error),
            Self::Entropy(_) | Self::Seal(_) | Self::Defect(_) => Told::internal(),
        }
    }
}

fn of_refusal(refusal: &Refusal) -> Told {
    match refusal.code() {
        Some(code) => Told::forbidden(refusal.message(), code),
        None => {
            // The record's label is `kind:name`, and the name is the one that the caller gave.
            let label = refusal.draft().resource.as_str();
            let (kind, name) = label.split_once(':').unwrap_or(("resource", label));
            Told::not_found(kind, name)
        }
    }
}

fn of_rejection(rejection: &Rejection) -> Told {
    match rejection {
        Rejection::Missing | Rejection::Invalid | Rejection::TimedOut => Told::unauthenticated(rejection),
        Rejection::SignIn(error) => of_password(error),
        Rejection::NotConfigured => Told::unauthenticated(rejection).because("authentication_not_set_up"),
        Rejection::Issuer(_) => Told::unavailable(&rejection.to_string()).because("provider_unavailable"),
        Rejection::NoSuchTenant => Told::invalid(rejection.to_string()).because("no_such_tenant"),
        Rejection::HalfTenant => Told::invalid(rejection.to_string()).because("tenant_required"),
        Rejection::Directory(_) => Told::unavailable("The server cannot tell who you are just now: try again."),
    }
}

/// A name and a password with the request itself.
fn of_password(error: &SignInError) -> Told {
    let (locked, code) = match error {
        SignInError::Held(Held::User(locked)) => (*locked, "locked"),
        SignInError::Held(Held::Address(locked)) => (*locked, "ip_locked"),
        SignInError::Busy(_) => (Locked(Timestamp::now()), "busy"),
        SignInError::Wrong(_) => {
            return Told::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "Invalid username or password.");
        }
        SignInError::Held(Held::Directory(_)) | SignInError::Directory(_) => {
            return Told::unavailable("The server cannot tell who you are just now: try again.");
        }
    };
    let told = Told::new(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", error.to_string()).because(code);
    Told { retry_after: Some(seconds_until(locked)), ..told }
}

fn of_sign_in(refused: &NotSignedIn) -> Told {
    let (status, code) = if refused.retry_after().is_some() {
        (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED")
    } else if matches!(refused, NotSignedIn::Directory(_)) {
        return Told::unavailable("The server cannot tell who you are just now: try again.");
    } else if matches!(refused, NotSignedIn::Provider(ProviderError::Unavailable)) {
        return Told::unavailable(&refused.to_string()).because(refused.code());
    } else {
        (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED")
    };
    let mut told = Told::new(status, code, refused.to_string()).because(refused.code());
    if let NotSignedIn::CodeWanted(_, Some(begun)) | NotSignedIn::PasskeyWanted(_, Some(begun)) = refused {
        let first_half = json!({ "ceremony": begun.ceremony, "options": begun.options });
        told.details.insert(PASSKEY.to_owned(), first_half);
    }
    Told { retry_after: refused.retry_after(), ..told }
}

fn of_store(error: &StoreError) -> Told {
    match error {
        StoreError::NotFound { kind, name } => Told::not_found(kind, name),
        StoreError::Exists { kind, name } => {
            Told::named(StatusCode::CONFLICT, "ALREADY_EXISTS", "already exists", kind, name)
        }
        StoreError::Conflict { code, message } => Told::new(StatusCode::CONFLICT, "CONFLICT", *message).because(code),
        StoreError::Exhausted(exhausted) => of_exhausted(exhausted),
        StoreError::Fenced => Told::new(StatusCode::CONFLICT, "ABORTED", error.to_string()).because("fenced"),
        StoreError::Closed => Told::unavailable("The server is shutting down."),
        StoreError::Unavailable(_) => Told::unavailable("The database is away or busy. Try again in a moment."),
        StoreError::InDoubt => Told::unavailable(
            "The database broke off while this was being written. It may have been done: look before you repeat it.",
        )
        .because("in_doubt"),
        StoreError::File(error) => of_file(error),
        passing if passing.may_pass() => {
            let message = "The server's storage could not do this just now, and nothing was changed: try again later.";
            Told::unavailable(message).because("storage_unavailable")
        }
        _ => Told::internal(),
    }
}

fn of_exhausted(exhausted: &Exhausted) -> Told {
    let message = exhausted.to_string();
    let mut told = Told::new(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", message);
    told.details.insert("limit".to_owned(), json!(exhausted.resource.as_str()));
    told.details.insert("most".to_owned(), json!(exhausted.most));
    told.retry_after = exhausted.opens_at.map(|at| seconds_until(Locked(at)));
    told.because(exhausted.resource.reason())
}

fn of_file(error: &FileError) -> Told {
    let text = error.to_string();
    match error {
        FileError::NotFound => Told::new(StatusCode::NOT_FOUND, "NOT_FOUND", text),
        FileError::NotAFile | FileError::NotADirectory | FileError::Refused { .. } => {
            Told::invalid(text).because(error.code())
        }
        FileError::NotEmpty | FileError::Exists | FileError::Changed | FileError::ReadOnly => {
            Told::new(StatusCode::CONFLICT, "CONFLICT", text).because(error.code())
        }
        FileError::TooLarge { .. } => {
            Told::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT", text).because(error.code())
        }
        FileError::NoSpace => {
            Told::new(StatusCode::INSUFFICIENT_STORAGE, "RESOURCE_EXHAUSTED", text).because(error.code())
        }
        _ => Told::internal(),
    }
}

fn of_journal(error: &JournalError) -> Told {
    Told::unavailable(&error.to_string()).because("audit_unavailable")
}

fn of_runtime(error: &RuntimeError) -> Told {
    match error {
        RuntimeError::NotFound => Told::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Not found."),
        RuntimeError::Invalid { code, message } => Told::invalid(message).because(code),
        RuntimeError::TooLarge { size, limit, filename, media_type } => {
            let mut told = Told::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT", error.to_string());
            let violation = json!({ "kind": "too-large", "byteLength": size, "limit": limit,
                "filename": filename, "mediaType": media_type });
            told.details.insert("violations".to_owned(), json!([violation]));
            told.because("too_large")
        }
        RuntimeError::Refused(refusal) => of_refusal(refusal),
        RuntimeError::Files(error) => of_file(error),
        RuntimeError::Store(error) => of_store(error),
        RuntimeError::Journal(error) => of_journal(error),
    }
}

/// A failure on its way out: the frame finds it in the reply and puts it into words.
#[derive(Clone)]
pub(crate) struct Failed(pub(crate) Arc<Failure>);

impl From<TooFast> for Failure {
    fn from(error: TooFast) -> Self {
        Self::TooFast(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.told().status.into_response();
        response.extensions_mut().insert(Failed(Arc::new(self)));
        response
    }
}

/// A failure that its page tells already; it is still to be put on record.
#[derive(Clone)]
pub(crate) struct Noted(pub(crate) Arc<Failure>);

/// Puts a failure into words, and its cause into the log. `target`: what was asked for.
pub(crate) fn reply(app: &App, failure: &Failure, (voice, target): (Voice, &str), request: RequestId) -> Response {
    let told = failure.told();
    failure.log(request);
    if voice == Voice::Page {
        return console::failed(app, failure, target, request);
    }
    let body = match voice {
        Voice::Viking | Voice::Page => viking(&told, request),
        Voice::Eve => eve(failure, &told, request),
        Voice::Sign => sign(&told, request),
        Voice::OAuth => oauth::body(failure, told.status, &told.message),
    };
    // A login that lay unused is answered without a word: what is there to say is for the login page.
    let silent = matches!(failure, Failure::Rejected(Rejection::TimedOut));
    let mut response = Response::new(if silent { Body::empty() } else { Body::from(body.to_string()) });
    *response.status_mut() = told.status;
    let headers = response.headers_mut();
    if !silent {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if told.status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(RETRY_AFTER, HeaderValue::from(told.retry_after.unwrap_or(10)));
    }
    // A challenge says how to come with a credential; who signs in has come with one.
    if told.status == StatusCode::UNAUTHORIZED && !matches!(failure, Failure::SignIn(_)) {
        let shown = matches!(failure, Failure::Rejected(Rejection::Invalid | Rejection::TimedOut));
        let challenge = match (shown, app.walk().admits_basic()) {
            // There it is a client that has to prove who it is (RFC 6749, section 5.2).
            _ if voice == Voice::OAuth => "Basic realm=\"oauth\"",
            (true, _) => "Bearer error=\"invalid_token\"",
            (false, true) => "Bearer, Basic realm=\"eve\", charset=\"UTF-8\"",
            (false, false) => "Bearer",
        };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn viking(told: &Told, request: RequestId) -> Value {
    let mut details = told.details.clone();
    if let Some(reason) = told.reason {
        details.insert("reason".to_owned(), json!(reason));
    }
    details.insert("request_id".to_owned(), json!(request));
    let error = json!({ "code": told.code, "message": told.message, "details": details });
    json!({ "status": "error", "error": error })
}

/// `{code, message}`: the code is our stable word, else the envelope's in small letters.
fn sign(told: &Told, request: RequestId) -> Value {
    let code = match (told.reason, told.code) {
        (Some(reason), _) => reason.to_owned(),
        (None, "UNAUTHENTICATED") => "unauthorized".to_owned(),
        (None, code) => code.to_lowercase(),
    };
    let mut body = json!({ "code": code, "message": told.message, "requestId": request });
    // Whom a password was right for goes on with this.
    if let Some(begun) = told.details.get(PASSKEY) {
        body[PASSKEY] = begun.clone();
    }
    body
}

/// The first half of a passkey's ceremony, where one can complete the password.
const PASSKEY: &str = "passkey";

fn eve(failure: &Failure, told: &Told, request: RequestId) -> Value {
    if matches!(failure, Failure::NoRoute | Failure::NoMethod) {
        return json!({ "error": true, "status": 404, "message": "Cannot find any route matching this request." });
    }
    let (code, text) = match told.status {
        StatusCode::UNAUTHORIZED => match told.reason {
            None => (Some("unauthorized"), "Authorization is required for this route.".to_owned()),
            reason => (reason, told.message.clone()),
        },
        // The kind alone: the protocol's own words have no name in them.
        StatusCode::NOT_FOUND => (None, format!("{} not found.", capital(kind_of(told)))),
        StatusCode::CONFLICT
        | StatusCode::FORBIDDEN
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::TOO_MANY_REQUESTS => (told.reason, told.message.clone()),
        _ => match failure {
            Failure::Json(JsonProblem::Syntax(_)) => (None, "Invalid JSON body.".to_owned()),
            _ => (None, told.message.clone()),
        },
    };
    let mut body = Map::new();
    if let Some(code) = code {
        body.insert("code".to_owned(), json!(code));
    }
    body.insert("error".to_owned(), json!(text));
    body.insert("ok".to_owned(), json!(false));
    if let Some(violations) = told.details.get("violations") {
        body.insert("violations".to_owned(), violations.clone());
    }
    let name = if told.status.is_server_error() { "errorId" } else { "requestId" };
    body.insert(name.to_owned(), json!(request));
    Value::Object(body)
}

fn kind_of(told: &Told) -> &str {
    told.details.get("type").and_then(Value::as_str).unwrap_or("session")
}

fn chain(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn storage_that_fails_for_a_while_is_told_as_such_and_broken_data_is_not() {
        let full = StoreError::Io(std::io::ErrorKind::StorageFull.into());
        for passing in [StoreError::Commit, full] {
            let told = Failure::Store(passing).told();
            assert_eq!((told.status.as_u16(), told.reason), (503, Some("storage_unavailable")), "{}", told.message);
        }
        for broken in [StoreError::Corrupt("a row"), StoreError::Io(std::io::ErrorKind::NotFound.into())] {
            assert_eq!(Failure::Store(broken).told().status.as_u16(), 500);
        }
    }
}
