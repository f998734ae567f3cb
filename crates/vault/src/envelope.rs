//! Secrets of accounts at rest: each value under its account's data key, each data key under a key of the host's.
//!
//! Both are XChaCha20-Poly1305 with a random nonce. What a sealed value is for is authenticated with it: the
//! account, the name, the version; so is whose a data key is. A value that is moved to another row does not open,
//! and one of an account whose data key is gone opens nowhere, wherever a copy of it lies.

use bailiwick_auth::access::verb::{ReleaseSecret, SendNotification};
use bailiwick_auth::{Recorded, Tenant};
use bailiwick_types::{Incarnation, SealedOf, SecretName, TargetName};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::Mac as _;
use zeroize::Zeroizing;

use crate::Released;
use crate::oauth::RefreshGrant;
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
    /// A new key of random bytes.
    ///
    /// # Errors
    /// [`SealError::NoEntropy`].
    pub fn random() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(|_| SealError::NoEntropy)?;
        Ok(Self::new(key))
    }

    /// Reads a key as a file or a variable holds it: 32 bytes, or 64 hexadecimal digits with or without a line end.
    pub fn parse(held: &[u8]) -> Option<Self> {
        if let Ok(key) = held.try_into() {
            return Some(Self::new(Zeroizing::new(key)));
        }
        let digits = held.strip_suffix(b"\n").map_or(held, |rest| rest.strip_suffix(b"\r").unwrap_or(rest));
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if digits.len() != 2 * KEY_BYTES {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            let digit = |letter: u8| char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self::new(key))
    }

    /// The key's own bytes, for whoever keeps it elsewhere than here.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

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
    /// Of what.
    pub of: SealedOf,
    /// Which of the values that it had.
    pub version: u64,
    /// The value, encrypted.
    pub bytes: Vec<u8>,
}

/// An account's data key in the clear, for as long as it takes to seal with it. It opens nothing for anybody.
pub struct DataKey {
    account: Incarnation,
    key: Zeroizing<[u8; KEY_BYTES]>,
    wrapped: WrappedKey,
}

impl DataKey {
    /// The key as it lies in the database.
    pub fn wrapped(&self) -> &WrappedKey {
        &self.wrapped
    }

    /// Seals a value.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, name: &SecretName, version: u64, value: &str) -> Result<SealedSecret, SealError> {
        self.sealed(&SealedOf::Secret(name.clone()), version, value.as_bytes())
    }

    /// Seals the address of a target of notifications.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_target(&self, name: &TargetName, version: u64, address: &str) -> Result<SealedSecret, SealError> {
        self.sealed(&SealedOf::Target(name.clone()), version, address.as_bytes())
    }

    /// Seals a refresh grant.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_grant(&self, name: &SecretName, version: u64, grant: &RefreshGrant) -> Result<SealedSecret, SealError> {
        let kept = grant.kept().map_err(|_| SealError::Closed)?;
        self.sealed(&SealedOf::Grant(name.clone()), version, kept.as_bytes())
    }

    /// The same value of the same account under another data key of it. Nobody is shown it on the way.
    ///
    /// # Errors
    /// [`SealError::Closed`], also if the other key is another account's.
    pub fn reseal(&self, under: &Self, sealed: &SealedSecret) -> Result<SealedSecret, SealError> {
        if self.account != under.account {
            return Err(SealError::Closed);
        }
        let opened = open(&self.key, &purpose(self.account, &sealed.of, sealed.version), &sealed.bytes)?;
        under.sealed(&sealed.of, sealed.version, &opened)
    }

    fn sealed(&self, of: &SealedOf, version: u64, value: &[u8]) -> Result<SealedSecret, SealError> {
        let bytes = close(&self.key, &purpose(self.account, of, version), value)?;
        Ok(SealedSecret { of: of.clone(), version, bytes })
    }
}

/// Seals values, and opens them against the record of their release.
pub struct Vault {
    /// What new data keys are encrypted with.
    current: Box<dyn KeyEncryption>,
    /// What others may still lie under.
    old: Vec<Box<dyn KeyEncryption>>,
}

impl Vault {
    /// A vault whose data keys are encrypted by `key`.
    pub fn new(key: Box<dyn KeyEncryption>) -> Self {
        Self { current: key, old: Vec::new() }
    }

    /// With a key that still opens data keys, and encrypts none any more. One that is there already changes nothing.
    #[must_use]
    pub fn with_old(mut self, key: Box<dyn KeyEncryption>) -> Self {
        if !self.holds(key.id()) {
            self.old.push(key);
        }
        self
    }

    /// The id of the key that encrypts.
    pub fn current(&self) -> &str {
        self.current.id()
    }

    /// The ids of the keys that still open.
    pub fn old(&self) -> impl Iterator<Item = &str> {
        self.old.iter().map(|key| key.id())
    }

