//! The demo's steps, as HTTP calls of the operator, two admins and a user.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{DemoError, Report, client};
use crate::chat;
use crate::client::{Ask, Client, ClientError, Event, SessionStream};
use crate::command::{audit, text};
use crate::failure::Failure;
use crate::out;

/// What the last part of the demo needs.
pub(super) struct Witness {
    pub(super) admin_key: String,
}

/// The longest that a turn may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn play(
    report: &mut Report,
    url: &str,
    root: &str,
    linux: bool,
    door: std::net::SocketAddr,
) -> Result<Witness, Failure> {
    report.stage("Two tenants", "The operator makes accounts and never sees what is in them.");
    let operator = client(url, root)?;
    let acme = account(&operator, "acme", "alice").await?;
    let globex = account(&operator, "globex", "gina").await?;
    report.check("accounts acme and globex, each with an admin and a key shown once", true.into(), "");
    let (alice, gina) = (client(url, &acme)?, client(url, &globex)?);
    let new = json!({ "user_id": "bob", "role": "user" });
    let made = alice.api(Method::POST, &["admin", "accounts", "acme", "users"], Ask::body(&new)).await?;
    let bob = client(url, text(&made, "user_key")?)?;
    report.check("alice of acme makes the user bob", true.into(), "");
    let no_key = client(url, "")?.api(Method::GET, &["spaces"], Ask::NOTHING).await;
    let evidence = said(&no_key);
    report.check("without a good key nothing is answered", refused_with(&no_key, 401).into(), evidence);

    report.stage("A space and an agent", "The agent may write files only if a person says so.");
    let space = bob.api(Method::POST, &["spaces"], Ask::body(&json!({ "name": "quarterly" }))).await?;
    let space = text(&space, "id")?.to_owned();
    report.check("bob makes a space, which is his alone", true.into(), &space);
    let agent = json!({
        "name": "Writer", "tools": ["bash", "read_file", "write_file"], "require_approval": ["write_file"],
        "instructions": "Write what is asked.",
    });
    alice.api(Method::PUT, &["agents", "writer"], Ask::body(&agent)).await?;
    report.check("alice defines the agent writer; its tool write_file needs approval", true.into(), "");
    let listed = bob.api(Method::PUT, &["agents", "mine"], Ask::body(&agent)).await;
    report.check("bob may use agents, not define them", refused_with(&listed, 403).into(), said(&listed));

    let session = work(report, &bob, &gina, &space, linux, door).await?;
    if linux {
        way_out(report, &alice, &bob, door.port()).await?;
    }
    demand(report, &alice, &bob).await?;
    walls(report, &bob, &gina, &space, &session).await?;

    report.stage("The timeline", "What the log of acme says about all this.");
    let shown = alice.api(Method::GET, &["audit"], Ask::query(&[("limit", "500".to_owned())])).await?;
    let rows = out::array(&shown);
    let acts: Vec<&Value> = rows.iter().rev().filter(|e| e["action"].as_str() != Some("http.request")).collect();
    for event in acts.iter().take(8).chain(acts.iter().skip(acts.len().saturating_sub(10).max(8))) {
        report.show(&out::cut(&audit::event_line(event), 76));
    }
    let has = |action: &str, result: &str| {
        acts.iter().any(|e| e["action"].as_str() == Some(action) && e["result"].as_str() == Some(result))
    };
    let whole = has("space.create", "OK") && has("tool.call", "BEGUN") && has("approval.decide", "OK");
    report.check(format!("{} acts on record: who, what, when, with which key", acts.len()), whole.into(), "");
    let verified = alice.api(Method::GET, &["audit", "verify"], Ask::NOTHING).await?;
    let evidence = format!("{} events, root {}", verified["size"], out::cell(&verified["root"]));
    report.check("the log is whole", audit::verdict(&verified).into(), evidence);
    Ok(Witness { admin_key: acme })
}

