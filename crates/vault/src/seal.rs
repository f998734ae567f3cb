//! Sealed values: secrets that have to lie in a database, as nothing that whoever reads it could use.
//!
//! XChaCha20-Poly1305 with a random nonce, under a key that is derived for one purpose in one account. What
//! it is for is authenticated too, so a sealed value that is moved to another row, user or account does not
//! open.

use bailiwick_auth::Tenant;
use bailiwick_types::{Incarnation, UserName};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The first byte of what is sealed so; another way would have another.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// What a sealed value is for, and whose it is.
pub struct Purpose {
    what: &'static str,
    account: Incarnation,
    of: String,
}

impl Purpose {
    /// The secret of a user's authenticator app.
    pub fn totp(tenant: &Tenant, user: &UserName) -> Self {
        Self { what: "totp", account: tenant.incarnation(), of: user.to_string() }
    }

    fn text(&self) -> String {
        format!("{}\0{}\0{}", self.what, self.account, self.of)
    }
}

/// A value could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed under another key, for something else, or is damaged.
    #[error("a sealed value cannot be opened: is the folder of keys the one that belongs to this database?")]
    Closed,
    /// The system gave no random bytes.
    #[error("the system's random source failed")]
    NoEntropy,
    /// A data key lies under a key of this id, which this server was not given.
    #[error("a data key lies under the key {0}, which is not in the ring: see [vault] in the configuration")]
    NotInRing(String),
    /// The key is elsewhere, and could not be asked.
    #[error("the key {0} could not be asked: {1}")]
    OutOfReach(String, String),
}

/// Seals and opens. Holds the host's sealing key.
pub struct Seal(Zeroizing<[u8; 32]>);

impl Seal {
    pub(crate) fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// Seals a value for a purpose.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn seal(&self, purpose: &Purpose, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| SealError::NoEntropy)?;
        let text = purpose.text();
        let payload = Payload { msg: value, aad: text.as_bytes() };
        let closed = self.cipher(&text)?.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Closed)?;
        Ok([&[VERSION], nonce.as_slice(), &closed].concat())
    }

    /// Opens a value that was sealed for that purpose.
    ///
    /// # Errors
    /// [`SealError::Closed`].
    pub fn open(&self, purpose: &Purpose, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError::Closed)?;
        let (nonce, closed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Closed)?;
        let text = purpose.text();
        let payload = Payload { msg: closed, aad: text.as_bytes() };
        let opened = self.cipher(&text)?.decrypt(&XNonce::from(*nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| SealError::Closed)
    }

    /// A key of its own for each purpose, account and user (HKDF's expand step: RFC 5869, section 2.3).
    fn cipher(&self, purpose: &str) -> Result<XChaCha20Poly1305, SealError> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.0).map_err(|_| SealError::Closed)?;
        mac.update(purpose.as_bytes());
        mac.update(&[1]);
        let key = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn purpose(account: Incarnation, of: &str) -> Purpose {
        Purpose { what: "totp", account, of: of.to_owned() }
    }

    #[test]
    fn i05_a_sealed_value_opens_for_its_purpose_alone() {
        let (seal, account) = (Seal::new(Zeroizing::new([7; 32])), Incarnation::new());
        let sealed = seal.seal(&purpose(account, "alice"), b"value").unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"value"));
        assert_ne!(sealed, seal.seal(&purpose(account, "alice"), b"value").unwrap(), "another nonce");
        assert_eq!(*seal.open(&purpose(account, "alice"), &sealed).unwrap(), b"value");
        for other in [
            purpose(account, "bob"),
            purpose(Incarnation::new(), "alice"),
            Purpose { what: "other", account, of: "alice".to_owned() },
        ] {
            assert_eq!(seal.open(&other, &sealed), Err(SealError::Closed));
        }
        assert!(Seal::new(Zeroizing::new([8; 32])).open(&purpose(account, "alice"), &sealed).is_err());
        for n in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[n] ^= 1;
            assert!(seal.open(&purpose(account, "alice"), &changed).is_err(), "byte {n}");
            assert!(seal.open(&purpose(account, "alice"), &sealed[..n]).is_err(), "cut at {n}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn i05_nothing_opens_but_what_was_sealed(
            value in prop::collection::vec(any::<u8>(), 0..200),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            more in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let (seal, purpose) = (Seal::new(Zeroizing::new([7; 32])), purpose(Incarnation::new(), "alice"));
            let sealed = seal.seal(&purpose, &value).unwrap();
            let mut changed = sealed.clone();
            for (at, byte) in edits {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
            changed.truncate(cut.map_or(changed.len(), |cut| cut.index(sealed.len())));
            changed.extend(more);
            let opened = seal.open(&purpose, &changed).map(|opened| opened.to_vec());
            prop_assert_eq!(opened, if changed == sealed { Ok(value) } else { Err(SealError::Closed) });
        }

        #[test]
        fn i05_any_bytes_are_survived_and_stay_closed(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let (seal, purpose) = (Seal::new(Zeroizing::new([7; 32])), purpose(Incarnation::new(), "alice"));
            let versioned = [&[VERSION], bytes.as_slice()].concat();
            prop_assert!(seal.open(&purpose, &bytes).is_err() && seal.open(&purpose, &versioned).is_err());
        }
    }
}
