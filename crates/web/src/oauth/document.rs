//! Programs that are known by a document: their `client_id` is the address at which they say who they are
//! (draft-ietf-oauth-client-id-metadata-document, and MCP's authorization of 2025-11-25).
//!
//! A stranger names the address, so it is called as nobody's word: by TLS, at public addresses alone, without
//! redirects, for five seconds. It is called only in the name of a user who may let a program in, a few times a
//! minute; a program that asks for tokens makes nobody fetch anything. What is there must name its own address
//! to the letter, and is kept for as long as its server says, within bounds. What it says is believed by
//! nobody: the page names the host.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::AllowApplication;
use bailiwick_auth::authn::outbound::{Call, CallError, LedBy, Outbound, Reply};
use bailiwick_store::Store;
use bailiwick_types::DocumentUrl;
use lru::LruCache;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, json};
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::time::Instant;

use super::redirect::RedirectUri;
use super::register::LONGEST_NAME;
use crate::error::Failure;
use crate::input::line;
use crate::rate::{Limiter, TooFast};

/// Longest document, bytes. The draft advises 5 KiB.
const LONGEST: usize = 8 * 1024;
/// Documents that are kept; the one that was asked for longest ago makes room.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
/// How long nobody asks again after a failure. It is shorter than the shortest life of a document.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Documents that are fetched at once.
const AT_ONCE: usize = 16;
/// Documents that one user, and one account, may have fetched within a minute.
const BY_USER: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
const BY_ACCOUNT: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

/// The documents of clients, if they are taken.
pub enum Documents {
    /// Clients are known by their registration alone.
    Off,
    /// They are fetched.
    On(Box<Library>),
}

impl Documents {
    /// Takes documents, which that client fetches.
    pub fn fetched_by(outbound: Arc<dyn Outbound>) -> Self {
        Self::On(Box::new(Library {
            outbound,
            shelves: Mutex::new(LruCache::new(KEPT)),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            users: Limiter::per_minute(BY_USER),
            accounts: Limiter::per_minute(BY_ACCOUNT),
        }))
    }

    /// Whether there are any.
    pub(crate) fn are_taken(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// What the document there says, for a user who may let its client in. `None`: documents are not taken.
    pub(crate) async fn read(
        &self,
        store: &Store,
        permit: &Permit<AllowApplication>,
        url: &DocumentUrl,
    ) -> Result<Option<Arc<Document>>, Failure> {
        match self {
            Self::Off => Ok(None),
            Self::On(library) => library.read(store, permit, url).await.map(Some),
        }
    }
}

/// What was fetched, and by whom it is.
pub struct Library {
    outbound: Arc<dyn Outbound>,
    shelves: Mutex<LruCache<DocumentUrl, Shelf>>,
    places: Arc<Semaphore>,
    users: Limiter,
    accounts: Limiter,
}

/// The place of one document. Who holds it fetches; the others wait for them.
type Shelf = Arc<tokio::sync::Mutex<Option<Held>>>;

/// What came of a fetch, and until when that counts.
#[derive(Clone)]
struct Held {
    outcome: Result<Arc<Document>, Unfit>,
    until: Instant,
}

impl Library {
    async fn read(
        &self,
        store: &Store,
        permit: &Permit<AllowApplication>,
        url: &DocumentUrl,
    ) -> Result<Arc<Document>, Failure> {
        if let Some(shelf) = self.shelf(url)
            && let Some(held) = fresh(&*shelf.lock().await)
        {
            return Ok(held.outcome?);
        }
        let (account, user) = (permit.tenant().incarnation(), permit.resource().name());
        self.users.check((account, user))?;
        self.accounts.check(account)?;
        let held = Arc::clone(&self.new_shelf(url)).lock_owned().await;
        // Somebody else may have fetched it meanwhile.
        if let Some(held) = fresh(&held) {
            return Ok(held.outcome?);
        }
        let outcome = self.fetch(url.clone(), held).await?;
        let (verdict, code) = match &outcome {
            Ok(_) => (Verdict::Ok, "fetched"),
            Err(unfit) => (Verdict::Fail, unfit.code()),
        };
        let detail = Map::from_iter([("client".to_owned(), json!(url)), ("code".to_owned(), json!(code))]);
        let mut draft = permit.draft(Phase::Observation, verdict, detail);
        draft.action = "client.fetch".to_owned();
        store.observe(Some(permit.tenant()), draft);
        Ok(outcome?)
    }

    fn shelf(&self, url: &DocumentUrl) -> Option<Shelf> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner).get(url).map(Arc::clone)
    }

    fn new_shelf(&self, url: &DocumentUrl) -> Shelf {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shelves.get_or_insert(url.clone(), Shelf::default))
    }

    /// Fetches it, and keeps what came of that. A task of its own does it, so that whoever hangs up and comes
    /// again does not begin it anew.
    async fn fetch(
        &self,
        url: DocumentUrl,
        mut held: OwnedMutexGuard<Option<Held>>,
    ) -> Result<Result<Arc<Document>, Unfit>, Failure> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(TooFast(AFTER_FULL).into());
        };
        let outbound = Arc::clone(&self.outbound);
        let fetching = tokio::spawn(async move {
            let reply = outbound.call(Call { url: url.as_str(), led_by: LedBy::Stranger, form: None }).await;
            let read = reply.map_err(Unfit::Call).and_then(|reply| {
                let document = Document::read(&reply, &url)?;
                Ok((Arc::new(document), reply.lifetime()))
            });
            let (outcome, lifetime) = match read {
                Ok((document, lifetime)) => (Ok(document), lifetime),
                Err(unfit) => {
                    tracing::info!(client = %url, error = %unfit, "a client's document is not taken");
                    (Err(unfit), AFTER_FAILURE)
                }
            };
            *held = Some(Held { outcome: outcome.clone(), until: Instant::now() + lifetime });
            drop(place);
            outcome
        });
        fetching.await.map_err(|_| Failure::Defect("a client's document could not be read"))
    }
}

