//! Two trees and the journal that makes one the other: what a sync in place finds out, done by hand.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use repl::edge::tree::{Dress, Tree};
use repl::engine::sync::journal::Journal;
use repl::engine::sync::journal::op::{Extent, Op};
use repl::engine::sync::journal::replay::Replayed;
use repl::engine::sync::state::State;
use repl::value::entry::{Entry, Kind};
use repl::value::name::Name;

/// All of it, as root.
pub const DRESS: Dress = Dress { owner: true, devices: true };
/// What is compared and patched at once.
const BLOCK: usize = 4096;

/// What a name shows of itself: all but identity and time of change.
pub type Shown = BTreeMap<String, (String, u64, Vec<u8>)>;

/// Deterministic bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

/// Everything in a tree but what a sync keeps there.
pub fn show(path: &Path) -> Shown {
    let tree = Tree::open(path).unwrap();
    let mut inodes = BTreeMap::new();
    let mut shown = Shown::new();
    for entry in entries(&tree) {
        let content = if entry.is_file() { read(&tree, &entry.name) } else { Vec::new() };
        // Which names are one file is part of it.
        let same = inodes.entry(entry.stamp.inode).or_insert_with(|| entry.name.to_string()).clone();
        let Entry { kind, mode, uid, gid, links, xattrs, stamp, .. } = &entry;
        let links = if entry.is_directory() { &0 } else { links };
        let size = if entry.is_file() { stamp.size } else { 0 };
        // A kill between a change of the marker and setting the root's time back leaves that.
        let mtime = (!entry.name.is_root()).then_some(stamp.mtime);
        let facts = format!("{kind:?} {mode:o} {uid} {gid} {links} {xattrs:?} {mtime:?} {same}");
        shown.insert(entry.name.to_string(), (facts, size, content));
    }
    shown
}

fn entries(tree: &Tree) -> Vec<Entry> {
    let own = |name: &Name, _: bool| name.bytes().starts_with(b".repl-sync");
    tree.walk(own).map(|entry| entry.map_err(|unread| unread.error).unwrap()).collect()
}

fn read(tree: &Tree, name: &Name) -> Vec<u8> {
    let mut bytes = Vec::new();
    tree.open_read(name).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// A destination `main` and a source `want` in a scratch directory that differ in every way a journal knows.
pub fn make(root: &Path) -> (PathBuf, PathBuf) {
    let (main, want) = (root.join("main"), root.join("want"));
    for (path, is_new) in [(&main, false), (&want, true)] {
        let write = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).unwrap();
        for directory in ["", "base", "base/deep", "same"] {
            fs::create_dir(path.join(directory)).unwrap();
        }
        write("same/file", &noise(3000, 1));
        let mut table = noise(100_000, 2);
        let mut grown = noise(100, 3);
        let mut shrunk = noise(9000, 4);
        if is_new {
            table[50_000..58_192].copy_from_slice(&noise(8192, 5));
            table[70_000..70_010].fill(0);
            table[81_920..90_112].fill(0);
            grown.resize(20_000, 0);
            grown[15_000..15_100].copy_from_slice(&noise(100, 6));
            shrunk.truncate(10);
        }
        write("base/table", &table);
        write("base/deep/grown", &grown);
        write("shrunk", &shrunk);
        write("dressed", b"same");
        if is_new {
            fs::create_dir_all(path.join("file-to-directory/new")).unwrap();
            write("file-to-directory/new/inner", b"inner");
            write("directory-to-file", &noise(5000, 7));
            symlink("base/table", path.join("directory-to-link")).unwrap();
            symlink("elsewhere", path.join("link")).unwrap();
            write("link-to-file", b"no link");
            write("a-linked", b"one file");
            fs::hard_link(path.join("a-linked"), path.join("base/linked")).unwrap();
            write("new", b"");
            fs::set_permissions(path.join("dressed"), PermissionsExt::from_mode(0o600)).unwrap();
            fs::set_permissions(path.join("base"), PermissionsExt::from_mode(0o500)).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, path.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
                .unwrap();
        } else {
            write("file-to-directory", b"file");
            fs::create_dir_all(path.join("directory-to-file/deep")).unwrap();
            write("directory-to-file/deep/x", b"x");
            fs::create_dir(path.join("directory-to-link")).unwrap();
            write("directory-to-link/y", b"y");
            symlink("there", path.join("link")).unwrap();
            symlink("nowhere", path.join("link-to-file")).unwrap();
            fs::create_dir_all(path.join("gone/with/all")).unwrap();
            write("gone/with/all/z", b"z");
            write("base/linked", b"a file of its own");
            write("pipe", b"a file");
        }
    }
    (main, want)
}

