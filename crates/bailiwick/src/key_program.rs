//! A key above the data keys that another program keeps: an operator's own, in front of whatever has the key.
//!
//! It is asked by one line of JSON on its standard input and answers by one on its standard output:
//! `{"do":"wrap","key":"…"}` → `{"wrapped":"…"}`, `{"do":"unwrap","wrapped":"…"}` → `{"key":"…"}`, all in base64. Its
//! arguments are the operator's, no shell is between, and nothing that an agent or a user says comes near it.
//!
//! It never sees a data key. What it encrypts is a key that is made for one data key, under which that lies bound to
//! its account: a program that mixes up what it is asked opens nothing of another account's.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bailiwick_vault::{KeyEncryption, LocalKey, SealError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The first byte of what is wrapped so.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// Longest wrapped key that is believed, bytes.
const LONGEST: usize = 8 * 1024;
/// Longest answer that is read, bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;
/// Most runs at once: each holds a thread.
const MOST: usize = 16;
/// How often a program that has answered is looked at until it ends.
const LOOK: Duration = Duration::from_millis(2);
/// Variables that begin so are the server's settings, the operator's key among them.
const OURS: &str = "BAILIWICK_";

/// A key that a program keeps.
pub(crate) struct KeyProgram {
    id: String,
    program: PathBuf,
    arguments: Vec<String>,
    patience: Duration,
    running: AtomicUsize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    key: Option<Zeroizing<String>>,
    wrapped: Option<String>,
}

impl KeyProgram {
    /// A program, by its whole path, with its arguments.
    pub(crate) fn new(id: String, program: PathBuf, arguments: Vec<String>, patience: Duration) -> Self {
        Self { id, program, arguments, patience, running: AtomicUsize::new(0) }
    }

    fn ask(&self, question: &str) -> Result<Answer, SealError> {
        let place = Place::take(&self.running);
        let asked = match place {
            Some(_) => self.run(question),
            None => Err(io::Error::other("too many wait for it")),
        };
        asked.map_err(|error| SealError::OutOfReach(self.id.clone(), error.to_string()))
    }

    fn run(&self, question: &str) -> io::Result<Answer> {
        let until = Instant::now() + self.patience;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(OURS)) {
            command.env_remove(name);
        }
        let mut child = Running(command.spawn()?);
        if let Some(mut input) = child.0.stdin.take() {
            // Shorter than any pipe is, so nobody waits here. One that does not listen says so by how it ends.
            let _ = input.write_all(question.as_bytes());
        }
        let output = child.0.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        let (told, heard) = mpsc::channel();
        std::thread::Builder::new().name("key-program".to_owned()).spawn(move || {
            let mut answer = Zeroizing::new(Vec::new());
            let read = output.take(LONGEST_ANSWER).read_to_end(&mut answer);
            let _ = told.send(read.map(|_| answer));
        })?;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time");
        let left = until.saturating_duration_since(Instant::now());
        let answer = heard.recv_timeout(left).map_err(|_| late())??;
        let status = loop {
            if let Some(status) = child.0.try_wait()? {
                break status;
            }
            if Instant::now() >= until {
                return Err(late());
            }
            std::thread::sleep(LOOK);
        };
        if !status.success() {
            return Err(io::Error::other(format!("it failed ({status}); what it says is in the server's output")));
        }
        // The parser's own words would repeat what it read.
        serde_json::from_slice(&answer).map_err(|_| io::Error::other("its answer is not the JSON that was asked for"))
    }

    fn malformed(&self) -> SealError {
        SealError::OutOfReach(self.id.clone(), "its answer does not hold what was asked for".to_owned())
    }
}

impl KeyEncryption for KeyProgram {
    fn id(&self) -> &str {
        &self.id
    }

