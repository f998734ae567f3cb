//! A PostgreSQL database made ready, and looked at before it is used.
//!
//! Two roles: one owns the tables and is used by [`prepare`] alone; the server has another, which owns
//! nothing, cannot pass row-level security by, and cannot become the first. The server looks at each start
//! whether that is so and refuses to run where it is not: security that is on paper only is worse than none.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::engine::postgres::Pool;
use crate::error::StoreError;
use crate::url::PostgresUrl;

/// The schema, step by step.
const STEPS: &[&str] = &[
    include_str!("schema/postgres_1.sql"),
    include_str!("schema/postgres_2.sql"),
    include_str!("schema/postgres_3.sql"),
    include_str!("schema/postgres_4.sql"),
    include_str!("schema/postgres_5.sql"),
    include_str!("schema/postgres_6.sql"),
    include_str!("schema/postgres_7.sql"),
    include_str!("schema/postgres_8.sql"),
    include_str!("schema/postgres_9.sql"),
];
const GRANTS: &str = include_str!("schema/postgres_grants.sql");

/// `pg_current_xact_id` and `xid8` are of version 13.
const OLDEST: i32 = 130_000;

/// Brings a database to the newest version and gives the server's role what it needs, as the owner of the
/// tables. Says from which version to which. Nothing is done by halves.
///
/// # Errors
/// [`StoreError::Unsafe`] if `role` is not fit to be the server's; [`StoreError::Version`] if the database
/// is newer than this program.
pub async fn prepare(owner: &PostgresUrl, role: &str) -> Result<(i64, i64), StoreError> {
    if owner.user() == role {
        return Err(StoreError::Unsafe("the server's role must not own the tables: give it another role".to_owned()));
    }
    let mut client = owner.connect().await?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let tx = client.transaction().await?;
    // Two that prepare at once would trip over each other.
    tx.batch_execute("SELECT pg_advisory_xact_lock(hashtextextended('bailiwick prepare', 0))").await?;
    tx.batch_execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)").await?;
    let row = tx.query_opt("SELECT version FROM schema_version", &[]).await?;
    let found: i64 = row.map_or(0, |row| row.get(0));
    if found > known {
        return Err(StoreError::Version { found, known });
    }
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.batch_execute(step).await?;
    }
    tx.batch_execute("DELETE FROM schema_version").await?;
    tx.execute("INSERT INTO schema_version VALUES ($1)", &[&known]).await?;
    let exists = tx.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await?;
    if exists.is_none() {
        return Err(StoreError::Unsafe(format!(
            "there is no role {role}: make it with CREATE ROLE \"{role}\" LOGIN PASSWORD '…'"
        )));
    }
    tx.query_one("SELECT set_config('bailiwick.role', $1, true)", &[&role]).await?;
    tx.batch_execute(GRANTS).await?;
    tx.commit().await?;
    Ok((found, known))
}

/// Opens the pool of a server, once the database has shown that it is safe to use.
pub(crate) fn open(url: &PostgresUrl) -> Result<Arc<Pool>, StoreError> {
    let pool = Pool::new(url.clone())?;
    let session = pool.connect()?;
    pool.block_on(inspect(session.client()))?;
    Ok(pool)
}

/// Every reason for which row-level security would not hold for this role in this database.
async fn inspect(client: &Client) -> Result<(), StoreError> {
    let version: i32 = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await?.get(0);
    if version < OLDEST {
        return Err(StoreError::Unsafe(format!("PostgreSQL 13 or newer is needed, this is {}", version / 10_000)));
    }
    all_well(client, ROLE_FACTS).await?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let there: bool = client.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?.get(0);
    let found: i64 = match there {
        false => 0,
        true => {
            let readable = "SELECT has_table_privilege('schema_version', 'SELECT')";
            if !client.query_one(readable, &[]).await?.get::<_, bool>(0) {
                return Err(StoreError::Unsafe("it was not made ready for the server's role".to_owned()));
            }
            client.query_opt("SELECT version FROM schema_version", &[]).await?.map_or(0, |row| row.get(0))
        }
    };
    if found != known {
        return Err(StoreError::Version { found, known });
    }
    all_well(client, TABLE_FACTS).await
}

/// Every fact that does not hold, in one error.
async fn all_well(client: &Client, facts: &[(&str, &str)]) -> Result<(), StoreError> {
    let mut wrong = Vec::new();
    for (text, what) in facts {
        let names: Vec<String> = client.query(*text, &[]).await?.iter().map(|row| row.get(0)).collect();
        if !names.is_empty() {
            wrong.push(format!("{what} ({})", names.join(", ")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(StoreError::Unsafe(wrong.join("; "))) }
}

/// Each names what is wrong; nothing is well.
const ROLE_FACTS: &[(&str, &str)] = &[
    (
        "SELECT rolname::text FROM pg_roles WHERE rolname = current_user AND rolsuper",
        "the server's role is a superuser",
    ),
    (
        "SELECT rolname::text FROM pg_roles WHERE rolname = current_user AND rolbypassrls",
        "the server's role has BYPASSRLS",
    ),
    (
        "SELECT rolname::text FROM pg_roles r WHERE rolname <> current_user AND pg_has_role(current_user, r.oid, 'MEMBER') \
         AND (rolsuper OR rolbypassrls OR rolcreaterole OR EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid \
         AND c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')))",
        "the server's role can become a role that passes row-level security by",
    ),
    (
        "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace \
         AND relkind IN ('r', 'p', 'v', 'm') AND pg_get_userbyid(relowner) = current_user",
        "the server's role owns tables",
    ),
];

const TABLE_FACTS: &[(&str, &str)] = &[
    (
        "SELECT relname::text FROM pg_class c WHERE relnamespace = current_schema()::regnamespace \
         AND relkind IN ('r', 'p') AND relname <> 'schema_version' AND has_table_privilege(c.oid, 'SELECT') \
         AND NOT (relrowsecurity AND relforcerowsecurity \
         AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid))",
        "tables without forced row-level security",
    ),
    (
        // A second permissive policy would widen what the first one shows.
        "SELECT c.relname || ': ' || p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid \
         WHERE c.relnamespace = current_schema()::regnamespace AND p.polpermissive \
         AND pg_get_expr(p.polqual, p.polrelid) NOT LIKE '%app.account_id%'",
        "policies that do not ask for the tenant",
    ),
    (
        "SELECT t FROM unnest(ARRAY['space', 'session', 'session_event', 'session_message']) t \
         WHERE NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = t::regclass AND NOT p.polpermissive)",
        "tables without the fence between users",
    ),
    (
        "SELECT p FROM unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER', 'UPDATE']) p \
         WHERE has_table_privilege('event', p)",
        "the server's role may change the record",
    ),
    (
        "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace \
         AND relkind IN ('v', 'm') AND has_table_privilege(oid, 'SELECT')",
        "views, which would be read with their owner's rights",
    ),
];