/// When to come again where all places are taken, seconds: no fetch takes longer.
const AFTER_FULL: u64 = 5;

fn fresh(held: &Option<Held>) -> Option<Held> {
    held.as_ref().filter(|held| Instant::now() < held.until).cloned()
}

/// Why a document is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unfit {
    /// It cannot be had.
    #[error("{0}")]
    Call(CallError),
    /// There is something else than a document, or the way to one.
    #[error("its answer is none of status 200")]
    Status,
    #[error("its answer is no JSON by its type, or too long")]
    Form,
    #[error("its answer has not the fields of a client")]
    Fields,
    #[error("it is the document of another address")]
    OtherClient,
    #[error("it speaks of a secret, which everybody could read there")]
    Secret,
    #[error("it names no address that a browser may be sent to")]
    RedirectUris,
}

impl Unfit {
    /// The word on record.
    const fn code(self) -> &'static str {
        match self {
            Self::Call(CallError::Address) => "address",
            Self::Call(CallError::Network) => "network",
            Self::Call(CallError::Silent) => "silent",
            Self::Call(CallError::TooLong) => "too_long",
            Self::Status => "status",
            Self::Form => "form",
            Self::Fields => "fields",
            Self::OtherClient => "other_client",
            Self::Secret => "secret",
            Self::RedirectUris => "redirect_uris",
        }
    }
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        let message = match unfit {
            // One answer for all of these: what is behind an address is nobody's to find out by this server.
            Unfit::Call(_) | Unfit::Status => {
                "the document of this program cannot be had: tell whoever makes it, or try again in a minute"
            }
            Unfit::Form => "the document of this program is none: JSON of at most 8 KiB, by its type too",
            Unfit::Fields => {
                "the document of this program lacks something: client_id, redirect_uris, a name of one line, authorization_code and code"
            }
            Unfit::OtherClient => "the document of this program is another one's: its client_id is not its address",
            Unfit::Secret => {
                "the document of this program speaks of a secret: token_endpoint_auth_method none is what there is"
            }
            Unfit::RedirectUris => {
                "the document of this program names no address to go back to: https, or http to 127.0.0.1, [::1] or localhost"
            }
        };
        Self::NotAccepted { reason: "client_document", message }
    }
}

/// What a document says of its client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// As it calls itself; else its host.
    pub(crate) name: String,
    /// Where it may be sent.
    pub(crate) redirect_uris: Vec<String>,
}

/// The fields that mean something here. One that comes twice is no field.
#[derive(Deserialize)]
struct Fields {
    client_id: String,
    client_name: Option<String>,
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    client_secret: Option<IgnoredAny>,
    client_secret_expires_at: Option<IgnoredAny>,
}

impl Document {
    fn read(reply: &Reply, url: &DocumentUrl) -> Result<Self, Unfit> {
        if reply.status != 200 {
            return Err(Unfit::Status);
        }
        if reply.body.len() > LONGEST || !reply.content_type.as_deref().is_some_and(is_json) {
            return Err(Unfit::Form);
        }
        let fields: Fields = serde_json::from_slice(&reply.body).map_err(|_| Unfit::Fields)?;
        if fields.client_id != url.as_str() {
            return Err(Unfit::OtherClient);
        }
        // Who says nothing has no secret either: here nobody could have one.
        let none = fields.token_endpoint_auth_method.is_none_or(|method| method == "none");
        if !none || fields.client_secret.is_some() || fields.client_secret_expires_at.is_some() {
            return Err(Unfit::Secret);
        }
        let asks = |asked: &Option<Vec<String>>, word: &str| {
            asked.as_ref().is_none_or(|asked| asked.iter().any(|one| one == word))
        };
        if !asks(&fields.grant_types, "authorization_code") || !asks(&fields.response_types, "code") {
            return Err(Unfit::Fields);
        }
        let name = fields.client_name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| url.host().to_owned());
        line("client_name", &name, LONGEST_NAME).map_err(|_| Unfit::Fields)?;
        // A document is written for every server. What it names for others, such as a scheme that any program
        // can take for itself, is left out here.
        let fits = |uri: &String| RedirectUri::parse(uri).is_some_and(|uri| !uri.is_program());
        let redirect_uris: Vec<String> = fields.redirect_uris.into_iter().filter(fits).collect();
        if redirect_uris.is_empty() {
            return Err(Unfit::RedirectUris);
        }
        Ok(Self { name, redirect_uris })
    }
}

/// Whether that is JSON by its type (RFC 6839, section 3.1): not what somebody's visitor uploaded as a picture.
fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or(content_type).trim().to_ascii_lowercase();
    kind == "application/json" || kind.strip_prefix("application/").is_some_and(|rest| rest.ends_with("+json"))
}
