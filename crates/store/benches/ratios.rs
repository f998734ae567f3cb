//! What the store's promises cost, as ratios to the bare database under the same settings. Run by
//! `cargo xtask bench`. Each ratio is the best of several interleaved rounds, so that a neighbour's load
//! falls on both sides; the limits are generous and only catch a change of kind.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::Journal;
use bailiwick_auth::authn::{Browser, Presented, Step, Walk};
use bailiwick_auth::key::{KeyRing, PresentedKey};
use bailiwick_auth::{Principal, Scope};
use bailiwick_store::Store;
use bailiwick_store::account::NewAccount;
use bailiwick_types::RequestId;
use rusqlite::Connection;

const ROUNDS: usize = 5;
const ACTS: u32 = 300;
const TOGETHER: u32 = 64;
const LOOKUPS: u32 = 2_000;

struct House {
    store: Store,
    walk: Walk,
    key: String,
    scope: Scope,
    bare: Connection,
    _dir: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data"), &bailiwick_store::DatabaseUrl::Sqlite).unwrap();
        let walk = Walk::new(vec![Step::ApiKey], KeyRing::new([7; 32]), None);
        let made = walk.ring().make().unwrap();
        let admin = Some(("alice".parse().unwrap(), &made));
        let new = NewAccount { name: "acme".parse().unwrap(), admin, agents: Vec::new() };
        store.account_bootstrap(new).await.unwrap();
        let key = made.into_text().to_string();
        let scope = login(&store, &walk, &key).await.scope(RequestId::new()).unwrap();
        let bare = Connection::open(dir.path().join("bare.db")).unwrap();
        // The engine's own settings.
        bare.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-1024; \
             PRAGMA secure_delete=ON; CREATE TABLE line (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;",
        )
        .unwrap();
        Self { store, walk, key, scope, bare, _dir: dir }
    }

    /// One line, as long as an event's, in a transaction of its own.
    fn bare_lines(&self, count: u32) -> Duration {
        let body = "x".repeat(350);
        let begun = Instant::now();
        for _ in 0..count {
            let mut insert = self.bare.prepare_cached("INSERT INTO line (body) VALUES (?1)").unwrap();
            insert.execute([&body]).unwrap();
        }
        begun.elapsed() / count
    }

    /// An event, durably, one after another.
    async fn events(&self, count: u32) -> Duration {
        let begun = Instant::now();
        for _ in 0..count {
            self.event().await;
        }
        begun.elapsed() / count
    }

    /// Events of many callers at once.
    async fn events_together(&self, count: u32) -> Duration {
        let begun = Instant::now();
        let mut acts = tokio::task::JoinSet::new();
        for _ in 0..TOGETHER {
            let (store, scope) = (self.store.clone(), self.scope.clone());
            acts.spawn(async move {
                for _ in 0..count / TOGETHER {
                    append(&store, &scope).await;
                }
            });
        }
        acts.join_all().await;
        begun.elapsed() / (count / TOGETHER * TOGETHER)
    }

    async fn event(&self) {
        append(&self.store, &self.scope).await;
    }

    fn bare_lookups(&self) -> Duration {
        let begun = Instant::now();
        for n in 0..LOOKUPS {
            let mut select = self.bare.prepare_cached("SELECT body FROM line WHERE id = ?1").unwrap();
            let body: String = select.query_row([n % ACTS + 1], |row| row.get(0)).unwrap();
            assert!(!body.is_empty());
        }
        begun.elapsed() / LOOKUPS
    }

    async fn logins(&self) -> Duration {
        let begun = Instant::now();
        for _ in 0..LOOKUPS {
            login(&self.store, &self.walk, &self.key).await;
        }
        begun.elapsed() / LOOKUPS
    }
}

async fn append(store: &Store, scope: &Scope) {
    let draft = scope.draft("bench.act", &scope.account(), Phase::Act, Verdict::Ok);
    store.append(scope, draft).await.unwrap();
}

async fn login(store: &Store, walk: &Walk, key: &str) -> Principal {
    let shown = Presented {
        key: Some(PresentedKey::new(key)),
        account: None,
        user: None,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        browser: Browser::Own,
    };
    walk.authenticate(store, &shown).await.unwrap()
}

fn line(what: &str, time: Duration, bare: Duration, limit: f64) -> bool {
    let ratio = time.as_secs_f64() / bare.as_secs_f64();
    let held = ratio <= limit;
    println!("{what:<52} {:>8.1} µs {ratio:>7.2} x (at most {limit})", time.as_secs_f64() * 1e6);
    held
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let house = House::new().await;
    let [mut bare, mut alone, mut together, mut lookup, mut login] = [Duration::MAX; 5];
    for _ in 0..ROUNDS {
        bare = bare.min(house.bare_lines(ACTS));
        alone = alone.min(house.events(ACTS).await);
        together = together.min(house.events_together(ACTS * 4).await);
        lookup = lookup.min(house.bare_lookups());
        login = login.min(house.logins().await);
    }
    println!("{:<52} {:>8.1} µs", "a bare row, in a transaction of its own", bare.as_secs_f64() * 1e6);
    let one = line("an act on record, alone", alone, bare, 4.0);
    let two = line("an act on record, 64 callers at once", together, bare, 2.0);
    println!("{:<52} {:>8.1} µs", "a bare row, looked up", lookup.as_secs_f64() * 1e6);
    let three = line("a key, looked up and proven", login, lookup, 60.0);
    assert!(one && two && three, "a ratio is above its limit");
}
