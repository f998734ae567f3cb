//! One request, from the sandbox to the far side and back.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_types::egress::{ForwardUrl, RuleAct};
use http::header::{self, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::decide;
use crate::echo::{Blanked, Blanking, Echoes, QUIET, blank_headers};
use crate::gate::{Held, Scene};
use crate::journal::{Kind, Line};
use crate::meter::{Counted, Holding};
use crate::names::Target;
use crate::outgoing;
use crate::refused::Refused;
use crate::shares::Taken;
use crate::tunnel;
use crate::upstream::{Flow, Speaks, WentTo};

/// How long the far side may think about a request.
const THINKING: Duration = Duration::from_secs(10 * 60);

/// What every header of one connection is (RFC 9110, section 7.6.1), and what would lead around the gate.
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::ALT_SVC,
];

/// A host and port to which a connection of the sandbox leads.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) scene: Arc<Scene>,
    pub(crate) target: Target,
    pub(crate) port: u16,
    pub(crate) scheme: Scheme,
    pub(crate) held: Arc<Held>,
}

/// Says that an answer is the gate's own, and with which code it refuses.
pub(crate) const REFUSED: &str = "x-bailiwick-refused";

pub(crate) fn refusal(why: Refused) -> Response<Flow> {
    let text = format!("Bailiwick: {why} ({})\n", why.code());
    let mut answer = Response::new(Full::from(text).map_err(|never| match never {}).boxed());
    *answer.status_mut() = why.status();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(REFUSED, HeaderValue::from_static(why.code()));
    answer
}

/// Passes a request on, or says why not. Either way it is on record.
pub(crate) async fn pass(place: &Place, request: Request<Incoming>) -> Response<Flow> {
    let line =
        Line::new(Kind::Request, &place.target, place.port).of_request(request.method().as_str(), request.uri().path());
    let mut telling = place.scene.journal.begin(line);
    let passed = place.scene.until_closed(passed(place, request, &mut telling.line)).await;
    match passed.unwrap_or(Err(Refused::BrokenOff)) {
        Ok(answer) => {
            telling.line.status = Some(answer.status().as_u16());
            telling.allowed().await;
            answer
        }
        // Of what was too much there is one line, whatever was asked for.
        Err(Refused::Limit) => {
            telling.tells(Line::new(Kind::Request, "", 0).refused(Refused::Limit)).await;
            refusal(Refused::Limit)
        }
        Err(why) => {
            telling.refused(why).await;
            refusal(why)
        }
    }
}

