//! The seam to the database: static SQL text, typed arguments, rows.
//!
//! A tenant's connection binds the tenant as `?1` by itself, in every statement: a query cannot name
//! another tenant, because it never names one. Text is `&'static str`, so no statement is ever put
//! together from data. The same texts run on SQLite and on PostgreSQL, which reads `?1` as `$1`.

use std::cell::RefCell;
use std::error::Error;

use rusqlite::types::{FromSql, ToSqlOutput, Value, ValueRef};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, Type};

use crate::engine::postgres::Session;
use crate::error::StoreError;

/// An argument of a statement.
#[derive(Debug)]
pub(crate) enum Arg<'a> {
    Null(Kind),
    Int(i64),
    Text(&'a str),
    Owned(String),
    Blob(&'a [u8]),
}

/// What an argument is, also where it is missing: PostgreSQL wants to know before it sees a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Text,
    Blob,
}

/// A type whose kind is known without a value.
pub(crate) trait Kinded<'a> {
    const KIND: Kind;
}

impl Arg<'_> {
    /// The type by which PostgreSQL prepares a statement.
    pub(crate) fn postgres_type(&self) -> Type {
        match self {
            Self::Null(Kind::Int) | Self::Int(_) => Type::INT8,
            Self::Null(Kind::Text) | Self::Text(_) | Self::Owned(_) => Type::TEXT,
            Self::Null(Kind::Blob) | Self::Blob(_) => Type::BYTEA,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Owned(text) => Some(text),
            Self::Null(_) | Self::Int(_) | Self::Blob(_) => None,
        }
    }
}

impl rusqlite::ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null(_) => ToSqlOutput::Owned(Value::Null),
            Self::Int(n) => ToSqlOutput::Owned(Value::Integer(*n)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Owned(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

impl tokio_postgres::types::ToSql for Arg<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null(_) => Ok(IsNull::Yes),
            Self::Int(n) => n.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
            Self::Owned(text) => text.to_sql(kind, out),
            Self::Blob(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(kind)
    }

    tokio_postgres::types::to_sql_checked!();
}

macro_rules! into_arg {
    ($($from:ty, $kind:ident: $bind:pat => $arg:expr;)*) => {$(
        impl<'a> From<$from> for Arg<'a> {
            fn from($bind: $from) -> Self { $arg }
        }
        impl<'a> Kinded<'a> for $from {
            const KIND: Kind = Kind::$kind;
        }
    )*};
}

into_arg! {
    &'a str, Text: text => Arg::Text(text);
    &'a String, Text: text => Arg::Text(text);
    String, Text: text => Arg::Owned(text);
    i64, Int: n => Arg::Int(n);
    u32, Int: n => Arg::Int(i64::from(n));
    // The databases' integers are signed; nothing we count comes near.
    u64, Int: n => Arg::Int(i64::try_from(n).unwrap_or(i64::MAX));
    usize, Int: n => Arg::Int(i64::try_from(n).unwrap_or(i64::MAX));
    &'a [u8], Blob: bytes => Arg::Blob(bytes);
    &'a [u8; 32], Blob: bytes => Arg::Blob(bytes);
    bailiwick_types::Timestamp, Int: at => Arg::Int(at.as_micros());
    bailiwick_types::SpaceId, Text: id => Arg::Owned(id.to_string());
    bailiwick_types::SessionId, Text: id => Arg::Owned(id.to_string());
    bailiwick_types::ApprovalId, Text: id => Arg::Owned(id.to_string());
    bailiwick_types::CallId, Text: id => Arg::Owned(id.to_string());
    bailiwick_types::JobId, Text: id => Arg::Owned(id.to_string());
    bailiwick_types::Incarnation, Text: id => Arg::Owned(id.to_string());
    bailiwick_types::ServerId, Text: id => Arg::Owned(id.to_string());
    &'a bailiwick_types::AccountName, Text: name => Arg::Text(name.as_str());
    &'a bailiwick_types::UserName, Text: name => Arg::Text(name.as_str());
    &'a bailiwick_types::TargetName, Text: name => Arg::Text(name.as_str());
    &'a bailiwick_types::AgentName, Text: name => Arg::Text(name.as_str());
    &'a bailiwick_types::SecretName, Text: name => Arg::Text(name.as_str());
    &'a bailiwick_types::ToolName, Text: name => Arg::Text(name.as_str());
    &'a bailiwick_types::KeyId, Text: id => Arg::Text(id.as_str());
    &'a bailiwick_types::DeviceId, Text: id => Arg::Text(id.as_str());
    &'a bailiwick_types::PasskeyId, Text: id => Arg::Text(id.as_str());
    &'a bailiwick_types::ApplicationId, Text: id => Arg::Text(id.as_str());
    &'a bailiwick_types::ClientId, Text: id => Arg::Text(id.as_str());
    &'a bailiwick_types::ClientIdentifier, Text: id => Arg::Text(id.as_str());
}

impl<'a, T: Into<Arg<'a>> + Kinded<'a>> From<Option<T>> for Arg<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Arg::Null(T::KIND), Into::into)
    }
}

