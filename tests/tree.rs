//! Trees: what is walked is what is there, what is made is what was told, and nothing leads out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tree/clone.rs"]
mod clone;
#[path = "tree/flip.rs"]
mod flip;
#[path = "tree/wear.rs"]
mod wear;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use repl::edge::tree::{Dress, Tree, stamp};
use repl::value::entry::{Entry, Kind, Moment, Stamp};
use repl::value::exit::{Code, code_of};
use repl::value::name::Name;
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::geteuid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

pub(crate) const ALL: Dress = Dress { owner: true, devices: true };

/// Somebody who is not root, and a group that is not theirs.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn name(bytes: impl AsRef<[u8]>) -> Name {
    Name::parse(bytes.as_ref()).unwrap()
}

pub(crate) fn entry(at: impl AsRef<[u8]>, kind: Kind) -> Entry {
    let stamp = Stamp { mtime: Moment { seconds: 1_000, nanos: 7 }, ..Stamp::default() };
    let (uid, gid) = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    Entry { name: name(at), kind, mode: 0o750, uid, gid, links: 1, xattrs: Vec::new(), allocated: 0, stamp }
}

pub(crate) fn write(tree: &Tree, at: impl AsRef<[u8]>, bytes: &[u8]) {
    tree.create(&name(at)).unwrap().write_all(bytes).unwrap();
}

/// Runs as somebody else than root, in a thread of its own.
pub(crate) fn as_nobody(act: impl FnOnce() + Send) {
    assert!(geteuid().is_root(), "these tests run as root");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let (user, group) = (rustix::fs::Uid::from_raw(NOBODY), rustix::fs::Gid::from_raw(NOBODY));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            act();
        });
        run.join().unwrap();
    });
}

/// A directory that belongs to nobody.
pub(crate) fn nobodys() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    dir
}

fn names(tree: &Tree) -> Vec<Name> {
    tree.walk(|_, _| false).map(|found| found.unwrap().name).collect()
}

#[test]
fn names_of_any_bytes_are_walked_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let long = [b'x'; 255];
    let odd: [&[u8]; 11] =
        [b"a", b"a!", b"a-b", b"ab", b"new\nline", b"back\\slash", b"\xff\xfe", b"-", b"...", b" ", &long];
    let mut expected = BTreeSet::from([Name::root()]);
    for component in odd {
        let below = name(component);
        tree.make(&entry(component, Kind::Directory)).unwrap();
        for component in odd {
            let file = below.join(component);
            write(&tree, file.bytes(), component);
            expected.insert(file);
        }
        expected.insert(below);
    }
    assert!(names(&tree).into_iter().eq(expected));
}

#[test]
fn trees_deeper_than_a_path_and_than_descriptors_are_made_walked_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    // 30 components of 255 bytes: more than PATH_MAX; then 1500 short ones: more than descriptors may be open.
    let parts = std::iter::repeat_n([b'l'; 255].to_vec(), 30).chain(std::iter::repeat_n(b"s".to_vec(), 1500));
    let mut at = Name::root();
    let mut expected = vec![at.clone()];
    for part in parts {
        at = at.join(&part);
        tree.make(&entry(at.bytes(), Kind::Directory)).unwrap();
        expected.push(at.clone());
    }
    // What comes behind a deep directory is found on the way up.
    for (depth, late) in [(1, "z"), (20, "z"), (1000, "z")] {
        let file = expected.iter().filter(|name| name.last() != b"z").nth(depth).unwrap().join(late.as_bytes());
        write(&tree, file.bytes(), b"");
        expected.push(file);
    }
    expected.sort();
    let file = at.join(b"deepest");
    write(&tree, file.bytes(), b"deep");
    tree.dress(&Entry { name: file.clone(), ..entry("x", Kind::File) }, ALL).unwrap();
    expected.push(file.clone());
    expected.sort();
    assert_eq!(names(&tree), expected);
    let fresh = Tree::open(dir.path()).unwrap();
    assert_eq!(fresh.look(&file).unwrap().unwrap().stamp.mtime, Moment { seconds: 1_000, nanos: 7 });
    assert!(fresh.open_read(&file).unwrap().is_some());
    fresh.remove_all(&name([b'l'; 255])).unwrap();
    assert_eq!(names(&fresh), [Name::root()]);
}

