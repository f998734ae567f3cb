//! Signatures of tokens, by ring, which is here for TLS already. The library that reads tokens asks for
//! them through this seam.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::{hmac, signature};

/// Checks signatures; makes none, because this server signs no tokens of that kind.
pub(super) static RING: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

struct Secret(hmac::Key, Algorithm);

impl Verifier<Vec<u8>> for Secret {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> std::result::Result<(), Error> {
        hmac::verify(&self.0, message, tag).map_err(|_| Error::new())
    }
}

impl JwtVerifier for Secret {
    fn algorithm(&self) -> Algorithm {
        self.1
    }
}

enum Public {
    Encoded(&'static dyn signature::VerificationAlgorithm, Vec<u8>),
    Rsa(&'static signature::RsaParameters, Vec<u8>, Vec<u8>),
}

struct PublicKey(Public, Algorithm);

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> std::result::Result<(), Error> {
        match &self.0 {
            Public::Encoded(algorithm, key) => {
                signature::UnparsedPublicKey::new(*algorithm, key).verify(message, signed)
            }
            Public::Rsa(parameters, n, e) => {
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
        }
        .map_err(|_| Error::new())
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        self.1
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn signature::VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &signature::ED25519,
        _ => return None,
    })
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // A public key is no secret: a token that is signed with it as one must not pass.
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidKeyFormat));
    }
    let secret = match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    };
    if let Some(hash) = secret {
        return Ok(Box::new(Secret(hmac::Key::new(hash, key.try_get_as_bytes()?), *algorithm)));
    }
    let public = match (rsa(*algorithm), key.kind()) {
        (Some(parameters), DecodingKeyKind::SecretOrDer(der)) => Public::Encoded(parameters, der.clone()),
        (Some(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
            // ring takes numbers without leading zeros.
            let plain = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect();
            Public::Rsa(parameters, plain(n), plain(e))
        }
        (None, _) => {
            let algorithm = curve(*algorithm).ok_or_else(|| new_error(ErrorKind::UnsupportedAlgorithm))?;
            Public::Encoded(algorithm, key.try_get_as_bytes()?.to_vec())
        }
    };
    Ok(Box::new(PublicKey(public, *algorithm)))
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

/// Whether a key has the form that the algorithm's signatures are checked with.
pub(super) fn is_of(algorithm: Algorithm, key: &DecodingKey) -> bool {
    let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    match algorithm {
        Algorithm::ES256 => length == 65,
        Algorithm::ES384 => length == 97,
        Algorithm::EdDSA => length == 32,
        _ => match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, .. } => rsa(algorithm).is_some() && is_long_enough(n),
            DecodingKeyKind::SecretOrDer(_) => key.family() == algorithm.family(),
        },
    }
}

/// A public key from a JWK (RFC 7517), if it is one of this algorithm, and for signatures.
pub(super) fn of_jwk(algorithm: Algorithm, jwk: &Jwk) -> Option<DecodingKey> {
    let for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let verifies = jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let named = jwk.common.key_algorithm.map(|named| named.to_string());
    if !for_signatures || !verifies || named.is_some_and(|named| named != format!("{algorithm:?}")) {
        return None;
    }
    let fits = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), _) => rsa(algorithm).is_some(),
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| fits)?;
    is_of(algorithm, &key).then_some(key)
}

/// Whether an RSA key is as long as ring takes them, and no shorter than anybody should (RFC 7518, section 3.3).
fn is_long_enough(modulus: &[u8]) -> bool {
    let plain: Vec<u8> = modulus.iter().copied().skip_while(|byte| *byte == 0).collect();
    let bits = plain.first().map_or(0, |first| plain.len() * 8 - first.leading_zeros() as usize);
    (2048..=8192).contains(&bits)
}
