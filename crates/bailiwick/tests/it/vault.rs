//! The keys under which secrets lie, through the whole server: another key above them, all encrypted anew, killed in
//! the middle of it; and models that each account calls with its own key.

use std::path::Path;

use bailiwick_testkit::fake_model::{FakeAnthropic, Reply};

use crate::support::{Home, ROOT_KEY, Running, eventually};

const SCRIPT: &str = "turns:\n  - default: true\n    repeat: last\n    steps: [{ text: heard }]\n";
const AGENT: &str = "---\nmodel: own\n---\nAnswer.\n";

fn configured(fake: &FakeAnthropic, vault: &str) -> String {
    let base = fake.base_url().replace("127.0.0.1", "localhost");
    format!(
        "[model.own]\nprovider = \"anthropic\"\nmodel = \"m\"\nbase_url = \"{base}\"\napi_key_secret = \"model_key\"\n\
         {vault}"
    )
}

/// An account whose agent calls the model with its own key.
fn account(server: &Running, home: &Home, name: &str) -> String {
    let key = server.account(home, name, "admin");
    home.write("caller/AGENT.md", AGENT, 0o644);
    server.client(home, &key, &["agent", "put", "caller/AGENT.md"]).good();
    server.talk(home, &key, &["secret", "set", "model_key"], &value(name, 1)).good();
    let grant = ["secret", "grant", "model_key", "--agent", "caller", "--host", "localhost", "--used-by", "model"];
    server.client(home, &key, &grant).good();
    key
}

fn value(account: &str, version: u32) -> String {
    format!("key-of-{account}-{version}-0123456789")
}

/// What the model's server was shown in one call.
fn shown(server: &Running, home: &Home, fake: &FakeAnthropic, key: &str) -> String {
    let said = server.talk(home, key, &["chat", "--agent", "caller"], "hello\n").good();
    assert!(said.contains("as you say"), "{said}");
    fake.requests().last().unwrap().headers["x-api-key"].to_str().unwrap().to_owned()
}

/// How many accounts' data keys lie under each key that is in some state.
fn under(server: &Running, home: &Home) -> Vec<(String, u64)> {
    let status = server.client(home, ROOT_KEY, &["vault", "status", "--json"]).json();
    let rows = status.as_array().unwrap().iter();
    rows.map(|row| (row["state"].as_str().unwrap().to_owned(), row["accounts"].as_u64().unwrap())).collect()
}

fn counts(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect()
}

/// A key program, slow enough to be killed in the middle of many questions. It turns a bit of each letter.
fn key_program(home: &Home) -> String {
    let text = "#!/bin/sh\nsleep 0.2\nread -r line\ncase \"$line\" in\n*'\"do\":\"wrap\"'*) from=key to=wrapped;;\n\
                *) from=wrapped to=key;;\nesac\nvalue=${line#*\"\\\"$from\\\":\\\"\"}\nvalue=${value%%\\\"*}\n\
                printf '{\"%s\":\"%s\"}\\n' \"$to\" \"$(printf %s \"$value\" | tr 'A-Za-fg-z0-9+/' 'g-z0-9+/A-Za-f')\"\n";
    let path = home.write("keeper", text, 0o700);
    format!("{{ id = \"far-1\", command = [\"/bin/sh\", \"{}\"] }}", path.display())
}

