//! The way out of a sandbox, through the whole server: the gate as a process of its own, secrets from the vault, and
//! the record.

use std::path::Path;

use bailiwick_testkit::far_side::FarSide;
use serde_json::Value;

use crate::support::{Home, ROOT_KEY, Running, eventually};

const TOKEN: &str = "tok-4f9a/7be2+c1d0-e5";

/// What the model has the sandbox do. The ports of the far side stand in it.
fn script(far: &FarSide) -> String {
    let step = |word: &str, command: &str| {
        format!(
            "  - when: {{ user: {word} }}\n    repeat: last\n    steps:\n      - tools: [{{ name: bash, input: {{ command: \
             {command:?} }} }}]\n      - text: \"{{{{last_tool_result}}}}\"\n"
        )
    };
    let api = format!("https://api.test:{}", far.tls);
    let look = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; cat /etc/ssl/certs/*.crt; ls -la /tmp /workspace";
    format!(
        "turns:\n{}{}{}{}{}  - default: true\n    repeat: last\n    steps: [{{ text: heard }}]\n",
        step("call", &format!("curl -sS {api}/v1/things?q=1")),
        step(
            "stray",
            &format!("curl -sS {api}/v2; curl -sS https://evil.test/; curl -sS http://169.254.169.254/; true")
        ),
        step("look", look),
        step("swap", &format!("echo word $API_TOKEN; curl -sS -H x-key:$API_TOKEN {api}/swap")),
        step("linger", &format!("(sleep 1; curl -sS {api}/v1/late > late.txt) & sleep 3; cat late.txt")),
    )
}

fn agent(far: &FarSide) -> String {
    format!(
        "---\ntools: [bash]\nsandbox: {{ backend: linux }}\negress:\n  allow:\n    \"api.test:{}\":\n      \
         - match: {{ path: {{ startsWith: /v1/ }} }}\n        \
           transform: [{{ headers: {{ authorization: \"Bearer secret:api_token\" }} }}]\n      \
         - match: {{ path: {{ startsWith: /swap }} }}\n        \
           transform: [{{ placeholder: {{ env: API_TOKEN, value: \"secret:api_token\", headers: [x-key] }} }}]\n  \
           subnets: {{ allow: [\"127.0.0.1/32\"] }}\n---\nCall.\n",
        far.tls
    )
}

fn server(home: &Home, far: &FarSide) -> Running {
    home.write("far.pem", &far.root_pem, 0o644);
    let more = "[gate]\nca_file = \"far.pem\"\nhosts = { \"api.test\" = \"127.0.0.1\" }\n\
                [egress.allow]\n\"*:PORT\" = []\n\"*\" = []\n[egress.subnets]\nallow = [\"127.0.0.0/8\"]\n";
    home.serve_with(&script(far), &more.replace("PORT", &far.tls.to_string()))
}

/// The same agent, whose every call a person has to approve.
fn careful(far: &FarSide) -> String {
    agent(far).replacen("tools: [bash]", "tools: [bash]\nrequire_approval: [bash]", 1)
}

fn put(server: &Running, home: &Home, key: &str, text: &str) {
    home.write("caller/AGENT.md", text, 0o644);
    server.client(home, key, &["agent", "put", "caller/AGENT.md"]).good();
}

fn say(server: &Running, home: &Home, key: &str, word: &str) -> String {
    server.talk(home, key, &["chat", "--agent", "caller"], &format!("{word}\n")).good()
}

fn events(server: &Running, home: &Home, key: &str, action: &str) -> Vec<Value> {
    let listed = server.client(home, key, &["audit", "list", "--action", action, "--limit", "100", "--json"]).json();
    listed.as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_an_agent_calls_with_a_secret_that_nobody_sees() {
    let far = FarSide::start(&["api.test"]).await;
    tokio::task::spawn_blocking(move || {
        let home = Home::new();
        let server = server(&home, &far);
        let (alice, bob) = (server.account(&home, "acme", "alice"), server.account(&home, "globex", "bob"));
        for key in [&alice, &bob] {
            put(&server, &home, key, &agent(&far));
        }
        // Not granted, then granted. The value comes from standard input and is shown by nothing.
        let set =
            server.talk(&home, &alice, &["secret", "set", "api_token", "--note", "for tests"], &format!("{TOKEN}\n"));
        assert!(set.good().contains("version 1"));
        assert!(say(&server, &home, &alice, "call").contains("no_secret"));
        let grant = ["secret", "grant", "api_token", "--agent", "caller", "--host", "api.test"];
        server.client(&home, &alice, &grant).good();
        let said = say(&server, &home, &alice, "call");
        assert!(said.contains("GET /v1/things?q=1") && said.contains("Bearer *****"), "{said}");
        assert!(say(&server, &home, &bob, "call").contains("no_secret"), "the neighbour has none");
        let stray = say(&server, &home, &alice, "stray");
        assert!(stray.contains("no_rule") && stray.contains("address_not_public"), "{stray}");
        // What curl keeps to itself the agent reads all the same.
        assert!(stray.contains("[network] evil.test:443:") && stray.contains("(host_not_allowed)"), "{stray}");
        let look = say(&server, &home, &alice, "look");
        assert!(look.contains("https_proxy=http://127.0.0.1:3128"), "{look}");

        let listed = server.client(&home, &alice, &["secret", "list"]).good();
        assert!(listed.contains("api_token") && listed.contains("caller for api.test"), "{listed}");
        let released = events(&server, &home, &alice, "secret.release");
        let verdicts: Vec<&str> = released.iter().filter_map(|event| event["result"].as_str()).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == "OK").count(), 1, "{verdicts:?}");
        assert!(verdicts.contains(&"BEGUN") && verdicts.contains(&"DENIED"), "{verdicts:?}");
        let codes = || -> Vec<String> {
            let lines = events(&server, &home, &alice, "sandbox.connect");
            lines.iter().filter_map(|line| line["detail"]["code"].as_str().map(str::to_owned)).collect()
        };
        eventually("the lines of all connections", || {
            let codes = codes();
            let there = |code: &str| codes.iter().any(|one| one == code);
            ["allowed", "no_secret", "no_rule", "host_not_allowed", "address_not_public"]
                .into_iter()
                .all(there)
                .then_some(())
        });
        assert!(
            events(&server, &home, &bob, "sandbox.connect").iter().all(|line| line["detail"]["code"] == "no_secret")
        );

        // A word in the environment, which is the secret at its host and a word everywhere else.
        let swapped = say(&server, &home, &alice, "swap");
        assert!(swapped.contains("word bwp_") && swapped.contains(&"*".repeat(TOKEN.len())), "{swapped}");
        assert!(!swapped.contains(TOKEN), "{swapped}");

        // A new value holds when the lease of the old one is over; a grant that is taken, too. Here: at once, for
        // another sandbox never had it.
        server.talk(&home, &alice, &["secret", "rotate", "api_token"], "another-value-12345").good();
        let revoke = ["secret", "revoke", "api_token", "--agent", "caller", "--host", "api.test"];
        server.client(&home, &alice, &revoke).good();
        assert!(say(&server, &home, &alice, "call").contains("no_secret"));
        server.client(&home, &alice, &["secret", "rm", "api_token"]).good();
        server.client(&home, &alice, &["secret", "rm", "api_token"]).failed(1, &["not found"]);
        for wrong in ["short", "with\ttab-in-it"] {
            server.talk(&home, &alice, &["secret", "set", "other"], wrong).failed(1, &["value:"]);
        }

        // Nowhere: not in what the model and the people saw, not in the data, not in the record.
        let all = format!("{said}{stray}{look}{listed}");
        assert!(!all.contains(TOKEN) && !all.contains("tok-4f9a"));
        server.client(&home, ROOT_KEY, &["account", "list"]).good();
        server.client(&home, &alice, &["audit", "verify"]).good();
        let data = home.path("data");
        server.end("-TERM");
        assert_eq!(holding(&data, TOKEN.as_bytes()), Vec::<String>::new());
        // The control: a search that finds what is there, where the rows are files.
        let rows = bailiwick_testkit::database::chosen_text() == "sqlite:";
        assert!(!rows || !holding(&data, b"api.test").is_empty());
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_a_secret_for_approved_calls_goes_out_during_those_and_no_others() {
    let far = FarSide::start(&["api.test"]).await;
    tokio::task::spawn_blocking(move || {
        let home = Home::new();
        let server = server(&home, &far);
        let (alice, bob) = (server.account(&home, "acme", "alice"), server.account(&home, "globex", "bob"));
        for key in [&alice, &bob] {
            put(&server, &home, key, &agent(&far));
            home.write("careful/AGENT.md", &careful(&far), 0o644);
            server.client(&home, key, &["agent", "put", "careful/AGENT.md"]).good();
        }
        let ask = |key: &str| server.talk(&home, key, &["chat", "--agent", "careful"], "call\ny\n").good();
        let grant = |agent: &str, how: &[&str]| {
            let grant = ["secret", "grant", "api_token", "--agent", agent, "--host", "api.test"];
            server.client(&home, &alice, &[&grant, how].concat()).good()
        };
        server.talk(&home, &alice, &["secret", "set", "api_token"], TOKEN).good();
        assert!(grant("caller", &["--approved"]).contains("during calls that a person approved"));
        grant("careful", &["--lease", "call", "--approved"]);
        let listed = server.client(&home, &alice, &["secret", "list"]).good();
        assert!(listed.contains("careful for api.test during approved calls"), "{listed}");

        // Nobody approved it; then somebody did. The neighbour's approval is for the neighbour.
        assert!(say(&server, &home, &alice, "call").contains("no_secret"));
        let said = ask(&alice);
        assert!(said.contains("Bearer *****"), "{said}");
        assert!(ask(&bob).contains("no_secret"));
        let denied = events(&server, &home, &alice, "secret.release");
        let why = |event: &&Value| event["result"] == "DENIED" && event["detail"]["code"] == "call_not_approved";
        let denied: Vec<&Value> = denied.iter().filter(why).collect();
        assert!(!denied.is_empty() && denied.iter().all(|event| event["agent"] == "caller"), "{denied:?}");

        // For calls, whoever approved them or not: during one, and each has its own release.
        grant("caller", &["--lease", "call"]);
        let released = || {
            let events = events(&server, &home, &alice, "secret.release");
            events.iter().filter(|event| event["result"] == "OK").count()
        };
        let before = released();
        let twice = server.talk(&home, &alice, &["chat", "--agent", "caller"], "call\ncall\n").good();
        assert_eq!(twice.matches("Bearer *****").count(), 2, "{twice}");
        assert_eq!(released(), before + 2, "one sandbox, two calls");
        // The control: for a minute both have one.
        grant("caller", &[]);
        let twice = server.talk(&home, &alice, &["chat", "--agent", "caller"], "call\ncall\n").good();
        assert_eq!(twice.matches("Bearer *****").count(), 2, "{twice}");
        assert_eq!(released(), before + 3);

        // A refresh grant comes from standard input, too.
        let grant = r#"{"token_url":"https://sso.example/token","client_id":"me","refresh_token":"refresh-0123"}"#;
        server.talk(&home, &alice, &["secret", "set", "mail", "--oauth"], grant).good();
        let listed = server.client(&home, &alice, &["secret", "list"]).good();
        assert!(listed.contains("oauth") && !listed.contains("refresh-0123"), "{listed}");
        server.talk(&home, &alice, &["secret", "rotate", "mail", "--oauth"], "{}").failed(1, &["oauth:"]);
        let wrong = server.talk(&home, &alice, &["secret", "set", "mail", "--oauth"], "refresh-0123");
        assert!(!wrong.failed(2, &["not JSON"]).contains("refresh-0123"));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g01_a_gate_that_is_killed_opens_nothing_and_the_next_sandbox_has_a_new_one() {
    let far = FarSide::start(&["api.test"]).await;
    tokio::task::spawn_blocking(move || {
        let home = Home::new();
        let server = server(&home, &far);
        let alice = server.account(&home, "acme", "alice");
        put(&server, &home, &alice, &agent(&far));
        server.talk(&home, &alice, &["secret", "set", "api_token"], TOKEN).good();
        let grant = ["secret", "grant", "api_token", "--agent", "caller", "--host", "*.test"];
        server.client(&home, &alice, &grant).good();
        let said = say(&server, &home, &alice, "call");
        assert!(said.contains("GET /v1/things"), "{said}");
        let gate = gate_of(&server).expect("a gate");
        // It has another user than the server where that is root, no rights, and a filter.
        let status = std::fs::read_to_string(format!("/proc/{gate}/status")).unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        if rustix::process::geteuid().is_root() {
            assert!(line("Uid:").ends_with("65532"), "{}", line("Uid:"));
        }
        assert!(line("CapEff:").ends_with("0000000000000000") && line("NoNewPrivs:").ends_with('1'), "{status}");
        assert!(line("Seccomp:").ends_with('2'), "{status}");
        let limits = std::fs::read_to_string(format!("/proc/{gate}/limits")).unwrap();
        let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap_or_default();
        let most: u64 = data.split_whitespace().nth(3).and_then(|word| word.parse().ok()).expect(data);
        assert!(most <= 8 << 30, "{data}");
        assert!(std::fs::read(format!("/proc/{gate}/environ")).map_or(true, |text| text.is_empty()));

        let cut = std::thread::scope(|scope| {
            let lingering = scope.spawn(|| say(&server, &home, &alice, "linger"));
            std::thread::sleep(std::time::Duration::from_millis(600));
            let killed = std::process::Command::new("kill").args(["-KILL", &gate.to_string()]).status().unwrap();
            assert!(killed.success());
            lingering.join().unwrap()
        });
        assert!(!cut.contains("GET /v1/late"), "{cut}");
        let again = say(&server, &home, &alice, "call");
        assert!(again.contains("GET /v1/things"), "{again}");
        assert_ne!(gate_of(&server), Some(gate));
        assert!(say(&server, &home, &alice, "linger").contains("GET /v1/late"), "the control");
    })
    .await
    .unwrap();
}

/// The gate's process: a child of the server's by that name.
fn gate_of(server: &Running) -> Option<u32> {
    let children = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().flatten().flat_map(|task| {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    children.into_iter().find(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "bw-gate"
    })
}

/// The files below a folder that hold these bytes.
fn holding(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        } else if std::fs::read(&path).is_ok_and(|text| text.windows(bytes.len()).any(|part| part == bytes)) {
            found.push(path.display().to_string());
        }
    }
    found
}
