//! The content of files by ranges: where there is data and where holes are, and reads and writes at offsets that say how
//! far they got.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{self, Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// Zeros for holes where there can be none.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

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

/// Lets writing to the disk begin, without waiting for it: what a later sync finds done need not be done then.
pub fn begin_writeback(file: &File, offset: u64, length: u64) {
    // "Not needed" is what Linux understands as that; it lets go only of pages that are clean already. A file system that
    // takes no advice writes later.
    let _ = fs::fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}

/// Writes all bytes at an offset. One that no file can have is an error before anything is written.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let end = offset.checked_add(bytes.len() as u64);
    if end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(io::Error::from_raw_os_error(Errno::FBIG.raw_os_error()));
    }
    file.write_all_at(bytes, offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::read::read_at;
    use std::os::unix::fs::MetadataExt as _;

    const GIB: u64 = 1 << 30;

    fn ranges(file: &File, from: u64, to: u64) -> Vec<Range<u64>> {
        data(file, from, to).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn holes_are_found_also_beyond_four_gibibytes() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(ranges(&file, 0, u64::MAX), []);
        file.set_len(9 * GIB).unwrap();
        assert_eq!(ranges(&file, 0, u64::MAX), []);
        let written = [0..1 << 16, 5 * GIB..5 * GIB + (1 << 16)];
        for range in &written {
            write_all_at(&file, &vec![7; 1 << 16], range.start).unwrap();
        }
        assert_eq!(ranges(&file, 0, u64::MAX), written);
        assert_eq!(ranges(&file, 10, 5 * GIB + 5), [10..1 << 16, 5 * GIB..5 * GIB + 5]);
        assert_eq!(ranges(&file, 1 << 16, 5 * GIB), []);
        assert_eq!(ranges(&file, 10 * GIB, 11 * GIB), []);
    }

    #[test]
    fn what_is_punched_reads_as_zeros_and_the_length_stays() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, &vec![7; 1 << 17], 0).unwrap();
        let before = file.metadata().unwrap();
        punch(&file, 1 << 15, 1 << 16).unwrap();
        punch(&file, 1 << 30, 5).unwrap();
        punch(&file, (1 << 17) - 1, u64::MAX).unwrap();
        let after = file.metadata().unwrap();
        assert_eq!(after.len(), before.len());
        assert!(after.blocks() < before.blocks());
        let mut read = vec![1; 1 << 18];
        assert_eq!(read_at(&file, &mut read, 0).unwrap(), 1 << 17);
        let zeros: Vec<usize> = (0..1 << 17).filter(|at| read[*at] == 0).collect();
        assert!(zeros.into_iter().eq(((1 << 15)..(1 << 15) + (1 << 16)).chain([(1 << 17) - 1])));
    }

    #[test]
    fn without_holes_zeros_are_written() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, &vec![7; 200_000], 0).unwrap();
        write_zeros(&file, 10, 150_000).unwrap();
        let mut read = vec![1; 200_000];
        read_at(&file, &mut read, 0).unwrap();
        assert!(read.iter().enumerate().all(|(at, byte)| (*byte == 0) == (10..150_010).contains(&at)));
    }

    #[test]
    fn short_reads_at_the_end_are_told_and_offsets_that_cannot_be_are_refused() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"12345", 0).unwrap();
        let mut read = [0; 4];
        assert_eq!(read_at(&file, &mut read, 3).unwrap(), 2);
        assert_eq!(read, *b"45\0\0");
        assert_eq!(read_at(&file, &mut read, 100).unwrap(), 0);
        for offset in [u64::MAX, u64::MAX - 2, 1 << 63, (1 << 63) - 1] {
            assert!(write_all_at(&file, b"1234", offset).is_err(), "{offset}");
        }
        assert_eq!(file.metadata().unwrap().len(), 5);
    }
}
