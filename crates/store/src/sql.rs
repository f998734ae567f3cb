//! The seam to the database: static SQL text, typed arguments, rows.
//!
//! A tenant's connection binds the tenant as `?1` by itself, in every statement: a query cannot name
//! another tenant, because it never names one. Text is `&'static str`, so no statement is ever put
//! together from data. PostgreSQL joins behind the same three calls.

use rusqlite::types::{FromSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql};

use crate::error::StoreError;

/// An argument of a statement.
pub(crate) enum Arg<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Owned(String),
    Blob(&'a [u8]),
}

impl ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Int(n) => ToSqlOutput::Owned(Value::Integer(*n)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Owned(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

macro_rules! into_arg {
    ($($from:ty: $bind:pat => $arg:expr;)*) => {$(
        impl<'a> From<$from> for Arg<'a> {
            fn from($bind: $from) -> Self { $arg }
        }
    )*};
}

into_arg! {
    &'a str: text => Arg::Text(text);
    &'a String: text => Arg::Text(text);
    String: text => Arg::Owned(text);
    i64: n => Arg::Int(n);
    u32: n => Arg::Int(i64::from(n));
    &'a [u8]: bytes => Arg::Blob(bytes);
    &'a [u8; 32]: bytes => Arg::Blob(bytes);
    bailiwick_types::Timestamp: at => Arg::Int(at.as_micros());
    bailiwick_types::SpaceId: id => Arg::Owned(id.to_string());
    bailiwick_types::SessionId: id => Arg::Owned(id.to_string());
    bailiwick_types::ApprovalId: id => Arg::Owned(id.to_string());
    bailiwick_types::CallId: id => Arg::Owned(id.to_string());
    bailiwick_types::Incarnation: id => Arg::Owned(id.to_string());
    &'a bailiwick_types::AccountName: name => Arg::Text(name.as_str());
    &'a bailiwick_types::UserName: name => Arg::Text(name.as_str());
    &'a bailiwick_types::AgentName: name => Arg::Text(name.as_str());
    &'a bailiwick_types::ToolName: name => Arg::Text(name.as_str());
    &'a bailiwick_types::KeyId: id => Arg::Text(id.as_str());
}

impl From<u64> for Arg<'_> {
    fn from(n: u64) -> Self {
        // SQLite's integers are signed; nothing we count comes near.
        Arg::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Arg<'_> {
    fn from(n: usize) -> Self {
        Arg::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl<'a, T: Into<Arg<'a>>> From<Option<T>> for Arg<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Arg::Null, Into::into)
    }
}

/// The arguments of a statement, from `?2` on in a tenant's database, from `?1` on in the host's.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::sql::Arg::from($value)),*] };
}
pub(crate) use args;

/// A row of a result.
pub(crate) struct Row<'a>(&'a rusqlite::Row<'a>);

impl Row<'_> {
    fn raw<T: FromSql>(&self, at: usize) -> Result<T, StoreError> {
        self.0.get(at).map_err(StoreError::from)
    }

    pub(crate) fn int(&self, at: usize) -> Result<i64, StoreError> {
        self.raw(at)
    }

    pub(crate) fn count(&self, at: usize) -> Result<u64, StoreError> {
        u64::try_from(self.int(at)?).map_err(|_| StoreError::Corrupt("a count below zero"))
    }

    pub(crate) fn text(&self, at: usize) -> Result<String, StoreError> {
        self.raw(at)
    }

    pub(crate) fn blob(&self, at: usize) -> Result<Vec<u8>, StoreError> {
        self.raw(at)
    }

    pub(crate) fn time(&self, at: usize) -> Result<bailiwick_types::Timestamp, StoreError> {
        Ok(bailiwick_types::Timestamp::from_micros(self.int(at)?))
    }

    pub(crate) fn optional_time(&self, at: usize) -> Result<Option<bailiwick_types::Timestamp>, StoreError> {
        Ok(self.raw::<Option<i64>>(at)?.map(bailiwick_types::Timestamp::from_micros))
    }

    pub(crate) fn optional_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        self.raw(at)
    }

    pub(crate) fn optional_text(&self, at: usize) -> Result<Option<String>, StoreError> {
        self.raw(at)
    }

    /// A column that holds one of our names, ids or words.
    pub(crate) fn parse<T: std::str::FromStr>(&self, at: usize) -> Result<T, StoreError> {
        self.text(at)?.parse().map_err(|_| StoreError::Corrupt("a stored name or id"))
    }

    pub(crate) fn optional_parse<T: std::str::FromStr>(&self, at: usize) -> Result<Option<T>, StoreError> {
        match self.optional_text(at)? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| StoreError::Corrupt("a stored name or id")),
        }
    }

    /// A column that holds JSON of ours.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, at: usize) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(at)?).map_err(|_| StoreError::Corrupt("stored JSON"))
    }

    pub(crate) fn optional_json<T: serde::de::DeserializeOwned>(&self, at: usize) -> Result<Option<T>, StoreError> {
        match self.optional_text(at)? {
            None => Ok(None),
            Some(text) => serde_json::from_str(&text).map(Some).map_err(|_| StoreError::Corrupt("stored JSON")),
        }
    }
}

/// What statements are run on: a connection, and the tenant that it belongs to.
pub(crate) struct Sql<'c> {
    connection: &'c Connection,
    tenant: Option<&'c str>,
}

impl<'c> Sql<'c> {
    pub(crate) fn new(connection: &'c Connection, tenant: Option<&'c str>) -> Self {
        Self { connection, tenant }
    }

    /// The connection itself, so that a test can break it.
    #[cfg(test)]
    pub(crate) fn raw(&self) -> &Connection {
        self.connection
    }

    /// Runs a statement that changes rows, and says how many.
    pub(crate) fn exec(&self, text: &'static str, args: &[Arg<'_>]) -> Result<usize, StoreError> {
        let mut statement = self.connection.prepare_cached(text)?;
        self.bind(&mut statement, args)?;
        Ok(statement.raw_execute()?)
    }

    /// The first row, if there is one.
    pub(crate) fn one<T>(
        &self,
        text: &'static str,
        args: &[Arg<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(text)?;
        self.bind(&mut statement, args)?;
        match statement.raw_query().next()? {
            Some(row) => read(&Row(row)).map(Some),
            None => Ok(None),
        }
    }

    /// Every row.
    pub(crate) fn all<T>(
        &self,
        text: &'static str,
        args: &[Arg<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(text)?;
        self.bind(&mut statement, args)?;
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(&Row(row))?);
        }
        Ok(found)
    }

    fn bind(&self, statement: &mut rusqlite::CachedStatement<'_>, args: &[Arg<'_>]) -> Result<(), StoreError> {
        let mut place = 1;
        if let Some(tenant) = self.tenant {
            statement.raw_bind_parameter(place, tenant)?;
            place += 1;
        }
        for arg in args {
            statement.raw_bind_parameter(place, arg)?;
            place += 1;
        }
        Ok(())
    }
}
