//! B listens while A acts. Each stream has its control: A's own listener hears A, and B's hears B, after
//! which whatever was to come of A's would have come.

use reqwest::Method;
use serde_json::json;

use super::probe::Prober;
use super::tenant::{PATIENCE, Tenant};
use crate::client::{Ask, Client, ClientError, Lines, Sse};
use crate::command::text;
use crate::failure::Failure;

const AUDIT: &str = "the audit stream";
const SESSIONS: &str = "session streams";

pub(super) async fn probe(prober: &mut Prober<'_>) -> Result<(), Failure> {
    audit(prober).await?;
    sessions(prober).await
}

/// Everything that came until a text was heard, and whether it was.
struct Heard {
    all: String,
    found: bool,
}

/// Reads server-sent events until one holds a text.
async fn hear(stream: &mut Sse, until: &str) -> Heard {
    let mut all = String::new();
    let reading = async {
        while let Ok(Some((_, data))) = stream.next().await {
            all.push_str(&data);
            all.push('\n');
            if data.contains(until) {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(PATIENCE, reading).await.unwrap_or(false);
    Heard { all, found }
}

/// Reads lines until one holds a text.
async fn hear_lines(stream: &mut Lines, until: &str) -> Heard {
    let mut all = String::new();
    let reading = async {
        while let Ok(Some(line)) = stream.next().await {
            all.push_str(&line);
            all.push('\n');
            if line.contains(until) {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(PATIENCE, reading).await.unwrap_or(false);
    Heard { all, found }
}

async fn listen(client: &Client) -> Result<Sse, ClientError> {
    Ok(Sse::new(client.open(&["api", "v1", "audit", "stream"], &[]).await?))
}

/// Makes a space, which is an event; its id.
async fn act(client: &Client, name: &str) -> Result<String, ClientError> {
    let made = client.api(Method::POST, &["spaces"], Ask::body(&json!({ "name": name }))).await?;
    Ok(text(&made, "id")?.to_owned())
}

async fn audit(prober: &mut Prober<'_>) -> Result<(), Failure> {
    let mut own = match listen(&prober.a.admin).await {
        Ok(own) => own,
        Err(error) => {
            prober.report.control(AUDIT, false, || format!("A cannot listen: {error}"));
            return Ok(());
        }
    };
    let mut others = Vec::new();
    for (who, client) in prober.askers.clone() {
        match listen(&client).await {
            Ok(stream) => others.push((who, client, stream)),
            Err(error) => prober.report.control(AUDIT, false, || format!("B's {who} cannot listen: {error}")),
        }
    }
    let made = act(&prober.a.admin, &prober.a.secret).await?;
    let heard = hear(&mut own, &made).await;
    prober.report.control(AUDIT, heard.found, || "A does not hear what A does".to_owned());
    for (who, client, mut stream) in others {
        prober.report.probed(AUDIT);
        let made = act(&client, "heard").await?;
        let heard = hear(&mut stream, &made).await;
        prober.report.control(AUDIT, heard.found, || format!("B's {who} does not hear what they do"));
        crossed(prober, AUDIT, who, &heard);
    }
    Ok(())
}

/// Whether anything of A's was heard: B has not yet said any of these to the server.
fn crossed(prober: &mut Prober<'_>, group: &str, who: &str, heard: &Heard) {
    let of_a = ["space", "session", "approval", "agent", "user", "key"].map(|name| prober.a.id(name).to_owned());
    let mut of_a: Vec<String> = of_a.into_iter().filter(|id| !id.is_empty()).collect();
    of_a.extend([prober.a.secret.clone(), prober.a.chief.clone(), prober.a.id("account").to_owned()]);
    if let Some(told) = of_a.iter().find(|id| heard.all.contains(id.as_str())) {
        prober.report.crossing(group, &format!("B's {who} hears of A's {told}"));
    }
}

/// A session of one's own, and its stream.
async fn session(tenant: &Tenant, client: &Client) -> Result<(String, Lines), ClientError> {
    let client = client.clone().with_header("x-bailiwick-agent", tenant.id("agent"))?;
    let made = client.eve(Method::POST, &["session"], Ask::body(&json!({}))).await?;
    let id = text(&made, "sessionId")?.to_owned();
    let stream = Lines::new(client.open(&["eve", "v1", "session", &id, "stream"], &[]).await?);
    Ok((id, stream))
}

async fn sessions(prober: &mut Prober<'_>) -> Result<(), Failure> {
    if !prober.a.ids.contains_key("session") || !prober.b.ids.contains_key("session") {
        return Ok(());
    }
    let (id, mut own) = session(&prober.a, &prober.a.admin.clone()).await?;
    let mut others = Vec::new();
    for (who, client) in prober.askers.clone() {
        prober.report.probed(SESSIONS);
        match client.open(&["eve", "v1", "session", &id, "stream"], &[]).await {
            Ok(_) => prober.report.crossing(SESSIONS, &format!("B's {who} opens the stream of A's session {id}")),
            Err(error) if error.status().is_some_and(|status| status.as_u16() == 404) => {}
            Err(error) => prober.report.fault(SESSIONS, &format!("B's {who} at A's stream: {error}")),
        }
        let (theirs, stream) = session(&prober.b, &client).await?;
        others.push((who, client, theirs, stream));
    }
    let say = |words: &str| json!({ "message": words });
    prober.a.admin.eve(Method::POST, &["session", &id], Ask::body(&say(&prober.a.secret))).await?;
    let heard = hear_lines(&mut own, &prober.a.secret).await;
    prober.report.control(SESSIONS, heard.found, || "A does not hear what A says".to_owned());
    for (n, (who, client, theirs, mut stream)) in others.into_iter().enumerate() {
        prober.report.probed(SESSIONS);
        let words = format!("words of B, number {n}");
        client.eve(Method::POST, &["session", &theirs], Ask::body(&say(&words))).await?;
        let heard = hear_lines(&mut stream, &words).await;
        prober.report.control(SESSIONS, heard.found, || format!("B's {who} does not hear what they say"));
        crossed(prober, SESSIONS, who, &heard);
    }
    Ok(())
}
