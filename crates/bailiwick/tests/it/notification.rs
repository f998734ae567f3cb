//! Notifications, through the whole server, to services that stand in for the real ones.

use std::path::Path;
use std::time::Duration;

use bailiwick_testkit::services::{Say, Services};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Done, Home, Running, eventually, files_below};

const SCRIPT: &str = "turns:\n\
    \x20 - when: { user: \"write\" }\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: write_file, input: { path: secret-path.txt, content: \"secret content\" } }]\n\
    \x20     - text: \"done\"\n\
    \x20 - when: { user: \"ask\" }\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: ask_question, input: { question: \"Secret question?\" } }]\n\
    \x20     - text: \"done\"\n\
    \x20 - default: true\n    repeat: last\n    steps: [{ text: heard }]\n";

const SLACK: &str = "https://hooks.slack.com/services/T0ALICE/B0ALICE/alicesOwnToken";
const SLACK_OF_BOB: &str = "https://hooks.slack.com/services/T0BOB/B0BOB/bobsOwnToken";
const DISCORD: &str = "https://discord.com/api/webhooks/123456789/alices-discord_token";
const TELEGRAM: &str = "123456:Alices-bot_token";

/// A server with two accounts, and the services to which it is led.
struct Two {
    home: Home,
    server: Option<Running>,
    services: Services,
    alice: (String, String),
    bob: (String, String),
    _far: Runtime,
}

impl Two {
    fn new() -> Self {
        let far = Runtime::new().unwrap();
        let services = far.block_on(Services::start());
        let home = Home::new();
        home.write("services.pem", &services.root_pem, 0o644);
        let server = Self::serve(&home, &services);
        let text = "---\ntools: [write_file, ask_question, bash]\nrequire_approval: [write_file]\n---\nWork.\n";
        home.write("careful/AGENT.md", text, 0o644);
        let mut made = Vec::new();
        for (account, admin) in [("acme", "alice"), ("globex", "bob")] {
            let key = server.account(&home, account, admin);
            server.client(&home, &key, &["agent", "put", "careful/AGENT.md"]).good();
            let space = server.client(&home, &key, &["space", "create", "<!here> & co", "--json"]).json();
            made.push((key, space["id"].as_str().unwrap().to_owned()));
        }
        let bob = made.pop().unwrap();
        Self { home, server: Some(server), services, alice: made.pop().unwrap(), bob, _far: far }
    }

    fn serve(home: &Home, services: &Services) -> Running {
        home.serve_with(SCRIPT, &services.configuration("services.pem"))
    }

    fn server(&self) -> &Running {
        self.server.as_ref().unwrap()
    }

    fn run(&self, who: &(String, String), arguments: &[&str]) -> Done {
        self.server().client(&self.home, &who.0, arguments)
    }

    fn add(&self, who: &(String, String), name: &str, kind: &str, on: &str, address: &str) -> Done {
        let arguments = ["notification", "add", name, "--kind", kind, "--on", on];
        self.server().talk(&self.home, &who.0, &arguments, &format!("{address}\n"))
    }

    /// Says something to the agent, so that it comes to a rest that a person should know of.
    fn say(&self, who: &(String, String), words: &str) {
        let chat = ["chat", "--agent", "careful", "--space", &who.1];
        self.server().talk(&self.home, &who.0, &chat, &format!("{words}\n"));
    }

    fn listed(&self, name: &str) -> Value {
        let all = self.run(&self.alice, &["notification", "list", "--json"]).json();
        all.as_array().unwrap().iter().find(|target| target["name"] == name).cloned().unwrap()
    }

    /// What was heard at a path, when it is so much.
    fn hear(&self, path: &str, count: usize) -> Vec<String> {
        let texts = || -> Vec<String> {
            let heard = self.services.heard_at(path);
            heard
                .iter()
                .inspect(|heard| assert_eq!(heard.wrong, None, "{heard:?}"))
                .map(|h| h.text().to_owned())
                .collect()
        };
        eventually(path, || (texts().len() >= count).then_some(()));
        assert_eq!(texts().len(), count, "{:?}", texts());
        texts()
    }

    fn record(&self, action: &str) -> Vec<Value> {
        let listed = ["audit", "list", "--action", action, "--limit", "100", "--json"];
        self.run(&self.alice, &listed).json().as_array().cloned().unwrap()
    }
}

/// Whether any file below a folder has these bytes.
fn holds(dir: &Path, words: &str) -> bool {
    let has = |bytes: &[u8]| bytes.windows(words.len()).any(|part| part == words.as_bytes());
    files_below(dir).iter().any(|file| std::fs::read(file).is_ok_and(|bytes| has(&bytes)))
}

