//! Agent definitions, versioned: a session keeps the version that it began with.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb::{DeleteAgent, ListAgents, PutAgent, ReadAgent};
use bailiwick_auth::{Permit, Tenant};
use bailiwick_types::{AccountName, AgentDefinition, AgentName, Timestamp};
use serde_json::{Map, json};

use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::sql::{Row, Sql, args};
use crate::store::Store;

/// One version of an agent's definition.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// The agent's id.
    pub name: AgentName,
    /// Which version, from 1.
    pub version: u64,
    /// What it says.
    pub definition: AgentDefinition,
    /// Where it came from: `built-in`, `file` or `api`.
    pub source: String,
    /// When it was written.
    pub updated_at: Timestamp,
}

/// Adds a version. Nothing happens if it says what the newest one says.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    name: &AgentName,
    definition: &AgentDefinition,
    source: &str,
) -> Result<u64, StoreError> {
    let newest = tx.one(
        "SELECT version, definition, deleted FROM agent WHERE account = ?1 AND name = ?2 ORDER BY version DESC LIMIT 1",
        args![name],
        |row| Ok((row.count(0)?, row.json::<AgentDefinition>(1)?, row.int(2)? != 0)),
    )?;
    if let Some((version, same, false)) = &newest
        && same == definition
    {
        return Ok(*version);
    }
    let version = newest.map_or(0, |(version, ..)| version) + 1;
    tx.exec(
        "INSERT INTO agent (account, name, version, definition, source, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        args![name, version, serde_json::to_string(definition)?, source, Timestamp::now()],
    )?;
    Ok(version)
}

pub(crate) fn newest(sql: &Sql<'_>, name: &AgentName) -> Result<Option<AgentRow>, StoreError> {
    let row = sql.one(
        "SELECT name, version, definition, source, updated_at, deleted FROM agent WHERE account = ?1 AND name = ?2 \
         ORDER BY version DESC LIMIT 1",
        args![name],
        |row| Ok((agent_row(row)?, row.int(5)? != 0)),
    )?;
    Ok(row.and_then(|(row, deleted)| (!deleted).then_some(row)))
}

pub(crate) fn version(sql: &Sql<'_>, name: &AgentName, version: u64) -> Result<AgentRow, StoreError> {
    sql.one(
        "SELECT name, version, definition, source, updated_at FROM agent \
         WHERE account = ?1 AND name = ?2 AND version = ?3",
        args![name, version],
        agent_row,
    )?
    .ok_or_else(|| StoreError::not_found("agent", name))
}

fn agent_row(row: &Row<'_>) -> Result<AgentRow, StoreError> {
    Ok(AgentRow {
        name: row.parse(0)?,
        version: row.count(1)?,
        definition: row.json(2)?,
        source: row.text(3)?,
        updated_at: row.time(4)?,
    })
}

impl Store {
    /// The newest version of every agent.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn agent_list(&self, permit: Permit<ListAgents>) -> Result<Vec<AgentRow>, StoreError> {
        let bound = permit.scope().bounds().agent;
        let rows = self
            .database(permit.tenant())?
            .read(|sql| {
                sql.all(
                "SELECT name, version, definition, source, updated_at FROM agent a WHERE account = ?1 AND deleted = 0 \
                 AND version = (SELECT max(version) FROM agent b WHERE b.account = a.account AND b.name = a.name) \
                 ORDER BY name",
                args![],
                agent_row,
            )
            })
            .await?;
        Ok(rows.into_iter().filter(|row| bound.as_ref().is_none_or(|only| *only == row.name)).collect())
    }

    /// The newest version of one agent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn agent_read(&self, permit: Permit<ReadAgent>) -> Result<AgentRow, StoreError> {
        let name = permit.resource().name();
        self.database(permit.tenant())?
            .read(|sql| newest(sql, name))
            .await?
            .ok_or_else(|| StoreError::not_found("agent", name))
    }

    /// Creates an agent, or adds a version. Says the version.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn agent_put(
        &self,
        permit: Permit<PutAgent>,
        name: AgentName,
        definition: AgentDefinition,
    ) -> Result<u64, StoreError> {
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            let version = insert(tx, &name, &definition, "api")?;
            draft.resource = format!("agent:{name}");
            draft.agent = Some(name);
            draft.detail.insert("version".to_owned(), json!(version));
            log::append(tx, draft)?;
            Ok(version)
        })
        .await
    }

    /// Deletes an agent. Sessions that began with it keep the version that they have.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn agent_delete(&self, permit: Permit<DeleteAgent>) -> Result<(), StoreError> {
        let name = permit.resource().name().clone();
        let draft = permit.draft(Phase::Act, Verdict::Ok, Map::new());
        self.write(permit.tenant(), move |tx| {
            newest(tx, &name)?.ok_or_else(|| StoreError::not_found("agent", &name))?;
            tx.exec("UPDATE agent SET deleted = 1 WHERE account = ?1 AND name = ?2", args![&name])?;
            crate::secret::forget_agent(tx, &name)?;
            log::append(tx, draft).map(drop)
        })
        .await
    }

    /// Brings the agents of an `agents/` folder into an account, at the start of the server.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn agent_sync(
        &self,
        account: &AccountName,
        agents: Vec<(AgentName, AgentDefinition)>,
    ) -> Result<(), StoreError> {
        let tenant: Tenant = self.tenant_of(account).await?.ok_or_else(|| StoreError::not_found("account", account))?;
        self.write(&tenant, move |tx| {
            for (name, definition) in &agents {
                let before = newest(tx, name)?.map(|row| row.version);
                let version = insert(tx, name, definition, "file")?;
                if before != Some(version) {
                    let mut draft = crate::account::startup("agent.put", format!("agent:{name}"));
                    draft.agent = Some(name.clone());
                    draft.detail.insert("version".to_owned(), json!(version));
                    draft.detail.insert("source".to_owned(), json!("file"));
                    log::append(tx, draft)?;
                }
            }
            Ok(())
        })
        .await
    }
}
