//! Passwords: how they are kept, and the threads that check them.
//!
//! A password is kept as a hash that says how it was made (PHC string format; bcrypt's own form), so that
//! settings can change: at the next login a hash of another kind is made anew. Hashing is slow on purpose.
//! It runs on threads of its own, below everybody else's priority and with a short line before them, so
//! that who floods the login slows down nobody but the login.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash as Phc};
use argon2::{Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Shortest password, characters (NIST SP 800-63B, section 5.1.1).
pub const SHORTEST: usize = 8;
/// Longest password, bytes. Longer ones would be work for nothing.
pub const LONGEST: usize = 1024;
/// Bytes that bcrypt looks at, with its closing zero 72. A longer password must not be cut in silence.
const BCRYPT_LONGEST: usize = 71;
/// Figures above which a kept hash is not computed at all: whoever can write one could else stop every login.
const MOST_MEMORY: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 64;
const MOST_COST: u32 = 18;
/// Checks that may wait for a thread; more are told to come again.
const LINE: usize = 64;
/// Niceness of the hashing threads: a twentieth of an ordinary thread's share when both want to run.
const NICENESS: i32 = 13;
/// How long a thread keeps its memory when nobody signs in. Between two logins of a busy moment it is kept: to
/// have the kernel clear 19 MiB anew takes a fifth as long as the hash.
const KEPT: Duration = Duration::from_millis(500);
/// Most that a thread keeps, blocks of 1 KiB.
const MOST_KEPT: usize = 64 * 1024;

/// How new hashes are made (`auth.password`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Argon2id, version 1.3 (RFC 9106).
    Argon2id {
        /// KiB of memory.
        memory: u32,
        /// Passes over it.
        passes: u32,
    },
    /// bcrypt (`2b`).
    Bcrypt {
        /// Rounds, as a power of two.
        cost: u32,
    },
}

impl Algorithm {
    /// 19 MiB, two passes, one lane: OWASP's password storage cheat sheet.
    pub const USUAL: Self = Self::Argon2id { memory: 19 * 1024, passes: 2 };

    /// Why these figures cannot be used.
    pub fn problem(&self) -> Option<&'static str> {
        match self {
            Self::Argon2id { memory, passes } => {
                let weak = *memory < 7 * 1024 || *passes == 0 || u64::from(*memory) * u64::from(*passes) < 19 * 1024;
                let much = *memory > MOST_MEMORY || *passes > MOST_PASSES;
                match (weak, much) {
                    (true, _) => Some("weaker than is reasonable: use at least 19 MiB and one pass, or 7 MiB and five"),
                    (_, true) => Some("more than is reasonable: at most 1024 MiB and 64 passes"),
                    _ => None,
                }
            }
            Self::Bcrypt { cost } if *cost < 10 => Some("weaker than is reasonable: use at least 10, usually 12"),
            Self::Bcrypt { cost } if *cost > MOST_COST => Some("would take seconds for each login: at most 18"),
            Self::Bcrypt { .. } => None,
        }
    }
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::USUAL
    }
}

/// A password as it is kept. Never shown: not `Debug`, not `Display`.
#[derive(Clone)]
pub struct StoredPassword(Zeroizing<String>);

impl StoredPassword {
    /// Takes what the database holds.
    pub fn from_text(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// For the database.
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

/// A password as somebody typed it, in normal form C, so that two keyboards make one password.
pub struct Password(Zeroizing<String>, Length);

/// Whether somebody typed more than any password has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Fits,
    TooLong,
}

/// Why a text cannot become somebody's password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too short.
    #[error("too short: use at least {SHORTEST} characters")]
    Short,
    /// Too long.
    #[error("too long: use at most {LONGEST} bytes")]
    Long,
    /// Too long for the configured algorithm.
    #[error("too long: use at most {BCRYPT_LONGEST} bytes")]
    LongForBcrypt,
    /// Something that anybody would try first.
    #[error("too easy to guess: use something else than your name or one repeated character")]
    Guessable,
}

