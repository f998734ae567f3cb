//! Reading and writing where nobody interferes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use bailiwick_files::{Access, EntryKind, Expect, FileError, Owner, Workspace, content_hash};
use bailiwick_types::path::{MAX_COMPONENT_BYTES, WorkspacePath};

use crate::{Fixture, path};

#[test]
fn a_write_creates_parents_and_a_read_gives_it_back() {
    let fixture = Fixture::new();
    let written = fixture.space.write(&path("a/b/c.txt"), b"hello").unwrap();
    assert!(written.created);
    assert_eq!((written.size, written.sha256), (5, content_hash(b"hello")));
    assert_eq!(fixture.space.read(&path("a/b/c.txt"), 5).unwrap(), b"hello");
    assert_eq!(fs::read(fixture.inside("a/b/c.txt")).unwrap(), b"hello");
    let mode = |name| fs::metadata(fixture.inside(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a/b/c.txt"), mode("a"), mode("a/b")), (0o644, 0o755, 0o755));

    fixture.space.set_mode(&path("a/b/c.txt"), 0o4755).unwrap();
    assert!(!fixture.space.write(&path("a/b/c.txt"), b"again").unwrap().created);
    assert_eq!(mode("a/b/c.txt"), 0o755, "a replaced file keeps its mode, without set-id");
    assert_eq!(fs::read_dir(fixture.inside("a/b")).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn reads_are_bounded() {
    let fixture = Fixture::new();
    fixture.space.write(&path("f"), b"0123456789").unwrap();
    assert!(matches!(fixture.space.read(&path("f"), 9), Err(FileError::TooLarge { limit: 9 })));
    assert_eq!(fixture.space.read_range(&path("f"), 3, 4).unwrap(), b"3456");
    assert_eq!(fixture.space.read_range(&path("f"), 99, 4).unwrap(), b"");
    let mut text = String::new();
    let mut reader = fixture.space.reader(&path("f")).unwrap();
    assert_eq!(reader.stat().size, 10);
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "0123456789");
    // A sparse file of a terabyte costs nothing to make and must cost nothing
    // to refuse.
    fs::File::create(fixture.inside("huge")).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(fixture.space.read(&path("huge"), 1 << 20), Err(FileError::TooLarge { .. })));
    let compared = fixture.space.write_if(&path("huge"), b"", Expect::Hash([0; 32]));
    assert!(matches!(compared, Err(FileError::TooLarge { .. })));
}

#[test]
fn a_stream_longer_than_allowed_writes_nothing() {
    let fixture = Fixture::new();
    let endless = std::io::repeat(b'x');
    let result = fixture.space.write_from(&path("f"), endless, 1 << 20, Expect::Anything);
    assert!(matches!(result, Err(FileError::TooLarge { .. })));
    assert_eq!(fs::read_dir(fixture.inside("")).unwrap().count(), 0);
}

#[test]
fn conditional_writes_compare_the_content() {
    let fixture = Fixture::new();
    let (space, file) = (&fixture.space, path("f"));
    let first = space.write_if(&file, b"one", Expect::Absent).unwrap();
    assert!(matches!(space.write_if(&file, b"two", Expect::Absent), Err(FileError::Exists)));
    let stale = space.write_if(&file, b"two", Expect::Hash(content_hash(b"other")));
    assert!(matches!(stale, Err(FileError::Changed)));
    assert_eq!(space.read(&file, 10).unwrap(), b"one");
    space.write_if(&file, b"two", Expect::Hash(first.sha256)).unwrap();
    assert_eq!(space.read(&file, 10).unwrap(), b"two");
    let missing = space.write_if(&path("g"), b"x", Expect::Hash(first.sha256));
    assert!(matches!(missing, Err(FileError::Changed)));
    assert_eq!(fs::read_dir(fixture.inside("")).unwrap().count(), 1);
}

#[test]
fn of_many_conditional_writers_one_wins() {
    let fixture = Fixture::new();
    let old = fixture.space.write(&path("f"), b"old").unwrap();
    let wins: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let space = fixture.space.clone();
                scope.spawn(move || {
                    let content = format!("writer {number}");
                    space.write_if(&path("f"), content.as_bytes(), Expect::Hash(old.sha256)).is_ok()
                })
            })
            .collect();
        writers.into_iter().map(|writer| usize::from(writer.join().unwrap())).sum()
    });
    assert_eq!(wins, 1);
}

