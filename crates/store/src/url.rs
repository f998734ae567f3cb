//! Where the database is.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::engine::postgres::OPTIONS;
use crate::error::StoreError;

const CONNECT: Duration = Duration::from_secs(5);

/// Where the database is: `sqlite:` or `postgres://user:password@host:port/name`.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// Files in the data directory.
    Sqlite,
    /// A server.
    Postgres(Box<PostgresUrl>),
}

/// A PostgreSQL server, a database on it, and a role. It may hold a password, and so is shown by nothing.
#[derive(Clone)]
pub struct PostgresUrl {
    config: Config,
    tls: Tls,
}

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    /// Always, and with a certificate that fits the host's name.
    Demanded,
    /// Not: the server is on this host.
    Local,
}

/// The text is no database's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Another kind of database, or no address at all.
    #[error("must be \"sqlite:\" or postgres://USER@HOST:PORT/DATABASE")]
    Form,
    /// What PostgreSQL's own addresses do not know.
    #[error("is no address of a PostgreSQL database: {0}")]
    Postgres(String),
    /// Something that the address must say is missing.
    #[error("must name {0}")]
    Missing(&'static str),
    /// Passwords and rows would cross a network in the clear.
    #[error("says sslmode=disable for a host that is not this one: take it out, and the connection is encrypted")]
    Open,
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if text == "sqlite:" {
            return Ok(Self::Sqlite);
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseUrlError::Form);
        }
        PostgresUrl::parse(text).map(|url| Self::Postgres(Box::new(url)))
    }
}

impl PostgresUrl {
    fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        let mut config: Config =
            text.parse().map_err(|error: tokio_postgres::Error| DatabaseUrlError::Postgres(cause(&error)))?;
        if config.get_user().is_none() {
            return Err(DatabaseUrlError::Missing("a user (its own role, which owns no table)"));
        }
        if config.get_dbname().is_none() {
            return Err(DatabaseUrlError::Missing("a database"));
        }
        if config.get_hosts().is_empty() {
            return Err(DatabaseUrlError::Missing("a host"));
        }
        let local = config.get_hosts().iter().all(is_local);
        let tls = match (local, config.get_ssl_mode()) {
            (true, SslMode::Disable | SslMode::Prefer) => Tls::Local,
            (false, SslMode::Disable) => return Err(DatabaseUrlError::Open),
            _ => Tls::Demanded,
        };
        // What the address asks for comes first, so that our limits hold.
        let options = [config.get_options(), Some(OPTIONS)].into_iter().flatten().collect::<Vec<_>>().join(" ");
        config.options(options).application_name("bailiwick").connect_timeout(CONNECT);
        config.ssl_mode(if tls == Tls::Demanded { SslMode::Require } else { SslMode::Disable });
        config.keepalives_idle(Duration::from_secs(30)).tcp_user_timeout(Duration::from_secs(20));
        Ok(Self { config, tls })
    }

    /// A password from elsewhere than the address.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }

    /// Whether the address itself holds a password.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// The role's name.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// Connects. The connection is driven by the runtime in which this is called.
    pub(crate) async fn connect(&self) -> Result<Client, StoreError> {
        let connected = tokio::time::timeout(CONNECT, async {
            match self.tls {
                Tls::Local => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok::<_, StoreError>(client)
                }
                Tls::Demanded => {
                    let (client, connection) = self.config.connect(MakeRustlsConnect::new(tls()?)).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
            }
        });
        connected.await.map_err(|_| StoreError::Unavailable("the database cannot be reached"))?
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

fn tls() -> Result<rustls::ClientConfig, StoreError> {
    let failed = |_| StoreError::Unavailable("TLS could not be set up");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
    Ok(builder.with_platform_verifier().map_err(failed)?.with_no_client_auth())
}

/// The innermost reason, which says what is wrong with the text.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn refused(text: &str) -> DatabaseUrlError {
        match text.parse::<DatabaseUrl>() {
            Ok(_) => panic!("{text} was accepted"),
            Err(error) => error,
        }
    }

    fn tls(text: &str) -> Tls {
        match text.parse::<DatabaseUrl>() {
            Ok(DatabaseUrl::Postgres(url)) => url.tls,
            Ok(DatabaseUrl::Sqlite) => panic!("{text} is SQLite"),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn another_host_is_reached_by_tls_or_not_at_all() {
        assert_eq!(tls("postgres://app@127.0.0.1:5433/bailiwick"), Tls::Local);
        assert_eq!(tls("postgres://app@localhost/bailiwick?sslmode=disable"), Tls::Local);
        assert_eq!(tls("postgres://app@[::1]/bailiwick"), Tls::Local);
        assert_eq!(tls("postgres://app@%2Frun%2Fpostgresql/bailiwick"), Tls::Local);
        assert_eq!(tls("postgres://app@db.example.com/bailiwick"), Tls::Demanded);
        assert_eq!(tls("postgres://app@db.example.com/bailiwick?sslmode=prefer"), Tls::Demanded);
        assert_eq!(tls("postgres://app@127.0.0.1,db.example.com/bailiwick"), Tls::Demanded);
        assert_eq!(tls("postgres://app@localhost/bailiwick?sslmode=require"), Tls::Demanded);
        assert_eq!(refused("postgres://app@db.example.com/bailiwick?sslmode=disable"), DatabaseUrlError::Open);
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_write() {
        assert_eq!(refused("mysql://x"), DatabaseUrlError::Form);
        assert_eq!(refused("sqlite:/elsewhere.db"), DatabaseUrlError::Form);
        assert_eq!(refused(""), DatabaseUrlError::Form);
        assert!(matches!(refused("postgres://localhost/bailiwick"), DatabaseUrlError::Missing(_)));
        assert!(matches!(refused("postgres://app@localhost"), DatabaseUrlError::Missing("a database")));
        assert!(matches!(refused("postgres://app@localhost/x?sslmode=sometimes"), DatabaseUrlError::Postgres(_)));
    }
}
