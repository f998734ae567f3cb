//! A server that is killed: whatever it acknowledged is there when the next one opens the directory.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bailiwick_auth::access::verb::{CreateSpace, ReadSession};
use bailiwick_store::Store;
use bailiwick_store::turn::Change;
use bailiwick_types::{RequestId, SessionId, SpaceId};
use serde_json::json;

use crate::fixture::{self, permit};
use crate::{Backend, on_every_backend};

const DIRECTORY: &str = "BAILIWICK_TEST_KILLED_SERVER";
const DATABASE: &str = "BAILIWICK_TEST_KILLED_SERVER_DATABASE";
const KEY: &str = "BAILIWICK_TEST_KILLED_SERVER_KEY";
const SESSION: &str = "BAILIWICK_TEST_KILLED_SERVER_SESSION";

/// The other half of the test below, in a process of its own. Without its environment it is not that half.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_will_be_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let url = std::env::var(DATABASE).unwrap().parse().unwrap();
    let store = Store::open(&dir, &url).unwrap();
    let walk = fixture::walk();
    let principal = fixture::login(&store, &walk, &std::env::var(KEY).unwrap()).await.unwrap();
    let scope = principal.scope(RequestId::new()).unwrap();
    let session: SessionId = std::env::var(SESSION).unwrap().parse().unwrap();
    let mut writers = Vec::new();
    for _ in 0..8 {
        let (store, scope) = (store.clone(), scope.clone());
        writers.push(tokio::spawn(async move {
            loop {
                let create = permit::<CreateSpace>(&scope, scope.account());
                let made = store.space_create(create, "work".into(), String::new()).await.unwrap();
                acknowledge(&format!("space {}", made.id));
            }
        }));
    }
    let lease = store.turn_lease(scope.tenant(), session).await.unwrap();
    for n in 0u64.. {
        let events = vec![("step.started", json!({ "n": n }))];
        store.turn_commit(&lease, Change { events, ..Change::default() }).await.unwrap();
        acknowledge(&format!("event {n}"));
    }
}

/// One write, so that a line is there as a whole or not at all.
fn acknowledge(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

struct Acknowledged {
    spaces: Vec<SpaceId>,
    events: u64,
}

/// Reads what the child acknowledges, kills it after `enough` lines, of which a quarter are spaces, and reads what
/// was still on the way.
fn kill_after(mut child: Child, enough: usize) -> Acknowledged {
    let mut seen = Acknowledged { spaces: Vec::new(), events: 0 };
    let (mut lines, mut killed) = (0, false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(id) = line.strip_prefix("space ") {
            // The last line may be cut: then it was not acknowledged.
            seen.spaces.extend(id.parse::<SpaceId>());
        } else if let Some(n) = line.strip_prefix("event ").and_then(|n| n.parse::<u64>().ok()) {
            seen.events = n + 1;
        } else {
            continue;
        }
        lines += 1;
        if lines >= enough && seen.spaces.len() * 4 >= enough && !killed {
            killed = true;
            child.kill().unwrap();
        }
    }
    assert!(killed, "the child ended by itself after {lines} lines");
    assert!(!child.wait().unwrap().success());
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn z02_what_was_acknowledged_before_a_kill_is_there_and_the_session_goes_on() {
    on_every_backend(async |f| {
        let session = f.session(&f.acme.member).await.id();
        let mut f = f;
        let mut spaces: Vec<SpaceId> = Vec::new();
        let mut events = 0;
        for enough in [1, 60, 400] {
            let (dir, key) = (f.dir().to_owned(), f.acme.member.key.clone());
            let url = match &f.backend {
                Backend::Sqlite => "sqlite:".to_owned(),
                Backend::Postgres(database) => database.url(),
            };
            f = f.restart_around(|| {
                let child = Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "reopen::the_server_that_will_be_killed", "--nocapture"])
                    .env(DIRECTORY, &dir)
                    .env(DATABASE, &url)
                    .env(KEY, &key)
                    .env(SESSION, session.to_string())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let seen = kill_after(child, enough);
                spaces.extend(seen.spaces);
                events += seen.events;
            });
            let scope = f.scope(&f.acme.member).await;
            for id in &spaces {
                assert!(f.store.space_find(&scope, *id).await.unwrap().is_some(), "{id} was acknowledged");
            }
            let found = f.store.session_find(&scope, session).await.unwrap().unwrap();
            let read = permit::<ReadSession>(&scope, found);
            let mut there = 0;
            loop {
                let page = f.store.session_events(&read, there, 1000).await.unwrap();
                if page.is_empty() {
                    break;
                }
                there += u64::try_from(page.len()).unwrap();
            }
            assert!(there >= events, "{events} events were acknowledged, {there} are there");
            events = there;
            let head = f.verify(&f.acme).await.unwrap();
            assert_eq!(head.size, f.events(&f.acme).await.len() as u64);
            // And the session goes on.
            let lease = f.store.turn_lease(scope.tenant(), session).await.unwrap();
            let one = Change { events: vec![("step.started", json!({}))], ..Change::default() };
            f.store.turn_commit(&lease, one).await.unwrap();
            events += 1;
        }
        assert!(spaces.len() > 100, "{}", spaces.len());
    })
    .await;
}
