//! The crash harness's own tests, and its scenarios. The rounds of crashes are `cargo xtask crash`.

use std::path::{Path, PathBuf};
use std::process::Command;

use bailiwick_crash::hardship;
use bailiwick_crash::history::Thing;
use bailiwick_crash::rounds::{self, Calm, Plan};
use bailiwick_crash::tamper;
use bailiwick_crash::work::WORKERS;

/// How long the load of a test is.
const ACTS: u64 = 1;

fn plan() -> Plan {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_bailiwick"));
    Plan { binary, rounds: 0, seed: 5, database: None, workers: WORKERS, acts: ACTS }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A file below the account folders whose path ends so.
fn find(data: &Path, fits: impl Fn(&Path) -> bool) -> PathBuf {
    let found = crate::support::files_below(data).into_iter().find(|path| fits(path));
    found.unwrap_or_else(|| panic!("no such file"))
}

fn in_folder(path: &Path, name: &str) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|folder| folder == name)
}

type Damage = (&'static str, fn(&Path, &Calm), &'static [&'static str]);

/// What is done to the data of a stopped server, and the words of which each finding must have one.
const DAMAGES: &[Damage] = &[
    ("an acknowledged file is gone", lose_file, &["found absent"]),
    (
        "a file holds other bytes",
        |data, _| {
            std::fs::write(find(data, |path| in_folder(path, "files")), "something else").unwrap();
        },
        &["found f41f3fa6"],
    ),
    (
        "a call ran twice",
        |data, _| {
            let file = find(data, |path| in_folder(path, "log"));
            let token = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, token.repeat(2)).unwrap();
        },
        &["its token is there 2 times"],
    ),
    (
        "a call's effect is gone",
        |data, _| {
            std::fs::remove_file(find(data, |path| in_folder(path, "notes"))).unwrap();
        },
        &["its token is there 0 times"],
    ),
    (
        "an effect that no call explains",
        |data, _| {
            let log = find(data, |path| in_folder(path, "log"));
            std::fs::write(log.with_file_name("append-unknown"), "append-unknown\n").unwrap();
        },
        &["no call in any stream made it"],
    ),
    (
        "a half-written file that the start does not remove",
        |data, _| {
            let file = find(data, |path| in_folder(path, "files")).with_file_name(format!(".bailiwick-{:032x}", 1));
            std::fs::write(&file, "half").unwrap();
            let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        },
        &["a temporary file is left"],
    ),
    (
        "a line of the audit log is gone",
        |data, _| damaged(data, "DELETE FROM event WHERE seq = 9"),
        &["does not verify", "after number 8 comes 10"],
    ),
    (
        "an event of the streams is gone",
        |data, _| damaged(data, "DELETE FROM session_event WHERE n = 2"),
        &[
            "events in the stream",
            "of the stream is number",
            "is there 0 times",
            "turns",
            "made the calls",
            "nobody requested",
            "in the log",
            "no call in any stream",
        ],
    ),
    (
        "sessions are gone",
        |data, _| damaged(data, "DELETE FROM session WHERE agent = 'hasty'"),
        &["acknowledged and not there", "decision on"],
    ),
    (
        "decisions have changed",
        |data, _| damaged(data, "UPDATE approval SET state = 'denied' WHERE state = 'used'"),
        &["found denied, but it was approved"],
    ),
    (
        "an approval was given and never used",
        |data, _| damaged(data, "UPDATE approval SET state = 'approved' WHERE state = 'used'"),
        &["approved and never used"],
    ),
    (
        "keys are gone",
        |data, _| damaged(data, "DELETE FROM api_key WHERE name LIKE 'key %'"),
        &["found dead, but it was alive"],
    ),
    (
        "users are gone",
        |data, _| damaged(data, "DELETE FROM account_user WHERE name LIKE 'guest-%'"),
        &["found absent, but it was"],
    ),
    (
        "grants have changed",
        |data, _| {
            damaged(
                data,
                "UPDATE space_grant SET level = CASE level WHEN 'read' THEN 'write' ELSE 'read' END WHERE grantee LIKE 'guest-%'",
            )
        },
        &["grant of guest-"],
    ),
];

fn damaged(data: &Path, statement: &str) {
    assert!(tamper::change(data, statement).unwrap() > 0, "nothing was damaged: {statement}");
}

fn lose_file(data: &Path, calm: &Calm) {
    let facts = calm.history().facts();
    let kept = facts.things.iter().filter(|(_, held)| held.known != "absent");
    let path = kept.filter_map(|(thing, _)| match thing {
        Thing::File { path, .. } if path.starts_with("files/") => Some(path.clone()),
        _ => None,
    });
    let path = path.max().unwrap();
    std::fs::remove_file(find(data, |file| file.ends_with(&path))).unwrap();
}

/// The positive control of the harness: what is whole passes, and each damage is found and named.
#[tokio::test(flavor = "multi_thread")]
async fn z02_the_crash_harness_finds_every_damage_and_nothing_else() {
    let calm = Calm::make(&Plan { workers: 12, acts: 3, ..plan() }).await.unwrap();
    let (data, whole) = (calm.data(), calm.data().with_extension("whole"));
    assert_eq!(calm.compare().await.unwrap(), Vec::<String>::new(), "nothing was damaged yet");
    copy(&data, &whole);
    for (name, damage, words) in DAMAGES {
        damage(&data, &calm);
        let findings = calm.compare().await.unwrap_or_else(|problem| vec![problem]);
        assert!(!findings.is_empty(), "{name}: not found");
        for finding in &findings {
            assert!(words.iter().any(|word| finding.contains(word)), "{name}: {finding}");
        }
        copy(&whole, &data);
    }
    assert_eq!(calm.compare().await.unwrap(), Vec::<String>::new(), "and whole again");
}

/// One round of `cargo xtask crash`: deaths at two fail-points and at any moment, with fifty sessions under
/// way; then sessions, approvals, files and logs are compared with what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn z02_t08_e03_kill_9_under_load_loses_nothing_and_repeats_nothing() {
    let report = rounds::run(&Plan { rounds: 1, ..plan() }, &mut |_| ()).await.unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!((report.deaths, report.reached.len()), (3, 2), "{:?}", report.reached);
}

#[tokio::test(flavor = "multi_thread")]
async fn z02_what_is_acknowledged_survives_an_orderly_end_under_load() {
    hardship::drain(&plan()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn z02_a_clock_that_jumps_breaks_nothing() {
    hardship::clock(&plan()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_database_hinders_its_own_account_alone() {
    hardship::busy(&plan()).await.unwrap();
}

/// Mounting is root's. Whoever runs the tests as somebody else sees that they could not be made.
fn as_root(result: Result<(), String>) {
    match rustix::process::geteuid().is_root() {
        true => result.unwrap(),
        false => assert!(result.unwrap_err().contains("nothing can be mounted here")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_survived() {
    as_root(hardship::full_disk(&plan()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_data_directory_is_told_at_the_start() {
    as_root(hardship::read_only(&plan()).await);
}
