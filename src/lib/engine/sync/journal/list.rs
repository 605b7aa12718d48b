//! A committed list, open: read whole once and checked, then read again op by op in the order of a replay.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

use super::log::Log;
use super::op::{Extent, Op};
use super::record::{self, FINAL, HEADER, Header, Record};
use crate::edge::dir::Dir;
use crate::edge::tree::Dress;
use crate::value::exit::{Code, fail};

/// Bits of [`Header::dress`].
const OWNER: u32 = 1;
const DEVICES: u32 = 2;

/// Where an op is in the file.
pub(super) type At = u64;

/// The open list.
#[derive(Debug)]
pub(super) struct List {
    file: File,
    /// Its header.
    pub(super) header: Header,
    /// Removals, deepest first.
    pub(super) removals: Vec<At>,
    /// All other ops, by names.
    pub(super) changes: Vec<At>,
    /// Patches alone, by where their bytes begin in the blob.
    pub(super) patches: Vec<At>,
    /// Links alone, by names.
    pub(super) links: Vec<At>,
    /// What a directory wears, by names.
    pub(super) directories: Vec<At>,
    shown: String,
}

impl List {
    /// Writes a log's ops as a list, and syncs it.
    pub(super) fn write(log: &Log, dir: &Dir, name: &str, root: u64, dress: Dress) -> Result<()> {
        let header = Header { magic: FINAL, id: log.id, root, dress: print_dress(dress) };
        let file = dir.create_new(name)?;
        let mut out = Summed { out: BufWriter::with_capacity(1 << 20, &file), sum: blake3::Hasher::new() };
        let mut write = || -> Result<()> {
            out.put(&header.print())?;
            for slot in log.slots().values().rev().filter(|slot| slot.is_removal) {
                out.put(&log.bytes(slot)?)?;
            }
            for slot in log.slots().values().filter(|slot| !slot.is_removal) {
                out.put(&log.bytes(slot)?)?;
            }
            let end = Record::End(log.slots().len() as u64, out.sum.finalize().into());
            out.put(&end.print().unwrap_or_default())?;
            out.out.flush()?;
            file.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", dir.shown(name)))
    }

    /// Opens a list and checks all of it (6); `None` when there is none.
    pub(super) fn open(dir: &Dir, name: &str) -> Result<Option<List>> {
        let Some(file) = dir.open_read(name)? else {
            return Ok(None);
        };
        let shown = dir.shown(name);
        let whole = List::read(file).with_context(|| format!("cannot read {shown}"))?;
        match whole {
            Some(list) => Ok(Some(List { shown, ..list })),
            None => fail(Code::Corrupt, format!("{shown} is damaged")),
        }
    }

    fn read(file: File) -> io::Result<Option<List>> {
        let mut input = BufReader::with_capacity(1 << 20, file.try_clone()?);
        let mut bytes = Vec::new();
        input.by_ref().take(HEADER as u64).read_to_end(&mut bytes)?;
        let Some(header) = bytes.first_chunk().and_then(|bytes| Header::parse(bytes, FINAL)) else {
            return Ok(None);
        };
        let mut list = List {
            file,
            header,
            removals: Vec::new(),
            changes: Vec::new(),
            patches: Vec::new(),
            links: Vec::new(),
            directories: Vec::new(),
            shown: String::new(),
        };
        let mut sum = blake3::Hasher::new();
        sum.update(&bytes);
        let (mut at, mut begins) = (HEADER as u64, Vec::new());
        while record::next(&mut input, &mut bytes)? {
            match Record::parse(&bytes) {
                Some(Record::Op(op)) => begins.extend(list.count(&op, at)),
                Some(Record::End(count, digest)) => {
                    let found = (list.removals.len() + list.changes.len()) as u64;
                    let is_whole = count == found && digest == *sum.finalize().as_bytes();
                    let is_end = input.read(&mut [0])? == 0;
                    begins.sort_unstable();
                    list.patches = begins.into_iter().map(|(_, at)| at).collect();
                    return Ok((is_whole && is_end).then_some(list));
                }
                Some(Record::Forget(_)) | None => return Ok(None),
            }
            sum.update(&(bytes.len() as u32).to_le_bytes());
            sum.update(&crc32c::crc32c(&bytes).to_le_bytes());
            sum.update(&bytes);
            at += bytes.len() as u64 + 8;
        }
        Ok(None)
    }

    /// Sorts an op in; of a patch, where its bytes begin in the blob.
    fn count(&mut self, op: &Op, at: At) -> Option<(u64, At)> {
        if matches!(op, Op::Remove { .. }) {
            self.removals.push(at);
            return None;
        }
        self.changes.push(at);
        if op.is_directory() {
            self.directories.push(at);
        }
        match op {
            Op::Link { .. } => self.links.push(at),
            Op::Patch { extents, .. } => {
                let first = extents.iter().find(|extent| !extent.is_hole);
                return Some((first.map_or(0, |extent: &Extent| extent.blob), at));
            }
            _ => {}
        }
        None
    }

    /// The op that is there.
    pub(super) fn get(&self, at: At) -> Result<Op> {
        let mut head = [0; 8];
        let mut payload = Vec::new();
        let mut read = || -> io::Result<bool> {
            self.file.read_exact_at(&mut head, at)?;
            let [a, b, c, d, ..] = head;
            let mut bytes = vec![0; u32::from_le_bytes([a, b, c, d]) as usize + 8];
            self.file.read_exact_at(&mut bytes, at)?;
            record::next(&mut bytes.as_slice(), &mut payload)
        };
        let is_whole = read().with_context(|| format!("cannot read {}", self.shown))?;
        match Record::parse(&payload) {
            Some(Record::Op(op)) if is_whole => Ok(*op),
            _ => fail(Code::Corrupt, format!("{} is damaged at {at}", self.shown)),
        }
    }

    /// What may be put on.
    pub(super) fn dress(&self) -> Dress {
        Dress { owner: self.header.dress & OWNER != 0, devices: self.header.dress & DEVICES != 0 }
    }
}

fn print_dress(dress: Dress) -> u32 {
    u32::from(dress.owner) * OWNER + u32::from(dress.devices) * DEVICES
}

/// A writer that digests what it writes.
struct Summed<'a> {
    out: BufWriter<&'a File>,
    sum: blake3::Hasher,
}

impl Summed<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }
}
