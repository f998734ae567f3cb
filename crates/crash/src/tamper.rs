//! Damage on purpose, to a stopped server's data: the checks must be able to fail, and say what is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

/// The files of the accounts in a data directory.
fn accounts(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("accounts")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("account.db")).filter(|path| path.is_file()).collect()
}

/// Runs a statement in every account's file. How many rows it changed.
///
/// # Errors
/// If a file cannot be changed.
pub fn change(data: &Path, statement: &str) -> Result<usize, String> {
    let mut changed = 0;
    for path in accounts(data) {
        let connection = Connection::open(&path).map_err(|error| error.to_string())?;
        let run = || {
            connection.execute_batch("DROP TRIGGER IF EXISTS event_is_not_deleted")?;
            connection.execute(statement, [])
        };
        changed += run().map_err(|error| error.to_string())?;
    }
    Ok(changed)
}

/// Holds an account's file for writing, as another program with the file would.
pub struct Held(Connection);

impl Held {
    /// The account whose file has a user of this name.
    ///
    /// # Errors
    /// If there is none, or it cannot be held.
    pub fn of_user(data: &Path, name: &str) -> Result<Self, String> {
        for path in accounts(data) {
            let connection = Connection::open(&path).map_err(|error| error.to_string())?;
            connection.busy_timeout(Duration::from_secs(5)).map_err(|error| error.to_string())?;
            let found = connection
                .query_row("SELECT count(*) FROM account_user WHERE name = ?1", [name], |row| row.get::<_, i64>(0));
            if found.map_err(|error| error.to_string())? != 0 {
                connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| error.to_string())?;
                return Ok(Self(connection));
            }
        }
        Err(format!("no account has a user {name}"))
    }

    /// Lets go.
    ///
    /// # Errors
    /// If the database fails.
    pub fn let_go(self) -> Result<(), String> {
        self.0.execute_batch("ROLLBACK").map_err(|error| error.to_string())
    }
}