/// The arguments of a statement, from `?2` on.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::sql::Arg::from($value)),*] };
}
pub(crate) use args;

/// A row of a result.
pub(crate) enum Row<'a> {
    File(&'a rusqlite::Row<'a>),
    Server(&'a tokio_postgres::Row),
}

impl Row<'_> {
    fn raw<T>(&self, at: usize) -> Result<T, StoreError>
    where
        T: FromSql + for<'r> tokio_postgres::types::FromSql<'r>,
    {
        match self {
            Self::File(row) => row.get(at).map_err(StoreError::from),
            Self::Server(row) => row.try_get(at).map_err(StoreError::from),
        }
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

    pub(crate) fn optional_blob(&self, at: usize) -> Result<Option<Vec<u8>>, StoreError> {
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
    on: On<'c>,
    tenant: &'c str,
}

enum On<'c> {
    File(&'c rusqlite::Connection),
    Server(&'c RefCell<Session>),
}

impl<'c> Sql<'c> {
    pub(crate) fn file(connection: &'c rusqlite::Connection, tenant: &'c str) -> Self {
        Self { on: On::File(connection), tenant }
    }

    pub(crate) fn server(session: &'c RefCell<Session>, tenant: &'c str) -> Self {
        Self { on: On::Server(session), tenant }
    }

    /// The connection itself, so that a test can break it.
    #[cfg(test)]
    #[allow(clippy::panic)]
    pub(crate) fn raw(&self) -> &rusqlite::Connection {
        match &self.on {
            On::File(connection) => connection,
            On::Server(_) => panic!("only a file's connection is shown"),
        }
    }

    /// Runs a statement that changes rows, and says how many.
    pub(crate) fn exec(&self, text: &'static str, args: &[Arg<'_>]) -> Result<usize, StoreError> {
        storable(args)?;
        match &self.on {
            On::File(connection) => {
                let mut statement = connection.prepare_cached(text)?;
                self.bind(&mut statement, args)?;
                Ok(statement.raw_execute()?)
            }
            On::Server(session) => session.borrow_mut().execute(text, self.tenant, args),
        }
    }

    /// The first row, if there is one.
    pub(crate) fn one<T>(
        &self,
        text: &'static str,
        args: &[Arg<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        storable(args)?;
        match &self.on {
            On::File(connection) => {
                let mut statement = connection.prepare_cached(text)?;
                self.bind(&mut statement, args)?;
                match statement.raw_query().next()? {
                    Some(row) => read(&Row::File(row)).map(Some),
                    None => Ok(None),
                }
            }
            On::Server(session) => {
                let rows = session.borrow_mut().query(text, self.tenant, args)?;
                rows.first().map(|row| read(&Row::Server(row))).transpose()
            }
        }
    }

    /// Every row.
    pub(crate) fn all<T>(
        &self,
        text: &'static str,
        args: &[Arg<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        storable(args)?;
        match &self.on {
            On::File(connection) => {
                let mut statement = connection.prepare_cached(text)?;
                self.bind(&mut statement, args)?;
                let mut rows = statement.raw_query();
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(read(&Row::File(row))?);
                }
                Ok(found)
            }
            On::Server(session) => {
                let rows = session.borrow_mut().query(text, self.tenant, args)?;
                rows.iter().map(|row| read(&Row::Server(row))).collect()
            }
        }
    }

    /// Begins an act inside a transaction, so that it can be taken back alone.
    pub(crate) fn savepoint(&self) -> Result<(), StoreError> {
        self.control("SAVEPOINT act")
    }

    /// Takes back what was done since the savepoint.
    pub(crate) fn take_back(&self) -> Result<(), StoreError> {
        self.control("ROLLBACK TO SAVEPOINT act")
    }

    /// Keeps what was done since the savepoint.
    pub(crate) fn release(&self) -> Result<(), StoreError> {
        self.control("RELEASE SAVEPOINT act")
    }

    /// A statement without arguments that no code of ours would send.
    #[cfg(test)]
    pub(crate) fn control_for_test(&self, text: &'static str) -> Result<(), StoreError> {
        self.control(text)
    }

    fn control(&self, text: &'static str) -> Result<(), StoreError> {
        match &self.on {
            On::File(connection) => connection.prepare_cached(text)?.execute([]).map(drop).map_err(StoreError::from),
            On::Server(session) => session.borrow_mut().control(text),
        }
    }

    fn bind(&self, statement: &mut rusqlite::CachedStatement<'_>, args: &[Arg<'_>]) -> Result<(), StoreError> {
        statement.raw_bind_parameter(1, self.tenant)?;
        for (n, arg) in args.iter().enumerate() {
            statement.raw_bind_parameter(n + 2, arg)?;
        }
        Ok(())
    }
}

/// PostgreSQL's texts cannot hold U+0000. What one database refuses the other refuses as well, or data
/// could not move from one to the other.
fn storable(args: &[Arg<'_>]) -> Result<(), StoreError> {
    if args.iter().filter_map(Arg::text).any(|text| text.contains('\0')) {
        return Err(StoreError::Conflict { code: "nul_character", message: "a text holds the character U+0000" });
    }
    Ok(())
}
