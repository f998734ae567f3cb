//! The crash harness as a program; `cargo xtask crash` builds and runs it. Ends with 1 if anything was found.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bailiwick_crash::hardship;
use bailiwick_crash::rounds::{self, Plan};
use bailiwick_crash::work::WORKERS;

const USAGE: &str = "\
bailiwick-crash [--rounds N] [--seed S] [--database sqlite|postgres://…] [--binary PATH] [--hardships]
  --rounds N      rounds of crashes; default 40
  --seed S        repeats the rounds of an earlier run, as far as scheduling allows
  --database URL  a PostgreSQL server instead of SQLite
  --acts N        what each of the fifty workers does in a life of the server; default 3
  --binary PATH   the server; default: bailiwick beside this program
  --hardships     after the rounds: drain, full disk, read-only, busy database, clock jumps, or, with
                  PostgreSQL, drain, clock jumps, and a database that is cut off
  --only NAME     of the hardships, this one alone";

struct Wanted {
    plan: Plan,
    hardships: bool,
    only: Option<String>,
}

fn wanted() -> Result<Wanted, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = own.with_file_name("bailiwick");
    let seed = u64::from(now.subsec_nanos()) ^ now.as_secs();
    let mut plan = Plan { binary, rounds: 40, seed, database: None, workers: WORKERS, acts: 3 };
    let (mut hardships, mut only) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--hardships" {
            hardships = true;
            continue;
        }
        let value = arguments.next().ok_or(format!("{argument} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{argument} needs a number: {value}"));
        match argument.as_str() {
            "--rounds" => plan.rounds = number()?,
            "--seed" => plan.seed = number()?,
            "--binary" => plan.binary = PathBuf::from(&value),
            "--acts" => plan.acts = number()?.max(1),
            "--only" => only = Some(value),
            "--database" if value == "sqlite" => plan.database = None,
            "--database" => plan.database = Some(value),
            _ => return Err(format!("unknown: {argument}")),
        }
    }
    Ok(Wanted { plan, hardships: hardships || only.is_some(), only })
}

fn say(text: &str) {
    // Nobody reads on: then there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn main() -> ExitCode {
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(problem) => {
            say(&format!("{problem}\n{USAGE}"));
            return ExitCode::from(64);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&wanted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(&problem);
            ExitCode::FAILURE
        }
    }
}

async fn run(wanted: &Wanted) -> Result<(), String> {
    let plan = &wanted.plan;
    say(&format!("{} rounds, seed {}", plan.rounds, plan.seed));
    let report = rounds::run(plan, &mut |line| say(line)).await?;
    let mut findings = report.findings.clone();
    // Six rounds go through all of them.
    if plan.rounds >= 6 {
        findings.extend(report.unreached().iter().map(|point| format!("the fail-point {point} was never reached")));
    }
    if wanted.hardships {
        let wanted = |name: &str| wanted.only.as_ref().is_none_or(|only| only == name);
        for (name, scenario) in hardship::all(plan).into_iter().filter(|(name, _)| wanted(name)) {
            match scenario.await {
                Ok(()) => say(&format!("{name}: ok")),
                Err(problem) => findings.push(format!("{name}: {problem}")),
            }
        }
    }
    for kept in &report.kept {
        say(&format!("kept: {}", kept.display()));
    }
    say(&format!("{} deaths, {} findings", report.deaths, findings.len()));
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}
