//! Jobs, through the whole server: what they say while they run, how each ends, and who may see it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Done, Home, Running, eventually, files_below, within};

const SCRIPT: &str = "turns:\n  - default: true\n    repeat: last\n    steps: [{ text: heard }]\n";

const AGENTS: [(&str, &str); 4] = [
    ("worker", "tools: [bash]"),
    ("careful", "tools: [bash]\nrequire_approval: [bash]"),
    ("high", "tools: [bash]\nelevated: [bash]"),
    ("reader", "tools: [read_file]"),
];

/// A server with two accounts, each with its agents and a space.
struct Two {
    home: Home,
    server: Running,
    alice: (String, String),
    bob: (String, String),
}

impl Two {
    fn new() -> Self {
        let home = Home::new();
        let server = home.serve(SCRIPT);
        let mut made = Vec::new();
        for (account, admin) in [("acme", "alice"), ("globex", "bob")] {
            let key = server.account(&home, account, admin);
            for (name, front) in AGENTS {
                home.write(&format!("{name}/AGENT.md"), &format!("---\n{front}\n---\nWork.\n"), 0o644);
                server.client(&home, &key, &["agent", "put", &format!("{name}/AGENT.md")]).good();
            }
            let space = server.client(&home, &key, &["space", "create", "jobs", "--json"]).json();
            made.push((key, space["id"].as_str().unwrap().to_owned()));
        }
        let bob = made.pop().unwrap();
        Self { home, server, alice: made.pop().unwrap(), bob }
    }

    fn job(&self, arguments: &[&str]) -> Done {
        let (key, space) = &self.alice;
        let all = [&["job", arguments[0], "--space", space][..], &arguments[1..]].concat();
        self.server.client(&self.home, key, &all)
    }

    fn start(&self, command: &str, more: &[&str]) -> String {
        let arguments = [&["start", "--agent", "worker"][..], more, &[command]].concat();
        self.job(&arguments).good().trim().to_owned()
    }

    fn show(&self, id: &str) -> Value {
        self.job(&["show", id, "--json"]).json()
    }

