//! The segment being read: its file, what was handed out of it, and the bytes that were read last.

use std::fs::File;
use std::io;

use anyhow::Result;
use rustix::fs::SeekFrom;

use crate::edge::clock;
use crate::edge::read::read_at;
use crate::rule::scheme::Scanner;
use crate::value::digest::Running;
use crate::value::position::Segment;

/// Bytes of a look at what is there, where little is to be expected, and much. A file that is used again, or was made in
/// its full size, has little news, often.
pub(super) const LOOK_LEAST: usize = 1 << 14;
pub(super) const LOOK_MOST: usize = 1 << 18;

/// The segment being read.
pub(super) struct Open {
    pub(super) segment: Segment,
    pub(super) name: String,
    pub(super) file: File,
    pub(super) identity: (u64, u64),
    pub(super) head: Vec<u8>,
    pub(super) scanner: Scanner,
    /// Next byte to hand out, and the digest of those before it.
    pub(super) sent: u64,
    pub(super) running: Running,
    pub(super) marked: u64,
    /// The size of the file when it was looked at last; 0 when more is to be expected in it.
    pub(super) looked: u64,
    /// Bytes that are known to be on disk.
    pub(super) synced: u64,
    pub(super) sparse: bool,
    /// The final length, once it is finished.
    pub(super) closed: Option<u64>,
    /// Whether the bits that its owner rewrites were handed out as they are in the end.
    pub(super) patched: bool,
}

/// Bytes of the open segment that were read last.
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) at: u64,
    pub(super) length: usize,
}

impl Open {
    /// Reads, checks and hashes what lies before an offset, or before the end of the file when that comes first.
    pub(super) fn skip_to(
        &mut self,
        offset: u64,
        buffer: &mut Buffer,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        while self.sent < offset {
            tick()?;
            let want = (offset - self.sent).min(LOOK_MOST as u64) as usize;
            let bytes = buffer.read(&self.file, self.sent, want)?;
            if bytes.is_empty() {
                break;
            }
            self.scanner.written(clock::written(&self.file.metadata()?));
            self.scanner.take(bytes);
            self.running.update(bytes);
            self.sent += bytes.len() as u64;
        }
        self.marked = self.scanner.boundary().map_or(0, |mark| mark.offset);
        Ok(())
    }
}

impl Buffer {
    /// Reads up to `want` bytes at an offset.
    pub(super) fn read(&mut self, file: &File, offset: u64, want: usize) -> io::Result<&[u8]> {
        if self.bytes.len() < want {
            self.bytes.resize(want, 0);
        }
        self.length = 0;
        self.length = read_at(file, &mut self.bytes[..want], offset)?;
        self.at = offset;
        Ok(&self.bytes[..self.length])
    }

    /// Makes sure that `want` bytes at an offset are in the buffer, as they were when they were checked if they still
    /// are; returns where they begin. Fewer are there when the file is shorter.
    pub(super) fn hold(&mut self, file: &File, offset: u64, want: usize) -> io::Result<usize> {
        if offset >= self.at && offset + want as u64 <= self.at + self.length as u64 {
            return Ok((offset - self.at) as usize);
        }
        if self.read(file, offset, want)?.len() < want {
            self.bytes.truncate(self.length);
        }
        Ok(0)
    }
}

/// How far a file is complete, checked records, of which the scanner has seen some.
pub(super) fn safe_extent(file: &File, mut scanner: Scanner) -> io::Result<u64> {
    if let Scanner::Raw(_) = scanner {
        return Ok(file.metadata()?.len());
    }
    scanner.rewind();
    let mut buffer = vec![0; LOOK_MOST];
    while scanner.is_hungry() {
        match read_at(file, &mut buffer, scanner.at())? {
            0 => break,
            count => scanner.take(&buffer[..count]),
        }
    }
    Ok(scanner.safe())
}

/// The end of a hole that begins at an offset and is worth a frame of its own; `None` when data is there.
pub(super) fn next_data(file: &File, offset: u64, stop: u64) -> Option<u64> {
    const WORTH: u64 = 4096;
    let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data.min(stop),
        Err(rustix::io::Errno::NXIO) => stop,
        // The file system cannot tell.
        Err(_) => return None,
    };
    (data >= offset + WORTH).then_some(data)
}