async fn passed(place: &Place, mut request: Request<Incoming>, line: &mut Line) -> Result<Response<Flow>, Refused> {
    let scene = &place.scene;
    if !scene.meter.admits_one() {
        return Err(Refused::Limit);
    }
    let under_way = scene.requests.take().await.ok_or(Refused::Limit)?;
    agrees(place, &request)?;
    let websocket = request.version() == Version::HTTP_11 && wants_websocket(request.headers());
    let carried = websocket.then(|| request.headers().get(header::UPGRADE).cloned()).flatten();
    // Before it is judged: what does not go out must not open a rule.
    strip(request.headers_mut());
    let (act, host) = judged(place, &request)?;
    let (mut parts, body) = request.into_parts();
    let upgrade = if websocket { parts.extensions.remove::<OnUpgrade>() } else { None };
    for name in [header::HOST, header::EXPECT, header::PROXY_AUTHORIZATION] {
        parts.headers.remove(name);
    }

    let mut uri = Uri::builder().scheme(place.scheme.clone()).authority(authority(place)?);
    let own_path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut path = own_path;
    if let RuleAct::Forward(elsewhere) = &act {
        scene.policy.forward(&elsewhere.host, elsewhere.port)?;
        uri = Uri::builder().scheme(Scheme::HTTPS).authority(forward_authority(elsewhere)?);
        path = format!("{}{path}", elsewhere.base).parse().map_err(|_| Refused::Request)?;
    }
    let mut uri = uri.path_and_query(path).build().map_err(|_| Refused::Request)?;

    // As the sandbox speaks: a client of HTTP/1.1 has its connections, one of HTTP/2 its streams.
    let speaks = if parts.version == Version::HTTP_2 { Speaks::Any } else { Speaks::Http1 };
    let (body, reached, sent) = match &act {
        RuleAct::Transform(rule) => {
            let ready = outgoing::prepare(place, rule, (speaks, &uri), &mut parts, body, line).await?;
            let mut changed = uri.into_parts();
            changed.path_and_query = Some(ready.path);
            uri = Uri::from_parts(changed).map_err(|_| Refused::Request)?;
            (ready.body, ready.reached, ready.secrets)
        }
        RuleAct::Pass | RuleAct::Forward(_) => (Counted::new(body, Arc::clone(&scene.meter)).boxed(), None, Vec::new()),
    };
    // Where it goes, which another rule may have sent a secret to.
    let echoes = match (&act, &host) {
        (RuleAct::Forward(elsewhere), _) => scene.leases.echoes(&elsewhere.host, &sent)?,
        (_, None) => None,
        (_, Some(host)) => scene.leases.echoes(host, &sent)?,
    };
    if echoes.is_some() {
        // Whatever hides the answer's text from the search, or lets it be read in slices.
        parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for name in [header::RANGE, header::IF_RANGE, header::SEC_WEBSOCKET_EXTENSIONS] {
            parts.headers.remove(name);
        }
    }
    if let Some(protocol) = carried {
        parts.headers.insert(header::UPGRADE, protocol);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }

    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = uri;
    *outgoing.headers_mut() = parts.headers;
    let answer = tokio::time::timeout(THINKING, scene.upstream.send(speaks, outgoing)).await;
    let answer = answer.map_err(|_| Refused::Broken)??;
    drop(reached);
    line.address = answer.extensions().get::<WentTo>().map(|to| to.0);
    returned(place, answer, upgrade, echoes, under_way)
}

/// The far side's answer in the form in which the sandbox gets it: status, headers and body, and nothing else
/// that a connection carries.
fn returned(
    place: &Place,
    mut answer: Response<Incoming>,
    upgrade: Option<OnUpgrade>,
    echoes: Option<Arc<Echoes>>,
    under_way: Taken,
) -> Result<Response<Flow>, Refused> {
    let encoded = answer.headers().get_all(header::CONTENT_ENCODING);
    if echoes.is_some() && encoded.iter().any(|name| !name.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refused::Encoded);
    }
    let status = answer.status();
    let mut headers = std::mem::take(answer.headers_mut());
    let protocol = headers.get(header::UPGRADE).cloned();
    strip(&mut headers);
    if let Some(echoes) = &echoes {
        blank_headers(echoes, &mut headers);
    }
    let body = if status == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(near), Some(protocol)) = (upgrade, protocol) else { return Err(Refused::Broken) };
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        let far = hyper::upgrade::on(&mut answer);
        let (scene, held) = (Arc::clone(&place.scene), Arc::clone(&place.held));
        scene.clone().spawn(async move {
            let _places = (held, under_way);
            if let (Ok(near), Ok(far)) = tokio::join!(near, far) {
                exchange(&scene, near, far, echoes).await;
            }
        });
        Flow::default()
    } else {
        let body = Counted::new(answer.into_body(), Arc::clone(&place.scene.meter));
        match echoes {
            None => Holding::new(body, under_way).boxed(),
            Some(echoes) => Holding::new(Blanked::new(body, echoes), under_way).boxed(),
        }
    };
    let mut given = Response::new(body);
    *given.status_mut() = status;
    *given.headers_mut() = headers;
    Ok(given)
}

