//! Secrets of accounts at rest: each value under its account's data key, each data key under a key of the host's.
//!
//! Both are XChaCha20-Poly1305 with a random nonce. What a sealed value is for is authenticated with it: the
//! account, the name, the version; so is whose a data key is. A value that is moved to another row does not open,
//! and one of an account whose data key is gone opens nowhere, wherever a copy of it lies.

use bailiwick_auth::access::verb::ReleaseSecret;
use bailiwick_auth::{Recorded, Tenant};
use bailiwick_types::{Incarnation, SecretName};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::Mac as _;
use zeroize::Zeroizing;

use crate::Released;
use crate::seal::SealError;

/// The first byte of what is sealed so; another way would have another.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;

/// A key that encrypts keys. One in a file or in the environment is this; one that never leaves a machine made for
/// keys is called from behind this trait.
pub trait KeyEncryption: Send + Sync {
    /// Which key it is, to find it again: stored beside what it encrypts, and no secret.
    fn id(&self) -> &str;

    /// Encrypts a key, bound to what it is for.
    ///
    /// # Errors
    /// [`SealError::NoEntropy`], or that the key is out of reach.
    fn wrap(&self, purpose: &[u8], key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, SealError>;

    /// Decrypts one.
    ///
    /// # Errors
    /// [`SealError::Closed`] if it was encrypted by another, for something else, or is damaged.
    fn unwrap(&self, purpose: &[u8], wrapped: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError>;
}

/// A key that this process holds.
pub struct LocalKey {
    id: String,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl LocalKey {
    /// Takes a key of 32 random bytes. Its id is a hash of it.
    pub fn new(key: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::Mac>::new_from_slice(&*key)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(b"bailiwick key id");
        let tag = mac.finalize().into_bytes();
        let id = tag.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { id, key }
    }
}

impl KeyEncryption for LocalKey {
    fn id(&self) -> &str {
        &self.id
    }

    fn wrap(&self, purpose: &[u8], key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, SealError> {
        close(&self.key, purpose, key)
    }

    fn unwrap(&self, purpose: &[u8], wrapped: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        let opened = open(&self.key, purpose, wrapped)?;
        opened.as_slice().try_into().map(Zeroizing::new).map_err(|_| SealError::Closed)
    }
}

/// An account's data key as it lies in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which key encrypted it.
    pub by: String,
    /// The key, encrypted.
    pub bytes: Vec<u8>,
}

/// A value as it lies in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Its name.
    pub name: SecretName,
    /// Which of the values that it had.
    pub version: u64,
    /// The value, encrypted.
    pub bytes: Vec<u8>,
}

/// Seals values, and opens them against the record of their release.
pub struct Vault {
    key: Box<dyn KeyEncryption>,
}

impl Vault {
    /// A vault whose data keys are encrypted by `key`.
    pub fn new(key: Box<dyn KeyEncryption>) -> Self {
        Self { key }
    }

    /// A new data key for an account.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn new_key(&self, account: Incarnation) -> Result<WrappedKey, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(|_| SealError::NoEntropy)?;
        self.wrap(account, &key)
    }

    /// Seals a value under its account's data key.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(
        &self,
        tenant: &Tenant,
        key: &WrappedKey,
        name: &SecretName,
        version: u64,
        value: &str,
    ) -> Result<SealedSecret, SealError> {
        let account = tenant.incarnation();
        let key = self.data_key(account, key)?;
        let bytes = close(&key, &purpose(account, name, version), value.as_bytes())?;
        Ok(SealedSecret { name: name.clone(), version, bytes })
    }