    /// Whether a data key under the key of this id can be opened.
    pub fn holds(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    /// A new data key for an account, under the current key. A key program is asked: this may block.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn new_key(&self, tenant: &Tenant) -> Result<DataKey, SealError> {
        let (account, mut key) = (tenant.incarnation(), Zeroizing::new([0; KEY_BYTES]));
        getrandom::fill(&mut *key).map_err(|_| SealError::NoEntropy)?;
        let wrapped = self.wrap(account, &key)?;
        Ok(DataKey { account, key, wrapped })
    }

    /// An account's data key, to seal with. A key program is asked: this may block.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn unlock(&self, tenant: &Tenant, wrapped: WrappedKey) -> Result<DataKey, SealError> {
        let account = tenant.incarnation();
        Ok(DataKey { account, key: self.data_key(account, &wrapped)?, wrapped })
    }

    /// The same data key under the current key; `None` if it lies there already. A key program is asked: this may
    /// block.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn rewrap(&self, account: Incarnation, wrapped: &WrappedKey) -> Result<Option<WrappedKey>, SealError> {
        if wrapped.by == self.current.id() {
            return Ok(None);
        }
        let key = self.data_key(account, wrapped)?;
        self.wrap(account, &key).map(Some)
    }

    /// Opens a value against the record of its release. A key program is asked: this may block.
    ///
    /// # Errors
    /// [`SealError::Closed`], also for another secret than the recorded one, and for one that is no value.
    pub fn open(
        &self,
        act: &Recorded<ReleaseSecret>,
        key: &WrappedKey,
        sealed: &SealedSecret,
    ) -> Result<Released, SealError> {
        match &sealed.of {
            SealedOf::Secret(name) if name == act.resource().secret() => {}
            SealedOf::Secret(_) | SealedOf::Grant(_) | SealedOf::Target(_) => return Err(SealError::Closed),
        }
        self.opened(act.scope().tenant().incarnation(), key, sealed).map(Released)
    }

    /// Opens a refresh grant against the record of its release. A key program is asked: this may block.
    ///
    /// # Errors
    /// [`SealError::Closed`], also for another secret than the recorded one, and for one that is no grant.
    pub fn open_grant(
        &self,
        act: &Recorded<ReleaseSecret>,
        key: &WrappedKey,
        sealed: &SealedSecret,
    ) -> Result<RefreshGrant, SealError> {
        match &sealed.of {
            SealedOf::Grant(name) if name == act.resource().secret() => {}
            SealedOf::Grant(_) | SealedOf::Secret(_) | SealedOf::Target(_) => return Err(SealError::Closed),
        }
        let kept = self.opened(act.scope().tenant().incarnation(), key, sealed)?;
        RefreshGrant::read(&kept).ok_or(SealError::Closed)
    }

    /// Opens the address of a target against the record of what is sent there. A key program is asked: this may
    /// block.
    ///
    /// # Errors
    /// [`SealError::Closed`], also for another target than the recorded one, and for every secret.
    pub fn open_target(
        &self,
        act: &Recorded<SendNotification>,
        key: &WrappedKey,
        sealed: &SealedSecret,
    ) -> Result<Released, SealError> {
        match &sealed.of {
            SealedOf::Target(name) if name == act.resource().name() => {}
            SealedOf::Target(_) | SealedOf::Secret(_) | SealedOf::Grant(_) => return Err(SealError::Closed),
        }
        self.opened(act.scope().tenant().incarnation(), key, sealed).map(Released)
    }

    fn opened(
        &self,
        account: Incarnation,
        key: &WrappedKey,
        sealed: &SealedSecret,
    ) -> Result<Zeroizing<String>, SealError> {
        let key = self.data_key(account, key)?;
        let opened = open(&key, &purpose(account, &sealed.of, sealed.version), &sealed.bytes)?;
        let text = std::str::from_utf8(&opened).map_err(|_| SealError::Closed)?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn find(&self, id: &str) -> Option<&dyn KeyEncryption> {
        std::iter::once(&self.current).chain(&self.old).find(|key| key.id() == id).map(|key| &**key)
    }

    fn wrap(&self, account: Incarnation, key: &[u8; KEY_BYTES]) -> Result<WrappedKey, SealError> {
        Ok(WrappedKey { by: self.current.id().to_owned(), bytes: self.current.wrap(&of_account(account), key)? })
    }

    fn data_key(&self, account: Incarnation, key: &WrappedKey) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        let above = self.find(&key.by).ok_or_else(|| SealError::NotInRing(key.by.clone()))?;
        above.unwrap(&of_account(account), &key.bytes)
    }
}

fn of_account(account: Incarnation) -> Vec<u8> {
    format!("data key\0{account}").into_bytes()
}