#[test]
fn g09_people_are_told_what_waits_and_nobody_elses() {
    let two = Two::new();
    two.add(&two.alice, "slack", "slack", "approval,question,failed,done", SLACK).good();
    two.add(&two.alice, "discord", "discord", "question", DISCORD).good();
    let telegram = ["notification", "add", "phone", "--kind", "telegram", "--chat", "-1001", "--on", "approval"];
    two.server().talk(&two.home, &two.alice.0, &telegram, TELEGRAM).good();
    two.add(&two.bob, "slack", "slack", "approval,question,failed,done", SLACK_OF_BOB).good();

    two.say(&two.alice, "write");
    let told = two.hear("/services/T0ALICE/B0ALICE/alicesOwnToken", 1);
    assert_eq!(told[0], "Approval wanted for write_file: agent careful, space &lt;!here&gt; &amp; co");
    let told = two.hear("/bot123456:Alices-bot_token/sendMessage", 1);
    assert_eq!(told[0], "Approval wanted for write_file: agent careful, space <!here> & co");
    assert_eq!(two.services.heard_at("/bot")[0].body["chat_id"], "-1001");
    two.say(&two.alice, "ask");
    assert!(two.hear("/services/T0ALICE", 2)[1].starts_with("An agent asks a question:"));
    assert_eq!(two.hear("/api/webhooks/123456789/alices-discord_token", 1).len(), 1);

    // A job's end, and nothing of what it was. It tells whoever asked for that.
    let job = ["job", "start", "--space", &two.alice.1, "--agent", "plain", "--follow", "echo secret-output"];
    two.home.write("plain/AGENT.md", "---\ntools: [bash]\n---\nWork.\n", 0o644);
    two.run(&two.alice, &["agent", "put", "plain/AGENT.md"]).good();
    two.run(&two.alice, &job);
    let told = two.hear("/services/T0ALICE", 3);
    assert!(told[2].starts_with("A job ended ("), "{told:?}");
    assert!(two.services.heard().iter().all(|heard| !heard.text().to_lowercase().contains("secret")));
    assert!(two.services.heard_at("/services/T0BOB").is_empty(), "the neighbour's target hears nothing");
    // The control: his own agent's question comes to him, and to nobody else.
    two.say(&two.bob, "ask");
    assert_eq!(two.hear("/services/T0BOB/B0BOB/bobsOwnToken", 1).len(), 1);
    assert_eq!(two.services.heard_at("/services/T0ALICE").len(), 3);

    // Each went out with its intent and its outcome on record, and no address anywhere.
    let sent = two.record("notification.send");
    let intents = sent.iter().filter(|event| event["phase"] == "intent").count();
    assert_eq!((intents, sent.len()), (5, 10), "{sent:?}");
    let listed = two.run(&two.alice, &["notification", "list", "--json"]).good();
    let events = two.run(&two.alice, &["audit", "list", "--limit", "500", "--json"]).good();
    for secret in ["alicesOwnToken", "alices-discord_token", "Alices-bot_token"] {
        assert!(!listed.contains(secret) && !events.contains(secret), "{secret}");
        assert!(!holds(&two.home.path("data"), secret), "{secret} lies in the clear");
    }
    let slack = two.listed("slack");
    assert_eq!((&slack["host"], &slack["last_state"]), (&"hooks.slack.com".into(), &"delivered".into()));
    assert_eq!((&slack["waiting"], &slack["dropped"]), (&0.into(), &0.into()));
}

#[test]
fn g09_only_admins_set_targets_and_only_real_services_are_taken() {
    let two = Two::new();
    for (kind, address, says) in [
        ("slack", "https://hooks.slack.com.evil/services/T1/B1/abc", "hooks.slack.com"),
        ("slack", "https://hooks.slack.com@evil/services/T1/B1/abc", "hooks.slack.com"),
        ("slack", "http://hooks.slack.com/services/T1/B1/abc", "https://"),
        ("slack", "https://127.0.0.1/services/T1/B1/abc", "hooks.slack.com"),
        ("discord", SLACK, "discord.com"),
        ("telegram", "not-a-token-at-all", "token"),
    ] {
        let said = two.add(&two.alice, "bad", kind, "done", address).failed(1, &["address", says]);
        assert!(!said.contains("services/T1") && !said.contains("not-a-token"), "{said}");
    }
    two.add(&two.alice, "ops", "slack", "done", SLACK).good();
    two.add(&two.alice, "ops", "slack", "done", SLACK).failed(1, &["there is a target of this name"]);
    for role in ["user", "viewer"] {
        let name = format!("one-{role}");
        let made = two.run(&two.alice, &["user", "create", &name, "--role", role]).good();
        let other = (made.trim().to_owned(), String::new());
        two.add(&other, "mine", "slack", "done", SLACK).failed(1, &[]);
        for verb in [&["list"][..], &["test", "ops"], &["pause", "ops"], &["resume", "ops"], &["rm", "ops"]] {
            two.run(&other, &[&["notification"], verb].concat()).failed(1, &[]);
        }
    }
    // An admin of another account has none of that name.
    for verb in ["test", "pause", "resume", "rm"] {
        two.run(&two.bob, &["notification", verb, "ops"]).failed(1, &["not found"]);
    }
    assert!(two.services.heard().is_empty());
    // The control: whose it is may.
    two.run(&two.alice, &["notification", "test", "ops"]).good();
    assert_eq!(two.hear("/services/T0ALICE", 1)[0], "A test of Bailiwick's notifications");
    two.run(&two.alice, &["notification", "rm", "ops"]).good();
    two.run(&two.alice, &["notification", "test", "ops"]).failed(1, &["not found"]);
}

