//! Beneath the server: what someone can do who holds the file, or is the superuser of the database.

use bailiwick_audit::Frontier;
use bailiwick_audit::event::hex;
use rusqlite::Connection;
use tokio_postgres::Client;

use crate::Backend;
use crate::fixture::Fixture;

/// A connection around the server.
pub(crate) enum Hood {
    File(Connection),
    Server(Client),
}

impl Hood {
    /// Around the host's rows.
    pub(crate) async fn of_host(f: &Fixture) -> Self {
        Self::open(f, "control.db").await
    }

    /// Around the rows of the scope's account; with PostgreSQL, around everybody's.
    pub(crate) async fn of(f: &Fixture, scope: &bailiwick_auth::Scope) -> Self {
        Self::open(f, &format!("accounts/{}/account.db", scope.tenant().incarnation())).await
    }

    async fn open(f: &Fixture, file: &str) -> Self {
        match &f.backend {
            Backend::Sqlite => Self::File(Connection::open(f.dir().join(file)).unwrap()),
            Backend::Postgres(database) => Self::Server(database.superuser().await),
        }
    }

    pub(crate) async fn run(&self, sql: &str) {
        match self {
            Self::File(file) => file.execute_batch(sql).unwrap(),
            Self::Server(client) => client.batch_execute(sql).await.unwrap(),
        }
    }

    /// Why a statement is refused.
    pub(crate) async fn refused(&self, sql: &str) -> String {
        match self {
            Self::File(file) => file.execute_batch(sql).unwrap_err().to_string(),
            Self::Server(client) => {
                let error = client.batch_execute(sql).await.unwrap_err();
                error.as_db_error().unwrap().message().to_owned()
            }
        }
    }

    /// Rows of the scope's account in a table.
    pub(crate) async fn rows(&self, scope: &bailiwick_auth::Scope, table: &str) -> i64 {
        let account = scope.tenant().incarnation();
        let sql = format!("SELECT count(*) FROM {table} WHERE account = '{account}'");
        match self {
            Self::File(file) => file.query_row(&sql, [], |row| row.get(0)).unwrap(),
            Self::Server(client) => client.query_one(&sql, &[]).await.unwrap().get(0),
        }
    }

    /// Tables of a server in which these words stand; of a file, none: it is read as the file that it is.
    pub(crate) async fn mentions(&self, words: &str) -> usize {
        let Self::Server(client) = self else { return 0 };
        let tables =
            client.query("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'", &[]).await.unwrap();
        let mut found = 0;
        for table in tables {
            let table: String = table.get(0);
            let sql = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{words}%'");
            let rows: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
            found += usize::from(rows > 0);
        }
        found
    }

    /// Verifies a log as a stranger would: from the rows alone.
    pub(crate) async fn verify(&self, scope: &bailiwick_auth::Scope) {
        let account = scope.tenant().incarnation();
        let head = format!("SELECT size, root FROM tree_head WHERE account = '{account}'");
        let leaves = format!("SELECT leaf_hash FROM event WHERE account = '{account}' ORDER BY seq");
        let (size, root, leaves): (i64, Vec<u8>, Vec<Vec<u8>>) = match self {
            Self::File(file) => {
                let (size, root) = file.query_row(&head, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
                let mut rows = file.prepare(&leaves).unwrap();
                let leaves = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
                (size, root, leaves)
            }
            Self::Server(client) => {
                let head = client.query_one(&head, &[]).await.unwrap();
                let leaves = client.query(&leaves, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
                (head.get(0), head.get(1), leaves)
            }
        };
        let mut tree = Frontier::new();
        for hash in leaves {
            tree.append(hash.try_into().unwrap());
        }
        assert_eq!((tree.size().cast_signed(), tree.root().to_vec()), (size, root));
    }

    /// Takes away what guards the rows.
    pub(crate) async fn unguard(&self) {
        match self {
            Self::File(_) => self.run("DROP TRIGGER event_is_not_changed; DROP TRIGGER event_is_not_deleted;").await,
            Self::Server(_) => self.run("SET session_replication_role = replica").await,
        }
    }

    /// Cuts a log to its first events and makes the head fit, so that nothing in the database tells.
    pub(crate) async fn rewind(&self, scope: &bailiwick_auth::Scope, size: u64) {
        let account = scope.tenant().incarnation();
        let leaves = format!("SELECT leaf_hash FROM event WHERE account = '{account}' AND seq < {size} ORDER BY seq");
        let leaves: Vec<Vec<u8>> = match self {
            Self::File(file) => {
                let mut rows = file.prepare(&leaves).unwrap();
                rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
            }
            Self::Server(client) => client.query(&leaves, &[]).await.unwrap().iter().map(|row| row.get(0)).collect(),
        };
        let mut tree = Frontier::new();
        for hash in leaves {
            tree.append(hash.try_into().unwrap());
        }
        let blob = |bytes: &[u8]| match self {
            Self::File(_) => format!("x'{}'", hex(bytes)),
            Self::Server(_) => format!("'\\x{}'", hex(bytes)),
        };
        let (root, edge) = (blob(&tree.root()), blob(&tree.node_bytes()));
        self.run(&format!(
            "DELETE FROM event WHERE account = '{account}' AND seq >= {size}; \
             DELETE FROM tree_tile WHERE account = '{account}'; \
             UPDATE tree_head SET size = {size}, root = {root}, frontier = {edge} WHERE account = '{account}'"
        ))
        .await;
    }

    /// Holds up all writes of the scope's account.
    pub(crate) async fn hold_up(&self, scope: &bailiwick_auth::Scope) {
        match self {
            Self::File(_) => self.run("BEGIN IMMEDIATE").await,
            Self::Server(_) => {
                let account = scope.tenant().incarnation();
                self.run(&format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{account}', 0))")).await;
            }
        }
    }

    /// Lets them go on.
    pub(crate) async fn let_go(&self) {
        self.run("ROLLBACK").await;
    }
}
