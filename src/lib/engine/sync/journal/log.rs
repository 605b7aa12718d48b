//! The log of a journal that is being made: a record for each op as it is found out, the newest of a name counts. Only
//! where each record is stays in memory, not what it says: a tree may have millions of names.
//!
//! A record is written in one write at the end, so a kill leaves whole records and at most one that is torn, which is
//! cut at the next start. A power cut may leave less: nothing here is durable before [`Log::sync`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

use super::op::Op;
use super::record::{self, HEADER, Header, Id, Record};
use crate::edge::dir::Dir;
use crate::value::exit::{Code, fail};
use crate::value::name::Name;

/// The open log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// Which journal this is.
    pub(super) id: Id,
    end: u64,
    slots: BTreeMap<Name, Slot>,
    shown: String,
}

/// Where the record that counts for a name is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    at: u64,
    length: u32,
    /// Which file in `new` it needs.
    pub(super) staged: Option<u64>,
    /// Whether it removes the name.
    pub(super) is_removal: bool,
}

impl Slot {
    fn of(op: &Op, at: u64, length: usize) -> Slot {
        let staged = if let Op::Place { staged, .. } = op { Some(*staged) } else { None };
        Slot { at, length: length as u32, staged, is_removal: matches!(op, Op::Remove { .. }) }
    }
}

impl Log {
    /// Begins a new one; there must be none of this name.
    pub(super) fn create(dir: &Dir, name: &str) -> Result<Log> {
        let file = dir.create_new(name)?;
        let id = Id(fastrand::u128(..).to_le_bytes());
        let header = Header { magic: record::LOG, id, root: 0, dress: 0 };
        file.write_all_at(&header.print(), 0).with_context(|| format!("cannot write {}", dir.shown(name)))?;
        Ok(Log { file, id, end: HEADER as u64, slots: BTreeMap::new(), shown: dir.shown(name) })
    }

    /// Opens one that was left, up to its last whole record; `None` when there is none that we can read.
    pub(super) fn open(dir: &Dir, name: &str) -> Result<Option<Log>> {
        let Some(file) = dir.open_write(name)? else {
            return Ok(None);
        };
        let shown = dir.shown(name);
        let read = |file: File| -> io::Result<Option<Log>> {
            let mut input = BufReader::with_capacity(1 << 20, file.try_clone()?);
            let mut bytes = Vec::new();
            input.by_ref().take(HEADER as u64).read_to_end(&mut bytes)?;
            let header = bytes.first_chunk().and_then(|bytes| Header::parse(bytes, record::LOG));
            let Some(header) = header else {
                return Ok(None);
            };
            let mut log = Log { file, id: header.id, end: HEADER as u64, slots: BTreeMap::new(), shown: String::new() };
            while record::next(&mut input, &mut bytes)? && log.count(&bytes) {}
            log.file.set_len(log.end)?;
            Ok(Some(log))
        };
        let log = read(file).with_context(|| format!("cannot read {shown}"))?;
        Ok(log.map(|log| Log { shown, ..log }))
    }

    /// Counts a payload that was read; false when it says nothing.
    fn count(&mut self, payload: &[u8]) -> bool {
        let length = payload.len() + 8;
        match Record::parse(payload) {
            Some(Record::Op(op)) => {
                self.slots.insert(op.name().clone(), Slot::of(&op, self.end, length));
            }
            Some(Record::Forget(name)) => {
                self.slots.remove(&name);
            }
            Some(Record::End(..)) | None => return false,
        }
        self.end += length as u64;
        true
    }

    /// Adds an op; returns what counted for its name before.
    pub(super) fn add(&mut self, op: Op) -> Result<Option<Slot>> {
        if !op.is_sound() {
            return fail(Code::Corrupt, format!("{} cannot be changed so", op.name()));
        }
        let (at, record) = (self.end, Record::Op(op.into()));
        let length = self.append(&record)?;
        let Record::Op(op) = record else { return Ok(None) };
        Ok(self.slots.insert(op.name().clone(), Slot::of(&op, at, length)))
    }

    /// Takes a name's op away, and returns it.
    pub(super) fn forget(&mut self, name: &Name) -> Result<Option<Slot>> {
        if !self.slots.contains_key(name) {
            return Ok(None);
        }
        self.append(&Record::Forget(name.clone()))?;
        Ok(self.slots.remove(name))
    }

    fn append(&mut self, record: &Record) -> Result<usize> {
        let Some(bytes) = record.print() else {
            return fail(Code::Failed, format!("{}: too many changes in one file", self.shown));
        };
        // When it fails, the next record is written over what there is of this one.
        self.file.write_all_at(&bytes, self.end).with_context(|| format!("cannot append to {}", self.shown))?;
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// What counts for each name, in the order of names.
    pub(super) fn slots(&self) -> &BTreeMap<Name, Slot> {
        &self.slots
    }

    /// The record in a slot, framed.
    pub(super) fn bytes(&self, slot: &Slot) -> Result<Vec<u8>> {
        let mut bytes = vec![0; slot.length as usize];
        self.file.read_exact_at(&mut bytes, slot.at).with_context(|| format!("cannot read {}", self.shown))?;
        Ok(bytes)
    }

    /// The op in a slot (6 when it is no more what was written).
    pub(super) fn op(&self, slot: &Slot) -> Result<Op> {
        let bytes = self.bytes(slot)?;
        let mut payload = Vec::new();
        let is_whole = record::next(&mut bytes.as_slice(), &mut payload).unwrap_or(false);
        match Record::parse(&payload) {
            Some(Record::Op(op)) if is_whole => Ok(*op),
            _ => fail(Code::Corrupt, format!("{} is damaged at {}", self.shown, slot.at)),
        }
    }

    /// How long it is.
    pub(super) fn length(&self) -> u64 {
        self.end
    }

    /// Makes all records durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("cannot sync {}", self.shown))
    }
}
