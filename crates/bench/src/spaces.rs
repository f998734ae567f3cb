//! What key, policy, scope and record cost: `GET /api/v1/spaces` against a bare route with the same
//! statements, with few accounts on the server and with many, on both databases.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio_postgres::NoTls;

use crate::Options;
use crate::load::{self, Ask, Connection};
use crate::report::{Report, Target, per_second};
use crate::server::{Running, Site};

const CALLERS: usize = 16;
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const FEW: usize = 10;

struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(account: &str, place: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["bare", account, place])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let site = Site::new(&options.server, "sqlite:");
    on(options, report, "SQLite", &site, |account| {
        site.data().join("accounts").join(account).join("account.db").to_str().unwrap().to_owned()
    })
    .await;
    if let Some(superuser) = &options.postgres {
        let url = database(&options.server, superuser).await;
        let site = Site::new(&options.server, &url);
        on(options, report, "PostgreSQL", &site, |_| url.clone()).await;
    }
}

/// A database made ready, and the address of the server's role.
pub(crate) async fn database(server: &std::path::Path, superuser: &str) -> String {
    let (client, connection) = tokio_postgres::connect(superuser, NoTls).await.unwrap();
    tokio::spawn(connection);
    let name = format!("bench_{}", std::process::id());
    let password = superuser.split_once("://postgres:").unwrap().1.split_once('@').unwrap().0;
    for role in ["bench_owner", "bench_app"] {
        let _ = client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'")).await;
    }
    client.batch_execute(&format!("CREATE DATABASE {name} OWNER bench_owner")).await.unwrap();
    let host = superuser.split_once('@').unwrap().1.split_once('/').unwrap().0;
    let owner = format!("postgres://bench_owner:{password}@{host}/{name}");
    let prepared = Command::new(server)
        .args(["database", "prepare", "--role", "bench_app", "--owner-url", &owner])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(prepared.success());
    format!("postgres://bench_app:{password}@{host}/{name}")
}

async fn on(options: &Options, report: &mut Report, database: &str, site: &Site, place: impl Fn(&str) -> String) {
    let server = site.start();
    let mut connection = server.connect().await;
    let key = server.account(&mut connection, "measured").await;
    for n in 0..4 {
        connection.good(&Ask::post("/api/v1/spaces", &key, format!("{{\"name\":\"space {n}\"}}"))).await;
    }
    accounts(&server, 1, FEW).await;
    let log = connection.good(&Ask::get("/api/v1/audit?limit=1", &key)).await;
    assert!(log.is_array());
    let account = incarnation(site, options, database).await;
    let bare = Bare::start(&account, &place(&account));
    let few = rates(&server, &bare, &key).await;
    report.add(
        format!("GET /api/v1/spaces, {FEW} accounts, {CALLERS} callers ({database})"),
        per_second(few.ours),
        format!("bare route {}", per_second(few.bare)),
        few.ours / few.bare,
        Target::AtLeast(0.6),
    );
    report.add(
        format!("… against constant bytes ({database})"),
        per_second(few.ours),
        format!("constant {}", per_second(few.constant)),
        few.ours / few.constant,
        Target::None,
    );
    accounts(&server, FEW, options.accounts).await;
    let many = rates(&server, &bare, &key).await;
    report.add(
        format!("GET /api/v1/spaces, {} accounts, {CALLERS} callers ({database})", options.accounts),
        per_second(many.ours),
        format!("bare route {}", per_second(many.bare)),
        many.ours / many.bare,
        Target::AtLeast(0.6),
    );
    report.add(
        format!("… many accounts against few ({database})"),
        per_second(many.ours),
        per_second(few.ours),
        (many.ours / many.constant) / (few.ours / few.constant),
        Target::AtLeast(0.9),
    );
}

struct Rates {
    ours: f64,
    bare: f64,
    constant: f64,
}

/// Interleaved, and the best of each: what disturbs one round disturbs its peers.
async fn rates(server: &Running, bare: &Bare, key: &str) -> Rates {
    let mut best = Rates { ours: 0.0, bare: 0.0, constant: 0.0 };
    for _ in 0..ROUNDS {
        let ask = Ask::get("/api/v1/spaces", key);
        best.ours = best.ours.max(load::during(server.address, CALLERS, TIME, move |_| ask.clone()).await.rate());
        let ask = Ask::get("/spaces", "");
        best.bare = best.bare.max(load::during(bare.address, CALLERS, TIME, move |_| ask.clone()).await.rate());
        let ask = Ask::get("/constant", "");
        best.constant = best.constant.max(load::during(bare.address, CALLERS, TIME, move |_| ask.clone()).await.rate());
    }
    best
}

/// Makes accounts from the `from`th to the `to`th.
pub(crate) async fn accounts(server: &Running, from: usize, to: usize) {
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(from));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (next, address) = (std::sync::Arc::clone(&next), server.address);
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= to {
                        break;
                    }
                    let body = format!("{{\"account_id\":\"tenant-{n}\",\"admin_user_id\":\"alice\"}}");
                    connection.good(&Ask::post("/api/v1/admin/accounts", crate::server::ROOT, body)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// The id of the measured account's rows.
async fn incarnation(site: &Site, options: &Options, database: &str) -> String {
    if database == "SQLite" {
        let control = rusqlite::Connection::open(site.data().join("control.db")).unwrap();
        return control
            .query_row("SELECT incarnation FROM account WHERE name = 'measured'", [], |row| row.get(0))
            .unwrap();
    }
    let superuser = options.postgres.as_ref().unwrap();
    let name = format!("bench_{}", std::process::id());
    let url = format!("{}/{name}", superuser.rsplit_once('/').unwrap().0);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one("SELECT incarnation FROM account WHERE name = 'measured'", &[]).await.unwrap().get(0)
}
