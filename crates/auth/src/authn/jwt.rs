//! Tokens of others (`jwt:<name>`, `oidc:<name>`): JSON Web Tokens (RFC 7519) that an issuer signed with a key
//! that is configured here, or that the issuer publishes at an address that is configured here. The algorithm
//! is the configuration's or the key's. Nothing that a token says of itself chooses it: of its header only that
//! it fits is asked, and which of the issuer's keys it means.

use std::sync::{Arc, OnceLock};

use bailiwick_types::{AccountName, Role, Timestamp, UserName};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::oidc::SecondFactor;
use super::outbound::Outbound;
use super::{Rejection, Step};
use crate::principal::Member;

mod discovery;
mod keys;
mod published;
mod verify;

pub(super) use discovery::Metadata;
use published::Source;
pub use published::Unavailable;
pub(super) use published::{Need, Published};

/// Longest token, bytes. One from an identity provider has one or two thousand.
const LONGEST: usize = 8 * 1024;

/// What `[auth.jwt.<name>]` or `[auth.oidc.<name>]` says.
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// The name in the walk.
    pub name: String,
    /// `HS256`, `RS256`, `PS256`, `ES256`, `EdDSA` and their longer kin; without one, what each published key
    /// is for.
    pub algorithm: Option<String>,
    /// What `iss` must be.
    pub issuer: String,
    /// Of which one must be in `aud`.
    pub audiences: Vec<String>,
    /// Patterns of which `sub` must fit one (`*` for any text); none: any subject.
    pub subjects: Vec<String>,
    /// In whose account its users are.
    pub account: AccountSource,
    /// Which claim names the user.
    pub user_claim: String,
    /// Which claim names a role, that narrows the user's own.
    pub role_claim: Option<String>,
    /// How far the two clocks may differ, seconds.
    pub clock_skew_seconds: u64,
    /// Whose second factor counts, for a user who has set one up here.
    pub second_factor: SecondFactor,
}

impl IssuerSettings {
    /// Whether tokens by published keys can be judged so.
    ///
    /// # Errors
    /// If there is no such algorithm, or it is one of secrets, which nobody publishes.
    pub fn fit_published(&self) -> Result<(), IssuerError> {
        public_algorithm(self).map(drop)
    }
}

/// Where the account comes from.
#[derive(Debug, Clone)]
pub enum AccountSource {
    /// The configuration.
    Fixed(AccountName),
    /// A claim.
    Claim(String),
}

/// An issuer's key as it stands in a file.
pub enum KeyMaterial<'a> {
    /// A secret that both sides have, for `HS…`.
    Secret(&'a [u8]),
    /// A public key, as PEM or as a JWK.
    Public(&'a [u8]),
}

/// An issuer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// No such algorithm, or none that proves anything.
    #[error("algorithm: use HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA")]
    Algorithm,
    /// A secret for a public-key algorithm, or the other way round.
    #[error(
        "the key is of another kind than the algorithm: HS… takes secret_file, the others public_key_file or jwks_url"
    )]
    Kind,
    /// Guessable.
    #[error("the secret is too short: use at least as many bytes as the algorithm's hash has (32, 48 or 64)")]
    Short,
    /// Not a key.
    #[error("the public key cannot be read, or is not one of the algorithm: give PEM or a JWK")]
    Key,
}

/// An issuer whose tokens are taken.
pub struct Issuer {
    step: Step,
    settings: IssuerSettings,
    keys: Keys,
}

enum Keys {
    Fixed(Algorithm, DecodingKey),
    Published(Arc<Published>),
}

/// What a token that was proven says.
pub(super) struct Claimed {
    pub(super) account: AccountName,
    pub(super) user: UserName,
    pub(super) role: Option<Role>,
    pub(super) expires_at: Timestamp,
}

/// The claims of a token that was proven.
pub(super) type Claims = Map<String, Value>;

impl Issuer {
    /// An issuer with its key, for `jwt:<name>`.
    ///
    /// # Errors
    /// If the key does not fit the algorithm.
    pub fn new(settings: IssuerSettings, key: &KeyMaterial<'_>) -> Result<Self, IssuerError> {
        let algorithm = algorithm(&settings)?.ok_or(IssuerError::Algorithm)?;
        let key = read_key(algorithm, key)?;
        Ok(Self { step: Step::Jwt(settings.name.clone()), settings, keys: Keys::Fixed(algorithm, key) })
    }

    /// An issuer that publishes its keys at an address, for `jwt:<name>`. Nobody is asked yet.
    ///
    /// # Errors
    /// If there is no such algorithm, or it is one of secrets.
    pub fn publishing(settings: IssuerSettings, url: String, outbound: Arc<dyn Outbound>) -> Result<Self, IssuerError> {
        let algorithm = public_algorithm(&settings)?.ok_or(IssuerError::Algorithm)?;
        let step = Step::Jwt(settings.name.clone());
        let published = Published::new(step.to_string(), Source::Keys(url), Some(algorithm), outbound);
        Ok(Self { step, settings, keys: Keys::Published(published) })
    }

