//! Signing in by an OpenID provider (OpenID Connect Core 1.0, section 3.1): the authorization code flow with
//! PKCE (RFC 7636).
//!
//! A flow that is under way is kept by the browser that began it and not by this server, so that nobody can
//! fill anything here by beginning flows, and another server of the same host can end it. Its cookie holds
//! random bytes under a seal of ours; `state`, `nonce` and the code's verifier are made from them with our
//! pepper. Whoever brings an answer without the cookie that belongs to it has begun nothing here.
//!
//! A provider's word is no principal: it is [`Vouched`], which goes on where a password does, in `sign_in`.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailiwick_types::{AccountName, Role, Timestamp, UserName};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use form_urlencoded::Serializer;
use lru::LruCache;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::jwt::{Claims, Issuer, Metadata, Need, Unavailable};
use super::outbound::{Call, Form, LedBy};
use super::sign_in::{SignInError, Whose};
use crate::key::{KeyRing, NoEntropy};

/// How long a person may be away at the provider, seconds.
const AWAY: i64 = 10 * 60;
/// How long a provider's word waits for a second factor, seconds.
const WAITING: i64 = 5 * 60;
/// Codes of one provider that are exchanged at once.
const AT_ONCE: usize = 8;
/// How long one waits for that.
const FOR_A_PLACE: Duration = Duration::from_secs(5);
/// Flows whose answer came: they end once.
const ENDED: usize = 4096;
/// Longest address that is gone to afterwards, bytes: it is carried in a cookie.
const LONGEST_NEXT: usize = 1024;
/// Longest code, bytes.
const LONGEST_CODE: usize = 4096;

/// Whose second factor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecondFactor {
    /// Ours, for users who have set one up: the provider stands for a password.
    #[default]
    Own,
    /// The provider's: the operator trusts it to ask for what is needed.
    Provider,
}

/// What `[auth.oidc.<name>]` says of signing in.
pub struct ProviderSettings {
    /// The name in addresses.
    pub name: String,
    /// For people.
    pub title: String,
    /// What this server is called at the provider.
    pub client_id: String,
    /// Its secret there; a public client has none.
    pub client_secret: Option<Zeroizing<String>>,
    /// What is asked for besides `openid`.
    pub scopes: Vec<String>,
}

/// A provider by which people sign in.
pub struct Provider {
    settings: ProviderSettings,
    /// For identity tokens that were made for this client.
    issuer: Issuer,
    exchanges: Semaphore,
    ended: Mutex<LruCache<String, ()>>,
}

/// A flow that was begun.
pub struct Begun {
    /// Where the browser goes.
    pub location: String,
    /// What it keeps, for ten minutes.
    pub cookie: Zeroizing<String>,
}

/// What the browser brought back.
pub struct Answer<'a> {
    /// As sent, or something else.
    pub state: &'a str,
    /// The code, unless the provider refused.
    pub code: Option<&'a str>,
    /// `iss` (RFC 9207).
    pub issuer: Option<&'a str>,
}

/// Whom a provider vouches for. Nobody is anybody yet: whether there is such a user, and what else is asked
/// for, is `sign_in`'s to say.
#[must_use]
pub struct Vouched {
    pub(super) provider: String,
    pub(super) second_factor: SecondFactor,
    pub(super) account: AccountName,
    pub(super) user: UserName,
    pub(super) role: Option<Role>,
    /// Whose life of the account it was said of, if it was said a while ago.
    pub(super) incarnation: Option<String>,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It was not begun in this browser, or too long ago, or has ended already.
    #[error("This sign-in was begun too long ago, or in another browser or window: begin again.")]
    Gone,
    /// The provider did not sign them in, or they did not want it.
    #[error("Your identity provider did not sign you in: begin again, or sign in another way.")]
    Declined,
    /// What the browser brought is no answer of the provider.
    #[error("This is no answer of your identity provider: begin again.")]
    Answer,
    /// What the provider answered does not hold.
    #[error("What your identity provider answered does not hold: begin again. If it stays so, tell the operator.")]
    Refused,
    /// There is no such user.
    #[error("Your identity provider knows you, and this server does not: ask an admin of your account to add you.")]
    Stranger,
    /// A login would be more than the provider says its user is.
    #[error(
        "Your identity provider gives you a lesser role than you have here: ask an admin of your account to change it."
    )]
    Narrowed,
    /// The provider does not answer.
    #[error("Your identity provider does not answer: try again in a moment, or sign in another way.")]
    Unavailable,
    /// As after a password.
    #[error(transparent)]
    SignIn(#[from] SignInError),
    /// The system's random source failed.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
}

