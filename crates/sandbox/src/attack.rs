//! Attacks on a sandbox from inside, each beside its control.
//!
//! The same lists are run by `bailiwick sandbox attack` on the machine where it is installed, and by the tests, in
//! whole sandboxes and in such that lack a wall. An attack holds if it was answered as it must be; it proves
//! something only beside its control, the same act where nothing forbids it.

mod calls;
mod exhaustion;
mod files;
pub mod probe;
mod scripts;
mod virtual_shell;
mod way_out;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;

use crate::linux::{LauncherKind, Limits};

pub use way_out::FarPlaces;

/// What stands in files and answers that nothing inside may see.
pub const SECRET: &str = "SECRET-OF-ANOTHER-TENANT";

/// How long a control may take.
const CONTROL_PATIENCE: Duration = Duration::from_secs(20);

/// What is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The virtual shell.
    Virtual,
    /// Real programs in namespaces.
    Linux,
    /// Real programs of an image.
    Container,
}

/// What a command said inside.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Whether it ended by itself, with 0.
    pub well: bool,
}

impl Said {
    fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Somewhere to run commands: a sandbox, seen from outside.
pub trait Inside: Sync {
    /// Runs a script and says what it said. A sandbox that ended is there again for the next one.
    fn run(&self, script: &str) -> impl Future<Output = Result<Said, String>> + Send;
}

/// What there is around the sandbox, for attacks to aim at and for controls.
#[derive(Debug, Clone)]
pub struct Places {
    /// How it was built.
    pub launcher: Option<LauncherKind>,
    /// What it may use.
    pub limits: Limits,
    /// Its workspace, as the host sees it.
    pub workspace: PathBuf,
    /// Another tenant's workspace, with a file `secret` in it.
    pub other: PathBuf,
    /// A folder of the host that only this process writes; [`SECRET`] is in its file `outside.txt`.
    pub own: PathBuf,
    /// A port of the host's loopback that listens.
    pub port: u16,
    /// The server's own port, if it has one.
    pub server_port: u16,
    /// An abstract socket that listens.
    pub abstract_name: String,
    /// Which executable is the probe outside.
    pub probe: PathBuf,
}

/// What of a sandbox is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The kernel's dangerous calls.
    Calls,
    /// Files, descriptors, variables and sockets, by the probe.
    Files,
    /// Namespaces: the kernel's names for them.
    Namespaces,
    /// The host, its processes, other tenants and the network, by scripts.
    Host,
    /// What may be used up.
    Limits,
    /// The gate.
    WayOut,
    /// What must not be refused.
    Works,
}

/// How an attack came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was answered as it must be, and otherwise where nothing forbids it.
    Held,
    /// It was answered as it must be, and so was its control on this host: nothing is shown by it.
    Unproven,
    /// It was answered otherwise.
    Escaped,
}

/// An attack and its outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What is attacked.
    pub group: Group,
    /// The attack.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was answered inside, short.
    pub inside: String,
    /// What the control was answered.
    pub control: String,
    /// Whether the control is to hold on every host, or only where the server is root.
    #[serde(skip)]
    pub everywhere: bool,
}

/// Who must succeed with a control.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    /// Everybody.
    Always,
    /// Root; a user is refused by the kernel itself.
    AsRoot,
}

/// What must come of a script.
#[derive(Clone, Copy)]
enum Expected {
    /// One of these is in what it says.
    Says(&'static [&'static str]),
    /// Its output is this and nothing else.
    Prints(&'static str),
    /// It does not end well.
    Fails,
}

/// A script, what must come of it, and a script that must say `control`.
struct Attack {
    name: &'static str,
    script: &'static str,
    expected: Expected,
    /// Run by the host's own shell, or by the sandbox's.
    place: Place,
    check: &'static str,
    control: Control,
}

/// Where a control runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Inside,
}

/// Words that nothing says which found nothing.
const LOOT: &[&str] = &["SECRET", "connected", "HAVE", "uid=0", "root:x:0:0", "REACHED", "docker", "podman"];