#[test]
fn what_is_skipped_is_not_gone_into_and_sockets_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
    for below in ["out", "in"] {
        tree.make(&entry(below, Kind::Directory)).unwrap();
        write(&tree, format!("{below}/out"), b"");
    }
    let is_out = |name: &Name, is_directory: bool| name.last() == b"out" && is_directory;
    let walked: Vec<Name> = tree.walk(is_out).map(|found| found.unwrap().name).collect();
    assert_eq!(walked, [Name::root(), name("in"), name("in/out")]);
    assert_eq!(tree.look(&name("socket")).unwrap(), None);
}

#[test]
fn a_directory_that_cannot_be_listed_is_told_after_itself() {
    let dir = nobodys();
    as_nobody(|| {
        let tree = Tree::open(dir.path()).unwrap();
        for closed in ["a", "b"] {
            tree.make(&entry(closed, Kind::Directory)).unwrap();
            write(&tree, format!("{closed}/x"), b"");
        }
        fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o0)).unwrap();
        let told: Vec<_> = tree.walk(|_, _| false).map(|found| found.map(|entry| entry.name)).collect();
        let mut told = told.into_iter();
        assert_eq!(told.next().unwrap().unwrap(), Name::root());
        assert_eq!(told.next().unwrap().unwrap(), name("a"));
        let unread = told.next().unwrap().unwrap_err();
        assert_eq!((unread.name.clone(), unread.is_change()), (name("a"), false));
        assert!(told.map(Result::unwrap).eq([name("b"), name("b/x")]));
    });
}

#[test]
fn what_is_no_regular_file_is_not_opened_and_no_name_leads_through_a_link() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("x"), b"outside").unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    symlink(outside.path().join("x"), dir.path().join("file-link")).unwrap();
    rustix::fs::mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for bad in ["link", "file-link", "fifo", "link/x", "none", "none/x", ""] {
        assert!(tree.open_read(&name(bad)).unwrap().is_none(), "{bad}");
        assert!(tree.open_write(&name(bad)).unwrap().is_none(), "{bad}");
    }
    assert_eq!(tree.look(&name("link/x")).unwrap(), None);
    let inside = |kind| entry("link/new", kind);
    let refused = [
        tree.create(&name("link/new")).map(drop),
        tree.make(&inside(Kind::Directory)),
        tree.make(&inside(Kind::Link(b"x".as_slice().into()))),
        tree.dress(&entry("link/x", Kind::File), ALL),
        tree.link(&name("link/x"), &name("stolen")),
        tree.place(&tree, &name("link/x"), &name("stolen")),
    ];
    for result in refused {
        assert_eq!(code_of(&result.unwrap_err()), Code::Fenced);
    }
    // Nothing is there, so there is nothing to remove.
    tree.remove(&name("link/x"), false).unwrap();
    tree.remove_all(&name("link/x")).unwrap();
    // The link itself may go, with nothing behind it.
    tree.remove_all(&name("link")).unwrap();
    assert_eq!(fs::read(outside.path().join("x")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn whatever_is_in_the_way_is_replaced_but_no_directory_with_something_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let kinds = || {
        let link = |target: &[u8]| Kind::Link(target.into());
        [Kind::Directory, link(b"one"), link(b"\xff two"), Kind::Fifo, Kind::Character(1, 3), Kind::Block(7, 300)]
    };
    for before in kinds() {
        for after in kinds() {
            tree.make(&entry("x", before.clone())).unwrap();
            tree.make(&entry("x", after.clone())).unwrap();
            assert_eq!(tree.look(&name("x")).unwrap().unwrap().kind, after);
            tree.remove(&name("x"), after == Kind::Directory).unwrap();
            write(&tree, "x", b"file");
            tree.make(&entry("x", after.clone())).unwrap();
            assert_eq!(tree.look(&name("x")).unwrap().unwrap().kind, after);
            tree.remove_all(&name("x")).unwrap();
        }
    }
    tree.make(&entry("x", Kind::Directory)).unwrap();
    write(&tree, "x/kept", b"");
    tree.make(&entry("x", Kind::Directory)).unwrap();
    for kind in kinds().into_iter().skip(1) {
        assert!(tree.make(&entry("x", kind)).is_err());
    }
    assert!(tree.make(&entry("file", Kind::File)).is_err());
    tree.make(&entry("", Kind::Directory)).unwrap();
    // No temporary name stays.
    assert_eq!(names(&tree), [Name::root(), name("x"), name("x/kept")]);
}

#[test]
fn an_existing_thing_of_the_kind_stays_the_same_inode() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    for kind in [Kind::Directory, Kind::Link(b"to".as_slice().into()), Kind::Fifo, Kind::Character(1, 5)] {
        tree.make(&entry("x", kind.clone())).unwrap();
        let before = tree.look(&name("x")).unwrap().unwrap().stamp;
        tree.make(&entry("x", kind)).unwrap();
        assert_eq!(tree.look(&name("x")).unwrap().unwrap().stamp, before);
        tree.remove_all(&name("x")).unwrap();
    }
}

