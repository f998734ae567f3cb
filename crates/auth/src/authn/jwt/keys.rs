//! The keys that an issuer publishes: a JWK set (RFC 7517, section 5). Of each the algorithm is fixed here,
//! from the configuration or from the key itself; a token chooses only among keys, by `kid`.
//!
//! A key that cannot be used is left out, and spoils no other.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::verify;

/// Most keys that a set may have. Issuers have two or three.
const MOST: usize = 64;
/// Longest `kid`, bytes.
const LONGEST_KID: usize = 1024;

/// A key that can be used, for one algorithm.
pub(super) struct PublishedKey {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys of a set that can be used, for `wanted` alone if there is one. `None` if it is no set.
pub(super) fn read(text: &[u8], wanted: Option<Algorithm>) -> Option<Vec<PublishedKey>> {
    let Set { keys } = serde_json::from_slice(text).ok()?;
    if keys.len() > MOST {
        return None;
    }
    Some(keys.into_iter().filter_map(|key| published(key, wanted)).collect())
}

fn published(key: Value, wanted: Option<Algorithm>) -> Option<PublishedKey> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let algorithm = wanted.or_else(|| own_algorithm(&jwk))?;
    let key = verify::of_jwk(algorithm, &jwk)?;
    let kid = jwk.common.key_id;
    if kid.as_ref().is_some_and(|kid| kid.len() > LONGEST_KID) {
        return None;
    }
    Some(PublishedKey { kid, algorithm, key })
}

/// What a key says it is for, else what its kind is for: for RSA that is RS256, which OpenID Connect takes
/// where nothing is said (Core 1.0, section 2).
fn own_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    match (jwk.common.key_algorithm, &jwk.algorithm) {
        (Some(named), _) => named.to_string().parse().ok(),
        (None, AlgorithmParameters::RSA(_)) => Some(Algorithm::RS256),
        (None, AlgorithmParameters::EllipticCurve(key)) => match key.curve {
            EllipticCurve::P256 => Some(Algorithm::ES256),
            EllipticCurve::P384 => Some(Algorithm::ES384),
            _ => None,
        },
        (None, AlgorithmParameters::OctetKeyPair(_)) => Some(Algorithm::EdDSA),
        (None, _) => None,
    }
}

/// The keys that a token with that `kid` can be signed with. One without names none, and any could be it.
pub(super) fn candidates<'k>(keys: &'k [PublishedKey], kid: Option<&str>) -> impl Iterator<Item = &'k PublishedKey> {
    let kid = kid.map(str::to_owned);
    keys.iter().filter(move |key| kid.is_none() || key.kid == kid)
}
