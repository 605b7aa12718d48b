//! What later bases do to earlier ones: nothing.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::super::tree::{self, Editor, Things, assert_same, attribute, chmod, noise, touch};
use super::Vault;

/// Everything that an earlier base shows of itself, and its digests.
fn look(vault: &Vault, name: &str) -> (Things, Vec<u8>, Vec<u8>) {
    let path = vault.bases().join(name);
    (
        tree::look(&path.join("data")).0,
        fs::read(path.join("B3SUMS")).unwrap(),
        fs::read(path.join("base.toml")).unwrap(),
    )
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn an_earlier_base_stays_what_it_was_whatever_has_changed_since() {
    let vault = Vault::empty();
    let at = |name: &str| vault.src().join(name);
    for name in ["content", "mode", "mtime", "owner", "xattr", "same", "gone", "to-dir", "to-link", "outside", "pair"] {
        vault.write(name, noise(3000, name.len() as u64));
    }
    for name in ["dir/page", "dir/mode", "dir/outside", "dir/shrinks", "dir/grows", "dir/same"] {
        vault.write(name, noise(300_000, name.len() as u64));
    }
    vault.write("from-dir/below/file", "x");
    // One file that is two in the source; and two of which the other name is nothing of ours.
    fs::hard_link(at("pair"), at("pair-too")).unwrap();
    for (name, other) in [("outside", "elsewhere"), ("dir/outside", "elsewhere-too")] {
        fs::hard_link(at(name), vault.rig.path(other)).unwrap();
    }
    vault.take("one", "");
    let before = look(&vault, "one");
    vault.write("content", noise(3000, 99));
    let page = File::options().write(true).open(at("dir/page")).unwrap();
    page.write_all_at(&noise(4096, 98), 131_072).unwrap();
    for name in ["mode", "dir/mode", "outside", "dir/outside", "pair"] {
        chmod(&at(name), 0o640);
    }
    touch(&at("mtime"), 1_000_000_000, 7);
    std::os::unix::fs::lchown(at("owner"), Some(7), Some(8)).unwrap();
    attribute(&at("xattr"), "user.note", b"new");
    fs::remove_file(at("gone")).unwrap();
    for name in ["to-dir", "to-link"] {
        fs::remove_file(at(name)).unwrap();
    }
    vault.write("to-dir/below", "y");
    std::os::unix::fs::symlink("same", at("to-link")).unwrap();
    fs::remove_dir_all(at("from-dir")).unwrap();
    vault.write("from-dir", "no directory any more");
    vault.write("new", "new");
    File::options().write(true).open(at("dir/shrinks")).unwrap().set_len(70_000).unwrap();
    File::options().write(true).open(at("dir/grows")).unwrap().write_all_at(b"more", 300_000).unwrap();
    chmod(&at("dir"), 0o711);
    vault.take("two", "");
    assert_eq!(look(&vault, "one"), before);
    for name in ["same", "dir/same"] {
        assert_eq!(inode(&vault.data("one").join(name)), inode(&vault.data("two").join(name)), "{name}");
    }
    let changed =
        ["content", "mode", "mtime", "owner", "xattr", "outside", "pair", "dir/page", "dir/mode", "dir/grows"];
    for name in changed {
        assert_ne!(inode(&vault.data("one").join(name)), inode(&vault.data("two").join(name)), "{name}");
    }
    // A base that goes takes nothing of the others with it.
    let later = look(&vault, "two");
    vault.ok("--drop one archive");
    assert_eq!(look(&vault, "two"), later);
    assert_same(&vault.src(), &vault.data("two"));
}

#[test]
fn random_edits_reach_the_next_base_and_no_earlier_one() {
    let vault = Vault::empty();
    tree::small(&vault.src());
    vault.write("long", noise(1_500_000, 4));
    let mut editor = Editor::new(&vault.src(), 21);
    let mut earlier = Vec::<(String, _)>::new();
    for round in 0..5 {
        let name = format!("base-{round}");
        vault.take(&name, "");
        for (name, before) in &earlier {
            assert!(look(&vault, name) == *before, "{name} in round {round}: {:#?}", editor.said);
        }
        earlier.push((name.clone(), look(&vault, &name)));
        editor.said.clear();
        editor.edit(60);
    }
}

#[test]
fn digests_of_the_base_before_are_believed_only_as_they_were_recorded() {
    let vault = Vault::some();
    vault.take("one", "");
    let path = vault.bases().join("one/B3SUMS");
    let text = fs::read_to_string(&path).unwrap();
    let flipped = if text.starts_with('0') { "1" } else { "0" };
    fs::write(&path, flipped.to_owned() + &text[1..]).unwrap();
    vault.take("two", "");
    assert_eq!(inode(&vault.data("one").join("a")), inode(&vault.data("two").join("a")));
    assert_eq!(fs::read_to_string(vault.bases().join("two/B3SUMS")).unwrap(), text);
}
