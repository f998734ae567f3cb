//! A's ids where they are no part of a path: in headers, and in bodies that name another thing.

use reqwest::Method;
use serde_json::{Value, json};

use super::probe::{May, Prober, Request, never};
use crate::failure::Failure;

const HEADERS: &str = "ids in headers";
const BODIES: &str = "ids in bodies";
const QUERIES: &str = "ids in queries";

/// Asks as B for a session in A's space or with A's agent, a key that is bound to them, a grant for A's
/// user, A's decision, A's events.
pub(super) async fn probe(prober: &mut Prober<'_>) -> Result<(), Failure> {
    headers(prober).await?;
    bodies(prober).await?;
    queries(prober).await
}

async fn headers(prober: &mut Prober<'_>) -> Result<(), Failure> {
    for (header, name, method, target) in [
        ("x-bailiwick-space", "space", Method::POST, "/eve/v1/session"),
        ("x-bailiwick-agent", "agent", Method::POST, "/eve/v1/session"),
        ("x-openviking-agent", "agent", Method::POST, "/eve/v1/session"),
        ("x-bailiwick-agent", "agent", Method::GET, "/eve/v1/info"),
    ] {
        for (who, client) in prober.askers.clone() {
            let mut told = Vec::new();
            for id in [prober.a.id(name).to_owned(), never(prober.a.id(name))] {
                let client = client.clone().with_header(header, &id)?;
                let request = Request::new(&method, target).json(&json!({}));
                let who = format!("{who} with {header} of A");
                let answer = prober.ask(HEADERS, &who, &client, &request, May::NotBeDone).await?;
                told.push(answer.map(|answer| answer.status));
            }
            if told[0] != told[1] {
                let text = format!("B's {who}: {method} {target} with {header} tells that it exists: {told:?}");
                prober.report.crossing(HEADERS, &text);
            }
        }
        // For A, whose agent and space these are, it begins, or is shown.
        let client = prober.a.admin.clone().with_header(header, prober.a.id(name))?;
        let answer = Request::new(&method, target).json(&json!({})).send(&client).await?;
        let held = answer.status.is_success();
        prober.report.control(HEADERS, held, || format!("{method} {target} with {header} as A: {}", answer.status));
    }
    Ok(())
}

/// A body that names something, by route and field.
fn naming(prober: &Prober<'_>) -> Vec<(&'static str, Method, String, Value)> {
    let keys = |who: &str| format!("/api/v1/admin/accounts/{}/users/{who}/keys", prober.b.id("account"));
    let mut named = vec![
        ("space", Method::POST, keys(&prober.b.chief), json!({ "name": "b", "space_id": "HERE" })),
        ("agent", Method::POST, keys(&prober.b.chief), json!({ "name": "b", "agent_id": "HERE" })),
        (
            "user",
            Method::PUT,
            format!("/api/v1/spaces/{}/grants", prober.b.id("space")),
            json!({ "user": "HERE", "level": "manage" }),
        ),
    ];
    if prober.a.ids.contains_key("approval") && prober.b.ids.contains_key("session") {
        let answers = json!({ "inputResponses": [{ "requestId": "HERE", "optionId": "approve" }] });
        named.push(("approval", Method::POST, format!("/eve/v1/session/{}", prober.b.id("session")), answers));
    }
    named
}

async fn bodies(prober: &mut Prober<'_>) -> Result<(), Failure> {
    for (name, method, target, body) in naming(prober) {
        for (who, client) in prober.askers.clone() {
            let make = |id: &dyn Fn(&str) -> String| {
                let text = body.to_string().replace("HERE", &id(name));
                Request::new(&method, target.clone()).bytes("application/json", text)
            };
            prober.twins(BODIES, (who, &client), make, (&[name], May::NotBeDone)).await?;
        }
        // The same of B's own.
        let text = body.to_string().replace("HERE", prober.b.id(name));
        let own = Request::new(&method, target.clone()).bytes("application/json", text);
        let answer = own.send(&prober.b.admin).await?;
        let held = answer.status.is_success();
        prober.report.control(BODIES, held, || {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            format!("{method} {target} with B's own {name}: {} {text}", answer.status.as_u16())
        });
    }
    Ok(())
}

async fn queries(prober: &mut Prober<'_>) -> Result<(), Failure> {
    for name in ["space", "user", "agent"] {
        // Of A's people the chief is the one who has done things.
        let id = if name == "user" { prober.a.chief.clone() } else { prober.a.id(name).to_owned() };
        let target = format!("/api/v1/audit?{name}={id}&limit=1000");
        for (who, client) in prober.askers.clone() {
            let request = Request::new(&Method::GET, target.clone());
            let Some(answer) = prober.ask(QUERIES, who, &client, &request, May::BeDone).await? else { continue };
            // B's own acts may name what B asked for; whose they are, the server says by itself.
            let of_a = [prober.a.chief.as_str(), prober.a.id("user")];
            let theirs = |row: &Value| of_a.iter().any(|user| row["actor"].to_string().contains(user));
            if rows(&answer.body).iter().any(theirs) {
                prober.report.crossing(QUERIES, &format!("B's {who}: {} lists what A did", request.target));
            }
        }
        if name == "agent" && !prober.a.ids.contains_key("session") {
            continue; // nothing was done with it
        }
        let answer = Request::new(&Method::GET, target).send(&prober.a.admin).await?;
        let held = answer.status.is_success() && !rows(&answer.body).is_empty();
        prober.report.control(QUERIES, held, || format!("A's own events of its {name} are not listed"));
    }
    Ok(())
}

fn rows(body: &[u8]) -> Vec<Value> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    answer["result"].as_array().cloned().unwrap_or_default()
}
