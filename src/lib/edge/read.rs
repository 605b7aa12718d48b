//! Reads at offsets of files that others may be writing, growing or cutting: never through a mapping, which a file that
//! shrinks would turn into a bus error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::value::digest::Running;

/// Reads until the buffer is full or the file ends; returns how much was read.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read_at(&mut buffer[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Hashes up to `length` bytes from the beginning of a file, and shows each piece to `see` as well. `running` is of no
/// bytes yet.
pub fn prefix_with(file: &File, mut running: Running, length: u64, mut see: impl FnMut(&[u8])) -> io::Result<Running> {
    let mut buffer = vec![0; length.min(1 << 18) as usize];
    while running.length() < length {
        let want = (length - running.length()).min(buffer.len() as u64) as usize;
        match read_at(file, &mut buffer[..want], running.length())? {
            0 => break,
            count => {
                running.update(&buffer[..count]);
                see(&buffer[..count]);
            }
        }
    }
    Ok(running)
}

/// Hashes up to `length` bytes from the beginning of a file.
pub fn prefix(file: &File, running: Running, length: u64) -> io::Result<Running> {
    prefix_with(file, running, length, |_| {})
}