impl Password {
    /// Takes what was typed.
    pub fn new(text: &str) -> Self {
        // Neither brought into form nor hashed: it is nobody's password.
        if text.len() > LONGEST {
            return Self(Zeroizing::new(String::new()), Length::TooLong);
        }
        let text = if text.is_ascii() { text.to_owned() } else { text.nfc().collect() };
        Self(Zeroizing::new(text), Length::Fits)
    }

    /// The same once more, for a check that may be made twice.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.clone(), self.1)
    }

    /// Itself, for a keyed hash.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether it can become `user`'s password.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, user: &str, algorithm: Algorithm) -> Result<(), Unfit> {
        let first = self.0.chars().next();
        if self.1 == Length::TooLong || self.0.len() > LONGEST {
            return Err(Unfit::Long);
        }
        if self.0.chars().count() < SHORTEST {
            return Err(Unfit::Short);
        }
        if matches!(algorithm, Algorithm::Bcrypt { .. }) && self.0.len() > BCRYPT_LONGEST {
            return Err(Unfit::LongForBcrypt);
        }
        if self.0.eq_ignore_ascii_case(user) || self.0.chars().all(|c| Some(c) == first) {
            return Err(Unfit::Guessable);
        }
        Ok(())
    }
}

/// Too many logins wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many people are signing in just now: try again in a moment")]
pub struct Busy;

/// What a check found.
pub enum Checked {
    /// Wrong, or there was nothing to compare with.
    Wrong,
    /// Right.
    Right {
        /// The same password made anew, where the kept hash is not of today's settings.
        anew: Option<StoredPassword>,
    },
}

/// Makes and checks hashes, on threads of its own. Cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    algorithm: Algorithm,
    /// What is checked when there is nobody of that name: it costs the same, and fits no password.
    decoy: StoredPassword,
    jobs: SyncSender<Job>,
}

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// What a thread hashes in. Nothing reads of it what was there before: the first pass writes all of it.
#[derive(Default)]
struct Memory(Vec<Block>);

impl Memory {
    /// Nothing where the system has no such memory: a kept hash may ask for much, and must not end the server.
    fn of(&mut self, blocks: usize) -> Option<&mut [Block]> {
        if self.0.len() < blocks {
            self.release();
            self.0.try_reserve_exact(blocks).ok()?;
            self.0.resize(blocks, Block::new());
        }
        self.0.get_mut(..blocks)
    }

    fn release(&mut self) {
        self.0 = Vec::new();
    }
}

/// Passwords cannot be checked on this host.
#[derive(Debug, thiserror::Error)]
pub enum PasswordsError {
    /// No thread could be started.
    #[error("the threads that check passwords could not be started")]
    Threads(#[source] std::io::Error),
    /// The system gave no random bytes, or the figures cannot be used.
    #[error("a password could not be hashed")]
    Hash,
}

impl Passwords {
    /// Starts the threads: as many as there are cores.
    ///
    /// # Errors
    /// If they cannot be started, or the algorithm's figures cannot be used.
    pub fn start(algorithm: Algorithm) -> Result<Self, PasswordsError> {
        let (jobs, line) = sync_channel::<Job>(LINE);
        let line = Arc::new(Mutex::new(line));
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        for _ in 0..threads {
            let line = Arc::clone(&line);
            let thread = std::thread::Builder::new().name("passwords".to_owned());
            thread.spawn(move || work(&line)).map_err(PasswordsError::Threads)?;
        }
        let decoy = decoy(algorithm).ok_or(PasswordsError::Hash)?;
        Ok(Self { algorithm, decoy, jobs })
    }

    /// How new hashes are made.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The stored form of a password.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn hash(&self, password: Password) -> Result<StoredPassword, Busy> {
        let algorithm = self.algorithm;
        self.run(move |_| make(algorithm, password.0.as_bytes())).await?.ok_or(Busy)
    }

