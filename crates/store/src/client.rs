//! Clients of the authorization server: programs of others, known by name and by where they may be sent.
//!
//! They belong to the host and to no account. Anybody may register one (RFC 7591), so a registration is worth
//! nothing by itself: it is bounded in number, and one that never got a token expires.

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::HostPermit;
use bailiwick_auth::access::verb::{CreateClient, DeleteClient, ListClients};
use bailiwick_auth::key::KeyHash;
use bailiwick_types::{ClientId, ClientIdentifier, RequestId, Timestamp};
use serde_json::{Map, json};

use crate::engine::Tx;
use crate::error::StoreError;
use crate::log;
use crate::sql::{Row, args};
use crate::store::Store;

const HOUR: i64 = 3600 * 1_000_000;
/// How long a registration waits for its first user.
const UNUSED: i64 = 24 * HOUR;
/// How long one stays that no application has renewed a token with.
const STALE: i64 = 180 * 24 * HOUR;
/// Registrations from one address within an hour.
const MOST_BY_ADDRESS: u64 = 20;
/// Registrations altogether.
const MOST: u64 = 10_000;

/// Who made a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The operator, who knows the program.
    Operator,
    /// The program itself. What it says of itself is not looked at by anybody.
    Itself,
}

impl Source {
    /// The word that is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Itself => "itself",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "operator" => Ok(Self::Operator),
            "itself" => Ok(Self::Itself),
            _ => Err(StoreError::Corrupt("a client's source")),
        }
    }
}

/// A client.
#[derive(Clone)]
pub struct ClientRow {
    /// Its public name, `client_id`.
    pub id: ClientId,
    /// For people, as it calls itself.
    pub name: String,
    /// The hash of its secret, if it can keep one.
    pub secret: Option<KeyHash>,
    /// Where it may be sent.
    pub redirect_uris: Vec<String>,
    /// Who registered it.
    pub source: Source,
    /// When.
    pub created_at: Timestamp,
    /// When it last got a token, to the day.
    pub used_at: Option<Timestamp>,
}

/// A client that is being registered.
pub struct NewClient {
    /// Its id.
    pub id: ClientId,
    /// The hash of its secret, if it is to have one.
    pub secret: Option<KeyHash>,
    /// For people.
    pub name: String,
    /// Where it may be sent.
    pub redirect_uris: Vec<String>,
}

/// From where somebody registers a client.
pub struct Registrar {
    /// The address, for the record.
    pub address: String,
    /// As what it is counted: networks that one host has are one.
    pub counted: String,
    /// In which request.
    pub request: RequestId,
}

impl Store {
    /// The client of that id, if there is one. Asked before anybody is known.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn client_read(&self, id: &ClientId) -> Result<Option<ClientRow>, StoreError> {
        self.host()
            .read(|sql| {
                sql.one(
                    "SELECT id, name, hash, redirect_uris, source, created_at, used_at FROM oauth_client \
                     WHERE ?1 = 'host' AND id = ?2",
                    args![id],
                    client_row,
                )
            })
            .await
    }

    /// Registers a client at its own wish, on record in the host's log.
    ///
    /// # Errors
    /// `too_many_registrations`.
    pub async fn client_register(&self, new: NewClient, by: Registrar) -> Result<Timestamp, StoreError> {
        let detail = Map::from_iter([
            ("name".to_owned(), json!(new.name)),
            ("redirect_uris".to_owned(), json!(new.redirect_uris)),
        ]);
        let draft = Draft {
            actor: Actor::Unknown,
            credential: "none".to_owned(),
            address: by.address,
            request: Some(by.request),
            action: "client.register".to_owned(),
            resource: format!("client:{}", new.id),
            space: None,
            agent: None,
            phase: Phase::Act,
            verdict: Verdict::Ok,
            intent: None,
            detail,
        };
        self.writers()
            .write(self.host(), move |tx| {
                make_room(tx, &by.counted)?;
                let now = insert(tx, &new, Source::Itself, &by.counted)?;
                log::append(tx, draft)?;
                Ok(now)
            })
            .await
    }

    /// Registers a client that the operator knows. It never expires.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn client_create(
        &self,
        permit: HostPermit<CreateClient>,
        new: NewClient,
    ) -> Result<Timestamp, StoreError> {
        let detail = Map::from_iter([
            ("name".to_owned(), json!(new.name)),
            ("redirect_uris".to_owned(), json!(new.redirect_uris)),
        ]);
        let draft = permit.draft(format!("client:{}", new.id), Verdict::Ok, detail);
        self.writers()
            .write(self.host(), move |tx| {
                let now = insert(tx, &new, Source::Operator, "")?;
                log::append(tx, draft)?;
                Ok(now)
            })
            .await
    }

    /// All clients, the newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn client_list(&self, _permit: HostPermit<ListClients>) -> Result<Vec<ClientRow>, StoreError> {
        self.host()
            .read(|sql| {
                sql.all(
                    "SELECT id, name, hash, redirect_uris, source, created_at, used_at FROM oauth_client \
                     WHERE ?1 = 'host' ORDER BY created_at DESC, id",
                    args![],
                    client_row,
                )
            })
            .await
    }

    /// Takes a registration away. No application of it gets another token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn client_delete(&self, permit: HostPermit<DeleteClient>, id: ClientId) -> Result<(), StoreError> {
        let draft = permit.draft(format!("client:{id}"), Verdict::Ok, Map::new());
        self.writers()
            .write(self.host(), move |tx| {
                if tx.exec("DELETE FROM oauth_client WHERE ?1 = 'host' AND id = ?2", args![&id])? == 0 {
                    return Err(StoreError::not_found("client", &id));
                }
                log::append(tx, draft).map(drop)
            })
            .await
    }

    /// Whether a client is still there. Of one that is known by a document nothing is kept here that could be
    /// gone.
    pub(crate) async fn client_there(&self, id: &ClientIdentifier) -> Result<bool, StoreError> {
        match id {
            ClientIdentifier::Document(_) => Ok(true),
            ClientIdentifier::Registered(id) => Ok(self.client_read(id).await?.is_some()),
        }
    }

    /// Notes that a client got tokens, to the day. That somebody let it in is no use yet: a consent costs
    /// nothing, and would keep it here for half a year.
    pub(crate) async fn client_used(&self, id: &ClientIdentifier) -> Result<(), StoreError> {
        let ClientIdentifier::Registered(id) = id else { return Ok(()) };
        let (id, now) = (id.clone(), Timestamp::now());
        let Some(row) = self.client_read(&id).await? else { return Ok(()) };
        if row.used_at.is_some_and(|used| now.as_micros() - used.as_micros() < 24 * HOUR) {
            return Ok(());
        }
        self.writers()
            .write(self.host(), move |tx| {
                tx.exec("UPDATE oauth_client SET used_at = ?3 WHERE ?1 = 'host' AND id = ?2", args![&id, now]).map(drop)
            })
            .await
    }
}

