#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::workspace::Access;

const BOUNDS: Bounds = Bounds { entries: 1000, file_bytes: 1 << 20, new_bytes: 8 << 20 };

struct Place {
    top: TempDir,
    files: Workspace,
    contents: Contents,
}

impl Place {
    fn new() -> Self {
        let top = TempDir::new().unwrap();
        fs::create_dir(top.path().join("w")).unwrap();
        let files = Workspace::open(&top.path().join("w"), Access::ReadWrite, None).unwrap();
        let contents = Contents::open(&top.path().join("kept")).unwrap();
        Self { top, files, contents }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.top.path().join("w").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), text).unwrap();
    }

    fn keep(&self, last: Option<&Tree>) -> Tree {
        self.files.keep(&self.contents, last, BOUNDS).unwrap().0
    }

    fn back(&self, tree: &Tree) -> PutBack {
        let now = self.keep(None);
        self.files.put_back(tree, &now, &self.contents, 1000).unwrap()
    }

    fn kept(&self) -> usize {
        fs::read_dir(self.top.path().join("kept")).unwrap().count()
    }
}

fn left_out(tree: &Tree) -> Vec<(&str, LeftOut)> {
    let why = |item: &Item| match item {
        Item::LeftOut { why } => Some(*why),
        _ => None,
    };
    tree.items.iter().filter_map(|(path, item)| Some((path.as_str(), why(item)?))).collect()
}

#[test]
fn what_was_wrecked_is_put_back_with_its_modes_times_and_links() {
    let place = Place::new();
    place.write("a.txt", "one");
    place.write("dir/run.sh", "#!/bin/sh");
    fs::set_permissions(place.at("dir/run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir(place.at("empty")).unwrap();
    fs::set_permissions(place.at("empty"), PermissionsExt::from_mode(0o500)).unwrap();
    symlink("../outside", place.at("dir/link")).unwrap();
    let time = fs::metadata(place.at("a.txt")).unwrap().modified().unwrap();
    let before = place.keep(None);

    fs::write(place.at("a.txt"), "two, and longer").unwrap();
    fs::remove_dir_all(place.at("dir")).unwrap();
    fs::remove_dir(place.at("empty")).unwrap();
    place.write("dir", "a file now");
    place.write("new/deep/x", "x");
    let wrecked = place.keep(Some(&before));
    let changes: Vec<_> = before.changes(&wrecked).collect();
    assert!(
        changes.contains(&("a.txt", Change::Changed)) && changes.contains(&("dir", Change::Changed)),
        "{changes:?}"
    );
    assert!(changes.contains(&("empty", Change::Removed)) && changes.contains(&("new/deep/x", Change::Added)));

    let done = place.back(&before);
    assert_eq!((done.written, done.removed, done.failed), (3, 2, vec![]));
    assert_eq!(fs::read_to_string(place.at("a.txt")).unwrap(), "one");
    assert_eq!(fs::metadata(place.at("a.txt")).unwrap().modified().unwrap(), time);
    let mode = |name: &str| fs::metadata(place.at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("dir/run.sh"), mode("empty")), (0o755, 0o500));
    assert_eq!(fs::read_link(place.at("dir/link")).unwrap(), Path::new("../outside"));
    assert!(!place.at("new").exists());
    assert_eq!(before.changes(&place.keep(None)).count(), 0);
    // And back again, and nothing is written twice.
    place.back(&wrecked);
    assert_eq!(fs::read_to_string(place.at("dir")).unwrap(), "a file now");
    let again = place.back(&wrecked);
    assert!(again.removed == 0 && again.failed.is_empty(), "{again:?}");
}

#[test]
fn a_file_that_is_as_it_was_is_not_read_again_and_one_that_only_looks_so_is() {
    let place = Place::new();
    place.write("a", "one");
    // Of a file that has just changed the stamp says nothing.
    let fresh = place.keep(None);
    assert!(matches!(&fresh.items["a"], Item::File { mark: None, .. }));
    fs::write(place.at("a"), "two").unwrap();
    assert_eq!(fresh.changes(&place.keep(Some(&fresh))).count(), 1);
    std::thread::sleep(TICK * 3);
    let settled = place.keep(None);
    assert!(matches!(&settled.items["a"], Item::File { mark: Some(_), .. }));
    // The same length and the same time of the content: the change of the inode tells.
    let time = fs::metadata(place.at("a")).unwrap().modified().unwrap();
    fs::write(place.at("a"), "six").unwrap();
    File::options().write(true).open(place.at("a")).unwrap().set_modified(time).unwrap();
    assert_eq!(settled.changes(&place.keep(Some(&settled))).count(), 1);
    // The control: what is known by its mark is believed, even if the copy is gone.
    std::thread::sleep(TICK * 3);
    let known = place.keep(None);
    place.contents.sweep(&HashSet::new()).unwrap();
    assert_eq!(known.changes(&place.keep(Some(&known))).count(), 0);
    assert_eq!(place.kept(), 0);
}

#[test]
fn what_cannot_be_kept_is_named_and_left_alone() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let secret = place.top.path().join("secret");
    fs::write(&secret, "not of this workspace").unwrap();
    fs::hard_link(&secret, place.at("hard")).unwrap();
    symlink(&secret, place.at("soft")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, place.at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::write(place.top.path().join("w").join(OsStr::from_bytes(b"no\xfftext")), "x").unwrap();
    place.write("large", &"x".repeat(2 << 20));
    place.write("a", "small");
    let tree = place.keep(None);
    let found = left_out(&tree);
    assert_eq!(
        found,
        [
            ("\\no\\xfftext", LeftOut::Name),
            ("fifo", LeftOut::Special),
            ("hard", LeftOut::HardLink),
            ("large", LeftOut::TooLarge)
        ]
    );
    assert!(matches!(&tree.items["soft"], Item::Link { .. }), "a link is kept as such");
    let stolen = fs::read_dir(place.top.path().join("kept")).unwrap().flatten();
    let stolen = stolen.filter(|entry| fs::read_to_string(entry.path()).unwrap().contains("not of this"));
    assert_eq!(stolen.count(), 0);

    fs::write(place.at("large"), "another").unwrap();
    fs::write(place.at("a"), "other").unwrap();
    assert_eq!(place.back(&tree).failed, []);
    assert_eq!(fs::read_to_string(place.at("large")).unwrap(), "another");
    assert_eq!(fs::read_to_string(place.at("a")).unwrap(), "small");
    assert!(place.at("hard").exists() && place.at("fifo").exists());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "not of this workspace");
    // What would be lost stays, where it stands and in a folder that was not there; and it is said.
    fs::remove_file(place.at("a")).unwrap();
    place.write("a", &"y".repeat(2 << 20));
    place.write("later/large", &"z".repeat(2 << 20));
    place.write("later/small", "z");
    let done = place.back(&tree);
    let not_kept: Vec<_> = done.failed.iter().map(|(path, why)| (path.as_str(), *why)).collect();
    assert_eq!(not_kept, [("later", NOT_KEPT), ("later/large", NOT_KEPT), ("a", NOT_KEPT)]);
    assert!(place.at("later/large").exists() && !place.at("later/small").exists());
    assert_eq!(fs::metadata(place.at("a")).unwrap().len(), 2 << 20);
    // A file in whose place a link to the outside was put is a file again, and what is outside stays.
    fs::remove_file(place.at("a")).unwrap();
    symlink(&secret, place.at("a")).unwrap();
    place.back(&tree);
    assert!(fs::symlink_metadata(place.at("a")).unwrap().is_file());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "not of this workspace");
}

