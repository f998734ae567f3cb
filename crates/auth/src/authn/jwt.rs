//! Tokens of others (`jwt:<name>`): JSON Web Tokens (RFC 7519) that an issuer signed with a key that is
//! configured here, by the algorithm that is configured here. Nothing that a token says of itself chooses
//! either: of its header only that it fits is asked.

use std::sync::OnceLock;

use bailiwick_types::{AccountName, Role, Timestamp, UserName};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::Rejection;
use crate::principal::Member;

mod verify;

/// Longest token, bytes. One from an identity provider has one or two thousand.
const LONGEST: usize = 8 * 1024;

/// What `[auth.jwt.<name>]` says.
#[derive(Debug, Clone)]
pub struct IssuerSettings {
    /// The name in the walk.
    pub name: String,
    /// `HS256`, `RS256`, `PS256`, `ES256`, `EdDSA` and their longer kin.
    pub algorithm: String,
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
    #[error("the key is of another kind than the algorithm: HS… takes secret_file, the others public_key_file")]
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
    settings: IssuerSettings,
    key: DecodingKey,
    validation: Validation,
}

/// What a token that was proven says.
pub(super) struct Claimed {
    pub(super) account: AccountName,
    pub(super) user: UserName,
    pub(super) role: Option<Role>,
    pub(super) expires_at: Timestamp,
}

impl Issuer {
    /// An issuer with its key.
    ///
    /// # Errors
    /// If the key does not fit the algorithm.
    pub fn new(settings: IssuerSettings, key: &KeyMaterial<'_>) -> Result<Self, IssuerError> {
        static PROVIDER: OnceLock<()> = OnceLock::new();
        // Whoever else set one set the same: nobody in this tree has another.
        PROVIDER.get_or_init(|| {
            let _ = verify::RING.install_default();
        });
        let algorithm: Algorithm = settings.algorithm.parse().map_err(|_| IssuerError::Algorithm)?;
        let key = read_key(algorithm, key)?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = settings.clock_skew_seconds;
        validation.validate_nbf = true;
        validation.set_audience(&settings.audiences);
        validation.set_issuer(&[&settings.issuer]);
        // What is asked for must also be there, and be of its type.
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        Ok(Self { settings, key, validation })
    }

    /// The name in the walk.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What a token says, once it is proven; `None` if it is none of this issuer's.
    pub(super) fn read(&self, text: &str) -> Result<Option<Claimed>, Rejection> {
        if text.len() > LONGEST || text.split('.').count() != 3 || !self.claims_to_be_ours(text) {
            return Ok(None);
        }
        self.proven(text).map(Some).ok_or(Rejection::Invalid)
    }

    /// Whether it says that it is of this issuer. It proves nothing; another step may know it.
    fn claims_to_be_ours(&self, text: &str) -> bool {
        let claims = jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(text);
        claims.is_ok_and(|token| token.claims.get("iss").and_then(Value::as_str) == Some(&self.settings.issuer))
    }

    fn proven(&self, text: &str) -> Option<Claimed> {
        if !header_fits(text) {
            return None;
        }
        let claims = decode::<Map<String, Value>>(text, &self.key, &self.validation).ok()?.claims;
        let word = |name: &str| claims.get(name).and_then(Value::as_str);
        let number = |name: &str| claims.get(name).map(|value| value.as_i64().or(value.as_f64().map(|n| n as i64)));
        let now = Timestamp::now().as_micros() / 1_000_000;
        let skew = i64::try_from(self.settings.clock_skew_seconds).unwrap_or(i64::MAX);
        // Made in the future: by a clock that is wrong, or by somebody who hopes that ours is.
        if number("iat").is_some_and(|iat| iat.is_none_or(|iat| iat > now.saturating_add(skew))) {
            return None;
        }
        let subject = word("sub")?;
        let subjects = &self.settings.subjects;
        if !subjects.is_empty() && !subjects.iter().any(|pattern| fits(pattern, subject)) {
            return None;
        }
        let account = match &self.settings.account {
            AccountSource::Fixed(account) => account.clone(),
            AccountSource::Claim(claim) => word(claim)?.parse().ok()?,
        };
        let role = match &self.settings.role_claim {
            None => None,
            Some(claim) => Some(word(claim)?.parse().ok()?),
        };
        let end = number("exp")??.checked_add(skew)?.checked_mul(1_000_000)?;
        let user = word(&self.settings.user_claim)?.parse().ok()?;
        Some(Claimed { account, user, role, expires_at: Timestamp::from_micros(end) })
    }
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
        return verify::of_jwk(algorithm, text).ok_or(IssuerError::Key);
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
