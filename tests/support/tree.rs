//! Trees with everything that a Unix tree can have, random edits of them, and a comparison of two that shares no code
//! with the library: what a sync must keep is read here by `stat`, `readlink`, `lgetxattr` and reading.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags, makedev};

/// What belongs to a sync itself and to no tree.
fn is_own(name: &OsStr) -> bool {
    name.as_bytes() == b".repl" || name.as_bytes().starts_with(b".repl-sync")
}

/// One name of a tree, with all that a copy of it must have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thing {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    pub content: Option<blake3::Hash>,
    pub target: Vec<u8>,
    pub device: u64,
    /// The first name of the same inode.
    pub first: Vec<u8>,
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All of a tree by its names, the root's empty.
pub type Things = BTreeMap<Vec<u8>, Thing>;

/// What is in a tree, and how many bytes of disk it takes.
pub fn look(root: &Path) -> (Things, u64) {
    let (mut things, mut inodes, mut blocks) = (Things::new(), HashSet::new(), 0);
    let mut waiting = vec![(root.to_owned(), Vec::new())];
    while let Some((path, name)) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if inodes.insert((meta.dev(), meta.ino())) {
            blocks += meta.blocks() * 512;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path).unwrap().map(Result::unwrap).filter(|entry| !is_own(&entry.file_name())) {
                let slash: &[u8] = if name.is_empty() { b"" } else { b"/" };
                waiting.push((entry.path(), [&name, slash, entry.file_name().as_bytes()].concat()));
            }
        }
        if !meta.file_type().is_socket() {
            things.insert(name, thing(&path, &meta));
        }
    }
    group(root, &mut things);
    (things, blocks)
}

fn thing(path: &Path, meta: &fs::Metadata) -> Thing {
    let kind = match meta.file_type() {
        kind if kind.is_file() => 'f',
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        kind if kind.is_fifo() => 'p',
        kind if kind.is_char_device() => 'c',
        _ => 'b',
    };
    Thing {
        kind,
        mode: if kind == 'l' { 0 } else { meta.mode() & 0o7777 },
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if kind == 'f' { meta.size() } else { 0 },
        content: (kind == 'f').then(|| content(path)),
        target: if kind == 'l' { fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec() } else { Vec::new() },
        device: if matches!(kind, 'c' | 'b') { meta.rdev() } else { 0 },
        first: Vec::new(),
        attributes: attributes(path),
    }
}

/// Names of one inode have the same first name.
fn group(root: &Path, things: &mut Things) {
    let mut firsts: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    for (name, thing) in things {
        let meta = fs::symlink_metadata(root.join(OsStr::from_bytes(name))).unwrap();
        thing.first.clone_from(firsts.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone()));
    }
}

/// A digest of all bytes but zeros: a hole is as good as them.
fn content(path: &Path) -> blake3::Hash {
    const BLOCK: u64 = 1 << 16;
    let zeros = vec![0; BLOCK as usize];
    let (file, mut sum, mut buffer) = (File::open(path).unwrap(), blake3::Hasher::new(), zeros.clone());
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = data / BLOCK * BLOCK;
        let count = file.read_at(&mut buffer, at).unwrap();
        if buffer[..count] != zeros[..count] {
            sum.update(&at.to_le_bytes()).update(&buffer[..count]);
        }
        at += BLOCK;
    }
    sum.finalize()
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    found
}

/// Two trees are equal but for some names; what is not equal is said.
#[track_caller]
pub fn assert_same_but(one: &Path, other: &Path, but: impl Fn(&[u8]) -> bool) {
    let (a, b) = (look(one).0, look(other).0);
    let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).filter(|name| !but(name)).collect();
    let mut faults = Vec::new();
    for name in names {
        match (a.get(name), b.get(name)) {
            (one, other) if one == other => {}
            (one, other) => {
                faults.push(format!("{}:\n    {one:?}\n    {other:?}", String::from_utf8_lossy(name)));
            }
        }
    }
    faults.truncate(5);
    assert!(faults.is_empty(), "{} and {} differ:\n  {}", one.display(), other.display(), faults.join("\n  "));
}

/// Two trees are equal, and the second takes hardly more space.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    assert_same_but(one, other, |_| false);
    let (one, other) = (look(one).1, look(other).1);
    assert!(other <= one + one / 10 + (1 << 20), "{other} bytes of disk instead of {one}");
}

/// Whether whoever runs this can give files away and make devices.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Sets a time of anything, also of a link.
pub fn touch(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Sets an extended attribute of the thing itself.
pub fn attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Permissions.
pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A POSIX ACL as the kernel has it: the owner and a user 65533 may do all that `perm` says.
pub fn acl(perm: u16) -> Vec<u8> {
    let none = u32::MAX;
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, none), (2, perm, 65533), (4, 5, none), (0x10, 7, none), (0x20, 0, none)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

pub fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
}

