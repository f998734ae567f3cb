//! The isolation self-test: a session in each kind of sandbox, through everything that a real one goes
//! through, tries to get at this program's own secrets. Each attempt has a control: the same thing works
//! from outside.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use bailiwick_model::Script;
use bailiwick_sandbox::SandboxError;
use bailiwick_sandbox::linux::{Enforcement, Promises, UserSeparation, WayOut, not_compared};
use reqwest::Method;
use serde_json::json;

use super::Findings;
use crate::client::{Ask, Client, SessionStream, Settings};
use crate::command::text;
use crate::config::SandboxSettings;
use crate::failure::Failure;
use crate::serve::{ServeError, embedded};
use crate::wiring::{self, Server};

/// What runs inside. Bash, and the virtual shell, understand it.
const PROBE: &str = r#"echo uid=$(id -u)
(cat '@SECRET@' >/dev/null) 2>/dev/null && echo secret=READ || echo secret=hidden
(exec 3<>/dev/tcp/127.0.0.1/@PORT@) 2>/dev/null && echo network=REACHED || echo network=closed
echo canary > /workspace/inside.txt && echo workspace=$(cat /workspace/inside.txt)
(echo x > '@OUTSIDE@') 2>/dev/null
env | cut -d= -f1 | while read name; do echo variable=$name; done"#;

/// Variables that a shell has of its own.
const ORDINARY: [&str; 14] = [
    "PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "TERM", "LANG", "USER", "LOGNAME", "SHELL", "TMPDIR", "HOSTNAME",
    "LC_ALL",
];

/// The longest that one sandbox may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn check(findings: &mut Findings, sandbox: Option<SandboxSettings>) {
    match tried(findings, sandbox).await {
        Ok(()) => {}
        Err(failure) => findings.failed("self-test", failure.text(), "the sandboxes could not be tried"),
    }
}

async fn tried(findings: &mut Findings, sandbox: Option<SandboxSettings>) -> Result<(), Failure> {
    let in_dir = |error| Failure::File { path: "a folder for the self-test".to_owned(), error };
    let dir = tempfile::Builder::new().prefix("bailiwick-doctor-").tempdir().map_err(in_dir)?;
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "not for sandboxes").map_err(in_dir)?;
    // Something that does answer, for the control of "network=closed".
    let open_door = TcpListener::bind("127.0.0.1:0").map_err(in_dir)?;
    let port = open_door.local_addr().map_err(in_dir)?.port();
    let outside = dir.path().join("outside");
    let probe = PROBE
        .replace("@SECRET@", &secret.display().to_string())
        .replace("@OUTSIDE@", &outside.display().to_string())
        .replace("@PORT@", &port.to_string());
    let script = json!({ "turns": [{ "default": true, "repeat": "last", "steps": [
        { "tools": [{ "name": "bash", "input": { "command": probe } }] }, { "text": "done" } ] }] });
    let script = Script::parse("self-test", &script.to_string()).map_err(ServeError::from)?;
    let flags = [
        ("server.listen", "127.0.0.1:0".to_owned()),
        ("server.data_dir", dir.path().join("data").display().to_string()),
        ("auth.mode", "dev".to_owned()),
    ];
    let mut config = embedded(&flags)?;
    if let Some(sandbox) = sandbox {
        config.sandbox = sandbox;
    }
    let server = wiring::start(config, Some(script)).await.map_err(ServeError::from)?;
    let linux = server.sandboxes().linux().await;
    promises(findings, &linux);
    let mut kinds = vec!["virtual"];
    if linux.is_ok() {
        kinds.push("linux");
    }
    if containers(findings, server.sandboxes().container().await) {
        kinds.push("container");
    }
    let control = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() && std::fs::read(&secret).is_ok();
    for kind in kinds {
        let told = tokio::time::timeout(PATIENCE, inside(&server, kind)).await;
        let name = match kind {
            "linux" => "self-test linux",
            "container" => "self-test container",
            _ => "self-test virtual",
        };
        let advice = "do not run agents here before this is understood";
        match told {
            Ok(Ok(output)) => match judge(&output, &outside) {
                Ok(()) if control => findings
                    .good(name, "no file of the host, no network, no variable of the server; the workspace works"),
                Ok(()) => findings.failed(name, "the control failed: the test proves nothing", advice),
                Err(wrong) => findings.failed(name, wrong, advice),
            },
            Ok(Err(failure)) => findings.failed(name, failure.text(), advice),
            Err(_) => findings.failed(name, "the sandbox did not answer in time", advice),
        }
    }
    server.stop(Duration::from_secs(2)).await;
    Ok(())
}

/// Runs the probe in a sandbox of this kind; what it said.
async fn inside(server: &Server, kind: &str) -> Result<String, Failure> {
    let url = format!("http://{}", server.address());
    let url = url.parse().map_err(|_| crate::client::SettingsError::Url(url.clone()))?;
    let client = Client::new(&Settings { url, key: None, account: None, user: None })?;
    let definition = json!({ "tools": ["bash"], "sandbox": { "backend": kind }, "instructions": "Probe." });
    client.api(Method::PUT, &["agents", kind], Ask::body(&definition)).await?;
    let mut headers = client.clone();
    headers = headers.with_header("x-bailiwick-agent", kind)?;
    let made = headers.eve(Method::POST, &["session"], Ask::body(&json!({ "message": "Probe." }))).await?;
    let mut stream = SessionStream::new(headers, text(&made, "sessionId")?.to_owned(), 0);
    loop {
        let event = stream.next().await?;
        if event.kind == "action.result" {
            let output = &event.data["result"]["output"];
            let said = output["stdout"].as_str().or_else(|| output["error"].as_str());
            return Ok(said.map_or_else(|| output.to_string(), str::to_owned));
        }
        if matches!(event.kind.as_str(), "turn.failed" | "session.failed" | "session.waiting") {
            return Ok(event.data["message"].as_str().unwrap_or("the probe did not run").to_owned());
        }
    }
}

