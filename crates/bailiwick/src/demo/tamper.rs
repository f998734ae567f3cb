//! The proof that the log proves itself: a copy of the data directory in which one word of one event was
//! changed behind the server's back. It touches the copy alone.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::steps::Witness;
use super::{DemoError, Report};
use crate::command::audit;
use crate::failure::Failure;
use crate::out;

/// What stands in the log of the demo's account, and what a forger would rather have there. Of the same
/// length, so that the file stays a database.
const TRUE_WORD: &[u8] = b"space.create";
const FALSE_WORD: &[u8] = b"space.delete";

pub(super) async fn play(
    report: &mut Report,
    dir: &Path,
    data: &Path,
    _witness: &Witness,
    verify: impl AsyncFn(&Path) -> Result<Value, Failure>,
) -> Result<(), Failure> {
    let (honest, forged) = (dir.join("copy"), dir.join("forged"));
    copy(data, &honest).map_err(DemoError::Dir)?;
    copy(data, &forged).map_err(DemoError::Dir)?;
    let changed = forge(&forged).map_err(DemoError::Dir)?;
    // The positive control: a copy alone does no harm.
    let answer = verify(&honest).await?;
    report.check("a copy of the data directory verifies", audit::verdict(&answer).into(), "");
    let answer = verify(&forged).await?;
    let found = changed > 0 && !audit::verdict(&answer) && answer["ok"].as_bool() == Some(false);
    report.check(
        "a copy in which one word of one event was changed does not",
        found.into(),
        out::cell(&answer["problem"]),
    );
    Ok(())
}

/// Copies folders and files; sockets and links are of no interest.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, place) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &place)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Changes the word wherever it stands in the accounts' files, and says how often.
fn forge(data: &Path) -> io::Result<usize> {
    let mut changed = 0;
    for account in std::fs::read_dir(data.join("accounts"))? {
        let file: PathBuf = account?.path().join("account.db");
        let Ok(mut bytes) = std::fs::read(&file) else { continue };
        let places: Vec<usize> =
            bytes.windows(TRUE_WORD.len()).enumerate().filter(|(_, w)| *w == TRUE_WORD).map(|(at, _)| at).collect();
        for at in &places {
            bytes[*at..*at + TRUE_WORD.len()].copy_from_slice(FALSE_WORD);
        }
        changed += places.len();
        if !places.is_empty() {
            std::fs::write(&file, bytes)?;
        }
    }
    Ok(changed)
}
