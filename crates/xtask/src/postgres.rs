//! A PostgreSQL server for tests: its own data directory, a free port of this host alone, an ordinary user.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::console::say;

/// The variable by which tests find the server (see the test kit's `database`).
pub(crate) const SERVER: &str = "BAILIWICK_TEST_POSTGRES";
/// The variable that says on which database the tests of a whole server run.
pub(crate) const CHOICE: &str = "BAILIWICK_TEST_DATABASE";
/// How long a start may take.
const START: Duration = Duration::from_secs(60);

/// A running server. It is stopped, and its data are removed, when this is dropped.
pub(crate) struct Postgres {
    child: Child,
    dir: PathBuf,
    programs: PathBuf,
    port: u16,
    password: String,
}

impl Postgres {
    /// Makes a cluster and starts it. Nothing in it outlives a power cut, and the tests are many.
    pub(crate) fn start() -> Result<Self, String> {
        Self::start_with(&["fsync=off", "synchronous_commit=off", "full_page_writes=off"])
    }

    /// The same, as one that is relied upon: for measurements.
    pub(crate) fn start_durable() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// Where its data are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn start_with(settings: &[&str]) -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL's programs are missing: apt-get install postgresql")?;
        let dir = std::env::temp_dir().join(format!("bailiwick-postgres-{}", std::process::id()));
        let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        std::fs::create_dir(&dir).map_err(failed("no directory for a database"))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).map_err(failed("the directory"))?;
        let password = random().map_err(failed("no random bytes"))?;
        let file = dir.join("password");
        let mut options = std::fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&file);
        made.and_then(|mut file| file.write_all(password.as_bytes())).map_err(failed("the password's file"))?;
        if is_root() {
            run(Command::new("chown").args(["-R", "nobody:"]).arg(&dir))?;
        }
        let data = dir.join("data");
        run(as_ordinary(&programs.join("initdb"))
            .args(["--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", file.display()))
            .arg(&data))?;
        let port = free_port().map_err(failed("no free port"))?;
        let child = as_ordinary(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=400"])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .args(["-c", "shared_buffers=128MB", "-c", "max_wal_size=4GB", "-c", "log_min_messages=fatal"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", dir.display()))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("postgres cannot be started"))?;
        let server = Self { child, dir, programs, port, password };
        let begun = Instant::now();
        while server.ask("SELECT 1").is_err() {
            if begun.elapsed() > START {
                return Err("postgres was started and does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        say(&format!("PostgreSQL {} on port {port}", server.ask("SHOW server_version").unwrap_or_default()));
        Ok(server)
    }

    /// The address, as the superuser.
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// The address of a database, as one of its roles.
    pub(crate) fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// What every role of this server has for a password.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The first field of a statement's answer.
    pub(crate) fn ask(&self, sql: &str) -> Result<String, String> {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-A", "-t", "-w", "-c", sql, "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-p"])
            .arg(self.port.to_string())
            .env("PGPASSWORD", &self.password)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("psql cannot be started: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Databases that tests have made.
    pub(crate) fn databases_of_tests(&self) -> Result<u64, String> {
        let count = self.ask("SELECT count(*) FROM pg_database WHERE datname LIKE 'test%'")?;
        count.parse().map_err(|_| format!("{count} is no number"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast stop. The process is our own child, and so is certainly the right one.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command with a server beside it.
pub(crate) fn around(words: &[&str]) -> Result<(), String> {
    crate::packages::debian()?;
    let server = Postgres::start()?;
    let [program, arguments @ ..] = words else { return Err("cargo xtask postgres COMMAND …".to_owned()) };
    let status = Command::new(program).args(arguments).env(SERVER, server.url()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} ended with {status}")),
        Err(error) => Err(format!("{program} cannot be started: {error}")),
    }
}

/// Where Debian puts the programs: the newest version that is there.
pub(crate) fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .filter(|(_, bin): &(u32, PathBuf)| bin.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin)
}

/// PostgreSQL refuses to run as root. The kernel ends it with us, whatever becomes of us.
fn as_ordinary(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if is_root() {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    command.arg(program);
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let name = command.get_program().to_string_lossy().into_owned();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{name} cannot be started: {error}")),
    }
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn random() -> std::io::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
