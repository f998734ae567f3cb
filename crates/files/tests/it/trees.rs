//! Listing, walking and removing directories that others built to hurt.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use bailiwick_files::{EntryKind, FileError, Seen, WalkLimits, measure, remove_tree};
use bailiwick_types::path::WorkspacePath;
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::process::Uid;

use crate::{Fixture, SECRET, path};

#[test]
fn a_listing_shows_kinds_and_is_bounded() {
    let fixture = Fixture::new();
    fixture.space.write(&path("file"), b"12345").unwrap();
    fixture.space.mkdir(&path("dir")).unwrap();
    symlink("/etc", fixture.inside("link")).unwrap();
    fs::write(fixture.inside("").join(OsStr::from_bytes(b"bad\xff\nname")), b"").unwrap();
    let listing = fixture.space.list(&WorkspacePath::root(), 10).unwrap();
    let seen: Vec<_> = listing.entries.iter().map(|entry| (entry.name.as_str(), entry.kind, entry.size)).collect();
    assert_eq!(
        seen,
        [
            ("bad\\xff\\nname", EntryKind::Unnameable, 0),
            ("dir", EntryKind::Directory, 0),
            ("file", EntryKind::File, 5),
            ("link", EntryKind::Symlink, 0),
        ]
    );
    assert!(!listing.truncated);
    let bounded = fixture.space.list(&WorkspacePath::root(), 3).unwrap();
    assert_eq!((bounded.entries.len(), bounded.truncated), (3, true));
}

#[test]
fn a06_a_walk_reports_links_and_never_enters_them() {
    let fixture = Fixture::new();
    fixture.space.write(&path("a/b/f"), b"1").unwrap();
    fixture.space.write(&path("c"), b"22").unwrap();
    symlink("..", fixture.inside("a/out")).unwrap();
    let walk = fixture.space.walk(&WorkspacePath::root(), WalkLimits::default()).unwrap();
    let seen: Vec<_> = walk.map(|walked| (walked.path.to_string(), walked.entry.kind)).collect();
    let expected = [
        ("a", EntryKind::Directory),
        ("a/b", EntryKind::Directory),
        ("a/b/f", EntryKind::File),
        ("a/out", EntryKind::Symlink),
        ("c", EntryKind::File),
    ];
    assert_eq!(seen, expected.map(|(name, kind)| (name.to_owned(), kind)));
    let usage = fixture.space.usage(&WorkspacePath::root(), WalkLimits::default()).unwrap();
    assert_eq!((usage.bytes, usage.entries, usage.truncated), (3, 5, false));
}

#[test]
fn a_walk_stops_at_its_limits_and_says_so() {
    let fixture = Fixture::new();
    for number in 0..20 {
        fixture.space.write(&path(&format!("d{}/{number}", number % 4)), b"").unwrap();
    }
    let root = WorkspacePath::root();
    let mut walk = fixture.space.walk(&root, WalkLimits { depth: 64, entries: 10 }).unwrap();
    assert_eq!(walk.by_ref().count(), 10);
    assert!(walk.truncated());
    let mut walk = fixture.space.walk(&root, WalkLimits { depth: 0, entries: 100 }).unwrap();
    assert_eq!(walk.by_ref().count(), 4);
    assert!(walk.truncated());
    let mut walk = fixture.space.walk(&root, WalkLimits::default()).unwrap();
    let mut seen = 0;
    while let Some(walked) = walk.next() {
        seen += 1;
        if walked.path.as_str() == "d0" {
            walk.skip_directory();
        }
    }
    assert_eq!((seen, walk.truncated(), walk.skipped()), (19, false, 0));
}