    /// Checks a password. Without a stored one it takes as long, and is wrong.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn check(&self, password: Password, stored: Option<StoredPassword>) -> Result<Checked, Busy> {
        let (algorithm, decoy) = (self.algorithm, self.decoy.clone());
        let stored = stored.filter(|_| password.1 == Length::Fits);
        self.run(move |memory| {
            let Some(stored) = stored else {
                // Looked at, so that it is not left out.
                let _ = std::hint::black_box(fits(&decoy, password.0.as_bytes(), memory));
                return Checked::Wrong;
            };
            if !fits(&stored, password.0.as_bytes(), memory) {
                return Checked::Wrong;
            }
            let anew = if is_of(&stored, algorithm) { None } else { make(algorithm, password.0.as_bytes()) };
            Checked::Right { anew }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Memory) -> T + Send + 'static) -> Result<T, Busy> {
        let (tell, told) = oneshot::channel();
        let job = Box::new(move |memory: &mut Memory| {
            // Whoever asked may have gone; then there is nothing to do.
            if !tell.is_closed() {
                let _ = tell.send(work(memory));
            }
        });
        match self.jobs.try_send(job) {
            Ok(()) => told.await.map_err(|_| Busy),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }
}

/// One thread: does what stands first in the line, until there is no line any more.
fn work(line: &Mutex<Receiver<Job>>) {
    // Without it logins only take more of the machine.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let mut memory = Memory::default();
    while let Ok(job) = next(line, &mut memory) {
        job(&mut memory);
        if memory.0.len() > MOST_KEPT {
            memory.release();
        }
    }
}

/// The next job. While none comes, nobody keeps memory for one.
fn next(line: &Mutex<Receiver<Job>>, memory: &mut Memory) -> Result<Job, RecvTimeoutError> {
    let line = match line.try_lock() {
        Ok(line) => line,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // Another thread waits for the next job already.
        Err(TryLockError::WouldBlock) => {
            memory.release();
            line.lock().unwrap_or_else(PoisonError::into_inner)
        }
    };
    line.recv_timeout(KEPT).or_else(|error| {
        memory.release();
        match error {
            RecvTimeoutError::Timeout => line.recv().map_err(|_| RecvTimeoutError::Disconnected),
            RecvTimeoutError::Disconnected => Err(error),
        }
    })
}

fn argon2(memory: u32, passes: u32) -> Option<Argon2<'static>> {
    Params::new(memory, passes, 1, None)
        .ok()
        .map(|params| Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params))
}

fn make(algorithm: Algorithm, password: &[u8]) -> Option<StoredPassword> {
    let text = match algorithm {
        Algorithm::Argon2id { memory, passes } => argon2(memory, passes)?.hash_password(password).ok()?.to_string(),
        Algorithm::Bcrypt { cost } => bcrypt::non_truncating_hash(password, cost).ok()?,
    };
    Some(StoredPassword::from_text(text))
}

/// A kept password that costs as much to check as any, and that nothing fits.
fn decoy(algorithm: Algorithm) -> Option<StoredPassword> {
    let mut random = Zeroizing::new([0u8; 48]);
    getrandom::fill(&mut *random).ok()?;
    let (salt, output) = random.split_at(16);
    match algorithm {
        // The output of no password: made up, so that the start waits for no hash.
        Algorithm::Argon2id { memory, passes } => {
            let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
            let text = format!("$argon2id$v=19$m={memory},t={passes},p=1${salt}${output}");
            Phc::new(&text).ok().and(argon2(memory, passes)).map(|_| StoredPassword::from_text(text))
        }
        Algorithm::Bcrypt { .. } => make(algorithm, output),
    }
}

fn fits(stored: &StoredPassword, password: &[u8], memory: &mut Memory) -> bool {
    match Kept::read(stored.as_text()) {
        Some(Kept::Argon2(hash)) => is_hash_of(&hash, password, memory).unwrap_or(false),
        Some(Kept::Bcrypt(text)) => bcrypt::non_truncating_verify(password, text).unwrap_or(false),
        None => false,
    }
}