/// Makes what the attacks aim at. Nothing is put anywhere but into the workspace and the two folders.
///
/// # Errors
/// The system's.
pub fn prepare(places: &Places) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    std::fs::write(places.other.join("secret"), SECRET)?;
    std::fs::write(places.own.join("outside.txt"), SECRET)?;
    let space = &places.workspace;
    std::fs::write(space.join("program"), "#!/bin/sh\necho interpreted\n")?;
    symlink("/etc/passwd", space.join("link-to-passwd"))?;
    symlink(places.own.join("outside.txt"), space.join("link-outside"))?;
    rustix::fs::mknodat(rustix::fs::CWD, space.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
    std::fs::copy(&places.probe, space.join(probe::ROLE))?;
    let all: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let owner = std::fs::metadata(space)?;
    let made = ["program", "link-to-passwd", "link-outside", "fifo", probe::ROLE].map(|name| space.join(name));
    for path in made.into_iter().chain(libraries(space)?) {
        if !path.is_symlink() && !path.ends_with("fifo") {
            std::fs::set_permissions(&path, all.clone())?;
        }
        if is_root() {
            std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    // Root's own where this is root, and then it makes whoever runs it root, unless the workspace's mount forbids it.
    let id = space.join("root-id");
    std::fs::copy("/usr/bin/id", &id)?;
    std::fs::set_permissions(&id, std::os::unix::fs::PermissionsExt::from_mode(0o4755))
}

/// Where the probe's libraries are, for images that have another libc, or none.
const LIBRARIES: &str = "probe-libraries";

/// Copies this process's own libraries, which are the probe's.
fn libraries(space: &Path) -> std::io::Result<Vec<PathBuf>> {
    let folder = space.join(LIBRARIES);
    std::fs::create_dir(&folder)?;
    let mut made = vec![folder.clone()];
    let mapped = std::fs::read_to_string("/proc/self/maps")?;
    let paths =
        mapped.lines().filter_map(|line| line.split_once('/').map(|(_, path)| PathBuf::from(format!("/{path}"))));
    for library in paths.filter(|path| path.is_file()) {
        let name = library.file_name().filter(|name| name.to_string_lossy().contains(".so"));
        if let Some(to) = name.map(|name| folder.join(name)).filter(|to| !to.exists()) {
            std::fs::copy(&library, &to)?;
            made.push(to);
        }
    }
    Ok(made)
}

/// Runs the attacks of some groups on a sandbox that may reach nothing; the neighbour is another tenant's, and is to
/// notice nothing.
///
/// # Errors
/// Why a command could not be run, in which case nothing is shown.
pub async fn run<I: Inside, N: Inside>(
    kind: Kind,
    groups: &[Group],
    places: &Places,
    inside: &I,
    neighbour: &N,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for group in groups {
        findings.extend(match (kind, group) {
            (Kind::Linux | Kind::Container, Group::Calls) => calls::run(kind, places, inside).await?,
            (Kind::Linux | Kind::Container, Group::Files) => files::run(kind, places, inside).await?,
            (Kind::Linux | Kind::Container, Group::Namespaces) => files::namespaces(kind, places, inside).await?,
            (Kind::Linux, Group::Host) => scripted(*group, scripts::ATTACKS, places, inside).await?,
            (Kind::Linux, Group::Limits) => exhaustion::run(places, inside, neighbour).await?,
            (Kind::Virtual, Group::Host) => scripted(*group, virtual_shell::ATTACKS, places, inside).await?,
            (Kind::Virtual, Group::Limits) => scripted(*group, virtual_shell::LIMITS, places, inside).await?,
            // [`not_made`] says why.
            _ => Vec::new(),
        });
    }
    Ok(findings)
}

/// Why attacks of this group are not made on this kind of sandbox, if they are not.
#[must_use]
pub const fn not_made(kind: Kind, group: Group) -> Option<&'static str> {
    match (kind, group) {
        (Kind::Virtual, Group::Calls | Group::Files | Group::Namespaces) => {
            Some("no program runs in it that could make them")
        }
        (Kind::Virtual, Group::WayOut) => Some("it has no way out"),
        (Kind::Container, Group::Host | Group::Limits | Group::WayOut) => {
            Some("they are written for bash and the programs of a host, which an image need not have")
        }
        _ => None,
    }
}

impl Group {
    /// All that a sandbox without a way out has.
    pub const INSIDE: [Self; 5] = [Self::Calls, Self::Files, Self::Namespaces, Self::Host, Self::Limits];

    /// In a word or two.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "system calls",
            Self::Files => "files",
            Self::Namespaces => "namespaces",
            Self::Host => "the host",
            Self::Limits => "limits",
            Self::WayOut => "way out",
            Self::Works => "what works",
        }
    }
}

