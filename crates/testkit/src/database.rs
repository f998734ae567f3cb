//! Databases for tests: each test has its own, on the server that `cargo xtask test` has started.
//!
//! Two variables say which: `BAILIWICK_TEST_POSTGRES`, the address of a server and its superuser, and
//! `BAILIWICK_TEST_DATABASE=postgres` for those tests that run on one database at a time.

use bailiwick_store::DatabaseUrl;
use tokio_postgres::{Client, NoTls};
use ulid::Ulid;

/// Where a server for tests is, as its superuser.
pub const SERVER: &str = "BAILIWICK_TEST_POSTGRES";
/// Which database the tests of a whole server run on: `sqlite`, or `postgres`.
pub const CHOICE: &str = "BAILIWICK_TEST_DATABASE";

const OWNER: &str = "bailiwick_owner";
const APP: &str = "bailiwick_app";
const TEMPLATE: &str = "bailiwick_template";
/// Keeps two tests from making the template at once. Any number.
const LOCK: &str = "SELECT pg_advisory_lock(7215)";

/// A database made ready, with nothing in it.
#[derive(Debug, Clone)]
pub struct Postgres {
    superuser: tokio_postgres::Config,
    /// The database's name.
    pub name: String,
}

impl Postgres {
    /// A new database, if there is a server for tests.
    pub fn fresh() -> Option<Self> {
        let superuser: tokio_postgres::Config = std::env::var(SERVER).ok()?.parse().unwrap();
        let name = format!("test_{}", Ulid::new().to_string().to_lowercase());
        let made = Self { superuser, name };
        let making = made.clone();
        wait(async move { making.make().await });
        Some(made)
    }

    /// The address as the server's own role uses it.
    pub fn url(&self) -> String {
        self.url_of(APP)
    }

    /// The address as the owner of the tables uses it.
    pub fn owner_url(&self) -> String {
        self.url_of(OWNER)
    }

    /// A connection as the superuser, for what an intruder or an administrator would do.
    pub async fn superuser(&self) -> Client {
        let mut config = self.superuser.clone();
        connect(config.dbname(&self.name)).await
    }

    fn url_of(&self, role: &str) -> String {
        let password = std::str::from_utf8(self.superuser.get_password().unwrap()).unwrap();
        let port = self.superuser.get_ports()[0];
        format!("postgres://{role}:{password}@127.0.0.1:{port}/{}", self.name)
    }

    async fn make(&self) {
        let server = connect(&self.superuser).await;
        let there = "SELECT 1 FROM pg_database WHERE datname = $1";
        if server.query_opt(there, &[&TEMPLATE]).await.unwrap().is_none() {
            server.batch_execute(LOCK).await.unwrap();
            if server.query_opt(there, &[&TEMPLATE]).await.unwrap().is_none() {
                self.make_template(&server).await;
            }
        }
        server
            .batch_execute(&format!("CREATE DATABASE {} OWNER {OWNER} TEMPLATE {TEMPLATE}", self.name))
            .await
            .unwrap();
    }

    async fn make_template(&self, server: &Client) {
        let password = std::str::from_utf8(self.superuser.get_password().unwrap()).unwrap();
        for role in [OWNER, APP] {
            // If an earlier test ended in the middle of this, they are there.
            let _ = server.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'")).await;
        }
        let making = Self { superuser: self.superuser.clone(), name: format!("{TEMPLATE}_new") };
        server.batch_execute(&format!("DROP DATABASE IF EXISTS {TEMPLATE}_new")).await.unwrap();
        server.batch_execute(&format!("CREATE DATABASE {TEMPLATE}_new OWNER {OWNER}")).await.unwrap();
        let DatabaseUrl::Postgres(owner) = making.owner_url().parse().unwrap() else { panic!("no PostgreSQL") };
        bailiwick_store::postgres::prepare(&owner, APP).await.unwrap();
        // Only now is it the template; the connection that made it may need a moment to be gone.
        let rename = format!("ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}");
        for _ in 0..500 {
            if server.batch_execute(&rename).await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the template is still in use");
    }
}

/// The database that the tests of a whole server run on: a fresh one.
pub fn chosen() -> DatabaseUrl {
    chosen_text().parse().unwrap()
}

/// The same, as `database.url` has it.
pub fn chosen_text() -> String {
    match std::env::var(CHOICE).as_deref() {
        Ok("postgres") => match Postgres::fresh() {
            Some(database) => database.url(),
            None => panic!("{CHOICE} is postgres, and {SERVER} is not set"),
        },
        Ok("sqlite") | Err(_) => "sqlite:".to_owned(),
        Ok(other) => panic!("{CHOICE} is {other}: sqlite or postgres"),
    }
}

async fn connect(config: &tokio_postgres::Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Runs in a thread and a runtime of its own, so that a test may ask from wherever it is.
fn wait(work: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(work)).join().unwrap();
}
