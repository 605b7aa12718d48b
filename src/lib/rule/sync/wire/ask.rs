//! Questions: what the end with the destination wants of the end with the source.

use anyhow::Result;

use super::{Frame, LINES_MAX, SMALL_MAX, corrupt, failure, name, seal, string};
use crate::rule::sync::merkle::{Cv, GROUP, PAGE_MIN, RANGE};
use crate::rule::sync::roll;
use crate::value::escape::show_bytes;
use crate::value::exit::Code;
use crate::value::name::Name;
use crate::value::octets::{Reader, put_text};

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which file.
    pub name: Name,
    /// Where in it: the begin of a range.
    pub offset: u64,
    /// How many bytes, up to [`RANGE`].
    pub length: u64,
    /// How long the whole file is.
    pub size: u64,
}

/// A group that differs, with the digests of the pages that the asking end has of it; without any, all are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// The group's place in the file.
    pub offset: u64,
    /// In their order.
    pub digests: Vec<[u8; 8]>,
}

/// What the end with the destination asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A new pass: make all that was written visible in stamps, and begin the list anew.
    Pass,
    /// The next entries of the list.
    List,
    /// Files that are small: each as a whole, unless its digest is this one.
    Small(Vec<(Name, Option<Cv>)>),
    /// The digests of a range's groups.
    Digests(Part),
    /// The bytes of a range.
    Bytes(Part),
    /// The pages of some groups that differ: size of a page, and the groups.
    Pages(Part, u32, Vec<Pages>),
    /// A range, as far as it is not in old content: bytes of a block, and the entries of the blocks of that
    /// ([`roll::sign`]).
    Moved(Part, u32, Vec<u8>),
    /// Something is to be run at the other end; see [`Errand`].
    Run(Errand, Vec<(String, String)>),
    /// Something that the operator is to see, for the end where they are.
    Say(Say, Vec<u8>),
    /// It failed: exit code, what happened, what helps.
    Fail(Code, String, String),
    /// That was all.
    Bye,
}

/// What is run at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Say what the source is.
    Look,
    /// Make the source hold still, or begin its backup procedure.
    Begin,
    /// End it; its files come with the answer.
    Stop,
    /// Let go of what kept the log that belongs to the copy.
    Release,
    /// A hook of the operator's, where the sync was started; its point is a value.
    Hook,
}

/// What the operator is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Lines for standard output.
    Out,
    /// A warning.
    Warning,
    /// What is being done (`-v`).
    Verbose,
    /// How far it is: files done, files known, bytes done, bytes known, as text.
    Progress,
    /// The report at the end, as JSON.
    Report,
}

const ERRANDS: [Errand; 5] = [Errand::Look, Errand::Begin, Errand::Stop, Errand::Release, Errand::Hook];
const SAYS: [Say; 5] = [Say::Out, Say::Warning, Say::Verbose, Say::Progress, Say::Report];

fn put_part(out: &mut Vec<u8>, part: &Part) {
    put_text(out, part.name.bytes());
    for number in [part.offset, part.length, part.size] {
        out.extend(number.to_le_bytes());
    }
}

fn part(reader: &mut Reader<'_>) -> Option<Part> {
    let name = name(reader)?;
    let (offset, length, size) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let end = offset.checked_add(length)?;
    let is_sound = offset % RANGE == 0 && (1..=RANGE).contains(&length) && end <= size && i64::try_from(size).is_ok();
    is_sound.then_some(Part { name, offset, length, size })
}

