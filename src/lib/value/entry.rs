//! What a tree has under one name: its kind, what it wears (mode, owner, times, extended attributes), and the stamp by
//! which a change of its content is seen.
//!
//! # Bytes
//!
//! Entries go over the wire and into state files. Numbers are little-endian, texts have their length (u32) in front:
//!
//! ```text
//! name      text
//! kind      u8    F file, D directory, L symbolic link, P fifo, C and B devices
//! target    text  of a link; else empty
//! device    u32, u32   major and minor of a device; else 0
//! mode      u32   the lower 12 bits
//! uid, gid  u32, u32
//! links     u32   names that the inode has
//! xattrs    u32   how many, then name and value of each: texts, sorted by name
//! allocated u64   bytes that its content takes on the disk: fewer than its size where it has holes
//! stamp     48 bytes: device u64, inode u64, size u64, mtime (i64 s, u32 ns), ctime (i64 s, u32 ns)
//! ```

use std::fmt;

use super::name::Name;
use super::octets::{Reader, put_text};

/// Most bytes of the target of a symbolic link.
pub const TARGET_MAX: usize = 1 << 14;
/// Most extended attributes of one file, and most bytes of one value (`XATTR_SIZE_MAX`).
pub const XATTRS_MAX: usize = 1 << 12;
/// Most bytes of one extended attribute's value (`XATTR_SIZE_MAX`).
pub const XATTR_MAX: usize = 1 << 16;

/// Nanoseconds since 1970 in two parts, as the file system has them: times before 1970 have negative seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment {
    /// Whole seconds.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// By which a change of a file's content is seen: nobody but the kernel sets `ctime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Stamp {
    /// Device of the file system.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of content, as set.
    pub mtime: Moment,
    /// Last change of content or metadata.
    pub ctime: Moment,
}

/// An open file, as it was behind a reading of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// Size, times and identity.
    pub stamp: Stamp,
    /// Extended attributes, ACLs among them, sorted by name.
    pub xattrs: Vec<Attribute>,
}

/// What something in a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Link(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A character device: major, minor.
    Character(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
}

/// An extended attribute: name and value.
pub type Attribute = (Box<[u8]>, Box<[u8]>);

/// What one name in a tree stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Permissions with set-id and sticky bits: the lower 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that the inode has (hard links).
    pub links: u32,
    /// Extended attributes, ACLs among them, sorted by name.
    pub xattrs: Vec<Attribute>,
    /// Bytes that its content takes on the disk.
    pub allocated: u64,
    /// Size, times and identity.
    pub stamp: Stamp,
}

impl Entry {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// Appends its bytes.
    pub fn print(&self, out: &mut Vec<u8>) {
        let (tag, target, major, minor): (u8, &[u8], u32, u32) = match &self.kind {
            Kind::File => (b'F', b"", 0, 0),
            Kind::Directory => (b'D', b"", 0, 0),
            Kind::Link(target) => (b'L', target, 0, 0),
            Kind::Fifo => (b'P', b"", 0, 0),
            Kind::Character(major, minor) => (b'C', b"", *major, *minor),
            Kind::Block(major, minor) => (b'B', b"", *major, *minor),
        };
        put_text(out, self.name.bytes());
        out.push(tag);
        put_text(out, target);
        for number in [major, minor, self.mode, self.uid, self.gid, self.links] {
            out.extend(number.to_le_bytes());
        }
        put_xattrs(out, &self.xattrs);
        out.extend(self.allocated.to_le_bytes());
        self.stamp.print(out);
    }

    /// Reads one entry; `None` when the bytes are not one.
    pub fn parse(reader: &mut Reader<'_>) -> Option<Entry> {
        let name = Name::parse(reader.text(super::name::NAME_MAX)?)?;
        let tag = reader.byte()?;
        let target = reader.text(TARGET_MAX)?;
        let (major, minor) = (reader.u32()?, reader.u32()?);
        let kind = match tag {
            b'F' => Kind::File,
            b'D' => Kind::Directory,
            b'L' if !target.is_empty() && !target.contains(&0) => Kind::Link(target.into()),
            b'P' => Kind::Fifo,
            b'C' => Kind::Character(major, minor),
            b'B' => Kind::Block(major, minor),
            _ => return None,
        };
        let (mode, uid, gid, links) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        if mode > 0o7777 || (name.is_root() && kind != Kind::Directory) {
            return None;
        }
        let xattrs = parse_xattrs(reader)?;
        let allocated = reader.u64()?;
        Some(Entry { name, kind, mode, uid, gid, links, xattrs, allocated, stamp: Stamp::parse(reader)? })
    }
}

