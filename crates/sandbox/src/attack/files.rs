//! Files, descriptors, variables, sockets and namespaces.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::{control, spoken, tried};
use super::{Control, Finding, Group, Inside, Kind, Place, Places, brief, verdict};
use Control::{Always, AsRoot};

const EPERM: &str = "1";
const ENOENT: &str = "2";
const EACCES: &str = "13";
const EBUSY: &str = "16";
const EROFS: &str = "30";
const ECONNREFUSED: &str = "111";

/// All that a program inside finds in its environment.
const VARIABLES: &[&str] =
    &["AI_AGENT", "HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "USER", "_"];

/// All nodes of devices.
const NODES: &[&str] = &[
    "core", "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
    "tty", "urandom", "zero",
];

/// Files of the kernel that hold nothing of the host inside.
const EMPTY: &[&str] = &["kallsyms", "cmdline", "config.gz", "keys", "timer_list", "kcore"];

#[rustfmt::skip]
/// Tries on files. What must be answered, and a try that must be `ok`: inside, or outside by the server's user.
const FILES: &[(&str, &[&str], Place, &str, Control)] = &[
    ("read:/proc/1/mem", &[EACCES], Place::Inside, "read:/proc/self/maps", Always),
    ("write:/proc/1/mem", &[EACCES], Place::Inside, "write:/dev/null", Always),
    ("read:/proc/1/environ", &[EACCES], Place::Inside, "read:/proc/self/environ", Always),
    ("read:/proc/1/maps", &[EACCES], Place::Inside, "read:/proc/self/maps", Always),
    ("list:/proc/1/fd", &[EACCES], Place::Inside, "list:/proc/self/fd", Always),
    ("link:/proc/1/root", &[EACCES], Place::Inside, "link:/proc/self/root", Always),
    ("link:/proc/1/exe", &[EACCES], Place::Inside, "link:/proc/self/exe", Always),
    ("link:/proc/1/cwd", &[EACCES], Place::Inside, "link:/proc/self/cwd", Always),
    ("create:/usr/x", &[EROFS], Place::Inside, "create:/tmp/x1", Always),
    ("create:/etc/x", &[EROFS], Place::Inside, "create:/tmp/x2", Always),
    ("create:/x", &[EROFS], Place::Inside, "create:/tmp/x3", Always),
    ("mkdir:/dev/x", &[EROFS], Place::Inside, "mkdir:/tmp/d", Always),
    ("unlink:/etc/passwd", &[EROFS], Place::Inside, "unlink:/tmp/x1", Always),
    // Its owner is asked for before the mount; by bubblewrap it is our own.
    ("truncate:/etc/passwd", &[EACCES, EROFS], Place::Inside, "truncate:/tmp/x2", Always),
    ("write:/proc/sys/kernel/core_pattern", &[EACCES, EROFS, EPERM], Place::Outside, "write:/proc/sys/kernel/core_pattern", AsRoot),
    ("write:/proc/sys/kernel/hostname", &[EACCES, EROFS, EPERM], Place::Outside, "write:/proc/sys/kernel/hostname", AsRoot),
    ("write:/proc/sys/vm/drop_caches", &[EACCES, EROFS, EPERM], Place::Outside, "write:/proc/sys/vm/drop_caches", AsRoot),
    // Outside of what Landlock opens, and there for this question alone.
    ("read:/run/bailiwick/closed", &[EACCES], Place::Inside, "read:/etc/passwd", Always),
    // Absent, and not merely forbidden.
    ("read:{own}/outside.txt", &[ENOENT], Place::Outside, "read:{own}/outside.txt", Always),
    ("read:{other}/secret", &[ENOENT], Place::Outside, "read:{other}/secret", Always),
    ("read:{space}/program", &[ENOENT], Place::Outside, "read:{space}/program", Always),
];

pub(super) async fn run<I: Inside>(kind: Kind, places: &Places, inside: &I) -> Result<Vec<Finding>, String> {
    let mut findings = tries(kind, places, inside).await?;
    findings.extend(others(kind, places, inside).await?);
    findings.push(listed(inside, "variables of the environment", ENVIRON, VARIABLES, environment()).await?);
    findings.push(listed(inside, "devices", "ls /dev", NODES, entries("/dev")).await?);
    for name in EMPTY {
        let there = std::path::Path::new("/proc").join(name).exists();
        let said =
            inside.run(&format!("cat /proc/version > /dev/null && cat /proc/{name} 2>/dev/null | wc -c")).await?;
        findings.push(Finding {
            group: Group::Files,
            name: format!("/proc/{name}"),
            verdict: verdict(said.stdout.trim() == "0", there),
            inside: brief(&format!("{} bytes", said.stdout)),
            control: if there { "there" } else { "not on this kernel" }.to_owned(),
            everywhere: false,
        });
    }
    Ok(findings)
}

const ENVIRON: &str = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | cut -d= -f1 | sort -u";

fn environment() -> BTreeSet<String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
}