impl Ask {
    /// As a frame of a line.
    pub fn seal(&self, line: u16) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = self.print(&mut out);
        seal(kind, line, &out, None)
    }

    fn print(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Ask::Pass => b'P',
            Ask::List => b'L',
            Ask::Bye => b'Q',
            Ask::Small(files) => {
                for (name, digest) in files {
                    put_text(out, name.bytes());
                    put_text(out, digest.as_ref().map_or(&[], |digest| digest.as_slice()));
                }
                b'S'
            }
            Ask::Digests(part) => {
                put_part(out, part);
                b'D'
            }
            Ask::Bytes(part) => {
                put_part(out, part);
                b'B'
            }
            Ask::Pages(part, size, groups) => {
                put_part(out, part);
                out.extend(size.to_le_bytes());
                for group in groups {
                    out.extend(((group.offset - part.offset) as u32).to_le_bytes());
                    out.extend((group.digests.len() as u32).to_le_bytes());
                    group.digests.iter().for_each(|digest| out.extend(digest));
                }
                b'G'
            }
            Ask::Moved(part, block, entries) => {
                put_part(out, part);
                out.extend(block.to_le_bytes());
                out.extend(entries);
                b'M'
            }
            Ask::Run(errand, values) => {
                out.push(*errand as u8);
                for (key, value) in values {
                    put_text(out, key.as_bytes());
                    put_text(out, value.as_bytes());
                }
                b'R'
            }
            Ask::Fail(code, why, hint) => {
                out.push(*code as u8);
                put_text(out, why.as_bytes());
                put_text(out, hint.as_bytes());
                b'F'
            }
            Ask::Say(say, bytes) => {
                out.push(*say as u8);
                out.extend(bytes);
                b'E'
            }
        }
    }

    /// Reads one.
    pub fn parse(frame: &Frame) -> Result<Ask> {
        let mut reader = Reader::new(&frame.payload);
        let ask = Ask::read(frame.kind, &mut reader).filter(|_| reader.is_empty() && frame.line < LINES_MAX);
        ask.ok_or_else(|| corrupt(format!("a question of kind {}", show_bytes(&[frame.kind]))))
    }

    fn read(kind: u8, reader: &mut Reader<'_>) -> Option<Ask> {
        Some(match kind {
            b'P' => Ask::Pass,
            b'L' => Ask::List,
            b'Q' => Ask::Bye,
            b'S' => {
                let mut files = Vec::new();
                while !reader.is_empty() {
                    let name = name(reader)?;
                    let digest = reader.text(32)?;
                    let digest = if digest.is_empty() { None } else { Some(digest.try_into().ok()?) };
                    files.push((name, digest));
                    if files.len() > SMALL_MAX {
                        return None;
                    }
                }
                Ask::Small(files)
            }
            b'D' => Ask::Digests(part(reader)?),
            b'B' => Ask::Bytes(part(reader)?),
            b'G' => {
                let part = part(reader)?;
                let size = reader.u32()?;
                if !size.is_power_of_two() || !(PAGE_MIN as u32..=GROUP as u32).contains(&size) {
                    return None;
                }
                let mut groups = Vec::new();
                while !reader.is_empty() {
                    let group = pages(reader, &part, size)?;
                    if groups.last().is_some_and(|last: &Pages| last.offset >= group.offset) {
                        return None;
                    }
                    groups.push(group);
                }
                Ask::Pages(part, size, groups)
            }
            b'M' => {
                let (part, block, entries) = (part(reader)?, reader.u32()?, reader.rest());
                if !roll::is_sound(block, entries) {
                    return None;
                }
                Ask::Moved(part, block, entries.to_vec())
            }
            b'R' => {
                let errand = reader.byte()?;
                let errand = ERRANDS.into_iter().find(|known| *known as u8 == errand)?;
                let mut values = Vec::new();
                while !reader.is_empty() {
                    values.push((string(reader)?, string(reader)?));
                }
                Ask::Run(errand, values)
            }
            b'F' => Ask::Fail(failure(reader)?, string(reader)?, string(reader)?),
            b'E' => {
                let say = reader.byte()?;
                Ask::Say(SAYS.into_iter().find(|known| *known as u8 == say)?, reader.rest().to_vec())
            }
            _ => return None,
        })
    }
}

fn pages(reader: &mut Reader<'_>, part: &Part, size: u32) -> Option<Pages> {
    let offset = u64::from(reader.u32()?);
    let count = reader.u32()? as usize;
    if offset % GROUP != 0 || offset >= part.length || count > (GROUP / u64::from(size)) as usize {
        return None;
    }
    let digests = reader.take(count * 8)?.chunks_exact(8).map(|digest| digest.try_into().unwrap_or_default()).collect();
    Some(Pages { offset: part.offset + offset, digests })
}
