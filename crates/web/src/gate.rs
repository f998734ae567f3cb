//! Before and after the handler of a route: who is calling, how much they may send, and the record.
//!
//! The gate lets in, or not; it permits nothing. Refusals and rejections are written down here, so that
//! no handler can forget to, and so is every request.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bailiwick_audit::event::UNTOLD;
use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::authn::sign_in::SignInError;
use bailiwick_auth::authn::{Gateway, Rejection, RootKeyUse};
use bailiwick_auth::{Credential, Tenant};
use bailiwick_store::quota::refusal_detail;
use bailiwick_types::RequestId;
use bailiwick_types::limits::{BODY_BYTES, UPLOAD_BYTES};
use futures::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, json};

use crate::app::App;
use crate::caller::Caller;
use crate::error::{Failed, Failure, Noted};
use crate::frame::Peer;
use crate::input::Unread;
use crate::network;
use crate::presented::{self, Via};
use crate::route::{Access, Route, Shape};
use crate::sign_in;

/// Asked for again and again by machines, and about nobody's data: not worth a line each.
const NOT_RECORDED: [&str; 3] = ["/health", "/ready", "/metrics"];

/// Longest form, bytes.
const FORM_BYTES: u64 = 64 * 1024;

/// Where a script of ours shows the form token.
const FORM_TOKEN: &str = "x-csrf-token";

/// Characters of a name that names nothing, in the record.
const NAME_SHOWN: usize = 100;

/// Lets a request through to its handler, and records what came of it.
pub(crate) async fn pass(
    State((app, route)): State<(App, &'static Route)>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = request.extensions().get::<RequestId>().copied().unwrap_or_else(RequestId::new);
    let peer = request.extensions().get::<Peer>().copied();
    let mut caller = None;
    let from = peer.map(|peer| client(&app, request.headers(), peer));
    let method = request.method().clone();
    let entered = match enter(&app, route, (request.uri().path(), request.headers()), peer, id, &mut caller).await {
        Ok(()) if changes(&method) => own_page(&app, route, &mut request, caller.as_ref()).await,
        other => other,
    };
    let response = match entered {
        Err(failure) => failure.into_response(),
        Ok(()) => {
            if let Some(caller) = &caller {
                request.extensions_mut().insert(caller.clone());
            }
            // A defect in one handler must not take the connection, and says nothing to the caller.
            match AssertUnwindSafe(next.run(request)).catch_unwind().await {
                Ok(response) => response,
                Err(_) => Failure::Defect("a handler panicked").into_response(),
            }
        }
    };
    record(&app, route, caller.as_ref(), from, id, &response, (&method, begun));
    response
}

async fn enter(
    app: &App,
    route: &Route,
    (path, headers): (&str, &HeaderMap),
    peer: Option<Peer>,
    request: RequestId,
    caller: &mut Option<Caller>,
) -> Result<(), Failure> {
    let shown = match route.access {
        Access::Public => None,
        Access::Greeting | Access::Socket => presented::shown(headers),
        Access::Known => Some(Via::Header),
    };
    if shown.is_some() {
        let peer = peer.ok_or(Failure::Defect("a request without its socket"))?;
        let (presented, wanted, via) =
            presented::read((path, headers), (peer.0, gateway(app, peer)), client(app, headers, peer))?;
        match app.walk().authenticate(app.store(), &presented).await {
            Ok(principal) => {
                let who = (principal.tenant().map(Tenant::incarnation), principal.user().cloned());
                *caller = Some(Caller { principal, request, wanted, via });
                app.principals().check(who)?;
            }
            // A browser sends its cookie wherever it goes. To who may come without, an old one does no harm.
            Err(_) if route.access == Access::Greeting && via == Via::Cookie => {}
            Err(rejection) => return Err(rejection.into()),
        }
    }
    let limit = match route.body {
        Shape::Nothing | Shape::Json => BODY_BYTES as u64,
        Shape::Form => FORM_BYTES,
        Shape::File => UPLOAD_BYTES,
    };
    // Declared too long: answered before a byte of it is read.
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit) { Err(Failure::TooLong(limit)) } else { Ok(()) }
}

