//! What our own program needs to run among an image's files: the host's dynamic loader and its libraries, which are
//! put into our folder beside it. So an image may have another libc, or none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{FIRST_ROLE, INSIDE};
use crate::linux::HelperPath;

/// The program or what it needs was not found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoaderError {
    /// The program cannot be read.
    #[error("its file cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is no program of this kind of machine.
    #[error("its file is not a 64-bit ELF program")]
    Format,
    /// Its loader did not say what it needs.
    #[error("its loader {0} does not say what it needs")]
    Loader(PathBuf, #[source] io::Error),
    /// A library is not there.
    #[error("it needs {0}, which is not there")]
    Missing(String),
}

/// The files of our first process, and how it is started with them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loader {
    /// On the host, and inside.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) command: Vec<String>,
}

impl Loader {
    /// # Errors
    /// If the program, or what it needs, is not to be found.
    pub(super) async fn of(helper: &HelperPath) -> Result<Self, LoaderError> {
        let program = match helper {
            HelperPath::CurrentExecutable => std::env::current_exe(),
            HelperPath::At(path) => path.canonicalize(),
        };
        let program = program.map_err(LoaderError::Unreadable)?;
        let file = File::open(&program).map_err(LoaderError::Unreadable)?;
        let first = format!("{INSIDE}/{FIRST_ROLE}");
        let mut files = vec![(program.clone(), first.clone())];
        let Some(loader) = interpreter(&file)? else {
            // Linked with all that it needs.
            return Ok(Self { files, command: vec![first] });
        };
        let listed = Command::new(&loader).arg("--list").arg(&program).env_clear().output().await;
        let listed = listed.map_err(|error| LoaderError::Loader(loader.clone(), error))?;
        if !listed.status.success() {
            let said = String::from_utf8_lossy(&listed.stderr).into_owned();
            return Err(LoaderError::Loader(loader, io::Error::other(said)));
        }
        for (name, library) in libraries(&String::from_utf8_lossy(&listed.stdout))? {
            files.push((canonical(&library)?, format!("{INSIDE}/lib/{name}")));
        }
        let inside = format!("{INSIDE}/lib/{}", loader.file_name().unwrap_or_default().to_string_lossy());
        files.push((canonical(&loader)?, inside.clone()));
        // The image's own list of libraries must not be asked.
        let words = [inside.as_str(), "--inhibit-cache", "--library-path", &format!("{INSIDE}/lib"), &first];
        Ok(Self { files, command: words.map(str::to_owned).into() })
    }
}

fn canonical(path: &Path) -> Result<PathBuf, LoaderError> {
    path.canonicalize().map_err(LoaderError::Unreadable)
}

/// The loader that a program names (PT_INTERP of its program headers, elf(5)), if it names one.
fn interpreter(file: &File) -> Result<Option<PathBuf>, LoaderError> {
    const MAGIC: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1]; // 64 bits, little endian
    const INTERPRETER: u32 = 3;
    const LONGEST: usize = 4096;
    let read = |at: u64, buffer: &mut [u8]| file.read_exact_at(buffer, at).map_err(LoaderError::Unreadable);
    let mut header = [0; 64];
    read(0, &mut header)?;
    if !header.starts_with(&MAGIC) {
        return Err(LoaderError::Format);
    }
    let number = |bytes: &[u8], at: usize, width: usize| -> Result<u64, LoaderError> {
        let bytes = bytes.get(at..at + width).ok_or(LoaderError::Format)?;
        Ok(bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    };
    let (table, size, count) = (number(&header, 32, 8)?, number(&header, 54, 2)?, number(&header, 56, 2)?);
    for index in 0..count {
        let mut entry = [0; 56];
        let at = size.checked_mul(index).and_then(|offset| table.checked_add(offset)).ok_or(LoaderError::Format)?;
        read(at, &mut entry)?;
        if number(&entry, 0, 4)? != u64::from(INTERPRETER) {
            continue;
        }
        let length = usize::try_from(number(&entry, 32, 8)?).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(LoaderError::Format);
        }
        let mut text = vec![0; length];
        read(number(&entry, 8, 8)?, &mut text)?;
        let text = String::from_utf8(text).map_err(|_| LoaderError::Format)?;
        return Ok(Some(PathBuf::from(text.trim_end_matches('\0'))));
    }
    Ok(None)
}

/// The libraries of a loader's list, by the names under which they are looked for.
fn libraries(list: &str) -> Result<Vec<(String, PathBuf)>, LoaderError> {
    let found = list.lines().filter_map(|line| line.trim().split_once(" => ")).map(|(name, place)| {
        // `libc.so.6 => /lib/libc.so.6 (0x00007f…)`
        let place = place.rsplit_once(" (").map_or(place, |(place, _)| place);
        match place.starts_with('/') && !name.contains('/') {
            true => Ok((name.to_owned(), PathBuf::from(place))),
            false => Err(LoaderError::Missing(name.to_owned())),
        }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_libraries_of_a_list_are_found_and_a_missing_one_is_an_error() {
        let list = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(libraries(list).unwrap(), [("libc.so.6".to_owned(), PathBuf::from("/lib/x/libc.so.6"))]);
        let missing = libraries("\tliba.so => not found\n");
        assert!(matches!(missing, Err(LoaderError::Missing(name)) if name == "liba.so"));
    }

    #[tokio::test]
    async fn this_program_itself_can_be_given_to_a_container() {
        let loader = Loader::of(&HelperPath::CurrentExecutable).await.unwrap();
        assert!(loader.files.iter().all(|(host, _)| host.is_absolute() && host.is_file()));
        assert!(loader.command.last().unwrap().ends_with(FIRST_ROLE));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [b'x'; 100]).unwrap();
        assert!(matches!(interpreter(&File::open(file.path()).unwrap()), Err(LoaderError::Format)));
        std::fs::write(file.path(), "short").unwrap();
        assert!(interpreter(&File::open(file.path()).unwrap()).is_err());
    }
}
