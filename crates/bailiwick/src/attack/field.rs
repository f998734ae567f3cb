//! Where the attacks take place: a server, two accounts, and what there is around them.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bailiwick_model::Script;
use bailiwick_sandbox::SandboxError;
use bailiwick_sandbox::attack::{self, FarPlaces, Finding, Group, Inside, Kind, Places, Said};
use bailiwick_sandbox::linux::{Limits, Promises, WayOut};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::AttackError;
use crate::client::{Ask, Client, SessionStream, Settings};
use crate::command::text;
use crate::config::SandboxSettings;
use crate::failure::Failure;
use crate::init;
use crate::serve::{ServeError, embedded};
use crate::wiring::{self, Server};

/// Every message is a command.
const SCRIPT: &str = r#"
turns:
  - default: true
    repeat: last
    steps:
      - tools: [{ name: bash, input: { command: "{{user}}", timeout_seconds: 20 } }]
      - text: "done"
"#;

/// The longest that one command may take, with all that is around it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the hosts are that agents may reach: on the loopback, and not where this machine's own ports are.
const FAR: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

/// Hosts of the gate's own list: one that the rules name, one that they do not, and one that points inside.
const HOSTS: [&str; 3] = ["allowed.test", "other.test", "inward.test"];

/// What an attacked sandbox may use.
const MEMORY_MIB: u64 = 128;
const PIDS: u32 = 64;

/// A server with two accounts, and what its sandboxes are to leave alone.
pub(crate) struct Field {
    server: Server,
    attacker: Client,
    neighbour: Client,
    places: Places,
    far: FarPlaces,
    far_side: tokio::task::JoinHandle<()>,
    _open: (TcpListener, UnixListener),
    _dir: TempDir,
}

impl Field {
    /// Starts it all.
    pub(crate) async fn start(sandbox: Option<SandboxSettings>) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("bailiwick-attack-").tempdir().map_err(AttackError::Place)?;
        let own = tempfile::Builder::new().prefix("bailiwick-host-").tempdir_in(dir.path());
        let own = own.map_err(AttackError::Place)?.keep();
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(AttackError::Place)?;
        let port = door.local_addr().map_err(AttackError::Place)?.port();
        let far_door = tokio::net::TcpListener::bind((FAR, 0)).await.map_err(AttackError::Place)?;
        let far_port = far_door.local_addr().map_err(AttackError::Place)?.port();
        let abstract_name = own.display().to_string();
        let address = SocketAddr::from_abstract_name(&abstract_name).map_err(AttackError::Place)?;
        let listening = UnixListener::bind_addr(&address).map_err(AttackError::Place)?;

