//! Many sandboxes at once: what they cost beyond the programs in them.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_sandbox::linux::{CgroupUse, Exec, HelperPath, JailSpec, Launcher, Network};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::report::{Report, Target};
use crate::sandbox::{Place, truth};

const SANDBOXES: usize = 200;
/// What runs in each; nobody else's program has this name and argument.
const PROGRAM: &str = "sleep 123.25";
const MIB: f64 = 1024.0;

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    // As the server does for itself: each holds the sockets of its way out.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).unwrap();
    let place = Place::new(&options.server);
    let before = available();
    let launcher = Launcher::detect(HelperPath::At(options.server.clone()), CgroupUse::WherePossible).await.unwrap();
    let (begun, stop) = (Instant::now(), CancellationToken::new());
    let (mut jails, mut running) = (Vec::new(), Vec::new());
    for round in 0..SANDBOXES {
        let spec = JailSpec { network: Network::Gate(None), ..place.jail(100_000 + round) };
        let jail = Arc::new(launcher.start(spec).await.unwrap());
        let (within, cancel) = (Arc::clone(&jail), stop.clone());
        running.push(tokio::spawn(async move { within.exec(Exec::shell(PROGRAM), cancel).await }));
        jails.push(jail);
    }
    let programs = all_run().await;
    let took = begun.elapsed();
    // Each still answers.
    for jail in &jails {
        truth(jail).await;
    }
    let used = before.saturating_sub(available()) as f64 / MIB;
    let beyond = used - programs;
    report.add(
        "memory of 200 linux sandboxes at once, with a way out, beyond their programs",
        format!("{beyond:.0} MiB"),
        "1024 MiB",
        beyond / 1024.0,
        Target::AtMost(1.0),
    );
    report.add(
        "… started one after another in",
        format!("{:.1} s", took.as_secs_f64()),
        format!("their programs {programs:.0} MiB"),
        0.0,
        Target::None,
    );
    stop.cancel();
    for task in running {
        let _ = task.await.unwrap();
    }
    for jail in jails {
        if let Some(jail) = Arc::into_inner(jail) {
            jail.stop().await;
        }
    }
}

/// Waits until the program runs in all; what they hold together, in MiB.
async fn all_run() -> f64 {
    for _ in 0..600 {
        let held: Vec<u64> = programs().collect();
        if held.len() == SANDBOXES {
            return held.iter().sum::<u64>() as f64 / MIB;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} of {SANDBOXES} sandboxes run their program", programs().count());
}

/// What each process of the program holds, in KiB, shared pages divided among those that share them.
fn programs() -> impl Iterator<Item = u64> {
    let wanted = PROGRAM.replace(' ', "\0");
    fs::read_dir("/proc").unwrap().flatten().filter_map(move |entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        if line.trim_end_matches('\0') != wanted {
            return None;
        }
        field(&fs::read_to_string(entry.path().join("smaps_rollup")).ok()?, "Pss:")
    })
}

/// Memory that nobody needs, in KiB: what the kernel holds for sandboxes is missing in it as well.
fn available() -> u64 {
    field(&fs::read_to_string("/proc/meminfo").unwrap(), "MemAvailable:").unwrap()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
