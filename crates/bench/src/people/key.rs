//! What a key costs: processor time of the server for one route that answers with a key and without.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bailiwick_auth::authn::{Browser, Gateway, Presented, Step, Walk};
use bailiwick_auth::key::{KeyRing, PresentedKey};
use bailiwick_store::account::NewAccount;
use bailiwick_store::{DatabaseUrl, Store};

use crate::load::{self, Ask};
use crate::report::{Report, Target};
use crate::server::Running;

const CALLERS: usize = 16;
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
/// What a key may add to a request, µs.
const MOST: f64 = 15.0;
/// Keys that are looked up in this process.
const LOOKUPS: u32 = 50_000;

pub(super) async fn measure(server: &Running, key: &str, report: &mut Report) {
    // One route, which is on nobody's record. As long a header that says nothing stands where the key would:
    // so the difference is the credential read, its rows in two databases, a keyed hash, the scope, the
    // rate's limiter, and three more fields in the answer.
    let (with, without) = (Ask::get("/health", key), Ask::get("/health", "").with("x-nothing", key));
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (ask, costs) in [&with, &without].into_iter().zip(&mut costs) {
            costs.push(cost(server, ask).await);
        }
    }
    let [with, without] = costs.map(middle);
    report.add(
        "GET /health with a key, processor time of the server",
        format!("{with:.1} µs"),
        format!("without {without:.1} µs"),
        with / without,
        Target::None,
    );
    let added = with - without;
    let most = format!("{MOST} µs");
    report.add("… what the key adds", format!("{added:.1} µs"), most, added / MOST, Target::AtMost(1.0));
    let alone = lookup().await.as_secs_f64() * 1e6;
    let share = alone / added;
    report.add("… of that the walk alone", format!("{alone:.1} µs"), format!("{added:.1} µs"), share, Target::None);
}

/// Processor time of the server for one such request, µs.
async fn cost(server: &Running, ask: &Ask) -> f64 {
    let (before, ask) = (server.cpu(), ask.clone());
    let ran = load::during(server.address, CALLERS, TIME, move |_| ask.clone()).await;
    (server.cpu() - before).as_secs_f64() * 1e6 / ran.count as f64
}

fn middle(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

/// One caller found by their key in this process.
async fn lookup() -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &DatabaseUrl::Sqlite).unwrap();
    let walk = Walk::new(vec![Step::ApiKey], KeyRing::new([7; 32]), None);
    let made = walk.ring().make().unwrap();
    let admin = Some(("alice".parse().unwrap(), &made));
    let new = NewAccount { name: "acme".parse().unwrap(), admin, agents: Vec::new() };
    store.account_bootstrap(new).await.unwrap();
    let shown = presented(&made.into_text());
    walk.authenticate(&store, &shown).await.unwrap();
    let begun = Instant::now();
    for _ in 0..LOOKUPS {
        std::hint::black_box(walk.authenticate(&store, &shown).await.unwrap());
    }
    begun.elapsed() / LOOKUPS
}

/// A key as a program on this host shows it.
pub(super) fn presented(key: &str) -> Presented {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Presented {
        key: Some(PresentedKey::new(key)),
        basic: None,
        account: None,
        user: None,
        peer: address,
        client: address,
        browser: Browser::Own,
        gateway: Gateway::Anybody,
    }
}
