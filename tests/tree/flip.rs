//! Somebody who exchanges a directory and a link out of the tree, over and over, while the tree is worked on: no byte
//! outside is listed or read, and nothing outside is written.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use repl::edge::tree::{Tree, stamp};
use repl::value::entry::{Kind, Stamp};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{ALL, entry, name, write};

/// Rounds that are enough, and rounds after which both must have been met.
const ENOUGH: usize = 300;
const MOST: usize = 30_000;

/// All that can be seen of a directory: names, bytes, modes, owners, times.
fn seen(outside: &Path) -> BTreeMap<String, (Vec<u8>, Stamp, u32, u32)> {
    let mut all = BTreeMap::new();
    for path in ["", "secret", "x", "deep", "deep/x"].map(|below| outside.join(below)) {
        let meta = fs::symlink_metadata(&path).unwrap();
        let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let stamp = stamp(&fs::File::open(&path).unwrap()).unwrap();
        all.insert(path.display().to_string(), (bytes, stamp, meta.mode(), meta.uid()));
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 3);
    assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 1);
    all
}

/// Runs rounds while the flips go on, until both states were met in enough of them.
fn flip(root: &Path, one: &str, other: &str, mut round: impl FnMut(&mut [bool; 2])) {
    let done = AtomicBool::new(false);
    let met = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, root.join(one), CWD, root.join(other), RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut met = [false; 2];
        // A failing round must end the flips, too.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for count in 0..MOST {
                round(&mut met);
                if count >= ENOUGH && met == [true; 2] {
                    break;
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap();
        met
    });
    assert_eq!(met, [true; 2], "the flips were not met");
}

struct Scene {
    _dirs: [tempfile::TempDir; 2],
    tree: Tree,
}

/// `d` with a file and a directory, and beside it a link to a directory outside with the same names in it.
fn scene() -> (Scene, std::path::PathBuf, std::path::PathBuf) {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for base in [outside.path().to_owned(), dir.path().join("d")] {
        fs::create_dir_all(base.join("deep")).unwrap();
    }
    for file in ["secret", "x", "deep/x"] {
        fs::write(outside.path().join(file), b"outside").unwrap();
    }
    symlink(outside.path(), dir.path().join("l")).unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    write(&tree, "d/x", b"inside");
    write(&tree, "d/deep/x", b"inside");
    let paths = (dir.path().to_owned(), outside.path().to_owned());
    (Scene { _dirs: [dir, outside], tree }, paths.0, paths.1)
}

#[test]
fn a_walk_is_not_led_out() {
    let (scene, root, outside) = scene();
    let before = seen(&outside);
    flip(&root, "d", "l", |met| {
        for found in scene.tree.walk(|_, _| false) {
            match found {
                Ok(found) => {
                    assert_ne!(found.name.last(), b"secret", "{}", found.name);
                    assert!(found.kind != Kind::File || found.stamp.size == 6, "{}", found.name);
                    if found.name == name("d") {
                        met[usize::from(found.is_directory())] = true;
                    }
                }
                Err(unread) => assert!(unread.is_change(), "{unread:?}"),
            }
        }
    });
    assert_eq!(seen(&outside), before);
}

#[test]
fn no_byte_outside_is_read() {
    let (scene, root, outside) = scene();
    let before = seen(&outside);
    flip(&root, "d", "l", |met| {
        for at in ["d/x", "d/deep/x", "l/x"] {
            // A new handle has no directory kept open.
            let tree = Tree::open(scene.tree.path()).unwrap();
            let file = tree.open_read(&name(at)).unwrap();
            met[usize::from(file.is_some())] = true;
            if let Some(mut file) = file {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, "inside");
            }
            assert!(tree.open_read(&name("d/secret")).unwrap().is_none());
            assert!(tree.look(&name(at)).unwrap().is_none_or(|found| found.stamp.size == 6));
        }
    });
    assert_eq!(seen(&outside), before);
}

