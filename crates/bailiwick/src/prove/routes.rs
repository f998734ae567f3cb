//! Every route of the server's own description, with A's ids in each of its variable parts and in all
//! of them together; and at the end the same routes as A, for whom they must be answered.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value};

use super::example::{ANSWER_NOBODY, body, query};
use super::probe::{May, Prober, Request};
use super::tenant::Names;
use super::{Client, ProveError};
use crate::client::Ask;
use crate::failure::Failure;

/// A route as the server describes it.
pub(super) struct Described {
    pub(super) path: String,
    pub(super) method: String,
    verbs: Vec<String>,
    /// The type of its body.
    media: Option<String>,
}

/// Variable parts whose ids are one account's alone. The others are names in the account, which two
/// accounts may both have.
const OWNED: [&str; 12] = [
    "account",
    "space",
    "session",
    "job",
    "sandbox",
    "notification",
    "approval",
    "key",
    "device",
    "login",
    "application",
    "client",
];

impl Described {
    fn parts(&self) -> Vec<&str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
    }

    /// Which group of probes it is in: its resource.
    fn group(&self) -> String {
        let mut segments = self.path.split('/').filter(|part| !part.is_empty() && !part.starts_with('{'));
        match (segments.next(), segments.next(), segments.next()) {
            (Some("api"), _, Some("admin")) => format!("routes of admin {}", segments.next().unwrap_or("")),
            (Some("api"), Some("auth"), _) => "routes of signing in".to_owned(),
            // What goes over it has routes of its own, too: sessions, the log, approvals.
            (Some("api"), _, Some("ws")) => "routes of sessions".to_owned(),
            (Some("api"), _, Some(resource)) => format!("routes of {resource}"),
            (Some("eve"), ..) => "routes of eve".to_owned(),
            _ => "routes of the server".to_owned(),
        }
    }

    fn method(&self) -> Method {
        Method::from_bytes(self.method.to_uppercase().as_bytes()).unwrap_or(Method::GET)
    }

    fn request(&self, id: &dyn Fn(&str) -> String, sent: &Value) -> Request {
        let mut target = self.path.clone();
        for part in self.parts() {
            target = target.replace(&format!("{{{part}}}"), &id(part));
        }
        let request = Request::new(&self.method(), format!("{target}{}", query(&self.path)));
        match self.media.as_deref() {
            None => request,
            Some("application/json") => request.json(sent),
            Some(_) => request.bytes("application/octet-stream", "from the other account"),
        }
    }

    /// Whether the operator alone may do it.
    fn is_the_operators(&self) -> bool {
        let host = |verb: &String| {
            verb.starts_with("host.")
                || verb.starts_with("account.limits.")
                || matches!(verb.as_str(), "account.create" | "account.list" | "account.delete")
        };
        self.verbs.iter().any(host)
    }
}