/// A file with a hole of more than 4 GiB between its first bytes and its last.
pub fn sparse(path: &Path) {
    let file = File::create(path).unwrap();
    file.write_all_at(&noise(5000, 1), 0).unwrap();
    file.write_all_at(&noise(100, 2), (9 << 29) + 12345).unwrap();
    file.set_len((9 << 29) + (1 << 20)).unwrap();
}

/// A tree of small things: all kinds, names, modes, times and attributes there are, but no long file.
pub fn small(root: &Path) {
    fs::create_dir_all(root).unwrap();
    let at = |name: &str| root.join(name);
    for dir in ["dir/deep/deeper", "empty", "closed", "acl", "sticky", "shut/in"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    let write = |name: &str, length: usize| fs::write(at(name), noise(length, length as u64)).unwrap();
    for (name, length) in [("none", 0), ("one", 1), ("dir/page", 8192), ("dir/deep/odd", 65535), ("whole", 65536)] {
        write(name, length);
    }
    for (name, length) in [("over", 65537), ("dir/deep/deeper/text", 200), ("shut/in/read-only", 3000)] {
        write(name, length);
    }
    fs::write(at("zeros"), vec![0; 300_000]).unwrap();
    for name in [&b"not\xff\xfeUTF-8"[..], b"new\nline", b"back\\slash", b" space ", b"-n", b"\\#134", b"...", b"*?["] {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(root.join("x".repeat(255)), "long").unwrap();
    for (name, other) in [("one", "dir/uno"), ("one", "zz-one"), ("over", "dir/deep/over"), ("none", "empty-too")] {
        fs::hard_link(at(name), at(other)).unwrap();
    }
    symlink("dir/page", at("link")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), at("dir/odd-link")).unwrap();
    symlink("dir", at("link-to-dir")).unwrap();
    fs::hard_link(at("link"), at("dir/link-again")).unwrap();
    fifo(&at("fifo"));
    attribute(&at("whole"), "user.note", b"some\0bytes\xff");
    attribute(&at("whole"), "user.empty", b"");
    attribute(&at("dir"), "user.of-a-directory", &noise(1000, 9));
    attribute(&at("one"), "system.posix_acl_access", &acl(6));
    attribute(&at("acl"), "system.posix_acl_default", &acl(7));
    attribute(&at("acl"), "system.posix_acl_access", &acl(5));
    fs::write(at("acl/inherits"), "an ACL").unwrap();
    chmod(&at("dir/page"), 0o4711);
    chmod(&at("zeros"), 0o000);
    chmod(&at("sticky"), 0o3777);
    chmod(&at("shut/in/read-only"), 0o444);
    chmod(&at("shut/in"), 0o555);
    chmod(&at("fifo"), 0o620);
    chmod(&at("closed"), 0o000);
    if is_root() {
        let device = |name: &str, kind, major, minor| {
            rustix::fs::mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o660), makedev(major, minor)).unwrap();
        };
        device("character", FileType::CharacterDevice, 1, 3);
        device("dir/block", FileType::BlockDevice, 7, 99);
        for (name, uid, gid) in [("over", 12345, 54321), ("link", 1, 2), ("fifo", 3, 4), ("empty", 5, 6)] {
            lchown(at(name), Some(uid), Some(gid)).unwrap();
        }
        // That took the bits away.
        lchown(at("dir/page"), Some(7), Some(8)).unwrap();
        chmod(&at("dir/page"), 0o6711);
        attribute(&at("whole"), "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    touch(&at("dangling"), 1_000_000_000, 999_999_999);
    touch(&at("dir/deep/odd"), -86_400, 1);
    touch(&at("none"), 0, 0);
    touch(&at("empty"), -1, 999_999_999);
    touch(root, 1_234_567_890, 123_456_789);
}

/// Long files and holes.
pub fn large(root: &Path) {
    for (name, length) in [("16M-1", (16 << 20) - 1), ("16M", 16 << 20), ("16M+1", (16 << 20) + 1), ("33M", 33 << 20)] {
        fs::write(root.join(name), noise(length, length as u64)).unwrap();
    }
    sparse(&root.join("sparse"));
    let hollow = File::create(root.join("hollow")).unwrap();
    hollow.set_len(40 << 20).unwrap();
}

/// What changes a tree at random, the same for the same seed.
pub struct Editor {
    random: fastrand::Rng,
    root: PathBuf,
    made: u64,
    links: bool,
    /// Steps, for whoever has to find out which one it was.
    pub said: Vec<String>,
}

impl Editor {
    pub fn new(root: &Path, seed: u64) -> Editor {
        Editor {
            random: fastrand::Rng::with_seed(seed),
            root: root.to_owned(),
            made: seed << 32,
            links: true,
            said: Vec::new(),
        }
    }

    /// From now on no file gets another name.
    pub fn without_links(&mut self) -> &mut Editor {
        self.links = false;
        self
    }

    /// All names but the root, and their kinds.
    fn names(&self) -> Vec<(PathBuf, fs::FileType)> {
        let (mut names, mut waiting) = (Vec::new(), vec![self.root.clone()]);
        while let Some(dir) = waiting.pop() {
            let mut entries: Vec<_> = fs::read_dir(&dir).unwrap().map(Result::unwrap).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    waiting.push(entry.path());
                }
                names.push((entry.path(), kind));
            }
        }
        names
    }

    fn choose(&mut self, fits: impl Fn(&fs::FileType) -> bool) -> Option<PathBuf> {
        let names: Vec<_> = self.names().into_iter().filter(|(_, kind)| fits(kind)).collect();
        (!names.is_empty()).then(|| names[self.random.usize(..names.len())].0.clone())
    }

    fn new_name(&mut self) -> PathBuf {
        let parent = match self.random.u8(..4) {
            0 => self.root.clone(),
            _ => self.choose(fs::FileType::is_dir).unwrap_or_else(|| self.root.clone()),
        };
        self.made += 1;
        // Before, between and behind what is there.
        let head = ["a", "m", "z", "~", "\u{e9}"][self.random.usize(..5)];
        parent.join(format!("{head}{}", self.made))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.random.u8(..6) {
            0 => 0,
            1 => self.random.usize(..100),
            2 => 65_536,
            3 => self.random.usize(65_000..70_000),
            4 => self.random.usize(100_000..400_000),
            _ => self.random.usize(..20_000),
        };
        let seed = self.random.u64(..);
        if seed.is_multiple_of(8) { vec![0; length] } else { noise(length, seed) }
    }

    /// So many random steps.
    pub fn edit(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step());
    }

    fn step(&mut self) {
        let act = self.random.u8(..18);
        let file = self.choose(fs::FileType::is_file);
        let any = self.choose(|_| true);
        let (Some(file), Some(any)) = (file, any) else {
            let (name, bytes) = (self.new_name(), self.bytes());
            return fs::write(name, bytes).unwrap();
        };
        let on = if act < 7 || act == 15 { &file } else { &any };
        self.said.push(format!("{act} {}", on.strip_prefix(&self.root).unwrap().display()));
        match act {
            0..=6 => self.change(act, &file),
            7 | 8 => {
                let (name, bytes) = (self.new_name(), self.bytes());
                fs::write(name, bytes).unwrap();
            }
            9 => fs::create_dir(self.new_name()).unwrap(),
            10 => remove(&any),
            11 | 12 => self.swap(&any),
            13 => {
                let to = self.new_name();
                if !to.starts_with(&any) {
                    fs::rename(&any, to).unwrap();
                }
            }
            14 => self.dress(&any),
            15 if !self.links => {}
            15 => {
                let to = self.new_name();
                fs::hard_link(&file, to).unwrap();
            }
            16 => {
                let to = self.new_name();
                symlink(any.file_name().unwrap(), to).unwrap();
            }
            _ => touch(&any, self.random.i64(-10_000..2_000_000_000), self.random.i64(0..1_000_000_000)),
        }
    }

    /// Changes a file's content.
    fn change(&mut self, act: u8, path: &Path) {
        let file = File::options().write(true).read(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let at = self.random.u64(..=length);
        match act {
            0 => file.write_all_at(&self.bytes(), length).unwrap(),
            1 => file.set_len(at).unwrap(),
            2 => file.set_len(length + self.random.u64(..200_000)).unwrap(),
            // In front of the rest, which moves.
            3 if length < 1 << 20 => {
                let mut rest = vec![0; (length - at) as usize];
                file.read_exact_at(&mut rest, at).unwrap();
                let more = self.bytes();
                file.write_all_at(&[more, rest].concat(), at).unwrap();
            }
            4 => {
                let (meta, bytes) = (file.metadata().unwrap(), noise(4096, at));
                file.write_all_at(&bytes[..bytes.len().min((length - at) as usize)], at).unwrap();
                touch(path, meta.mtime(), meta.mtime_nsec());
            }
            _ => {
                for _ in 0..self.random.u8(1..6) {
                    let page = self.random.u64(..=length / 4096) * 4096;
                    file.write_all_at(&noise(4096, page + length), page).unwrap();
                }
            }
        }
    }

    /// Puts something of another kind in its place.
    fn swap(&mut self, path: &Path) {
        remove(path);
        match self.random.u8(..5) {
            0 => fs::write(path, self.bytes()).unwrap(),
            1 => fs::create_dir(path).unwrap(),
            2 => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("below"), self.bytes()).unwrap();
            }
            3 => symlink("somewhere", path).unwrap(),
            _ => fifo(path),
        }
    }

    fn dress(&mut self, path: &Path) {
        let is_link = path.is_symlink();
        match self.random.u8(..4) {
            0 if !is_link => chmod(path, self.random.u32(..0o10000) | 0o700),
            1 if is_root() => lchown(path, Some(self.random.u32(..9)), Some(self.random.u32(..9))).unwrap(),
            2 if path.is_dir() && !is_link => attribute(path, "system.posix_acl_default", &acl(self.random.u16(..8))),
            _ if (path.is_file() || path.is_dir()) && !is_link => {
                let length = self.random.usize(..300);
                attribute(path, "user.random", &noise(length, 3));
            }
            _ => {}
        }
    }
}

/// Removes whatever is there.
pub fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
}
