//! Keys of the host itself, made at the first start: files of 32 random bytes, 0600 in a 0700 folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use bailiwick_audit::checkpoint::{KeyError, Signer};
use bailiwick_auth::key::KeyRing;
use zeroize::Zeroizing;

use crate::envelope::LocalKey;
use crate::seal::Seal;

/// The host's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostKeysError {
    /// Others may read it.
    #[error("the key file {0} can be read by others: set its mode to 0600")]
    TooWide(String),
    /// It does not hold 32 bytes.
    #[error("the key file {0} is damaged: restore it from a backup")]
    Damaged(String),
    /// It cannot be read or made.
    #[error("the key file {0} cannot be read or made")]
    Io(String, #[source] io::Error),
    /// The system gave no random bytes.
    #[error("the system's random source failed")]
    NoEntropy,
}

/// The host's keys.
pub struct HostKeys {
    pepper: Zeroizing<[u8; 32]>,
    checkpoint: Zeroizing<[u8; 32]>,
    seal: Zeroizing<[u8; 32]>,
}

impl HostKeys {
    /// Reads the keys in `dir`, and makes those that are missing.
    ///
    /// # Errors
    /// If a key is damaged, can be read by others, or cannot be made.
    pub fn load_or_make(dir: &Path) -> Result<Self, HostKeysError> {
        if !dir.exists() {
            // The folder above is not the keys' alone: others may pass through it, not look into it.
            if let Some(above) = dir.parent() {
                let made = DirBuilder::new().recursive(true).mode(0o711).create(above);
                made.map_err(|error| HostKeysError::Io("keys".to_owned(), error))?;
            }
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| HostKeysError::Io("keys".to_owned(), error))?;
        }
        Ok(Self {
            pepper: load_or_make(dir, "pepper")?,
            checkpoint: load_or_make(dir, "checkpoint")?,
            seal: load_or_make(dir, "seal")?,
        })
    }

    /// What makes and checks API keys.
    pub fn ring(&self) -> KeyRing {
        KeyRing::new(*self.pepper)
    }

    /// What seals secrets that lie in the database.
    pub fn seal(&self) -> Seal {
        Seal::new(self.seal.clone())
    }

    /// The usual key above the accounts' data keys, the file `vault` among the others. Made if it is missing: ask
    /// for it only where no other key is configured.
    ///
    /// # Errors
    /// As [`Self::load_or_make`].
    pub fn vault_key(dir: &Path) -> Result<LocalKey, HostKeysError> {
        load_or_make(dir, "vault").map(LocalKey::new)
    }

    /// What signs the heads of this host's logs, in the name of the server.
    ///
    /// # Errors
    /// If the name cannot stand in a signature line.
    pub fn checkpoint_signer(&self, server: &str) -> Result<Signer, KeyError> {
        Signer::new(server, &self.checkpoint)
    }
}

fn load_or_make(dir: &Path, name: &str) -> Result<Zeroizing<[u8; 32]>, HostKeysError> {
    let path = dir.join(name);
    let failed = |error| HostKeysError::Io(name.to_owned(), error);
    match File::open(&path) {
        Ok(mut file) => {
            if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
                return Err(HostKeysError::TooWide(name.to_owned()));
            }
            let mut bytes = Zeroizing::new(Vec::new());
            file.read_to_end(&mut bytes).map_err(failed)?;
            let key = bytes.as_slice().try_into().map_err(|_| HostKeysError::Damaged(name.to_owned()))?;
            Ok(Zeroizing::new(key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut key = Zeroizing::new([0u8; 32]);
            getrandom::fill(&mut *key).map_err(|_| HostKeysError::NoEntropy)?;
            // Written beside and renamed, so that a crash never leaves half a key.
            let beside = dir.join(format!("{name}.new"));
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed)?;
            file.write_all(&*key).and_then(|()| file.sync_all()).map_err(failed)?;
            fs::rename(&beside, &path).map_err(failed)?;
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn made_once_kept_private_and_refused_when_wide() {
        let dir = std::env::temp_dir().join(format!("bailiwick-keys-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let first = HostKeys::load_or_make(&dir).unwrap();
        let again = HostKeys::load_or_make(&dir).unwrap();
        assert_eq!(*first.pepper, *again.pepper);
        assert_ne!(*first.pepper, *first.checkpoint);
        let file = dir.join("pepper");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(HostKeys::load_or_make(&dir), Err(HostKeysError::TooWide(_))));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, b"short").unwrap();
        assert!(matches!(HostKeys::load_or_make(&dir), Err(HostKeysError::Damaged(_))));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn e07_the_checkpoint_key_is_made_once_kept_private_and_refused_when_wide() {
        let dir = std::env::temp_dir().join(format!("bailiwick-checkpoint-key-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let key = |keys: &HostKeys| keys.checkpoint_signer("bailiwick.example").unwrap().verifier_key().to_string();
        let first = key(&HostKeys::load_or_make(&dir).unwrap());
        assert!(first.starts_with("bailiwick.example+"));
        assert_eq!(key(&HostKeys::load_or_make(&dir).unwrap()), first);
        assert!(HostKeys::load_or_make(&dir).unwrap().checkpoint_signer("two words").is_err());

        let file = dir.join("checkpoint");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(HostKeys::load_or_make(&dir), Err(HostKeysError::TooWide(name)) if name == "checkpoint"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, [0; 33]).unwrap();
        assert!(matches!(HostKeys::load_or_make(&dir), Err(HostKeysError::Damaged(name)) if name == "checkpoint"));
        // Another file is another key.
        fs::remove_file(&file).unwrap();
        assert_ne!(key(&HostKeys::load_or_make(&dir).unwrap()), first);
        fs::remove_dir_all(&dir).unwrap();
    }
}