fn put_xattrs(out: &mut Vec<u8>, xattrs: &[Attribute]) {
    out.extend((xattrs.len() as u32).to_le_bytes());
    for (name, value) in xattrs {
        put_text(out, name);
        put_text(out, value);
    }
}

fn parse_xattrs(reader: &mut Reader<'_>) -> Option<Vec<Attribute>> {
    let count = reader.u32()? as usize;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        let name = reader.text(super::name::COMPONENT_MAX)?;
        if count > XATTRS_MAX || name.is_empty() || name.contains(&0) {
            return None;
        }
        xattrs.push((name.into(), reader.text(XATTR_MAX)?.into()));
    }
    Some(xattrs)
}

impl Seen {
    /// Appends its bytes: stamp and extended attributes as in an entry.
    pub fn print(&self, out: &mut Vec<u8>) {
        self.stamp.print(out);
        put_xattrs(out, &self.xattrs);
    }

    /// Reads one.
    pub fn parse(reader: &mut Reader<'_>) -> Option<Seen> {
        Some(Seen { stamp: Stamp::parse(reader)?, xattrs: parse_xattrs(reader)? })
    }
}

impl Stamp {
    /// Appends its 48 bytes.
    pub fn print(&self, out: &mut Vec<u8>) {
        for number in [self.device, self.inode, self.size] {
            out.extend(number.to_le_bytes());
        }
        for moment in [self.mtime, self.ctime] {
            out.extend(moment.seconds.to_le_bytes());
            out.extend(moment.nanos.to_le_bytes());
        }
    }

    /// Reads one.
    pub fn parse(reader: &mut Reader<'_>) -> Option<Stamp> {
        let (device, inode, size) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let mut moment = || {
            let (seconds, nanos) = (reader.u64()?.cast_signed(), reader.u32()?);
            (nanos < 1_000_000_000).then_some(Moment { seconds, nanos })
        };
        Some(Stamp { device, inode, size, mtime: moment()?, ctime: moment()? })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Kind::File => "a file",
            Kind::Directory => "a directory",
            Kind::Link(_) => "a symbolic link",
            Kind::Fifo => "a fifo",
            Kind::Character(..) | Kind::Block(..) => "a device",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: Kind) -> Entry {
        let xattrs = vec![(b"user.a".as_slice().into(), b"\0\xff".as_slice().into())];
        let mtime = Moment { seconds: -5, nanos: 999_999_999 };
        let stamp = Stamp { device: 1, inode: u64::MAX, size: 3, mtime, ctime: Moment::default() };
        Entry {
            name: Name::parse(name.as_bytes()).unwrap(),
            kind,
            mode: 0o7644,
            uid: 0,
            gid: 9,
            links: 2,
            xattrs,
            allocated: 512,
            stamp,
        }
    }

    #[test]
    fn entries_are_read_back_one_after_the_other() {
        let target: Box<[u8]> = b"../x".as_slice().into();
        let kinds =
            [Kind::File, Kind::Directory, Kind::Link(target), Kind::Fifo, Kind::Character(8, 1), Kind::Block(7, 2)];
        let entries: Vec<Entry> = kinds.into_iter().map(|kind| entry("a/b", kind)).collect();
        let mut bytes = Vec::new();
        for entry in &entries {
            entry.print(&mut bytes);
        }
        let mut reader = Reader::new(&bytes);
        for entry in &entries {
            assert_eq!(Entry::parse(&mut reader).as_ref(), Some(entry));
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn every_cut_is_refused_and_no_count_is_believed() {
        let mut bytes = Vec::new();
        entry("a", Kind::File).print(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(Entry::parse(&mut Reader::new(&bytes[..end])), None, "{end}");
        }
        let mut evil = entry("a", Kind::File);
        evil.mode = 0o100_644;
        bytes.clear();
        evil.print(&mut bytes);
        assert_eq!(Entry::parse(&mut Reader::new(&bytes)), None);
        bytes.clear();
        entry("", Kind::File).print(&mut bytes);
        assert_eq!(Entry::parse(&mut Reader::new(&bytes)), None);
    }
}