/// Whether a hash is that of a password. Variant, version and figures are those of the hash, not of today.
fn is_hash_of(hash: &Phc, password: &[u8], memory: &mut Memory) -> Option<bool> {
    let variant = argon2::Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = hash.version.map(Version::try_from).transpose().ok()?.unwrap_or_default();
    let params = Params::try_from(hash).ok()?;
    let (salt, expected) = (hash.salt.as_ref()?, hash.hash.as_ref()?);
    let mut output = Zeroizing::new([0u8; Output::MAX_LENGTH]);
    let output = output.get_mut(..expected.len())?;
    let memory = memory.of(params.block_count())?;
    Argon2::new(variant, version, params).hash_password_into_with_memory(password, salt, output, memory).ok()?;
    Some(output.ct_eq(expected.as_ref()).into())
}

/// A kept hash whose figures are bearable. Nothing of it was computed yet.
enum Kept<'t> {
    Argon2(Box<Phc>),
    Bcrypt(&'t str),
}

impl<'t> Kept<'t> {
    fn read(text: &'t str) -> Option<Self> {
        if text.starts_with("$2") {
            let cost = text.parse::<bcrypt::HashParts>().ok()?.get_cost();
            return (cost <= MOST_COST).then_some(Self::Bcrypt(text));
        }
        let hash = Phc::new(text).ok()?;
        let made = Params::try_from(&hash).ok()?;
        (made.m_cost() <= MOST_MEMORY && made.t_cost() <= MOST_PASSES).then(|| Self::Argon2(Box::new(hash)))
    }
}