pub(crate) fn gateway(app: &App, Peer(peer): Peer) -> Gateway {
    match app.settings().trusted_proxies.iter().any(|proxy| proxy.contains(peer)) {
        true => Gateway::Trusted,
        false => Gateway::Anybody,
    }
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A page of another origin changes nothing here. What a browser adds by itself (a cookie, or nothing at
/// all) proves only whose browser it is; that a page of ours asks is proven by what no other page can read.
async fn own_page(app: &App, route: &Route, request: &mut Request, caller: Option<&Caller>) -> Result<(), Failure> {
    let by_itself = match caller {
        Some(caller) => caller.via == Via::Cookie || sent_unasked(app, caller),
        None => route.access == Access::Public,
    };
    if by_itself && presented::is_cross_site(request.headers(), app.settings().origin().as_deref()) {
        return Err(Failure::Forged("cross_site"));
    }
    let Some(caller) = caller.filter(|caller| caller.via == Via::Cookie) else { return Ok(()) };
    let Credential::Device(device) = caller.principal.credential() else {
        return Err(Failure::Forged("csrf"));
    };
    let shown = match route.body {
        Shape::Form => form_field(app, request, caller).await?,
        // Too long to be read before it is believed.
        Shape::File => request.uri().query().and_then(|query| field(query.as_bytes())),
        Shape::Json | Shape::Nothing => {
            request.headers().get(FORM_TOKEN).and_then(|value| value.to_str().ok()).map(str::to_owned)
        }
    };
    let shown = shown.unwrap_or_default();
    if app.walk().ring().is_form_token(device, &shown) { Ok(()) } else { Err(Failure::Forged("csrf")) }
}

/// Whether a browser, or a gateway behind which it is, adds the credential whoever made the page that asks.
fn sent_unasked(app: &App, caller: &Caller) -> bool {
    match caller.principal.credential() {
        Credential::Basic(_) | Credential::Anonymous => true,
        Credential::RootKey(_) => app.walk().root_use() == RootKeyUse::Gateway,
        _ => false,
    }
}

/// The form's token, out of a body that is then put back.
async fn form_field(app: &App, request: &mut Request, caller: &Caller) -> Result<Option<String>, Failure> {
    let (mut parts, body) = std::mem::take(request).into_parts();
    parts.extensions.insert(caller.clone());
    let Ok(body) = Unread::from_request(Request::from_parts(parts.clone(), body), app).await;
    let bytes = body.bytes().await?;
    let found = field(&bytes);
    *request = Request::from_parts(parts, Body::from(bytes));
    Ok(found)
}

fn field(form: &[u8]) -> Option<String> {
    let mut fields = form_urlencoded::parse(form).filter(|(name, _)| name == "_csrf");
    // Twice is not once.
    match (fields.next(), fields.next()) {
        (Some((_, value)), None) => Some(value.into_owned()),
        _ => None,
    }
}

/// The client's address, for the record: a trusted proxy's word for it, else the socket's.
pub(crate) fn client(app: &App, headers: &HeaderMap, peer: Peer) -> IpAddr {
    network::client(peer.0, headers, &app.settings().trusted_proxies).unwrap_or(peer.0)
}

fn record(
    app: &App,
    route: &'static Route,
    caller: Option<&Caller>,
    from: Option<IpAddr>,
    request: RequestId,
    response: &Response,
    (method, begun): (&Method, Instant),
) {
    let status = response.status();
    app.meters().request(route.method, route.path, status.as_u16());
    let noted = || response.extensions().get::<Noted>().map(|noted| &*noted.0);
    let failure = response.extensions().get::<Failed>().map(|failed| &*failed.0).or_else(noted);
    if let Some(Failure::Rejected(rejection)) = failure {
        return reject(app, route, rejection, from, request);
    }
    if let Some(Failure::SignIn(refused)) = failure {
        return sign_in::observe(app, route, refused, from, request);
    }
    let of_nobody = match failure {
        Some(Failure::Forged(code)) => Some(("csrf.refused", *code)),
        Some(Failure::OAuth(error)) => Some(("oauth.refused", error.code)),
        Some(Failure::SetUpCode) => Some(("setup.refused", "setup_code")),
        _ => None,
    };
    if let (Some((action, code)), None) = (of_nobody, caller) {
        // Costs whoever sends it nothing, so not each is written.
        if app.meters().rejection().is_some() {
            let mut draft = unknown(action, route, from, request);
            draft.detail.insert("code".to_owned(), json!(code));
            app.store().observe(None, draft);
        }
        return;
    }
    // Enough of them on record to show who it was, and not so many that they fill it.
    if let Some(Failure::TooFast(_)) = failure
        && app.meters().too_fast().is_none()
    {
        return;
    }
    let Some(caller) = caller else { return };
    if let Some(failure) = failure {
        note(app, route, caller, failure, request);
    }
    if NOT_RECORDED.contains(&route.path) {
        return;
    }
    let verdict = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Verdict::Denied,
        status if status.is_client_error() || status.is_server_error() => Verdict::Fail,
        _ => Verdict::Ok,
    };
    let resource = format!("route:{}", route.path);
    let host = caller.host();
    let mut draft = match caller.principal.scope(request) {
        Ok(scope) => Draft { resource, ..scope.draft("http.request", &scope.account(), Phase::Observation, verdict) },
        Err(_) => Draft { phase: Phase::Observation, ..host.draft("http.request", resource, verdict) },
    };
    // As it was asked: a HEAD goes to the handler of GET.
    draft.detail.insert("method".to_owned(), json!(method.as_str()));
    draft.detail.insert("ms".to_owned(), json!(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)));
    draft.detail.insert("status".to_owned(), json!(status.as_u16()));
    app.store().observe(caller.principal.tenant(), draft);
}