/// The routes that the server describes to the operator.
pub(super) async fn described(operator: &Client) -> Result<Vec<Described>, Failure> {
    let document = operator.json(Method::GET, &["openapi.json"], Ask::NOTHING).await?;
    let empty = Map::new();
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap_or(&empty) {
        for (method, operation) in operations.as_object().unwrap_or(&empty) {
            let texts = |value: &Value| {
                let texts = value.as_array().into_iter().flatten();
                texts.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let media = operation["requestBody"]["content"].as_object();
            routes.push(Described {
                path: path.clone(),
                method: method.clone(),
                verbs: texts(&operation["x-bailiwick-verbs"]),
                media: media.and_then(|media| media.keys().next().cloned()),
            });
        }
    }
    if routes.is_empty() { Err(ProveError::NoRoutes.into()) } else { Ok(routes) }
}

/// Whether there is an id of A's for each variable part.
fn can_be_asked(prober: &Prober<'_>, route: &Described) -> Result<(), String> {
    match route.parts().into_iter().find(|part| !prober.a.ids.contains_key(part)) {
        None => Ok(()),
        Some(part) => Err(format!("{} {} is not probed: there is no {part}", route.method.to_uppercase(), route.path)),
    }
}

/// Asks as B.
pub(super) async fn probe(prober: &mut Prober<'_>, routes: &[Described]) -> Result<(), Failure> {
    let askers = prober.askers.clone();
    for route in routes {
        if let Err(why) = can_be_asked(prober, route) {
            prober.report.note(why);
            continue;
        }
        let (group, parts) = (route.group(), route.parts());
        let sent = body(&route.method, &route.path, &prober.b, "from-b");
        for (who, client) in &askers {
            for chosen in 1..1usize << parts.len() {
                let names: Vec<&str> =
                    parts.iter().enumerate().filter(|(n, _)| chosen >> n & 1 == 1).map(|(_, part)| *part).collect();
                let owned = names.iter().any(|name| OWNED.contains(name));
                let may = if owned { May::NotBeDone } else { May::BeDone };
                let make = |id: &dyn Fn(&str) -> String| route.request(id, &sent);
                prober.twins(&group, (who, client), make, (&names, may)).await?;
            }
            if parts.is_empty() {
                everywhere(prober, route, (who, client)).await?;
            }
        }
    }
    Ok(())
}

/// A route without a variable part: A's ids in its query and in its body, under every name that one
/// could have there. B may be answered, about B.
async fn everywhere(prober: &mut Prober<'_>, route: &Described, asker: (&str, &Client)) -> Result<(), Failure> {
    let (who, client) = asker;
    let fields = [
        "account",
        "account_id",
        "user",
        "user_id",
        "userId",
        "owner",
        "space",
        "space_id",
        "agent",
        "agent_id",
        "session",
        "session_id",
        "sessionId",
        "approval",
        "key",
    ];
    let value = |field: &str| {
        let name = field.trim_end_matches("_id").trim_end_matches("Id");
        prober.a.id(if name == "owner" { "user" } else { name }).to_owned()
    };
    let pairs: Vec<(&str, String)> = fields.iter().map(|field| (*field, value(field))).collect();
    let query: Vec<String> = pairs.iter().map(|(field, value)| format!("{field}={value}")).collect();
    let mut sent = body(&route.method, &route.path, &prober.b, &format!("b-{}", who.replace(' ', "-")));
    let plain = route.request(&|_| String::new(), &sent);
    let targeted = Request { target: format!("{}?{}", plain.target, query.join("&")), ..plain.clone() };
    let group = route.group();
    prober.ask(&group, who, client, &plain, May::BeDone).await?;
    prober.ask(&group, who, client, &targeted, May::BeDone).await?;
    if let (Some("application/json"), Some(fields)) = (route.media.as_deref(), sent.as_object_mut()) {
        for (field, value) in pairs {
            fields.entry(field).or_insert(Value::String(value));
        }
        let filled = route.request(&|_| String::new(), &sent);
        prober.ask(&group, who, client, &filled, May::BeDone).await?;
    }
    Ok(())
}

/// When a control comes: what reads, what changes, what ends a session, what deletes, from the inside
/// out.
fn turn(route: &Described) -> (u8, usize) {
    let depth = usize::MAX - route.path.matches('/').count();
    match (route.method.as_str(), route.path.as_str()) {
        ("get", _) => (0, 0),
        ("delete", "/api/v1/admin/accounts/{account}") => (5, 0),
        // It goes with its space, and nothing else needs it.
        ("delete", "/api/v1/sandboxes/{sandbox}") => (3, 0),
        ("delete", _) => (4, depth),
        // All of a user's keys die of it, so the one that is revoked comes before.
        (_, path) if path.ends_with("/key") => (4, depth),
        // And their logins of a new password.
        (_, path) if path.ends_with("/password") => (4, depth),
        (_, path) if path.ends_with("/reset") => (3, 0),
        (_, path) if path.starts_with("/eve/") => (2, 0),
        _ => (1, 0),
    }
}

/// Asks as A, and as the operator where that is whose route it is: each must be answered.
pub(super) async fn control(
    prober: &mut Prober<'_>,
    routes: &[Described],
    operator: &Client,
    names: &Names,
) -> Result<(), Failure> {
    let mut ordered: Vec<&Described> = routes.iter().collect();
    ordered.sort_by_key(|route| turn(route));
    let nobodys: BTreeSet<&str> = ANSWER_NOBODY.iter().map(|(path, _)| *path).collect();
    for route in ordered {
        if nobodys.contains(route.path.as_str()) {
            let why = ANSWER_NOBODY.iter().find(|(path, _)| *path == route.path).map_or("", |(_, why)| why);
            prober.report.note(format!("{} answers nobody ({why}): it has no control", route.path));
            continue;
        }
        if can_be_asked(prober, route).is_err() {
            continue;
        }
        // A new account is deleted at the end with the others.
        let new = if route.path == "/api/v1/admin/accounts" && route.method == "post" {
            names.account("c")
        } else {
            "from-a".to_owned()
        };
        let sent = body(&route.method, &route.path, &prober.a, &new);
        let request = route.request(&|part| prober.a.id(part).to_owned(), &sent);
        let client = if route.is_the_operators() { operator } else { &prober.a.admin };
        let answer = request.send(client).await?;
        let held = answer.status.is_success();
        prober.report.control(&route.group(), held, || {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            format!("{} {} as its owner: {} {text}", request.method, request.target, answer.status.as_u16())
        });
    }
    Ok(())
}