#[test]
fn hard_links_replace_what_is_there_and_are_left_alone_when_right() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let inode = |at: &str| tree.look(&name(at)).unwrap().unwrap().stamp.inode;
    write(&tree, "one", b"1");
    write(&tree, "other", b"2");
    symlink("nowhere", dir.path().join("link")).unwrap();
    tree.make(&entry("directory", Kind::Directory)).unwrap();
    for to in ["new", "new", "other", "link", "directory"] {
        tree.link(&name("one"), &name(to)).unwrap();
        assert_eq!(inode(to), inode("one"), "{to}");
    }
    assert_eq!(tree.look(&name("one")).unwrap().unwrap().links, 5);
    tree.make(&entry("full", Kind::Directory)).unwrap();
    write(&tree, "full/x", b"");
    assert!(tree.link(&name("one"), &name("full")).is_err());
    // A link is linked itself.
    symlink("nowhere", dir.path().join("link")).unwrap_err();
    symlink("nowhere", dir.path().join("second")).unwrap();
    tree.link(&name("second"), &name("third")).unwrap();
    assert_eq!(tree.look(&name("third")).unwrap().unwrap().links, 2);
    let left = ["directory", "full", "full/x", "link", "new", "one", "other", "second", "third"];
    assert!(names(&tree).into_iter().skip(1).eq(left.map(name)));
}

#[test]
fn what_is_placed_replaces_files_and_empty_directories() {
    let (dir, stage) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, from) = (Tree::open(dir.path()).unwrap(), Tree::open(stage.path()).unwrap());
    let place = |at: &str| tree.place(&from, &name("n"), &name(at));
    write(&tree, "file", b"old");
    tree.make(&entry("empty", Kind::Directory)).unwrap();
    tree.make(&entry("full", Kind::Directory)).unwrap();
    write(&tree, "full/x", b"");
    for at in ["file", "empty", "new"] {
        write(&from, "n", b"placed");
        place(at).unwrap();
        assert_eq!(fs::read(dir.path().join(at)).unwrap(), b"placed");
    }
    write(&from, "n", b"kept");
    assert!(place("full").is_err());
    from.remove(&name("n"), false).unwrap();
    for at in ["file", "new-directory"] {
        from.make(&entry("n", Kind::Directory)).unwrap();
        write(&from, "n/in", b"below");
        place(at).unwrap();
        assert_eq!(fs::read(dir.path().join(at).join("in")).unwrap(), b"below");
    }
    assert_eq!(names(&from), [Name::root()]);
}

#[test]
fn from_another_file_system_a_file_is_copied_whole_with_all_it_wears() {
    let (dir, stage) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let (tree, from) = (Tree::open(dir.path()).unwrap(), Tree::open(stage.path()).unwrap());
    assert_ne!(tree.device().unwrap(), from.device().unwrap());
    let worn = Entry { mode: 0o4711, uid: 7, gid: 9, ..entry("n", Kind::File) };
    for at in ["new", "old", "empty"] {
        write(&from, "n", b"far");
        from.dress(&worn, ALL).unwrap();
        if at == "old" {
            write(&tree, "old", b"there before");
        } else if at == "empty" {
            tree.make(&entry("empty", Kind::Directory)).unwrap();
        }
        tree.place(&from, &name("n"), &name(at)).unwrap();
        let there = tree.look(&name(at)).unwrap().unwrap();
        assert_eq!((there.mode, there.uid, there.gid), (0o4711, 7, 9));
        assert_eq!(there.stamp.mtime, worn.stamp.mtime);
        assert_eq!(fs::read(dir.path().join(at)).unwrap(), b"far");
        assert_eq!(from.look(&name("n")).unwrap(), None);
    }
    let link = Kind::Link(b"to".as_slice().into());
    from.make(&entry("n", link.clone())).unwrap();
    tree.place(&from, &name("n"), &name("old")).unwrap();
    assert_eq!(tree.look(&name("old")).unwrap().unwrap().kind, link);
    assert_eq!(names(&tree), ["", "empty", "new", "old"].map(name));
    assert_eq!(names(&from), [Name::root()]);
}

