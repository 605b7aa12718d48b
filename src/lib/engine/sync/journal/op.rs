//! What is to be done to one name in the destination, and its bytes in the journal.
//!
//! # Bytes
//!
//! Numbers are little-endian; texts have their length (u32) in front; an entry and a stamp are as in
//! [`crate::value::entry`]. A tag comes first:
//!
//! ```text
//! M entry                                 make a directory, link, fifo or device
//! P staged u64, digest 32, entry          new/STAGED takes the name
//! W digest 32, stamp, extents, entry      write changed bytes into the file that has this stamp
//! L name text, to text                    a hard link to another name
//! D entry                                 mode, owner, times, attributes
//! R kind u8 (D or F), name text           remove a directory or anything else
//!
//! extents   count u32, then of each, by offsets: kind u8, offset u64, length u64; where kind is
//!           B  blob u64, crc32c u32       bytes in the blob
//!           Z                             zeros, nothing in the blob
//! ```

use crate::value::entry::{Entry, Stamp};
use crate::value::name::{NAME_MAX, Name};
use crate::value::octets::{Reader, put_text};

/// Most bytes of one extent that has bytes in the blob: it is read in one piece.
pub const EXTENT_MAX: u64 = 1 << 26;

/// Changed bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How many, at least one; at most [`EXTENT_MAX`] unless it is a hole.
    pub length: u64,
    /// Where in the blob; 0 for a hole.
    pub blob: u64,
    /// CRC32C of the bytes; 0 for a hole.
    pub crc: u32,
    /// The bytes are zeros and nothing of them is in the blob; they become a hole where the file system can.
    pub is_hole: bool,
}

/// What is to be done to one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A directory, link, fifo or device is made where there is none, and dressed.
    Make(Entry),
    /// A whole new file takes the name, and is dressed.
    Place {
        /// What the file becomes.
        entry: Entry,
        /// Its name in the state directory's `new`.
        staged: u64,
        /// BLAKE3 of its content.
        digest: [u8; 32],
    },
    /// Changed bytes are written into the file that is there; its length is set, and it is dressed.
    Patch {
        /// What the file becomes; the length is its stamp's.
        entry: Entry,
        /// What the extents are a change of.
        base: Stamp,
        /// By offsets, not overlapping, none behind the new length. Bytes between the old and the new length that no
        /// extent covers are zeros.
        extents: Vec<Extent>,
        /// BLAKE3 of the whole content afterwards.
        digest: [u8; 32],
    },
    /// A name becomes a hard link.
    Link {
        /// The name.
        name: Name,
        /// Another name of the same file.
        to: Name,
    },
    /// What is there is dressed; its content stays.
    Dress(Entry),
    /// A name is removed.
    Remove {
        /// The name.
        name: Name,
        /// Whether it is a directory (then empty by then) or anything else.
        is_directory: bool,
    },
}

impl Extent {
    /// A range of zeros.
    pub fn hole(offset: u64, length: u64) -> Extent {
        Extent { offset, length, blob: 0, crc: 0, is_hole: true }
    }

    /// Where it ends in the file.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }

