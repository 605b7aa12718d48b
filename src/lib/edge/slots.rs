//! A small record that survives a crash at any write: two slots in one file, written in turn, each a line of text with
//! a counter and a checksum. A torn write damages one slot; the other holds the state before it, whole. The slots are
//! sectors of their own, and the file has its final size from the start, so a full disk never keeps it from being
//! written and a write costs one data sync without a change of metadata.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

use super::dir::Dir;
use crate::value::exit::{Code, fail};
use crate::value::position::number;

const SLOT: usize = 512;
/// How often a slot is read that seems to be damaged.
const TRIES: usize = 8;

/// An open record.
#[derive(Debug)]
pub struct Slots {
    file: File,
    shown: String,
    count: u64,
}

/// Reads the newest whole record; `None` when there is no file, or none was ever written. Needs no write access.
pub fn read(dir: &Dir, name: &str) -> Result<Option<String>> {
    match dir.open_read(name)? {
        Some(file) => Ok(newest(&file, &dir.shown(name))?.map(|(_, text)| text)),
        None => Ok(None),
    }
}

/// Whether one of the two slots holds neither a record nor nothing. A crash that tears a write leaves that until the next
/// write, a flipped bit does, and a write that is under way for an instant: so it is looked at more than once.
pub fn is_torn(dir: &Dir, name: &str) -> Result<bool> {
    for _ in 0..TRIES {
        let Some(bytes) = dir.read_small(name, 2 * SLOT as u64)? else {
            return Ok(false);
        };
        if bytes.len() == 2 * SLOT && bytes.chunks(SLOT).all(is_exact) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a slot is, to the byte, as it is written.
fn is_exact(slot: &[u8]) -> bool {
    let written = parse(slot).and_then(|(count, text)| line(count, &text));
    written.is_some_and(|written| written == slot) || blank().starts_with(slot)
}

impl Slots {
    /// Opens the record, made if it is missing, with its newest whole content.
    pub fn open(dir: &Dir, name: &str) -> Result<(Slots, Option<String>)> {
        let shown = dir.shown(name);
        if let Some(file) = dir.open_write(name)? {
            let newest = newest(&file, &shown)?;
            let count = newest.as_ref().map_or(0, |(count, _)| *count);
            return Ok((Slots { file, shown, count }, newest.map(|(_, text)| text)));
        }
        dir.replace(name, &blank())?;
        let file = dir.open_write(name)?.with_context(|| format!("{shown} vanished"))?;
        Ok((Slots { file, shown, count: 0 }, None))
    }

    /// Writes the record (one line, without its end) and makes it durable.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let count = self.count + 1;
        let line = line(count, text).with_context(|| format!("{} has no room for '{text}'", self.shown))?;
        let write = self.file.write_all_at(&line, (count % 2) * SLOT as u64).and_then(|()| self.file.sync_data());
        write.with_context(|| format!("cannot write {}", self.shown))?;
        self.count = count;
        Ok(())
    }
}

fn blank() -> Vec<u8> {
    let mut bytes = vec![b' '; 2 * SLOT];
    bytes[SLOT - 1] = b'\n';
    bytes[2 * SLOT - 1] = b'\n';
    bytes
}

/// One slot: text, counter, checksum, spaces, line end. `None` when it is too long.
fn line(count: u64, text: &str) -> Option<Vec<u8>> {
    let body = format!("{text} n={count}");
    let mut line = format!("{body} crc={:08x}", crc32c::crc32c(body.as_bytes())).into_bytes();
    if line.len() >= SLOT || text.contains('\n') {
        return None;
    }
    line.resize(SLOT - 1, b' ');
    line.push(b'\n');
    Some(line)
}

fn parse(slot: &[u8]) -> Option<(u64, String)> {
    let (body, checksum) = std::str::from_utf8(slot).ok()?.trim_end().rsplit_once(" crc=")?;
    if checksum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return None;
    }
    let (text, count) = body.rsplit_once(" n=")?;
    Some((number(count)?, text.to_owned()))
}

fn newest(file: &File, shown: &str) -> Result<Option<(u64, String)>> {
    let mut bytes = [0; 2 * SLOT];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64).with_context(|| format!("cannot read {shown}"))? {
            0 => break,
            count => length += count,
        }
    }
    let found = bytes.chunks(SLOT).filter_map(parse).max_by_key(|(count, _)| *count);
    if found.is_none() && bytes[..length].iter().any(|byte| !byte.is_ascii_whitespace() && *byte != 0) {
        // One torn slot beside a blank one is a first write that a crash cut: nothing was ever acknowledged.
        let blank_slots = bytes.chunks(SLOT).filter(|slot| slot.iter().all(u8::is_ascii_whitespace)).count();
        if blank_slots == 0 {
            return fail(Code::Corrupt, format!("{shown} is damaged: neither of its two records is whole"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_torn_at_any_byte_leaves_the_record_before_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let (mut slots, none) = Slots::open(&dir, "position").unwrap();
        assert_eq!(none, None);
        slots.write("at=1-1:1").unwrap();
        slots.write("at=1-1:2").unwrap();
        let before = std::fs::read(root.path().join("position")).unwrap();
        slots.write("at=1-1:3").unwrap();
        let after = std::fs::read(root.path().join("position")).unwrap();
        assert_eq!(read(&dir, "position").unwrap().as_deref(), Some("at=1-1:3"));
        for cut in 0..before.len() {
            let torn: Vec<u8> = after[..cut].iter().chain(&before[cut..]).copied().collect();
            std::fs::write(root.path().join("position"), &torn).unwrap();
            let text = read(&dir, "position").unwrap().unwrap();
            assert!(text == "at=1-1:2" || (text == "at=1-1:3" && cut > 0), "cut {cut}: {text}");
        }
    }

    #[test]
    fn any_flipped_bit_of_either_slot_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        assert!(!is_torn(&dir, "p").unwrap());
        let (mut slots, _) = Slots::open(&dir, "p").unwrap();
        for count in 0..3 {
            assert!(!is_torn(&dir, "p").unwrap());
            let bytes = std::fs::read(root.path().join("p")).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(root.path().join("p"), damaged).unwrap();
                assert!(is_torn(&dir, "p").unwrap(), "bit {bit} after {count} writes");
            }
            std::fs::write(root.path().join("p"), &bytes).unwrap();
            slots.write("at=1-1:1").unwrap();
        }
    }

    #[test]
    fn the_first_write_torn_is_no_record_and_two_torn_slots_are_damage() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let (mut slots, _) = Slots::open(&dir, "p").unwrap();
        slots.write("x=1").unwrap();
        let mut bytes = std::fs::read(root.path().join("p")).unwrap();
        bytes[SLOT] ^= 1;
        std::fs::write(root.path().join("p"), &bytes).unwrap();
        assert_eq!(read(&dir, "p").unwrap(), None);
        bytes[0] ^= 1;
        std::fs::write(root.path().join("p"), &bytes).unwrap();
        assert!(read(&dir, "p").is_err());
    }
}
