//! `bailiwick database`: makes a PostgreSQL database ready. The server itself never has the owner's password.

use std::path::PathBuf;

use bailiwick_store::{DatabaseUrl, StoreError};
use clap::Subcommand;
use serde_json::json;

use crate::config::Sources;
use crate::failure::Failure;
use crate::out::{self, Format};

#[derive(Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Make the tables, or bring them to this program's version, and give the server's role what it needs.
    #[command(
        after_help = "Example:\n  BAILIWICK_DATABASE_OWNER_URL=postgres://owner:PASSWORD@localhost/bailiwick \\\n    \
                      bailiwick database prepare -c bailiwick.toml"
    )]
    Prepare {
        /// The configuration, whose database.url names the server's role [default: bailiwick.toml, if there is one].
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The same database, as the role that owns the tables.
        #[arg(long, value_name = "URL", env = "BAILIWICK_DATABASE_OWNER_URL", hide_env_values = true)]
        owner_url: String,
        /// The server's role, if not the one in database.url.
        #[arg(long, value_name = "NAME")]
        role: Option<String>,
    },
}

pub(crate) async fn run(command: DatabaseCommand, format: Format) -> Result<(), Failure> {
    let DatabaseCommand::Prepare { config, owner_url, role } = command;
    let usage = |text: String, hint| Failure::Usage { text, hint };
    let owner = match owner_url.parse::<DatabaseUrl>() {
        Ok(DatabaseUrl::Postgres(url)) => url,
        Ok(DatabaseUrl::Sqlite) => {
            return Err(usage("SQLite needs no preparation".to_owned(), "start the server: it makes what it needs"));
        }
        Err(error) => return Err(usage(format!("--owner-url {error}"), "write postgres://OWNER@HOST/DATABASE")),
    };
    let role = match role {
        Some(role) => role,
        None => match Sources::of_process().with_file(config).load().config?.database {
            DatabaseUrl::Postgres(url) if url.database() == owner.database() => url.user().to_owned(),
            DatabaseUrl::Postgres(_) => {
                let text = "--owner-url names another database than database.url".to_owned();
                return Err(usage(text, "name the same database, or give --role"));
            }
            DatabaseUrl::Sqlite => {
                let text = "database.url is \"sqlite:\"".to_owned();
                return Err(usage(text, "set database.url to the server's role, or give --role"));
            }
        },
    };
    let (from, to) = bailiwick_store::postgres::prepare(&owner, &role).await.map_err(DatabaseError::Prepare)?;
    if format == Format::Json {
        out::json(&json!({ "from": from, "to": to, "role": role }));
    } else if from == to {
        out::line(&format!("The database is of version {to} already; role {} has what it needs.", out::clean(&role)));
    } else {
        out::line(&format!("The database is ready for role {}: version {to}.", out::clean(&role)));
    }
    Ok(())
}

/// The database could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("the database could not be made ready, and is as it was")]
    Prepare(#[source] StoreError),
}
