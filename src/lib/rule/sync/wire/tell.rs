//! Answers: what the end with the source says.

use anyhow::Result;

use super::{Frame, LAID_MAX, begin, corrupt, end, failure, name, string};
use crate::rule::sync::merkle::{Cv, GROUP, SHORT};
use crate::value::entry::{Entry, Seen};
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, code_of, hint_of};
use crate::value::name::Name;
use crate::value::octets::{Reader, put_text};

/// The kind of [`Tell::Data`].
const DATA: u8 = b'b';

/// What is the matter with a file: the worse, the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matter {
    /// All of it was read, and it changed meanwhile. (Seen by the end that asked; never told.)
    Mixed,
    /// It is not there any more.
    Vanished,
    /// It is not what was listed: not all of it was read.
    Changed,
    /// It could not be read.
    Unreadable,
}

const MATTERS: [(Matter, u8); 3] = [(Matter::Unreadable, 0), (Matter::Changed, 1), (Matter::Vanished, 2)];

/// Why there are no bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What is the matter with it.
    pub matter: Matter,
    /// In words.
    pub text: String,
}

impl Cause {
    /// This is the matter, in those words.
    pub fn new(matter: Matter, text: &str) -> Cause {
        Cause { matter, text: text.to_owned() }
    }

    fn print(&self, out: &mut Vec<u8>) {
        out.push(MATTERS.iter().find(|(matter, _)| *matter == self.matter).map_or(0, |(_, byte)| *byte));
        put_text(out, self.text.as_bytes());
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Cause> {
        let byte = reader.byte()?;
        let (matter, _) = MATTERS.iter().find(|(_, known)| *known == byte)?;
        Some(Cause { matter: *matter, text: string(reader)? })
    }
}

/// What became of one small file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Small {
    /// Its digest is the one that was asked with.
    Same(Seen),
    /// These are its digest and its bytes.
    Whole(Seen, Cv, Vec<u8>),
    /// It has none, and why.
    Gone(Cause),
}

/// Pages of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The group's place in the file.
    pub offset: u64,
    /// The cv of the group as it is at the source.
    pub cv: Cv,
    /// Which pages come: bit n for page n.
    pub pages: u128,
    /// The pages, one behind the other, or nothing when the whole group is a hole.
    pub bytes: Vec<u8>,
}

/// What the end with the source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Entries of the list in order, names that could not be read with the cause, and whether that was the end.
    Entries {
        /// In the order of a walk.
        entries: Vec<Entry>,
        /// What could not be read, and why.
        unread: Vec<(Name, String)>,
        /// Whether nothing follows.
        is_end: bool,
    },
    /// Some of the small files that were asked for, in their order.
    Smalls(Vec<Small>),
    /// The digests of a range: the file behind the reading, cv of the range, the first bytes of its groups' cvs.
    Digests(Seen, Cv, Vec<[u8; SHORT]>),
    /// Bytes at an offset of the file.
    Data(u64, Vec<u8>),
    /// Zeros that are a hole: offset and length.
    Hole(u64, u64),
    /// Bytes that the old content has, which was asked with: offset in the file, offset in that, length.
    Copy(u64, u64, u64),
    /// Pages of groups.
    Patches(Vec<Patch>),
    /// The question is answered: the file behind the reading, cv of the range where bytes were asked for.
    Done(Seen, Cv),
    /// There are none, and why.
    Gone(Cause),
    /// An errand came to its end: files that it made.
    Ran(Vec<(Name, Vec<u8>)>),
    /// What was asked could not be done, with the exit code.
    Failed(Code, String, String),
}

impl Tell {
    /// An error as an answer.
    pub fn failed(error: &anyhow::Error) -> Tell {
        Tell::Failed(code_of(error), format!("{error:#}"), hint_of(error).unwrap_or_default().to_owned())
    }

    /// [`Tell::Data`] as a frame of a line, from bytes that are somebody else's.
    pub fn seal_data(line: u16, offset: u64, bytes: &[u8], pack: Option<i32>) -> Vec<u8> {
        let mut frame = begin(bytes.len() + 8);
        put_data(&mut frame, offset, bytes);
        end(frame, DATA, line, pack)
    }

    /// As a frame of a line.
    pub fn seal(&self, line: u16, pack: Option<i32>) -> Vec<u8> {
        let mut frame = begin(self.about());
        let kind = self.print(&mut frame);
        end(frame, kind, line, pack)
    }

    /// How long it is, about: what is long is copied only once.
    fn about(&self) -> usize {
        let small = |file: &Small| if let Small::Whole(.., bytes) = file { 128 + bytes.len() } else { 128 };
        match self {
            Tell::Smalls(files) => files.iter().map(small).sum(),
            Tell::Patches(patches) => patches.iter().map(|patch| 64 + patch.bytes.len()).sum(),
            Tell::Data(_, bytes) => 8 + bytes.len(),
            _ => 0,
        }
    }