        let root = init::random_key().map_err(AttackError::Place)?;
        let data = dir.path().join("data");
        let [allowed, other, inward] = HOSTS;
        let flags = [
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("server.data_dir", data.display().to_string()),
            ("server.root_api_key", root.to_string()),
            ("limits.requests_per_second_per_principal", "0".to_owned()),
            ("limits.requests_per_second_per_address", "0".to_owned()),
            ("gate.hosts", format!(r#"{{ "{allowed}" = "{FAR}", "{other}" = "{FAR}", "{inward}" = "127.0.0.1" }}"#)),
            ("egress", format!(r#"{{ allow = {{ "*:{far_port}" = [] }}, subnets = {{ allow = ["{FAR}/32"] }} }}"#)),
        ];
        let mut config = embedded(&flags)?;
        if let Some(sandbox) = sandbox {
            config.sandbox = sandbox;
        }
        let script = Script::parse("attack", SCRIPT).map_err(ServeError::from)?;
        let server = wiring::start(config, Some(script)).await.map_err(ServeError::from)?;
        let url = format!("http://{}", server.address());
        let operator = client(&url, &root)?;
        let attacker = account(&operator, &url, "attacker").await?;
        let neighbour = account(&operator, &url, "neighbour").await?;
        let goes_out = json!({
            "allow": { format!("{allowed}:{far_port}"): [], format!("{inward}:{far_port}"): [] },
            "subnets": { "allow": [format!("{FAR}/32")] },
        });
        let nothing = json!("deny-all");
        for (name, kind, scope, egress) in [
            ("linux", "linux", "agent", &nothing),
            ("virtual", "virtual", "agent", &nothing),
            // What sessions share as `/tmp` is part of the account's storage, and has no limit of its own.
            ("limits-linux", "linux", "session", &nothing),
            ("limits-virtual", "virtual", "session", &nothing),
            ("container", "container", "agent", &nothing),
            ("out", "linux", "agent", &goes_out),
        ] {
            let definition = json!({
                "tools": ["bash"], "instructions": "Attack.", "egress": egress,
                "sandbox": { "backend": kind, "scope": scope },
                "limits": { "memory_mib": MEMORY_MIB, "pids": PIDS },
            });
            for account in [&attacker, &neighbour] {
                account.api(Method::PUT, &["agents", name], Ask::body(&definition)).await?;
            }
        }
        let launcher = server.sandboxes().linux().await.ok().map(|promises| promises.launcher);
        let places = Places {
            launcher,
            limits: Limits {
                memory_bytes: MEMORY_MIB << 20,
                tmp_bytes: MEMORY_MIB << 18,
                pids: PIDS,
                ..Limits::default()
            },
            workspace: workspace(&attacker, &data, "attacker").await?,
            other: workspace(&neighbour, &data, "neighbour").await?,
            own,
            port,
            server_port: server.address().port(),
            abstract_name,
            probe: std::env::current_exe().map_err(AttackError::Place)?,
        };
        attack::prepare(&places).map_err(AttackError::Place)?;
        let far = FarPlaces {
            allowed: (allowed.to_owned(), far_port),
            other: other.to_owned(),
            inward: inward.to_owned(),
            address: FAR.into(),
            inside_port: server.address().port(),
        };
        let far_side = tokio::spawn(greet(far_door));
        Ok(Self { server, attacker, neighbour, places, far, far_side, _open: (door, listening), _dir: dir })
    }

    /// The attacks of some groups on the attacker's sandbox of this kind.
    pub(crate) async fn attack(&self, kind: Kind, groups: &[Group]) -> Result<Vec<Finding>, AttackError> {
        let places = Places { launcher: self.places.launcher.filter(|_| kind == Kind::Linux), ..self.places.clone() };
        let mut findings = Vec::new();
        for group in groups {
            let agent = match (kind, group) {
                (Kind::Linux, Group::Limits) => "limits-linux",
                (Kind::Linux, _) => "linux",
                (Kind::Container, _) => "container",
                (Kind::Virtual, Group::Limits) => "limits-virtual",
                (Kind::Virtual, _) => "virtual",
            };
            let (inside, beside) = (Agent(&self.attacker, agent), Agent(&self.neighbour, agent));
            let found = attack::run(kind, &[*group], &places, &inside, &beside).await;
            findings.extend(found.map_err(AttackError::NotRun)?);
        }
        Ok(findings)
    }

    /// The attacks on the gate; nothing where there is none.
    pub(crate) async fn attack_way_out(&self) -> Result<Option<Vec<Finding>>, AttackError> {
        if !self.linux().await.is_ok_and(|promises| promises.way_out == WayOut::Gate) {
            return Ok(None);
        }
        let found = attack::run_way_out(&self.far, &Agent(&self.attacker, "out")).await;
        Ok(Some(found.map_err(AttackError::NotRun)?))
    }

    /// What the linux sandboxes promise here, or why there are none.
    pub(crate) async fn linux(&self) -> Result<Promises, String> {
        self.server.sandboxes().linux().await
    }

    /// What containers promise here, and by which engine, or why there are none.
    pub(crate) async fn container(&self) -> Result<(Promises, String), SandboxError> {
        self.server.sandboxes().container().await
    }

    /// Why there is no such sandbox on this host.
    pub(crate) async fn has(&self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::Virtual => Ok(()),
            Kind::Linux => self.linux().await.map(drop),
            Kind::Container => self.container().await.map(drop).map_err(|error| error.to_string()),
        }
    }

    /// Leaves out walls of the linux sandboxes that start from now on.
    #[cfg(debug_assertions)]
    pub(crate) fn leave_out(&self, walls: &[bailiwick_sandbox::linux::Wall]) {
        self.server.sandboxes().leave_out(walls);
    }

    /// Ends the server, and takes all of it away.
    pub(crate) async fn stop(self) {
        self.server.stop(Duration::from_secs(5)).await;
        self.far_side.abort();
    }
}

/// An account's agent. Its sessions share one sandbox.
struct Agent<'a>(&'a Client, &'static str);

impl Inside for Agent<'_> {
    async fn run(&self, script: &str) -> Result<Said, String> {
        let said = tokio::time::timeout(PATIENCE, said(self.0, self.1, script)).await;
        said.map_err(|_| "no answer in time".to_owned())?.map_err(|failure| failure.text())
    }
}

/// Has the agent run a command, and waits for what it says.
async fn said(client: &Client, agent: &str, script: &str) -> Result<Said, Failure> {
    let client = client.clone().with_header("x-bailiwick-agent", agent)?;
    let made = client.eve(Method::POST, &["session"], Ask::body(&json!({ "message": script }))).await?;
    let mut stream = SessionStream::new(client, text(&made, "sessionId")?.to_owned(), 0);
    loop {
        let event = stream.next().await?;
        if event.kind == "action.result" {
            let output = &event.data["result"]["output"];
            let part = |name: &str| output[name].as_str().unwrap_or_default().to_owned();
            if output["stdout"].is_null() {
                return Err(AttackError::NotRun(out_of(output)).into());
            }
            let well = output["status"] == "completed" && output["exitCode"] == 0;
            let stderr = format!("{}{}", part("stderr"), part("message"));
            return Ok(Said { stdout: part("stdout"), stderr, well });
        }
        if matches!(event.kind.as_str(), "turn.failed" | "session.failed" | "session.waiting") {
            let why = event.data["message"].as_str().unwrap_or("the turn ended without a result");
            return Err(AttackError::NotRun(why.to_owned()).into());
        }
    }
}

fn out_of(output: &serde_json::Value) -> String {
    output["error"].as_str().or_else(|| output["message"].as_str()).map_or_else(|| output.to_string(), str::to_owned)
}

fn client(url: &str, key: &str) -> Result<Client, Failure> {
    let url = url.parse().map_err(|_| crate::client::SettingsError::Url(url.to_owned()))?;
    let key = Some(zeroize::Zeroizing::new(key.to_owned()));
    Ok(Client::new(&Settings { url, key, account: None, user: None })?)
}

async fn account(operator: &Client, url: &str, name: &str) -> Result<Client, Failure> {
    let body = json!({ "account_id": name, "admin_user_id": "chief" });
    let made = operator.api(Method::POST, &["admin", "accounts"], Ask::body(&body)).await?;
    client(url, text(&made, "user_key")?)
}

/// Where the host keeps the account's workspace. It is found by a file, for no route tells it.
async fn workspace(account: &Client, data: &Path, name: &str) -> Result<PathBuf, Failure> {
    let marker = format!("marker-of-{name}");
    said(account, "virtual", &format!("echo here > /workspace/{marker}")).await?;
    let folder = find(data, &marker, 10).ok_or(AttackError::Workspace)?;
    std::fs::remove_file(folder.join(&marker)).map_err(AttackError::Place)?;
    Ok(folder)
}

/// The folder with a file of this name.
fn find(folder: &Path, name: &str, depth: u32) -> Option<PathBuf> {
    if folder.join(name).is_file() {
        return Some(folder.to_owned());
    }
    let depth = depth.checked_sub(1)?;
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).find_map(|path| find(&path, name, depth))
}

/// Answers every request at the far side.
async fn greet(door: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = door.accept().await {
        tokio::spawn(async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let said = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
                FarPlaces::GREETING.len(),
                FarPlaces::GREETING
            );
            let _ = stream.write_all(said.as_bytes()).await;
        });
    }
}