/// Whether a hash was made as new ones are.
fn is_of(stored: &StoredPassword, algorithm: Algorithm) -> bool {
    let text = stored.as_text();
    match algorithm {
        Algorithm::Bcrypt { cost } => {
            text.parse::<bcrypt::HashParts>().is_ok_and(|parts| text.starts_with("$2b$") && parts.get_cost() == cost)
        }
        Algorithm::Argon2id { memory, passes } => text
            .strip_prefix("$argon2id$v=19$")
            .and_then(|rest| rest.split_once('$'))
            .is_some_and(|(figures, _)| figures == format!("m={memory},t={passes},p=1")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod hostile;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const QUICK: Algorithm = Algorithm::Argon2id { memory: 64, passes: 1 };

    async fn check(passwords: &Passwords, text: &str, stored: Option<&StoredPassword>) -> Option<Option<String>> {
        match passwords.check(Password::new(text), stored.cloned()).await.unwrap() {
            Checked::Wrong => None,
            Checked::Right { anew } => Some(anew.map(|anew| anew.as_text().to_owned())),
        }
    }

    #[tokio::test]
    async fn i02_a_password_is_kept_as_a_salted_hash_and_only_itself_fits() {
        for algorithm in [QUICK, Algorithm::Bcrypt { cost: 4 }] {
            let passwords = Passwords::start(algorithm).unwrap();
            let stored = passwords.hash(Password::new("correct horse")).await.unwrap();
            let again = passwords.hash(Password::new("correct horse")).await.unwrap();
            assert_ne!(stored.as_text(), again.as_text(), "the salt differs");
            assert!(!stored.as_text().contains("correct"));
            assert_eq!(check(&passwords, "correct horse", Some(&stored)).await, Some(None));
            for wrong in ["", "correct horsE", "correct horse ", "correct hors"] {
                assert_eq!(check(&passwords, wrong, Some(&stored)).await, None, "{wrong:?}");
            }
            assert_eq!(check(&passwords, "correct horse", None).await, None, "nobody has no password");
            for damaged in [
                "",
                "$argon2id$nonsense",
                "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
                "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            ] {
                let damaged = StoredPassword::from_text(damaged.to_owned());
                assert_eq!(check(&passwords, "correct horse", Some(&damaged)).await, None);
            }
        }
    }

    #[tokio::test]
    async fn i02_a_hash_of_other_settings_still_fits_and_is_made_anew() {
        let before = Passwords::start(Algorithm::Bcrypt { cost: 4 }).unwrap();
        let old = before.hash(Password::new("correct horse")).await.unwrap();
        let now = Passwords::start(QUICK).unwrap();
        let anew = check(&now, "correct horse", Some(&old)).await.unwrap().unwrap();
        assert!(anew.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{anew}");
        let anew = StoredPassword::from_text(anew);
        assert_eq!(check(&now, "correct horse", Some(&anew)).await, Some(None), "and then no more");
        let slower = Passwords::start(Algorithm::Argon2id { memory: 128, passes: 1 }).unwrap();
        assert!(check(&slower, "correct horse", Some(&anew)).await.unwrap().is_some());
        assert!(check(&before, "correct horse", Some(&anew)).await.unwrap().unwrap().starts_with("$2b$04$"));
    }

    #[tokio::test]
    async fn i02_known_hashes_of_others_fit() {
        // RustCrypto's and OpenBSD's test vectors: made by other programs than this one.
        let passwords = Passwords::start(QUICK).unwrap();
        let bcrypt =
            StoredPassword::from_text("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".to_owned());
        assert!(check(&passwords, "U*U", Some(&bcrypt)).await.is_some());
        assert!(check(&passwords, "U*V", Some(&bcrypt)).await.is_none());
        let argon2 = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(check(&passwords, "password", Some(&StoredPassword::from_text(argon2.to_owned()))).await.is_some());
    }

    #[tokio::test]
    async fn i02_nobodys_password_costs_what_anybodys_does() {
        for algorithm in [Algorithm::USUAL, Algorithm::Bcrypt { cost: 10 }] {
            let passwords = Passwords::start(algorithm).unwrap();
            let stored = passwords.hash(Password::new("correct horse")).await.unwrap();
            let mut took = [Vec::new(), Vec::new()];
            for _ in 0..7 {
                for (n, stored) in [Some(&stored), None].into_iter().enumerate() {
                    let begun = std::time::Instant::now();
                    assert_eq!(check(&passwords, "wrong password", stored).await, None);
                    took[n].push(begun.elapsed());
                }
            }
            let [there, nobody] = took.map(|mut took| {
                took.sort();
                took[3].as_secs_f64()
            });
            let ratio = nobody / there;
            assert!((0.25..4.0).contains(&ratio), "{algorithm:?}: {there} against {nobody}");
        }
    }

    #[test]
    fn one_password_typed_on_two_keyboards_is_one() {
        assert_eq!(*Password::new("Ange\u{301}le").0, *Password::new("Ang\u{e9}le").0);
        assert_ne!(*Password::new("Angele").0, *Password::new("Ang\u{e9}le").0);
    }

    #[test]
    fn unfit_passwords_are_told_why() {
        let fit = |text: &str, algorithm| Password::new(text).fit("alexandra", algorithm);
        let bcrypt = Algorithm::Bcrypt { cost: 12 };
        assert_eq!(fit("1234567", QUICK), Err(Unfit::Short));
        assert_eq!(fit("\u{e9}\u{e9}\u{e9}\u{e9}", QUICK), Err(Unfit::Short), "characters, not bytes");
        assert_eq!(fit(&"ab".repeat(600), QUICK), Err(Unfit::Long));
        assert_eq!(fit(&"ab".repeat(40), bcrypt), Err(Unfit::LongForBcrypt));
        assert_eq!(fit("Alexandra", QUICK), Err(Unfit::Guessable));
        assert_eq!(fit("aaaaaaaaaa", QUICK), Err(Unfit::Guessable));
        assert_eq!(fit("correct horse", bcrypt), Ok(()));
    }

    #[tokio::test]
    async fn a_long_line_is_refused_and_what_is_in_it_is_done() {
        let passwords = Passwords::start(Algorithm::Argon2id { memory: 8 * 1024, passes: 2 }).unwrap();
        let mut checks = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let passwords = passwords.clone();
            checks.spawn(async move { passwords.check(Password::new("x"), None).await.is_err() });
        }
        let busy = checks.join_all().await.into_iter().filter(|busy| *busy).count();
        assert!(busy > 0 && busy < 300, "{busy}");
    }
}