/// A session that writes a file after an approval, runs a command and does not get out.
async fn work(
    report: &mut Report,
    bob: &Client,
    gina: &Client,
    space: &str,
    linux: bool,
    door: std::net::SocketAddr,
) -> Result<String, Failure> {
    report.stage("A session", "bob asks for a report. The agent waits where a person must decide.");
    let bob = bob.clone().with_header("x-bailiwick-agent", "writer")?.with_header("x-bailiwick-space", space)?;
    let mut run = begin(report, &bob, "Write the report, please.").await?;
    let waited = run.until(|event| event.kind == "turn.waiting").await?;
    let files = bob.api(Method::GET, &["spaces", space, "files"], Ask::NOTHING).await?;
    let pending = bob.api(Method::GET, &["approvals"], Ask::NOTHING).await?;
    let approval = out::array(&pending).first().cloned().unwrap_or_default();
    let id = text(&approval, "id")?.to_owned();
    let nothing_yet = out::array(&files).is_empty() && waited;
    report.check("the session waits, and no file is there yet", nothing_yet.into(), out::cell(&approval["prompt"]));
    let foreign = gina.api(Method::POST, &["approvals", &id], Ask::body(&json!({ "decision": "approve" }))).await;
    report.check("gina of globex cannot decide it", refused_with(&foreign, 404).into(), said(&foreign));
    let yes = json!({ "decision": "approve" });
    bob.api(Method::POST, &["approvals", &id], Ask::body(&yes)).await?;
    report.check("bob approves exactly this call with these arguments", true.into(), &id);
    let again = bob.api(Method::POST, &["approvals", &id], Ask::body(&yes)).await;
    report.check("a second decision is refused", refused_with(&again, 409).into(), said(&again));

    let rested = run.until(|event| event.kind == "session.waiting").await?;
    let written = bob
        .open(&["api", "v1", "spaces", space, "files", "content"], &[("path", "report.md".to_owned())])
        .await?
        .text()
        .await
        .map_err(ClientError::Broken)?;
    let right = written.starts_with("# Report") && rested;
    report.check("the file is in the space", right.into(), format!("report.md, {} bytes", written.len()));
    let shell = run.outputs("bash");
    let first = shell.first().cloned().unwrap_or_default();
    let backend = if linux { "linux" } else { "virtual" };
    let ran = first["exitCode"].as_i64() == Some(0) && out::cell(&first["stdout"]).contains("/workspace");
    report.check(format!("a command ran in the {backend} sandbox"), ran.into(), out::cell(&first["stdout"]));
    let attempt = shell.get(1).cloned().unwrap_or_default();
    let output = format!("{}{}", out::cell(&attempt["stdout"]), out::cell(&attempt["stderr"]));
    // The positive control: from outside, the very port answers that the sandbox could not reach.
    let control = std::net::TcpStream::connect(door).is_ok();
    // The refusals must be the kernel's own: a command that is merely missing proves nothing.
    let kernels = !linux || (output.contains("Connection refused") && output.contains("Network is unreachable"));
    let shut = output.matches("REFUSED").count() == 2 && !output.contains("REACHED") && kernels && control;
    report.check("it reached neither a port of this machine nor another machine", shut.into(), output);
    Ok(run.stream.id().to_owned())
}