    fn print(&self, out: &mut Vec<u8>) {
        out.push(if self.is_hole { b'Z' } else { b'B' });
        out.extend(self.offset.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        if !self.is_hole {
            out.extend(self.blob.to_le_bytes());
            out.extend(self.crc.to_le_bytes());
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Extent> {
        let is_hole = match reader.byte()? {
            b'B' => false,
            b'Z' => true,
            _ => return None,
        };
        let (offset, length) = (reader.u64()?, reader.u64()?);
        let (blob, crc) = if is_hole { (0, 0) } else { (reader.u64()?, reader.u32()?) };
        let extent = Extent { offset, length, blob, crc, is_hole };
        extent.is_sound().then_some(extent)
    }

    fn is_sound(&self) -> bool {
        let is_bounded = self.is_hole || (self.length <= EXTENT_MAX && self.blob.checked_add(self.length).is_some());
        self.length > 0 && is_bounded && self.offset.checked_add(self.length).is_some()
    }
}

impl Op {
    /// The name that it is done to.
    pub fn name(&self) -> &Name {
        match self {
            Op::Make(entry) | Op::Dress(entry) | Op::Place { entry, .. } | Op::Patch { entry, .. } => &entry.name,
            Op::Link { name, .. } | Op::Remove { name, .. } => name,
        }
    }

    /// What the name becomes, where that is said.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Op::Make(entry) | Op::Dress(entry) | Op::Place { entry, .. } | Op::Patch { entry, .. } => Some(entry),
            Op::Link { .. } | Op::Remove { .. } => None,
        }
    }

    /// Whether something is there afterwards below which there can be names.
    pub fn is_directory(&self) -> bool {
        matches!(self, Op::Make(entry) | Op::Dress(entry) if entry.is_directory())
    }

    /// Whether it can be done at all; nothing may touch what a sync keeps for itself in the destination.
    pub fn is_sound(&self) -> bool {
        let own = super::super::state::STATE.as_bytes();
        let is_own = |name: &Name| name.components().next().is_some_and(|first| first.starts_with(own));
        let name = self.name();
        !is_own(name)
            && match self {
                Op::Make(entry) => !entry.is_file() && !name.is_root(),
                Op::Dress(_) => true,
                Op::Place { entry, .. } => entry.is_file(),
                Op::Patch { entry, extents, .. } => entry.is_file() && are_sound(extents, entry.stamp.size),
                Op::Link { name, to } => !name.is_root() && !to.is_root() && name != to && !is_own(to),
                Op::Remove { name, .. } => !name.is_root(),
            }
    }

    /// Appends its bytes.
    pub fn print(&self, out: &mut Vec<u8>) {
        match self {
            Op::Make(entry) => {
                out.push(b'M');
                entry.print(out);
            }
            Op::Place { entry, staged, digest } => {
                out.push(b'P');
                out.extend(staged.to_le_bytes());
                out.extend(digest);
                entry.print(out);
            }
            Op::Patch { entry, base, extents, digest } => {
                out.push(b'W');
                out.extend(digest);
                base.print(out);
                out.extend((extents.len() as u32).to_le_bytes());
                for extent in extents {
                    extent.print(out);
                }
                entry.print(out);
            }
            Op::Link { name, to } => {
                out.push(b'L');
                put_text(out, name.bytes());
                put_text(out, to.bytes());
            }
            Op::Dress(entry) => {
                out.push(b'D');
                entry.print(out);
            }
            Op::Remove { name, is_directory } => {
                out.extend([b'R', if *is_directory { b'D' } else { b'F' }]);
                put_text(out, name.bytes());
            }
        }
    }

    /// Reads one back; `None` when the bytes are not one, or not one that can be done.
    pub fn parse(reader: &mut Reader<'_>) -> Option<Op> {
        let op = match reader.byte()? {
            b'M' => Op::Make(Entry::parse(reader)?),
            b'P' => {
                let (staged, digest) = (reader.u64()?, reader.digest()?);
                Op::Place { entry: Entry::parse(reader)?, staged, digest }
            }
            b'W' => {
                let (digest, base) = (reader.digest()?, Stamp::parse(reader)?);
                // Not reserved: a count is believed as far as there are bytes for it.
                let count = reader.u32()?;
                let extents = (0..count).map(|_| Extent::parse(reader)).collect::<Option<Vec<_>>>()?;
                Op::Patch { entry: Entry::parse(reader)?, base, extents, digest }
            }
            b'L' => Op::Link { name: parse_name(reader)?, to: parse_name(reader)? },
            b'D' => Op::Dress(Entry::parse(reader)?),
            b'R' => {
                let is_directory = match reader.byte()? {
                    b'D' => true,
                    b'F' => false,
                    _ => return None,
                };
                Op::Remove { name: parse_name(reader)?, is_directory }
            }
            _ => return None,
        };
        op.is_sound().then_some(op)
    }
}

/// Reads a name with its length in front.
pub(super) fn parse_name(reader: &mut Reader<'_>) -> Option<Name> {
    Name::parse(reader.text(NAME_MAX)?)
}

/// Whether extents follow each other within a length.
fn are_sound(extents: &[Extent], length: u64) -> bool {
    let mut at = 0;
    extents.iter().all(|extent| {
        let is_next = extent.is_sound() && extent.offset >= at && extent.end() <= length;
        at = extent.offset.saturating_add(extent.length);
        is_next
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::value::entry::{Kind, Moment};

    pub(in super::super) fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).unwrap()
    }

    pub(in super::super) fn entry(text: &str, kind: Kind, size: u64) -> Entry {
        let mtime = Moment { seconds: 1_700_000_000, nanos: 5 };
        let stamp = Stamp { device: 1, inode: 2, size, mtime, ctime: mtime };
        let mode = if kind == Kind::Directory { 0o700 } else { 0o640 };
        Entry { name: name(text), kind, mode, uid: 0, gid: 0, links: 1, xattrs: Vec::new(), allocated: 0, stamp }
    }

    fn patch(extents: Vec<Extent>) -> Op {
        Op::Patch { entry: entry("a/b", Kind::File, 100), base: Stamp::default(), extents, digest: [7; 32] }
    }

    fn bytes(offset: u64, length: u64) -> Extent {
        Extent { offset, length, blob: 9, crc: 4, is_hole: false }
    }

    fn samples() -> Vec<Op> {
        vec![
            Op::Make(entry("d", Kind::Directory, 0)),
            Op::Make(entry("d/l", Kind::Link(b"x".as_slice().into()), 0)),
            Op::Place { entry: entry("d/f", Kind::File, 5), staged: 3, digest: [1; 32] },
            patch(vec![bytes(0, 10), Extent::hole(10, 20), bytes(99, 1)]),
            Op::Link { name: name("z"), to: name("d/f") },
            Op::Dress(entry("", Kind::Directory, 0)),
            Op::Remove { name: name("gone"), is_directory: true },
        ]
    }

    #[test]
    fn each_is_read_back_and_no_cut_of_it_is_one() {
        for op in samples() {
            let mut out = Vec::new();
            op.print(&mut out);
            let mut reader = Reader::new(&out);
            assert_eq!(Op::parse(&mut reader).as_ref(), Some(&op));
            assert!(reader.is_empty());
            for end in 0..out.len() {
                assert_eq!(Op::parse(&mut Reader::new(&out[..end])), None, "{op:?} cut at {end}");
            }
        }
    }

    #[test]
    fn what_cannot_be_done_is_not_read() {
        let file = |text: &str| entry(text, Kind::File, 1);
        for bad in [
            patch(vec![bytes(50, 51)]),
            patch(vec![bytes(10, 10), bytes(19, 1)]),
            patch(vec![bytes(0, 0)]),
            patch(vec![Extent { length: EXTENT_MAX + 1, ..bytes(0, 1) }]),
            patch(vec![Extent { blob: u64::MAX, ..bytes(0, 1) }]),
            patch(vec![Extent::hole(u64::MAX, 2)]),
            Op::Make(file("f")),
            Op::Make(entry("", Kind::Directory, 0)),
            Op::Place { entry: entry("d", Kind::Directory, 0), staged: 1, digest: [0; 32] },
            Op::Place { entry: file(".repl-sync-incomplete"), staged: 1, digest: [0; 32] },
            Op::Remove { name: name(".repl-sync/lock"), is_directory: false },
            Op::Remove { name: Name::root(), is_directory: true },
            Op::Link { name: name("a"), to: name("a") },
            Op::Link { name: name("a"), to: name(".repl-sync/blob") },
        ] {
            let mut out = Vec::new();
            bad.print(&mut out);
            assert_eq!(Op::parse(&mut Reader::new(&out)), None, "{bad:?}");
        }
    }
}
