//! What an application shows for tokens, judged and spent in one transaction.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::UseApplication;
use bailiwick_auth::key::{KeyHash, Kind};
use bailiwick_types::{ApplicationId, ClientIdentifier, KeyScope, Timestamp, UserName};
use serde_json::{Map, json};

use super::{end, insert};
use crate::engine::Tx;
use crate::error::StoreError;
use crate::key::scopes_parse;
use crate::log;
use crate::sql::args;
use crate::store::Store;

/// Used refresh tokens, and access tokens, that are kept of one application. An older one that comes again is
/// no token any more, and opens as little.
const KEPT: u32 = 200;

/// Two tokens that an application is to be given.
pub struct NewTokens {
    /// The hash of the access token.
    pub access: KeyHash,
    /// Until when it is good.
    pub access_ends: Timestamp,
    /// The hash of the refresh token.
    pub refresh: KeyHash,
    /// Until when it is good.
    pub refresh_ends: Timestamp,
}

/// What a client shows for tokens.
pub struct Shown {
    /// Of which application.
    pub id: ApplicationId,
    /// The hash of the code, or of the refresh token.
    pub hash: KeyHash,
    /// The client, which has proven who it is as far as it can.
    pub client: ClientIdentifier,
    /// For which part of the server, where it is said again.
    pub resource: Option<String>,
}

/// To what a code is bound, as the client shows it.
pub struct Proof {
    /// Where the code was sent.
    pub redirect_uri: String,
    /// What its verifier comes to.
    pub challenge: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchanged {
    /// The tokens are good for this.
    Given(Vec<KeyScope>),
    /// They are not made.
    Refused(Why),
}

/// Why not. The word is for the record; the client is told less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was used before, so the application has ended.
    Replayed,
    /// It is too old.
    Expired,
    /// It was given to another client.
    OtherClient,
    /// The code was sent elsewhere.
    OtherRedirect,
    /// The verifier is not that of who asked.
    Verifier,
    /// It is for another part of the server.
    OtherResource,
    /// More is asked for than was allowed.
    Scope,
}

impl Why {
    /// The word on record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Expired => "expired",
            Self::OtherClient => "other_client",
            Self::OtherRedirect => "other_redirect_uri",
            Self::Verifier => "wrong_verifier",
            Self::OtherResource => "other_resource",
            Self::Scope => "scope",
        }
    }
}

impl Store {
    /// Gives tokens for a code, once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the application ended meanwhile.
    pub async fn application_redeem(
        &self,
        permit: Permit<UseApplication>,
        shown: Shown,
        proof: Proof,
        new: NewTokens,
    ) -> Result<Exchanged, StoreError> {
        let client = shown.client.clone();
        let exchanged = self.exchange(permit, Kind::Code, shown, new, move |found| {
            let Proof { redirect_uri, challenge } = &proof;
            if found.redirect_uri != *redirect_uri {
                return Err(Why::OtherRedirect);
            }
            if found.challenge != *challenge { Err(Why::Verifier) } else { Ok(found.allowed.clone()) }
        });
        let exchanged = exchanged.await?;
        // The code is spent: what was given for it must not be lost over a note, which the next renewal makes as well.
        if matches!(exchanged, Exchanged::Given(_))
            && let Err(error) = self.client_used(&client).await
        {
            tracing::warn!(%error, "that a client got tokens was not noted");
        }
        Ok(exchanged)
    }

    /// Gives the next tokens for a refresh token, once. `narrower`: for less than was allowed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the application ended meanwhile.
    pub async fn application_renew(
        &self,
        permit: Permit<UseApplication>,
        shown: Shown,
        narrower: Option<Vec<KeyScope>>,
        new: NewTokens,
    ) -> Result<Exchanged, StoreError> {
        self.client_used(&shown.client).await?;
        self.exchange(permit, Kind::Refresh, shown, new, move |found| match &narrower {
            None => Ok(found.allowed.clone()),
            Some(wanted) if wanted.iter().all(|scope| found.allowed.contains(scope)) => Ok(wanted.clone()),
            Some(_) => Err(Why::Scope),
        })
        .await
    }

