//! The switch between one call and the files that outlive it.
//!
//! A command that ignores its deadline is abandoned, not killed: threads
//! cannot be. What it must not do afterwards is change files, so every file
//! operation passes the gate, and the gate of an abandoned call is shut.

use std::io::{Error as IoError, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shared by a call, its file systems, and its watchdog.
#[derive(Debug)]
pub(crate) struct Gate {
    shut: AtomicBool,
    written: AtomicU64,
    max_written: u64,
    notices: Mutex<Vec<String>>,
}

/// What any change costs at least, so that empty files are not free.
const BLOCK: u64 = 4096;
/// Notices kept of one call; more of them would say nothing new.
const MAX_NOTICES: usize = 16;

impl Gate {
    pub(crate) fn new(max_written: u64) -> Self {
        Self {
            shut: AtomicBool::new(false),
            written: AtomicU64::new(0),
            max_written,
            notices: Mutex::new(Vec::new()),
        }
    }

    /// Lets no further file operation through.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn pass(&self) -> Result<(), IoError> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(IoError::new(ErrorKind::PermissionDenied, "the command was stopped"));
        }
        Ok(())
    }

    /// Passes if the call may still write so many bytes.
    pub(crate) fn pass_write(&self, bytes: usize) -> Result<(), IoError> {
        self.pass()?;
        let cost = (bytes as u64).max(BLOCK);
        let before = self.written.fetch_add(cost, Ordering::SeqCst);
        if before.saturating_add(cost) > self.max_written {
            let limit = self.max_written;
            self.note(format!("write limit reached: one command may write {limit} bytes to the workspace"));
            return Err(IoError::new(ErrorKind::StorageFull, "No space left on device"));
        }
        Ok(())
    }

    /// Records that something was cut short, for [`crate::Output::warnings`].
    pub(crate) fn note(&self, notice: String) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < MAX_NOTICES && !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    pub(crate) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
