//! The bare peer: routes that do the least that could be called the same work.
//!
//! `/constant` sends constant bytes; `/spaces` runs the statements that a listing of spaces runs, in the
//! thread that serves the request, and writes the same JSON. No key is looked at, no policy asked, nothing
//! recorded.

use std::cell::RefCell;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use rusqlite::Connection;
use serde::Serialize;
use tokio_postgres::{Client, NoTls, Statement};

/// As in the answer of `GET /api/v1/spaces`.
#[derive(Serialize)]
struct Space {
    id: String,
    name: String,
    description: String,
    owner: String,
    personal: bool,
    created_at: i64,
    updated_at: i64,
}

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    result: Vec<Space>,
}

const LIST: &str = "SELECT id, name, description, owner, personal, created_at, updated_at FROM space s \
     WHERE account = ?1 AND (?3 = 'admin' OR owner = ?2 OR EXISTS (SELECT 1 FROM space_grant g \
     WHERE g.account = s.account AND g.space = s.id AND g.grantee = ?2)) ORDER BY created_at, id";
const GRANTS: &str = "SELECT a.space, a.grantee, a.level FROM space_grant a \
     JOIN space s ON s.account = a.account AND s.id = a.space \
     WHERE a.account = ?1 AND (?3 = 'admin' OR s.owner = ?2 OR EXISTS (SELECT 1 FROM space_grant g \
     WHERE g.account = s.account AND g.space = s.id AND g.grantee = ?2)) ORDER BY a.space, a.grantee";

/// The account whose rows are read, and where.
#[derive(Clone)]
struct Place {
    account: Arc<str>,
    file: Arc<str>,
    server: Option<Arc<Server>>,
}

struct Server {
    clients: tokio::sync::Mutex<Vec<Prepared>>,
    free: tokio::sync::Semaphore,
}

struct Prepared {
    client: Client,
    list: Statement,
    grants: Statement,
}

thread_local! {
    static FILE: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// `bare ACCOUNT FILE|URL`: serves on a free port, and says which.
pub(crate) async fn serve(arguments: &[String]) {
    let (account, place) = (&arguments[0], &arguments[1]);
    let server = if place.starts_with("postgres") { Some(Arc::new(Server::connect(place).await)) } else { None };
    let place = Place { account: account.as_str().into(), file: place.as_str().into(), server };
    let router = Router::new().route("/constant", get(|| async { "{\"status\":\"ok\",\"result\":[]}" }));
    let router = router.route("/spaces", get(spaces)).with_state(place);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    axum::serve(listener, router).await.unwrap();
}

async fn spaces(State(place): State<Place>) -> Json<Answer> {
    let result = match &place.server {
        None => from_file(&place),
        Some(server) => server.read(&place.account).await,
    };
    Json(Answer { status: "ok", result })
}

fn from_file(place: &Place) -> Vec<Space> {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| {
            let file = Connection::open(&*place.file).unwrap();
            file.execute_batch("PRAGMA cache_size=-1024; PRAGMA trusted_schema=OFF").unwrap();
            file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).unwrap();
            file
        });
        let parameters = (&*place.account, "alice", "admin");
        let mut list = file.prepare_cached(LIST).unwrap();
        let rows = list.query_map(parameters, |row| {
            Ok(Space {
                id: row.get(0)?,
                name: row.get(1)?,
                description: row.get(2)?,
                owner: row.get(3)?,
                personal: row.get::<_, i64>(4)? != 0,
                created_at: row.get(5)?,
                updated_at: row.get(6)?,
            })
        });
        let spaces = rows.unwrap().map(Result::unwrap).collect();
        let mut grants = file.prepare_cached(GRANTS).unwrap();
        let grants = grants.query_map(parameters, |row| row.get::<_, String>(1)).unwrap();
        assert_eq!(grants.count(), 0);
        spaces
    })
}

impl Server {
    async fn connect(url: &str) -> Self {
        let mut clients = Vec::new();
        for _ in 0..24 {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
            let list = client.prepare(&LIST.replace('?', "$").replace("$3 =", "$3::text =")).await.unwrap();
            let grants = client.prepare(&GRANTS.replace('?', "$").replace("$3 =", "$3::text =")).await.unwrap();
            clients.push(Prepared { client, list, grants });
        }
        let free = tokio::sync::Semaphore::new(clients.len());
        Self { clients: tokio::sync::Mutex::new(clients), free }
    }

    /// In a transaction of the tenant's, as row-level security demands it; the begin in the same flight.
    async fn read(&self, account: &str) -> Vec<Space> {
        let _turn = self.free.acquire().await.unwrap();
        let held = self.clients.lock().await.pop().unwrap();
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL app.account_id = '{account}'");
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&account, &"alice", &"admin"];
        let (begun, rows, grants) = tokio::join!(
            held.client.batch_execute(&begin),
            held.client.query(&held.list, &arguments),
            held.client.query(&held.grants, &arguments),
        );
        begun.unwrap();
        assert!(grants.unwrap().is_empty());
        let rows = rows.unwrap();
        let spaces = rows.iter().map(|row| Space {
            id: row.get(0),
            name: row.get(1),
            description: row.get(2),
            owner: row.get(3),
            personal: row.get::<_, i64>(4) != 0,
            created_at: row.get(5),
            updated_at: row.get(6),
        });
        let spaces = spaces.collect();
        held.client.batch_execute("COMMIT").await.unwrap();
        self.clients.lock().await.push(held);
        spaces
    }
}
