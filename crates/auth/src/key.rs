//! API keys: made from 256 random bits, shown once, kept as a keyed hash.
//!
//! A key reads `bwk_<id>_<secret>`. The id locates the row, the secret proves the holder. What is
//! stored is HMAC-SHA-256 of the whole key under a pepper that is not in the database, so a stolen
//! database alone neither reveals a key nor lets a guess be checked.

use std::str::FromStr;

use bailiwick_types::KeyId;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::principal::RootMark;

const SCHEME: &str = "bwk_";
const SECRET_CHARS: usize = 43;

/// A key as a caller presented it. Neither `Debug` nor `Display`.
pub struct PresentedKey {
    /// The public half, if the key has our form; else it can only be the root key or an imported one.
    id: Option<KeyId>,
    text: Zeroizing<String>,
}

impl PresentedKey {
    /// Takes what stood in the header.
    pub fn new(text: &str) -> Self {
        Self { id: parse_id(text), text: Zeroizing::new(text.to_owned()) }
    }

    /// The public half, if the key has our form.
    pub fn id(&self) -> Option<&KeyId> {
        self.id.as_ref()
    }
}

fn parse_id(text: &str) -> Option<KeyId> {
    let (id, secret) = text.strip_prefix(SCHEME)?.split_once('_')?;
    let well_formed =
        secret.len() == SECRET_CHARS && secret.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if well_formed { KeyId::from_str(id).ok() } else { None }
}

/// The stored form of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Enough of it to tell one root key from the next.
    pub(crate) fn mark(&self) -> RootMark {
        let [a, b, c, d, ..] = self.0;
        RootMark(u32::from_be_bytes([a, b, c, d]))
    }
}

/// Makes and checks keys. Holds the pepper.
pub struct KeyRing {
    pepper: Zeroizing<[u8; 32]>,
}

/// A key that was just made: the only time it is in the clear. Not `Clone`, not `Debug`.
pub struct NewKey {
    /// The public half.
    pub id: KeyId,
    /// What to store.
    pub hash: KeyHash,
    text: Zeroizing<String>,
}

impl NewKey {
    /// The key's text, to be shown once.
    pub fn into_text(self) -> Zeroizing<String> {
        self.text
    }
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct NoEntropy;

impl KeyRing {
    /// A ring over a pepper of 32 random bytes.
    pub fn new(pepper: [u8; 32]) -> Self {
        Self { pepper: Zeroizing::new(pepper) }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn make(&self) -> Result<NewKey, NoEntropy> {
        let mut id = [0u8; 10];
        let mut secret = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut id).map_err(|_| NoEntropy)?;
        getrandom::fill(&mut *secret).map_err(|_| NoEntropy)?;
        let id = KeyId::from_bytes(id);
        let text = Zeroizing::new(format!("{SCHEME}{id}_{}", &*encode(&secret)));
        Ok(NewKey { hash: self.hash(&text), id, text })
    }

    /// Whether the presented key is the one whose hash is stored. Constant time in the hash.
    pub fn matches(&self, presented: &PresentedKey, stored: &KeyHash) -> bool {
        self.hash(&presented.text).0.ct_eq(&stored.0).into()
    }

    /// The stored form of any key text; for the root key and imported keys.
    pub fn hash(&self, text: &str) -> KeyHash {
        // HMAC takes a key of any length, so this cannot fail; a zero hash would match nothing we store.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.pepper) else { return KeyHash([0; 32]) };
        mac.update(text.as_bytes());
        KeyHash(mac.finalize().into_bytes().into())
    }
}

/// 256 bits as 43 characters of `A-Za-z0-9-.`: base64url, but with a dot where it has an underscore,
/// because the underscore separates a key's parts.
fn encode(bytes: &[u8; 32]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.";
    let mut text = Zeroizing::new(String::with_capacity(SECRET_CHARS));
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[((word >> (18 - 6 * place)) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn i02_a_key_matches_its_own_hash_and_no_other() {
        let ring = KeyRing::new([7; 32]);
        let (one, two) = (ring.make().unwrap(), ring.make().unwrap());
        let (one_hash, two_hash) = (one.hash.clone(), two.hash.clone());
        let one_id = one.id.clone();
        let text = one.into_text();
        let shown = PresentedKey::new(&text);
        assert_eq!(shown.id(), Some(&one_id));
        assert!(ring.matches(&shown, &one_hash));
        assert!(!ring.matches(&shown, &two_hash));
        assert!(!KeyRing::new([8; 32]).matches(&shown, &one_hash), "another pepper");
        assert!(!one_hash.as_bytes().iter().all(|b| *b == 0));
        for (n, _) in text.char_indices() {
            let mut forged = text.to_string();
            let with = if &forged[n..=n] == "x" { "y" } else { "x" };
            forged.replace_range(n..=n, with);
            assert!(!ring.matches(&PresentedKey::new(&forged), &one_hash), "changed at {n}");
        }
    }

    #[test]
    fn other_texts_have_no_id() {
        for text in ["", "bwk_", "bwk_abc_def", "your-secret-root-key", "a.b.c"] {
            assert!(PresentedKey::new(text).id().is_none(), "{text}");
        }
    }
}