/// An agent that may reach one host, and tries another.
async fn way_out(report: &mut Report, alice: &Client, bob: &Client, port: u16) -> Result<(), Failure> {
    report.stage("A way out", "An agent reaches the hosts that an admin named; each attempt is on record.");
    let definition = json!({
        "tools": ["bash"], "sandbox": { "backend": "linux" }, "instructions": "Look things up.",
        "egress": { "allow": { format!("docs.demo.test:{port}"): [] }, "subnets": { "allow": ["127.0.0.1/32"] } },
    });
    alice.api(Method::PUT, &["agents", "reader"], Ask::body(&definition)).await?;
    let reader = bob.clone().with_header("x-bailiwick-agent", "reader")?;
    let mut run = begin(report, &reader, "Look it up.").await?;
    run.until(|event| event.kind == "session.waiting").await?;
    let outputs = run.outputs("bash");
    let output = |n: usize| outputs.get(n).map(|output| out::cell(&output["stdout"])).unwrap_or_default();
    let last = |text: &str| text.lines().last().unwrap_or_default().to_owned();
    let answered = output(0).contains("the docs of the demo");
    report.check("the host that was named answers", answered.into(), last(&output(0)));
    let refused = output(1).contains("403") && output(1).contains("host_not_allowed");
    report.check("another is refused, with a reason that an agent can read", refused.into(), last(&output(1)));
    let query = [("action", "sandbox.connect".to_owned())];
    let lines = tokio::time::timeout(PATIENCE, async {
        loop {
            let lines = alice.api(Method::GET, &["audit"], Ask::query(&query)).await?;
            if out::array(&lines).len() >= 2 {
                return Ok::<Value, Failure>(lines);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let lines = lines.await.map_err(|_| DemoError::Slow)??;
    let codes: Vec<String> = out::array(&lines).iter().map(|line| out::cell(&line["detail"]["code"])).collect();
    let both = ["allowed", "host_not_allowed"].iter().all(|code| codes.iter().any(|one| one == code));
    report.check("both are on record", both.into(), codes.join(", "));
    Ok(())
}

/// An agent that demands what no sandbox here can enforce.
async fn demand(report: &mut Report, alice: &Client, bob: &Client) -> Result<(), Failure> {
    report.stage("A rule that cannot be kept", "What no sandbox here can enforce is refused, never weakened.");
    let definition = json!({
        "tools": ["bash"], "egress": { "allow": { "example.com": [] } }, "sandbox": { "backend": "virtual" },
        "instructions": "Go out.",
    });
    let put = alice.api(Method::PUT, &["agents", "outbound"], Ask::body(&definition)).await;
    match put {
        Err(_) => report.check("an agent with an allow list is refused", refused_with(&put, 400).into(), said(&put)),
        Ok(_) => {
            let outbound = bob.clone().with_header("x-bailiwick-agent", "outbound")?;
            let mut run = begin(report, &outbound, "Use the allow list.").await?;
            run.until(|event| event.kind == "session.waiting").await?;
            let output = run.outputs("bash").first().cloned().unwrap_or_default();
            let told = out::cell(&output["error"]);
            let refused = told.contains("egress") && output["exitCode"].is_null();
            report.check("a sandbox that cannot keep an allow list is not started, and says so", refused.into(), told);
        }
    }
    Ok(())
}

/// The walls between tenants, seen from outside.
async fn walls(report: &mut Report, bob: &Client, gina: &Client, space: &str, session: &str) -> Result<(), Failure> {
    report.stage("The other tenant", "For globex, nothing of acme exists.");
    let nobody = "spc_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let own = bob.api(Method::GET, &["spaces", space], Ask::NOTHING).await;
    let foreign = gina.api(Method::GET, &["spaces", space], Ask::NOTHING).await;
    let absent = gina.api(Method::GET, &["spaces", nobody], Ask::NOTHING).await;
    let alike = said(&foreign).replace(space, "ID") == said(&absent).replace(nobody, "ID");
    let hidden = own.is_ok() && refused_with(&foreign, 404) && refused_with(&absent, 404) && alike;
    report.check("bob's space is 404 for gina, as one that never was", hidden.into(), said(&foreign));
    let mut stream = SessionStream::new(gina.clone(), session.to_owned(), 0);
    let peeked = stream.history().await.map(|_| Value::Null);
    report.check("so is his session", refused_with(&peeked, 404).into(), said(&peeked));
    let listed = gina.api(Method::GET, &["spaces"], Ask::NOTHING).await?;
    let clean = out::array(&listed).iter().all(|row| row["owner"].as_str() == Some("gina"));
    report.check(
        "and no list of hers names it",
        clean.into(),
        format!("{} space of her own", out::array(&listed).len()),
    );
    Ok(())
}

/// A session under way.
struct Run {
    stream: SessionStream,
    seen: Vec<Event>,
    narrate: bool,
}

async fn begin(report: &Report, client: &Client, message: &str) -> Result<Run, Failure> {
    report.show(&format!("{} {message}", out::paint(out::Style::Accent, "bob>")));
    let made = client.eve(Method::POST, &["session"], Ask::body(&json!({ "message": message }))).await?;
    let stream = SessionStream::new(client.clone(), text(&made, "sessionId")?.to_owned(), 0);
    Ok(Run { stream, seen: Vec::new(), narrate: report.format == out::Format::Text })
}

impl Run {
    /// Reads on until an event fits. `false` if the turn failed before.
    async fn until(&mut self, fits: impl Fn(&Event) -> bool) -> Result<bool, Failure> {
        let reading = async {
            loop {
                let event = self.stream.next().await?;
                let told = ["message.completed", "actions.requested", "action.result", "turn.waiting", "turn.failed"];
                if self.narrate && told.contains(&event.kind.as_str()) {
                    out::line(&format!("  {}", out::cut(&chat::event_line(&event), 76)));
                }
                let (done, failed) = (fits(&event), event.kind == "turn.failed");
                self.seen.push(event);
                if done || failed {
                    return Ok::<bool, ClientError>(!failed);
                }
            }
        };
        Ok(tokio::time::timeout(PATIENCE, reading).await.map_err(|_| DemoError::Slow)??)
    }

    /// What a tool gave, call by call.
    fn outputs(&self, tool: &str) -> Vec<Value> {
        let results = self.seen.iter().filter(|event| event.kind == "action.result").map(|event| &event.data["result"]);
        results
            .filter(|result| result["toolName"].as_str() == Some(tool))
            .map(|result| result["output"].clone())
            .collect()
    }
}

async fn account(operator: &Client, name: &str, admin: &str) -> Result<String, Failure> {
    let body = json!({ "account_id": name, "admin_user_id": admin });
    let made = operator.api(Method::POST, &["admin", "accounts"], Ask::body(&body)).await?;
    Ok(text(&made, "user_key")?.to_owned())
}

/// Whether the answer is a refusal with exactly this status.
fn refused_with(answer: &Result<Value, ClientError>, status: u16) -> bool {
    answer.as_ref().err().and_then(ClientError::status).map(|found| found.as_u16()) == Some(status)
}

fn said(answer: &Result<Value, ClientError>) -> String {
    match answer {
        Ok(_) => "it was answered".to_owned(),
        Err(error) => match error.status() {
            Some(status) => format!("{} {error}", status.as_u16()),
            None => error.to_string(),
        },
    }
}
