//! Integration tests of the beneath-root file access.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod basics;
mod parsing;
mod race;
mod refusals;
mod snapshot;
mod trees;

use std::fs;
use std::path::PathBuf;

use bailiwick_files::{Access, FileError, Refusal, Workspace};
use bailiwick_types::path::WorkspacePath;
use tempfile::TempDir;

/// A space `space-1`, a sibling `space-10`, and a file outside both, all on
/// the same file system so that hard links between them are possible.
struct Fixture {
    top: TempDir,
    space: Workspace,
}

const SECRET: &[u8] = b"SECRET-OF-ANOTHER-TENANT";

impl Fixture {
    fn new() -> Self {
        let top = TempDir::new().unwrap();
        for dir in ["space-1", "space-10"] {
            fs::create_dir(top.path().join(dir)).unwrap();
        }
        fs::write(top.path().join("outside.txt"), SECRET).unwrap();
        fs::write(top.path().join("space-10/sibling.txt"), SECRET).unwrap();
        let space = Workspace::open(&top.path().join("space-1"), Access::ReadWrite, None).unwrap();
        Self { top, space }
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.top.path().join("space-1").join(name)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }
}

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).unwrap()
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, FileError>, expected: Refusal) {
    match result {
        Err(FileError::Refused { reason }) => assert_eq!(reason, expected),
        other => panic!("expected a refusal ({expected}), got {other:?}"),
    }
}
