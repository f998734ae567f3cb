//! Kept states: what is kept, what is put back, and what a hostile tree gets of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bailiwick_files::{
    Access, Change, FileError, Item, LeftOut, Manifest, Owner, Restored, SnapshotLimits, Snapshots, Taken, Workspace,
    content_hash,
};
use rustix::fs::{CWD, FileType, Mode};

use crate::{Fixture, SECRET, path};

const LIMITS: SnapshotLimits = SnapshotLimits { entries: 20_000, file_bytes: 1 << 20, new_bytes: 64 << 20 };

fn kept(fixture: &Fixture) -> Snapshots {
    Snapshots::open(&fixture.outside("kept")).unwrap()
}

fn take(fixture: &Fixture, last: Option<&Manifest>) -> Taken {
    kept(fixture).take(&fixture.space, last, LIMITS).unwrap()
}

/// Goes back to `then`, by way of a state that is kept before.
fn restore(fixture: &Fixture, then: &Manifest) -> (Manifest, Restored) {
    let now = take(fixture, Some(then)).manifest;
    let restored = kept(fixture).restore(&fixture.space, then, &now).unwrap();
    (now, restored)
}

fn left_out(manifest: &Manifest) -> Vec<(&str, LeftOut)> {
    manifest.left_out().collect()
}

/// All names that lie under a directory, with their contents.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Waits until the kernel's stamps of what was written are older than a tick.
fn settle() {
    let until = Instant::now() + Duration::from_millis(60);
    while Instant::now() < until {
        std::thread::yield_now();
    }
}

