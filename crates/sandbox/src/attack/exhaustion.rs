//! What one sandbox may use up, and that its neighbour does not notice.

use super::{Finding, Group, Inside, Places, brief, fill, named, verdict};

/// One thing to use up.
struct Much {
    name: &'static str,
    script: &'static str,
    /// One of these is in what it says.
    says: &'static [&'static str],
    /// This is not.
    unless: Option<&'static str>,
    /// Less of the same, which must say `control`.
    less: &'static str,
}

/// `{pids}`, `{memory}`, `{tmp}`, `{file}` and `{files}` are more than the sandbox may have.
const MUCH: &[Much] = &[
    Much {
        name: "processes",
        // Some more than it may have, and no bomb: where a wall is missing, the host is still there afterwards.
        script: "timeout -s KILL 3 bash -c 'for one in $(seq {pids}); do sleep 2 & done; wait'; echo survived",
        says: &["Resource temporarily unavailable"],
        unless: None,
        less: "true & wait && echo control",
    },
    Much {
        name: "memory",
        // `tail` keeps a line without end in memory.
        script: "head -c {memory} /dev/zero | tail | wc -c; echo ${PIPESTATUS[1]}",
        says: &["memory exhausted", "137", "out of memory"],
        unless: Some("{memory}"),
        less: "head -c 1M /dev/zero | tail | wc -c | grep -qx 1048576 && echo control",
    },
    Much {
        name: "/tmp",
        script: "head -c {tmp} /dev/zero > /tmp/much; rm -f /tmp/much",
        says: &["No space left", "137"],
        unless: None,
        less: "head -c 64K /dev/zero > /tmp/less && rm /tmp/less && echo control",
    },
    Much {
        name: "shared memory",
        script: "head -c {memory} /dev/zero > /dev/shm/much; rm -f /dev/shm/much",
        says: &["No space left", "137"],
        unless: None,
        less: "head -c 64K /dev/zero > /dev/shm/less && rm /dev/shm/less && echo control",
    },
    Much {
        name: "one file",
        // Sparse, so that the disk is spared; the limit is on the offset.
        script: "truncate -s {file} much; echo $?; rm -f much",
        says: &["File too large", "153", "limit exceeded"],
        unless: None,
        less: "truncate -s 1M less && rm less && echo control",
    },
    Much {
        name: "open files",
        script: "n=0; while exec {fd}< /dev/null; do n=$((n+1)); [ $n -lt {files} ] || break; done; echo $n",
        says: &["Too many open files"],
        unless: None,
        less: "n=0; while exec {fd}< /dev/null; do n=$((n+1)); [ $n -lt 20 ] || break; done; [ $n = 20 ] && echo control",
    },
    Much {
        name: "output",
        script: "yes 0123456789 | head -c 100M",
        says: &["left out"],
        unless: None,
        less: "echo control",
    },
];

pub(super) async fn run<I: Inside, N: Inside>(
    places: &Places,
    inside: &I,
    neighbour: &N,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for Much { name, script, says, unless, less } in MUCH {
        let script = fill(script, places);
        // While it burns, the neighbour still answers.
        let (said, beside) = tokio::join!(inside.run(&script), neighbour.run("echo here"));
        let (text, beside) = (named(name, said)?.all(), beside?);
        let held = says.iter().any(|words| text.contains(words))
            && !unless.is_some_and(|words| text.contains(&fill(words, places)));
        let control = inside.run(&fill(less, places)).await?.stdout;
        let noticed = beside.stdout.trim() != "here";
        findings.push(Finding {
            group: Group::Limits,
            name: (*name).to_owned(),
            verdict: verdict(held && !noticed, control.contains("control")),
            inside: if noticed { format!("the neighbour noticed: {}", brief(&beside.all())) } else { tail(&text) },
            control: brief(&control),
            everywhere: true,
        });
    }
    Ok(findings)
}

/// The end of much.
fn tail(text: &str) -> String {
    let start = text.char_indices().rev().nth(100).map_or(0, |(at, _)| at);
    brief(text.get(start..).unwrap_or_default())
}
