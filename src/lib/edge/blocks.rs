//! The content of files by ranges: where there is data and where holes are, and reads and writes at offsets that say how
//! far they got.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{self, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// Zeros for holes where there can be none.
const ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The ranges of a file that hold data, in order; between them are holes. See [`data`].
#[derive(Debug)]
pub struct Extents<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

/// The ranges with data between two offsets. A file system that knows no holes has data everywhere; nothing is behind the
/// end of the file. Moves the file's own offset, which nothing here goes by.
pub fn data(file: &File, from: u64, to: u64) -> io::Result<Extents<'_>> {
    let end = to.min(file.metadata()?.len());
    Ok(Extents { file, at: from.min(end), end })
}

impl Extents<'_> {
    fn find(&mut self) -> io::Result<Option<Range<u64>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let begin = match fs::seek(self.file, SeekFrom::Data(self.at)) {
            Ok(begin) => begin,
            // No more data: a hole up to the end.
            Err(Errno::NXIO) => self.end,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.at,
            Err(error) => return Err(error.into()),
        };
        if begin >= self.end {
            self.at = self.end;
            return Ok(None);
        }
        let end = match fs::seek(self.file, SeekFrom::Hole(begin)) {
            Ok(end) => end.min(self.end),
            // It has become shorter: a reader sees that for itself.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => self.end,
            Err(error) => return Err(error.into()),
        };
        self.at = end;
        Ok(Some(begin..end))
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find();
        if found.is_err() {
            self.at = self.end;
        }
        found.transpose()
    }
}

/// Makes a range of a file read as zeros, as a hole where the file system can; never changes the file's length.
pub fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let length = length.min(file.metadata()?.len().saturating_sub(offset));
    if length == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::io::retry_on_intr(|| fs::fallocate(file, flags, offset, length)) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, offset, length),
        Err(error) => Err(error.into()),
    }
}

fn write_zeros(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let mut written = 0;
    while written < length {
        let count = (length - written).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..count as usize], offset + written)?;
        written += count;
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends; says how many bytes.
pub fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all bytes at an offset. One that no file can have is an error before anything is written.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let end = offset.checked_add(bytes.len() as u64);
    if end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(io::Error::from_raw_os_error(Errno::FBIG.raw_os_error()));
    }
    file.write_all_at(bytes, offset)
}
