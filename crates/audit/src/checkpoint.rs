//! Signed heads of a log: the text of C2SP tlog-checkpoint in a C2SP signed-note, signed with Ed25519.
//!
//! ```text
//! bailiwick.example/acc_01J…        origin: the server's name, a slash, the log
//! 20852163                          number of events
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2…    root, base64
//! time 1767225600000000             microseconds since 1970, by the server's clock
//!
//! — bailiwick.example Az3grlgtzPIC… key id and signature, base64
//! ```
//!
//! The time is an extension line. The specification advises against such lines, because nobody but the
//! signer can say whether they are true; here it says how fresh a copy is, and nothing more is made of it.
//!
//! Nothing but a head can be signed: a [`Signer`] takes no text from outside.

use std::fmt;
use std::str::FromStr;

use bailiwick_types::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::event::{LogId, hex};
use crate::tree::Hash;
use crate::verify::Head;

/// Bytes of a note. Sixteen signatures of the longest kind that is in use fit.
const NOTE_BYTES: usize = 128 * 1024;
/// Signatures of a note that are looked at.
const SIGNATURES: usize = 100;
/// Lines after the root.
const EXTENSIONS: usize = 16;
/// Bytes of a key's name.
const NAME_BYTES: usize = 255;
/// The byte that says Ed25519.
const ED25519: u8 = 1;

/// A key's text is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `NAME+ID+KEY`.
    #[error("not a verifier key: expected NAME+8 hexadecimal digits+base64")]
    Form,
    /// The name cannot stand in a note.
    #[error("a key's name has 1 to 255 bytes, without spaces, control characters and plus signs")]
    Name,
    /// Another algorithm.
    #[error("the verifier key is not of Ed25519 (algorithm 1)")]
    Algorithm,
    /// The id is not that of name and key: a letter was lost in copying.
    #[error("the verifier key is damaged: its id does not fit its name and its bytes")]
    Id,
    /// Not a key that anybody could have made.
    #[error("the verifier key is no usable Ed25519 key")]
    Weak,
}

/// A note is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note.
    #[error("not a signed note: {0}")]
    Form(&'static str),
    /// A signed note, but no checkpoint.
    #[error("not a checkpoint: {0}")]
    Checkpoint(&'static str),
    /// No signature by the key.
    #[error("the checkpoint is not signed by the key {0}")]
    Unsigned(String),
    /// A signature that says it is by the key, and is not.
    #[error("the signature by the key {0} is false")]
    Signature(String),
    /// Signed by the key of another server.
    #[error("the checkpoint's origin {origin} does not belong to the key {key}")]
    Origin {
        /// The first line.
        origin: String,
        /// The key's name.
        key: String,
    },
}

/// The host's secret key for checkpoints. Wiped when dropped.
///
/// ```compile_fail,E0277
/// fn misuse(signer: &bailiwick_audit::checkpoint::Signer) { format!("{signer:?}"); }
/// ```
///
/// ```compile_fail,E0599
/// fn misuse(signer: bailiwick_audit::checkpoint::Signer) { drop(signer.clone()); }
/// ```
///
/// ```
/// // The positive control.
/// fn right(signer: &bailiwick_audit::checkpoint::Signer) { format!("{}", signer.verifier_key()); }
/// ```
pub struct Signer {
    name: String,
    key: SigningKey,
}

impl Signer {
    /// A signer named as its server, from the 32 bytes of its key file.
    ///
    /// # Errors
    /// If the name cannot stand in a note.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// What others check its signatures with.
    pub fn verifier_key(&self) -> VerifierKey {
        VerifierKey::of(self.name.clone(), self.key.verifying_key())
    }

    /// The origin of a log's checkpoints: `bailiwick.example/acc_…`.
    pub fn origin(&self, log: &LogId) -> String {
        format!("{}/{}", self.name, log.as_str())
    }

    /// Signs a log's head. What was signed once can be held against the server for ever: sign only a head
    /// that is on disk.
    pub fn checkpoint(&self, log: &LogId, head: &Head, at: Timestamp) -> SignedNote {
        let checkpoint = Checkpoint {
            origin: self.origin(log),
            size: head.size,
            root: head.root,
            extensions: vec![format!("time {}", at.as_micros().max(0))],
        };
        self.sign(checkpoint.to_text())
    }

    fn sign(&self, text: String) -> SignedNote {
        let bytes = self.key.sign(text.as_bytes()).to_bytes().to_vec();
        let by = NoteSignature { name: self.name.clone(), id: self.verifier_key().id, bytes };
        SignedNote { text, signatures: vec![by] }
    }
}

/// A public key with its name. Its text form is `name+id+base64`, which fits on a line of a web page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    fn of(name: String, key: VerifyingKey) -> Self {
        let hash =
            Sha256::new().chain_update(&name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
        Self { name, id: [hash[0], hash[1], hash[2], hash[3]], key }
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64.encode([&[ED25519][..], self.key.as_bytes()].concat());
        write!(f, "{}+{}+{key}", self.name, hex(&self.id))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // The name has no plus sign; the base64 may have some.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        if key.len() > 64 {
            return Err(KeyError::Form);
        }
        let key = BASE64.decode(key).map_err(|_| KeyError::Form)?;
        let Some((&algorithm, key)) = key.split_first() else { return Err(KeyError::Form) };
        if algorithm != ED25519 {
            return Err(KeyError::Algorithm);
        }
        let bytes: &[u8; 32] = key.try_into().map_err(|_| KeyError::Form)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Weak)?;
        // One key has one spelling, and is not one of the few points that anybody can sign for.
        if key.is_weak() || key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::Weak);
        }
        let key = Self::of(name.to_owned(), key);
        if hex(&key.id) == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