/// Builds a chain of directories deeper than any path may be.
fn dig(from: &std::path::Path, depth: usize) {
    use rustix::fs::{CWD, Mode, OFlags};
    let open = |at: &rustix::fd::OwnedFd| {
        rustix::fs::openat(at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    let mut here = rustix::fs::openat(CWD, from, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, "d", Mode::from_raw_mode(0o755)).unwrap();
        here = open(&here);
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_walked_to_the_limit_and_removed() {
    let fixture = Fixture::new();
    fixture.space.write(&path("top/keep/f"), b"x").unwrap();
    symlink(fixture.top.path(), fixture.inside("top/link")).unwrap();
    dig(&fixture.inside("top"), 5000);
    let mut walk = fixture.space.walk(&WorkspacePath::root(), WalkLimits::default()).unwrap();
    let deepest = walk.by_ref().map(|walked| walked.path.components().count()).max();
    assert_eq!((deepest, walk.truncated()), (Some(64), true));
    fixture.space.remove_all(&path("top")).unwrap();
    assert!(matches!(fixture.space.stat(&path("top")), Err(FileError::NotFound)));
    assert_eq!(fs::read(fixture.outside("outside.txt")).unwrap(), SECRET, "the link was not followed");
}

#[test]
fn removing_the_root_empties_it() {
    let fixture = Fixture::new();
    fixture.space.write(&path("a/b/c"), b"x").unwrap();
    fixture.space.write(&path("d"), b"x").unwrap();
    assert!(matches!(fixture.space.remove(&WorkspacePath::root()), Err(FileError::NotAFile)));
    fixture.space.remove_all(&WorkspacePath::root()).unwrap();
    assert_eq!(fs::read_dir(fixture.inside("")).unwrap().count(), 0);
    fixture.space.write(&path("again"), b"x").unwrap();
}

#[test]
fn what_a_writer_left_behind_before_this_process_is_removed_and_nothing_else() {
    let fixture = Fixture::new();
    fixture.space.write(&path("a/kept"), b"1").unwrap();
    let name = format!(".bailiwick-{:032x}", 7);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    // Of an earlier process; of now; of somebody else's making; and a folder of that name.
    for file in [format!("a/{name}"), name.clone(), "a/.bailiwick-notes".to_owned()] {
        fixture.space.write(&path(&file), b"half").unwrap();
        fixture.space.set_modified(&path(&file), old).unwrap();
    }
    let fresh = format!("a/.bailiwick-{:032x}", 8);
    fixture.space.write(&path(&fresh), b"half").unwrap();
    let folder = format!("b/.bailiwick-{:032x}", 9);
    fixture.space.mkdir_all(&path(&folder)).unwrap();
    fixture.space.set_modified(&path(&folder), old).unwrap();
    assert_eq!(fixture.space.remove_leftovers().unwrap(), 2);
    for file in ["a/kept", "a/.bailiwick-notes", fresh.as_str(), folder.as_str()] {
        assert!(fixture.space.stat(&path(file)).is_ok(), "{file}");
    }
    assert!(matches!(fixture.space.stat(&path(&name)), Err(FileError::NotFound)));
}

#[test]
fn i17_what_a_folder_holds_is_measured_whatever_hides_in_it() {
    let fixture = Fixture::new();
    let root = fixture.inside("");
    let most = 1_000_000;
    let before = measure(&root, most).unwrap();
    fixture.space.write(&path("a/b/c/large"), &vec![1; 100_000]).unwrap();
    let one = measure(&root, most).unwrap();
    assert!((112_000..125_000).contains(&(one.bytes - before.bytes)), "{one:?}");
    assert_eq!((one.entries - before.entries, one.seen), (4, Seen::Whole));
    // Names that none of our paths can hold.
    let hidden = root.join(OsStr::from_bytes(b"bad\xff\n"));
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join(OsStr::from_bytes(b"\xfe")), vec![1; 100_000]).unwrap();
    let two = measure(&root, most).unwrap();
    assert!((104_000..115_000).contains(&(two.bytes - one.bytes)), "{two:?}");
    // A second name makes no second file, and a link leads nowhere.
    fs::hard_link(root.join("a/b/c/large"), root.join("again")).unwrap();
    let three = measure(&root, most).unwrap();
    assert!(three.bytes <= two.bytes + 4096, "{three:?}");
    symlink("/", root.join("everything")).unwrap();
    assert_eq!(measure(&root, most).unwrap().bytes, three.bytes + 4096, "a name takes a block");
    // Nothing is free: not a folder, a link or an empty file, of which there could be millions.
    for n in 0..10 {
        fs::write(root.join(format!("empty{n}")), b"").unwrap();
        symlink("n".repeat(4000), root.join(format!("link{n}"))).unwrap();
    }
    let two = measure(&root, most).unwrap();
    assert_eq!(two.bytes, three.bytes + 21 * 4096);
    // As long as it says, though the disk holds nothing of it.
    fs::File::create(root.join("sparse")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(measure(&root, most).unwrap().bytes, two.bytes + (1 << 40));
    assert_eq!(measure(&root.join("nothing here"), most).unwrap().bytes, 0);
}

#[test]
fn i17_a_measurement_is_bounded_and_says_when_it_did_not_see_everything() {
    let fixture = Fixture::new();
    for n in 0..20 {
        fixture.space.write(&path(&format!("d{n}/f")), b"x").unwrap();
    }
    let root = fixture.inside("");
    let all = measure(&root, 1_000).unwrap();
    assert_eq!(all.seen, Seen::Whole);
    for most in 1..all.entries {
        let part = measure(&root, most).unwrap();
        assert_eq!((part.entries, part.seen), (most, Seen::Part), "{most}");
    }
    assert_eq!(measure(&root, all.entries).unwrap(), all, "exactly so many are seen");
}

/// A folder in a folder, and so on, each with an empty folder `a` and one `z` beside it. Their path is longer than
/// the kernel takes one.
fn dig_wide(from: &Path, deep: usize) {
    let open = |dir: BorrowedFd<'_>, name: &str| openat(dir, name, OFlags::PATH, Mode::empty()).unwrap();
    let mut at = rustix::fs::open(from, OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..deep {
        for name in ["a", "m", "z"] {
            mkdirat(&at, name, Mode::RWXU).unwrap();
        }
        at = open(at.as_fd(), "m");
    }
}

#[test]
fn i17_however_deep_a_folder_is_it_is_measured_and_removed() {
    let fixture = Fixture::new();
    fixture.space.write(&path("kept"), b"x").unwrap();
    let root = fixture.inside("");
    let before = measure(&root, 100_000).unwrap();
    // Around the depth to which folders are held open, and far below it.
    for deep in [30, 31, 32, 33, 34, 70, 2_500] {
        fixture.space.mkdir(&path("deep")).unwrap();
        dig_wide(&fixture.inside("deep"), deep);
        let found = measure(&root, 100_000).unwrap();
        assert_eq!((found.entries - before.entries, found.seen), (3 * deep as u64 + 1, Seen::Whole), "{deep}");
        fixture.space.remove_all(&path("deep")).unwrap();
        assert_eq!(measure(&root, 100_000).unwrap(), before, "{deep}");
    }
    // A whole space.
    let other = fixture.outside("space-10");
    dig_wide(&other, 2_500);
    remove_tree(&other).unwrap();
    assert!(!other.exists());
    remove_tree(&other).unwrap();
    assert_eq!(measure(&root, 100_000).unwrap(), before, "and no other");
}

/// Does it as a user who is not root. The kernel knows users by thread.
fn as_nobody(owned: &Path, work: impl FnOnce() + Send) {
    const NOBODY: u32 = 65534;
    let root = rustix::process::geteuid().is_root();
    if root {
        chown(owned, Some(NOBODY), None).unwrap();
    }
    std::thread::scope(|scope| {
        let done = scope.spawn(move || {
            if root {
                rustix::thread::set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
            }
            work();
        });
        done.join().unwrap();
    });
}

#[test]
fn i17_a_closed_folder_hides_nothing_and_goes_with_the_rest() {
    let fixture = Fixture::new();
    let space = fixture.inside("");
    fs::set_permissions(fixture.outside(""), fs::Permissions::from_mode(0o755)).unwrap();
    let close = |dir: PathBuf, bits: u32| fs::set_permissions(dir, fs::Permissions::from_mode(bits)).unwrap();
    let files = fixture.space.clone();
    as_nobody(&space, || {
        let empty = measure(&space, 1_000).unwrap();
        for bits in [0o000, 0o100, 0o200, 0o400, 0o500, 0o300, 0o600] {
            fs::create_dir_all(space.join("top/in/low")).unwrap();
            fs::write(space.join("top/in/low/file"), vec![1; 100_000]).unwrap();
            for dir in ["top/in/low", "top/in", "top"] {
                close(space.join(dir), bits);
            }
            let closed = bits & 0o500 != 0o500;
            assert_eq!(fs::read(space.join("top/in/low/file")).is_err(), bits & 0o100 == 0, "{bits:o}");
            let found = measure(&space, 1_000).unwrap();
            assert_eq!((found.entries, found.seen), (empty.entries + 4, Seen::Whole), "{bits:o}");
            // Looking changes no more than looking needs.
            let after = fs::metadata(space.join("top")).unwrap().permissions().mode() & 0o777;
            assert_eq!(after, if closed { bits | 0o500 } else { bits }, "{bits:o}");
            close(space.join("top/in"), bits);
            close(space.join("top"), bits);
            files.remove_all(&path("top")).unwrap();
            assert_eq!(measure(&space, 1_000).unwrap(), empty, "{bits:o}");
        }
    });
    // Somebody else's folder is not opened for anybody, and is said to be there.
    if rustix::process::geteuid().is_root() {
        fs::create_dir(space.join("foreign")).unwrap();
        close(space.join("foreign"), 0o700);
        as_nobody(&space, || assert_eq!(measure(&space, 1_000).unwrap().seen, Seen::Part));
        assert_eq!(measure(&space, 1_000).unwrap().seen, Seen::Whole, "root looks");
        assert_eq!(fs::metadata(space.join("foreign")).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
