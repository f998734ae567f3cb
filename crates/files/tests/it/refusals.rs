//! Links, special files and siblings that stand still while we look.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use bailiwick_files::{Access, EntryKind, FileError, Refusal, WalkLimits, Workspace};
use bailiwick_types::path::WorkspacePath;
use rustix::fs::{CWD, FileType, Mode};

use crate::{Fixture, SECRET, assert_refused, path};

fn mkfifo(at: &std::path::Path) {
    rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
}

/// Every way to read or change a file's content, tried on one path.
fn assert_content_refused(space: &Workspace, at: &WorkspacePath, reason: Refusal) {
    assert_refused(space.read(at, 1 << 20), reason);
    assert_refused(space.read_range(at, 0, 10), reason);
    assert_refused(space.reader(at).map(|_| ()), reason);
    assert_refused(space.write(at, b"overwritten"), reason);
    assert_refused(space.append(at, b"appended"), reason);
    assert_refused(space.copy(at, &path("copied"), 1 << 20), reason);
    assert_refused(space.copy(&path("honest"), at, 1 << 20), reason);
    assert_refused(space.rename(&path("honest"), at), reason);
    assert_refused(space.set_mode(at, 0o777), reason);
    assert_refused(space.set_modified(at, std::time::SystemTime::now()), reason);
    let error = space.read(at, 10).unwrap_err();
    assert_eq!(error.code(), "path_traversal");
}

#[test]
fn a06_symbolic_links_are_refused_for_reading_and_writing() {
    let fixture = Fixture::new();
    fixture.space.write(&path("honest"), b"honest").unwrap();
    let outside = fixture.outside("outside.txt");
    let dangling = fixture.outside("would-be-created.txt");
    for (name, target) in [
        ("absolute", outside.as_path()),
        ("relative", std::path::Path::new("../outside.txt")),
        ("inside", std::path::Path::new("honest")),
        ("dangling", dangling.as_path()),
        ("loop", std::path::Path::new("loop")),
        ("magic", std::path::Path::new("/proc/self/environ")),
    ] {
        symlink(target, fixture.inside(name)).unwrap();
        assert_content_refused(&fixture.space, &path(name), Refusal::Symlink);
        assert_eq!(fixture.space.stat(&path(name)).unwrap().kind, EntryKind::Symlink);
        fixture.space.remove(&path(name)).unwrap();
    }
    assert_eq!(fs::read(&outside).unwrap(), SECRET);
    assert!(!dangling.exists());
    assert_eq!(fixture.space.read(&path("honest"), 10).unwrap(), b"honest");
}

#[test]
fn a06_a_linked_directory_is_refused_on_the_way() {
    let fixture = Fixture::new();
    symlink(fixture.top.path(), fixture.inside("up")).unwrap();
    symlink("..", fixture.inside("dots")).unwrap();
    symlink("/", fixture.inside("slash")).unwrap();
    for name in ["up/outside.txt", "dots/outside.txt", "dots/space-10/sibling.txt", "slash/etc/passwd"] {
        let at = path(name);
        assert_refused(fixture.space.read(&at, 1 << 20), Refusal::Symlink);
        assert_refused(fixture.space.write(&at, b"x"), Refusal::Symlink);
        assert_refused(fixture.space.append(&at, b"x"), Refusal::Symlink);
        assert_refused(fixture.space.stat(&at), Refusal::Symlink);
        assert_refused(fixture.space.remove(&at), Refusal::Symlink);
    }
    assert_refused(fixture.space.list(&path("up"), 10), Refusal::Symlink);
    assert_refused(fixture.space.walk(&path("up"), WalkLimits::default()).map(|_| ()), Refusal::Symlink);
    assert_refused(fixture.space.mkdir(&path("up/new")), Refusal::Symlink);
    assert_refused(fixture.space.mkdir_all(&path("up/new/er")), Refusal::Symlink);
    assert_refused(fixture.space.write(&path("up/new/er"), b""), Refusal::Symlink);
    assert!(!fixture.outside("new").exists());
    // Removing the link removes the link.
    fixture.space.remove_all(&path("up")).unwrap();
    assert_eq!(fs::read(fixture.outside("outside.txt")).unwrap(), SECRET);
}

#[test]
fn a06_hard_links_are_refused_for_reading_and_writing() {
    let fixture = Fixture::new();
    fixture.space.write(&path("honest"), b"honest").unwrap();
    let outside = fixture.outside("outside.txt");
    fs::hard_link(&outside, fixture.inside("hard")).unwrap();
    assert_content_refused(&fixture.space, &path("hard"), Refusal::HardLink);
    assert_eq!(fs::read(&outside).unwrap(), SECRET);
    // The control: the same file is readable once it has one name only.
    fs::remove_file(&outside).unwrap();
    assert_eq!(fixture.space.read(&path("hard"), 100).unwrap(), SECRET);
}

#[test]
fn a06_special_files_are_refused_and_do_not_hang() {
    let fixture = Fixture::new();
    fixture.space.write(&path("honest"), b"honest").unwrap();
    mkfifo(&fixture.inside("fifo"));
    let _listener = UnixListener::bind(fixture.inside("socket")).unwrap();
    for name in ["fifo", "socket"] {
        assert_content_refused(&fixture.space, &path(name), Refusal::Special);
        assert_eq!(fixture.space.stat(&path(name)).unwrap().kind, EntryKind::Special);
    }
    // A FIFO with a reader can be opened for writing, and must not be used.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let reader = rustix::fs::open(fixture.inside("fifo"), flags, Mode::empty()).unwrap();
    assert_refused(fixture.space.append(&path("fifo"), b"x"), Refusal::Special);
    let mut buffer = [0; 8];
    assert_eq!(rustix::io::read(&reader, &mut buffer).unwrap(), 0, "nothing reached the FIFO");
}

#[test]
fn a07_a_sibling_with_the_same_prefix_is_out_of_reach() {
    let fixture = Fixture::new();
    assert!(WorkspacePath::parse("../space-10/sibling.txt").is_err());
    // `0/sibling.txt` is what is left when a prefix is compared as text.
    assert!(matches!(fixture.space.read(&path("0/sibling.txt"), 100), Err(FileError::NotFound)));
    symlink("../space-10", fixture.inside("0")).unwrap();
    assert_refused(fixture.space.read(&path("0/sibling.txt"), 100), Refusal::Symlink);
    let sibling = Workspace::open(&fixture.outside("space-10"), Access::ReadOnly, None).unwrap();
    assert_eq!(sibling.read(&path("sibling.txt"), 100).unwrap(), SECRET);
}

#[test]
fn the_root_itself_may_not_be_a_link_or_a_file() {
    let fixture = Fixture::new();
    symlink(fixture.inside(""), fixture.outside("link")).unwrap();
    for name in ["link", "outside.txt", "missing"] {
        let opened = Workspace::open(&fixture.outside(name), Access::ReadOnly, None);
        assert!(matches!(opened, Err(FileError::NotADirectory | FileError::NotFound | FileError::Refused { .. })));
    }
}

#[test]
fn a_root_that_was_renamed_is_still_the_same_directory() {
    let fixture = Fixture::new();
    fixture.space.write(&path("f"), b"x").unwrap();
    fs::rename(fixture.inside(""), fixture.outside("moved")).unwrap();
    fs::create_dir(fixture.outside("space-1")).unwrap();
    assert_eq!(fixture.space.read(&path("f"), 10).unwrap(), b"x");
}