async fn fake() -> FakeAnthropic {
    let fake = FakeAnthropic::start().await;
    fake.always(Reply::text("as you say"));
    fake
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_the_hosts_key_is_changed_for_another_and_nothing_is_lost() {
    let fake = fake().await;
    tokio::task::spawn_blocking(move || {
        let home = Home::with_files();
        let server = home.serve_with(SCRIPT, &configured(&fake, ""));
        let (acme, globex) = (account(&server, &home, "acme"), account(&server, &home, "globex"));
        assert_eq!(shown(&server, &home, &fake, &acme), value("acme", 1));
        assert_eq!(under(&server, &home), counts(&[("present", 2)]));
        server.end("-TERM");

        // Another key, and not a word of the old one: the server does not start, and says what to do.
        let made = home.run(&["vault", "make-key", "two.key"]).good();
        assert!(made.contains("holds the key"), "{made}");
        home.run(&["vault", "make-key", "two.key"]).failed(1, &["two.key"]);
        let again = |vault: &str| {
            let text = std::fs::read_to_string(home.path("bailiwick.toml")).unwrap();
            let text = text.split("[vault]").next().unwrap().to_owned();
            home.write("bailiwick.toml", &format!("{text}{vault}"), 0o600);
        };
        again("[vault]\nkey_file = \"two.key\"\n");
        let words = ["data keys of 2 accounts", "not in the ring", "old_key_files", "data/keys/vault"];
        home.run(&["serve", "-c", "bailiwick.toml"]).failed(1, &words);

        // Both, and all is encrypted anew while the server runs.
        again("[vault]\nkey_file = \"two.key\"\nold_key_files = [\"data/keys/vault\"]\n");
        let server = home.start(&["serve", "-c", "bailiwick.toml"]);
        assert_eq!(under(&server, &home), counts(&[("present", 0), ("old", 2)]));
        assert_eq!(shown(&server, &home, &fake, &globex), value("globex", 1));
        server.client(&home, &acme, &["vault", "rewrap"]).failed(1, &["root"]);
        server.client(&home, ROOT_KEY, &["vault", "rewrap"]).good();
        assert_eq!(under(&server, &home), counts(&[("present", 2), ("old", 0)]));
        assert_eq!(shown(&server, &home, &fake, &acme), value("acme", 1));
        let listed = ["audit", "list", "--action", "host.vault.rewrap", "--result", "OK", "--json"];
        assert_eq!(server.client(&home, &acme, &listed).json().as_array().unwrap().len(), 1);
        server.end("-TERM");

        // The old one is taken out, in the file and from the disk.
        again("[vault]\nkey_file = \"two.key\"\n");
        std::fs::remove_file(home.path("data/keys/vault")).unwrap();
        let server = home.start(&["serve", "-c", "bailiwick.toml"]);
        assert_eq!(shown(&server, &home, &fake, &globex), value("globex", 1));
        assert!(!home.path("data/keys/vault").exists(), "no key is made that nobody asked for");

        // An account's own data key, by its admin or the operator; and a new version of a secret.
        server.client(&home, &acme, &["vault", "rotate"]).good();
        server.client(&home, ROOT_KEY, &["vault", "rotate", "--account", "globex"]).good();
        for (key, name) in [(&acme, "acme"), (&globex, "globex")] {
            assert_eq!(shown(&server, &home, &fake, key), value(name, 1));
        }
        server.talk(&home, &acme, &["secret", "rotate", "model_key"], &value("acme", 2)).good();
        assert_eq!(shown(&server, &home, &fake, &acme), value("acme", 2));
        server.talk(&home, &acme, &["secret", "rotate", "modelkey"], &value("acme", 3)).failed(1, &["not found"]);
        let lines = server.talk(&home, &acme, &["secret", "set", "deploy"], "first line\nsecond line\n");
        assert!(lines.stderr.contains("Basic"), "{}", lines.stderr);
        lines.good();
        server.end("-TERM");
        for name in ["acme", "globex"] {
            assert!(holding(&home.path("data"), value(name, 1).as_bytes()).is_empty());
        }
        assert!(!holding(&home.path("data"), b"model_key").is_empty(), "the control");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn z04_a_server_that_is_killed_while_it_encrypts_anew_goes_on_where_it_was() {
    let fake = fake().await;
    tokio::task::spawn_blocking(move || {
        const NAMES: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];
        let home = Home::with_files();
        let server = home.serve_with(SCRIPT, &configured(&fake, ""));
        let keys: Vec<String> = NAMES.iter().map(|name| account(&server, &home, name)).collect();
        server.end("-TERM");
        let program = key_program(&home);
        let ring = format!("[vault]\nkey_command = {program}\nold_key_files = [\"data/keys/vault\"]\n");
        let server = home.serve_with(SCRIPT, &configured(&fake, &ring));
        let left = std::thread::scope(|scope| {
            let running = scope.spawn(|| server.client(&home, ROOT_KEY, &["vault", "rewrap"]));
            let some = eventually("some are done", || {
                let now = under(&server, &home);
                (now[0].1 >= 2).then_some(now)
            });
            let killed = std::process::Command::new("kill").args(["-KILL", &server.pid().to_string()]).status();
            assert!(killed.unwrap().success());
            assert_ne!(running.join().unwrap().code, 0);
            some
        });
        assert!(left[1].1 > 0, "killed in the middle: {left:?}");
        drop(server);

        // Neither is the old key unneeded yet, nor is anything lost: with both, every account is served.
        let alone = format!("[vault]\nkey_command = {program}\n");
        let of = |vault: &str| {
            let text = std::fs::read_to_string(home.path("bailiwick.toml")).unwrap();
            let text = text.split("[vault]").next().unwrap().to_owned();
            home.write("bailiwick.toml", &format!("{text}{vault}"), 0o600);
        };
        of(&alone);
        home.run(&["serve", "-c", "bailiwick.toml"]).failed(1, &["not in the ring"]);
        of(&ring);
        let server = home.start(&["serve", "-c", "bailiwick.toml"]);
        let now = under(&server, &home);
        assert!(now[0].1 >= 2 && now[0].1 + now[1].1 == 8, "{now:?}");
        for (key, name) in keys.iter().zip(NAMES) {
            assert_eq!(shown(&server, &home, &fake, key), value(name, 1));
        }
        server.client(&home, ROOT_KEY, &["vault", "rewrap"]).good();
        server.end("-TERM");
        of(&alone);
        let server = home.start(&["serve", "-c", "bailiwick.toml"]);
        assert_eq!(under(&server, &home), counts(&[("present", 8)]));
        assert_eq!(shown(&server, &home, &fake, &keys[7]), value("eight", 1));
        // A program that is gone: the call says so, and it is served again when it is back.
        std::fs::rename(home.path("keeper"), home.path("away")).unwrap();
        let failed = server.talk(&home, &keys[7], &["chat", "--agent", "caller"], "hello\n");
        assert!(format!("{}{}", failed.stdout, failed.stderr).contains("could not be opened"), "{}", failed.stdout);
        std::fs::rename(home.path("away"), home.path("keeper")).unwrap();
        assert_eq!(shown(&server, &home, &fake, &keys[7]), value("eight", 1));
    })
    .await
    .unwrap();
}

#[test]
fn z04_what_is_wrong_with_the_ring_is_said_before_anything_is_bound() {
    let home = Home::with_files();
    home.run(&["vault", "make-key", "good.key"]).good();
    home.write("wide.key", &"ab".repeat(32), 0o644);
    home.write("short.key", "ab", 0o600);
    home.write("loose", "#!/bin/sh\n", 0o777);
    let loose = home.path("loose");
    for (vault, word) in [
        ("key_file = \"none.key\"", "cannot be read"),
        ("key_file = \"wide.key\"", "chmod 600"),
        ("key_file = \"short.key\"", "64 hexadecimal digits"),
        ("key_env = \"NO_SUCH_VARIABLE_HERE\"", "is not set"),
        ("key_file = \"good.key\"\nkey_env = \"PATH\"", "give one of"),
        ("key_env = \"PATH\"", "does not hold a key"),
        ("key_command = { command = [\"/bin/true\"] }", "id is missing"),
        ("key_command = { id = \"x\", command = [\"true\"] }", "whole path"),
        ("key_command = { id = \"x\", command = [\"/no/such/program\"] }", "cannot be found"),
        (&format!("key_command = {{ id = \"x\", command = [\"{}\"] }}", loose.display()), "go-w"),
        ("key_command_seconds = 0", "between 1 and 60"),
        ("old_key_files = [\"good.key\", \"good.key\"]", "stands there twice"),
        ("keyfile = \"good.key\"", "unknown key"),
    ] {
        let text = format!(
            "[auth]\nmode = \"dev\"\n[server]\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n[vault]\n{vault}\n"
        );
        home.write("wrong.toml", &text, 0o600);
        let said = home.run(&["serve", "-c", "wrong.toml"]).failed(64, &[word]);
        assert!(said.contains("vault"), "{said}");
    }
    for (model, word) in [
        ("api_key_secret = \"k\"\napi_key_env = \"PATH\"", "instead of"),
        ("api_key_secret = \"k\"\nbase_url = \"http://127.0.0.1:1\"", "needs one"),
        ("api_key_secret = \"not a name\"", "secret"),
    ] {
        let text = format!("[auth]\nmode = \"dev\"\n[model.m]\nprovider = \"openai\"\nmodel = \"m\"\n{model}\n");
        home.write("wrong.toml", &text, 0o600);
        home.run(&["serve", "-c", "wrong.toml"]).failed(64, &[word]);
    }
    assert!(!home.path("data").exists());
}

/// The files below a folder that hold these bytes.
fn holding(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let files = crate::support::files_below(folder).into_iter();
    let there = |path: &std::path::PathBuf| {
        std::fs::read(path).is_ok_and(|text| text.windows(bytes.len()).any(|part| part == bytes))
    };
    files.filter(there).map(|path| path.display().to_string()).collect()
}
