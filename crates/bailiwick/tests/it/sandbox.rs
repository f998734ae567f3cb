//! The running sandboxes, through the whole server: who sees them, what is shown, and how one is ended.

use serde_json::Value;

use crate::support::{Home, Running, eventually};

const SCRIPT: &str = "turns:\n  - default: true\n    repeat: last\n    steps: [{ text: heard }]\n";

struct Party<'a> {
    home: &'a Home,
    server: &'a Running,
    key: String,
}

impl Party<'_> {
    fn list(&self) -> Vec<Value> {
        self.server.client(self.home, &self.key, &["sandbox", "list", "--json"]).json().as_array().cloned().unwrap()
    }

    /// Begins a job that says that it is there and stays; waits until it is.
    fn stay(&self, space: &str, agent: &str) -> String {
        let command = "echo there; n=0; while [ $n -lt 2000 ]; do sleep 0.1; n=$((n+1)); done";
        let start = ["job", "start", "--space", space, "--agent", agent, command];
        let job = self.server.client(self.home, &self.key, &start).good().trim().to_owned();
        eventually("the job", || {
            let log = self.server.client(self.home, &self.key, &["job", "log", "--space", space, &job]);
            log.stdout.contains("there").then_some(())
        });
        job
    }

    fn state(&self, space: &str, job: &str) -> Value {
        self.server.client(self.home, &self.key, &["job", "show", "--space", space, job, "--json"]).json()
    }
}

#[test]
fn b05_b09_a_running_sandbox_is_shown_with_its_receipt_and_ended_by_whose_it_is_and_nobody_else() {
    let home = Home::new();
    let server = home.serve(SCRIPT);
    let party = |key: String| Party { home: &home, server: &server, key };
    let (alice, bob) = (server.account(&home, "acme", "alice"), server.account(&home, "globex", "bob"));
    let (alice, bob) = (party(alice), party(bob));
    let made = server.client(&home, &alice.key, &["user", "create", "carol", "--role", "member", "--json"]).json();
    let carol = party(made["user_key"].as_str().unwrap().to_owned());
    for owner in [&alice, &bob] {
        for backend in ["linux", "virtual"] {
            let text = format!("---\ntools: [bash]\nsandbox: {{ backend: {backend}, scope: agent }}\n---\nWork.\n");
            home.write(&format!("{backend}/AGENT.md"), &text, 0o644);
            server.client(&home, &owner.key, &["agent", "put", &format!("{backend}/AGENT.md")]).good();
        }
    }
    let space = |owner: &Party| {
        let made = server.client(&home, &owner.key, &["space", "create", "work", "--json"]).json();
        made["id"].as_str().unwrap().to_owned()
    };
    let (hers, his) = (space(&carol), space(&bob));
    let neighbour = bob.stay(&his, "linux");
    for backend in ["linux", "virtual"] {
        // One command to its end, so that there is a receipt.
        let start = ["job", "start", "--space", &hers, "--agent", backend, "true"];
        let done = server.client(&home, &carol.key, &start).good().trim().to_owned();
        server.client(&home, &carol.key, &["job", "log", "--space", &hers, &done, "--follow"]).good();
        let job = carol.stay(&hers, backend);

        // Hers is seen by her and by her admin, and there is no other for either; the neighbour sees his own alone.
        let listed = carol.list();
        let [row] = listed.as_slice() else { panic!("{listed:#?}") };
        assert_eq!(alice.list()[0]["id"], row["id"]);
        assert_eq!((alice.list().len(), bob.list().len()), (1, 1));
        assert_eq!((&row["backend"], &row["agent"], &row["user"]), (&backend.into(), &backend.into(), &"carol".into()));
        assert_eq!(
            (&row["space_id"], &row["scope"], &row["network"]),
            (&hers.as_str().into(), &"agent".into(), &"none".into())
        );
        assert_eq!((&row["commands"], &row["running"]), (&2.into(), &1.into()));
        assert_eq!(row["receipt"]["backend"], backend, "{row:#}");
        if backend == "linux" {
            assert_eq!(row["receipt"]["no_new_privs"], 1, "{row:#}");
        }

        // To another account it does not exist, whatever it does with the id.
        let id = row["id"].as_str().unwrap();
        server.client(&home, &bob.key, &["sandbox", "show", id]).failed(1, &["no running sandbox"]);
        server.client(&home, &bob.key, &["sandbox", "end", id]).failed(1, &["not found"]);
        assert_eq!(carol.state(&hers, &job)["state"], "running");

        // Her admin ends it, and what ran in it is gone, with its done event.
        let who = if backend == "linux" { &alice } else { &carol };
        server.client(&home, &who.key, &["sandbox", "end", id]).good();
        eventually("the end of the job", || {
            let state = carol.state(&hers, &job);
            (state["state"] != "running").then_some(())
        });
        assert!(carol.list().is_empty());
        server.client(&home, &who.key, &["sandbox", "end", id]).failed(1, &["not found"]);
        let listed = ["audit", "list", "--action", "sandbox.end", "--json"];
        let record = server.client(&home, &alice.key, &listed).json();
        let lines: Vec<&Value> =
            record.as_array().unwrap().iter().filter(|line| line["resource"] == format!("sandbox:{id}")).collect();
        let phases: Vec<_> = lines.iter().map(|line| &line["result"]).collect();
        assert!(phases.contains(&&"BEGUN".into()) && phases.contains(&&"OK".into()), "{record:#}");
    }
    // The neighbour noticed nothing, and her agent works again in a new one.
    assert_eq!(bob.state(&his, &neighbour)["state"], "running");
    let job = carol.stay(&hers, "linux");
    assert_eq!(carol.state(&hers, &job)["state"], "running");
}