#[test]
fn g09_what_is_not_taken_is_tried_again_and_a_target_that_is_gone_is_paused() {
    let two = Two::new();
    two.add(&two.alice, "ops", "slack", "question", SLACK).good();
    // Later, and not before it was asked to; then it is taken, once.
    two.services.say([Say::Status(500), Say::TooMany(1), Say::TooManyInBody(1)]);
    two.say(&two.alice, "ask");
    assert_eq!(two.hear("/services/T0ALICE", 4).len(), 4);
    let at: Vec<_> = two.services.heard().iter().map(|heard| heard.at).collect();
    assert!(at[2] - at[1] >= Duration::from_secs(1) && at[3] - at[2] >= Duration::from_secs(1));
    eventually("delivered", || (two.listed("ops")["last_state"] == "delivered").then_some(()));
    // Several that happen while it is away come in one message.
    two.services.say([Say::TooMany(2)]);
    for _ in 0..3 {
        two.say(&two.alice, "ask");
    }
    eventually("together", || {
        let heard = two.services.heard();
        heard.iter().any(|heard| heard.text().starts_with("3 questions wait:")).then_some(())
    });
    eventually("taken", || (two.listed("ops")["waiting"] == 0).then_some(()));
    // A success is one however long it is; a redirect leads nowhere.
    two.services.say([Say::Huge(1 << 20)]);
    two.run(&two.alice, &["notification", "test", "ops"]).good();
    let before = two.services.heard().len();
    two.services.say([Say::Redirect(format!("http://{}/", two.server().address))]);
    two.run(&two.alice, &["notification", "test", "ops"]).failed(1, &["http_302"]);
    assert_eq!(two.services.heard().len(), before + 1);
    // Gone: after three answers it is paused, and what waits is kept.
    two.services.say([Say::Status(404), Say::Status(410), Say::Status(403)]);
    two.say(&two.alice, "ask");
    eventually("paused", || (two.listed("ops")["paused"] == "refused").then_some(()));
    let row = two.listed("ops");
    assert_eq!((&row["last_state"], &row["waiting"]), (&"http_403".into(), &1.into()));
    assert_eq!(two.record("notification.stop").len(), 1);
    let told = two.services.heard().len();
    two.run(&two.alice, &["notification", "resume", "ops"]).good();
    eventually("told after all", || (two.services.heard().len() == told + 1).then_some(()));
    eventually("delivered", || (two.listed("ops")["waiting"] == 0).then_some(()));
}

#[test]
fn g09_a_killed_server_loses_no_notice_and_the_order_ends_with_its_owners_rights() {
    let mut two = Two::new();
    two.add(&two.alice, "ops", "slack", "question", SLACK).good();
    // In the middle of a call, of which nobody will know how it ended.
    two.services.say([Say::Slow(Duration::from_secs(9))]);
    two.say(&two.alice, "ask");
    two.hear("/services/T0ALICE", 1);
    two.server.take().unwrap().end("-KILL");
    two.server = Some(Two::serve(&two.home, &two.services));
    eventually("told by the next one", || (two.services.heard().len() == 2).then_some(()));
    eventually("delivered", || (two.listed("ops")["waiting"] == 0).then_some(()));
    // Another data key, and it still opens.
    two.run(&two.alice, &["vault", "rotate"]).good();
    two.run(&two.alice, &["notification", "test", "ops"]).good();
    // Whose order it was is no admin any more.
    let made = two.run(&two.alice, &["user", "create", "anna", "--role", "admin"]).good();
    let anna = (made.trim().to_owned(), two.alice.1.clone());
    two.add(&anna, "annas", "discord", "question", DISCORD).good();
    two.run(&two.alice, &["user", "role", "anna", "user"]).good();
    two.say(&two.alice, "ask");
    eventually("paused", || (two.listed("annas")["paused"] == "owner_not_authorized").then_some(()));
    assert!(two.services.heard_at("/api/webhooks").is_empty());
    // Whoever lets it go on makes it theirs.
    two.run(&two.alice, &["notification", "resume", "annas"]).good();
    eventually("told", || (two.services.heard_at("/api/webhooks").len() == 1).then_some(()));
    assert_eq!(two.listed("annas")["owner"], "alice");
}