/// Puts on record what somebody who is known was refused.
pub(crate) fn note(app: &App, route: &Route, caller: &Caller, failure: &Failure, request: RequestId) {
    let tenant = caller.principal.tenant();
    if let Some(refusal) = failure.refusal() {
        app.store().observe(tenant, refusal.draft().clone());
    }
    let Ok(scope) = caller.principal.scope(request) else { return };
    if let Failure::Forged(code) = failure {
        let mut draft = scope.draft("csrf.refused", &scope.account(), Phase::Observation, Verdict::Denied);
        draft.resource = format!("route:{}", route.path);
        draft.detail.insert("code".to_owned(), json!(code));
        app.store().observe(tenant, draft);
    }
    if let Some(exhausted) = failure.exhausted() {
        let mut draft = scope.draft("quota.refused", &scope.account(), Phase::Observation, Verdict::Denied);
        draft.detail = refusal_detail(exhausted);
        app.store().observe(tenant, draft);
    }
    // Beside a refusal that is told in the same words, nothing shows which of the two it was: not even
    // the numbers of the caller's own events.
    if let Some((kind, name)) = failure.missing() {
        let mut draft = scope.draft("not_found", &scope.account(), Phase::Observation, Verdict::Denied);
        draft.resource = format!("{kind}:{}", name.chars().take(NAME_SHOWN).collect::<String>());
        draft.detail.insert("code".to_owned(), json!("not_found"));
        draft.detail.insert(UNTOLD.to_owned(), json!(true));
        app.store().observe(tenant, draft);
    }
}

