//! Copies of files and trees, and what is known of the place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;

use repl::edge::blocks::{data, punch};
use repl::edge::clone::{Way, clone_file, clone_tree, exchange, free_space, has_reflinks, is_mount_point};
use repl::edge::dir::Dir;
use repl::edge::tree::{Dress, Tree};
use repl::value::entry::{Entry, Kind};
use repl::value::name::Name;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use super::{ALL, entry, name, write};

const GIB: u64 = 1 << 30;

fn none(_: &Name, _: bool) -> bool {
    false
}

/// What a copy must be equal in: all but the inode and its ctime, content by its bytes, and which names are one file.
fn content(tree: &Tree) -> Vec<(Entry, Vec<u8>, Option<Name>)> {
    let mut first = BTreeMap::new();
    let mut all = Vec::new();
    for found in tree.walk(none) {
        let mut entry = found.unwrap();
        let one = first.entry(entry.stamp.inode).or_insert_with(|| entry.name.clone()).clone();
        let mut bytes = Vec::new();
        if entry.is_file() && entry.stamp.size < GIB {
            bytes = fs::read(tree.path().join(std::str::from_utf8(entry.name.bytes()).unwrap())).unwrap();
        }
        if entry.is_directory() {
            entry.stamp.size = 0;
            entry.links = 1;
        }
        (entry.stamp.device, entry.stamp.inode, entry.stamp.ctime) = Default::default();
        all.push((entry, bytes, (entry_links(&all, &one)).then_some(one)));
    }
    all
}

fn entry_links(all: &[(Entry, Vec<u8>, Option<Name>)], one: &Name) -> bool {
    all.iter().any(|(entry, _, _)| entry.name == *one)
}

fn tree() -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    (dir, tree)
}

/// A tree with something of everything.
fn everything() -> (tempfile::TempDir, Tree) {
    let (dir, tree) = tree();
    for directory in ["a", "a/deep", "b", "empty"] {
        tree.make(&entry(directory, Kind::Directory)).unwrap();
    }
    for file in ["a/one", "a/deep/x", "b/y", "big"] {
        write(&tree, file, file.repeat(1000).as_bytes());
    }
    let sparse = tree.open_write(&name("big")).unwrap().unwrap();
    sparse.set_len(6 * GIB).unwrap();
    sparse.write_all_at(b"end", 5 * GIB).unwrap();
    for (to, from) in [("a/one", "a/two"), ("a/one", "b/three"), ("a/deep/x", "z")] {
        tree.link(&name(to), &name(from)).unwrap();
    }
    symlink("../a", dir.path().join("b/link")).unwrap();
    tree.link(&name("b/link"), &name("b/second")).unwrap();
    for (at, kind) in [("fifo", Kind::Fifo), ("null", Kind::Character(1, 3))] {
        tree.make(&entry(at, kind)).unwrap();
    }
    setxattr(dir.path().join("a/one"), "user.x", b"1", XattrFlags::empty()).unwrap();
    for (at, kind) in [("a/one", Kind::File), ("a/deep", Kind::Directory), ("a", Kind::Directory)] {
        let worn = Entry { mode: 0o4701, uid: 7, gid: 9, ..entry(at, kind) };
        let xattrs = tree.look(&name(at)).unwrap().unwrap().xattrs;
        tree.dress(&Entry { xattrs, ..worn }, ALL).unwrap();
    }
    (dir, tree)
}

#[test]
fn a_copied_file_has_its_holes_and_its_length() {
    for place in ["/tmp", "/dev/shm"] {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile_in(place).unwrap());
        from.set_len(7 * GIB).unwrap();
        from.write_all_at(&vec![1; 100_000], 0).unwrap();
        from.write_all_at(&vec![2; 100_000], 5 * GIB + 12_345).unwrap();
        to.write_all_at(&vec![9; 300_000], 0).unwrap();
        clone_file(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 7 * GIB);
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "holes were filled");
        let mut read = vec![0; 100_000];
        for (value, offset) in [(1, 0), (2, 5 * GIB + 12_345), (0, 100_000), (0, 6 * GIB)] {
            to.read_exact_at(&mut read, offset).unwrap();
            assert!(read.iter().all(|byte| *byte == value), "{place} at {offset}");
        }
        from.set_len(0).unwrap();
        clone_file(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 0);
    }
}

#[test]
fn a_copied_tree_is_the_same_and_copying_again_touches_nothing() {
    let (_source, from) = everything();
    let (dir, to) = tree();
    clone_tree(&from, &to, none, ALL, Way::Copy).unwrap();
    assert_eq!(content(&to), content(&from));
    let big = File::open(dir.path().join("big")).unwrap();
    assert_eq!(data(&big, 0, u64::MAX).unwrap().count(), 2);
    let stamps = || to.walk(none).map(|found| found.unwrap().stamp).collect::<Vec<_>>();
    let before = stamps();
    clone_tree(&from, &to, none, ALL, Way::Copy).unwrap();
    assert_eq!(stamps(), before);
}

