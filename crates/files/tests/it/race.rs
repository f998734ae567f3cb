//! A hostile process swaps what stands at a name while we read and write it.
//!
//! The attackers here are threads with the test's own rights, which is more
//! than a sandbox has: they can make hard links to the file outside.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bailiwick_files::{Expect, FileError, content_hash};
use rustix::fs::{CWD, FileType, Mode};

use crate::{Fixture, SECRET, path};

const ROUNDS: usize = 20_000;

/// Numbers the rounds until there were enough of them and `met` says that the
/// attack and the honest file were both met; a busy machine may need more
/// rounds for that, but not forever.
fn rounds(enough: usize, met: impl Fn() -> bool) -> impl Iterator<Item = usize> {
    let deadline = Instant::now() + Duration::from_secs(60);
    (0..).take_while(move |&round| round < enough || (!met() && Instant::now() < deadline))
}

/// Runs `attack` over and over in a thread while `body` runs.
fn while_attacked<T>(attack: impl Fn() + Send + Sync, body: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                attack();
            }
        });
        let result = body();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Puts what `make` makes at `at`, atomically, so that the name always exists.
fn place_at(at: &Path, make: impl Fn(&Path)) {
    let beside = at.with_extension("next");
    let _ = fs::remove_file(&beside);
    make(&beside);
    fs::rename(&beside, at).unwrap();
}