#[test]
fn so_much_is_kept_and_no_more() {
    let place = Place::new();
    for name in ["a", "b", "c"] {
        place.write(name, &name.repeat(600));
    }
    let bounds = Bounds { new_bytes: 1300, ..BOUNDS };
    let (tree, copied) = place.files.keep(&place.contents, None, bounds).unwrap();
    assert_eq!(copied, 1200);
    assert_eq!(left_out(&tree).iter().map(|(_, why)| *why).collect::<Vec<_>>(), [LeftOut::NoRoom]);
    let few = Bounds { entries: 2, ..BOUNDS };
    assert!(matches!(place.files.keep(&place.contents, None, few), Err(FileError::TooLarge { limit: 2 })));
    assert!(matches!(place.files.put_back(&tree, &tree, &place.contents, 2), Err(FileError::TooLarge { limit: 2 })));
    // Equal contents are kept once; what nobody needs goes.
    place.write("again", &"a".repeat(600));
    let tree = place.keep(None);
    assert_eq!(place.kept(), 3);
    let used: HashSet<&str> = tree.contents().take(1).collect();
    assert_eq!((place.contents.sweep(&used).unwrap(), place.kept()), (600, 1));
    let deep = "d/".repeat(100);
    fs::create_dir_all(place.at(&deep)).unwrap();
    place.keep(None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_state_comes_back(
        first in proptest::collection::btree_map("[ab]{1,2}(/[ab]{1,2}){0,2}", "[x-z]{0,3}", 0..8),
        second in proptest::collection::btree_map("[ab]{1,2}(/[ab]{1,2}){0,2}", "[x-z]{0,3}", 0..8),
    ) {
        let place = Place::new();
        let fill = |files: &BTreeMap<String, String>| {
            for (path, text) in files {
                // A file may stand where a folder would have to.
                let _ = fs::create_dir_all(place.at(path).parent().unwrap()).and_then(|()| fs::write(place.at(path), text));
            }
        };
        fill(&first);
        let one = place.keep(None);
        place.files.remove_all(&WorkspacePath::root()).unwrap();
        fill(&second);
        let two = place.keep(Some(&one));
        for tree in [&one, &two, &one] {
            prop_assert_eq!(place.back(tree).failed, vec![]);
            let now = place.keep(Some(tree));
            prop_assert_eq!(tree.changes(&now).collect::<Vec<_>>(), vec![]);
        }
    }
}