impl ProviderError {
    /// The stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Gone => "provider_gone",
            Self::Declined => "provider_declined",
            Self::Answer => "provider_answer",
            Self::Refused => "provider_refused",
            Self::Stranger => "provider_stranger",
            Self::Narrowed => "provider_narrowed",
            Self::Unavailable => "provider_unavailable",
            Self::SignIn(_) => "sign_in",
            Self::Entropy(_) => "entropy",
        }
    }
}

impl From<Unavailable> for ProviderError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

#[derive(Deserialize)]
struct Complaint {
    error: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

impl Provider {
    /// A provider, over the issuer of the same section. `None` if that one's keys are not discovered.
    pub fn new(settings: ProviderSettings, issuer: &Issuer) -> Option<Self> {
        let issuer = issuer.for_client(&settings.client_id)?;
        let ended = Mutex::new(LruCache::new(NonZeroUsize::new(ENDED)?));
        Some(Self { settings, issuer, exchanges: Semaphore::new(AT_ONCE), ended })
    }

    /// The name in addresses.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// For people.
    pub fn title(&self) -> &str {
        &self.settings.title
    }

    async fn metadata(&self) -> Result<Metadata, ProviderError> {
        let published = self.issuer.published().ok_or(ProviderError::Unavailable)?;
        published.kept(Need::Metadata).await?.metadata.clone().ok_or(ProviderError::Unavailable)
    }

