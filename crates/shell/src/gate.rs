//! The switch between one call and the files that outlive it.
//!
//! A thread that ignores its deadline is abandoned, not killed: threads cannot
//! be. What it must not do afterwards is change files, so every file operation
//! passes a gate, and the gates of an abandoned call are shut. The gate also
//! counts what the call writes.

use std::io::{Error as IoError, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What all gates of one call share.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    shut: AtomicBool,
    texts: Mutex<Vec<String>>,
}

/// The way to one directory, with what may be written there.
#[derive(Debug)]
pub(crate) struct Gate {
    notices: Arc<Notices>,
    place: &'static str,
    written: AtomicU64,
    max_written: u64,
}

/// What any change costs at least, so that empty files are not free.
const BLOCK: u64 = 4096;
/// Notices kept of one call; more of them would say nothing new.
const MAX_NOTICES: usize = 16;

impl Notices {
    /// Lets no further file operation of the call through.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn pass(&self) -> Result<(), IoError> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(IoError::new(ErrorKind::PermissionDenied, "the command was stopped"));
        }
        Ok(())
    }

    /// Records that something was cut short, for [`crate::Output::warnings`].
    pub(crate) fn note(&self, notice: String) {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() < MAX_NOTICES && !texts.contains(&notice) {
            texts.push(notice);
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.texts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Gate {
    pub(crate) fn new(notices: Arc<Notices>, place: &'static str, max_written: u64) -> Self {
        Self { notices, place, written: AtomicU64::new(0), max_written }
    }

    pub(crate) fn pass(&self) -> Result<(), IoError> {
        self.notices.pass()
    }

    /// Passes if the call may still write so many bytes.
    pub(crate) fn pass_write(&self, bytes: usize) -> Result<(), IoError> {
        self.pass()?;
        let cost = (bytes as u64).max(BLOCK);
        let before = self.written.fetch_add(cost, Ordering::SeqCst);
        if before.saturating_add(cost) > self.max_written {
            let (place, limit) = (self.place, self.max_written);
            self.notices.note(format!("write limit reached: this command may write {limit} bytes to {place}"));
            return Err(IoError::new(ErrorKind::StorageFull, "No space left on device"));
        }
        Ok(())
    }
}