    async fn exchange(
        &self,
        permit: Permit<UseApplication>,
        kind: Kind,
        shown: Shown,
        new: NewTokens,
        judge: impl Fn(&Found) -> Result<Vec<KeyScope>, Why> + Send + 'static,
    ) -> Result<Exchanged, StoreError> {
        let user = permit.resource().name().clone();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, told(&shown, kind.as_str()));
        let id = shown.id.to_string();
        let exchanged = self
            .write(permit.tenant(), move |tx| {
                let found = find(tx, &user, kind, &shown)?;
                let judged = found.fits(&shown).and_then(|()| judge(&found));
                let answer = match judged {
                    Ok(scopes) => {
                        give(tx, &shown, &found, &scopes, &new)?;
                        draft.detail.insert("scopes".to_owned(), json!(scopes));
                        Exchanged::Given(scopes)
                    }
                    Err(why) => {
                        if why == Why::Replayed {
                            end(tx, shown.id.as_str())?;
                        }
                        draft.verdict = Verdict::Denied;
                        draft.detail.insert("code".to_owned(), json!(why.as_str()));
                        Exchanged::Refused(why)
                    }
                };
                log::append(tx, draft)?;
                Ok(answer)
            })
            .await?;
        if exchanged == Exchanged::Refused(Why::Replayed) {
            self.key_unlocate(vec![id]).await?;
        }
        Ok(exchanged)
    }

    /// Ends an application at its own wish (RFC 7009): with one of its tokens go all. A client that gives back
    /// what is another's is refused.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it ended meanwhile.
    pub async fn application_give_back(
        &self,
        permit: Permit<UseApplication>,
        kind: Kind,
        shown: Shown,
    ) -> Result<Exchanged, StoreError> {
        let user = permit.resource().name().clone();
        let mut draft = permit.draft(Phase::Act, Verdict::Ok, told(&shown, "given_back"));
        let id = shown.id.to_string();
        let answer = self
            .write(permit.tenant(), move |tx| {
                let found = find(tx, &user, kind, &shown)?;
                let answer = if found.client == shown.client {
                    end(tx, shown.id.as_str())?;
                    Exchanged::Given(Vec::new())
                } else {
                    draft.verdict = Verdict::Denied;
                    draft.detail.insert("code".to_owned(), json!(Why::OtherClient.as_str()));
                    Exchanged::Refused(Why::OtherClient)
                };
                log::append(tx, draft)?;
                Ok(answer)
            })
            .await?;
        if matches!(answer, Exchanged::Given(_)) {
            self.key_unlocate(vec![id]).await?;
        }
        Ok(answer)
    }
}

/// The row of what a client shows, with what it is bound to.
struct Found {
    client: ClientIdentifier,
    redirect_uri: String,
    challenge: String,
    resource: String,
    allowed: Vec<KeyScope>,
    expires_at: Timestamp,
    used_at: Option<Timestamp>,
}

impl Found {
    /// What holds for codes and refresh tokens alike. The client comes first: another one must not be able to
    /// end what it knows of, and use comes before age, for what was stolen is stolen.
    fn fits(&self, shown: &Shown) -> Result<(), Why> {
        if self.client != shown.client {
            return Err(Why::OtherClient);
        }
        if self.used_at.is_some() {
            return Err(Why::Replayed);
        }
        if self.expires_at <= Timestamp::now() {
            return Err(Why::Expired);
        }
        match &shown.resource {
            Some(resource) if *resource != self.resource => Err(Why::OtherResource),
            _ => Ok(()),
        }
    }
}

fn find(tx: &Tx<'_>, user: &UserName, kind: Kind, shown: &Shown) -> Result<Found, StoreError> {
    let found = tx.one(
        "SELECT a.client, a.redirect_uri, a.challenge, a.resource, a.scopes, t.expires_at, t.used_at \
         FROM application_token t JOIN application a ON a.account = t.account AND a.id = t.application \
         WHERE t.account = ?1 AND t.application = ?2 AND t.hash = ?3 AND t.kind = ?4 AND a.holder = ?5",
        args![&shown.id, shown.hash.as_bytes(), kind.as_str(), user],
        |row| {
            Ok(Found {
                client: row.parse(0)?,
                redirect_uri: row.text(1)?,
                challenge: row.text(2)?,
                resource: row.text(3)?,
                allowed: scopes_parse(&row.text(4)?)?,
                expires_at: row.time(5)?,
                used_at: row.optional_time(6)?,
            })
        },
    )?;
    found.ok_or_else(|| StoreError::not_found("application", &shown.id))
}

/// Spends what was shown, and makes the two tokens.
fn give(tx: &mut Tx<'_>, shown: &Shown, found: &Found, scopes: &[KeyScope], new: &NewTokens) -> Result<(), StoreError> {
    let (id, now) = (&shown.id, Timestamp::now());
    tx.exec(
        "UPDATE application_token SET used_at = ?4 WHERE account = ?1 AND application = ?2 AND hash = ?3",
        args![id, shown.hash.as_bytes(), now],
    )?;
    tx.exec("UPDATE application SET last_used_at = ?3 WHERE account = ?1 AND id = ?2", args![id, now])?;
    insert(tx, id, (Kind::Access, &new.access, new.access_ends), scopes)?;
    // The next ones may be for all that was allowed, whatever these are for.
    insert(tx, id, (Kind::Refresh, &new.refresh, new.refresh_ends), &found.allowed)?;
    tx.exec(
        "DELETE FROM application_token WHERE account = ?1 AND application = ?2 AND kind <> 'code' \
         AND (expires_at < ?3 OR ((used_at IS NOT NULL OR kind = 'access') AND hash NOT IN ( \
         SELECT hash FROM application_token WHERE account = ?1 AND application = ?2 \
         ORDER BY created_at DESC, used_at IS NULL DESC LIMIT ?4)))",
        args![id, now, KEPT],
    )
    .map(drop)
}

/// What the record says of an exchange.
fn told(shown: &Shown, by: &str) -> Map<String, serde_json::Value> {
    Map::from_iter([
        ("application".to_owned(), json!(shown.id)),
        ("client".to_owned(), json!(shown.client)),
        ("by".to_owned(), json!(by)),
    ])
}
