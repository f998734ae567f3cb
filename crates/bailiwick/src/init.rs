//! `bailiwick init`: a configuration to begin with. Nothing that exists is overwritten, and what it
//! makes lets nobody in who has no key.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::out::{self, Format};

const CONFIGURATION: &str = include_str!("init/bailiwick.toml");
const AGENT: &str = include_str!("init/AGENT.md");

/// The folder cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("{0} is there already: choose another folder, or remove it first")]
    Exists(PathBuf),
    #[error("{0} cannot be written")]
    Io(PathBuf, #[source] io::Error),
}

/// Runs the command.
pub(crate) fn run(dir: &Path, format: Format) -> Result<(), Failure> {
    let agent = dir.join("agents/developer");
    let files = [
        (dir.join("bailiwick.toml"), CONFIGURATION.to_owned(), 0o600),
        (
            dir.join("root.key"),
            format!("{}\n", &*random_key().map_err(|error| InitError::Io(dir.to_owned(), error))?),
            0o600,
        ),
        (agent.join("AGENT.md"), AGENT.to_owned(), 0o644),
    ];
    if let Some((path, _, _)) = files.iter().find(|(path, _, _)| path.exists()) {
        return Err(InitError::Exists(path.clone()).into());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&agent).map_err(|error| InitError::Io(agent, error))?;
    for (path, text, mode) in &files {
        let made = OpenOptions::new().write(true).create_new(true).mode(*mode).open(path);
        made.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| InitError::Io(path.clone(), error))?;
    }
    let paths: Vec<String> = files.iter().map(|(path, _, _)| path.display().to_string()).collect();
    if format == Format::Json {
        out::json(&json!({ "files": paths }));
        return Ok(());
    }
    paths.iter().for_each(|path| out::line(&format!("made  {}", out::clean(path))));
    let dir = out::clean(&dir.display().to_string());
    out::line("");
    out::line("Next:");
    out::line(&format!("  1. name a model in {dir}/bailiwick.toml"));
    out::line(&format!("  2. bailiwick doctor -c {dir}/bailiwick.toml"));
    out::line(&format!("  3. bailiwick serve -c {dir}/bailiwick.toml"));
    out::line(&format!("  4. bailiwick account create acme --admin alice --api-key-file {dir}/root.key"));
    Ok(())
}

/// 256 random bits in hexadecimal.
pub(crate) fn random_key() -> io::Result<Zeroizing<String>> {
    use std::fmt::Write as _;
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *bytes).map_err(io::Error::other)?;
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in &*bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