#[test]
fn a_directory_that_was_replaced_is_not_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let read = |at: &str| tree.open_read(&name(at)).unwrap().map(|file| std::io::read_to_string(file).unwrap());
    for directory in ["a", "a/b", "new", "new/b"] {
        tree.make(&entry(directory, Kind::Directory)).unwrap();
    }
    write(&tree, "a/b/x", b"old");
    write(&tree, "new/b/x", b"new");
    assert_eq!(read("a/b/x").unwrap(), "old");
    tree.remove_all(&name("a")).unwrap();
    assert_eq!(read("a/b/x"), None);
    tree.place(&tree, &name("new"), &name("a")).unwrap();
    assert_eq!(read("a/b/x").unwrap(), "new");
    assert_eq!(read("new/b/x"), None);
    tree.remove(&name("a/b/x"), false).unwrap();
    tree.remove(&name("a/b"), true).unwrap();
    tree.make(&entry("a/b", Kind::Link(b"/".as_slice().into()))).unwrap();
    assert!(tree.create(&name("a/b/x")).is_err());
    // What somebody else replaces is seen by the next walk.
    write(&tree, "a/y", b"mine");
    fs::rename(dir.path().join("a"), dir.path().join("away")).unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/y"), b"theirs").unwrap();
    assert_eq!(tree.walk(|_, _| false).filter(Result::is_err).count(), 0);
    assert_eq!(read("a/y").unwrap(), "theirs");
}

#[test]
fn removing_a_tree_leaves_what_links_in_it_lead_to() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("x"), b"outside").unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    tree.make(&entry("a", Kind::Directory)).unwrap();
    tree.make(&entry("a/b", Kind::Directory)).unwrap();
    symlink(outside.path(), dir.path().join("a/b/link")).unwrap();
    let _socket = UnixListener::bind(dir.path().join("a/socket")).unwrap();
    write(&tree, "a/b/x", b"");
    assert!(tree.remove(&name("a"), true).is_err());
    assert!(tree.remove_all(&Name::root()).is_err());
    for _ in 0..2 {
        tree.remove_all(&name("a")).unwrap();
        assert_eq!(names(&tree), [Name::root()]);
    }
    tree.remove(&name("a"), false).unwrap();
    tree.remove(&name("a/b/c"), true).unwrap();
    assert_eq!(fs::read(outside.path().join("x")).unwrap(), b"outside");
}

#[test]
fn stamps_are_those_of_the_kernel_and_changes_show_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let before = repl::edge::clock::coarse_now();
    write(&tree, "x", b"123");
    let file = tree.open_write(&name("x")).unwrap().unwrap();
    let metadata = file.metadata().unwrap();
    let own = stamp(&file).unwrap();
    assert_eq!(own, tree.look(&name("x")).unwrap().unwrap().stamp);
    assert_eq!((own.device, own.inode, own.size), (metadata.dev(), metadata.ino(), 3));
    assert_eq!((own.mtime.seconds, i64::from(own.mtime.nanos)), (metadata.mtime(), metadata.mtime_nsec()));
    assert!(own.ctime >= before);
    tree.sync().unwrap();
    tree.sync_directory(&Name::root()).unwrap();
    tree.try_clone().unwrap().dress_file(&file, &entry("x", Kind::File), ALL).unwrap();
    assert_eq!(stamp(&file).unwrap().mtime, Moment { seconds: 1_000, nanos: 7 });
    assert!(stamp(&file).unwrap().ctime >= own.ctime);
}

#[test]
fn messages_show_names_escaped() {
    let tree = Tree::open(Path::new("/")).unwrap();
    assert_eq!(tree.shown(&Name::root()), "/");
    assert_eq!(tree.shown(&name("a\nb")), "/a\\nb");
    assert!(format!("{:#}", tree.create(&name("none/x")).unwrap_err()).contains("cannot open /none"));
}