    /// Begins a flow that comes back to `redirect_uri`, and goes on to `next`.
    ///
    /// # Errors
    /// If the provider does not answer, or does no such flow.
    pub async fn begin(&self, ring: &KeyRing, redirect_uri: &str, next: &str) -> Result<Begun, ProviderError> {
        let metadata = self.metadata().await?;
        let endpoint = metadata.authorization_endpoint.as_deref().ok_or(ProviderError::Unavailable)?;
        // Where a provider says what it does, it must do the one kind of proof that is done here.
        let proves = metadata.code_challenge_methods_supported.as_ref();
        if proves.is_some_and(|methods| !methods.iter().any(|method| method == "S256")) || !self.may_lead_to(endpoint) {
            return Err(ProviderError::Refused);
        }
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *seed).map_err(|_| NoEntropy)?;
        let next = if next.len() > LONGEST_NEXT { "/" } else { next };
        let flow = Flow {
            body: Zeroizing::new(format!(
                "{}.{}.{}.{}",
                self.name(),
                seconds() + AWAY,
                URL_SAFE_NO_PAD.encode(*seed),
                URL_SAFE_NO_PAD.encode(next)
            )),
        };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(flow.verifier(ring).as_bytes()));
        let scopes: Vec<&str> = ["openid"].into_iter().chain(self.settings.scopes.iter().map(String::as_str)).collect();
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", &flow.state(ring))
            .append_pair("nonce", &flow.nonce(ring))
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        let join = if endpoint.contains('?') { '&' } else { '?' };
        let location = format!("{endpoint}{join}{}", query.finish());
        Ok(Begun { location, cookie: sealed(ring, "flow", &flow.body) })
    }

    /// Whether a browser may be sent there: by TLS, unless the provider itself is on the loopback without.
    fn may_lead_to(&self, url: &str) -> bool {
        let plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#');
        let here = url.starts_with("http://") && self.issuer.issuer().starts_with("http://");
        plain && (url.starts_with("https://") || here)
    }

    /// Ends a flow: exchanges the code, once, and reads whom the identity token names. Also says where to go.
    ///
    /// # Errors
    /// [`ProviderError`]; [`ProviderError::Answer`] should count as a failure of whoever brought the answer.
    pub async fn finish(
        &self,
        ring: &KeyRing,
        cookie: &str,
        redirect_uri: &str,
        answer: Answer<'_>,
    ) -> Result<(Vouched, String), ProviderError> {
        let flow = Flow { body: opened(ring, "flow", cookie).ok_or(ProviderError::Gone)? };
        let next = flow.next(self.name()).ok_or(ProviderError::Gone)?;
        let state = flow.state(ring);
        if !bool::from(state.as_bytes().ct_eq(answer.state.as_bytes())) {
            return Err(ProviderError::Gone);
        }
        // Many at once are no people, and the provider is not to be flooded through us. Before the flow ends: who
        // finds no place may come again with the same answer.
        let place = tokio::time::timeout(FOR_A_PLACE, self.exchanges.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(ProviderError::Unavailable)?;
        if self.ended.lock().unwrap_or_else(PoisonError::into_inner).put(state.to_string(), ()).is_some() {
            return Err(ProviderError::Gone);
        }
        let metadata = self.metadata().await?;
        // First whose answer it is (RFC 9207, section 2.4): then what it says.
        match answer.issuer {
            Some(issuer) if issuer != self.issuer.issuer() => return Err(ProviderError::Answer),
            None if metadata.authorization_response_iss_parameter_supported => return Err(ProviderError::Answer),
            _ => {}
        }
        let code = answer.code.ok_or(ProviderError::Declined)?;
        if code.is_empty() || code.len() > LONGEST_CODE {
            return Err(ProviderError::Answer);
        }
        let token = self.exchange(&metadata, code, redirect_uri, &flow.verifier(ring)).await?;
        let proven = self.issuer.proven(&token).await?;
        let Some(claims) = proven.filter(|claims| self.is_for_us(claims, &flow.nonce(ring))) else {
            tracing::warn!(provider = self.name(), "an identity token does not hold");
            return Err(ProviderError::Refused);
        };
        let claimed = self.issuer.mapped(&claims).ok_or(ProviderError::Stranger)?;
        let vouched = Vouched {
            provider: self.name().to_owned(),
            second_factor: self.issuer.second_factor(),
            account: claimed.account,
            user: claimed.user,
            role: claimed.role,
            incarnation: None,
        };
        Ok((vouched, next))
    }

    /// Exchanges a code for an identity token (Core 1.0, section 3.1.3).
    async fn exchange(
        &self,
        metadata: &Metadata,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<Zeroizing<String>, ProviderError> {
        let url = metadata.token_endpoint.as_deref().ok_or(ProviderError::Unavailable)?;
        let form = Some(self.form(metadata, code, redirect_uri, verifier));
        let published = self.issuer.published().ok_or(ProviderError::Unavailable)?;
        let call = Call { url, led_by: LedBy::Configuration(self.issuer.issuer()), form };
        let reply = published.outbound().call(call).await.map_err(|error| {
            tracing::warn!(provider = self.name(), %error, "a code was not exchanged");
            ProviderError::Unavailable
        })?;
        if reply.status != 200 {
            // What it says of the code alone is the visitor's doing (RFC 6749, section 5.2).
            let said = serde_json::from_slice::<Complaint>(&reply.body).map(|complaint| complaint.error);
            if said.is_ok_and(|error| error == "invalid_grant") {
                return Err(ProviderError::Answer);
            }
            tracing::warn!(provider = self.name(), status = reply.status, "a code was not exchanged");
            return Err(ProviderError::Unavailable);
        }
        let tokens: Tokens = serde_json::from_slice(&reply.body).map_err(|_| ProviderError::Refused)?;
        Ok(Zeroizing::new(tokens.id_token))
    }

    /// What is sent to the token endpoint, with the client's secret where the provider wants it.
    fn form(&self, metadata: &Metadata, code: &str, redirect_uri: &str, verifier: &str) -> Form {
        let mut fields = Serializer::new(String::new());
        fields
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("code_verifier", verifier);
        let id = &self.settings.client_id;
        let mut authorization = None;
        match &self.settings.client_secret {
            None => drop(fields.append_pair("client_id", id)),
            Some(secret) if by_header(metadata) => authorization = Some(basic(id, secret)),
            Some(secret) => drop(fields.append_pair("client_id", id).append_pair("client_secret", secret)),
        }
        Form { authorization, fields: Zeroizing::new(fields.finish()) }
    }

    /// Whether an identity token is the answer to this flow, and made for this client (Core 1.0, section
    /// 3.1.3.7).
    fn is_for_us(&self, claims: &Claims, nonce: &str) -> bool {
        let word = |name: &str| claims.get(name).and_then(|value| value.as_str());
        let asked = word("nonce").is_some_and(|said| bool::from(said.as_bytes().ct_eq(nonce.as_bytes())));
        let alone = claims.get("aud").and_then(|aud| aud.as_array()).is_none_or(|all| all.len() == 1);
        let party = match claims.get("azp") {
            None => alone,
            Some(party) => party.as_str() == Some(&self.settings.client_id),
        };
        asked && party
    }

    /// What the browser keeps of a provider's word, while a second factor is asked for.
    pub fn keep(&self, ring: &KeyRing, whose: &Whose, role: Option<Role>, next: &str) -> Zeroizing<String> {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let (tenant, role) = (&whose.tenant, role.map_or("", Role::as_str));
        let names = [tenant.account().as_str(), whose.user.as_str(), role, next].map(encoded).join(".");
        let body = format!("{}.{}.{}.{names}", self.name(), seconds() + WAITING, tenant.incarnation());
        sealed(ring, "half", &body)
    }

    /// Takes it up again.
    ///
    /// # Errors
    /// [`ProviderError::Gone`] if there is nothing of the kind, or it waited for too long.
    pub fn kept(&self, ring: &KeyRing, cookie: &str) -> Result<(Vouched, String), ProviderError> {
        let read = || {
            let body = opened(ring, "half", cookie)?;
            let mut parts = body.split('.');
            if parts.next()? != self.name() || is_over(parts.next()?)? {
                return None;
            }
            let incarnation = Some(parts.next()?.to_owned());
            let mut decoded = || String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
            let (account, user) = (decoded()?.parse().ok()?, decoded()?.parse().ok()?);
            let role = Some(decoded()?).filter(|role| !role.is_empty());
            let role = role.map(|role| role.parse().ok()).map_or(Some(None), |role| role.map(Some))?;
            let (provider, second_factor) = (self.name().to_owned(), self.issuer.second_factor());
            Some((Vouched { provider, second_factor, account, user, role, incarnation }, decoded()?))
        };
        read().ok_or(ProviderError::Gone)
    }
}

impl Vouched {
    /// As what the provider sees them, if it says so.
    pub fn role(&self) -> Option<Role> {
        self.role
    }
}

/// A flow, by what its cookie says under our seal.
struct Flow {
    body: Zeroizing<String>,
}

impl Flow {
    fn state(&self, ring: &KeyRing) -> Zeroizing<String> {
        mark(ring, "state", &self.body)
    }

    fn nonce(&self, ring: &KeyRing) -> Zeroizing<String> {
        mark(ring, "nonce", &self.body)
    }

    /// 43 characters, as RFC 7636, section 4.1, wants them.
    fn verifier(&self, ring: &KeyRing) -> Zeroizing<String> {
        mark(ring, "verifier", &self.body)
    }

    /// Where it goes on, if it is one of that provider and not over.
    fn next(&self, provider: &str) -> Option<String> {
        let mut parts = self.body.split('.');
        let (name, end, _seed, next) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if name != provider || is_over(end)? {
            return None;
        }
        String::from_utf8(URL_SAFE_NO_PAD.decode(next).ok()?).ok()
    }
}

fn seconds() -> i64 {
    Timestamp::now().as_micros() / 1_000_000
}

fn is_over(end: &str) -> Option<bool> {
    end.parse::<i64>().ok().map(|end| seconds() >= end)
}

fn mark(ring: &KeyRing, purpose: &str, body: &str) -> Zeroizing<String> {
    let text = Zeroizing::new(format!("oidc {purpose}\0{body}"));
    Zeroizing::new(URL_SAFE_NO_PAD.encode(ring.hash(&text).as_bytes()))
}

fn sealed(ring: &KeyRing, purpose: &str, body: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{body}.{}", *mark(ring, purpose, body)))
}

/// What stands under our seal.
fn opened(ring: &KeyRing, purpose: &str, text: &str) -> Option<Zeroizing<String>> {
    let (body, seal) = text.rsplit_once('.')?;
    let right = bool::from(mark(ring, purpose, body).as_bytes().ct_eq(seal.as_bytes()));
    right.then(|| Zeroizing::new(body.to_owned()))
}

/// A provider that says nothing wants the secret in the header (Core 1.0, section 9).
fn by_header(metadata: &Metadata) -> bool {
    let methods = metadata.token_endpoint_auth_methods_supported.as_ref();
    let says = |method: &str| methods.is_some_and(|all| all.iter().any(|one| one == method));
    methods.is_none() || says("client_secret_basic") || !says("client_secret_post")
}

/// RFC 6749, section 2.3.1: both parts are encoded as in a form first.
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let both = Zeroizing::new(format!("{}:{}", encoded(id), encoded(secret)));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(both.as_bytes())))
}

/// The providers by which people sign in, in the order of their buttons.
#[derive(Default, Clone)]
pub struct Providers(Arc<Vec<Provider>>);

impl Providers {
    /// These.
    pub fn new(all: Vec<Provider>) -> Self {
        Self(Arc::new(all))
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.0.iter()
    }

    /// The one of that name.
    pub fn named(&self, name: &str) -> Option<&Provider> {
        self.0.iter().find(|provider| provider.name() == name)
    }
}