    /// An OpenID provider, for `oidc:<name>`: its own document says where its keys are. Nobody is asked yet.
    ///
    /// # Errors
    /// If there is no such algorithm, or it is one of secrets.
    pub fn discovered(settings: IssuerSettings, outbound: Arc<dyn Outbound>) -> Result<Self, IssuerError> {
        let algorithm = public_algorithm(&settings)?;
        let step = Step::Oidc(settings.name.clone());
        let source = Source::Discovery(settings.issuer.clone());
        let published = Published::new(step.to_string(), source, algorithm, outbound);
        Ok(Self { step, settings, keys: Keys::Published(published) })
    }

    /// The same provider for tokens that are made for one client alone.
    pub(super) fn for_client(&self, id: &str) -> Option<Self> {
        let settings = IssuerSettings { audiences: vec![id.to_owned()], ..self.settings.clone() };
        let keys = Keys::Published(Arc::clone(self.published()?));
        Some(Self { step: self.step.clone(), settings, keys })
    }

    /// Which step of the walk its tokens are for.
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Whether its word is not enough for a user who has a second factor here: nobody who brings a token can be
    /// asked for one.
    pub(super) fn wants_ours(&self) -> bool {
        self.second_factor() == SecondFactor::Own
    }

    /// Whose second factor counts.
    pub(super) fn second_factor(&self) -> SecondFactor {
        self.settings.second_factor
    }

    /// What `iss` of its tokens is.
    pub(super) fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    pub(super) fn published(&self) -> Option<&Arc<Published>> {
        match &self.keys {
            Keys::Published(published) => Some(published),
            Keys::Fixed(..) => None,
        }
    }

    /// What a token says, once it is proven; `None` if it is none of this issuer's.
    pub(super) async fn read(&self, text: &str) -> Result<Option<Claimed>, Rejection> {
        if text.len() > LONGEST || text.split('.').count() != 3 || !self.claims_to_be_ours(text) {
            return Ok(None);
        }
        let claims = self.proven(text).await?.ok_or(Rejection::Invalid)?;
        self.mapped(&claims).map(Some).ok_or(Rejection::Invalid)
    }

    /// Whether it says that it is of this issuer. It proves nothing; another step may know it.
    fn claims_to_be_ours(&self, text: &str) -> bool {
        let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(text);
        claims.is_ok_and(|token| token.claims.get("iss").and_then(Value::as_str) == Some(&self.settings.issuer))
    }

    /// The claims of a token, if it is signed by this issuer, for one of the audiences, and of now.
    pub(super) async fn proven(&self, text: &str) -> Result<Option<Claims>, Unavailable> {
        if text.len() > LONGEST || !header_fits(text) {
            return Ok(None);
        }
        match &self.keys {
            Keys::Fixed(algorithm, key) => Ok(self.signed(text, *algorithm, key)),
            Keys::Published(published) => {
                let Ok(header) = decode_header(text) else { return Ok(None) };
                if !is_plain(header.typ.as_deref()) {
                    return Ok(None);
                }
                let kid = header.kid.as_deref();
                let kept = published.kept(Need::Key(kid)).await?;
                let mut keys = keys::candidates(&kept.keys, kid);
                let claims = keys.find_map(|found| self.signed(text, found.algorithm, &found.key));
                // A token about an event, such as a logout, is nobody's credential (RFC 8417, section 2.2).
                Ok(claims.filter(|claims| !claims.contains_key("events")))
            }
        }
    }

