//! Credentials that we make: API keys, the tokens of logins, and those of applications. 256 random bits, shown
//! once, kept as a keyed hash.
//!
//! A key reads `bwk_<id>_<secret>`, a login's token `bwd_<id>_<secret>`, an application's code, access token and
//! refresh token `bwc_…`, `bwo_…` and `bwr_…`, all three with the application's id. The id locates the row, the
//! secret proves the holder. What is stored is HMAC-SHA-256 of the whole text under a pepper that is not in the
//! database, so a stolen database alone neither reveals one nor lets a guess be checked.

use std::str::FromStr;

use bailiwick_types::{ApplicationId, ClientId, DeviceId, Incarnation, KeyId};
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

impl PublicHalf for ClientId {
    const SCHEME: &'static str = "bws_";
    fn of(bytes: [u8; 10]) -> Self {
        Self::from_bytes(bytes)
    }
    fn text(&self) -> &str {
        self.as_str()
    }
}

/// Which of an application's credentials (RFC 6749, sections 1.3 to 1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The code that its user's consent gives it, good once and for a moment.
    Code,
    /// The token that it asks with.
    Access,
    /// The token by which it gets the next two.
    Refresh,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Code, Self::Access, Self::Refresh];

    /// The word that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Access => "access",
            Self::Refresh => "refresh",
        }
    }

    /// The beginning of its text. It is hashed with the rest, so that none passes for another.
    const fn scheme(self) -> &'static str {
        match self {
            Self::Code => "bwc_",
            Self::Access => "bwo_",
            Self::Refresh => "bwr_",
        }
    }
}

/// What a credential's form says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A key of a user.
    Key(KeyId),
    /// The token of a login.
    Device(DeviceId),
    /// One of an application's.
    Application(Kind, ApplicationId),
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
    let application = || {
        let of = |kind: Kind| Some(Form::Application(kind, half(kind.scheme())?.parse().ok()?));
        Kind::ALL.into_iter().find_map(of)
    };
    key.or_else(device).or_else(application).unwrap_or(Form::Other)
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
/// One of an application's credentials that was just made.
pub type NewCredential = New<ApplicationId>;
/// A client's secret that was just made.
pub type NewSecret = New<ClientId>;

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

    /// Makes a client's id, with a secret for one that can keep it.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn make_secret(&self) -> Result<NewSecret, NoEntropy> {
        self.make_one()
    }

    /// Makes an application's id, with its code.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn make_code(&self) -> Result<NewCredential, NoEntropy> {
        self.make_credential(Kind::Code, ApplicationId::from_bytes(random()?))
    }

    /// Makes another credential of an application.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn make_credential(&self, kind: Kind, id: ApplicationId) -> Result<NewCredential, NoEntropy> {
        let text = written(kind.scheme(), id.as_str())?;
        Ok(New { hash: self.hash(&text), id, text })
    }

    fn make_one<Id: PublicHalf>(&self) -> Result<New<Id>, NoEntropy> {
        let id = Id::of(random()?);
        let text = written(Id::SCHEME, id.text())?;
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

    /// The stored form of what somebody shows.
    pub fn hash_of(&self, shown: &PresentedKey) -> KeyHash {
        self.hash(&shown.text)
    }

    /// The stored form of any key text; for the root key and imported keys.
    pub fn hash(&self, text: &str) -> KeyHash {
        // HMAC takes a key of any length, so this cannot fail; a zero hash would match nothing we store.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.pepper) else { return KeyHash([0; 32]) };
        mac.update(text.as_bytes());
        KeyHash(mac.finalize().into_bytes().into())
    }
}

fn random() -> Result<[u8; 10], NoEntropy> {
    let mut id = [0u8; 10];
    getrandom::fill(&mut id).map_err(|_| NoEntropy)?;
    Ok(id)
}

/// A credential's text, with a new secret.
fn written(scheme: &str, id: &str) -> Result<Zeroizing<String>, NoEntropy> {
    let mut secret = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *secret).map_err(|_| NoEntropy)?;
    Ok(Zeroizing::new(format!("{scheme}{id}_{}", &*encode(&secret))))
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
    fn an_applications_credentials_are_told_apart_and_none_passes_for_another() {
        let ring = KeyRing::new([7; 32]);
        let code = ring.make_code().unwrap();
        let id = code.id.clone();
        assert_eq!(*PresentedKey::new(&code.into_text()).form(), Form::Application(Kind::Code, id.clone()));
        let refresh = ring.make_credential(Kind::Refresh, id.clone()).unwrap();
        let (hash, text) = (refresh.hash.clone(), refresh.into_text());
        assert!(ring.matches(&PresentedKey::new(&text), &hash), "the control");
        let renamed = PresentedKey::new(&text.replacen("bwr_", "bwo_", 1));
        assert_eq!(*renamed.form(), Form::Application(Kind::Access, id));
        assert!(!ring.matches(&renamed, &hash));
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
