//! Owners, modes, times, extended attributes and ACLs, as root and as somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use repl::edge::tree::{Dress, Tree};
use repl::value::entry::{Entry, Kind, Moment, Stamp};
use repl::value::name::Name;
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr, setxattr};

use super::{ALL, NOBODY, as_nobody, entry, name, nobodys, write};

fn pair(name: &str, value: &[u8]) -> (Box<[u8]>, Box<[u8]>) {
    (name.as_bytes().into(), value.into())
}

/// An ACL as the kernel has it with a file of this mode, in which user 7 may read: the mode is part of it.
fn acl(mode: u16) -> Vec<u8> {
    const NONE: u32 = u32::MAX;
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, mode >> 6 & 7, NONE), (2, 4, 7), (4, 4, NONE), (16, mode >> 3 & 7, NONE), (32, mode & 7, NONE)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn look(tree: &Tree, at: &str) -> Entry {
    tree.look(&name(at)).unwrap().unwrap()
}

/// What dress must have put on: all but the identity, and what it takes on the disk.
fn worn(entry: &Entry) -> Entry {
    let stamp = Stamp { mtime: entry.stamp.mtime, ..Stamp::default() };
    Entry { stamp, links: 1, allocated: 0, ..entry.clone() }
}

#[test]
fn everything_is_put_on_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    write(&tree, "file", b"x");
    tree.make(&entry("directory", Kind::Directory)).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut file = Entry { mode: 0o6754, uid: 7, gid: 9, ..entry("file", Kind::File) };
    file.xattrs = vec![
        pair("security.capability", &capability),
        pair("system.posix_acl_access", &acl(0o754)),
        pair("user.empty", b""),
        pair("user.long", &[7; 3000]),
        pair("user.\u{e9}", b"\0\xff"),
    ];
    let mut directory = Entry { mode: 0o3750, uid: NOBODY, gid: 3, ..entry("directory", Kind::Directory) };
    directory.xattrs = vec![pair("system.posix_acl_default", &acl(0o640)), pair("user.a", b"1")];
    let times = [(-5, 999_999_999), (0, 1), (4_000_000_000, 123_456_789), (-2_000_000_000, 0)];
    for (seconds, nanos) in times {
        for entry in [&mut file, &mut directory] {
            entry.stamp.mtime = Moment { seconds, nanos };
            tree.dress(entry, ALL).unwrap();
            let there = tree.look(&entry.name).unwrap().unwrap();
            assert_eq!(worn(&there), worn(entry));
            // Once more, nothing is to be changed, so nothing is.
            tree.dress(entry, ALL).unwrap();
            assert_eq!(tree.look(&entry.name).unwrap().unwrap().stamp.ctime, there.stamp.ctime);
        }
    }
    // What is made in it takes its ACL over, until it is dressed.
    write(&tree, "directory/inherits", b"");
    assert_eq!(look(&tree, "directory/inherits").xattrs.len(), 1);
    let plain = Entry { mode: 0o640, ..entry("directory/inherits", Kind::File) };
    tree.dress(&plain, ALL).unwrap();
    assert_eq!(worn(&look(&tree, "directory/inherits")), worn(&plain));
    // All off again.
    file.xattrs.clear();
    file.mode = 0o400;
    tree.dress(&file, ALL).unwrap();
    assert_eq!(worn(&look(&tree, "file")), worn(&file));
}

#[test]
fn a_link_is_dressed_itself() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    write(&tree, "target", b"x");
    let before = look(&tree, "target");
    tree.make(&entry("link", Kind::Link(b"target".as_slice().into()))).unwrap();
    let mut link = Entry { mode: 0o777, uid: 7, gid: 9, ..entry("link", Kind::Link(b"target".as_slice().into())) };
    link.stamp.mtime = Moment { seconds: -1, nanos: 1 };
    tree.dress(&link, ALL).unwrap();
    assert_eq!(worn(&look(&tree, "link")), worn(&link));
    assert_eq!(look(&tree, "target"), before);
    // What became a link is not dressed through.
    assert!(tree.dress(&entry("link", Kind::File), ALL).is_err());
    assert_eq!(look(&tree, "target"), before);
}

