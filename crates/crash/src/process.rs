//! The server as a process: its folder, its configuration, its life and its death.

use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bailiwick_types::failpoint;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// The operator's key of every server here.
pub const ROOT_KEY: &str = "root-key-of-the-crash-harness-0123456789";

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// What the scripted model says: a message names by its first word which tools are called, and is itself the
/// token that the tools leave behind.
const SCRIPT: &str = r#"
chunk_chars: 8
turns:
  - when: { user: "append-" }
    steps:
      - tools: [{ name: bash, input: { command: "mkdir -p log && echo {{user}} >> log/{{user}}" } }]
      - text: "appended {{user}}"
  - when: { user: "write-" }
    steps:
      - tools: [{ name: write_file, input: { path: "notes/{{user}}", content: "{{user}}\n" } }]
      - text: "wrote {{user}}"
  - when: { user: "both-" }
    steps:
      - text: "two at once"
        tools:
          - { name: bash, input: { command: "mkdir -p log && echo {{user}} >> log/{{user}}" } }
          - { name: write_file, input: { path: "notes/{{user}}", content: "{{user}}\n" } }
      - text: "did both {{user}}"
  - when: { user: "slow-" }
    steps:
      - { text: "one two three four five six seven eight nine ten", delay_ms: 60 }
  - default: true
    repeat: last
    steps: [{ text: "I heard: {{user}}" }]
"#;

/// A folder with a server's configuration and data, and the binary to run.
pub struct Site {
    binary: PathBuf,
    dir: PathBuf,
    database: Option<String>,
    /// Variables of every life.
    environment: Vec<(String, String)>,
}

/// A server that runs; killed when dropped.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub url: String,
    log: PathBuf,
}

/// How a start went.
pub enum Begun {
    /// It listens.
    Listens(Box<Running>),
    /// It ended before that.
    Ended(ExitStatus),
}

impl Site {
    /// Writes the configuration into a folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(binary: &Path, dir: &Path, database: Option<&str>) -> Result<Self, String> {
        let site = Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            database: database.map(str::to_owned),
            environment: Vec::new(),
        };
        site.write("root.key", ROOT_KEY)?;
        site.write("model.yaml", SCRIPT)?;
        site.configure("")?;
        Ok(site)
    }

    /// Writes the configuration anew, with more in it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, more: &str) -> Result<(), String> {
        let database = self.database.as_ref().map_or(String::new(), |url| format!("[database]\nurl = \"{url}\"\n"));
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\nroot_api_key_file = \"root.key\"\n\
             [model.default]\nprovider = \"scripted\"\nscript = \"model.yaml\"\n{database}\
             [limits]\nrequests_per_second_per_principal = 0\nrequests_per_second_per_address = 0\n{more}"
        );
        self.write("bailiwick.toml", &text)
    }

    /// Sets a variable for every life from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where the data lies.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A file of the site's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        use std::io::Write;
        let path = self.dir.join(name);
        let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| format!("{name}: {error}"))
    }

    /// The command, with nothing of the harness's own environment.
    fn command(&self, point: Option<&str>) -> Result<Command, String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("server.log"));
        let mut command = Command::new(&self.binary);
        command.args(["serve", "-c", "bailiwick.toml"]).current_dir(&self.dir).env_clear();
        command.env("HOME", &self.dir).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("BAILIWICK_LOG", "warn");
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        if let Some(point) = point {
            command.env(failpoint::VARIABLE, point);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(log.map_err(|error| format!("the server's log: {error}"))?);
        Ok(command)
    }

    /// Starts a server, and waits until it listens.
    ///
    /// # Errors
    /// If it does not: with what it said, and how it ended.
    pub async fn start(&self) -> Result<Running, String> {
        match self.begin(None).await? {
            Begun::Listens(running) => Ok(*running),
            Begun::Ended(status) => {
                Err(format!("the server did not start: {status}: {}", tail(&self.dir.join("server.log"))))
            }
        }
    }

    /// Starts a server, with a fail-point or without, and waits until it listens or ends.
    ///
    /// # Errors
    /// If it does neither.
    pub async fn begin(&self, point: Option<&str>) -> Result<Begun, String> {
        let mut child = self.command(point)?.spawn().map_err(|error| format!("the server: {error}"))?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = line.strip_prefix("listening on ") {
                    return Some(url.to_owned());
                }
            }
            None
        };
        let log = self.dir.join("server.log");
        match tokio::time::timeout(START, listening).await {
            Ok(Some(url)) => {
                tokio::spawn(async move { lines.into_inner().read_to_end(&mut Vec::new()).await });
                Ok(Begun::Listens(Box::new(Running { child, url, log })))
            }
            Ok(None) => Ok(Begun::Ended(child.wait().await.map_err(|error| error.to_string())?)),
            Err(_) => Err(format!("the server does not listen after {START:?}: {}", tail(&log))),
        }
    }
}

/// The end of the server's log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it at once, as a power cut of the process would.
    ///
    /// # Errors
    /// If it cannot be told.
    pub async fn kill(mut self) -> Result<(), String> {
        self.child.start_kill().map_err(|error| format!("kill: {error}"))?;
        self.child.wait().await.map(drop).map_err(|error| format!("wait: {error}"))
    }

    /// Waits for it to end by itself. `None` if it still runs after so long.
    ///
    /// # Errors
    /// If it is lost.
    pub async fn ended(&mut self, patience: Duration) -> Result<Option<ExitStatus>, String> {
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => status.map(Some).map_err(|error| format!("wait: {error}")),
            Err(_) => Ok(None),
        }
    }

    /// Asks it to end, and waits. How it ended and after what time.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn terminate(mut self, patience: Duration) -> Result<(ExitStatus, Duration), String> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let begun = Instant::now();
        rustix::process::kill_process(pid.ok_or("the server has ended")?, rustix::process::Signal::TERM)
            .map_err(|error| format!("SIGTERM: {error}"))?;
        let status = self.ended(patience).await?;
        status.map(|status| (status, begun.elapsed())).ok_or(format!("still there {patience:?} after SIGTERM"))
    }

    /// What it wrote to its log so far, of every life in this folder.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Whether it ended as `kill -9` ends a process.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}