#[test]
fn append_mkdir_rename_copy_remove() {
    let fixture = Fixture::new();
    let space = &fixture.space;
    space.append(&path("d/log"), b"a").unwrap();
    space.append(&path("d/log"), b"b").unwrap();
    assert_eq!(space.read(&path("d/log"), 10).unwrap(), b"ab");
    assert!(matches!(space.mkdir(&path("d")), Err(FileError::Exists)));
    assert!(matches!(space.mkdir(&WorkspacePath::root()), Err(FileError::Exists)));
    assert!(matches!(space.mkdir(&path("no/where")), Err(FileError::NotFound)));
    assert!(matches!(space.mkdir_all(&path("d/log/x")), Err(FileError::NotADirectory)));
    space.mkdir_all(&path("x/y/z")).unwrap();
    space.mkdir_all(&path("x/y/z")).unwrap();
    space.rename(&path("d/log"), &path("x/y/z/log")).unwrap();
    space.set_mode(&path("x/y/z/log"), 0o700).unwrap();
    space.copy(&path("x/y/z/log"), &path("copy"), 10).unwrap();
    assert_eq!(space.stat(&path("copy")).unwrap().mode, 0o700);
    assert!(matches!(space.copy(&path("copy"), &path("other"), 1), Err(FileError::TooLarge { .. })));
    assert!(matches!(space.remove(&path("x")), Err(FileError::NotEmpty)));
    space.remove_all(&path("x")).unwrap();
    space.remove(&path("d")).unwrap();
    assert!(matches!(space.remove(&path("d")), Err(FileError::NotFound)));
    assert_eq!(space.read(&path("copy"), 10).unwrap(), b"ab");
    let when = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    space.set_modified(&path("copy"), when).unwrap();
    assert_eq!(space.stat(&path("copy")).unwrap().modified, when);
}

#[test]
fn a_directory_is_not_a_file() {
    let fixture = Fixture::new();
    let space = &fixture.space;
    space.mkdir(&path("d")).unwrap();
    for at in [path("d"), WorkspacePath::root()] {
        assert!(matches!(space.read(&at, 10), Err(FileError::NotAFile)));
        assert!(matches!(space.write(&at, b""), Err(FileError::NotAFile)));
        assert!(matches!(space.append(&at, b""), Err(FileError::NotAFile)));
        assert_eq!(space.stat(&at).unwrap().kind, EntryKind::Directory);
    }
    space.write(&path("f"), b"").unwrap();
    assert!(matches!(space.read(&path("f/x"), 10), Err(FileError::NotADirectory)));
    assert!(matches!(space.write(&path("f/x"), b""), Err(FileError::NotADirectory)));
    assert!(matches!(space.list(&path("f"), 10), Err(FileError::NotADirectory)));
    assert!(matches!(space.stat(&path("nothing")), Err(FileError::NotFound)));
}

#[test]
fn b03_a_read_only_workspace_reads_and_refuses_every_change() {
    let fixture = Fixture::new();
    fixture.space.write(&path("f"), b"kept").unwrap();
    let reopened = Workspace::open(&fixture.inside(""), Access::ReadOnly, None).unwrap();
    for space in [reopened, fixture.space.read_only().unwrap()] {
        assert_eq!(space.read(&path("f"), 10).unwrap(), b"kept");
        let now = SystemTime::now();
        for result in [
            space.write(&path("f"), b"x").map(|_| ()),
            space.write(&path("new/f"), b"x").map(|_| ()),
            space.append(&path("f"), b"x"),
            space.copy(&path("f"), &path("g"), 10).map(|_| ()),
            space.rename(&path("f"), &path("g")),
            space.mkdir(&path("d")),
            space.mkdir_all(&path("d/e")),
            space.remove(&path("f")),
            space.remove_all(&path("f")),
            space.remove_all(&WorkspacePath::root()),
            space.set_mode(&path("f"), 0o600),
            space.set_modified(&path("f"), now),
        ] {
            assert!(matches!(result, Err(FileError::ReadOnly)), "{result:?}");
        }
    }
    assert_eq!(fs::read_dir(fixture.inside("")).unwrap().count(), 1);
    assert_eq!(fs::read(fixture.inside("f")).unwrap(), b"kept");
}

#[test]
fn new_files_belong_to_the_owner() {
    let fixture = Fixture::new();
    // Only a privileged process may give files away; for any other the owner
    // can be itself alone, which shows less but still runs the same code.
    let own = fs::metadata(fixture.inside("")).unwrap();
    let owner =
        if own.uid() == 0 { Owner { uid: 234_567, gid: 234_568 } } else { Owner { uid: own.uid(), gid: own.gid() } };
    let space = Workspace::open(&fixture.inside(""), Access::ReadWrite, Some(owner)).unwrap();
    space.write(&path("d/e/f"), b"x").unwrap();
    space.append(&path("log"), b"x").unwrap();
    for name in ["d", "d/e", "d/e/f", "log"] {
        let found = fs::metadata(fixture.inside(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (owner.uid, owner.gid), "{name}");
    }
}

#[test]
fn names_up_to_the_limits_work() {
    let fixture = Fixture::new();
    let longest = "n".repeat(MAX_COMPONENT_BYTES);
    let deepest = vec!["d"; 64].join("/");
    let widest = [vec!["w".repeat(199); 5].join("/"), "w".repeat(24)].join("/");
    assert_eq!(widest.len(), 1024);
    for text in [longest.as_str(), deepest.as_str(), widest.as_str(), "日本 語/ñ", "-rf", "a'b\"c$(d)"] {
        fixture.space.write(&path(text), text.as_bytes()).unwrap();
        assert_eq!(fixture.space.read(&path(text), 4096).unwrap(), text.as_bytes());
    }
}
