//! What was proven equal: for each file the stamp that it had at the source, the stamp that it has here, and the digest
//! that both had. A file whose two stamps are still these is not read again, in this run or a later one: nobody but the
//! kernel sets the ctime in a stamp, and a stamp is only kept when its ctime was past when the file was read, so that a
//! later change cannot have the same.
//!
//! The file is written anew by each pass, in the order of names, and read along with the next: it costs no memory. A pass
//! that does not come to its end leaves the old one. It is a cache: when it is damaged it is forgotten from there on.
//!
//! ```text
//! header   "REPL pairs 2\n", identity of the source (text)
//! record   length u32 of what follows, CRC32C of it u32, name (text), flags u8, source stamp, destination stamp, digest,
//!          region u64 of its groups' digests
//! flags    bit 0: equal once the journal's operation on this name is done; bit 1: it has a region
//! ```

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};

use anyhow::{Context as _, Result};

use crate::edge::dir::Dir;
use crate::rule::sync::merkle::Cv;
use crate::value::entry::Stamp;
use crate::value::name::{NAME_MAX, Name};
use crate::value::octets::{Reader, put_text};

/// Its name in the state directory.
const FILE: &str = "pairs";
const NEW: &str = "pairs.new";
const MAGIC: &[u8] = b"REPL pairs 2\n";
const PENDING: u8 = 1;
const REGION: u8 = 2;
/// Most bytes of a record, and of the source's identity.
const RECORD_MAX: usize = NAME_MAX + 256;

/// One file that is equal at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Which file.
    pub name: Name,
    /// Its stamp at the source.
    pub source: Stamp,
    /// Its stamp here.
    pub here: Stamp,
    /// Its BLAKE3 digest.
    pub digest: Cv,
    /// Whether it is equal only once the journal's operation on it is done.
    pub is_pending: bool,
    /// Where the digests of its groups are.
    pub region: Option<u64>,
}

/// The pairs of the last pass, in the order of names.
pub struct Old {
    input: Option<BufReader<File>>,
    next: Option<Pair>,
}

/// The pairs of this pass.
pub struct New<'a> {
    dir: &'a Dir,
    output: BufWriter<File>,
}

impl Old {
    /// Of that source; none where there are none of it.
    pub fn open(dir: &Dir, source: &[u8]) -> Result<Old> {
        let mut old = Old { input: dir.open_read(FILE)?.map(BufReader::new), next: None };
        if old.header().is_none_or(|of| of != source) {
            old.input = None;
        }
        old.next = old.record();
        Ok(old)
    }

    /// That none can be asked for.
    pub fn none() -> Old {
        Old { input: None, next: None }
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.input.as_mut()?.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn header(&mut self) -> Option<Vec<u8>> {
        let magic = self.bytes(MAGIC.len())?;
        let length = self.number()? as usize;
        if magic != MAGIC || length > RECORD_MAX {
            return None;
        }
        self.bytes(length)
    }

    fn record(&mut self) -> Option<Pair> {
        let (length, checksum) = (self.number()? as usize, self.number()?);
        let bytes = self.bytes(Some(length).filter(|length| *length <= RECORD_MAX)?)?;
        if crc32c::crc32c(&bytes) != checksum {
            return None;
        }
        let mut reader = Reader::new(&bytes);
        let (name, flags) = (Name::parse(reader.text(NAME_MAX)?)?, reader.byte()?);
        let (source, here, digest) = (Stamp::parse(&mut reader)?, Stamp::parse(&mut reader)?, reader.digest()?);
        let region = reader.u64().filter(|_| flags & REGION != 0);
        Some(Pair { name, source, here, digest, is_pending: flags & PENDING != 0, region })
    }

    /// The pair of a name; names must be asked for in their order.
    pub fn find(&mut self, name: &Name) -> Option<Pair> {
        while self.next.as_ref().is_some_and(|pair| pair.name < *name) {
            self.next = self.record();
        }
        if self.next.as_ref().is_some_and(|pair| pair.name == *name) {
            let found = self.next.take();
            self.next = self.record();
            return found;
        }
        None
    }
}

impl Iterator for Old {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        let next = self.next.take();
        self.next = self.record();
        next
    }
}

impl New<'_> {
    /// Begins a new file for that source.
    pub fn create<'a>(dir: &'a Dir, source: &[u8]) -> Result<New<'a>> {
        let mut output = BufWriter::with_capacity(1 << 18, dir.create_filled(NEW, 0)?);
        let mut header = MAGIC.to_vec();
        put_text(&mut header, source);
        output.write_all(&header)?;
        Ok(New { dir, output })
    }

    /// Adds a pair; names must come in their order.
    pub fn add(&mut self, pair: &Pair) -> Result<()> {
        let mut record = Vec::with_capacity(160 + pair.name.bytes().len());
        put_text(&mut record, pair.name.bytes());
        let pending = if pair.is_pending { PENDING } else { 0 };
        record.push(pending | if pair.region.is_some() { REGION } else { 0 });
        pair.source.print(&mut record);
        pair.here.print(&mut record);
        record.extend(pair.digest);
        record.extend(pair.region.unwrap_or_default().to_le_bytes());
        let write = |bytes: &[u8], output: &mut BufWriter<File>| output.write_all(bytes);
        let mut head = (record.len() as u32).to_le_bytes().to_vec();
        head.extend(crc32c::crc32c(&record).to_le_bytes());
        write(&head, &mut self.output).and_then(|()| write(&record, &mut self.output)).context("cannot write the pairs")
    }

    /// Puts it in the old one's place.
    pub fn finish(mut self) -> Result<()> {
        self.output.flush().context("cannot write the pairs")?;
        self.dir.supersede(NEW, FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, is_pending: bool) -> Pair {
        let stamp = Stamp { size: name.len() as u64, ..Stamp::default() };
        let (name, region) = (Name::parse(name.as_bytes()).unwrap(), is_pending.then_some(96));
        Pair { name, source: stamp, here: stamp, digest: [7; 32], is_pending, region }
    }

    #[test]
    fn pairs_are_found_in_order_and_only_of_their_source() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let pairs = [pair("a", false), pair("a/b", true), pair("c", false)];
        let mut new = New::create(&dir, b"one").unwrap();
        for pair in &pairs {
            new.add(pair).unwrap();
        }
        assert_eq!(Old::open(&dir, b"one").unwrap().count(), 0, "not before it is finished");
        new.finish().unwrap();
        let mut old = Old::open(&dir, b"one").unwrap();
        for (name, found) in [("a", Some(&pairs[0])), ("a/a", None), ("a/b", Some(&pairs[1])), ("d", None)] {
            assert_eq!(old.find(&Name::parse(name.as_bytes()).unwrap()).as_ref(), found, "{name}");
        }
        assert_eq!(Old::open(&dir, b"two").unwrap().count(), 0);
    }

    #[test]
    fn damage_forgets_what_follows() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let mut new = New::create(&dir, b"one").unwrap();
        for name in ["a", "b", "c"] {
            new.add(&pair(name, false)).unwrap();
        }
        new.finish().unwrap();
        let path = root.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let record = (whole.len() - MAGIC.len() - 7) / 3;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let found = Old::open(&dir, b"one").unwrap().count();
            assert_eq!(found, at.saturating_sub(MAGIC.len() + 7) / record, "{at}");
        }
    }
}
