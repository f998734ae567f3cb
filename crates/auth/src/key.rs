//! Credentials that we make: API keys and the tokens of logins. 256 random bits, shown once, kept as a
//! keyed hash.
//!
//! A key reads `bwk_<id>_<secret>`, a login's token `bwd_<id>_<secret>`. The id locates the row, the secret
//! proves the holder. What is stored is HMAC-SHA-256 of the whole text under a pepper that is not in the
//! database, so a stolen database alone neither reveals one nor lets a guess be checked.

use std::str::FromStr;

use bailiwick_types::{DeviceId, Incarnation, KeyId};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::principal::RootMark;

const SECRET_CHARS: usize = 43;

/// The public half of a credential that we make, and the word that its text begins with.
pub trait PublicHalf: Sized {
    /// The beginning, with its underscore.
    const SCHEME: &'static str;
    /// Makes one of 80 random bits.
    fn of(bytes: [u8; 10]) -> Self;
    /// As it stands in the text.
    fn text(&self) -> &str;
}

impl PublicHalf for KeyId {
    const SCHEME: &'static str = "bwk_";
    fn of(bytes: [u8; 10]) -> Self {
        Self::from_bytes(bytes)
    }
    fn text(&self) -> &str {
        self.as_str()
    }
}

impl PublicHalf for DeviceId {
    const SCHEME: &'static str = "bwd_";
    fn of(bytes: [u8; 10]) -> Self {
        Self::from_bytes(bytes)
    }
    fn text(&self) -> &str {
        self.as_str()
    }
}

/// What a credential's form says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A key of a user.
    Key(KeyId),
    /// The token of a login.
    Device(DeviceId),
    /// None of ours: it can only be the root key, or something that another step knows.
    Other,
}

/// A credential as a caller presented it. Neither `Debug` nor `Display`.
pub struct PresentedKey {
    form: Form,
    text: Zeroizing<String>,
}

impl PresentedKey {
    /// Takes what stood in the header.
    pub fn new(text: &str) -> Self {
        Self { form: form(text), text: Zeroizing::new(text.to_owned()) }
    }

    /// What it seems to be.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// The whole of it, for a step that reads other forms.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn form(text: &str) -> Form {
    let half = |scheme: &str| {
        let (id, secret) = text.strip_prefix(scheme)?.split_once('_')?;
        let well_formed = secret.len() == SECRET_CHARS
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        well_formed.then_some(id)
    };
    let key = half(KeyId::SCHEME).and_then(|id| KeyId::from_str(id).ok()).map(Form::Key);
    let device = || half(DeviceId::SCHEME).and_then(|id| DeviceId::from_str(id).ok()).map(Form::Device);
    key.or_else(device).unwrap_or(Form::Other)
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

/// A credential that was just made: the only time it is in the clear. Not `Clone`, not `Debug`.
pub struct New<Id> {
    /// The public half.
    pub id: Id,
    /// What to store.
    pub hash: KeyHash,
    text: Zeroizing<String>,
}

/// A key that was just made.
pub type NewKey = New<KeyId>;
/// A login's token that was just made.
pub type NewToken = New<DeviceId>;

impl<Id> New<Id> {
    /// The credential's text, to be shown once.
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
        self.make_one()
    }

    /// Makes a login's token.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn make_token(&self) -> Result<NewToken, NoEntropy> {
        self.make_one()
    }

    fn make_one<Id: PublicHalf>(&self) -> Result<New<Id>, NoEntropy> {
        let mut id = [0u8; 10];
        let mut secret = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut id).map_err(|_| NoEntropy)?;
        getrandom::fill(&mut *secret).map_err(|_| NoEntropy)?;
        let id = Id::of(id);
        let text = Zeroizing::new(format!("{}{}_{}", Id::SCHEME, id.text(), &*encode(&secret)));
        Ok(New { hash: self.hash(&text), id, text })
    }

    /// Whether the presented key is the one whose hash is stored. Constant time in the hash.
    pub fn matches(&self, presented: &PresentedKey, stored: &KeyHash) -> bool {
        self.hash(&presented.text).0.ct_eq(&stored.0).into()
    }

    /// What proves to a form that a page of this login holds it (double submit, bound to the login): nobody
    /// else's page can read it, and it opens nothing by itself.
    pub fn form_token(&self, device: &DeviceId) -> Zeroizing<String> {
        let KeyHash(bytes) = self.hash(&format!("form\0{device}"));
        encode(&bytes)
    }

    /// Whether that is the form token of this login. Constant time in the token.
    pub fn is_form_token(&self, device: &DeviceId, shown: &str) -> bool {
        self.form_token(device).as_bytes().ct_eq(shown.as_bytes()).into()
    }

    /// The stored form of a code that a person types, of one user of one account.
    pub fn code_hash(&self, tenant: Incarnation, user: &str, code: &str) -> KeyHash {
        self.hash(&format!("code\0{tenant}\0{user}\0{code}"))
    }

    /// What stands for a user where an authenticator keeps it: sixteen bytes that tell nobody else whose
    /// they are, and are another's after the account's end.
    pub fn user_handle(&self, tenant: Incarnation, user: &str) -> [u8; 16] {
        let hash = self.hash(&format!("passkey\0{tenant}\0{user}"));
        std::array::from_fn(|n| hash.0[n])
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
        assert_eq!(*shown.form(), Form::Key(one_id));
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
    fn i01_a_token_is_told_from_a_key_by_its_form_and_neither_passes_for_the_other() {
        let ring = KeyRing::new([7; 32]);
        let token = ring.make_token().unwrap();
        let (id, hash, text) = (token.id.clone(), token.hash.clone(), token.into_text());
        let shown = PresentedKey::new(&text);
        assert_eq!(*shown.form(), Form::Device(id));
        assert!(ring.matches(&shown, &hash));
        let renamed = text.replacen("bwd_", "bwk_", 1);
        assert!(!ring.matches(&PresentedKey::new(&renamed), &hash), "the beginning is a part of what is hashed");
    }

    #[test]
    fn i09_a_form_token_is_of_one_login_alone() {
        let ring = KeyRing::new([7; 32]);
        let (one, two) = (ring.make_token().unwrap().id, ring.make_token().unwrap().id);
        let token = ring.form_token(&one);
        assert!(ring.is_form_token(&one, &token));
        assert!(!ring.is_form_token(&two, &token) && !ring.is_form_token(&one, "") && !ring.is_form_token(&one, "x"));
        assert!(!KeyRing::new([8; 32]).is_form_token(&one, &token));
    }

    #[test]
    fn other_texts_have_no_id() {
        for text in ["", "bwk_", "bwk_abc_def", "your-secret-root-key", "a.b.c"] {
            assert_eq!(*PresentedKey::new(text).form(), Form::Other, "{text}");
        }
    }
}