#[test]
fn copying_goes_on_with_whatever_is_there() {
    let (source, from) = everything();
    let (dir, to) = tree();
    clone_tree(&from, &to, none, ALL, Way::Copy).unwrap();
    let at = |below: &str| dir.path().join(below);
    let kept = fs::metadata(at("z")).unwrap().ino();
    // Half a file, another kind, other links, another dress, too much and too little.
    fs::write(at("b/y"), b"half").unwrap();
    fs::remove_dir_all(at("a/deep")).unwrap();
    fs::write(at("a/deep"), b"a file").unwrap();
    fs::remove_file(at("fifo")).unwrap();
    fs::create_dir_all(at("fifo/with/something")).unwrap();
    fs::remove_file(at("a/two")).unwrap();
    fs::hard_link(at("big"), at("a/two")).unwrap();
    fs::remove_file(at("null")).unwrap();
    fs::remove_file(at("b/link")).unwrap();
    symlink("/", at("b/link")).unwrap();
    fs::create_dir_all(at("too/much")).unwrap();
    symlink(source.path(), at("too/much/link")).unwrap();
    fs::write(at("zz"), b"").unwrap();
    fs::set_permissions(at("b"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    clone_tree(&from, &to, none, ALL, Way::Copy).unwrap();
    assert_eq!(content(&to), content(&from));
    assert!(source.path().join("b/y").exists());
    // `a/deep/x` was gone, so its other name was made anew with it.
    assert_ne!(fs::metadata(at("z")).unwrap().ino(), kept);
}

#[test]
fn files_that_were_one_by_mistake_are_two_again() {
    let (dir, from) = tree();
    for (one, two) in [("a", "b"), ("c", "d")] {
        write(&from, one, b"same");
        from.dress(&entry(one, Kind::File), ALL).unwrap();
        from.link(&name(one), &name(two)).unwrap();
    }
    write(&from, "e", b"same");
    from.dress(&entry("e", Kind::File), ALL).unwrap();
    let (_copy, to) = tree();
    write(&to, "a", b"same");
    to.dress(&entry("a", Kind::File), ALL).unwrap();
    for other in ["b", "c", "d", "e"] {
        to.link(&name("a"), &name(other)).unwrap();
    }
    clone_tree(&from, &to, none, ALL, Way::Copy).unwrap();
    assert_eq!(content(&to), content(&from));
    assert_eq!(fs::metadata(dir.path().join("a")).unwrap().nlink(), 2);
}

#[test]
fn what_is_skipped_is_neither_copied_nor_removed() {
    let (_source, from) = tree();
    let (dir, to) = tree();
    for tree in [&from, &to] {
        tree.make(&entry("own", Kind::Directory)).unwrap();
        write(tree, "own/x", tree.path().as_os_str().as_encoded_bytes());
    }
    write(&from, "y", b"");
    clone_tree(&from, &to, |name, _| name.last() == b"own", ALL, Way::Copy).unwrap();
    assert_eq!(fs::read(dir.path().join("own/x")).unwrap(), dir.path().as_os_str().as_encoded_bytes());
    assert!(dir.path().join("y").exists());
}

#[test]
fn what_vanishes_meanwhile_is_left_out() {
    let (source, from) = tree();
    from.make(&entry("gone", Kind::Directory)).unwrap();
    write(&from, "gone/x", b"");
    write(&from, "lost", b"");
    write(&from, "stays", b"");
    let (dir, to) = tree();
    let root = source.path().to_owned();
    // Asked between the look and what comes after it.
    let vanishing = move |name: &Name, _: bool| {
        match name.last() {
            b"gone" => drop(fs::remove_dir_all(root.join("gone"))),
            b"lost" => drop(fs::remove_file(root.join("lost"))),
            _ => {}
        }
        false
    };
    clone_tree(&from, &to, vanishing, ALL, Way::Copy).unwrap();
    let there = |below: &str| dir.path().join(below).exists();
    assert_eq!((there("gone/x"), there("lost"), there("stays")), (false, false, true));
}

#[test]
fn no_device_is_made_unasked() {
    let (source, from) = tree();
    mknodat(CWD, source.path().join("null"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
    let (dir, to) = tree();
    let without = Dress { owner: true, devices: false };
    assert!(clone_tree(&from, &to, none, without, Way::Copy).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn two_directories_change_places_at_once() {
    let root = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::create_dir(root.path().join(name)).unwrap();
        fs::write(root.path().join(name).join("is"), name).unwrap();
    }
    let parent = Dir::open(root.path()).unwrap();
    exchange(&parent, "one", &parent, "two").unwrap();
    assert_eq!(fs::read(root.path().join("one/is")).unwrap(), b"two");
    assert_eq!(fs::read(root.path().join("two/is")).unwrap(), b"one");
    let error = format!("{:#}", exchange(&parent, "one", &parent, "none").unwrap_err());
    assert!(error.starts_with("cannot exchange") && error.contains("none"), "{error}");
}

#[test]
fn places_are_known() {
    let root = tempfile::tempdir().unwrap();
    let dir = Dir::open(root.path()).unwrap();
    let reflinks = has_reflinks(&dir);
    assert_eq!(has_reflinks(&dir), reflinks);
    assert!(dir.names().unwrap().is_empty());
    let (bytes, inodes) = free_space(&dir).unwrap();
    assert!(bytes > 0 && inodes > 0);
    for (path, expected) in [("/", true), ("/proc", true), ("/dev/shm", true), ("/usr/bin", false)] {
        assert_eq!(is_mount_point(&Dir::open(Path::new(path)).unwrap()).unwrap(), expected, "{path}");
    }
    assert!(!is_mount_point(&dir).unwrap());
}

#[test]
fn a_punched_file_is_copied_with_its_new_holes() {
    let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    from.write_all_at(&vec![1; 1 << 20], 0).unwrap();
    punch(&from, 1 << 16, 1 << 18).unwrap();
    clone_file(&from, &to).unwrap();
    let ranges = |file: &File| data(file, 0, u64::MAX).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(ranges(&to), ranges(&from));
    assert_eq!(ranges(&to).len(), 2);
}