#[test]
fn what_was_wrecked_comes_back_and_going_back_can_be_undone() {
    let fixture = Fixture::new();
    fixture.space.write(&path("src/main.rs"), b"fn main() {}").unwrap();
    fixture.space.write(&path("run me.sh"), b"#!/bin/sh\n").unwrap();
    fixture.space.mkdir(&path("empty")).unwrap();
    set_mode(&fixture.inside("run me.sh"), 0o750);
    set_mode(&fixture.inside("empty"), 0o700);
    symlink("src/main.rs", fixture.inside("link")).unwrap();
    let before = take(&fixture, None).manifest;

    fs::remove_dir_all(fixture.inside("src")).unwrap();
    fs::write(fixture.inside("src"), b"a file now").unwrap();
    fs::remove_dir(fixture.inside("empty")).unwrap();
    fs::write(fixture.inside("run me.sh"), b"wrecked").unwrap();
    set_mode(&fixture.inside("run me.sh"), 0o600);
    fs::remove_file(fixture.inside("link")).unwrap();
    fs::create_dir_all(fixture.inside("link/deep")).unwrap();
    fs::write(fixture.inside("link/deep/new"), b"new").unwrap();

    let (wrecked, restored) = restore(&fixture, &before);
    assert_eq!(restored.left, BTreeMap::new());
    assert_eq!((restored.written, restored.removed), (5, 4));
    assert_eq!(fs::read(fixture.inside("src/main.rs")).unwrap(), b"fn main() {}");
    assert_eq!(fs::read(fixture.inside("run me.sh")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::metadata(fixture.inside("run me.sh")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(fs::metadata(fixture.inside("empty")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_link(fixture.inside("link")).unwrap(), Path::new("src/main.rs"));
    assert!(take(&fixture, None).manifest.is_same(&before));

    let (_, undone) = restore(&fixture, &wrecked);
    assert_eq!(undone.left, BTreeMap::new());
    assert_eq!(fs::read(fixture.inside("src")).unwrap(), b"a file now");
    assert_eq!(fs::read(fixture.inside("link/deep/new")).unwrap(), b"new");
    assert!(take(&fixture, None).manifest.is_same(&wrecked));
}

#[test]
fn a_mode_alone_is_put_back_without_writing() {
    let fixture = Fixture::new();
    fixture.space.write(&path("dir/file"), b"1").unwrap();
    let before = take(&fixture, None).manifest;
    let inode = fs::metadata(fixture.inside("dir/file")).unwrap().ino();
    set_mode(&fixture.inside("dir/file"), 0o4755);
    set_mode(&fixture.inside("dir"), 0o711);
    let (_, restored) = restore(&fixture, &before);
    assert_eq!((restored.modes, restored.written, restored.removed), (2, 0, 0));
    let file = fs::metadata(fixture.inside("dir/file")).unwrap();
    assert_eq!((file.ino(), file.mode() & 0o7777), (inode, 0o644));
    assert_eq!(fs::metadata(fixture.inside("dir")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn only_what_changed_is_read_again() {
    let fixture = Fixture::new();
    fixture.space.write(&path("a"), b"one").unwrap();
    fixture.space.write(&path("b"), b"two").unwrap();
    settle();
    let first = take(&fixture, None);
    assert_eq!((first.read, first.added), (2, 6));
    let second = take(&fixture, Some(&first.manifest));
    assert_eq!((second.read, second.added), (0, 0));
    assert!(second.manifest.is_same(&first.manifest));
    // The same size, and the old time of the content: the change time tells.
    let times = fs::metadata(fixture.inside("a")).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(fixture.inside("a")).unwrap();
    std::io::Write::write_all(&mut &file, b"ONE").unwrap();
    file.set_modified(times).unwrap();
    let third = take(&fixture, Some(&second.manifest));
    assert_eq!((third.read, third.added), (1, 3));
    let changes = second.manifest.changes_to(&third.manifest, 10);
    assert_eq!(changes.paths, [("a".to_owned(), Change::Changed)]);
}

#[test]
fn a_file_of_this_very_moment_is_read_again_because_its_stamp_tells_nothing() {
    let fixture = Fixture::new();
    let stamped = |manifest: &Manifest| match manifest.items().next() {
        Some((_, Item::File { stamp, .. })) => stamp.is_some(),
        other => panic!("expected a file, got {other:?}"),
    };
    // A busy machine may need more than a tick for both; then it says nothing, and is asked again.
    let first = (0..1_000).find_map(|_| {
        let began = Instant::now();
        fixture.space.write(&path("a"), b"one").unwrap();
        let taken = take(&fixture, None);
        (began.elapsed() < Duration::from_millis(15)).then_some(taken)
    });
    let first = first.expect("one of a thousand writes is kept within a tick");
    assert!(!stamped(&first.manifest));
    settle();
    let second = take(&fixture, Some(&first.manifest));
    assert_eq!((stamped(&second.manifest), second.read), (true, 1));
    assert_eq!(take(&fixture, Some(&second.manifest)).read, 0);
}

#[test]
fn differences_are_counted_and_as_many_named_as_were_asked_for() {
    let fixture = Fixture::new();
    for name in ["changed", "removed", "same"] {
        fixture.space.write(&path(name), b"1").unwrap();
    }
    let before = take(&fixture, None).manifest;
    fixture.space.write(&path("changed"), b"2").unwrap();
    fixture.space.write(&path("added"), b"1").unwrap();
    fixture.space.remove(&path("removed")).unwrap();
    let after = take(&fixture, Some(&before)).manifest;
    let all = before.changes_to(&after, 10);
    let expected = [("added", Change::Added), ("changed", Change::Changed), ("removed", Change::Removed)];
    assert_eq!(all.paths, expected.map(|(path, change)| (path.to_owned(), change)));
    let two = before.changes_to(&after, 2);
    assert_eq!((two.paths.len(), two.total), (2, 3));
}

#[test]
fn a_manifest_is_read_back_as_it_was_and_half_of_one_is_none() {
    let fixture = Fixture::new();
    fixture.space.write(&path("with  spaces /é"), b"1").unwrap();
    fs::hard_link(fixture.outside("outside.txt"), fixture.inside("second name")).unwrap();
    symlink(OsStr::from_bytes(b"not\xff utf-8\n"), fixture.inside("link")).unwrap();
    fs::write(fixture.inside("").join(OsStr::from_bytes(b"bad\xffname")), b"").unwrap();
    settle();
    let manifest = take(&fixture, None).manifest;
    kept(&fixture).save("one", &manifest).unwrap();
    assert_eq!(kept(&fixture).load("one").unwrap(), manifest);
    assert!(matches!(kept(&fixture).save("one", &manifest), Err(FileError::Exists)));
    let file = fixture.outside("kept/manifests/one");
    let whole = fs::read(&file).unwrap();
    for cut in 0..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        assert!(matches!(kept(&fixture).load("one"), Err(FileError::Changed)), "cut at {cut}");
    }
    let climbing = String::from_utf8(whole).unwrap().replace("with  spaces ", "..");
    fs::write(&file, climbing).unwrap();
    assert!(matches!(kept(&fixture).load("one"), Err(FileError::Changed)));
}

#[test]
fn a05_what_is_kept_is_the_servers_alone() {
    let fixture = Fixture::new();
    fixture.space.write(&path("a"), b"private").unwrap();
    set_mode(&fixture.inside("a"), 0o777);
    let manifest = take(&fixture, None).manifest;
    kept(&fixture).save("one", &manifest).unwrap();
    let mode = |name: &Path| fs::metadata(name).unwrap().mode() & 0o777;
    for dir in ["kept", "kept/contents", "kept/manifests"] {
        assert_eq!(mode(&fixture.outside(dir)), 0o700, "{dir}");
        for entry in fs::read_dir(fixture.outside(dir)).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_file() {
                assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
            }
        }
    }
}

#[test]
fn a06_links_and_special_files_are_named_and_never_read_followed_or_waited_for() {
    let fixture = Fixture::new();
    fixture.space.write(&path("dir/honest"), b"honest").unwrap();
    symlink("../../outside.txt", fixture.inside("dir/link")).unwrap();
    symlink("../..", fixture.inside("out")).unwrap();
    fs::hard_link(fixture.outside("outside.txt"), fixture.inside("hard")).unwrap();
    rustix::fs::mknodat(CWD, fixture.inside("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    fs::write(fixture.inside("").join(OsStr::from_bytes(b"bad\xff")), b"").unwrap();
    fs::write(fixture.inside("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let taken = take(&fixture, None);
    let expected = [
        (".", LeftOut::Unnameable),
        ("fifo", LeftOut::Special),
        ("hard", LeftOut::HardLink),
        ("large", LeftOut::TooLarge),
    ];
    assert_eq!(left_out(&taken.manifest), expected);
    assert_eq!(taken.manifest.unnamed(), 1);
    let names: Vec<_> = taken.manifest.items().map(|(path, _)| path).collect();
    assert_eq!(names, ["dir", "dir/honest", "dir/link", "out"]);
    // The control: the honest file was read, and it alone.
    let stored: Vec<_> = contents(&fixture.outside("kept/contents")).into_values().collect();
    assert_eq!(stored, [b"honest".to_vec()]);
}

#[test]
fn a06_going_back_follows_no_link_that_stands_in_its_way() {
    let fixture = Fixture::new();
    fixture.space.write(&path("dir/sibling.txt"), b"mine").unwrap();
    fixture.space.write(&path("file"), b"mine").unwrap();
    let before = take(&fixture, None).manifest;
    fs::remove_dir_all(fixture.inside("dir")).unwrap();
    symlink("../space-10", fixture.inside("dir")).unwrap();
    fs::remove_file(fixture.inside("file")).unwrap();
    symlink("../outside.txt", fixture.inside("file")).unwrap();
    let now = take(&fixture, None).manifest;
    let restored = kept(&fixture).restore(&fixture.space, &before, &now).unwrap();
    assert_eq!(fs::read(fixture.outside("outside.txt")).unwrap(), SECRET);
    assert_eq!(fs::read(fixture.outside("space-10/sibling.txt")).unwrap(), SECRET);
    assert_eq!(restored.left, BTreeMap::new());
    assert_eq!(fs::read(fixture.inside("file")).unwrap(), b"mine");
    assert_eq!(fs::read(fixture.inside("dir/sibling.txt")).unwrap(), b"mine");
    // Swapped after the last look: it is left, and nothing outside is touched.
    fs::remove_dir_all(fixture.inside("dir")).unwrap();
    let gone = take(&fixture, None).manifest;
    symlink("../space-10", fixture.inside("dir")).unwrap();
    let restored = kept(&fixture).restore(&fixture.space, &before, &gone).unwrap();
    assert_eq!(restored.left.keys().collect::<Vec<_>>(), ["dir", "dir/sibling.txt"]);
    assert_eq!(fs::read(fixture.outside("space-10/sibling.txt")).unwrap(), SECRET);
}

#[test]
fn what_is_not_kept_is_neither_removed_nor_replaced() {
    let fixture = Fixture::new();
    fixture.space.write(&path("small"), b"small").unwrap();
    fs::write(fixture.inside("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let before = take(&fixture, None).manifest;
    // One that was left out then is kept now, and one that was kept then is too large now.
    fs::write(fixture.inside("large"), b"shrunk").unwrap();
    fs::write(fixture.inside("small"), vec![b'y'; (1 << 20) + 1]).unwrap();
    fs::create_dir(fixture.inside("new")).unwrap();
    fs::write(fixture.inside("new").join(OsStr::from_bytes(b"bad\xff")), b"unnameable").unwrap();
    let (_, restored) = restore(&fixture, &before);
    assert_eq!(fs::read(fixture.inside("large")).unwrap(), b"shrunk");
    assert_eq!(fs::read(fixture.inside("small")).unwrap(), vec![b'y'; (1 << 20) + 1]);
    assert!(fixture.inside("new").join(OsStr::from_bytes(b"bad\xff")).exists());
    let expected = [("new".to_owned(), "not_empty"), ("small".to_owned(), "too_large")];
    assert_eq!(restored.left, BTreeMap::from(expected));
}

#[test]
fn what_appeared_after_the_last_look_is_not_replaced() {
    let fixture = Fixture::new();
    fixture.space.write(&path("file"), b"then").unwrap();
    symlink("then", fixture.inside("link")).unwrap();
    let before = take(&fixture, None).manifest;
    fixture.space.remove_all(&path(".")).unwrap();
    let gone = take(&fixture, None).manifest;
    fixture.space.write(&path("file"), b"of just now").unwrap();
    fixture.space.write(&path("link"), b"of just now").unwrap();
    let restored = kept(&fixture).restore(&fixture.space, &before, &gone).unwrap();
    let left = ["file", "link"].map(|name| (name.to_owned(), "exists"));
    assert_eq!(restored.left, BTreeMap::from(left));
    for name in ["file", "link"] {
        assert_eq!(fs::read(fixture.inside(name)).unwrap(), b"of just now");
    }
    // The control: where nothing appeared, both come back.
    fixture.space.remove_all(&path(".")).unwrap();
    assert_eq!(restore(&fixture, &before).1.written, 2);
}

#[test]
fn b05_too_many_entries_or_too_many_bytes_keep_nothing() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        fixture.space.write(&path(name), name.as_bytes()).unwrap();
    }
    let limited = |limits| kept(&fixture).take(&fixture.space, None, limits);
    let many = limited(SnapshotLimits { entries: 2, ..LIMITS });
    assert!(matches!(many, Err(FileError::TooLarge { limit: 2 })), "{many:?}");
    let bytes = limited(SnapshotLimits { new_bytes: 2, ..LIMITS });
    assert!(matches!(bytes, Err(FileError::NoSpace)), "{bytes:?}");
    assert_eq!(contents(&fixture.outside("kept/contents")), BTreeMap::new());
    // The control: just enough of both.
    assert_eq!(limited(SnapshotLimits { entries: 3, new_bytes: 3, ..LIMITS }).unwrap().added, 3);
}

#[test]
fn b05_what_no_state_names_goes_and_what_one_names_stays() {
    let fixture = Fixture::new();
    fixture.space.write(&path("a"), b"both").unwrap();
    fixture.space.write(&path("b"), b"first").unwrap();
    let first = take(&fixture, None).manifest;
    kept(&fixture).save("first", &first).unwrap();
    fixture.space.write(&path("b"), b"second").unwrap();
    let second = take(&fixture, Some(&first)).manifest;
    kept(&fixture).save("second", &second).unwrap();
    fs::write(fixture.outside("kept/contents/.bailiwick-left"), b"of a killed server").unwrap();
    assert!(kept(&fixture).retain(&["third"]).is_err());
    let dropped = kept(&fixture).retain(&["second"]).unwrap();
    assert_eq!(dropped.files, 3);
    let left: Vec<_> = contents(&fixture.outside("kept/contents")).into_values().collect();
    assert_eq!(left.len(), 2);
    assert!(left.contains(&b"both".to_vec()) && left.contains(&b"second".to_vec()));
    assert!(matches!(kept(&fixture).load("first"), Err(FileError::NotFound)));
    let (_, restored) = restore(&fixture, &first);
    assert_eq!(restored.left, BTreeMap::from([("b".to_owned(), "not_found")]));
}

#[test]
fn a_kept_content_that_was_damaged_is_not_put_back() {
    let fixture = Fixture::new();
    fixture.space.write(&path("a"), b"right").unwrap();
    let before = take(&fixture, None).manifest;
    fixture.space.write(&path("a"), b"other").unwrap();
    for name in contents(&fixture.outside("kept/contents")).into_keys() {
        fs::write(fixture.outside("kept/contents").join(name), b"wrong").unwrap();
    }
    let (_, restored) = restore(&fixture, &before);
    assert_eq!(restored.left, BTreeMap::from([("a".to_owned(), "changed")]));
    assert_eq!(fs::read(fixture.inside("a")).unwrap(), b"other");
}

#[test]
fn what_is_put_back_belongs_to_the_workspaces_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fixture = Fixture::new();
    let owner = Some(Owner { uid: 54_321, gid: 54_322 });
    let space = Workspace::open(&fixture.inside(""), Access::ReadWrite, owner).unwrap();
    space.write(&path("dir/file"), b"1").unwrap();
    symlink("file", fixture.inside("dir/link")).unwrap();
    let before = take(&fixture, None).manifest;
    space.remove_all(&path("dir")).unwrap();
    let now = take(&fixture, None).manifest;
    kept(&fixture).restore(&space, &before, &now).unwrap();
    for name in ["dir", "dir/file", "dir/link"] {
        let found = fs::symlink_metadata(fixture.inside(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (54_321, 54_322), "{name}");
    }
}

/// Ends the attacker also where an assertion failed, which would wait for it for ever.
struct Stop<'d>(&'d AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a06_nothing_from_outside_is_kept_while_names_are_swapped() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.inside("dir")).unwrap();
    fs::write(fixture.inside("dir/sibling.txt"), b"honest").unwrap();
    fs::write(fixture.inside("file"), b"honest").unwrap();
    let done = AtomicBool::new(false);
    let (mut honest, mut attacked) = (false, false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (next, file) = (fixture.outside("next"), fixture.inside("file"));
            while !done.load(Ordering::Relaxed) {
                symlink("../outside.txt", &next).unwrap();
                fs::rename(&next, &file).unwrap();
                fs::hard_link(fixture.outside("outside.txt"), &next).unwrap();
                fs::rename(&next, &file).unwrap();
                fs::write(&next, b"honest").unwrap();
                fs::rename(&next, &file).unwrap();
                fs::rename(fixture.inside("dir"), fixture.outside("moved")).unwrap();
                symlink("../space-10", fixture.inside("dir")).unwrap();
                fs::remove_file(fixture.inside("dir")).unwrap();
                fs::rename(fixture.outside("moved"), fixture.inside("dir")).unwrap();
            }
        });
        let _stop = Stop(&done);
        let until = Instant::now() + Duration::from_secs(30);
        let mut round = 0;
        while round < 2_000 || !(honest && attacked) && Instant::now() < until {
            round += 1;
            let manifest = take(&fixture, None).manifest;
            for (_, item) in manifest.items() {
                match item {
                    Item::File { sha256, .. } => {
                        assert_eq!(*sha256, content_hash(b"honest"));
                        honest = true;
                    }
                    Item::Link { .. } => attacked = true,
                    Item::Directory { .. } => {}
                }
            }
        }
    });
    assert!(honest && attacked, "honest: {honest}, attacked: {attacked}");
    assert_eq!(contents(&fixture.outside("kept/contents")).into_values().collect::<Vec<_>>(), [b"honest".to_vec()]);
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is what the test is for")]
fn the_time_of_a_state_in_which_nothing_changed() {
    for count in [1_000, 10_000] {
        let fixture = Fixture::new();
        for number in 0..count {
            let name = format!("{}/{number}", number / 100);
            fixture.space.write(&path(&name), number.to_string().as_bytes()).unwrap();
        }
        settle();
        let began = Instant::now();
        let first = take(&fixture, None);
        let read = began.elapsed();
        let began = Instant::now();
        let second = take(&fixture, Some(&first.manifest));
        println!("{count} files: {read:?} the first time, {:?} unchanged", began.elapsed());
        assert_eq!((first.read, second.read), (count, 0));
    }
}