/// What a value is sealed for. A grant that a changed row calls a value does not open: its refresh token would go out.
fn purpose(account: Incarnation, of: &SealedOf, version: u64) -> Vec<u8> {
    let (kind, name) = match of {
        SealedOf::Secret(name) => ("secret", name.as_str()),
        SealedOf::Grant(name) => ("oauth grant", name.as_str()),
        SealedOf::Target(name) => ("notification", name.as_str()),
    };
    format!("{kind}\0{account}\0{name}\0{version}").into_bytes()
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

    fn secret(name: &str) -> SealedOf {
        SealedOf::Secret(name.parse().unwrap())
    }

    fn made(vault: &Vault, account: Incarnation) -> (WrappedKey, Zeroizing<[u8; KEY_BYTES]>) {
        let plain = Zeroizing::new([9; KEY_BYTES]);
        (vault.wrap(account, &plain).unwrap(), plain)
    }

    #[test]
    fn z04_a_data_key_opens_for_its_account_alone() {
        let (one, other) = (Incarnation::new(), Incarnation::new());
        let (old, new) = (Vault::new(key(7)), Vault::new(key(8)));
        let (wrapped, plain) = made(&old, one);
        assert_eq!(*old.data_key(one, &wrapped).unwrap(), *plain, "the control");
        assert!(!wrapped.bytes.windows(KEY_BYTES).any(|part| part == *plain));
        assert_eq!(old.data_key(other, &wrapped).err(), Some(SealError::Closed));
        assert_eq!(new.data_key(one, &wrapped).err(), Some(SealError::NotInRing(wrapped.by.clone())));
        let forged = WrappedKey { by: new.current().to_owned(), bytes: wrapped.bytes };
        assert_eq!(new.data_key(one, &forged).err(), Some(SealError::Closed));
    }

    #[test]
    fn z04_the_key_above_is_changed_while_both_are_in_the_ring() {
        let (one, other) = (Incarnation::new(), Incarnation::new());
        let (wrapped, plain) = made(&Vault::new(key(7)), one);
        let both = Vault::new(key(8)).with_old(key(7)).with_old(key(7)).with_old(key(8));
        assert_eq!((both.old().count(), both.holds(&wrapped.by)), (1, true));
        let again = both.rewrap(one, &wrapped).unwrap().expect("another key");
        assert_eq!(again.by, both.current());
        assert_eq!(both.rewrap(one, &again).unwrap(), None, "it lies there already");
        // The old key can go, and what it held is what it was.
        let new = Vault::new(key(8));
        assert_eq!(*new.data_key(one, &again).unwrap(), *plain);
        assert!(new.rewrap(one, &wrapped).is_err(), "the control: without the old one it is closed");
        assert_eq!(both.rewrap(other, &wrapped).err(), Some(SealError::Closed), "another account's");
        assert!(Vault::new(key(7)).data_key(one, &again).is_err());
    }

    #[test]
    fn z04_a_value_goes_from_one_data_key_to_the_next_of_the_same_account() {
        let (one, other) = (Incarnation::new(), Incarnation::new());
        let data = |account, byte: u8| DataKey {
            account,
            key: Zeroizing::new([byte; KEY_BYTES]),
            wrapped: WrappedKey { by: "x".to_owned(), bytes: vec![byte] },
        };
        let (name, purpose) = ("token".parse().unwrap(), purpose(one, &secret("token"), 3));
        let sealed = data(one, 1).seal(&name, 3, "a-secret-value").unwrap();
        let again = data(one, 1).reseal(&data(one, 2), &sealed).unwrap();
        assert_eq!(*open(&[2; KEY_BYTES], &purpose, &again.bytes).unwrap(), b"a-secret-value");
        assert!(open(&[1; KEY_BYTES], &purpose, &again.bytes).is_err());
        assert_eq!(data(one, 1).reseal(&data(other, 2), &sealed).err(), Some(SealError::Closed));
        assert_eq!(data(one, 3).reseal(&data(one, 2), &sealed).err(), Some(SealError::Closed));
    }

    #[test]
    fn z04_a_key_is_read_as_bytes_or_as_digits() {
        let bytes = LocalKey::parse(&[0xab; KEY_BYTES]).unwrap();
        for text in ["ab".repeat(32), format!("{}\n", "AB".repeat(32)), format!("{}\r\n", "aB".repeat(32))] {
            assert_eq!(LocalKey::parse(text.as_bytes()).unwrap().id(), bytes.id());
        }
        for wrong in [&b""[..], &[1; 31], &[b'a'; 63], "xy".repeat(32).as_bytes(), &[b'a'; 66]] {
            assert!(LocalKey::parse(wrong).is_none());
        }
    }

    #[test]
    fn z04_a_sealed_value_is_its_rows_alone() {
        let (vault, account) = (Vault::new(key(7)), Incarnation::new());
        let (wrapped, _) = made(&vault, account);
        let data = vault.data_key(account, &wrapped).unwrap();
        let (name, value) = (secret("token"), b"a-secret-value");
        let sealed = close(&data, &purpose(account, &name, 3), value).unwrap();
        assert_ne!(sealed, close(&data, &purpose(account, &name, 3), value).unwrap(), "another nonce");
        assert_eq!(*open(&data, &purpose(account, &name, 3), &sealed).unwrap(), value);
        for other in [
            purpose(account, &name, 2),
            purpose(account, &secret("other"), 3),
            // A target of notifications that has the name of a secret is another thing.
            purpose(account, &SealedOf::Target("token".parse().unwrap()), 3),
            purpose(account, &SealedOf::Grant("token".parse().unwrap()), 3),
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
