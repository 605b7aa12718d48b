//! The blob: changed bytes one after the other, found by the extents of a journal's ops and by nothing else.
//!
//! Many threads add to it at once, each in one write at a place that is its alone; what a failed write leaves unused is
//! never looked at. Nothing is synced here: the journal syncs once, before it says that the bytes are there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

use super::op::{EXTENT_MAX, Extent};
use crate::edge::dir::Dir;
use crate::value::exit::{Code, fail};

/// How much is read at once where extents follow each other.
const WINDOW: u64 = 1 << 22;

/// The open blob.
#[derive(Debug)]
pub struct Blob {
    file: File,
    end: AtomicU64,
    shown: String,
}

/// Reads extents in large pieces; one for each thread.
#[derive(Debug)]
pub struct Window<'a> {
    blob: &'a Blob,
    start: u64,
    bytes: Vec<u8>,
}

impl Blob {
    /// Opens it, made if it is missing.
    pub fn open(dir: &Dir, name: &str) -> Result<Blob> {
        let file = match dir.open_write(name)? {
            Some(file) => file,
            None => dir.create_new(name)?,
        };
        let end = file.metadata().with_context(|| format!("cannot look at {}", dir.shown(name)))?.len();
        Ok(Blob { file, end: end.into(), shown: dir.shown(name) })
    }

    /// How long it is.
    pub fn length(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Adds at most [`EXTENT_MAX`] bytes; returns where they are, and their CRC32C.
    pub fn store(&self, bytes: &[u8]) -> Result<(u64, u32)> {
        let length = bytes.len() as u64;
        if length == 0 || length > EXTENT_MAX {
            return fail(Code::Failed, format!("{length} bytes are not one extent"));
        }
        let at = self.end.fetch_add(length, Ordering::Relaxed);
        self.file.write_all_at(bytes, at).with_context(|| format!("cannot write {}", self.shown))?;
        Ok((at, crc32c::crc32c(bytes)))
    }

    /// Reads an extent, which is no hole, into the beginning of a buffer, and checks it (6).
    pub fn load(&self, extent: &Extent, buffer: &mut [u8]) -> Result<()> {
        let Some(buffer) = buffer.get_mut(..extent.length as usize) else {
            return fail(Code::Failed, format!("{} bytes do not fit", extent.length));
        };
        if extent.blob.saturating_add(extent.length) > self.length() {
            return fail(Code::Corrupt, format!("{} ends before {}", self.shown, extent.blob + extent.length));
        }
        let read = self.file.read_exact_at(buffer, extent.blob);
        read.with_context(|| format!("cannot read {}", self.shown))?;
        self.check(extent, buffer)
    }

    fn check(&self, extent: &Extent, bytes: &[u8]) -> Result<()> {
        if crc32c::crc32c(bytes) == extent.crc {
            return Ok(());
        }
        fail(Code::Corrupt, format!("{} is damaged at {} ({} bytes)", self.shown, extent.blob, extent.length))
    }

    /// Makes what was added durable.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("cannot sync {}", self.shown))
    }
}

impl<'a> Window<'a> {
    /// Of a blob; nothing is read yet.
    pub fn new(blob: &'a Blob) -> Window<'a> {
        Window { blob, start: 0, bytes: Vec::new() }
    }

    /// The bytes of an extent, which is no hole, checked (6).
    pub fn get(&mut self, extent: &Extent) -> Result<&[u8]> {
        let end = extent.blob.saturating_add(extent.length);
        if extent.blob < self.start || end > self.start + self.bytes.len() as u64 {
            self.fill(extent.blob, end)?;
        }
        let from = (extent.blob - self.start) as usize;
        let bytes = &self.bytes[from..from + extent.length as usize];
        self.blob.check(extent, bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, start: u64, end: u64) -> Result<()> {
        let Blob { file, shown, .. } = self.blob;
        let length = self.blob.length();
        if end > length {
            return fail(Code::Corrupt, format!("{shown} ends before {end}"));
        }
        let count = (length - start).min(WINDOW.max(end - start));
        // Nothing counts as read until all of it is.
        self.bytes.clear();
        self.start = start;
        let mut bytes = vec![0; count as usize];
        file.read_exact_at(&mut bytes, start).with_context(|| format!("cannot read {shown}"))?;
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    #[test]
    fn what_threads_store_is_read_back_and_a_flipped_bit_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let blob = Blob::open(&dir, "blob").unwrap();
        let store = |seed: u8| {
            let bytes = vec![seed; 5000 + usize::from(seed)];
            let (at, crc) = blob.store(&bytes).unwrap();
            (Extent { offset: 0, length: bytes.len() as u64, blob: at, crc, is_hole: false }, bytes)
        };
        let stored: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || store(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let blob = Blob::open(&dir, "blob").unwrap();
        let mut window = Window::new(&blob);
        let mut buffer = [0; 6000];
        for (extent, bytes) in &stored {
            assert_eq!(window.get(extent).unwrap(), bytes);
            blob.load(extent, &mut buffer).unwrap();
            assert_eq!(&buffer[..bytes.len()], bytes);
        }
        let mut whole = std::fs::read(root.path().join("blob")).unwrap();
        let (extent, _) = &stored[3];
        whole[extent.blob as usize + 17] ^= 1;
        std::fs::write(root.path().join("blob"), &whole[..whole.len() - 1]).unwrap();
        let blob = Blob::open(&dir, "blob").unwrap();
        let mut window = Window::new(&blob);
        for (at, (extent, _)) in stored.iter().enumerate() {
            let is_fine = at != 3 && extent.blob + extent.length <= blob.length();
            let code = |result: Result<()>| result.map_or_else(|error| code_of(&error), |()| Code::Done);
            let expected = if is_fine { Code::Done } else { Code::Corrupt };
            assert_eq!(code(blob.load(extent, &mut buffer)), expected);
            assert_eq!(code(window.get(extent).map(|_| ())), expected);
        }
        assert!(blob.store(&[]).is_err());
    }
}