    fn print(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Tell::Entries { entries, unread, is_end } => {
                out.push(u8::from(*is_end));
                out.extend((unread.len() as u32).to_le_bytes());
                for (name, why) in unread {
                    put_text(out, name.bytes());
                    put_text(out, why.as_bytes());
                }
                for entry in entries {
                    entry.print(out);
                }
                b'e'
            }
            Tell::Smalls(files) => {
                for file in files {
                    put_small(out, file);
                }
                b's'
            }
            Tell::Digests(seen, cv, groups) => {
                seen.print(out);
                out.extend(cv);
                for group in groups {
                    out.extend(group);
                }
                b'd'
            }
            Tell::Data(offset, bytes) => {
                put_data(out, *offset, bytes);
                DATA
            }
            Tell::Hole(offset, length) => {
                out.extend(offset.to_le_bytes());
                out.extend(length.to_le_bytes());
                b'h'
            }
            Tell::Copy(offset, from, length) => {
                for number in [offset, from, length] {
                    out.extend(number.to_le_bytes());
                }
                b'c'
            }
            Tell::Patches(patches) => {
                for patch in patches {
                    out.extend(patch.offset.to_le_bytes());
                    out.extend(patch.cv);
                    out.extend(patch.pages.to_le_bytes());
                    put_text(out, &patch.bytes);
                }
                b'p'
            }
            Tell::Done(seen, cv) => {
                seen.print(out);
                out.extend(cv);
                b'z'
            }
            Tell::Gone(why) => {
                why.print(out);
                b'v'
            }
            Tell::Ran(files) => {
                for (name, bytes) in files {
                    put_text(out, name.bytes());
                    put_text(out, bytes);
                }
                b'r'
            }
            Tell::Failed(code, why, hint) => {
                out.push(*code as u8);
                put_text(out, why.as_bytes());
                put_text(out, hint.as_bytes());
                b'f'
            }
        }
    }

    /// Reads one.
    pub fn parse(frame: Frame) -> Result<Tell> {
        if frame.kind == DATA {
            return data(frame.payload).ok_or_else(|| corrupt("bytes without a place"));
        }
        let mut reader = Reader::new(&frame.payload);
        let tell = Tell::read(frame.kind, &mut reader).filter(|_| reader.is_empty());
        tell.ok_or_else(|| corrupt(format!("an answer of kind {}", show_bytes(&[frame.kind]))))
    }

    fn read(kind: u8, reader: &mut Reader<'_>) -> Option<Tell> {
        Some(match kind {
            b'e' => {
                let is_end = reader.byte()? != 0;
                let (mut entries, mut unread) = (Vec::new(), Vec::new());
                for _ in 0..reader.u32()? {
                    unread.push((name(reader)?, string(reader)?));
                }
                while !reader.is_empty() {
                    entries.push(Entry::parse(reader)?);
                }
                Tell::Entries { entries, unread, is_end }
            }
            b's' => {
                let mut files = Vec::new();
                while !reader.is_empty() {
                    files.push(small(reader)?);
                }
                Tell::Smalls(files)
            }
            b'd' => {
                let (seen, cv) = (Seen::parse(reader)?, reader.digest()?);
                let groups = reader.rest();
                let (groups, rest) = groups.as_chunks();
                if !rest.is_empty() {
                    return None;
                }
                Tell::Digests(seen, cv, groups.to_vec())
            }
            b'h' => Tell::Hole(reader.u64()?, reader.u64()?),
            b'c' => Tell::Copy(reader.u64()?, reader.u64()?, reader.u64()?),
            b'p' => {
                let mut patches = Vec::new();
                while !reader.is_empty() {
                    let (offset, cv) = (reader.u64()?, reader.digest()?);
                    let pages = u128::from(reader.u64()?) | u128::from(reader.u64()?) << 64;
                    patches.push(Patch { offset, cv, pages, bytes: reader.text(GROUP as usize)?.to_vec() });
                }
                Tell::Patches(patches)
            }
            b'z' => Tell::Done(Seen::parse(reader)?, reader.digest()?),
            b'v' => Tell::Gone(Cause::parse(reader)?),
            b'r' => {
                let mut files = Vec::new();
                while !reader.is_empty() {
                    files.push((name(reader)?, reader.text(LAID_MAX)?.to_vec()));
                }
                Tell::Ran(files)
            }
            b'f' => Tell::Failed(failure(reader)?, string(reader)?, string(reader)?),
            _ => return None,
        })
    }
}

/// The place comes behind the bytes, which are not copied for it when they are read.
fn put_data(out: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    out.extend(bytes);
    out.extend(offset.to_le_bytes());
}

fn data(mut bytes: Vec<u8>) -> Option<Tell> {
    let offset = u64::from_le_bytes(*bytes.last_chunk()?);
    bytes.truncate(bytes.len() - 8);
    Some(Tell::Data(offset, bytes))
}

fn put_small(out: &mut Vec<u8>, file: &Small) {
    match file {
        Small::Same(seen) => {
            out.push(b'=');
            seen.print(out);
        }
        Small::Whole(seen, digest, bytes) => {
            out.push(b'w');
            seen.print(out);
            out.extend(digest);
            put_text(out, bytes);
        }
        Small::Gone(why) => {
            out.push(b'-');
            why.print(out);
        }
    }
}

fn small(reader: &mut Reader<'_>) -> Option<Small> {
    Some(match reader.byte()? {
        b'=' => Small::Same(Seen::parse(reader)?),
        b'w' => Small::Whole(Seen::parse(reader)?, reader.digest()?, reader.text(GROUP as usize)?.to_vec()),
        b'-' => Small::Gone(Cause::parse(reader)?),
        _ => return None,
    })
}