/// What a checkpoint says. Whoever has one from [`SignedNote::open`] knows who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the server's name, a slash, the log's id.
    pub origin: String,
    /// Number of events.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Lines after the root. One of them is the time.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// When it was signed, by the signer's clock.
    pub fn time(&self) -> Option<Timestamp> {
        let time = self.extensions.iter().find_map(|line| line.strip_prefix("time "))?;
        time.parse().ok().map(Timestamp::from_micros)
    }

    fn to_text(&self) -> String {
        let root = BASE64.encode(self.root);
        let mut text = format!("{}\n{}\n{root}\n", self.origin, self.size);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let text = text.strip_suffix('\n').ok_or(NoteError::Checkpoint("its last line does not end"))?;
        let mut lines = text.split('\n');
        let mut line = |what| match lines.next() {
            Some(line) if !line.is_empty() => Ok(line),
            _ => Err(NoteError::Checkpoint(what)),
        };
        let origin = line("it has no origin")?.to_owned();
        let size = line("it has no size")?;
        let size = decimal(size).ok_or(NoteError::Checkpoint("its size is not a decimal number below 2^64"))?;
        let root = BASE64.decode(line("it has no root")?).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or(NoteError::Checkpoint("its root is not the base64 of 32 bytes"))?;
        let extensions: Vec<String> = lines.take(EXTENSIONS + 1).map(str::to_owned).collect();
        if extensions.len() > EXTENSIONS {
            return Err(NoteError::Checkpoint("it has more than 16 lines after the root"));
        }
        if extensions.iter().any(String::is_empty) {
            return Err(NoteError::Checkpoint("it has an empty line"));
        }
        let mut times = extensions.iter().filter_map(|line| line.strip_prefix("time "));
        let time = times.next();
        let well_formed = |time| decimal(time).is_some_and(|time| i64::try_from(time).is_ok());
        if times.next().is_some() || time.is_some_and(|time| !well_formed(time)) {
            return Err(NoteError::Checkpoint("its time is not one number of microseconds"));
        }
        Ok(Self { origin, size, root, extensions })
    }
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

/// A text with signatures below it. Its text may be believed only through [`Self::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// What the note says, if the key signed it. Signatures by other keys are passed over, a false one by
    /// this key is not.
    ///
    /// # Errors
    /// If the key did not sign it, it is no checkpoint, or it is about the log of another server.
    pub fn open(&self, key: &VerifierKey) -> Result<Checkpoint, NoteError> {
        self.check(key)?;
        let checkpoint = self.read_unverified()?;
        let log = checkpoint.origin.strip_prefix(key.name.as_str()).and_then(|rest| rest.strip_prefix('/'));
        if log.is_none_or(str::is_empty) {
            return Err(NoteError::Origin { origin: checkpoint.origin, key: key.name.clone() });
        }
        Ok(checkpoint)
    }

    /// What the note says, whoever wrote it.
    ///
    /// # Errors
    /// If it is no checkpoint.
    pub fn read_unverified(&self) -> Result<Checkpoint, NoteError> {
        Checkpoint::parse(&self.text)
    }

    fn check(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let mut signed = Err(NoteError::Unsigned(key.name.clone()));
        for by in self.signatures.iter().filter(|by| by.name == key.name && by.id == key.id) {
            let signature = Signature::from_slice(&by.bytes).ok();
            // Strict: of one text and key there is one signature, and no point of small order passes.
            let holds = signature.is_some_and(|it| key.key.verify_strict(self.text.as_bytes(), &it).is_ok());
            if !holds {
                return Err(NoteError::Signature(key.name.clone()));
            }
            signed = Ok(());
        }
        signed
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for by in &self.signatures {
            writeln!(f, "\u{2014} {} {}", by.name, BASE64.encode([&by.id[..], &by.bytes].concat()))?;
        }
        Ok(())
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES {
            return Err(NoteError::Form("it is longer than 128 KiB"));
        }
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(NoteError::Form("it has control characters"));
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Form("it has no empty line before the signatures"))?;
        let (text, below) = (&note[..=at], &note[at + 2..]);
        let below = below.strip_suffix('\n').ok_or(NoteError::Form("its last line does not end"))?;
        let signatures: Option<Vec<_>> = below.split('\n').take(SIGNATURES + 1).map(signature).collect();
        let signatures = signatures.ok_or(NoteError::Form("a signature line is malformed"))?;
        if signatures.len() > SIGNATURES {
            return Err(NoteError::Form("it has more than 100 signatures"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }
}

fn signature(line: &str) -> Option<NoteSignature> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = BASE64.decode(signature).ok()?;
    let (id, bytes) = bytes.split_first_chunk::<4>()?;
    (is_name(name) && !bytes.is_empty()).then(|| NoteSignature {
        name: name.to_owned(),
        id: *id,
        bytes: bytes.to_vec(),
    })
}

fn is_name(name: &str) -> bool {
    let misfit = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    (1..=NAME_BYTES).contains(&name.len()) && !name.contains(misfit)
}

/// A number with one spelling: digits alone, no leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