#[test]
fn fifos_and_devices_are_dressed_without_being_opened() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    for kind in [Kind::Fifo, Kind::Character(1, 3), Kind::Block(259, 1_000_000)] {
        let mut entry = Entry { mode: 0o606, uid: 7, gid: 9, ..entry("x", kind) };
        entry.xattrs = vec![pair("system.posix_acl_access", &acl(0o606))];
        tree.make(&entry).unwrap();
        tree.dress(&entry, ALL).unwrap();
        let there = look(&tree, "x");
        assert_eq!(worn(&there), worn(&entry));
        tree.remove(&name("x"), false).unwrap();
    }
}

#[test]
fn attributes_that_belong_to_the_machine_are_neither_read_nor_set() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    write(&tree, "x", b"");
    let path = dir.path().join("x");
    lsetxattr(&path, "trusted.own", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(look(&tree, "x").xattrs, []);
    let mut foreign = entry("x", Kind::File);
    foreign.xattrs = vec![pair("security.evil", b"1"), pair("trusted.evil", b"1"), pair("user.good", b"1")];
    tree.dress(&foreign, ALL).unwrap();
    assert_eq!(look(&tree, "x").xattrs, [pair("user.good", b"1")]);
    let value = |name: &str| lgetxattr(&path, name, &mut [0; 9][..]);
    assert_eq!(value("trusted.own"), Ok(1));
    assert!(value("security.evil").is_err() && value("trusted.evil").is_err());
}

#[test]
fn without_owners_root_leaves_owner_set_id_and_capabilities() {
    const OTHERS: Dress = Dress { owner: false, devices: false };
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    write(&tree, "x", b"");
    let mut wanted = Entry { mode: 0o6755, uid: 7, gid: 9, ..entry("x", Kind::File) };
    wanted.xattrs = vec![pair("security.capability", &[1; 20])];
    tree.dress(&wanted, OTHERS).unwrap();
    let there = look(&tree, "x");
    assert_eq!((there.mode, there.uid, there.gid), (0o755, 0, 0));
    assert_eq!((there.xattrs.len(), there.stamp.mtime), (0, wanted.stamp.mtime));
}

#[test]
fn an_owner_that_is_no_number_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    write(&tree, "x", b"");
    assert!(tree.dress(&Entry { uid: u32::MAX, ..entry("x", Kind::File) }, ALL).is_err());
    assert!(tree.dress(&Entry { gid: u32::MAX, ..entry("x", Kind::File) }, ALL).is_err());
}

#[test]
fn somebody_else_than_root_sets_what_they_may_and_passes_over_the_rest() {
    let dir = nobodys();
    as_nobody(|| {
        let tree = Tree::open(dir.path()).unwrap();
        write(&tree, "x", b"");
        let mut wanted = Entry { mode: 0o6444, uid: 0, gid: 0, ..entry("x", Kind::File) };
        wanted.xattrs = vec![
            pair("security.capability", &[1; 20]),
            pair("system.posix_acl_access", &acl(0o444)),
            pair("user.a", b"1"),
        ];
        tree.dress(&wanted, ALL).unwrap();
        let there = look(&tree, "x");
        assert_eq!((there.mode, there.uid, there.gid), (0o444, NOBODY, NOBODY));
        assert_eq!(there.xattrs, wanted.xattrs[1..]);
        assert_eq!(there.stamp.mtime, wanted.stamp.mtime);
        // What is read-only is dressed anew and written all the same: it is theirs. Its mode stays.
        wanted.xattrs = vec![pair("user.b", b"2")];
        wanted.mode = 0o400;
        tree.dress(&wanted, ALL).unwrap();
        assert_eq!(look(&tree, "x").xattrs, wanted.xattrs);
        let file = tree.open_write(&name("x")).unwrap().unwrap();
        repl::edge::blocks::write_all_at(&file, b"new", 0).unwrap();
        assert_eq!((look(&tree, "x").mode, look(&tree, "x").stamp.size), (0o400, 3));
        assert!(tree.make(&entry("device", Kind::Character(1, 3))).is_err());
        assert!(tree.look(&name("device")).unwrap().is_none());
    });
}

