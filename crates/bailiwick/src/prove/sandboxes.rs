//! What runs in B's sandbox, looking for what runs in A's at the same time, and for the server.
//!
//! A holds its secret in a file, in `/tmp`, in the environment and the command line of a process. B looks for it in
//! every file and process that it finds. The control is B's own secret, kept in the same ways and found by the same
//! words.

use reqwest::Method;
use serde_json::{Value, json};

use super::probe::Prober;
use super::tenant::{PATIENCE, Tenant};
use crate::client::{Ask, Client, Lines};
use crate::command::text;
use crate::failure::Failure;

const GROUP: &str = "sandboxes";

/// Addresses of the server that are tried.
const MOST_ADDRESSES: usize = 4;

/// The kinds that are tried, and whether programs of the host run in them.
const KINDS: [(&str, bool); 2] = [("linux", true), ("virtual", false)];

pub(super) async fn probe(prober: &mut Prober<'_>) -> Result<(), Failure> {
    let addresses = addresses(prober).await;
    for (kind, programs) in KINDS {
        let agent = format!("prove-{kind}");
        let definition = json!({ "tools": ["bash"], "sandbox": { "backend": kind } });
        for tenant in [&prober.a, &prober.b] {
            tenant.admin.api(Method::PUT, &["agents", &agent], Ask::body(&definition)).await?;
        }
        let held = Job::start(&prober.a, &agent, HOLD).await?;
        if !held.says(&prober.a.admin, "held\n").await {
            let why = held.reason(&prober.a.admin).await;
            prober.report.note(format!("{kind} sandboxes are not probed: no command ran in one ({why})"));
            held.cancel(prober).await;
            continue;
        }
        let search = Job::start(&prober.b, &agent, &search(prober, &addresses)).await?;
        let said = search.said(&prober.b.admin, "searched\n").await;
        held.cancel(prober).await;
        judge(prober, kind, programs, &said);
    }
    Ok(())
}

/// Keeps what is in the workspace's file in all the other ways, for half a minute at most.
const HOLD: &str = "export HELD=$(cat secret.txt); echo $HELD > /tmp/held; echo held; n=0; \
    while [ $n -lt 300 ]; do sh -c 'sleep 0.1' $HELD; n=$((n+1)); done";

/// The server's name and addresses: in a sandbox a name is none, and would prove nothing.
async fn addresses(prober: &Prober<'_>) -> Vec<String> {
    let (host, port) = prober.b.admin.host();
    let found = tokio::net::lookup_host((host, port)).await.into_iter().flatten();
    let mut all: Vec<String> = found.map(|address| address.ip().to_string()).take(MOST_ADDRESSES).collect();
    all.push(host.to_owned());
    all.dedup();
    all
}

/// B's script: how often its own secret is found, and A's, and whether the server answers.
fn search(prober: &Prober<'_>, addresses: &[String]) -> String {
    let port = prober.b.admin.host().1;
    let addresses = addresses.join(" ");
    // Nobody's script may hold the words that it looks for.
    let pattern = |secret: &str| format!("[s]{}", secret.get(1..).unwrap_or_default());
    let (own, other) = (pattern(&prober.b.secret), pattern(&prober.a.secret));
    format!(
        "export HELD=$(cat secret.txt); echo $HELD > /tmp/held; \
         in_files() {{ grep -rIsl \"$1\" /workspace /tmp /dev/shm /run /var /home /root /srv /opt /mnt /media /etc \
           2>/dev/null | wc -l; }}; \
         in_processes() {{ for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/net/unix; do \
           cat \"$f\" 2>/dev/null | tr '\\000' '\\n'; done | grep -c \"$1\"; }}; \
         echo files $(in_files '{own}') $(in_files '{other}'); \
         sh -c 'sleep 20' $HELD & \
         sleep 0.2; echo processes $(in_processes '{own}') $(in_processes '{other}'); kill $! 2>/dev/null; \
         for a in {addresses}; do \
           (exec 3<>/dev/tcp/$a/{port}) 2>/dev/null && echo server answered || echo server silent; done; \
         echo searched"
    )
}

fn judge(prober: &mut Prober<'_>, kind: &str, programs: bool, said: &str) {
    let ended = said.contains("searched\n");
    prober.report.control(GROUP, ended, || format!("B's search in a {kind} sandbox did not end: {said}"));
    let counts = |name: &str| -> Option<(u64, u64)> {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        let mut counts = line.split_whitespace().map(str::parse);
        Some((counts.next()?.ok()?, counts.next()?.ok()?))
    };
    for (place, name) in [("files", "files "), ("processes", "processes ")] {
        if place == "processes" && !programs {
            continue;
        }
        prober.report.probed(GROUP);
        let (own, other) = counts(name).unwrap_or_default();
        prober.report.control(GROUP, own > 0, || format!("B does not find its own secret in {place} ({kind}): {said}"));
        if other > 0 {
            prober.report.crossing(GROUP, &format!("B finds A's secret in {place} of a {kind} sandbox"));
        }
    }
    // That it answers from outside is what all the other probes show.
    prober.report.probed(GROUP);
    if said.contains("server answered\n") || !said.contains("server silent\n") {
        prober.report.crossing(GROUP, &format!("the server answers a program in a {kind} sandbox"));
    }
}

/// A command of somebody's.
struct Job {
    space: String,
    id: String,
}

impl Job {
    async fn start(whose: &Tenant, agent: &str, command: &str) -> Result<Self, Failure> {
        let space = whose.id("space").to_owned();
        let body = json!({ "agent": agent, "command": command });
        let made = whose.admin.api(Method::POST, &["spaces", &space, "jobs"], Ask::body(&body)).await?;
        Ok(Self { id: text(&made, "id")?.to_owned(), space })
    }

    /// What it said until these words came, or it ended.
    async fn said(&self, client: &Client, until: &str) -> String {
        let log = ["api", "v1", "spaces", &self.space, "jobs", &self.id, "log"];
        let mut said = String::new();
        let reading = async {
            let Ok(response) = client.open(&log, &[("follow", "true".to_owned())]).await else { return };
            let mut lines = Lines::new(response);
            while let Ok(Some(line)) = lines.next().await {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                let pieces = event["output"].as_array().into_iter().flatten();
                said.extend(pieces.filter_map(|piece| piece["stdout"].as_str()));
                if said.contains(until) {
                    return;
                }
            }
        };
        // What has come by then is what is judged.
        let _ = tokio::time::timeout(PATIENCE, reading).await;
        said
    }

    async fn says(&self, client: &Client, words: &str) -> bool {
        self.said(client, words).await.contains(words)
    }

    /// Why it ended, as the server says it.
    async fn reason(&self, client: &Client) -> String {
        let shown = client.api(Method::GET, &["spaces", &self.space, "jobs", &self.id], Ask::NOTHING).await;
        let ending = shown.map(|shown| shown["ending"].clone()).unwrap_or_default();
        ending["reason"].as_str().map_or_else(|| ending.to_string(), str::to_owned)
    }

    /// A's, by A.
    async fn cancel(&self, prober: &mut Prober<'_>) {
        let path = ["spaces", &self.space, "jobs", &self.id];
        let canceled = prober.a.admin.api(Method::DELETE, &path, Ask::NOTHING).await;
        let held = canceled.as_ref().map(drop).map_err(ToString::to_string);
        prober.report.control(GROUP, held.is_ok(), || format!("A cannot cancel a job: {held:?}"));
    }
}
