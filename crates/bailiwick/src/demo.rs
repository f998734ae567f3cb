//! `bailiwick demo`: the main job once, from the outside.
//!
//! It starts a server of its own in a data directory of its own, and drives it over HTTP as any client
//! would. Each step is checked; the demo is good only if every single one held. Nothing here has a way
//! into the server that others do not have.

mod steps;
mod tamper;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli;
use crate::client::{Client, ClientError, Settings};
use crate::failure::Failure;
use crate::out::{self, Format, Style};
use crate::serve::{ServeError, embedded, sandbox_line};
use crate::{init, wiring};
use bailiwick_model::Script;

/// The demo could not be run, or did not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("a data directory for the demo cannot be made")]
    Dir(#[source] std::io::Error),
    #[error("the demo's own script cannot be read")]
    Script(#[source] bailiwick_model::ScriptError),
    #[error("the signals cannot be listened for")]
    Signal(#[source] std::io::Error),
    #[error("stopped before its end")]
    Stopped,
    #[error("the session did not come to rest in time")]
    Slow,
    #[error("{0} of {1} checks did not hold")]
    DidNotHold(usize, usize),
}

/// One thing that was checked.
struct Check {
    stage: &'static str,
    what: String,
    held: bool,
    evidence: String,
}

/// What has been shown so far.
pub(super) struct Report {
    format: Format,
    stage: &'static str,
    checks: Vec<Check>,
}

impl Report {
    /// Begins a part of the demo.
    fn stage(&mut self, title: &'static str, why: &str) {
        self.stage = title;
        if self.format == Format::Text {
            out::line("");
            out::line(&out::paint(Style::Bold, title));
            out::line(&out::paint(Style::Dim, &format!("  {why}")));
        }
    }

    /// Notes whether something held, and by what one can see it.
    fn check(&mut self, what: impl Into<String>, held: Held, evidence: impl AsRef<str>) {
        let check = Check {
            stage: self.stage,
            what: what.into(),
            held: held == Held::Yes,
            evidence: out::brief(evidence.as_ref(), 200),
        };
        if self.format == Format::Text {
            let mark = if check.held { out::paint(Style::Good, "ok") } else { out::paint(Style::Bad, "no") };
            out::line(&format!("  {mark}  {}", out::clean(&check.what)));
            if !check.evidence.is_empty() {
                out::line(&out::paint(Style::Dim, &format!("      {}", out::brief(&check.evidence, 72))));
            }
        }
        self.checks.push(check);
    }

    /// Shows something of the timeline.
    fn show(&self, line: &str) {
        if self.format == Format::Text {
            out::line(&format!("  {line}"));
        }
    }
}

/// Whether a check held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    No,
}

impl From<bool> for Held {
    fn from(held: bool) -> Self {
        if held { Self::Yes } else { Self::No }
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: cli::Demo, format: Format) -> Result<(), Failure> {
    let began = Instant::now();
    // Its folder is to be removed at the end, whoever has stopped reading.
    out::go_on_unread();
    let own = std::fs::Permissions::from_mode(0o700);
    let mut dir =
        tempfile::Builder::new().prefix("bailiwick-demo-").permissions(own).tempdir().map_err(DemoError::Dir)?;
    dir.disable_cleanup(arguments.keep);
    let mut report = Report { format, stage: "", checks: Vec::new() };
    if format == Format::Text {
        out::line(&out::paint(Style::Bold, "Bailiwick demo"));
        out::line(&out::paint(
            Style::Dim,
            "A server on this machine, two tenants, one agent. Everything goes over HTTP.",
        ));
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(DemoError::Signal)?;
    let played = tokio::select! {
        played = play(dir.path(), &mut report) => played,
        _ = terminate.recv() => return Err(DemoError::Stopped.into()),
        _ = tokio::signal::ctrl_c() => return Err(DemoError::Stopped.into()),
    };
    let failed = report.checks.iter().filter(|check| !check.held).count();
    let kept = arguments.keep.then(|| dir.path().display().to_string());
    if format == Format::Json {
        out::json(&as_json(&report, failed == 0 && played.is_ok(), kept.as_deref(), began));
    } else if let Some(path) = &kept {
        out::line("");
        out::line(&format!("The data directory is kept: {path}"));
    }
    played?;
    if failed > 0 {
        return Err(DemoError::DidNotHold(failed, report.checks.len()).into());
    }
    if format == Format::Text {
        out::line("");
        let checks = report.checks.len();
        let line = format!("All {checks} checks held, in {:.1} s.", began.elapsed().as_secs_f64());
        out::line(&out::paint(Style::Good, &line));
        out::line("Next: bailiwick up");
    }
    Ok(())
}

async fn play(dir: &std::path::Path, report: &mut Report) -> Result<(), Failure> {
    let root = init::random_key().map_err(DemoError::Dir)?;
    let data = dir.join("data");
    // A door that does stand open on this machine, for the agent to try from inside its sandbox.
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(DemoError::Dir)?;
    let at = door.local_addr().map_err(DemoError::Dir)?;
    let answering = tokio::spawn(answer(door));
    let port = at.port();
    let flags = |data: &std::path::Path| {
        [
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("server.data_dir", data.display().to_string()),
            ("server.root_api_key", root.to_string()),
            // Two hosts behind the one door; what agents may reach at most is both, and each still has to say which.
            ("gate.hosts", r#"{ "docs.demo.test" = "127.0.0.1", "other.demo.test" = "127.0.0.1" }"#.to_owned()),
            ("egress", format!(r#"{{ allow = {{ "*:{port}" = [] }}, subnets = {{ allow = ["127.0.0.1/32"] }} }}"#)),
        ]
    };
    let text = include_str!("demo/script.yaml").replace("@PORT@", &port.to_string());
    let script = || Script::parse("demo", &text).map_err(DemoError::Script);
    let server = wiring::start(embedded(&flags(&data))?, Some(script()?)).await.map_err(ServeError::from)?;
    let url = format!("http://{}", server.address());
    report.show(&format!("listening on {url}"));
    let linux = server.sandboxes().linux().await;
    report.show(&format!("sandbox: {}", sandbox_line(&linux)));
    let played = steps::play(report, &url, &root, linux.is_ok(), at).await;
    server.stop(std::time::Duration::from_secs(5)).await;
    answering.abort();
    let witness = played?;

    report.stage("The record", "Every act is an event in a hash tree; a changed event is found.");
    tamper::play(report, dir, &data, &witness, async |copy| {
        let server = wiring::start(embedded(&flags(copy))?, Some(script()?)).await.map_err(ServeError::from)?;
        let client = client(&format!("http://{}", server.address()), &witness.admin_key)?;
        let answer = client.api(reqwest::Method::GET, &["audit", "verify"], crate::client::Ask::NOTHING).await;
        server.stop(std::time::Duration::from_secs(2)).await;
        Ok::<Value, Failure>(answer?)
    })
    .await
}

/// Answers every request that comes to the door.
async fn answer(door: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = door.accept().await {
        tokio::spawn(async move {
            // The head fits one packet here; what it says is nobody's business.
            let _ = stream.read(&mut [0; 4096]).await;
            let said = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\nConnection: close\r\n\r\nthe docs of the demo\n";
            let _ = stream.write_all(said).await;
        });
    }
}

/// A client with a key.
fn client(url: &str, key: &str) -> Result<Client, Failure> {
    let parsed = url.parse().map_err(|_| ClientError::Setup(format!("not a URL: {url}")))?;
    let key = Some(zeroize::Zeroizing::new(key.to_owned()));
    Ok(Client::new(&Settings { url: parsed, key, account: None, user: None })?)
}

fn as_json(report: &Report, held: bool, kept: Option<&str>, began: Instant) -> Value {
    let checks: Vec<Value> = report
        .checks
        .iter()
        .map(|check| json!({ "stage": check.stage, "what": check.what, "ok": check.held, "evidence": check.evidence }))
        .collect();
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    json!({ "ok": held, "checks": checks, "data": kept, "ms": ms })
}