#[test]
fn nothing_outside_is_written_dressed_or_removed() {
    let (scene, root, outside) = scene();
    let before = seen(&outside);
    let changed = |at| super::Entry { mode: 0o777, uid: 1, ..entry(at, Kind::File) };
    flip(&root, "d", "l", |met| {
        let tree = Tree::open(scene.tree.path()).unwrap();
        let made = tree.create(&name("d/new"));
        met[usize::from(made.is_ok())] = true;
        // Each may fail or not, as the flips have it.
        let _ = tree.make(&entry("d/made", Kind::Directory));
        let _ = tree.make(&entry("d/link", Kind::Link(b"x".as_slice().into())));
        let _ = tree.make(&entry("d/secret", Kind::Fifo));
        let _ = tree.dress(&changed("d/x"), ALL);
        let _ = tree.dress(&entry("d", Kind::Directory), ALL);
        let _ = tree.link(&name("d/x"), &name("d/deep/second"));
        let _ = tree.place(&tree, &name("d/new"), &name("d/secret"));
        if let Ok(Some(file)) = tree.open_write(&name("d/deep/x")) {
            repl::edge::blocks::write_all_at(&file, b"INSIDE", 0).unwrap();
        }
        for below in ["d/new", "d/secret", "d/link"] {
            let _ = tree.remove(&name(below), false);
        }
        let _ = tree.remove_all(&name("d/made"));
        let _ = tree.remove_all(&name("d/secret"));
    });
    assert_eq!(seen(&outside), before);
}

#[test]
fn removing_a_flipping_tree_takes_nothing_outside() {
    let (scene, root, outside) = scene();
    let before = seen(&outside);
    fs::create_dir(root.join("all")).unwrap();
    for at in ["d", "l"] {
        fs::rename(root.join(at), root.join("all").join(at)).unwrap();
    }
    // The directory is refilled each round; what is removed may be either of the two.
    flip(&root.join("all"), "d", "l", |met| {
        for (one, other) in [("d", "l"), ("l", "d")] {
            let link = fs::symlink_metadata(root.join("all").join(one)).unwrap().is_symlink();
            met[usize::from(link)] = true;
            let _ = scene.tree.create(&name(format!("all/{other}/filler")));
            for below in ["deep", "x", "secret", "filler"] {
                let _ = scene.tree.remove_all(&name(format!("all/{one}/{below}")));
            }
            let _ = scene.tree.make(&entry(format!("all/{one}/deep"), Kind::Directory));
        }
    });
    assert_eq!(seen(&outside), before);
    scene.tree.remove_all(&name("all")).unwrap();
    assert_eq!(seen(&outside), before);
}

/// Exchanges two names exactly between the look at one of them and what the walk does next.
fn exchanged_when_seen(root: &Path, one: &'static str, other: &str) -> Vec<Result<String, String>> {
    let (from, to) = (root.join(one), root.join(other));
    let tree = Tree::open(root).unwrap();
    let walk = tree.walk(move |name, _| {
        if name.bytes() == one.as_bytes() {
            renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE).unwrap();
        }
        false
    });
    let told = walk.map(|found| match found {
        Ok(found) => Ok(found.name.to_string()),
        Err(unread) => {
            assert!(unread.is_change(), "{unread:?}");
            Err(unread.name.to_string())
        }
    });
    told.collect()
}

#[test]
fn a_directory_that_is_something_else_when_it_is_opened_is_told() {
    let (_scene, root, _outside) = scene();
    let found = |names: &[&str]| names.iter().map(|name| Ok((*name).to_owned())).collect::<Vec<_>>();
    // A link out.
    let expected = [found(&[".", "d"]), vec![Err("d".to_owned())], found(&["l", "l/deep", "l/deep/x", "l/x"])];
    assert_eq!(exchanged_when_seen(&root, "d", "l"), expected.concat());
    // Another directory.
    fs::remove_file(root.join("d")).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    assert_eq!(
        exchanged_when_seen(&root, "d", "l"),
        expected.concat()[..3].iter().cloned().chain(found(&["l"])).collect::<Vec<_>>()
    );
}