/// One pass: adds to a journal whatever makes `main` the same as `want`.
pub fn fill(journal: &Journal, main: &Path, want: &Path) {
    let (main, want) = (Tree::open(main).unwrap(), Tree::open(want).unwrap());
    let mut inodes = BTreeMap::new();
    let wanted = entries(&want);
    for entry in entries(&main) {
        if want.look(&entry.name).unwrap().is_none() {
            let is_directory = entry.is_directory();
            journal.add(Op::Remove { name: entry.name, is_directory }).unwrap();
        }
    }
    for entry in wanted {
        if entry.is_file() && entry.links > 1 {
            if let Some(to) = inodes.get(&entry.stamp.inode) {
                journal.add(Op::Link { name: entry.name, to: Name::clone(to) }).unwrap();
                continue;
            }
            inodes.insert(entry.stamp.inode, entry.name.clone());
        }
        let there = main.look(&entry.name).unwrap();
        let op = match (&entry.kind, there) {
            (Kind::File, Some(there)) if there.is_file() => change(journal, &main, &want, entry, &there),
            (Kind::File, _) => place(journal, &want, entry),
            (kind, Some(there)) if there.kind == *kind => Op::Dress(entry),
            _ => Op::Make(entry),
        };
        journal.add(op).unwrap();
    }
}

fn place(journal: &Journal, want: &Tree, entry: Entry) -> Op {
    let bytes = read(want, &entry.name);
    let (staged, mut file) = journal.stage().unwrap();
    file.write_all(&bytes).unwrap();
    Op::Place { entry, staged, digest: *blake3::hash(&bytes).as_bytes() }
}

fn change(journal: &Journal, main: &Tree, want: &Tree, entry: Entry, there: &Entry) -> Op {
    let (old, new) = (read(main, &entry.name), read(want, &entry.name));
    if old == new {
        return Op::Dress(entry);
    }
    if let Some(pending) = journal.pending(&entry.name) {
        return Op::clone(&pending);
    }
    let mut extents = Vec::new();
    for (at, block) in new.chunks(BLOCK).enumerate() {
        let offset = at * BLOCK;
        if old.get(offset..offset + block.len()) == Some(block) {
            continue;
        }
        let (offset, length) = (offset as u64, block.len() as u64);
        if block.iter().all(|byte| *byte == 0) {
            extents.push(Extent::hole(offset, length));
        } else {
            let (blob, crc) = journal.store(block).unwrap();
            extents.push(Extent { offset, length, blob, crc, is_hole: false });
        }
    }
    Op::Patch { entry, base: there.stamp, extents, digest: *blake3::hash(&new).as_bytes() }
}

/// A sync in place from its beginning to its end.
pub fn sync(main: &Path, want: &Path) -> anyhow::Result<Replayed> {
    repl::engine::sync::journal::recover::recover(main)?;
    let state = State::open(main)?;
    let journal = Journal::open(&state)?;
    fill_some(&journal, main, want)?;
    let tree = Tree::open(main)?;
    journal.commit(&tree, DRESS)?.replay(&tree)
}

/// A pass whose errors are told and not panicked on, as far as the journal gives them.
fn fill_some(journal: &Journal, main: &Path, want: &Path) -> anyhow::Result<()> {
    let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fill(journal, main, want)));
    filled.map_err(|_| anyhow::anyhow!("the pass failed"))?;
    journal.prepare()
}

/// Changes one byte of a file.
pub fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// What is in a state directory, but for its lock.
pub fn state_files(path: &Path) -> Vec<String> {
    let Ok(listed) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

/// The inode of a file.
pub fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}
