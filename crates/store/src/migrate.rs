//! The schema, and how an older file becomes a newer one.

use rusqlite::Connection;

use crate::error::StoreError;

/// Which of the two kinds of file.
#[derive(Clone, Copy)]
pub(crate) enum Schema {
    Host,
    Account,
}

impl Schema {
    fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[
                include_str!("schema/host_1.sql"),
                include_str!("schema/host_2.sql"),
                include_str!("schema/host_3.sql"),
                include_str!("schema/host_4.sql"),
                include_str!("schema/host_5.sql"),
            ],
            Self::Account => &[
                include_str!("schema/account_1.sql"),
                include_str!("schema/account_2.sql"),
                include_str!("schema/account_3.sql"),
                include_str!("schema/account_4.sql"),
                include_str!("schema/account_5.sql"),
                include_str!("schema/account_6.sql"),
                include_str!("schema/account_7.sql"),
                include_str!("schema/account_8.sql"),
                include_str!("schema/account_9.sql"),
                include_str!("schema/account_10.sql"),
                include_str!("schema/account_11.sql"),
            ],
        }
    }
}

/// Brings a file to the newest version, a transaction a step.
pub(crate) fn apply(connection: &Connection, schema: Schema) -> Result<(), StoreError> {
    let steps = schema.steps();
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Version { found, known });
    }
    for (n, step) in steps.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        let version = n + 1;
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {step} PRAGMA user_version={version}; COMMIT;"))?;
    }
    Ok(())
}