/// One turn of the attacker: honest file, symbolic link, hard link, FIFO.
fn flip(at: &Path, outside: &Path) {
    place_at(at, |next| fs::write(next, b"honest").unwrap());
    place_at(at, |next| symlink(outside, next).unwrap());
    place_at(at, |next| fs::write(next, b"honest").unwrap());
    place_at(at, |next| fs::hard_link(outside, next).unwrap());
    // Renaming one link of a file over another does nothing, so the attacker
    // moves on from the hard link with a new file.
    place_at(at, |next| rustix::fs::mknodat(CWD, next, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap());
}

/// Control: the usual way, which checks the path and opens it afterwards.
fn naive_read(root: &Path, at: &Path) -> Option<Vec<u8>> {
    let real = at.canonicalize().ok()?;
    if !real.starts_with(root) || !real.symlink_metadata().ok()?.is_file() {
        return None;
    }
    fs::read(at).ok()
}

#[test]
fn a06_no_content_leaks_while_links_are_swapped_during_reads() {
    let fixture = Fixture::new();
    let (at, outside) = (fixture.inside("target"), fixture.outside("outside.txt"));
    fs::write(&at, b"honest").unwrap();
    let (honest, refused, mut leaked) = (Cell::new(0), Cell::new(0), 0);
    let met = || honest.get() > 0 && refused.get() > 0;
    while_attacked(
        || flip(&at, &outside),
        || {
            for _ in rounds(ROUNDS, met) {
                match fixture.space.read(&path("target"), 1 << 20) {
                    Ok(content) if content == SECRET => leaked += 1,
                    // The attacker's `write` is not atomic: empty is honest.
                    Ok(content) => {
                        assert!(b"honest".starts_with(&content));
                        honest.set(honest.get() + 1);
                    }
                    Err(FileError::Refused { .. } | FileError::Changed) => refused.set(refused.get() + 1),
                    Err(error) => panic!("unexpected: {error:?}"),
                }
            }
        },
    );
    assert_eq!(leaked, 0);
    assert!(honest.get() > 0, "the honest file was never read");
    assert!(refused.get() > 0, "the attack never met a read");
}

#[test]
fn a06_control_the_naive_way_leaks_under_the_same_attack() {
    let fixture = Fixture::new();
    let (at, outside) = (fixture.inside("target"), fixture.outside("outside.txt"));
    let root = fixture.inside("").canonicalize().unwrap();
    fs::write(&at, b"honest").unwrap();
    // Only symbolic links here: the naive way would hang in a FIFO.
    let attack = || {
        place_at(&at, |next| fs::write(next, b"honest").unwrap());
        place_at(&at, |next| symlink(&outside, next).unwrap());
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let leaked = while_attacked(attack, || {
        while Instant::now() < deadline {
            if naive_read(&root, &at).is_some_and(|content| content == SECRET) {
                return true;
            }
        }
        false
    });
    assert!(leaked, "the attack is too weak to show anything");
}

/// The nastiest order: a hard link that is gone again before `nlink` is read,
/// so that the file outside looks like an honest one with a single name.
#[test]
fn a06_no_content_leaks_through_a_hard_link_that_vanishes_after_the_open() {
    let fixture = Fixture::new();
    let (at, outside) = (fixture.inside("target"), fixture.outside("outside.txt"));
    let attack = || {
        let _ = fs::hard_link(&outside, &at);
        let _ = fs::remove_file(&at);
    };
    let (mut leaked, met) = (0, Cell::new(0));
    while_attacked(attack, || {
        for _ in rounds(ROUNDS, || met.get() > 0) {
            match fixture.space.read(&path("target"), 1 << 20) {
                Ok(_) => leaked += 1,
                Err(FileError::Refused { .. } | FileError::Changed) => met.set(met.get() + 1),
                Err(FileError::NotFound) => {}
                Err(error) => panic!("unexpected: {error:?}"),
            }
        }
    });
    assert_eq!(leaked, 0);
    assert!(met.get() > 0, "the attack never met a read");
}

#[test]
fn a06_nothing_outside_is_written_while_links_are_swapped() {
    let fixture = Fixture::new();
    let (at, outside) = (fixture.inside("target"), fixture.outside("outside.txt"));
    fs::write(&at, b"honest").unwrap();
    let (written, refused) = (Cell::new(0), Cell::new(0));
    let met = || written.get() > 0 && refused.get() > 0;
    while_attacked(
        || flip(&at, &outside),
        || {
            for round in rounds(ROUNDS / 4, met) {
                let result = match round % 3 {
                    0 => fixture.space.write(&path("target"), b"ours").map(|_| ()),
                    1 => fixture.space.append(&path("target"), b"ours"),
                    _ => {
                        let expect = Expect::Hash(content_hash(b"honest"));
                        fixture.space.write_if(&path("target"), b"ours", expect).map(|_| ())
                    }
                };
                match result {
                    Ok(()) => written.set(written.get() + 1),
                    Err(FileError::Refused { .. } | FileError::Changed) => refused.set(refused.get() + 1),
                    Err(error) => panic!("unexpected: {error:?}"),
                }
            }
        },
    );
    assert_eq!(fs::read(&outside).unwrap(), SECRET);
    assert!(met(), "written {written:?}, refused {refused:?}");
}

#[test]
fn a06_a_directory_swapped_for_a_link_is_never_passed() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.inside("real")).unwrap();
    fs::write(fixture.inside("real/outside.txt"), b"honest").unwrap();
    symlink(fixture.top.path(), fixture.inside("trap")).unwrap();
    let (dir, real, trap) = (fixture.inside("dir"), fixture.inside("real"), fixture.inside("trap"));
    let attack = || {
        fs::rename(&real, &dir).unwrap();
        fs::rename(&dir, &real).unwrap();
        fs::rename(&trap, &dir).unwrap();
        fs::rename(&dir, &trap).unwrap();
    };
    let (honest, refused) = (Cell::new(0), Cell::new(0));
    let met = || honest.get() > 0 && refused.get() > 0;
    while_attacked(attack, || {
        for round in rounds(ROUNDS, met) {
            let outcome = if round % 8 == 0 {
                fixture.space.set_mode(&path("dir/outside.txt"), 0o600).map(|()| b"honest".to_vec())
            } else {
                fixture.space.read(&path("dir/outside.txt"), 1 << 20)
            };
            match outcome {
                Ok(content) => {
                    assert_eq!(content, b"honest");
                    honest.set(honest.get() + 1);
                }
                Err(FileError::Refused { .. }) => refused.set(refused.get() + 1),
                Err(FileError::NotFound | FileError::Changed) => {}
                Err(error) => panic!("unexpected: {error:?}"),
            }
        }
    });
    let mode = fs::metadata(fixture.outside("outside.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the file outside was touched");
    assert!(met(), "honest {honest:?}, refused {refused:?}");
}