/// Writes a refused credential into the host's log: whose it was meant to be, nobody knows.
pub(crate) fn reject(app: &App, route: &Route, rejection: &Rejection, from: Option<IpAddr>, request: RequestId) {
    // Somebody's password with each request: a failed login like any other.
    if let Rejection::SignIn(SignInError::Wrong(Some(whose))) = rejection {
        let mut draft = unknown("auth.login", route, from, request);
        draft.resource = format!("user:{}", whose.user);
        draft.detail.insert("code".to_owned(), json!("invalid_credentials"));
        return app.store().observe(Some(&whose.tenant), draft);
    }
    let code = match rejection {
        Rejection::Missing => "missing",
        Rejection::Invalid => "invalid",
        Rejection::TimedOut => "timed_out",
        Rejection::SignIn(_) => "password",
        Rejection::Issuer(_) => "provider_unavailable",
        Rejection::NotConfigured => "not_set_up",
        Rejection::NoSuchTenant => "no_such_tenant",
        Rejection::HalfTenant => "half_a_tenant",
        Rejection::Directory(_) => "directory_failed",
    };
    let Some(unwritten) = app.meters().rejection() else { return };
    let mut draft = unknown("auth.reject", route, from, request);
    draft.detail = Map::from_iter([("code".to_owned(), json!(code)), ("method".to_owned(), json!(route.method))]);
    if unwritten > 0 {
        draft.detail.insert("more_not_written".to_owned(), json!(unwritten));
    }
    app.store().observe(None, draft);
}

/// The record's line about somebody who is not known.
pub(crate) fn unknown(action: &str, route: &Route, from: Option<IpAddr>, request: RequestId) -> Draft {
    Draft {
        actor: Actor::Unknown,
        credential: "none".to_owned(),
        address: from.map_or_else(|| "unknown".to_owned(), |from| from.to_string()),
        request: Some(request),
        action: action.to_owned(),
        resource: format!("route:{}", route.path),
        space: None,
        agent: None,
        phase: Phase::Observation,
        verdict: Verdict::Denied,
        intent: None,
        detail: Map::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A name or a value as a form may spell it: every byte that is drawn as its number.
    fn spelled(text: &str, numbers: &[bool]) -> String {
        let bytes = text.bytes().zip(numbers.iter().cycle());
        bytes
            .map(|(byte, number)| {
                if *number || !byte.is_ascii_alphanumeric() {
                    format!("%{byte:02X}")
                } else {
                    char::from(byte).to_string()
                }
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn i09_a_forms_token_is_its_one_field_of_that_name_however_it_is_spelled(
            fields in prop::collection::vec(
                (prop::sample::select(&["_csrf", "_CSRF", "csrf", "_csrf ", "_csrf[]", "", "name"]), ".{0,8}"),
                0..5,
            ),
            numbers in prop::collection::vec(any::<bool>(), 1..9),
        ) {
            let pairs: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}={}", spelled(name, &numbers), spelled(value, &numbers)))
                .collect();
            let ours: Vec<&String> = fields.iter().filter(|(name, _)| *name == "_csrf").map(|(_, value)| value).collect();
            let one = match ours.as_slice() {
                [one] => Some((*one).clone()),
                _ => None,
            };
            prop_assert_eq!(field(pairs.join("&").as_bytes()), one);
        }

        #[test]
        fn i09_any_bytes_are_survived_where_a_form_should_be(
            form in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                "((_csrf|%5Fcsrf|_csr%66|a)(=|%3D)?[a-z%=+]{0,6}[&;]?){0,5}".prop_map(String::into_bytes),
            ],
        ) {
            // What other readers of the same form see: the handler's, which takes it apart the same way.
            let seen: Vec<(String, String)> = serde_urlencoded::from_bytes(&form).unwrap_or_default();
            let ours: Vec<&(String, String)> = seen.iter().filter(|(name, _)| name == "_csrf").collect();
            match field(&form) {
                Some(found) => prop_assert!(ours.len() == 1 && ours[0].1 == found),
                None => prop_assert!(ours.len() != 1),
            }
        }
    }
}