/// Forgets what nobody uses, and says whether one more from there is too many.
fn make_room(tx: &mut Tx<'_>, counted: &str) -> Result<(), StoreError> {
    let now = Timestamp::now().as_micros();
    tx.exec(
        "DELETE FROM oauth_client WHERE ?1 = 'host' AND source = 'itself' \
         AND ((used_at IS NULL AND created_at < ?2) OR used_at < ?3)",
        args![now - UNUSED, now - STALE],
    )?;
    let recent = tx.one(
        "SELECT count(*) FROM oauth_client WHERE ?1 = 'host' AND address = ?2 AND created_at > ?3",
        args![counted, now - HOUR],
        |row| row.count(0),
    )?;
    if recent.unwrap_or(0) >= MOST_BY_ADDRESS {
        return Err(TOO_MANY);
    }
    let all = tx.one("SELECT count(*) FROM oauth_client WHERE ?1 = 'host'", args![], |row| row.count(0))?;
    if all.unwrap_or(0) < MOST {
        return Ok(());
    }
    // Full: the one that has waited in vain for the longest makes room, or else the one that was used longest
    // ago, so that neither a flood from many addresses nor one account with many programs keeps others out for
    // longer than an hour. Who loses theirs registers again.
    let gone = tx.exec(
        "DELETE FROM oauth_client WHERE ?1 = 'host' AND id IN (SELECT id FROM oauth_client \
         WHERE source = 'itself' AND created_at < ?2 \
         ORDER BY used_at IS NOT NULL, coalesce(used_at, created_at), id LIMIT 1)",
        args![now - HOUR],
    )?;
    if gone == 0 { Err(TOO_MANY) } else { Ok(()) }
}

fn insert(tx: &mut Tx<'_>, new: &NewClient, source: Source, counted: &str) -> Result<Timestamp, StoreError> {
    let now = Timestamp::now();
    tx.exec(
        "INSERT INTO oauth_client (id, name, hash, redirect_uris, source, address, created_at) \
         SELECT ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE ?1 = 'host'",
        args![
            &new.id,
            &new.name,
            new.secret.as_ref().map(KeyHash::as_bytes),
            serde_json::to_string(&new.redirect_uris)?,
            source.as_str(),
            counted,
            now,
        ],
    )?;
    Ok(now)
}

fn client_row(row: &Row<'_>) -> Result<ClientRow, StoreError> {
    let secret = match row.optional_blob(2)? {
        Some(bytes) => Some(KeyHash::from_bytes(&bytes).ok_or(StoreError::Corrupt("a client's hash"))?),
        None => None,
    };
    Ok(ClientRow {
        id: row.parse(0)?,
        name: row.text(1)?,
        secret,
        redirect_uris: row.json(3)?,
        source: Source::parse(&row.text(4)?)?,
        created_at: row.time(5)?,
        used_at: row.optional_time(6)?,
    })
}

const TOO_MANY: StoreError = StoreError::Conflict {
    code: "too_many_registrations",
    message: "too many clients were registered just now: try again later",
};