#[test]
fn somebody_else_than_root_works_in_directories_of_theirs_that_are_read_only() {
    let dir = nobodys();
    as_nobody(|| {
        let tree = Tree::open(dir.path()).unwrap();
        let closed = Entry { mode: 0o500, ..entry("d", Kind::Directory) };
        tree.make(&closed).unwrap();
        write(&tree, "d/old", b"");
        tree.dress(&closed, ALL).unwrap();
        write(&tree, "d/new", b"");
        tree.make(&entry("d/sub", Kind::Directory)).unwrap();
        tree.make(&entry("d/old", Kind::Fifo)).unwrap();
        tree.link(&name("d/new"), &name("d/linked")).unwrap();
        write(&tree, "top", b"");
        tree.place(&tree, &name("top"), &name("d/placed")).unwrap();
        assert_eq!(look(&tree, "d").mode, 0o500);
        tree.remove(&name("d/new"), false).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("d")).unwrap().count(), 4);
        tree.dress(&Entry { mode: 0, ..closed }, ALL).unwrap();
        tree.remove_all(&name("d")).unwrap();
        assert!(tree.look(&name("d")).unwrap().is_none());
    });
}

#[test]
fn a_group_of_ones_own_is_set() {
    let dir = nobodys();
    fs::write(dir.path().join("x"), b"").unwrap();
    std::os::unix::fs::chown(dir.path().join("x"), Some(NOBODY), Some(7)).unwrap();
    as_nobody(|| {
        let tree = Tree::open(dir.path()).unwrap();
        assert_eq!(look(&tree, "x").gid, 7);
        tree.dress(&entry("x", Kind::File), ALL).unwrap();
        assert_eq!(look(&tree, "x").gid, NOBODY);
    });
}

#[test]
fn files_of_others_are_read_by_who_may() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("x"), b"public").unwrap();
    fs::set_permissions(dir.path().join("x"), fs::Permissions::from_mode(0o644)).unwrap();
    as_nobody(|| {
        let tree = Tree::open(dir.path()).unwrap();
        let file = tree.open_read(&name("x")).unwrap().unwrap();
        assert_eq!(std::io::read_to_string(file).unwrap(), "public");
        assert!(tree.open_write(&name("x")).is_err());
        assert!(tree.create(&name("y")).is_err());
        assert!(tree.dress(&Entry { mode: 0o600, ..entry("x", Kind::File) }, ALL).is_err());
    });
    assert_eq!(fs::metadata(dir.path().join("x")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn attributes_are_walked_too() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    setxattr(dir.path(), "user.root", b"r", XattrFlags::empty()).unwrap();
    write(&tree, "x", b"");
    setxattr(dir.path().join("x"), "user.x", b"v", XattrFlags::empty()).unwrap();
    symlink("x", dir.path().join("y")).unwrap();
    let walked: Vec<Entry> = tree.walk(|_, _| false).map(Result::unwrap).collect();
    assert_eq!(walked[0].xattrs, [pair("user.root", b"r")]);
    assert_eq!(walked[1].xattrs, [pair("user.x", b"v")]);
    assert_eq!(walked[2].xattrs, []);
    assert_eq!((walked.len(), &walked[0].name), (3, &Name::root()));
    assert_eq!(fs::read_link(dir.path().join("y")).unwrap(), Path::new("x"));
}