/// Runs every attack on the way out of a sandbox that may reach one host. The neighbour may reach nothing of that.
///
/// # Errors
/// Why a command could not be run.
pub async fn run_way_out<I: Inside>(far: &FarPlaces, inside: &I) -> Result<Vec<Finding>, String> {
    way_out::run(far, inside).await
}

async fn scripted<I: Inside>(
    group: Group,
    attacks: &[Attack],
    places: &Places,
    inside: &I,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for attack in attacks {
        let said = named(attack.name, inside.run(&fill(attack.script, places)).await)?;
        let text = said.all();
        let without_programs = matches!(attack.expected, Expected::Says(words) if words.contains(&"not found"));
        let held = match attack.expected {
            Expected::Says(words) => words.iter().any(|words| text.contains(words)),
            Expected::Prints(only) => said.stdout == only,
            Expected::Fails => !said.well,
        };
        let held = held && !LOOT.iter().any(|word| text.contains(word));
        let tried = attack.control == Control::Always || is_root();
        let control = match (tried, attack.place) {
            (false, _) => "for root alone".to_owned(),
            (true, Place::Outside) => outside(&fill(attack.check, places)).await,
            (true, Place::Inside) => inside.run(&fill(attack.check, places)).await?.stdout,
        };
        findings.push(Finding {
            group,
            name: attack.name.to_owned(),
            verdict: if !without_programs && no_program(&text) {
                Verdict::Unproven
            } else {
                verdict(held, control.contains("control"))
            },
            inside: brief(&text),
            control: brief(&control),
            everywhere: attack.control == Control::Always,
        });
    }
    Ok(findings)
}

/// "Not found" is no refusal, and no way through: the program must be there for the attack to be one, but in a shell
/// without any.
fn no_program(text: &str) -> bool {
    text.contains("command not found")
}

/// An attack that was not made shows nothing.
fn named<T>(attack: &str, outcome: Result<T, String>) -> Result<T, String> {
    outcome.map_err(|why| format!("{attack}: {why}"))
}

fn verdict(held: bool, control: bool) -> Verdict {
    match (held, control) {
        (false, _) => Verdict::Escaped,
        (true, true) => Verdict::Held,
        (true, false) => Verdict::Unproven,
    }
}

fn fill(script: &str, places: &Places) -> String {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    script
        .replace("{server}", &std::process::id().to_string())
        .replace("{other}", &path(&places.other))
        .replace("{own}", &path(&places.own))
        .replace("{space}", &path(&places.workspace))
        .replace("{port}", &places.port.to_string())
        .replace("{server_port}", &places.server_port.to_string())
        .replace("{pids}", &(u64::from(places.limits.pids) * 4).to_string())
        .replace("{memory}", &(places.limits.memory_bytes * 2).to_string())
        .replace("{tmp}", &(places.limits.tmp_bytes * 2).to_string())
        .replace("{file}", &(places.limits.file_bytes.saturating_add(1 << 20)).to_string())
        .replace("{files}", &(places.limits.open_files * 2).to_string())
}

/// What a script of the host's own shell prints, within a time.
async fn outside(script: &str) -> String {
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", script]).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(CONTROL_PATIENCE, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    }
}

/// The probe's lines by name.
fn answers(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.rsplit_once('='));
    lines.map(|(name, answer)| (name.to_owned(), answer.to_owned())).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One line, cut.
fn brief(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + word.len() > 120 {
            let _ = write!(line, "…");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().filter(|letter| !letter.is_control()).take(120));
    }
    line
}
