//! Processes of the binary, with a home and an environment of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const ROOT_KEY: &str = "root-key-of-the-tests-0123456789abcdef";

/// A home folder, in which everything of a test lies.
pub(crate) struct Home {
    dir: TempDir,
    /// What the servers of this home run on.
    database: String,
}

/// What a run of the binary gave.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// The run's standard output, if it went well.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.good();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        let said = format!("{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        said
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), database: bailiwick_testkit::database::chosen_text() }
    }

    /// A server's home whose data are files, on whatever the suite runs.
    pub(crate) fn with_files() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), database: "sqlite:".to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file with a mode.
    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The binary with nothing of the test's own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
        command.args(arguments).current_dir(self.dir.path()).env_clear();
        command.env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.command(arguments).stdin(Stdio::null()).output().unwrap().into()
    }

    /// A server in production mode with the scripted model.
    pub(crate) fn serve(&self, script: &str) -> Running {
        self.serve_with(script, "")
    }

    /// The same, with more in its configuration.
    pub(crate) fn serve_with(&self, script: &str, more: &str) -> Running {
        self.write("root.key", ROOT_KEY, 0o600);
        self.write("model.yaml", script, 0o644);
        let text = "[server]\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\nroot_api_key_file = \"root.key\"\n\
                    [model.default]\nprovider = \"scripted\"\nscript = \"model.yaml\"\n";
        self.write("bailiwick.toml", &format!("{text}{more}"), 0o600);
        self.start(&["serve", "-c", "bailiwick.toml"])
    }

    /// Starts a server and waits until it says that it listens.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let began = Instant::now();
        let mut command = self.command(arguments);
        command.env("BAILIWICK_DATABASE__URL", &self.database);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                let mut stderr = String::new();
                let _ = child.stderr.take().unwrap().read_to_string(&mut stderr);
                panic!("the server did not start: {said:?} {stderr}");
            };
            if let Some(address) = line.strip_prefix("listening on http://") {
                break address.parse().unwrap();
            }
            said.push(line);
        };
        // Read on, so that the server never waits for a reader of its log.
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Running { child, address, said, took: began.elapsed() }
    }
}

/// A server that runs; killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) said: Vec<String>,
    pub(crate) took: Duration,
}

impl Running {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a client command with a key.
    pub(crate) fn client(&self, home: &Home, key: &str, arguments: &[&str]) -> Done {
        self.client_command(home, key, arguments).stdin(Stdio::null()).output().unwrap().into()
    }

    pub(crate) fn client_command(&self, home: &Home, key: &str, arguments: &[&str]) -> Command {
        let mut command = home.command(arguments);
        command.env("BAILIWICK_URL", self.url());
        if !key.is_empty() {
            command.env("BAILIWICK_API_KEY", key);
        }
        command
    }

    /// Runs a client command that reads these lines.
    pub(crate) fn talk(&self, home: &Home, key: &str, arguments: &[&str], input: &str) -> Done {
        let mut command = self.client_command(home, key, arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// An account with its admin; the admin's key.
    pub(crate) fn account(&self, home: &Home, name: &str, admin: &str) -> String {
        let made = self.client(home, ROOT_KEY, &["account", "create", name, "--admin", admin]);
        made.good().trim().to_owned()
    }

    /// Sends a signal, and waits for the end.
    pub(crate) fn end(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer; panics after ten seconds.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(10), what, ask)
}

/// As [`eventually`], for what takes longer.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All regular files below a folder.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&path)),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}
