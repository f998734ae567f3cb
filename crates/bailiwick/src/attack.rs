//! `bailiwick sandbox attack`: what an agent's programs could try, tried on this machine, in each kind of sandbox
//! that it has, through everything that a real call goes through.
//!
//! A server of its own with two accounts, the one's sandbox attacking the host, the server, the gate and the other
//! account. Each attack counts only beside its control: the same act where nothing forbids it.

mod field;

use std::path::PathBuf;

use bailiwick_sandbox::SandboxError;
use bailiwick_sandbox::attack::{self, Finding, Group, Kind, Verdict};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Attack, BackendWord};
use crate::config::Sources;
use crate::failure::Failure;
use crate::out::{self, Format, Style};

pub(crate) use field::Field;

/// The attacks could not be made, or one of them got through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttackError {
    #[error("a folder or a socket for the attacks cannot be made")]
    Place(#[source] std::io::Error),
    #[error("the workspace of the attacker was not found")]
    Workspace,
    #[error("a command was not run, so nothing is shown: {0}")]
    NotRun(String),
    #[error("this host has no {0} sandbox: {1}")]
    NoBackend(&'static str, String),
    #[error("{escaped} of {attacks} attacks got through; do not run agents here before this is understood")]
    GotThrough {
        /// How many.
        escaped: usize,
        /// Of how many.
        attacks: usize,
    },
    #[cfg(debug_assertions)]
    #[error("there is no wall {0}")]
    NoWall(String),
    #[error("not one control held: nothing is shown by this")]
    NothingShown,
}

/// What is to be attacked, and how it is told.
pub(crate) struct Plan {
    pub(crate) config: Option<PathBuf>,
    pub(crate) backend: Option<Kind>,
    /// Walls that are left out, for tests. Release builds have none to leave out.
    #[cfg(debug_assertions)]
    pub(crate) without: Vec<bailiwick_sandbox::linux::Wall>,
}

impl Plan {
    /// From the command line.
    pub(crate) fn of(asked: Attack) -> Result<Self, Failure> {
        let Attack {
            config,
            backend,
            #[cfg(debug_assertions)]
            without,
        } = asked;
        let backend = backend.map(|word| match word {
            BackendWord::Linux => Kind::Linux,
            BackendWord::Container => Kind::Container,
            BackendWord::Virtual => Kind::Virtual,
        });
        Ok(Self {
            config,
            backend,
            #[cfg(debug_assertions)]
            without: without
                .iter()
                .map(|name| serde_json::from_value(json!(name)).map_err(|_| AttackError::NoWall(name.clone())))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Everything that was found out about one kind of sandbox.
pub(crate) struct Sandbox {
    pub(crate) kind: Kind,
    pub(crate) findings: Vec<Finding>,
    /// What was not tried, and why.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Attacks that were not made.
#[derive(Debug, Serialize)]
pub(crate) struct LeftOut {
    group: Group,
    why: &'static str,
}

impl Sandbox {
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|one| one.verdict == verdict).count()
    }

    pub(crate) fn name(&self) -> &'static str {
        name(self.kind)
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Virtual => "virtual",
        Kind::Linux => "linux",
        Kind::Container => "container",
    }
}

/// Runs the command.
pub(crate) async fn run(plan: Plan, format: Format) -> Result<(), Failure> {
    out::go_on_unread();
    let sandbox = match &plan.config {
        Some(file) => Some(Sources::of_process().with_file(Some(file.clone())).load().config?.sandbox),
        None => None,
    };
    let field = Field::start(sandbox).await?;
    #[cfg(debug_assertions)]
    field.leave_out(&plan.without);
    let attacked = all(&field, plan.backend, format).await;
    field.stop().await;
    let attacked = attacked?;
    let attacks: usize = attacked.iter().map(|one| one.findings.len()).sum();
    let of = |verdict| attacked.iter().map(|one| one.count(verdict)).sum::<usize>();
    let (escaped, held) = (of(Verdict::Escaped), of(Verdict::Held));
    if format == Format::Json {
        let backends: Vec<Value> = attacked
            .iter()
            .map(|one| json!({ "backend": one.kind, "attacks": one.findings, "left_out": one.left_out }))
            .collect();
        out::json(&json!({ "ok": escaped == 0 && held > 0, "backends": backends }));
    }
    match (escaped, held) {
        (0, 0) => Err(AttackError::NothingShown.into()),
        (0, _) => Ok(()),
        _ => Err(AttackError::GotThrough { escaped, attacks }.into()),
    }
}

async fn all(field: &Field, only: Option<Kind>, format: Format) -> Result<Vec<Sandbox>, Failure> {
    let mut attacked = Vec::new();
    for kind in [Kind::Linux, Kind::Container, Kind::Virtual] {
        if only.is_some_and(|only| only != kind) {
            continue;
        }
        let asked_for = only.is_some() || kind != Kind::Container;
        if !asked_for && matches!(field.container().await, Err(SandboxError::NoBackend(_))) {
            // Nobody has configured one, and nobody asks for one.
            continue;
        }
        if let Err(why) = field.has(kind).await {
            let name = name(kind);
            if only.is_some() {
                return Err(AttackError::NoBackend(name, why).into());
            }
            out::note(&format!("{name}: not on this host: {why}"));
            continue;
        }
        let mut findings = field.attack(kind, &Group::INSIDE).await?;
        let groups = Group::INSIDE.into_iter().chain([Group::WayOut]);
        let left_out = groups.filter_map(|group| Some(LeftOut { group, why: attack::not_made(kind, group)? }));
        let mut left_out: Vec<LeftOut> = left_out.collect();
        if kind == Kind::Linux {
            match field.attack_way_out().await? {
                Some(found) => findings.extend(found),
                None => left_out.push(LeftOut { group: Group::WayOut, why: "sandboxes of this host have none" }),
            }
        }
        let sandbox = Sandbox { kind, findings, left_out };
        if format == Format::Text {
            show(&sandbox);
        }
        attacked.push(sandbox);
    }
    Ok(attacked)
}

/// Prints the table of one kind of sandbox.
fn show(sandbox: &Sandbox) {
    out::line(&out::paint(Style::Bold, sandbox.name()));
    let mut table = out::Table::new(&["", "against", "attack", "inside", "control"]);
    for one in &sandbox.findings {
        let mark = match one.verdict {
            Verdict::Held => "ok",
            Verdict::Unproven => "?",
            Verdict::Escaped => "NO",
        };
        let cells = [mark, one.group.name(), &one.name, &out::brief(&one.inside, 44), &out::brief(&one.control, 24)];
        table.row(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }
    table.print();
    let (held, unproven, escaped) =
        (sandbox.count(Verdict::Held), sandbox.count(Verdict::Unproven), sandbox.count(Verdict::Escaped));
    let line = format!("{}: {held} attacks refused, {escaped} got through", sandbox.name());
    out::line(&out::paint(if escaped == 0 { Style::Good } else { Style::Bad }, &line));
    if unproven > 0 {
        let why = "their controls are refused on this host as well, so they show nothing";
        out::line(&out::paint(Style::Dim, &format!("{unproven} marked ?: {why}")));
    }
    for LeftOut { group, why } in &sandbox.left_out {
        out::line(&out::paint(Style::Dim, &format!("not tried against {}: {why}", group.name())));
    }
    out::line("");
}