/// What is wrong with what the probe saw. A probe that did not run has proved nothing.
fn judge(output: &str, outside: &Path) -> Result<(), String> {
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in output.lines().filter_map(|line| line.split_once('=')) {
        told.entry(name).or_default().push(value);
    }
    let one = |name: &str| told.get(name).and_then(|values| values.first().copied()).unwrap_or("nothing");
    if one("workspace") != "canary" {
        return Err(format!("the workspace does not work: {output}"));
    }
    if one("secret") != "hidden" {
        return Err("a file of the host can be read".to_owned());
    }
    if one("network") != "closed" {
        return Err("a port of the host can be reached".to_owned());
    }
    if outside.exists() {
        return Err("a file of the host can be written".to_owned());
    }
    if one("uid") == "0" {
        return Err("it runs as root".to_owned());
    }
    let variables = told.get("variable").map(Vec::as_slice).unwrap_or_default();
    let leaked = variables.iter().find(|name| !ORDINARY.contains(name) && std::env::var_os(name).is_some());
    leaked.map_or(Ok(()), |name| Err(format!("the server's variable {name} is inside")))
}

/// What the linux sandbox can enforce here.
fn promises(findings: &mut Findings, linux: &Result<Promises, String>) {
    let promises = match linux {
        Ok(promises) => promises,
        Err(reason) => {
            return findings.warning(
                "sandbox linux",
                format!("not available: {reason}; agents get the virtual shell"),
                "install bubblewrap, or allow user namespaces",
            );
        }
    };
    findings.good("sandbox linux", crate::serve::sandbox_line(linux));
    let limits = [("memory", promises.memory), ("processes", promises.pids), ("cpu", promises.cpu)];
    let words: Vec<String> = limits.iter().map(|(name, by)| format!("{name} by {}", enforced_by(*by))).collect();
    let weak = limits.iter().any(|(_, by)| matches!(by, Enforcement::RlimitPerProcess | Enforcement::Nothing));
    if weak {
        let advice = "give the server a delegated control group (Delegate=yes in systemd)";
        findings.warning("sandbox limits", words.join(", "), advice);
    } else {
        findings.good("sandbox limits", words.join(", "));
    }
    if promises.users == UserSeparation::ServersUser {
        let advice = "run the server as root for a user per account, if its host is its own";
        findings.warning("sandbox users", "sandboxes are the server's user in a namespace", advice);
    }
}

/// What the operator's container engine can enforce; whether it is worth a self-test.
fn containers(findings: &mut Findings, found: Result<(Promises, String), SandboxError>) -> bool {
    const NAME: &str = "sandbox container";
    match found {
        Ok((promises, engine)) => {
            let limits = [("memory", promises.memory), ("processes", promises.pids), ("cpu", promises.cpu)];
            let words: Vec<String> =
                limits.iter().map(|(name, by)| format!("{name} by {}", enforced_by(*by))).collect();
            let out = match promises.way_out {
                WayOut::Gate => "no way out but the gate",
                WayOut::Nothing => "no way out at all",
            };
            let landlock = promises.landlock_abi;
            let not_compared: Vec<String> = not_compared(promises.launcher).map(|(fact, _)| fact.to_string()).collect();
            let not_compared = not_compared.join(", ");
            let found = format!(
                "{engine}; Landlock {landlock}, {out}; {}; not in the receipt: {not_compared}",
                words.join(", ")
            );
            findings.good(NAME, found);
            true
        }
        // Nobody has asked for one.
        Err(SandboxError::NoBackend(_)) => false,
        Err(error) => {
            let reason = match error {
                SandboxError::ContainersUnavailable(reason) => reason,
                other => other.to_string(),
            };
            findings.failed(NAME, reason, "agents that ask for a container are refused until this works");
            false
        }
    }
}

fn enforced_by(by: Enforcement) -> &'static str {
    match by {
        Enforcement::CgroupV2 => "cgroup v2",
        Enforcement::CgroupV1 => "cgroup v1",
        Enforcement::RlimitPerUser => "a limit per user",
        Enforcement::RlimitPerProcess => "a limit per process",
        Enforcement::Mount => "a mount",
        Enforcement::Nothing => "nothing",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const GOOD: &str = "uid=60001\nsecret=hidden\nnetwork=closed\nworkspace=canary\nvariable=PATH\n";

    #[test]
    fn u07_a_probe_that_did_not_run_or_got_out_is_no_good() {
        let nowhere = Path::new("/nonexistent/outside");
        assert_eq!(judge(GOOD, nowhere), Ok(()));
        for bad in ["", "bash: not found", &GOOD.replace("closed", "REACHED"), &GOOD.replace("hidden", "READ")] {
            assert!(judge(bad, nowhere).is_err(), "{bad}");
        }
        assert!(judge(&GOOD.replace("60001", "0"), nowhere).is_err());
        assert!(judge(&GOOD.replace("variable=PATH", "variable=CARGO_MANIFEST_DIR"), nowhere).is_err());
        assert!(judge(GOOD, Path::new("/")).is_err(), "a written file outside");
    }
}
