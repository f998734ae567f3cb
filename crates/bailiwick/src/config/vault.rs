//! The keys above the accounts' data keys: the one that encrypts, and those that still open.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bailiwick_outbound::{Origin, OriginError, Plain};
use bailiwick_vault::{KeyEncryption, LocalKey};
use url::Url;
use zeroize::Zeroizing;

use super::check::resolve;
use super::layers::Layers;
use super::raw::{KeyCommand, Vault};
use super::secret::width_problem;
use crate::key_program::KeyProgram;

/// More bytes than a key's file has.
const TOO_MANY: u64 = 256;
/// Longest id of a key program's key.
const LONGEST_ID: usize = 64;

/// The ring of keys.
pub(crate) struct VaultSettings {
    pub(crate) present: PresentKey,
    pub(crate) old: Vec<Box<dyn KeyEncryption>>,
    /// Where token endpoints may be besides the public network.
    pub(crate) token_origins: Vec<String>,
}

/// The key that encrypts.
pub(crate) enum PresentKey {
    /// The one in the data directory, made at the first start.
    Usual,
    /// A configured one.
    Configured(Box<dyn KeyEncryption>),
}

pub(super) fn check(layers: &mut Layers, raw: Vault) -> VaultSettings {
    let given = [raw.key_file.is_some(), raw.key_env.is_some(), !raw.key_command.is_empty()];
    if given.into_iter().filter(|given| *given).count() > 1 {
        layers.wrong("vault", "give one of key_file, key_env and key_command: the others can be old ones");
    }
    let patience = Duration::from_secs(raw.key_command_seconds);
    if !(1..=60).contains(&raw.key_command_seconds) {
        layers.wrong("vault.key_command_seconds", "between 1 and 60");
    }
    let mut present = None;
    if let Some(path) = &raw.key_file {
        present = of_file(layers, "vault.key_file", path);
    }
    if let Some(name) = &raw.key_env {
        present = of_variable(layers, "vault.key_env", name);
    }
    if !raw.key_command.is_empty() {
        present = of_program(layers, "vault.key_command", raw.key_command, patience);
    }
    let mut old: Vec<Box<dyn KeyEncryption>> = Vec::new();
    old.extend(raw.old_key_files.iter().filter_map(|path| of_file(layers, "vault.old_key_files", path)));
    old.extend(raw.old_key_envs.iter().filter_map(|name| of_variable(layers, "vault.old_key_envs", name)));
    let programs = raw.old_key_commands.into_iter();
    old.extend(programs.filter_map(|program| of_program(layers, "vault.old_key_commands", program, patience)));
    let ids: Vec<String> = present.iter().chain(&old).map(|key| key.id().to_owned()).collect();
    if let Some(twice) = ids.iter().enumerate().find(|(n, id)| ids.iter().take(*n).any(|before| before == *id)) {
        layers.wrong("vault", format!("the key {} stands there twice", twice.1));
    }
    for text in &raw.token_origins {
        let origin = Url::parse(text).map_err(|_| OriginError::NotHttp).and_then(|url| {
            let whole = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            Origin::of(&url, Plain::Loopback).map(|_| whole)
        });
        match origin {
            Ok(true) => {}
            Ok(false) => {
                layers.wrong("vault.token_origins", "an origin has no path: https://NAME or https://NAME:PORT")
            }
            Err(error) => layers.wrong("vault.token_origins", error.to_string()),
        }
    }
    let token_origins = raw.token_origins;
    VaultSettings { present: present.map_or(PresentKey::Usual, PresentKey::Configured), old, token_origins }
}

fn of_file(layers: &mut Layers, key: &str, path: &Path) -> Option<Box<dyn KeyEncryption>> {
    let path = resolve(layers, key, path);
    let read = || -> Result<LocalKey, String> {
        let unread = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
        // The mode of the opened file: the file that is judged is the file that is read.
        let file = File::open(&path).map_err(unread)?;
        if let Some(problem) = width_problem(&path, &file) {
            return Err(problem.to_string());
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(TOO_MANY).read_to_end(&mut bytes).map_err(unread)?;
        let hint = "`bailiwick vault make-key FILE` makes one";
        LocalKey::parse(&bytes).ok_or_else(|| {
            format!("{} does not hold a key: 32 bytes, or 64 hexadecimal digits; {hint}", path.display())
        })
    };
    match read() {
        Ok(read) => Some(Box::new(read)),
        Err(problem) => {
            layers.wrong(key, problem);
            None
        }
    }
}

fn of_variable(layers: &mut Layers, key: &str, name: &str) -> Option<Box<dyn KeyEncryption>> {
    let held = std::env::var(name).ok().filter(|held| !held.is_empty()).map(Zeroizing::new);
    let Some(held) = held else {
        layers.wrong(key, format!("the environment variable {name} is not set"));
        return None;
    };
    // 32 letters are no 32 random bytes.
    match LocalKey::parse(held.as_bytes()).filter(|_| held.len() >= 64) {
        Some(read) => Some(Box::new(read)),
        None => {
            layers.wrong(key, format!("the environment variable {name} does not hold a key of 64 hexadecimal digits"));
            None
        }
    }
}

fn of_program(layers: &mut Layers, key: &str, raw: KeyCommand, patience: Duration) -> Option<Box<dyn KeyEncryption>> {
    let Some(id) = raw.id.filter(|id| {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        (1..=LONGEST_ID).contains(&id.len()) && id.chars().all(fits)
    }) else {
        layers.wrong(key, format!("id is missing, or not 1 to {LONGEST_ID} letters, digits and - _ . alone"));
        return None;
    };
    let mut words = raw.command.unwrap_or_default().into_iter();
    let program = PathBuf::from(words.next().unwrap_or_default());
    if let Err(problem) = fit(&program) {
        layers.wrong(key, problem);
        return None;
    }
    Some(Box::new(KeyProgram::new(id, program, words.collect(), patience)))
}

/// Whether a program is the operator's alone, as far as its own file shows.
fn fit(program: &Path) -> Result<(), String> {
    if !program.is_absolute() {
        return Err("command names the program by its whole path, and then its arguments; no shell reads it".to_owned());
    }
    let about =
        std::fs::metadata(program).map_err(|error| format!("{} cannot be found: {error}", program.display()))?;
    let mode = about.permissions().mode();
    if !about.is_file() || mode & 0o111 == 0 {
        return Err(format!("{} is no program", program.display()));
    }
    if mode & 0o022 != 0 {
        return Err(format!("{} can be changed by others: run `chmod go-w {0}`", program.display()));
    }
    Ok(())
}