    fn signed(&self, text: &str, algorithm: Algorithm, key: &DecodingKey) -> Option<Claims> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.clock_skew_seconds;
        validation.validate_nbf = true;
        validation.set_audience(&self.settings.audiences);
        validation.set_issuer(&[&self.settings.issuer]);
        // What is asked for must also be there, and be of its type.
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let claims = decode::<Claims>(text, key, &validation).ok()?.claims;
        // The library takes a list of issuers, too.
        let ours = claims.get("iss").and_then(Value::as_str) == Some(&self.settings.issuer);
        let now = Timestamp::now().as_micros() / 1_000_000;
        // Made in the future: by a clock that is wrong, or by somebody who hopes that ours is.
        let latest = now.saturating_add(self.skew());
        let of_now = number(&claims, "iat").is_none_or(|iat| iat.is_some_and(|iat| iat <= latest));
        (ours && of_now).then_some(claims)
    }

    fn skew(&self) -> i64 {
        i64::try_from(self.settings.clock_skew_seconds).unwrap_or(i64::MAX)
    }

    /// Whom a token names that was proven.
    pub(super) fn mapped(&self, claims: &Claims) -> Option<Claimed> {
        let word = |name: &str| claims.get(name).and_then(Value::as_str);
        let subject = word("sub")?;
        let IssuerSettings { subjects, account, user_claim, role_claim, .. } = &self.settings;
        if !subjects.is_empty() && !subjects.iter().any(|pattern| fits(pattern, subject)) {
            return None;
        }
        // At many providers anybody may write anybody's address into their own account.
        let by_mail = matches!(self.step, Step::Oidc(_)) && user_claim == "email";
        if by_mail && claims.get("email_verified").and_then(Value::as_bool) != Some(true) {
            return None;
        }
        let account = match account {
            AccountSource::Fixed(account) => account.clone(),
            AccountSource::Claim(claim) => word(claim)?.parse().ok()?,
        };
        let role = match role_claim {
            None => None,
            Some(claim) => Some(word(claim)?.parse().ok()?),
        };
        let end = number(claims, "exp")??.checked_add(self.skew())?.checked_mul(1_000_000)?;
        let user = word(user_claim)?.parse().ok()?;
        Some(Claimed { account, user, role, expires_at: Timestamp::from_micros(end) })
    }
}

/// A claim that is a number; `Some(None)` if it is there and none.
fn number(claims: &Claims, name: &str) -> Option<Option<i64>> {
    claims.get(name).map(|value| value.as_i64().or(value.as_f64().map(|n| n as i64)))
}

fn algorithm(settings: &IssuerSettings) -> Result<Option<Algorithm>, IssuerError> {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    // Whoever else set one set the same: nobody in this tree has another.
    PROVIDER.get_or_init(|| {
        let _ = verify::RING.install_default();
    });
    settings.algorithm.as_deref().map(|name| name.parse().map_err(|_| IssuerError::Algorithm)).transpose()
}

/// As [`algorithm`]; a secret is nothing that is published.
fn public_algorithm(settings: &IssuerSettings) -> Result<Option<Algorithm>, IssuerError> {
    match algorithm(settings)? {
        Some(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) => Err(IssuerError::Kind),
        other => Ok(other),
    }
}

/// Whether a token's type is that of an identity or access token, or is not said.
fn is_plain(typ: Option<&str>) -> bool {
    let Some(typ) = typ else { return true };
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// Whether a token's header asks for nothing that is not done here. What must be understood and is not is
/// an error (RFC 7515, section 4.1.11), and a key that comes with the token proves nothing.
fn header_fits(text: &str) -> bool {
    let Ok(header) = decode_header(text) else { return false };
    let brings_a_key = header.jwk.is_some() || header.jku.is_some() || header.x5u.is_some() || header.x5c.is_some();
    let unencoded = header.extras.get::<Value>("b64").map_or(true, |value| value.is_some());
    header.crit.is_none() && !brings_a_key && !unencoded
}

/// A user as far as a token allows: until its end, and as no more than its role.
pub(super) fn bounded(mut member: Member, expires_at: Timestamp, role: Option<Role>) -> Result<Member, Rejection> {
    if Timestamp::now() >= expires_at {
        return Err(Rejection::Invalid);
    }
    member.role = role.map_or(member.role, |role| role.min(member.role));
    member.bounds.expires_at = Some(expires_at);
    Ok(member)
}

fn read_key(algorithm: Algorithm, key: &KeyMaterial<'_>) -> Result<DecodingKey, IssuerError> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let text = match (algorithm, key) {
        (HS256 | HS384 | HS512, KeyMaterial::Secret(secret)) => {
            let least = match algorithm {
                HS256 => 32,
                HS384 => 48,
                _ => 64,
            };
            // RFC 7518, section 3.2.
            return if secret.len() < least { Err(IssuerError::Short) } else { Ok(DecodingKey::from_secret(secret)) };
        }
        (HS256 | HS384 | HS512, _) | (_, KeyMaterial::Secret(_)) => return Err(IssuerError::Kind),
        (_, KeyMaterial::Public(text)) => *text,
    };
    if text.trim_ascii_start().starts_with(b"{") {
        let jwk = serde_json::from_slice(text).map_err(|_| IssuerError::Key)?;
        return verify::of_jwk(algorithm, &jwk).ok_or(IssuerError::Key);
    }
    let read = match algorithm {
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => DecodingKey::from_rsa_pem(text),
        ES256 | ES384 => DecodingKey::from_ec_pem(text),
        EdDSA => DecodingKey::from_ed_pem(text),
        _ => return Err(IssuerError::Algorithm),
    };
    let key = read.map_err(|_| IssuerError::Key)?;
    if verify::is_of(algorithm, &key) { Ok(key) } else { Err(IssuerError::Key) }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod hostile;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