fn entries(folder: &str) -> BTreeSet<String> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What is listed inside is known; outside there is more.
async fn listed<I: Inside>(
    inside: &I,
    name: &str,
    script: &str,
    known: &[&str],
    outside: BTreeSet<String>,
) -> Result<Finding, String> {
    let said = inside.run(script).await?;
    let here: Vec<&str> = said.stdout.lines().collect();
    let strange: Vec<&str> = here.iter().copied().filter(|one| !known.contains(one)).collect();
    let more = outside.iter().any(|one| !known.contains(&one.as_str()));
    Ok(Finding {
        group: Group::Files,
        name: name.to_owned(),
        verdict: verdict(strange.is_empty() && !here.is_empty(), more),
        inside: if strange.is_empty() { format!("{}, all known", here.len()) } else { brief(&strange.join(" ")) },
        control: format!("{} outside", outside.len()),
        everywhere: true,
    })
}

/// The kernel's names for its namespaces must be others than ours.
pub(super) async fn namespaces<I: Inside>(kind: Kind, places: &Places, inside: &I) -> Result<Vec<Finding>, String> {
    let mut kinds = vec!["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    if kind == Kind::Container {
        // The engine's matter, and declared as such (`linux::compared`).
        kinds.remove(0);
    }
    if places.launcher == Some(crate::linux::LauncherKind::Bubblewrap) {
        kinds.push("user");
    }
    let script = format!("for one in {}; do readlink /proc/self/ns/$one; done", kinds.join(" "));
    let said = inside.run(&script).await?;
    let here: Vec<&str> = said.stdout.lines().collect();
    let of = |kind: &str| {
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}"));
        ours.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    Ok(kinds
        .iter()
        .map(|kind| {
            let ours = of(kind);
            let theirs = here.iter().find(|one| one.starts_with(&format!("{kind}:")));
            Finding {
                group: Group::Namespaces,
                name: (*kind).to_owned(),
                verdict: verdict(theirs.is_some_and(|theirs| *theirs != ours), !ours.is_empty()),
                inside: theirs.map_or_else(|| brief(&said.all()), |one| (*one).to_owned()),
                control: ours,
                everywhere: true,
            }
        })
        .collect())
}

async fn tries<I: Inside>(kind: Kind, places: &Places, inside: &I) -> Result<Vec<Finding>, String> {
    let quoted = |tries: Vec<&str>| {
        tries.iter().map(|one| format!("'{}'", super::fill(one, places))).collect::<Vec<_>>().join(" ")
    };
    let of = |place: Place| FILES.iter().filter(move |one| one.2 == place).map(|one| one.3).collect::<Vec<_>>();
    // Controls first: some of them make what others need.
    let controls = tried(kind, inside, &format!("files {}", quoted(of(Place::Inside)))).await?;
    let outside = control(places, &format!("files {}", quoted(of(Place::Outside)))).await;
    let all = quoted(FILES.iter().map(|one| one.0).collect());
    let here = tried(kind, inside, &format!("files {all}")).await?;
    // Whose files those are, and so which wall comes first, is the image's matter.
    let refuses = |expected: &[&str], answer: &str| match kind {
        Kind::Container => [EPERM, ENOENT, EACCES, EBUSY, EROFS].contains(&answer),
        Kind::Linux | Kind::Virtual => expected.contains(&answer),
    };
    let findings = FILES.iter().map(|(try_it, expected, place, check, control)| {
        let (try_it, check) = (super::fill(try_it, places), super::fill(check, places));
        let answer = here.get(&try_it).map_or("nothing", String::as_str);
        let checks = if *place == Place::Inside { &controls } else { &outside };
        let checked = checks.get(&check).map_or("nothing", String::as_str);
        Finding {
            group: Group::Files,
            // Where it is on this host is nobody's business.
            name: brief(
                &try_it
                    .replace(&*places.own.to_string_lossy(), "…")
                    .replace(&*places.other.to_string_lossy(), "…other")
                    .replace(&*places.workspace.to_string_lossy(), "…space"),
            ),
            verdict: verdict(refuses(expected, answer), checked == "ok"),
            inside: spoken(answer),
            control: spoken(checked),
            everywhere: *control == Always,
        }
    });
    Ok(findings.collect())
}

async fn others<I: Inside>(kind: Kind, places: &Places, inside: &I) -> Result<Vec<Finding>, String> {
    let name = &places.abstract_name;
    let ask = format!("abstract '{name}'");
    let (here, there) = (tried(kind, inside, &ask).await?, control(places, &ask).await);
    let (here, there) = (&here.get(name).cloned().unwrap_or_default(), &there.get(name).cloned().unwrap_or_default());
    let socket = Finding {
        group: Group::Files,
        name: "abstract socket of the host".to_owned(),
        // The namespace alone: no such address. Landlock's scope would say EPERM.
        verdict: verdict(here == ECONNREFUSED, there == "ok"),
        inside: spoken(here),
        control: spoken(there),
        everywhere: true,
    };
    let numbers = |said: BTreeMap<String, String>| -> Vec<String> {
        let open = said.get("open").map(String::as_str).unwrap_or_default();
        open.split(' ').filter_map(|one| one.split_once(':')).map(|pair| pair.0.to_owned()).collect()
    };
    let here = numbers(tried(kind, inside, "descriptors").await?);
    // One that is left open on purpose is listed.
    let there = numbers(control(places, "descriptors 9< /dev/null").await);
    let descriptors = Finding {
        group: Group::Files,
        name: "descriptors of the host".to_owned(),
        verdict: verdict(here == ["0", "1", "2"], there.iter().any(|number| number == "9")),
        inside: brief(&here.join(", ")),
        control: brief(&there.join(", ")),
        everywhere: true,
    };
    Ok(vec![socket, descriptors])
}