/// Carries what two sides say that have agreed on another protocol.
async fn exchange(scene: &Scene, near: Upgraded, far: Upgraded, echoes: Option<Arc<Echoes>>) {
    let (near, activity) = tunnel::metered(scene, TokioIo::new(near));
    let Some(echoes) = echoes else { return tunnel::copy(&activity, near, TokioIo::new(far)).await };
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(TokioIo::new(far));
    let out = async {
        let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
        let _ = far_write.shutdown().await;
    };
    let back = async {
        let mut blanking = Blanking::new(echoes);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let piece = match tokio::time::timeout(QUIET, far_read.read(&mut buffer)).await {
                Err(_) if blanking.is_empty() => continue,
                Err(_) => blanking.rest(),
                Ok(read) => match read.ok().and_then(|length| buffer.get(..length)) {
                    Some([]) | None => break,
                    Some(piece) => blanking.pass(piece),
                },
            };
            if near_write.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = near_write.write_all(&blanking.rest()).await;
        let _ = near_write.shutdown().await;
    };
    tokio::select! {
        _ = async { tokio::join!(out, back) } => {}
        () = tunnel::idle(&activity) => {}
    }
}

/// Whether a request names the host of its connection, once and plainly (RFC 9110, section 7.4; RFC 9112, 3.2).
fn agrees(place: &Place, request: &Request<Incoming>) -> Result<(), Refused> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) || !request.uri().path().starts_with('/') {
        return Err(Refused::Request);
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().map_err(|_| Refused::Mismatch)).transpose()?;
    if hosts.next().is_some() {
        return Err(Refused::Mismatch);
    }
    let named = request.uri().authority().map(Authority::as_str);
    if host.is_none() && named.is_none() {
        return Err(Refused::Mismatch);
    }
    let default = if place.scheme == Scheme::HTTPS { 443 } else { 80 };
    for text in host.into_iter().chain(named) {
        let (target, port) = split(text, default).map_err(|_| Refused::Mismatch)?;
        if target != place.target || port != place.port {
            return Err(Refused::Mismatch);
        }
    }
    Ok(())
}

/// An authority's host and port. Nobody is named before an `@`.
pub(crate) fn split(text: &str, default: u16) -> Result<(Target, u16), Refused> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, digits)) if !digits.ends_with(']') => {
            let plain = !digits.is_empty() && digits.bytes().all(|letter| letter.is_ascii_digit());
            (host, plain.then(|| digits.parse::<u16>().ok()).flatten().ok_or(Refused::Name)?)
        }
        _ => (text, default),
    };
    if port == 0 {
        return Err(Refused::Name);
    }
    Target::parse(host).map(|target| (target, port))
}

/// What a policy says of a request, and the host whose secrets it may get.
fn judged(
    place: &Place,
    request: &Request<Incoming>,
) -> Result<(RuleAct, Option<bailiwick_types::host::HostName>), Refused> {
    let policy = &place.scene.policy;
    let name = match &place.target {
        Target::Address(address) => return policy.literal(*address).map(|()| (RuleAct::Pass, None)),
        Target::Name(name) => name,
    };
    let passage = policy.host(name, place.port)?;
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let query: Vec<(String, String)> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let asked = decide::Request {
        method: request.method().as_str(),
        path: request.uri().path(),
        query: &query,
        headers: &headers,
    };
    Ok((passage.request(&asked)?.clone(), Some(name.clone())))
}

/// The place's authority, without a port that goes without saying.
fn authority(place: &Place) -> Result<Authority, Refused> {
    let Place { target, port, scheme, .. } = place;
    let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let text = if *port == usual { target.to_string() } else { format!("{target}:{port}") };
    text.parse().map_err(|_| Refused::Name)
}

fn forward_authority(to: &ForwardUrl) -> Result<Authority, Refused> {
    format!("{}:{}", to.host, to.port).parse().map_err(|_| Refused::Name)
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    let has = |name: &HeaderName, word: &str| {
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    has(&header::UPGRADE, "websocket") && has(&header::CONNECTION, "upgrade")
}

/// Takes out what belongs to one connection, and what `Connection` names as such.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let trailers = headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
    if trailers {
        // Of all codings the one that HTTP/2 has as well (RFC 9113, section 8.2.2).
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}