    fn wrap(&self, purpose: &[u8], key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, SealError> {
        let between = LocalKey::random()?;
        let shown = Zeroizing::new(BASE64_STANDARD.encode(between.expose()));
        let question = Zeroizing::new(format!("{{\"do\":\"wrap\",\"key\":\"{}\"}}\n", shown.as_str()));
        let wrapped = self.ask(&question)?.wrapped.ok_or_else(|| self.malformed())?;
        let wrapped = BASE64_STANDARD.decode(wrapped).map_err(|_| self.malformed())?;
        // One that gives back what it was given keeps nothing.
        let open = wrapped.windows(KEY_BYTES).any(|part| part == between.expose());
        let length = u16::try_from(wrapped.len()).ok().filter(|_| !open && (1..=LONGEST).contains(&wrapped.len()));
        let length = length.ok_or_else(|| self.malformed())?;
        let sealed = between.wrap(purpose, key)?;
        Ok([&[VERSION], length.to_be_bytes().as_slice(), &wrapped, &sealed].concat())
    }

    fn unwrap(&self, purpose: &[u8], wrapped: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
        let rest = wrapped.strip_prefix(&[VERSION]).ok_or(SealError::Closed)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(SealError::Closed)?;
        let (held, sealed) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(SealError::Closed)?;
        let question = format!("{{\"do\":\"unwrap\",\"wrapped\":\"{}\"}}\n", BASE64_STANDARD.encode(held));
        let key = self.ask(&question)?.key.ok_or_else(|| self.malformed())?;
        let key = Zeroizing::new(BASE64_STANDARD.decode(key.as_bytes()).map_err(|_| self.malformed())?);
        let key = <[u8; KEY_BYTES]>::try_from(key.as_slice()).map(Zeroizing::new).map_err(|_| self.malformed())?;
        LocalKey::new(key).unwrap(purpose, sealed)
    }
}

/// A place among the runs.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(running: &'a AtomicUsize) -> Option<Self> {
        let place = Self(running);
        (running.fetch_add(1, Ordering::AcqRel) < MOST).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A run; what is left of it when nobody waits any more is killed, with all that it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that turns a bit of each letter of base64: a bad cipher, and enough to be another key.
    const TURN: &str = "read -r line\ncase \"$line\" in\n*'\"do\":\"wrap\"'*) from=key to=wrapped;;\n*) from=wrapped to=key;;\n\
                        esac\nvalue=${line#*\"\\\"$from\\\":\\\"\"}\nvalue=${value%%\\\"*}\n\
                        printf '{\"%s\":\"%s\"}\\n' \"$to\" \"$(printf %s \"$value\" | tr 'A-Za-fg-z0-9+/' 'g-z0-9+/A-Za-f')\"\n";

    fn program(dir: &std::path::Path, text: &str, patience: Duration) -> KeyProgram {
        let path = dir.join("keeper");
        std::fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        // By the shell as an interpreter: a file that was just written may not be run yet.
        let words = vec![path.to_string_lossy().into_owned()];
        KeyProgram::new("far".to_owned(), "/bin/sh".into(), words, patience)
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn z04_a_key_program_wraps_and_opens_what_is_bound_to_its_account() {
        let dir = tempfile::tempdir().unwrap();
        let program = program(dir.path(), TURN, SOON);
        let key = [7; KEY_BYTES];
        let wrapped = program.wrap(b"one", &key).unwrap();
        assert_eq!(*program.unwrap(b"one", &wrapped).unwrap(), key, "the control");
        assert!(!wrapped.windows(KEY_BYTES).any(|part| part == key));
        assert_eq!(program.unwrap(b"other", &wrapped).err(), Some(SealError::Closed), "another account's");
        for at in 0..wrapped.len() {
            // Without the program's part, whose damage is the program's to find.
            if !(3..=48).contains(&at) {
                let mut changed = wrapped.clone();
                changed[at] ^= 1;
                assert!(program.unwrap(b"one", &changed).is_err(), "byte {at}");
            }
        }
        assert!(program.unwrap(b"one", &wrapped[..40]).is_err());
    }

    #[test]
    fn z04_a_key_program_that_fails_lies_or_is_late_opens_nothing_and_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let far = |text: &str, patience| program(dir.path(), text, patience).wrap(b"one", &[7; KEY_BYTES]);
        for (text, word) in [
            ("exit 3", "it failed"),
            ("echo nothing", "not the JSON"),
            ("echo '{\"key\":\"AAAA\"}'", "does not hold"),
            ("echo '{\"wrapped\":\"\"}'", "does not hold"),
            ("echo '{\"wrapped\":\"AAAA\"}'; exit 1", "it failed"),
            ("read -r line; v=${line#*key\\\":\\\"}; echo \"{\\\"wrapped\\\":\\\"${v%%\\\"*}\\\"}\"", "does not hold"),
        ] {
            match far(text, SOON) {
                Err(SealError::OutOfReach(id, why)) => assert!(id == "far" && why.contains(word), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let (began, mark) = (Instant::now(), dir.path().join("late"));
        // Its child has the same output open, and goes with it.
        let text = format!("(sleep 4; touch {}) & sleep 30", mark.display());
        let late = far(&text, Duration::from_millis(300));
        assert!(matches!(late, Err(SealError::OutOfReach(_, why)) if why.contains("in time")));
        assert!(began.elapsed() < Duration::from_secs(4));
        while began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(!mark.exists(), "what it started was killed with it");
    }
}
