//! Beneath the server: what someone can do who holds the file, or is the superuser of the database.

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