    /// The events of a job, to its end.
    fn log(&self, id: &str) -> Vec<Value> {
        let said = self.job(&["log", id, "--follow", "--json"]);
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a job has said this.
    fn until(&self, id: &str, words: &str) {
        eventually(words, || said(&self.events(id)).contains(words).then_some(()));
    }

    fn events(&self, id: &str) -> Vec<Value> {
        let said = self.job(&["log", id, "--json"]).good();
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn record(&self, action: &str) -> Vec<Value> {
        let listed = ["audit", "list", "--action", action, "--limit", "100", "--json"];
        self.server.client(&self.home, &self.alice.0, &listed).json().as_array().cloned().unwrap()
    }
}

/// What a job printed.
fn said(events: &[Value]) -> String {
    let pieces = events.iter().filter_map(|event| event["output"].as_array()).flatten();
    pieces.filter_map(|piece| piece["stdout"].as_str().or(piece["stderr"].as_str())).collect()
}

/// The states of a job, in order, and how it ended. The end is there once, and last.
fn states(events: &[Value]) -> (Vec<&str>, &Value) {
    let last = events.last().unwrap();
    let states: Vec<&str> = events.iter().filter_map(|event| event["state"].as_str()).collect();
    assert_eq!(last["type"], "done", "{events:?}");
    assert_eq!(events.iter().filter(|event| event["type"] == "done").count(), 1);
    let numbers: Vec<u64> = events.iter().map(|event| event["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    (states, last)
}

#[test]
fn b06_every_job_ends_with_one_done_event_and_says_how() {
    let two = Two::new();
    let id = two.start("echo out; echo err >&2; echo kept > made.txt", &["--kind", "build"]);
    let events = two.log(&id);
    assert_eq!(states(&events).0, ["queued", "running", "ok"]);
    assert!(said(&events).contains("out\n") && said(&events).contains("err\n"), "{events:?}");
    let row = two.show(&id);
    assert_eq!((&row["timeout_seconds"], &row["kind"]), (&1800.into(), &"build".into()));
    // It ran in the space's files.
    let (key, space) = &two.alice;
    let file = two.server.client(&two.home, key, &["space", "files", space]).good();
    assert!(file.contains("made.txt"), "{file}");

    let failed = two.start("exit 3", &[]);
    let events = two.log(&failed);
    assert_eq!((states(&events).0, &states(&events).1["exit"]), (vec!["queued", "running", "failed"], &3.into()));
    assert_eq!(two.job(&["log", &failed, "--follow"]).code, 1, "the exit code says it, too");
    let late = two.start("sleep 100", &["--timeout", "1"]);
    assert_eq!(states(&two.log(&late)).0, ["queued", "running", "timeout"]);
    assert_eq!(two.show(&two.start("true", &["--kind", "clone"]))["timeout_seconds"], 600);
    two.job(&["start", "--agent", "worker", "--timeout", "301", "true"]).failed(1, &["from 1 to 300"]);

    // On record: who put it there, that it was about to run, how it ended. Never what it ran.
    for (action, count) in [("job.create", 4), ("job.done", 4)] {
        eventually(action, || (two.record(action).len() == count).then_some(()));
    }
    let begun = two.record("job.start");
    assert!(begun.iter().all(|line| line["result"] == "BEGUN"), "{begun:?}");
    let done = two.record("job.done");
    let of = |id: &str| done.iter().find(|line| line["resource"] == format!("job:{id}")).unwrap();
    assert_eq!((&of(&id)["result"], &of(&id)["detail"]["state"]), (&"OK".into(), &"ok".into()));
    assert_eq!((&of(&failed)["result"], &of(&failed)["detail"]["exit"]), (&"FAIL".into(), &3.into()));
    assert!(of(&id)["detail"]["sandbox"].is_object(), "with its receipt: {:?}", of(&id));
    assert!(!format!("{begun:?}{done:?}").contains("made.txt"));
}

#[test]
fn b06_a_canceled_job_gets_sigterm_then_five_seconds_then_sigkill() {
    let two = Two::new();
    let polite = two.start("trap 'echo got-term; exit 0' TERM; echo ready; while :; do sleep 0.05; done", &[]);
    two.until(&polite, "ready");
    assert_eq!(two.show(&polite)["state"], "running", "what it says is there while it runs");
    let asked = Instant::now();
    two.job(&["cancel", &polite]).good();
    let events = two.log(&polite);
    assert!(asked.elapsed() < Duration::from_secs(5), "nobody waited for SIGKILL");
    assert_eq!(states(&events).0, ["queued", "running", "canceled"]);
    assert!(said(&events).contains("got-term"), "{events:?}");

    let deaf = two.start("trap '' TERM; (trap '' TERM; sleep 500) & echo ready; while :; do sleep 0.05; done", &[]);
    two.until(&deaf, "ready");
    let asked = Instant::now();
    two.job(&["cancel", &deaf]).good();
    let events = two.log(&deaf);
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(9), "{took:?}");
    assert_eq!(states(&events).1["message"], "canceled by alice");
    // Again, and after the end: the end is told, and stays.
    let again = two.job(&["cancel", &deaf, "--json"]).json();
    assert_eq!(again["state"], "canceled");
    assert_eq!(two.events(&deaf), events);
    assert_eq!(two.record("job.cancel").len(), 3);
}

#[test]
fn b06_a_log_is_read_on_from_where_a_reader_was_and_is_bounded() {
    let two = Two::new();
    let id = two.start("echo one; sleep 1; echo two; sleep 1; echo three", &[]);
    two.until(&id, "one");
    let first = two.events(&id);
    let after = first.last().unwrap()["n"].to_string();
    let rest = two.job(&["log", &id, "--follow", "--json", "--after", &after]);
    let rest: Vec<Value> = rest.good().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(two.events(&id), [first, rest].concat(), "together they are the whole, once");

    let loud = two.start("i=0; while [ $i -lt 400000 ]; do echo line $i of a very long log; i=$((i+1)); done", &[]);
    let events = two.log(&loud);
    let text = said(&events);
    assert!(text.starts_with("line 0 of") && text.ends_with("line 399999 of a very long log\n"), "both ends are kept");
    assert!(text.len() < 5 << 20 && events.iter().any(|event| event["left_out"].as_u64() > Some(0)));
}

#[test]
fn b06_a_job_is_what_its_agent_may_do_and_nothing_else() {
    let two = Two::new();
    let start = |agent: &str| two.job(&["start", "--agent", agent, "echo ran > ran.txt"]);
    start("careful").failed(1, &["a person has to approve"]);
    start("high").failed(1, &["jobs run in a sandbox only"]);
    start("reader").failed(1, &["was not granted this tool"]);
    let rule = "forbid (principal, action == Action::\"tool.call\", resource) when { context.arguments has command \
                && context.arguments.command like \"*ran.txt*\" };";
    two.home.write("rules.cedar", rule, 0o644);
    two.server.client(&two.home, &two.alice.0, &["policy", "set", "rules.cedar"]).good();
    start("worker").failed(1, &["policy of your account"]);
    assert_eq!(two.job(&["list", "--json"]).json().as_array().unwrap().len(), 0);
    // The control: another command of the same agent runs.
    assert_eq!(states(&two.log(&two.start("true", &[]))).0, ["queued", "running", "ok"]);
}

#[test]
fn b06_a04_a_job_of_another_account_is_not_there() {
    let two = Two::new();
    let id = two.start("echo canary; sleep 300", &[]);
    two.until(&id, "canary");
    let (alice, bob) = (&two.alice.1, &two.bob.1);
    for space in [alice, bob] {
        for act in [&["show"][..], &["log"], &["cancel"]] {
            let arguments = [&["job", act[0], "--space", space, &id][..], &act[1..]].concat();
            let told = two.server.client(&two.home, &two.bob.0, &arguments).failed(1, &["not found"]);
            assert!(!told.contains("canary"));
        }
    }
    two.server.client(&two.home, &two.bob.0, &["job", "list", "--space", alice]).failed(1, &["not found"]);
    let begin = ["job", "start", "--space", alice, "true"];
    two.server.client(&two.home, &two.bob.0, &begin).failed(1, &["not found"]);
    assert_eq!(two.show(&id)["state"], "running", "the control: to its owner it is there, as it was");
    // With its space it ends, and its end is on record.
    two.server.client(&two.home, &two.alice.0, &["space", "delete", alice, "--yes"]).good();
    let ended = || two.record("job.done").iter().any(|line| line["resource"] == format!("job:{id}"));
    eventually("the end of a job whose space is gone", || ended().then_some(()));
    two.job(&["show", &id]).failed(1, &["not found"]);
}

#[test]
fn b06_more_jobs_than_places_wait_in_order_and_a_full_queue_says_so() {
    let two = Two::new();
    let sleep = "until [ -e go ]; do sleep 0.1; done";
    let all: Vec<String> = (0..18).map(|_| two.start(sleep, &[])).collect();
    let state = |id: &String| two.show(id)["state"].as_str().unwrap().to_owned();
    eventually("two run", || (state(&all[0]) == "running" && state(&all[1]) == "running").then_some(()));
    assert!(all[2..].iter().all(|id| state(id) == "queued"), "two places for one user");
    two.job(&["start", "--agent", "worker", "true"]).failed(1, &["too many of your jobs wait"]);
    // Another account does not wait for them.
    let others = ["job", "start", "--space", &two.bob.1, "--agent", "worker", "--follow", "echo there"];
    let other = two.server.client(&two.home, &two.bob.0, &others);
    assert!(other.good().contains("there"));
    // One that waits is canceled at once, and never ran.
    two.job(&["cancel", &all[2]]).good();
    assert_eq!(states(&two.events(&all[2])).0, ["queued", "canceled"]);
    // A place that is free is the next one's in line.
    two.job(&["cancel", &all[0]]).good();
    eventually("the next begins", || (state(&all[3]) == "running").then_some(()));
    assert!(all[4..].iter().all(|id| state(id) == "queued"));
    two.start_go();
    for id in all[3..].iter().chain([&all[1]]) {
        assert_eq!(states(&two.log(id)).0, ["queued", "running", "ok"]);
    }
}

impl Two {
    /// Lets those go on who wait for a file.
    fn start_go(&self) {
        let (key, space) = &self.alice;
        self.home.write("go", "", 0o644);
        self.server.client(&self.home, key, &["space", "put", space, "go", "go"]).good();
    }
}

#[test]
fn b06_z02_a_server_that_is_killed_ends_what_ran_and_runs_what_waited() {
    let two = Two::new();
    let sleep = "echo begun; until [ -e go ]; do sleep 0.1; done";
    let ran: Vec<String> = (0..2).map(|_| two.start(sleep, &[])).collect();
    ran.iter().for_each(|id| two.until(id, "begun"));
    let waited = two.start("echo later", &[]);
    assert_eq!(two.show(&waited)["state"], "queued");
    let Two { home, server, alice, bob } = two;
    server.end("-KILL");
    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    let two = Two { home, server, alice, bob };
    for id in &ran {
        let events = two.log(id);
        let (states, last) = states(&events);
        assert_eq!((states, &last["reason"]), (vec!["queued", "running", "failed"], &"server_ended".into()));
        assert!(said(&events).contains("begun"), "what it had said is there");
    }
    let events = two.log(&waited);
    assert_eq!(states(&events).0, ["queued", "running", "ok"]);
    assert!(said(&events).contains("later"));
    // Intent and outcome of each belong together, also of those that nobody saw end.
    let done = two.record("job.done");
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|line| line["intent"].is_u64()), "{done:?}");
    two.server.client(&two.home, &two.alice.0, &["audit", "verify"]).good();
    // An orderly end says the same of what runs.
    let last = two.start(sleep, &[]);
    two.until(&last, "begun");
    let Two { home, server, alice, bob } = two;
    assert_eq!(server.end("-TERM"), Some(0));
    let server = home.start(&["serve", "-c", "bailiwick.toml"]);
    let two = Two { home, server, alice, bob };
    assert_eq!(states(&two.log(&last)).1["reason"], "server_ended");
}

/// The virtual shell's jobs go the same way.
#[test]
fn b06_b10_a_job_in_the_virtual_shell() {
    let two = Two::new();
    two.home.write("plain/AGENT.md", "---\ntools: [bash]\nsandbox: { backend: virtual }\n---\nWork.\n", 0o644);
    two.server.client(&two.home, &two.alice.0, &["agent", "put", "plain/AGENT.md"]).good();
    let start = |command: &str| two.job(&["start", "--agent", "plain", command]).good().trim().to_owned();
    let events = two.log(&start("echo virtual; exit 4"));
    assert_eq!((states(&events).0, said(&events).as_str()), (vec!["queued", "running", "failed"], "virtual\n"));
    let endless = start("echo ready; while true; do sleep 0.05; done");
    eventually("it runs", || (two.show(&endless)["state"] == "running").then_some(()));
    two.job(&["cancel", &endless]).good();
    assert_eq!(states(&two.log(&endless)).0, ["queued", "running", "canceled"]);
}

#[test]
fn b06_b03_what_a_job_without_a_workspace_writes_goes_with_it() {
    let two = Two::new();
    two.put("apart", "tools: [bash]\nsandbox: { workspace: none }");
    let start = |command: &str| two.job(&["start", "--agent", "apart", command]).good().trim().to_owned();
    let running = start("echo canary-apart > kept.txt; echo written; sleep 300");
    two.until(&running, "written");
    let there = || {
        let files = files_below(&two.home.path("data"));
        files.iter().any(|file| std::fs::read(file).is_ok_and(|bytes| bytes == b"canary-apart\n"))
    };
    assert!(there(), "the control: while it runs it has a folder");
    two.job(&["cancel", &running]).good();
    two.log(&running);
    eventually("nothing of it is left", || (!there()).then_some(()));
    let next = two.log(&start("ls -A; echo end"));
    assert_eq!((states(&next).0, said(&next).as_str()), (vec!["queued", "running", "ok"], "end\n"));
}

#[test]
fn b06_a_running_job_ends_when_its_agent_has_other_walls() {
    let two = Two::new();
    let id = two.start("echo begun; sleep 300", &[]);
    two.until(&id, "begun");
    // The control: what is between the walls may change; longer than the rights of running jobs are looked at.
    two.put("worker", "tools: [bash, read_file]");
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(two.show(&id)["state"], "running");
    two.put("worker", "tools: [bash]\nsandbox: { workspace: ro }");
    let ended = || Some(two.show(&id)).filter(|row| row["state"] == "canceled");
    let row = within(Duration::from_secs(25), "its end", ended);
    assert_eq!(row["ending"]["reason"], "agent_changed", "{row}");
}

impl Two {
    /// Puts an agent of the first account.
    fn put(&self, name: &str, front: &str) {
        self.home.write(&format!("{name}/AGENT.md"), &format!("---\n{front}\n---\nWork.\n"), 0o644);
        self.server.client(&self.home, &self.alice.0, &["agent", "put", &format!("{name}/AGENT.md")]).good();
    }
}
