//! The server: the release binary in a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::load::{Ask, Connection};

/// The operator's key.
pub(crate) const ROOT: &str = "root-key-of-the-benchmarks-0123456789abcdef";

/// Ticks in a second, as Linux tells times in `/proc` (USER_HZ): on all that this runs on.
const TICKS: u64 = 100;

/// What the model says: a tool call with a shell command, and an answer.
const SCRIPT: &str = "turns:\n  - when: { user: \"run\" }\n    steps:\n      - tools: [{ name: bash, input: { command: \"echo hello\" } }]\n      \
     - text: done\n  - default: true\n    repeat: last\n    steps: [{ text: \"hello\" }]\n";

/// A folder for a server.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    binary: PathBuf,
    database: String,
}

/// A running server; killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From its start to its line that it listens.
    pub(crate) took: Duration,
}

impl Site {
    pub(crate) fn new(binary: &Path, database: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), binary: binary.to_owned(), database: database.to_owned() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn start(&self) -> Running {
        let write = |name: &str, text: &str| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(self.dir.path().join(name));
            std::io::Write::write_all(file.as_mut().unwrap(), text.as_bytes()).unwrap();
        };
        write("root.key", ROOT);
        write("model.yaml", SCRIPT);
        let database = &self.database;
        write(
            "bailiwick.toml",
            &format!(
                "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\nroot_api_key_file = \"root.key\"\n\
                 [database]\nurl = \"{database}\"\n\
                 [model.default]\nprovider = \"scripted\"\nscript = \"model.yaml\"\n[log]\nformat = \"json\"\n\
                 [limits]\nrequests_per_second_per_principal = 0\nrequests_per_second_per_address = 0\n\
                 [auth.lockout]\nfailures = 1000000000\naddress_failures = 1000000000\n"
            ),
        );
        let begun = Instant::now();
        let mut child = Command::new(&self.binary)
            .args(["serve", "-c", "bailiwick.toml"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on http://").map(|address| address.parse().unwrap()))
            .expect("the server did not start");
        Running { child, address, took: begun.elapsed() }
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time of the process since its start, over all of its threads; the kernel says it in ticks.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // After the name, which stands in brackets and may have anything in it: fields 14 and 15 of proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..=12].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / TICKS)
    }

    /// Memory of the process in RAM, KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    /// An account and its admin's key.
    pub(crate) async fn account(&self, connection: &mut Connection, name: &str) -> String {
        let body = json!({ "account_id": name, "admin_user_id": "alice" }).to_string();
        let made = connection.good(&Ask::post("/api/v1/admin/accounts", ROOT, body)).await;
        made["user_key"].as_str().unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