    /// Opens a value against the record of its release.
    ///
    /// # Errors
    /// [`SealError::Closed`], also for another secret than the recorded one.
    pub fn open(
        &self,
        act: &Recorded<ReleaseSecret>,
        key: &WrappedKey,
        sealed: &SealedSecret,
    ) -> Result<Released, SealError> {
        if act.resource().secret() != &sealed.name {
            return Err(SealError::Closed);
        }
        let account = act.scope().tenant().incarnation();
        let key = self.data_key(account, key)?;
        let opened = open(&key, &purpose(account, &sealed.name, sealed.version), &sealed.bytes)?;
        let text = std::str::from_utf8(&opened).map_err(|_| SealError::Closed)?;
        Ok(Released(Zeroizing::new(text.to_owned())))
    }

    fn wrap(&self, account: Incarnation, key: &[u8; KEY_BYTES]) -> Result<WrappedKey, SealError> {
        Ok(WrappedKey { by: self.key.id().to_owned(), bytes: self.key.wrap(&of_account(account), key)? })
    }

    fn data_key(&self, account: Incarnation, key: &WrappedKey) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        if self.key.id() != key.by {
            return Err(SealError::Closed);
        }
        self.key.unwrap(&of_account(account), &key.bytes)
    }
}

fn of_account(account: Incarnation) -> Vec<u8> {
    format!("data key\0{account}").into_bytes()
}

fn purpose(account: Incarnation, name: &SecretName, version: u64) -> Vec<u8> {
    format!("secret\0{account}\0{name}\0{version}").into_bytes()
}

fn close(key: &[u8; KEY_BYTES], purpose: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| SealError::NoEntropy)?;
    let payload = Payload { msg: value, aad: purpose };
    let closed = XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), payload);
    let closed = closed.map_err(|_| SealError::Closed)?;
    Ok([&[VERSION], nonce.as_slice(), &closed].concat())
}

fn open(key: &[u8; KEY_BYTES], purpose: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError::Closed)?;
    let (nonce, closed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Closed)?;
    let payload = Payload { msg: closed, aad: purpose };
    let opened = XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), payload);
    opened.map(Zeroizing::new).map_err(|_| SealError::Closed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Box<dyn KeyEncryption> {
        Box::new(LocalKey::new(Zeroizing::new([byte; KEY_BYTES])))
    }

    #[test]
    fn z04_a_data_key_opens_for_its_account_alone() {
        let (one, other) = (Incarnation::new(), Incarnation::new());
        let old = Vault::new(key(7));
        let wrapped = old.new_key(one).unwrap();
        let plain = old.data_key(one, &wrapped).unwrap();
        assert!(!wrapped.bytes.windows(KEY_BYTES).any(|part| part == *plain));
        assert_eq!(old.data_key(other, &wrapped).err(), Some(SealError::Closed));
        assert!(Vault::new(key(8)).data_key(one, &wrapped).is_err());
        let forged = WrappedKey { by: Vault::new(key(8)).key.id().to_owned(), bytes: wrapped.bytes };
        assert!(Vault::new(key(8)).data_key(one, &forged).is_err());
    }

    #[test]
    fn z04_a_sealed_value_is_its_rows_alone() {
        let (vault, account) = (Vault::new(key(7)), Incarnation::new());
        let wrapped = vault.new_key(account).unwrap();
        let data = vault.data_key(account, &wrapped).unwrap();
        let (name, value): (SecretName, _) = ("token".parse().unwrap(), b"a-secret-value");
        let sealed = close(&data, &purpose(account, &name, 3), value).unwrap();
        assert_ne!(sealed, close(&data, &purpose(account, &name, 3), value).unwrap(), "another nonce");
        assert_eq!(*open(&data, &purpose(account, &name, 3), &sealed).unwrap(), value);
        for other in [
            purpose(account, &name, 2),
            purpose(account, &"other".parse().unwrap(), 3),
            purpose(Incarnation::new(), &name, 3),
        ] {
            assert_eq!(open(&data, &other, &sealed).err(), Some(SealError::Closed));
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&data, &purpose(account, &name, 3), &changed).is_err(), "byte {at}");
            assert!(open(&data, &purpose(account, &name, 3), &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
